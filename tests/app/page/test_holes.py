"""What is drawn on the preview becomes the hole at the photo's own size."""

import io

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill.app.page import holes, uploads
from realfill.app.page.holes import (
    decode_drawing,
    draw_hole,
    has_hole,
    hole_preview,
    keep_part,
    part_path,
    read_hole,
    read_mask_file,
    save_hole,
    set_margins,
)
from realfill.app.page.jobs import Job
from realfill.app.page.people import choose, find_people, outline_at
from realfill.app.page.records import RefusedError, Round
from realfill.app.page.uploads import keep_photo, preview_size
from realfill.app.page.visits import Visits
from realfill.segmentation.instances import Instance, Instances


@pytest.fixture
def visit(tmp_path, monkeypatch):
    """A visit with a target of 60 x 90, whose preview is 40 x 60."""
    for module in (holes, uploads):
        monkeypatch.setattr(module, "PREVIEW_PX", 60)
    visit = Visits(tmp_path / "visits").find(Visits.new_key())
    path = tmp_path / "received"
    Image.fromarray(make_photo(60, 90, 0)).save(path, format="PNG")
    keep_photo(visit, path, "target", "target.png")
    return visit


def box(size, top, left, bottom, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def test_a_drawing_is_enlarged_to_the_photo(visit):
    assert preview_size(visit) == (40, 60)
    draw_hole(visit, box((40, 60), 10, 20, 20, 40))
    assert np.array_equal(read_hole(visit), box((60, 90), 15, 30, 30, 60))


def test_where_nothing_is_drawn_the_hole_keeps_its_detail(visit):
    fine = np.zeros((60, 90), bool)
    fine[10:40:2, 10:30] = True  # stripes that the preview cannot show
    save_hole(visit, fine)
    drawn = decode_drawing(hole_preview(visit))
    added = box((40, 60), 10, 40, 20, 50)
    draw_hole(visit, drawn | added)
    hole = read_hole(visit)
    assert np.array_equal(hole[:, :50], fine[:, :50])
    assert np.array_equal(hole[:, 50:], box((60, 90), 15, 60, 30, 75)[:, 50:])


def test_what_is_erased_goes(visit):
    draw_hole(visit, box((40, 60), 10, 10, 30, 50))
    draw_hole(visit, box((40, 60), 10, 10, 30, 30))
    assert np.array_equal(read_hole(visit), box((60, 90), 15, 15, 45, 45))


def test_a_drawing_of_another_photo_is_refused(visit):
    with pytest.raises(RefusedError, match="another photo"):
        draw_hole(visit, np.zeros((60, 40), bool))
    assert read_hole(visit) is None


@pytest.mark.parametrize("data", [b"", b"no png", png(np.zeros((8, 70), np.uint8))])
def test_what_is_no_drawing_is_refused(visit, data):
    with pytest.raises(RefusedError):
        decode_drawing(data)


def test_a_hole_is_what_is_marked_what_grows_or_what_is_transparent(visit, tmp_path):
    assert not has_hole(visit)
    save_hole(visit, np.zeros((60, 90), bool))
    assert not has_hole(visit)
    save_hole(visit, box((60, 90), 0, 0, 3, 3))
    assert has_hole(visit)
    save_hole(visit, np.zeros((60, 90), bool))
    set_margins(visit, {"left": 0.5})
    assert has_hole(visit)
    cut = np.dstack([make_photo(60, 90, 0), np.where(box((60, 90), 5, 5, 9, 9), 0, 255).astype(np.uint8)])
    Image.fromarray(cut).save(tmp_path / "cut", format="PNG")
    keep_photo(visit, tmp_path / "cut", "target", "cut.png")
    assert visit.margins == {} and has_hole(visit)


def test_margins_are_kept_in_pixels_of_the_photo(visit):
    set_margins(visit, {"left": 0.5, "right": 0, "top": 0.1, "bottom": 0})
    assert visit.margins == {"left": 45, "right": 0, "top": 6, "bottom": 0}
    set_margins(visit, {"left": 0, "right": 0, "top": 0, "bottom": 0})
    assert visit.margins == {}
    with pytest.raises(RefusedError, match="grows by up to"):
        set_margins(visit, {"left": 2.5})


def test_a_click_outlines_a_thing_and_adds_it_to_the_hole(visit, tmp_path):
    image = np.full((60, 90, 3), 230, np.uint8)
    image[20:40, 30:50] = (200, 20, 20)
    path = tmp_path / "thing"
    Image.fromarray(image).save(path, format="PNG")
    keep_photo(visit, path, "target", "thing.png")
    save_hole(visit, box((60, 90), 0, 0, 3, 3))
    assert outline_at(visit, 40 / 90, 30 / 60) == "the thing is marked"
    hole = read_hole(visit)
    assert hole[20:40, 30:50].mean() > 0.95 and hole[0, 0] and hole.mean() < 0.2


def test_a_click_beside_the_photo_is_refused(visit):
    with pytest.raises(RefusedError, match="outside"):
        outline_at(visit, 1.2, 0.5)


@pytest.fixture
def with_people(visit, monkeypatch):
    """The visit with two people, the left one larger."""
    masks = [box((60, 90), 10, 5, 55, 25), box((60, 90), 20, 60, 50, 75)]
    found = Instances.ordered(
        [Instance.of_mask(mask, name="person", score=0.9, detector="test") for mask in masks],
        size=(60, 90), detector="test", threshold=0.5,
    )  # fmt: skip
    monkeypatch.setattr("realfill.app.page.people.find_instances", lambda *_, **__: found)
    find_people(visit, Job(owner="a", title="people", work=print), device=None)
    return visit


def test_who_goes_is_marked_and_who_stays_is_not(with_people):
    drawn = box((60, 90), 0, 40, 5, 50)
    save_hole(with_people, drawn)
    choose(with_people, [0, 1])
    assert read_hole(with_people)[30, 15] and read_hole(with_people)[30, 65]
    choose(with_people, [0])
    hole = read_hole(with_people)
    assert hole[30, 15] and not hole[30, 65] and hole[2, 45]
    choose(with_people, [])
    assert np.array_equal(read_hole(with_people), drawn)


def test_a_click_on_a_numbered_person_lets_them_go_or_stay(with_people, tmp_path):
    assert outline_at(with_people, 15 / 90, 30 / 60) == "person 0 goes"
    again = Visits(with_people.folder.parent)._visits  # another day, the outlines are read from disk
    assert again == {} and with_people.chosen == [0]
    assert outline_at(with_people, 15 / 90, 30 / 60) == "person 0 stays"
    assert with_people.chosen == [] and not read_hole(with_people).any()


def test_someone_who_was_not_found_cannot_go(with_people):
    with pytest.raises(RefusedError, match="the instance 7"):
        choose(with_people, [7])


def test_the_part_of_a_result_is_kept_at_its_own_size(visit):
    with visit.changed():
        visit.rounds.append(Round(number=5, kind="quick", title="q", size=(60, 90), scene=6))
    keep_part(visit, 5, 0, box((40, 60), 10, 20, 20, 40))
    assert np.array_equal(read_mask_file(part_path(visit)), box((60, 90), 15, 30, 30, 60)) and visit.part == [5, 0]
    with pytest.raises(RefusedError, match="is gone"):
        keep_part(visit, 4, 0, box((40, 60), 10, 20, 20, 40))
