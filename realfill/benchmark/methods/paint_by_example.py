"""Paint by Example: Stable Diffusion inpainting, conditioned on one example image instead of a prompt.

Yang et al., "Paint by Example: Exemplar-based Image Editing with Diffusion Models", CVPR 2023; diffusers'
``PaintByExamplePipeline`` with its authors' weights. It takes a single image, so each sample uses one random reference
(RealFill, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, PaintByExamplePipeline, PNDMScheduler, UNet2DConditionModel
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from huggingface_hub import snapshot_download

from realfill.benchmark.methods.method import Sampler, require_references
from realfill.benchmark.methods.stock import StockMethod
from realfill.io.images import ImageArray, resize, to_tensor
from realfill.scene.scene import Scene

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own normalization, as in its processors
_CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class PaintByExample(StockMethod):
    """Complete with one random reference as the example, without a fit."""

    name = "paint_by_example"
    uses_fit_seed = False

    base: str = "Fantasy-Studio/Paint-by-Example"
    """Hub id or directory."""
    num_inference_steps: int = 50
    """Denoising steps. The default is the pipeline's and its authors'."""
    guidance_scale: float = 5.0
    """Classifier-free guidance towards the example; 1 disables it. The default is the pipeline's and its authors'."""

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Load the weights; the prompt is ignored, and there is no fit.

        Raises:
            BaseModelError: the weights cannot be loaded.
            SceneError: the scene has no references.
        """
        del prompt, fit_seed
        require_references(scene, self.name)
        return partial(self._sample, self._pipeline, scene)

    @cached_property
    def _pipeline(self) -> Any:
        return self.load(_load_parts, (self.base,))

    def _sample(self, pipeline: Any, scene: Scene, seeds: Sequence[int]) -> list[ImageArray]:
        multiple = max(8, pipeline.vae_scale_factor)  # the pipeline requires multiples of 8 for any VAE
        resolution = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        view = self.view(scene, resolution=resolution, multiple=multiple)
        side = pipeline.image_encoder.config.image_size
        images = []
        for seed in seeds:
            reference = scene.references[np.random.default_rng(seed).integers(len(scene.references))]
            images += self.complete(
                view, [seed], pipeline, example_image=_example(reference, side), mask_image=view.mask(),
                num_inference_steps=self.num_inference_steps, guidance_scale=self.guidance_scale,
            )  # fmt: skip
        return images


def _load_parts(base: str, *, local_files_only: bool, **options: Any) -> PaintByExamplePipeline:
    """Load the pipeline part by part.

    The published index refers to the image encoder's class by its place in older versions of diffusers, where
    ``from_pretrained`` does not find it. The safety checker, which would blacken images, and the feature extractor,
    whose work ``_example`` does, are left out.
    """
    parts = ("vae", "image_encoder", "unet", "scheduler")
    if not Path(base).is_dir():  # without the single-file checkpoint
        base = snapshot_download(base, allow_patterns=[f"{p}/*" for p in parts], local_files_only=local_files_only)
    scheduler: Any = PNDMScheduler.from_pretrained(base, subfolder="scheduler")
    return PaintByExamplePipeline(
        vae=AutoencoderKL.from_pretrained(base, subfolder="vae", **options),
        image_encoder=PaintByExampleImageEncoder.from_pretrained(base, subfolder="image_encoder", **options),
        unet=UNet2DConditionModel.from_pretrained(base, subfolder="unet", **options),
        scheduler=scheduler,
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
    )


def _example(reference: ImageArray, side: int) -> torch.Tensor:
    """Resize a whole reference to CLIP's square and normalize it, as the authors do: (1, 3, side, side).

    CLIP's processor would crop it to the central square.
    """
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_DEVIATION))
    return (to_tensor(resize(reference, (side, side))) - mean) / deviation
