"""The demo: the whole job on a real photo, first without a fit, then with the packaged base model.

The scene is Middlebury's motorcycle, a stereo pair that comes with scikit-image. The left view with a hole is the
target, the right view the reference, and the left view itself the ground truth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from os import PathLike

import cv2
import numpy as np
import skimage.data

from realfill.benchmark.metrics import psnr, ssim
from realfill.config import FitConfig, SampleConfig
from realfill.errors import OutputError
from realfill.io.files import write_text
from realfill.io.images import ImageArray, MaskArray
from realfill.pipeline import complete, fit
from realfill.results.completions import Completion, check_output
from realfill.results.folder import SHEET_NAME
from realfill.scene.scene import Scene

COMPOSITE_NAME = "composite.png"
_NUM_SAMPLES = 8


def demo_scene() -> tuple[Scene, ImageArray]:
    """Build the scene of the demo and its ground truth, (500, 741, 3) uint8."""
    left, right, _ = skimage.data.stereo_motorcycle()
    hole = np.zeros(left.shape[:2], np.uint8)
    cv2.ellipse(hole, center=(280, 255), axes=(130, 95), angle=0, startAngle=0, endAngle=360, color=1, thickness=-1)
    mask = hole > 0
    return Scene([right], np.where(mask[:, :, None], 0, left).astype(np.uint8), mask), left


def run_demo(
    directory: str | PathLike[str],
    fit_config: FitConfig | None = None,
    *,
    overwrite: bool = False,
    device: str | None = None,
    progress: bool = True,
    say: Callable[[str], object] = str,
) -> dict[str, dict[str, float]]:
    """Show the composite at once; then fit, sample eight seeds, rank them, and measure all against the ground truth.

    The folder receives ``composite.png`` first, and then the completions, ``scores.json``, the contact sheet, the
    evidence, the adapter and ``metrics.json``.

    Args:
        directory: the output folder.
        fit_config: settings of the fit. ``None``: the packaged base model with its own defaults.
        overwrite: replace the results of an earlier demo.
        device: ``cpu``, ``cuda``, ``mps`` and so on. ``None``: the best available.
        progress: show progress bars.
        say: called with each line of the report.

    Returns:
        PSNR (dB) and SSIM in the hole: the composite, whose rest is filled by Telea's method; the mean over the samples
        of the unfitted base model; the mean over the samples after the fit; and the best-ranked sample.

    Raises:
        OutputError: the folder already holds completions or an adapter.
    """
    start = time.monotonic()
    folder = check_output(directory, overwrite=overwrite)
    if (folder / "adapter").exists() and not overwrite:
        raise OutputError(f"{str(folder / 'adapter')!r} exists; choose another folder, or set overwrite=True")
    scene, truth = demo_scene()
    config = fit_config or FitConfig(base="mini")
    sampling = SampleConfig(num_samples=_NUM_SAMPLES)
    say(f"{scene!r}; base {config.base!r}")
    instant = complete(scene, "telea", progress=progress).best
    instant.save(folder / COMPOSITE_NAME, overwrite=True)
    seconds = time.monotonic() - start
    say(f"without a fit, after {seconds:.0f} s: {folder / COMPOSITE_NAME}; {_describe(instant)}")
    unfitted = complete(scene, config.base, sampling, device=device, progress=progress)
    adapter = fit(scene, config, device=device, progress=progress)
    completions = complete(scene, adapter, sampling, device=device, progress=progress)

    def measure(*samples: Completion) -> dict[str, float]:
        return {
            name: float(np.mean([metric(c.image, truth, scene.mask) for c in samples]))
            for name, metric in (("psnr", psnr), ("ssim", ssim))
        }

    figures = {
        "composite without a fit": measure(instant),
        "unfitted base": measure(*unfitted),
        "mean of the samples": measure(*completions),
        "top-ranked sample": measure(completions.best),
    }
    completions.save(folder, overwrite=overwrite)
    completions.contact_sheet([("without a fit", instant.image)]).savefig(folder / SHEET_NAME)
    adapter.save(folder / "adapter", overwrite=overwrite)
    write_text(folder / "metrics.json", json.dumps(figures, indent=1) + "\n")
    say(f"{'in the hole':<24}{'PSNR':>8}{'SSIM':>8}")
    for name, values in figures.items():
        say(f"{name:<24}{values['psnr']:>8.2f}{values['ssim']:>8.3f}")
    added = figures["mean of the samples"]["psnr"] - figures["composite without a fit"]["psnr"]
    changed = _changed_share(completions.best.image, instant.image, scene.mask)
    say(f"the best sample differs from it in {100 * changed:.0f} % of the hole; on average {added:+.2f} dB")
    return figures


def _describe(completion: Completion) -> str:
    return completion.evidence.describe() if completion.evidence is not None else ""


def _changed_share(image: ImageArray, other: ImageArray, mask: MaskArray) -> float:
    """Return the share of the hole's pixels that differ between two completions."""
    return float((image != other).any(axis=2)[mask].mean())
