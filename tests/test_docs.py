"""The documentation names only what exists."""

import ast
import importlib
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from realfill.app.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]


def text_of(pages):
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


@cache
def resolve(name):
    """Import the module in a dotted name, and look up the attributes after it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(realfill(?:\.\w+)+)`", text_of(PAGES)))))
def test_a_name_in_the_documentation_can_be_imported(name):
    resolve(name)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"\b((?:realfill|tests|examples)/[\w/]+\.(?:py|ipynb|json))\b", text_of(PAGES))))
)
def test_a_file_named_in_the_documentation_exists(path):
    assert (ROOT / path).is_file()


def test_the_code_in_the_documentation_compiles_and_imports_public_names():
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(PAGES), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        compile(block, "<docs>", "exec")
        for module, names in re.findall(r"^from (realfill[\w.]*) import (.+)$", block, re.MULTILINE):
            for name in names.split(", "):
                assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def messages():
    """Collect the texts in the library's code; an inserted value reads as an ellipsis."""
    for file in (ROOT / "realfill").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_a_quoted_message_is_one_of_the_library():
    pages = [ROOT / "docs" / name for name in ("troubleshooting.md", "guides/masks.md", "guides/references.md")]
    prose = re.sub(r"```.*?```|`[^`]*`", "", text_of(pages), flags=re.DOTALL)
    quotes = [" ".join(quote.split()) for quote in re.findall(r'"([^"]+)"', prose)]
    assert quotes
    known = "\n".join(messages())
    assert [q for q in quotes if not all(piece.strip() in known for piece in q.split("…"))] == []


def test_the_hooks_have_the_versions_of_the_constraints():
    pinned = set((ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    hooks = re.findall(r"[\w-]+==[\w.]+", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert hooks
    assert set(hooks) <= pinned


def test_options_in_the_documentation_are_options_of_the_command_line(capsys):
    def help_of(*arguments):
        with suppress(SystemExit):
            main(arguments)
        return capsys.readouterr().out

    overview = help_of("--help")
    commands = re.search(r"\{([a-z,-]+)\}", overview).group(1).split(",")
    texts = [overview, *(help_of(command, "--help-all") for command in commands)]
    legal = {option for text in texts for option in re.findall(r"--[\w-]+", text)}
    lines = re.findall(r"^realfill .*$|`realfill [^`]*`", text_of(PAGES), re.MULTILINE)
    used = {option for line in lines for option in re.findall(r"(?<!\S)--[\w-]+", line)}
    assert used
    assert used <= legal
