"""Figures: every image is drawn with its caption and aspect ratio, and every match is a line."""

import io

import numpy as np
import pytest
from helpers import make_photo
from matplotlib.colors import to_rgb
from PIL import Image

from realfill.results.pictures import image_grid, match_overlay


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_the_grid_shows_each_image_with_its_caption_in_order():
    cells = [(f"photo {i}", make_photo(30 + i, 40, i)) for i in range(3)]
    axes = image_grid(cells, columns=2).axes
    assert len(axes) == 4 and not axes[3].images
    for axis, (caption, image) in zip(axes, cells, strict=False):
        assert axis.get_title() == caption and np.array_equal(axis.images[0].get_array(), image)


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, 4, (1, 1)), (4, 4, (1, 4)), (5, 4, (2, 4)), (3, 1, (3, 1))]
)
def test_the_grid_has_no_empty_rows_or_columns(count, columns, shape):
    figure = image_grid([("", make_photo(20, 30))] * count, columns=columns)
    assert figure.axes[0].get_gridspec().get_geometry() == shape


def test_the_grid_shrinks_large_images_and_keeps_their_aspect():
    shown = image_grid([("", make_photo(600, 1200))], columns=1).axes[0].images[0].get_array()
    assert shown.shape == (240, 480, 3)


def test_the_grid_draws_the_colours():
    cells = [("", np.full((30, 40, 3), colour, np.uint8)) for colour in ((200, 20, 20), (20, 20, 200))]
    picture = drawn(image_grid(cells, columns=2)).astype(int)
    middle = picture.shape[0] // 2, picture.shape[1] // 4
    assert np.abs(picture[middle] - (200, 20, 20)).max() <= 2
    assert np.abs(picture[middle[0], 3 * middle[1]] - (20, 20, 200)).max() <= 2


def test_the_overlay_joins_matches_by_lines_greener_for_higher_confidence():
    keypoints0, keypoints1 = np.float32([[3, 4], [20, 10], [30, 25]]), np.float32([[5, 6], [2, 8], [50, 39]])
    images = make_photo(30, 40), make_photo(40, 60)
    figure = match_overlay(*images, keypoints0, keypoints1, np.float32([0, 0.5, 1]))
    lines = figure.artists
    assert [line.xy1 for line in lines] == [tuple(p) for p in keypoints0]
    assert [line.xy2 for line in lines] == [tuple(p) for p in keypoints1]
    assert all((line.axesA, line.axesB) == tuple(figure.axes) for line in lines)
    red, green, _ = np.transpose([to_rgb(line.get_edgecolor()) for line in lines])
    assert (np.diff(green) > 0).all() and (np.diff(red) < 0).all()
    assert figure.axes[0].get_title() == "3 matches"
    for axis, image in zip(figure.axes, images, strict=True):
        assert np.array_equal(axis.images[0].get_array(), image)


def test_the_overlay_of_no_matches_is_drawn():
    none = np.zeros((0, 2), np.float32)
    figure = match_overlay(make_photo(30, 40), make_photo(30, 40), none, none, np.zeros(0, np.float32))
    assert drawn(figure).std() > 0 and figure.axes[0].get_title() == "0 matches"
