"""``complete``: the hole is filled once for each seed, and the results are ranked (paper, sections 3.3 and 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import torch

from realfill.compute.devices import resolve_device, resolve_dtype
from realfill.compute.progress import OnStep, say
from realfill.config import (
    PLAIN_ENGINES,
    GeometryConfig,
    RankConfig,
    SampleConfig,
    WindowConfig,
)
from realfill.errors import StoppedError, warn
from realfill.filling.fill import choose_parts, fill_hole, require_room
from realfill.filling.finished import FinishedSeeds
from realfill.filling.keeping import Kept
from realfill.geometry.matching import Matcher, load_matcher
from realfill.io.images import ImageLike
from realfill.models.diffusion.adapter import MANIFEST_NAME, Adapter
from realfill.models.diffusion.families import load_family, load_family_of
from realfill.models.diffusion.hub import revision
from realfill.models.diffusion.lora import attach
from realfill.pipeline.evidence import judged, keep
from realfill.pipeline.plain import complete_without_model, fill_the_rest
from realfill.pipeline.ranking import rank_again
from realfill.pipeline.references import show_references, with_best_references
from realfill.pipeline.settings import CompletionJob, resolve_completion
from realfill.results.completions import Completion, Completions
from realfill.results.provenance import describe_completion, describe_recipe, identify_seeds
from realfill.scene.scene import Scene


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
    checkpoint_dir: str | PathLike[str] | None = None,
    overwrite: bool = False,
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
            complete without a fit; or ``telea``, ``smooth``, ``shiftmap``, ``completion``, ``lama`` or ``migan``, to
            fill by that engine what the references do not show.
        config: seeds, sampler and blending. ``None``: the base model's defaults, else the paper's.
        window: the windows in which the hole is filled. ``None``: those of the adapter's fit; for a bare base model,
            its defaults.
        geometry: which pixels are taken from the references. ``None``: as the adapter says; without one, the defaults.
        ranking: settings of the ranking. ``None``: the base model's defaults, else the paper's.
        ranked: rank the results; otherwise they stay in the order of their seeds.
        device: ``cpu``, ``cuda``, ``mps`` and so on. ``None``: the best available.
        dtype: precision of the weights. ``None``: half precision on CUDA, single precision elsewhere.
        local_files_only: do not use the network for the base model.
        checkpoint_dir: folder that receives each finished batch of seeds. A job that was killed resumes from what it
            finds there, and ends with the same result as an uninterrupted one. The files stay there.
        overwrite: replace finished seeds of another job found there.
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
        OutputError: ``checkpoint_dir`` holds finished seeds of another job, or cannot be written to.
        ValueError: the device is not available, or the config does not suit the base model.
    """
    if isinstance(adapter, str) and adapter in PLAIN_ENGINES:
        return fill_the_rest(
            scene, adapter, geometry, device=device, local_files_only=local_files_only, on_step=on_step,
            progress=progress,
        )  # fmt: skip
    device = resolve_device(device)
    fitted = adapter if isinstance(adapter, Adapter) else _load_adapter(adapter)
    config = config or SampleConfig()
    options: dict[str, Any] = {"local_files_only": local_files_only, "quantization": config.quantization}
    inpainter = (
        load_family(config.base or str(adapter), **options)
        if fitted is None
        else load_family_of(fitted, config.base, **options)
    )
    job = resolve_completion(
        scene, inpainter, fitted, config, window, geometry, ranking, ranked=ranked, device=device, dtype=dtype,
        on_step=on_step, progress=progress,
    )  # fmt: skip
    return _complete(job, checkpoint_dir, overwrite=overwrite)


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
    inpainter = load_family_of(
        adapter, config.base, local_files_only=local_files_only, quantization=config.quantization
    )
    scene = Scene.canvas(size or (inpainter.resolution, inpainter.resolution), references)
    job = resolve_completion(
        scene, inpainter, adapter, config, None, None, ranking, ranked=True, device=device, dtype=dtype,
        on_step=on_step, progress=progress,
    )  # fmt: skip
    return _complete(job)


def _load_adapter(source: str | PathLike[str]) -> Adapter | None:
    """Load the adapter that a folder holds; ``None`` if the source names a base model."""
    return Adapter.load(source) if (Path(source) / MANIFEST_NAME).is_file() else None


def _complete(
    job: CompletionJob, checkpoint_dir: str | PathLike[str] | None = None, *, overwrite: bool = False
) -> Completions:
    """Keep what the references show, fill the rest once for each seed, and judge and rank the results."""
    matcher = load_matcher(job.ranking, job.device) if job.ranked and job.ranking.uses_matcher else None
    _attach(job)
    kept = keep(
        job.scene, job.geometry, job.device,
        hinted=job.inpainter.reads_hints, parts=partial(choose_parts, job.inpainter, job.scene, job.window),
        on_step=job.on_step, progress=job.progress,
    )  # fmt: skip
    if kept.scene is None:
        return complete_without_model(job.scene, kept, job.geometry)
    job.inpainter.to(job.device, resolve_dtype(job.device, job.dtype))
    require_room(job.scene, job.sample)
    photographed = kept.evidence.shares["photographed"]
    if job.progress and photographed:
        share = f"{100 * (1 - photographed):.0f}" if photographed < 0.995 else "under 1"
        say(f"the model fills or corrects {share} % of the hole, and seeds differ only there")
    _show_references(job, kept.scene)
    recipe = describe_recipe(
        job.scene, fingerprint=job.inpainter.fingerprint, adapter=job.adapter.tensors if job.adapter else None,
        sample=job.sample, window=job.window, kept=kept.identity,
    )  # fmt: skip
    finished = None
    if checkpoint_dir is not None:
        identity = identify_seeds(job.scene, recipe)
        finished = FinishedSeeds(folder=Path(checkpoint_dir), identity=identity, overwrite=overwrite)
    items = _fill(job, kept, kept.scene, finished)
    completions = Completions(items=items, scene=job.scene, ranking=job.ranking, recipe=recipe)
    completions = judged(completions, job.geometry)
    was_stopped = len(items) < job.sample.num_samples
    return completions if was_stopped or not job.ranked else _rank(completions, matcher, job)


def _attach(job: CompletionJob) -> None:
    """Load the adapter, if there is one, into its base model, or into the one that the settings name."""
    if job.adapter is None:
        return
    if job.sample.is_guided_from_base(job.window.num_stages):
        job.inpainter.keep_unfitted()
        if job.sample.negative_prompt:
            warn(
                "the negative prompt has no effect, because guidance leads away from the base model. Set "
                "guidance_from='negative_prompt' to use it"
            )
    attach(job.inpainter, job.adapter, elsewhere=job.sample.base not in (None, job.adapter.base))


def _show_references(job: CompletionJob, rest: Scene) -> None:
    """Show the references to a base model that reads them as conditioning.

    Args:
        job: the completion.
        rest: the scene with what is left to fill.
    """
    if job.inpainter.sees_references:
        seen = with_best_references(job.scene, "the model sees", progress=job.progress)
        show_references(job.inpainter, seen, choose_parts(job.inpainter, rest, job.window), job.window)


def _fill(job: CompletionJob, kept: Kept, rest: Scene, finished: FinishedSeeds | None) -> tuple[Completion, ...]:
    """Fill what is left of the hole once for each seed.

    Args:
        job: the completion.
        kept: the pixels that are taken from the references.
        rest: the scene with what is left to fill.
        finished: seeds that an interrupted job has filled; ``None``: nothing is read or kept.

    Raises:
        StoppedError: ``on_step`` ended the job before a completion was finished.
    """
    shifts: dict[int, list[tuple[float, float]]] = {}
    filled = fill_hole(
        job.inpainter, rest, job.sample, job.window, on_step=job.on_step, progress=job.progress, finished=finished,
        hints=kept.hints, on_shift=lambda seed, shift: shifts.setdefault(seed, []).append(shift),
    )  # fmt: skip
    if not filled:
        raise StoppedError("the job was ended before a completion was finished")
    provenance = describe_completion(
        job.scene, base=job.inpainter.base, fingerprint=job.inpainter.fingerprint,
        fit=job.adapter.config if job.adapter else None, sample=job.sample, window=job.window, ranking=job.ranking,
        geometry=job.geometry, evidence=kept.evidence, given=kept.given, revision=revision(job.inpainter.base),
    )  # fmt: skip
    provenance |= {} if kept.hints is None else {"hints": True}
    return tuple(
        Completion(
            scene=job.scene, filled=kept.joined(values), seed=seed, evidence=kept.evidence,
            provenance=provenance | _describe_shift(shifts.get(seed)),
        )
        for seed, values in filled.items()
    )  # fmt: skip


def _describe_shift(shifts: Sequence[tuple[float, float]] | None) -> dict[str, Any]:
    """Describe the largest shift of a completion's samples before they were registered; {} if none was measured."""
    if not shifts:
        return {}
    return {"shift_px": [round(x, 2) for x in max(shifts, key=lambda shift: abs(shift[0]) + abs(shift[1]))]}


def _rank(completions: Completions, matcher: Matcher | None, job: CompletionJob) -> Completions:
    """Rank the completions; if that fails, keep them in the order of their seeds."""
    try:
        return rank_again(
            completions, matcher=matcher, device=job.device, on_step=job.on_step, progress=job.progress
        )  # fmt: skip
    except (RuntimeError, MemoryError, cv2.error) as error:  # out of memory, most likely
        warn(
            f"ranking failed ({type(error).__name__}: {error}), so the completions stay in the order of their seeds. "
            "Rank them later, with another matcher or a smaller max_size_px"
        )
        return completions
