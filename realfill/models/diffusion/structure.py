"""What the ``structure`` recipe of ``adapt`` learns beside the LoRA: category embeddings and a guidance combiner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from realfill.config.adapt import BACKGROUND
from realfill.io.images import ImageArray, MaskArray

FOREGROUND = "<foreground>"
CATEGORIES = (BACKGROUND, FOREGROUND)
"""Prompts that stand for the learnt embeddings, in the order of their numbers."""

PREFIX = "lora_structure."  # of the names of tensors; diffusers refuses a file in which a name lacks "lora"
_EMBEDDINGS = {prompt: f"{PREFIX}{prompt.strip('<>')}" for prompt in CATEGORIES}
_COMBINER = f"{PREFIX}combiner."
_MAX_TOKENS, _MAX_CHANNELS = 1000, 256
_TABLE_STD = 0.02


class CategoryTable(nn.Module):
    """A table of embeddings for background and foreground, projected to the width of cross-attention.

    After PixelHacker (Xu et al. 2025), whose table has 20 rows of 3,072. At first each category is the start itself,
    because the projection is zero.
    """

    start: torch.Tensor

    def __init__(self, start: torch.Tensor, num_tokens: int, width: int, seed: int) -> None:
        """Set up a table.

        Args:
            start: (L, D), the embedding of the prompt that the categories start from; its first tokens are used.
            num_tokens: number of embeddings of each category.
            width: width of the table.
            seed: seed of the table.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn((len(CATEGORIES), num_tokens, width), generator=generator) * _TABLE_STD
        self.table = nn.Parameter(rows.to(start.device))
        self.projection = nn.Parameter(torch.zeros(width, start.shape[1], device=start.device))
        repeats = -(-num_tokens // len(start))
        self.register_buffer("start", start.detach().float().repeat(repeats, 1)[:num_tokens])

    def forward(self) -> torch.Tensor:
        """Compute the embeddings of all categories, (2, num_tokens, D) float32."""
        return self.start + self.table @ self.projection

    def export(self) -> dict[str, torch.Tensor]:
        """Build the adapter's tensors."""
        embeddings = self().detach().to("cpu", torch.float16)
        return {_EMBEDDINGS[prompt]: embeddings[i].contiguous() for i, prompt in enumerate(CATEGORIES)}


class Combiner(nn.Module):
    """A small network that corrects the enlarged result of a stage in the hole, before the next stage refines it.

    It adds a residual of three convolutions, which is zero at first.
    """

    def __init__(self, width: int = 24, *, seed: int = 0) -> None:
        """Set up the network.

        Args:
            width: channels of the inner layers.
            seed: seed of the weights.
        """
        super().__init__()
        sides = (7, width, width, 3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sides))
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, enlarged: torch.Tensor, known: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Correct the enlarged result.

        Args:
            enlarged: (B, 3, H, W) in [0, 1], the result of the stage before at this stage's size.
            known: (B, 3, H, W) in [0, 1]; pixels in the hole have no influence.
            hole: (B, 1, H, W) bool.

        Returns:
            (B, 3, H, W), equal to ``enlarged`` outside the hole.
        """
        x = torch.cat([enlarged - 0.5, (known - 0.5).masked_fill(hole, 0), hole.to(enlarged.dtype)], dim=1)
        for layer in self.layers[:-1]:
            x = F.silu(layer(x))
        return torch.where(hole, enlarged + self.layers[-1](x), enlarged)

    def export(self) -> dict[str, torch.Tensor]:
        """Build the adapter's tensors."""
        return {f"{_COMBINER}{n}": t.detach().to("cpu", torch.float16) for n, t in self.state_dict().items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Structure:
    """Learnt parts of an adapter that are no LoRA.

    Attributes:
        embeddings: category prompt to its embedding (L, D), float32; empty without category guidance.
        combiner: corrects the result of a stage; ``None``: no correction.
    """

    embeddings: Mapping[str, torch.Tensor]
    combiner: Combiner | None

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Self | None:
        """Read an adapter's tensors; ``None`` if they are LoRA matrices only.

        Raises:
            ValueError: a name or a shape is illegal.
        """
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
        if not own:
            return None
        embeddings = {prompt: own.pop(name).float() for prompt, name in _EMBEDDINGS.items() if name in own}
        _check_embeddings(embeddings)
        layers = {name.removeprefix(_COMBINER): own.pop(name) for name in list(own) if name.startswith(_COMBINER)}
        if own:
            raise ValueError(f"{next(iter(own))} is no tensor of an adapter")
        return cls(embeddings=embeddings, combiner=_load_combiner(layers) if layers else None)

    def to(self, device: torch.device) -> Structure:
        """Copy to a device."""
        embeddings = {prompt: embedding.to(device) for prompt, embedding in self.embeddings.items()}
        return Structure(embeddings=embeddings, combiner=self.combiner and self.combiner.to(device))

    @torch.no_grad()
    def correct(self, image: ImageArray, known: ImageArray, hole: MaskArray) -> ImageArray:
        """Correct the enlarged result of a stage in the hole.

        Args:
            image: (H, W, 3) uint8, the enlarged result, blended with the known pixels.
            known: (H, W, 3) uint8; pixels in the hole have no influence.
            hole: (H, W) bool.

        Returns:
            (H, W, 3) uint8, equal to ``image`` outside the hole.
        """
        if self.combiner is None:
            return image
        device = next(self.combiner.parameters()).device
        inputs = (torch.from_numpy(np.ascontiguousarray(a, np.float32) / 255).to(device) for a in (image, known))
        enlarged, around = (a.permute(2, 0, 1)[None] for a in inputs)
        corrected = self.combiner(enlarged, around, torch.from_numpy(hole).to(device)[None, None])
        result = (corrected[0].permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return np.where(hole[:, :, None], result, image)


def _check_embeddings(embeddings: Mapping[str, torch.Tensor]) -> None:
    if not embeddings:
        return
    shapes = {tuple(tensor.shape) for tensor in embeddings.values()}
    (shape, *others) = shapes
    if len(embeddings) < len(CATEGORIES) or others or len(shape) != 2 or not 1 <= shape[0] <= _MAX_TOKENS:
        raise ValueError(
            f"the embeddings of {', '.join(embeddings)} have the shapes {sorted(shapes)}; legal: both categories, each "
            f"with the same 1 to {_MAX_TOKENS} rows"
        )


def _load_combiner(layers: Mapping[str, torch.Tensor]) -> Combiner:
    """Build the combiner of some weights.

    Raises:
        ValueError: names or shapes are not those of a combiner.
    """
    bias = layers.get("layers.0.bias")
    if bias is None or bias.ndim != 1 or not 1 <= len(bias) <= _MAX_CHANNELS:
        raise ValueError(f"the combiner has no first layer of 1 to {_MAX_CHANNELS} channels")
    combiner = Combiner(len(bias))
    try:
        combiner.load_state_dict({name: tensor.float() for name, tensor in layers.items()})
    except RuntimeError as error:
        raise ValueError(f"the combiner is damaged: {str(error).splitlines()[-1].strip()}") from error
    return combiner.requires_grad_(requires_grad=False)
