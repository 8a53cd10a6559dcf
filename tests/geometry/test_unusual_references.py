"""References far smaller or larger than the target, mirrored and turned."""

import cv2
import numpy as np
import pytest
from worlds import make_world

from realfill.geometry.composite import composite

WORLD = make_world(3, (900, 1200))


def at_width(width):
    interpolation = cv2.INTER_AREA if width < 1200 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(WORLD, (width, width * 3 // 4), interpolation=interpolation), np.uint8)


def hidden(target):
    """Hide a rectangle in the middle."""
    height, width = target.shape[:2]
    hole = np.zeros((height, width), bool)
    hole[height * 2 // 5 : height * 3 // 5, width * 2 // 5 : width * 3 // 5] = True
    return np.where(hole[..., None], np.uint8(0), target), hole


@pytest.mark.parametrize(("width", "reference_width"), [(960, 48), (80, 1600)], ids=["a twentieth", "twenty times"])
def test_a_reference_of_another_size_is_aligned(width, reference_width):
    target = at_width(width)
    known, hole = hidden(target)
    result = composite(known, hole, [at_width(reference_width)])
    assert (result.source[hole] == 0).mean() > 0.95
    blur = max(1.0, 0.7 * width / reference_width)
    shown, truth = (cv2.GaussianBlur(image, (0, 0), blur)[hole].astype(float) for image in (result.image, target))
    assert np.corrcoef(shown.ravel(), truth.ravel())[0, 1] > 0.8
    if width < reference_width:
        assert np.abs(result.image.astype(int) - target)[hole].mean() < 7


@pytest.mark.parametrize("change", [lambda image: image[:, ::-1], np.rot90], ids=["mirrored", "turned"])
def test_a_mirrored_or_turned_reference_is_right_or_not_trusted(change):
    target = at_width(120)
    known, hole = hidden(target)
    result = composite(known, hole, [np.ascontiguousarray(change(target))])
    error = np.abs(result.image.astype(int) - target).mean(axis=2)[hole].mean()
    assert result.confidence[hole].mean() < 0.25 or error < 8
