"""An adapter from a stranger is only numbers: it runs nothing, fetches nothing and reads nothing else."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from realfill import Adapter, SampleConfig, WindowConfig, complete, variants
from realfill.config import FitConfig
from realfill.errors import AdapterError, BaseModelError
from realfill.models.diffusion import families, hub
from realfill.models.diffusion.lora import attach
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
A, B = f"unet.{LAYER}.lora_A.weight", f"unet.{LAYER}.lora_B.weight"


def make_adapter(base="mini", tensors=None, fingerprint="f" * 32) -> Adapter:
    settings = FitConfig(base=base, lora_rank=2, num_steps=2, batch_size=1).resolve({})
    return Adapter(
        tensors=tensors or {A: torch.ones(2, 16), B: torch.ones(16, 2)}, config=settings,
        window=WindowConfig().resolve({}), fingerprint=fingerprint, losses=(0.5, 0.4), manifest={"realfill": "0.1.0"},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    make_adapter().save(tmp_path / "adapter")
    return tmp_path / "adapter"


def change(folder, **values):
    path = folder / "adapter.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rewrite(folder, tensors):
    """Write other weights, with a manifest that fits them."""
    change(folder, weights=None)
    save_file(tensors, folder / "pytorch_lora_weights.safetensors")


@pytest.mark.parametrize("base", ["someone/model", "sd2"])
@pytest.mark.parametrize("draw", [complete, lambda _, adapter: variants(adapter)])
def test_nothing_is_downloaded_because_an_adapter_names_it(scene, monkeypatch, base, draw):
    monkeypatch.setattr(hub, "_find_in_cache", lambda _: (_ for _ in ()).throw(FileNotFoundError))
    monkeypatch.setattr(hub, "_download", lambda *_, **__: pytest.fail("a download"))
    with pytest.raises(BaseModelError, match=rf"'{base}', which is not on this machine.*--sample-base {base}"):
        draw(scene, make_adapter(base))


def test_a_base_that_the_caller_names_may_be_downloaded(scene, monkeypatch):
    asked = []

    def load(base, *, local_files_only, **_):
        asked.append((base, local_files_only))
        raise BaseModelError("stop here")

    monkeypatch.setattr(families, "load_family", load)
    with pytest.raises(BaseModelError, match="stop here"):
        complete(scene, make_adapter("someone/model"), SampleConfig(base="someone/model"))
    assert asked == [("someone/model", False)]


def test_naming_the_adapters_own_base_does_not_relax_the_check_of_its_weights(scene, tiny_sd):
    with pytest.raises(AdapterError, match="was fitted on"):
        complete(scene, make_adapter(tiny_sd), SampleConfig(base=tiny_sd, num_samples=1), ranked=False)


@pytest.mark.parametrize("base", ["//server/share", "\\\\server\\share", "https://server/model", "a\nb"])
def test_a_base_on_another_machine_is_refused(folder, base):
    values = json.loads((folder / "adapter.json").read_text())
    change(folder, config={**values["config"], "base": base})
    with pytest.raises(AdapterError, match="legal: a name, a hub id, or a folder of this machine"):
        Adapter.load(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"config": []}, {"config": None}, {"window": {"context": "x"}}, {"fingerprint": 3}, {"losses": ["x"]},
        {"losses": [10**400]}, {"losses": 5}, {"manifest": 5}, {"weights": "0" * 64}, {"geometry": {"enabled": 3}},
    ],
)  # fmt: skip
def test_values_of_another_kind_are_one_error(folder, values):
    change(folder, **values)
    with pytest.raises(AdapterError, match="is damaged or from another version"):
        Adapter.load(folder)


@pytest.mark.parametrize(
    "tensors",
    [
        {A: torch.ones(2)}, {A: torch.ones(2, 16), B: torch.ones(16)}, {A: torch.ones(2, 16), B: torch.ones(16, 3)},
        {A: torch.full((2, 16), torch.nan), B: torch.ones(16, 2)}, {"x": torch.ones(2)}, {},
        {A: torch.ones(2, 16, dtype=torch.int32), B: torch.ones(16, 2, dtype=torch.int32)},
        {A.replace("unet", "vae"): torch.ones(2, 16), B.replace("unet", "vae"): torch.ones(16, 2)},
    ],
)  # fmt: skip
def test_other_tensors_are_one_error(folder, tensors):
    rewrite(folder, tensors)
    with pytest.raises(AdapterError, match="is damaged or from another version"):
        Adapter.load(folder)


def test_a_flipped_bit_of_the_weights_is_noticed(folder):
    path = folder / "pytorch_lora_weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    assert set(load_file(path)) == {A, B}
    with pytest.raises(AdapterError, match="the SHA-256 of pytorch_lora_weights"):
        Adapter.load(folder)


def test_weights_without_a_hash_in_the_manifest_are_read(folder):
    rewrite(folder, make_adapter().tensors)
    assert set(Adapter.load(folder).tensors) == {A, B}


@pytest.mark.parametrize("shape", [(2, 17), (2, 32, 1, 1)])
def test_an_adapter_with_a_forged_fingerprint_and_other_layers_is_one_error(tiny_sd, shape):
    inpainter = StableDiffusionInpainter.load(tiny_sd)
    tensors = {A: torch.ones(shape), B: torch.ones(16, 2)}
    with pytest.raises(AdapterError, match="other layers than its base model"):
        attach(inpainter, make_adapter(tiny_sd, tensors, inpainter.fingerprint))


def test_a_pickle_in_the_place_of_the_weights_is_not_run(folder, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / "pytorch_lora_weights.safetensors").unlink()
    torch.save({"a": Attack()}, folder / "pytorch_lora_weights.safetensors")
    change(folder, weights=None)
    with pytest.raises(AdapterError):
        Adapter.load(folder)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_in_the_layout_of_the_hubs_cache_is_read(folder, tmp_path):
    (tmp_path / "blobs").mkdir()
    for path in list(folder.iterdir()):
        shutil.move(path, tmp_path / "blobs" / path.name)
        path.symlink_to(tmp_path / "blobs" / path.name)
    assert Adapter.load(folder).base == "mini"
