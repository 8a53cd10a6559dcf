"""What is drawn and ticked in the browser becomes the hole at the photo's own size, and survives a restart."""

import io

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill.app.page import drawing
from realfill.app.page import visit as module
from realfill.app.page.drawing import decode_drawing, draw_hole, draw_people, encode_hole, keep_part, preview_size
from realfill.app.page.visit import RefusedError
from realfill.app.page.visits import Visits
from realfill.errors import SceneError
from realfill.segmentation.instances import Instance, Instances


@pytest.fixture
def visit(visits, upload, monkeypatch):
    """A visit with a target of 60 x 90, whose preview is 40 x 60."""
    for place in (drawing, module):
        monkeypatch.setattr(place, "PREVIEW_PX", 60)
    visit = visits.find(Visits.new_key())
    upload(visit, make_photo(60, 90, 0))
    return visit


def box(size, top, left, bottom, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def hole_of(visit):
    reading = visit.flow.choice.hole.reading()
    return None if reading is None else reading.mask


def reopened(visits, visit):
    """The same visit after a restart."""
    return visits._open(visit.folder)


def test_a_drawing_is_enlarged_to_the_photo(visit, visits):
    assert preview_size(visit) == (40, 60)
    draw_hole(visit, box((40, 60), 10, 20, 20, 40))
    assert np.array_equal(hole_of(visit), box((60, 90), 15, 30, 30, 60))
    assert np.array_equal(hole_of(reopened(visits, visit)), hole_of(visit))


def test_where_nothing_is_drawn_the_hole_keeps_its_detail(visit):
    fine = np.zeros((60, 90), bool)
    fine[10:40:2, 10:30] = True  # stripes that the preview cannot show
    with visit.hole_changed() as hole:
        hole.add(fine)
    drawn = decode_drawing(encode_hole(visit))
    draw_hole(visit, drawn | box((40, 60), 10, 40, 20, 50))
    found = hole_of(visit)
    assert np.array_equal(found[:, :50], fine[:, :50])
    assert np.array_equal(found[:, 50:], box((60, 90), 15, 60, 30, 75)[:, 50:])


def test_what_is_erased_goes(visit):
    draw_hole(visit, box((40, 60), 10, 10, 30, 50))
    draw_hole(visit, box((40, 60), 10, 10, 30, 30))
    assert np.array_equal(hole_of(visit), box((60, 90), 15, 15, 45, 45))
    draw_hole(visit, np.zeros((40, 60), bool))
    assert hole_of(visit) is None


def test_a_drawing_of_another_photo_is_refused(visit):
    with pytest.raises(RefusedError, match="another photo"):
        draw_hole(visit, np.zeros((60, 40), bool))
    assert hole_of(visit) is None


@pytest.mark.parametrize("data", [b"", b"no png", png(np.zeros((8, 70), np.uint8))])
def test_what_is_no_drawing_is_refused(visit, data):
    with pytest.raises(RefusedError):
        decode_drawing(data)


def test_transparent_pixels_are_missing_and_a_new_target_ends_the_margins(visit, visits, upload):
    with visit.scene_changed() as choice:
        choice.set_margins(left=0.5, top=0.1)
    assert visit.flow.choice.margins == {"left": 45, "right": 0, "top": 6, "bottom": 0}
    assert reopened(visits, visit).flow.choice.margins == visit.flow.choice.margins
    cut = np.dstack([make_photo(60, 90, 0), np.where(box((60, 90), 5, 5, 9, 9), 0, 255).astype(np.uint8)])
    upload(visit, cut)
    assert not any(visit.flow.choice.margins.values())
    assert np.array_equal(hole_of(reopened(visits, visit)), box((60, 90), 5, 5, 9, 9))


def test_a_click_outlines_a_thing_and_adds_it_to_the_hole(visit, upload):
    image = np.full((60, 90, 3), 230, np.uint8)
    image[20:40, 30:50] = (200, 20, 20)
    upload(visit, image)
    with visit.hole_changed() as hole:
        hole.add(box((60, 90), 0, 0, 3, 3))
        assert visit.flow.choice.toggle_at((40, 30)) == "the thing is marked"
    found = hole_of(visit)
    assert found[20:40, 30:50].mean() > 0.95 and found[0, 0] and found.mean() < 0.2


@pytest.fixture
def with_people(visit):
    """The visit with two people, the left one larger."""
    masks = [box((60, 90), 10, 5, 55, 25), box((60, 90), 20, 60, 50, 75)]
    found = [Instance.of_mask(mask, name="person", score=0.9, detector="test") for mask in masks]
    with visit.hole_changed() as hole:
        hole.instances = Instances.ordered(found, size=(60, 90), detector="test", threshold=0.5)
    return visit


def choose(visit, numbers):
    with visit.hole_changed() as hole:
        hole.choose(numbers)


def test_who_goes_is_marked_and_who_stays_is_not(with_people):
    drawn = box((40, 60), 0, 28, 4, 34)
    draw_hole(with_people, drawn)
    before = hole_of(with_people)
    choose(with_people, [0, 1])
    assert hole_of(with_people)[30, 15] and hole_of(with_people)[30, 65]
    choose(with_people, [0])
    assert hole_of(with_people)[30, 15] and not hole_of(with_people)[30, 65] and (hole_of(with_people) & before).any()
    choose(with_people, [])
    assert np.array_equal(hole_of(with_people), before)


def test_a_click_on_a_numbered_person_lets_them_go_or_stay(with_people, visits):
    assert with_people.flow.choice.toggle_at((15, 30)) == "person 0 goes"
    with with_people.hole_changed():
        pass
    again = reopened(visits, with_people)  # another day, the outlines are read from disk
    assert again.flow.choice.hole.chosen == {0}
    assert again.flow.choice.toggle_at((15, 30)) == "person 0 stays"
    assert again.flow.choice.hole.reading() is None
    assert draw_people(again).shape == (40, 60, 3)


def test_who_was_rubbed_out_and_is_chosen_again_is_marked_again(with_people):
    choose(with_people, [0])
    draw_hole(with_people, decode_drawing(encode_hole(with_people)) & ~box((40, 60), 0, 0, 30, 60))
    assert not hole_of(with_people)[20, 15]
    choose(with_people, [])
    choose(with_people, [0])
    assert hole_of(with_people)[20, 15]


def test_someone_who_was_not_found_cannot_go(with_people):
    with pytest.raises(ValueError, match="the instance 7"):
        choose(with_people, [7])


def test_the_part_of_a_result_is_kept_at_its_own_size(visit):
    draw_hole(visit, box((40, 60), 10, 20, 20, 40))
    assert visit.flow.quick("smooth").wait(60)
    keep_part(visit, 1, 0, box((40, 60), 10, 20, 20, 40))
    number, place, part = visit.part
    assert (number, place) == (1, 0) and np.array_equal(part, box((60, 90), 15, 30, 30, 60))
    for number, place in ((4, 0), (1, 1)):
        with pytest.raises(RefusedError, match="is gone"):
            keep_part(visit, number, place, box((40, 60), 10, 20, 20, 40))


def test_without_a_target_nothing_can_be_drawn(visits):
    with pytest.raises(SceneError, match="there is no photo to complete"):
        draw_hole(visits.find(Visits.new_key()), np.zeros((40, 60), bool))
