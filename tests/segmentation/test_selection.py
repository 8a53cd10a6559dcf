"""Who goes and who stays: numbers by area, dilation by size, carried things, the ground, and errors that help."""

import numpy as np
import pytest

from realfill.errors import SceneError
from realfill.segmentation.instances import Instance, Instances
from realfill.segmentation.selection import default_dilation_px, mask_from

SIZE = (120, 200)


def rectangle(name, top, left, bottom, right, score=0.9):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return Instance.of_mask(mask, name=name, score=score, detector="test")


def found(*instances, threshold=0.5):
    return Instances.ordered(instances, size=SIZE, detector="test", threshold=threshold)


SMALL, LARGE, DOG = (
    rectangle("person", 60, 10, 100, 25),
    rectangle("person", 20, 60, 110, 100),
    rectangle("dog", 90, 150, 110, 190),
)


def test_instances_are_numbered_by_area_the_largest_first():
    instances = found(SMALL, DOG, LARGE)
    assert [i.name for i in instances] == ["person", "dog", "person"]
    assert [i.number for i in instances] == [0, 1, 2]
    assert [i.area_px for i in instances] == [3600, 800, 600]


def test_a_point_finds_the_smallest_instance_there():
    inner = rectangle("backpack", 40, 70, 60, 90)
    instances = found(LARGE, inner)
    assert instances.at((75, 50)).name == "backpack"
    assert instances.at((62, 25)).name == "person"
    assert instances.at((0, 0)) is None


def test_only_the_classes_to_remove_go_and_those_to_keep_stay():
    instances = found(SMALL, DOG, LARGE)
    mask = mask_from(instances, classes=("person",), keep=(0,), dilation_px=0).mask
    assert (mask == SMALL.mask).all()
    everything = mask_from(instances, dilation_px=0).mask
    assert (everything == (SMALL.mask | DOG.mask | LARGE.mask)).all()
    assert (mask_from(instances, numbers=[1], dilation_px=0).mask == DOG.mask).all()


def test_an_outline_grows_with_its_size_and_the_description_says_by_how_much():
    large = rectangle("person", 0, 0, 120, 60)
    assert [default_dilation_px(i) for i in (SMALL, large)] == [2, 2]
    huge = Instance.of_mask(np.ones((1000, 400), bool), name="person", score=1, detector="test")
    assert default_dilation_px(huge) == 10
    giant = Instance.of_mask(np.ones((4000, 10), bool), name="person", score=1, detector="test")
    assert [default_dilation_px(giant, growth) for growth in (0.01, 0.05)] == [24, 120]
    reading = mask_from(found(SMALL))
    assert reading.mask.sum() > SMALL.area_px
    assert "person 0 (grown by 2 px, found by test)" in reading.source


def test_the_grown_outline_of_one_who_goes_leaves_one_who_stays_alone():
    neighbour = rectangle("person", 60, 26, 100, 36)
    instances = found(SMALL, neighbour)
    mask = mask_from(instances, keep=(1,), dilation_px=5).mask
    assert instances[1].name == "person" and not (mask & neighbour.mask).any()
    assert mask[80, 27 - 18]  # it grows elsewhere


@pytest.mark.parametrize(
    ("thing", "goes"),
    [
        (rectangle("backpack", 40, 95, 60, 108), True),  # touches, and half of it is in the grown box
        (rectangle("backpack", 40, 120, 60, 133), False),  # lies apart
        (rectangle("backpack", 40, 101, 60, 160), False),  # most of it lies outside of the person's box
        (rectangle("car", 40, 90, 60, 105), False),  # nobody carries it
    ],
)
def test_what_a_person_carries_goes_along_on_request(thing, goes):
    instances = found(LARGE, thing)
    mask = mask_from(instances, classes=("person",), dilation_px=2, carried=True).mask
    outside = thing.mask & ~mask_from(instances, classes=("person",), dilation_px=2).mask
    assert mask[outside].all() == goes
    assert mask[outside].any() == goes


def test_what_belongs_to_somebody_who_stays_stays():
    other = rectangle("person", 20, 101, 110, 139)
    bag = rectangle("handbag", 50, 99, 60, 112)  # overlaps with the other person most
    instances = found(LARGE, other, bag)
    mask = mask_from(instances, classes=("person",), keep=(1,), dilation_px=1, carried=True).mask
    assert not mask[55, 105]
    assert mask_from(instances, classes=("person",), keep=(0,), dilation_px=1, carried=True).mask[55, 105]


def test_the_ground_where_somebody_stands_is_covered_on_request():
    plain = mask_from(found(LARGE), dilation_px=0).mask
    with_ground = mask_from(found(LARGE), dilation_px=0, ground_contact=True).mask
    new = with_ground & ~plain
    rows, columns = np.nonzero(new)
    assert rows.min() >= 100 and columns.min() < 60 and columns.max() > 100


def test_small_gaps_go_and_larger_ones_stay():
    mask = np.zeros(SIZE, bool)
    mask[20:, 20:180] = True  # 16000 pixels, down to the lower edge of the photo
    gaps = {
        "enclosed": (slice(40, 55), slice(40, 55)),
        "at the edge": (slice(110, 120), slice(60, 75)),
        "large": (slice(40, 80), slice(100, 140)),
        "open": (slice(10, 30), slice(150, 155)),
    }
    for gap in gaps.values():
        mask[gap] = False
    person = Instance.of_mask(mask, name="person", score=1, detector="test")
    removed = mask_from(found(person), dilation_px=0).mask
    assert {name: bool(removed[gap].any()) for name, gap in gaps.items()} == {
        "enclosed": True, "at the edge": True, "large": False, "open": False,
    }  # fmt: skip
    assert (removed | ~mask).all()
    child = Instance.of_mask(~mask & removed, name="person", score=1, detector="test")
    assert (mask_from(found(person, child), keep=(1,), dilation_px=0).mask == mask).all()


def test_a_small_gap_in_a_corner_of_the_photo_stays():
    mask = np.ones(SIZE, bool)
    mask[:6, :6] = False
    person = Instance.of_mask(mask, name="person", score=1, detector="test")
    assert (mask_from(found(person), dilation_px=0).mask == mask).all()


def test_a_number_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(ValueError, match=r"keep names the instance 5; legal: from 0 to 1 \(0: person.*; 1: person"):
        mask_from(found(SMALL, LARGE), keep=(5,))
    with pytest.raises(ValueError, match="legal: none, because there is no instance"):
        mask_from(found(), keep=(0,))
    with pytest.raises(ValueError, match="-1"):
        mask_from(found(SMALL), numbers=[-1])


def test_nothing_found_names_the_threshold_and_suggests_a_box():
    with pytest.raises(
        SceneError, match=r"test finds no cat at the threshold 0.25; found instead: person.* a box or a click"
    ):
        mask_from(found(SMALL, threshold=0.25), classes=("cat",))


def test_everything_kept_and_everything_masked_are_refused():
    with pytest.raises(SceneError, match="everything that was found is kept"):
        mask_from(found(SMALL), keep=(0,))
    whole = Instance.of_mask(np.ones(SIZE, bool), name="person", score=1, detector="test")
    with pytest.raises(SceneError, match="covers the whole photo"):
        mask_from(found(whole))
    with pytest.raises(ValueError, match="dilation_px is -1"):
        mask_from(found(SMALL), dilation_px=-1)
