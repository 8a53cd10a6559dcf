"""Matched keypoints between photos: matchers, SIFT among them, and the references' matches with the target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.config import RankSettings
from realfill.geometry.smooth import hide
from realfill.io.images import ImageArray, MaskArray, fit_within, resize, to_array, to_tensor
from realfill.scene.masks import fill_smooth, resize_mask

if TYPE_CHECKING:
    import torch

# Torch, kornia and transformers take seconds to import, and the composite does without them.
# ruff: noqa: PLC0415

Features: TypeAlias = Any
"""The features of an image, as ``Matcher.extract`` returns them; each matcher has its own type."""

_TARGET_MAX_RATIO = 0.8  # Lowe's ratio test, for matches of references with the target
_TARGET_MAX_SIZE_PX = 1024  # longer side to which photos are shrunk for these matches


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Matched keypoints between two images.

    Attributes:
        keypoints0: (K, 2) float32, (x, y) in pixels of the first image; (0, 0) is the centre of its first pixel.
        keypoints1: (K, 2) float32, (x, y) in pixels of the second image.
        confidence: (K,) float32 in [0, 1].
    """

    keypoints0: NDArray[np.float32]
    keypoints1: NDArray[np.float32]
    confidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, kept: NDArray[np.bool_ | np.intp]) -> Matches:
        """Select matches by a (K,) bool array, or by their numbers in a new order."""
        return Matches(
            keypoints0=self.keypoints0[kept], keypoints1=self.keypoints1[kept], confidence=self.confidence[kept]
        )


class Matcher(Protocol):
    """Finds matched keypoints between two images."""

    def extract(self, image: ImageArray) -> Features:
        """Compute the features of an image, (H, W, 3) uint8; they serve every pair that contains the image."""
        ...

    def match(self, features0: Features, features1: Features) -> Matches:
        """Match two images by their features."""
        ...

    def match_pairs(
        self, pairs: Sequence[tuple[Features, Features]], poll: Callable[[], None] | None = None
    ) -> list[Matches]:
        """Match several pairs of images. A matcher may override this to match them in batches.

        Args:
            pairs: features of the two images of each pair.
            poll: called at least between pairs; it may raise to end the work.

        Returns:
            The matches of each pair, as ``match`` returns them.
        """
        results = []
        for pair in pairs:
            if poll is not None:
                poll()
            results.append(self.match(*pair))
        return results


def load_matcher(settings: RankSettings, device: torch.device) -> Matcher:
    """Load the matcher that the settings name.

    Args:
        settings: name and thresholds of the matcher.
        device: the device that networks run on. SIFT always runs on the CPU.

    Raises:
        BaseModelError: the weights are not available.
    """
    if settings.matcher == "sift":
        return SiftMatcher(max_size_px=settings.max_size_px, max_ratio=settings.max_ratio)
    if settings.matcher == "loftr":
        from realfill.geometry.loftr import load_loftr

        return load_loftr(device, max_size_px=settings.max_size_px, min_confidence=settings.min_confidence)
    if settings.matcher == "lightglue":
        from realfill.geometry.lightglue import load_lightglue

        return load_lightglue(device, max_size_px=settings.max_size_px, min_confidence=settings.min_confidence)
    from realfill.geometry.efficient_loftr import load_efficient_loftr

    return load_efficient_loftr(
        settings.matcher, device, max_size_px=settings.max_size_px, min_confidence=settings.min_confidence
    )


def match_references(
    known: ImageArray,
    mask: MaskArray,
    references: Iterable[ImageArray],
    reference_masks: Sequence[MaskArray | None] | None = None,
) -> list[Matches]:
    """Match each reference with the known pixels of the target, by SIFT.

    Args:
        known: (H, W, 3) uint8, the target. Pixels under the mask have no influence.
        mask: (H, W) bool, True = hole.
        references: each (h, w, 3) uint8.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``.

    Returns:
        For each reference its matches: ``keypoints0`` lie in the reference, ``keypoints1`` in the target outside the
        hole.
    """
    sift = SiftMatcher(max_size_px=_TARGET_MAX_SIZE_PX, max_ratio=_TARGET_MAX_RATIO)
    small_size = fit_within(mask.shape, _TARGET_MAX_SIZE_PX)
    target = sift.extract(fill_hole_smooth(resize(known, small_size), resize_mask(mask, small_size)))
    scale = np.array(mask.shape[::-1]) / small_size[::-1]
    results = []
    for i, reference in enumerate(references):
        excluded = reference_masks[i] if reference_masks is not None else None
        matches = outside(sift.match(sift.extract(hide(reference, excluded)), target), excluded)
        points = ((matches.keypoints1 + 0.5) * scale - 0.5).astype(np.float32)
        matches = Matches(keypoints0=matches.keypoints0, keypoints1=points, confidence=matches.confidence)
        results.append(matches[~lies_in(points, mask)])
    return results


def outside(matches: Matches, excluded: MaskArray | None) -> Matches:
    """Keep the matches whose first keypoint lies outside the part of its image that is left out, (h, w) bool."""
    return matches[~lies_in(matches.keypoints0, excluded)]


def lies_in(points: NDArray[np.float32], mask: MaskArray | None) -> NDArray[np.bool_]:
    """Tell which points (K, 2) lie in a mask (H, W); none lies in ``None``."""
    if mask is None:
        return np.zeros(len(points), bool)
    x, y = np.rint(points).astype(int).reshape(-1, 2).T
    return mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)]


def fill_hole_smooth(known: ImageArray, mask: MaskArray) -> ImageArray:
    """Continue the known pixels smoothly into the hole, so that its outline has no edges of its own."""
    import torch

    return to_array(fill_smooth(to_tensor(known), torch.from_numpy(mask)[None, None])[0])


class SiftMatcher(Matcher):
    """SIFT (Lowe 2004) with RootSIFT descriptors, mutual nearest neighbours and the ratio test."""

    def __init__(self, *, max_size_px: int, max_ratio: float) -> None:
        """Create a matcher.

        Args:
            max_size_px: longer side to which images are shrunk.
            max_ratio: largest ratio that passes Lowe's test, in [0, 1].
        """
        self._max_size_px, self._max_ratio = max_size_px, max_ratio
        self._sift = cv2.SIFT_create(contrastThreshold=0.02, enable_precise_upscale=True)  # type: ignore[attr-defined]
        self._nearest = cv2.BFMatcher(cv2.NORM_L2)

    def extract(self, image: ImageArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Find keypoints, (K, 2) in pixels of the image, and their descriptors, (K, 128)."""
        small = resize(image, fit_within(image.shape[:2], self._max_size_px))
        keypoints, descriptors = self._sift.detectAndCompute(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), None)
        points = np.array([k.pt for k in keypoints], np.float32).reshape(-1, 2)
        if descriptors is None:
            descriptors = np.zeros((0, 128), np.float32)
        descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
        return to_original(points, image.shape[:2], small.shape[:2]), descriptors

    def match(
        self,
        features0: tuple[NDArray[np.float32], NDArray[np.float32]],
        features1: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> Matches:
        """Match two images; the confidence of a match is 1 minus its ratio in the ratio test."""
        (points0, descriptors0), (points1, descriptors1) = features0, features1
        rows: list[tuple[int, int, float]] = []
        if len(points0) >= 2 and len(points1) >= 2:
            nearest1 = {m.queryIdx: m.trainIdx for m in self._nearest.match(descriptors0, descriptors1)}
            for best, second in self._nearest.knnMatch(descriptors1, descriptors0, k=2):
                ratio = best.distance / max(second.distance, 1e-6)
                if ratio < self._max_ratio and nearest1[best.trainIdx] == best.queryIdx:
                    rows.append((best.trainIdx, best.queryIdx, 1 - ratio))
        return Matches(
            keypoints0=points0[[r[0] for r in rows]].reshape(-1, 2),
            keypoints1=points1[[r[1] for r in rows]].reshape(-1, 2),
            confidence=np.array([r[2] for r in rows], np.float32),
        )


def to_original(points: NDArray[np.float32], size: tuple[int, ...], small: tuple[int, ...]) -> NDArray[np.float32]:
    """Map (x, y) in a resized image to the original image; (0, 0) is the centre of the first pixel in both."""
    factor = np.array([size[1] / small[1], size[0] / small[0]], np.float32)
    return (points + np.float32(0.5)) * factor - np.float32(0.5)
