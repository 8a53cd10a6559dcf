"""Masks of four kinds: objects are foreground, and the others hide none of them."""

import numpy as np
import pytest

from realfill import AdaptConfig
from realfill.segmentation.detection import OfflineDetector
from realfill.segmentation.instances import Instance, Instances
from realfill.training.category_masks import KINDS, CategoryMasks
from realfill.training.crops import TrainingImage

SETTINGS = AdaptConfig(num_category_tokens=4, mirror=True).resolve({})
FIT = SETTINGS.fit_settings(1, {})
PHOTO = np.zeros((96, 128, 3), np.uint8)
PHOTO[30:60, 20:50], PHOTO[10:30, 90:120] = (255, 0, 0), (0, 255, 0)  # a person, a tree


class Painted:
    """Finds what is painted red, a person, and green, a tree."""

    name, side_px, segments, classes = "painted", 0, False, ("person", "tree")

    def find(self, image, *, lowest):
        found = {"person": image[..., 0] > 128, "tree": image[..., 1] > 128}
        return [Instance.of_mask(m, name=n, score=1.0, detector=self.name) for n, m in found.items() if m.any()]


@pytest.fixture(scope="module")
def masks():
    return CategoryMasks(Painted(), SETTINGS, FIT)


def draw(masks, kind, instances, number=0, photo=PHOTO):
    image = TrainingImage(image=photo, crop_sides_px=(40.0, 90.0), mirror=True)
    rngs = np.random.default_rng(number), np.random.default_rng(100 + number)
    return masks.draw(image, instances, kind, 32, rngs)


@pytest.mark.parametrize("number", range(6))
def test_a_foreground_object_is_hidden_with_a_little_of_its_surroundings(masks, number):
    crop, hidden, category = draw(masks, "foreground object", masks.find(PHOTO), number)
    assert category == 1
    assert hidden[crop[..., 0] > 200].all()
    assert 0.02 < hidden.mean() < 0.75


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_other_kinds_hide_background_alone(masks, kind):
    sizes = []
    for number in range(12):
        crop, hidden, category = draw(masks, kind, masks.find(PHOTO), number)
        assert category == 0
        assert not (hidden & (crop[..., 0] > 200)).any()
        sizes.append(hidden.mean())
    assert min(sizes) > 0


def test_a_background_object_is_an_object_of_another_class_or_an_outline_elsewhere(masks):
    crop, hidden, _ = draw(masks, "background object", masks.find(PHOTO))
    assert hidden[crop[..., 1] > 200].all() and (crop[..., 1] > 200).any()
    person = Instances.ordered(masks.find(PHOTO), size=PHOTO.shape[:2], detector="", threshold=0).of(("person",))
    crop, hidden, category = draw(masks, "background object", person)
    assert category == 0 and hidden.any() and not (hidden & (crop[..., 0] > 200)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_without_objects_has_random_masks_of_background(masks, kind):
    _, hidden, category = draw(masks, kind, (), photo=np.zeros_like(PHOTO))
    assert category == 0 and hidden.any()


def test_an_object_is_cut_out_of_a_random_mask(masks):
    person = masks.find(PHOTO)[:1]
    plain, less = (draw(masks, kind, person, 3)[1] for kind in KINDS[2:])
    assert (less <= plain).all() and less.sum() < plain.sum()


def test_all_classes_can_be_foreground():
    masks = CategoryMasks(Painted(), AdaptConfig(foreground_classes=("*",)).resolve({}), FIT)
    assert [masks.is_foreground(instance) for instance in masks.find(PHOTO)] == [True, True]


def test_a_class_that_the_detector_does_not_know_is_an_error():
    settings = AdaptConfig(foreground_classes=("person", "unicorn")).resolve({})
    with pytest.raises(
        ValueError, match=r"foreground_classes has 'unicorn'.*the offline detector.*legal: '\*' or .*person"
    ):
        CategoryMasks(OfflineDetector(), settings, FIT)
