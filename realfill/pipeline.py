"""The steps of the paper in their order: ``fit`` trains an adapter, ``complete`` samples, blends and ranks with it.

``fill`` needs neither references nor a fit: it completes a photo by an engine.

This is the only module that knows the order. Its neighbours take data and return data.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from realfill.compute.devices import (
    make_accelerator,
    resolve_device,
    resolve_dtype,
    resolve_frozen_dtype,
    resolve_precision,
)
from realfill.compute.progress import OnStep, Progress, ProgressBar
from realfill.config import (
    MAX_FIT_REFERENCES,
    PLAIN_ENGINES,
    Blend,
    EngineName,
    FitConfig,
    GeometryConfig,
    GeometrySettings,
    Preset,
    RankConfig,
    SampleConfig,
    SampleSettings,
    WindowConfig,
    WindowSettings,
)
from realfill.errors import SceneError, StoppedError, warn
from realfill.filling.engines import load_engine
from realfill.filling.fill import choose_parts, fill_hole, require_room
from realfill.filling.keeping import Kept
from realfill.geometry.agreement import contradiction
from realfill.geometry.composite import Composite, composite
from realfill.geometry.matching import Matches, load_matcher, match_references
from realfill.geometry.selection import choose_references, survey
from realfill.geometry.smooth import hide
from realfill.geometry.views import warped_views
from realfill.io.images import ImageLike, MaskArray
from realfill.io.photos import put
from realfill.models.diffusion.adapter import MANIFEST_NAME, Adapter
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.family import DiffusionFamily, ReferenceView
from realfill.models.diffusion.hub import Card, locate
from realfill.models.diffusion.lora import attach, trainable_lora, trainable_weights
from realfill.models.engine import Engine
from realfill.ranking.rank import rank
from realfill.results.completions import Completion, Completions
from realfill.results.evidence import Evidence
from realfill.results.provenance import (
    describe_completion,
    describe_composite,
    describe_fill,
    describe_fit,
    describe_recipe,
    fit_identity,
    hash_scene,
)
from realfill.results.verdict import judge
from realfill.scene.masks import union
from realfill.scene.scene import Scene
from realfill.scene.windows import Part
from realfill.training.checkpoint import CHECKPOINT_NAME
from realfill.training.dataset import training_set
from realfill.training.loop import train
from realfill.training.plan import describe_download, describe_plan
from realfill.training.trainer import Trainer

_LARGE_PX = 512  # resolution from which a CPU is too slow for a base model

_LOW_COVERAGE = 0.2  # share of the hole below which the references say too little

_matches: WeakKeyDictionary[Scene, list[Matches]] = WeakKeyDictionary()  # references are matched once per scene
_composites: WeakKeyDictionary[Scene, Composite] = WeakKeyDictionary()  # computed once per scene


def fit(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    window: WindowConfig | None = None,
    geometry: GeometryConfig | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    checkpoint_dir: str | PathLike[str] | None = None,
    overwrite: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Adapter:
    """Fine-tune an inpainting model on a scene's references and target (paper, section 3.2).

    Args:
        scene: has at least one reference. Of more than five, those five that show most of the hole take part. The
            pixels under its mask have no influence.
        config: the recipe. ``None``: the paper's, on Stable Diffusion 2.
        window: the windows in which the hole will be filled; crops are drawn at their scale. ``None``: the base
            model's defaults. The adapter carries them.
        geometry: which pixels ``complete`` will take from the references. The adapter carries it; the fit itself does
            not depend on it. ``None``: the defaults, with which the fit first says how much of the hole the references
            show.
        device: ``cpu``, ``cuda``, ``mps`` and so on. ``None``: the best available.
        dtype: precision of the frozen weights under a LoRA. ``None``: that of ``mixed_precision``, which is half
            precision on CUDA and on CPUs that are fast in bf16, and single precision elsewhere. With
            ``trainable="all"`` it is always single precision.
        local_files_only: do not use the network for the base model.
        checkpoint_dir: folder for checkpoints. The fit resumes from a checkpoint found there, and ends with the same
            result as an uninterrupted fit.
        overwrite: replace a checkpoint of another fit found there.
        on_step: called after each step. If it returns ``False``, the fit ends early and keeps its result. Where several
            processes train together, each needs a callback, and one ``False`` ends all of them.
        progress: show a progress bar.

    Returns:
        An adapter for this base model and scene. It also serves other targets of the same moment.

    Raises:
        SceneError: the scene has no references.
        BaseModelError: the base model cannot be loaded.
        AdapterError: the checkpoint is damaged or belongs to another fit.
        StoppedError: ``on_step`` returned ``False`` before the first step.
        TrainingError: the loss is not a finite number.
        ValueError: the config does not suit the base model or the device.
    """
    _require_references(scene)
    device = resolve_device(device)
    config = config or FitConfig()
    _say(describe_download(config.base, local_files_only=local_files_only) if progress else None)
    inpainter = load_family(config.base, local_files_only=local_files_only, quantization=config.quantization)
    precision = resolve_precision(device, config.mixed_precision)
    settings = config.resolve(inpainter.card.fit)
    settings = dataclasses.replace(settings, base=inpainter.base, mixed_precision=precision)
    windows = (window or WindowConfig()).resolve(inpainter.card.window)
    with_lora = settings.trainable == "lora"
    frozen = resolve_frozen_dtype(dtype, precision) if with_lora else torch.float32
    if frozen == torch.float16 and precision != "fp16":
        raise ValueError(
            "dtype is float16, which needs mixed_precision='fp16' to scale the loss; legal: both, or no dtype"
        )
    inpainter.to(device, frozen)
    trainable = (trainable_lora if with_lora else trainable_weights)(inpainter, settings)
    settings_of_geometry = _resolve_geometry(geometry, scene, None, settings.preset)
    _composite(scene, settings_of_geometry, on_step=on_step, progress=progress)
    scene = _choose_references(scene, "the fit learns from", progress=progress)
    parts = choose_parts(inpainter, scene, windows)
    _show_references(inpainter, scene, parts, windows)
    trainer = Trainer(inpainter, trainable, settings, make_accelerator(device, precision))
    inputs = hash_scene(scene)
    if device.type == "cpu" and inpainter.resolution >= _LARGE_PX:
        warn(
            f"fitting {inpainter.base!r} at {inpainter.resolution} pixels takes days on a CPU; it is meant for a GPU. "
            "base='mini' takes minutes"
        )
    if trainer.accelerator.is_main_process:
        _say(describe_plan(inpainter, trainer.settings, trainer.plan) if progress else None)
    train(
        trainer,
        training_set(scene, parts, settings, inpainter.resolution, matches=_match(scene)),
        checkpoint=Path(checkpoint_dir) / CHECKPOINT_NAME if checkpoint_dir is not None else None,
        identity=fit_identity(inputs, settings, windows, inpainter.traits),
        overwrite=overwrite,
        on_step=on_step,
        progress=progress,
    )
    return Adapter(
        tensors=trainer.export(),
        config=trainer.settings,
        window=windows,
        geometry=settings_of_geometry,
        fingerprint=inpainter.fingerprint,
        losses=tuple(trainer.losses),
        manifest=describe_fit(
            inputs=inputs, num_steps_done=trainer.step, time_s=trainer.time_s, device=str(device)
        ),
    )  # fmt: skip


def complete(
    scene: Scene,
    adapter: Adapter | str | PathLike[str],
    config: SampleConfig | None = None,
    *,
    window: WindowConfig | None = None,
    geometry: GeometryConfig | None = None,
    ranking: RankConfig | None = None,
    ranked: bool = True,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Completions:
    """Fill the scene's hole once for each seed, and rank the results (paper, sections 3.3 and 3.4).

    Pixels that the references show are taken from them (``GeometryConfig``): the model sees them as known pixels and
    never changes them. It corrects them where they are doubtful, and invents the rest. Each completion
    says which pixel is which (``Completion.evidence``).

    Args:
        scene: the scene to complete. It may be another target of the moment that the adapter was fitted to. Without
            references, the completions stay in the order of their seeds.
        adapter: the result of ``fit``, or the folder where it was saved; the name or folder of a base model, to
            complete without a fit; or ``telea``, ``smooth``, ``shiftmap``, ``lama`` or ``migan``, to fill by that
            engine what the references do not show.
        config: seeds, sampler and blending. ``None``: the base model's defaults, else the paper's.
        window: the windows in which the hole is filled. ``None``: those of the adapter's fit; for a bare base model,
            its defaults.
        geometry: which pixels are taken from the references. ``None``: as the adapter says; without one, the defaults.
        ranking: settings of the ranking. ``None``: the base model's defaults, else the paper's.
        ranked: rank the results; otherwise they stay in the order of their seeds.
        device: ``cpu``, ``cuda``, ``mps`` and so on. ``None``: the best available.
        dtype: precision of the weights. ``None``: half precision on CUDA, single precision elsewhere.
        local_files_only: do not use the network for the base model.
        on_step: called after each denoising step and each ranked completion. If it returns ``False``, the job ends and
            returns the finished completions, without ranking them.
        progress: show progress bars.

    Returns:
        Completions, best first. Outside the mask each equals the target exactly. If no pixel is left to a model, there
        is a single completion, whose seed is ``None``.

    Raises:
        BaseModelError: the base model or the matcher cannot be loaded.
        AdapterError: the adapter does not fit its base model.
        SceneError: an engine cannot fill the scene.
        StoppedError: ``on_step`` ended the job before a completion was finished.
        ValueError: the device is not available, or the config does not suit the base model.
    """
    if isinstance(adapter, str) and adapter in PLAIN_ENGINES:
        engine = load_engine(adapter, device=device, local_files_only=local_files_only)
        return _complete_plainly(scene, adapter, engine, geometry, on_step=on_step, progress=progress)
    device = resolve_device(device)
    fitted = adapter if isinstance(adapter, Adapter) else _load_adapter(adapter)
    config = config or SampleConfig()
    base = config.base or (fitted.base if fitted is not None else str(adapter))
    inpainter = load_family(base, local_files_only=local_files_only, quantization=config.quantization)
    return _complete(
        inpainter, scene, fitted, config, window=window, geometry=geometry, ranking=ranking, ranked=ranked,
        device=device, dtype=dtype, on_step=on_step, progress=progress,
    )  # fmt: skip


def _complete(
    inpainter: DiffusionFamily,
    scene: Scene,
    adapter: Adapter | None,
    config: SampleConfig,
    *,
    window: WindowConfig | None,
    geometry: GeometryConfig | None,
    ranking: RankConfig | None,
    ranked: bool,
    device: torch.device,
    dtype: torch.dtype | None,
    on_step: OnStep | None,
    progress: bool,
) -> Completions:
    """Complete a scene with a loaded base model, and with an adapter if there is one."""
    if adapter is not None:
        prompt = adapter.config.prompt if config.prompt is None else config.prompt
        config = dataclasses.replace(config.following(adapter.config), prompt=prompt)
    settings = config.resolve(inpainter.card.sample)
    windows = _resolve_windows(window, adapter, inpainter.card)
    sources = _resolve_geometry(geometry, scene, adapter, settings.preset)
    rank_settings = (ranking or RankConfig()).resolve(inpainter.card.rank)
    ranked, needs_matcher = ranked and bool(scene.references), rank_settings.uses_matcher
    matcher = load_matcher(rank_settings, device) if ranked and needs_matcher else None
    if adapter is not None:
        _attach(inpainter, adapter, settings, windows)
    kept = _keep(scene, sources, on_step=on_step, progress=progress)
    if kept.scene is None:
        return _as_completions(scene, kept, kept.values, None, sources)
    inpainter.to(device, resolve_dtype(device, dtype))
    require_room(scene, settings)
    if inpainter.sees_references:
        seen = _choose_references(scene, "the model sees", progress=progress)
        _show_references(inpainter, seen, choose_parts(inpainter, kept.scene, windows), windows)
    shifts: dict[int, list[tuple[float, float]]] = {}
    filled = fill_hole(
        inpainter, kept.scene, settings, windows, on_step=on_step, progress=progress,
        on_shift=lambda seed, shift: shifts.setdefault(seed, []).append(shift),
    )  # fmt: skip
    if not filled:
        raise StoppedError("the job was ended before a completion was finished")
    provenance = describe_completion(
        scene, base=inpainter.base, fingerprint=inpainter.fingerprint, fit=adapter.config if adapter else None,
        sample=settings, window=windows, ranking=rank_settings, geometry=sources, evidence=kept.evidence,
    )  # fmt: skip
    recipe = describe_recipe(
        scene, fingerprint=inpainter.fingerprint, adapter=adapter.tensors if adapter else None, sample=settings,
        window=windows, kept=kept.identity,
    )  # fmt: skip
    items = [
        Completion(
            scene=scene, filled=kept.joined(f), seed=seed, evidence=kept.evidence,
            provenance=provenance | _describe_shift(shifts.get(seed)),
        )
        for seed, f in filled.items()
    ]  # fmt: skip
    completions = _judged(Completions(items=tuple(items), scene=scene, ranking=rank_settings, recipe=recipe), sources)
    was_stopped = len(filled) < settings.num_samples
    if was_stopped or not ranked:
        return completions
    matches = _match(scene) if rank_settings.score_by == "warped_references" else None
    try:
        return rank(
            completions, matcher=matcher, matches=matches, composite=_composites.get(scene), device=device,
            on_step=on_step, progress=progress,
        )  # fmt: skip
    except (RuntimeError, MemoryError, cv2.error) as error:  # out of memory, most likely
        warn(
            f"ranking failed ({type(error).__name__}: {error}), so the completions stay in the order of their seeds. "
            "Rank them later, with another matcher or a smaller max_size_px"
        )
        return completions


def _complete_plainly(
    scene: Scene,
    name: EngineName,
    engine: Engine,
    geometry: GeometryConfig | None,
    *,
    on_step: OnStep | None,
    progress: bool,
) -> Completions:
    """Complete a scene without a diffusion model: an engine fills what the references do not show."""
    settings = _resolve_geometry(geometry, scene, None, None)
    kept = _keep(scene, settings, on_step=on_step, progress=progress)
    if kept.scene is None:
        return _as_completions(scene, kept, kept.values, None, settings)
    images = engine.fill(kept.scene.known, kept.scene.mask, [0], on_step=on_step)
    if not images:
        raise StoppedError("the job was ended before the hole was filled")
    filled = kept.joined(kept.scene.original.encode(images[0][kept.scene.mask]))
    return _as_completions(scene, kept, filled, name, settings)


def _as_completions(
    scene: Scene, kept: Kept, filled: NDArray, engine: EngineName | None, geometry: GeometrySettings
) -> Completions:
    """Make the single completion of a scene that has no pixel of a diffusion model."""
    provenance = describe_composite(scene, engine=engine, geometry=geometry, evidence=kept.evidence)
    completion = Completion(scene=scene, filled=filled, seed=None, evidence=kept.evidence, provenance=provenance)
    recipe = describe_recipe(scene, fingerprint=engine, kept=kept.identity)
    return _judged(Completions(items=(completion,), scene=scene, recipe=recipe), geometry)


def _judged(completions: Completions, geometry: GeometrySettings) -> Completions:
    """Give each completion its verdict, if there is a composite to judge it by."""
    scene = completions.scene
    found = _composites.get(scene) if geometry.enabled else None
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


def examine(
    scene: Scene, geometry: GeometryConfig | None = None, *, on_step: OnStep | None = None, progress: bool = True
) -> Evidence:
    """Find out how much of the hole the references show, before anything expensive.

    The composite that this takes is kept, and ``fit`` and ``complete`` use it for the same ``Scene``.

    Args:
        scene: the scene to complete.
        geometry: the thresholds of confidence. ``None``: the defaults.
        on_step: called between the steps of the composite. If it returns ``False``, the job ends.
        progress: show a progress bar, and report the result and how long it took.

    Returns:
        The evidence that completions of the scene will have. Its ``coverage`` is the share of the hole that the
        references show; 0 without references or with ``enabled=False``.

    Raises:
        StoppedError: ``on_step`` ended the job.
    """
    settings = _resolve_geometry(geometry, scene, None, None)
    return _keep(scene, settings, on_step=on_step, progress=progress).evidence


def _keep(scene: Scene, settings: GeometrySettings, *, on_step: OnStep | None, progress: bool) -> Kept:
    """Decide which pixels of the hole are taken from the references."""
    found = _composite(scene, settings, on_step=on_step, progress=progress)
    if found is None:
        return Kept.nothing(scene)
    evidence = Evidence.judge(scene.mask, found.confidence, found.source, settings)
    return Kept.of_composite(scene, found.image, evidence, settings)


def _composite(scene: Scene, settings: GeometrySettings, *, on_step: OnStep | None, progress: bool) -> Composite | None:
    """Compute the composite of a scene, once; ``None`` if it is off, or if nothing can be aligned with the target."""
    if not settings.enabled or not scene.references or scene.mask.all():
        return None
    if scene not in _composites:
        started = time.monotonic()
        try:
            found = _align(scene, on_step, progress=progress)
        except (MemoryError, cv2.error, np.linalg.LinAlgError) as error:
            warn(
                f"the references could not be aligned with the target ({type(error).__name__}: {error}), so the model "
                "fills the whole hole. GeometryConfig.enabled=False skips this step"
            )
            return None
        _composites[scene] = found
        share = Evidence.judge(scene.mask, found.confidence, found.source, settings).coverage
        duration = time.monotonic() - started
        _say(f"references show {100 * share:.0f} % of the hole ({duration:.0f} s)" if progress else None)
        if share < _LOW_COVERAGE:
            warn(
                f"the references show {100 * share:.0f} % of the hole, so most of it is invented. Add photos that "
                "show what it hides, from nearly the same place"
            )
    return _composites[scene]


def _align(scene: Scene, on_step: OnStep | None, *, progress: bool) -> Composite:
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
            focals=scene.focal_lengths, on_step=report,
        )  # fmt: skip
    if stopped:  # what is found by then has only the detail of the working size
        raise StoppedError("the job was ended before the references were aligned with the target")
    return found


def _resolve_geometry(
    geometry: GeometryConfig | None, scene: Scene, adapter: Adapter | None, preset: Preset | None
) -> GeometrySettings:
    """Resolve the geometry: that of the caller, else the adapter's, else the defaults.

    A part of a completion that is filled again is left to the model by default, because the references would fill it
    as before.
    """
    geometry = geometry or GeometryConfig()
    if geometry.enabled is None and "redo" in scene.history:
        geometry = dataclasses.replace(geometry, enabled=False)
    return geometry.resolve(adapter.geometry.to_dict() if adapter is not None else {}, preset=preset)


def _resolve_windows(window: WindowConfig | None, adapter: Adapter | None, card: Card) -> WindowSettings:
    """Resolve the windows: those of the caller, else the adapter's, else the base model's."""
    if adapter is None:
        return (window or WindowConfig()).resolve(card.window)
    if window is None:
        return adapter.window
    windows = window.resolve(adapter.window.to_dict())
    if windows != adapter.window:
        warn(
            f"the adapter was fitted for {adapter.window}, and is used for {windows}; it has not seen the scene at "
            "that scale. Give fit() the same window"
        )
    return windows


def _attach(inpainter: DiffusionFamily, adapter: Adapter, settings: SampleSettings, windows: WindowSettings) -> None:
    """Load an adapter into its base model, or into the one that the settings name."""
    if settings.is_guided_from_base(windows.num_stages):
        inpainter.keep_unfitted()
        if settings.negative_prompt:
            warn(
                "the negative prompt has no effect, because guidance leads away from the base model. Set "
                "guidance_from='negative_prompt' to use it"
            )
    attach(inpainter, adapter, elsewhere=settings.base is not None)


def _show_references(inpainter: DiffusionFamily, scene: Scene, parts: Sequence[Part], windows: WindowSettings) -> None:
    """Give a base model that reads references as conditioning the views of them that the settings name.

    What a mask of a reference leaves out is not shown.
    """
    if not inpainter.sees_references:
        return
    kind, region = windows.reference_views, functools.reduce(union, (part.windows[0].box for part in parts))
    warped = {}
    if kind != "plain" and scene.references:
        warped = warped_views(
            scene.known, scene.mask, scene.references, matches=_match(scene), reference_masks=scene.reference_masks,
            region=region, side_px=windows.reference_px,
        )  # fmt: skip
    shown = [hide(*pair) for pair in zip(scene.references, scene.reference_masks, strict=True)]
    plain = {i: image for i, image in enumerate(shown) if kind != "warped" or i not in warped}
    views = [ReferenceView(reference=i, image=image) for named in (plain, warped) for i, image in named.items()]
    inpainter.use_references(views, side_px=windows.reference_px)


def _describe_shift(shifts: Sequence[tuple[float, float]] | None) -> dict[str, Any]:
    """Describe the largest shift of a completion's samples before they were registered; {} if none was measured."""
    if not shifts:
        return {}
    return {"shift_px": [round(x, 2) for x in max(shifts, key=lambda shift: abs(shift[0]) + abs(shift[1]))]}


def fill(
    photo: ImageLike,
    mask: ImageLike | MaskArray | None = None,
    engine: EngineName | Engine = "telea",
    *,
    seed: int = 0,
    weights: str | PathLike[str] | None = None,
    blend: Blend = "cut",
    trust_weights: bool = False,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
    on_step: OnStep | None = None,
) -> Completion:
    """Fill a hole from the photo around it, without references: ``fill("photo.jpg", "mask.png").save("filled.png")``.

    Args:
        photo: a path, a PIL image or an array.
        mask: an image of the photo's size, in any of the forms that ``Scene`` takes, for example white = fill. ``None``
            fills the transparent pixels of the photo.
        engine: the name of an engine, see ``EngineName``, or a loaded one. To fill many photos, load it once:
            ``load_engine("lama")``.
        seed: decides the result of ``base``; the other engines always give the same.
        weights: as for ``load_engine``; these and the following are ignored for a loaded engine.
        blend: as for ``load_engine``.
        trust_weights: as for ``load_engine``.
        device: as for ``load_engine``.
        local_files_only: as for ``load_engine``.
        on_step: called after each window or denoising step. If it returns ``False``, the job ends.

    Returns:
        The completion: its ``image``, and ``save`` in the colours and depth of the photo's file. Outside the mask it
        equals the photo exactly.

    Raises:
        SceneError: the photo or the mask cannot be used, or the mask covers the whole photo and the engine needs some.
        BaseModelError: the weights cannot be loaded.
        StoppedError: ``on_step`` ended the job.
        ValueError: the engine does not exist, or takes no weights.
    """
    scene = Scene([], photo, mask)
    name = engine if isinstance(engine, str) else type(engine).__name__.lower()
    if isinstance(engine, str):
        engine = load_engine(
            engine, weights=weights, blend=blend, trust_weights=trust_weights, device=device,
            local_files_only=local_files_only,
        )  # fmt: skip
    images = engine.fill(scene.known, scene.mask, [seed], on_step=on_step)
    if not images:
        raise StoppedError("the job was ended before the hole was filled")
    is_seeded = name not in (*PLAIN_ENGINES, "completion")
    return Completion.from_image(images[0], scene, seed if is_seeded else None, provenance=describe_fill(name))


def check_ready(
    scene: Scene,
    config: FitConfig,
    sampling: SampleConfig | None = None,
    *,
    ranking: RankConfig | None = None,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
    progress: bool = True,
) -> None:
    """Check, before an expensive fit, that everything is available that ``fit`` and ``complete`` need.

    Args:
        scene: the scene to fit.
        config: as for ``fit``.
        sampling: as for ``complete``.
        ranking: as for ``complete``.
        device: where to compute.
        local_files_only: do not use the network for the base model.
        progress: announce a download.

    Raises:
        SceneError: the scene has no references.
        BaseModelError: the base model or the matcher is not available.
        ValueError: the config does not suit the base model, or the samples do not fit into memory.
    """
    _require_references(scene)
    _say(describe_download(config.base, local_files_only=local_files_only) if progress else None)
    card = Card.load(locate(config.base, local_files_only=local_files_only))
    if sampling is not None and sampling.base is not None:
        locate(sampling.base, local_files_only=local_files_only)
    require_room(scene, (sampling or SampleConfig()).following(config.resolve(card.fit)).resolve(card.sample))
    rank_settings = (ranking or RankConfig()).resolve(card.rank)
    if rank_settings.uses_matcher:
        load_matcher(rank_settings, resolve_device(device))


def variants(
    adapter: Adapter,
    config: SampleConfig | None = None,
    *,
    size: tuple[int, int] | None = None,
    references: Sequence[ImageLike] = (),
    ranking: RankConfig | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Completions:
    """Draw new views of a fitted scene on an empty canvas (paper, section 4.3: scene variants).

    Args:
        adapter: the result of ``fit``.
        config: as for ``complete``.
        size: (height, width) of the canvas in pixels. ``None``: the base model's own square.
        references: photos to rank the results by, of this scene or another. Without any, the results stay in the order
            of their seeds. On an empty canvas, references can only be compared by keypoints. FLUX.2 klein also sees
            them as conditioning.
        ranking: as for ``complete``.
        device: as for ``complete``.
        dtype: as for ``complete``.
        local_files_only: as for ``complete``.
        on_step: as for ``complete``.
        progress: as for ``complete``.

    Returns:
        Completions in which the model generated every pixel.

    Raises:
        BaseModelError: the base model or the matcher cannot be loaded.
        AdapterError: the adapter does not fit its base model.
        SceneError: the size or a photo cannot be used.
        ValueError: the device is not available, or the config does not suit the base model.
    """
    device = resolve_device(device)
    config = config or SampleConfig()
    inpainter = load_family(
        config.base or adapter.base, local_files_only=local_files_only, quantization=config.quantization
    )
    scene = Scene.canvas(size or (inpainter.resolution, inpainter.resolution), references)
    return _complete(
        inpainter, scene, adapter, config, window=None, geometry=None, ranking=ranking, ranked=True, device=device,
        dtype=dtype, on_step=on_step, progress=progress,
    )  # fmt: skip


def _load_adapter(source: str | PathLike[str]) -> Adapter | None:
    """Load the adapter that a folder holds; ``None`` if the source names a base model."""
    return Adapter.load(source) if (Path(source) / MANIFEST_NAME).is_file() else None


def _match(scene: Scene) -> list[Matches]:
    """Match the references with the target, once per scene."""
    if scene not in _matches:
        _matches[scene] = match_references(scene.known, scene.mask, scene.references, scene.reference_masks)
    return _matches[scene]


def _choose_references(scene: Scene, use: str, *, progress: bool) -> Scene:
    """Return the scene with the references that a fit learns from, or that a model sees as conditioning."""
    if len(scene.references) <= MAX_FIT_REFERENCES:
        return scene
    matches = _match(scene)
    views, hole = survey(scene.known, scene.mask, scene.references, matches, scene.reference_masks)
    selection = choose_references(views, hole, MAX_FIT_REFERENCES)
    _say(selection.describe(use) if progress else None)
    chosen = sorted(selection.references)
    scene = scene.with_chosen_references(chosen)
    _matches[scene] = [matches[i] for i in chosen]
    return scene


def _say(line: str | None) -> None:
    if line is not None:
        tqdm.write(line, file=sys.stderr)


def _require_references(scene: Scene) -> None:
    if not scene.references:
        raise SceneError(
            "the scene has no references to learn from; add photos of it (to the folder's ref/), or complete it with a "
            "bare base model"
        )
