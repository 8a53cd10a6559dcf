"""Tiles: a canvas cut into overlapping pieces of one size, and put together again by weighted means."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

_LEAST = 1e-6  # weight, less than any tile has anywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Where the tiles of a canvas lie. All sizes may be in latents or in pixels.

    Attributes:
        canvas: (height, width).
        size: (height, width) of each tile, no larger than the canvas.
        corners: (top, left) of each.
        averaged: where tiles overlap, both count; else only the one whose edges are further away.
    """

    canvas: tuple[int, int]
    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    averaged: bool = True

    @classmethod
    def cover(cls, canvas: tuple[int, int], side: int, overlap: float) -> Tiles:
        """Cover a canvas evenly with squares; where it is smaller than one, with what it has.

        Args:
            canvas: (height, width).
            side: of a tile.
            overlap: least share of its side that a tile has in common with the next, in [0, 1). With 0 tiles aren't
                averaged where they overlap all the same, as they do unless the canvas is a multiple of their side.
        """
        size = (min(side, canvas[0]), min(side, canvas[1]))
        rows, columns = (_starts(n, s, max(1, s - math.ceil(s * overlap))) for n, s in zip(canvas, size, strict=True))
        corners = tuple((y, x) for y in rows for x in columns)
        return cls(canvas=canvas, size=size, corners=corners, averaged=overlap > 0)

    def meeting(self, mask: torch.Tensor) -> Tiles:
        """Those of the tiles that hold any True of (H, W) bool; one if none does."""
        corners = [c for c, piece in zip(self.corners, self.cut(mask), strict=True) if piece.any()]
        return replace(self, corners=tuple(corners) or self.corners[:1])

    def covered(self) -> torch.Tensor:
        """(H, W) bool: where a tile is."""
        place = torch.zeros(self.canvas, dtype=torch.bool)
        for piece in self.cut(place):
            piece.fill_(value=True)
        return place

    def times(self, factor: int) -> Tiles:
        """The same tiles where each unit has ``factor`` of another."""
        grow = lambda pair: (pair[0] * factor, pair[1] * factor)  # noqa: E731
        corners = tuple(map(grow, self.corners))
        return replace(self, canvas=grow(self.canvas), size=grow(self.size), corners=corners)

    def __len__(self) -> int:
        return len(self.corners)

    def cut(self, canvas: torch.Tensor) -> list[torch.Tensor]:
        """Cut (..., H, W) into pieces (..., h, w)."""
        height, width = self.size
        return [canvas[..., y : y + height, x : x + width] for y, x in self.corners]

    def merge(self, pieces: Iterable[torch.Tensor]) -> torch.Tensor:
        """Put pieces together: where tiles overlap, their mean, weighted by the distance from their edges.

        With the predictions of a diffusion model at a noise level this is MultiDiffusion (Bar-Tal et al. 2023).

        Args:
            pieces: (B, C, h, w) for each tile, in order; taken one by one.

        Returns:
            (B, C, H, W), 0 where no tile is. With one tile that is the canvas, its piece as it is.
        """
        height, width = self.size
        weight = torch.outer(_hat(height), _hat(width))
        total, weights = None, torch.zeros(self.canvas)
        for (y, x), piece in zip(self.corners, pieces, strict=True):
            if self.size == self.canvas:
                return piece
            if total is None:
                total = piece.new_zeros(*piece.shape[:-2], *self.canvas)
            place, there = total[..., y : y + height, x : x + width], weights[y : y + height, x : x + width]
            if self.averaged:
                place += piece * weight.to(piece)
                there += weight
            else:
                place.copy_(torch.where((weight > there).to(piece.device), piece, place))
                torch.maximum(weight, there, out=there)
        assert total is not None
        return total.div_(weights.clamp_(min=_LEAST).to(total)) if self.averaged else total


def _starts(length: int, side: int, step: int) -> list[int]:
    """Spread tiles evenly from edge to edge, at most ``step`` apart."""
    count = math.ceil((length - side) / step)
    return [round(i * (length - side) / max(1, count)) for i in range(count + 1)]


def _hat(length: int) -> torch.Tensor:
    """Rise linearly from both ends to the middle, above 0 everywhere."""
    place = torch.arange(length) + 0.5
    return torch.minimum(place, length - place)
