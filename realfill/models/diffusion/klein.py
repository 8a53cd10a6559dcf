"""FLUX.2 klein: a flow-matching transformer that reads images as conditioning tokens, and Qwen3 text.

All of it stays behind the protocol ``DiffusionFamily``, which documents the shapes. A latent is one token: 2 x 2
latents of the autoencoder in its channels, normalised by the autoencoder's running statistics. The model takes no mask.
It sees the image with its hole blanked as the first conditioning image, and the references as the following ones.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from diffusers import Flux2KleinPipeline
from torch import nn

from realfill.compute.memory import fits
from realfill.config import Quantization, Scheduler
from realfill.errors import BaseModelError
from realfill.io.images import resize, to_shares, to_tensor
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.decoding import decode_in_pieces
from realfill.models.diffusion.family import ReferenceView
from realfill.models.diffusion.flow import diffuse_flow, make_flow_sampler
from realfill.models.diffusion.layers import all_known, blanked, find_layers
from realfill.models.diffusion.quantization import check_quantization, quantize
from realfill.models.diffusion.structure import Structure
from realfill.models.quiet import quiet

_PATCH = 2  # autoencoder latents on each side of a token
_TIME_STEP = 10  # between the time indices of conditioning images
_NUM_WORDS = 512  # text tokens
_BLOCK_VALUES = 30  # values that a block keeps for the backward pass, for each token and channel


@dataclass(frozen=True, slots=True, eq=False)
class _References:
    """The conditioning tokens of the references.

    Attributes:
        tokens: (1, N, C).
        positions: (N, 4): time, row, column, layer.
        numbers: (N,) int: index of the reference that each token comes from.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    numbers: torch.Tensor


@dataclass(slots=True, eq=False)
class KleinInpainter:
    """A loaded base model on a device; implements ``DiffusionFamily``.

    Attributes:
        base: name of the base model; the absolute path if it was loaded from a directory.
        card: properties and default settings.
        pipeline: diffusers' pipeline, which holds the networks.
        fingerprint: hash of the weights.
        device: device of the transformer and the autoencoder. The text encoder is there only while it computes.
        dtype: precision of the weights.
        quantization: format in which ``to`` stores the transformer's blocks; ``None``: ``dtype``.
        unfitted: the base model without an adapter, if ``keep_unfitted`` was called.
        structure: always ``None``.
    """

    denoiser_name = "transformer"
    generates_whole = True  # it takes no mask
    sees_references = True
    reads_hints = False
    embedding_width = 0

    base: str
    card: Card
    pipeline: Any
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    quantization: Quantization | None = None
    unfitted: KleinInpainter | None = None
    structure: Structure | None = None
    _references: _References | None = None
    _embeddings: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def from_pipeline(
        cls, pipeline: Flux2KleinPipeline, *, base: str, card: Card, fingerprint: str,
        quantization: Quantization | None = None,
    ) -> Self:  # fmt: skip
        """Take over the networks of a pipeline, on the CPU and in their own precision; they are frozen.

        Raises:
            BaseModelError: the transformer does not take the autoencoder's latents.
        """
        transformer, vae = pipeline.transformer, pipeline.vae
        channels = vae.config.latent_channels * _PATCH**2
        if transformer.config.in_channels != channels:
            raise BaseModelError(
                f"{base!r} is damaged, because its transformer takes {transformer.config.in_channels} channels; legal: "
                f"{channels}, as its autoencoder has. Download it again"
            )
        for part in (transformer, vae, pipeline.text_encoder):
            part.requires_grad_(requires_grad=False).eval()
        return cls(base, card, pipeline, fingerprint, torch.device("cpu"), transformer.dtype, quantization)

    def keep_unfitted(self) -> None:
        """Keep a copy of the transformer without an adapter, for guidance away from it; the other parts are shared.

        Call it before an adapter is attached.
        """
        with quiet():
            parts = {**self.pipeline.components, "transformer": copy.deepcopy(self.pipeline.transformer)}
            pipeline = type(self.pipeline)(**parts, is_distilled=self.pipeline.config.is_distilled)
        self.unfitted = dataclasses.replace(self, pipeline=pipeline)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the transformer and the autoencoder to a device, in place; the text encoder changes its precision only.

        Instead of fp16, which the model was not trained in and which overflows, the weights are bf16.

        Raises:
            ValueError: quantized weights are not possible on the device.
            MissingDependencyError: the package for quantized weights is missing.
        """
        dtype = torch.bfloat16 if dtype == torch.float16 else dtype
        transformer, vae = self.pipeline.transformer, self.pipeline.vae
        if self.quantization is not None:
            check_quantization(self.quantization, device)
        with quiet():
            transformer.to(dtype=dtype)
            if self.quantization is not None:
                for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
                    quantize(blocks, self.quantization, dtype)
            transformer.to(device)
            vae.to(device=device, dtype=dtype)
            self.pipeline.text_encoder.to(dtype=dtype)
        self.device, self.dtype = device, dtype
        self._embeddings.clear()
        if self.unfitted is not None:
            self.unfitted.to(device, dtype)
        return self

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks that a fit can train: the transformer; the text encoder stays frozen."""
        return {"transformer": self.pipeline.transformer}

    @property
    def vae_scale_factor(self) -> int:
        """Side of a token in pixels; the sides of images are multiples of it."""
        return _PATCH * self._vae_cell

    @property
    def resolution(self) -> int:
        """Side in pixels of the square images that the base model is used for."""
        return self.card.resolution or self.pipeline.vae.config.sample_size

    @property
    def traits(self) -> dict[str, Any]:
        """Properties of the base model that the result of a fit depends on; plain JSON values."""
        return {
            "fingerprint": self.fingerprint, "dtype": str(self.dtype), "resolution": self.resolution,
            "masked_image": self.card.masked_image, "quantization": self.quantization,
        }  # fmt: skip

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of the latents of an image of ``size`` (height, width)."""
        height, width = (n // self.vae_scale_factor for n in size)
        return self.pipeline.transformer.config.in_channels, height, width

    @property
    def width(self) -> int:
        """Channels of the transformer."""
        return self.pipeline.transformer.inner_dim

    @property
    def kept_values(self) -> tuple[int, int]:
        """Values that a training step keeps for each token and channel: without and with gradient checkpointing.

        Counted by ``examples/klein_memory.py`` on a narrow transformer of the 4B's depth.
        """
        config = self.pipeline.transformer.config
        return kept_values(config.num_layers + config.num_single_layers)

    def num_latents(self, size: tuple[int, int]) -> int:
        """Count the tokens of an image: its own, those of the image with its hole, of references, and of text."""
        references = 0 if self._references is None else len(self._references.numbers)
        return 2 * math.prod(self.latent_shape(size)[1:]) + references + _NUM_WORDS

    @property
    def num_bytes(self) -> int:
        """Size in bytes of the weights that stay on the device."""
        parts = (self.pipeline.transformer, self.pipeline.vae)
        return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())

    def prepare_training(self, *, gradient_checkpointing: bool, compiled: bool, half_precision: bool) -> None:
        """Switch the transformer to training."""
        del half_precision
        transformer = self.pipeline.transformer
        transformer.train()
        if gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        if compiled:
            transformer.compile_repeated_blocks()

    def lora_layers(self, targets: Sequence[str]) -> dict[str, nn.Linear | nn.Conv2d]:
        """Find the transformer's layers whose names end in one of the targets; ``*`` stands for all of them.

        Raises:
            ValueError: no layer matches one of the targets.
        """
        return find_layers(self.pipeline.transformer, targets, self.base)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images; return the mean and the standard deviation of the VAE's posterior, normalised, as tokens."""
        scaled = (to_shares(images) * 2 - 1).to(self.device, self.dtype)
        posterior = self.pipeline.vae.encode(scaled).latent_dist
        mean, std = self._statistics()
        return (_patchify(posterior.mode().float()) - mean) / std, _patchify(posterior.std.float()) / std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to images, float32 in [0, 1], in pieces if memory requires it."""
        mean, std = self._statistics()
        patches = _unpatchify(latents.to(self.device) * std + mean).to(self.dtype)
        images = decode_in_pieces(self.pipeline.vae, patches, self._vae_cell)
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def prepare_mask_latents(
        self, images: torch.Tensor, hole: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Encode the images with their holes blanked, which become the first conditioning image: (B, C, h, w)."""
        del confidence
        return self.encode(blanked(images.to(self.device), hole.to(self.device), self.card.masked_image))[0]

    def known_latents(self, known: torch.Tensor) -> torch.Tensor:
        """Reduce a mask of known pixels to latents; a latent is known if all of its pixels are."""
        return all_known(known, self.vae_scale_factor)

    def use_references(self, views: Sequence[ReferenceView], side_px: int) -> None:
        """Encode the references that ``predict`` sees, each with a time index of its own. Call it after ``to``."""
        tokens, positions, numbers = [], [], []
        for index, view in enumerate(views):
            image = to_tensor(resize(view.image, self._reference_size(view.image.shape, side_px)))
            latents = self.encode(image)[0]
            tokens.append(_pack(latents))
            positions.append(_positions((index + 2) * _TIME_STEP, latents))
            numbers.append(torch.full((tokens[-1].shape[1],), view.reference))
        self._references = None
        if views:
            self._references = _References(
                torch.cat(tokens, dim=1), torch.cat(positions), torch.cat(numbers).to(self.device)
            )
        if self.unfitted is not None:
            self.unfitted._references = self._references  # noqa: SLF001 - its own class

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode prompts to embeddings (B, L, D), once each.

        The text encoder is on the device only while it computes, and stays on the CPU if it does not fit beside the
        other networks.
        """
        new = [p for p in dict.fromkeys(prompts) if p not in self._embeddings]
        if new:
            encoder: nn.Module = self.pipeline.text_encoder
            num_bytes = sum(p.numel() * p.element_size() for p in encoder.parameters())
            place = self.device if self.device.type == "cpu" or fits(self.device, num_bytes) else torch.device("cpu")
            try:
                for prompt in new:  # one at a time, so that an embedding does not depend on the others
                    encoder.to(place)
                    self._embeddings[prompt] = self.pipeline.encode_prompt([prompt], device=place)[0].to(self.device)
            finally:
                encoder.to("cpu")
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
        return torch.cat([self._embeddings[p] for p in prompts])

    def diffuse(
        self, latents: torch.Tensor, noise: torch.Tensor, quantiles: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add noise for a training step; return noisy latents, timesteps, targets and the weights of their errors."""
        return diffuse_flow(latents, noise, quantiles, self.pipeline.scheduler.config.num_train_timesteps)

    def estimate_clean(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, model_pred: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate the clean latents from a predicted velocity; the signal is 1 - sigma."""
        sigmas = timesteps.to(noisy) / self.pipeline.scheduler.config.num_train_timesteps
        return noisy - sigmas.view(-1, 1, 1, 1) * model_pred, 1 - sigmas

    def predict(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        mask_latents: torch.Tensor,
        embeddings: torch.Tensor,
        own_references: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the transformer on noisy and conditioning tokens; return the velocity (B, C, h, w) in float32."""
        height, width = noisy.shape[-2:]
        tokens, positions = [_pack(noisy), _pack(mask_latents)], [_positions(0, noisy), _positions(_TIME_STEP, noisy)]
        references = self._references
        if references is not None:
            tokens.append(references.tokens.expand(len(noisy), -1, -1))
            positions.append(references.positions)
        words = torch.cat([torch.zeros(embeddings.shape[1], 3), torch.arange(embeddings.shape[1])[:, None]], dim=1)
        visible = None
        if references is not None and own_references is not None:
            others = own_references.to(self.device)[:, None] != references.numbers
            rest = others.new_ones(len(noisy), embeddings.shape[1] + 2 * height * width)
            visible = torch.cat([rest, others], dim=1)[:, None, None]
        prediction = self.pipeline.transformer(
            hidden_states=torch.cat(tokens, dim=1).to(self.dtype),
            timestep=timesteps.float() / self.pipeline.scheduler.config.num_train_timesteps,
            guidance=None,
            encoder_hidden_states=embeddings.to(self.dtype),
            txt_ids=words.to(self.device),
            img_ids=torch.cat(positions).to(self.device),
            joint_attention_kwargs=None if visible is None else {"attention_mask": visible},
            return_dict=False,
        )[0]
        return prediction[:, : height * width].transpose(1, 2).unflatten(2, (height, width)).float()

    def make_scheduler(
        self, name: Scheduler, num_inference_steps: int, *, strength: float = 1.0, num_latents: int | None = None
    ) -> Any:
        """Build an Euler sampler for the base model's noise schedule and set its timesteps, on the CPU.

        Raises:
            ValueError: the sampler is another one.
        """
        if name != "euler":
            raise ValueError(f"SampleConfig.scheduler is {name!r}; legal for {self.base!r}: 'euler', its default")
        count = num_latents or math.prod(self.latent_shape((self.resolution, self.resolution))[1:])
        return make_flow_sampler(self.pipeline.scheduler, num_inference_steps, strength=strength, num_latents=count)

    @property
    def _vae_cell(self) -> int:
        return 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the autoencoder's patches, each (1, C, 1, 1)."""
        norm = self.pipeline.vae.bn
        mean, variance = (x.float().view(1, -1, 1, 1) for x in (norm.running_mean, norm.running_var))
        return mean, (variance + self.pipeline.vae.config.batch_norm_eps).sqrt()

    def _reference_size(self, shape: tuple[int, ...], side_px: int) -> tuple[int, int]:
        """Return the size of a reference for the model: no enlargement, multiples of a token."""
        scale = min(1.0, side_px / math.sqrt(shape[0] * shape[1]))
        height, width = (max(1, round(n * scale / self.vae_scale_factor)) * self.vae_scale_factor for n in shape[:2])
        return height, width


def kept_values(num_blocks: int) -> tuple[int, int]:
    """Return the values that a training step keeps for each token and channel: plain, and with checkpointing."""
    return _BLOCK_VALUES * num_blocks, num_blocks + 2 * _BLOCK_VALUES


def _patchify(latents: torch.Tensor) -> torch.Tensor:
    """Fold 2 x 2 latents into the channels: (B, C, 2h, 2w) to (B, 4C, h, w)."""
    return nn.functional.pixel_unshuffle(latents, _PATCH)


def _unpatchify(patches: torch.Tensor) -> torch.Tensor:
    """Undo ``_patchify``."""
    return nn.functional.pixel_shuffle(patches, _PATCH)


def _pack(latents: torch.Tensor) -> torch.Tensor:
    """Turn latents (B, C, h, w) into tokens (B, h * w, C)."""
    return latents.flatten(2).transpose(1, 2)


def _positions(time: int, latents: torch.Tensor) -> torch.Tensor:
    """Return the positions (h * w, 4) of an image's tokens: time, row, column, layer."""
    height, width = latents.shape[-2:]
    return torch.cartesian_prod(torch.tensor([time]), torch.arange(height), torch.arange(width), torch.arange(1))
