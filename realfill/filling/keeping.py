"""Keeping: the photographed pixels of a composite become known pixels, so that no model touches them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfill.config import GeometrySettings
from realfill.filling.hints import Hints
from realfill.geometry.confidence import error_of
from realfill.io.images import ImageArray
from realfill.results.evidence import CORRECTED, INVENTED, PHOTOGRAPHED, Evidence
from realfill.results.provenance import hash_array
from realfill.scene.scene import Scene
from realfill.scene.windows import Part

# Errors of a fill in levels: large, because a mean has less structure than the composite, and hardly at the cost of
# PSNR. Chosen on planted scenes, as ``examples/fill_error.py`` does, before the composite's detail was kept.
_FILL_ERROR = 65.0  # of Telea's and of a base that does not see the corrected pixels
_HINTED_ERROR = 40.0  # of mini, which sees them as hints
_RAMP = 0.05  # share of the way between the thresholds over which the weight rises, so that no edge shows
_FULL_DETAIL = 0.2  # confidence from which a corrected pixel keeps all of the composite's detail
_CHUNK = 1 << 20  # pixels that are averaged at a time, which bounds memory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """What a composite contributes to a scene, and what is left to fill.

    Attributes:
        scene: the target with the photographed pixels, and the rest of the hole. Its windows are those of the whole
            hole. ``None`` if nothing is left to fill.
        evidence: what the pixels rest on.
        values: (K, C): the composite's pixels of the hole, in the colours and depth of the target's file; zero where
            pixels are invented.
        detail: (M, C), what is added to a fill of the M corrected pixels: the composite's detail that is finer than the
            fill's window, in levels of the target's file. It is less where the confidence is low. ``None``: there is
            none, or nothing is known of the windows.
        hints: the corrected pixels as hints for a base model that reads them; ``None``: there are none.
        weight: (K,) float32 in [0, 1], the share of these values in the result, apart from detail: 1 where they are
            photographed, 0 where pixels are invented. Corrected pixels are weighted by the inverse squares of the
            expected errors of composite and fill, and the weight falls to 0 just above the lower threshold.
        given: what the composite did not estimate: ``cameras``, ``depth``, both or nothing.
    """

    scene: Scene | None
    evidence: Evidence
    values: NDArray
    weight: NDArray[np.float32]
    detail: NDArray | None = None
    hints: Hints | None = None
    given: tuple[str, ...] = ()

    @classmethod
    def nothing(cls, scene: Scene) -> Kept:
        """Keep nothing: the whole hole is left to fill."""
        count, original = int(scene.mask.sum()), scene.original.pixels
        return cls(
            scene=scene,
            evidence=Evidence.of_invention(scene.mask),
            values=np.broadcast_to(original.dtype.type(0), (count, original.shape[2])),  # takes no memory
            weight=np.broadcast_to(np.float32(0), count),
        )

    @classmethod
    def of_composite(
        cls,
        scene: Scene,
        image: ImageArray,
        evidence: Evidence,
        settings: GeometrySettings,
        *,
        hinted: bool = False,
        parts: Callable[[], Sequence[Part]] | None = None,
    ) -> Kept:
        """Keep the pixels of a composite that its evidence supports.

        Args:
            scene: the scene.
            image: (H, W, 3) uint8, its composite.
            evidence: the judgement of its pixels.
            settings: the thresholds of that judgement.
            hinted: whether the base model that fills the rest reads hints.
            parts: returns the windows in which it fills the hole. Detail of the composite that is too fine for them
                stays in corrected pixels, the more the higher their confidence. ``None``: there are no windows.
        """
        kept, original = evidence.kind == PHOTOGRAPHED, scene.original
        if (evidence.kind == INVENTED).all():
            return cls.nothing(scene)
        values = original.encode(image[scene.mask])
        values[evidence.kind == INVENTED] = 0
        photographed = evidence.photographed
        rest = scene.mask & ~photographed
        inner = scene.retargeted(original.filled(photographed, values[kept]), rest, {}, whole_hole=scene.whole_hole)
        hints, detail, corrected = None, None, evidence.kind == CORRECTED
        if corrected.any():
            doubtful = scene.mask.copy()
            doubtful[scene.mask] = corrected
            if hinted:
                hints = Hints.of_composite(inner.known, rest, image, doubtful, evidence.confidence[corrected])
            if parts is not None:
                coarse = original.encode(_without_detail(image, parts())[doubtful])
                share = _share_of_detail(evidence, settings)[corrected]
                detail = _times(share, values[corrected], coarse)
        weight = weights(evidence, settings, _HINTED_ERROR if hinted else _FILL_ERROR)
        return cls(
            scene=inner if rest.any() else None, evidence=evidence, values=values, weight=weight, detail=detail,
            hints=hints,
        )  # fmt: skip

    @property
    def identity(self) -> str | None:
        """A hash of everything here that decides the pixels of a completion; ``None`` if nothing does."""
        if self.hints is None and not self.weight.any():
            return None
        trust = () if self.hints is None else (self.hints.confidence,)
        detail = () if self.detail is None else (self.detail,)
        hashes = "".join(map(hash_array, (self.values, self.weight, *trust, *detail)))
        return hash_array(np.frombuffer(hashes.encode(), np.uint8))

    def joined(self, filled: NDArray) -> NDArray:
        """Join the composite's pixels with those that fill the rest of the hole.

        Args:
            filled: (R, C), the pixels of the hole that are not photographed, in the colours and depth of the target's
                file.

        Returns:
            (K, C), the pixels of the hole: photographed ones as they are, corrected ones as the weighted mean of the
            composite and of the fill with the composite's detail.
        """
        values, kind = self.values.copy(), self.evidence.kind
        values[kind != PHOTOGRAPHED] = filled
        corrected = kind == CORRECTED
        weight, own, mean = self.weight[corrected, None], self.values[corrected], values[corrected]
        for part in _chunks(len(mean)):
            fill = mean[part].astype(np.float32)
            if self.detail is not None:
                fill += self.detail[part]
            exact = weight[part] * own[part] + (1 - weight[part]) * fill
            mean[part] = exact.round().clip(0, np.iinfo(values.dtype).max)
        values[corrected] = mean
        return values


def _without_detail(image: ImageArray, parts: Sequence[Part]) -> ImageArray:
    """Return an image (H, W, 3) uint8 whose hole has no more detail than the finest window of each part can have."""
    coarse = image.copy()
    for part in parts:
        window = part.windows[-1]
        if window.scale > 1:
            top, left, bottom, right = part.hole
            first, begin = top - window.box[0], left - window.box[1]
            restored = window.restore(window.crop(image))
            coarse[top:bottom, left:right] = restored[first : first + bottom - top, begin : begin + right - left]
    return coarse


def _times(share: NDArray[np.float32], values: NDArray, coarse: NDArray) -> NDArray:
    """Return a share (M,) of the differences between values (M, C), rounded."""
    found = np.empty(values.shape, np.int16 if values.dtype == np.uint8 else np.int32)
    for part in _chunks(len(found)):
        found[part] = (share[part, None] * (values[part].astype(np.float32) - coarse[part])).round()
    return found


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def weights(evidence: Evidence, settings: GeometrySettings, fill_error: float) -> NDArray[np.float32]:
    """Return the weight of each pixel of a composite, (K,), by inverse-variance weighting.

    The mean of two independent estimates is best if each is weighted by the inverse of its squared error. The weights
    are scaled so that they reach 1 at ``photographed_confidence``.

    Args:
        evidence: the judgement of the pixels.
        settings: the thresholds of that judgement.
        fill_error: the error that is expected of what fills the rest, in levels.
    """
    trust = evidence.confidence.astype(np.float32) / np.float32(255)
    at = (trust, settings.photographed_confidence)
    share, share_at_high = (1 / (1 + (error_of(np.asarray(c)) / fill_error) ** 2) for c in at)
    corrected = _rising(trust, settings) * np.minimum(share / share_at_high, 1)
    return np.where(evidence.kind == CORRECTED, corrected, evidence.kind == PHOTOGRAPHED).astype(np.float32)


def _share_of_detail(evidence: Evidence, settings: GeometrySettings) -> NDArray[np.float32]:
    """Return the share of the composite's detail, (K,), that corrected pixels keep."""
    trust = evidence.confidence.astype(np.float32) / np.float32(255)
    return _rising(trust, settings) * np.minimum(trust / np.float32(_FULL_DETAIL), 1)


def _rising(trust: NDArray[np.float32], settings: GeometrySettings) -> NDArray[np.float32]:
    """Rise from 0 to 1 just above the lower threshold of confidence, so that no edge shows."""
    low, high = settings.corrected_confidence, settings.photographed_confidence
    return ((trust - np.float32(low)) / np.float32(max(_RAMP * (high - low), 1e-6))).clip(0, 1)
