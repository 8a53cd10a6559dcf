"""Options of the command line, generated from the fields of command and config classes."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

DAILY = frozenset({
    "--adapter", "--base", "--box", "--click", "--detector", "--dilation-px", "--drop", "--engine", "--extend",
    "--format", "--host", "--keep", "--keep-at", "--keep-largest", "--layers", "--mask", "--matcher", "--methods",
    "--metrics", "--minutes", "--no-browser", "--no-fit", "--num-epochs", "--num-inference-steps", "--num-samples",
    "--num-steps", "--outpaint", "--outpaint-aspect", "--output", "--overwrite", "--pictures", "--port",
    "--preset", "--preview", "--processes", "--quiet", "--recipes", "--redo", "--redo-mask", "--references",
    "--scheduler", "--score-by", "--strip-location", "--work",
})  # fmt: skip
"""The options that ``--help`` shows beside the required ones. ``--help-all`` shows every option."""

_NAMES = {
    **{
        ("SampleConfig", name): f"sample-{name}"
        for name in ("preset", "seed", "batch_size", "prompt", "base", "quantization")
    },
    ("EraseConfig", "guidance_from"): "erase-guidance-from",
    ("EraseConfig", "guidance_scale"): "erase-guidance-scale",
    ("GeometryConfig", "enabled"): "geometry",
    **{(owner, "file_format"): "format" for owner in ("OutputOptions", "ResultOptions")},
    **{(command, "file"): "output" for command in ("Instances", "Mask", "Erase")},
    ("Batch", "file_format"): "format",
}
"""Options whose name differs from that of their field."""

_POSITIONAL = ("scene", "scenes", "completions", "photo", "photos", "sources")
"""Fields that are arguments without a name."""

_METAVARS = {"output": "DIR", "file": "FILE", "references": "DIR", **{name: name.upper() for name in _POSITIONAL}}
"""Placeholders for the values of some fields in the help; for other fields, the type is the placeholder."""

_LEFT_OUT = {("AdaptConfig", "base"), ("FitConfig", "base")}  # each command has an option of its own for it

_TYPES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: "{True,False}"}
_SENTENCE_END = re.compile(r"(?<=[\w)][.])\s+(?=[A-Z`\"])")
_MEANING_OF_NONE = re.compile(r"\s*None: (.+?)[.](?=\s|$)")


def option_name(owner: str, field: str) -> str:
    """Return the option of a field, such as ``--num-steps``.

    Args:
        owner: name of the class that has the field.
        field: name of the field.
    """
    return "--" + _NAMES.get((owner, field), field).replace("_", "-")


def in_options(message: str) -> str:
    """Replace ``FitConfig.num_steps`` and the like in an error message by the name of the option."""
    return re.sub(r"\b(\w+(?:Config|Options))\.(\w+)", lambda m: option_name(m[1], m[2]), message)


Detail: TypeAlias = Literal["none", "daily", "brief", "full"]
"""Detail of the help that tyro gets for options: nothing (``none``), the first sentence of each description
(``brief``), the same for the options in ``DAILY`` alone (``daily``), or everything (``full``)."""


def make_registry(detail: Detail) -> ConstructorRegistry:
    """Make the rule by which tyro turns the dataclasses of this package into options."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type) or not info.type.__module__.startswith("realfill."):
            return None
        return StructConstructorSpec(instantiate=info.type, fields=tuple(_fields(info.type, detail)))

    return registry


def _fields(cls: type, detail: Detail) -> Iterator[StructFieldSpec]:
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if (cls.__name__, field.name) in _LEFT_OUT:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        hint = hints[field.name]
        nested = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if dataclasses.is_dataclass(nested):
            yield _group(field.name, hint, inspect.getdoc(nested) or "", default, detail)
        else:
            yield _field(cls, field, hint, default, detail)


def _group(name: str, hint: Any, about: str, default: Any, detail: Detail) -> StructFieldSpec:
    """Describe a nested class, whose options are a group of the help."""
    return StructFieldSpec(
        name=name,
        type=hint,
        default=tyro.MISSING_NONPROP if default is dataclasses.MISSING else default,
        helptext=_plain(about, {}).split("\n")[0] if detail == "full" else "",
    )


def _field(cls: type, field: dataclasses.Field, hint: Any, default: Any, detail: Detail) -> StructFieldSpec:
    text, meaning = _documentation(cls)[field.name], None
    if (none := _MEANING_OF_NONE.search(text)) is not None:
        text, meaning = _MEANING_OF_NONE.sub("", text, count=1).strip(), none[1]
    names = {f.name: option_name(cls.__name__, f.name) for f in dataclasses.fields(cls)}
    required = default is dataclasses.MISSING
    markers: list[Any] = [tyro.conf.FlagCreatePairsOff]
    if field.name in _POSITIONAL:
        markers.append(tyro.conf.Positional)
    if detail != "full":
        text = _SENTENCE_END.split(text)[0]
    if default is True:  # the flag is --no-FIELD
        text = f"Switch this off: {text[0].lower()}{text[1:]}"
    if detail == "daily" and names[field.name] not in DAILY and not required:
        markers.append(tyro.conf.Suppress)
    argument = tyro.conf.arg(
        name=names[field.name].removeprefix("--"),
        aliases=("-o",) if names[field.name] == "--output" else None,
        metavar=None if isinstance(default, bool) else _METAVARS.get(field.name, _metavar(hint)),  # a flag has none
        prefix_name=False,
        help_behavior_hint="" if detail == "none" else _plain(_hint(field, default, meaning), names),
    )
    return StructFieldSpec(
        name=field.name,
        type=Annotated[(hint, argument, *markers)],  # type: ignore[arg-type]
        default=tyro.MISSING_NONPROP if required else default,
        helptext="" if detail == "none" else _plain(text, names),
    )


def _hint(field: dataclasses.Field, default: Any, meaning: str | None) -> str:
    """Describe the default of an option."""
    if default is dataclasses.MISSING:
        return "(required)"
    if "fallback" in field.metadata:
        return f"(default: set by the base model, else {_as_words(field.metadata['fallback'])})"
    if default is None:
        return f"(default: {meaning})" if meaning is not None else ""
    if default is True:
        return "(default: on)"
    return "" if default is False or default == () else f"(default: {_as_words(default)})"


def _as_words(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return repr(value) if value == "" or (isinstance(value, str) and " " in value) else str(value)


def _metavar(hint: Any) -> str:
    """Describe the values of a type, apart from ``None``, which is no value on a command line."""
    origin, args = get_origin(hint), [a for a in get_args(hint) if a is not NoneType]
    if origin in (Union, UnionType, Annotated):
        return _metavar(args[0])
    if origin is Literal:
        return "{" + ",".join(args) + "}"
    if origin is tuple:
        return f"{_metavar(args[0])} ..." if args[-1] is ... else " ".join(map(_metavar, args))
    return _TYPES[hint]


def _plain(text: str, names: Mapping[str, str]) -> str:
    """Convert a docstring to help text: without markup, and with the names of options instead of fields."""
    return re.sub(r"``(.+?)``", lambda m: names.get(m[1], m[1]), text).replace("\\", "")


@functools.cache
def _documentation(cls: type) -> Mapping[str, str]:
    """Read the docstrings under the fields of a class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for statement, following in itertools.pairwise(body):
            target = statement.target if isinstance(statement, ast.AnnAssign) else None
            value = following.value if isinstance(following, ast.Expr) else None
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                texts[target.id] = " ".join(str(value.value).split())
    return texts
