"""DiffusionFamily: the protocol by which sampling and training use an inpainting diffusion model.

A new family implements this protocol. Its input channels, text encoder and value ranges stay behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import nn

from realfill.config import Scheduler
from realfill.io.images import ImageArray
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.structure import Structure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceView:
    """A picture of the scene that a family with ``sees_references`` reads as conditioning.

    Attributes:
        reference: index of the reference that it comes from.
        image: (H, W, 3) uint8.
    """

    reference: int
    image: ImageArray


class DiffusionFamily(Protocol):
    """A loaded base model on a device.

    Images are (B, 3, H, W), uint8 or float in [0, 1], and latents (B, C, h, w) float32, scaled for the denoiser.
    Each latent covers ``vae_scale_factor`` pixels on each side.

    Attributes:
        structure: what an attached adapter has learnt beside its LoRA; ``None``: nothing.
    """

    structure: Structure | None

    @property
    def card(self) -> Card:
        """Properties and default settings of the base model."""
        ...

    @property
    def pipeline(self) -> Any:
        """The pipeline of diffusers that holds the networks."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, independent of the precision of the files."""
        ...

    @property
    def traits(self) -> Mapping[str, Any]:
        """Properties of the base model that the result of a fit depends on; plain JSON values."""
        ...

    @property
    def base(self) -> str:
        """Name of the base model."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        ...

    @property
    def resolution(self) -> int:
        """Side in pixels of the square images that the base model was trained on."""
        ...

    @property
    def vae_scale_factor(self) -> int:
        """Side of a latent in pixels; the sides of images are multiples of it."""
        ...

    @property
    def denoiser_name(self) -> str:
        """Name of the denoising network in ``parts``, which also begins the names of an adapter's tensors."""
        ...

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """The networks that a fit can train, by the name that diffusers gives them: denoiser, perhaps text encoder."""
        ...

    @property
    def generates_whole(self) -> bool:
        """Whether the model generates the known pixels anew, because it takes no mask.

        The known latents then follow the image at every noise level, and each sample is registered to the known pixels.
        """
        ...

    @property
    def sees_references(self) -> bool:
        """Whether the model reads references as conditioning, see ``use_references``."""
        ...

    @property
    def reads_hints(self) -> bool:
        """Whether the model takes an uncertain image of the hole's content, see ``prepare_mask_latents``."""
        ...

    @property
    def unfitted(self) -> DiffusionFamily | None:
        """The base model without an adapter, for guidance away from it; ``None`` if no copy was kept."""
        ...

    @property
    def width(self) -> int:
        """Channels of the denoiser's first level, which the memory of a training step is proportional to."""
        ...

    @property
    def embedding_width(self) -> int:
        """Width D of the prompt's embeddings; 0 if learnt ones cannot take the place of a prompt."""
        ...

    @property
    def kept_values(self) -> tuple[int, int]:
        """Values that a training step keeps for each latent and channel: without and with gradient checkpointing."""
        ...

    @property
    def num_bytes(self) -> int:
        """Size in bytes of all weights that stay on the device."""
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move to a device and precision, in place."""
        ...

    def keep_unfitted(self) -> None:
        """Keep a copy of the networks without an adapter as ``unfitted``; call it before an adapter is attached."""
        ...

    def use_references(self, views: Sequence[ReferenceView], side_px: int) -> None:
        """Set the references that ``predict`` sees; ignored by a family without ``sees_references``.

        Call it after ``to``.

        Args:
            views: pictures of the references.
            side_px: side of a square with as many pixels as the model sees of each, unless it is smaller.
        """
        ...

    def num_latents(self, size: tuple[int, int]) -> int:
        """Count the latents that the denoiser processes for an image of ``size`` (height, width), with conditioning."""
        ...

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of the latents of an image of ``size`` (height, width)."""
        ...

    def known_latents(self, known: torch.Tensor) -> torch.Tensor:
        """Reduce a mask of known pixels to latents; a latent is known if all of its pixels are.

        Args:
            known: (B, 1, H, W) bool, True = known.

        Returns:
            (B, 1, h, w) bool.
        """
        ...

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images.

        Returns:
            Mean and standard deviation of the VAE's posterior, each (B, C, h, w). The mean is also its mode.
        """
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to images, float32 in [0, 1]; differentiable if the latents require a gradient."""
        ...

    def estimate_clean(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, model_pred: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate the clean latents from a prediction.

        Args:
            noisy: (B, C, h, w), the noisy latents.
            timesteps: (B,).
            model_pred: (B, C, h, w), the result of ``predict``.

        Returns:
            The estimate (B, C, h, w), and how much of the noisy latents is signal, (B,) in [0, 1].
        """
        ...

    def encode_prompt(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode B prompts to embeddings (B, L, D). Category prompts of ``structure`` have learnt embeddings."""
        ...

    def prepare_mask_latents(
        self, images: torch.Tensor, hole: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Prepare the mask and masked-image latents, which tell the denoiser which pixels are known.

        Args:
            images: the images. Pixels in the hole are blanked first and have no influence, except for hints.
            hole: (B, 1, H, W) bool, True = hidden.
            confidence: (B, 1, H, W) float32 in [0, 1]: a pixel in the hole with a confidence above 0 is a hint, and
                shows what may belong there. ``None``: there are no hints. A model that does not read them
                (``reads_hints``) ignores it.

        Returns:
            (B, M, h, w) float32; M depends on the family.
        """
        ...

    def predict(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        mask_latents: torch.Tensor,
        embeddings: torch.Tensor,
        own_references: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the denoiser.

        Args:
            noisy: (B, C, h, w).
            timesteps: (B,).
            mask_latents: (B, M, h, w) from ``prepare_mask_latents``.
            embeddings: (B, L, D) from ``encode_prompt``.
            own_references: (B,) int: index of the reference that each row shows, which is hidden from it, or -1.
                ``None``: every row sees all references.

        Returns:
            (B, C, h, w) float32: noise, velocity or clean latents, as the base model was trained.
        """
        ...

    def make_scheduler(
        self, name: Scheduler, num_inference_steps: int, *, strength: float = 1.0, num_latents: int | None = None
    ) -> Any:
        """Build a sampler of diffusers for the model's noise schedule and set its timesteps, on the CPU.

        Args:
            name: name of the sampler.
            num_inference_steps: number of steps to take. These are the sampler's last timesteps.
            strength: share of the noise schedule that these steps cover, in (0, 1]; 1 starts from pure noise.
            num_latents: latents of the image that is denoised at a time, which the schedule of some families depends
                on. ``None``: those of a square of the base model's resolution.

        Raises:
            ValueError: the family does not have this sampler.
        """
        ...

    def diffuse(
        self, latents: torch.Tensor, noise: torch.Tensor, quantiles: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add noise for a training step.

        Args:
            latents: (B, C, h, w).
            noise: (B, C, h, w), standard normal.
            quantiles: (B,) in [0, 1], the position in the noise schedule; 1 is its noisiest end.

        Returns:
            The noisy latents (B, C, h, w), the timesteps (B,), the target of ``predict`` (B, C, h, w), and the weight
            of each squared error (B, 1, 1, 1). The weight is 1 for predicted noise and velocity. For predicted
            latents it turns their error into that of the velocity that they imply (Li & He 2025, "Back to basics"),
            up to a bound.
        """
        ...

    def prepare_training(self, *, gradient_checkpointing: bool, compiled: bool, half_precision: bool) -> None:
        """Switch the denoiser to training.

        Args:
            gradient_checkpointing: recompute activations in the backward pass.
            compiled: compile the repeated blocks at their first use.
            half_precision: whether training computes in half precision.
        """
        ...

    def lora_layers(self, targets: Sequence[str]) -> dict[str, nn.Linear | nn.Conv2d]:
        """Find the denoiser's layers that receive a LoRA.

        Args:
            targets: ends of layer names, such as ``to_q``. ``*`` stands for all linear layers and convolutions.

        Returns:
            Name to layer.

        Raises:
            ValueError: no layer matches one of the targets.
        """
        ...
