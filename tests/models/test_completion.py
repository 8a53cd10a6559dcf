"""The completion network: the paper's layers, any size of image, a hole without influence, weights in a file."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from realfill.errors import BaseModelError
from realfill.models.feedforward.completion import WEIGHTS_NAME, CompletionNetwork
from realfill.models.feedforward.discriminator import Discriminator
from realfill.models.feedforward.network import padded_call

# kernel, stride, dilation, channels: Iizuka et al. 2017, table 1
PAPER = [
    (5, 1, 1, 64), (3, 2, 1, 128), (3, 1, 1, 128), (3, 2, 1, 256), (3, 1, 1, 256), (3, 1, 1, 256),
    (3, 1, 2, 256), (3, 1, 4, 256), (3, 1, 8, 256), (3, 1, 16, 256), (3, 1, 1, 256), (3, 1, 1, 256),
    (4, 2, 1, 128), (3, 1, 1, 128), (4, 2, 1, 64), (3, 1, 1, 32), (3, 1, 1, 3),
]  # fmt: skip


@pytest.fixture
def network():
    """A random network whose batch normalization has the statistics of random images, so that signals do not fade."""
    torch.manual_seed(0)
    network = CompletionNetwork(width=4, resolution=64, mean=(0.2, 0.4, 0.6))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64) < 0.2)
    return network.eval()


def convolutions(module):
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def draw(height, width):
    generator = torch.Generator().manual_seed(1)
    image, hole = torch.rand((1, 3, height, width), generator=generator), torch.zeros(1, 1, height, width) > 0
    hole[..., height // 4 : height // 2, width // 4 : width // 2] = True
    return image, hole


def test_the_layers_are_the_papers_and_a_narrower_network_has_a_share_of_their_channels():
    layers = convolutions(CompletionNetwork())
    assert [(m.kernel_size[0], m.stride[0], m.dilation[0], m.out_channels) for m in layers] == PAPER
    assert [isinstance(m, nn.ConvTranspose2d) for m in layers] == [n in (12, 14) for n in range(17)]
    assert layers[0].in_channels == 4
    slim = [m.out_channels for m in convolutions(CompletionNetwork(width=16))]
    assert slim == [*(channels // 4 for *_, channels in PAPER[:-1]), 3]
    with pytest.raises(ValueError, match="width is 15; legal: even"):
        CompletionNetwork(width=15)


def test_the_discriminators_are_the_papers():
    discriminator = Discriminator()
    for part, channels in (
        (discriminator.whole, (64, 128, 256, 512, 512, 512)),
        (discriminator.patch, (64, 128, 256, 512, 512)),
    ):
        layers = convolutions(part)
        assert [m.out_channels for m in layers] == list(channels)
        assert {(m.kernel_size, m.stride) for m in layers} == {((5, 5), (2, 2))}
        assert [m.out_features for m in part.modules() if isinstance(m, nn.Linear)] == [1024]
    assert (discriminator.join.in_features, discriminator.join.out_features) == (2048, 1)
    assert Discriminator(width=2, resolution=128)(torch.rand(3, 3, 128, 128), torch.rand(3, 3, 64, 64)).shape == (3,)
    with pytest.raises(ValueError, match="resolution is 100; legal: multiples of 64"):
        Discriminator(resolution=100)


@pytest.mark.parametrize("size", [(64, 48), (61, 50), (5, 7), (1, 1)])
def test_an_image_of_any_size_keeps_its_size(network, size):
    prediction = network.predict(*draw(*size))
    assert prediction.shape == (1, 3, *size)
    assert prediction.min() >= 0 and prediction.max() <= 1


def test_padding_moves_no_pixel_and_repeats_the_border():
    seen = []

    def call(image, hole):
        seen.append((image, hole))
        return image

    image, hole = draw(61, 50)
    assert torch.equal(padded_call(call, image, hole, multiple=8, min_side_px=96), image)
    padded, padded_hole = seen[0]
    assert padded.shape[-2:] == padded_hole.shape[-2:] == (96, 96)
    assert torch.equal(padded[..., :61, 50:], image[..., -1:].expand(1, 3, 61, 46))
    assert torch.equal(padded_hole[..., :61, :50], hole)
    padded_call(call, image, hole, multiple=8)
    assert seen[1][0].shape[-2:] == (64, 56)


def test_pixels_in_the_hole_have_no_influence_and_the_mask_has(network):
    image, hole = draw(40, 40)
    prediction = network.predict(image, hole)
    assert torch.equal(prediction, network.predict(image.masked_fill(hole, 1), hole))
    mean_in_hole = torch.where(hole, network.mean, image)
    assert torch.equal(prediction, network.predict(mean_in_hole, hole))
    assert not torch.equal(prediction, network.predict(mean_in_hole, torch.zeros_like(hole)))


def test_the_hole_shows_the_mean_colour_at_the_input(network):
    seen = []
    network.layers[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    image, hole = draw(40, 40)
    network.predict(image, hole)
    assert torch.allclose(seen[0][0, :3, 12, 12], torch.tensor([0.2, 0.4, 0.6]))
    assert torch.equal(seen[0][:, 3:], hole.float()) and torch.equal(seen[0][0, :3, 0, 0], image[0, :, 0, 0])


def test_pixels_beyond_the_receptive_field_have_no_influence(network):
    generator = torch.Generator().manual_seed(0)
    image, hole = torch.rand((1, 3, 8, 400), generator=generator), torch.zeros(1, 1, 8, 400) > 0
    changed = image.clone()
    changed[..., :40] = 0
    difference = (network.predict(image, hole) - network.predict(changed, hole)).abs().amax(dim=(0, 1, 2))
    assert difference[40 + 153 :].max() == 0 < difference[40 : 40 + 60].max()


def test_saved_weights_load_to_the_same_network_up_to_half_precision(network, tmp_path):
    path = network.save(tmp_path, about={"steps": 3})
    image, hole = draw(40, 40)
    for source in (path, tmp_path):
        loaded = CompletionNetwork.load(source)
        assert (loaded.width, loaded.resolution, loaded.training) == (4, 64, False)
        assert torch.equal(loaded.mean, network.mean)
        assert torch.allclose(loaded.predict(image, hole), network.predict(image, hole), atol=5e-3)
        assert not any(p.requires_grad for p in loaded.parameters())


def test_other_files_are_refused(network, tmp_path):
    with pytest.raises(BaseModelError, match="there are no weights of a completion network"):
        CompletionNetwork.load(tmp_path)
    path = tmp_path / WEIGHTS_NAME
    path.write_bytes(b"not weights")
    with pytest.raises(BaseModelError, match="is damaged or holds no completion network"):
        CompletionNetwork.load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(BaseModelError, match="its format is None"):
        CompletionNetwork.load(path)
    del network.layers[16]
    network.save(tmp_path)
    with pytest.raises(BaseModelError, match="Missing key"):
        CompletionNetwork.load(path)


@pytest.mark.parametrize(
    "values", [{"width": 100_000}, {"width": "2"}, {"width": True}, {"resolution": 0}, {"resolution": 10**400},
               {"mean": [0, 1]}, {"mean": [0, 1, 5]}, {"mean": [0, 1, float("nan")]}, {"mean": 3}],
)  # fmt: skip
def test_a_card_that_does_not_fit_its_weights_is_refused_before_a_network_is_made(tmp_path, monkeypatch, values):
    path = CompletionNetwork(width=2).save(tmp_path)
    card = {"width": 2, "resolution": 64, "mean": [0.5] * 3, **values}
    metadata = {"format": "realfill completion network 1", "card": json.dumps(card)}
    save_file(load_file(path), path, metadata=metadata)
    monkeypatch.setattr(CompletionNetwork, "__init__", lambda *_, **__: pytest.fail("a network is made"))
    with pytest.raises(BaseModelError, match="is damaged or holds no completion network"):
        CompletionNetwork.load(path)
