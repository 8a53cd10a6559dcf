"""The comparison of an adapted base model with the base model itself, on photos that were kept out of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import matplotlib.figure
import numpy as np

from realfill.benchmark import metrics
from realfill.compute.devices import resolve_device
from realfill.compute.progress import OnStep, Progress, ProgressBar
from realfill.config import FitSettings
from realfill.errors import BaseModelError, MissingDependencyError, SceneError, warn
from realfill.filling.unfitted import UnfittedBase
from realfill.io.files import whole_file, write_text
from realfill.io.images import ImageArray, MaskArray, fit_within, read_image, resize
from realfill.models.diffusion.adapter import Adapter
from realfill.models.perceptual import load_lpips
from realfill.results.pictures import image_grid
from realfill.scene.masks import random_mask

_MAX_SIZE_PX = 768
_NUM_PAIRS, _PICTURES = 12, 4  # photos that are shown, and pictures of each
_MASKS = 3  # the purpose of a generator is part of its seed
_NUM_DRAWS, _TAIL = 2000, 2.5  # of the bootstrap, and per cent outside each end of its interval
_ARMS = ("base", "adapted")
_Measure = Callable[[ImageArray, ImageArray, MaskArray], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A metric of the filled holes.

    Attributes:
        metric: name of the metric.
        base: mean over photos, by the base model.
        adapted: mean over photos, by the adapted one.
        difference: mean of the paired differences.
        interval: 95 % bootstrap interval of that mean over photos; ``None`` for a single photo.
    """

    metric: str
    base: float
    adapted: float
    difference: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdaptationReport:
    """An adapted base model against the base model.

    Attributes:
        rows: the metrics.
        values: metric to arm (``base``, ``adapted``) to the value of each photo, in their order.
        pairs: caption and picture: the photo with its hole, both results, the photo; for up to twelve photos.
        num_photos: number of photos compared.
        epochs: losses of the training, as in the adapter's manifest.
        without: the reason why LPIPS is missing, or an empty text.
    """

    rows: Sequence[Row]
    values: Mapping[str, Mapping[str, Sequence[float]]]
    pairs: Sequence[tuple[str, ImageArray]]
    num_photos: int
    epochs: Sequence[Mapping[str, float | None]]
    without: str

    def save(self, folder: str | PathLike[str]) -> None:
        """Write ``report.json``, ``pairs.png`` and ``losses.png``."""
        values = {
            "num_photos": self.num_photos,
            "metrics": {
                row.metric: {
                    "base": row.base, "adapted": row.adapted, "difference": row.difference, "interval": row.interval
                }
                for row in self.rows
            },
            "epochs": [dict(epoch) for epoch in self.epochs],
        }  # fmt: skip
        write_text(Path(folder) / "report.json", json.dumps(values, indent=1) + "\n")
        with whole_file(Path(folder) / "pairs.png") as file:
            image_grid(self.pairs, columns=_PICTURES).savefig(file, format="png")
        with whole_file(Path(folder) / "losses.png") as file:
            _plot(self.epochs).savefig(file, format="png")

    def __str__(self) -> str:
        lines = [f"{'':8}{'base':>9}{'adapted':>9}   difference (95 % interval over the photos)"]
        for row in self.rows:
            interval = "" if row.interval is None else f" ({row.interval[0]:+.3f} to {row.interval[1]:+.3f})"
            lines.append(f"{row.metric:8}{row.base:9.3f}{row.adapted:9.3f}   {row.difference:+.3f}{interval}")
        return "\n".join([*lines, *([self.without] if self.without else [])])


def compare_adapter(
    adapter: str | PathLike[str],
    photos: Sequence[Path],
    *,
    seeds: Sequence[int] = (0,),
    device: str | None = None,
    local_files_only: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> AdaptationReport:
    """Fill the same random holes of photos with the base model and with the adapted one.

    Each photo has one hole, whose shapes are drawn as in training. Photos above 768 pixels are shrunk. A damaged
    photo is left out with a warning.

    Args:
        adapter: folder of the adapter.
        photos: photos that were not trained on.
        seeds: seeds of the sampler; a photo's value is the mean over them.
        device: ``cpu``, ``cuda`` and so on. ``None``: the best available.
        local_files_only: do not use the network.
        on_step: called after each photo. If it returns ``False``, the comparison ends and keeps the photos so far.
        progress: show a progress bar.

    Raises:
        ValueError: there are no photos.
        SceneError: no photo can be read.
        BaseModelError: the base model cannot be loaded.
        AdapterError: the adapter is damaged.
    """
    if not photos:
        raise ValueError("photos is empty; legal: at least one")
    loaded = Adapter.load(adapter)
    engines = {
        arm: UnfittedBase.load(source, device=device, local_files_only=local_files_only)
        for arm, source in zip(_ARMS, (loaded.base, str(adapter)), strict=True)
    }
    measures, without = _load_measures(device)
    values: dict[str, dict[str, list[float]]] = {name: {arm: [] for arm in _ARMS} for name in measures}
    pairs: list[tuple[str, ImageArray]] = []
    with ProgressBar(total=len(photos), desc="compare", unit="photo", disable=not progress) as bar:
        for number, path in enumerate(photos, 1):
            image = _read(path)
            if image is not None:
                hole = _draw_hole(image, loaded.config, number)
                results = {arm: engine.fill(image, hole, seeds) for arm, engine in engines.items()}
                for name, measure in measures.items():
                    for arm in _ARMS:
                        values[name][arm].append(float(np.mean([measure(r, image, hole) for r in results[arm]])))
                if len(pairs) < _NUM_PAIRS * _PICTURES:
                    marked = np.where(hole[:, :, None], np.uint8(128), image)
                    pairs += [(path.stem[:24], marked), *((arm, results[arm][0]) for arm in _ARMS), ("photo", image)]
            bar.update()
            report = Progress(phase="sample", step=number, num_steps=len(photos), time_s=0.0, left_s=None)
            if on_step is not None and on_step(report) is False:
                break
    if not values["psnr"]["base"]:
        raise SceneError(f"none of {len(photos)} photos can be read; legal: intact photos")
    return AdaptationReport(
        rows=[_row(name, arms["base"], arms["adapted"]) for name, arms in values.items()], values=values,
        pairs=pairs,
        num_photos=len(values["psnr"]["base"]), epochs=loaded.manifest.get("adaptation", {}).get("epochs", ()),
        without=without,
    )  # fmt: skip


def _load_measures(device: str | None) -> tuple[dict[str, _Measure], str]:
    """Return the metrics, with LPIPS if its weights are on this machine; else the reason why not."""
    measures: dict[str, _Measure] = {"psnr": metrics.psnr, "ssim": metrics.ssim, "gmsd": metrics.gmsd}
    try:
        measures["lpips"] = load_lpips(resolve_device(device))
    except (BaseModelError, MissingDependencyError) as error:
        return measures, f"LPIPS is not measured: {error}"
    return measures, ""


def _read(path: Path) -> ImageArray | None:
    """Read a photo; a damaged one is left out, as it is in the training."""
    try:
        image = read_image(path, path.name)[0]
    except SceneError as error:
        warn(f"{path.name} is left out of the comparison: {error}")
        return None
    return resize(image, fit_within(image.shape[:2], _MAX_SIZE_PX))


def _draw_hole(image: ImageArray, fit: FitSettings, number: int) -> MaskArray:
    return random_mask(
        image.shape[:2], np.random.default_rng([number, _MASKS]), num_rectangles=fit.num_rectangles,
        rectangle_size=fit.rectangle_size, shapes=fit.mask_shapes, complement_share=0.0,
    )  # fmt: skip


def _row(metric: str, base: Sequence[float], adapted: Sequence[float]) -> Row:
    differences = np.subtract(adapted, base)
    interval = None
    if len(differences) > 1:
        draws = np.random.default_rng(0).choice(differences, (_NUM_DRAWS, len(differences))).mean(axis=1)
        low, high = np.percentile(draws, [_TAIL, 100 - _TAIL])
        interval = (float(low), float(high))
    return Row(
        metric=metric, base=float(np.mean(base)), adapted=float(np.mean(adapted)),
        difference=float(differences.mean()), interval=interval,
    )  # fmt: skip


def _plot(epochs: Sequence[Mapping[str, float | None]]) -> matplotlib.figure.Figure:
    """Draw the losses of the epochs: those of training and of validation have different noise."""
    figure = matplotlib.figure.Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, label in (("training_loss", "training photos"), ("validation_loss", "validation photos")):
        points = [(epoch["number"] or 0, loss) for epoch in epochs if (loss := epoch[name]) is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=label)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[attr-defined]
    axes.legend()
    return figure
