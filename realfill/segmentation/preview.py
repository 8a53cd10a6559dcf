"""Pictures of instances and masks, to choose by: numbered outlines on the photo, and the mask in red."""

from __future__ import annotations

import cv2
import numpy as np

from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.segmentation.instances import Instance, Instances

_SIZE_PX = 1600  # longer side of a preview
_COLOURS = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
    (240, 50, 230), (210, 245, 60), (250, 190, 212),
)  # fmt: skip
_MASK_COLOUR = (255, 0, 0)


def draw_instances(image: ImageArray, instances: Instances) -> ImageArray:
    """Draw numbered outlines on a photo, at up to 1600 pixels.

    Args:
        image: (H, W, 3) uint8 sRGB.
        instances: its instances; each gets its number, its class and its score.

    Returns:
        (h, w, 3) uint8.
    """
    size = fit_within(image.shape[:2], _SIZE_PX)
    picture = resize(image, size).copy()
    line = max(1, round(max(size) / 400))
    for instance in instances:  # the largest first, so that small ones stay visible
        _draw_outline(picture, instance, line)
    for instance in instances:
        _draw_label(picture, instance, line)
    return picture


def draw_mask(image: ImageArray, mask: MaskArray) -> ImageArray:
    """Show a mask on its photo: what is to be filled is red, with a rim, at up to 1600 pixels.

    Args:
        image: (H, W, 3) uint8 sRGB.
        mask: (H, W) bool, True = fill.
    """
    size = fit_within(image.shape[:2], _SIZE_PX)
    picture = resize(image, size).copy()
    small = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    picture[small] = (0.5 * picture[small] + 0.5 * np.array(_MASK_COLOUR)).round().astype(np.uint8)
    contours = cv2.findContours(small.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    return cv2.drawContours(picture, contours, -1, _MASK_COLOUR, max(1, round(max(size) / 500)))  # type: ignore[return-value]


def _draw_outline(picture: ImageArray, instance: Instance, line: int) -> None:
    small = cv2.resize(instance.mask.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    contours = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(picture, contours, -1, (0, 0, 0), line + 2)
    cv2.drawContours(picture, contours, -1, _colour(instance), line)


def _draw_label(picture: ImageArray, instance: Instance, line: int) -> None:
    scale = picture.shape[0] / instance.size[0]
    text = f"{instance.number} {instance.name} {instance.score:.2f}"
    height = 0.35 + 0.2 * line
    (wide, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, height, line)
    x = min(max(2, round(instance.box[1] * scale) + 3), max(2, picture.shape[1] - wide - 3))
    y = min(max(tall + 3, round(instance.box[0] * scale) + tall + 3), picture.shape[0] - 3)
    cv2.rectangle(picture, (x - 2, y - tall - 3), (x + wide + 2, y + 4), (0, 0, 0), -1)
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, height, _colour(instance), line, cv2.LINE_AA)


def _colour(instance: Instance) -> tuple[int, int, int]:
    return _COLOURS[instance.number % len(_COLOURS)]
