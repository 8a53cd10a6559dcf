"""Composites made by hand: what ``complete`` does with one does not depend on how it was found."""

import numpy as np

from realfill.geometry.composite import Composite


def make_composite(scene, *, confident=0.9, doubtful=0.06, seed=5):
    """Split the hole into thirds from left to right: shown with confidence, shown doubtfully, and not shown.

    The first reference shows the upper half, the second the lower half.
    """
    columns = np.flatnonzero(scene.mask.any(axis=0))
    first, second = np.quantile(columns, [1 / 3, 2 / 3])
    x, y = np.meshgrid(np.arange(scene.mask.shape[1]), np.arange(scene.mask.shape[0]))
    shown = scene.mask & (x < second)
    confidence = np.where(x < first, confident, doubtful)
    middle = np.flatnonzero(scene.mask.any(axis=1)).mean()
    colours = np.random.default_rng(seed).integers(0, 256, scene.target.shape, np.uint8)
    return Composite(
        image=np.where(scene.mask[:, :, None], colours, scene.target),
        confidence=np.where(scene.mask, np.where(shown, confidence, 0), 1).astype(np.float32),
        source=np.where(shown, (y > middle).astype(np.int16), -1).astype(np.int16),
        layers=(),
        reconstruction=None,
    )
