"""Options that several commands share: for the machine, for reading a scene, and for writing completions."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realfill.errors import RealFillWarning
from realfill.io.formats import FileFormat

if TYPE_CHECKING:
    from realfill.results.completions import Completions
    from realfill.scene.scene import Scene

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


class UsageError(Exception):
    """The command line is not valid; the exit status is 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """Options for the device, the network and the report."""

    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1`` or ``mps``. None: the best available."""
    local_files_only: bool = False
    """Do not use the network for the base model; HF_HUB_OFFLINE=1 does the same."""
    quiet: bool = False
    """Show no progress and no report."""
    traceback: bool = False
    """Print the traceback of an error."""

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments for device and network that library functions take."""
        return {"device": self.device, "local_files_only": self.local_files_only}

    @property
    def progress(self) -> bool:
        """Whether to show progress."""
        return not self.quiet

    def say(self, line: str) -> None:
        """Print a line of the report; of several processes that train together, only the first does."""
        if not self.quiet and os.environ.get("RANK", "0") == "0":
            print(line, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """Options for reading the scene. Give them to every command for the same scene."""

    outpaint: str | None = None
    """Enlarge the canvas on every side, by pixels (100px) or by a share of the target (30%). The new pixels are filled,
    and so is the hole of a mask, if the folder has one."""
    outpaint_left: str | None = None
    """Enlarge the left side. None: as --outpaint says."""
    outpaint_right: str | None = None
    """Enlarge the right side. None: as --outpaint says."""
    outpaint_top: str | None = None
    """Enlarge the top. None: as --outpaint says."""
    outpaint_bottom: str | None = None
    """Enlarge the bottom. None: as --outpaint says."""
    outpaint_aspect: str | None = None
    """Enlarge the canvas to an aspect ratio, such as 16:9 or 1.5, instead of by sides."""
    outpaint_anchor: float = 0.5
    """Share of the new pixels left of the target or above it, with --outpaint-aspect. 0.5 centres the target."""
    dilation_px: int = 0
    """Grow the hole by this many pixels. A few pixels help if the mask is too
    tight around the object that it should remove."""

    def load_scene(self, directory: Path) -> Scene:
        """Read the scene in a folder, enlarge its canvas and grow its hole.

        Raises:
            SceneError: the scene cannot be used, or the canvas cannot be made.
        """
        with warnings.catch_warnings():
            if self.dilation_px:  # growing the hole is the remedy that this warning names
                warnings.filterwarnings("ignore", ".* look mixed with the blank", RealFillWarning)
            return self._read(directory).dilated(self.dilation_px)

    def _read(self, directory: Path) -> Scene:
        from realfill.scene.reading import find_parts, find_reference_masks
        from realfill.scene.scene import Scene

        sides = {
            "left": self.outpaint_left,
            "right": self.outpaint_right,
            "top": self.outpaint_top,
            "bottom": self.outpaint_bottom,
        }
        growth: dict[str, Any] = {side: text for side, text in sides.items() if text is not None}
        if self.outpaint is not None:
            growth["margin"] = self.outpaint
        if self.outpaint_aspect is not None:
            growth |= {"aspect": self.outpaint_aspect, "anchor": self.outpaint_anchor}
        if not growth:
            return Scene.load(directory)
        references, target, mask = find_parts(directory)
        masks = find_reference_masks(directory, references)
        return Scene.outpaint(references, target, mask, reference_masks=masks, **growth)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Options for writing completions."""

    file_format: FileFormat = "png"
    """``png`` and ``tiff`` keep the target's own values outside the hole, in its own colours and depth; ``jpeg`` keeps
    values close to them."""
    quality: int = 95
    """Quality of JPEGs, from 1 to 100."""
    layers: bool = False
    """Also write layers for an editor: each completion's generated pixels alone, and layers.ora (GIMP, Krita), which
    holds them all above the untouched target."""
    overwrite: bool = False
    """Replace the results in the output folder."""

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"OutputOptions.quality is {self.quality}; legal: from 1 to 100")

    @property
    def formats(self) -> dict[str, Any]:
        """The options that decide the files' content, as plain JSON values."""
        return {"format": self.file_format, "quality": self.quality, "layers": self.layers}

    def write(self, completions: Completions, directory: Path) -> None:
        """Save completions. The caller has checked that those in the folder may be replaced."""
        completions.save(
            directory, overwrite=True, file_format=self.file_format, quality=self.quality, layers=self.layers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions(OutputOptions):
    """Options for writing completions and what they rest on."""

    pictures: bool = False
    """Also write pictures of what the references show, into the folder ``composite``: the matches with each of them,
    the layers, depth, sources and confidence. If the result is finished already, only the composite is computed
    again, and the pictures are added."""


def load_scene(options: SceneOptions, machine: MachineOptions, directory: Path) -> Scene:
    """Read a scene, and report which pixels were taken as its hole."""
    scene = options.load_scene(directory)
    source = getattr(scene, "mask_source", None)
    if source is not None:
        machine.say(f"hole: {source}")
    return scene


def say_result(machine: MachineOptions, completions: Completions, where: str) -> None:
    """Report the best completion, where it is, and what its pixels rest on."""
    machine.say(f"{describe_first(completions)}; written to {where}")
    if completions.evidence is not None and completions.scene.references:
        machine.say(completions.evidence.describe())
    verdict = completions.best.verdict
    if verdict is not None:
        machine.say(f"{verdict.kind}: {verdict.reason}")


def describe_first(completions: Completions) -> str:
    """Describe the best completion, or the first one if they have no scores."""
    if completions.best.seed is None:
        return "one result, the same for every seed"
    return f"{'best' if completions.ranked else 'first, not ranked'}: {completions.best!r}"
