"""The parts of the denoising objective: encoded crops, the weight of each latent in the loss, and the prediction.

The loss itself is in ``loop.compute_gradients``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from realfill.compute.devices import send
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.structure import CategoryTable
from realfill.scene.masks import fill_smooth
from realfill.training.crops import Crops


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latents:
    """Encoded crops, float32 on the inpainter's device.

    Attributes:
        mean: (B, C, h, w): mean of the VAE's posterior, scaled for the U-Net.
        std: (B, C, h, w): its standard deviation, with the same scale.
        mask_latents: (B, M, h, w): mask and masked-image latents.
        weights: (B, 1, h, w): how much each latent counts in the loss.
        references: (B,) int: index of the reference that each crop shows; -1: none.
        images: (B, 3, H, W) float32 in [0, 1], the crops; like the next three, ``None`` unless crops have a stage.
        hidden: (B, 1, H, W) bool, the pixels that the model must fill.
        categories: (B,) int: what each crop hides, as an index into ``CATEGORIES``.
        stages: (B,) int: the stage at whose scale each crop is.
    """

    mean: torch.Tensor
    std: torch.Tensor
    mask_latents: torch.Tensor
    weights: torch.Tensor
    references: torch.Tensor
    images: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    categories: torch.Tensor | None = None
    stages: torch.Tensor | None = None

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Latents:
        """Apply a function to each tensor."""
        return Latents(**{name: function(value) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that are there, by name."""
        values = {name: getattr(self, name) for name in Latents.__slots__}
        return {name: value for name, value in values.items() if value is not None}

    def __getitem__(self, rows: slice | torch.Tensor) -> Latents:
        return self.map(lambda tensor: tensor[rows])

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Sample the VAE's posterior with standard normal noise (B, C, h, w)."""
        return self.mean + self.std * noise


def loss_weights(
    inpainter: DiffusionFamily, learnt: torch.Tensor, hidden: torch.Tensor, visible_weight: float
) -> torch.Tensor:
    """Weight each latent in the loss.

    The weight is 0 if a pixel of the latent does not count, else ``visible_weight`` if none is hidden, else 1.

    Args:
        inpainter: the base model.
        learnt: (B, 1, H, W) bool: the pixels that count in the loss.
        hidden: (B, 1, H, W) bool: the pixels that the model must fill.
        visible_weight: as in ``FitConfig``.

    Returns:
        (B, 1, h, w) float32.
    """
    visible = inpainter.known_latents(~hidden)
    return inpainter.known_latents(learnt) * torch.where(visible, visible_weight, 1.0)


def encode_crops(inpainter: DiffusionFamily, crops: Crops, visible_weight: float, num_at_a_time: int) -> Latents:
    """Encode crops and their masked images.

    Args:
        inpainter: the base model.
        crops: the crops.
        visible_weight: as in ``FitConfig``.
        num_at_a_time: number of crops to encode together.
    """
    parts = [
        _encode(inpainter, crops[i : i + num_at_a_time], visible_weight) for i in range(0, len(crops), num_at_a_time)
    ]
    return Latents(**{name: torch.cat([getattr(part, name) for part in parts]) for name in parts[0].tensors()})


def _encode(inpainter: DiffusionFamily, crops: Crops, visible_weight: float) -> Latents:
    known, learnt, hidden = (
        send(torch.from_numpy(mask[:, None]), inpainter.device) for mask in (crops.known, crops.learnt, crops.hidden)
    )
    pixels = send(torch.from_numpy(crops.images), inpainter.device)
    images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255
    incomplete = np.flatnonzero(~crops.known.all(axis=(1, 2)))
    if incomplete.size:
        rows = send(torch.from_numpy(incomplete), inpainter.device)
        images[rows] = fill_smooth(images[rows], ~known[rows])
    mean, std = inpainter.encode(images)
    structured = {}
    if crops.stages is not None and crops.categories is not None:
        numbers = (send(torch.from_numpy(n), inpainter.device) for n in (crops.categories, crops.stages))
        structured = dict(zip(("images", "hidden", "categories", "stages"), (images, hidden, *numbers), strict=True))
    return Latents(
        mean=mean,
        std=std,
        mask_latents=_prepare_mask_latents(inpainter, images, hidden, crops),
        weights=loss_weights(inpainter, learnt, hidden, visible_weight),
        references=send(torch.from_numpy(crops.references), inpainter.device),
        **structured,
    )


def _prepare_mask_latents(
    inpainter: DiffusionFamily, images: torch.Tensor, hidden: torch.Tensor, crops: Crops
) -> torch.Tensor:
    """Prepare the mask latents (B, M, h, w) of encoded crops, which show hints in place of some hidden pixels."""
    if crops.hints is None or not inpainter.reads_hints:
        return inpainter.prepare_mask_latents(images, hidden)
    hints = send(torch.from_numpy(crops.hints), inpainter.device).permute(0, 3, 1, 2).float() / 255
    confidence = hints[:, 3:]
    shown = torch.where(confidence > 0, hints[:, :3], images)
    return inpainter.prepare_mask_latents(shown, hidden & (confidence < 1), confidence)


class Denoiser(nn.Module):
    """The networks that a fit can train as one module, which accelerate can wrap."""

    def __init__(self, inpainter: DiffusionFamily, prompt: str, categories: CategoryTable | None = None) -> None:
        """Wrap the parts of a base model that predict the target.

        Args:
            inpainter: the base model.
            prompt: the prompt, which rows get or do not get.
            categories: learnt embeddings that take the place of the prompt.
        """
        super().__init__()
        self.categories = categories
        parts = dict(inpainter.parts)
        self.parts = nn.ModuleDict(parts)
        self._inpainter, self._prompts = inpainter, (prompt, "")
        self._trains_text = "text_encoder" in parts and any(p.requires_grad for p in parts["text_encoder"].parameters())
        self._fixed_embeddings: torch.Tensor | None = None

    def forward(
        self,
        noisy_latents: torch.Tensor,
        timesteps: torch.Tensor,
        mask_latents: torch.Tensor,
        prompted: torch.Tensor,
        references: torch.Tensor | None = None,
        categories: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict the target; see ``DiffusionFamily.predict``.

        Args:
            noisy_latents: (B, C, h, w).
            timesteps: (B,).
            mask_latents: (B, M, h, w): mask and masked-image latents.
            prompted: (B,) bool: whether a row gets the prompt or an empty one.
            references: (B,) int: index of the reference that a row shows, which is hidden from it; -1: none.
            categories: (B,) int: the category of each row, whose learnt embeddings take the place of the prompt.
        """
        if self.categories is not None:
            return self._inpainter.predict(
                noisy_latents, timesteps, mask_latents, self.categories()[categories], references
            )
        embeddings = self._embed_prompts()[(~prompted).long()]
        return self._inpainter.predict(noisy_latents, timesteps, mask_latents, embeddings, references)

    def _embed_prompts(self) -> torch.Tensor:
        """Encode the prompt and the empty prompt; only once if the text encoder is not trained."""
        if self._trains_text:
            return self._inpainter.encode_prompt(self._prompts)
        if self._fixed_embeddings is None:
            self._fixed_embeddings = self._inpainter.encode_prompt(self._prompts)
        return self._fixed_embeddings
