"""Pictures of the composite of a scene: how it came about, and where it can be trusted."""

from __future__ import annotations

import torch

from realfill.compute.progress import OnStep
from realfill.config import GeometryConfig
from realfill.geometry.pictures import draw_all
from realfill.io.images import ImageArray
from realfill.pipeline.evidence import compose, composite_of
from realfill.pipeline.settings import resolve_geometry
from realfill.scene.scene import Scene


def draw_composite(
    scene: Scene,
    geometry: GeometryConfig | None = None,
    *,
    device: str | torch.device | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> dict[str, ImageArray]:
    """Draw how the composite of a scene came about, and where it can be trusted.

    The composite is the one that ``fit``, ``complete`` and ``examine`` have computed for the same ``Scene``; otherwise
    it is computed here.

    Args:
        scene: the scene.
        geometry: how the composite is made, if it has to be computed or was made in another way. ``None``: the one that
            there is, else the defaults.
        device: where a matcher that is a network runs. ``None``: the best available.
        on_step: called between the steps of the composite. If it returns ``False``, the job ends.
        progress: show a progress bar.

    Returns:
        Name to picture, (h, w, 3) uint8: ``matches_0`` and so on, the target beside each reference; ``layers``, each
        reference in the target's view; ``depth``, if the cameras are known; ``sources``, which reference each pixel of
        the hole comes from; ``confidence``. Empty if the scene has no composite.

    Raises:
        BaseModelError: the weights of the matcher are not available.
        StoppedError: ``on_step`` ended the job.
    """
    found = composite_of(scene) if geometry is None else None
    if found is None:
        settings = resolve_geometry(geometry, scene, None, None)
        found = compose(scene, settings, device, on_step=on_step, progress=progress)
    return {} if found is None else draw_all(found, scene.known, scene.mask, scene.references)
