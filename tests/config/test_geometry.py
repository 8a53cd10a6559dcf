"""GeometryConfig: defaults, presets and illegal values."""

import pytest

from realfill import GeometryConfig


def test_it_is_on_by_default_and_off_in_the_papers_preset():
    assert GeometryConfig().resolve({}).enabled
    assert GeometryConfig().resolve({}, preset="fast").enabled
    assert not GeometryConfig().resolve({}, preset="paper").enabled
    assert GeometryConfig(enabled=True).resolve({}, preset="paper").enabled
    assert not GeometryConfig(enabled=False).resolve({}).enabled


def test_open_fields_follow_an_adapter():
    adapter = GeometryConfig(enabled=False, photographed_confidence=0.7).resolve({}).to_dict()
    assert not GeometryConfig().resolve(adapter).enabled
    assert GeometryConfig(enabled=True).resolve(adapter).photographed_confidence == 0.7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"photographed_confidence": 1.5}, "photographed_confidence is 1.5; legal: a number in"),
        ({"photographed_confidence": 0.2, "corrected_confidence": 0.3}, "corrected_confidence is 0.3; legal: at most"),
    ],
)
def test_illegal_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        GeometryConfig(**values)


def test_thresholds_in_the_wrong_order_are_refused_when_defaults_fill_them():
    with pytest.raises(ValueError, match=r"legal: at most photographed_confidence, which is 0\.005"):
        GeometryConfig(photographed_confidence=0.005).resolve({})
