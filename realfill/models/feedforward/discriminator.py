"""The global and the local discriminator of the completion network, which judge an image and the patch at a hole."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

_GLOBAL_WIDTHS = (1, 2, 4, 8, 8, 8)  # multiples of the first layer's channels: 64, 128, 256, 512, 512, 512
_LOCAL_WIDTHS = (1, 2, 4, 8, 8)
_FEATURES = 16  # the same for each discriminator's output: 1024


class Discriminator(nn.Module):
    """Both discriminators and the layer that joins them (Iizuka et al. 2017, section 3.4)."""

    def __init__(self, *, width: int = 64, resolution: int = 256) -> None:
        """Make untrained discriminators.

        Args:
            width: channels of the first layers; the paper's is 64.
            resolution: side of the images in pixels, a multiple of 64; the paper's is 256. The patches have half of it.

        Raises:
            ValueError: ``resolution`` is no multiple of 64.
        """
        super().__init__()
        if resolution < 64 or resolution % 64:
            raise ValueError(f"resolution is {resolution}; legal: multiples of 64")
        self.whole = _features(width, _GLOBAL_WIDTHS, resolution)
        self.patch = _features(width, _LOCAL_WIDTHS, resolution // 2)
        self.join = nn.Linear(2 * _FEATURES * width, 1)

    def forward(self, images: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Judge images.

        Args:
            images: (B, 3, S, S) in [0, 1].
            patches: (B, 3, S / 2, S / 2), the part of each around its hole.

        Returns:
            (B,) logits; positive means real.
        """
        return self.join(torch.cat([self.whole(images), self.patch(patches)], dim=1))[:, 0]


def _features(width: int, multiples: tuple[int, ...], side: int) -> nn.Module:
    channels = [3, *(width * multiple for multiple in multiples)]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [
            nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    last = side // 2 ** len(multiples)
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels[-1] * last**2, _FEATURES * width), nn.ReLU(inplace=True)
    )
