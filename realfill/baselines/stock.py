"""What baselines around a stock diffusers pipeline share: getting it, and the window that it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from numpy.typing import NDArray
from PIL import Image

from realfill.config import Blend, SampleConfig
from realfill.errors import BaseModelError, SceneError
from realfill.filling.blending import blend
from realfill.filling.windows import Window, choose_window
from realfill.io.images import ImageArray, MaskArray, to_array, to_tensor
from realfill.masks import fill_smooth
from realfill.models._quiet import quiet
from realfill.scene import Scene

CONTEXT = SampleConfig().resolve({}).context
BLEND: Blend = SampleConfig().blend


def load_pipeline(
    name: str,
    load: Callable[..., Any],
    bases: Sequence[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    local_files_only: bool = False,
    offload: bool = False,
    variants: Sequence[str | None] = (None,),
    **parts: Any,
) -> Any:
    """Load a stock pipeline, from this machine where it is there, else from the hub.

    Args:
        name: whose it is, for the error.
        load: the pipeline's ``from_pretrained``, or what takes the same.
        bases: hub ids or directories, in the order in which they are tried.
        device: where it shall compute.
        dtype: of its weights.
        local_files_only: don't touch the network; the hub's own offline switch does the same.
        offload: keep each part on the CPU while another computes, where ``device`` is a GPU.
        variants: of the files, in the order in which they are tried: ``fp16``, or ``None``, the plain ones.
        parts: of the pipeline, in place of its own; ``None`` leaves one out.

    Raises:
        BaseModelError: what was tried, why it failed, what to do.
    """
    offline = local_files_only or constants.HF_HUB_OFFLINE
    places = (True,) if offline else (True, False)
    reasons: dict[str, str] = {}
    for here, base, variant in product(places, bases, variants):
        if Path(base).is_dir() and not here:
            continue
        try:
            with quiet(bars=not here):
                pipeline = load(base, dtype=dtype, variant=variant, local_files_only=here, **parts)
        except Exception as error:  # noqa: BLE001 - the hub's errors have no common class
            reasons[base] = f"{base} ({type(error).__name__}: {shorten(str(error), 160)})"
            continue
        pipeline.set_progress_bar_config(disable=True)
        if offload and device.type != "cpu":
            pipeline.enable_model_cpu_offload(device=device)
            return pipeline
        with quiet():
            return pipeline.to(device, dtype)
    tried = "; ".join(reasons.values())
    raise BaseModelError(
        f"the weights for {name!r} can't be had{' offline' if offline else ''}. Tried {tried}."
        " Connect once to download them (if their owner asks for it, accept the terms on their page, then `hf auth"
        " login`), or give a directory that holds them in diffusers' layout"
    )


def require_references(scene: Scene, name: str) -> None:
    """Make sure that a scene has references.

    Raises:
        SceneError: it has none.
    """
    if not scene.references:
        raise SceneError(f"the scene has no references, and {name!r} completes by them; add one to five")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """The window around a scene's hole as a pipeline is shown it, and the way back.

    Attributes:
        scene: what is completed.
        window: its box in the target and its size for the model.
        image: (h, w, 3) uint8, the window at the model's size; in the hole, the known pixels' smooth continuation.
        hole: (h, w) bool, True = fill.
    """

    scene: Scene
    window: Window
    image: ImageArray
    hole: MaskArray

    @classmethod
    def of(cls, scene: Scene, *, resolution: int, multiple: int, context: float) -> View:
        """Look at a scene's hole; the arguments are ``choose_window``'s."""
        window = choose_window(scene.mask, resolution=resolution, multiple=multiple, context=context)
        hole = window.crop_mask(scene.mask)
        image = fill_smooth(to_tensor(window.crop(scene.known)), torch.from_numpy(hole)[None, None])
        return cls(scene=scene, window=window, image=to_array(image[0]), hole=hole)

    def picture(self) -> Image.Image:
        """The image, for a pipeline."""
        return Image.fromarray(self.image)

    def mask(self, cell_px: int = 1) -> Image.Image:
        """The hole for a pipeline, white = fill, grown to whole cells of ``cell_px`` pixels.

        A pipeline that keeps the latents outside its mask is given whole latents: those that see a part of the hole
        would else keep a part of the filler.
        """
        hole = F.max_pool2d(torch.from_numpy(self.hole)[None, None].float(), cell_px)
        cells = F.interpolate(hole, scale_factor=cell_px)[0, 0].numpy()
        return Image.fromarray((cells * 255).astype(np.uint8))

    def finish(self, sample: NDArray[np.floating], method: Blend) -> ImageArray:
        """Bring a sample into the target.

        Args:
            sample: (h, w, 3) float in [0, 1], of the window's size for the model.
            method: how to blend it.

        Returns:
            (H, W, 3) uint8, the target outside the mask.
        """
        assert sample.shape == self.image.shape
        known, box = self.scene.known, self.window.slices
        patch = self.window.restore(np.ascontiguousarray(sample, np.float32) * 255)
        image = known.copy()
        image[box] = blend(known[box], self.scene.mask[box], patch, method=method, scale=self.window.scale)
        return image


def generators(seeds: Iterable[int]) -> Iterable[tuple[int, torch.Generator]]:
    """Give each seed a generator of its own, on the CPU."""
    return ((seed, torch.Generator().manual_seed(seed)) for seed in seeds)
