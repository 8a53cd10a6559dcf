"""Fit and complete many scenes in one process, and watch its memory, file handles, threads and temporary files.

python examples/long_run.py --scenes 200 --output long_run.json
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil
import skimage.data
import tyro
from small_jobs import pretraining_words, table, write_inputs

from realfill import FitConfig, GeometryConfig, RankConfig, SampleConfig, Scene, complete, fit
from realfill.app.cli import main as run_command
from realfill.compute.progress import ProgressBar

_SIDE = 96
_ALIGNED_EVERY = 10  # scenes; what the references show takes seconds to compute


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state of the process after a scene.

    Attributes:
        scene: number of the scene.
        memory_mb: resident memory, in 10^6 bytes.
        handles: open files.
        threads: threads.
        objects: objects that Python's garbage collector tracks.
        temporary: files and folders in the folder for temporary files, and partial files in the output.
    """

    scene: int
    memory_mb: float
    handles: int
    threads: int
    objects: int
    temporary: int


def make_scene(number: int) -> Scene:
    """Cut a scene from a photo, at a place of its own."""
    rng, photo = np.random.default_rng(number), skimage.data.astronaut()
    top, left = (int(n) for n in rng.integers(0, 512 - 320, 2))
    views = [photo[top + d : top + d + 300, left : left + 300] for d in (0, 15)]
    target, reference = (cv2.resize(view, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for view in views)
    centre = tuple(int(n) for n in rng.integers(30, _SIDE - 30, 2))
    mask = cv2.circle(np.zeros((_SIDE, _SIDE), np.uint8), centre, 14, 1, -1) > 0
    return Scene([reference], target, mask)


def do_scene(number: int, base: str, output: Path) -> None:
    """Fit a scene for two steps, complete it and save the result."""
    scene = make_scene(number)
    geometry = GeometryConfig(enabled=number % _ALIGNED_EVERY == 0)
    recipe = FitConfig(base=base, num_steps=2, batch_size=2, lora_rank=2, lora_alpha=4)
    adapter = fit(scene, recipe, geometry=geometry, device="cpu", checkpoint_dir=output, progress=False)
    sampling = SampleConfig(num_samples=2, num_inference_steps=2)
    ranking = RankConfig(matcher="sift")
    completions = complete(scene, adapter, sampling, ranking=ranking, device="cpu", progress=False)
    completions.save(output)
    adapter.save(output / "adapter")


def observe(number: int, output: Path, temporary: Path) -> State:
    """Measure this process."""
    gc.collect()
    process = psutil.Process()
    partial = list(output.rglob("*.partial")) + list(output.rglob(".realfill*"))
    return State(
        scene=number, memory_mb=round(process.memory_info().rss / 1e6, 1), handles=process.num_fds(),
        threads=process.num_threads(), objects=len(gc.get_objects()),
        temporary=len(list(temporary.iterdir())) + len(partial),
    )  # fmt: skip


def describe(states: list[State], early: range, late: range) -> str:
    """Compare the medians of two spans of scenes, in Markdown."""
    rows = []
    for name in ("memory_mb", "handles", "threads", "objects", "temporary"):
        spans = [[getattr(state, name) for state in states if state.scene in span] for span in (early, late)]
        before, after = (float(np.median(span)) for span in spans)
        rows.append([name, f"{before:g}", f"{after:g}", f"{after - before:+g}", f"{max(spans[0])}, {max(spans[1])}"])
    names = [f"scenes {span.start} to {span.stop - 1}" for span in (early, late)]
    return table(["median", *names, "change", "largest"], rows)


def main(*, scenes: int = 200, span: int = 21, output: Path | None = None) -> list[State]:
    """Do many scenes, and compare the process early and late.

    Args:
        scenes: number of scenes.
        span: scenes in each of the two spans that are compared: from a tenth of all scenes on, and at the end.
        output: JSON file for the state after each scene.
    """
    start, states = time.monotonic(), list[State]()
    with tempfile.TemporaryDirectory(prefix="long-run-") as name:
        inputs, results, temporary = (Path(name) / part for part in ("inputs", "results", "temporary"))
        write_inputs(inputs)
        if run_command([*pretraining_words(inputs, str(inputs / "base"), 4), "--quiet"]):
            raise RuntimeError("the base model could not be made")
        temporary.mkdir()
        previous, tempfile.tempdir = tempfile.tempdir, str(temporary)
        with ProgressBar(total=scenes, desc="long run", unit="scene") as bar:
            for number in range(scenes):
                do_scene(number, str(inputs / "base"), results / str(number))
                states.append(observe(number, results, temporary))
                bar.update()
                if output is not None:
                    output.write_text(json.dumps([asdict(state) for state in states], indent=1) + "\n")
        tempfile.tempdir = previous
    print(describe(states, range(scenes // 10, scenes // 10 + span), range(scenes - span, scenes)))
    print(f"\n{len(states)} scenes in {time.monotonic() - start:.0f} s")
    return states


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
