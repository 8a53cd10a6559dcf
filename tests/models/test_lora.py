"""LoRA: layers that start without effect, exports of the best rank, and attaching to the right base model only."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import ADAPTER_KINDS, TINY_FIT, attached, outputs

from realfill import FitConfig
from realfill.errors import AdapterError
from realfill.models.diffusion.lora import as_lora, attach, choose_rank, cut_to_rank, trainable_lora, trainable_weights
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter


def test_only_adapters_with_text_encoder_layers_have_its_tensors(fitted):
    assert all(name.startswith("unet.") for name in fitted["all"].tensors)
    assert {name.split(".")[0] for name in fitted["lora"].tensors} == {"unet", "text_encoder"}


def test_the_scale_is_alpha_over_rank(adapter, tiny_sd):
    bare, with_it = StableDiffusionInpainter.load(tiny_sd), attached(adapter)
    assert (adapter.config.lora_alpha, adapter.config.lora_rank) == (4, 2)
    for part in ("unet", "text_encoder"):
        name = next(n for n in adapter.tensors if n.startswith(part) and n.endswith("lora_A.weight"))
        down, up = (adapter.tensors[n].float() for n in (name, name.replace("lora_A", "lora_B")))
        layer = name.removeprefix(f"{part}.").removesuffix(".lora_A.weight")
        weights = [getattr(i, part).get_submodule(layer).weight for i in (with_it, bare)]
        assert up.abs().max() > 0.01
        torch.testing.assert_close(weights[0] - weights[1], 2 * up @ down, rtol=1e-4, atol=1e-5)


def test_attaching_leaves_no_lora_layers(adapter, tiny_sd):
    names = {n for n, _ in StableDiffusionInpainter.load(tiny_sd).unet.named_parameters()}
    assert {n for n, _ in attached(adapter).unet.named_parameters()} == names


def test_another_base_is_refused_and_does_not_change(adapter, tiny_v):
    other = StableDiffusionInpainter.load(tiny_v)
    before = {k: v.clone() for k, v in other.unet.state_dict().items()}
    with pytest.raises(AdapterError, match=r"fitted on .* and this base model is .*fit again"):
        attach(other, adapter)
    assert all(torch.equal(v, before[k]) for k, v in other.unet.state_dict().items())


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_before_the_first_step_outputs_do_not_change(tiny_sd, kind):
    config = FitConfig(base=tiny_sd, **TINY_FIT, **ADAPTER_KINDS[kind]).resolve({})
    inpainter = StableDiffusionInpainter.load(tiny_sd)
    expected = outputs(inpainter.pipeline)
    make = trainable_weights if config.trainable == "all" else trainable_lora
    trainable = make(inpainter, config)
    for a, b in zip(outputs(inpainter.pipeline), expected, strict=True):
        assert torch.equal(a, b)
    assert all(p.dtype == torch.float32 and p.requires_grad for _, p in trainable.parameters())
    trainables = sum(p.requires_grad for part in (inpainter.unet, inpainter.text_encoder) for p in part.parameters())
    assert trainables == len(list(trainable.parameters()))


def test_initial_values_depend_on_the_seed_alone(tiny_sd):
    def start(seed, global_seed):
        config = FitConfig(base=tiny_sd, seed=seed, **TINY_FIT).resolve({})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            state = torch.get_rng_state()
            tensors = trainable_lora(StableDiffusionInpainter.load(tiny_sd), config).export()
            assert torch.equal(torch.get_rng_state(), state)
        return torch.cat([t.flatten() for t in tensors.values()])

    assert torch.equal(start(0, 1), start(0, 2))
    assert not torch.equal(start(0, 1), start(1, 1))


def test_the_lora_of_half_precision_weights_is_single_precision(tiny_sd):
    inpainter = StableDiffusionInpainter.load(tiny_sd).to(torch.device("cpu"), torch.bfloat16)
    trainable = trainable_lora(inpainter, FitConfig(base=tiny_sd, **TINY_FIT).resolve({}))
    assert {p.dtype for _, p in trainable.parameters()} == {torch.float32}
    assert inpainter.unet.conv_in.weight.dtype == torch.bfloat16


def test_a_text_encoder_without_learning_rate_has_no_lora(tiny_sd):
    config = FitConfig(base=tiny_sd, text_encoder_learning_rate=0.0, **TINY_FIT).resolve({})
    assert set(trainable_lora(StableDiffusionInpainter.load(tiny_sd), config).groups) == {"unet"}


def test_the_change_of_plain_weights_is_exact_if_the_rank_allows(tiny_sd, fitted):
    options = {**TINY_FIT, "lora_rank": 300}
    config = FitConfig(base=tiny_sd, trainable="all", lora_targets=("*",), **options).resolve({})
    trained = StableDiffusionInpainter.load(tiny_sd)
    trainable = trainable_weights(trained, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weight in trainable.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    adapter = dataclasses.replace(fitted["all"], tensors=trainable.export(), config=config)
    restored, expected = (i.unet.state_dict() for i in (attached(adapter), trained))
    for name, value in expected.items():
        torch.testing.assert_close(restored[name], value, rtol=0, atol=1e-3, msg=name)


def product(down, up):
    return (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 4, 3, 3), (8, 7, 1, 1)])
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_a_cut_lora_is_the_best_of_its_rank(shape, rank):
    change = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    down, up = cut_to_rank(change, rank)
    assert down.shape == (rank, *shape[1:])
    assert up.shape == (shape[0], rank, *(1,) * (len(shape) - 2))
    left, values, right = np.linalg.svd(change.flatten(1).double().numpy(), full_matrices=False)
    values[rank:] = 0
    expected = torch.from_numpy((left * values) @ right).view(shape).float()
    torch.testing.assert_close(product(down, up), expected, rtol=0, atol=1e-4)
    if rank >= min(shape[0], change[0].numel()):
        torch.testing.assert_close(expected, change, rtol=0, atol=1e-5)


def test_a_surplus_of_rank_is_zero():
    down, up = cut_to_rank(torch.randn((3, 5), generator=torch.Generator().manual_seed(0)), 8)
    assert down[:3].any(dim=1).all() and up[:, :3].any(dim=0).all()
    assert not down[3:].any() and not up[:, 3:].any()


def test_no_change_gives_a_lora_of_zeros():
    down, up = cut_to_rank(torch.zeros(4, 5), 2)
    assert not down.any() and not up.any()


def test_the_lora_of_a_convolution_is_two_convolutions():
    generator = torch.Generator().manual_seed(0)
    change, images = torch.randn((5, 4, 3, 3), generator=generator), torch.randn((1, 4, 8, 8), generator=generator)
    down, up = cut_to_rank(change, 5)
    expected = F.conv2d(images, change, stride=2, padding=1)
    torch.testing.assert_close(F.conv2d(F.conv2d(images, down, stride=2, padding=1), up), expected, rtol=0, atol=1e-4)


def test_the_smallest_sufficient_rank_is_chosen_over_all_layers():
    big, small = torch.diag(torch.tensor([3.0, 2.0, 0.0])), torch.diag(torch.tensor([1.0, 0.0, 0.0]))
    assert choose_rank({"a": big, "b": small}, 0.7) == (1, pytest.approx(10 / 14))
    assert choose_rank({"a": big, "b": small}, 0.72) == (2, pytest.approx(1.0))
    assert choose_rank({"a": torch.zeros(3, 3)}, 0.99) == (1, 1.0)


def test_changes_survive_being_stored_at_a_sufficient_rank():
    change = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)) @ torch.randn(2, 9)
    tensors = as_lora({"unet.layer": change}, 2)
    product = tensors["unet.layer.lora_B.weight"].float() @ tensors["unet.layer.lora_A.weight"].float()
    torch.testing.assert_close(product, change, atol=1e-2, rtol=1e-2)
