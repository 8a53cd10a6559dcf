"""Stitching: references are laid over the target's hole as panoramas are made, without any weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from realfill.baselines.classical import inpaint_telea, same_for_all
from realfill.baselines.method import Sampler
from realfill.errors import RealFillWarning, SceneError
from realfill.filling.blending import blend
from realfill.io.images import ImageArray, MaskArray
from realfill.registration import Registered, register
from realfill.scene import Scene

_BLEND_SIZE_PX = 256  # the correction reaches 1/16 of the longer side into the hole


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitching:
    """References registered to the target, best fitting first into the hole.

    What no reference covers is inpainted by Telea's method; so is everything where no reference can be used.
    """

    name: ClassVar[str] = "stitching"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = False

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Stitch; neither words nor seeds are used. Warns where no reference can be used.

        Raises:
            SceneError: nothing is known.
        """
        del prompt, fit_seed
        if scene.mask.all():
            raise SceneError("the mask covers the whole target; stitching needs known pixels to align references with")
        layers = register(scene.known, scene.mask, scene.references)
        if not layers:
            warnings.warn(
                "no reference could be laid over the hole (too few matches that agree, or another look); all of it is "
                "inpainted without them", RealFillWarning, stacklevel=2,
            )  # fmt: skip
        return same_for_all(_compose(scene.known, scene.mask, layers))


def _compose(known: ImageArray, mask: MaskArray, layers: list[Registered]) -> ImageArray:
    """Fill the hole layer by layer, each blended with all that there is before it, then inpaint the rest.

    The project's own blending, since OpenCV's multi-band blender also changes known pixels.
    """
    image, open_ = known, mask
    scale = max(1.0, max(mask.shape) / _BLEND_SIZE_PX)
    for layer in layers:
        filled = open_ & layer.covers
        if filled.any():
            patch = blend(image, open_ | ~layer.covers, layer.image.astype(np.float32), method="membrane", scale=scale)
            image = np.where(filled[:, :, None], patch, image)
            open_ = open_ & ~filled
    return inpaint_telea(image, open_) if open_.any() else image
