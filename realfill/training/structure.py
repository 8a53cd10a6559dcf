"""The structure recipe in training: category embeddings, the combiner, and losses between decoded images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from realfill.config import AdaptSettings
from realfill.config.adapt import LOSSES
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.lora import Trainable
from realfill.models.diffusion.structure import CategoryTable, Combiner
from realfill.training.objective import Latents

COMBINER = "combiner"
"""The beginning of the names of the combiner's parameters."""
_NAMES = ("categories", COMBINER)  # which begin the names of the parameters


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StructureTraining:
    """What is trained beside the LoRA, and the weights of its losses.

    Attributes:
        categories: the learnt embeddings; ``None``: the prompt.
        combiner: the network that corrects the result of a stage; ``None``: none.
        settings: the weights of the losses.
    """

    categories: CategoryTable | None
    combiner: Combiner | None
    settings: AdaptSettings

    @classmethod
    def prepare(cls, inpainter: DiffusionFamily, settings: AdaptSettings) -> Self:
        """Set up the networks on the device of the base model."""
        categories = combiner = None
        if settings.num_category_tokens:
            with torch.no_grad():
                start = inpainter.encode_prompt([settings.prompt])[0].float()
            categories = CategoryTable(start, settings.num_category_tokens, settings.category_width, settings.seed)
        if settings.combiner:
            combiner = Combiner(seed=settings.seed).to(inpainter.device)
        return cls(categories=categories, combiner=combiner, settings=settings)

    def added_to(self, trainable: Trainable) -> Trainable:
        """Return the parameters of a base model and those of the networks."""
        networks: dict[str, nn.Module | None] = dict(zip(_NAMES, (self.categories, self.combiner), strict=True))
        groups = {name: dict(network.named_parameters()) for name, network in networks.items() if network is not None}
        rates = dict.fromkeys(groups, self.settings.structure_learning_rate)
        return dataclasses.replace(trainable, groups={**trainable.groups, **groups}, learning_rates=rates)

    def export(self) -> dict[str, torch.Tensor]:
        """Build the adapter's tensors of the networks."""
        networks = (self.categories, self.combiner)
        return {n: tensor for network in networks if network is not None for n, tensor in network.export().items()}

    def noise_weights(self, latents: Latents) -> torch.Tensor | float:
        """Return the weight of each row's noise loss, (B, 1, 1, 1)."""
        if latents.stages is None:
            return 1.0
        return _of_stages(self.settings.noise_weight, latents.stages).view(-1, 1, 1, 1)

    def image_losses(
        self, inpainter: DiffusionFamily, latents: Latents, noisy: torch.Tensor, timesteps: torch.Tensor,
        model_pred: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Sum the weighted losses between decoded predictions and photos over the rows of a batch.

        Each row's losses are mean absolute differences, times the share of signal in its noisy latents, because little
        is known of the image where almost everything is noise.

        Args:
            inpainter: the base model.
            latents: the encoded crops, with their images.
            noisy: (B, C, h, w), the noisy latents.
            timesteps: (B,).
            model_pred: (B, C, h, w).

        Returns:
            A scalar; 0 if all weights are 0.
        """
        settings, images, hole, stages = self.settings, latents.images, latents.hidden, latents.stages
        in_use = {name for name in LOSSES if any(getattr(settings, name))}
        if images is None or hole is None or stages is None or (not in_use and self.combiner is None):
            return noisy.new_zeros(())
        clean, signal = inpainter.estimate_clean(noisy, timesteps, model_pred)
        decoded = inpainter.decode(clean if in_use else clean.detach())
        filled = torch.where(hole, decoded, images)
        total = noisy.new_zeros(())
        if "image_weight" in in_use:
            total = total + _weighted(mean_difference(decoded, images, hole), settings.image_weight, stages, signal)
        if "boundary_weight" in in_use:
            band = boundary_band(hole, settings.boundary_px)
            total = total + _weighted(mean_difference(decoded, images, band), settings.boundary_weight, stages, signal)
        if "consistency_weight" in in_use:
            one, other = (gaussian_blur(image, settings.blur_px) for image in (filled, enlarged_from_half(images)))
            total = total + _weighted(mean_difference(one, other, hole), settings.consistency_weight, stages, signal)
        if self.combiner is not None:
            corrected = self.combiner(enlarged_from_half(filled.detach()), images, hole)
            total = total + (mean_difference(corrected, images, hole) * signal).sum()
        return total

    @torch.no_grad()
    def combiner_errors(
        self, inpainter: DiffusionFamily, latents: Latents, noisy: torch.Tensor, timesteps: torch.Tensor,
        model_pred: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Sum the differences between enlarged predictions and photos, with and without the combiner.

        The arguments are those of ``image_losses``.

        Returns:
            (2,), with the combiner and without it, weighted as in its training; zeros if there is no combiner.
        """
        images, hole = latents.images, latents.hidden
        if self.combiner is None or images is None or hole is None:
            return noisy.new_zeros(2)
        clean, signal = inpainter.estimate_clean(noisy, timesteps, model_pred)
        enlarged = enlarged_from_half(torch.where(hole, inpainter.decode(clean), images))
        both = (self.combiner(enlarged, images, hole), enlarged)
        return torch.stack([(mean_difference(image, images, hole) * signal).sum() for image in both])


def mean_difference(first: torch.Tensor, second: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Compute the mean absolute difference of images (B, 3, H, W) in the True pixels of (B, 1, H, W): (B,)."""
    differences = ((first - second).abs().mean(dim=1, keepdim=True) * where).sum(dim=(1, 2, 3))
    return differences / where.sum(dim=(1, 2, 3)).clamp(min=1)


def boundary_band(hole: torch.Tensor, width_px: int) -> torch.Tensor:
    """Find the pixels on both sides of a hole's boundary, at most ``width_px`` from it: (B, 1, H, W) bool."""
    inside = hole.float()
    near = [F.max_pool2d(side, 2 * width_px + 1, stride=1, padding=width_px) > 0 for side in (inside, 1 - inside)]
    return near[0] & near[1]


def gaussian_blur(images: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Blur images (B, C, H, W) with a Gaussian whose standard deviation is ``sigma_px``; edges are repeated."""
    reach = min(math.ceil(3 * sigma_px), *(n - 1 for n in images.shape[-2:]))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma_px**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(rows, kernel.transpose(-1, -2), groups=images.shape[1])


def enlarged_from_half(images: torch.Tensor) -> torch.Tensor:
    """Halve images (B, C, H, W) and enlarge them again, as a stage sees the result of the one before."""
    small = F.avg_pool2d(images, 2)
    return F.interpolate(small, size=images.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)


def _of_stages(weights: Sequence[float], stages: torch.Tensor) -> torch.Tensor:
    """Return the weight of each row's stage, (B,); the last weight holds for all later stages."""
    return torch.tensor(weights, device=stages.device)[stages.clamp(max=len(weights) - 1)]


def _weighted(
    losses: torch.Tensor, weights: Sequence[float], stages: torch.Tensor, signal: torch.Tensor
) -> torch.Tensor:
    return (losses * _of_stages(weights, stages) * signal).sum()
