"""The steps of the paper in their order: ``fit`` trains an adapter, ``complete`` samples, blends and ranks with it.

This is the only module that knows the order. Its neighbours take data and return data.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from weakref import WeakKeyDictionary

import cv2
import torch
from tqdm import tqdm

from realfill.compute.devices import (
    make_accelerator,
    resolve_device,
    resolve_dtype,
    resolve_frozen_dtype,
    resolve_precision,
)
from realfill.compute.progress import OnStep
from realfill.config import FitConfig, RankConfig, SampleConfig, SampleSettings, WindowConfig, WindowSettings
from realfill.errors import SceneError, StoppedError, warn
from realfill.filling.fill import choose_parts, fill_hole, require_room
from realfill.geometry.matching import Matches, load_matcher, match_references
from realfill.io.images import ImageLike
from realfill.models.diffusion.adapter import MANIFEST_NAME, Adapter
from realfill.models.diffusion.hub import Card, locate
from realfill.models.diffusion.lora import attach, trainable_lora, trainable_weights
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.ranking.rank import rank
from realfill.results.completions import Completion, Completions
from realfill.results.provenance import describe_completion, describe_fit, describe_recipe, fit_identity, hash_scene
from realfill.scene.scene import Scene
from realfill.training.checkpoint import CHECKPOINT_NAME
from realfill.training.dataset import training_set
from realfill.training.loop import train
from realfill.training.plan import describe_download, describe_plan
from realfill.training.trainer import Trainer

_LARGE_PX = 512  # resolution from which a CPU is too slow for a base model

_matches: WeakKeyDictionary[Scene, list[Matches]] = WeakKeyDictionary()  # references are matched once per scene


def fit(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    window: WindowConfig | None = None,
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
        scene: has at least one reference. The pixels under its mask have no influence.
        config: the recipe. ``None``: the paper's, on Stable Diffusion 2.
        window: the windows in which the hole will be filled; crops are drawn at their scale. ``None``: the base
            model's defaults. The adapter carries them.
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
        TrainingError: the loss is not a finite number.
        ValueError: the config does not suit the base model or the device.
    """
    _require_references(scene)
    device = resolve_device(device)
    config = config or FitConfig()
    _say(describe_download(config.base, local_files_only=local_files_only) if progress else None)
    inpainter = StableDiffusionInpainter.load(config.base, local_files_only=local_files_only)
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
    trainer = Trainer(inpainter, trainable, settings, make_accelerator(device, precision))
    parts = choose_parts(inpainter, scene, windows)
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
    ranking: RankConfig | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Completions:
    """Fill the scene's hole once for each seed, and rank the results (paper, sections 3.3 and 3.4).

    Args:
        scene: the scene to complete. It may be another target of the moment that the adapter was fitted to. Without
            references, the completions stay in the order of their seeds.
        adapter: the result of ``fit``, or the folder where it was saved; or the name or folder of a base model, to
            complete without a fit.
        config: seeds, sampler and blending. ``None``: the base model's defaults, else the paper's.
        window: the windows in which the hole is filled. ``None``: those of the adapter's fit; for a bare base model,
            its defaults.
        ranking: settings of the ranking. ``None``: the base model's defaults, else the paper's.
        device: ``cpu``, ``cuda``, ``mps`` and so on. ``None``: the best available.
        dtype: precision of the weights. ``None``: half precision on CUDA, single precision elsewhere.
        local_files_only: do not use the network for the base model.
        on_step: called after each denoising step and each ranked completion. If it returns ``False``, the job ends and
            returns the finished completions, without ranking them.
        progress: show progress bars.

    Returns:
        Completions, best first. Outside the mask each equals the target exactly.

    Raises:
        BaseModelError: the base model or the matcher cannot be loaded.
        AdapterError: the adapter does not fit its base model.
        StoppedError: ``on_step`` ended the job before a completion was finished.
        ValueError: the device is not available, or the config does not suit the base model.
    """
    device = resolve_device(device)
    fitted = adapter if isinstance(adapter, Adapter) else _load_adapter(adapter)
    base = fitted.base if fitted is not None else str(adapter)
    inpainter = StableDiffusionInpainter.load(base, local_files_only=local_files_only)
    return _complete(
        inpainter, scene, fitted, config, window=window, ranking=ranking, device=device, dtype=dtype, on_step=on_step,
        progress=progress,
    )  # fmt: skip


def _complete(
    inpainter: StableDiffusionInpainter,
    scene: Scene,
    adapter: Adapter | None,
    config: SampleConfig | None,
    *,
    window: WindowConfig | None,
    ranking: RankConfig | None,
    device: torch.device,
    dtype: torch.dtype | None,
    on_step: OnStep | None,
    progress: bool,
) -> Completions:
    """Complete a scene with a loaded base model, and with an adapter if there is one."""
    config = config or SampleConfig()
    settings = (config.following(adapter.config) if adapter is not None else config).resolve(inpainter.card.sample)
    windows = _resolve_windows(window, adapter, inpainter.card)
    rank_settings = (ranking or RankConfig()).resolve(inpainter.card.rank)
    by_keypoints = rank_settings.score_by == "keypoints"
    matcher = load_matcher(rank_settings, device) if scene.references and by_keypoints else None
    if adapter is not None:
        settings = _attach(inpainter, adapter, settings, windows)
    inpainter.to(device, resolve_dtype(device, dtype))
    filled = fill_hole(inpainter, scene, settings, windows, on_step=on_step, progress=progress)
    if not filled:
        raise StoppedError("the job was ended before a completion was finished")
    provenance = describe_completion(
        scene, base=inpainter.base, fingerprint=inpainter.fingerprint, fit=adapter.config if adapter else None,
        sample=settings, window=windows, ranking=rank_settings,
    )  # fmt: skip
    recipe = describe_recipe(
        scene, fingerprint=inpainter.fingerprint, adapter=adapter.tensors if adapter else None, sample=settings,
        window=windows,
    )  # fmt: skip
    items = [Completion(scene=scene, filled=f, seed=seed, provenance=provenance) for seed, f in filled.items()]
    completions = Completions(items=tuple(items), scene=scene, ranking=rank_settings, recipe=recipe)
    was_stopped = len(filled) < settings.num_samples
    if was_stopped or not scene.references:
        return completions
    matches = None if by_keypoints else _match(scene)
    try:
        return rank(completions, matcher=matcher, matches=matches, device=device, on_step=on_step, progress=progress)
    except (RuntimeError, MemoryError, cv2.error) as error:  # out of memory, most likely
        warn(
            f"ranking failed ({type(error).__name__}: {error}), so the completions stay in the order of their seeds. "
            "Rank them later, with another matcher or a smaller max_size_px"
        )
        return completions


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


def _attach(
    inpainter: StableDiffusionInpainter, adapter: Adapter, settings: SampleSettings, windows: WindowSettings
) -> SampleSettings:
    """Load an adapter into its base model; return the settings with a prompt, by default the adapter's."""
    if settings.is_guided_from_base(windows.num_stages):
        inpainter.keep_unfitted()
        if settings.negative_prompt:
            warn(
                "the negative prompt has no effect, because guidance leads away from the base model. Set "
                "guidance_from='negative_prompt' to use it"
            )
    attach(inpainter, adapter)
    return settings if settings.prompt is not None else dataclasses.replace(settings, prompt=adapter.config.prompt)


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
    require_room(scene, (sampling or SampleConfig()).following(config.resolve(card.fit)).resolve(card.sample))
    rank_settings = (ranking or RankConfig()).resolve(card.rank)
    if rank_settings.score_by == "keypoints":
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
            of their seeds. On an empty canvas, references can only be compared by keypoints.
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
    inpainter = StableDiffusionInpainter.load(adapter.base, local_files_only=local_files_only)
    scene = Scene.canvas(size or (inpainter.resolution, inpainter.resolution), references)
    return _complete(
        inpainter, scene, adapter, config, window=None, ranking=ranking, device=device, dtype=dtype, on_step=on_step,
        progress=progress,
    )  # fmt: skip


def _load_adapter(source: str | PathLike[str]) -> Adapter | None:
    """Load the adapter that a folder holds; ``None`` if the source names a base model."""
    return Adapter.load(source) if (Path(source) / MANIFEST_NAME).is_file() else None


def _match(scene: Scene) -> list[Matches]:
    """Match the references with the target, once per scene."""
    if scene not in _matches:
        _matches[scene] = match_references(scene.known, scene.mask, scene.references)
    return _matches[scene]


def _say(line: str | None) -> None:
    if line is not None:
        tqdm.write(line, file=sys.stderr)


def _require_references(scene: Scene) -> None:
    if not scene.references:
        raise SceneError(
            "the scene has no references to learn from; add one to five (to the folder's ref/), or complete it with a "
            "bare base model"
        )
