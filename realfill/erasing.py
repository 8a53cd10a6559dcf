"""``erase``: what a mask covers goes, and what was behind it comes, from references where there are any.

Like ``realfill.pipeline``, this module knows the order of steps and no more: find strangers in the references, fill,
look for a rest, fill again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from realfill.compute.progress import OnStep
from realfill.config import PLAIN_ENGINES, EngineName, FitConfig, SampleConfig
from realfill.config.engine import EraseEngineName
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.errors import BaseModelError, SceneError, StoppedError, warn
from realfill.filling.engines import load_engine
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_image
from realfill.models.engine import Engine
from realfill.pipeline import complete, fit
from realfill.results.completion import Completion
from realfill.results.provenance import describe_erasure
from realfill.scene.mask_reading import MaskLike, MaskReading
from realfill.scene.masks import dilate
from realfill.scene.reading import find_photos
from realfill.scene.scene import Scene
from realfill.segmentation.detection import PEOPLE, Detector, OfflineDetector, find_instances, load_detector
from realfill.segmentation.selecting import select
from realfill.segmentation.selection import mask_from

_BEST_FIRST: tuple[EngineName, ...] = ("lama", "migan")  # without references, if their weights are on this machine
_ALWAYS_THERE: EngineName = "telea"
_MIN_COVERED = 0.02  # share of the hole that references must show for the composite to count as one
_REST_SHARE, _NEAR_PX = 0.5, 4  # share of an instance that lies in the hole or this near to it, to count as a rest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Erasure:
    """The result of ``erase``.

    Attributes:
        completion: the photo without what the mask covered, with its metadata.
        engine: what filled the hole, for example ``composite, 12% by telea``.
        mask_source: description of what was removed.
        num_passes: 2 if the first result showed a rest, so that the mask was grown to its box.
        rest_px: pixels of the removed classes that the detector still finds in the hole; ``None``: it did not look.
        num_strangers: for each reference the number of instances that were hidden in it.
    """

    completion: Completion
    engine: str
    mask_source: str
    num_passes: int = 1
    rest_px: int | None = None
    num_strangers: tuple[int, ...] = ()

    @property
    def image(self) -> ImageArray:
        """The result, (H, W, 3) uint8 sRGB; outside the mask it equals the photo."""
        return self.completion.image

    @property
    def mask(self) -> MaskArray:
        """The filled pixels, (H, W) bool."""
        return self.completion.scene.mask

    def save(self, path: str | PathLike[str], *, overwrite: bool = False, quality: int = 95) -> None:
        """Write the result; see ``Completion.save``."""
        self.completion.save(path, overwrite=overwrite, quality=quality)

    def __repr__(self) -> str:
        rest = {None: "", 0: ", no rest"}.get(self.rest_px, f", a rest of {self.rest_px} pixels")
        return f"Erasure({self.mask_source}; filled by {self.engine}{rest})"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The arguments of ``erase`` that its steps share."""

    engine: str | Engine | None
    weights: str | PathLike[str] | None
    trust_weights: bool
    config: FitConfig | None
    seeds: Sequence[int]
    keywords: dict[str, Any]
    on_step: OnStep | None
    progress: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Strangers:
    """What is hidden in a reference: the number of instances, and their pixels, (H, W) bool, or ``None``."""

    count: int = 0
    mask: MaskArray | None = None


def erase(
    photo: ImageLike,
    mask: MaskLike,
    references: Sequence[ImageLike] = (),
    *,
    engine: EraseEngineName | Engine | None = None,
    weights: str | PathLike[str] | None = None,
    trust_weights: bool = False,
    config: FitConfig | None = None,
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
        weights: see ``load_engine``; only for an engine that is named.
        trust_weights: see ``load_engine``.
        config: settings of the fit, for the engine ``fit``. ``None``: the packaged base's defaults.
        seeds: one for each candidate of an engine that draws; consecutive for the engine ``fit``. With ``second_pass``,
            the candidate in which the detector finds least is the result; else it is the first.
        classes: the classes of what is removed.
        detector: what looks for strangers in the references and for a rest in the result; see ``load_detector``.
        hide_strangers: hide instances of ``classes`` in the references, so that nothing is taken or learnt from them.
        second_pass: run the detector on the result. If it still finds an instance of ``classes`` in the hole, fill once
            more, with the box of what it finds added to the mask.
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
        ValueError: there is no such engine, there are no seeds, the engine ``fit`` cannot draw them, or there are
            weights without an engine.
        BaseModelError: weights are not available.
        StoppedError: ``on_step`` ended the job before the first result was finished.
    """
    if not seeds:
        raise ValueError("seeds is empty; legal: at least one")
    _check_engine(engine, has_references=bool(references))
    _check_options(engine, weights, seeds)
    keywords = {"device": device, "local_files_only": local_files_only}
    request = _Request(
        engine=engine, weights=weights, trust_weights=trust_weights, config=config, seeds=tuple(seeds),
        keywords=keywords, on_step=on_step, progress=progress,
    )  # fmt: skip
    looks = second_pass or (hide_strangers and bool(references))
    finder = load_detector(detector, **keywords) if looks and isinstance(detector, str) else detector
    hidden = _find_strangers(references, classes, finder) if hide_strangers else [_Strangers()] * len(references)
    scene = Scene(references, photo, mask, reference_masks=[found.mask for found in hidden])
    scene = scene.without_location() if strip_location else scene
    items, used = _fill(scene, request)
    found = Erasure(
        completion=items[0], engine=used, mask_source=scene.mask_source,
        num_strangers=tuple(found.count for found in hidden),
    )  # fmt: skip
    if not second_pass:
        return _described(found)
    best, rest = _choose(items, classes, finder)
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
        SceneError: nothing is found, or a photo or the mask cannot be used.
    """
    selection, config = selection or SelectionConfig(), config or EraseConfig()
    keywords = {"device": device, "local_files_only": local_files_only}
    chosen = load_detector(selection.detector, **keywords) if detector is None else detector
    selected = select(photo, selection, detector=chosen, **keywords)
    finds_nothing = chosen.segments and not isinstance(chosen, OfflineDetector)  # SAM 2 needs a box or a click
    return erase(
        photo, selected.reading, _photos_in(references, photo), engine=config.engine, weights=config.weights,
        trust_weights=config.trust_weights, seeds=config.seeds, classes=selection.drop,
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


def _check_engine(engine: str | Engine | None, *, has_references: bool) -> None:
    legal = (*get_args(EraseEngineName),)
    if isinstance(engine, str) and engine not in legal:
        raise ValueError(f"there is no engine {engine!r}; legal: {', '.join(legal)}")
    if engine in ("composite", "fit") and not has_references:
        raise SceneError(f"the engine {engine!r} needs references, and there are none; add photos of the same place")


def _check_options(engine: str | Engine | None, weights: str | PathLike[str] | None, seeds: Sequence[int]) -> None:
    if weights is not None and engine is None:
        raise ValueError(f"weights is {str(weights)!r}, but no engine is named; legal: an engine that takes weights")
    if engine == "fit" and list(seeds) != list(range(seeds[0], seeds[0] + len(seeds))):
        raise ValueError(
            f"seeds is {tuple(seeds)}, and the engine 'fit' draws consecutive seeds; legal: seeds that count up by 1, "
            f"such as {', '.join(str(seeds[0] + i) for i in range(len(seeds)))}"
        )


def _find_strangers(
    references: Sequence[ImageLike], classes: Sequence[str], detector: str | Detector
) -> list[_Strangers]:
    """Find what to hide in each reference."""
    hidden: list[_Strangers] = []
    for number, reference in enumerate(references):
        instances = find_instances(read_image(reference, f"reference {number}")[0], detector=detector, classes=classes)
        count = len(instances.of(classes))
        try:
            mask = mask_from(instances, classes=classes).mask if count else None
        except SceneError as error:
            warn(f"nothing is hidden in reference {number}: {error}")
            count, mask = 0, None
        hidden.append(_Strangers(count=count, mask=mask))
    return hidden


def _fill(scene: Scene, request: _Request) -> tuple[list[Completion], str]:
    """Fill the hole once for each seed: the candidates, and the name of what filled it."""
    if request.engine == "fit":
        return _fit_and_complete(scene, request)
    if request.engine == "composite" or (request.engine is None and scene.references):
        return _composite(scene, request)
    chosen, used = _load(request)
    images = chosen.fill(scene.known, scene.mask, request.seeds, on_step=request.on_step)
    if not images:
        raise StoppedError("the job was ended before a result was finished")
    is_seeded = used not in (*PLAIN_ENGINES, "completion")
    items = [
        Completion.from_image(image, scene, seed if is_seeded else None, provenance={"engine": used})
        for image, seed in zip(images, request.seeds, strict=False)
    ]
    return items, used


def _fit_and_complete(scene: Scene, request: _Request) -> tuple[list[Completion], str]:
    config = request.config or FitConfig(base="mini")
    adapter = fit(scene, config, on_step=request.on_step, progress=request.progress, **request.keywords)
    sample = SampleConfig(seed=request.seeds[0], num_samples=len(request.seeds))
    completions = complete(
        scene, adapter, sample, on_step=request.on_step, progress=request.progress, **request.keywords
    )  # fmt: skip
    return list(completions), f"fit of {config.base}"


def _composite(scene: Scene, request: _Request) -> tuple[list[Completion], str]:
    """Fill from the references what they show, and the rest by an engine that needs none."""
    name = _best_plain(request)
    completions = complete(scene, name, on_step=request.on_step, progress=request.progress, **request.keywords)
    evidence = completions.best.evidence
    coverage = evidence.coverage if evidence is not None else 0.0
    if coverage < _MIN_COVERED:
        return list(completions), name
    return list(completions), "composite" if coverage == 1 else f"composite, {1 - coverage:.0%} by {name}"


def _load(request: _Request) -> tuple[Engine, str]:
    """Load the engine that was asked for, or the best one that can run here."""
    if request.engine is not None and not isinstance(request.engine, str):
        return request.engine, type(request.engine).__name__.lower()
    if request.engine is not None:
        engine = load_engine(
            request.engine,  # type: ignore[arg-type]
            weights=request.weights, trust_weights=request.trust_weights, **request.keywords,
        )  # fmt: skip
        return engine, request.engine
    name = _best_plain(request)
    return load_engine(name, **request.keywords), name


def _best_plain(request: _Request) -> EngineName:
    """Return the best engine that needs neither references nor a file, and whose weights are on this machine."""
    for name in _BEST_FIRST:
        try:
            load_engine(name, device=request.keywords["device"], local_files_only=True)
        except BaseModelError:
            continue
        return name
    return _ALWAYS_THERE


def _choose(
    items: Sequence[Completion], classes: Sequence[str], detector: str | Detector
) -> tuple[Completion, MaskArray]:
    """Choose the candidate with the smallest rest, the earlier of equal ones; return it with its rest."""
    rests = [_find_rest(item, classes, detector) for item in items]
    best = min(range(len(items)), key=lambda i: int(rests[i].sum()))
    return items[best], rests[best]


def _find_rest(completion: Completion, classes: Sequence[str], detector: str | Detector) -> MaskArray:
    """Find the boxes of instances of the removed classes that the result still shows in the hole, (H, W) bool."""
    hole = dilate(completion.scene.mask, _NEAR_PX)
    rest = np.zeros(hole.shape, bool)
    for instance in find_instances(completion.image, detector=detector, classes=classes).of(classes):
        if (hole[instance.place] & instance.cut).sum() >= _REST_SHARE * instance.area_px:
            rest[instance.place] = True
    return rest


def _fill_again(
    first: Erasure,
    scene: Scene,
    rest: MaskArray,
    protected: MaskArray | None,
    request: _Request,
    classes: Sequence[str],
    detector: str | Detector,
) -> Erasure:
    """Fill with the boxes of the rest added to the mask; keep the result only if it shows less of a rest.

    A second pass that ``on_step`` ends leaves the first result.
    """
    grown = scene.mask | (rest if protected is None else rest & ~protected)
    if grown.all() or (grown == scene.mask).all():
        return first
    source = f"{scene.mask_source}, with the box of a rest"
    again = scene.remasked(MaskReading(mask=grown, source=source))
    try:
        items, used = _fill(again, request)
    except StoppedError:
        return first
    best, left = _choose(items, classes, detector)
    if left.sum() >= rest.sum():
        return first
    return dataclasses.replace(
        first, completion=best, engine=used, mask_source=source, num_passes=2, rest_px=int(left.sum())
    )


def _described(erasure: Erasure) -> Erasure:
    """Write into the result's provenance what was removed, and how."""
    description = describe_erasure(filled_by=erasure.engine, removed=erasure.mask_source, num_passes=erasure.num_passes)
    provenance = {**erasure.completion.provenance, **description}
    completion = dataclasses.replace(erasure.completion, provenance=provenance)
    return dataclasses.replace(erasure, completion=completion)
