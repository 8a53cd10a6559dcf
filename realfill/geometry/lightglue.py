"""The LightGlue matcher with DISK features, from kornia."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from kornia.feature import DISK, LightGlue

from realfill.errors import BaseModelError
from realfill.geometry.matching import Matcher, Matches, to_original
from realfill.io.images import ImageArray, fit_within, resize, to_tensor

_MAX_KEYPOINTS = 2048
_MULTIPLE = 16  # of the sides that DISK takes


def load_lightglue(device: torch.device, *, max_size_px: int, min_confidence: float) -> LightGlueMatcher:
    """Load DISK and LightGlue, whose weights are downloaded once. Both have licences that allow commercial use.

    Raises:
        BaseModelError: the weights are not available.
    """
    try:
        detector, model = DISK.from_pretrained("depth"), LightGlue("disk")
    except Exception as error:  # torch.hub raises whatever the download raises
        raise BaseModelError(
            f"the weights of DISK and LightGlue cannot be downloaded ({type(error).__name__}: {error}). Connect to the "
            "network once, or use matcher='sift', which needs no weights"
        ) from error
    return LightGlueMatcher(detector, model, device, max_size_px=max_size_px, min_confidence=min_confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class _DiskFeatures:
    """The keypoints of an image.

    Attributes:
        keypoints: (1, K, 2), (x, y) in pixels of the shrunk image.
        descriptors: (1, K, D).
        size: (height, width) of the image.
        small_size: (height, width) of the shrunk image.
    """

    keypoints: torch.Tensor
    descriptors: torch.Tensor
    size: tuple[int, int]
    small_size: tuple[int, int]


class LightGlueMatcher(Matcher):
    """LightGlue (Lindenberger et al., ICCV 2023) on DISK keypoints (Tyszkiewicz et al., NeurIPS 2020)."""

    def __init__(
        self, detector: DISK, model: LightGlue, device: torch.device, *, max_size_px: int, min_confidence: float
    ) -> None:
        """Wrap the two networks; ``load_lightglue`` loads the pre-trained ones.

        Args:
            detector: moved to the device and set to evaluation mode.
            model: LightGlue for the descriptors of the detector; moved and set in the same way.
            device: where to compute.
            max_size_px: longer side to which images are shrunk.
            min_confidence: least confidence of a match that is kept, in [0, 1].
        """
        self._detector, self._model = detector.to(device).eval(), model.to(device).eval()
        self._device, self._max_size_px, self._min_confidence = device, max_size_px, min_confidence

    @torch.no_grad()
    def extract(self, image: ImageArray) -> _DiskFeatures:
        """Find the strongest 2,048 keypoints and their descriptors."""
        small = resize(image, fit_within(image.shape[:2], self._max_size_px))
        height, width = small.shape[:2]
        padding = ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0))
        padded = np.pad(small, padding, mode="edge")  # zeros would have an edge of their own
        found = self._detector(to_tensor(padded).to(self._device), n=_MAX_KEYPOINTS)[0]
        inside = (found.keypoints[:, 0] < width) & (found.keypoints[:, 1] < height)
        return _DiskFeatures(
            keypoints=found.keypoints[inside][None].float(), descriptors=found.descriptors[inside][None],
            size=image.shape[:2], small_size=small.shape[:2],
        )  # fmt: skip

    @torch.no_grad()
    def match(self, features0: _DiskFeatures, features1: _DiskFeatures) -> Matches:
        """Match two images."""
        pair = (features0, features1)
        data = {
            f"image{i}": {
                "keypoints": f.keypoints,
                "descriptors": f.descriptors,
                "image_size": torch.tensor([f.small_size[::-1]], device=self._device),
            }
            for i, f in enumerate(pair)
        }
        output = self._model(data)
        confidence = output["scores"][0].float().cpu().numpy()
        kept = confidence >= self._min_confidence
        indices = output["matches"][0].cpu().numpy().reshape(-1, 2)[kept]
        points = [
            to_original(f.keypoints[0].cpu().numpy()[indices[:, i]], f.size, f.small_size) for i, f in enumerate(pair)
        ]
        return Matches(keypoints0=points[0], keypoints1=points[1], confidence=confidence[kept])
