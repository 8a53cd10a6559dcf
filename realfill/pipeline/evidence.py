"""What the references show of a hole: the composite of a scene, the pixels taken from it, and the verdict by it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch

from realfill.compute.devices import resolve_device
from realfill.compute.memory import is_out_of_memory
from realfill.compute.progress import OnStep, Progress, ProgressBar, say
from realfill.config import CamerasBy, GeometryConfig, GeometrySettings, MatcherName, RankConfig
from realfill.errors import StoppedError, warn
from realfill.filling.keeping import Kept
from realfill.geometry.agreement import contradiction
from realfill.geometry.cameras import Camera
from realfill.geometry.composite import Composite, composite
from realfill.geometry.given_depth import DepthEstimator
from realfill.geometry.matching import Matcher, load_matcher
from realfill.io.photos import put
from realfill.pipeline.settings import resolve_geometry
from realfill.results.completions import Completions
from realfill.results.evidence import Evidence
from realfill.results.verdict import judge
from realfill.scene.scene import Scene
from realfill.scene.windows import Part

_LOW_COVERAGE = 0.2  # share of the hole below which the references say too little

# computed once per scene, with the names of what matched the photos and estimated the cameras
_composites: WeakKeyDictionary[Scene, tuple[MatcherName, CamerasBy, Composite]] = WeakKeyDictionary()


def examine(
    scene: Scene,
    geometry: GeometryConfig | None = None,
    *,
    depth: DepthEstimator | None = None,
    cameras: Sequence[Camera | None] | None = None,
    device: str | torch.device | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Evidence:
    """Find out how much of the hole the references show, before anything expensive.

    The composite that this takes is kept, and ``fit`` and ``complete`` use it for the same ``Scene``. One with a given
    depth or given cameras is used whatever their settings say about matches and cameras.

    Args:
        scene: the scene to complete.
        geometry: the thresholds of confidence, and how photos are matched and cameras estimated. ``None``: the
            defaults.
        depth: returns the depth of the target, for example by a network, see ``composite``. ``None``: it is estimated.
        cameras: those of the target and each reference from elsewhere, see ``composite``. ``None``: they are estimated.
        device: where a matcher that is a network runs. ``None``: the best available.
        on_step: called between the steps of the composite. If it returns ``False``, the job ends.
        progress: show a progress bar, and report the result and how long it took.

    Returns:
        The evidence that completions of the scene will have. Its ``coverage`` is the share of the hole that the
        references show; 0 without references or with ``enabled=False``.

    Raises:
        SceneError: a depth or a camera does not suit its photo.
        BaseModelError: the weights of the matcher are not available.
        MissingDependencyError: ``geometry`` names a package that is not installed.
        StoppedError: ``on_step`` ended the job.
    """
    settings = resolve_geometry(geometry, scene, None, None)
    found = compose(scene, settings, device, depth=depth, cameras=cameras, on_step=on_step, progress=progress)
    return _keep(scene, found, settings).evidence


def keep(
    scene: Scene,
    settings: GeometrySettings,
    device: str | torch.device | None,
    *,
    hinted: bool = False,
    parts: Callable[[], Sequence[Part]] | None = None,
    on_step: OnStep | None,
    progress: bool,
) -> Kept:
    """Decide which pixels of the hole are taken from the references.

    Args:
        scene: the scene.
        settings: whether there is a composite, how it is made, and the thresholds of confidence.
        device: where a matcher that is a network runs. ``None``: the best available.
        hinted: whether the base model that fills the rest reads hints.
        parts: returns the windows in which it does.
        on_step: called between the steps of the composite.
        progress: show a progress bar.
    """
    found = compose(scene, settings, device, on_step=on_step, progress=progress)
    return _keep(scene, found, settings, hinted=hinted, parts=parts)


def _keep(
    scene: Scene,
    found: Composite | None,
    settings: GeometrySettings,
    *,
    hinted: bool = False,
    parts: Callable[[], Sequence[Part]] | None = None,
) -> Kept:
    if found is None:
        return Kept.nothing(scene)
    evidence = Evidence.judge(scene.mask, found.confidence, found.source, settings)
    kept = Kept.of_composite(scene, found.image, evidence, settings, hinted=hinted, parts=parts)
    return dataclasses.replace(kept, given=found.given)


def measure_coverage(
    scene: Scene,
    settings: GeometrySettings,
    device: str | torch.device | None,
    *,
    on_step: OnStep | None,
    progress: bool,
) -> float:
    """Return ``Evidence.coverage``, the share of the hole that the references show; the arguments are ``keep``'s."""
    found = compose(scene, settings, device, on_step=on_step, progress=progress)
    return 0.0 if found is None else Evidence.judge(scene.mask, found.confidence, found.source, settings).coverage


def compose(
    scene: Scene,
    settings: GeometrySettings,
    device: str | torch.device | None,
    *,
    depth: DepthEstimator | None = None,
    cameras: Sequence[Camera | None] | None = None,
    on_step: OnStep | None,
    progress: bool,
) -> Composite | None:
    """Compute the composite of a scene, once; ``None`` if there is none or memory does not suffice for it.

    The arguments are those of ``examine``.
    """
    if not _has_composite(scene, settings):
        return None
    estimated_by = settings.matches_by, settings.cameras_by
    earlier = composite_of(scene)
    usable = earlier is not None and (bool(earlier.given) or _composites[scene][:2] == estimated_by)
    if not usable or depth is not None or cameras is not None:
        started = time.monotonic()
        matcher = load_named_matcher(settings, device)
        try:
            found = _align(scene, matcher, depth, cameras, settings.cameras_by, on_step, progress=progress)
        except (MemoryError, RuntimeError, cv2.error, np.linalg.LinAlgError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            warn(
                f"the references could not be aligned with the target ({type(error).__name__}: {error}), so the model "
                "fills the whole hole. GeometryConfig.enabled=False skips this step"
            )
            return None
        _composites[scene] = *estimated_by, found
        share = Evidence.judge(scene.mask, found.confidence, found.source, settings).coverage
        _report_coverage(share, time.monotonic() - started, progress=progress)
    return _composites[scene][2]


def composite_of(scene: Scene) -> Composite | None:
    """Return the composite of a scene if it has been computed."""
    return _composites[scene][2] if scene in _composites else None


def load_named_matcher(settings: GeometrySettings, device: str | torch.device | None) -> Matcher | None:
    """Load the matcher of the composite's photos; ``None`` for the composite's own.

    Raises:
        BaseModelError: its weights are not available.
    """
    if settings.matches_by == "sift":
        return None
    return load_matcher(RankConfig(matcher=settings.matches_by).resolve({}), resolve_device(device))


def judged(completions: Completions, geometry: GeometrySettings) -> Completions:
    """Give each completion its verdict, if there is a composite to judge it by."""
    scene = completions.scene
    found = composite_of(scene) if geometry.enabled else None
    if found is None:
        return completions
    contradicted = contradiction(found, scene.mask)
    composed = found.image.copy()  # in the colours of the target's file and back, as a completion's pixels are
    put(composed, scene.mask, scene.original.decode(scene.original.encode(found.image[scene.mask])))
    items = tuple(
        dataclasses.replace(
            completion,
            verdict=judge(
                completion.image, scene.mask, composite=composed, confidence=found.confidence,
                source=found.source, contradiction=contradicted,
            ),
        )
        for completion in completions
    )  # fmt: skip
    return dataclasses.replace(completions, items=items)


def _has_composite(scene: Scene, settings: GeometrySettings) -> bool:
    """Tell whether the composite is on, and the scene has known pixels and references to compute it from."""
    return settings.enabled and bool(scene.references) and not scene.mask.all()


def _align(
    scene: Scene,
    matcher: Matcher | None,
    depth: DepthEstimator | None,
    cameras: Sequence[Camera | None] | None,
    cameras_by: CamerasBy,
    on_step: OnStep | None,
    *,
    progress: bool,
) -> Composite:
    """Compute the composite of a scene.

    Raises:
        StoppedError: ``on_step`` ended the job.
    """
    stopped = False
    with ProgressBar(total=100, desc="align", unit="%", disable=not progress) as bar:

        def report(state: Progress) -> bool:
            nonlocal stopped
            bar.update(state.step - bar.n)
            stopped = on_step is not None and on_step(state) is False
            return not stopped

        found = composite(
            scene.known, scene.mask, scene.references, reference_masks=scene.reference_masks,
            focals=scene.focal_lengths, frame=scene.frame, matcher=matcher, depth=depth, cameras=cameras,
            cameras_by=cameras_by, on_step=report,
        )  # fmt: skip
    if stopped:  # what is found by then has only the detail of the working size
        raise StoppedError("the job was ended before the references were aligned with the target")
    return found


def _report_coverage(share: float, duration_s: float, *, progress: bool) -> None:
    """Say how much of the hole the references show, and warn if it is little."""
    say(f"references show {100 * share:.0f} % of the hole ({duration_s:.0f} s)" if progress else None)
    if share < _LOW_COVERAGE:
        warn(
            f"the references show {100 * share:.0f} % of the hole, so most of it is invented. Add photos that "
            "show what it hides, from nearly the same place"
        )
