"""``erase``: what a mask covers goes, and what was behind it comes, from references where there are any."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path

import torch

from realfill.compute.progress import OnStep
from realfill.config import FitConfig, SampleConfig
from realfill.config.engine import EraseEngineName
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.errors import SceneError, StoppedError
from realfill.io.images import ImageLike, MaskArray
from realfill.models.engine import Engine
from realfill.pipeline.erasing_engines import Request, fill_by
from realfill.pipeline.strangers import Strangers, choose, find_strangers
from realfill.results.erasure import Erasure
from realfill.results.provenance import describe_erasure
from realfill.scene.mask_reading import MaskLike, MaskReading
from realfill.scene.reading import find_photos
from realfill.scene.scene import Scene
from realfill.segmentation.detection import PEOPLE, Detector, OfflineDetector, load_detector
from realfill.segmentation.selecting import select
from realfill.segmentation.selection import GROWTH, GROWTH_WITH_REFERENCES


def erase(
    photo: ImageLike,
    mask: MaskLike,
    references: Sequence[ImageLike] = (),
    *,
    engine: EraseEngineName | Engine | None = None,
    weights: str | PathLike[str] | None = None,
    trust_weights: bool = False,
    config: FitConfig | None = None,
    sample: SampleConfig | None = None,
    seeds: Sequence[int] = (0,),
    classes: Sequence[str] = PEOPLE,
    detector: str | Detector = "auto",
    hide_strangers: bool = True,
    second_pass: bool = False,
    protected: MaskArray | None = None,
    strip_location: bool = False,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Erasure:
    """Remove what a mask covers from a photo.

    Args:
        photo: a path, a PIL image or an array.
        mask: what goes: the result of ``mask_from`` or of ``realfill.scene.mask_sources``, a boolean array, or an image
            of the photo's size.
        references: other photos of the place, which show what is behind.
        engine: ``composite`` takes pixels from the references, and a second engine fills what none shows; ``fit`` fits
            a base model to the references; the others need no references, see ``EngineName``; or an object that
            follows ``realfill.models.engine.Engine``. ``None``: with references the composite; else ``lama`` or
            ``migan`` if their weights are on this machine, else ``telea``.
        weights: see ``load_engine``; only for the engines ``completion``, ``lama``, ``migan`` and ``base``.
        trust_weights: see ``load_engine``.
        config: settings of the fit, only for the engine ``fit``. ``None``: the packaged base's defaults.
        sample: settings of the sampler, only for the engines ``base`` and ``fit``, for example
            ``SampleConfig(guidance_from="foreground")``; its seeds have no effect. ``None``: the defaults of the
            adapter and of the base model.
        seeds: one for each candidate of an engine that draws; consecutive for the engine ``fit``, which ranks its
            candidates. With ``second_pass``, the candidate in which the detector finds least is the result, the better
            ranked of equal ones; else it is the first.
        classes: the classes of what is removed.
        detector: what looks for strangers in the references and for a rest in the result; see ``load_detector``.
        hide_strangers: hide instances of ``classes`` in the references, so that nothing is taken or learnt from them.
        second_pass: run the detector on the result. If it still finds an instance of ``classes`` in the hole, fill once
            more, with the box of what it finds added to the mask. If it then still finds one, the engine may have
            painted it: an engine that draws and needs no fit is asked for four more candidates.
        protected: (H, W) bool, pixels that the second pass must not add, such as the outlines of those who stay.
        strip_location: leave GPS data out of what is written.
        device: where to compute. ``None``: the best available.
        local_files_only: do not use the network for weights.
        on_step: called after each step of the engine; if it returns ``False``, the job ends.
        progress: show progress bars.

    Returns:
        The result, which names the engine. Outside the mask it equals the photo exactly.

    Raises:
        SceneError: a photo or the mask cannot be used; an engine that needs references has none.
        ValueError: there is no such engine, there are no seeds, the engine ``fit`` cannot draw them, or the
            engine has no use for the weights or the config.
        BaseModelError: weights are not available.
        StoppedError: ``on_step`` ended the job before the first result was finished.
    """
    keywords = {"device": device, "local_files_only": local_files_only}
    request = Request(
        engine=engine, weights=weights, trust_weights=trust_weights, config=config, sample=sample,
        seeds=tuple(seeds), keywords=keywords, on_step=on_step, progress=progress,
    )  # fmt: skip
    request.check(has_references=bool(references))
    looks = second_pass or (hide_strangers and bool(references))
    finder = load_detector(detector, **keywords) if looks and isinstance(detector, str) else detector
    hidden = find_strangers(references, classes, finder) if hide_strangers else [Strangers()] * len(references)
    scene = Scene(references, photo, mask, reference_masks=[found.mask for found in hidden])
    scene = scene.without_location() if strip_location else scene
    items, used = fill_by(scene, request)
    found = Erasure(
        completion=items[0], engine=used, mask_source=scene.mask_source,
        num_strangers=tuple(found.count for found in hidden),
    )  # fmt: skip
    if not second_pass:
        return _described(found)
    best, rest = choose(items, classes, finder)
    found = dataclasses.replace(found, completion=best, rest_px=int(rest.sum()))
    if rest.any():
        found = _fill_again(found, scene, rest, protected, request, classes, finder)
    return _described(found)


def erase_selected(
    photo: ImageLike,
    selection: SelectionConfig | None = None,
    config: EraseConfig | None = None,
    *,
    references: str | PathLike[str] | Sequence[ImageLike] | None = None,
    detector: Detector | None = None,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Erasure:
    """Find what a selection describes, and remove it.

    Args:
        photo: a path, a PIL image or an array.
        selection: what goes and what stays. ``None``: everybody goes.
        config: how the hole is filled. ``None``: the best engine that can run here, and a second pass.
        references: a folder of other photos of the place, or the photos. The photo itself is left out.
        detector: a loaded detector, for many photos. ``None``: it is loaded by its name in ``selection``. Where it is
            SAM 2, which finds nothing by itself, ``auto`` looks for strangers in the references.
        device: as for ``erase``.
        local_files_only: as for ``erase``.
        on_step: as for ``erase``.
        progress: as for ``erase``.

    Raises:
        NothingToRemoveError: the detector finds nothing to remove, or everything that it finds stays.
        SceneError: a photo or the mask cannot be used.
    """
    selection, config = selection or SelectionConfig(), config or EraseConfig()
    keywords = {"device": device, "local_files_only": local_files_only}
    chosen = load_detector(selection.detector, **keywords) if detector is None else detector
    others = _photos_in(references, photo)
    growth = GROWTH_WITH_REFERENCES if others else GROWTH
    selected = select(photo, selection, detector=chosen, growth=growth, **keywords)
    finds_nothing = chosen.segments and not isinstance(chosen, OfflineDetector)  # SAM 2 needs a box or a click
    return erase(
        photo, selected.reading, others, engine=config.engine, weights=config.weights,
        trust_weights=config.trust_weights, sample=config.sample, seeds=config.seeds, classes=selection.drop,
        detector="auto" if selection.by_hand and finds_nothing else chosen, hide_strangers=config.hide_strangers,
        second_pass=config.second_pass and not selection.by_hand, protected=selected.protected,
        strip_location=config.strip_location, on_step=on_step, progress=progress, **keywords,
    )  # fmt: skip


def _photos_in(references: str | PathLike[str] | Sequence[ImageLike] | None, photo: ImageLike) -> Sequence[ImageLike]:
    """List the photos of a folder in natural order, without the photo itself."""
    if not isinstance(references, str | PathLike):
        return references or ()
    own = Path(photo).resolve() if isinstance(photo, str | PathLike) else None
    found = [path for path in find_photos(references) if path.resolve() != own]
    if not found:
        raise SceneError(f"{str(references)!r} has no other photo; legal: a folder of photos of the same place")
    return found


def _fill_again(
    first: Erasure,
    scene: Scene,
    rest: MaskArray,
    protected: MaskArray | None,
    request: Request,
    classes: Sequence[str],
    detector: str | Detector,
) -> Erasure:
    """Fill with the boxes of the rest added to the mask, and then, if somebody is still found, with other seeds.

    A result is kept only if it shows less of a rest. A pass that ``on_step`` ends leaves the result before it,
    and no other pass begins.
    """
    grown = scene.mask | (rest if protected is None else rest & ~protected)
    found, source = first, f"{scene.mask_source}, with the box of a rest"
    with suppress(StoppedError):
        if not grown.all() and (grown != scene.mask).any():
            again = scene.remasked(MaskReading(mask=grown, source=source, is_outline=True))
            found = _better(found, again, request, classes, detector)
        if found.rest_px and request.can_draw_more:
            found = _better(found, found.completion.scene, request.with_other_seeds(), classes, detector)
    return found


def _better(
    found: Erasure, scene: Scene, request: Request, classes: Sequence[str], detector: str | Detector
) -> Erasure:
    """Fill once more; return the result if it shows less of a rest, else the one before.

    Raises:
        StoppedError: ``on_step`` ended the job.
    """
    items, used = fill_by(scene, request)
    best, rest = choose(items, classes, detector)
    if rest.sum() >= (found.rest_px or 0):
        return found
    return dataclasses.replace(
        found, completion=best, engine=used, mask_source=scene.mask_source, num_passes=2, rest_px=int(rest.sum())
    )


def _described(erasure: Erasure) -> Erasure:
    """Write into the result's provenance what was removed, and how."""
    description = describe_erasure(filled_by=erasure.engine, removed=erasure.mask_source, num_passes=erasure.num_passes)
    provenance = {**erasure.completion.provenance, **description}
    completion = dataclasses.replace(erasure.completion, provenance=provenance)
    return dataclasses.replace(erasure, completion=completion)
