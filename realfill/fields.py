"""What the configs share: open fields, checks, the way to JSON and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

Presets: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By a preset's name, by a field's: a function of what the field would be without it, or else a value, for bases whose
card says nothing of the field."""
T = TypeVar("T")
if TYPE_CHECKING:
    Auto = Annotated[T, "resolved"]  # code that runs on a resolved config sees a plain T
else:
    Auto = T | None


def auto(value: Any) -> Any:
    """Declare a field that is ``None`` until resolved, and falls back on ``value``."""
    return field(default=None, metadata={"fallback": value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A frozen dataclass of fields that may be left open."""

    presets: ClassVar[Presets] = {}

    def resolve(self, defaults: Mapping[str, Any]) -> Self:
        """Fill each field left ``None``: by the preset, else from a base model's card, else from the paper.

        The preset ``paper`` passes the card over. The others start from what the card and the paper say.

        Args:
            defaults: field name to value, as the card states them.

        Returns:
            A config of the same class without open fields (but for those that are free to stay ``None``).

        Raises:
            ValueError: ``defaults`` names a field that doesn't exist or holds an illegal value.
        """
        unknown = set(defaults) - {f.name for f in dataclasses.fields(self)}
        if unknown:
            raise ValueError(f"{type(self).__name__} has no field {sorted(unknown)}")
        preset = getattr(self, "preset", None)
        recipe = self.presets.get(preset or "", {})
        changes = {}
        for f in dataclasses.fields(self):
            if getattr(self, f.name) is None:
                rule, fallback = recipe.get(f.name), f.metadata.get("fallback")
                if callable(rule):
                    value = rule(defaults.get(f.name, fallback))
                elif preset == "paper":
                    value = fallback
                else:
                    value = defaults.get(f.name, fallback if rule is None else rule)
                changes[f.name] = tuple(value) if isinstance(value, list) else value
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Convert back from ``to_dict``'s values."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def _check_types(self) -> None:
        hints = get_type_hints(type(self))
        for f in dataclasses.fields(self):
            self._check(f.name, _is_a(getattr(self, f.name), hints[f.name]), _describe(hints[f.name]))

    def _check(self, name: str, legal: object, what: str) -> None:
        if not legal:
            raise ValueError(f"{type(self).__name__}.{name} is {getattr(self, name)!r}; legal: {what}")

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


def _is_a(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type as the fields here declare it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_a(value, a) for a in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        wanted = args[:1] * len(value) if isinstance(value, tuple) and args[-1] is ... else args
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_is_a, value, wanted))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType, Literal):
        return ", ".join(a if isinstance(a, str) else _describe(a) for a in args)
    if origin is tuple:
        return (
            f"a tuple of {_describe(args[0])}" if args[-1] is ... else f"a tuple of {len(args)}: {_describe(args[0])}"
        )
    names = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False", NoneType: "None"}
    return names[hint]
