"""Any value of any field gives settings or one clear error, and settings survive JSON and the command line."""

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realfill import FitConfig, GeometryConfig, RankConfig, SampleConfig, WindowConfig
from realfill.app.cli import _call_tyro
from realfill.app.options import option_name
from realfill.benchmark.config import BenchConfig
from realfill.config.selection import EraseConfig, SelectionConfig

CONFIGS = (FitConfig, SampleConfig, WindowConfig, GeometryConfig, RankConfig)
few = settings(max_examples=40, derandomize=True, deadline=None, database=None,
               suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip

WORDS = st.sampled_from(["", " ", "paper", "lora", "ddpm", "sift", "both", "cut", "person", "\ud800", "a\nb", "mini"])
NUMBERS = st.one_of(
    st.integers(-2, 70), st.floats(), st.sampled_from([2**63, -(2**63), 10**400, 1e308, 0.5, 0.1]), st.floats(0, 1)
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.binary(max_size=2))
ANYTHING = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.lists(NUMBERS, max_size=3).map(tuple), st.tuples(WORDS),
    st.dictionaries(st.text(max_size=2), SCALARS, max_size=1),
)  # fmt: skip


def changed(config):
    names = [f.name for f in dataclasses.fields(config)]
    return st.dictionaries(st.sampled_from(names), ANYTHING, min_size=1, max_size=2)


@pytest.mark.parametrize("config", [*CONFIGS, BenchConfig, SelectionConfig, EraseConfig])
@few
@given(st.data())
def test_any_value_gives_a_config_or_an_error_that_names_the_field(config, data):
    values = data.draw(changed(config))
    try:
        made = config(**values)
    except ValueError as error:
        text = str(error)
        assert "legal: " in text
        assert any(name in text for name in values)
    else:
        assert all(type(getattr(made, f.name)) is not bytes for f in dataclasses.fields(made))


@pytest.mark.parametrize("config", CONFIGS)
@few
@given(st.data())
def test_what_is_legal_survives_json(config, data):
    try:
        made = config(**data.draw(changed(config))).resolve({})
    except ValueError:
        return
    assert type(made).from_dict(json.loads(json.dumps(made.to_dict()))) == made


PLAIN_TEXT = st.text("abc xyz0", min_size=1, max_size=6).filter(lambda t: t.strip() == t and not t.isdigit())
BY_TYPE = {
    "float | None": st.floats(0.01, 1), "float": st.floats(0, 0.9), "int | None": st.integers(64, 900),
    "int": st.integers(0, 900), "bool | None": st.booleans(), "str | None": PLAIN_TEXT, "str": PLAIN_TEXT,
    "tuple[float, float] | None": st.just((0.25, 0.5)), "tuple[int, int] | None": st.just((1, 3)),
    "tuple[int, ...] | None": st.just((40, 30)), "tuple[float, ...] | None": st.just((0.25, 1.0)),
    "tuple[str, ...] | None": st.just(("to_q", "*")),
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
@settings(few, max_examples=15)
@given(st.data())
def test_what_is_legal_survives_the_command_line(config, data):
    values = {}
    for f in data.draw(st.sets(st.sampled_from(dataclasses.fields(config)), min_size=1, max_size=3)):
        if f.type in BY_TYPE and (config.__name__, f.name) != ("FitConfig", "base"):
            values[f.name] = data.draw(BY_TYPE[f.type])
    try:
        made = config(**values)
    except ValueError:
        return
    words = []
    for name, value in values.items():
        words += [option_name(config.__name__, name), *map(str, value if isinstance(value, tuple) else (value,))]
    assert _call_tyro(config, words, prog="realfill", detail="none") == made
