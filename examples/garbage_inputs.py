"""Inputs for ``garbage_study.py``: a whole sample of every file that realfill reads, and its reader.

A subject is a sample folder, the file in it that is damaged, and a reader that drives realfill as a user would. Each
reader checks its own result, so that a result that is wrong in itself counts as a defect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from realfill.app.cli import main
from realfill.benchmark.cases import Case
from realfill.benchmark.methods.engines import EngineMethod
from realfill.benchmark.runner import Arm, Benchmark
from realfill.config import FitConfig, RankConfig, WindowConfig
from realfill.io.files import write_text
from realfill.io.metadata import exif_of_focal
from realfill.jobs.batch import run_batch
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.models.feedforward.completion import CompletionNetwork
from realfill.results.completion import Completion
from realfill.results.completions import Completions
from realfill.results.evidence import Evidence
from realfill.scene.mask_reading import read_mask
from realfill.scene.mask_sources import read_mask_for
from realfill.scene.scene import Scene
from realfill.training.checkpoint import load_checkpoint, save_checkpoint

HEIGHT, WIDTH = 48, 64
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A kind of input.

    Attributes:
        name: its name in the report.
        folder: the whole sample.
        target: path of the damaged file within the folder.
        read: reads a folder, checks the result and describes it in a word or two.
        is_json: whether the file is text whose values can be replaced.
    """

    name: str
    folder: Path
    target: str
    read: Callable[[Path], str]
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProbe:
    """Stands in for ``PhotoJob``: a quick piece of work, so that only the record of the batch is tried."""

    request: Mapping[str, Any]

    def __call__(self, source: Path, target: Path, on_step: Any = None) -> str:
        """Copy the photo."""
        del on_step
        target.write_bytes(source.read_bytes())
        return "copied"


def photo(seed: int = 0) -> NDArray[np.uint8]:
    """Draw a smooth photo with some noise, (48, 64, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return cv2.add(image, rng.integers(0, 12, image.shape, dtype=np.uint8))


def hole() -> NDArray[np.bool_]:
    """Draw the hole of every sample."""
    return cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (30, 24), 11, 1, -1) > 0


def _write_image(path: Path, kind: str, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pil, exif = Image.fromarray(image), exif_of_focal(60.0, image.shape)
    if kind in ("png16", "tiff16"):
        cv2.imwrite(str(path), image.astype(np.uint16) * 257)
    elif kind == "heic":
        import pillow_heif  # noqa: PLC0415 - an extra

        pillow_heif.from_pillow(pil).save(str(path), quality=90)
    else:
        options = {"exif": exif} if kind in ("jpeg", "webp", "png", "tiff") else {}
        pil.save(path, {"jp2": "JPEG2000"}.get(kind, kind.upper()), **options)


def _scene_folder(folder: Path, kind: str = "png", *, with_reference: bool = False) -> str:
    suffix = {"jpeg": "jpg", "tiff": "tif", "png16": "png", "tiff16": "tif"}.get(kind, kind)
    name = f"target/target.{suffix}"
    _write_image(folder / name, kind, photo())
    _write_image(folder / "target/mask.png", "png", np.repeat(hole()[:, :, None], 3, axis=2).astype(np.uint8) * 255)
    if with_reference:
        _write_image(folder / "ref/1.jpg", "jpeg", photo(1))
    return name


def _check_scene(scene: Scene) -> None:
    assert scene.target.dtype == np.uint8 and scene.target.shape == (*scene.mask.shape, 3)
    assert scene.mask.dtype == np.bool_ and 0 < scene.mask.mean() < 1


def _read_scene(folder: Path) -> str:
    """Read the scene, fill it and write it in every format, so that its metadata is written too."""
    scene = Scene.load(folder)
    _check_scene(scene)
    completion = Completion.from_image(255 - scene.target, scene, 0)
    for suffix in ("png", "tif", "jpg"):
        completion.save(folder / f"out.{suffix}")
    again = Completion.load(folder / "out.png", scene)
    assert (again.image[~scene.mask] == scene.target[~scene.mask]).all()
    return f"scene {scene.target.shape[1]} x {scene.target.shape[0]}"


def _read_on_the_command_line(folder: Path) -> str:
    status = main(["complete", str(folder), "--base", "smooth", "--quiet", "--output", str(folder / "out")])
    assert status in (0, 1)
    return f"exit status {status}"


def _read_lone_mask(folder: Path) -> str:
    mask = read_mask(folder / "mask.png", photo()).mask
    assert mask.dtype == np.bool_ and mask.ndim == 2
    return "mask"


def _read_outlines(folder: Path) -> str:
    mask = read_mask_for(folder / "mask.json", photo(), photo_name="target.png").mask
    assert mask.dtype == np.bool_ and mask.shape == (HEIGHT, WIDTH)
    return "mask"


def _read_adapter(folder: Path) -> str:
    adapter = Adapter.load(folder)
    assert all(tensor.ndim >= 2 for tensor in adapter.tensors.values())
    repr(adapter)
    adapter.save(folder / "again")
    return "adapter"


def _read_completions(folder: Path) -> str:
    completions = Completions.load(folder, _the_scene())
    for completion in completions:
        assert completion.image.shape == (HEIGHT, WIDTH, 3)
    completions.save(folder / "again")
    return f"{len(completions)} completions"


def _read_base(folder: Path) -> str:
    inpainter = load_family(str(folder), local_files_only=True)
    assert torch.isfinite(inpainter.pipeline.vae.components).all()
    return "base model"


def _read_checkpoint(folder: Path) -> str:
    state = load_checkpoint(folder / "checkpoint.safetensors", "id", _CPU)
    assert set(state) == set(_state())
    return "state"


def _read_benchmark(folder: Path) -> str:
    ranking = RankConfig(score_by="warped_references").resolve({})
    results = Benchmark(
        arms=[Arm(method=EngineMethod(name="smooth"))], num_samples=1, fit_seeds=1, matcher=None, ranking=ranking,
        metrics={"mean": lambda image, *_: float(image.mean())},
    ).run(folder / "scenes", folder / "results", progress=False)  # fmt: skip
    assert len(results.records) == 1 and not results.skipped
    return "results"


def _read_batch(folder: Path) -> str:
    probe: Any = BatchProbe(request={"kind": "probe"})
    report = run_batch([folder / "photos"], folder / "results", photos=probe, progress=False)
    assert len(report.of("done")) == 2 and report.table()
    return "batch"


def _read_network(folder: Path) -> str:
    network = CompletionNetwork.load(folder)
    output = network.predict(torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.bool))
    assert output.shape == (1, 3, 16, 16)
    return "network"


def _read_case(folder: Path) -> str:
    case = Case.load(folder)
    assert case.truth.shape == case.scene.target.shape
    return "case"


def _the_scene() -> Scene:
    return Scene([], photo(), hole())


def _state() -> dict[str, Any]:
    return {"step": 3, "weights": {"a": torch.ones(3, 4)}, "losses": [0.5, 0.25], "range": (1, 2)}


def _make_adapter(folder: Path) -> None:
    settings = FitConfig(base="mini", lora_rank=2, num_steps=2, batch_size=1).resolve({})
    tensors = {f"unet.layer.lora_{m}.weight": torch.ones(s) for m, s in (("A", (2, 6)), ("B", (6, 2)))}
    Adapter(
        tensors=tensors, config=settings, window=WindowConfig().resolve({}), fingerprint="f" * 32, losses=(0.5, 0.4),
        manifest={"realfill": "0.1.0", "inputs": {}},
    ).save(folder)  # fmt: skip


def _make_completions(folder: Path) -> None:
    scene = _the_scene()
    evidence = Evidence.of_invention(scene.mask)
    items = tuple(
        Completion(
            scene=scene, filled=scene.original.pixels[scene.mask] // (seed + 1), seed=seed, evidence=evidence,
            provenance={"realfill": "0.1.0"},
        )
        for seed in (0, 1)
    )  # fmt: skip
    ranking = RankConfig().resolve({})
    Completions(items=items, scene=scene, ranking=ranking, recipe={"base": "x"}).save(folder)


def _make_outlines(folder: Path, values: Any) -> None:
    folder.mkdir(parents=True)
    write_text(folder / "mask.json", json.dumps(values))


def _make_batch(folder: Path) -> None:
    for seed in (0, 1):
        _write_image(folder / f"photos/{seed}.png", "png", photo(seed))
    _read_batch(folder)


_POLYGON = [20, 12, 44, 14, 40, 36]
_COCO = {
    "images": [{"id": 1, "file_name": "target.png", "height": HEIGHT, "width": WIDTH}],
    "annotations": [
        {"image_id": 1, "segmentation": [_POLYGON], "bbox": [20, 12, 24, 24]},
        {"image_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [1000, 50, HEIGHT * WIDTH - 1050]}},
    ],
}
_LABELME = {
    "imageHeight": HEIGHT, "imageWidth": WIDTH,
    "shapes": [
        {"points": [[20, 12], [44, 14], [40, 36]], "shape_type": "polygon"},
        {"points": [[5, 5], [9, 9]], "shape_type": "circle"},
        {"points": [[5, 5], [19, 9]], "shape_type": "rectangle"},
    ],
}  # fmt: skip


def make_subjects(root: Path, *, with_heic: bool) -> list[Subject]:
    """Write a whole sample of every kind of input below a folder."""
    subjects = []
    kinds = ("jpeg", "png", "webp", "tiff", "png16", "tiff16", "gif", "bmp", "jp2", *(("heic",) if with_heic else ()))
    for kind in kinds:
        folder = root / f"target {kind}"
        subjects.append(Subject(name=folder.name, folder=folder, target=_scene_folder(folder, kind), read=_read_scene))
    _scene_folder(root / "scene", with_reference=True)
    _write_image(root / "scene/target/gt.png", "png", photo())
    write_text(root / "scene/prompt.txt", "a photo of a garden")
    _write_image(root / "mask/mask.png", "png", np.repeat(hole()[:, :, None], 3, axis=2).astype(np.uint8) * 255)
    _make_outlines(root / "coco", _COCO)
    _make_outlines(root / "labelme", _LABELME)
    _make_outlines(root / "boxes", {"boxes": [[5, 5, 20, 20]], "polygons": [[[20, 12], [44, 14], [40, 36]]]})
    _make_adapter(root / "adapter")
    _make_completions(root / "completions")
    save_checkpoint(root / "checkpoint/checkpoint.safetensors", _state(), "id")
    _scene_folder(root / "bench/scenes/one")
    _write_image(root / "bench/scenes/one/target/gt.png", "png", photo())
    _read_benchmark(root / "bench")
    _make_batch(root / "batch")
    (root / "network").mkdir()
    torch.manual_seed(0)
    CompletionNetwork(width=2).save(root / "network")

    def subject(name: str, folder: str, target: str, read: Callable[[Path], str]) -> Subject:
        is_json = target.endswith(".json")
        return Subject(name=name, folder=root / folder, target=target, read=read, is_json=is_json)

    mini = [
        Subject(name=f"base {t}", folder=MINI_DIRECTORY, target=t, read=_read_base, is_json=t.endswith(".json"))
        for t in (
            "model_index.json", "card.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json",
            "text_encoder/config.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
            "vae/diffusion_pytorch_model.safetensors",
        )
    ]  # fmt: skip
    run = "results/cases/one/smooth/fit0"
    return [
        *subjects,
        subject("scene by command", "scene", "target/target.png", _read_on_the_command_line),
        subject("mask by command", "scene", "target/mask.png", _read_on_the_command_line),
        subject("reference", "scene", "ref/1.jpg", _read_scene),
        subject("truth", "scene", "target/gt.png", _read_case),
        subject("prompt", "scene", "prompt.txt", _read_case),
        subject("mask", "mask", "mask.png", _read_lone_mask),
        subject("outlines of COCO", "coco", "mask.json", _read_outlines),
        subject("outlines of LabelMe", "labelme", "mask.json", _read_outlines),
        subject("boxes", "boxes", "mask.json", _read_outlines),
        subject("adapter weights", "adapter", "pytorch_lora_weights.safetensors", _read_adapter),
        subject("adapter manifest", "adapter", "adapter.json", _read_adapter),
        subject("scores", "completions", "scores.json", _read_completions),
        subject("completion image", "completions", "00_seed0.png", _read_completions),
        subject("evidence", "completions", "evidence.npz", _read_completions),
        subject("checkpoint", "checkpoint", "checkpoint.safetensors", _read_checkpoint),
        subject("benchmark run", "bench", f"{run}/run.json", _read_benchmark),
        subject("benchmark picture", "bench", f"{run}/seed0.png", _read_benchmark),
        subject("benchmark identity", "bench", "results/benchmark.json", _read_benchmark),
        subject("batch record", "batch", "results/batch.json", _read_batch),
        subject("completion network", "network", "completion.safetensors", _read_network),
        *mini,
    ]
