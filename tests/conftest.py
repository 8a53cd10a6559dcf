"""Tiny random models of Stable Diffusion's own classes, and small scenes."""

import os
import struct

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # else threads of several test runs wait by spinning

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from realfill import FitConfig, Scene
from realfill.models._quiet import quiet
from realfill.models.mini.building import spelling_tokenizer

torch.set_num_threads(1)  # tiny tensors: a second thread only waits, on a busy machine for seconds

TINY_FIT = {"num_steps": 3, "batch_size": 2, "lora_rank": 2, "lora_alpha": 4, "mixed_precision": "no"}


def build_tiny_sd(directory, *, prediction_type="epsilon", latent_channels=4, zero_snr=False, scaling=0.18215):
    """Write a base with SD's classes and 32 x 32 images: 16 x 16 latents of 2 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = spelling_tokenizer()
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(16, 32), latent_channels=latent_channels, norm_num_groups=8, sample_size=32,
            scaling_factor=scaling,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=16, in_channels=2 * latent_channels + 1, out_channels=latent_channels,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=32, attention_head_dim=2,
            norm_num_groups=8,
        )  # fmt: skip
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if zero_snr else {}
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1,
        prediction_type=prediction_type, **options,
    )  # fmt: skip
    with quiet():
        StableDiffusionInpaintPipeline(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        ).save_pretrained(directory)  # fmt: skip
    return directory


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory) -> str:
    """The path of a base like SD 2 inpainting: epsilon prediction, 4 latent channels."""
    return str(build_tiny_sd(tmp_path_factory.mktemp("tiny-sd")))


@pytest.fixture(scope="session")
def tiny_v(tmp_path_factory) -> str:
    """The path of an unlike one: v-prediction, zero terminal SNR, 6 latent channels, another scaling factor."""
    return str(
        build_tiny_sd(
            tmp_path_factory.mktemp("tiny-v"),
            prediction_type="v_prediction", latent_channels=6, zero_snr=True, scaling=0.7,
        )
    )  # fmt: skip


@pytest.fixture
def tiny_fit(tiny_sd) -> FitConfig:
    """Three steps on the tiny base."""
    return FitConfig(base=tiny_sd, **TINY_FIT)


def make_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw a smooth random texture with features that SIFT finds: (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cells in (4, 12, 40):
        noise = rng.random((cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / 3
    return (image.clip(0, 1) * 255).astype(np.uint8)


def make_profile(*, gamma: float = 2.19921875, grey: bool = False, title: bytes = b"wide") -> bytes:
    """Write an ICC profile: Adobe RGB's primaries with a gamma, or grey with one."""

    def xyz(*values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    text = b"desc\0\0\0\0" + struct.pack(">I", len(title) + 1) + title + b"\0" + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz(0.9642, 1, 0.8249)}
    if grey:
        tags[b"kTRC"] = curve
    else:
        tags |= {b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087)}
        tags |= {b"bXYZ": xyz(0.14919, 0.06322, 0.74457), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, data = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4sI4s4s4s", 132 + len(table) - 4 + len(data), b"lcms", 0x02400000, b"mntr",
                       b"GRAY" if grey else b"RGB ", b"XYZ ") + bytes(12) + b"acsp" + bytes(28)  # fmt: skip
    return head + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + table + data


@pytest.fixture
def scene() -> Scene:
    """Two references and a target of 64 x 80 with an elliptic hole."""
    mask = cv2.ellipse(np.zeros((64, 80), np.uint8), (40, 30), (16, 12), 0, 0, 360, 1, -1) > 0
    return Scene([make_photo(70, 90, 1), make_photo(64, 64, 2)], make_photo(64, 80, 0), mask)
