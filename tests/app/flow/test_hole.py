"""What is missing: strokes, boxes, people and a mask file count together, and what is rubbed out does not."""

import numpy as np
import pytest

from realfill.app.flow.hole import Hole
from realfill.errors import SceneError
from realfill.scene.mask_reading import MaskReading
from realfill.segmentation.instances import Instance, Instances

SIZE = (60, 80)


def square(top, left, side=10):
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def two_people():
    found = [
        Instance.of_mask(square(5, 5, 12), name="person", score=1, detector="hand"),
        Instance.of_mask(square(30, 50), name="person", score=1, detector="hand"),
    ]
    return Instances.ordered(found, size=SIZE, detector="hand", threshold=0.5)


def test_nothing_is_missing_at_first():
    assert Hole(SIZE).reading() is None


def test_a_box_and_a_stroke_count_together():
    hole = Hole(SIZE)
    hole.add_box((0, 0, 10, 20))
    hole.paint([(60, 40)], 4)
    reading = hole.reading()
    assert reading.mask[:10, :20].all()
    assert reading.mask[40, 60] and reading.mask[40, 63] and not reading.mask[40, 67]
    assert reading.source == "1 box and brush strokes"


def test_a_stroke_covers_the_way_between_its_points():
    hole = Hole(SIZE)
    hole.paint([(10, 30), (70, 30)], 3)
    mask = hole.reading().mask
    assert mask[30, 10:71].all()
    assert not mask[40].any()


def test_the_rubber_takes_away_and_the_brush_brings_back():
    hole = Hole(SIZE)
    hole.add_box((0, 0, 40, 40))
    hole.paint([(20, 20)], 5, rub_out=True)
    assert not hole.reading().mask[20, 20]
    hole.paint([(20, 20)], 2)
    assert hole.reading().mask[20, 20] and not hole.reading().mask[20, 24]


def test_a_single_given_mask_stays_the_same_object():
    given = MaskReading(mask=square(5, 5), source="given")
    hole = Hole(SIZE)
    hole.given = given
    assert hole.reading() is given
    hole.grow_px = 3
    assert hole.reading().mask.sum() > given.mask.sum()


def test_chosen_people_go_or_everyone_but_them():
    hole = Hole(SIZE)
    hole.instances = two_people()
    hole.choose([0])
    mask = hole.reading().mask
    assert mask[10, 10] and not mask[35, 55]
    hole.choose([0], everyone_but=True)
    mask = hole.reading().mask
    assert not mask[10, 10] and mask[35, 55]


def test_a_click_ticks_and_unticks_a_person():
    hole = Hole(SIZE)
    with pytest.raises(SceneError, match="nobody was looked for"):
        hole.toggle_at((10, 10))
    hole.instances = two_people()
    assert hole.toggle_at((10, 10)).number == 0
    assert hole.chosen == {0}
    hole.toggle_at((10, 10))
    assert hole.chosen == frozenset()
    with pytest.raises(SceneError, match="nobody was found at this place"):
        hole.toggle_at((79, 0))


def test_a_box_outside_of_the_photo_is_refused_and_not_kept():
    hole = Hole(SIZE)
    with pytest.raises(SceneError, match="has no pixel in the photo"):
        hole.add_box((70, 0, 90, 10))
    assert hole.reading() is None


def test_clearing_keeps_the_people_that_were_found():
    hole = Hole(SIZE)
    hole.instances = two_people()
    hole.choose([1])
    hole.add_box((0, 0, 5, 5))
    hole.paint([(3, 3)], 2, rub_out=True)
    hole.clear()
    assert hole.reading() is None
    assert len(hole.instances) == 2
