"""Checkpoints: written whole or not at all, and bound to one fit."""

import errno
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from realfill.errors import AdapterError, OutputError
from realfill.training import checkpoint
from realfill.training.checkpoint import load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


def test_a_checkpoint_is_read_back_by_the_same_fit_only(tmp_path):
    path = tmp_path / "new folder" / "checkpoint.safetensors"
    save_checkpoint(path, {"step": 3, "parameters": {"a": torch.arange(3.0)}}, "this fit")
    state = load_checkpoint(path, "this fit", CPU)
    assert state["step"] == 3 and state["parameters"]["a"].tolist() == [0, 1, 2]
    with pytest.raises(AdapterError, match="another config, scene or base model; choose another folder"):
        load_checkpoint(path, "another fit", CPU)


def test_a_full_disk_is_named_and_leaves_the_earlier_checkpoint_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"step": 1}, "fit")

    def fill_disk(tensors, partial, header):
        partial.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", fill_disk)
    with pytest.raises(OutputError, match=r"no space left for '.*checkpoint\.safetensors': it needs more than 4 bytes"):
        save_checkpoint(path, {"step": 2}, "fit")
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path, "fit", CPU)["step"] == 1


def test_a_checkpoint_for_which_there_is_no_room_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 2 * 10**6))
    monkeypatch.setattr(checkpoint, "save_file", lambda *_: pytest.fail("begun"))
    state = {"step": 1, "optimizer": {"state": {0: {"exp_avg": torch.zeros(10**6)}}}}
    with pytest.raises(OutputError, match="it needs 4 MB, and the disk has 2 MB free"):
        save_checkpoint(tmp_path / "checkpoint.safetensors", state, "fit")


def test_every_kind_of_value_is_read_back_as_it_was(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    state = {
        "losses": [0.5, float("nan")], "betas": (0.9, 0.999), "none": None, "flag": True, "empty": {},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": weight.T.clone()}}, "groups": [{"of": [0]}]},
        "average": {"a": weight},
    }  # fmt: skip
    save_checkpoint(tmp_path / "checkpoint.safetensors", state, "fit")
    loaded = load_checkpoint(tmp_path / "checkpoint.safetensors", "fit", CPU)
    assert loaded.pop("none") is state.pop("none")
    torch.testing.assert_close(loaded, state, rtol=0, atol=0, equal_nan=True)
    assert isinstance(loaded["betas"], tuple) and list(loaded["optimizer"]["state"]) == [0]


def test_reading_a_checkpoint_runs_no_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"identity": "fit", "state": Attack()}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(AdapterError, match="damaged"):
        load_checkpoint(tmp_path / "checkpoint.safetensors", "fit", CPU)
    assert not (tmp_path / "owned").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_checkpoint_has_the_permissions_that_the_user_has_chosen(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_checkpoint(tmp_path / "checkpoint.safetensors", {"step": 1}, "fit")
    finally:
        os.umask(before)
    assert (tmp_path / "checkpoint.safetensors").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("content", [b"not a checkpoint", b"", b"PK\x03\x04", b"\xff" * 8])
def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(AdapterError, match=r"checkpoint.safetensors' is damaged; start again with overwrite=True"):
        load_checkpoint(path, "fit", CPU)


def test_a_file_without_an_identity_is_damaged(tmp_path):
    save_file({"0": torch.zeros(1)}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(AdapterError, match="damaged"):
        load_checkpoint(tmp_path / "checkpoint.safetensors", "fit", CPU)


@pytest.mark.parametrize("place", [0.05, 0.5, 0.99])
def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path, place):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"step": 3, "parameters": {"a": torch.arange(300.0)}}, "fit")
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(AdapterError, match=r"is damaged|belongs to a fit with another"):
        load_checkpoint(path, "fit", CPU)


def test_the_state_of_another_trainer_is_one_error(tmp_path):
    with pytest.raises(AdapterError, match="is damaged"), checkpoint.damaged_state(tmp_path):
        raise KeyError("parameters")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_checkpoint_is_damaged_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.safetensors")
    with pytest.raises(AdapterError, match="is damaged"):
        load_checkpoint(tmp_path / "checkpoint.safetensors", "this fit", CPU)
