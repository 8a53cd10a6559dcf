"""Composed: what a scene's composite contributes to its training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from realfill.geometry.alignment import FullLayer
from realfill.geometry.layers import Layer
from realfill.geometry.sampling import Pyramid, enlarge
from realfill.io.images import ImageArray, MaskArray
from realfill.results.provenance import hash_array
from realfill.scene.masks import Box


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Composed:
    """What the composite of a scene shows.

    Attributes:
        image: (H, W, 3) uint8, the target with the hole filled.
        photographed: (H, W) bool, the pixels of the hole that are kept.
        layers: the layers, best fitting first, at the working size.
        reference_sizes: (height, width) of each reference at the working size.
    """

    image: ImageArray
    photographed: MaskArray
    layers: Sequence[Layer]
    reference_sizes: Sequence[tuple[int, int]]

    @property
    def identity(self) -> str:
        """A hash of what a fit sees of the composite itself; the layers follow from the scene."""
        hashes = hash_array(self.photographed) + hash_array(self.image[self.photographed])
        return hash_array(np.frombuffer(hashes.encode(), np.uint8))

    def of_references(self, chosen: Sequence[int]) -> Composed:
        """Return what the composite shows, with the layers of some references only, which are numbered anew.

        Args:
            chosen: their numbers, ascending.
        """
        numbers = {number: place for place, number in enumerate(chosen)}
        layers = tuple(
            replace(layer, warp=replace(layer.warp, reference=numbers[layer.warp.reference]))
            for layer in self.layers
            if layer.warp.reference in numbers
        )
        return replace(self, layers=layers, reference_sizes=[self.reference_sizes[number] for number in chosen])

    def warped(
        self,
        references: Sequence[ImageArray],
        masks: Sequence[MaskArray | None],
        size: tuple[int, int],
        region: Box,
    ) -> list[tuple[int, ImageArray, MaskArray]]:
        """Render the layer of each reference that fits best.

        Args:
            references: each (h, w, 3) uint8.
            masks: for each reference the part that is left out, (h, w) bool, or ``None``.
            size: (height, width) to which the target is resized.
            region: (top, left, bottom, right) of the resized target, the last two exclusive: what is rendered.

        Returns:
            For each reference that has a layer its number, its image in the target's colours, and the pixels that it
            shows.
        """
        part, best = (slice(region[0], region[2]), slice(region[1], region[3])), {}
        for layer in self.layers:
            best.setdefault(layer.warp.reference, layer)
        rendered = []
        for number, layer in best.items():
            whole = FullLayer.of(
                layer, self.reference_sizes[number], Pyramid(references[number]), masks[number], size
            )  # fmt: skip
            image, inside = whole.render(part)
            usable = enlarge((layer.warp.valid_mask & ~layer.warp.hidden).astype(np.float32), size, *part) > 0.99
            rendered.append((number, image.round().astype(np.uint8), inside & usable))
        return rendered
