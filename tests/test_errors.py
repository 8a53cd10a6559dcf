import warnings

import pytest

from realfill.errors import OutputError, RealFillError, RealFillWarning, SceneError, one_line, warn


@pytest.mark.parametrize("kind", [RealFillError, SceneError, OutputError])
def test_the_text_of_an_error_is_one_printable_line(kind):
    text = str(kind("'a\nb' \x1b[2J \u202e\n  is bad"))
    assert text == r"'a b' \x1b[2J \u202e is bad"


def test_a_long_value_loses_its_middle_and_the_fix_stays():
    line = one_line(f"prompt is {'y' * 5000}; legal: up to 100 letters")
    assert len(line) < 1300
    assert line.startswith("prompt is yyy") and line.endswith("; legal: up to 100 letters")


def test_a_warning_is_one_line_too():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("a\nb.jpg is left out")
    assert [(w.category, str(w.message)) for w in caught] == [(RealFillWarning, "a b.jpg is left out")]
