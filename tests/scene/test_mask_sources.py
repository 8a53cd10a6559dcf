"""Masks from numbers, JSON, a colour and scaled drawings; union and subtraction."""

import json

import numpy as np
import pytest
from PIL import Image

from realfill.errors import SceneError
from realfill.scene.mask_reading import MaskReading, read_mask
from realfill.scene.mask_sources import (
    combine,
    mask_of_boxes,
    mask_of_colour,
    mask_of_polygons,
    read_mask_for,
    read_outlines,
    scaled,
)  # fmt: skip
from realfill.scene.rle import decode_rle
from realfill.scene.scene import Scene

SIZE = (40, 60)


def filled(top, left, bottom, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def write(path, values):
    path.write_text(json.dumps(values))
    return path


def test_boxes_and_polygons_fill_what_they_enclose():
    assert (mask_of_boxes([(10, 20, 30, 50)], SIZE).mask == filled(10, 20, 30, 50)).all()
    assert (mask_of_boxes([(-5, 50, 100, 90)], SIZE).mask == filled(0, 50, 40, 60)).all()
    polygon = mask_of_polygons([[(20, 10), (49, 10), (49, 29), (20, 29)]], SIZE)
    assert (polygon.mask == filled(10, 20, 30, 50)).all()
    assert polygon.source == "1 polygon"


def test_a_box_outside_and_a_polygon_of_two_points_are_refused():
    with pytest.raises(SceneError, match="has no pixel in the photo; legal: x from 0 to 60, y from 0 to 40"):
        mask_of_boxes([(10, 70, 30, 90)], SIZE)
    with pytest.raises(SceneError, match=r"legal: at least three points \[x, y\]"):
        mask_of_polygons([[(1, 2), (3, 4)]], SIZE)


def test_labelme_shapes(tmp_path):
    shapes = [
        {"label": "a", "shape_type": "polygon", "points": [[20, 10], [49, 10], [49, 29], [20, 29]]},
        {"label": "b", "shape_type": "rectangle", "points": [[10, 35], [0, 30]]},
        {"label": "c", "shape_type": "circle", "points": [[55, 5], [55, 8]]},
    ]
    reading = read_outlines(write(tmp_path / "a.json", {"shapes": shapes, "imageHeight": 40, "imageWidth": 60}), SIZE)
    expected = filled(10, 20, 30, 50) | filled(30, 0, 35, 10)
    assert (reading.mask[:, :50] == expected[:, :50]).all() and reading.mask[5, 55] and not reading.mask[10, 55]
    assert reading.source == "3 shapes of a.json"


def test_labelme_outlines_of_a_larger_version_are_scaled(tmp_path):
    shapes = [{"shape_type": "rectangle", "points": [[40, 20], [100, 60]]}]
    path = write(tmp_path / "a.json", {"shapes": shapes, "imageHeight": 80, "imageWidth": 120})
    reading = read_outlines(path, SIZE)
    assert (reading.mask == filled(10, 20, 30, 50)).all()
    assert "scaled from 120 x 80 pixels" in reading.source
    with pytest.raises(SceneError, match="120 x 80 pixels and the photo 60 x 60"):
        read_outlines(path, (60, 60))


def coco(*annotations):
    images = [{"id": 1, "file_name": "x/a.jpg", "height": 40, "width": 60}, {"id": 2, "file_name": "b.jpg"}]
    return {"images": images, "annotations": [{"image_id": 1, **a} for a in annotations]}


def test_coco_polygons_boxes_and_run_lengths(tmp_path):
    polygon = {"segmentation": [[20, 10, 49, 10, 49, 29, 20, 29]]}
    box = {"bbox": [0, 30, 10, 5]}
    column = {"segmentation": {"counts": [40 * 59 + 3, 30, 7], "size": [40, 60]}}
    elsewhere = {"image_id": 2, "bbox": [0, 0, 60, 40]}
    path = write(tmp_path / "c.json", coco(polygon, box, column, elsewhere))
    reading = read_outlines(path, SIZE, photo_name="a.jpg")
    assert (reading.mask == (filled(10, 20, 30, 50) | filled(30, 0, 35, 10) | filled(3, 59, 33, 60))).all()
    with pytest.raises(SceneError, match=r"no photo of the name 'c.jpg'; legal: x/a.jpg, b.jpg"):
        read_outlines(path, SIZE, photo_name="c.jpg")


def test_a_compressed_run_length_encoding():
    # [6, 1, 40, 4, 5, 4, 5, 4, 21] for 9 x 10 pixels; from the fourth number on, differences to the one before the last
    runs, text = [6, 1, 40, 4, 5, 4, 5, 4, 21], ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            low, value = value & 0x1F, value >> 5
            more = value != (-1 if low & 0x10 else 0)
            text += chr((low | (0x20 if more else 0)) + 48)
            if not more:
                break
    mask = decode_rle(text, (9, 10))
    assert mask.T.ravel().nonzero()[0].tolist() == [6, *range(47, 51), *range(56, 60), *range(65, 69)]
    assert (mask == decode_rle(runs, (9, 10))).all()
    with pytest.raises(SceneError, match="ends within a number"):
        decode_rle(text[:-1] + "P", (9, 10))
    with pytest.raises(SceneError, match="has 5 pixels; legal: 10 x 9"):
        decode_rle([5], (9, 10))


@pytest.mark.parametrize(
    "values", [{"a": 1}, 3, {"boxes": [[1, 2]]}, {"shapes": [{}]}, {"annotations": [{"image_id": 1}]}]
)
def test_json_of_another_form_is_refused_with_the_legal_ones(tmp_path, values):
    with pytest.raises(SceneError, match=r"has a form that is not known; legal: COCO"):
        read_outlines(write(tmp_path / "a.json", values), SIZE)


def test_json_that_is_none_or_has_no_outline(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SceneError, match="is no JSON"):
        read_outlines(tmp_path / "a.json", SIZE)
    with pytest.raises(SceneError, match="cannot be read"):
        read_outlines(tmp_path / "none.json", SIZE)
    with pytest.raises(SceneError, match="no outline in this photo"):
        read_outlines(write(tmp_path / "b.json", {"boxes": []}), SIZE)


def test_a_colour_key_takes_names_codes_and_levels():
    image = np.zeros((*SIZE, 3), np.uint8)
    image[10:30, 20:50] = (250, 5, 250)
    for colour in ("magenta", "#ff00ff", (255, 0, 255)):
        assert (mask_of_colour(image, colour).mask == filled(10, 20, 30, 50)).all()
    with pytest.raises(SceneError, match="no pixel of the photo has the colour lime"):
        mask_of_colour(image, "lime")
    with pytest.raises(ValueError, match="legal: a name such as magenta"):
        mask_of_colour(image, "no-colour")


def test_a_drawing_of_another_size_is_scaled_and_the_source_says_so(tmp_path):
    Image.fromarray(filled(20, 40, 60, 100, (80, 120))).save(tmp_path / "m.png")
    reading = read_mask_for(tmp_path / "m.png", np.zeros((*SIZE, 3), np.uint8))
    assert (reading.mask == filled(10, 20, 30, 50)).all()
    assert reading.source == "the white pixels of the mask, scaled from 120 x 80 pixels"
    same = MaskReading(mask=filled(0, 0, 5, 5), source="x")
    assert scaled(same, SIZE) is same
    with pytest.raises(SceneError, match="legal: the same size, or the same proportions"):
        scaled(same, (40, 70))


def test_masks_are_joined_grown_and_taken_away():
    one, other, stays = (MaskReading(mask=m, source=s) for m, s in [
        (filled(0, 0, 10, 10), "a"), (filled(20, 20, 30, 30), "b"), (filled(0, 0, 40, 5), "c")
    ])  # fmt: skip
    joined = combine([one, other], [stays], grown_px=1)
    assert not joined.mask[:, :5].any() and joined.mask[:10, 5:11].all() and joined.mask[20:30, 19:31].all()
    assert joined.mask.sum() == 10 * 6 + 5 + 10 * 10 + 4 * 10
    assert joined.source == "a and b, grown by 1 pixels without c"
    with pytest.raises(SceneError, match="nothing is left"):
        combine([one], [one])
    with pytest.raises(SceneError, match="legal: one size"):
        combine([one, MaskReading(mask=filled(0, 0, 1, 1, (50, 50)), source="d")])


def test_a_scene_takes_a_mask_that_is_already_read():
    reading = MaskReading(mask=filled(10, 20, 30, 50), source="my choice")
    scene = Scene([], np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8), reading)
    assert scene.mask_source == "my choice" and (scene.mask == reading.mask).all()
    assert read_mask(reading) is reading
