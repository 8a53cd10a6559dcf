"""The pixels of finished seeds in a checkpoint folder, from which a killed job resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from realfill.errors import OutputError
from realfill.io.files import whole_file

Shifts: TypeAlias = Mapping[int, Sequence[tuple[float, float]]]
"""Seed to the shifts (down, right), in pixels of the target, that its samples were registered by."""

_PATTERN = "seeds-*.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSeeds:
    """The finished seeds of a job: one file for each batch, named after the batch's first seed.

    A batch is kept or lost as a whole. A resumed job therefore samples the other seeds in the same batches as an
    uninterrupted one, and rounding does not differ.

    Attributes:
        folder: the checkpoint folder, which need not exist yet.
        identity: hash of everything that decides the pixels besides the seeds.
        overwrite: replace finished seeds of another job.
    """

    folder: Path
    identity: str
    overwrite: bool = False

    def load(self) -> tuple[dict[int, NDArray], dict[int, list[tuple[float, float]]]]:
        """Read the finished seeds of this job. A damaged file counts as missing.

        Returns:
            Seed to pixels (K, C), and seed to shifts.

        Raises:
            OutputError: the folder holds finished seeds of another job, and ``overwrite`` is not set.
        """
        pixels: dict[int, NDArray] = {}
        shifts: dict[int, list[tuple[float, float]]] = {}
        for path in sorted(self.folder.glob(_PATTERN)):
            try:
                with safe_open(path, framework="numpy") as file:
                    header = file.metadata()
                    is_own, moved = header["identity"] == self.identity, json.loads(header["shifts"])
                    found = {int(name): file.get_tensor(name) for name in file.keys()} if is_own else {}  # noqa: SIM118 - it is no mapping
                    pairs = {int(seed): [(float(y), float(x)) for y, x in values] for seed, values in moved.items()}
            except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
                continue
            if is_own:
                pixels |= found
                shifts |= pairs
            elif not self.overwrite:
                raise OutputError(
                    f"{str(self.folder)!r} holds finished seeds of another scene, adapter or settings; choose another "
                    "folder, or replace them with overwrite=True (--overwrite)"
                )
        return pixels, shifts

    def add(self, pixels: Mapping[int, NDArray], shifts: Shifts) -> None:
        """Keep the seeds of a finished batch.

        Args:
            pixels: seed to pixels (K, C).
            shifts: seed to shifts; other seeds are left out.

        Raises:
            OutputError: the file cannot be written, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        moved = {seed: list(values) for seed, values in shifts.items() if seed in pixels}
        header = {"identity": self.identity, "shifts": json.dumps(moved)}
        path = self.folder / _PATTERN.replace("*", str(min(pixels)))
        with whole_file(path, num_bytes=sum(values.nbytes for values in pixels.values())) as partial:
            save_file({str(seed): values for seed, values in pixels.items()}, partial, header)


def remove_finished_seeds(folder: Path) -> None:
    """Remove the finished seeds that a folder holds, once the job is done."""
    for path in folder.glob(_PATTERN):
        path.unlink(missing_ok=True)
