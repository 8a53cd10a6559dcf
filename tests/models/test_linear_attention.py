"""Linear attention: the weighted mean that its formula says, in a U-Net that is saved and loaded like any other."""

import pytest
import torch
import torch.nn.functional as F
from helpers import build_tiny_sd

from realfill.models.diffusion.card import Card
from realfill.models.diffusion.files import StableDiffusionInpaintPipeline
from realfill.models.diffusion.linear_attention import LinearAttention, LinearAttentionUNet
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.quiet import quiet


@pytest.fixture(scope="module")
def linear_base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear")
    with quiet():
        pipeline = StableDiffusionInpaintPipeline.from_pretrained(build_tiny_sd(folder / "plain"))
    unet = LinearAttentionUNet.from_config(pipeline.unet.config)
    parts = {**pipeline.components, "unet": unet, "requires_safety_checker": False}
    inpainter = StableDiffusionInpainter.from_pipeline(
        StableDiffusionInpaintPipeline(**parts), base="linear", card=Card()
    )
    inpainter.save(folder / "linear", Card())
    return folder / "linear"


def test_it_is_the_mean_of_the_values_weighted_by_positive_products_times_the_gate():
    torch.manual_seed(0)
    layer, states = LinearAttention(8, 2), torch.randn(3, 5, 8)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        query, key = (F.elu(x(states)[..., head]) + 1 for x in (layer.to_q, layer.to_k))
        weights = query @ key.transpose(-1, -2)
        heads.append(weights / weights.sum(dim=-1, keepdim=True) @ layer.to_v(states)[..., head])
    gate = layer.to_gate(states)
    expected = layer.to_out[0](torch.cat(heads, dim=-1) * gate * torch.sigmoid(gate))
    torch.testing.assert_close(layer(states), expected, atol=1e-5, rtol=1e-4)


def test_a_base_with_linear_attention_is_saved_and_loaded(linear_base):
    one, two = (StableDiffusionInpainter.load(str(linear_base)) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert isinstance(one.unet, LinearAttentionUNet)
    layers = [name for name, module in one.unet.named_modules() if isinstance(module, LinearAttention)]
    assert layers and all(name.endswith("attn1") for name in layers)
    assert any(name.endswith("attn1.to_q") for name in one.lora_layers(["to_q"]))
