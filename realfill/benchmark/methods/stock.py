"""Shared parts of the methods around a stock diffusers pipeline: its loading, and the window that it sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from numpy.typing import NDArray
from PIL import Image

from realfill.compute.devices import resolve_device, resolve_dtype
from realfill.config import Blend, SampleConfig, WindowConfig
from realfill.errors import BaseModelError
from realfill.filling.blending import blend
from realfill.io.images import ImageArray, MaskArray, to_array, to_tensor
from realfill.models.quiet import quiet
from realfill.scene.masks import fill_smooth
from realfill.scene.scene import Scene
from realfill.scene.windows import Window, choose_window


@dataclass(frozen=True, kw_only=True)
class StockMethod:
    """The options that all methods around a stock pipeline have.

    Their weights are loaded once for each object and stay loaded.
    """

    name: ClassVar[str]
    uses_references = True
    uses_seed = True

    context: float = WindowConfig().resolve({}).context
    """Size of the window, as ``WindowConfig.context``, with the same default."""
    blend: Blend = SampleConfig().blend
    """Blending of the generated pixels, as in ``SampleConfig.blend``, with the same default."""
    device: str | torch.device | None = None
    """The device to compute on. ``None``: the best available."""
    dtype: torch.dtype | None = None
    """Precision of the frozen weights. ``None``: half precision on CUDA, single precision elsewhere."""
    local_files_only: bool = False
    """Do not use the network for the weights."""

    def load(self, from_pretrained: Callable[..., Any], bases: Sequence[str], **options: Any) -> Any:
        """Load the method's pipeline; the options are those of ``load_pipeline``.

        Raises:
            BaseModelError: the weights cannot be loaded.
        """
        device = resolve_device(self.device)
        dtype = resolve_dtype(device, self.dtype)
        return load_pipeline(
            self.name, from_pretrained, bases,
            device=device, dtype=dtype, local_files_only=self.local_files_only, **options,
        )  # fmt: skip

    def view(self, scene: Scene, *, resolution: int, multiple: int) -> View:
        """Cut out the window around a scene's hole."""
        return View.of(scene, resolution=resolution, multiple=multiple, context=self.context)

    def complete(self, view: View, seeds: Sequence[int], pipeline: Any, **arguments: Any) -> list[ImageArray]:
        """Call a pipeline for each seed with a generator of its own, and put each sample into the target.

        One seed at a time: a pipeline would distribute several references over the items of a batch.
        """
        images = []
        for seed in seeds:
            sample = pipeline(
                image=view.picture(), generator=torch.Generator().manual_seed(seed), output_type="np", **arguments
            ).images[0]
            images.append(view.finish(sample, self.blend))
        return images


def load_pipeline(
    name: str,
    from_pretrained: Callable[..., Any],
    bases: Sequence[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    local_files_only: bool = False,
    variants: Sequence[str | None] = (None,),
    **parts: Any,
) -> Any:
    """Load a stock pipeline from this machine, or else from the hub.

    Args:
        name: name of the method, for the error message.
        from_pretrained: the pipeline's method of that name, or a function with the same arguments.
        bases: hub ids or directories, tried in this order.
        device: where to compute.
        dtype: precision of the weights.
        local_files_only: do not use the network. The hub's own offline switch has the same effect.
        variants: variants of the files, tried in this order: ``fp16``, or ``None`` for the plain files.
        parts: replacements for parts of the pipeline; ``None`` leaves a part out.

    Raises:
        BaseModelError: no weights could be loaded.
    """
    offline = local_files_only or constants.HF_HUB_OFFLINE
    places = (True,) if offline else (True, False)
    reasons: dict[str, str] = {}
    for is_local, base, variant in product(places, bases, variants):
        if Path(base).is_dir() and not is_local:
            continue
        try:
            with quiet(bars=not is_local):
                pipeline = from_pretrained(base, dtype=dtype, variant=variant, local_files_only=is_local, **parts)
        except Exception as error:  # noqa: BLE001 - the hub's errors have no common class
            reasons[base] = f"{base} ({type(error).__name__}: {shorten(str(error), 160)})"
            continue
        pipeline.set_progress_bar_config(disable=True)
        with quiet():
            return pipeline.to(device, dtype)
    tried = "; ".join(reasons.values())
    raise BaseModelError(
        f"the weights for {name!r} cannot be loaded{' offline' if offline else ''}. Tried {tried}."
        " Connect once to download them (if their owner requires it, accept the terms on their page, then `hf auth"
        " login`), or give a directory that contains them in diffusers' layout"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """The window around a scene's hole as a pipeline sees it.

    Attributes:
        scene: the scene to complete.
        window: the window's box in the target and its size for the model.
        image: (h, w, 3) uint8, the window at the model's size; the hole is a smooth continuation of the known pixels.
        hole: (h, w) bool, True = fill.
    """

    scene: Scene
    window: Window
    image: ImageArray
    hole: MaskArray

    @classmethod
    def of(cls, scene: Scene, *, resolution: int, multiple: int, context: float) -> View:
        """Cut out the window around a scene's hole; the arguments are those of ``choose_window``."""
        window = choose_window(scene.mask, resolution=resolution, multiple=multiple, context=context)
        hole = window.crop_mask(scene.mask)
        image = fill_smooth(to_tensor(window.crop(scene.known)), torch.from_numpy(hole)[None, None])
        return cls(scene=scene, window=window, image=to_array(image[0]), hole=hole)

    def picture(self) -> Image.Image:
        """Return the image for a pipeline."""
        return Image.fromarray(self.image)

    def mask(self, cell_px: int = 1) -> Image.Image:
        """Return the hole for a pipeline, white = fill, grown to whole cells of ``cell_px`` pixels.

        A pipeline that keeps the latents outside its mask needs whole latents: a latent on the hole's border would
        otherwise keep a part of the hole's smooth fill.
        """
        hole = F.max_pool2d(torch.from_numpy(self.hole)[None, None].float(), cell_px)
        cells = F.interpolate(hole, scale_factor=cell_px)[0, 0].numpy()
        return Image.fromarray((cells * 255).astype(np.uint8))

    def finish(self, sample: NDArray[np.floating], method: Blend) -> ImageArray:
        """Blend a sample into the target.

        Args:
            sample: (h, w, 3) float in [0, 1], at the window's size for the model.
            method: how to blend.

        Returns:
            (H, W, 3) uint8, equal to the target outside the mask.
        """
        assert sample.shape == self.image.shape
        known, box = self.scene.known, self.window.slices
        patch = self.window.restore(np.ascontiguousarray(sample, np.float32) * 255)
        image = known.copy()
        image[box] = blend(known[box], self.scene.mask[box], patch, method=method)
        return image
