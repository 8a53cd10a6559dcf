"""Reading the parts of a scene: references, target and mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from realfill.errors import SceneError, warn
from realfill.io.containment import leads_outside
from realfill.io.images import ImageArray, ImageLike, MaskArray, natural_key, read_photo
from realfill.io.photos import Photo
from realfill.io.recognition import find_fault
from realfill.scene.checking import check_known, check_mask, check_size
from realfill.scene.mask_reading import MaskLike, MaskReading, read_mask
from realfill.scene.masks import Box
from realfill.scene.outpainting import Margins
from realfill.scene.reference_reading import References, read_references

_OUTSIDE = "a link to a place outside of the scene's folder; copy the photo"
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The checked parts of a scene; the attributes are those of ``Scene``."""

    references: tuple[ImageArray, ...]
    reference_masks: tuple[MaskArray | None, ...]
    focal_lengths: tuple[float | None, ...]
    original: Photo
    target: ImageArray
    mask: MaskArray
    mask_source: str
    frame: Box | None = None

    @classmethod
    def of(
        cls, references: References, original: Photo, target: ImageArray, mask: MaskArray, source: str, *,
        frame: Box | None = None,
    ) -> Parts:  # fmt: skip
        """Put the parts together."""
        return cls(
            references=references.images, reference_masks=references.masks,
            focal_lengths=(original.focal_px, *references.focals), original=original, target=target, mask=mask,
            mask_source=source, frame=frame,
        )  # fmt: skip


def find_parts(directory: str | PathLike[str]) -> tuple[list[Path], Path, Path | None]:
    """Find the files of a scene in the layout of RealBench.

    Args:
        directory: a folder with ``ref/*``, ``target/target.png`` and ``target/mask.png``, in any image format.

    Returns:
        The references in natural order, the target, and the mask or ``None``.

    Raises:
        SceneError: the folder or the target is missing.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise SceneError(
            f"there is no folder {str(folder)!r}; legal: a folder with ref/*, target/target.png and target/mask.png"
        )
    targets, faults = _sort_out((p for p in _files(folder / "target") if p.stem.lower() == "target"), folder)
    if not targets:
        missing = f"target that can be read: {faults}" if faults else "target/target.png"
        raise SceneError(f"{str(folder)!r} has no {missing}; legal: ref/*, target/target.png, target/mask.png")
    references, faults = _sort_out(_files(folder / "ref"), folder)
    if faults:
        warn(f"these files in {str(folder / 'ref')!r} are left out: {faults}. Save photos as PNG or JPEG")
    mask = find_image(folder / "target", "mask", within=folder)
    return sorted(references, key=natural_key), _preferred(targets), mask


def find_reference_masks(directory: str | PathLike[str], references: Sequence[Path]) -> list[Path | None]:
    """Find the masks of references: ``ref_masks/NAME.*`` belongs to ``ref/NAME.*``; ``None``: there is no such mask."""
    folder = Path(directory) / "ref_masks"
    masks, faults = _sort_out(_files(folder), Path(directory))
    names = {path.stem for path in references}
    unused = [path.name for path in masks if path.stem not in names]
    if unused:
        faults = ", ".join([*([faults] if faults else []), *(f"{name} (no reference of this name)" for name in unused)])
    if faults:
        warn(f"these files in {str(folder)!r} are left out: {faults}. Give each mask the name of its reference")
    groups = [[path for path in masks if path.stem == reference.stem] for reference in references]
    return [_preferred(group) if group else None for group in groups]


def find_photos(directory: str | PathLike[str]) -> list[Path]:
    """List the photos in a folder in natural order; other files are named in a warning, hidden ones are not.

    Raises:
        SceneError: there is no such folder.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise SceneError(f"there is no folder {str(folder)!r}; legal: a folder of photos")
    photos, faults = _sort_out(path for path in _files(folder) if path.is_file())
    if faults:
        warn(f"these files in {str(folder)!r} are no photos and are left out: {faults}")
    return sorted(photos, key=natural_key)


def find_image(folder: Path, stem: str, *, within: Path | None = None) -> Path | None:
    """Find an image by its name without the suffix.

    Args:
        folder: the folder.
        stem: the name, in lower case.
        within: the scene's folder. Links that lead out of it are not used. ``None``: ``folder``.

    Returns:
        The image, a PNG if there are several; ``None`` if there is none.
    """
    images, faults = _sort_out((p for p in _files(folder) if p.stem.lower() == stem), within or folder)
    if faults and not images:
        warn(f"{str(folder / stem)!r} is not used: {faults}. Save it as PNG")
    return _preferred(images) if images else None


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [p for p in files if not p.name.startswith(".") and p.name.lower() not in _SYSTEM_FILES]


def _sort_out(paths: Iterable[Path], within: Path | None = None) -> tuple[list[Path], str]:
    """Separate images from other files, and from links that lead out of a folder, and describe those."""
    faults = {
        path: _OUTSIDE if within is not None and leads_outside(path, within) else find_fault(path) for path in paths
    }
    return [p for p in faults if faults[p] is None], ", ".join(f"{p.name} ({why})" for p, why in faults.items() if why)


def _preferred(images: list[Path]) -> Path:
    chosen = min(images, key=lambda path: path.suffix.lower() != ".png")
    others = ", ".join(path.name for path in images if path != chosen)
    if others:
        warn(f"{str(chosen)!r} is used, and {others} beside it is not. Remove what is not meant")
    return chosen


def read_parts(
    references: Iterable[ImageLike],
    target: ImageLike,
    mask: MaskLike | None,
    reference_masks: Iterable[ImageLike | MaskArray | None] | None = None,
) -> Parts:
    """Read and check all parts of a scene.

    Raises:
        SceneError: a part is missing or cannot be used.
    """
    photos = read_references(references, reference_masks)
    photo = read_photo(target, "the target")
    image = photo.srgb()
    reading = _read_hole(photo, image, mask)
    if reading is None:
        raise SceneError("there is no mask, and the target has no transparent pixels; give a mask, white = fill")
    check_size(photo.pixels, "the target")
    check_mask(reading.mask, image, is_outline=reading.is_outline)
    check_known(photo, reading.mask)
    return Parts.of(photos, photo, image, reading.mask, reading.source)


def read_on_canvas(
    references: Iterable[ImageLike],
    photo: Photo,
    mask: MaskLike | None,
    margins: Margins,
    reference_masks: Iterable[ImageLike | MaskArray | None] | None = None,
) -> Parts:
    """Put a photo on a larger canvas. The hole is everything around it, and the hole of its own mask.

    Raises:
        SceneError: a part cannot be used.
    """
    photos = read_references(references, reference_masks)
    canvas = photo.padded(**margins.to_dict())
    image = canvas.srgb()
    hole = np.ones(image.shape[:2], bool)
    height, width = photo.pixels.shape[:2]
    place = slice(margins.top, margins.top + height), slice(margins.left, margins.left + width)
    reading, source = _read_hole(photo, image[place], mask), "the canvas around the target"
    inner = np.zeros((height, width), bool) if reading is None else reading.mask
    if inner.any() or inner.shape != (height, width):
        check_mask(inner, image[place])
    if reading is not None and inner.any():
        source = f"{source}, and {reading.source}"
    hole[place] = inner
    check_known(canvas, hole)
    frame = (margins.top, margins.left, margins.top + height, margins.left + width)
    return Parts.of(photos, canvas, image, hole, source, frame=frame)


def _read_hole(photo: Photo, image: ImageArray, mask: MaskLike | None) -> MaskReading | None:
    """Read the mask, or take the target's transparent pixels; ``None`` if there are none."""
    if mask is not None:
        return read_mask(mask, image)
    hole = photo.transparent
    if hole is not None and hole.all():  # no pixel is opaque
        hole = photo.fainter_than(0.5)
    return None if hole is None else MaskReading(mask=hole, source="the transparent pixels of the target")
