"""Planted hints: warps of crops that are wrong in part, with a confidence, like hints from a composite."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from realfill.config import GeometryConfig
from realfill.geometry.confidence import SCALE
from realfill.scene.masks import fill_smooth
from realfill.training.crops import Crops

CERTAIN = 255  # confidence of pixels that count as known
_LEVELS = 255.0
_WARP_PX, _LAYER_PX = (0.15, 4.0), (1.0, 12.0)  # displacements of a hint, and of a wrong part of it
_CELLS, _ZOOM = 16, (0.12, 0.8)  # cells of noise on a side, and the share of them that a field shows
_LAYERS = (0.7, 0.35)  # chances of a first and a second wrong part
_PLAIN, _OTHER = 0.15, 0.25  # shares of the wrong parts that have one colour, and that show another crop


@dataclass(frozen=True)
class Draws:
    """Random numbers on a device."""

    generator: torch.Generator

    def uniform(self, *shape: int) -> torch.Tensor:
        """Draw from [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device)

    def between(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Draw uniformly."""
        return low + (high - low) * self.uniform(*shape)

    def log_between(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Draw log-uniformly."""
        return low * (high / low) ** self.uniform(*shape)

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw from the standard normal distribution."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Draw integers from 0, below ``high``."""
        return torch.randint(high, shape, generator=self.generator, device=self.generator.device)


def hinted(crops: Crops, share: float, rng: np.random.Generator) -> Crops:
    """Plant hints into a share of the crops, where they hide known pixels; ``rng`` is the only randomness."""
    if not share:
        return crops
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows = torch.rand(len(crops), generator=generator) < share
    planted = np.zeros((*crops.hidden.shape, 4), np.uint8)
    if rows.any():
        chosen = rows.numpy()
        known = torch.from_numpy(crops.known[chosen])[:, None]
        images = torch.from_numpy(crops.images[chosen]).permute(0, 3, 1, 2).float() / _LEVELS
        hints, confidence = plant_hints(fill_smooth(images, ~known), 1.0, Draws(generator))
        trust = (confidence * CERTAIN).round()
        trust = torch.where((confidence > 0) & (confidence < 1), trust.clamp(1, CERTAIN - 1), trust)
        trust *= torch.from_numpy(crops.hidden[chosen])[:, None] & known
        planted[chosen] = torch.cat([hints * _LEVELS, trust], dim=1).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return dataclasses.replace(crops, hints=planted)


def plant_hints(crops: torch.Tensor, share: float, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
    """Plant hints into crops, with a confidence that is right on average, as that of a composite.

    A hint is the crop, displaced by a smooth field, in slightly other colours and less sharp, with parts that are
    displaced more, show another crop, or have one colour. Its confidence stands for the error that a regression over
    the batch expects from the blurred and disturbed error.

    Args:
        crops: (B, 3, R, R) in [0, 1].
        share: share of the crops that get hints.
        draws: source of all randomness.

    Returns:
        The hints (B, 3, R, R), and their confidence (B, 1, R, R): 0 = no hint, 1 = the pixel counts as known.
    """
    number, _, side, _ = crops.shape
    size, settings = (side, side), GeometryConfig().resolve({})
    hints = _recoloured(_warped(crops, draws.log_between(*_WARP_PX, number), draws), draws)
    for chance in _LAYERS:
        kind, is_covered = draws.uniform(number, 1, 1, 1), draws.uniform(number, 1, 1, 1) < chance
        far = _warped(crops, draws.log_between(*_LAYER_PX, number), draws)
        plain = F.adaptive_avg_pool2d(hints, 1).expand_as(hints)
        layer = torch.where(kind < _PLAIN, plain, torch.where(kind < _PLAIN + _OTHER, crops.roll(1, 0), far))
        part = _region(draws.between(0.05, 0.4, number), size, draws) & is_covered
        hints = torch.lerp(hints, layer, F.avg_pool2d(part.float(), 5, 1, 2, count_include_pad=False))
    hints = hints.clamp(0, 1)
    error = (hints - crops).abs().mean(1, keepdim=True) * _LEVELS
    noise = (draws.normal(number, 1, 1, 1) * 0.3 + 0.5 * _noise(size, number, draws)).exp()
    guess = (_smoothed(error, 12) + draws.between(1, 5, number, 1, 1, 1)) * noise
    centred = guess - guess.mean()
    expected = (error.mean() + (centred * error).mean() / (centred**2).mean() * centred).clamp(min=1.0)
    confidence = (-expected / SCALE).exp()
    confidence = torch.where(confidence < settings.corrected_confidence, 0.0, confidence)
    confidence = torch.where(confidence >= settings.photographed_confidence, 1.0, confidence)
    is_whole = draws.uniform(number, 1, 1, 1) < 0.5
    confidence = confidence * (is_whole | _region(draws.between(0.2, 0.95, number), size, draws))
    return hints, confidence * (draws.uniform(number, 1, 1, 1) < share)


def _noise(size: tuple[int, int], number: int, draws: Draws) -> torch.Tensor:
    """Draw smooth noise (B, 1, h, w) of mean 0 and variance 1, whose hills have another size in each row."""
    cells = draws.normal(number, 1, _CELLS, _CELLS)
    zoom = draws.log_between(*_ZOOM, number, 1)
    down, across = (
        zoom * _places(length, cells.device) + draws.between(-1, 1, number, 1) * (0.9 - zoom) for length in size
    )
    grid = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=3)
    field = F.grid_sample(cells, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return (field - field.mean((2, 3), keepdim=True)) / field.std((2, 3), keepdim=True).clamp(min=1e-3)


def _places(length: int, device: torch.device) -> torch.Tensor:
    """Return the centres of pixels in the coordinates of ``grid_sample``."""
    return (2 * torch.arange(length, device=device) + 1) / length - 1


def _region(shares: torch.Tensor, size: tuple[int, int], draws: Draws) -> torch.Tensor:
    """Draw smooth regions (B, 1, h, w) bool that cover about the given shares."""
    field = _noise(size, len(shares), draws)
    threshold = torch.special.ndtri((1 - shares).clamp(0.01, 0.99))
    return field > threshold[:, None, None, None]


def _warped(crops: torch.Tensor, amplitudes_px: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Displace crops by smooth fields."""
    number, side = len(crops), crops.shape[-1]
    fields = torch.cat([_noise((side, side), number, draws) + draws.normal(number, 1, 1, 1) for _ in range(2)], 1)
    shift = (fields * amplitudes_px[:, None, None, None] * 2 / side).permute(0, 2, 3, 1)
    places = _places(side, crops.device)
    identity = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=2)
    return F.grid_sample(crops, identity + shift, padding_mode="reflection", align_corners=False)


def _recoloured(crops: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Blur half of the crops a little, and change their colours."""
    number, side = len(crops), crops.shape[-1]
    blurred = F.avg_pool2d(F.avg_pool2d(crops, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False)
    amount = draws.uniform(number, 1, 1, 1) * (draws.uniform(number, 1, 1, 1) < 0.5)
    gain = (0.06 * draws.normal(number, 3, 1, 1) + 0.05 * _noise((side, side), number, draws)).exp()
    return torch.lerp(crops, blurred, amount) * gain + draws.normal(number, 3, 1, 1) * 5 / _LEVELS


def _smoothed(field: torch.Tensor, radius_px: int) -> torch.Tensor:
    """Blur (B, 1, h, w) over about a radius, as two box filters do."""
    width, margin = radius_px + 1, radius_px // 2
    for _ in range(2):
        field = F.avg_pool2d(field, (width, 1), 1, (margin, 0), count_include_pad=False)
        field = F.avg_pool2d(field, (1, width), 1, (0, margin), count_include_pad=False)
    return field
