"""Base models and a matcher with random weights, to measure speed and memory without downloads.

To write a base model to a folder::

    python examples/speed/untrained.py random-sd2 FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from kornia.feature import LoFTR
from transformers import CLIPTextConfig, CLIPTextModel

from realfill.geometry.loftr import LoftrMatcher
from realfill.models.diffusion.card import Card
from realfill.models.mini.building import spelling_tokenizer
from realfill.models.quiet import quiet

_PROMPT_TOKENS = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The dimensions of a Stable Diffusion model that decide its cost.

    Attributes:
        resolution: side of its images in pixels.
        unet_widths: channels of the U-Net's levels; attention heads have 64 channels.
        vae_widths: channels of the VAE's levels.
        vae_groups: number of groups in the VAE's group norms.
        text_width: hidden size of the text encoder.
        text_layers: number of layers of the text encoder.
        text_heads: number of attention heads of the text encoder.
        vocabulary: number of token embeddings.
        fit: the model's defaults for ``FitConfig``.
        sample: the model's defaults for ``SampleConfig``.
    """

    resolution: int
    unet_widths: tuple[int, int, int, int]
    vae_widths: tuple[int, int, int, int]
    vae_groups: int
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int
    fit: Mapping[str, Any] = field(default_factory=dict)
    sample: Mapping[str, Any] = field(default_factory=dict)


UNTRAINED: Mapping[str, Shape] = {
    # The architecture of Stable Diffusion 2 inpainting.
    "random-sd2": Shape(
        resolution=512, unet_widths=(320, 640, 1280, 1280), vae_widths=(128, 256, 512, 512), vae_groups=32,
        text_width=1024, text_layers=23, text_heads=16, vocabulary=49408,
    ),
    # A hundredth of its cost, with the same shares of U-Net, VAE and text encoder.
    "scaled-sd": Shape(
        resolution=256, unet_widths=(64, 128, 256, 256), vae_widths=(24, 48, 112, 112), vae_groups=8,
        text_width=192, text_layers=6, text_heads=3, vocabulary=514,
        fit={"batch_size": 4}, sample={"num_samples": 4, "num_inference_steps": 4},
    ),
}  # fmt: skip


def build_sd(shape: Shape) -> StableDiffusionInpaintPipeline:
    """Build an inpainting pipeline with random weights; under ``torch.device("meta")``, without memory for them."""
    tokenizer: Any = spelling_tokenizer(num_tokens=_PROMPT_TOKENS)
    unet = UNet2DConditionModel(
        sample_size=shape.resolution // 8, in_channels=9, out_channels=4, block_out_channels=shape.unet_widths,
        layers_per_block=2, cross_attention_dim=shape.text_width, use_linear_projection=True,
        attention_head_dim=tuple(w // 64 for w in shape.unet_widths),  # type: ignore[arg-type]
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * 4,  # type: ignore[arg-type]
        block_out_channels=shape.vae_widths,  # type: ignore[arg-type]
        layers_per_block=2, latent_channels=4, sample_size=shape.resolution, scaling_factor=0.18215,
        norm_num_groups=shape.vae_groups,
    )  # fmt: skip
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=shape.vocabulary, hidden_size=shape.text_width, intermediate_size=4 * shape.text_width,
            num_hidden_layers=shape.text_layers, num_attention_heads=shape.text_heads, hidden_act="gelu",
            max_position_embeddings=_PROMPT_TOKENS, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    )
    return StableDiffusionInpaintPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,  # type: ignore[arg-type]
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,  # type: ignore[arg-type]
    )  # fmt: skip


def write_sd(name: str, directory: Path) -> Path:
    """Write one of ``UNTRAINED`` in diffusers' layout, and return its directory."""
    shape = UNTRAINED[name]
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        build_sd(shape).save_pretrained(directory)
    about = {"description": f"{name}: random weights, for measuring speed"}
    Card(fit=shape.fit, sample=shape.sample, about=about).save(directory)
    return directory


def random_loftr(device: torch.device, *, max_size_px: int, min_confidence: float) -> LoftrMatcher:
    """Build LoFTR with random weights, for which every mutually nearest pair of coarse cells is a match.

    Args:
        device: where to compute.
        max_size_px: longer side to which images are shrunk.
        min_confidence: smallest confidence of a match.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LoFTR(None)
    model.coarse_matching.thr = 0.0
    return LoftrMatcher(model, device, max_size_px=max_size_px, min_confidence=min_confidence)


if __name__ == "__main__":
    write_sd(sys.argv[1], Path(sys.argv[2]))
