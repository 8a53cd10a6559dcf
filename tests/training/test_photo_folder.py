"""A folder of photos is split by name, shown in epochs with masks of its own, and read when a step needs it."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill import AdaptConfig
from realfill.errors import RealFillWarning, SceneError
from realfill.training.category_masks import KINDS
from realfill.training.photo_folder import PhotoFolder, list_photos, split_photos, steps_per_epoch

SETTINGS = AdaptConfig(batch_size=4, masks_per_photo=2, mirror=False, crop_share=(1.0, 1.0)).resolve({})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos")
    for i in range(10):
        Image.fromarray(np.full((80, 90, 3), 10 * i, np.uint8)).save(path / f"photo{i}.png")
    return path


def make_folder(paths, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return PhotoFolder(paths, settings, settings.fit_settings(steps_per_epoch(len(paths), 4), {}), 32)


def draw(folder, step):
    return folder.draw_batch(step, np.random.default_rng(step))


def test_parts_are_disjoint_and_complete(folder):
    paths = list_photos(folder)
    parts = split_photos(paths, (0.8, 0.1, 0.1))
    together = [*parts.training, *parts.validation, *parts.test]
    assert sorted(together) == paths
    assert [len(parts.training), len(parts.validation), len(parts.test)] == [8, 1, 1]
    assert split_photos(paths[::-1], (0.8, 0.1, 0.1)).test == parts.test


def test_crops_of_one_photo_are_in_one_part(tmp_path):
    paths = [tmp_path / f"photo{i}-{j}.png" for i in range(9) for j in range(3)]
    parts = split_photos(paths, (0.6, 0.2, 0.2))
    stems = [{path.stem[:6] for path in part} for part in (parts.training, parts.validation, parts.test)]
    assert not (stems[0] & stems[1] or stems[0] & stems[2] or stems[1] & stems[2])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_photos_are_an_error(folder, tmp_path, count):
    for i in range(count):
        (tmp_path / f"{i}.png").write_bytes((folder / f"photo{i}.png").read_bytes())
    with pytest.raises(SceneError, match="at least three"):
        split_photos(list_photos(tmp_path), (0.8, 0.1, 0.1))


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(SceneError, match="not a folder"):
        list_photos(tmp_path / "missing")


def test_icons_and_other_files_are_named_and_left_out(folder, tmp_path):
    (tmp_path / "photo.png").write_bytes((folder / "photo1.png").read_bytes())
    Image.new("RGB", (16, 16)).save(tmp_path / "icon.png")
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.warns(RealFillWarning, match=r"icon.png \(16 x 16 pixels.*notes.txt"):
        assert [path.name for path in list_photos(tmp_path)] == ["photo.png"]


def test_a_damaged_photo_is_named_and_replaced(folder, tmp_path):
    paths = [tmp_path / "damaged.png", folder / "photo7.png"]
    paths[0].write_bytes((folder / "photo3.png").read_bytes()[:60])
    with pytest.warns(RealFillWarning, match="damaged.png is left out"):
        crops = draw(make_folder(paths), 0)
    assert np.unique(crops.images).tolist() == [70]


def test_an_epoch_shows_each_photo_with_each_of_its_masks_once(folder):
    photos = make_folder(list_photos(folder))
    batches = [draw(photos, step) for step in range(steps_per_epoch(photos.num_items, 4))]
    shown = [(image[0, 0, 0], mask.tobytes()) for b in batches for image, mask in zip(b.images, b.hidden, strict=True)]
    assert len(shown) == photos.num_items == 20
    assert len(set(shown)) == 20
    again = [draw(photos, step + 5) for step in range(5)]
    later = [(image[0, 0, 0], mask.tobytes()) for b in again for image, mask in zip(b.images, b.hidden, strict=True)]
    assert set(later) == set(shown)
    assert later != shown


def test_a_batch_depends_on_its_step_alone(folder):
    first, second = (make_folder(list_photos(folder)) for _ in range(2))
    draw(first, 0)
    np.testing.assert_array_equal(draw(first, 3).hidden, draw(second, 3).hidden)


@pytest.mark.parametrize("num_stages", [1, 2, 3, 4])
def test_a_few_masks_show_all_stages_and_more_of_them_each_kind_in_each_stage(folder, num_stages):
    def count(masks_per_photo):
        photos = make_folder(list_photos(folder), num_stages=num_stages, combiner=True, masks_per_photo=masks_per_photo)
        stages = photos.draw_all(1, masks_per_photo=masks_per_photo).stages.reshape(10, -1)[0]
        return Counter(zip(stages.tolist(), (n % len(KINDS) for n in range(len(stages))), strict=True))

    assert {stage for stage, _ in count(num_stages)} == set(range(num_stages))
    assert set(count(4 * num_stages).values()) == {1}


def test_at_most_a_bounded_number_of_photos_is_in_memory(folder, monkeypatch):
    monkeypatch.setattr("realfill.training.photo_folder._CACHE_BYTES", 0)
    photos = make_folder(list_photos(folder))
    draw(photos, 0)
    assert photos._read.cache_info().maxsize == 8


def test_photos_are_shrunk_to_what_their_crops_need(tmp_path):
    Image.fromarray(make_photo(600, 900)).save(tmp_path / "large.png")
    photos = make_folder([tmp_path / "large.png"])
    assert photos._read(0).image.shape == (64, 96, 3)


def test_what_is_drawn_at_once_is_bounded_whatever_the_number_of_photos(folder, monkeypatch):
    photos = make_folder(list_photos(folder), masks_per_photo=4)
    whole = photos.draw_all(1, masks_per_photo=4)
    assert len(whole) == 40
    monkeypatch.setattr("realfill.training.photo_folder._MAX_DRAWN", 25)
    assert len(photos.draw_all(1, masks_per_photo=4)) == 20
    monkeypatch.setattr("realfill.training.photo_folder._MAX_DRAWN", 7)
    assert len(photos.draw_all(1, masks_per_photo=4)) == 7
