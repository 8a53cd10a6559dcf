"""The result of ``erase``: a completion, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from realfill.io.images import ImageArray, MaskArray
from realfill.results.completion import Completion


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Erasure:
    """The result of ``erase``.

    Attributes:
        completion: the photo without what the mask covered, with its metadata.
        engine: what filled the hole, for example ``composite, 12 % by telea``.
        mask_source: description of what was removed.
        num_passes: 2 if the first result showed a rest, and a second one, with its box in the mask or with other seeds,
            shows less.
        rest_px: pixels of the removed classes that the detector still finds in the hole; ``None``: it did not look.
        num_strangers: for each reference the number of instances that were hidden in it.
    """

    completion: Completion
    engine: str
    mask_source: str
    num_passes: int = 1
    rest_px: int | None = None
    num_strangers: tuple[int, ...] = ()

    @property
    def image(self) -> ImageArray:
        """The result, (H, W, 3) uint8 sRGB; outside the mask it equals the photo."""
        return self.completion.image

    @property
    def mask(self) -> MaskArray:
        """The filled pixels, (H, W) bool."""
        return self.completion.scene.mask

    def save(self, path: str | PathLike[str], *, overwrite: bool = False, quality: int = 95) -> None:
        """Write the result; see ``Completion.save``."""
        self.completion.save(path, overwrite=overwrite, quality=quality)

    def __repr__(self) -> str:
        rest = {None: "", 0: ", no rest"}.get(self.rest_px, f", a rest of {self.rest_px} pixels")
        return f"Erasure({self.mask_source}; filled by {self.engine}{rest})"
