"""Do people who walk through the references end up in the result?  ``python examples/planted_walkers.py``.

Each case is one place, photographed several times by a camera that moves: a photo of scikit-image, seen by known
homographies. People are planted into every view, with the soft edge of a camera. In half of the cases they walk, so
that each view shows them elsewhere; in the other half somebody poses at the same spot in every view, so that no photo
shows the place behind. The person in the target is erased, with the true outline, with and without hiding the people
that the offline detector finds in the references.

Printed: how many of the people in the references the detector finds; the PSNR in the hole; the share of results in
which the detector finds a person in the hole; and the PSNR with the detector's own outline, by how much it is grown.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from planted_instances import ENOUGH, Case, astronaut, plant

from realfill import erase
from realfill.config.engine import EraseEngineName
from realfill.errors import RealFillWarning
from realfill.io.images import fit_within, resize
from realfill.pipeline.strangers import find_rest, find_strangers
from realfill.results.erasure import Erasure
from realfill.scene.mask_reading import MaskReading
from realfill.scene.masks import dilate
from realfill.segmentation.detection import PEOPLE, Detector, find_instances, load_detector
from realfill.segmentation.instances import Instance
from realfill.segmentation.selection import default_dilation_px, mask_from

PHOTO_PX = 480
GROWTHS = (0.01, 0.03, 0.05, 0.08)  # of an outline, as shares of its longer side
PATHS = {  # where the person is in the target and in each reference, from 0, the left edge, to 1
    "walks": (0.5, 0.15, 0.42, 0.85),
    "poses": (0.5, 0.5, 0.5, 0.5),
}
HEIGHTS = (0.62, 0.55, 0.66, 0.5)  # of the person, as shares of the photo's height
CAMERAS = (  # homographies from the target to each reference, in shares of its width
    ((1.02, 0.03, -0.02), (-0.02, 1.01, 0.01), (0.03, 0.0, 1)),
    ((0.97, -0.02, 0.03), (0.02, 0.98, -0.01), (-0.02, 0.02, 1)),
    ((1.06, 0.0, -0.05), (0.01, 1.05, -0.02), (0.0, -0.03, 1)),
)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A place with people in every view.

    Attributes:
        name: of the place, and what the people do.
        target: the view to clean.
        references: the other views, (H, W, 3) uint8.
        people: the true outlines of the people in the references.
    """

    name: str
    target: Case
    references: list[np.ndarray]
    people: list[np.ndarray]

    @property
    def reading(self) -> MaskReading:
        """The true outline in the target, grown by its size."""
        return MaskReading(mask=grown(self.target.outline), source="the planted person")


def grown(outline: np.ndarray, by_px: int | None = None) -> np.ndarray:
    """Grow an outline by a number of pixels, or by its size."""
    instance = Instance.of_mask(outline, name="person", score=1, detector="planted")
    return dilate(outline, default_dilation_px(instance) if by_px is None else by_px)


def places() -> dict[str, np.ndarray]:
    """Photos that stand for places, (H, W, 3) uint8."""
    brick = np.repeat(skimage.data.brick()[:, :, None], 3, axis=2)
    return {"coffee": skimage.data.coffee(), "rocket": skimage.data.rocket(), "brick": brick}


def walk(name: str, place: np.ndarray, kind: str) -> Walk:
    """Photograph a place with people in it."""
    place = resize(place, fit_within(place.shape[:2], PHOTO_PX))
    cut, mask = astronaut()
    views = [place, *(_seen_by(camera, place) for camera in CAMERAS)]
    cases = [
        plant(view, cut[:, ::-1] if i % 2 else cut, mask[:, ::-1] if i % 2 else mask, HEIGHTS[i], x)
        for i, (view, x) in enumerate(zip(views, PATHS[kind], strict=True))
    ]
    return Walk(
        name=f"{name}, {kind}", target=cases[0], references=[case.photo for case in cases[1:]],
        people=[case.outline for case in cases[1:]],
    )  # fmt: skip


def _seen_by(camera: tuple[tuple[float, ...], ...], place: np.ndarray) -> np.ndarray:
    scale = np.diag([place.shape[1], place.shape[1], 1.0])
    matrix = scale @ np.array(camera) @ np.linalg.inv(scale)
    return cv2.warpPerspective(
        place, matrix, place.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )  # fmt: skip


def psnr(image: np.ndarray, walked: Walk) -> float:
    """PSNR in dB where the person was."""
    where = walked.target.opacity > 0
    error = np.mean((image[where].astype(float) - walked.target.behind[where]) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def report_strangers(walks: list[Walk], detector: Detector) -> str:
    """Count the people in the references that the detector finds, which are those that can be hidden."""
    found = planted = 0
    for walked in walks:
        for person, hidden in zip(
            walked.people, find_strangers(walked.references, PEOPLE, detector), strict=True
        ):  # fmt: skip
            planted += 1
            found += hidden.mask is not None and (hidden.mask & person).sum() > person.sum() / 2
    share = found / planted
    verdict = "" if share >= ENOUGH else f"; {ENOUGH:.0%} are needed, so the shares below are not measurable"
    return f"{detector.name} finds {found} of {planted} people in the references{verdict}"


def report_engines(walks: list[Walk], detector: Detector, out: Path | None) -> str:
    """Erase with the composite and with Telea's method, with and without hiding the people in the references."""
    rows = [
        "| they | filled by | people in references | PSNR (dB) | a person in the hole |",
        "|---|---|---|---|---|",
    ]
    arms: list[tuple[EraseEngineName, bool]] = [("composite", True), ("composite", False), ("telea", True)]
    pictures: dict[str, list[np.ndarray]] = {walked.name: [walked.target.photo] for walked in walks}
    for kind in PATHS:
        chosen = [walked for walked in walks if walked.name.endswith(kind)]
        for engine, hides in arms:
            results = [_erased(walked, detector, engine=engine, hides=hides) for walked in chosen]
            seen = sum(find_rest(r.completion, PEOPLE, detector).any() for r in results)
            values = [psnr(r.image, walked) for r, walked in zip(results, chosen, strict=True)]
            for walked, result in zip(chosen, results, strict=True):
                pictures[walked.name].append(result.image)
            told = "not used" if engine == "telea" else "hidden" if hides else "not hidden"
            rows.append(f"| {kind} | {engine} | {told} | {np.mean(values):.2f} | {seen} of {len(results)} |")
    if out is not None:
        _write(out / "walkers.png", list(pictures.values()))
    return "\n".join(rows)


def report_growth(walks: list[Walk], detector: Detector, out: Path | None) -> str:
    """Erase those who walk with the detector's outline, grown by several shares of its size, with the composite."""
    rows = ["| outline grown by | of the person left | PSNR (dB) |", "|---|---|---|"]
    chosen = [walked for walked in walks if walked.name.endswith("walks")]
    pictures = [[walked.target.photo] for walked in chosen]
    for growth in GROWTHS:
        left, values = [], []
        for walked, strip in zip(chosen, pictures, strict=True):
            people = find_instances(walked.target.photo, detector=detector)
            result = _erased(walked, detector, mask=mask_from(people, growth=growth))
            person = walked.target.outline
            left.append(float((person & ~result.mask).sum() / person.sum()))
            values.append(psnr(result.image, walked))
            strip.append(result.image)
        rows.append(f"| {growth:.0%} | {np.mean(left):.1%} | {np.mean(values):.2f} |")
    if out is not None:
        _write(out / "walkers_growth.png", pictures)
    return "\n".join(rows)


def _erased(
    walked: Walk, detector: Detector, *, engine: EraseEngineName = "composite", hides: bool = True,
    mask: MaskReading | None = None,
) -> Erasure:  # fmt: skip
    return erase(
        walked.target.photo, mask or walked.reading, walked.references if engine == "composite" else (),
        engine=engine, detector=detector, hide_strangers=hides, progress=False,
    )  # fmt: skip


def _write(path: Path, strips: list[list[np.ndarray]]) -> None:
    rows = [np.hstack([resize(image, (240, 300)) for image in strip]) for strip in strips]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", nargs="+", default=list(places()), choices=list(places()))
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the results")
    options = parser.parse_args()
    warnings.simplefilter("ignore", RealFillWarning)
    detector = load_detector("offline")
    walks = [walk(name, place, kind) for name, place in places().items() if name in options.places for kind in PATHS]
    print(report_strangers(walks, detector), end="\n\n", flush=True)
    print(report_engines(walks, detector, options.pictures), end="\n\n", flush=True)
    print(report_growth(walks, detector, options.pictures))


if __name__ == "__main__":
    main()
