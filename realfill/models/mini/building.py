"""Building a small base from nothing: the linear autoencoder, a spelling tokenizer, a small U-Net and text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from realfill.images import ImageArray, resize
from realfill.models.mini.autoencoder import PatchAutoencoder

_PROMPT_TOKENS = 16


def principal_components(
    photos: Sequence[ImageArray], patch_size: int, channels: int, *, seed: int = 0, num_patches: int = 400_000
) -> PatchAutoencoder:
    """Build the linear autoencoder from random patches at full and at half size.

    Latents are scaled by the square root of their deviation, so that leading components keep more of the signal than
    the last ones, and have a mean variance of 1.
    """
    rng = np.random.default_rng(seed)
    patches = np.empty((num_patches, patch_size, patch_size, 3), np.float32)
    for i in range(num_patches):
        photo, side = photos[int(rng.integers(len(photos)))], patch_size * (1 + i % 2)
        y, x = (int(rng.integers(n - side + 1)) for n in photo.shape[:2])
        patches[i] = resize(photo[y : y + side, x : x + side], (patch_size, patch_size))
    patches = patches / 127.5 - 1
    mean = patches.mean((0, 1, 2))
    flat = (patches - mean).transpose(0, 3, 1, 2).reshape(num_patches, -1)
    vectors, variances, _ = np.linalg.svd(flat.T @ flat / num_patches)
    deviation = np.sqrt(variances[:channels])
    scale = np.sqrt(deviation) * np.sqrt(deviation.mean())
    components = vectors[:, :channels].T.reshape(channels, 3, patch_size, patch_size)
    return PatchAutoencoder.from_components(
        *(torch.from_numpy(np.ascontiguousarray(x)).float() for x in (mean, components, scale))
    )


def build_pipeline(
    autoencoder: PatchAutoencoder, *, resolution: int, widths: tuple[int, int, int], seed: int = 0
) -> StableDiffusionInpaintPipeline:
    """Build an untrained base around an autoencoder: U-Net, tokenizer, text encoder, schedule.

    Args:
        autoencoder: decides the latents.
        resolution: side in pixels of the images to train on.
        widths: channels of the U-Net's levels, multiples of 32.
        seed: of the random weights.
    """
    channels, width = autoencoder.config["latent_channels"], 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=resolution // autoencoder.config["patch_size"],
            in_channels=2 * channels + 1,
            out_channels=channels,
            block_out_channels=widths,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=width,
            attention_head_dim=tuple(max(1, w // 32) for w in widths),  # type: ignore[arg-type]
            norm_num_groups=16,
        )
        tokenizer: Any = spelling_tokenizer()
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=_PROMPT_TOKENS,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
        nn.init.constant_(text_encoder.final_layer_norm.weight, 0.1)  # a whisper: the prompt says little here
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", rescale_betas_zero_snr=True,
        timestep_spacing="trailing", clip_sample=False, steps_offset=1,
    )  # fmt: skip
    return StableDiffusionInpaintPipeline(
        vae=autoencoder, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,  # type: ignore[arg-type]
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,  # type: ignore[arg-type]
    )  # fmt: skip


def spelling_tokenizer(num_tokens: int = _PROMPT_TOKENS) -> CLIPTokenizer:
    """Build a tokenizer that spells, for prompts of up to ``num_tokens``: CLIP's byte alphabet, no merges."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in visible]
    alphabet = [*(chr(b) for b in visible), *(chr(256 + i) for i in range(len(hidden)))]
    tokens = [*alphabet, *(f"{a}</w>" for a in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=num_tokens)
