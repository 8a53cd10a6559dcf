"""Does a base model paint people into what it fills, and does adapting it change that? Measured on planted people.

    python examples/adapt_study.py PHOTOS -o OUT --base mini
    python examples/adapt_people.py PHOTOS OUT

For each run that ``adapt_study.py`` has finished in OUT, a person is pasted into each photo that the run kept out, and
removed again by the base model and by the adapted one. Prints how often the detector finds a person in the hole. If it
finds less than 80 % of the planted people, that is not measurable with this detector, and the script says so.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
from planted_instances import ENOUGH, PHOTO_PX, Case, astronaut, cut_outs, find_planted, plant
from scipy.stats import binomtest

from realfill.filling.unfitted import UnfittedBase
from realfill.io.images import ImageArray, MaskArray, fit_within, read_image, resize
from realfill.models.diffusion.adapter import Adapter
from realfill.scene.masks import dilate
from realfill.segmentation.detection import Detector, find_instances, load_detector
from realfill.segmentation.instances import Instance
from realfill.segmentation.selection import default_dilation_px
from realfill.training.photo_folder import list_photos

HEIGHTS, PLACES = (0.9, 0.6), (0.2, 0.5, 0.8)  # of the person, in turn
ARMS = ("base", "adapted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("study", type=Path, help="output folder of adapt_study.py")
    parser.add_argument("--people", type=Path, help="folder of photos whose people are pasted; else the astronaut")
    parser.add_argument("--detector", default="offline")
    parser.add_argument("--limit", type=int, help="number of photos of each run; None: all")
    options = parser.parse_args()
    detector = load_detector(options.detector)
    people = cut_outs(options.people, detector) if options.people else [astronaut()]
    paths = {path.name: path for path in list_photos(options.photos)}
    found: list[bool] = []
    seen: dict[str, list[bool]] = {arm: [] for arm in ARMS}
    for folder in sorted(path.parent for path in options.study.glob("seed*-fold*/values.json")):
        names = json.loads((folder / "values.json").read_text(encoding="utf-8"))["photos"]
        engines = {"base": UnfittedBase.load(Adapter.load(folder).base), "adapted": UnfittedBase.load(str(folder))}
        for i, name in enumerate(islice(names, options.limit)):
            case = make_case(read_image(paths[name])[0], people[i % len(people)], i)
            found.append(find_planted(case, detector) is not None)
            hole = grown(case)
            for arm, engine in engines.items():
                seen[arm].append(shows_person(engine.fill(case.photo, hole, [0])[0], hole, detector))
        print(f"{folder.name}: {sum(found)} of {len(found)} planted people found, {counts(seen)}", flush=True)
    print(report(found, seen, detector.name))


def make_case(photo: ImageArray, person: tuple[ImageArray, MaskArray], number: int) -> Case:
    small = resize(photo, fit_within(photo.shape[:2], PHOTO_PX))
    return plant(small, *person, HEIGHTS[number % len(HEIGHTS)], PLACES[number % len(PLACES)])


def grown(case: Case) -> MaskArray:
    """Grow the true outline as ``mask_from`` does."""
    return dilate(
        case.outline, default_dilation_px(Instance.of_mask(case.outline, name="person", score=1, detector=""))
    )


def shows_person(image: ImageArray, hole: MaskArray, detector: Detector) -> bool:
    """Tell whether the detector finds a person of whom at least half lies in the hole."""
    people = find_instances(image, detector=detector).of(("person",))
    inside = Instance.of_mask(hole, name="hole", score=1, detector="")
    return any(2 * person.overlap_px(inside) >= person.area_px for person in people)


def counts(seen: dict[str, list[bool]]) -> str:
    return ", ".join(f"{arm} {sum(values)}" for arm, values in seen.items())


def report(found: list[bool], seen: dict[str, list[bool]], detector: str) -> str:
    """Make the table, or say why there is none."""
    share = np.mean(found)
    if share < ENOUGH:
        return (
            f"Not measurable here: {detector} finds {100 * share:.0f} % of {len(found)} planted people, and "
            f"{100 * ENOUGH:.0f} % are needed."
        )
    rows = ["| filled by | a person in the hole | 95 % interval |", "|---|---|---|"]
    for arm, values in seen.items():
        low, high = binomtest(sum(values), len(values)).proportion_ci(method="wilson")
        rows.append(f"| {arm} | {sum(values)} of {len(values)} | {100 * low:.0f} to {100 * high:.0f} % |")
    return f"{detector} finds {sum(found)} of {len(found)} planted people.\n\n" + "\n".join(rows)


if __name__ == "__main__":
    main()
