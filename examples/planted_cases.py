"""Composites of planted scenes, computed once and kept in a folder: what the verdict and the ranking are measured on.

    python examples/planted_cases.py TEXTURES CASES --part 0 --seeds 0 1           # parts 0 to 7: settings look at them
    python examples/planted_cases.py TEXTURES CASES --part 7 --seeds 700 701
    python examples/planted_cases.py TEXTURES CASES --part 8 --seeds 800 801       # to measure on

Parts share no textures: TEXTURES is sorted and dealt out to sixteen of them. EXIF states the focal lengths to 3 %.
Photos are small, so that a hundred scenes take minutes. Files that exist are not computed again, so a change of
the code needs a new folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray
from planted_3d import KINDS, Kind, plant

from realfill.config import GeometryConfig, SampleConfig, WindowConfig
from realfill.filling.fill import choose_parts, fill_hole
from realfill.filling.hints import Hints
from realfill.filling.keeping import Kept
from realfill.geometry.agreement import contradiction
from realfill.geometry.composite import composite
from realfill.geometry.fields import WarpField
from realfill.io.images import ImageArray, MaskArray, read_image
from realfill.io.recognition import find_fault
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.results.evidence import Evidence
from realfill.scene.scene import Scene

SIZE = (240, 320)
TEXTURE_PX = 640  # longer side
NUM_PARTS = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A planted scene and its composite.

    Attributes:
        name: kind and seed.
        truth: (H, W, 3) uint8.
        mask: (H, W) bool.
        visible: (H, W) bool: pixels of the target that at least one reference shows.
        references: each (h, w, 3) uint8.
        composite: (H, W, 3) uint8.
        confidence: (H, W) float32.
        source: (H, W) int16.
        contradiction: (H, W) float32.
        samples: (S, H, W, 3) uint8: the unfitted packaged base's.
        warp_references: (L,) int16: the reference of each layer.
        warp_maps: (L, H, W, 2) int16: x and y in it, in sixteenths of a pixel.
        warp_masks: (L, H, W) bool: where the layer reaches.
    """

    name: str
    truth: ImageArray
    mask: MaskArray
    visible: MaskArray
    references: list[ImageArray]
    composite: ImageArray
    confidence: NDArray
    source: NDArray
    contradiction: NDArray
    samples: NDArray[np.uint8]
    warp_references: NDArray[np.int16]
    warp_maps: NDArray[np.int16]
    warp_masks: NDArray[np.bool_]

    @property
    def kind(self) -> str:
        return self.name.rsplit("-", 1)[0]

    @property
    def known(self) -> ImageArray:
        return np.where(self.mask[..., None], np.uint8(0), self.truth)

    def warps(self) -> list[WarpField]:
        return [
            WarpField(
                reference=int(number), kind="plane", map=places.astype(np.float32) / 16, valid_mask=mask,
                hidden=np.zeros_like(mask),
            )
            for number, places, mask in zip(self.warp_references, self.warp_maps, self.warp_masks, strict=True)
        ]  # fmt: skip

    def save(self, path: Path) -> None:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "references"}
        np.savez_compressed(path, **values, **{f"reference{i}": r for i, r in enumerate(self.references)})

    @classmethod
    def load(cls, path: Path) -> Case:
        with np.load(path) as arrays:
            values: dict[str, Any] = dict(arrays)
        numbered = sorted(name for name in values if name.startswith("reference"))
        for name in ("warp_references", "warp_maps", "warp_masks"):
            values.setdefault(name, np.zeros((0,), np.int16))
        references = [values.pop(name) for name in numbered]
        return cls(**{**values, "name": str(values["name"])}, references=references)


def keep(
    case: Case, image: ImageArray, confidence: NDArray, source: NDArray, base: StableDiffusionInpainter | None = None
) -> Kept:
    """Keep the pixels of a composite of a case, as ``complete`` does with its default settings.

    Args:
        case: the case.
        image: (H, W, 3) uint8, the composite.
        confidence: (H, W), its confidence.
        source: (H, W), its references.
        base: a base that reads hints and fills the rest. ``None``: an engine does.
    """
    settings = GeometryConfig().resolve({})
    evidence = Evidence.judge(case.mask, confidence, source, settings)
    scene = Scene(case.references, case.known, case.mask)
    parts = partial(choose_parts, base, scene, WindowConfig().resolve(base.card.window)) if base is not None else None
    return Kept.of_composite(scene, image, evidence, settings, hinted=base is not None, parts=parts)


def completed(case: Case, kept: Kept, base: StableDiffusionInpainter, number: int = 0) -> ImageArray:
    """Complete a case without a fit, as ``complete`` does: the base fills what the composite leaves to it.

    Args:
        case: the case.
        kept: what its composite contributes, with hints.
        base: the base, which reads them.
        number: the sample, 0 or 1.
    """
    result, left = case.known.copy(), kept.scene
    fills = np.zeros((0, 3), np.uint8) if left is None else sample(base, left, kept.hints)[number][left.mask]
    result[case.mask] = kept.joined(fills)
    return result


def load_cases(folder: Path, part: int) -> list[Case]:
    """Load all cases of one part."""
    return [Case.load(path) for path in sorted((folder / f"part{part}").glob("*.npz"))]


def load_textures(folder: Path, part: int) -> list[ImageArray]:
    """Load the textures of a part: every sixteenth photo of the sorted folder, from the part's number on."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    photos = [read_image(path, path.name)[0] for path in paths[part::NUM_PARTS] if find_fault(path) is None]
    scales = [TEXTURE_PX / max(photo.shape) for photo in photos]
    pairs = zip(photos, scales, strict=True)
    return [cv2.resize(photo, None, fx=s, fy=s, interpolation=cv2.INTER_AREA).astype(np.uint8) for photo, s in pairs]


def make(kind: Kind, seed: int, textures: Sequence[ImageArray], base: StableDiffusionInpainter) -> Case:
    planted, rng = plant(kind, textures, seed, size=SIZE), np.random.default_rng(seed)
    scene = planted.scene
    focals = [camera.focal * rng.uniform(0.97, 1.03) for camera in planted.cameras]
    result = composite(scene.known, scene.mask, scene.references, focals=focals)
    warps = [layer.warp for layer in result.layers]
    return Case(
        name=f"{kind}-{seed}",
        truth=planted.truth,
        mask=scene.mask,
        visible=planted.visible.any(axis=0),
        references=list(scene.references),
        composite=result.image,
        confidence=result.confidence,
        source=result.source,
        contradiction=contradiction(result, scene.mask),
        samples=sample(base, scene),
        warp_references=np.array([w.reference for w in warps], np.int16),
        warp_maps=np.array([(w.map * 16).round().clip(-32000, 32000) for w in warps], np.int16).reshape(-1, *SIZE, 2),
        warp_masks=np.array([w.valid_mask for w in warps], bool).reshape(-1, *SIZE),
    )


def sample(base: StableDiffusionInpainter, scene: Scene, hints: Hints | None = None) -> NDArray[np.uint8]:
    """Fill the hole twice by the unfitted base, with its own settings, as ``complete`` does."""
    config = SampleConfig(num_samples=2).resolve(base.card.sample)
    window = WindowConfig().resolve(base.card.window)
    filled = fill_hole(base, scene, config, window, hints=hints, progress=False)
    images = np.stack([scene.known] * len(filled))
    images[:, scene.mask] = np.stack(list(filled.values()))
    return images


def main(
    textures: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    /,
    seeds: tuple[int, ...] = (0, 1),
    part: int = 0,
    kinds: tuple[Kind, ...] = KINDS,
) -> None:
    folder = output / f"part{part}"
    folder.mkdir(parents=True, exist_ok=True)
    photos, base = load_textures(textures, part), StableDiffusionInpainter.load("mini")
    for seed in seeds:
        for kind in kinds:
            path = folder / f"{kind}-{seed}.npz"
            if not path.exists():
                make(kind, seed, photos, base).save(path)
                print(path, flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
