"""Outlines in JSON that name absurd sizes, numbers that are none, or more work than they are worth."""

import json
import time

import numpy as np
import pytest

from realfill.errors import SceneError
from realfill.scene.mask_sources import read_mask_for
from realfill.scene.rle import decode_rle, decode_rles

PHOTO = np.zeros((48, 64, 3), np.uint8)
POLYGON = [20, 12, 44, 14, 40, 36]


def read(tmp_path, values):
    text = values if isinstance(values, str) else json.dumps(values)
    (tmp_path / "mask.json").write_text(text)
    return read_mask_for(tmp_path / "mask.json", PHOTO).mask


def coco(annotation, **image):
    image = {"id": 1, "file_name": "a.png", "height": 48, "width": 64, **image}
    return {"images": [image], "annotations": [{"image_id": 1, **annotation}]}


def labelme(points, kind="polygon", **size):
    return {"imageHeight": 48, "imageWidth": 64, **size, "shapes": [{"points": points, "shape_type": kind}]}


def run_lengths(counts, size=(48, 64)):
    return coco({"segmentation": {"size": size, "counts": counts}})


HOSTILE = (
    coco({"segmentation": [POLYGON]}, height=480_000, width=640_000), coco({"segmentation": [POLYGON]}, height=-48),
    coco({"segmentation": [POLYGON]}, width=0), labelme([[1, 1], [9, 9], [5, 9]], imageHeight=2**40),
    run_lengths([10**12], (10**6, 10**6)), run_lengths("\ud7ff"), run_lengths("o" * 99), run_lengths([5, -5]),
    coco({"bbox": [0, 0, 1e999, 5]}), labelme([[5, 5], [1e999, 9]], "circle"),
    labelme([["x", 5], [9, 9]], "rectangle"), labelme([[5, 5], [None, 9]], "circle"), labelme(5),
    {"boxes": [[0, 0, float("nan"), 9]]}, {"boxes": [[0, 0, 10**400, 9]], "polygons": 3}, "[" * 100_000, "NaN",
    '"annotations"', "5", "[[[1e999, 1], [1, 2], [3, 4]]]",
)  # fmt: skip


@pytest.mark.parametrize("values", HOSTILE, ids=range(len(HOSTILE)))
def test_one_error_that_names_the_file(tmp_path, values):
    with pytest.raises(SceneError, match=r"the mask '.*mask\.json'"):
        read(tmp_path, values)


@pytest.mark.parametrize("far", [1e7, 1e18, 1e300])
def test_points_far_outside_are_cut_off(tmp_path, far):
    assert read(tmp_path, {"polygons": [[[-far, -far], [far, -far], [far, far], [-far, far]]]}).all()
    assert read(tmp_path, labelme([[0, 0], [far, 0]], "circle")).all()


def test_ten_thousand_outlines_take_a_second(tmp_path):
    runs = {"size": [48, 64], "counts": [1000, 50, 48 * 64 - 1050]}
    values = coco({"segmentation": runs})
    values["annotations"] = values["annotations"] * 10_000
    started = time.process_time()
    assert read(tmp_path, values).sum() == 50
    assert time.process_time() - started < 5


def test_joined_run_lengths_are_the_union_of_each():
    size, first, second = (3, 4), [2, 3, 7], [0, 1, 3, 4, 4]
    union = decode_rle(first, size) | decode_rle(second, size)
    assert (decode_rles([first, second], size) == union).all()
    assert decode_rle([12], size).sum() == 0
    assert decode_rle([0, 12], size).all()
