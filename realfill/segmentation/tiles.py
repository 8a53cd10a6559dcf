"""Small people in large photos: the photo is searched as a whole and in overlapping tiles, and both are joined."""

from __future__ import annotations

import math
from collections.abc import Callable

from realfill.io.images import ImageArray
from realfill.segmentation.instances import Instance

_LARGER = 1.5  # a photo whose longer side is this much longer than the network's input is searched in tiles
_OVERLAP = 0.25  # of neighbouring tiles, as a share of their side
_SMALL = 0.4  # in a tile, an instance up to this share of its side is trusted more than in the whole photo
_SAME = 0.6  # share of the smaller of two outlines from which both are the same instance
_MAX_TILES = 36


def find_in_tiles(find: Callable[[ImageArray], list[Instance]], image: ImageArray, *, side_px: int) -> list[Instance]:
    """Find instances in a photo and in its tiles.

    An instance that a tile cuts is left to the neighbouring tile or to the whole photo. Of an instance that was found
    twice, the small ones keep the tile's outline, which is finer, and the large ones that of the whole photo.

    Args:
        find: finds instances in a part of the photo, (h, w, 3) uint8.
        image: (H, W, 3) uint8.
        side_px: the longer side of the network's input; 0: no tiles.
    """
    size = (image.shape[0], image.shape[1])
    found = find(image)
    if side_px <= 0 or max(size) < _LARGER * side_px:
        return found
    small: list[Instance] = []
    for top, left, bottom, right in tiles_of(size, side_px):
        for instance in find(image[top:bottom, left:right]):
            if not _is_cut(instance, (top, left, bottom, right), size) and _is_small(instance, side_px):
                _add(small, instance.moved((top, left), size))
    for instance in found:
        _add(small, instance)
    return small


def tiles_of(size: tuple[int, int], side_px: int) -> list[tuple[int, int, int, int]]:
    """Cover a photo by overlapping tiles of the network's size, or of larger ones if there would be more than 36.

    Returns:
        (top, left, bottom, right) of each tile, all of the same size.
    """
    side = side_px
    while math.prod(_count(n, side) for n in size) > _MAX_TILES:
        side = math.ceil(1.2 * side)
    starts = [[round(i * max(0, n - side) / max(1, _count(n, side) - 1)) for i in range(_count(n, side))] for n in size]
    return [(y, x, min(size[0], y + side), min(size[1], x + side)) for y in starts[0] for x in starts[1]]


def _count(length: int, side: int) -> int:
    return 1 if length <= side else 1 + math.ceil((length - side) / ((1 - _OVERLAP) * side))


def _is_cut(instance: Instance, tile: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Tell whether an instance touches a border of the tile that lies within the photo."""
    top, left, bottom, right = instance.box
    height, width = tile[2] - tile[0], tile[3] - tile[1]
    return bool(
        (top == 0 and tile[0] > 0) or (left == 0 and tile[1] > 0)
        or (bottom == height and tile[2] < size[0]) or (right == width and tile[3] < size[1])
    )  # fmt: skip


def _is_small(instance: Instance, side_px: int) -> bool:
    top, left, bottom, right = instance.box
    return max(bottom - top, right - left) <= _SMALL * side_px


def _add(kept: list[Instance], new: Instance) -> None:
    """Add an instance unless an earlier one of its class covers it, or is covered by it."""
    for other in kept:
        if other.name == new.name and new.overlap_px(other) > _SAME * min(new.area_px, other.area_px):
            return
    kept.append(new)
