"""Composite: the hole filled with what the references show, by geometry alone, with a confidence for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.geometry.choice import choose, enlarge
from realfill.geometry.correspondences import Pairs, match_all
from realfill.geometry.depth import sweep
from realfill.geometry.fields import WarpField, find_homographies, warp_by_depth, warp_by_plane
from realfill.geometry.layers import NO_LAYER_COST, HalfSize, Layer, build_layers
from realfill.geometry.reconstruction import Reconstruction, reconstruct
from realfill.geometry.seamless import blend_layers
from realfill.io.images import ImageArray, MaskArray

_COST_SCALE = 40.0  # expected error at which confidence has fallen to 1/e


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Composite:
    """A hole filled by geometry.

    Attributes:
        image: (H, W, 3) uint8, equal to the target outside the hole.
        confidence: (H, W) float32 in [0, 1]; 1 outside the hole, 0 where no layer reaches.
        source: (H, W) int16: the reference that each pixel of the hole comes from; -1: none.
        layers: the candidates, best fitting first.
        reconstruction: the cameras; ``None`` where they could not be estimated.
    """

    image: ImageArray
    confidence: NDArray
    source: NDArray[np.int16]
    layers: tuple[Layer, ...]
    reconstruction: Reconstruction | None


def composite(
    known: ImageArray, hole: MaskArray, references: Sequence[ImageArray], *, pairs: Pairs | None = None
) -> Composite:
    """Fill a hole with what references show.

    Args:
        known: (H, W, 3) uint8, the target; not read in the hole.
        hole: (H, W) bool, True = fill.
        references: each (h, w, 3) uint8.
        pairs: the result of ``match_all``; ``None``: it is computed here.
    """
    known = np.where(hole[..., None], np.uint8(0), known)
    pairs = match_all([known, *references], hole) if pairs is None else pairs
    reconstruction = reconstruct([hole.shape, *(r.shape[:2] for r in references)], pairs)
    warps = _warps(known, hole, references, pairs, reconstruction)
    layers = build_layers(warps, references, known, hole)
    rest = cv2.inpaint(known, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA).astype(np.float32)
    half = HalfSize.of(known, hole)
    images = [*(layer.image for layer in layers), rest]
    costs = [*(layer.cost for layer in layers), np.full(half.hole.shape, NO_LAYER_COST, np.float32)]
    small = choose(costs, [half.shrink(image) for image in images], half.hole)
    labels = enlarge(small, hole.shape)
    cost = np.take_along_axis(np.stack(costs), small[None], axis=0)[0]
    trust = np.where(small == len(layers), 0, np.exp(-cost / _COST_SCALE)).astype(np.float32)
    trust = cv2.resize(cv2.GaussianBlur(trust, (0, 0), 1.5), hole.shape[::-1])
    numbers = np.array([*(layer.warp.reference for layer in layers), -1], np.int16)
    source = np.where(hole, numbers[labels], -1).astype(np.int16)
    return Composite(
        image=blend_layers(images, labels, known, hole),
        confidence=np.where(hole, np.where(source >= 0, trust, 0), 1).astype(np.float32),
        source=source,
        layers=tuple(layers),
        reconstruction=reconstruction,
    )


def _warps(
    known: ImageArray,
    hole: MaskArray,
    references: Sequence[ImageArray],
    pairs: Pairs,
    reconstruction: Reconstruction | None,
) -> list[WarpField]:
    warps = []
    if reconstruction is not None:
        cameras = reconstruction.cameras
        depth = sweep(cameras, reconstruction.points, known, hole, references).depth
        warps += [warp_by_depth(i - 1, cameras[0], cameras[i], depth, hole.shape) for i in sorted(cameras) if i]
    for (target, other), matches in pairs.items():
        if target == 0:
            warps += [
                warp_by_plane(other - 1, matrix, hole.shape, references[other - 1].shape)
                for matrix in find_homographies(matches, hole.shape)
            ]
    return warps
