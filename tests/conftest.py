"""Fixtures that several test folders share: tiny random models of Stable Diffusion's classes, and a small scene."""

import os
import shutil

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # otherwise waiting threads of several test runs spin

import cv2
import numpy as np
import pytest
import torch
from helpers import TINY_FIT, build_tiny_klein, build_tiny_sd, make_photo

from realfill import FitConfig, Scene
from realfill.models.diffusion.card import Card

torch.set_num_threads(1)  # with tiny tensors a second thread only waits, on a busy machine for seconds


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory) -> str:
    """Path of a base model like SD 2 inpainting: epsilon prediction, 4 latent channels."""
    return str(build_tiny_sd(tmp_path_factory.mktemp("tiny-sd")))


@pytest.fixture(scope="session")
def quick_sd(tiny_sd, tmp_path_factory) -> str:
    """Path of the same base model, whose defaults are two sampling steps."""
    folder = tmp_path_factory.mktemp("quick-sd")
    shutil.copytree(tiny_sd, folder, dirs_exist_ok=True)
    Card(sample={"num_inference_steps": 2, "scheduler": "ddim"}).save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_v(tmp_path_factory) -> str:
    """Path of a different base model: v-prediction, zero terminal SNR, 6 latent channels, another scaling factor."""
    return str(
        build_tiny_sd(
            tmp_path_factory.mktemp("tiny-v"),
            prediction_type="v_prediction", latent_channels=6, zero_snr=True, scaling=0.7,
        )
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_klein(tmp_path_factory) -> str:
    """Path of a base model like FLUX.2 klein Base."""
    return str(build_tiny_klein(tmp_path_factory.mktemp("tiny-klein-base")))


@pytest.fixture(scope="session")
def tiny_distilled(tmp_path_factory) -> str:
    """Path of a base model like the distilled FLUX.2 klein: other weights of the same shape."""
    return str(build_tiny_klein(tmp_path_factory.mktemp("tiny-klein"), is_distilled=True, seed=1))


@pytest.fixture
def tiny_fit(tiny_sd) -> FitConfig:
    """Three steps on the tiny base model."""
    return FitConfig(base=tiny_sd, **TINY_FIT)


@pytest.fixture
def scene() -> Scene:
    """Two references and a target of 64 x 80 with an elliptic hole."""
    mask = cv2.ellipse(np.zeros((64, 80), np.uint8), (40, 30), (16, 12), 0, 0, 360, 1, -1) > 0
    return Scene([make_photo(70, 90, 1), make_photo(64, 64, 2)], make_photo(64, 80, 0), mask)


@pytest.fixture(autouse=True)
def without_composites(request, monkeypatch):
    """Leave the composite out of ``fit`` and ``complete``, since it takes seconds, unless a test asks for it."""
    if "with_composites" not in request.fixturenames:
        monkeypatch.setattr("realfill.pipeline.evidence._has_composite", lambda *_: False)


@pytest.fixture
def with_composites() -> None:
    """Compute composites in this test."""
