"""``fit``: a base model is fine-tuned on the references and the target of a scene (paper, section 3.2)."""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path

import torch

from realfill.compute.devices import (
    in_any_process,
    make_accelerator,
    resolve_device,
    resolve_frozen_dtype,
    resolve_precision,
)
from realfill.compute.progress import OnStep, say
from realfill.config import (
    FitConfig,
    FitSettings,
    GeometryConfig,
    GeometrySettings,
    RankConfig,
    SampleConfig,
    WindowConfig,
)
from realfill.errors import StoppedError, warn
from realfill.filling.fill import choose_parts, require_room
from realfill.geometry.matching import load_matcher
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.family import DiffusionFamily
from realfill.models.diffusion.hub import locate, origin
from realfill.models.diffusion.lora import Trainable, attach, stack, trainable_lora, trainable_weights
from realfill.pipeline.evidence import measure_coverage
from realfill.pipeline.references import (
    match,
    require_references,
    show_references,
    with_best_references,
)
from realfill.pipeline.settings import resolve_geometry
from realfill.results.provenance import describe_fit, fit_identity, hash_scene, hash_tensors
from realfill.scene.scene import Scene
from realfill.training.checkpoint import CHECKPOINT_NAME
from realfill.training.dataset import training_set
from realfill.training.loop import train
from realfill.training.plan import describe_download, describe_plan
from realfill.training.trainer import Trainer

_COVERED = 0.9  # coverage from which a card's covered_fit holds
_LARGE_PX = 512  # resolution from which a CPU is too slow for a base model


def fit(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    window: WindowConfig | None = None,
    geometry: GeometryConfig | None = None,
    start: Adapter | str | PathLike[str] | None = None,
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
        geometry: which pixels ``complete`` will take from the references. The adapter carries it. It also has a say in
            the fit: if these are at least 90 % of the hole (``Evidence.coverage``), the base model may have other
            defaults for ``config``, and if there are none, ``hint_share`` has no effect. ``None``: the defaults, with
            which the fit first says how much of the hole the references show.
        start: an adapter of the same base model, such as the result of ``adapt``, or its folder. The fit starts from
            it, and the result contains it: its rank is the sum of both ranks.
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
        An adapter for this base model and scene. It also serves other targets of the same moment; if the base model has
        other defaults where the references show the hole, set ``num_steps`` for that, because such a fit is short.

    Raises:
        SceneError: the scene has no references.
        BaseModelError: the base model cannot be loaded.
        AdapterError: the checkpoint is damaged or belongs to another fit, or ``start`` is not of this base model.
        StoppedError: ``on_step`` returned ``False`` before the first step.
        TrainingError: the loss is not a finite number.
        ValueError: the config does not suit the base model or the device.
    """
    require_references(scene)
    device = resolve_device(device)
    config = config or FitConfig()
    say(describe_download(config.base, local_files_only=local_files_only) if progress else None)
    inpainter = load_family(config.base, local_files_only=local_files_only, quantization=config.quantization)
    earlier = start if start is None or isinstance(start, Adapter) else Adapter.load(start)
    if earlier is not None:
        attach(inpainter, earlier)
    recipes = {covered: _resolve_fit(config, inpainter, device, covered=covered) for covered in (False, True)}
    windows = (window or WindowConfig()).resolve(inpainter.card.window)
    sources = resolve_geometry(geometry, scene, None, config.preset)
    accelerator = make_accelerator(device, recipes[False].mixed_precision)
    coverage = _coverage(scene, sources, device, on_step, progress=progress)
    settings = recipes[not in_any_process(coverage < _COVERED)]
    if in_any_process(not coverage):  # so complete will have no hints to show
        settings = dataclasses.replace(settings, hint_share=0.0)
    trainable = make_trainable(inpainter, settings, device, dtype)
    scene = with_best_references(scene, "the fit learns from", progress=progress)
    parts = choose_parts(inpainter, scene, windows)
    show_references(inpainter, scene, parts, windows)
    trainer = Trainer(inpainter, trainable, settings, accelerator)
    inputs = hash_scene(scene) | ({} if earlier is None else {"start": hash_tensors(earlier.tensors)})
    _announce(trainer, device, progress=progress)
    train(
        trainer,
        training_set(scene, parts, settings, inpainter.resolution, matches=match(scene)),
        checkpoint=Path(checkpoint_dir) / CHECKPOINT_NAME if checkpoint_dir is not None else None,
        identity=fit_identity(inputs, settings, windows, inpainter.traits),
        overwrite=overwrite,
        on_step=on_step,
        progress=progress,
    )
    manifest = describe_fit(
        inputs=inputs, num_steps_done=trainer.step, time_s=trainer.time_s, device=str(device),
        origin=origin(config.base),
    )  # fmt: skip
    fitted = Adapter(
        tensors=trainer.export(), config=trainer.settings, window=windows, geometry=sources,
        fingerprint=inpainter.fingerprint, losses=tuple(trainer.losses), manifest=manifest,
    )  # fmt: skip
    return fitted if earlier is None else stack(earlier, fitted)


def _coverage(
    scene: Scene, sources: GeometrySettings, device: torch.device, on_step: OnStep | None, *, progress: bool
) -> float:
    """Measure how much of the hole the references show. If that fails in one of several processes, it ends in all.

    Raises:
        StoppedError: ``on_step`` returned ``False`` in a process, or another process failed.
    """
    failed, coverage = None, 0.0
    try:
        coverage = measure_coverage(scene, sources, device, on_step=on_step, progress=progress)
    except Exception as error:  # noqa: BLE001 - the others wait for this process otherwise
        failed = error
    if in_any_process(failed is not None):
        raise failed or StoppedError("the job was ended in another process")
    return coverage


def _resolve_fit(config: FitConfig, inpainter: DiffusionFamily, device: torch.device, *, covered: bool) -> FitSettings:
    """Resolve the recipe, with the base and the precision that are in use.

    Args:
        config: the recipe.
        inpainter: the base model.
        device: where it is fitted.
        covered: whether the references show at least 90 % of the hole.
    """
    settings = config.resolve(inpainter.card.fit_defaults(covered=covered))
    precision = resolve_precision(device, settings.mixed_precision)
    return dataclasses.replace(settings, base=inpainter.base, mixed_precision=precision)


def make_trainable(
    inpainter: DiffusionFamily, settings: FitSettings, device: torch.device, dtype: torch.dtype | None
) -> Trainable:
    """Move a base model to its device, and choose or add the weights that are trained.

    Raises:
        ValueError: the frozen weights would be float16, and the loss would not be scaled.
    """
    with_lora, precision = settings.trainable == "lora", resolve_precision(device, settings.mixed_precision)
    frozen = resolve_frozen_dtype(dtype, precision) if with_lora else torch.float32
    if frozen == torch.float16 and precision != "fp16":
        raise ValueError(
            "dtype is float16, which needs mixed_precision='fp16' to scale the loss; legal: both, or no dtype"
        )
    inpainter.to(device, frozen)
    return (trainable_lora if with_lora else trainable_weights)(inpainter, settings)


def _announce(trainer: Trainer, device: torch.device, *, progress: bool) -> None:
    """Say what the fit takes, and warn if it takes days."""
    inpainter = trainer.inpainter
    if device.type == "cpu" and inpainter.resolution >= _LARGE_PX:
        warn(
            f"fitting {inpainter.base!r} at {inpainter.resolution} pixels takes days on a CPU; it is meant for a GPU. "
            "base='mini' takes minutes"
        )
    if trainer.accelerator.is_main_process:
        say(describe_plan(inpainter, trainer.settings, trainer.plan) if progress else None)


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
    require_references(scene)
    say(describe_download(config.base, local_files_only=local_files_only) if progress else None)
    card = Card.load(locate(config.base, local_files_only=local_files_only))
    config.resolve(card.fit_defaults(covered=True))  # an illegal value is an error now, not after the composite
    if sampling is not None and sampling.base is not None:
        locate(sampling.base, local_files_only=local_files_only)
    require_room(scene, (sampling or SampleConfig()).following(config.resolve(card.fit)).resolve(card.sample))
    rank_settings = (ranking or RankConfig()).resolve(card.rank)
    if rank_settings.uses_matcher:
        load_matcher(rank_settings, resolve_device(device))
