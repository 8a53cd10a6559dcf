"""Stitching: references are warped to the target view and blended into the hole as in a panorama, without weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realfill.benchmark.methods.method import Sampler
from realfill.errors import RealFillWarning, SceneError
from realfill.filling.blending import blend
from realfill.geometry.warping import Warp, warp_references
from realfill.io.images import ImageArray, MaskArray
from realfill.models.classical import inpaint_telea
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitching:
    """References warped to the target view fill the hole, the one that fits best first.

    Telea's method fills the pixels that no reference covers, and the whole hole if no reference can be aligned.
    """

    name = "stitching"
    uses_references = True
    uses_fit_seed = False
    uses_seed = False

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Stitch the scene. Prompt and seeds have no influence. Warns if no reference can be aligned.

        Raises:
            SceneError: the mask covers the whole target.
        """
        del prompt, fit_seed
        if scene.mask.all():
            raise SceneError("the mask covers the whole target; stitching needs known pixels to align references with")
        warps = warp_references(scene.known, scene.mask, scene.references, reference_masks=scene.reference_masks)
        if not warps:
            warnings.warn(
                "no reference could be aligned with the target (too few consistent matches, or a different look); the "
                "whole hole is inpainted without references", RealFillWarning, stacklevel=2,
            )  # fmt: skip
        image = _compose(scene.known, scene.mask, warps)
        return lambda seeds: [image.copy() for _ in seeds]


def _compose(known: ImageArray, mask: MaskArray, warps: Sequence[Warp]) -> ImageArray:
    """Fill the hole warp by warp, blending each into the image so far, then inpaint the remaining pixels.

    OpenCV's multi-band blender would also change known pixels, so this uses the project's own blending.
    """
    image, hole_mask = known, mask
    for warp in warps:
        covered = hole_mask & warp.valid_mask
        if covered.any():
            outside = hole_mask | ~warp.valid_mask
            patch = blend(image, outside, warp.image.astype(np.float32), method="poisson")
            image = np.where(covered[:, :, None], patch, image)
            hole_mask = hole_mask & ~covered
    return inpaint_telea(image, hole_mask) if hole_mask.any() else image
