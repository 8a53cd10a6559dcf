"""Adapter: the same in stock diffusers, on disk and attached; refused where it doesn't fit; the best of its rank."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_FIT, make_photo
from diffusers import StableDiffusionInpaintPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from realfill import Adapter, FitConfig, Scene, fit
from realfill.errors import AdapterError, OutputError
from realfill.models._quiet import quiet
from realfill.models.adapter import (
    MANIFEST_NAME,
    WEIGHTS_NAME,
    LoraLinear,
    PeftLinear,
    attach,
    cut_to_rank,
    trainable_lora,
    trainable_weights,
)
from realfill.models.inpainter import Inpainter

KINDS = {
    "lora": {"learning_rate": 0.1, "text_encoder_learning_rate": 0.1},
    "lora everywhere": {"learning_rate": 0.1, "text_encoder_learning_rate": 0.1, "lora_targets": ("*",)},
    "all": {"trainable": "all", "learning_rate": 0.01, "text_encoder_learning_rate": 0.0, "lora_targets": ("*",)},
}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def fitted(tiny_sd):
    """Fit each kind of adapter, with rates high enough for an effect."""
    mask = np.zeros((64, 80), bool)
    mask[20:40, 30:60] = True
    scene = Scene([make_photo(70, 90, 1)], make_photo(64, 80, 0), mask)
    return {
        kind: fit(scene, FitConfig(base=tiny_sd, **TINY_FIT, **changes), progress=False)
        for kind, changes in KINDS.items()
    }


@pytest.fixture
def adapter(fitted):
    return fitted["lora"]


@pytest.fixture
def folder(adapter, tmp_path):
    """A folder that an adapter was saved in."""
    adapter.save(tmp_path / "adapter")
    return tmp_path / "adapter"


@torch.no_grad()
def outputs(pipeline):
    """Run the U-Net and the text encoder on the same inputs."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, pipeline.unet.config.in_channels, 8, 8), generator=generator)
    words = torch.randn((2, 16, 32), generator=generator)
    tokens = pipeline.tokenizer(["sks"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    return (
        pipeline.unet(latents, torch.tensor([10, 800]), encoder_hidden_states=words).sample,
        pipeline.text_encoder(tokens)[0],
    )


def attached(adapter):
    inpainter = Inpainter.load(adapter.base)
    attach(inpainter, adapter)
    return inpainter


@pytest.mark.parametrize("kind", KINDS)
def test_stock_diffusers_gives_what_an_attached_adapter_gives(fitted, tmp_path, tiny_sd, kind):
    fitted[kind].save(tmp_path)
    with quiet():
        stock = StableDiffusionInpaintPipeline.from_pretrained(tiny_sd)
    bare_unet, bare_text = outputs(stock)
    stock.load_lora_weights(tmp_path)
    unet, text = outputs(stock)
    our_unet, our_text = outputs(attached(fitted[kind]).pipeline)
    torch.testing.assert_close(our_unet, unet, **TOLERANCE)
    torch.testing.assert_close(our_text, text, **TOLERANCE)
    assert (our_unet - bare_unet).abs().max() > 0.05
    assert ((our_text - bare_text).abs().max() > 0.05) == (kind != "all")


def test_an_adapter_without_text_encoder_layers_leaves_the_text_encoder_alone(fitted):
    assert all(name.startswith("unet.") for name in fitted["all"].tensors)
    assert {name.split(".")[0] for name in fitted["lora"].tensors} == {"unet", "text_encoder"}


def test_the_scale_is_alpha_over_rank(adapter, tiny_sd):
    bare, with_it = Inpainter.load(tiny_sd), attached(adapter)
    assert (adapter.config.lora_alpha, adapter.config.lora_rank) == (4, 2)
    for part in ("unet", "text_encoder"):
        name = next(n for n in adapter.tensors if n.startswith(part) and n.endswith("lora_A.weight"))
        down, up = (adapter.tensors[n].float() for n in (name, name.replace("lora_A", "lora_B")))
        layer = name.removeprefix(f"{part}.").removesuffix(".lora_A.weight")
        weights = [getattr(i, part).get_submodule(layer).weight for i in (with_it, bare)]
        assert up.abs().max() > 0.01
        torch.testing.assert_close(weights[0] - weights[1], 2 * up @ down, rtol=1e-4, atol=1e-5)


def test_attaching_leaves_no_lora_layers_behind(adapter, tiny_sd):
    names = {n for n, _ in Inpainter.load(tiny_sd).unet.named_parameters()}
    assert {n for n, _ in attached(adapter).unet.named_parameters()} == names


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_holds_lora_keys_only_and_tells_rank_and_alpha(fitted, tmp_path, kind):
    fitted[kind].save(tmp_path)
    with safe_open(tmp_path / WEIGHTS_NAME, "pt") as file:
        assert all(k.endswith((".lora_A.weight", ".lora_B.weight")) for k in file.keys())  # noqa: SIM118
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert metadata["unet.r"] == 2
    assert metadata["unet.lora_alpha"] == (2 if kind == "all" else 4)
    assert ("text_encoder.r" in metadata) == (kind != "all")


def test_a_saved_adapter_is_loaded_as_it_was(adapter, folder):
    loaded = Adapter.load(folder)
    assert loaded.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(loaded.tensors[k], v) and v.dtype == torch.float16 for k, v in adapter.tensors.items())
    assert (loaded.config, loaded.fingerprint, loaded.base) == (adapter.config, adapter.fingerprint, adapter.base)
    assert loaded.losses == pytest.approx(adapter.losses, abs=1e-6)
    assert loaded.manifest == adapter.manifest


def test_a_loaded_adapter_gives_what_it_gave(adapter, folder):
    for a, b in zip(outputs(attached(adapter).pipeline), outputs(attached(Adapter.load(folder)).pipeline), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("there", [WEIGHTS_NAME, MANIFEST_NAME])
def test_nothing_is_overwritten_unless_asked(adapter, tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(OutputError, match="overwrite=True"):
        adapter.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"
    adapter.save(tmp_path, overwrite=True)
    assert Adapter.load(tmp_path).fingerprint == adapter.fingerprint


def test_another_base_is_refused_and_stays_as_it_is(adapter, tiny_v):
    other = Inpainter.load(tiny_v)
    before = {k: v.clone() for k, v in other.unet.state_dict().items()}
    with pytest.raises(AdapterError, match=r"fitted on .* and this base is"):
        attach(other, adapter)
    assert all(torch.equal(v, before[k]) for k, v in other.unet.state_dict().items())


@pytest.mark.parametrize("name", [WEIGHTS_NAME, MANIFEST_NAME])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=rf"{name} is missing.*fit\(\)"):
        Adapter.load(folder)


def test_a_folder_that_is_not_there_holds_no_adapter(tmp_path):
    with pytest.raises(AdapterError, match="holds no adapter"):
        Adapter.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"{}", b"[]", b"null", b'"text"'])
def test_a_damaged_manifest_is_refused_with_the_folder_named(folder, content):
    (folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(AdapterError, match=f"{folder.name}.*damaged"):
        Adapter.load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("config", None), ("config", {"num_steps": -1}), ("config", {"nonsense": 1}), ("losses", None)],
)
def test_a_manifest_with_a_wrong_field_is_refused(folder, field, value):
    values = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps({**values, field: value}))
    with pytest.raises(AdapterError, match="damaged"):
        Adapter.load(folder)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_truncated_weights_are_refused(folder, share):
    content = (folder / WEIGHTS_NAME).read_bytes()
    (folder / WEIGHTS_NAME).write_bytes(content[: int(share * len(content))])
    with pytest.raises(AdapterError, match="damaged"):
        Adapter.load(folder)


@pytest.mark.parametrize("damage", ["half is missing", "another rank"])
def test_weights_that_are_not_the_manifests_are_refused(folder, damage):
    tensors = load_file(folder / WEIGHTS_NAME)
    if damage == "half is missing":
        tensors = {k: v for k, v in tensors.items() if "lora_B" not in k}
    else:
        tensors = {k: torch.cat([v, v], dim=0 if "lora_A" in k else 1) for k, v in tensors.items()}
    save_file(tensors, folder / WEIGHTS_NAME)
    with pytest.raises(AdapterError):
        attached(Adapter.load(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_has_not_begun_changes_nothing(tiny_sd, kind):
    config = FitConfig(base=tiny_sd, **TINY_FIT, **KINDS[kind]).resolve({})
    inpainter = Inpainter.load(tiny_sd)
    wanted = outputs(inpainter.pipeline)
    make = trainable_weights if config.trainable == "all" else trainable_lora
    trainable = make(inpainter, config)
    for a, b in zip(outputs(inpainter.pipeline), wanted, strict=True):
        assert torch.equal(a, b)
    assert all(p.dtype == torch.float32 and p.requires_grad for _, p in trainable.parameters())
    trainables = sum(p.requires_grad for part in (inpainter.unet, inpainter.text_encoder) for p in part.parameters())
    assert trainables == len(list(trainable.parameters()))


def test_the_seed_alone_decides_how_a_lora_starts(tiny_sd):
    def start(seed, global_seed):
        config = FitConfig(base=tiny_sd, seed=seed, **TINY_FIT).resolve({})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            state = torch.get_rng_state()
            tensors = trainable_lora(Inpainter.load(tiny_sd), config).export()
            assert torch.equal(torch.get_rng_state(), state)
        return torch.cat([t.flatten() for t in tensors.values()])

    assert torch.equal(start(0, 1), start(0, 2))
    assert not torch.equal(start(0, 1), start(1, 1))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("targets", [("to_q", "to_k", "to_v", "to_out.0"), ("*",)])
def test_lora_layers_compute_what_pefts_own_do(tiny_sd, targets, half, weights):
    config = FitConfig(base=tiny_sd, lora_targets=targets, **TINY_FIT).resolve({})
    found = []
    for linear in (LoraLinear, PeftLinear):
        inpainter = Inpainter.load(tiny_sd).to(torch.device("cpu"), weights)
        trainable = trainable_lora(inpainter, config, linear=linear)
        assert {type(layer) for layer in trainable.lora_layers if isinstance(layer, PeftLinear)} == {linear}
        generator = torch.Generator().manual_seed(0)
        for _, parameter in trainable.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        for i, layer in enumerate(trainable.lora_layers):
            layer.scaling["default"] = 0.0 if i % 5 == 0 else 2.0  # one in five is dropped
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            outputs = [inpainter.embed(["a sks", ""])]
            noisy, condition = (torch.randn(2, c, 8, 8, generator=generator) for c in (4, 5))
            outputs.append(inpainter.predict(noisy, torch.tensor([7, 900]), condition, outputs[0]))
        outputs[1].square().mean().backward()
        found.append([*outputs, *(p.grad for _, p in trainable.parameters())])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
    for part in (slice(0, 1), slice(1, 2), slice(2, None)):
        a, b = (torch.cat([x.detach().float().flatten() for x in tensors[part]]) for tensors in found)
        exact = weights == torch.float32 and not half
        assert b.norm() > 0 and (a - b).norm() <= (1e-5 if exact else 0.02) * b.norm()


def test_a_lora_that_is_switched_off_or_merged_is_not_added_twice(tiny_sd):
    inpainter = Inpainter.load(tiny_sd)
    trainable = trainable_lora(inpainter, FitConfig(base=tiny_sd, **TINY_FIT).resolve({}))
    layer = next(layer for layer in trainable.lora_layers if isinstance(layer, LoraLinear))
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(0.1)
        adapted, bare = layer(x), layer.base_layer(x)
        assert not torch.allclose(adapted, bare, atol=1e-3)
        layer.enable_adapters(enabled=False)
        assert torch.equal(layer(x), bare)
        layer.enable_adapters(enabled=True)
        layer.merge()
        assert torch.allclose(layer(x), adapted, atol=1e-5)


def test_half_precision_weights_get_a_lora_in_single(tiny_sd):
    inpainter = Inpainter.load(tiny_sd).to(torch.device("cpu"), torch.bfloat16)
    trainable = trainable_lora(inpainter, FitConfig(base=tiny_sd, **TINY_FIT).resolve({}))
    assert {p.dtype for _, p in trainable.parameters()} == {torch.float32}
    assert inpainter.unet.conv_in.weight.dtype == torch.bfloat16


def test_a_text_encoder_without_learning_rate_gets_no_lora(tiny_sd):
    config = FitConfig(base=tiny_sd, text_encoder_learning_rate=0.0, **TINY_FIT).resolve({})
    assert set(trainable_lora(Inpainter.load(tiny_sd), config).groups) == {"unet"}


def test_the_change_of_plain_weights_is_stored_whole_where_the_rank_allows(tiny_sd, fitted):
    options = {**TINY_FIT, "lora_rank": 300}
    config = FitConfig(base=tiny_sd, trainable="all", lora_targets=("*",), **options).resolve({})
    trained = Inpainter.load(tiny_sd)
    trainable = trainable_weights(trained, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weight in trainable.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    adapter = dataclasses.replace(fitted["all"], tensors=trainable.export(), config=config)
    restored, wanted = (i.unet.state_dict() for i in (attached(adapter), trained))
    for name, value in wanted.items():
        torch.testing.assert_close(restored[name], value, rtol=0, atol=1e-3, msg=name)


def product(down, up):
    return (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 4, 3, 3), (8, 7, 1, 1)])
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_a_lora_is_the_best_of_its_rank(shape, rank):
    change = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    down, up = cut_to_rank(change, rank)
    assert down.shape == (rank, *shape[1:])
    assert up.shape == (shape[0], rank, *(1,) * (len(shape) - 2))
    left, values, right = np.linalg.svd(change.flatten(1).double().numpy(), full_matrices=False)
    values[rank:] = 0
    wanted = torch.from_numpy((left * values) @ right).view(shape).float()
    torch.testing.assert_close(product(down, up), wanted, rtol=0, atol=1e-4)
    if rank >= min(shape[0], change[0].numel()):
        torch.testing.assert_close(wanted, change, rtol=0, atol=1e-5)


def test_a_rank_above_the_matrixs_own_is_padded_with_zeros():
    down, up = cut_to_rank(torch.randn((3, 5), generator=torch.Generator().manual_seed(0)), 8)
    assert down[:3].any(dim=1).all() and up[:, :3].any(dim=0).all()
    assert not down[3:].any() and not up[:, 3:].any()


def test_no_change_is_a_lora_of_zeros():
    down, up = cut_to_rank(torch.zeros(4, 5), 2)
    assert not down.any() and not up.any()


def test_a_convolutions_lora_is_two_convolutions():
    generator = torch.Generator().manual_seed(0)
    change, images = torch.randn((5, 4, 3, 3), generator=generator), torch.randn((1, 4, 8, 8), generator=generator)
    down, up = cut_to_rank(change, 5)
    wanted = F.conv2d(images, change, stride=2, padding=1)
    torch.testing.assert_close(F.conv2d(F.conv2d(images, down, stride=2, padding=1), up), wanted, rtol=0, atol=1e-4)
