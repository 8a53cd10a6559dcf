"""Fixtures for tests of LoRA: adapters of each kind, fitted to the tiny base model."""

import numpy as np
import pytest
from helpers import ADAPTER_KINDS, TINY_FIT, make_photo

from realfill import FitConfig, GeometryConfig, Scene, fit


@pytest.fixture(scope="session")
def fitted(tiny_sd):
    """An adapter of each kind; the learning rates are high enough for an effect."""
    mask = np.zeros((64, 80), bool)
    mask[20:40, 30:60] = True
    scene = Scene([make_photo(70, 90, 1)], make_photo(64, 80, 0), mask)
    off = GeometryConfig(enabled=False)
    return {
        kind: fit(scene, FitConfig(base=tiny_sd, **TINY_FIT, **changes), geometry=off, progress=False)
        for kind, changes in ADAPTER_KINDS.items()
    }


@pytest.fixture
def adapter(fitted):
    """An adapter with LoRA layers in the attention of the U-Net and in the text encoder."""
    return fitted["lora"]
