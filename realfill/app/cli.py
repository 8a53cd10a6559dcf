"""The command line: ``realfill COMMAND``."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any, Union

import tyro

from realfill import __version__
from realfill.app.commands.common import UsageError
from realfill.app.commands.stopping import SignalsEndCommand
from realfill.app.options import Detail, in_options, make_registry
from realfill.app.streams import UnbreakableStream
from realfill.errors import RealFillError, StoppedError, one_line

_COMMANDS = {
    "run": "Fit a scene, complete it and rank the results.",
    "fit": "Fit a base model to a scene and save the adapter.",
    "complete": "Complete a scene with an adapter, or with a bare base model.",
    "rank": "Rank completions that were written earlier.",
    "erase": "Remove people or things from a photo.",
    "instances": "List the objects and people in a photo, numbered.",
    "mask": "Write a mask of what is to be removed from a photo.",
    "batch": "Erase in many photos, or complete many scenes.",
    "app": "Open the whole job as a page in the browser.",
    "demo": "Run the whole job on a real photo; a few minutes, no network, no GPU.",
    "bench": "Measure methods on scenes with ground truth.",
    "models": "List the base models.",
    "doctor": "Describe this machine for a bug report, and run a self-test.",
    "adapt": "Fine-tune a base model on photos of one kind.",
    "pretrain": "Pre-train a small base model on a folder of photos.",
    "train-completion": "Train a completion network on a folder of photos.",
}
_SHARED = ("fit", "run", "adapt", "pretrain")  # several processes can train together
_SHELLS = ("bash", "zsh", "fish", "tcsh")
_ABOUT = f"""Fill a hole in a photo with what other photos of the moment show there.

realfill COMMAND --help shows the options used daily, realfill COMMAND --help-all all options. realfill --version prints
the version. realfill --print-completion SHELL prints a completion script for {", ".join(_SHELLS)}."""
_SEE_ALL = "--help shows the options used daily, --help-all all of them."
_QUICK = ("erase", "instances", "mask", "rank")  # they keep nothing of an unfinished job


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: the arguments of the command line. ``None``: those of this process.

    Returns:
        The exit status: 0 done, 1 an error, 2 bad usage, 130 interrupted, 143 terminated.
    """
    words = list(sys.argv[1:] if args is None else args)
    atexit.unregister(gc.freeze)  # of an earlier call
    atexit.register(gc.freeze)  # otherwise Python looks for garbage among a million objects, for seconds, as it ends
    with (
        contextlib.redirect_stdout(UnbreakableStream(sys.stdout)),
        contextlib.redirect_stderr(UnbreakableStream(sys.stderr, ignored=OSError)),
        warnings.catch_warnings(),
    ):
        warnings.showwarning = _show_warning
        try:
            status = _until_signal(words)
            sys.stdout.flush()
        except OSError as error:  # of an answer; a command's own errors are reported by it
            return _fail(error, 1)
        return status


def _until_signal(words: list[str]) -> int:
    with SignalsEndCommand() as signals:
        try:
            return _answer_or_run(words)
        except (KeyboardInterrupt, StoppedError) as error:
            kept = f"; {error}" if error.args else ""
            again = "starts from the beginning" if words[:1] and words[0] in _QUICK else "resumes an unfinished job"
            print(f"stopped{kept}; the same command {again}", file=sys.stderr)
            return signals.status


def _answer_or_run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"realfill {__version__}")
        return 0
    try:
        if words[:1] == ["--print-completion"]:
            _print_completion(words[1:])
            return 0
        if {"-h", "--help", "--help-all"} & set(words):
            _print_help(words)
            return 0
        command = _parse(words)
    except UsageError as error:
        return _fail(error, 2)
    return _run(command)


def _run(command: Callable[[], None]) -> int:
    try:
        command()
    except UsageError as error:
        return _fail(error, 2)
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 - users get one line instead of a traceback
        if getattr(getattr(command, "machine", command), "traceback", False):
            traceback.print_exc()
        return _fail(error, 1, smaller=_smaller_work(command))
    return 0


def _smaller_work(command: object) -> str:
    """Name the options of a command that make its work smaller when memory runs out."""
    configs = [getattr(command, name, None) for name in ("fit", "adapt", "config")]
    options = ["a smaller --batch-size"] if any(hasattr(config, "batch_size") for config in configs) else []
    options += ["a smaller --sample-batch-size"] if hasattr(command, "sample") else []
    options += ["--gradient-checkpointing True"] if hasattr(command, "fit") else []
    return f"try {' or '.join(options)}" if options else "try a smaller photo, or end other programs"


def _fail(error: Exception, status: int, *, smaller: str = "") -> int:
    """Print an error as one line, which ends with ``smaller`` if memory ran out."""
    expected = isinstance(error, RealFillError | UsageError | ValueError | OSError)
    kind = "" if expected else f"{type(error).__name__}: "
    text, hint = one_line(str(error)), ""
    if isinstance(error, MemoryError):
        text = text or "memory ran out"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in text.lower()):
        hint = f"; {smaller}" if smaller else ""
    print(f"error: {kind}{in_options(text)}{hint}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {in_options(one_line(str(message)))}", file=sys.stderr)


def _load(name: str) -> type:
    """Import the class of a command."""
    module = import_module(f"realfill.app.commands.{name.replace('-', '_')}")
    return getattr(module, "".join(word.capitalize() for word in name.split("-")))


def _command_name(words: Sequence[str]) -> str:
    """Return the name of the command on the command line.

    Raises:
        UsageError: the first word is not a command.
    """
    if words and words[0] in _COMMANDS:
        return words[0]
    problem = f"there is no command {words[0]!r}" if words else "the command is missing"
    raise UsageError(f"{problem}; legal: {', '.join(_COMMANDS)}; see realfill --help")


def _require_one_process(name: str) -> None:
    """Refuse a command whose processes would all do the same work and write the same files.

    Raises:
        UsageError: torchrun or accelerate started several processes of it.
    """
    number = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if number > 1 and name not in _SHARED:
        raise UsageError(
            f"{name} works in one process, and torchrun started {number}; start it without torchrun. Legal with it: "
            f"{', '.join(_SHARED)}"
        )


def _parse(words: Sequence[str]) -> Callable[[], None]:
    """Build a command from the command line.

    Raises:
        UsageError: it is not valid.
    """
    name = _command_name(words)
    _require_one_process(name)
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return _call_tyro(_load(name), words[1:], prog=f"realfill {name}", detail="none")
    except SystemExit:
        raise UsageError(f"{_in_one_line(message.getvalue())}; see realfill {name} --help") from None
    except ValueError as error:  # an illegal value of a command's own options
        raise UsageError(f"{error}; see realfill {name} --help") from None


def _in_one_line(box: str) -> str:
    """Reduce tyro's boxed error message to one line with the value, what is legal, and the first suggestion."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()][1:]  # the first line is a title
    breaks = [i for i, line in enumerate(lines) if i > 0 and set(line) <= {"─", "-"}]
    text, everything = " ".join(" ".join(lines[: breaks[0]] if breaks else lines).split()), "\n".join(lines)
    text = re.sub(r"^-{9,} ", "", text)  # the rule under the title, if tyro draws no boxes
    if missing := re.match(r"Missing from [\w ]+: (.+)", text):
        return f"missing: {missing[1].replace(' (required)', ';').strip(' ;')}"
    if choice := re.match(r"invalid choice '(.*)' for argument '(.*)'. Expected one of \((.*)\)", text):
        legal = sorted({word.strip("' ") for word in choice[3].split(",")} - {"None", ""})
        return f"{choice[2]} is {choice[1]!r}; legal: {', '.join(legal)}"
    legal = re.search(r"Argument helptext:\s+--\S+(?:, --\S+)* (.+)", everything)
    if legal and (value := re.match(r"Error parsing (--\S+): .* from \[(.*)\]", text)):
        words = re.sub(r"\bINT\b", "a whole number", re.sub(r"\bFLOAT\b", "a number", legal[1]))
        return f"{value[1]} is {value[2]}; legal: {words}"
    if number := re.match(
        r"Error parsing (--\S+): (invalid literal for int|could not convert string to float).*: '(.*)'$", text
    ):
        return f"{number[1]} is {number[3]!r}; legal: a {'whole number' if 'int' in number[2] else 'number'}"
    guess = re.search(r"Perhaps you meant:\s+(--[\w-]+)", everything)
    text = re.sub(r"^Error parsing \w+: ", "", text).strip(" .")
    return text + (f"; did you mean {guess[1]}?" if guess is not None else "")


def _print_help(words: Sequence[str]) -> None:
    if words[0] not in _COMMANDS:
        _call_tyro(_all_commands(with_options=False), ["--help"], prog="realfill", detail="none", description=_ABOUT)
        return
    command, prog = _load(words[0]), f"realfill {words[0]}"
    if "--help-all" in words:
        _call_tyro(command, ["--help"], prog=prog, detail="full")
    else:
        about = " ".join(f"{command.__doc__} {_SEE_ALL}".split())
        _call_tyro(command, ["--help"], prog=prog, detail="daily", description=about)


def _print_completion(words: Sequence[str]) -> None:
    if len(words) != 1 or words[0] not in _SHELLS:
        raise UsageError(f"--print-completion is {' '.join(words)!r}; legal: {', '.join(_SHELLS)}")
    request = ["--tyro-write-completion", words[0], "-"]
    _call_tyro(_all_commands(with_options=True), request, prog="realfill", detail="brief", description=_ABOUT)


def _all_commands(*, with_options: bool) -> Any:
    """Make the type of any command; without options, no command needs to be imported."""
    return Union[  # noqa: UP007 - it is built at run time
        tuple(
            Annotated[
                Any,
                tyro.conf.subcommand(
                    name=name, description=summary, constructor_factory=_loader(name if with_options else "models")
                ),
            ]
            for name, summary in _COMMANDS.items()
        )
    ]


def _loader(name: str) -> Callable[[], type]:
    return lambda: _load(name)


def _call_tyro(form: Any, words: Sequence[str], *, prog: str, detail: Detail, description: str | None = None) -> Any:
    """Call tyro, which exits after it has printed help, a completion script or an error."""
    try:
        return tyro.cli(form, args=words, prog=prog, description=description, registry=make_registry(detail))
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise


if __name__ == "__main__":
    sys.exit(main())
