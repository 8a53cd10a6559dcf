"""Without weights: faces and figures propose people, and GrabCut outlines what a box or a click marks."""

import cv2
import numpy as np
import pytest
import skimage.data

from realfill.errors import SceneError
from realfill.segmentation.detection import find_instances
from realfill.segmentation.outline import outline_at, refine_edges
from realfill.segmentation.preview import draw_instances, draw_mask
from realfill.segmentation.proposals import propose_people


def disc(size=(240, 320), centre=(170, 120), radius=60):
    """A textured disc on a textured ground, and its outline."""
    rng = np.random.default_rng(0)
    inside = cv2.circle(np.zeros(size, np.uint8), centre, radius, 1, -1, cv2.LINE_8) > 0
    colour = np.where(inside[..., None], (200, 60, 50), (60, 110, 160))
    return np.clip(colour + rng.normal(0, 8, (*size, 3)), 0, 255).astype(np.uint8), inside


def agreement(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def people(astronaut):
    return find_instances(astronaut, detector="offline")


def test_the_astronaut_is_found_by_her_face(people):
    assert people.detector == "the offline detector"
    astronaut = people.at((224, 110))
    assert astronaut.number == 0 and astronaut.name == "person" and astronaut.detector == "face"
    for x, y in [(224, 50), (170, 300), (260, 330), (60, 350)]:  # hair, both sides of the suit, and her right arm
        assert astronaut.contains((x, y))
    for x, y in [(30, 100), (420, 60), (300, 30)]:  # flag, shuttle, wall
        assert not astronaut.contains((x, y))


def test_a_face_stands_for_a_body_below_it(astronaut):
    proposal = next(p for p in propose_people(astronaut) if p.source == "face")
    assert proposal.face[0] < 130 < proposal.face[2]
    assert proposal.box[2] > 400 and proposal.box[0] < proposal.face[0]


def test_a_box_gives_the_outline_of_what_it_encloses():
    image, inside = disc()
    (only,) = find_instances(image, detector="offline", boxes=[(50, 100, 190, 240)])
    assert agreement(only.mask, inside) > 0.97
    assert only.detector == "box and GrabCut" and only.name == "object"


def test_a_click_gives_the_outline_of_what_it_hits():
    image, inside = disc()
    (only,) = find_instances(image, detector="offline", clicks=[(170, 120)])
    assert agreement(only.mask, inside) > 0.95
    assert only.detector == "click and GrabCut"


def test_a_click_does_not_leak_into_a_background_of_a_similar_colour():
    photo = np.full((100, 100, 3), 20, np.uint8)
    photo[:, 66:] = 150
    photo[40:52, 78:90] = 190
    outline = outline_at(photo, (84, 46))
    assert outline[42:50, 80:88].all() and outline.sum() < 2 * 144


def test_a_large_photo_gets_an_edge_at_its_own_size():
    image, inside = disc(size=(960, 1280), centre=(680, 480), radius=240)
    (only,) = find_instances(image, detector="offline", boxes=[(200, 400, 760, 960)])
    assert agreement(only.mask, inside) > 0.97
    small = cv2.resize(inside.astype(np.uint8), (160, 120), interpolation=cv2.INTER_NEAREST) > 0
    nearest = cv2.resize(small.astype(np.uint8), (1280, 960), interpolation=cv2.INTER_NEAREST) > 0
    assert (refine_edges(image, small) != inside).sum() < 0.6 * (nearest != inside).sum()


def test_nothing_leaves_the_box():
    image, _ = disc()
    (only,) = find_instances(image, detector="offline", boxes=[(50, 170, 190, 240)])
    assert only.box[1] >= 170


def test_the_same_photo_gives_the_same_outline():
    image, _ = disc()
    one, other = (find_instances(image, detector="offline", boxes=[(50, 100, 190, 240)])[0] for _ in range(2))
    assert (one.mask == other.mask).all()


def test_marks_outside_of_the_photo_are_refused():
    image, _ = disc()
    with pytest.raises(SceneError, match=r"the box from \(400, 0\) to \(500, 50\) has no pixel .* x from 0 to 320"):
        find_instances(image, boxes=[(0, 400, 50, 500)])
    with pytest.raises(SceneError, match=r"the point is \(320, 5\); legal: x from 0 to 319 and y from 0 to 239"):
        find_instances(image, clicks=[(320, 5)])


def test_a_photo_of_one_colour_still_gives_an_outline():
    (only,) = find_instances(np.full((90, 100, 3), 7, np.uint8), boxes=[(10, 10, 50, 60)])
    assert only.area_px > 0


def test_the_preview_shows_numbers_and_the_mask_in_red(astronaut, people):
    picture = draw_instances(astronaut, people)
    assert picture.shape == astronaut.shape
    changed = (picture != astronaut).any(axis=2)
    assert 0.005 < changed.mean() < 0.3
    masked = draw_mask(astronaut, people[0].mask)
    assert masked[300, 170, 0] > astronaut[300, 170, 0] or masked[300, 170, 1] < astronaut[300, 170, 1]
    assert (masked[100, 30] == astronaut[100, 30]).all()
