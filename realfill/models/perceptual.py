"""Metrics that compare images through a network: LPIPS in the hole; DreamSim, DINO and CLIP on the whole image.

Each ``load_*`` loads the weights once and returns a function ``(image, truth, mask) -> float``. The paper names the
metrics and the region of each, but not their networks; the docstrings name the ones used here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPVisionModelWithProjection, ViTModel

from realfill.errors import BaseModelError, MissingDependencyError
from realfill.io.images import ImageArray, MaskArray, to_tensor
from realfill.models.quiet import quiet

Measure: TypeAlias = Callable[[ImageArray, ImageArray, MaskArray], float]
"""Takes the image and the truth, each (H, W, 3) uint8, and the hole, (H, W) bool."""

_DINO = "facebook/dino-vits16"
_CLIP = "openai/clip-vit-base-patch32"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of R, G, B in DINO's training
_OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # and in CLIP's


def load_metric(name: str, device: torch.device | str) -> Measure:
    """Load a metric by name.

    Args:
        name: "lpips", "dreamsim", "dino" or "clip".
        device: device of its network.

    Raises:
        ValueError: there is no metric of that name.
        MissingDependencyError: its package is missing or cannot be imported.
        BaseModelError: its weights are not available.
    """
    loaders = {"lpips": load_lpips, "dreamsim": load_dreamsim, "dino": load_dino, "clip": load_clip}
    if name not in loaders:
        raise ValueError(f"the metric is {name!r}; legal: {', '.join(loaders)}")
    return loaders[name](torch.device(device))


def load_lpips(device: torch.device) -> Measure:
    """Load LPIPS (Zhang et al. 2018), version 0.1, in the hole; 0 for equal images, lower is better.

    The distance map of the whole image is averaged over the pixels of the hole, so features at its border see known
    context. The network is VGG-16, whose first maps have the resolution of the image, so that known pixels have little
    influence. Images are not resized; their sides are at least 16 pixels.

    Raises:
        MissingDependencyError: the package ``lpips`` is missing or cannot be imported.
        BaseModelError: the weights of VGG are not available.
    """
    package = _import("lpips")
    with _loading("lpips", "VGG-16 from torchvision"):
        network = package.LPIPS(net="vgg", version="0.1", spatial=True, verbose=False).to(device).eval()

    @torch.no_grad()
    def lpips(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
        distance = network(to_tensor(image).to(device), to_tensor(truth).to(device), normalize=True)
        return float(distance[0, 0].double().cpu().numpy()[mask].mean())

    return lpips


def load_dreamsim(device: torch.device) -> Measure:
    """Load DreamSim (Fu et al. 2023) on the whole image; 0 for equal images, at most 2, lower is better.

    The metric is 1 - cosine of the embeddings of its ensemble (DINO, CLIP and OpenCLIP ViT-B/16, fine-tuned on human
    judgements). The package itself resizes the images to 224 x 224 and compares them. The mask has no influence.

    Raises:
        MissingDependencyError: the package ``dreamsim`` is missing or cannot be imported.
        BaseModelError: its weights are not available.
    """
    package = _import("dreamsim")
    with _loading("dreamsim", "its ensemble from github.com/ssundaram21/dreamsim"):
        cache = Path(torch.hub.get_dir()) / "dreamsim"
        cache.mkdir(parents=True, exist_ok=True)
        network, prepare = package.dreamsim(pretrained=True, device=str(device), cache_dir=str(cache))

    @torch.no_grad()
    def dreamsim(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
        del mask
        tensors = [prepare(Image.fromarray(i)).to(device) for i in (image, truth)]
        return float(network(*tensors))

    return dreamsim


def load_dino(device: torch.device) -> Measure:
    """Load DINO (Caron et al. 2021) on the whole image; 1 for equal images, at least -1, higher is better.

    The metric is the cosine of the class tokens of ViT-S/16, the network of DreamBooth's DINO metric. The whole image
    is resized to the network's square (cubic), because a crop would lose outpainted pixels. The mask has no influence.

    Raises:
        BaseModelError: its weights are not available.
    """
    network = _load_transformer("dino", ViTModel, _DINO, device, add_pooling_layer=False)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return network(pixel_values=pixels).last_hidden_state[:, 0]

    return _cosine(embed, network.config.image_size, _IMAGENET, device)


def load_clip(device: torch.device) -> Measure:
    """Load CLIP (Radford et al. 2021) on the whole image; 1 for equal images, at least -1, higher is better.

    The metric is the cosine of the projected image embeddings of OpenAI's ViT-B/32, the usual network for CLIP-I. The
    whole image is resized to the network's square (cubic), because a crop would lose outpainted pixels. The mask has
    no influence.

    Raises:
        BaseModelError: its weights are not available.
    """
    network = _load_transformer("clip", CLIPVisionModelWithProjection, _CLIP, device)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return network(pixel_values=pixels).image_embeds

    return _cosine(embed, network.config.image_size, _OPENAI, device)


def _load_transformer(metric: str, kind: Any, repository: str, device: torch.device, **options: Any) -> Any:
    options |= {"dtype": torch.float32, "output_loading_info": True}
    with _loading(metric, repository):
        try:  # weights on this machine need no network
            network, report = kind.from_pretrained(repository, local_files_only=True, **options)
        except OSError:
            network, report = kind.from_pretrained(repository, **options)
    missing = sorted({*report["missing_keys"], *(str(k) for k in report["mismatched_keys"])})
    if missing:  # transformers only logs that it initializes them at random
        raise BaseModelError(
            f"the weights of the metric {metric!r} ({repository}) are incomplete, because {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''} are missing; download them again"
        )
    return network.to(device).eval()


def _cosine(
    embed: Callable[[torch.Tensor], torch.Tensor],
    side: int,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    device: torch.device,
) -> Measure:
    mean, deviation = (torch.tensor(s).view(1, 3, 1, 1) for s in statistics)

    @torch.no_grad()
    def cosine(image: ImageArray, truth: ImageArray, mask: MaskArray) -> float:
        del mask
        small = [Image.fromarray(i).resize((side, side), Image.Resampling.BICUBIC) for i in (image, truth)]
        pixels = (to_tensor(np.stack([np.asarray(s) for s in small])) - mean) / deviation
        embeddings = embed(pixels.to(device)).double()
        return float(F.cosine_similarity(embeddings[0], embeddings[1], dim=0))

    return cosine


def _import(package: str) -> Any:
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except Exception as error:  # torchvision, which both import, fails in many ways if it does not match torch
        raise MissingDependencyError(
            f"the metric {package!r} needs the package of that name, which cannot be imported ({_first_line(error)}); "
            f"pip install {package}, with a torchvision that matches the installed torch"
        ) from error


@contextlib.contextmanager
def _loading(metric: str, source: str) -> Iterator[None]:
    """Load silently and without changing the random state; any error means that the weights are not available."""
    try:
        with (
            warnings.catch_warnings(),
            quiet(bars=True),
            contextlib.redirect_stdout(io.StringIO()),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # the errors of torch.hub, the hub and their transports have no common class
        raise BaseModelError(
            f"the weights of the metric {metric!r} ({source}) are not available ({_first_line(error)}). Connect once "
            "to download them, or leave the metric out"
        ) from error


def _first_line(error: Exception) -> str:
    """Return the class of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
