"""Inpainter: a latent inpainting model behind the few questions that training and sampling ask.

What is Stable Diffusion's own stays here: nine-channel input, CLIP text, noise schedule, parametrisation, [-1, 1].
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionInpaintPipeline
from safetensors import SafetensorError
from torch import nn

from realfill.capacity import FREE_SHARE, free_bytes
from realfill.config import Scheduler
from realfill.devices import send
from realfill.errors import BaseModelError, RealFillWarning
from realfill.io.images import to_shares
from realfill.masks import fill_smooth
from realfill.models._quiet import quiet
from realfill.models.bases import BASES, Card, locate
from realfill.models.pipelines import compute_fingerprint, load_pipeline, save_pipeline
from realfill.models.schedules import diffuse, make_scheduler, training_schedule

_DECODER_TENSORS = 3  # of full size that AutoencoderKL's decoder holds at a time, as wide as its second block
_MAX_PLAIN_ATTENTION = 1024  # latents of an image; plain attention holds their square for the backward pass


@dataclass(slots=True, eq=False)
class Inpainter:
    """A loaded base model on a device.

    Attributes:
        base: the name it was asked for by; of a directory, its absolute path.
        card: what it declares about itself.
        pipeline: diffusers' pipeline, which holds the parts.
        fingerprint: of its weights and noise schedule; the same at any precision that the files come in.
        device: where it computes.
        dtype: of its weights.
        unfitted: what this base was before an adapter was attached, where ``keep_unfitted`` asked for that.
    """

    base: str
    card: Card
    pipeline: StableDiffusionInpaintPipeline
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    unfitted: Inpainter | None = None

    @classmethod
    def load(cls, base: str, *, local_files_only: bool = False) -> Inpainter:
        """Load a base model in single precision on the CPU; ``to`` brings it elsewhere.

        Args:
            base: ``sd2``, ``sd15``, ``mini``, a hub id, or a directory.
            local_files_only: don't touch the network.

        Raises:
            BaseModelError: it can't be had, or is no inpainting model.
        """
        directory = locate(base, local_files_only=local_files_only)
        name = base if base in BASES or not Path(base).is_dir() else str(directory.resolve())
        try:
            return cls.from_pipeline(load_pipeline(directory), base=name, card=Card.load(directory))
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
            raise BaseModelError(
                f"the base model {base!r} ({directory}) can't be loaded: {error}. Are its files whole? Get it again"
            ) from error

    @classmethod
    def from_pipeline(cls, pipeline: StableDiffusionInpaintPipeline, *, base: str, card: Card) -> Inpainter:
        """Take over the parts of a pipeline.

        Raises:
            BaseModelError: its U-Net doesn't take an image, a mask and a masked image.
        """
        unet, vae = pipeline.unet, pipeline.vae
        latent_channels = vae.config.latent_channels
        if unet.config.in_channels != 2 * latent_channels + 1:
            raise BaseModelError(
                f"{base!r} is not an inpainting model: its U-Net takes {unet.config.in_channels} channels; legal: "
                f"{2 * latent_channels + 1} (latents, mask, masked latents). Take its inpainting variant"
            )
        if unet.config.addition_embed_type is not None:
            raise BaseModelError(
                f"{base!r} is of another family (SD XL); legal: inpainting models like SD 1.5 and SD 2"
            )
        with quiet():
            for part in (unet, vae, pipeline.text_encoder):
                part.requires_grad_(requires_grad=False).eval().float()  # transformers keeps the files' precision
        fingerprint = compute_fingerprint(pipeline)
        return cls(base, card, pipeline, fingerprint, torch.device("cpu"), torch.float32)

    def save(self, directory: Path, card: Card) -> None:
        """Write the base with a card in diffusers' layout, the U-Net in half precision; it stays as it is itself."""
        save_pipeline(self.pipeline, directory)
        card.save(directory)

    def keep_unfitted(self) -> None:
        """Keep a copy of what a prediction runs through, which guidance can lead away from; the autoencoder is shared.

        Call it before an adapter is attached.
        """
        with quiet():
            copies = {name: copy.deepcopy(part) for name, part in self.parts.items()}
            pipeline = type(self.pipeline)(**{**self.pipeline.components, **copies}, requires_safety_checker=False)
        self.unfitted = dataclasses.replace(self, pipeline=pipeline)

    def to(self, device: torch.device, dtype: torch.dtype) -> Inpainter:
        """Move to a device and precision, in place."""
        with quiet():  # diffusers warns of parts to be kept in single precision, of which there are none
            for part in (self.unet, self.pipeline.vae, self.text_encoder):
                part.to(device=device, dtype=dtype)
            # convolutions are quicker on channels that lie together; on a CPU only the VAE's, which are large
            gaining = {"cuda": (self.unet, self.pipeline.vae), "cpu": (self.pipeline.vae,)}
            for part in gaining.get(device.type, ()):
                part.to(memory_format=torch.channels_last)
        self.device, self.dtype = device, dtype
        if self.unfitted is not None:
            self.unfitted.to(device, dtype)
        return self

    @property
    def unet(self) -> Any:
        """The denoising U-Net."""
        return self.pipeline.unet

    @property
    def text_encoder(self) -> Any:
        """The CLIP text encoder."""
        return self.pipeline.text_encoder

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What a prediction runs through, and so what a fit may change, by name."""
        return {"unet": self.unet, "text_encoder": self.text_encoder}

    @property
    def latent_px(self) -> int:
        """Side of a latent in pixels; image sizes have to be multiples of it."""
        return 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)

    @property
    def resolution(self) -> int:
        """Side in pixels of the square images that the base was trained on."""
        return self.card.resolution or self.unet.config.sample_size * self.latent_px

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Tell the shape (C, h, w) of the latents of an image of a size (height, width)."""
        return self.pipeline.vae.config.latent_channels, size[0] // self.latent_px, size[1] // self.latent_px

    @property
    def width(self) -> int:
        """Channels of the U-Net's first level, which what a training step keeps in memory goes by."""
        return self.unet.config.block_out_channels[0]

    @property
    def num_bytes(self) -> int:
        """Bytes of the weights."""
        parts = (self.unet, self.pipeline.vae, self.text_encoder)
        return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())

    def prepare_training(self, *, gradient_checkpointing: bool, compiled: bool, half_precision: bool) -> None:
        """Switch the U-Net to training.

        Args:
            gradient_checkpointing: compute activations anew in the backward pass.
            compiled: compile the blocks that repeat, at their first use.
            half_precision: it will compute in half precision. On a CPU plain attention is then quicker, forth and back,
                than the fused kernel; it is taken where the memory that it needs is small.
        """
        self.unet.train()
        _, height, width = self.latent_shape((self.resolution, self.resolution))
        if half_precision and self.device.type == "cpu" and height * width <= _MAX_PLAIN_ATTENTION:
            self.unet.set_default_attn_processor()
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if compiled:
            self.unet.compile_repeated_blocks()

    def lora_layers(self, targets: Sequence[str]) -> dict[str, nn.Linear | nn.Conv2d]:
        """Find the U-Net's layers that get a LoRA: name to linear layer or convolution.

        Args:
            targets: ends of names, such as ``to_q``; ``*``: all of them.

        Raises:
            ValueError: no layer matches one of the targets.
        """
        layers = {name: layer for name, layer in self.unet.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
        ends = tuple(f".{t}" for t in targets)
        for target, end in zip(targets, ends, strict=True):
            if target != "*" and not any(f".{name}".endswith(end) for name in layers):
                raise ValueError(
                    f"lora_targets names {target!r}, which no layer of {self.base!r} is called; legal:"
                    " '*' or ends of names"
                )
        return layers if "*" in targets else {n: layer for n, layer in layers.items() if f".{n}".endswith(ends)}

    def posterior(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images to the VAE's distribution over latents.

        Args:
            images: (B, 3, H, W), uint8 or in [0, 1].

        Returns:
            Its mean, which is its mode, and its standard deviation: (B, C, h, w), scaled for the U-Net, float32.
        """
        vae = self.pipeline.vae
        with torch.no_grad():
            posterior = vae.encode((to_shares(images) * 2 - 1).to(self.device, self.dtype)).latent_dist
        shift, scale = getattr(vae.config, "shift_factor", None) or 0, vae.config.scaling_factor
        return (posterior.mode().float() - shift) * scale, posterior.std.float() * scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents (B, C, h, w) to images (B, 3, H, W) in [0, 1], float32.

        A convolutional VAE decodes one image at a time; where memory lacks even for that, in overlapping tiles of the
        size that it was trained on. Tiles change colours a little, and a warning says so.
        """
        vae = self.pipeline.vae
        latents = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0)
        with torch.no_grad(), _in_pieces(vae, tiled=self._too_large_to_decode(latents)):
            images = vae.decode(latents.to(self.device, self.dtype)).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def condition(self, images: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Prepare what the U-Net is told about the known pixels: the mask and the encoded masked image.

        What lies under the hole is blanked before anything sees it.

        Args:
            images: (B, 3, H, W), uint8 or in [0, 1].
            hole: (B, 1, H, W) bool, True = hidden.

        Returns:
            (B, C + 1, h, w) float32.
        """
        images, hole = to_shares(images.to(self.device)), hole.to(self.device)
        masked = fill_smooth(images, hole) if self.card.masked_image == "smooth" else images.masked_fill(hole, 0.5)
        return torch.cat([self._mask_channel(hole), self.posterior(masked)[0]], dim=1)

    def known_latents(self, known: torch.Tensor) -> torch.Tensor:
        """Tell which latents hold known pixels only: (B, 1, H, W) bool, of whole latents, to (B, 1, h, w) bool."""
        rows = known.unflatten(-1, (-1, self.latent_px)).all(dim=-1)
        return rows.unflatten(-2, (-1, self.latent_px)).all(dim=-2)

    def embed(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode prompts to (B, L, D)."""
        tokenizer = self.pipeline.tokenizer
        tokens = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(send(tokens.input_ids, self.device))[0]

    def diffuse(
        self, latents: torch.Tensor, noise: torch.Tensor, quantiles: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add noise for a training step.

        Args:
            latents: (B, C, h, w).
            noise: the same shape, standard normal.
            quantiles: (B,) in [0, 1]: how far up the noise schedule.

        Returns:
            Noisy latents; timesteps (B,); what the model shall predict from them (noise, velocity or the latents
            themselves, as the base was trained); and how much each row's squared error counts, (B, 1, 1, 1). It is 1
            but where the latents are predicted: there it makes the loss that of the velocity that follows from them
            (Li & He 2025, "Back to basics"), within bounds.
        """
        self.pipeline.scheduler = training_schedule(self.pipeline.scheduler)
        return diffuse(self.pipeline.scheduler, latents, noise, quantiles)

    def predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """Run the U-Net: (B, C, h, w), (B,), ``condition``'s and ``embed``'s results to (B, C, h, w) float32."""
        inputs = torch.cat([noisy, condition], dim=1).to(self.dtype)
        return self.unet(inputs, timesteps, encoder_hidden_states=embeddings.to(self.dtype)).sample.float()

    def make_scheduler(
        self, name: Scheduler, num_inference_steps: int, *, temperature: float = 1.0, strength: float = 1.0
    ) -> Any:
        """Build a sampler by name for the base's own noise schedule, its timesteps set; they stay on the CPU.

        Args:
            name: of the sampler.
            num_inference_steps: that are taken: the last so many of its timesteps.
            temperature: factor on the noise that ``ddpm`` adds.
            strength: share of the noise schedule that these steps cover, its end; 1: all of it.
        """
        return make_scheduler(
            self.pipeline.scheduler, name, num_inference_steps,
            temperature=temperature, strength=strength,
        )  # fmt: skip

    def _too_large_to_decode(self, latents: torch.Tensor) -> bool:
        """Compare what decoding one image whole takes with what is free."""
        vae = self.pipeline.vae
        if not hasattr(vae, "use_tiling") or max(latents.shape[-2:]) <= vae.tile_latent_min_size:
            return False
        height, width = (n * self.latent_px for n in latents.shape[-2:])
        widest = vae.config.block_out_channels[:2][-1]
        taken = _DECODER_TENSORS * widest * self.dtype.itemsize * height * width
        free = free_bytes(self.device)
        too_large = taken > FREE_SHARE * free
        if too_large:
            warnings.warn(
                f"an image of {height} x {width} pixels is decoded in tiles: the whole takes {taken / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB are free. Colours may differ a little from tile to tile",
                RealFillWarning,
                stacklevel=3,
            )
        return too_large

    def _mask_channel(self, hole: torch.Tensor) -> torch.Tensor:
        if self.card.masked_latent == "any":
            return F.max_pool2d(hole.float(), self.latent_px)
        return hole[..., :: self.latent_px, :: self.latent_px].float()


@contextmanager
def _in_pieces(vae: Any, *, tiled: bool) -> Iterator[None]:
    """Make a VAE decode one image at a time, in tiles on request; one that can't is cheap enough without."""
    sliced = hasattr(vae, "use_slicing")
    if sliced:
        vae.enable_slicing()
    if tiled:
        vae.enable_tiling()
    try:
        yield
    finally:  # encoding large batches is for the caller to decide
        if sliced:
            vae.disable_slicing()
        if tiled:
            vae.disable_tiling()
