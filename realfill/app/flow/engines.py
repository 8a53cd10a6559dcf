"""The engines for a quick result, and why one cannot run here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from realfill.app.flow.settings import Settings
from realfill.config import EngineName

QuickEngine: TypeAlias = EngineName | Literal["auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine that fills what references do not show.

    Attributes:
        name: its name.
        label: what people read.
        obstacle: why it cannot run on this machine; empty if it can.
    """

    name: QuickEngine
    label: str
    obstacle: str = ""


def list_engines(settings: Settings) -> list[EngineChoice]:
    """List the engines that ``realfill erase --engine`` offers for what the references do not show.

    Files are named without their folders, because strangers read it on the page.
    """
    return [
        EngineChoice(name="auto", label=f"the best that can run here ({best_engine()})"),
        EngineChoice(name="lama", label="LaMa", obstacle=_missing("lama")),
        EngineChoice(name="migan", label="MI-GAN", obstacle=_missing("migan")),
        EngineChoice(name="completion", label="the completion network", obstacle=_no_network(settings)),
        EngineChoice(name="telea", label="Telea's method"),
        EngineChoice(name="smooth", label="a smooth fill"),
        EngineChoice(name="shiftmap", label="shifted patches"),
        EngineChoice(name="base", label=f"{Path(settings.fit.base).name}, without a fit", obstacle=_no_base(settings)),
    ]  # fmt: skip


def require_runnable(name: str, settings: Settings) -> QuickEngine:
    """Check that an engine exists and can run here; return its name.

    Raises:
        ValueError: it does not.
    """
    choices: dict[str, EngineChoice] = {choice.name: choice for choice in list_engines(settings)}
    if name not in choices:
        raise ValueError(f"the engine is {name!r}; legal: {', '.join(choices)}")
    if choices[name].obstacle:
        legal = ", ".join(choice.name for choice in choices.values() if not choice.obstacle)
        raise ValueError(f"the engine {name!r} cannot run here: {choices[name].obstacle}; legal: {legal}")
    return choices[name].name


def best_engine() -> EngineName:
    """Return the best engine that needs no file, or whose file is on this machine."""
    return "lama" if not _missing("lama") else "migan" if not _missing("migan") else "telea"


def _missing(name: Literal["lama", "migan"]) -> str:
    from realfill.models.feedforward.torchscript import RELEASES, is_present  # noqa: PLC0415 - imports torch

    if is_present(name):
        return ""
    return (
        f"its file is not on this machine; realfill erase --engine {name} downloads it, {RELEASES[name].megabytes} MB"
    )


def _no_network(settings: Settings) -> str:
    given = settings.completion
    return "" if given is None or given.exists() else f"there is no file {given.name!r}"


def _no_base(settings: Settings) -> str:
    from realfill.models.diffusion.hub import is_present  # noqa: PLC0415 - imports torch

    checks: list[Callable[[], bool]] = [lambda: not settings.local_files_only, lambda: is_present(settings.fit.base)]
    return "" if any(check() for check in checks) else "it is not on this machine"
