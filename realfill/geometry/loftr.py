"""The LoFTR matcher, from kornia."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from kornia.feature import LoFTR

from realfill.compute.memory import count_that_fits, peak_bytes, until_it_fits
from realfill.errors import BaseModelError
from realfill.geometry.matching import Matcher, Matches, to_original
from realfill.io.images import ImageArray, fit_within, resize

_BORDER_PX = 16  # LoFTR finds no keypoints this close to an edge


def load_loftr(device: torch.device, *, max_size_px: int, min_confidence: float) -> LoftrMatcher:
    """Load LoFTR with its outdoor weights, which are downloaded once.

    Raises:
        BaseModelError: the weights are not available.
    """
    try:
        model = LoFTR("outdoor")
    except Exception as error:  # torch.hub raises whatever the download raises
        raise BaseModelError(
            f"the outdoor weights of LoFTR cannot be downloaded ({type(error).__name__}: {error}). Connect to the "
            "network once, or use matcher='sift', which needs no weights"
        ) from error
    return LoftrMatcher(model, device, max_size_px=max_size_px, min_confidence=min_confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LoftrFeatures:
    """The feature maps of an image.

    Attributes:
        maps: ``coarse`` and ``fine``, each (1, C, h, w), of the shrunk and padded image.
        size: (height, width) of the image.
        small_size: (height, width) of the shrunk image, without padding.
    """

    maps: dict[str, torch.Tensor]
    size: tuple[int, int]
    small_size: tuple[int, int]


class LoftrMatcher(Matcher):
    """LoFTR (Sun et al., CVPR 2021), from kornia.

    The backbone runs once per image. Pairs whose images have the same sizes are matched in batches as large as free
    memory allows, judged by the measured memory of the first pair.
    """

    def __init__(self, model: LoFTR, device: torch.device, *, max_size_px: int, min_confidence: float) -> None:
        """Wrap a LoFTR model; ``load_matcher`` loads the pre-trained one.

        Args:
            model: moved to the device and set to evaluation mode.
            device: where to compute.
            max_size_px: longer side to which images are shrunk.
            min_confidence: least confidence of a match that is kept, in [0, 1].
        """
        self._model = model.to(device).eval()  # LoFTR(None) starts in training mode
        self._device, self._max_size_px, self._min_confidence = device, max_size_px, min_confidence
        self._bytes_per_pair: dict[tuple[torch.Size, ...], int] = {}  # by the shapes of the coarse maps
        self._max_pairs = sys.maxsize

    @torch.no_grad()
    def extract(self, image: ImageArray) -> _LoftrFeatures:
        """Compute the coarse and fine feature maps of the image, shrunk and padded.

        The padding mirrors the image, because LoFTR finds nothing at the edges, where an outpainted strip may lie.
        """
        small = resize(image, fit_within(image.shape[:2], self._max_size_px))
        grey = torch.from_numpy(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)).float()[None, None] / 255
        height, width = grey.shape[-2:]
        excess = (-(width + 2 * _BORDER_PX) % 8, -(height + 2 * _BORDER_PX) % 8)
        padding = (_BORDER_PX, _BORDER_PX + excess[0], _BORDER_PX, _BORDER_PX + excess[1])
        mode = "reflect" if min(height, width) > max(padding) else "replicate"
        maps = self._model.extract_features(F.pad(grey, padding, mode=mode).to(self._device))
        return _LoftrFeatures(maps=maps, size=image.shape[:2], small_size=small.shape[:2])

    def match(self, features0: _LoftrFeatures, features1: _LoftrFeatures) -> Matches:
        """Match two images; keypoints in the padding are dropped."""
        return self.match_pairs([(features0, features1)])[0]

    def match_pairs(
        self, pairs: Sequence[tuple[_LoftrFeatures, _LoftrFeatures]], poll: Callable[[], None] | None = None
    ) -> list[Matches]:
        """Match several pairs of images in batches; ``poll`` is called between the layers of the model as well."""
        same_shapes: dict[tuple[torch.Size, ...], list[int]] = {}
        for i, pair in enumerate(pairs):
            same_shapes.setdefault(tuple(f.maps["coarse"].shape for f in pair), []).append(i)
        results: dict[int, Matches] = {}
        with _polled(self._model, poll):
            for shapes, indices in same_shapes.items():
                remaining = indices
                while remaining:
                    batch = self._match_first([pairs[i] for i in remaining], shapes)
                    results.update(zip(remaining, batch, strict=False))
                    remaining = remaining[len(batch) :]
        return [results[i] for i in range(len(pairs))]

    def _match_first(
        self, pairs: Sequence[tuple[_LoftrFeatures, _LoftrFeatures]], shapes: tuple[torch.Size, ...]
    ) -> list[Matches]:
        """Match as many of the first pairs as fit into memory, or one pair if its memory has not been measured yet."""
        if shapes not in self._bytes_per_pair:
            work = partial(self._match_batch, pairs[:1])
            matches, self._bytes_per_pair[shapes] = peak_bytes(work, self._device)
            return matches
        fitting = count_that_fits(self._device, self._bytes_per_pair[shapes])
        size = min(len(pairs), self._max_pairs, fitting)

        def shrink() -> str | None:
            nonlocal size
            if size == 1:
                return None
            size = self._max_pairs = size // 2  # later batches too: the memory of a pair also depends on its matches
            return f"{size} pairs of images at a time" if size > 1 else "one pair of images at a time"

        return until_it_fits(lambda: self._match_batch(pairs[:size]), shrink, self._device)

    @torch.no_grad()
    def _match_batch(self, pairs: Sequence[tuple[_LoftrFeatures, _LoftrFeatures]]) -> list[Matches]:
        maps = [{k: torch.cat([pair[i].maps[k] for pair in pairs]) for k in ("coarse", "fine")} for i in (0, 1)]
        output = self._model({"features0": maps[0], "features1": maps[1]})
        # in LoFTR's training data the centre of pixel (x, y) is at (x + 0.5, y + 0.5)
        points = [output[f"keypoints{i}"].float().cpu().numpy() - 0.5 - _BORDER_PX for i in (0, 1)]
        confidence = output["confidence"].float().cpu().numpy()
        pair_indices = output["batch_indexes"].cpu().numpy()
        matches = []
        for i, pair in enumerate(pairs):
            kept = (pair_indices == i) & (confidence >= self._min_confidence)
            for p, f in zip(points, pair, strict=True):
                kept &= ((p > -0.5) & (p < np.array(f.small_size[::-1]) - 0.5)).all(axis=1)
            originals = [to_original(p[kept], f.size, f.small_size) for p, f in zip(points, pair, strict=True)]
            matches.append(Matches(keypoints0=originals[0], keypoints1=originals[1], confidence=confidence[kept]))
        return matches


@contextmanager
def _polled(model: torch.nn.Module, poll: Callable[[], None] | None) -> Iterator[None]:
    """Call ``poll`` before each layer of the model, since a batch can take much longer than a person waits."""
    modules = model.modules() if poll is not None else ()
    hooks = [module.register_forward_pre_hook(lambda *_: poll and poll()) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
