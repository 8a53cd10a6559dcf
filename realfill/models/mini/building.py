"""Building a small base from nothing: the linear autoencoder, a spelling tokenizer, a small U-Net and text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from realfill.io.images import ImageArray, resize
from realfill.models.mini.autoencoder import PatchAutoencoder

_PROMPT_TOKENS = 16
_TIME = "time_embedding.linear_1.weight"
_LEAST_SINGULAR_VALUE = 1e-2  # of the largest


def principal_components(
    photos: Sequence[ImageArray],
    patch_size: int,
    channels: int,
    *,
    keep: PatchAutoencoder | None = None,
    seed: int = 0,
    num_patches: int = 400_000,
) -> PatchAutoencoder:
    """Build the linear autoencoder from random patches at full and at half size.

    Latents are scaled by the square root of their deviation, so that leading components keep more of the signal than
    the last ones, and have a mean variance of 1.

    Args:
        photos: where the patches come from.
        patch_size: their side in pixels.
        channels: components kept.
        keep: an autoencoder whose components are the first; those added are of what it leaves, at its scale.
        seed: of the choice of patches.
        num_patches: how many.
    """
    rng = np.random.default_rng(seed)
    patches = np.empty((num_patches, patch_size, patch_size, 3), np.float32)
    for i in range(num_patches):
        photo, side = photos[int(rng.integers(len(photos)))], patch_size * (1 + i % 2)
        y, x = (int(rng.integers(n - side + 1)) for n in photo.shape[:2])
        patches[i] = resize(photo[y : y + side, x : x + side], (patch_size, patch_size))
    patches = patches / 127.5 - 1
    mean = patches.mean((0, 1, 2)) if keep is None else keep.mean.numpy()
    flat = (patches - mean).transpose(0, 3, 1, 2).reshape(num_patches, -1)
    covariance = flat.T @ flat / num_patches
    known = np.zeros((0, flat.shape[1]), np.float32)
    if keep is not None:
        known = keep.components.flatten(1).numpy()
        rest = np.eye(flat.shape[1], dtype=np.float32) - known.T @ known
        vectors, _, _ = np.linalg.svd(rest @ covariance @ rest)
    else:
        vectors, _, _ = np.linalg.svd(covariance)
    components = np.concatenate([known, vectors.T])[:channels]
    deviation = np.sqrt(np.einsum("ci,ij,cj->c", components, covariance, components))
    scale = np.sqrt(deviation)
    scale *= np.sqrt(deviation.mean()) if keep is None else float((keep.scale.numpy() / scale[: len(known)]).mean())
    scale[: len(known)] = [] if keep is None else keep.scale.numpy()
    shaped = components.reshape(channels, 3, patch_size, patch_size)
    return PatchAutoencoder.from_components(
        *(torch.from_numpy(np.ascontiguousarray(x)).float() for x in (mean, shaped, scale))
    )


def regress_decoder(
    autoencoder: PatchAutoencoder, crops: torch.Tensor, *, reach: int = 1, noise: float = 0.05, seed: int = 0
) -> PatchAutoencoder:
    """Give an autoencoder the linear decoder that brings back images best, from latents with a little noise.

    Least squares of each patch on its own latent and its neighbours'. The noise stands for what a denoiser leaves.

    Args:
        autoencoder: its encoder stays.
        crops: (N, 3, H, W) in [0, 1].
        reach: how many neighbours on each side a patch is decoded from.
        noise: standard deviation, in latents.
        seed: of the noise.
    """
    patch, channels, side = autoencoder.config["patch_size"], autoencoder.config["latent_channels"], 2 * reach + 1
    generator = torch.Generator().manual_seed(seed)
    width = channels * side**2 + 1
    gram, cross = torch.zeros(width, width).double(), torch.zeros(width, 3 * patch**2).double()
    for batch in (crops * 2 - 1).split(64):
        with torch.no_grad():
            latents = autoencoder.encode(batch).latent_dist.mode()  # type: ignore[union-attr]
        latents = latents + noise * torch.randn(latents.shape, generator=generator)
        around = F.unfold(F.pad(latents, (reach,) * 4, mode="replicate"), side).transpose(1, 2).flatten(0, 1).double()
        inputs = torch.cat([around, torch.ones(len(around), 1)], dim=1)
        wanted = F.unfold(batch, patch, stride=patch).transpose(1, 2).flatten(0, 1).double()
        gram += inputs.T @ inputs
        cross += inputs.T @ wanted
    solved = torch.linalg.solve(gram, cross).float()
    # neighbour (dy, dx) of a patch adds to it what that neighbour's latent adds at (-dy, -dx)
    maps = solved[:-1].view(channels, side, side, 3, patch, patch).flip(1, 2)
    weight = maps.permute(0, 3, 1, 4, 2, 5).reshape(channels, 3, side * patch, side * patch)
    return autoencoder.with_decoder(weight, solved[-1].view(3, patch, patch).mean((1, 2)))


def widen(
    pipeline: StableDiffusionInpaintPipeline, autoencoder: PatchAutoencoder, width: int, *, seed: int = 0
) -> StableDiffusionInpaintPipeline:
    """Give a base more latent channels and a wider first level; what its U-Net has learnt stays.

    The U-Net doesn't look at new latent channels yet, and predicts 0 for them. A wider level's channels are copies of
    those there, and what listens to a channel shares its weights unevenly among the copies (Net2Net, Chen et al.
    2016), so that they can part. What is predicted changes somewhat: groups that are normalised together aren't the
    same any more, nor are the waves that time is embedded in. A few hundred steps of training mend it.

    Args:
        pipeline: the base.
        autoencoder: the same, or one with more channels, the first ones the same.
        width: channels of the U-Net's first level, as many as there are or more.
        seed: of the shares.

    Raises:
        ValueError: the level can't be made that wide.
    """
    widths, groups = pipeline.unet.config.block_out_channels, pipeline.unet.config.norm_num_groups
    if width != widths[0] and (width < widths[0] or width % groups or width == widths[1]):
        raise ValueError(
            f"the first level's width is {width}; legal for this base: {widths[0]}, or a larger multiple of {groups} "
            f"other than {widths[1]}, the next level's"
        )
    old, new = pipeline.vae.config.latent_channels, autoencoder.config["latent_channels"]
    weights = dict(pipeline.unet.state_dict())
    inputs = weights["conv_in.weight"]
    nothing = inputs.new_zeros(len(inputs), new - old, *inputs.shape[2:])
    weights["conv_in.weight"] = torch.cat([inputs[:, :old], nothing, inputs[:, old:], nothing], dim=1)
    for name in ("conv_out.weight", "conv_out.bias"):
        weights[name] = torch.cat([weights[name], weights[name].new_zeros(new - old, *weights[name].shape[1:])])
    unet: Any = UNet2DConditionModel.from_config(
        {
            **{k: v for k, v in pipeline.unet.config.items() if not k.startswith("_")},
            "in_channels": 2 * new + 1,
            "out_channels": new,
            "block_out_channels": (width, *widths[1:]),
            "time_embedding_dim": weights[_TIME].shape[0],
        }
    )
    if width > widths[0]:
        generator = torch.Generator().manual_seed(seed)
        waves = _translate_time(pipeline, unet)
        weights = {
            name: waves if name == _TIME else _share_out(weights[name], wanted.shape, widths[0], width, generator)
            for name, wanted in unet.state_dict().items()
        }
    unet.load_state_dict(weights)
    parts = {**pipeline.components, "unet": unet, "vae": autoencoder, "requires_safety_checker": False}
    return StableDiffusionInpaintPipeline(**parts)  # type: ignore[arg-type]


def _translate_time(pipeline: StableDiffusionInpaintPipeline, unet: UNet2DConditionModel) -> torch.Tensor:
    """Fit the layer that takes the embedding of time to another U-Net's waves, by least squares over all timesteps."""
    times = torch.arange(pipeline.scheduler.config.num_train_timesteps)
    embedded, before = (x.time_proj(times).double() for x in (unet, pipeline.unet))
    # the slowest waves are nearly alike: without a bound their weights cancel out, beyond half precision
    translation = torch.linalg.lstsq(embedded, before, rcond=_LEAST_SINGULAR_VALUE, driver="gelsd").solution.T.float()
    return pipeline.unet.state_dict()[_TIME] @ translation


def _share_out(weight: torch.Tensor, shape: torch.Size, old: int, new: int, generator: torch.Generator) -> torch.Tensor:
    """Copy outputs, and share inputs out, along axes where the last channels are of the widened level."""
    for axis in range(min(2, weight.ndim)):
        if weight.shape[axis] == shape[axis]:
            continue
        levels = (shape[axis] - weight.shape[axis]) // (new - old)
        kept = weight.shape[axis] - levels * old
        sources = torch.cat([torch.arange(kept), kept + torch.arange(levels * new) * old // new])
        weight = weight.index_select(axis, sources)
        if axis == 1:
            shares = 0.5 + torch.rand(weight.shape, generator=generator)
            totals = torch.zeros(len(weight), int(sources.max()) + 1, *weight.shape[2:]).index_add(1, sources, shares)
            weight = weight * shares / totals.index_select(1, sources)
    return weight


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
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", rescale_betas_zero_snr=True,
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
