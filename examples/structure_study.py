"""Which parts of the structure recipe of ``adapt`` help, each alone and together, when objects are removed?

Objects whose outlines are known are planted in photos: patches of other photos, cut out as ellipses and polygons with
soft edges. The base model is adapted to planted photos with each part of the recipe. Then objects are removed from
planted photos that were kept out of training and of pre-training (``examples/holdout.txt``), small ones and large ones,
and the result is compared with the photo without the object.

    python examples/structure_study.py PHOTOS -o OUT --base mini

Finished arms are kept in the output folder, and the same command goes on with the others. It prints tables of the
metrics and of what each part adds, which it also writes to ``table.md`` after each arm, and draws ``pictures.png``.
Like ``adapt`` itself, an arm keeps the weights of the base model if no epoch has a lower validation loss, and the best
state of a combiner by its own error. The table marks such arms, and ``--keep last`` measures them all the same. KID is
computed from histograms of oriented gradients (scikit-image), because the usual Inception network is not available
offline; its values are comparable within the table only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from holdout import HOLDOUT
from skimage.feature import hog

from realfill import AdaptConfig, Adapter, SampleConfig, adapt
from realfill.benchmark import metrics
from realfill.errors import BaseModelError, MissingDependencyError, SceneError
from realfill.filling.unfitted import UnfittedBase
from realfill.io.files import write_text
from realfill.io.images import ImageArray, MaskArray, fit_within, read_image, resize
from realfill.io.writing import write_png
from realfill.models.perceptual import load_lpips
from realfill.results.pictures import image_grid
from realfill.scene.masks import bounding_box, dilate, random_mask
from realfill.segmentation.instances import Instance

PHOTO_PX, THUMB_PX, SOFT_PX = 512, 16, 1.0
SIZES = {"small": 0.2, "large": 0.55}  # of an object, as a share of the photo's shorter side
GROWTH_PX, BAND_PX, FEATURE_PX = 4, 6, 64
NUM_SHOWN, NUM_DRAWS = 4, 2000
DIGITS = {"PSNR dB": 2, "GMSD": 4, "boundary": 2, "LPIPS": 3}
LOSS, GUIDED = (0.2,), {"guidance_from": "foreground", "guidance_scale": 2.0, "stage_guidance": (1.5, 1.0)}
CATEGORIES = {"num_category_tokens": 10}
ARMS: dict[str, dict] = {
    "LoRA alone": {},
    "categories": CATEGORIES,
    "categories, guided": CATEGORIES,
    "three stages": {"num_stages": 3},
    "three stages and combiner": {"num_stages": 3, "combiner": True},
    "noise loss without mask weights": {"visible_weight": 1.0},
    "image loss": {"image_weight": LOSS},
    "boundary loss": {"boundary_weight": LOSS},
    "consistency loss": {"consistency_weight": LOSS},
    "all losses": {"image_weight": LOSS, "boundary_weight": LOSS, "consistency_weight": LOSS},
    "all losses, ten times": {"image_weight": (2.0,), "boundary_weight": (2.0,), "consistency_weight": (2.0,)},
    "all": {"preset": "structure"},
    "all, guided": {"preset": "structure"},
}
UNTRAINED: dict[str, int] = {"base": 1, "base, three stages": 3}  # number of stages to fill in
PAIRS = (
    ("base, three stages", "base"), ("LoRA alone", "base"), ("categories", "LoRA alone"),
    ("categories, guided", "categories"), ("three stages", "base, three stages"),
    ("three stages and combiner", "three stages"), ("noise loss without mask weights", "LoRA alone"),
    ("image loss", "LoRA alone"), ("boundary loss", "LoRA alone"), ("consistency loss", "LoRA alone"),
    ("all losses", "LoRA alone"), ("all losses, ten times", "LoRA alone"), ("all", "base, three stages"),
    ("all, guided", "all"), ("all, guided", "base"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """A planted photo: what is seen, what is behind, and the object's outline (H, W) bool."""

    name: str
    photo: ImageArray
    behind: ImageArray
    outline: MaskArray


class PlantedDetector:
    """Knows the outlines of planted objects; recognises a photo of any size by its thumbnail."""

    name, side_px, segments, classes = "planted", 0, False, ("object",)

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases, self._thumbs = cases, np.stack([_thumbnail(case.photo) for case in cases])

    def find(self, image: ImageArray, *, lowest: float) -> list[Instance]:
        """Return the planted object."""
        del lowest
        nearest = self._cases[int(np.abs(self._thumbs - _thumbnail(image)).sum(axis=1).argmin())]
        size = image.shape[1], image.shape[0]
        mask = cv2.resize(nearest.outline.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
        return [Instance.of_mask(mask, name="object", score=1.0, detector=self.name)]

    def outline(self, image: ImageArray, **_: object) -> None:
        """Outline nothing, because nothing is marked."""


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--num-photos", type=int, default=64, help="photos to train on")
    parser.add_argument("--num-tests", type=int, default=12, help="photos to remove objects from")
    parser.add_argument("--num-epochs", type=int, default=4)
    parser.add_argument("--masks-per-photo", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--structure-learning-rate", type=float, help="of the categories and of the combiner")
    parser.add_argument("--keep", choices=["best", "last"], default="best", help="epoch that becomes the adapter")
    parser.add_argument("--device")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    training, tests = _plant_all(options)
    folder = options.output / "photos"
    folder.mkdir(exist_ok=True)
    for case in training:
        if not (folder / f"{case.name}.png").exists():
            write_png(folder / f"{case.name}.png", case.photo)
    results = {arm: _measured(options, arm, tests) for arm in UNTRAINED}
    for arm in ARMS:
        if not (options.output / _slug(arm) / "values.json").exists():
            _train(options, arm, folder, training)
        results[arm] = _measured(options, arm, tests)
        write_text(options.output / "table.md", f"{_tables(results)}\n\n{_pairs(results)}\n")
    print(_tables(results), _pairs(results), sep="\n\n")
    _draw_pictures(options.output, tests)


def _plant_all(options: argparse.Namespace) -> tuple[list[Case], list[Case]]:
    """Plant an object in each photo to train on, and a small and a large one in each photo to test on."""
    held_out = {line for line in HOLDOUT.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")}
    paths = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    others = _spread([path for path in paths if path.name not in held_out], options.num_photos)
    kept = _spread([path for path in paths if path.name in held_out], options.num_tests)
    training, shares = [], np.linspace(SIZES["small"], SIZES["large"], 7)
    photos = _read(others)
    for i, (name, photo) in enumerate(photos):
        training.append(plant(name, photo, photos[i - 1][1], float(shares[i % len(shares)]), seed=i))
    photos = _read(kept)
    tests = [
        plant(f"{name}, {size}", photo, photos[i - 1][1], share, seed=1000 + i)
        for size, share in SIZES.items() for i, (name, photo) in enumerate(photos)
    ]  # fmt: skip
    return training, tests


def _spread(paths: list[Path], count: int) -> list[Path]:
    """Choose paths at equal distances in the sorted list."""
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]


def _read(paths: Sequence[Path]) -> list[tuple[str, ImageArray]]:
    images = [(path.stem, read_image(path, path.name)[0]) for path in paths]
    return [(name, resize(image, fit_within(image.shape[:2], PHOTO_PX))) for name, image in images]


def plant(name: str, photo: ImageArray, other: ImageArray, share: float, seed: int) -> Case:
    """Paste a patch of another photo into a photo, with a soft edge.

    Args:
        name: name of the case.
        photo: (H, W, 3) uint8.
        other: the photo that the patch is cut from.
        share: longer side of the patch as a share of the photo's shorter side.
        seed: decides shape, aspect and place.
    """
    rng = np.random.default_rng(seed)
    side = round(share * min(photo.shape[:2]))
    size = (side, max(8, round(side * rng.uniform(0.6, 1.0))))
    size = size if rng.random() < 0.5 else (size[1], size[0])
    shape = random_mask(
        size, rng, num_rectangles=(1, 1), rectangle_size=(1, 1), shapes=("ellipse", "polygon"), complement_share=0.0
    )
    patch = resize(other, size)
    y, x = (int(rng.integers(n - m + 1)) for n, m in zip(photo.shape[:2], size, strict=True))
    outline = np.zeros(photo.shape[:2], bool)
    outline[y : y + size[0], x : x + size[1]] = shape
    colours = photo.copy()
    colours[y : y + size[0], x : x + size[1]] = patch
    opacity = cv2.GaussianBlur(outline.astype(np.float32), (0, 0), SOFT_PX)[..., None]
    seen = (photo + opacity * (colours.astype(np.float32) - photo)).round().clip(0, 255).astype(np.uint8)
    return Case(name=name, photo=seen, behind=photo, outline=outline)


def _thumbnail(image: ImageArray) -> np.ndarray:
    return cv2.resize(image, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()


def _slug(arm: str) -> str:
    return arm.replace(", ", "-").replace(" ", "-")


def _train(options: argparse.Namespace, arm: str, photos: Path, training: Sequence[Case]) -> None:
    folder = options.output / _slug(arm)
    same = (options.output / _slug(other) for other, changes in ARMS.items() if changes == ARMS[arm])
    if any((twin / "adapter.json").exists() for twin in same):
        return  # the same adapter, filled with other settings
    config = AdaptConfig(
        base=options.base, num_epochs=options.num_epochs, masks_per_photo=options.masks_per_photo,
        learning_rate=options.learning_rate, structure_learning_rate=options.structure_learning_rate,
        keep=options.keep, foreground_classes=("object",),
        mask_shapes=("ellipse", "polygon"), shares=(0.85, 0.12, 0.03), **ARMS[arm],
    )  # fmt: skip
    adapter = adapt(photos, config, device=options.device, detector=PlantedDetector(training), checkpoint_dir=folder)
    adapter.save(folder, overwrite=True)


def _measured(options: argparse.Namespace, arm: str, tests: Sequence[Case]) -> dict:
    """Remove the objects of all cases, or read what an earlier run measured."""
    folder = options.output / _slug(arm)
    if (folder / "values.json").exists():
        return json.loads((folder / "values.json").read_text(encoding="utf-8"))
    folder.mkdir(exist_ok=True)
    twins = [options.output / _slug(other) for other, changes in ARMS.items() if changes == ARMS.get(arm)]
    source = next((twin for twin in twins if (twin / "adapter.json").exists()), options.base)
    guidance = GUIDED if "guided" in arm else {"guidance_scale": 1.0, "stage_guidance": (1.0,)}
    guidance = {"guidance_from": "negative_prompt", **guidance}
    engine = UnfittedBase.load(str(source), device=options.device, sample=SampleConfig(**guidance))
    if arm in UNTRAINED:
        engine = dataclasses.replace(engine, window=dataclasses.replace(engine.window, num_stages=UNTRAINED[arm]))
    try:
        lpips = load_lpips(engine.inpainter.device)
    except (BaseModelError, MissingDependencyError):
        lpips = None
    names = ("case", "PSNR dB", "GMSD", "boundary", "features", "truth", "best epoch")
    values: dict[str, list] = {name: [] for name in names}
    if arm in ARMS:
        values["best epoch"].append(Adapter.load(source).manifest["adaptation"]["best_epoch"])
    for number, case in enumerate(tests):
        hole = dilate(case.outline, GROWTH_PX)
        (result,) = engine.fill(case.photo, hole, [0])
        write_png(folder / f"{number}.png", result)
        values["case"].append(case.name)
        values["PSNR dB"].append(metrics.psnr(result, case.behind, hole))
        values["GMSD"].append(metrics.gmsd(result, case.behind, hole))
        values["boundary"].append(_boundary_error(result, case.behind, hole))
        values["features"].append(_features(result, hole))
        values["truth"].append(_features(case.behind, hole))
        if lpips is not None:
            values.setdefault("LPIPS", []).append(float(lpips(result, case.behind, hole)))
    write_text(folder / "values.json", json.dumps(values) + "\n")
    return values


def _boundary_error(result: ImageArray, truth: ImageArray, hole: MaskArray) -> float:
    """Mean absolute difference, in levels, of the hole's pixels within 6 pixels of its boundary."""
    band = hole & dilate(~hole, BAND_PX)
    return float(np.abs(result[band].astype(float) - truth[band]).mean())


def _features(image: ImageArray, hole: MaskArray) -> list[float]:
    """Histograms of oriented gradients of the box around the hole."""
    top, left, bottom, right = bounding_box(hole)
    box = resize(image[top:bottom, left:right], (FEATURE_PX, FEATURE_PX))
    grey = cv2.cvtColor(box, cv2.COLOR_RGB2GRAY)
    return hog(grey, pixels_per_cell=(16, 16), cells_per_block=(1, 1)).round(5).tolist()


def kid(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared MMD with the cubic kernel (Binkowski et al. 2018) of features (N, D), times 1,000."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(first), len(second)
    own, other, between = kernel(first, first), kernel(second, second), kernel(first, second)
    within = (own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(1000 * (within - 2 * between.mean()))


def _tables(results: dict[str, dict]) -> str:
    """Write a table for each size of objects: means over photos, and the difference to the LoRA alone."""
    lines: list[str] = []
    for size in SIZES:
        chosen = [i for i, name in enumerate(results["base"]["case"]) if name.endswith(size)]
        names = [name for name in ("PSNR dB", "GMSD", "boundary", "LPIPS") if name in results["base"]]
        lines += [
            f"| {size} objects, {len(chosen)} photos | {' | '.join(names)} | KID | PSNR against LoRA alone |",
            "|---" * (len(names) + 3) + "|",
        ]
        for arm, values in results.items():
            means = [f"{np.mean(np.array(values[name])[chosen]):.{2 if name == 'PSNR dB' else 3}f}" for name in names]
            features, truth = (np.array(values[name])[chosen] for name in ("features", "truth"))
            gain = np.array(values["PSNR dB"])[chosen] - np.array(results["LoRA alone"]["PSNR dB"])[chosen]
            mark = " (no epoch is better than the base)" if values.get("best epoch") == [0] else ""
            lines.append(f"| {arm}{mark} | {' | '.join(means)} | {kid(features, truth):.2f} | {_interval(gain)} |")
        lines.append("")
    if "LPIPS" not in results["base"]:
        lines.append("LPIPS is not measured, because its weights are not on this machine.")
    return "\n".join(lines).strip()


def _pairs(results: dict[str, dict]) -> str:
    """Write what each part adds to the arm without it, as means over photos with intervals."""
    columns = [(size, name) for size in SIZES for name in DIGITS if name in results["base"]]
    lines = [
        f"| arm | against | {' | '.join(f'{size}: {name}' for size, name in columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for arm, other in PAIRS:
        if arm not in results or other not in results:
            continue
        cells = []
        for size, name in columns:
            chosen = [i for i, case in enumerate(results["base"]["case"]) if case.endswith(size)]
            values, others = (np.array(results[which][name])[chosen] for which in (arm, other))
            cells.append(_interval(values - others, DIGITS[name]))
        lines.append(f"| {arm} | {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(differences: np.ndarray, digits: int = 2) -> str:
    if not differences.any():
        return ""
    draws = np.random.default_rng(0).choice(differences, (NUM_DRAWS, len(differences))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{differences.mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def _draw_pictures(output: Path, tests: Sequence[Case]) -> None:
    """Show the first cases of each size: with the object, filled by each arm, and without the object."""
    count, rows = len(tests) // len(SIZES), []
    for first in range(0, len(tests), count):
        for number in range(first, min(first + NUM_SHOWN, first + count)):
            case = tests[number]
            rows.append((case.name, case.photo))
            for arm in (*UNTRAINED, *ARMS):
                path = output / _slug(arm) / f"{number}.png"
                try:
                    rows.append((arm, read_image(path, path.name)[0]))
                except SceneError:
                    rows.append((arm, np.zeros_like(case.photo)))
            rows.append(("without the object", case.behind))
    image_grid(rows, columns=len(UNTRAINED) + len(ARMS) + 2).savefig(output / "pictures.png")


if __name__ == "__main__":
    main()
