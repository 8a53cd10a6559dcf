"""Matchers: LoFTR and SIFT, each an image to features and two images' features to matches."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from kornia.feature import LoFTR
from numpy.typing import NDArray

from realfill.capacity import FREE_SHARE, MAX_BATCH_ON_CPU, free_bytes, is_out_of_memory, peak_bytes
from realfill.config import RankConfig
from realfill.errors import BaseModelError, RealFillWarning
from realfill.io.images import ImageArray, fit_within, resize

Features: TypeAlias = Any  # what a matcher's own match() takes

_LOFTR_BORDER = 16  # pixels at each edge in which LoFTR finds nothing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Matched keypoints between two images.

    Attributes:
        keypoints0: (K, 2) float32, (x, y) in the first image's own pixels; (0, 0) is the first pixel's centre.
        keypoints1: (K, 2), in the second's.
        confidence: (K,) in [0, 1].
    """

    keypoints0: NDArray[np.float32]
    keypoints1: NDArray[np.float32]
    confidence: NDArray[np.float32]


class Matcher(Protocol):
    """What ranking asks of a matcher."""

    def extract(self, image: ImageArray) -> Features:
        """Compute what can be kept of an image, (H, W, 3) uint8, for all pairs that it is part of."""
        ...

    def match(self, features0: Features, features1: Features) -> Matches:
        """Match two images."""
        ...

    def match_pairs(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        """Match pairs of images, each as ``match`` does; a matcher that gains by it takes several at a time."""
        return [self.match(*pair) for pair in pairs]


def load_matcher(config: RankConfig, device: torch.device) -> Matcher | None:
    """Load a matcher by name; ``None`` for ``registered``, which ranks without keypoints.

    Args:
        config: resolved.
        device: for LoFTR.

    Raises:
        BaseModelError: LoFTR's weights can't be had.
    """
    if config.matcher == "registered":
        return None
    if config.matcher == "sift":
        return SiftMatcher(config)
    try:
        model = LoFTR("outdoor")
    except Exception as error:  # torch.hub raises whatever its transport does
        raise BaseModelError(
            f"LoFTR's outdoor weights can't be downloaded ({type(error).__name__}: {error}). Connect once, or take "
            "matcher='sift', which needs none"
        ) from error
    return LoftrMatcher(model, config, device)


class SiftMatcher(Matcher):
    """SIFT (Lowe 2004) as RootSIFT, mutual nearest neighbours, ratio test."""

    def __init__(self, config: RankConfig) -> None:
        """Set up with a resolved config's ``max_size_px`` and ``max_ratio``."""
        self._max_size_px, self._max_ratio = config.max_size_px, config.max_ratio
        self._sift = cv2.SIFT_create(contrastThreshold=0.02, enable_precise_upscale=True)  # type: ignore[attr-defined]
        self._nearest = cv2.BFMatcher(cv2.NORM_L2)

    def extract(self, image: ImageArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Find keypoints (K, 2) in the image's own pixels and their descriptors (K, 128)."""
        small = resize(image, fit_within(image.shape[:2], self._max_size_px))
        found, descriptors = self._sift.detectAndCompute(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), None)
        points = np.array([k.pt for k in found], np.float32).reshape(-1, 2)
        if descriptors is None:
            descriptors = np.zeros((0, 128), np.float32)
        descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
        return _to_original(points, image.shape[:2], small.shape[:2]), descriptors

    def match(
        self,
        features0: tuple[NDArray[np.float32], NDArray[np.float32]],
        features1: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> Matches:
        """Match two images; confidence is 1 minus the ratio of the ratio test."""
        (points0, descriptors0), (points1, descriptors1) = features0, features1
        rows: list[tuple[int, int, float]] = []
        if len(points0) >= 2 and len(points1) >= 2:
            back = {m.queryIdx: m.trainIdx for m in self._nearest.match(descriptors0, descriptors1)}
            for best, second in self._nearest.knnMatch(descriptors1, descriptors0, k=2):
                ratio = best.distance / max(second.distance, 1e-6)
                if ratio < self._max_ratio and back[best.trainIdx] == best.queryIdx:
                    rows.append((best.trainIdx, best.queryIdx, 1 - ratio))
        return Matches(
            keypoints0=points0[[r[0] for r in rows]].reshape(-1, 2),
            keypoints1=points1[[r[1] for r in rows]].reshape(-1, 2),
            confidence=np.array([r[2] for r in rows], np.float32),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _LoftrFeatures:
    maps: dict[str, torch.Tensor]
    size: tuple[int, int]
    small: tuple[int, int]


class LoftrMatcher(Matcher):
    """LoFTR (Sun et al., CVPR 2021) through kornia.

    The backbone runs once for each image. Of pairs with images of the same sizes as many are matched at a time as free
    memory holds, by what the first of them was measured to take.
    """

    def __init__(self, model: LoFTR, config: RankConfig, device: torch.device) -> None:
        """Wrap a LoFTR model; ``load_matcher`` gets the pre-trained one."""
        self._model = model.to(device).eval()  # LoFTR(None) starts in training mode
        self._device, self._max_size_px, self._min_confidence = device, config.max_size_px, config.min_confidence
        self._taken_bytes: dict[tuple[torch.Size, ...], int] = {}  # by one pair, by the shapes of its coarse maps
        self._most_pairs = MAX_BATCH_ON_CPU if device.type == "cpu" else sys.maxsize

    @torch.no_grad()
    def extract(self, image: ImageArray) -> _LoftrFeatures:
        """Compute coarse and fine feature maps of the image, shrunk and padded.

        The padding mirrors the image, since LoFTR finds nothing at the edges, where an outpainted strip may lie.
        """
        small = resize(image, fit_within(image.shape[:2], self._max_size_px))
        grey = torch.from_numpy(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)).float()[None, None] / 255
        height, width = grey.shape[-2:]
        rest = (-(width + 2 * _LOFTR_BORDER) % 8, -(height + 2 * _LOFTR_BORDER) % 8)
        border = (_LOFTR_BORDER, _LOFTR_BORDER + rest[0], _LOFTR_BORDER, _LOFTR_BORDER + rest[1])
        mode = "reflect" if min(height, width) > max(border) else "replicate"
        maps = self._model.extract_features(F.pad(grey, border, mode=mode).to(self._device))
        return _LoftrFeatures(maps=maps, size=image.shape[:2], small=small.shape[:2])

    def match(self, features0: _LoftrFeatures, features1: _LoftrFeatures) -> Matches:
        """Match two images; what lies in the padding is dropped."""
        return self.match_pairs([(features0, features1)])[0]

    def match_pairs(self, pairs: Sequence[tuple[_LoftrFeatures, _LoftrFeatures]]) -> list[Matches]:
        """Match pairs of images, several at a time."""
        alike: dict[tuple[torch.Size, ...], list[int]] = {}
        for i, pair in enumerate(pairs):
            alike.setdefault(tuple(f.maps["coarse"].shape for f in pair), []).append(i)
        found: dict[int, Matches] = {}
        for shapes, places in alike.items():
            rest = places
            while rest:
                batch = rest[: self._batch_size(shapes)]
                matches = self._match_if_it_fits([pairs[i] for i in batch], shapes)
                found.update(zip(batch, matches, strict=False))
                rest = rest[len(matches) :]
        return [found[i] for i in range(len(pairs))]

    def _match_if_it_fits(
        self, pairs: Sequence[tuple[_LoftrFeatures, _LoftrFeatures]], shapes: tuple[torch.Size, ...]
    ) -> list[Matches]:
        """Match the first of pairs with maps of these shapes: all of them, or none where memory runs out.

        Later batches are half as large then: how much a pair takes goes by its matches too.
        """
        work = partial(self._match_batch, pairs)
        try:
            if shapes in self._taken_bytes:
                return work()
            matches, self._taken_bytes[shapes] = peak_bytes(work, self._device)
        except RuntimeError as error:
            if len(pairs) == 1 or not is_out_of_memory(error):
                raise
            self._most_pairs = len(pairs) // 2
            warnings.warn(
                f"out of memory while matching {len(pairs)} pairs of images at a time; going on with "
                f"{self._most_pairs}", RealFillWarning, stacklevel=4,
            )  # fmt: skip
            return []
        return matches

    def _batch_size(self, shapes: tuple[torch.Size, ...]) -> int:
        """Tell how many pairs of such maps free memory holds; the first goes alone, to be measured."""
        taken = self._taken_bytes.get(shapes)
        return min(self._most_pairs, max(1, int(FREE_SHARE * free_bytes(self._device) / taken))) if taken else 1

    @torch.no_grad()
    def _match_batch(self, pairs: Sequence[tuple[_LoftrFeatures, _LoftrFeatures]]) -> list[Matches]:
        maps = [{k: torch.cat([pair[i].maps[k] for pair in pairs]) for k in ("coarse", "fine")} for i in (0, 1)]
        found = self._model({"features0": maps[0], "features1": maps[1]})
        # its training data put the centre of pixel (x, y) at (x + 0.5, y + 0.5)
        points = [found[f"keypoints{i}"].float().cpu().numpy() - 0.5 - _LOFTR_BORDER for i in (0, 1)]
        confidence = found["confidence"].float().cpu().numpy()
        owner = found["batch_indexes"].cpu().numpy()
        matches = []
        for i, pair in enumerate(pairs):
            kept = (owner == i) & (confidence >= self._min_confidence)
            for p, f in zip(points, pair, strict=True):
                kept &= ((p > -0.5) & (p < np.array(f.small[::-1]) - 0.5)).all(axis=1)
            originals = [_to_original(p[kept], f.size, f.small) for p, f in zip(points, pair, strict=True)]
            matches.append(Matches(keypoints0=originals[0], keypoints1=originals[1], confidence=confidence[kept]))
        return matches


def _to_original(points: NDArray[np.float32], size: tuple[int, ...], small: tuple[int, ...]) -> NDArray[np.float32]:
    """Map (x, y) from a resized image back; pixel centres are half a pixel off its corner."""
    factor = np.array([size[1] / small[1], size[0] / small[0]], np.float32)
    return (points + np.float32(0.5)) * factor - np.float32(0.5)
