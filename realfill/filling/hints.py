"""Hints: doubtful pixels of a composite, which show a base model what may belong in the hole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray, MaskArray, resize
from realfill.scene.masks import resize_mask
from realfill.scene.windows import Window

_CERTAIN = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hints:
    """The target with hints in its hole, and how far they are to be trusted.

    Attributes:
        image: (H, W, 3) uint8: the target, blank in the hole except for the hints.
        confidence: (H, W) uint8: of known pixels 255, of hints from 1 to 254, of the rest 0.
    """

    image: ImageArray
    confidence: NDArray[np.uint8]

    @classmethod
    def of_composite(
        cls, known: ImageArray, hole: MaskArray, image: ImageArray, doubtful: MaskArray, confidence: NDArray
    ) -> Hints:
        """Make hints of the doubtful pixels of a composite.

        Args:
            known: (H, W, 3) uint8, the target.
            hole: (H, W) bool, what is left to fill.
            image: (H, W, 3) uint8, the composite.
            doubtful: (H, W) bool, its pixels in the hole that become hints.
            confidence: (N,), their confidence in [0, 255].
        """
        shown = np.where(doubtful[:, :, None], image, known)
        trust = np.where(hole, np.uint8(0), np.uint8(_CERTAIN))
        trust[doubtful] = confidence.clip(1, _CERTAIN - 1)
        return cls(image=shown, confidence=trust)

    def crop(self, window: Window) -> NDArray[np.float32]:
        """Crop the confidence to a window at the model's size: (h, w) float32 in [0, 1].

        It is 0 where a pixel without a hint contributes, whose content has no meaning. Where the window is shrunk, what
        is misplaced is misplaced by fewer pixels. In photos the error then falls about as the root of the scale, and
        the confidence is an exponential of the expected error (``realfill.geometry.confidence``).
        """
        inside = self.confidence[window.slices]
        empty = resize_mask(inside == 0, window.size)
        trust = resize(inside / np.float32(_CERTAIN), window.size).clip(0, 1)
        return np.where(empty, np.float32(0), trust ** np.float32(min(1, window.scale**-0.5)))
