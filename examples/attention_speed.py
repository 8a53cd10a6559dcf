"""What does self-attention cost at different sizes: softmax attention against linear attention with a swish gate?

    python examples/attention_speed.py

Prints, for each number of latents, the seconds of processor time of a forward and a backward pass on one thread: of one
layer, and of a U-Net of the packaged base's widths with random weights and attention at each level.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from realfill.models.diffusion.linear_attention import LinearAttention, LinearAttentionUNet

WIDTHS, HEADS, WORDS = (96, 128, 192), (3, 4, 6), (16, 64)
CHANNELS = 128


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 48, 64], help="latents on a side")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    layers = Attention(CHANNELS, heads=CHANNELS // 32, dim_head=32), LinearAttention(CHANNELS, CHANNELS // 32)
    networks = _network(UNet2DConditionModel), _network(LinearAttentionUNet)
    print("| latents | layer, softmax s | layer, linear s | U-Net, softmax s | U-Net, linear s |")
    print("|---|---|---|---|---|")
    for side in options.sides:
        cells = [_time(_layer_pass(layer, side), options.repeats) for layer in layers]
        cells += [_time(_network_pass(unet, side), options.repeats) for unet in networks]
        print(f"| {side} x {side} | {' | '.join(f'{cell:.3g}' for cell in cells)} |", flush=True)


def _network(kind: type[UNet2DConditionModel]) -> UNet2DConditionModel:
    """Build a U-Net with attention at its first level too, as Stable Diffusion has."""
    return kind(
        sample_size=16, in_channels=9, out_channels=4, block_out_channels=WIDTHS, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=WORDS[1], attention_head_dim=HEADS,  # type: ignore[arg-type]
        norm_num_groups=16,
    )  # fmt: skip


def _layer_pass(layer: torch.nn.Module, side: int) -> Callable[[], torch.Tensor]:
    states = torch.randn(1, side**2, CHANNELS)
    return lambda: layer(states)


def _network_pass(unet: UNet2DConditionModel, side: int) -> Callable[[], torch.Tensor]:
    latents, timesteps, words = torch.randn(1, 9, side, side), torch.tensor([500]), torch.randn(1, *WORDS)
    return lambda: unet(latents, timesteps, encoder_hidden_states=words).sample


def _time(work: Callable[[], torch.Tensor], repeats: int) -> float:
    """Return the least processor time of a forward and a backward pass, in seconds."""
    durations = []
    for _ in range(repeats):
        start = time.process_time()
        work().square().mean().backward()
        durations.append(time.process_time() - start)
    return min(durations)


if __name__ == "__main__":
    main()
