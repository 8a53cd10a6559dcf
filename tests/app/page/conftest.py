"""Fixtures of the page: a visit with the small scene."""

import numpy as np
import pytest
from PIL import Image

from realfill.app.page.holes import save_hole
from realfill.app.page.uploads import keep_photo
from realfill.app.page.visits import Visits


@pytest.fixture
def visits(tmp_path):
    """No visit yet."""
    return Visits(tmp_path / "visits")


@pytest.fixture
def scene_visit(visits, scene, tmp_path):
    """A visit with the photos and the hole of the small scene."""
    visit = visits.find(Visits.new_key())
    for role, image in (("target", scene.target), *(("reference", r) for r in scene.references)):
        path = tmp_path / "received"
        Image.fromarray(np.ascontiguousarray(image)).save(path, format="PNG")
        keep_photo(visit, path, role, f"{role}.png")
    save_hole(visit, scene.mask)
    return visit
