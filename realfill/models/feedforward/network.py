"""Network: the protocol of networks that fill a hole in one pass, and the padding that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F


class Network(Protocol):
    """Predicts an image in one pass."""

    @property
    def name(self) -> str:
        """Name of the network, for messages."""
        ...

    @property
    def resolution(self) -> int:
        """Side in pixels of the square in which it fills well.

        A hole of more than about half of this is filled at a smaller scale first.
        """
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def predict(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Predict an image.

        Args:
            image: (B, 3, H, W) in [0, 1], of any size. The pixels in the hole have no influence.
            hole: (B, 1, H, W) bool, True = fill.

        Returns:
            (B, 3, H, W) in [0, 1], on the CPU. Only its pixels in the hole have a meaning.
        """
        ...


def padded_call(
    call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    hole: torch.Tensor,
    *,
    multiple: int,
    min_side_px: int = 1,
) -> torch.Tensor:
    """Call a network that needs sides of a multiple, for an image of any size.

    The border pixels are repeated to the right and at the bottom, and the result is cut to the image again, so no pixel
    moves or is resampled.

    Args:
        call: the function, which takes (B, 3, H, W) and (B, 1, H, W) bool and returns (B, 3, H, W).
        image: (B, 3, H, W).
        hole: (B, 1, H, W) bool.
        multiple: the sides that ``call`` gets are multiples of this.
        min_side_px: the least side that ``call`` gets.

    Returns:
        (B, 3, H, W).
    """
    height, width = image.shape[-2:]
    bottom, right = (-max(n, min_side_px) % multiple + max(0, min_side_px - n) for n in (height, width))
    padding = (0, right, 0, bottom)
    image = F.pad(image, padding, mode="replicate")
    hole = F.pad(hole.to(image.dtype), padding, mode="replicate") > 0.5
    return call(image, hole)[..., :height, :width]
