"""Verdicts on planted scenes: what references show well is authentic, and what those of another scene show is not."""

import warnings

import numpy as np
import pytest
from planted_3d import plant
from worlds import make_world

from realfill import complete
from realfill.errors import RealFillWarning
from realfill.results.verdict import AUTHENTIC_LEVELS

TEXTURES = [make_world(seed, (300, 300)) for seed in range(8)]


@pytest.mark.parametrize(
    ("kind", "seed", "verdict"),
    [("plane", 0, "authentic"), ("elsewhere", 0, "unsupported"), ("elsewhere", 1, "unsupported")],
)
def test_a_completion_is_judged_by_what_the_references_show(kind, seed, verdict, with_composites):
    planted = plant(kind, TEXTURES, seed, size=(120, 160))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RealFillWarning)  # that the references show little
        only = complete(planted.scene, "telea", progress=False).best
    hole = planted.scene.mask
    error = np.abs(only.image.astype(int) - planted.truth)[hole].mean()
    assert only.verdict.kind == verdict, only.verdict.reason
    assert (error <= AUTHENTIC_LEVELS) == (verdict == "authentic"), f"{error:.1f} levels"
    assert (planted.visible.any(axis=0)[hole].mean() > 0.9) == (verdict == "authentic")
