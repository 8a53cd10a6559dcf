"""Base models with random weights: the parts of the scaled-down model have the cost shares of the real one."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from untrained import UNTRAINED, build_sd

from realfill.models.quiet import quiet


def costs(name):
    """Count the FLOPs of a U-Net pass, of encoding an image and of a prompt, without computing anything."""
    shape = UNTRAINED[name]
    side = shape.resolution // 8
    with quiet(), torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        pipeline = build_sd(shape)
        parts = {
            "unet": lambda: pipeline.unet(
                torch.zeros(1, 9, side, side), torch.zeros(1), torch.zeros(1, 77, shape.text_width)
            ),
            "encode": lambda: pipeline.vae.encoder(torch.zeros(1, 3, shape.resolution, shape.resolution)),
            "decode": lambda: pipeline.vae.decoder(torch.zeros(1, 4, side, side)),
            "text": lambda: pipeline.text_encoder(torch.zeros(1, 77, dtype=torch.long)),
        }
        flops = {}
        for part, work in parts.items():
            with FlopCounterMode(display=False) as counter:
                work()
            flops[part] = counter.get_total_flops()
    return flops


@pytest.fixture(scope="module")
def real():
    return costs("random-sd2")


def test_stable_diffusion_2_has_its_known_cost(real):
    assert real["unet"] == pytest.approx(0.80e12, rel=0.02)
    assert real["encode"] == pytest.approx(1.12e12, rel=0.03)
    assert real["decode"] == pytest.approx(2.51e12, rel=0.03)


def test_the_scaled_down_one_has_the_same_proportions(real):
    scaled = costs("scaled-sd")
    for part in ("encode", "decode", "text"):
        assert scaled[part] / scaled["unet"] == pytest.approx(real[part] / real["unet"], rel=0.15), part
    assert real["unet"] / scaled["unet"] > 50
