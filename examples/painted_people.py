"""Does removing a person paint another one?  ``python examples/painted_people.py [--cases 12] [--seeds 2]``.

The planted people of ``planted_instances.py`` are removed with their true outlines, and the offline detector looks at
the results. Printed:

1. what the detectors that need no weights are worth here: the planted people that each finds, and how often it finds
   somebody in the photos without them. Below 80 %, a share of painted people is not measurable by that detector;
2. the share of results of the packaged base without a fit in which a person is found in the hole: for several
   dilations, for a prompt that names the background, and with guidance away from a person;
3. what the choice among candidates and the second pass are worth, if an engine does paint people: a stand-in, which
   pastes the planted person back into the hole for two of three seeds, smaller than before, and else fills by Telea's
   method. Here it is known whether a result shows a person.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import skimage.color
import skimage.data
from planted_instances import ENOUGH, PHOTO_PX, Case, astronaut, cases

from realfill.compute.progress import OnStep
from realfill.config import SampleSettings
from realfill.filling.unfitted import UnfittedBase
from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.models.classical import Telea
from realfill.pipeline import erase
from realfill.scene.mask_reading import MaskReading
from realfill.scene.masks import bounding_box, dilate
from realfill.segmentation.detection import find_instances, load_detector
from realfill.segmentation.instances import Instance
from realfill.segmentation.proposals import Proposal, propose_faces, propose_figures
from realfill.segmentation.selection import default_dilation_px

SCORE = 0.5
SMALLER = 0.7  # size of the stand-in's person, as a share of the planted one
DETECTOR = load_detector("offline")


@dataclasses.dataclass
class PaintsPeople:
    """A stand-in for a base that paints people: it pastes the person it is given, for two of three seeds."""

    case: Case

    def fill(
        self, image: ImageArray, hole: MaskArray, seeds: Sequence[int], *, on_step: OnStep | None = None
    ) -> list[ImageArray]:
        """Fill the hole once for each seed; see ``Engine.fill``."""
        (plain,) = Telea().fill(image, hole, [0], on_step=on_step)
        top, left, bottom, right = bounding_box(self.case.outline)
        size = (round(SMALLER * (bottom - top)), round(SMALLER * (right - left)))
        inset = left + (right - left - size[1]) // 2
        place = (slice(bottom - size[0], bottom), slice(inset, inset + size[1]))
        soft = cv2.resize(self.case.opacity[top:bottom, left:right], size[::-1], interpolation=cv2.INTER_AREA)
        person = resize(self.case.photo[top:bottom, left:right], size)
        painted = plain.copy()
        painted[place] = (soft[..., None] * person + (1 - soft[..., None]) * plain[place]).round()
        return [plain if self.is_clean(seed) else np.where(hole[..., None], painted, image) for seed in seeds]

    @staticmethod
    def is_clean(seed: int) -> bool:
        """Tell whether the result of a seed shows nobody."""
        return seed % 3 == 2


def report_detectors(planted: list[Case]) -> str:
    """Measure each detector on planted people, and on the photos without them."""
    rows = ["| detector | planted people found | found where nobody is | measurable |", "|---|---|---|---|"]
    parts: dict[str, Callable[[ImageArray], list[Proposal]]] = {
        "faces (scikit-image)": propose_faces,
        "figures (OpenCV)": propose_figures,
        "both": lambda image: [*propose_faces(image), *propose_figures(image)],
    }
    empty = {case.behind.tobytes(): case.behind for case in planted}.values()
    for name, propose in parts.items():
        found = sum(any(_shows(p, case) for p in propose(case.photo)) for case in planted)
        wrong = sum(any(p.score >= SCORE for p in propose(photo)) for photo in empty)
        verdict = "yes" if found >= ENOUGH * len(planted) else "no"
        rows.append(f"| {name} | {found} of {len(planted)} | {wrong} of {len(empty)} photos | {verdict} |")
    return "\n".join([*rows, f"| GrabCut | 0 of {len(planted)}, since it needs a box | - | no |"])


def _shows(proposal: Proposal, case: Case) -> bool:
    """Tell whether a proposal counts, and half of its box, or of its face, lies on the planted person."""
    box = proposal.face or proposal.box
    part = case.outline[max(0, box[0]) : box[2], max(0, box[1]) : box[3]]
    return proposal.score >= SCORE and part.size > 0 and part.mean() > 0.5


def report_base(planted: list[Case], seeds: Sequence[int]) -> str:
    """Count the results of the packaged base in which the detector finds a person in the hole."""
    base = UnfittedBase.load("mini", local_files_only=True)
    plain = dataclasses.replace(base.sample, guidance_from="negative_prompt", guidance_scale=1.0)
    away = dataclasses.replace(plain, negative_prompt="a person", guidance_scale=3.0, stage_guidance=(3.0,))
    arms: dict[str, tuple[int | None, SampleSettings]] = {
        "no dilation": (0, plain),
        "dilation by size (default)": (None, plain),
        "dilation of 16 px": (16, plain),
        "prompt 'an empty place'": (None, dataclasses.replace(plain, prompt="an empty place")),
        "guidance 3 away from 'a person'": (None, away),
    }
    rows = ["| packaged base without a fit | a person in the hole | difference to the default |", "|---|---|---|"]
    default: list[ImageArray] = []
    for name, (growth, sample) in arms.items():
        engine, results, seen = dataclasses.replace(base, sample=sample), [], 0
        for case in planted:
            mask = _grown(case, growth)
            images = engine.fill(case.photo, mask, seeds)
            seen += sum(_has_person(image, mask) for image in images)
            results.append(images[0])
        default = results if growth is None and not default else default
        change = "-" if growth is not None or not default else f"{_change(results, default, planted):.1f} levels"
        rows.append(f"| {name} | {seen} of {len(planted) * len(seeds)} | {change} |")
    return "\n".join(rows)


def report_choice(planted: list[Case]) -> str:
    """Count the people that a stand-in paints, by number of seeds and with the second pass."""
    rows = ["| an engine that paints people, 2 of 3 times | results with a person |", "|---|---|"]
    arms = {
        "one seed, no detector": ((0,), False),
        "one seed, second pass": ((0,), True),
        "three seeds, the detector chooses": ((0, 1, 2), True),
    }
    for name, (seeds, looks) in arms.items():
        results = [
            erase(
                case.photo, MaskReading(mask=_grown(case, None), source="planted"), engine=PaintsPeople(case),
                seeds=seeds, detector=DETECTOR, second_pass=looks,
            )
            for case in planted
        ]  # fmt: skip
        shown = sum(not PaintsPeople.is_clean(result.completion.seed or 0) for result in results)
        rows.append(f"| {name} | {shown} of {len(results)} |")
    return "\n".join(rows)


def _grown(case: Case, by_px: int | None) -> MaskArray:
    instance = Instance.of_mask(case.outline, name="person", score=1, detector="planted")
    return dilate(case.outline, default_dilation_px(instance) if by_px is None else by_px)


def _has_person(image: ImageArray, hole: MaskArray) -> bool:
    people = find_instances(image, detector=DETECTOR).of(("person",))
    return any(2 * (hole[p.place] & p.cut).sum() >= p.area_px for p in people)


def _change(results: list[ImageArray], default: list[ImageArray], planted: list[Case]) -> float:
    """Return the mean absolute difference of two arms in the hole, in levels of 255."""
    return float(np.mean([
        np.abs(one[case.outline].astype(float) - other[case.outline]).mean()
        for one, other, case in zip(results, default, planted, strict=True)
    ]))  # fmt: skip


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12, help="planted people, at most 12")
    parser.add_argument("--seeds", type=int, default=2, help="results of the base for each of them")
    options = parser.parse_args()
    photos = [
        skimage.data.coffee(), skimage.data.rocket(), skimage.data.chelsea(),
        skimage.color.gray2rgb(skimage.data.gravel()),
    ]  # fmt: skip
    planted = list(cases([resize(p, fit_within(p.shape[:2], PHOTO_PX)) for p in photos], [astronaut()]))
    planted = planted[: options.cases]
    for table in (report_detectors, report_choice, lambda chosen: report_base(chosen, range(options.seeds))):
        print(table(planted), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
