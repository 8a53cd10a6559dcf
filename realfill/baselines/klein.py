"""FLUX.2 [klein] with the references as conditioning: what a user would reach for today instead of a fit.

Black Forest Labs, January 2026; diffusers' ``Flux2KleinInpaintPipeline``. A flow-matching transformer, distilled to
four steps, that takes several pictures besides the one to complete. The 4B weights are under Apache-2.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import Flux2KleinInpaintPipeline
from PIL import Image

from realfill.baselines.method import Sampler
from realfill.baselines.stock import BLEND, CONTEXT, View, generators, load_pipeline, require_references
from realfill.config import Blend
from realfill.devices import resolve_device, resolve_dtype
from realfill.io.images import ImageArray, resize
from realfill.scene import Scene

_MAX_RESOLUTION = 1008  # windows of it stay below the 1024 x 1024 pixels at which the pipeline shrinks its input


@dataclass(frozen=True, kw_only=True)
class Klein:
    """Complete with all references as conditioning; no fit.

    The pipeline's own conditioning comes first: the window itself, its hole filled with the known pixels' smooth
    continuation. Then the references, brought to one size, for it takes several only so. The weights are loaded once
    for an object and stay loaded.
    """

    name: ClassVar[str] = "klein"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = True

    base: str = "black-forest-labs/FLUX.2-klein-4B"
    """Hub id or directory. The undistilled ``...-klein-base-4B`` wants 50 steps and a guidance of 4."""
    instruction: str = (
        "Fill in the missing part of the first image. The other images show the same scene at the same moment: "
        "complete it with what they show, in the style of the first image."
    )
    """What it is told; the words of a case, where it has some, are put behind. Ours."""
    num_inference_steps: int = 4
    """Denoising steps. Its model card's, for the distilled weights."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; the distilled weights are without, whatever this is. Its model card's."""
    strength: float = 1.0
    """Share of the steps that are done. 1 starts from noise, as the pipeline's example with references does; less
    starts from the hole's filler, in which there is nothing to keep."""
    resolution: int = _MAX_RESOLUTION
    """Side in pixels of the square that has as many pixels as the window for the model; at most 1008, its megapixel."""
    reference_px: int = _MAX_RESOLUTION
    """Side in pixels of the square that has as many pixels as each reference for the model, unless all are smaller; the
    most that its authors' code gives each of several. Time and memory grow with it."""
    context: float = CONTEXT
    """As ``SampleConfig.context``, and by default the same."""
    blend: Blend = BLEND
    """As ``SampleConfig.blend``, and by default the same."""
    device: str | torch.device | None = None
    """Where to compute. None: the best there is."""
    dtype: torch.dtype | None = None
    """Of the weights. None: half precision on CUDA, single elsewhere."""
    offload: bool = False
    """Keep each part on the CPU while another computes: slower, for GPUs with little memory."""
    local_files_only: bool = False
    """Don't touch the network for the weights."""

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= _MAX_RESOLUTION:
            raise ValueError(f"Klein.resolution is {self.resolution!r}; legal: 1 to {_MAX_RESOLUTION}")

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Load the weights; there is no fit.

        Raises:
            BaseModelError: the weights can't be had.
            SceneError: the scene has no references.
        """
        del fit_seed
        require_references(scene, self.name)
        words = f"{self.instruction} {prompt}" if prompt else self.instruction
        return partial(self._sample, self._pipeline, scene, words)

    @cached_property
    def _pipeline(self) -> Any:
        device = resolve_device(self.device)
        return load_pipeline(
            self.name,
            Flux2KleinInpaintPipeline.from_pretrained,
            (self.base,),
            device=device,
            dtype=resolve_dtype(device, self.dtype),
            local_files_only=self.local_files_only,
            offload=self.offload,
        )

    def _sample(self, pipeline: Any, scene: Scene, prompt: str, seeds: Sequence[int]) -> list[ImageArray]:
        cell = 2 * pipeline.vae_scale_factor
        view = View.of(scene, resolution=self.resolution, multiple=cell, context=self.context)
        references = [Image.fromarray(r) for r in _to_one_size(scene.references, self.reference_px, cell)]
        images = []
        for _, generator in generators(
            seeds
        ):  # one at a time: a batch as large as the references' would share them out
            sample = pipeline(
                prompt=prompt,
                image=view.picture(),
                mask_image=view.mask(cell),
                image_reference=references,
                strength=self.strength,
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                generator=generator,
                output_type="np",
            ).images[0]
            images.append(view.finish(sample, self.blend))
        return images


def _to_one_size(images: Sequence[ImageArray], side: float, multiple: int) -> list[ImageArray]:
    """Bring images to their mean aspect and one size, each as large as covers it, its centre kept.

    Left to itself, the pipeline cuts the centre out of each as large as the first, without resizing.

    Args:
        images: each (H, W, 3) uint8.
        side: of the square with the most pixels that they may have.
        multiple: what their sizes have to be multiples of.
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
