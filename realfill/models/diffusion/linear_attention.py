"""A U-Net whose self-attention is linear with a swish gate, for pre-training from scratch.

Softmax attention compares each latent with each other one, so its cost grows with the square of their number. Linear
attention (Katharopoulos et al. 2020) sums keys and values once, and its cost grows in proportion. The gate is that of
gated linear attention (Yang et al. 2024), which PixelHacker uses.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

__all__ = ["LinearAttention", "LinearAttentionUNet", "ModelMixin"]  # diffusers looks for ModelMixin in this module

_LEAST_SUM = 1e-6


class LinearAttention(nn.Module):
    """Self-attention over latents in linear time; its layers have the names of diffusers' ``Attention``."""

    def __init__(self, channels: int, num_heads: int) -> None:
        """Set up the layers.

        Args:
            channels: width of the latents, a multiple of ``num_heads``.
            num_heads: number of heads.
        """
        super().__init__()
        self.num_heads = num_heads
        self.to_q, self.to_k, self.to_v, self.to_gate = (nn.Linear(channels, channels, bias=False) for _ in range(4))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Identity()])

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Attend.

        Args:
            hidden_states: (B, N, C). Other arguments of diffusers' ``Attention`` have no meaning here.

        Returns:
            (B, N, C).
        """
        query, key, value = (
            layer(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        query, key = F.elu(query) + 1, F.elu(key) + 1  # positive, so that the weights are
        summary = key.transpose(-1, -2) @ value / key.shape[-2]
        total = query @ key.mean(dim=-2).unsqueeze(-1)
        mixed = (query @ summary) / total.clamp(min=_LEAST_SUM)
        return self.to_out[0](mixed.transpose(1, 2).flatten(-2) * F.silu(self.to_gate(hidden_states)))


class LinearAttentionUNet(UNet2DConditionModel):
    """Diffusers' U-Net with linear self-attention; cross-attention stays as it is."""

    @wraps(UNet2DConditionModel.__init__)  # diffusers reads the legal values of a config from the signature
    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: D107 - its docstring is that of diffusers
        super().__init__(*args, **kwargs)
        for module in list(self.modules()):
            attention = getattr(module, "attn1", None)
            if isinstance(attention, Attention):
                module.attn1 = LinearAttention(attention.to_q.in_features, attention.heads)
