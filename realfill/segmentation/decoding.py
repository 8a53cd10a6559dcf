"""From a network's logits to instances.

transformers' ``post_process_instance_segmentation`` resizes thresholded masks to the nearest pixel and lets later
instances overwrite earlier ones. Here the logits are resized, each instance keeps its own outline, and only then
is the threshold applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from realfill.io.images import ImageArray
from realfill.segmentation.instances import Instance
from realfill.segmentation.outline import outline_in_box

_MIN_SIDE_PX = 2  # a smaller outline or box is noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """The answers of a network of the DETR kind, one for each query.

    Attributes:
        scores: (N,) in [0, 1].
        labels: (N,) class indices.
        mask_logits: (N, h, w); ``None`` for a network that finds boxes only.
        boxes: (N, 4), centre x, centre y, width and height as shares of the input; ``None`` if there are masks only.
    """

    scores: torch.Tensor
    labels: torch.Tensor
    mask_logits: torch.Tensor | None = None
    boxes: torch.Tensor | None = None

    @classmethod
    def of_outputs(cls, outputs: Any, num_classes: int) -> Queries:
        """Read the outputs for one photo.

        Args:
            outputs: the outputs of a network for universal or instance segmentation or for object detection.
            num_classes: number of classes without "no object". Outputs with one class more are a softmax with "no
                object" in the last place; others are a sigmoid for each class.
        """
        masks = _first(outputs, "masks_queries_logits", "pred_masks")
        boxes = _first(outputs, "pred_boxes")
        logits = _first(outputs, "class_queries_logits", "logits")
        if logits is None:
            raise TypeError("the network returns no class logits")
        logits = logits[0].float()
        has_no_object = (masks is not None and boxes is None) or logits.shape[-1] == num_classes + 1
        shares = logits.softmax(-1)[:, :-1] if has_no_object else logits.sigmoid()
        scores, labels = shares.max(-1)
        if masks is None:
            return cls(scores=scores, labels=labels, boxes=None if boxes is None else boxes[0].float())
        masks = masks[0].float()
        if boxes is None:  # the class says what, and the mask how surely
            inside = (masks > 0).float()
            mean = (masks.sigmoid() * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
            scores = scores * mean
        return cls(scores=scores, labels=labels, mask_logits=masks)


def _first(outputs: Any, *names: str) -> torch.Tensor | None:
    return next((value for name in names if (value := getattr(outputs, name, None)) is not None), None)


def decode(
    queries: Queries,
    image: ImageArray,
    *,
    names: Mapping[int, str],
    lowest: float,
    shares: tuple[float, float],
    detector: str,
) -> list[Instance]:
    """Make instances of queries.

    Args:
        queries: the answers of the network.
        image: (H, W, 3) uint8, the photo.
        names: names of the classes.
        lowest: least score.
        shares: the shares of the input's height and width that show the photo; the rest is padding.
        detector: name for the instances.

    Returns:
        Instances without numbers. Those with an empty outline are left out.
    """
    size = (image.shape[0], image.shape[1])
    found = []
    for query in torch.nonzero(queries.scores >= lowest).flatten().tolist():
        if queries.mask_logits is not None:
            mask = enlarge(queries.mask_logits[query], size, shares)
        elif queries.boxes is not None:
            box = _to_box(queries.boxes[query], size)
            if min(box[2] - box[0], box[3] - box[1]) < _MIN_SIDE_PX:
                continue
            mask = outline_in_box(image, box)
        else:
            raise TypeError("the network returns neither masks nor boxes")
        if mask.any():
            label = int(queries.labels[query])
            name = names.get(label, f"class {label}")
            found.append(
                Instance.of_mask(mask, name=name, score=float(queries.scores[query]), detector=detector)
            )  # fmt: skip
    return _without_repetitions(found) if queries.mask_logits is not None else found


def enlarge(logits: torch.Tensor, size: tuple[int, int], shares: tuple[float, float] = (1.0, 1.0)) -> NDArray:
    """Resize logits bilinearly to the photo, and threshold them there.

    Args:
        logits: (h, w); above 0 is inside.
        size: (height, width) of the photo.
        shares: the shares of the height and width of ``logits`` that show the photo.

    Returns:
        (height, width) bool.
    """
    padded = (max(size[0], round(size[0] / shares[0])), max(size[1], round(size[1] / shares[1])))
    large = F.interpolate(logits[None, None].float(), size=padded, mode="bilinear", align_corners=False)
    return (large[0, 0, : size[0], : size[1]] > 0).cpu().numpy()


def _to_box(box: torch.Tensor, size: tuple[int, int]) -> tuple[int, int, int, int]:
    x, y, width, height = box.tolist()
    top, bottom = (round(min(1.0, max(0.0, n)) * size[0]) for n in (y - height / 2, y + height / 2))
    left, right = (round(min(1.0, max(0.0, n)) * size[1]) for n in (x - width / 2, x + width / 2))
    return top, left, bottom, right


def _without_repetitions(found: list[Instance]) -> list[Instance]:
    """Keep the best of several queries that answer with the same outline, that is with nine tenths in common."""
    kept: list[Instance] = []
    for instance in sorted(found, key=lambda i: -i.score):
        repeated = any(
            2 * instance.overlap_px(other) > 0.9 * (instance.area_px + other.area_px)
            for other in kept if other.name == instance.name
        )  # fmt: skip
        if not repeated:
            kept.append(instance)
    return kept
