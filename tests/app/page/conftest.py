"""Fixtures of the page: a visit with the small scene."""

import numpy as np
import pytest
from PIL import Image

from realfill import RankConfig, SampleConfig
from realfill.app.flow.settings import Settings
from realfill.app.page.uploads import keep_photo
from realfill.app.page.visits import Visits


@pytest.fixture
def settings(tiny_fit):
    """A fit of three steps, and two samples of two steps each."""
    sample, rank = SampleConfig(num_samples=2, num_inference_steps=2), RankConfig(matcher="sift")
    return Settings(fit=tiny_fit, sample=sample, rank=rank, device="cpu", local_files_only=True)


@pytest.fixture
def visits(tmp_path, settings):
    """No visit yet; a preview is due after every step."""
    return Visits(tmp_path / "visits", settings=settings, preview_every_s=0.0)


@pytest.fixture
def upload(tmp_path):
    """Make an image a photo of a visit."""

    def send(visit, image, role="target", name="photo.png"):
        path = tmp_path / "received"
        Image.fromarray(np.ascontiguousarray(image)).save(path, format="PNG")
        return keep_photo(visit, path, role, name)

    return send


@pytest.fixture
def scene_visit(visits, scene, upload):
    """A visit with the photos and the hole of the small scene."""
    visit = visits.find(Visits.new_key())
    upload(visit, scene.target)
    for reference in scene.references:
        upload(visit, reference, "reference")
    with visit.hole_changed() as hole:
        hole.add(scene.mask)
    return visit
