"""Finding the instances of a photo: which detector looks, from which score on, and in tiles if the photo is large."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from realfill.io.images import ImageArray, ImageLike, read_image
from realfill.scene.masks import Box
from realfill.segmentation.instances import Instance, Instances
from realfill.segmentation.outline import clip_box, outline_at, outline_in_box
from realfill.segmentation.proposals import PEOPLE_DETECTOR, find_people
from realfill.segmentation.tiles import find_in_tiles

PEOPLE = ("person",)
USUAL_THRESHOLD, LOWEST_THRESHOLD = 0.5, 0.25
_STEP = 0.1  # by which the threshold is lowered while nobody is found


class Detector(Protocol):
    """Finds instances in a photo.

    Attributes:
        name: for messages and results.
        side_px: the longer side of what it looks at; larger photos are also searched in tiles. 0: it needs no tiles.
        segments: whether it outlines what a box or a click marks, instead of finding instances by itself.
        classes: names of the classes that it finds.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def side_px(self) -> int: ...  # noqa: D102
    @property
    def segments(self) -> bool: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    def find(self, image: ImageArray, *, lowest: float) -> list[Instance]:
        """Find the instances with at least a score, without numbers, in a photo (H, W, 3) uint8 sRGB."""
        ...

    def outline(
        self, image: ImageArray, *, box: Box | None = None, click: tuple[float, float] | None = None
    ) -> Instance | None:
        """Outline what a box or a click (x, y) marks; ``None`` if nothing is there."""
        ...


class OfflineDetector:
    """People by OpenCV's people detector and scikit-image's faces, anything else by a box or a click and GrabCut."""

    name = PEOPLE_DETECTOR
    side_px = 0
    segments = True
    classes = PEOPLE

    def find(self, image: ImageArray, *, lowest: float) -> list[Instance]:
        """Find people; see ``realfill.segmentation.proposals``."""
        return find_people(image, lowest=lowest)

    def outline(
        self, image: ImageArray, *, box: Box | None = None, click: tuple[float, float] | None = None
    ) -> Instance | None:
        """Outline what a box or a click marks, by GrabCut."""
        if click is not None:
            return Instance.of_mask(outline_at(image, click), name="object", score=1.0, detector="click and GrabCut")
        if box is None:
            return None
        return Instance.of_mask(outline_in_box(image, box), name="object", score=1.0, detector="box and GrabCut")


def load_detector(
    name: str = "auto", *, device: str | torch.device | None = None, local_files_only: bool = False
) -> Detector:
    """Load a detector for any number of photos.

    Args:
        name: ``offline`` needs no weights. ``mask2former`` (also ``mask2former-large``, ``mask2former-panoptic``),
            ``rt-detr``, ``detr`` and ``sam2`` are networks; so are the hub id or the folder of another one. ``auto``:
            ``mask2former`` if its weights are on this machine, else ``offline``.
        device: where a network computes. ``None``: the best available.
        local_files_only: do not download weights.

    Raises:
        BaseModelError: the network cannot be loaded, or is no detector.
        MissingDependencyError: it needs a package that is not installed.
    """
    if name == "offline":
        return OfflineDetector()
    from realfill.segmentation.networks import NetworkDetector, is_on_this_machine  # noqa: PLC0415 - imports torch

    if name == "auto":
        local = next((n for n in ("mask2former", "mask2former-large") if is_on_this_machine(n)), None)
        if local is None:
            return OfflineDetector()
        name, local_files_only = local, True
    return NetworkDetector.load(name, device=device, local_files_only=local_files_only)


def find_instances(
    photo: ImageLike,
    *,
    detector: str | Detector = "auto",
    classes: Sequence[str] = PEOPLE,
    threshold: float | None = None,
    boxes: Iterable[Box] = (),
    clicks: Iterable[tuple[float, float]] = (),
    device: str | torch.device | None = None,
    local_files_only: bool = False,
) -> Instances:
    """Find the objects and people in a photo.

    Args:
        photo: a path, a PIL image or an array.
        detector: a name, see ``load_detector``, or a loaded detector.
        classes: the classes that somebody wants to remove. They decide only how far the threshold is lowered; the
            result holds instances of every class that the detector knows.
        threshold: least score of an instance, in [0, 1]. ``None``: 0.5; while no instance of ``classes`` is found, it
            is lowered in steps of 0.1, at most to 0.25.
        boxes: (top, left, bottom, right) in pixels. With boxes or clicks, the result holds what they mark, and nothing
            else is looked for.
        clicks: points (x, y) in pixels.
        device: where a network computes. ``None``: the best available.
        local_files_only: do not download weights.

    Returns:
        The instances, numbered by area from 0, the largest. Without one, the result is empty.

    Raises:
        SceneError: the photo cannot be read, or a box or a click lies outside of it.
        ValueError: the threshold is illegal.
        BaseModelError: the detector cannot be loaded.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; legal: from 0 to 1")
    image = _read(photo)
    boxes, clicks = list(boxes), list(clicks)
    if boxes or clicks:
        return _marked(image, _for_marks(detector, device, local_files_only=local_files_only), boxes, clicks)
    chosen = (
        load_detector(detector, device=device, local_files_only=local_files_only)
        if isinstance(detector, str) else detector
    )  # fmt: skip
    lowest = LOWEST_THRESHOLD if threshold is None else threshold
    found = find_in_tiles(lambda part: chosen.find(part, lowest=lowest), image, side_px=chosen.side_px)
    used = _lowered(found, classes) if threshold is None else threshold
    kept = [instance for instance in found if instance.score >= used]
    return Instances.ordered(kept, size=_size(image), detector=chosen.name, threshold=used)


def _lowered(found: Sequence[Instance], classes: Sequence[str]) -> float:
    """Lower the threshold in steps until an instance of a class counts, but not below the lowest threshold."""
    best = max((i.score for i in found if i.name in classes), default=0.0)
    used = USUAL_THRESHOLD
    while used > max(best, LOWEST_THRESHOLD):
        used = max(LOWEST_THRESHOLD, round(used - _STEP, 2))
    return used


def _for_marks(detector: str | Detector, device: str | torch.device | None, *, local_files_only: bool) -> Detector:
    """Choose what outlines a box or a click: SAM 2 if it is the detector, else GrabCut."""
    if not isinstance(detector, str):
        return detector if detector.segments else OfflineDetector()
    if "sam2" in detector.lower():
        return load_detector(detector, device=device, local_files_only=local_files_only)
    return OfflineDetector()


def _marked(
    image: ImageArray, detector: Detector, boxes: Sequence[Box], clicks: Sequence[tuple[float, float]]
) -> Instances:
    found = [detector.outline(image, box=clip_box(box, image.shape[:2])) for box in boxes]
    found += [detector.outline(image, click=click) for click in clicks]
    instances = [i for i in found if i is not None]
    name = ", ".join(dict.fromkeys(i.detector for i in instances)) or detector.name
    return Instances.ordered(instances, size=_size(image), detector=name, threshold=0.0)


def _read(photo: ImageLike | NDArray) -> ImageArray:
    is_image = isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3
    if is_image:
        return photo  # type: ignore[return-value]
    source: str | PathLike[str] | Image.Image | NDArray = photo
    return read_image(source, "the photo")[0]


def _size(image: ImageArray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
