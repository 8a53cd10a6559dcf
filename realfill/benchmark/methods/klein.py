"""FLUX.2 [klein] with the references as conditioning: an alternative to a fit.

Black Forest Labs, January 2026; diffusers' ``Flux2KleinInpaintPipeline``. A flow-matching transformer, distilled to
four steps, that takes several images besides the one to complete. The 4B weights are under Apache-2.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from diffusers import Flux2KleinInpaintPipeline
from PIL import Image

from realfill.benchmark.methods.method import Sampler
from realfill.benchmark.methods.stock import StockMethod
from realfill.io.images import ImageArray, resize
from realfill.scene.scene import Scene

_MAX_RESOLUTION = 1008  # windows of this size stay below 1024 x 1024 pixels, above which the pipeline shrinks its input


@dataclass(frozen=True, kw_only=True)
class Klein(StockMethod):
    """Complete with all references as conditioning, without a fit.

    The pipeline conditions on the window itself first; its hole is a smooth continuation of the known pixels. The
    references follow, resized to one common size, which the pipeline requires.
    """

    name: ClassVar[str] = "klein"
    uses_fit_seed: ClassVar[bool] = False

    base: str = "black-forest-labs/FLUX.2-klein-4B"
    """Hub id or directory. The undistilled ``...-klein-base-4B`` needs 50 steps and a guidance scale of 4."""
    instruction: str = (
        "Fill in the missing part of the first image. The other images show the same scene at the same moment: "
        "complete it with what they show, in the style of the first image."
    )
    """Prompt, ours. A case's own prompt is appended."""
    num_inference_steps: int = 4
    """Denoising steps. The default is the model card's for the distilled weights."""
    guidance_scale: float = 1.0
    """Classifier-free guidance, without effect on the distilled weights. The default is the model card's."""
    strength: float = 1.0
    """Share of the denoising steps to run. 1 starts from noise, as the pipeline's example with references does; less
    starts from the hole's smooth fill."""
    resolution: int = _MAX_RESOLUTION
    """Side in pixels of a square with as many pixels as the window has for the model; at most 1008."""
    reference_px: int = _MAX_RESOLUTION
    """Side in pixels of a square with as many pixels as each reference has for the model, unless all are smaller. The
    default is the largest size that the authors' code gives several references. Time and memory grow with it."""
    offload: bool = False
    """Keep each part on the CPU while another one computes: slower, for GPUs with little memory."""

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= _MAX_RESOLUTION:
            raise ValueError(f"Klein.resolution is {self.resolution!r}; legal: 1 to {_MAX_RESOLUTION}")

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Load the weights; there is no fit.

        Raises:
            BaseModelError: the weights cannot be loaded.
            SceneError: the scene has no references.
        """
        del fit_seed
        self.require_references(scene)
        words = f"{self.instruction} {prompt}" if prompt else self.instruction
        return partial(self._sample, self._pipeline, scene, words)

    @cached_property
    def _pipeline(self) -> Any:
        return self.load(Flux2KleinInpaintPipeline.from_pretrained, (self.base,), offload=self.offload)

    def _sample(self, pipeline: Any, scene: Scene, prompt: str, seeds: Sequence[int]) -> list[ImageArray]:
        cell_px = 2 * pipeline.vae_scale_factor
        view = self.view(scene, resolution=self.resolution, multiple=cell_px)
        references = [Image.fromarray(r) for r in _to_one_size(scene.references, self.reference_px, cell_px)]
        return self.complete(
            view, seeds, pipeline, prompt=prompt, mask_image=view.mask(cell_px), image_reference=references,
            strength=self.strength, num_inference_steps=self.num_inference_steps, guidance_scale=self.guidance_scale,
        )  # fmt: skip


def _to_one_size(images: Sequence[ImageArray], side: float, multiple: int) -> list[ImageArray]:
    """Resize images to cover one size with their mean aspect ratio, and crop them around their centres.

    Otherwise the pipeline would crop each to the size of the first, without resizing.

    Args:
        images: each (H, W, 3) uint8.
        side: side of the square with the largest number of pixels that an image may have.
        multiple: height and width become multiples of this.
    """
    heights, widths = (np.array([i.shape[axis] for i in images], float) for axis in (0, 1))
    side = min(side, math.sqrt((heights * widths).max()))
    stretch = math.exp(np.log(heights / widths).mean() / 2)
    height, width = (max(multiple, int(n / multiple) * multiple) for n in (side * stretch, side / stretch))
    fitted = []
    for image, scale in zip(images, np.maximum(height / heights, width / widths), strict=True):
        whole = resize(image, (max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))))
        top, left = ((n - m) // 2 for n, m in zip(whole.shape[:2], (height, width), strict=True))
        fitted.append(whole[top : top + height, left : left + width])
    return fitted
