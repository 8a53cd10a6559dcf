"""``realfill mask``: a mask of what is to be removed, and a picture that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from realfill.app.commands.common import MachineOptions
from realfill.config.selection import SelectionConfig

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Write the mask of what a selection removes, white = remove, and a picture of it on the photo."""

    photo: Path
    """Photo to mask."""
    file: Path
    """Mask to write, a PNG or TIFF."""
    preview: Path | None = None
    """Picture to write, with the mask in red. None: beside the mask, with _preview in its name."""
    overwrite: bool = False
    """Replace the files."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        from realfill.app.commands.selecting import require_free, write_picture
        from realfill.io.images import read_image
        from realfill.io.photos import Photo
        from realfill.io.writing import write_photo
        from realfill.segmentation.preview import draw_mask
        from realfill.segmentation.selecting import select

        if self.file.suffix.lower() in (".jpg", ".jpeg"):
            raise ValueError(f"the path is {str(self.file)!r}; legal: .png or .tif, which keep a mask exactly")
        preview = self.preview or self.file.with_name(f"{self.file.stem}_preview.jpg")
        for path in (self.file, preview):
            require_free(path, overwrite=self.overwrite)
        selected = select(self.photo, self.selection, **self.machine.keywords)
        mask = selected.reading.mask
        write_photo(self.file, Photo(pixels=(mask[:, :, None] * 255).astype("uint8")))
        write_picture(preview, draw_mask(read_image(self.photo, "the photo")[0], mask))
        self.machine.say(f"mask: {selected.reading.source}, {100 * mask.mean():.1f} % of the photo")
        self.machine.say(f"written to {self.file}; see {preview}")
