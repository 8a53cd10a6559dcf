"""What is chosen becomes a scene, and wrong files are named as the user names them."""

import numpy as np
import pytest
from helpers import make_photo

from realfill.app.flow.choice import Choice
from realfill.app.flow.pictures import describe_choice, draw_choice
from realfill.app.flow.uploads import Uploads
from realfill.errors import SceneError
from realfill.io.writing import write_png


@pytest.fixture
def choice():
    choice = Choice()
    choice.set_target(make_photo(60, 80))
    return choice


def test_photos_and_a_box_become_a_scene_that_stays_until_something_changes(choice):
    choice.add_references([make_photo(50, 50, 1), make_photo(64, 64, 2)])
    choice.require_hole().add_box((10, 20, 30, 50))
    choice.touch()
    scene = choice.scene
    assert len(scene.references) == 2
    assert scene.mask.sum() == 20 * 30
    assert choice.scene is scene
    choice.require_hole().grow_px = 2
    choice.touch()
    assert choice.scene.mask.sum() > 20 * 30


def test_a_larger_canvas_is_the_hole_and_is_drawn_to_scale(choice):
    choice.set_margins(left=0.5, bottom=0.5)
    scene = choice.scene
    assert scene.target.shape == (90, 120, 3)
    assert scene.mask.sum() == 90 * 120 - 60 * 80
    assert draw_choice(choice).shape == (90, 120, 3)
    assert describe_choice(choice) == "Missing: what a canvas of 120 x 90 pixels adds to the photo's 80 x 60."
    with pytest.raises(SceneError, match="a side grows by up to 200 %"):
        choice.set_margins(left=2.5)
    choice.set_margins()
    assert not any(choice.margins.values())


def test_a_given_scene_is_used_as_it_is_until_its_hole_changes(choice, scene):
    choice.use_scene(scene)
    assert choice.scene is scene
    choice.require_hole().add_box((0, 0, 5, 5))
    choice.touch()
    assert choice.scene is not scene
    assert choice.scene.mask.sum() == scene.mask.sum() + 25
    with pytest.raises(SceneError, match="the photos are those of a scene"):
        choice.add_references([make_photo(50, 50)])


def test_the_transparent_part_of_a_photo_is_missing():
    choice, photo = Choice(), np.dstack([make_photo(60, 80), np.full((60, 80), 255, np.uint8)])
    photo[:20, :20, 3] = 0
    choice.set_target(photo)
    assert choice.scene.mask.sum() == 400


def test_what_is_missing_to_start_is_said():
    with pytest.raises(SceneError, match="there is no photo to complete"):
        _ = Choice().scene
    choice = Choice()
    choice.set_target(make_photo(60, 80))
    with pytest.raises(SceneError, match="nothing is marked as missing"):
        _ = choice.scene
    assert describe_choice(choice) == "Nothing is marked as missing yet."


def test_a_wrong_file_is_named_as_the_user_does_and_nothing_changes(choice):
    uploads = Uploads()
    path = uploads.keep("holiday.jpg", b"no photo")
    with pytest.raises(SceneError, match=r"the reference: 'holiday\.jpg' is not an image") as caught:
        choice.photos.add_named([("fine.png", make_photo(50, 50)), ("holiday.jpg", path)])
    assert str(path) not in str(caught.value)
    assert choice.photos.references == []


def test_a_folder_of_references_is_read_and_thirty_are_the_limit(choice, tmp_path):
    for i in range(3):
        write_png(tmp_path / f"{i}.png", make_photo(40, 40, i))
    choice.add_references(tmp_path)
    assert [photo.name for photo in choice.photos.references] == ["0.png", "1.png", "2.png"]
    with pytest.raises(SceneError, match="31 references are chosen; legal: up to 30"):
        choice.add_references([make_photo(40, 40)] * 28)


def test_a_mask_of_another_shape_is_refused(choice):
    with pytest.raises(SceneError, match="the mask is 10 x 10 pixels and the target 80 x 60"):
        choice.set_mask(np.ones((10, 10), bool))
