"""Jobs without a diffusion model: ``fill`` without references, and engines that fill what references do not show."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import torch
from numpy.typing import NDArray

from realfill.compute.progress import OnStep
from realfill.config import PLAIN_ENGINES, Blend, EngineName, GeometryConfig, GeometrySettings
from realfill.errors import StoppedError
from realfill.filling.engines import load_engine
from realfill.filling.keeping import Kept
from realfill.io.images import ImageLike, MaskArray
from realfill.models.engine import Engine
from realfill.pipeline.evidence import judged, keep
from realfill.pipeline.settings import resolve_geometry
from realfill.results.completions import Completion, Completions
from realfill.results.provenance import describe_composite, describe_fill, describe_recipe
from realfill.scene.scene import Scene


def fill(
    photo: ImageLike,
    mask: ImageLike | MaskArray | None = None,
    engine: EngineName | Engine = "telea",
    *,
    seed: int = 0,
    weights: str | PathLike[str] | None = None,
    blend: Blend | None = None,
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
    return fill_by_engine(scene, engine, name, [seed], on_step=on_step)[0]


def fill_by_engine(
    scene: Scene, engine: Engine, name: str, seeds: Sequence[int], *, on_step: OnStep | None
) -> list[Completion]:
    """Fill the hole of a scene by an engine, without the references.

    Args:
        scene: the scene.
        engine: the loaded engine.
        name: its name, for the provenance. Completions by an engine that always gives the same have no seed.
        seeds: one for each completion.
        on_step: as for ``fill``.

    Returns:
        The finished completions, at least one.

    Raises:
        StoppedError: ``on_step`` ended the job before the first completion was finished.
    """
    images = engine.fill(scene.known, scene.mask, seeds, on_step=on_step)
    if not images:
        raise StoppedError("the job was ended before the hole was filled")
    is_seeded, provenance = name not in PLAIN_ENGINES, describe_fill(name)
    return [
        Completion.from_image(image, scene, seed if is_seeded else None, provenance=provenance)
        for image, seed in zip(images, seeds, strict=False)
    ]


def fill_the_rest(
    scene: Scene,
    name: EngineName,
    geometry: GeometryConfig | None,
    *,
    weights: str | PathLike[str] | None = None,
    device: str | torch.device | None,
    local_files_only: bool,
    on_step: OnStep | None,
    progress: bool,
) -> Completions:
    """Complete a scene without a diffusion model: an engine fills what the references do not show.

    Args:
        scene: the scene to complete.
        name: the name of an engine that always gives the same result.
        geometry: which pixels are taken from the references.
        weights: see ``load_engine``.
        device: where the engine runs.
        local_files_only: do not use the network for the engine's weights.
        on_step: as for ``complete``.
        progress: show a progress bar.

    Raises:
        StoppedError: ``on_step`` ended the job.
    """
    engine = load_engine(name, weights=weights, device=device, local_files_only=local_files_only)
    settings = resolve_geometry(geometry, scene, None, None)
    kept = keep(scene, settings, device, on_step=on_step, progress=progress)
    if kept.scene is None:
        return complete_without_model(scene, kept, settings)
    images = engine.fill(kept.scene.known, kept.scene.mask, [0], on_step=on_step)
    if not images:
        raise StoppedError("the job was ended before the hole was filled")
    filled = kept.joined(kept.scene.original.encode(images[0][kept.scene.mask]))
    return _as_completions(scene, kept, filled, name, settings)


def complete_without_model(scene: Scene, kept: Kept, geometry: GeometrySettings) -> Completions:
    """Complete a scene of whose hole the references show every pixel."""
    return _as_completions(scene, kept, kept.values, None, geometry)


def _as_completions(
    scene: Scene, kept: Kept, filled: NDArray, engine: EngineName | None, geometry: GeometrySettings
) -> Completions:
    """Make the single completion of a scene that has no pixel of a diffusion model."""
    provenance = describe_composite(scene, engine=engine, geometry=geometry, evidence=kept.evidence, given=kept.given)
    completion = Completion(scene=scene, filled=filled, seed=None, evidence=kept.evidence, provenance=provenance)
    recipe = describe_recipe(scene, fingerprint=engine, kept=kept.identity)
    return judged(Completions(items=(completion,), scene=scene, recipe=recipe), geometry)
