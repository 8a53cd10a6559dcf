"""What a network of transformers expects as input, read from its folder, without transformers' processors.

Those processors import torchvision, which this project does not need. What they do is a resize, a normalization and,
for some networks, padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import torch

from realfill.io.images import ImageArray, resize
from realfill.io.json_files import parse_json

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_MULTIPLE_PX = 32  # the coarsest feature maps of these networks have a stride of 32
Fit: TypeAlias = Literal["keep", "stretch", "pad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a photo becomes the input of a network.

    Attributes:
        fit: ``keep`` keeps the aspect ratio within a multiple of 32 pixels; ``stretch`` fills a fixed size; ``pad``
            keeps the ratio and pads a square at the bottom or the right.
        shorter_px: length of the shorter side for ``keep``, side of the input otherwise.
        longer_px: limit of the longer side for ``keep``; height and width are both ``shorter_px`` otherwise.
        mean: subtracted from the colours in [0, 1]; ``None``: colours are not normalized.
        std: divides them afterwards.
    """

    fit: Fit
    shorter_px: int
    longer_px: int
    mean: tuple[float, ...] | None = _MEAN
    std: tuple[float, ...] = _STD

    @classmethod
    def of_files(cls, values: Mapping[str, Any], model_type: str, image_size: int | None) -> Preprocessing:
        """Read ``preprocessor_config.json``.

        Args:
            values: the content of the file; empty if there is none.
            model_type: type of the network in its ``config.json``, for example ``mask2former``.
            image_size: the side that ``config.json`` states, if it states one.
        """
        size = values.get("size", {})
        size = {"shortest_edge": size, "longest_edge": values.get("max_size", 1333)} if isinstance(size, int) else size
        normalizes = values.get("do_normalize", model_type not in {"rt_detr", "rt_detr_v2"})
        colours: dict[str, Any] = {
            "mean": tuple(values.get("image_mean", _MEAN)) if normalizes else None,
            "std": tuple(values.get("image_std", _STD)),
        }
        fixed = model_type.startswith(("eomt", "rf_detr", "rt_detr", "sam2"))
        if fixed or "height" in size:
            side = int(size.get("height") or size.get("longest_edge") or image_size or 640)
            side = image_size if fixed and image_size else side
            fit: Fit = "pad" if model_type.startswith("eomt") else "stretch"
            return cls(fit=fit, shorter_px=side, longer_px=side, **colours)
        shorter, longer = int(size.get("shortest_edge", 800)), int(size.get("longest_edge") or 1333)
        return cls(fit="keep", shorter_px=shorter, longer_px=longer, **colours)

    def prepare(self, image: ImageArray) -> tuple[torch.Tensor, tuple[float, float]]:
        """Resize, pad and normalize a photo.

        Args:
            image: (H, W, 3) uint8 sRGB.

        Returns:
            (1, 3, h, w) float32, and the shares of its height and width that show the photo.
        """
        size = self._size(image.shape[0], image.shape[1])
        if size[0] * size[1] < image.shape[0] * image.shape[1]:
            small = resize(image, size)
        else:
            small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        shares = (1.0, 1.0)
        if self.fit == "pad":
            padding = [(0, self.shorter_px - n) for n in size]
            small = np.pad(small, [*padding, (0, 0)])
            shares = (size[0] / self.shorter_px, size[1] / self.shorter_px)
        values = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))).float() / 255
        if self.mean is not None:
            values = (values - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]
        return values[None], shares

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.fit == "stretch":
            return self.shorter_px, self.shorter_px
        if self.fit == "pad":
            scale = self.shorter_px / max(height, width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        scale = min(self.shorter_px / min(height, width), self.longer_px / max(height, width))
        rounded = [max(_MULTIPLE_PX, round(n * scale / _MULTIPLE_PX) * _MULTIPLE_PX) for n in (height, width)]
        return rounded[0], rounded[1]


def read_values(text: str | None) -> dict[str, Any]:
    """Parse ``preprocessor_config.json`` or ``processor_config.json``; empty if it is missing or no object."""
    values = parse_json(text) if text else {}
    values = values.get("image_processor", values) if isinstance(values, dict) else {}
    return values if isinstance(values, dict) else {}
