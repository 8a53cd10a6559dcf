"""The cards of FLUX.2 klein, whose repositories have none; plain values, without the model libraries.

None of these defaults has been tried on the real weights. Steps and guidance are those of the authors' model cards; the
recipe of the fit follows the paper and what is usual for a LoRA on a transformer of this size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INSTRUCTION = (
    "The first image has a flat grey area. Replace the grey area with what belongs there, and keep everything else as "
    "it is. The other images show the same scene at the same moment: complete the first image with what they show."
)

_SAMPLE = {"scheduler": "euler", "num_samples": 8, "stage_steps": (4,), "stage_guidance": (1.0,), "prompt": INSTRUCTION}
_FIT = {
    "num_steps": 1000, "batch_size": 4, "learning_rate": 1e-4, "text_encoder_learning_rate": 0.0,
    "num_warmup_steps": 50, "lora_rank": 16, "lora_alpha": 16, "prompt": INSTRUCTION, "hole_margin_px": 16,
    "lora_targets": ("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "attn.to_out"),
}  # fmt: skip

DISTILLED: Mapping[str, Any] = {
    "resolution": 1024, "fit": _FIT, "sample": {**_SAMPLE, "num_inference_steps": 4, "guidance_scale": 1.0},
}  # fmt: skip
"""The distilled weights: four steps, no guidance."""

BASE: Mapping[str, Any] = {
    "resolution": 1024, "fit": _FIT,
    "sample": {
        **_SAMPLE, "num_inference_steps": 50, "guidance_scale": 4.0, "stage_steps": (25,), "stage_guidance": (4.0,),
    },
}  # fmt: skip
"""The undistilled weights, on which LoRA are trained."""
