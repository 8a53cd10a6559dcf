"""Arrays of any type, shape and range give a scene, or one SceneError."""

import warnings

import numpy as np
import pytest
from helpers import make_photo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realfill import Scene, fill, mask_from
from realfill.errors import RealFillWarning, SceneError
from realfill.geometry.composite import composite
from realfill.scene.mask_reading import read_mask
from realfill.segmentation.instances import Instances

few = settings(max_examples=80, derandomize=True, deadline=None, database=None,
               suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
TYPES = (
    np.uint8,
    np.uint16,
    np.int16,
    np.int64,
    np.uint64,
    np.float16,
    np.float32,
    np.float64,
    bool,
    complex,
    object,
    "U3",
)
SHAPES = (
    (), (0,), (64,), (64, 80), (80, 64), (0, 80), (64, 80, 0), (1, 64, 80), (2, 2, 3), (64, 80, 3, 1),
    *((64, 80, channels) for channels in (1, 2, 3, 4, 5)),
)  # fmt: skip
RANGES = ((0, 1), (0, 255), (-5, 5), (0, 70_000), (7, 7), (0, 2))
HOLE = np.zeros((64, 80), bool)
HOLE[20:40, 30:50] = True


@st.composite
def arrays(draw):
    """Draw an array of a random type, shape and range, sometimes with values that are no numbers."""
    low, high = draw(st.sampled_from(RANGES))
    dtype, shape = draw(st.sampled_from(TYPES)), draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    values = np.asarray(low + (high - low) * rng.random(shape))
    if draw(st.booleans()):
        values = np.asarray(np.round(values))
    if values.size and np.issubdtype(dtype, np.floating) and draw(st.booleans()):
        values.reshape(-1)[0] = draw(st.sampled_from((np.nan, np.inf, -np.inf)))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = values.astype(dtype)
    return array.T if draw(st.booleans()) and array.ndim == 2 else array[..., ::-1] if array.ndim else array


def attempt(job):
    """Run a job; its only error is a SceneError that says what is legal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RealFillWarning)
        try:
            return job()
        except SceneError as error:
            text = str(error)
    assert "legal: " in text or "the mask" in text
    return None


def check(scene):
    if scene is not None:
        assert scene.target.dtype == np.uint8 and scene.target.shape == (*scene.mask.shape, 3)
        assert scene.mask.dtype == bool and scene.mask.any() and not scene.mask.all()
        assert all(r.dtype == np.uint8 and r.ndim == 3 and r.shape[2] == 3 for r in scene.references)


@few
@given(arrays(), st.sampled_from(["target", "mask", "reference", "reference mask"]))
def test_a_scene_of_any_arrays(array, place):
    photo = make_photo(64, 80)
    given_arrays = {"target": photo, "mask": HOLE, "reference": photo, "reference mask": None, place: array}
    check(
        attempt(
            lambda: Scene(
                [given_arrays["reference"]], given_arrays["target"], given_arrays["mask"],
                reference_masks=[given_arrays["reference mask"]],
            )
        )
    )  # fmt: skip


@few
@given(arrays())
def test_a_mask_of_any_array(array):
    reading = attempt(lambda: read_mask(array))
    assert reading is None or (reading.mask.dtype == bool and reading.mask.ndim == 2)


@settings(few, max_examples=40)
@given(arrays(), st.booleans(), st.sampled_from([0, -1, 2**70, "x", None, np.nan]))
def test_filling_any_array(array, as_photo, seed):
    photo = make_photo(64, 80)
    target, mask = (array, HOLE) if as_photo else (photo, array)
    result = attempt(lambda: fill(target, mask, "smooth", seed=seed))
    if result is not None:
        assert (result.image == result.scene.target)[~result.scene.mask].all()


@settings(few, max_examples=60)
@given(arrays(), st.sampled_from(["target", "hole", "reference", "reference mask"]))
def test_a_composite_of_arrays_without_a_scene_is_checked_first(array, place):
    photo = make_photo(64, 80)
    values = {"target": photo, "hole": HOLE, "reference": photo, "reference mask": None, place: array}
    is_photo = array.dtype in (np.uint8, np.uint16) and array.ndim == 3 and array.shape[2] == 3
    is_mask = array.dtype == bool and array.shape == (64, 80)
    if (is_photo and array.shape[:2] == (64, 80)) or is_mask or (is_photo and place == "reference"):
        return  # legal, and expensive
    with pytest.raises(SceneError, match="legal: "):
        composite(values["target"], values["hole"], [values["reference"]], reference_masks=[values["reference mask"]])


@pytest.mark.parametrize("numbers", [[5], [-1], ["x"], [None]])
def test_a_mask_of_instances_that_do_not_exist(numbers):
    instances = Instances(items=(), size=(64, 80), detector="offline", threshold=0.5)
    with pytest.raises((SceneError, ValueError), match="legal: "):
        mask_from(instances, numbers=numbers)
