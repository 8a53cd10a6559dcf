"""Engine: the protocol of everything that can fill a hole, from a classical method to a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from realfill.compute.progress import OnStep
from realfill.io.images import ImageArray, MaskArray


class Engine(Protocol):
    """Fills a hole from the image around it: an OpenCV method, a network, or a diffusion model without a fit.

    A diffusion model that can be fitted to a scene offers more, see ``DiffusionFamily``.
    """

    def fill(
        self, image: ImageArray, hole: MaskArray, seeds: Sequence[int], *, on_step: OnStep | None = None
    ) -> list[ImageArray]:
        """Fill the hole once for each seed.

        Args:
            image: (H, W, 3) uint8 RGB. The pixels in the hole have no influence.
            hole: (H, W) bool, True = fill.
            seeds: one for each result. A deterministic engine returns equal images.
            on_step: called after each step. If it returns ``False``, only finished images are returned.

        Returns:
            Images like ``image``, in the order of the seeds. Only pixels in the hole differ from it.
        """
        ...
