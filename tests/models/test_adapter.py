"""Adapter: stock diffusers reads it, it survives saving, and damaged or confused folders are refused."""

import dataclasses
import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from helpers import ADAPTER_KINDS, attached, outputs
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from realfill import Adapter
from realfill.errors import AdapterError, OutputError
from realfill.models.diffusion.adapter import MANIFEST_NAME, WEIGHTS_NAME
from realfill.models.quiet import quiet

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def folder(adapter, tmp_path):
    """A folder with a saved adapter."""
    adapter.save(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_stock_diffusers_gives_the_same_as_attach(fitted, tmp_path, tiny_sd, kind):
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


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_the_file_holds_only_lora_matrices_with_rank_and_alpha(fitted, tmp_path, kind):
    fitted[kind].save(tmp_path)
    with safe_open(tmp_path / WEIGHTS_NAME, "pt") as file:
        assert all(k.endswith((".lora_A.weight", ".lora_B.weight")) for k in file.keys())  # noqa: SIM118
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert metadata["unet.r"] == 2
    assert metadata["unet.lora_alpha"] == (2 if kind == "all" else 4)
    assert ("text_encoder.r" in metadata) == (kind != "all")


def test_an_adapter_survives_saving_and_loading(adapter, folder):
    loaded = Adapter.load(folder)
    assert loaded.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(loaded.tensors[k], v) and v.dtype == torch.float16 for k, v in adapter.tensors.items())
    assert (loaded.config, loaded.fingerprint, loaded.base) == (adapter.config, adapter.fingerprint, adapter.base)
    assert loaded.losses == pytest.approx(adapter.losses, abs=1e-6)
    assert loaded.manifest == adapter.manifest


def test_a_loaded_adapter_has_the_same_effect(adapter, folder):
    for a, b in zip(outputs(attached(adapter).pipeline), outputs(attached(Adapter.load(folder)).pipeline), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, MANIFEST_NAME])
def test_files_are_overwritten_only_on_request(adapter, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="overwrite=True"):
        adapter.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
    adapter.save(tmp_path, overwrite=True)
    assert Adapter.load(tmp_path).fingerprint == adapter.fingerprint


@pytest.mark.parametrize("name", [WEIGHTS_NAME, MANIFEST_NAME])
def test_the_error_for_a_missing_file_names_it(folder, name):
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=rf"{name} is missing.*Adapter\.save\(\)"):
        Adapter.load(folder)


def test_a_missing_folder_holds_no_adapter(tmp_path):
    with pytest.raises(AdapterError, match="holds no adapter"):
        Adapter.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"{}", b"[]", b"null", b'"text"'])
def test_the_error_for_a_damaged_manifest_names_the_folder(folder, content):
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
def test_weights_that_do_not_match_the_manifest_are_refused(folder, damage):
    tensors = load_file(folder / WEIGHTS_NAME)
    if damage == "half is missing":
        tensors = {k: v for k, v in tensors.items() if "lora_B" not in k}
    else:
        tensors = {k: torch.cat([v, v], dim=0 if "lora_A" in k else 1) for k, v in tensors.items()}
    save_file(tensors, folder / WEIGHTS_NAME)
    with pytest.raises(AdapterError):
        attached(Adapter.load(folder))


def test_a_base_model_is_not_an_adapter_and_the_error_says_where_base_models_are_given(tiny_sd):
    with pytest.raises(AdapterError, match=r"is a base model, not an adapter; .*--base .*FitConfig\(base="):
        Adapter.load(tiny_sd)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_usual_permissions(adapter, tmp_path, umask):
    previous = os.umask(umask)
    try:
        adapter.save(tmp_path)
    finally:
        os.umask(previous)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == dict.fromkeys((WEIGHTS_NAME, MANIFEST_NAME), 0o666 & ~umask)


def test_an_adapter_that_cannot_be_written_leaves_the_folder_unchanged(adapter, folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    real = type(folder).write_bytes

    def write_bytes(path, content):
        real(path, content[:10])
        if MANIFEST_NAME in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(content)

    monkeypatch.setattr(type(folder), "write_bytes", write_bytes)
    with pytest.raises(OutputError, match="no space left for"):
        adapter.save(folder, overwrite=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_kill_while_an_adapter_is_replaced_leaves_no_mixture(adapter, folder, monkeypatch):
    other = dataclasses.replace(adapter, tensors={name: 2 * tensor for name, tensor in adapter.tensors.items()})
    replace = Path.replace

    def killed(self, target):
        if self.name == MANIFEST_NAME:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        other.save(folder, overwrite=True)
    with pytest.raises(AdapterError, match=r"adapter\.json is missing"):
        Adapter.load(folder)


def test_a_file_of_an_adapter_is_named_with_its_folder(folder):
    with pytest.raises(AdapterError, match=rf"is a file; legal: the folder of an adapter, '{folder}'"):
        Adapter.load(folder / WEIGHTS_NAME)


HOLD = """
import sys
from realfill.io.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_an_adapter_is_not_mixed_with_that_of_another_process(adapter, folder):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"is in use by process {holder.pid} on .* since"):
            adapter.save(folder, overwrite=True)
        holder.communicate()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_the_same_adapter_gives_the_same_bytes(adapter, tmp_path):
    contents = set()
    for i in range(8):
        adapter.save(tmp_path / str(i))
        contents.add((tmp_path / str(i) / WEIGHTS_NAME).read_bytes())
    assert len(contents) == 1
