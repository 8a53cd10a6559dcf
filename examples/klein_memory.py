"""Estimate the memory that FLUX.2 klein 4B takes, for graphics cards of 12, 16 and 24 GB, without its weights.

    python examples/klein_memory.py            # the table of docs/guides/klein.md
    python examples/klein_memory.py --count    # also count what a training step keeps, on a narrow transformer

The sizes are computed from the layers of the real architecture, which are created without memory. None of it was
measured on a graphics card.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from diffusers import Flux2Transformer2DModel
from peft import LoraConfig
from torch import nn

from realfill.models.diffusion.klein import kept_values
from realfill.models.diffusion.quantization import BYTES_PER_WEIGHT
from realfill.training.plan import USABLE_SHARE, StepFootprint

SIZE_4B = {
    "in_channels": 128, "num_layers": 5, "num_single_layers": 20, "attention_head_dim": 128, "num_attention_heads": 24,
    "joint_attention_dim": 7680, "guidance_embeds": False,
}  # fmt: skip
CARDS_GB = (12, 16, 24)
WORDS, TOKEN_PX, VAE_BYTES, RANK = 512, 16, 170_000_000, 16
TARGETS = (".to_q", ".to_k", ".to_v", ".to_out.0", ".to_qkv_mlp_proj", ".attn.to_out")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=1024, help="side of a window in pixels (default: 1024)")
    parser.add_argument("--references", type=int, default=3, help="number of references (default: 3)")
    parser.add_argument("--reference-px", type=int, default=512, help="their side in pixels (default: 512)")
    parser.add_argument("--count", action="store_true", help="count what a training step keeps")
    options = parser.parse_args(arguments)
    with torch.device("meta"):
        model = Flux2Transformer2DModel(**SIZE_4B)  # type: ignore[arg-type]
    weights, in_blocks, trained = count_weights(model)
    per_image = [(side // TOKEN_PX) ** 2 for side in (options.resolution, options.reference_px)]
    tokens = 2 * per_image[0] + options.references * per_image[1] + WORDS
    lora = f"{trained / 1e6:.0f} million in a LoRA of rank {RANK}"
    print(f"{weights / 1e9:.2f} billion weights, {lora}; {tokens:,} tokens")
    step = StepFootprint(
        num_trained=trained, width=model.inner_dim, kept_values=kept_values(len(blocks(model))), num_latents=tokens,
        num_pixels=options.resolution**2, value_bytes=2,
    )  # fmt: skip
    for name, per_weight in (("bf16", 2.0), *BYTES_PER_WEIGHT.items()):
        held = in_blocks * per_weight + (weights - in_blocks) * 2 + VAE_BYTES
        print(f"{name:5} {describe(held, step)}")
    if options.count:
        plain, checkpointed = count_kept()
        print(f"values kept for each token, channel and block: {plain:.1f}, with checkpointing {checkpointed:.1f}")


def describe(held: float, step: StepFootprint) -> str:
    """Describe the memory of the weights and of a fit with one crop at a time, and the cards that it fits on."""
    plain, checkpointed = (held + step.total_bytes(1, checkpointing=c) for c in (False, True))
    fitting = [f"{gb}" for gb in CARDS_GB if checkpointed <= gb * 1e9 * USABLE_SHARE]
    return (
        f"weights {held / 1e9:4.1f} GB; fit {plain / 1e9:5.1f} GB, with gradient checkpointing "
        f"{checkpointed / 1e9:4.1f} GB; cards of {', '.join(fitting) or 'none of these sizes'} GB"
    )


def blocks(model: nn.Module) -> list[nn.Module]:
    """List the transformer's blocks."""
    return [*model.transformer_blocks, *model.single_transformer_blocks]  # type: ignore[misc]


def count_weights(model: nn.Module) -> tuple[int, int, int]:
    """Count all weights, those in the blocks, and those of a LoRA."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    lora = sum(RANK * (m.in_features + m.out_features) for n, m in layers.items() if f".{n}".endswith(TARGETS))
    weights, in_blocks = (sum(p.numel() for p in parameters) for parameters in (
        model.parameters(), (p for b in blocks(model) for p in b.parameters()),
    ))  # fmt: skip
    return weights, in_blocks, lora


def count_kept(num_tokens: int = 448, num_words: int = 64, heads: int = 2) -> tuple[float, float]:
    """Count the values that the backward pass of a narrow transformer with LoRA keeps, per token, channel and block."""
    size = {**SIZE_4B, "attention_head_dim": 128, "num_attention_heads": heads, "joint_attention_dim": 64}
    counts = []
    for checkpointing in (False, True):
        model = Flux2Transformer2DModel(**size).requires_grad_(requires_grad=False)
        layers = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and f".{n}".endswith(TARGETS)]
        model.add_adapter(LoraConfig(r=1, target_modules=layers))
        model.train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        fixed = {p.data_ptr() for p in model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor, kept: dict[int, int] = kept, fixed: set[int] = fixed) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in fixed:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(
                hidden_states=torch.randn(1, num_tokens, 128), timestep=torch.ones(1),
                encoder_hidden_states=torch.randn(1, num_words, 64), img_ids=torch.zeros(num_tokens, 4),
                txt_ids=torch.zeros(num_words, 4), return_dict=False,
            )[0]  # fmt: skip
        del output
        counts.append(sum(kept.values()) / ((num_tokens + num_words) * model.inner_dim) / len(blocks(model)))
    return counts[0], counts[1]


if __name__ == "__main__":
    main()
