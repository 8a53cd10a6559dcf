"""People without weights: OpenCV's people detector and scikit-image's face cascade propose boxes.

Both come with their libraries. They miss many people and find some that are none; ``docs/guides/erase.md`` has what was
measured. A network finds far more, see ``realfill.segmentation.networks``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.scene.masks import Box
from realfill.segmentation.instances import Instance
from realfill.segmentation.outline import clip_box, outline_in_box

PEOPLE_DETECTOR = "the offline detector"
_SIZE_PX = 800  # longer side of the image in which both detectors look
_HOG_WINDOW = (128, 64)  # (height, width), of which a person fills the inner 96 x 48 pixels or so
_HOG_INNER = (0.75, 0.55)  # shares of the window's height and width that the person fills
_BODY_WIDTHS, _BODY_HEIGHTS = 3.0, 7.0  # a standing person, in widths and heights of the face's box
_MIN_FACE_PX = 24  # smaller faces are mostly none
_SLACK = 0.15  # the boxes are only roughly right, see outline_in_box
_ABOVE_FACE = 0.45  # hair above the face's box, as a share of its height


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A box that may show a person.

    Attributes:
        box: (top, left, bottom, right) in pixels of the photo.
        score: confidence in [0, 1].
        source: ``figure`` or ``face``.
        face: the box of the face, if that is what was found.
    """

    box: Box
    score: float
    source: str
    face: Box | None = None


def find_people(image: ImageArray, *, lowest: float) -> list[Instance]:
    """Find people by proposals and GrabCut.

    Args:
        image: (H, W, 3) uint8 sRGB.
        lowest: least score of a proposal.

    Returns:
        Instances without numbers, of the class ``person``.
    """
    proposals = [p for p in propose_people(image) if p.score >= lowest]
    return [
        Instance.of_mask(_outline(image, p), name="person", score=p.score, detector=p.source) for p in proposals
    ]  # fmt: skip


def _outline(image: ImageArray, proposal: Proposal) -> MaskArray:
    certain = None if proposal.face is None else _core(proposal.face, image.shape[:2])
    return outline_in_box(image, proposal.box, certain=certain, slack=_SLACK)


def propose_people(image: ImageArray) -> list[Proposal]:
    """Propose boxes of people, faces first, without two boxes of the same person."""
    size = fit_within(image.shape[:2], _SIZE_PX)
    small, scale = resize(image, size), image.shape[0] / size[0]
    kept: list[Proposal] = []
    for found in (*propose_faces(small), *propose_figures(small)):
        box = clip_box(tuple(round(n * scale) for n in found.box), image.shape[:2])  # type: ignore[arg-type]
        face = None if found.face is None else tuple(round(n * scale) for n in found.face)
        new = Proposal(box=box, score=found.score, source=found.source, face=face)  # type: ignore[arg-type]
        if not any(_is_same(new, other) for other in kept):
            kept.append(new)
    return kept


def propose_figures(image: ImageArray) -> list[Proposal]:
    """Find standing figures (Dalal and Triggs, CVPR 2005; OpenCV's default people detector)."""
    if image.shape[0] < _HOG_WINDOW[0] or image.shape[1] < _HOG_WINDOW[1]:
        return []
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
    boxes, weights = hog.detectMultiScale(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), winStride=(8, 8), padding=(16, 16), scale=1.05
    )
    found = []
    for (x, y, width, height), weight in sorted(
        zip(boxes, np.ravel(weights), strict=True), key=lambda pair: -float(pair[1])
    ):
        dy, dx = (round(n * (1 - share) / 2) for n, share in zip((height, width), _HOG_INNER, strict=True))
        box = (int(y + dy), int(x + dx), int(y + height - dy), int(x + width - dx))
        if box[0] < image.shape[0] and box[1] < image.shape[1] and box[2] > 0 and box[3] > 0:
            found.append(Proposal(box=box, score=float(1 - np.exp(-max(0.0, float(weight)))), source="figure"))
    return found


def propose_faces(image: ImageArray) -> list[Proposal]:
    """Find frontal faces (local binary patterns; scikit-image's own cascade), and the people below them."""
    from skimage.data import lbp_frontal_face_cascade_filename  # noqa: PLC0415 - takes a second to import
    from skimage.feature import Cascade  # noqa: PLC0415

    shorter = min(image.shape[:2])
    detections = Cascade(lbp_frontal_face_cascade_filename()).detect_multi_scale(
        img=image, scale_factor=1.2, step_ratio=1.2, min_size=(_MIN_FACE_PX, _MIN_FACE_PX), max_size=(shorter, shorter)
    )
    found = []
    for face in sorted(detections, key=lambda f: -f["width"]):
        top, left, side, tall = int(face["r"]), int(face["c"]), int(face["width"]), int(face["height"])
        middle = left + side / 2
        body = (
            max(0, round(top - _ABOVE_FACE * tall)),
            max(0, round(middle - _BODY_WIDTHS * side / 2)),
            min(image.shape[0], round(top + (_BODY_HEIGHTS - _ABOVE_FACE) * tall)),
            min(image.shape[1], round(middle + _BODY_WIDTHS * side / 2)),
        )
        found.append(Proposal(box=body, score=0.6, source="face", face=(top, left, top + tall, left + side)))
    return found


def _core(face: Box, size: tuple[int, int]) -> MaskArray:
    """Mark the inner ellipse of a face's box, which shows skin, and the chest below it."""
    mask = np.zeros(size, np.uint8)
    top, left, bottom, right = face
    centre = ((left + right) // 2, (top + bottom) // 2)
    cv2.ellipse(mask, centre, (int(0.32 * (right - left)), int(0.42 * (bottom - top))), 0, 0, 360, 1, -1)
    chest = (centre[0], bottom + (bottom - top) // 2)
    cv2.ellipse(mask, chest, (int(0.3 * (right - left)), int(0.3 * (bottom - top))), 0, 0, 360, 1, -1)
    return mask > 0


def _is_same(first: Proposal, second: Proposal) -> bool:
    """Tell whether two boxes share more than half of the smaller one; two faces, more than a tenth."""
    one, other, share = first.box, second.box, 0.5
    if first.face is not None and second.face is not None:
        one, other, share = first.face, second.face, 0.1
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return height > 0 and width > 0 and height * width > share * min(areas)
