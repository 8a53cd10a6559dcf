"""Paint by Example: Stable Diffusion inpainting that is shown one example picture instead of words.

Yang et al., "Paint by Example: Exemplar-based Image Editing with Diffusion Models", CVPR 2023; diffusers'
``PaintByExamplePipeline`` with its authors' weights. It takes a single picture, so each sample is shown one random
reference (RealFill, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, PaintByExamplePipeline, PNDMScheduler, UNet2DConditionModel
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from huggingface_hub import snapshot_download

from realfill.baselines.method import Sampler
from realfill.baselines.stock import BLEND, CONTEXT, View, generators, load_pipeline, require_references
from realfill.config import Blend
from realfill.devices import resolve_device, resolve_dtype
from realfill.io.images import ImageArray, resize, to_tensor
from realfill.scene import Scene

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own normalisation, as its processors do it
_CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class PaintByExample:
    """Complete with one random reference as the example; no fit.

    The weights are loaded once for an object and stay loaded.
    """

    name: ClassVar[str] = "paint_by_example"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = True

    base: str = "Fantasy-Studio/Paint-by-Example"
    """Hub id or directory."""
    num_inference_steps: int = 50
    """Denoising steps. The pipeline's default; its authors' too."""
    guidance_scale: float = 5.0
    """Classifier-free guidance towards the example; 1 is without. The pipeline's default; its authors' too."""
    context: float = CONTEXT
    """As ``SampleConfig.context``, and by default the same."""
    blend: Blend = BLEND
    """As ``SampleConfig.blend``, and by default the same."""
    device: str | torch.device | None = None
    """Where to compute. None: the best there is."""
    dtype: torch.dtype | None = None
    """Of the weights. None: half precision on CUDA, single elsewhere."""
    local_files_only: bool = False
    """Don't touch the network for the weights."""

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Load the weights; there are no words and no fit.

        Raises:
            BaseModelError: the weights can't be had.
            SceneError: the scene has no references.
        """
        del prompt, fit_seed
        require_references(scene, self.name)
        return partial(self._sample, self._pipeline, scene)

    @cached_property
    def _pipeline(self) -> Any:
        device = resolve_device(self.device)
        return load_pipeline(
            self.name,
            _load_parts,
            (self.base,),
            device=device,
            dtype=resolve_dtype(device, self.dtype),
            local_files_only=self.local_files_only,
        )

    def _sample(self, pipeline: Any, scene: Scene, seeds: Sequence[int]) -> list[ImageArray]:
        multiple = max(8, pipeline.vae_scale_factor)  # the pipeline takes multiples of 8 whatever its VAE does
        resolution = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        view = View.of(scene, resolution=resolution, multiple=multiple, context=self.context)
        side = pipeline.image_encoder.config.image_size
        images = []
        for seed, generator in generators(seeds):
            reference = scene.references[np.random.default_rng(seed).integers(len(scene.references))]
            sample = pipeline(
                example_image=_example(reference, side),
                image=view.picture(),
                mask_image=view.mask(),
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                generator=generator,
                output_type="np",
            ).images[0]
            images.append(view.finish(sample, self.blend))
        return images


def _load_parts(base: str, *, local_files_only: bool, **options: Any) -> PaintByExamplePipeline:
    """Load the parts one by one.

    The published index says where an older diffusers kept the image encoder's class; where this one has moved it to,
    its ``from_pretrained`` doesn't look. There is no safety checker, which would blacken pictures, and no feature
    extractor: ``_example`` does its work.
    """
    parts = ("vae", "image_encoder", "unet", "scheduler")
    if not Path(base).is_dir():  # not its single-file checkpoint
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
    """Bring a whole reference to CLIP's square and range, as the authors do: (1, 3, side, side).

    CLIP's processor would cut off what lies outside the central square.
    """
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_DEVIATION))
    return (to_tensor(resize(reference, (side, side))) - mean) / deviation
