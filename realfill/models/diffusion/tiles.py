"""Tiles: cut a canvas into overlapping pieces of one size, and merge them by weighted means."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

_MIN_WEIGHT = 1e-6  # below the smallest weight within a tile


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """The positions of tiles on a canvas, in latents or in pixels.

    Attributes:
        canvas: (height, width) of the canvas.
        size: (height, width) of each tile, no larger than the canvas.
        corners: (top, left) of each tile.
        averaged: whether overlapping tiles are averaged. If not, each place belongs to the tile whose edges are
            furthest away.
    """

    canvas: tuple[int, int]
    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    averaged: bool = True

    @classmethod
    def cover(cls, canvas: tuple[int, int], side: int, overlap: float) -> Tiles:
        """Cover a canvas evenly with square tiles; a tile is cut where the canvas is smaller.

        Args:
            canvas: (height, width) of the canvas.
            side: side of a tile.
            overlap: smallest share of a tile's side that overlaps the next tile, in [0, 1). With 0, tiles are not
                averaged. They still overlap unless the canvas is a multiple of ``side``.
        """
        size = (min(side, canvas[0]), min(side, canvas[1]))
        rows, columns = (_starts(n, s, max(1, s - math.ceil(s * overlap))) for n, s in zip(canvas, size, strict=True))
        corners = tuple((y, x) for y in rows for x in columns)
        return cls(canvas=canvas, size=size, corners=corners, averaged=overlap > 0)

    def meeting(self, mask: torch.Tensor) -> Tiles:
        """Keep the tiles in which a mask (H, W) has any True; keep the first tile if there is none."""
        corners = [c for c, piece in zip(self.corners, self.cut(mask), strict=True) if piece.any()]
        return replace(self, corners=tuple(corners) or self.corners[:1])

    def covered(self) -> torch.Tensor:
        """Return a mask (H, W) bool, True where any tile lies."""
        mask = torch.zeros(self.canvas, dtype=torch.bool)
        for piece in self.cut(mask):
            piece.fill_(value=True)
        return mask

    def times(self, factor: int) -> Tiles:
        """Scale all positions and sizes, for instance from latents to pixels."""

        def scale(pair: tuple[int, int]) -> tuple[int, int]:
            return pair[0] * factor, pair[1] * factor

        corners = tuple(map(scale, self.corners))
        return replace(self, canvas=scale(self.canvas), size=scale(self.size), corners=corners)

    def __len__(self) -> int:
        return len(self.corners)

    def cut(self, canvas: torch.Tensor) -> list[torch.Tensor]:
        """Cut (..., H, W) into pieces (..., h, w)."""
        height, width = self.size
        return [canvas[..., y : y + height, x : x + width] for y, x in self.corners]

    def merge(self, pieces: Iterable[torch.Tensor]) -> torch.Tensor:
        """Merge pieces; overlapping tiles are averaged, weighted by the distance from their edges.

        Applied to the predictions of a diffusion model at a noise level, this is MultiDiffusion (Bar-Tal et al. 2023).

        Args:
            pieces: (B, C, h, w) for each tile, in the order of the tiles.

        Returns:
            (B, C, H, W), 0 outside all tiles. A single tile of the canvas's size is returned unchanged.
        """
        height, width = self.size
        weight = torch.outer(_hat(height), _hat(width))
        total, weights = None, torch.zeros(self.canvas)
        for (y, x), piece in zip(self.corners, pieces, strict=True):
            if self.size == self.canvas:
                return piece
            if total is None:
                total = piece.new_zeros(*piece.shape[:-2], *self.canvas)
            region, region_weight = total[..., y : y + height, x : x + width], weights[y : y + height, x : x + width]
            if self.averaged:
                region += piece * weight.to(piece)
                region_weight += weight
            else:
                region.copy_(torch.where((weight > region_weight).to(piece.device), piece, region))
                torch.maximum(weight, region_weight, out=region_weight)
        assert total is not None
        return total.div_(weights.clamp_(min=_MIN_WEIGHT).to(total)) if self.averaged else total


def _starts(length: int, side: int, step: int) -> list[int]:
    """Return the starts of tiles that are spread evenly from edge to edge, at most ``step`` apart."""
    count = math.ceil((length - side) / step)
    return [round(i * (length - side) / max(1, count)) for i in range(count + 1)]


def _hat(length: int) -> torch.Tensor:
    """Return weights (length,) that rise linearly from both ends to the middle; all are above 0."""
    distance = torch.arange(length) + 0.5
    return torch.minimum(distance, length - distance)
