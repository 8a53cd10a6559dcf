"""``realfill erase``: a photo without the people or things that are chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from realfill.app.commands.common import MachineOptions
from realfill.app.commands.stopping import StopOnInterrupt
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.errors import SceneError

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Erase:
    """Remove people or things from a photo, and show what was behind them: from other photos, or from around."""

    photo: Path
    """Photo to clean."""
    file: Path
    """Photo to write: .png and .tif keep every pixel that stays, .jpg keeps them closely."""
    references: Path | None = None
    """Folder of other photos of the place, which show what is behind."""
    preview: Path | None = None
    """Picture to write, with what is removed in red."""
    quality: int = 95
    """Quality of a JPEG, from 1 to 100."""
    overwrite: bool = False
    """Replace the photo to write."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    erase: EraseConfig = field(default_factory=EraseConfig)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}; legal: from 1 to 100")

    def __call__(self) -> None:
        """Run the command."""
        from realfill.app.commands.selecting import require_free, write_picture
        from realfill.io.images import read_image
        from realfill.pipeline import erase_selected
        from realfill.segmentation.preview import draw_mask

        if self.photo.is_dir():
            raise SceneError(f"the photo is {str(self.photo)!r}, a folder; legal: an image file, or realfill batch")
        for path in (self.file, self.preview):
            if path is not None:
                require_free(path, overwrite=self.overwrite)
        start = time.monotonic()
        with StopOnInterrupt() as stopping:
            result = erase_selected(
                self.photo, self.selection, self.erase, references=self.references, on_step=stopping.on_step,
                progress=self.machine.progress, **self.machine.keywords,
            )  # fmt: skip
        result.save(self.file, overwrite=self.overwrite, quality=self.quality)
        if self.preview is not None:
            write_picture(self.preview, draw_mask(read_image(self.photo, "the photo")[0], result.mask))
        self.machine.say(f"removed: {result.mask_source}")
        hidden = [f"{count} in reference {number}" for number, count in enumerate(result.num_strangers) if count]
        if hidden:
            self.machine.say(f"instances hidden in the references: {', '.join(hidden)}")
        rest = {None: "", 0: "; the detector finds no rest"}.get(
            result.rest_px, f"; the detector still finds {result.rest_px} pixels of a rest"
        )
        self.machine.say(
            f"filled by {result.engine}{rest}; written to {self.file} in {time.monotonic() - start:.0f} s"
        )  # fmt: skip
