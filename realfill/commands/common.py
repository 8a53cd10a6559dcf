"""What several commands take alike: where they run, how the scene is made ready, how completions are written."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import tyro

from realfill.config import FileFormat, FitConfig
from realfill.errors import RealFillWarning, SceneError

if TYPE_CHECKING:
    from realfill.results import Completions
    from realfill.scene import Scene

# Heavy rooms are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415

FitOptions: TypeAlias = Annotated[FitConfig, tyro.conf.arg(name="")]
SceneDir: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
OutputDir: TypeAlias = Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="DIR")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """Where a command runs and what it says."""

    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``; None: the best there is."""
    quiet: bool = False
    """No progress bars, no reports."""
    overwrite: bool = False
    """Replace what the output folder holds."""
    traceback: bool = False
    """On an error, print where it came from."""

    def say(self, line: str) -> None:
        """Report to the person in front."""
        if not self.quiet:
            print(line, flush=True)


@dataclass(frozen=True, kw_only=True)
class WithBase(Common):
    """The same for a command that loads a base model."""

    local_files_only: bool = False
    """Don't touch the network for the base model; HF_HUB_OFFLINE=1 does the same."""

    @property
    def machine(self) -> dict[str, Any]:
        """What the library takes as keywords about where it runs."""
        return {"device": self.device, "local_files_only": self.local_files_only}


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How the scene in a folder is made ready."""

    outpaint: int | float | None = None
    """Let the canvas grow beyond the target, on every side by pixels (100) or by a share of the target (0.3). The
    folder needs no mask then; if it has one, that is filled too. Give the same to every command for a scene."""
    outpaint_left: int | float | None = None
    """The same for one side."""
    outpaint_right: int | float | None = None
    """The same for one side."""
    outpaint_top: int | float | None = None
    """The same for one side."""
    outpaint_bottom: int | float | None = None
    """The same for one side."""
    outpaint_aspect: str | None = None
    """In place of sides: the canvas's aspect, such as 16:9 or 1.5, which the shorter way grows to."""
    outpaint_anchor: float = 0.5
    """Share of what an aspect adds that lies left of the target or above it. 0.5: the target is centred."""
    dilation_px: int = 0
    """Pixels by which the hole is grown; a few help where a mask cuts too close to what it should remove. Give the same
    to every command for a scene."""

    def load_scene(self, directory: Path) -> Scene:
        """Read the scene in a folder, on its larger canvas and with its grown hole if asked for.

        Raises:
            SceneError: the scene can't be used, or the canvas can't be made.
        """
        with warnings.catch_warnings():
            if self.dilation_px:
                warnings.filterwarnings("ignore", ".* look mixed with the blank", RealFillWarning)  # it is mended here
            return self._read(directory).dilated(self.dilation_px)

    def _read(self, directory: Path) -> Scene:
        from realfill.scene import Scene
        from realfill.scene_parts import find_parts

        sides = {
            "left": self.outpaint_left,
            "right": self.outpaint_right,
            "top": self.outpaint_top,
            "bottom": self.outpaint_bottom,
        }
        if self.outpaint is None and self.outpaint_aspect is None and all(side is None for side in sides.values()):
            return Scene.load(directory)
        references, target, mask = find_parts(directory)
        aspect = None if self.outpaint_aspect is None else _parse_aspect(self.outpaint_aspect)
        margin = 0 if self.outpaint is None else self.outpaint
        return Scene.outpaint(
            references, target, mask, margin=margin, aspect=aspect, anchor=self.outpaint_anchor, **sides
        )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How completions are written."""

    file_format: Annotated[FileFormat, tyro.conf.arg(name="format")] = "png"
    """``png`` and ``tiff`` hold the target's own values outside the hole, in its own colours and depth. ``jpeg`` is
    lossy there too: values come close to the target's."""
    quality: int = 95
    """Quality of JPEGs, from 1 to 100."""
    layers: bool = False
    """Write what an editor goes on with too: for each completion only what was filled, the rest transparent, and
    layers.ora (GIMP, Krita), which holds them all above the untouched target."""

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}; legal: from 1 to 100")

    def check_output(self, directory: Path, scene: Scene, *, overwrite: bool) -> None:
        """Make sure, before anything expensive, that a scene's completions can be saved as asked for."""
        from realfill.io.writing import require_size
        from realfill.results import check_output

        require_size(scene.original, self.file_format)
        check_output(directory, overwrite=overwrite)

    def write(self, completions: Completions, directory: Path, *, overwrite: bool) -> None:
        """Save completions as asked for."""
        completions.save(
            directory, overwrite=overwrite, file_format=self.file_format, quality=self.quality, layers=self.layers
        )


def _parse_aspect(text: str) -> float | tuple[float, float]:
    try:
        width, colon, height = text.partition(":")
        return (float(width), float(height)) if colon else float(width)
    except ValueError:
        raise SceneError(f"the aspect is {text!r}; legal: such as 16:9 or 1.5") from None
