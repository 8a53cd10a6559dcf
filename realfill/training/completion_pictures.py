"""Sample pictures and loss curves of a completion network's training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import torch

from realfill.io.files import whole_file
from realfill.io.images import ImageArray, to_array
from realfill.io.writing import write_png
from realfill.models.feedforward.completion import CompletionNetwork
from realfill.training.completion_config import CompletionTrainingConfig
from realfill.training.completion_samples import draw_samples

_NUM_PREVIEWS = 12
_NUM_COLUMNS = 2
_MAX_POINTS = 200  # of a curve


def draw_previews(
    network: CompletionNetwork, photos: Sequence[ImageArray], config: CompletionTrainingConfig, path: Path
) -> None:
    """Draw photos that were kept out, the same crops and holes every time: the photo, its hole, and the hole filled.

    Args:
        network: the network in evaluation mode.
        photos: the photos, of which the first dozen is drawn.
        config: the recipe.
        path: a PNG file.
    """
    rows = []
    for i, photo in enumerate(photos[:_NUM_PREVIEWS]):
        samples = draw_samples([photo], config, np.random.default_rng(i))
        image, hole = samples.images[:1], samples.holes[:1]
        filled = torch.where(hole, network.predict(image, hole), image)
        panels = [to_array(panel[0]) for panel in (image, image.masked_fill(hole, 0), filled)]
        rows.append(np.concatenate(panels, axis=1))
    rows += [np.zeros_like(rows[0])] * (-len(rows) % _NUM_COLUMNS)
    columns = [np.concatenate(rows[first::_NUM_COLUMNS]) for first in range(_NUM_COLUMNS)]
    write_png(path, np.concatenate(columns, axis=1))


def plot_losses(losses: Mapping[str, Sequence[float]], phase_ends: Sequence[int], path: Path) -> None:
    """Plot the losses over the steps, with a line where a phase ends, as a PNG."""
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    axes: Any = figure.subplots(2, 1, sharex=True)
    for axis, names in zip(axes, (("completion",), ("discriminator", "adversarial")), strict=True):
        for name in names:
            values = np.array(losses[name])
            size = max(1, len(values) // _MAX_POINTS)
            means = [values[i : i + size].mean() for i in range(0, len(values), size)]
            axis.plot(np.arange(len(means)) * size, means, label=name)
        for step in phase_ends:
            axis.axvline(step, color="grey", linewidth=0.5)
        axis.legend()
    axes[0].set(ylabel="mean squared error", yscale="log")
    axes[1].set(xlabel="step", ylabel="loss")
    with whole_file(path) as file:
        figure.savefig(file, format="png")
