"""Photos, colour profiles and tiny models that several test folders share."""

import struct

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from realfill.io.writing import write_png
from realfill.models.diffusion import klein_cards
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.files import StableDiffusionInpaintPipeline
from realfill.models.diffusion.lora import attach
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.mini.building import spelling_tokenizer
from realfill.models.quiet import quiet

ADAPTER_KINDS = {
    "lora": {"learning_rate": 0.1, "text_encoder_learning_rate": 0.1},
    "lora everywhere": {"learning_rate": 0.1, "text_encoder_learning_rate": 0.1, "lora_targets": ("*",)},
    "all": {"trainable": "all", "learning_rate": 0.01, "text_encoder_learning_rate": 0.0, "lora_targets": ("*",)},
}
TINY_FIT = {"num_steps": 3, "batch_size": 2, "lora_rank": 2, "lora_alpha": 4, "mixed_precision": "no"}


def build_tiny_sd(directory, *, prediction_type="epsilon", latent_channels=4, zero_snr=False, scaling=0.18215):
    """Write a base model of SD's classes for images of 32 x 32 pixels, with 16 x 16 latents."""
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


QWEN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{{ '> ' * add_generation_prompt }}"
)


def build_tiny_klein(directory, *, is_distilled=False, seed=0):
    """Write a base model of FLUX.2 klein's classes for images of 32 x 32 pixels, with tokens of 4 x 4 pixels."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    vocabulary = {token: i for i, token in enumerate([*alphabet, "<|endoftext|>"])}
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], chat_template=QWEN_TEMPLATE)
        text_encoder = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=28,
                num_attention_heads=1, num_key_value_heads=1, head_dim=8,
            )
        )  # fmt: skip
        vae = AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(16, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=32,
        )  # fmt: skip
        vae.bn.running_mean.copy_(torch.randn(16) / 10)
        vae.bn.running_var.copy_(torch.rand(16) / 2 + 0.1)
        torch.manual_seed(seed)
        transformer = Flux2Transformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=24, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        )  # fmt: skip
        Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae, text_encoder=text_encoder,
            tokenizer=tokenizer, transformer=transformer, is_distilled=is_distilled,
        ).save_pretrained(directory)  # fmt: skip
    sample = {"scheduler": "euler", "num_inference_steps": 2, "guidance_scale": 1.0, "num_samples": 1, "prompt": "fill"}
    recipe = {**klein_cards.BASE["fit"], "lora_rank": 2, "num_steps": 3, "batch_size": 2}
    recipe |= {"num_warmup_steps": 0, "hole_margin_px": 4}
    Card(resolution=32, fit=recipe, sample=sample, rank={"score_by": "warped_references"}).save(directory)
    return directory


def attached(adapter) -> StableDiffusionInpainter:
    """Load the base model of an adapter and attach the adapter."""
    inpainter = StableDiffusionInpainter.load(adapter.base)
    attach(inpainter, adapter)
    return inpainter


@torch.no_grad()
def outputs(pipeline) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the U-Net and the text encoder of the tiny base model on fixed inputs."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, pipeline.unet.config.in_channels, 8, 8), generator=generator)
    words = torch.randn((2, 16, 32), generator=generator)
    tokens = pipeline.tokenizer(["sks"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    return (
        pipeline.unet(latents, torch.tensor([10, 800]), encoder_hidden_states=words).sample,
        pipeline.text_encoder(tokens)[0],
    )


def make_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw a smooth random texture (H, W, 3) uint8 with features that SIFT finds."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cells in (4, 12, 40):
        noise = rng.random((cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / 3
    return (image.clip(0, 1) * 255).astype(np.uint8)


def make_profile(*, gamma: float = 2.19921875, grey: bool = False, title: bytes = b"wide") -> bytes:
    """Write an ICC profile with a gamma curve: the primaries of Adobe RGB, or grey."""

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


def save_case(scene, folder, *, truth=None):
    scene.save(folder)
    write_png(folder / "target" / "gt.png", scene.target if truth is None else truth)
    return folder
