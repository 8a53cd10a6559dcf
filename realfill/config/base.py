"""The base class of the configs: open fields and their values, checks, and conversion to JSON and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, TypeAlias, Union, get_args, get_origin, get_type_hints

Presets: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Preset name to field name to rule.

A rule is a function that maps the value without the preset to the value with it, or a plain value, which is used
where the base model states none of its own.
"""

MAX_SEED = 2**63 - 1  # the largest that torch and numpy both accept


def auto(value: Any) -> Any:
    """Declare an open field: ``None`` until it is resolved, with ``value`` (the paper's or ours) as the last resort."""
    return field(default=None, metadata={"fallback": value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A frozen dataclass whose open fields may be left ``None``.

    Each config class has a subclass of settings, in which the open fields have their final types. ``resolve`` turns
    the one into the other, so code that takes settings never meets an open field.
    """

    presets: ClassVar[Presets] = {}

    def filled(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return all values. An open field gets the value of the preset, else of the base model, else its fallback.

        The preset ``paper`` ignores the base model's defaults. The other presets start from them.

        Args:
            defaults: field name to value, as the base model's card states them.

        Raises:
            ValueError: ``defaults`` names a field that does not exist.
        """
        unknown = set(defaults) - {f.name for f in dataclasses.fields(self)}
        if unknown:
            raise ValueError(f"{type(self).__name__} has no field {sorted(unknown)}")
        preset = getattr(self, "preset", None)
        rules = self.presets.get(preset or "", {})
        values = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value is None:
                rule, fallback = rules.get(f.name), f.metadata.get("fallback")
                if callable(rule):
                    value = rule(defaults.get(f.name, fallback))
                elif preset == "paper":
                    value = fallback
                else:
                    value = defaults.get(f.name, fallback if rule is None else rule)
            values[f.name] = tuple(value) if isinstance(value, list) else value
        return values

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Convert the values of ``to_dict`` back.

        Raises:
            TypeError: a field is missing or unknown.
            ValueError: a value is illegal.
        """
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def _check_types(self) -> None:
        require_types(self)

    def _check(self, name: str, legal: object, what: str) -> None:
        if not legal:
            owner = type(self).__name__.replace("Settings", "Config")
            raise ValueError(f"{owner}.{name} is {getattr(self, name)!r}; legal: {what}")

    def _check_at_least(self, low: float, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            self._check(name, value is None or value >= low, f"a number of at least {low}")

    def _check_above_zero(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            self._check(name, value is None or value > 0, "a number above 0")

    def _check_share(self, *names: str, one: bool = True) -> None:
        for name in names:
            value = getattr(self, name)
            legal = value is None or 0 <= value < 1 or (one and value == 1)
            self._check(name, legal, f"a number in [0, 1{']' if one else ')'}")

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        legal = value is None or low <= value[0] <= value[1] <= high
        self._check(name, legal, f"two numbers (low, high) with {low} <= low <= high <= {high}")


def require_types(config: Any, *, lists: bool = False) -> None:
    """Check the values of a dataclass against the declared types of its fields.

    Args:
        config: the dataclass.
        lists: take lists for tuples, and texts for paths.

    Raises:
        ValueError: a value has another type.
    """
    hints = get_type_hints(type(config))
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        checked = tuple(value) if lists and isinstance(value, list) else value
        checked = Path(value) if lists and isinstance(value, str) and Path in get_args(hints[f.name]) else checked
        if not _is_a(checked, hints[f.name]):
            owner = type(config).__name__.replace("Settings", "Config")
            is_large = isinstance(value, int) and abs(value) > MAX_SEED
            legal = f"a whole number from {-MAX_SEED} to {MAX_SEED}" if is_large else _describe(hints[f.name])
            raise ValueError(f"{owner}.{f.name} is {value!r}; legal: {legal}")


def _is_a(value: Any, hint: Any) -> bool:
    """Check a value against the declared type of a field."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_a(value, a) for a in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        items = args[:1] * len(value) if isinstance(value, tuple) and args[-1] is ... else args
        return isinstance(value, tuple) and len(value) == len(items) and all(map(_is_a, value, items))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if hint is int and isinstance(value, int) and abs(value) > MAX_SEED:
        return False
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _is_finite(value: float) -> bool:
    return abs(value) <= MAX_SEED if isinstance(value, int) else math.isfinite(value)


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType, Literal):
        return ", ".join(a if isinstance(a, str) else _describe(a) for a in args)
    if origin is tuple:
        return (
            f"a tuple of {_describe(args[0])}" if args[-1] is ... else f"a tuple of {len(args)}: {_describe(args[0])}"
        )
    names = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False", NoneType: "None"}
    names |= {Path: "a path"}
    return names[hint]
