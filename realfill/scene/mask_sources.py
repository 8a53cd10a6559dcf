"""Masks from other sources than an image of the photo's size: numbers, JSON outlines, a colour, a scaled drawing.

==========================  =======================================================================================
source                      pixels of the hole
==========================  =======================================================================================
boxes and polygons          what they enclose, in pixels of the photo; points are (x, y)
JSON of COCO                ``annotations`` of the photo: polygons, run-length encodings, or boxes
JSON of LabelMe             ``shapes``: polygons, rectangles and circles
``{"boxes": ...}``          ``boxes`` as [left, top, right, bottom] and ``polygons`` as [[x, y], ...]
a colour                    the photo's pixels of that colour
an image of another size    what ``realfill.scene.mask_reading`` reads, scaled if it has the photo's proportions
==========================  =======================================================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageColor

from realfill.errors import SceneError
from realfill.io.deep import max_pixels
from realfill.io.images import ImageArray, ImageLike, MaskArray
from realfill.io.json_files import read_json
from realfill.scene.mask_reading import MaskReading, read_mask
from realfill.scene.masks import Box, dilate, resize_mask
from realfill.scene.rle import decode_rles

_MAX_STRETCH = 0.015  # by which the proportions of a mask and its photo may differ
_JSON_LEGAL = (
    "legal: COCO (images, annotations), LabelMe (shapes), or an object with boxes [[left, top, right, bottom], ...] "
    "and polygons [[[x, y], ...], ...]"
)
Polygon = Sequence[Sequence[float]]


def mask_of_boxes(boxes: Iterable[Box], size: tuple[int, int]) -> MaskReading:
    """Fill boxes.

    Args:
        boxes: (top, left, bottom, right) in pixels; what lies outside of the photo is cut off.
        size: (height, width) of the photo.

    Raises:
        SceneError: a box has no pixel in the photo.
    """
    mask, count = np.zeros(size, bool), 0
    for count, (top, left, bottom, right) in enumerate(boxes, 1):  # noqa: B007
        part = mask[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))]
        if not part.size:
            raise SceneError(
                f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) has no pixel in the photo; legal: x from "
                f"0 to {size[1]}, y from 0 to {size[0]}, left < right and top < bottom"
            )
        part[:] = True
    return MaskReading(mask=mask, source=_plural(count, "box", "boxes"))


def mask_of_polygons(polygons: Iterable[Polygon], size: tuple[int, int]) -> MaskReading:
    """Fill polygons.

    Args:
        polygons: each a sequence of at least three points (x, y) in pixels.
        size: (height, width) of the photo.

    Raises:
        SceneError: a polygon has fewer than three points, or a point is no pair of numbers.
    """
    mask, count = np.zeros(size, np.uint8), 0
    for count, polygon in enumerate(polygons, 1):  # noqa: B007
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            points = np.zeros((0, 0))
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
            raise SceneError(f"a polygon is {str(polygon)[:80]}; legal: at least three points [x, y]")
        reach = 16 * max(size)  # far outside of the photo; larger numbers do not fit into OpenCV's
        fixed = np.round(points.clip(-reach, reach) * 16).astype(np.int32)  # OpenCV takes sixteenths of a pixel
        cv2.fillPoly(mask, [fixed], 1, lineType=cv2.LINE_8, shift=4)
    return MaskReading(mask=mask > 0, source=_plural(count, "polygon", "polygons"))


def mask_of_colour(image: ImageArray, colour: str | Sequence[int], *, tolerance: int = 24) -> MaskReading:
    """Fill the pixels of a colour, for example of a green screen or of paint on the photo.

    Args:
        image: (H, W, 3) uint8 sRGB.
        colour: a name or a code of CSS, such as ``magenta`` or ``#ff00ff``; or (red, green, blue).
        tolerance: largest difference in a channel, in levels of 255.

    Raises:
        SceneError: no pixel has this colour.
        ValueError: the colour or the tolerance is illegal.
    """
    if not 0 <= tolerance <= 255:
        raise ValueError(f"tolerance is {tolerance}; legal: from 0 to 255")
    try:
        key = ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else tuple(int(n) for n in colour)
    except ValueError:
        key = ()
    if len(key) != 3 or not all(0 <= n <= 255 for n in key):
        raise ValueError(
            f"the colour is {colour!r}; legal: a name such as magenta, a code such as #ff00ff, or 3 levels"
        )
    low, high = (np.clip(np.add(key, sign * tolerance), 0, 255) for sign in (-1, 1))
    mask = cv2.inRange(image, low.astype(np.float64), high.astype(np.float64)) > 0
    if not mask.any():
        raise SceneError(
            f"no pixel of the photo has the colour {colour} within {tolerance} levels; legal: a colour that "
            "occurs in it, or a larger tolerance in Python"
        )
    return MaskReading(mask=mask, source=f"the pixels of the colour {colour}")


def read_mask_for(source: ImageLike | MaskArray, target: ImageArray, *, photo_name: str | None = None) -> MaskReading:
    """Read a mask from a JSON file or an image, which may have another size in the photo's proportions.

    Args:
        source: a path that ends in ``.json``, or what ``read_mask`` takes.
        target: (H, W, 3) uint8 sRGB, the photo.
        photo_name: name of the photo's file, by which a COCO file finds its annotations. ``None``: it has one photo.

    Raises:
        SceneError: the mask cannot be read, or has other proportions than the photo.
    """
    size = (target.shape[0], target.shape[1])
    if isinstance(source, str | PathLike) and Path(source).suffix.lower() == ".json":
        return read_outlines(source, size, photo_name=photo_name)
    return scaled(read_mask(source, target), size)


def scaled(reading: MaskReading, size: tuple[int, int]) -> MaskReading:
    """Scale a mask to a photo of the same proportions; the source of the result says so.

    Raises:
        SceneError: the proportions differ by more than 1.5 %.
    """
    height, width = reading.mask.shape
    if (height, width) == size:
        return reading
    if abs(height * size[1] / (width * size[0]) - 1) > _MAX_STRETCH:
        raise SceneError(
            f"the mask is {width} x {height} pixels and the photo {size[1]} x {size[0]}; legal: the same size, or the "
            "same proportions"
        )
    return MaskReading(
        mask=resize_mask(reading.mask, size), source=f"{reading.source}, scaled from {width} x {height} pixels"
    )


def combine(added: Sequence[MaskReading], subtracted: Sequence[MaskReading] = (), *, grown_px: int = 0) -> MaskReading:
    """Join masks, and take others away.

    Args:
        added: masks of one size; at least one.
        subtracted: masks of the same size, whose pixels are kept whatever the others say.
        grown_px: pixels by which the joined masks are grown before others are taken away.

    Raises:
        SceneError: there is no mask, the sizes differ, or nothing is left.
    """
    if not added:
        raise SceneError("there is no mask; legal: at least one, from which others can be taken away")
    sizes = {reading.mask.shape for reading in (*added, *subtracted)}
    if len(sizes) > 1:
        listed = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise SceneError(f"the masks have the sizes {listed}; legal: one size")
    mask = dilate(np.logical_or.reduce([reading.mask for reading in added]), grown_px)
    for reading in subtracted:
        mask = mask & ~reading.mask
    if not any(reading.mask.any() for reading in added):
        raise SceneError("the mask marks no pixel; legal: white (True) marks what to remove, and black what to keep")
    if not mask.any():
        raise SceneError("nothing is left of the mask; legal: masks that are not taken away as a whole")
    source = " and ".join(reading.source for reading in added)
    source += f", grown by {grown_px} pixels" if grown_px else ""
    source += f" without {' and '.join(reading.source for reading in subtracted)}" if subtracted else ""
    return MaskReading(mask=mask, source=source, is_outline=all(reading.is_outline for reading in added))


def read_outlines(path: str | PathLike[str], size: tuple[int, int], *, photo_name: str | None = None) -> MaskReading:
    """Read outlines from JSON, in one of the forms at the top of this module.

    Outlines of a photo of another size in the same proportions are scaled.

    Args:
        path: the file.
        size: (height, width) of the photo.
        photo_name: name of the photo's file, to find it in a COCO file with several photos.

    Raises:
        SceneError: the file is missing, has another form, or has no outline of this photo.
    """
    file = Path(path)
    try:
        values = read_json(file)
    except OSError as error:
        raise SceneError(f"the mask {str(path)!r} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SceneError(f"the mask {str(path)!r} is no JSON ({error}); {_JSON_LEGAL}") from error
    try:
        reading = _of_json(values, size, photo_name)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, cv2.error) as error:
        if isinstance(error, SceneError):
            raise SceneError(f"the mask {str(path)!r}: {error}") from error
        raise SceneError(f"the mask {str(path)!r} has a form that is not known; {_JSON_LEGAL}") from error
    if not reading.mask.any():
        raise SceneError(f"the mask {str(path)!r} has no outline in this photo; {_JSON_LEGAL}")
    return dataclasses.replace(reading, source=f"{reading.source} of {file.name}")


def _of_json(values: Any, size: tuple[int, int], photo_name: str | None) -> MaskReading:
    if isinstance(values, list):  # of polygons
        values = {"polygons": values}
    if "annotations" in values:
        return _of_coco(values, size, photo_name)
    if "shapes" in values:
        return _of_labelme(values, size)
    if not {"boxes", "polygons"} & set(values):
        raise KeyError("boxes")
    parts = [mask_of_polygons(values.get("polygons", ()), size)]
    parts.append(mask_of_boxes([(t, x, b, r) for x, t, r, b in values.get("boxes", ())], size))
    return _joined([p for p in parts if p.mask.any()], size)


def _of_coco(values: Mapping[str, Any], size: tuple[int, int], photo_name: str | None) -> MaskReading:
    images = {image["id"]: image for image in values.get("images", ())}
    named = [i for i in images if photo_name and Path(images[i].get("file_name", "")).name == Path(photo_name).name]
    if not named and len(images) > 1:
        names = ", ".join(str(image.get("file_name")) for image in list(images.values())[:5])
        raise SceneError(f"it has no photo of the name {photo_name!r}; legal: {names}")
    chosen = named[0] if named else next(iter(images), None)
    image = images.get(chosen, {})
    own = _own_size(image.get("height", size[0]), image.get("width", size[1]))
    annotations = [a for a in values["annotations"] if chosen is None or a.get("image_id", chosen) == chosen]
    polygons: list[Any] = []
    boxes: list[Box] = []
    encodings: list[Any] = []
    for annotation in annotations:
        outline = annotation.get("segmentation")
        if isinstance(outline, Mapping):
            if [int(n) for n in outline["size"]] != list(own):
                raise SceneError(f"a run-length encoding has the size {outline['size']}; legal: {list(own)}")
            encodings.append(outline["counts"])
        elif outline:
            polygons += [np.reshape(points, (-1, 2)) for points in outline]
        else:
            x, y, width, height = annotation["bbox"]
            boxes.append((round(y), round(x), round(y + height), round(x + width)))
    mask = mask_of_polygons(polygons, own).mask | mask_of_boxes(boxes, own).mask | decode_rles(encodings, own)
    return scaled(MaskReading(mask=mask, source=_plural(len(annotations), "annotation", "annotations")), size)


def _of_labelme(values: Mapping[str, Any], size: tuple[int, int]) -> MaskReading:
    own = _own_size(values.get("imageHeight") or size[0], values.get("imageWidth") or size[1])
    circles = np.zeros(own, np.uint8)
    polygons: list[Any] = []
    boxes: list[Box] = []
    for shape in values["shapes"]:
        points, kind = np.asarray(shape["points"], float), shape.get("shape_type", "polygon")
        if kind == "rectangle":
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            boxes.append((round(top), round(left), round(bottom), round(right)))
        elif kind == "circle":
            if not np.isfinite(points).all():
                raise SceneError(f"a circle is {shape['points']}; legal: finite numbers")
            centre, edge = points[:2].clip(-4 * max(own), 4 * max(own))
            cv2.circle(circles, [round(n) for n in centre], round(float(np.linalg.norm(edge - centre))), 1, -1)
        elif kind == "polygon":
            polygons.append(points)
        else:
            raise SceneError(f"it has a shape of the type {kind!r}; legal: polygon, rectangle and circle")
    mask = mask_of_polygons(polygons, own).mask | mask_of_boxes(boxes, own).mask | (circles > 0)
    return scaled(MaskReading(mask=mask, source=_plural(len(values["shapes"]), "shape", "shapes")), size)


def _own_size(height: Any, width: Any) -> tuple[int, int]:
    """Check the size of the photo that a file states, before memory is taken for it.

    Raises:
        SceneError: it is no size of a photo.
    """
    size = (int(height), int(width))
    if min(size) < 1 or size[0] * size[1] > max_pixels():
        raise SceneError(f"its photo has {size[1]} x {size[0]} pixels; legal: 1 x 1 to {max_pixels():.0f} in all")
    return size


def _joined(parts: Sequence[MaskReading], size: tuple[int, int]) -> MaskReading:
    return combine(parts) if parts else MaskReading(mask=np.zeros(size, bool), source="nothing")


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
