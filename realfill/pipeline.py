"""The paper's order on one screen: ``fit`` trains an adapter, ``complete`` samples, blends and ranks with it."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.devices import (
    make_accelerator,
    resolve_device,
    resolve_dtype,
    resolve_frozen_dtype,
    resolve_precision,
)
from realfill.errors import RealFillWarning, SceneError
from realfill.filling.hole import choose_parts, fill_hole, require_room
from realfill.fitting.plans import describe_download, describe_fit
from realfill.fitting.trainer import Trainer
from realfill.fitting.training import CHECKPOINT_NAME, Progress, train
from realfill.io.images import ImageLike
from realfill.models.adapter import Adapter, attach, trainable_lora, trainable_weights
from realfill.models.bases import Card, locate
from realfill.models.inpainter import Inpainter
from realfill.models.matcher import load_matcher
from realfill.provenance import describe_completion, describe_finished_fit, fit_identity, hash_scene
from realfill.ranking import rank
from realfill.results import Completion, Completions
from realfill.scene import Scene
from realfill.training_set import training_set

_LARGE_PX = 512  # of a base that a processor is too slow for


def fit(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    checkpoint_dir: str | PathLike[str] | None = None,
    overwrite: bool = False,
    on_step: Callable[[Progress], bool | None] | None = None,
    progress: bool = True,
) -> Adapter:
    """Teach an inpainting model a scene: low-rank fine-tuning on references and target (paper, section 3.2).

    Args:
        scene: with at least one reference. What lies under its mask has no influence.
        config: the recipe; ``None``: the paper's, on Stable Diffusion 2.
        device: ``cpu``, ``cuda``, ``mps`` ...; ``None``: the best there is.
        dtype: of the frozen weights under a LoRA; ``None``: what ``mixed_precision`` comes to: half precision on CUDA
            and on a CPU that is fast in bf16, single elsewhere. With ``trainable="all"`` it is always single.
        local_files_only: don't touch the network for the base.
        checkpoint_dir: where to leave checkpoints. If one of the same fit is there, it is gone on with, to the result
            that an uninterrupted fit would have had.
        overwrite: replace a checkpoint of another fit that is there.
        on_step: told about each step; ``False`` from it ends the fit and keeps what there is. Where several processes
            fit together, each must be given one, and one ``False`` ends all.
        progress: show a progress bar.

    Returns:
        An adapter for this base and scene; it serves other targets of the same moment too.

    Raises:
        SceneError: there are no references.
        BaseModelError: the base can't be loaded.
        AdapterError: the checkpoint is damaged or of another fit.
        TrainingError: the loss is no longer a number.
        ValueError: the config doesn't suit the base or the device.
    """
    _require_references(scene)
    where = resolve_device(device)
    config = config or FitConfig()
    _say(describe_download(config.base, local_files_only=local_files_only) if progress else None)
    inpainter = Inpainter.load(config.base, local_files_only=local_files_only)
    config = config.resolve(inpainter.card.fit)
    precision = resolve_precision(where, config.mixed_precision)
    config = dataclasses.replace(config, base=inpainter.base, mixed_precision=precision)
    sampling = SampleConfig().following(config).resolve(inpainter.card.sample)
    lora = config.trainable == "lora"
    frozen = resolve_frozen_dtype(dtype, precision) if lora else torch.float32
    if frozen == torch.float16 and config.mixed_precision != "fp16":
        raise ValueError("float16 weights can't be trained on without mixed_precision='fp16', which scales the loss")
    inpainter.to(where, frozen)
    trainable = (trainable_lora if lora else trainable_weights)(inpainter, config)
    trainer = Trainer(inpainter, trainable, config, make_accelerator(where, config.mixed_precision))
    parts = choose_parts(inpainter, scene, sampling)
    inputs = hash_scene(scene)
    if where.type == "cpu" and inpainter.resolution >= _LARGE_PX:
        warnings.warn(
            f"a fit of {inpainter.base!r}, at {inpainter.resolution} pixels, takes days on a processor; it is meant "
            "for a GPU. base='mini' takes minutes", RealFillWarning, stacklevel=2,
        )  # fmt: skip
    if trainer.accelerator.is_main_process:
        _say(describe_fit(inpainter, trainer.config, trainer.plan) if progress else None)
    train(
        trainer,
        training_set(scene, parts, config, inpainter.resolution),
        checkpoint=Path(checkpoint_dir) / CHECKPOINT_NAME if checkpoint_dir is not None else None,
        identity=fit_identity(inputs, config, sampling, inpainter),
        overwrite=overwrite,
        on_step=on_step,
        progress=progress,
    )
    return Adapter(
        tensors=trainer.export(),
        config=trainer.config,
        fingerprint=inpainter.fingerprint,
        losses=tuple(trainer.losses),
        manifest=describe_finished_fit(trainer, inputs),
    )


def complete(
    scene: Scene,
    adapter: Adapter | str,
    config: SampleConfig | None = None,
    *,
    ranking: RankConfig | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    progress: bool = True,
) -> Completions:
    """Fill the scene's hole once for each seed, and rank the results (paper, sections 3.3 and 3.4).

    Args:
        scene: what to complete; another target of the moment that the adapter was fitted on will do. Without
            references, the completions stay in the order of their seeds.
        adapter: what ``fit`` returned; or a base's name, to complete with the bare base.
        config: seeds, sampler, blending; ``None``: the base's own defaults, else the paper's.
        ranking: which matcher, and how strict; ``None``: likewise.
        device: ``cpu``, ``cuda``, ``mps`` ...; ``None``: the best there is.
        dtype: of the weights; ``None``: half precision on CUDA, single elsewhere.
        local_files_only: don't touch the network for the base.
        progress: show progress bars.

    Returns:
        Completions, best first. Outside the mask each equals the target exactly.

    Raises:
        BaseModelError: base or matcher can't be loaded.
        AdapterError: the adapter doesn't fit its base.
        ValueError: the device can't be used, or the config doesn't suit the base.
    """
    where = resolve_device(device)
    base = adapter if isinstance(adapter, str) else adapter.base
    inpainter = Inpainter.load(base, local_files_only=local_files_only)
    return _complete(inpainter, scene, adapter, config, ranking, where, dtype, progress=progress)


def _complete(
    inpainter: Inpainter,
    scene: Scene,
    adapter: Adapter | str,
    config: SampleConfig | None,
    ranking: RankConfig | None,
    where: torch.device,
    dtype: torch.dtype | None,
    *,
    progress: bool,
) -> Completions:
    config = config or SampleConfig()
    config = config.following(adapter.config) if isinstance(adapter, Adapter) else config
    config = config.resolve(inpainter.card.sample)
    ranking = (ranking or RankConfig()).resolve(inpainter.card.rank)
    matcher = load_matcher(ranking, where) if scene.references else None
    if isinstance(adapter, Adapter):
        if config.guided_from_base:
            inpainter.keep_unfitted()
            if config.negative_prompt:
                warnings.warn(
                    "the negative prompt isn't looked at: guidance leads away from the base. Give "
                    "guidance_from='negative_prompt' to be led away from the prompt", RealFillWarning, stacklevel=3,
                )  # fmt: skip
        attach(inpainter, adapter)
        config = config if config.prompt is not None else dataclasses.replace(config, prompt=adapter.config.prompt)
        if config.num_stages > adapter.config.num_stages:
            warnings.warn(
                f"the adapter was fitted for {adapter.config.num_stages} stages and is asked for {config.num_stages}: "
                "it hasn't seen the scene so close. Give the fit the same num_stages", RealFillWarning, stacklevel=3,
            )  # fmt: skip
    inpainter.to(where, resolve_dtype(where, dtype))
    provenance = describe_completion(scene, adapter, config, ranking, inpainter)
    filled = fill_hole(inpainter, scene, config, progress=progress)
    items = [Completion(scene=scene, filled=f, seed=seed, provenance=provenance) for seed, f in filled.items()]
    completions = Completions(items=tuple(items), scene=scene)
    if not scene.references:
        return completions
    try:
        return rank(completions, config=ranking, matcher=matcher, device=where, progress=progress)
    except (RuntimeError, MemoryError, cv2.error) as error:  # out of memory, most likely
        warnings.warn(
            f"the completions can't be ranked ({type(error).__name__}: {error}); they stay in the order of their "
            "seeds. Rank them later, with another matcher or a smaller max_size_px", RealFillWarning, stacklevel=3,
        )  # fmt: skip
        return completions


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
    """Make sure, before an expensive fit, that everything which ``fit`` and then ``complete`` need is there.

    Args:
        scene: to be fitted.
        config: as for ``fit``.
        sampling: as for ``complete``.
        ranking: likewise.
        device: where to compute.
        local_files_only: don't touch the network for the base.
        progress: say what is downloaded.

    Raises:
        SceneError: the scene has no references.
        BaseModelError: base or matcher can't be had.
        ValueError: the config doesn't suit the base, or memory doesn't hold so many samples.
    """
    _require_references(scene)
    _say(describe_download(config.base, local_files_only=local_files_only) if progress else None)
    card = Card.load(locate(config.base, local_files_only=local_files_only))
    require_room(scene, (sampling or SampleConfig()).following(config.resolve(card.fit)).resolve(card.sample))
    load_matcher((ranking or RankConfig()).resolve(card.rank), resolve_device(device))


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
    progress: bool = True,
) -> Completions:
    """Draw new views of a fitted scene on an empty canvas (paper, section 4.3: scene variants).

    Args:
        adapter: what ``fit`` returned.
        config: as for ``complete``.
        size: (height, width) of the canvas in pixels; ``None``: the base's own square.
        references: photos to rank the results by, the scene's or another's; without any, they stay in seed order. Where
            the base asks for ``registered`` nothing can be laid over an empty canvas: give ``sift`` as ``ranking``.
        ranking: as for ``complete``; so are the others.
        device: where to compute.
        dtype: of the weights.
        local_files_only: don't touch the network.
        progress: show progress bars.

    Returns:
        Completions whose every pixel is the model's.

    Raises:
        BaseModelError: base or matcher can't be loaded.
        AdapterError: the adapter doesn't fit its base.
        SceneError: the size or a photo can't be used.
        ValueError: the device can't be used, or the config doesn't suit the base.
    """
    where = resolve_device(device)
    inpainter = Inpainter.load(adapter.base, local_files_only=local_files_only)
    scene = Scene.canvas(size or (inpainter.resolution, inpainter.resolution), references)
    return _complete(inpainter, scene, adapter, config, ranking, where, dtype, progress=progress)


def _say(line: str | None) -> None:
    if line is not None:
        tqdm.write(line, file=sys.stderr)


def _require_references(scene: Scene) -> None:
    if not scene.references:
        raise SceneError(
            "the scene has no references to learn from; add one to five (to the folder's ref/), or complete it with a "
            "bare base"
        )
