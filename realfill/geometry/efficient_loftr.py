"""The EfficientLoFTR matcher and its MatchAnything checkpoint, from transformers.

The networks are transformers' own. The two matching steps that follow them are here: those of transformers 5 join the
partner of a cell in one image with the partner of the same cell in the other, which is right only without a shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import AutoModelForKeypointMatching, EfficientLoFTRForKeypointMatching
from transformers.utils import logging

from realfill.config import MatcherName
from realfill.errors import BaseModelError
from realfill.geometry.matching import Matcher, Matches, to_original
from realfill.io.images import ImageArray, fit_within, resize

_HUB_IDS: dict[MatcherName, str] = {
    "efficientloftr": "zju-community/efficientloftr",
    "matchanything": "zju-community/matchanything_eloftr",
}
_MULTIPLE = 32  # of the sides: coarse features at an eighth, aggregated four by four
_BORDER_PX = 16  # the networks find no keypoints this close to an edge


def load_efficient_loftr(
    name: MatcherName, device: torch.device, *, max_size_px: int, min_confidence: float
) -> EfficientLoftrMatcher:
    """Load a checkpoint from the Hugging Face hub; it is downloaded once.

    Args:
        name: ``efficientloftr`` or ``matchanything``.
        device: where to compute.
        max_size_px: longer side to which images are shrunk.
        min_confidence: least confidence of a match that is kept, in [0, 1].

    Raises:
        BaseModelError: the checkpoint is not available.
    """
    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModelForKeypointMatching.from_pretrained(_HUB_IDS[name], trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{_HUB_IDS[name]!r} cannot be loaded ({error}). Connect to the network once, or use matcher='sift', which "
            "needs no weights"
        ) from error
    finally:
        if shows_bars:
            logging.enable_progress_bar()
    if not isinstance(model, EfficientLoFTRForKeypointMatching):
        raise BaseModelError(f"{_HUB_IDS[name]!r} holds a {type(model).__name__}; legal: an EfficientLoFTR")
    return EfficientLoftrMatcher(model, device, max_size_px=max_size_px, min_confidence=min_confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grey:
    """A shrunk image: (h, w) uint8, and the (height, width) of the image itself."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]


class EfficientLoftrMatcher(Matcher):
    """EfficientLoFTR (Wang et al., CVPR 2024), with its authors' weights or MatchAnything's (He et al., 2025)."""

    def __init__(
        self,
        model: EfficientLoFTRForKeypointMatching,
        device: torch.device,
        *,
        max_size_px: int,
        min_confidence: float,
    ) -> None:
        """Wrap a model; ``load_efficient_loftr`` loads a pre-trained one.

        Args:
            model: moved to the device and set to evaluation mode.
            device: where to compute.
            max_size_px: longer side to which images are shrunk.
            min_confidence: least confidence of a match that is kept, in [0, 1].
        """
        self._model = model.to(device).eval()  # type: ignore[arg-type]
        self._device, self._max_size_px, self._min_confidence = device, max_size_px, min_confidence

    def extract(self, image: ImageArray) -> _Grey:
        """Shrink the image; the network sees pairs of images only."""
        small = resize(image, fit_within(image.shape[:2], self._max_size_px))
        return _Grey(pixels=cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.uint8), size=image.shape[:2])

    @torch.no_grad()
    def match(self, features0: _Grey, features1: _Grey) -> Matches:
        """Match two images; keypoints in the padding, which mirrors the images, are dropped."""
        pair, model = (features0, features1), self._model
        sides = np.max([f.pixels.shape for f in pair], axis=0) + 2 * _BORDER_PX
        height, width = (int(side + -side % _MULTIPLE) for side in sides)
        padded = np.stack([_padded(f.pixels, (height, width)) for f in pair])
        pixels = torch.from_numpy(padded)[None, :, None].float().to(self._device) / 255
        coarse, *residual = model.efficientloftr(pixels).feature_maps
        index0, index1, confidence = _mutual(coarse[0], model.config.coarse_matching_temperature)
        kept = confidence >= self._min_confidence
        cells = [index[kept] for index in (index0, index1)]
        fine0, fine1 = model.refinement_layer(coarse / coarse.shape[2] ** 0.5, residual)
        offsets = _fine_offsets(
            fine0[0, cells[0]], fine1[0, cells[1]], model.config.fine_matching_slice_dim,
            model.config.fine_matching_regress_temperature,
        )  # fmt: skip
        columns, stride = coarse.shape[-1], width / coarse.shape[-1]
        inside, points = np.ones(len(cells[0]), bool), []
        for f, cell, offset in zip(pair, cells, offsets, strict=True):
            corner = torch.stack([cell % columns, cell // columns], dim=1) * stride
            place = (corner + offset).float().cpu().numpy() - _BORDER_PX
            inside &= ((place > -0.5) & (place < np.array(f.pixels.shape[::-1]) - 0.5)).all(axis=1)
            points.append(to_original(place, f.size, f.pixels.shape))
        return Matches(
            keypoints0=points[0][inside], keypoints1=points[1][inside],
            confidence=confidence[kept].float().cpu().numpy()[inside],
        )  # fmt: skip


def _padded(grey: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    bottom, right = size[0] - grey.shape[0] - _BORDER_PX, size[1] - grey.shape[1] - _BORDER_PX
    return cv2.copyMakeBorder(grey, _BORDER_PX, bottom, _BORDER_PX, right, cv2.BORDER_REFLECT).astype(np.uint8)


def _mutual(features: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Match coarse cells that are each other's best by the dual softmax.

    Args:
        features: (2, C, h, w).
        temperature: temperature of the softmax.

    Returns:
        The cells of the first image, those of the second, both (K,), counted row by row; and the confidences (K,).
    """
    first, second = features.flatten(2).transpose(1, 2)
    similarity = first @ second.T / first.shape[1] / temperature
    confidence = similarity.softmax(dim=0) * similarity.softmax(dim=1)
    best, partner = confidence.max(dim=1)
    cells = torch.arange(len(first), device=features.device)
    mutual = (confidence.argmax(dim=0)[partner] == cells) & (best > 0)
    return cells[mutual], partner[mutual], best[mutual]


def _fine_offsets(
    first: torch.Tensor, second: torch.Tensor, num_last: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Refine matched cells to pixels, and in the second image to parts of a pixel (section 3.3 of the paper).

    Args:
        first: (K, W², C): features of the pixels of each cell in the first image.
        second: (K, (W + 2)², C): those of the cell in the second, with a frame of one pixel.
        num_last: number of channels that serve the last step; the others serve the step to pixels.
        temperature: temperature of the softmax in the last step.

    Returns:
        Offsets from the cells' corners, (K, 2) each, as the network was trained: 0 is the middle of the cell.
    """
    count, pixels, channels = first.shape
    side = round(pixels**0.5)
    split = channels - num_last
    rough = torch.einsum("klc,krc->klr", first[..., :split], second[..., :split]) / split
    scores = rough.softmax(dim=1) * rough.softmax(dim=2)
    scores = scores.reshape(count, pixels, side + 2, side + 2)[:, :, 1:-1, 1:-1].reshape(count, -1)
    best = scores.argmax(dim=1)
    cell0, cell1 = best // pixels, best % pixels
    last = torch.einsum(
        "kc,krc->kr", first[torch.arange(count, device=first.device), cell0, split:], second[..., split:]
    )
    around = last.reshape(count, 1, side + 2, side + 2) / num_last**0.5 / temperature
    around = F.unfold(around, kernel_size=3).transpose(1, 2)[torch.arange(count, device=first.device), cell1]
    weights = around.softmax(dim=1)
    steps = torch.tensor([-1.0, 0.0, 1.0], device=first.device)
    part = torch.stack([weights @ steps.repeat(3), weights @ steps.repeat_interleave(3)], dim=1)
    middle = side // 2 - 0.5
    offset0, offset1 = (torch.stack([cell % side, cell // side], dim=1) - middle for cell in (cell0, cell1))
    return offset0, offset1 + part
