"""The verdict: authentic, doubtful or unsupported, by what a composite says about the hole, with a reason in words."""

import numpy as np
import pytest
from helpers import make_photo

from realfill.geometry.confidence import confidence_of
from realfill.results.verdict import contrast_around, errors_of_composite, expected_errors, judge

SIZE = (60, 80)
HOLE = np.zeros(SIZE, bool)
HOLE[20:40, 30:50] = True
SMOOTH = np.full((*SIZE, 3), 120, np.uint8)
BUSY = make_photo(*SIZE, 3)


def verdict_of(image=SMOOTH, composite=None, *, confidence=0.9, shown=HOLE, contradiction=None):
    composite = image if composite is None else composite
    trust = np.where(HOLE, np.where(shown, confidence, 0), 1).astype(np.float32)
    source = np.where(shown & HOLE, 1, -1)
    return judge(
        image, HOLE, composite=composite, confidence=trust, source=source, contradiction=contradiction
    )  # fmt: skip


def with_hole(image, pixels):
    return np.where(HOLE[..., None], pixels, image).astype(np.uint8)


def test_a_trusted_composite_is_authentic():
    verdict = verdict_of()
    assert verdict.kind == "authentic" and verdict.expected_error == pytest.approx(2)
    assert (verdict.coverage, verdict.invented, verdict.contradicted) == (1, 0, 0)
    assert verdict.reason == (
        "the references clearly show 100 % of the hole, and its pixels are expected to be off by 2 of 255 levels"
    )


def test_a_composite_of_low_confidence_is_doubtful_at_best():
    assert [verdict_of(confidence=c).kind for c in (0.6, 0.56, 0.5, 0.3, 0.2)] == [
        "authentic",
        "authentic",
        *["doubtful"] * 3,
    ]
    assert "fit the pixels around it badly" in verdict_of(confidence=0.3).reason


@pytest.mark.parametrize(("rows", "kind"), [(3, "unsupported"), (4, "doubtful"), (16, "authentic")])
def test_a_hole_that_references_hardly_show_is_unsupported_and_one_they_mostly_show_may_be_authentic(rows, kind):
    shown = HOLE & (np.arange(SIZE[0])[:, None] < 20 + rows)
    verdict = verdict_of(shown=shown)
    assert verdict.kind == kind and verdict.coverage == rows / 20
    assert verdict.invented == pytest.approx(1 - rows / 20)
    if kind == "unsupported":
        assert verdict.reason == "the references clearly show 15 % of the hole, and the rest is invented"


def test_pixels_of_hardly_any_confidence_are_not_shown():
    assert verdict_of(confidence=0.09).coverage == 0 and verdict_of(confidence=0.11).coverage == 1


@pytest.mark.parametrize(
    ("levels", "kind"), [(6, "authentic"), (8, "authentic"), (12, "doubtful"), (31, "doubtful"), (33, "unsupported")]
)
def test_an_invention_is_judged_by_its_distance_to_a_trusted_composite(levels, kind):
    verdict = verdict_of(with_hole(SMOOTH, 120 + levels), SMOOTH)
    assert verdict.kind == kind and verdict.invented == (levels > 10)
    assert kind == "authentic" or "100 % of the result differs from what they show" in verdict.reason


@pytest.mark.parametrize(("levels", "kind"), [(8.9, "authentic"), (9.1, "doubtful")])
def test_a_composite_is_authentic_up_to_an_expected_error_of_nine_levels(levels, kind):
    verdict = verdict_of(confidence=float(np.exp(-levels / 15)))
    assert verdict.kind == kind and verdict.expected_error == pytest.approx(levels, abs=0.01)


def test_a_composite_that_may_be_wrong_says_little_about_an_invention():
    arguments = {"composite": with_hole(BUSY, 250), "source": np.where(HOLE, 0, -1)}
    errors = [
        expected_errors(BUSY, HOLE, confidence=np.full(SIZE, c, np.float32), **arguments).mean() for c in (1.0, 0.02)
    ]
    guess = 0.85 * contrast_around(BUSY, HOLE)
    distance = np.abs(BUSY[HOLE].astype(float) - 250).mean()
    assert abs(errors[0] - distance) < 0.15 * distance < abs(errors[1] - distance)
    assert abs(errors[1] - guess) < abs(errors[0] - guess)


@pytest.mark.parametrize("confidence", [0.1, 0.3, 0.9])
def test_a_difference_of_a_level_hardly_changes_the_expected_error(confidence):
    flat = np.full((*SIZE, 3), 120, np.uint8)
    arguments = {"confidence": np.full(SIZE, confidence, np.float32), "source": np.where(HOLE, 0, -1)}
    own, other = (
        expected_errors(with_hole(flat, 120 + levels), HOLE, composite=flat, **arguments).mean() for levels in (0, 1)
    )
    assert own == pytest.approx(max(2, -15 * np.log(confidence)), abs=0.01)
    assert own <= other <= own + 1


def test_where_no_reference_reaches_an_error_is_that_of_a_guess():
    nothing = np.full(SIZE, -1)
    errors = expected_errors(BUSY, HOLE, composite=BUSY, confidence=np.zeros(SIZE, np.float32), source=nothing)
    assert errors.shape == (HOLE.sum(),)
    np.testing.assert_allclose(errors, 0.85 * contrast_around(BUSY, HOLE))


def test_confidence_stands_for_an_expected_error_within_bounds():
    levels = errors_of_composite(np.exp(-np.array([0, 5, 20, 500]) / 15))
    np.testing.assert_allclose(levels, [2, 5, 20, 60])
    np.testing.assert_allclose(errors_of_composite(confidence_of(np.array([7.0, 31.0]))), [7, 31], rtol=1e-5)


def test_contrast_is_measured_around_the_hole_only():
    image = SMOOTH.copy()
    image[HOLE], image[:10] = 255, 0
    assert contrast_around(image, HOLE) == 0
    image[18:20, 30:50] = 200
    assert contrast_around(image, HOLE) > 10
    assert contrast_around(image, np.ones(SIZE, bool)) == 64


def test_contradiction_is_measured_where_another_reference_shows_the_pixel_and_is_named():
    contradiction = np.full(SIZE, np.inf, np.float32)
    contradiction[20:30, 30:50], contradiction[30:35, 30:50] = 30, 5
    verdict = verdict_of(confidence=0.3, contradiction=contradiction)
    assert verdict.contradicted == pytest.approx(2 / 3)
    assert "they contradict each other in 67 % of that" in verdict.reason
    assert verdict_of(contradiction=np.full(SIZE, np.inf)).contradicted == 0


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="the mask is empty"):
        judge(SMOOTH, np.zeros(SIZE, bool), composite=SMOOTH, confidence=np.ones(SIZE), source=np.zeros(SIZE))
