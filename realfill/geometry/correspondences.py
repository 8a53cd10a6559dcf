"""Correspondences: verified keypoint matches between pairs of photos of a scene, with the target's hole hidden.

RootSIFT everywhere, and RootSIFT on affine views (ASIFT, Morel & Yu 2009) between the target and each reference with
which it has few matches, since affine views find more where the viewpoints differ. Pairs are verified by a fundamental
matrix (MAGSAC++).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from realfill.compute.threads import in_threads
from realfill.geometry.matching import Matcher, lies_in, outside
from realfill.geometry.smooth import hide
from realfill.io.images import ImageArray, MaskArray

Pairs: TypeAlias = Mapping[tuple[int, int], NDArray]
"""For images i < j, (K, 4): x and y in image i, x and y in image j, in the images' own pixels."""

_PLAIN_PX, _PLAIN_LIMIT = 1024, 8000  # longer side at which keypoints are detected, and the largest number of them
_AFFINE_LIMIT = 900  # the same for each affine view
# number of the target's matches with a reference below which affine views are taken, and their longer side
_AFFINE_STAGES = ((1000, 384), (200, 640))
_MAX_ENLARGEMENT = 2.0
_CONTRAST = 0.01
_MAX_RATIO = 0.8  # of Lowe's test
_LEAST_DISTANCE = 0.01  # added to both distances, so that equal descriptors are not told apart
_SAME_POINT_PX = 4.0  # rivals closer than this are the same point, detected twice
_SAME_KEYPOINT_PX = 2.0  # distance at which the match back counts as the match forth
_CHUNK = 500  # rows of the similarity matrix that are held at a time
_MIN_MATCHES = 12
_ALL_REFERENCES, _PARTNERS = 5, 4  # references that are all matched with each other, and partners of each if more
_CELLS = 16  # of the target, along its longer side, in which partners have matches in common
_SAME_DIRECTION, _MIN_CORNERS = 0.6, 8  # least share of triangles, and least number of matches to judge by
_EPIPOLAR_PX, _EPIPOLAR_SIDE = 1.5, 1024  # largest error, in images that are shrunk to this longer side
_MAX_PATCH_PX = 12.0  # radius of a descriptor's patch that must not reach into the hole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Keypoints:
    """Keypoints of an image.

    Attributes:
        points: (K, 2) float32, x and y in the image's own pixels; (0, 0) is the centre of the first pixel.
        descriptors: (K, 128) float32, RootSIFT.
    """

    points: NDArray
    descriptors: NDArray


def match_all(
    images: Sequence[ImageArray],
    hole: MaskArray,
    reference_masks: Sequence[MaskArray | None] | None = None,
    *,
    matcher: Matcher | None = None,
    check: Callable[[float], None] | None = None,
) -> Pairs:
    """Match pairs of images; the first is the target.

    These are all pairs of up to six images. More references are each matched with the target, and with those four
    others that have matches in the most cells of the target in common, so that the work is linear in references.

    Args:
        images: each (H, W, 3) uint8, the target first.
        hole: (H, W) bool of the target, True = fill. Keypoints near it are dropped.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``. Keypoints near it are
            dropped.
        matcher: finds the matches. ``None``: RootSIFT, also on affine views.
        check: called between photos and pairs with the share of the work that is done; it may raise an exception.

    Returns:
        The matches of each pair that agree with a fundamental matrix, the surest first; none where fewer than 12 were
        found.
    """
    masks = [hole, *(reference_masks or [None] * (len(images) - 1))]
    if matcher is not None:
        return _match_by(matcher, images, masks, check or (lambda _: None))
    images = [images[0], *(hide(image, mask) for image, mask in zip(images[1:], masks[1:], strict=True))]
    sides = [max(image.shape[:2]) for image in images]
    references, shape = range(1, len(images)), images[0].shape
    candidates: dict[tuple[int, int], NDArray] = {}
    pairs: dict[tuple[int, int], NDArray] = {}

    def detected(photos: Iterable[int], affine_px: int | None, start: float, end: float) -> dict[int, Keypoints]:
        photos = sorted(set(photos))
        found = in_threads(
            lambda photo: detect(images[photo], masks[photo], affine_px=affine_px), photos, _part_of(check, start, end)
        )
        return dict(zip(photos, found, strict=True))

    def add(wanted: Sequence[tuple[int, int]], keypoints: Mapping[int, Keypoints], start: float, end: float) -> None:
        def matched(pair: tuple[int, int]) -> tuple[NDArray, NDArray]:
            more = match(keypoints[pair[0]], keypoints[pair[1]])
            more = np.concatenate([candidates[pair], more]) if pair in candidates else more
            return more, verify(more, (sides[pair[0]], sides[pair[1]]))

        for pair, result in zip(wanted, in_threads(matched, wanted, _part_of(check, start, end)), strict=True):
            candidates[pair], pairs[pair] = result

    plain = detected(range(len(images)), None, 0.0, 0.2)
    add([(0, n) for n in references], plain, 0.2, 0.4)
    start, length = 0.4, 0.2
    for least, affine_px in _AFFINE_STAGES:
        few = [(0, n) for n in references if len(pairs[0, n]) < least]
        views = detected((photo for pair in few for photo in pair), affine_px, start, start + length / 2)
        add(few, views, start + length / 2, start + length)
        start += length
    # references have each other's normal views, and affine views are slow
    add(_between_references(pairs, references, (shape[0], shape[1])), plain, 0.8, 1.0)
    return dict(sorted(pairs.items()))


def _between_references(pairs: Pairs, references: Sequence[int], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Choose the pairs of references that are matched with each other.

    Args:
        pairs: the matches of the target with each reference.
        references: their numbers.
        size: (height, width) of the target.
    """
    if len(references) <= _ALL_REFERENCES:
        return list(combinations(references, 2))
    cell = max(size) / _CELLS
    cells = {n: {tuple(place) for place in (pairs[0, n][:, :2] // cell).astype(int).tolist()} for n in references}
    chosen: set[tuple[int, int]] = set()
    for n in references:
        others = [m for m in references if m != n]
        others.sort(key=lambda m, n=n: (-len(cells[n] & cells[m]), -len(pairs[0, m])))
        chosen |= {(min(n, m), max(n, m)) for m in others[:_PARTNERS]}
    return sorted(chosen)


def _part_of(check: Callable[[float], None] | None, start: float, end: float) -> Callable[[float], None]:
    """Return what reports a share of a part of the work as a share of all of it."""
    return lambda share: None if check is None else check(start + share * (end - start))


def _match_by(
    matcher: Matcher,
    images: Sequence[ImageArray],
    excluded: Sequence[MaskArray | None],
    check: Callable[[float], None],
) -> Pairs:
    """Match pairs by a matcher, each image without what is left out of it."""
    features = []
    for image, mask in zip(images, excluded, strict=True):
        check(0.5 * len(features) / len(images))
        features.append(matcher.extract(hide(image, mask)))
    references, shape = range(1, len(images)), images[0].shape
    pairs: dict[tuple[int, int], NDArray] = {}

    def add(wanted: Sequence[tuple[int, int]], share: float) -> None:
        found = matcher.match_pairs([(features[i], features[j]) for i, j in wanted], lambda: check(share))
        for (i, j), matches in zip(wanted, found, strict=True):
            kept = outside(matches[np.argsort(-matches.confidence, kind="stable")], excluded[i])
            table = np.concatenate([kept.keypoints0, kept.keypoints1], axis=1)
            sides = max(images[i].shape[:2]), max(images[j].shape[:2])
            pairs[i, j] = verify(table[~lies_in(kept.keypoints1, excluded[j])], sides)

    add([(0, n) for n in references], 0.5)
    add(_between_references(pairs, references, (shape[0], shape[1])), 0.75)
    return dict(sorted(pairs.items()))


def detect(image: ImageArray, hole: MaskArray | None = None, *, affine_px: int | None = None) -> Keypoints:
    """Detect keypoints and describe them by RootSIFT.

    Args:
        image: (H, W, 3) uint8.
        hole: (H, W) bool; keypoints whose patch reaches into it are dropped.
        affine_px: detect them in affine views of the image, at this longer side; ``None``: in the image itself.
    """
    height, width = image.shape[:2]
    scale = min(_MAX_ENLARGEMENT, (affine_px or _PLAIN_PX) / max(height, width))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.cvtColor(cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation), cv2.COLOR_RGB2GRAY)
    detector: Any = cv2.SIFT_create(  # type: ignore[attr-defined]
        nfeatures=_AFFINE_LIMIT if affine_px else _PLAIN_LIMIT, contrastThreshold=_CONTRAST, enable_precise_upscale=True
    )
    if affine_px:
        detector = cv2.AffineFeature_create(detector, maxTilt=3, minTilt=0)  # type: ignore[attr-defined]
    found, descriptors = detector.detectAndCompute(grey, None)
    points = (np.array([k.pt for k in found], np.float32).reshape(-1, 2) + 0.5) / np.float32(scale) - np.float32(0.5)
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)).astype(np.float32)
    if hole is not None and len(points):
        radius = np.minimum(np.array([k.size for k in found], np.float32) / scale, _MAX_PATCH_PX) + 1
        distance = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 5)
        x, y = np.rint(points).astype(int).clip(0, [width - 1, height - 1]).T
        outside = distance[y, x] > radius
        points, descriptors = points[outside], descriptors[outside]
    return Keypoints(points=points, descriptors=descriptors)


def match(first: Keypoints, second: Keypoints) -> NDArray:
    """Match keypoints by mutual nearest descriptors and Lowe's ratio test.

    Returns:
        (K, 4): x and y in the first image, x and y in the second; the surest match first.
    """
    if min(len(first.points), len(second.points)) < 3:
        return np.zeros((0, 4), np.float32)
    best, ratio = _nearest(first, second)
    kept = np.flatnonzero(ratio < _MAX_RATIO)
    back = _nearest_only(second.descriptors[best[kept]], first.descriptors)
    kept = kept[np.linalg.norm(first.points[back] - first.points[kept], axis=1) < _SAME_KEYPOINT_PX]
    kept = kept[np.argsort(ratio[kept], kind="stable")]
    matches = np.concatenate([first.points[kept], second.points[best[kept]]], axis=1)
    _, unique = np.unique(np.round(matches[:, :2] / 1.5).astype(int), axis=0, return_index=True)
    return matches[np.sort(unique)]


def _nearest(first: Keypoints, second: Keypoints) -> tuple[NDArray, NDArray]:
    """Find for each descriptor of the first image the nearest one of the second, and the ratio of Lowe's test.

    The ratio is the distance to the nearest descriptor over that to the second nearest, or to the third nearest if the
    second shows the same point.
    """
    best, ratio = np.zeros(len(first.points), int), np.ones(len(first.points), np.float32)
    for start in range(0, len(first.points), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity = first.descriptors[rows] @ second.descriptors.T
        every = np.arange(len(similarity))
        nearest, scores = [], []
        for _ in range(3):  # three passes for the largest value are far quicker than a partial sort
            nearest.append(similarity.argmax(axis=1))
            scores.append(similarity[every, nearest[-1]])
            similarity[every, nearest[-1]] = -np.inf
        distances = np.sqrt(np.maximum(2 - 2 * np.stack(scores, axis=1), 0))
        places = second.points[np.stack(nearest, axis=1)]
        apart = np.linalg.norm(places - places[:, :1], axis=2) > _SAME_POINT_PX
        rival = np.where(apart, distances, np.inf).min(axis=1)
        rival = np.where(np.isfinite(rival), rival, distances[:, -1])
        best[rows], ratio[rows] = nearest[0], (distances[:, 0] + _LEAST_DISTANCE) / (rival + _LEAST_DISTANCE)
    return best, ratio


def _nearest_only(descriptors: NDArray, others: NDArray) -> NDArray:
    """Find the nearest of other descriptors for each descriptor."""
    return np.concatenate([
        (descriptors[start : start + _CHUNK] @ others.T).argmax(axis=1) for start in range(0, len(descriptors), _CHUNK)
    ] or [np.zeros(0, int)])  # fmt: skip


def verify(matches: NDArray, sides: tuple[int, int]) -> NDArray:
    """Keep the matches (K, 4) that agree with a fundamental matrix; none where there are fewer than 12.

    Args:
        matches: x and y in the first image, x and y in the second.
        sides: the longer side of both images in pixels.
    """
    if len(matches) < _MIN_MATCHES:
        return matches[:0]
    scale = np.repeat([min(1.0, _EPIPOLAR_SIDE / side) for side in sides], 2).astype(np.float32)
    one, other = np.split(matches * scale, 2, axis=1)
    limits = {"ransacReprojThreshold": _EPIPOLAR_PX, "confidence": 0.9999, "maxIters": 10_000}
    try:
        _, inliers = cv2.findFundamentalMat(one, other, method=cv2.USAC_MAGSAC, **limits)
    except cv2.error:  # OpenCV 5.0 can fail where nearly all matches lie on a plane
        _, inliers = cv2.findFundamentalMat(one, other, method=cv2.FM_RANSAC, **limits)
    return matches[:0] if inliers is None else matches[inliers.ravel() > 0]


def without_false_pairs(pairs: Pairs) -> Pairs:
    """Leave out pairs of photos whose matches show no common scene: those of other scenes and of mirrored photos.

    Three matched points that lie close together go round in the same direction in both photos, unless their depths
    differ much. Random matches keep the direction of every second triangle of neighbours, a mirrored photo of hardly
    any.
    """
    return {pair: matches for pair, matches in pairs.items() if same_direction(matches) >= _SAME_DIRECTION}


def same_direction(matches: NDArray) -> float:
    """Return the share of triangles of neighbours, matches (K, 4), that go round in the same direction in both photos.

    Without a triangle it is 1.
    """
    _, first = np.unique(np.round(matches[:, :2], 1), axis=0, return_index=True)
    one, other = matches[first, :2].astype(np.float64), matches[first, 2:4].astype(np.float64)
    if len(one) < _MIN_CORNERS:
        return 1.0
    corners = Delaunay(one, qhull_options="QJ").simplices
    turns = []
    for points in (one, other):
        a, b = (points[corners[:, n]] - points[corners[:, 0]] for n in (1, 2))
        turns.append(np.sign(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]))
    return float(np.mean(turns[0] == turns[1]))
