"""Stable Diffusion's inpainting models: nine-channel input, CLIP text, noise schedule, value range [-1, 1].

All of it stays behind the protocol ``DiffusionFamily``, which documents the shapes.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from realfill.compute.devices import send
from realfill.config import Scheduler
from realfill.errors import BaseModelError
from realfill.io.images import to_shares
from realfill.models.diffusion.card import Card, read_index
from realfill.models.diffusion.decoding import decode_in_pieces
from realfill.models.diffusion.family import ReferenceView
from realfill.models.diffusion.files import (
    StableDiffusionInpaintPipeline,
    compute_fingerprint,
    load_pipeline,
    save_pipeline,
)
from realfill.models.diffusion.hub import BASES, locate
from realfill.models.diffusion.layers import all_known, blanked, find_layers
from realfill.models.diffusion.schedules import diffuse, estimate_clean, make_scheduler, training_schedule
from realfill.models.diffusion.structure import Structure
from realfill.models.diffusion.trusted import check_base
from realfill.models.quiet import quiet

_MAX_PLAIN_ATTENTION = 1024  # latents of an image; plain attention keeps their square for the backward pass


@dataclass(slots=True, eq=False)
class StableDiffusionInpainter:
    """A loaded base model on a device; implements ``DiffusionFamily``.

    Attributes:
        base: name of the base model; the absolute path if it was loaded from a directory.
        card: what the base model declares about itself.
        pipeline: diffusers' pipeline, which holds the networks.
        fingerprint: hash of the weights and the noise schedule, independent of the precision of the files.
        device: device of the weights.
        dtype: precision of the weights.
        unfitted: the base model without an adapter, if ``keep_unfitted`` was called.
        structure: what an attached adapter has learnt beside its LoRA.
    """

    denoiser_name = "unet"
    generates_whole = False
    sees_references = False

    base: str
    card: Card
    pipeline: StableDiffusionInpaintPipeline
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    unfitted: StableDiffusionInpainter | None = None
    structure: Structure | None = None

    @classmethod
    def load(cls, base: str, *, local_files_only: bool = False) -> Self:
        """Load a base model in single precision on the CPU; ``to`` moves it.

        Args:
            base: ``sd2``, ``sd15``, ``mini``, a hub id, or a directory.
            local_files_only: do not use the network.

        Raises:
            BaseModelError: the base model is not available, or is not an inpainting model.
        """
        directory = locate(base, local_files_only=local_files_only)
        name = base if base in BASES or not Path(base).is_dir() else str(directory.resolve())
        try:
            check_base(directory, read_index(directory))
            return cls.from_pipeline(load_pipeline(directory), base=name, card=Card.load(directory))
        except (BaseModelError, MemoryError):
            raise
        except Exception as error:  # the libraries raise anything for damaged files
            raise BaseModelError(
                f"the base model {base!r} ({directory}) cannot be loaded ({error}); download it again if it is damaged"
            ) from error

    @classmethod
    def from_pipeline(cls, pipeline: StableDiffusionInpaintPipeline, *, base: str, card: Card) -> Self:
        """Wrap a pipeline; its networks are frozen and converted to single precision in place.

        Raises:
            BaseModelError: the U-Net does not take latents, a mask and masked-image latents.
        """
        unet, vae = pipeline.unet, pipeline.vae
        latent_channels = vae.config.latent_channels
        if unet.config.in_channels != 2 * latent_channels + 1:
            raise BaseModelError(
                f"{base!r} is not an inpainting model, because its U-Net takes {unet.config.in_channels} channels; "
                f"legal: {2 * latent_channels + 1} (latents, mask, masked-image latents). Use its inpainting variant"
            )
        if unet.config.addition_embed_type is not None:
            raise BaseModelError(
                f"{base!r} belongs to another family (SD XL); legal: inpainting models of SD 1.5 and SD 2"
            )
        with quiet():
            for part in (unet, vae, pipeline.text_encoder):
                part.requires_grad_(requires_grad=False).eval().float()  # transformers keeps the precision of the files
        fingerprint = compute_fingerprint(pipeline)
        return cls(base, card, pipeline, fingerprint, torch.device("cpu"), torch.float32)

    def save(self, directory: Path, card: Card) -> None:
        """Write the base model and a card in diffusers' layout; its U-Net is stored in half precision."""
        save_pipeline(self.pipeline, directory)
        card.save(directory)

    def keep_unfitted(self) -> None:
        """Keep a copy of the networks without an adapter, for guidance away from it; the autoencoder is shared.

        Call it before an adapter is attached.
        """
        with quiet():
            copies = {name: copy.deepcopy(part) for name, part in self.parts.items()}
            pipeline = type(self.pipeline)(**{**self.pipeline.components, **copies}, requires_safety_checker=False)
        self.unfitted = dataclasses.replace(self, pipeline=pipeline)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move to a device and precision, in place."""
        with quiet():  # diffusers warns about layers that must stay in single precision, and there are none
            for part in (self.unet, self.pipeline.vae, self.text_encoder):
                part.to(device=device, dtype=dtype)
            # convolutions are faster with channels last; on a CPU only the large ones of the VAE
            channels_last = {"cuda": (self.unet, self.pipeline.vae), "cpu": (self.pipeline.vae,)}
            for part in channels_last.get(device.type, ()):
                part.to(memory_format=torch.channels_last)
        self.device, self.dtype = device, dtype
        self.structure = self.structure and self.structure.to(device)
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
        """The networks that a fit can train, by name."""
        return {"unet": self.unet, "text_encoder": self.text_encoder}

    def use_references(self, views: Sequence[ReferenceView], side_px: int) -> None:
        """Ignore the references, which this family cannot read."""

    @property
    def vae_scale_factor(self) -> int:
        """Side of a latent in pixels; the sides of images are multiples of it."""
        return 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)

    @property
    def resolution(self) -> int:
        """Side in pixels of the square images that the base model was trained on."""
        return self.card.resolution or self.unet.config.sample_size * self.vae_scale_factor

    @property
    def traits(self) -> dict[str, Any]:
        """Properties of the base model that the result of a fit depends on; plain JSON values."""
        return {
            "fingerprint": self.fingerprint, "dtype": str(self.dtype), "resolution": self.resolution,
            "masked_image": self.card.masked_image, "masked_latent": self.card.masked_latent,
            "reads_hints": self.card.reads_hints,
        }  # fmt: skip

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of the latents of an image of ``size`` (height, width)."""
        height, width = (n // self.vae_scale_factor for n in size)
        return self.pipeline.vae.config.latent_channels, height, width

    @property
    def reads_hints(self) -> bool:
        """Whether the masked image may show hints in the hole, by the base model's card."""
        return self.card.reads_hints

    @property
    def width(self) -> int:
        """Channels of the U-Net's first level."""
        return self.unet.config.block_out_channels[0]

    @property
    def embedding_width(self) -> int:
        """Width of cross-attention, for which learnt embeddings can take the place of a prompt."""
        return self.unet.config.cross_attention_dim

    @property
    def kept_values(self) -> tuple[int, int]:
        """Values that a training step keeps for each latent and channel: without and with gradient checkpointing.

        Estimates. The layers of Stable Diffusion 2 hold 420 values or, with checkpointing, 50 and those of the block
        that is being recomputed. On an H200 a fit of it took 5 % less than the plan that they give.
        """
        return 440, 85

    def num_latents(self, size: tuple[int, int]) -> int:
        """Count the latents of an image of ``size`` (height, width)."""
        return math.prod(self.latent_shape(size)[1:])

    @property
    def num_bytes(self) -> int:
        """Size of all weights in bytes."""
        parts = (self.unet, self.pipeline.vae, self.text_encoder)
        return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())

    def prepare_training(self, *, gradient_checkpointing: bool, compiled: bool, half_precision: bool) -> None:
        """Switch the U-Net to training.

        In half precision on a CPU, plain attention is faster than the fused kernel in both passes. It is used for
        images that are small enough for its memory.
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
        """Find the U-Net's layers whose names end in one of the targets; ``*`` stands for all of them.

        Raises:
            ValueError: no layer matches one of the targets.
        """
        return find_layers(self.unet, targets, self.base)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images; return the mean and the standard deviation of the VAE's posterior, scaled for the U-Net."""
        vae = self.pipeline.vae
        with torch.no_grad():
            posterior = vae.encode((to_shares(images) * 2 - 1).to(self.device, self.dtype)).latent_dist
        shift, scale = getattr(vae.config, "shift_factor", None) or 0, vae.config.scaling_factor
        return (posterior.mode().float() - shift) * scale, posterior.std.float() * scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to images, float32 in [0, 1], in pieces if memory requires it."""
        vae = self.pipeline.vae
        latents = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0)
        images = decode_in_pieces(vae, latents.to(self.device, self.dtype), self.vae_scale_factor)
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def prepare_mask_latents(
        self, images: torch.Tensor, hole: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Concatenate the mask and the masked-image latents (B, C + 1, h, w); the hole is blanked first.

        Hints stay in the masked image, and the mask channel falls from 1 by their confidence.
        """
        hole = hole.to(self.device)
        doubt, empty = hole.float(), hole
        if confidence is not None and self.reads_hints:
            doubt = doubt * (1 - confidence.to(self.device))
            empty = hole & (confidence.to(self.device) <= 0)
        masked = blanked(images.to(self.device), empty, self.card.masked_image)
        return torch.cat([self._mask_channel(hole, doubt), self.encode(masked)[0]], dim=1)

    def known_latents(self, known: torch.Tensor) -> torch.Tensor:
        """Reduce a mask of known pixels to latents; a latent is known if all of its pixels are."""
        return all_known(known, self.vae_scale_factor)

    def encode_prompt(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode prompts to embeddings (B, L, D); long prompts are truncated, and category prompts are looked up."""
        learnt = self.structure.embeddings if self.structure is not None else {}
        if all(prompt in learnt for prompt in prompts):
            return torch.stack([learnt[prompt] for prompt in prompts])
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
        """Add noise for a training step; return noisy latents, timesteps, targets and the weights of their errors."""
        self.pipeline.scheduler = training_schedule(self.pipeline.scheduler)
        return diffuse(self.pipeline.scheduler, latents, noise, quantiles)

    def estimate_clean(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, model_pred: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate the clean latents from a prediction, and the share of signal in the noisy latents."""
        return estimate_clean(training_schedule(self.pipeline.scheduler), noisy, timesteps, model_pred)

    def predict(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        mask_latents: torch.Tensor,
        embeddings: torch.Tensor,
        own_references: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the U-Net on noisy latents, mask and masked-image latents; return its output in float32."""
        del own_references
        inputs = torch.cat([noisy, mask_latents], dim=1).to(self.dtype)
        return self.unet(inputs, timesteps, encoder_hidden_states=embeddings.to(self.dtype)).sample.float()

    def make_scheduler(
        self, name: Scheduler, num_inference_steps: int, *, strength: float = 1.0, num_latents: int | None = None
    ) -> Any:
        """Build a sampler for the base model's noise schedule and set its timesteps, on the CPU."""
        del num_latents
        return make_scheduler(self.pipeline.scheduler, name, num_inference_steps, strength=strength)

    def _mask_channel(self, hole: torch.Tensor, doubt: torch.Tensor) -> torch.Tensor:
        """Reduce the doubt (B, 1, H, W), 1 in a hole without hints, to latents: its mean over the hidden pixels."""
        side = self.vae_scale_factor
        if self.card.masked_latent == "nearest":
            return doubt[..., ::side, ::side]
        hidden = F.avg_pool2d(hole.float(), side)
        return torch.where(hidden > 0, F.avg_pool2d(doubt, side) / hidden.clamp(min=1e-9), 0.0)
