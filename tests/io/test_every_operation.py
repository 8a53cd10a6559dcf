"""A disk that is full at any file operation: the error says so, what was there stays whole, and nothing is left."""

import errno
import os

import numpy as np
import pytest
import torch
from forked import FileOperations

from realfill.errors import OutputError
from realfill.filling.finished import FinishedSeeds
from realfill.io.files import write_text
from realfill.io.lock import locked
from realfill.training.checkpoint import load_checkpoint, save_checkpoint


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_a_text(folder, value):
    with locked(folder):
        write_text(folder / "a.json", str(value))


def read_a_text(folder):
    return int((folder / "a.json").read_text())


def write_a_checkpoint(folder, value):
    save_checkpoint(folder / "new" / "a.safetensors", {"step": value, "weights": torch.full((9,), value)}, "fit")


def read_a_checkpoint(folder):
    state = load_checkpoint(folder / "new" / "a.safetensors", "fit", torch.device("cpu"))
    assert (state["weights"] == state["step"]).all()
    return state["step"]


def write_seeds(folder, value):
    FinishedSeeds(folder=folder, identity="job").add({0: np.full((4, 3), value, np.uint8)}, {})


def read_seeds(folder):
    return int(FinishedSeeds(folder=folder, identity="job").load()[0][0].max())


WRITERS = {
    "text": (write_a_text, read_a_text),
    "checkpoint": (write_a_checkpoint, read_a_checkpoint),
    "seeds": (write_seeds, read_seeds),
}


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(name, lasting, tmp_path):
    write, read = WRITERS[name]
    operations = FileOperations(folder=tmp_path, disturb=full, lasting=lasting, removals=False)
    operations.install()
    errors, at, is_whole = [], 0, False
    while not is_whole:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        write(folder, 1)
        operations.count, operations.at = 0, at
        try:
            write(folder, 2)
            is_whole = operations.count < at  # the fault was beyond the last operation
        except OutputError as error:
            errors.append(str(error).lower())
        operations.at = 0
        assert read(folder) in (1, 2)
        assert not list(folder.rglob("*.partial"))
        write(folder, 3)
        assert read(folder) == 3
    assert errors
    assert not [error for error in errors if "no space left" not in error]
