"""The paper's order on one screen: ``fit`` trains an adapter, ``complete`` samples, blends and ranks with it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from realfill import __version__
from realfill.alignment import Similarity, find_similarity
from realfill.batches import AlignedHole, TrainingImage
from realfill.blending import blend
from realfill.capacity import is_out_of_memory
from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.devices import make_accelerator, resolve_device, resolve_dtype, resolve_precision
from realfill.errors import RealFillWarning, SceneError
from realfill.images import ImageArray, ImageLike, to_tensor
from realfill.masks import bounding_box, dilate
from realfill.models.adapter import Adapter, attach, trainable_lora, trainable_weights
from realfill.models.bases import Card, locate
from realfill.models.inpainter import Inpainter
from realfill.models.matcher import SiftMatcher, load_matcher
from realfill.ranking import rank
from realfill.results import Completion, Completions
from realfill.sampling import largest_batch, sample
from realfill.scene import Scene
from realfill.training import CHECKPOINT_NAME, Progress, Trainer, train
from realfill.windows import Window, choose_window

_HOLE_EDGE_PX = 6
_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")


def fit(
    scene: Scene,
    config: FitConfig | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    checkpoint_dir: str | PathLike[str] | None = None,
    on_step: Callable[[Progress], bool | None] | None = None,
    progress: bool = True,
) -> Adapter:
    """Teach an inpainting model a scene: low-rank fine-tuning on references and target (paper, section 3.2).

    Args:
        scene: with at least one reference. What lies under its mask has no influence.
        config: the recipe; ``None``: the paper's, on Stable Diffusion 2.
        device: ``cpu``, ``cuda``, ``mps`` ...; ``None``: the best there is.
        dtype: of the frozen weights under a LoRA; ``None``: half precision on CUDA, single elsewhere. With
            ``trainable="all"`` it is always single.
        local_files_only: don't touch the network for the base.
        checkpoint_dir: where to leave checkpoints. If one of the same fit is there, it is gone on with, to the result
            that an uninterrupted fit would have had.
        on_step: told about each step; ``False`` from it ends the fit and keeps what there is.
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
    inpainter = Inpainter.load(config.base, local_files_only=local_files_only)
    config = dataclasses.replace(
        config.resolve(inpainter.card.fit),
        base=inpainter.base,
        mixed_precision=resolve_precision(where, config.mixed_precision),
    )
    context = SampleConfig().resolve(inpainter.card.sample).context
    lora = config.trainable == "lora"
    frozen = resolve_dtype(where, dtype) if lora else torch.float32
    if frozen == torch.float16 and config.mixed_precision != "fp16":
        raise ValueError("float16 weights can't be trained on without mixed_precision='fp16', which scales the loss")
    inpainter.to(where, frozen)
    trainable = (trainable_lora if lora else trainable_weights)(inpainter, config)
    trainer = Trainer(inpainter, trainable, config, make_accelerator(where, config.mixed_precision))
    window = _window(scene, inpainter, context)
    inputs = {f"reference {i}": _hash(r) for i, r in enumerate(scene.references)}
    inputs |= {"target": _hash(scene.known), "mask": _hash(scene.mask)}
    recipe = {**config.to_dict(), "checkpoint_every": None}
    identity = hashlib.sha256(json.dumps([recipe, inpainter.fingerprint, inputs]).encode()).hexdigest()
    train(
        trainer,
        _training_images(scene, window, config),
        checkpoint=Path(checkpoint_dir) / CHECKPOINT_NAME if checkpoint_dir is not None else None,
        identity=identity,
        on_step=on_step,
        progress=progress,
    )
    manifest = {
        "realfill": __version__,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_steps_done": trainer.step,
        "device": str(where),
        "inputs": inputs,
    }
    tensors = trainer.export()
    return Adapter(
        tensors=tensors,
        config=config,
        fingerprint=inpainter.fingerprint,
        losses=tuple(trainer.losses),
        manifest=manifest,
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
    config = (config or SampleConfig()).resolve(inpainter.card.sample)
    ranking = (ranking or RankConfig()).resolve(inpainter.card.rank)
    matcher = load_matcher(ranking, where) if scene.references else None
    if isinstance(adapter, Adapter):
        attach(inpainter, adapter)
        config = config.resolve({"prompt": adapter.config.prompt})
    inpainter.to(where, resolve_dtype(where, dtype))
    scene = scene.dilated(config.dilation_px)
    window = _window(scene, inpainter, config.context)
    known, original = scene.known, scene.original
    hole = scene.mask[window.slices]
    provenance = _provenance(adapter, config, ranking, inpainter)
    if scene.history:
        provenance["scene"] = dict(scene.history)
    items = []
    for seed, patch in _samples(inpainter, window, known, scene, config, progress=progress):
        blended = blend(
            known[window.slices],
            hole,
            window.restore(patch),
            method=config.blend,
            scale=window.scale,
            dtype=original.pixels.dtype,
        )
        filled = original.encode(blended[hole])  # the window holds all of the hole
        items.append(Completion(scene=scene, filled=filled, seed=seed, provenance=provenance))
    completions = Completions(items=tuple(items), scene=scene)
    return rank(completions, config=ranking, matcher=matcher, progress=progress) if matcher else completions


def check_ready(
    scene: Scene,
    base: str,
    ranking: RankConfig | None = None,
    *,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
) -> None:
    """Make sure, before an expensive fit, that everything which ``fit`` and then ``complete`` need is there.

    Raises:
        SceneError: the scene has no references.
        BaseModelError: base or matcher can't be had.
    """
    _require_references(scene)
    card = Card.load(locate(base, local_files_only=local_files_only))
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
        references: photos to rank the results by, the scene's or another's; without any, they stay in seed order.
        ranking: as for ``complete``; so are the others.
        device: where to compute.
        dtype: of the weights.
        local_files_only: don't touch the network.
        progress: show progress bars.

    Returns:
        Completions whose every pixel is the model's.
    """
    where = resolve_device(device)
    inpainter = Inpainter.load(adapter.base, local_files_only=local_files_only)
    scene = Scene.canvas(size or (inpainter.resolution, inpainter.resolution), references)
    return _complete(inpainter, scene, adapter, config, ranking, where, dtype, progress=progress)


def _require_references(scene: Scene) -> None:
    if not scene.references:
        raise SceneError("the scene has no references to learn from; add one to five, or complete it with a bare base")


def _window(scene: Scene, inpainter: Inpainter, context: float) -> Window:
    return choose_window(scene.mask, resolution=inpainter.resolution, multiple=inpainter.latent_px, context=context)


def _training_images(scene: Scene, window: Window, config: FitConfig) -> list[TrainingImage]:
    """Take the photos at the scale in which the hole will be filled: crops about as large as its window."""
    side = np.sqrt(np.prod(window.box_size))
    sides = (side * config.crop_scale[0], side * config.crop_scale[1])
    share = (1 - config.target_share) / len(scene.references)
    box = bounding_box(scene.mask)
    photos = []
    for reference, similarity in zip(scene.references, _similarities(scene), strict=True):
        if similarity is None:  # as if it showed as much of the scene as the target does
            aligned, zoom = None, np.sqrt(reference[:, :, 0].size / scene.mask.size)
        else:
            aligned, zoom = AlignedHole(mask=scene.mask, similarity=similarity, box=box), similarity.scale
        sides_there = (sides[0] * zoom, sides[1] * zoom)
        photos.append(TrainingImage(image=reference, crop_sides_px=sides_there, share=share, aligned=aligned))
    target = TrainingImage(image=scene.known, known=~scene.mask, crop_sides_px=sides, share=config.target_share)
    return [*photos, target]


def _similarities(scene: Scene) -> list[Similarity | None]:
    """Find how each reference lies to the target, by keypoints that need no weights."""
    matcher = SiftMatcher(RankConfig().resolve({}))
    target, near = matcher.extract(scene.known), dilate(scene.mask, _HOLE_EDGE_PX)
    found = []
    for reference in scene.references:
        matches = matcher.match(matcher.extract(reference), target)
        x, y = matches.keypoints1.round().astype(int).reshape(-1, 2).T
        real = ~near[y, x]  # the blank hole's edge is nothing to hold on to
        found.append(find_similarity(matches.keypoints1[real], matches.keypoints0[real], reference.shape[:2]))
    return found


def _samples(
    inpainter: Inpainter, window: Window, known: ImageArray, scene: Scene, config: SampleConfig, *, progress: bool
) -> list[tuple[int, Any]]:
    """Sample all seeds, in batches; a batch that doesn't fit into memory is halved."""
    image = to_tensor(window.crop(known))
    hole = torch.from_numpy(window.crop_mask(scene.mask))[None, None]
    seeds = range(config.seed, config.seed + config.num_samples)
    batch_size = config.batch_size or largest_batch(inpainter, window.size, guided=config.guidance_scale != 1)
    batch_size = math.ceil(len(seeds) / math.ceil(len(seeds) / batch_size))  # no small rest
    done: list[tuple[int, Any]] = []
    total = config.num_samples * config.num_inference_steps
    with tqdm(total=total, desc="sample", unit="step", disable=not progress) as bar:
        while len(done) < len(seeds):
            batch = seeds[len(done) : len(done) + batch_size]
            bar.n = len(done) * config.num_inference_steps
            try:
                patches = sample(
                    inpainter, image, hole, seeds=batch, scheduler=config.scheduler,
                    num_inference_steps=config.num_inference_steps, temperature=config.temperature,
                    guidance_scale=config.guidance_scale,
                    prompt=config.prompt or "", negative_prompt=config.negative_prompt,
                    on_step=partial(bar.update, len(batch)),
                )  # fmt: skip
            except RuntimeError as error:
                if batch_size == 1 or not is_out_of_memory(error):
                    raise
                batch_size //= 2
                warnings.warn(
                    f"out of memory; going on with {batch_size} seeds at a time", RealFillWarning, stacklevel=3
                )
                continue
            done += [(s, p.permute(1, 2, 0).cpu().numpy() * 255) for s, p in zip(batch, patches, strict=True)]
    return done


def _provenance(
    adapter: Adapter | str, config: SampleConfig, ranking: RankConfig, inpainter: Inpainter
) -> dict[str, Any]:
    made: dict[str, Any] = {"realfill": __version__, "base": inpainter.base, "fingerprint": inpainter.fingerprint}
    if isinstance(adapter, Adapter):
        made["fit"] = adapter.config.to_dict()
    return {**made, "sample": config.to_dict(), "rank": ranking.to_dict()}


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
