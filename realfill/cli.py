"""The command line: ``realfill run|fit|complete|rank|demo|bench|bench-speed|models``, made from the config classes."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

import tyro

from realfill.commands.completing import Complete, Demo, Fit, Rank, Run
from realfill.commands.measuring import Bench, BenchSpeed, Models
from realfill.errors import RealFillError


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 an error, 2 bad usage, 130 interrupted."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(args)


def _run(args: Sequence[str] | None) -> int:
    try:
        command: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
            {
                "run": Run, "fit": Fit, "complete": Complete, "rank": Rank, "demo": Demo, "bench": Bench,
                "bench-speed": BenchSpeed, "models": Models,
            },
            prog="realfill", args=args,
            description="Fill a hole in a photo with what other photos of the moment show there.",
        )  # fmt: skip
    except ValueError as error:  # an illegal value in a config
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        command()
    except KeyboardInterrupt:
        print(
            "stopped; a fit of `run` or `fit` that was under way goes on where it stood with the same command",
            file=sys.stderr,
        )
        return 130
    except Exception as error:  # noqa: BLE001 - whatever it is, a line tells it better than a trace
        if getattr(command, "traceback", False):
            traceback.print_exc()
        expected = isinstance(error, RealFillError | ValueError | OSError)
        kind = "" if expected else f"{type(error).__name__}: "
        memory = "memory" in str(error).lower() and not expected
        hint = "; more --gradient-accumulation-steps, --gradient-checkpointing True or a smaller --batch-size may help"
        print(f"error: {kind}{error}{hint if memory else ''}", file=sys.stderr)
        return 1
    return 0


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
