"""What becomes of an item of a batch, wherever it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from realfill.compute.progress import OnStep
from realfill.errors import NothingToRemoveError, RealFillError, StoppedError, one_line
from realfill.jobs.sources import Item

State: TypeAlias = Literal["done", "unchanged", "failed", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an item.

    Attributes:
        name: name of the result.
        source: name of the photo or scene; its path, if another one of the batch has the same name.
        state: ``done``; ``unchanged``, because the photo shows nothing to remove; ``failed``; or ``left``, because the
            batch ended before.
        time_s: seconds that it took.
        line: a line that describes the result, or the error.
        earlier: whether an earlier run of the batch finished it.
    """

    name: str
    source: str
    state: State
    time_s: float = 0.0
    line: str = ""
    earlier: bool = False


def attempt(item: Item, job: Callable[..., str], on_step: OnStep | None = None) -> Outcome:
    """Do one item; an error becomes its outcome, except that ``on_step`` ended it."""
    start = time.monotonic()
    state: State
    try:
        state, line = "done", job(item.source, item.target, on_step)
    except StoppedError:
        raise
    except NothingToRemoveError as error:
        state, line = "unchanged", f"nothing to remove: {error}"
    except Exception as error:  # noqa: BLE001 - what fails does not stop the rest
        kind = "" if isinstance(error, RealFillError | ValueError | OSError) else f"{type(error).__name__}: "
        state, line = "failed", f"{kind}{one_line(str(error))}"
    return Outcome(
        name=item.result.name, source=item.label, state=state, time_s=round(time.monotonic() - start, 1), line=line
    )
