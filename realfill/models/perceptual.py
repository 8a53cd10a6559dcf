"""Metrics that look at images through a network: LPIPS in the hole; DreamSim, DINO and CLIP on the whole image.

Each ``load_*`` gets the weights once and gives a function ``(image, truth, mask) -> float``. The paper names these
metrics and where they are taken, not their networks; those chosen here are in the docstrings.
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
from realfill.models._quiet import quiet

Measure: TypeAlias = Callable[[ImageArray, ImageArray, MaskArray], float]
"""The image, (H, W, 3) uint8; the truth, the same; the hole, (H, W) bool."""

_DINO = "facebook/dino-vits16"
_CLIP = "openai/clip-vit-base-patch32"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of R, G, B that DINO was trained with
_OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # and CLIP


def load_metric(name: str, device: torch.device | str) -> Measure:
    """Load a metric by name.

    Args:
        name: "lpips", "dreamsim", "dino" or "clip".
        device: where its network runs.

    Raises:
        ValueError: there is no such metric here.
        MissingDependencyError: its package isn't there, or can't be imported.
        BaseModelError: its weights can't be had.
    """
    loaders = {"lpips": load_lpips, "dreamsim": load_dreamsim, "dino": load_dino, "clip": load_clip}
    if name not in loaders:
        raise ValueError(f"the metric is {name!r}; legal: {', '.join(loaders)}")
    return loaders[name](torch.device(device))


def load_lpips(device: torch.device) -> Measure:
    """Load LPIPS (Zhang et al. 2018), version 0.1, inside the hole; 0 where equal, lower is better.

    The map of distances over the whole image, averaged over the hole's pixels: features at the border see known
    context. VGG-16, whose maps begin at the image's own resolution, so that little of the known side is averaged in.
    Images are taken as they are, at least 16 pixels on each side.

    Raises:
        MissingDependencyError: the package ``lpips`` isn't there, or can't be imported.
        BaseModelError: VGG's weights can't be had.
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
    """Load DreamSim (Fu et al. 2023) on the whole image; 0 where equal, at most 2, lower is better.

    1 - cosine of the embeddings of its ensemble (DINO, CLIP and OpenCLIP ViT-B/16, fine-tuned on people's judgements),
    as the package prepares and compares images: squeezed to 224 x 224. The hole isn't looked at.

    Raises:
        MissingDependencyError: the package ``dreamsim`` isn't there, or can't be imported.
        BaseModelError: its weights can't be had.
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
    """Load DINO (Caron et al. 2021) on the whole image; 1 where equal, at least -1, higher is better.

    Cosine of the embeddings of the class token of ViT-S/16, the network of DreamBooth's DINO metric. The whole image is
    squeezed to the network's square (cubic): a crop would lose what was outpainted. The hole isn't looked at.

    Raises:
        BaseModelError: its weights can't be had.
    """
    network = _load_transformer("dino", ViTModel, _DINO, device, add_pooling_layer=False)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return network(pixel_values=pixels).last_hidden_state[:, 0]

    return _cosine(embed, network.config.image_size, _IMAGENET, device)


def load_clip(device: torch.device) -> Measure:
    """Load CLIP (Radford et al. 2021) on the whole image; 1 where equal, at least -1, higher is better.

    Cosine of the projected image embeddings of OpenAI's ViT-B/32, the usual one for CLIP-I. The whole image is squeezed
    to the network's square (cubic): a crop would lose what was outpainted. The hole isn't looked at.

    Raises:
        BaseModelError: its weights can't be had.
    """
    network = _load_transformer("clip", CLIPVisionModelWithProjection, _CLIP, device)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return network(pixel_values=pixels).image_embeds

    return _cosine(embed, network.config.image_size, _OPENAI, device)


def _load_transformer(metric: str, kind: Any, repository: str, device: torch.device, **options: Any) -> Any:
    options |= {"dtype": torch.float32, "output_loading_info": True}
    with _loading(metric, repository):
        try:  # what is on this machine already needs no network
            network, report = kind.from_pretrained(repository, local_files_only=True, **options)
        except OSError:
            network, report = kind.from_pretrained(repository, **options)
    random = sorted({*report["missing_keys"], *(str(k) for k in report["mismatched_keys"])})
    if random:  # transformers draws them at random and only says so
        raise BaseModelError(
            f"the weights of the metric {metric!r} ({repository}) are incomplete: they lack {', '.join(random[:3])}"
            f"{' and more' if len(random) > 3 else ''}; download them again"
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
    except Exception as error:  # torchvision, which both import, fails in many ways where it doesn't fit torch
        raise MissingDependencyError(
            f"the metric {package!r} needs the package of that name, which can't be imported ({_say(error)}):"
            f" pip install {package}, with a torchvision that fits the installed torch"
        ) from error


@contextlib.contextmanager
def _loading(metric: str, what: str) -> Iterator[None]:
    """Load without chatter or a trace in the random state; whatever the libraries raise means: no weights."""
    try:
        with (
            warnings.catch_warnings(),
            quiet(bars=True),
            contextlib.redirect_stdout(io.StringIO()),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # what torch.hub, the hub and their transports raise has no common class
        raise BaseModelError(
            f"the weights of the metric {metric!r} ({what}) can't be had ({_say(error)}). Connect once to download"
            " them, or leave the metric out"
        ) from error


def _say(error: Exception) -> str:
    """The kind of an error and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
