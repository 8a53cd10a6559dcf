"""Small jobs of every command of the command line, which take seconds, with their inputs; and their results compared.

``kill_study.py`` and ``fault_study.py`` run them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

from realfill import Scene
from realfill.io.writing import write_png

_SIDE = 96
_VOLATILE = re.compile(r"created|time_s|\w+_s|peak_memory_mb|pid|since|signature|line|losses")
_UNFINISHED = re.compile(r"\.partial$|^\.realfill\.lock|^checkpoint$|^seeds-")
_FIT = (
    *("--num-steps", "6", "--batch-size", "2", "--lora-rank", "2", "--lora-alpha", "4"),
    *("--checkpoint-every", "2", "--mixed-precision", "no"),
)
_SAMPLE = (
    *("--num-samples", "3", "--num-inference-steps", "3", "--sample-batch-size", "1"),
    *("--matcher", "sift"),
)
_NOT_ALIGNED = ("--geometry", "False")  # computing what the references show takes longer than the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command line and its output.

    Attributes:
        name: name of the job.
        words: the command line; ``OUT`` stands for the output.
        output: name of the output within the job's folder.
        keeps: names that the output holds while the job is under way and when it is finished.
    """

    name: str
    words: tuple[str, ...]
    output: str = "out"
    keeps: tuple[str, ...] = ()

    def command(self, folder: Path) -> list[str]:
        """Return the command line for an output below a folder."""
        return [str(folder / self.output) if word == "OUT" else word for word in self.words]


def pretraining_words(inputs: Path, output: str, num_steps: int) -> list[str]:
    """Return the command line that makes a base model of 32 pixels."""
    options = (
        f"--num-steps {num_steps} --batch-size 2 --resolution 32 --widths 32 32 64 --num-holdout 1 --preview-every 3"
    )
    options += " --num-patches 2000 --num-decoder-crops 20 --num-warmup-steps 1 --mixed-precision no --seed 0"
    return ["pretrain", str(inputs / "photos"), "-o", output, *options.split()]


def make_jobs(inputs: Path) -> list[Job]:
    """Return a job for each command; ``write_inputs`` and ``pretraining_words`` make what they read."""
    base, scene = ["--base", str(inputs / "base"), "--device", "cpu"], str(inputs / "scenes" / "one")
    box = f"{_SIDE // 3},{_SIDE // 3},{2 * _SIDE // 3},{2 * _SIDE // 3}"
    photo = str(inputs / "photos" / "photo0.png")
    training = "--num-steps 9 --batch-size 2 --width 2 --discriminator-width 2 --resolution 64 --num-holdout 1"
    training += " --preview-every 3 --checkpoint-every 2 --mixed-precision no --device cpu"
    adaptation = "--num-epochs 2 --masks-per-photo 3 --batch-size 2 --lora-rank 2 --checkpoint-every 2"
    adaptation += " --mixed-precision no --num-compared 1"
    options = (*base, *_FIT, *_SAMPLE)
    return [
        Job(name="run", words=("run", scene, "-o", "OUT", *options, *_NOT_ALIGNED)),
        Job(name="fit", words=("fit", scene, "-o", "OUT", *base, *_FIT, *_NOT_ALIGNED)),
        Job(name="adapt", words=("adapt", str(inputs / "photos"), "-o", "OUT", *base, *adaptation.split())),
        Job(name="complete", words=("complete", scene, "-o", "OUT", *base, *_SAMPLE, *_NOT_ALIGNED)),
        Job(name="complete, aligned", words=("complete", scene, "-o", "OUT", *base, *_SAMPLE)),
        Job(
            name="bench",
            words=("bench", str(inputs / "scenes"), "-o", "OUT", *options, "--methods", "realfill_plain", "base_plain",
                   "telea", "--metrics", "psnr", "ssim"),
        ),
        Job(
            name="batch",
            words=("batch", str(inputs / "bare"), photo, "-o", "OUT", *options, "--fill-box", box, "--engine", "telea"),
        ),
        Job(
            name="erase",
            words=("erase", photo, "-o", "OUT", "--fill-box", box, "--engine", "telea", "--device", "cpu"),
            output="erased.png",
        ),
        Job(
            name="train-completion", keeps=("checkpoint.safetensors",),
            words=("train-completion", str(inputs / "photos"), "-o", "OUT", *training.split()),
        ),
        Job(name="pretrain", keeps=("checkpoint.safetensors",), words=tuple(pretraining_words(inputs, "OUT", 6))),
    ]  # fmt: skip


def write_inputs(inputs: Path) -> None:
    """Write the photos and two scenes with ground truth."""
    photos = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    (inputs / "photos").mkdir(parents=True)
    for number, photo in enumerate(photos):
        write_png(inputs / "photos" / f"photo{number}.png", cv2.resize(photo[:300, :300], (_SIDE, _SIDE)))
    for name, photo, reference in (("one", photos[0], photos[2]), ("two", photos[1], photos[3])):
        truth, other = (cv2.resize(image[50:350, 50:350], (_SIDE, _SIDE)) for image in (photo, reference))
        mask = cv2.circle(np.zeros((_SIDE, _SIDE), np.uint8), (_SIDE // 2, _SIDE // 2), _SIDE // 5, 1, -1) > 0
        Scene([other], truth, mask).save(inputs / "scenes" / name)
        Scene([], truth, mask).save(inputs / "bare" / name)
        write_png(inputs / "scenes" / name / "target" / "gt.png", truth)


def list_files(output: Path) -> list[Path]:
    """List the files of an output, which is a file or a folder."""
    return [output] if output.is_file() else sorted(path for path in output.rglob("*") if path.is_file())


def find_faults(output: Path) -> list[str]:
    """Read every file that has its final name, and describe those that are not whole."""
    faults = []
    for path in list_files(output):
        if any(_UNFINISHED.search(part) for part in path.parts):
            continue
        try:
            read_content(path)
        except Exception as error:  # noqa: BLE001 - whatever a library says about it
            faults.append(f"{path.name} is not whole: {type(error).__name__}: {error}")
    return faults


def find_leftovers(job: Job, folder: Path) -> list[str]:
    """List what only an unfinished job may leave, anywhere below the job's folder."""
    found = (path for path in folder.rglob("*") if _UNFINISHED.search(path.name) and path.name not in job.keeps)
    return [f"{path.relative_to(folder)} is left" for path in sorted(found)]


def find_differences(one: Path, other: Path) -> list[str]:
    """Compare two outputs: the same files, pixels, tensors and values; times, dates and places may differ."""
    names = [{str(path.relative_to(output.parent)) for path in list_files(output)} for output in (one, other)]
    differences = [f"{name} is missing" for name in sorted(names[0] - names[1])]
    differences += [f"{name} is new" for name in sorted(names[1] - names[0])]
    for name in sorted(names[0] & names[1]):
        if not _equal(read_content(one.parent / name), _read_or_none(other.parent / name)):
            differences.append(f"{name} differs")
    return differences


def _read_or_none(path: Path) -> Any:
    try:
        return read_content(path)
    except Exception:  # noqa: BLE001 - whatever a library says about a file that is not whole
        return None


def read_content(path: Path) -> Any:
    """Read what a file holds, without what may differ between two runs: times, dates and the output's own place.

    Raises:
        Exception: the file is not whole.
    """
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
            return np.asarray(image)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    if path.suffix == ".json":
        return _without_volatile(json.loads(path.read_text(encoding="utf-8")))
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    return path.suffix  # a report, with times in it


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_volatile(v) for k, v in value.items() if not _VOLATILE.fullmatch(k)}
    return [_without_volatile(item) for item in value] if isinstance(value, list) else value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(_equal(one[name], other[name]) for name in one)
        )
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and _equal_arrays(one, other)
    return one == other


def _equal_arrays(one: NDArray, other: NDArray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
