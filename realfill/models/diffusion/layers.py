"""What the families share: layers by the ends of their names, masks reduced to latents, and blanked holes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from realfill.io.images import to_shares
from realfill.scene.masks import fill_smooth


def all_known(known: torch.Tensor, vae_scale_factor: int) -> torch.Tensor:
    """Reduce a mask of known pixels (B, 1, H, W) to latents (B, 1, h, w), which are known if all their pixels are."""
    rows = known.unflatten(-1, (-1, vae_scale_factor)).all(dim=-1)
    return rows.unflatten(-2, (-1, vae_scale_factor)).all(dim=-2)


def blanked(images: torch.Tensor, hole: torch.Tensor, kind: Literal["grey", "smooth"]) -> torch.Tensor:
    """Replace the pixels in the hole as the base model was trained; see ``Card.masked_image``.

    Args:
        images: (B, 3, H, W), uint8 or float in [0, 1].
        hole: (B, 1, H, W) bool on the same device.
        kind: ``grey``, or ``smooth``, a continuation of the known pixels.
    """
    images = to_shares(images)
    return fill_smooth(images, hole) if kind == "smooth" else images.masked_fill(hole, 0.5)


def find_layers(network: nn.Module, targets: Sequence[str], base: str) -> dict[str, nn.Linear | nn.Conv2d]:
    """Find the layers of a network whose names end in one of the targets; ``*`` stands for all of them.

    Raises:
        ValueError: no layer matches one of the targets.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    ends = tuple(f".{t}" for t in targets)
    for target, end in zip(targets, ends, strict=True):
        if target != "*" and not any(f".{name}".endswith(end) for name in layers):
            raise ValueError(
                f"lora_targets has {target!r}, but no layer name of {base!r} ends in it; legal: '*' or ends of layer "
                "names, such as 'to_q'"
            )
    return layers if "*" in targets else {n: layer for n, layer in layers.items() if f".{n}".endswith(ends)}
