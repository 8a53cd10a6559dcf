"""The people in the target, numbered: who goes, who stays; and things that a click outlines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from realfill.app.page.holes import add_to_hole, read_hole, save_hole
from realfill.app.page.jobs import Job
from realfill.app.page.records import RefusedError
from realfill.app.page.uploads import photo_folder, photo_path
from realfill.app.page.visits import Visit
from realfill.errors import SceneError
from realfill.io.files import whole_file, write_text
from realfill.io.images import MaskArray, read_image
from realfill.segmentation.detection import PEOPLE, find_instances
from realfill.segmentation.instances import Instance, Instances
from realfill.segmentation.preview import draw_instances
from realfill.segmentation.selection import mask_from


def find_people(visit: Visit, job: Job, *, device: str | None) -> None:
    """Find the people in the target, and number them.

    Raises:
        RefusedError: there is no target, or nobody is found.
        CancelledError: the visitor cancelled.
    """
    if visit.target is None:
        raise RefusedError("choose the photo to complete first")
    image, _ = read_image(photo_path(visit, visit.target), "the photo")
    everything = find_instances(image, device=device, local_files_only=True)
    job.require_wanted()
    found = Instances.ordered(
        everything.of(PEOPLE), size=everything.size, detector=everything.detector, threshold=everything.threshold
    )
    if not found:
        raise RefusedError(f"{found.detector} finds nobody in this photo; mark who is to go with the brush or a click")
    _save(visit, found)
    picture = draw_instances(image, found)
    with whole_file(people_picture(visit)) as partial, partial.open("wb") as stream:
        Image.fromarray(np.ascontiguousarray(picture)).save(stream, format="JPEG", quality=88)
    with visit.changed():
        visit.people = {person.number: f"{person.number}: {person.name}, score {person.score:.2f}" for person in found}
        visit.chosen = []


def choose(visit: Visit, numbers: list[int]) -> None:
    """Say who goes; the others stay, and what was drawn by hand stays too.

    Raises:
        RefusedError: a number does not exist, or nothing would be left of the photo.
    """
    found = _load(visit)
    if found is None:
        raise RefusedError("find the people first")
    before, after = _mask(found, visit.chosen), _mask(found, numbers)
    hole = read_hole(visit)
    hole = np.zeros(found.size, bool) if hole is None else hole
    with visit.changed():
        save_hole(visit, (hole & ~before) | after)
        visit.chosen = sorted(numbers)


def outline_at(visit: Visit, x: float, y: float) -> str:
    """Mark the person or the thing at a point of the target.

    If people were found, a click on one chooses who goes or stays; elsewhere the thing is outlined by GrabCut.

    Args:
        visit: the visit.
        x: share of the width, in [0, 1].
        y: share of the height, in [0, 1].

    Returns:
        What was marked, in a few words.

    Raises:
        RefusedError: the point lies outside of the photo, or nothing can be outlined there.
    """
    if visit.target is None or not (0 <= x < 1 and 0 <= y < 1):
        raise RefusedError("the point lies outside of the photo")
    height, width = visit.target.size
    point = (x * width, y * height)
    said = _toggle_at(visit, point)
    if said is not None:
        return said
    image, _ = read_image(photo_path(visit, visit.target), "the photo")
    found = find_instances(image, clicks=[point])
    if not found:
        raise RefusedError("nothing can be outlined there; use the brush")
    add_to_hole(visit, mask_from(found).mask)
    return "the thing is marked"


def _toggle_at(visit: Visit, point: tuple[float, float]) -> str | None:
    """Let the person at a point go, or stay; ``None`` if no person was found there."""
    found = _load(visit)
    person = found.at(point) if found is not None else None
    if person is None:
        return None
    goes = person.number not in visit.chosen
    numbers = [*visit.chosen, person.number] if goes else [n for n in visit.chosen if n != person.number]
    choose(visit, numbers)
    return f"person {person.number} {'goes' if goes else 'stays'}"


def people_picture(visit: Visit) -> Path:
    """Return the file of the picture with the numbers."""
    return photo_folder(visit) / "people.jpg"


def _mask(found: Instances, numbers: list[int]) -> MaskArray:
    if not numbers:
        return np.zeros(found.size, bool)
    stays = [person.number for person in found if person.number not in numbers]
    try:
        return mask_from(found, numbers=numbers, keep=stays).mask
    except (SceneError, ValueError) as error:
        raise RefusedError(str(error)) from error


def _save(visit: Visit, found: Instances) -> None:
    """Keep the outlines in files, so that another day still knows who has which number."""
    folder = photo_folder(visit)
    facts = [{"name": i.name, "score": i.score, "box": i.box, "detector": i.detector} for i in found]
    np.savez_compressed(folder / "people.npz", *(i.cut for i in found))
    target = visit.target.file if visit.target is not None else ""
    values = {"target": target, "size": found.size, "detector": found.detector, "threshold": found.threshold,
              "people": facts}  # fmt: skip
    write_text(folder / "people.json", json.dumps(values) + "\n")


def _load(visit: Visit) -> Instances | None:
    """Read what ``_save`` kept; ``None`` if there is nothing for this target."""
    folder = photo_folder(visit)
    if not visit.people or visit.target is None or not (folder / "people.json").is_file():
        return None
    values = json.loads((folder / "people.json").read_text(encoding="utf-8"))
    if values["target"] != visit.target.file:
        return None
    size = (values["size"][0], values["size"][1])
    with np.load(folder / "people.npz") as cuts:
        items = tuple(
            Instance(
                number=number, name=facts["name"], score=facts["score"], box=tuple(facts["box"]),
                cut=cuts[f"arr_{number}"], size=size, detector=facts["detector"],
            )
            for number, facts in enumerate(values["people"])
        )  # fmt: skip
    return Instances(items=items, size=size, detector=values["detector"], threshold=values["threshold"])
