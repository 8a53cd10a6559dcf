"""Decoding: turn latents into images one at a time, and in tiles if a whole image does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from realfill.compute.memory import fits
from realfill.errors import warn

_DECODER_TENSORS = 3  # full-size tensors that AutoencoderKL's decoder holds at a time, as wide as its second block


def decode_in_pieces(vae: Any, latents: torch.Tensor, vae_scale_factor: int) -> torch.Tensor:
    """Decode latents with a VAE of diffusers.

    ``AutoencoderKL`` decodes one image at a time. If the whole image does not fit into memory, it decodes
    overlapping tiles of its training size, which changes colours a little; a warning says so. Other VAEs decode the
    batch at once.

    Args:
        vae: the VAE.
        latents: (B, C, h, w), unscaled, on the device and in the precision of the VAE. If they require a gradient, the
            batch is decoded at once.
        vae_scale_factor: side of a latent in pixels.

    Returns:
        (B, 3, H, W), about in [-1, 1].
    """
    if latents.requires_grad:
        return vae.decode(latents).sample
    with torch.no_grad(), _pieces(vae, tiled=_is_too_large(vae, latents, vae_scale_factor)):
        return vae.decode(latents).sample


def _is_too_large(vae: Any, latents: torch.Tensor, vae_scale_factor: int) -> bool:
    """Tell whether decoding one whole image takes more than the free memory, and warn if it does.

    This is checked in advance, because a process that runs out of memory on a CPU is killed without an error.
    """
    if not hasattr(vae, "use_tiling") or max(latents.shape[-2:]) <= vae.tile_latent_min_size:
        return False
    height, width = (n * vae_scale_factor for n in latents.shape[-2:])
    channels = vae.config.block_out_channels[:2][-1]
    num_bytes = _DECODER_TENSORS * channels * latents.element_size() * height * width
    if fits(latents.device, num_bytes):
        return False
    warn(
        f"an image of {height} x {width} pixels is decoded in tiles, because decoding it whole takes "
        f"{num_bytes / 1e9:.1f} GB, and less memory is free; colours may differ a little from tile to tile"
    )
    return True


@contextmanager
def _pieces(vae: Any, *, tiled: bool) -> Iterator[None]:
    """Make a VAE process one image at a time, and in tiles on request, if it has these modes."""
    sliced = hasattr(vae, "use_slicing")
    if sliced:
        vae.enable_slicing()
    if tiled:
        vae.enable_tiling()
    try:
        yield
    finally:  # both modes would act on encoding too
        if sliced:
            vae.disable_slicing()
        if tiled:
            vae.disable_tiling()
