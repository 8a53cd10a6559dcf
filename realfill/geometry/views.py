"""Views: references warped to the part of the target that a model sees, for models that read pictures of the scene."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from realfill.geometry.matching import Matches
from realfill.geometry.warping import warp_references
from realfill.io.images import ImageArray, MaskArray
from realfill.scene.masks import Box

_UNKNOWN = 128  # value of the pixels that a warped reference does not show


def warped_views(
    known: ImageArray,
    mask: MaskArray,
    references: Sequence[ImageArray],
    *,
    matches: Sequence[Matches],
    reference_masks: Sequence[MaskArray | None] | None = None,
    region: Box,
    side_px: int,
) -> dict[int, ImageArray]:
    """Warp references to a region of the target; pixels that a reference does not show are grey.

    Args:
        known: (H, W, 3) uint8: the target. Pixels under the mask have no influence.
        mask: (H, W) bool, True = hole.
        references: each (h, w, 3) uint8.
        matches: the matches of each reference with the target.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``.
        region: the region, in pixels of the target.
        side_px: side of a square with as many pixels as a view has at most.

    Returns:
        Index of a reference to its view (h, w, 3) uint8, for the references that could be aligned.
    """
    top, left, bottom, right = region
    factor = min(1.0, side_px / math.sqrt((bottom - top) * (right - left)))
    size = (max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor)))
    y, x = size[0] / mask.shape[0], size[1] / mask.shape[1]
    scaled = (math.floor(top * y), math.floor(left * x), math.ceil(bottom * y), math.ceil(right * x))
    box = (*scaled[:2], min(size[0], scaled[2]), min(size[1], scaled[3]))
    warps = warp_references(
        known, mask, references, matches=matches, reference_masks=reference_masks, size=size, region=box
    )
    return {w.reference: np.where(w.valid_mask[:, :, None], w.image, np.uint8(_UNKNOWN)) for w in warps}
