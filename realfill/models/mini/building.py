"""Build a small base model: the linear autoencoder, a character-level tokenizer, a small U-Net and text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from realfill.io.images import ImageArray, resize
from realfill.models.diffusion.files import StableDiffusionInpaintPipeline
from realfill.models.diffusion.linear_attention import LinearAttentionUNet
from realfill.models.mini.autoencoder import PatchAutoencoder

_PROMPT_TOKENS = 16
_TIME = "time_embedding.linear_1.weight"
_MIN_SINGULAR_VALUE = 1e-2  # relative to the largest


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

    Latents are divided by the square root of their standard deviation, so that leading components keep a larger
    variance than the last ones. Their mean variance is 1.

    Args:
        photos: source of the patches.
        patch_size: side of a patch in pixels.
        channels: number of components.
        keep: an autoencoder whose components come first; the others are computed from its residual.
        seed: seed of the choice of patches.
        num_patches: number of patches.
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
        residual = np.eye(flat.shape[1], dtype=np.float32) - known.T @ known
        vectors, _, _ = np.linalg.svd(residual @ covariance @ residual)
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
    """Fit a linear decoder to an autoencoder by least squares, from latents with a little noise.

    Each patch is predicted from its own latent and its neighbours. The noise stands for the errors of a denoiser.

    Args:
        autoencoder: autoencoder, whose encoder is kept.
        crops: (N, 3, H, W) in [0, 1].
        reach: number of neighbours on each side that a patch is decoded from.
        noise: standard deviation of the noise, in latents.
        seed: seed of the noise.
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
        target = F.unfold(batch, patch, stride=patch).transpose(1, 2).flatten(0, 1).double()
        gram += inputs.T @ inputs
        cross += inputs.T @ target
    solved = torch.linalg.solve(gram, cross).float()
    # the weight from neighbour (dy, dx) to a patch is the weight of a latent at offset (-dy, -dx)
    maps = solved[:-1].view(channels, side, side, 3, patch, patch).flip(1, 2)
    weight = maps.permute(0, 3, 1, 4, 2, 5).reshape(channels, 3, side * patch, side * patch)
    return autoencoder.with_decoder(weight, solved[-1].view(3, patch, patch).mean((1, 2)))


def widen(
    pipeline: StableDiffusionInpaintPipeline, autoencoder: PatchAutoencoder, width: int, *, seed: int = 0
) -> StableDiffusionInpaintPipeline:
    """Add latent channels to a base model and widen its first level, keeping what its U-Net has learnt.

    The U-Net ignores new latent channels at first and predicts 0 for them. New channels of a level are copies of old
    ones. The weights that read a channel are split unevenly among its copies (Net2Net, Chen et al. 2016), so that the
    copies can diverge. The predictions change a little, because group normalisation and the frequencies of the time
    embedding change with the width. A few hundred training steps restore them.

    Args:
        pipeline: the base model.
        autoencoder: its autoencoder, or one with more channels that begin with the same ones.
        width: channels of the U-Net's first level, at least the current number.
        seed: seed of the split.

    Raises:
        ValueError: the level cannot have that width.
    """
    widths, groups = pipeline.unet.config.block_out_channels, pipeline.unet.config.norm_num_groups
    if width != widths[0] and (width < widths[0] or width % groups or width == widths[1]):
        raise ValueError(
            f"the width of the first level is {width}; legal for this base model: {widths[0]}, or a larger multiple of "
            f"{groups} other than {widths[1]}, the width of the next level"
        )
    old, new = pipeline.vae.config.latent_channels, autoencoder.config["latent_channels"]
    weights = dict(pipeline.unet.state_dict())
    inputs = weights["conv_in.weight"]
    zeros = inputs.new_zeros(len(inputs), new - old, *inputs.shape[2:])
    weights["conv_in.weight"] = torch.cat([inputs[:, :old], zeros, inputs[:, old:], zeros], dim=1)
    for name in ("conv_out.weight", "conv_out.bias"):
        weights[name] = torch.cat([weights[name], weights[name].new_zeros(new - old, *weights[name].shape[1:])])
    unet: Any = type(pipeline.unet).from_config(
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
        time_weight = _translate_time(pipeline, unet)
        weights = {
            name: time_weight if name == _TIME else _split(weights[name], tensor.shape, widths[0], width, generator)
            for name, tensor in unet.state_dict().items()
        }
    unet.load_state_dict(weights)
    parts = {**pipeline.components, "unet": unet, "vae": autoencoder, "requires_safety_checker": False}
    return StableDiffusionInpaintPipeline(**parts)  # type: ignore[arg-type]


def _translate_time(pipeline: StableDiffusionInpaintPipeline, unet: UNet2DConditionModel) -> torch.Tensor:
    """Adapt the first layer of the time embedding to the frequencies of another U-Net, by least squares."""
    times = torch.arange(pipeline.scheduler.config.num_train_timesteps)
    embedded, before = (x.time_proj(times).double() for x in (unet, pipeline.unet))
    # low frequencies are nearly equal; without a bound, their weights get large and cancel beyond half precision
    translation = torch.linalg.lstsq(embedded, before, rcond=_MIN_SINGULAR_VALUE, driver="gelsd").solution.T.float()
    return pipeline.unet.state_dict()[_TIME] @ translation


def _split(weight: torch.Tensor, shape: torch.Size, old: int, new: int, generator: torch.Generator) -> torch.Tensor:
    """Copy output channels, and split the weights of input channels, along axes that end in the widened level."""
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
    autoencoder: PatchAutoencoder, *, resolution: int, widths: tuple[int, int, int], linear: bool = False, seed: int = 0
) -> StableDiffusionInpaintPipeline:
    """Build an untrained base model around an autoencoder: U-Net, tokenizer, text encoder and noise schedule.

    Args:
        autoencoder: autoencoder, which defines the latents.
        resolution: side in pixels of the training images.
        widths: channels of the U-Net's levels, multiples of 32.
        linear: whether self-attention is linear.
        seed: seed of the random weights.
    """
    channels, width = autoencoder.config["latent_channels"], 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = (LinearAttentionUNet if linear else UNet2DConditionModel)(
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
        nn.init.constant_(text_encoder.final_layer_norm.weight, 0.1)  # small, because the prompt says little here
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", rescale_betas_zero_snr=True,
        timestep_spacing="trailing", clip_sample=False, steps_offset=1,
    )  # fmt: skip
    return StableDiffusionInpaintPipeline(
        vae=autoencoder, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,  # type: ignore[arg-type]
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,  # type: ignore[arg-type]
    )  # fmt: skip


def spelling_tokenizer(num_tokens: int = _PROMPT_TOKENS) -> CLIPTokenizer:
    """Build a character-level tokenizer for prompts of up to ``num_tokens``: CLIP's byte alphabet without merges."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in visible]
    alphabet = [*(chr(b) for b in visible), *(chr(256 + i) for i in range(len(hidden)))]
    tokens = [*alphabet, *(f"{a}</w>" for a in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=num_tokens)
