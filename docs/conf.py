"""Sphinx configuration: sphinx-build -W -b html docs docs/_build."""  # noqa: INP001

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import realfill
import realfill.errors

project = "realfill"
author = "The realfill developers"
version = release = realfill.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"realfill {release}"
html_theme_options = {"source_directory": "docs/"}
html_copy_source = False
templates_path: list[str] = []
suppress_warnings = ["config.cache"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88

_COLON = "\ue000"  # stands for a colon while napoleon works
_HELP_COLUMNS = 88
_MINI = json.loads((Path(realfill.__file__).parent / "models/mini/weights/card.json").read_text(encoding="utf-8"))


def _public(kind: str) -> Iterator[tuple[str, str]]:
    """List the public names of a kind (functions, classes, configs, errors) with their autodoc directives."""
    if kind == "errors":
        classes = (c for _, c in inspect.getmembers(realfill.errors, inspect.isclass))
        names = sorted((c.__name__ for c in classes if c.__module__ == realfill.errors.__name__), key=_error_order)
        yield from ((f"realfill.errors.{name}", "autoclass") for name in names)
        return
    names = list(realfill.__all__)
    if kind == "configs" and "WindowConfig" not in names:
        names.append("config.WindowConfig")
    for name in names:
        exported = getattr(realfill, name) if "." not in name else import_module("realfill.config").WindowConfig
        if kind == _kind(exported):
            yield f"realfill.{name}", "autofunction" if kind == "functions" else "autoclass"


def _kind(exported: Any) -> str:
    if inspect.isfunction(exported):
        return "functions"
    return "configs" if exported.__name__.endswith("Config") else "classes"


def _error_order(name: str) -> tuple[bool, bool, str]:
    return name != "RealFillError", name.endswith("Warning"), name


class PublicNames(SphinxDirective):
    """Document every public name of one kind from its docstring."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Hand the names to autodoc."""
        kind = self.arguments[0]
        lines = []
        for name, directive in _public(kind):
            lines += ["", f".. {directive}:: {name}"]
            if directive == "autoclass":
                lines += ["   :members:", "   :exclude-members: __init__, resolve, following, presets"]
            if kind == "errors":
                lines += ["   :show-inheritance:"]
        content = ["```{eval-rst}", *lines, "```"]
        return self.parse_text_to_nodes(StringList(content, source=f"public-names {kind}"))


class CommandHelp(SphinxDirective):
    """Show the full help of every command, as the command line prints it."""

    def run(self) -> list[nodes.Node]:
        """Make one section for each command."""
        overview = _help("--help")
        commands = re.search(r"\{([a-z,-]+)\}", overview)
        if commands is None:
            raise self.error(f"the help names no commands:\n{overview}")
        sections: list[nodes.Node] = [nodes.literal_block(overview, overview, language="text")]
        for command in commands.group(1).split(","):
            text = _help(command, "--help-all")
            title = nodes.title("", "", nodes.literal("", f"realfill {command}"))
            section = nodes.section("", title, nodes.literal_block(text, text, language="text"))
            section["ids"], section["names"] = [f"realfill-{command}"], [f"realfill {command}"]
            self.state.document.note_explicit_target(section)
            sections.append(section)
        return sections


def _help(*arguments: str) -> str:
    """Run the command line for a help text, with ``--help`` where a command has no longer one."""
    code = "import sys; from realfill.app.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"COLUMNS": str(_HELP_COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode == 0 and done.stdout:
        return done.stdout.rstrip()
    if arguments[-1] == "--help-all":
        return _help(*arguments[:-1], "--help")
    raise RuntimeError(f"realfill {' '.join(arguments)} ended with status {done.returncode}:\n{done.stderr}")


def _hide_colons(_app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading the words before a colon as an attribute's type."""
    if what in ("attribute", "property"):
        lines[:] = [line.replace(":", _COLON) for line in lines]


def _show_colons(_app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    if what in ("attribute", "property"):
        lines[:] = [line.replace(_COLON, ":") for line in lines]


def _hide_signature(_app: Sphinx, what: str, name: str, *_: Any) -> tuple[str, str] | None:
    """Leave out the signature of a config, whose fields are listed below it."""
    return ("", "") if what == "class" and name.endswith("Config") else None


def _add_default(_app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Tell the default of a config's field, which a dataclass with slots hides from autodoc."""
    owner, _, field_name = name.rpartition(".")
    module, _, class_name = owner.rpartition(".")
    if what != "attribute" or not class_name.endswith("Config"):
        return
    cls = getattr(import_module(module), class_name)
    field = next((f for f in dataclasses.fields(cls) if f.name == field_name), None)
    if field is None:
        return
    default = field.metadata.get("fallback", field.default)
    parts = {"FitConfig": "fit", "SampleConfig": "sample", "RankConfig": "rank", "WindowConfig": "window"}
    card = _MINI.get(parts.get(class_name, ""), {})
    own = f"; ``mini``: ``{card[field_name]!r}``" if field_name in card else ""
    covered = _MINI["covered_fit"] if class_name == "FitConfig" else {}
    if field_name in covered:
        own += f"; where references show at least 90 % of the hole: ``{covered[field_name]!r}``"
    lines += ["", f"*Default:* ``{default!r}``{own}"]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives of this site."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-process-docstring", _hide_colons, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-docstring", _show_colons, priority=600)
    app.connect("autodoc-process-docstring", _add_default, priority=700)
    app.connect("autodoc-process-signature", _hide_signature)
    return {"parallel_read_safe": False}
