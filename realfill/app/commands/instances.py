"""``realfill instances``: the objects and people in a photo, numbered."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from realfill.app.commands.common import MachineOptions

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """List the objects and people in a photo, and draw them as numbered outlines."""

    photo: Path
    """Photo to look into."""
    file: Path | None = None
    """Picture to write, with numbered outlines."""
    detector: str = "auto"
    """``offline``, ``mask2former``, ``mask2former-large``, ``mask2former-panoptic``, ``rt-detr``, ``detr``, a hub id or
    a folder. ``auto`` takes ``mask2former`` if its weights are on this machine, else ``offline``."""
    threshold: float | None = None
    """Least score of an instance, from 0 to 1. None: 0.5, lowered to at least 0.25 while nobody is found."""
    overwrite: bool = False
    """Replace the picture."""
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        from realfill.app.commands.selecting import require_free, write_picture
        from realfill.io.images import read_image
        from realfill.segmentation.detection import find_instances
        from realfill.segmentation.preview import draw_instances

        if self.file is not None:
            require_free(self.file, overwrite=self.overwrite)
        image = read_image(self.photo, "the photo")[0]
        found = find_instances(image, detector=self.detector, threshold=self.threshold, **self.machine.keywords)
        print(found.describe())
        self.machine.say(f"found by {found.detector} at threshold {found.threshold:g}")
        if self.file is not None:
            write_picture(self.file, draw_instances(image, found))
            self.machine.say(f"written to {self.file}")
