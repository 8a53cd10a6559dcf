"""Composite: the hole filled with what the references show, by geometry alone, with a confidence for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.compute.progress import Interrupted, OnStep, Stages
from realfill.compute.threads import in_threads
from realfill.config import CamerasBy
from realfill.errors import SceneError, StoppedError, warn
from realfill.geometry.alignment import FullLayer, find_parts
from realfill.geometry.cameras import Camera, Frame
from realfill.geometry.choice import choose, enlarge
from realfill.geometry.colmap import reconstruct_by_colmap, require_pycolmap
from realfill.geometry.confidence import after_correction, confidence_of
from realfill.geometry.correspondences import Pairs, match_all, without_false_pairs
from realfill.geometry.depth import DepthMap, sweep
from realfill.geometry.fields import WarpField, find_homographies, points_of, warp_by_plane, warp_by_points
from realfill.geometry.given_depth import DepthEstimator, given_depth
from realfill.geometry.layers import NO_LAYER_COST, HalfSize, Layer, build_layers
from realfill.geometry.matching import Matcher
from realfill.geometry.reconstruction import Reconstruction, reconstruct, reconstruct_with
from realfill.geometry.rendering import Plan, blank_labels, fill_rest, render
from realfill.geometry.sampling import Pyramid
from realfill.geometry.seamless import correct
from realfill.geometry.smooth import hide
from realfill.geometry.working import Working, rescale, shrink_all, thin_out
from realfill.io.images import MaskArray
from realfill.scene.checking import check_arrays

_MOST_MATCHES = 800  # of each pair of photos, for the cameras
_LEAST_SHARE = 0.01  # of a part of the hole, from which a layer is aligned at full size
# hundredths of the work after which each stage ends, with three references
_MATCHED, _RECONSTRUCTED, _SWEPT, _LAYERED, _CHOSEN, _ALIGNED, _RENDERED = 22, 25, 59, 82, 93, 96, 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Composite:
    """A hole filled by geometry.

    Attributes:
        image: (H, W, 3), of the target's type, and equal to it outside the hole.
        confidence: (H, W) float32 in [0, 1]; 1 outside the hole, 0 where no layer reaches. It stands for an expected
            error (see ``confidence.error_of``).
        source: (H, W) int16: the reference that each pixel of the hole comes from; -1: none.
        layers: the candidates, best fitting first, at the working size: the target's, or 768 pixels on the longer side
            where it is larger.
        reconstruction: the cameras, at the working size; ``None`` where they could not be estimated.
        depth: of the target's pixels; ``None`` without cameras.
        reference_sizes: (height, width) of each reference at the working size, to which the maps of the layers point.
        pairs: the matches that were used, in the photos' own pixels.
        given: what came from elsewhere and was used: ``cameras``, ``depth``, both or nothing.
    """

    image: NDArray
    confidence: NDArray
    source: NDArray[np.int16]
    layers: tuple[Layer, ...]
    reconstruction: Reconstruction | None
    depth: DepthMap | None = None
    reference_sizes: tuple[tuple[int, int], ...] = ()
    pairs: Pairs = field(default_factory=dict)
    given: tuple[str, ...] = ()


def composite(
    known: NDArray,
    hole: MaskArray,
    references: Sequence[NDArray],
    *,
    reference_masks: Sequence[MaskArray | None] | None = None,
    focals: Sequence[float | None] | None = None,
    pairs: Pairs | None = None,
    matcher: Matcher | None = None,
    frame: Frame | None = None,
    depth: DepthEstimator | None = None,
    cameras: Sequence[Camera | None] | None = None,
    cameras_by: CamerasBy = "opencv",
    on_step: OnStep | None = None,
) -> Composite:
    """Fill a hole with what references show.

    Geometry is computed at the working size. The chosen layers are then sampled from the references' own pixels at the
    target's full size, tile by tile.

    Args:
        known: (H, W, 3) uint8 or uint16 sRGB, the target; not read in the hole.
        hole: (H, W) bool, True = fill.
        references: each (h, w, 3) uint8 or uint16 sRGB, of any size.
        reference_masks: for each reference the part that is left out, (h, w) bool, or ``None``; no pixel comes from it.
        focals: focal lengths of the target and each reference in pixels, as EXIF states them, or ``None``.
        pairs: the result of ``match_all``, in the photos' own pixels; ``None``: it is computed here.
        matcher: as for ``match_all``.
        frame: (top, left, bottom, right) in pixels, the last two exclusive: the part of the target that is its photo,
            if the rest is a canvas around it; the optical centre lies in its middle. ``None``: all of it.
        depth: returns the target's depth at the working size, for example by a network; it is used in place of the
            sweep, where there are cameras.
        cameras: those of the target and each reference, in the photos' own pixels and in one frame of any unit, for
            example of a network or a phone; ``None`` for a reference whose camera is not known. ``None``: all are
            estimated.
        cameras_by: how the cameras are estimated; see ``GeometryConfig``.
        on_step: called between pairs, cameras, layers and tiles, with hundredths of the work. If it returns ``False``,
            the work ends: once the colours are matched, what is not rendered yet is enlarged from the working size.

    Raises:
        SceneError: an array has another shape or type, or a camera another size.
        MissingDependencyError: ``cameras_by`` names a package that is not installed.
        StoppedError: ``on_step`` returned ``False`` before the colours were matched.
    """
    if cameras_by == "pycolmap":
        require_pycolmap()
    given = _given(cameras, [known, *references])
    stages = Stages("composite", on_step)
    masks = list(reference_masks or [None] * len(references))
    check_arrays(known, hole, references, masks)
    image = np.where(hole[..., None], known.dtype.type(0), known)
    references = [hide(reference, mask) for reference, mask in zip(references, masks, strict=True)]
    try:
        stages.enter(_MATCHED)
        match = partial(match_all, matcher=matcher, check=stages)
        working = shrink_all(
            image, hole, references, masks=masks, focals=focals, pairs=pairs, frame=frame, match=match
        )  # fmt: skip
        working = replace(working, pairs=without_false_pairs(working.pairs))
        found = _choose_layers(working, depth, given, stages, cameras_by)
    except Interrupted as error:
        raise StoppedError("the composite was stopped before there was anything to keep") from error
    layers, labels = found.layers, blank_labels(hole.shape)
    try:
        plan = _plan(found, working, references, masks, hole, stages)
    except Interrupted as error:
        raise StoppedError("the composite was stopped before its colours were matched") from error
    try:
        stages.enter(_ALIGNED)
        plan = _aligned(plan, image, hole, stages)
        stages.enter(_RENDERED)
        render(image, labels, hole, plan, stages)
        stages(1)
    except Interrupted:
        fill_rest(image, labels, hole, plan)
    numbers = np.full(256, -1, np.int16)
    numbers[: len(layers)] = [layer.warp.reference for layer in layers]
    source = numbers[labels]
    trust = cv2.GaussianBlur(confidence_of(after_correction(found.error, plan.correction)), (0, 0), 1.5)
    trust = np.asarray(cv2.resize(trust, hole.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    trust[source < 0] = 0
    trust[~hole] = 1
    sizes = [hole.shape, *(reference.shape for reference in references)]
    elsewhere = {"cameras": cameras, "depth": depth} if found.reconstruction is not None else {}
    return Composite(
        image=image, confidence=trust, source=source, layers=layers, reconstruction=found.reconstruction,
        depth=found.depth, reference_sizes=found.reference_sizes,
        pairs=rescale(working.pairs, [working.hole.shape, *found.reference_sizes], sizes),
        given=tuple(name for name, value in elsewhere.items() if value is not None),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """What was found at the working size.

    Attributes:
        layers: the candidates.
        rest: (H, W, 3) float32, what fills the hole where no layer is chosen.
        labels: (h, w) at half the working size; the label after the last layer is the rest.
        half_hole: (h, w) bool, the hole at that size.
        error: (h, w) float32 at that size, by how many levels the chosen layers are expected to err.
        reconstruction: the cameras.
        depth: of the target.
        reference_sizes: (height, width) of each reference.
    """

    layers: tuple[Layer, ...]
    rest: NDArray
    labels: NDArray
    half_hole: MaskArray
    error: NDArray
    reconstruction: Reconstruction | None
    depth: DepthMap | None
    reference_sizes: tuple[tuple[int, int], ...]


def _given(cameras: Sequence[Camera | None] | None, photos: Sequence[NDArray]) -> dict[int, Camera]:
    """Check cameras from elsewhere, and number those that are known.

    Raises:
        SceneError: there is another number of them, that of the target is missing, or one is of another size.
    """
    if cameras is None:
        return {}
    if len(cameras) != len(photos):
        raise SceneError(
            f"cameras has {len(cameras)} items; legal: {len(photos)}, the target's camera first, then for each "
            "reference its camera or None"
        )
    if cameras[0] is None:
        raise SceneError("cameras begins with None; legal: the target's camera, in whose frame the others are used")
    known = {n: camera for n, camera in enumerate(cameras) if camera is not None}
    for n, camera in known.items():
        if tuple(camera.size) != photos[n].shape[:2]:
            raise SceneError(
                f"camera {n} has the size {camera.size}; legal: {photos[n].shape[:2]}, that of its photo, or of the "
                "canvas around the target"
            )
    return known


def _warn_of_wrong(given: Mapping[int, Camera], reconstruction: Reconstruction | None) -> None:
    """Warn of given cameras that the matches contradict."""
    if reconstruction is None:
        warn("fewer than 30 matches agree with the given cameras, so the references are aligned by planes")
    elif wrong := [n - 1 for n in given if n not in reconstruction.cameras]:
        warn(
            f"the matches contradict the given camera of reference {', '.join(map(str, wrong))}, so it is aligned by "
            "planes"
        )


def _choose_layers(
    working: Working,
    estimate: DepthEstimator | None,
    given: Mapping[int, Camera],
    stages: Stages,
    cameras_by: CamerasBy,
) -> _Found:
    """Find cameras, depth and layers at the working size, and choose a layer for each pixel.

    Raises:
        Interrupted: ``on_step`` returned ``False``.
    """
    known, hole, references = working.known, working.hole, working.references
    stages.enter(_RECONSTRUCTED)
    pairs = thin_out(working.pairs, (hole.shape[0], hole.shape[1]), _MOST_MATCHES)
    sizes = [hole.shape, *(r.shape[:2] for r in references)]
    if given:
        resized = {n: camera.at_size((sizes[n][0], sizes[n][1])) for n, camera in given.items()}
        resized[0] = replace(resized[0], frame=resized[0].frame or working.frame)
        reconstruction = reconstruct_with(resized, pairs)
        _warn_of_wrong(given, reconstruction)
    else:
        find = reconstruct_by_colmap if cameras_by == "pycolmap" else reconstruct
        reconstruction = find(sizes, pairs, working.focals, frame=working.frame, check=stages)
    stages.enter(_SWEPT)
    depth = None
    if reconstruction is not None and estimate is None:
        depth = sweep(reconstruction.cameras, reconstruction.points, known, hole, references, check=stages)
    elif reconstruction is not None and estimate is not None:
        values = given_depth(estimate, known, reconstruction.cameras[0], reconstruction.points)
        depth = DepthMap(depth=values, checked=values)
    stages.enter(_LAYERED)
    warps = [warp.excluding(working.masks[warp.reference]) for warp in _warps(working, reconstruction, depth, stages)]
    layers = tuple(build_layers(warps, references, known, hole, check=stages))
    stages.enter(_CHOSEN)
    half = HalfSize.of(known, hole)
    rest = _rest(known, hole)
    costs = [*(layer.cost for layer in layers), np.full(half.hole.shape, NO_LAYER_COST, np.float32)]
    shown = [half.shrink(image) for image in (*(layer.image for layer in layers), rest)]
    labels = choose(costs, shown, half.hole, check=stages)
    nothing = np.full(half.hole.shape, np.inf, np.float32)
    error = np.take_along_axis(np.stack([*(layer.error for layer in layers), nothing]), labels[None], axis=0)[0]
    return _Found(
        layers=layers, rest=rest, labels=labels, half_hole=half.hole, error=error, reconstruction=reconstruction,
        depth=depth, reference_sizes=tuple((r.shape[0], r.shape[1]) for r in references),
    )  # fmt: skip


def _plan(
    found: _Found,
    working: Working,
    references: Sequence[NDArray],
    masks: Sequence[MaskArray | None],
    hole: MaskArray,
    stages: Stages,
) -> Plan:
    """Bring layers to the full size, and solve for their correction at the working size.

    Raises:
        Interrupted: ``on_step`` returned ``False``.
    """
    pyramids = [Pyramid(reference) for reference in references]
    labels = enlarge(found.labels, working.hole.shape)
    images = np.stack([*(layer.image for layer in found.layers), found.rest])
    correction = correct(images, labels, working.known, working.hole, check=stages)
    y, x = np.ogrid[: labels.shape[0], : labels.shape[1]]
    return Plan(
        layers=[
            FullLayer.of(layer, working.references[n].shape, pyramids[n], masks[n], (hole.shape[0], hole.shape[1]))
            for layer in found.layers
            for n in [layer.warp.reference]
        ],
        rest=found.rest, labels=found.labels, small_hole=found.half_hole,
        correction=correction, preview=images[labels, y, x] + correction, size=(hole.shape[0], hole.shape[1]),
    )  # fmt: skip


def _aligned(plan: Plan, image: NDArray, hole: MaskArray, stages: Stages) -> Plan:
    """Correct the fields of the layers that are used in each part of the hole.

    Raises:
        Interrupted: ``on_step`` returned ``False``.
    """
    layers = list(plan.layers)
    parts = find_parts(plan.small_hole, (hole.shape[0], hole.shape[1]))
    shrunk = find_parts(plan.small_hole, plan.small_hole.shape)
    for number, (part, small) in enumerate(zip(parts, shrunk, strict=True)):
        used = np.bincount(plan.labels[small][plan.small_hole[small]], minlength=len(layers) + 1)
        for n in range(len(layers)):
            share = (number + n / len(layers)) / len(parts)
            stages(share)
            if used[n] > _LEAST_SHARE * used.sum():
                layers[n] = layers[n].corrected(part, image, hole, partial(stages, share))
    return replace(plan, layers=layers)


def _rest(known: NDArray, hole: MaskArray) -> NDArray:
    """Continue the known pixels into the hole by Telea's method, for what no layer shows."""
    return cv2.inpaint(known, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA).astype(np.float32)


def _warps(
    working: Working, reconstruction: Reconstruction | None, depth: DepthMap | None, check: Callable[[], None]
) -> list[WarpField]:
    size, references = working.hole.shape, working.references
    warps = []
    if reconstruction is not None and depth is not None:
        cameras = reconstruction.cameras
        points, checked = in_threads(lambda values: points_of(cameras[0], values, size), (depth.depth, depth.checked))
        warps += in_threads(
            lambda i: warp_by_points(i - 1, cameras[i], points, checked),
            [i for i in sorted(cameras) if i],
            lambda _: check(),
        )
    for (target, other), matches in working.pairs.items():
        if target == 0:
            warps += [
                warp_by_plane(other - 1, matrix, size, references[other - 1].shape)
                for matrix in find_homographies(matches, size)
            ]
    return warps
