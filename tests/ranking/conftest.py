"""Completions of a planar world, ranked by a composite that a test writes down."""

import numpy as np
import pytest
from worlds import TARGET, blob

from realfill import Scene, rank
from realfill.geometry.composite import Composite
from realfill.geometry.layers import Layer
from realfill.results.completions import Completion, Completions

HOLE = blob()


@pytest.fixture
def make_composite():
    def make(warps, image=TARGET, confidence=1.0):
        pixels, cost = image.astype(np.float32), np.zeros((75, 100), np.float32)
        layers = tuple(
            Layer(warp=warp, image=pixels, misfit=1.0, colours=np.eye(4, 3), cost=cost, error=cost) for warp in warps
        )  # fmt: skip
        return Composite(
            image=image, confidence=np.full(HOLE.shape, confidence, np.float32),
            source=np.where(HOLE, 0, -1).astype(np.int16), layers=layers, reconstruction=None,
        )  # fmt: skip

    return make


@pytest.fixture
def ranked():
    def run(images, references, composite, config, **options):
        scene = Scene(references, TARGET, HOLE)
        items = tuple(Completion.from_image(image, scene, seed) for seed, image in enumerate(images))
        return rank(
            Completions(items=items, scene=scene), config=config, composite=composite, progress=False, **options
        )

    return run
