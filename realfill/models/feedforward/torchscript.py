"""Networks in TorchScript files: LaMa and MI-GAN, from a file whose hash is known, downloaded on request.

A TorchScript file is a program, and loading it runs it. Only files whose hash is known are loaded without being asked.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F

from realfill.errors import BaseModelError, OutputError
from realfill.io.files import whole_file
from realfill.models.feedforward.network import padded_call

ScriptedName: TypeAlias = Literal["lama", "migan"]
Module: TypeAlias = Callable[..., torch.Tensor]
Call: TypeAlias = Callable[[Module, torch.Tensor, torch.Tensor], torch.Tensor]

_MIGAN_PX = 512
_PROBE_PX = 64
_RANGE_SLACK = 0.5  # a network may leave [0, 1] by this much; one that counts to 255 leaves it by far


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A published TorchScript file.

    Attributes:
        file_name: its name on this machine.
        md5: its MD5 in hexadecimal digits, as its publisher states it.
        urls: sources, in order of preference.
        megabytes: its size.
    """

    file_name: str
    md5: str
    urls: Sequence[str]
    megabytes: int


RELEASES: Mapping[str, Release] = {
    "lama": Release(
        file_name="big-lama.pt",
        md5="e3aa4aaa15225a33ec84f9f4bc47e500",
        urls=(
            "https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt",
            "https://github.com/enesmsahin/simple-lama-inpainting/releases/download/v0.1.0/big-lama.pt",
        ),
        megabytes=196,
    ),
    "migan": Release(
        file_name="migan_traced.pt",
        md5="76eb3b1a71c400ee3290524f7a11b89c",
        urls=("https://github.com/Sanster/models/releases/download/migan/migan_traced.pt",),
        megabytes=28,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScriptedNetwork:
    """A network in a TorchScript file; see ``Network``.

    Attributes:
        name: ``lama`` or ``migan``.
        resolution: see ``Network``.
        module: the loaded file.
        call: calls ``module`` with an image in [0, 1] and a hole, and converts its result to [0, 1].
        multiple: the sides that ``call`` gets are multiples of this.
        min_side_px: the least side that ``call`` gets.
        max_side_px: the largest side that ``call`` gets; larger images are shrunk for it.
        device: where it computes.
    """

    name: str
    resolution: int
    module: Module
    call: Call
    multiple: int
    min_side_px: int = 1
    max_side_px: float = math.inf
    device: torch.device

    @torch.inference_mode()
    def predict(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Predict an image; see ``Network.predict``.

        Raises:
            BaseModelError: the result has another size or range than a network of this name has.
        """
        size, scale = list(image.shape[-2:]), self.max_side_px / max(image.shape[-2:])
        image, hole = image.to(self.device), hole.to(self.device)
        if scale < 1:
            smaller = [max(1, round(n * scale)) for n in size]
            covered = F.adaptive_max_pool2d(hole.to(image.dtype), smaller)
            image, hole = F.interpolate(image, smaller, mode="area"), covered > 0
        output = padded_call(self._checked_call, image, hole, multiple=self.multiple, min_side_px=self.min_side_px)
        if scale < 1:
            output = F.interpolate(output, size, mode="bicubic", align_corners=False)
        return output.float().clamp(0, 1).cpu()

    def _checked_call(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        output: object = self.call(self.module, image, hole)
        if not isinstance(output, torch.Tensor) or output.shape != image.shape:
            raise _wrong_signature(self.name, f"it returns {getattr(output, 'shape', type(output).__name__)}")
        low, high = output.min().item(), output.max().item()
        if not (low >= -_RANGE_SLACK and high <= 1 + _RANGE_SLACK):  # also true for nan
            raise _wrong_signature(self.name, f"its values range from {low:.3g} to {high:.3g} instead of 0 to 1")
        return output


def load_scripted(
    name: ScriptedName, path: str | PathLike[str] | None = None, *, device: torch.device,
    trust: bool = False, local_files_only: bool = False,
) -> ScriptedNetwork:  # fmt: skip
    """Load LaMa or MI-GAN, and try it on a small image.

    LaMa: Suvorov et al., Resolution-robust Large Mask Inpainting with Fourier Convolutions, WACV 2022. MI-GAN: Sargsyan
    et al., MI-GAN: A Simple Baseline for Image Inpainting on Mobile Devices, ICCV 2023.

    Args:
        name: ``lama`` or ``migan``.
        path: the file. ``None``: the published one, which is downloaded once into torch's cache.
        device: where to compute.
        trust: load a file with another hash than the published one's too. It is a program that may do anything.
        local_files_only: do not download it.

    Raises:
        BaseModelError: the file is missing, has another hash, is no TorchScript, or has another signature.
        OutputError: the download cannot be written.
    """
    release = RELEASES[name]
    file = Path(path) if path is not None else _find_or_download(name, release, local_files_only=local_files_only)
    module = load_torchscript(file, md5=release.md5, trust=trust, device=device)
    if name == "lama":
        network = ScriptedNetwork(
            name=name, resolution=1024, module=module, call=_call_lama, multiple=8, min_side_px=_PROBE_PX, device=device
        )
    else:
        network = ScriptedNetwork(
            name=name, resolution=_MIGAN_PX, module=module, call=_call_migan, multiple=_MIGAN_PX,
            max_side_px=_MIGAN_PX, device=device,
        )  # fmt: skip
    _probe(network, file)
    return network


def is_present(name: ScriptedName) -> bool:
    """Tell whether the published file is on this machine; does not use the network."""
    return _cached(RELEASES[name]).is_file()


def load_torchscript(path: Path, *, md5: str, trust: bool, device: torch.device) -> Module:
    """Load a TorchScript file if its hash is known or the caller trusts it.

    Args:
        path: the file.
        md5: the known MD5, in hexadecimal digits.
        trust: load it whatever its hash.
        device: where its tensors go.

    Raises:
        BaseModelError: the file is missing, has another hash and is not trusted, or is no TorchScript.
    """
    if not path.is_file():
        raise BaseModelError(f"there is no file {str(path)!r}; legal: a TorchScript file")
    found = _md5(path)
    if found != md5 and not trust:
        raise BaseModelError(
            f"{str(path)!r} has the MD5 {found}, and the published file has {md5}. A TorchScript file is a program "
            "that runs when it is loaded. Download the file again, or, if you trust its source, load it with "
            "trust_weights=True (--trust-weights)"
        )
    try:
        with warnings.catch_warnings():  # torch deprecates TorchScript, and these files exist in no other format
            warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
            return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise BaseModelError(
            f"{str(path)!r} is no TorchScript file, or it is damaged ({str(error).strip().splitlines()[0][:200]}); "
            "download it again"
        ) from error


def _call_lama(module: Module, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Call LaMa: an image (N, 3, H, W) in [0, 1] and a mask (N, 1, H, W), 1 = fill; the result is in [0, 1]."""
    return module(image.masked_fill(hole, 0), hole.to(image.dtype))


def _call_migan(module: Module, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Call MI-GAN: (N, 4, 512, 512), a half minus the mask, and the image in [-1, 1], 0 in the hole; as the result."""
    visible = (2 * image - 1).masked_fill(hole, 0)
    return module(torch.cat([0.5 - hole.to(image.dtype), visible], dim=1)) / 2 + 0.5


def _probe(network: ScriptedNetwork, path: Path) -> None:
    """Call a network once.

    Raises:
        BaseModelError: the call fails, so the file has another signature.
    """
    hole = torch.zeros(1, 1, _PROBE_PX, _PROBE_PX, dtype=torch.bool)
    hole[..., 16:32, 24:40] = True
    try:
        network.predict(torch.full((1, 3, _PROBE_PX, _PROBE_PX), 0.5), hole)
    except (RuntimeError, TypeError) as error:
        raise _wrong_signature(network.name, f"the call fails: {str(error).strip().splitlines()[-1][:200]}") from error
    except BaseModelError as error:
        raise BaseModelError(f"{str(path)!r}: {error}") from None


def _wrong_signature(name: str, found: str) -> BaseModelError:
    return BaseModelError(f"the file is a TorchScript, but not of {name!r}, because {found}; give the published file")


def _find_or_download(name: str, release: Release, *, local_files_only: bool) -> Path:
    """Return the published file in torch's cache, where other programs keep it too; download it if it is missing."""
    path = _cached(release)
    if path.is_file():
        return path
    failures = []
    for url in () if local_files_only else release.urls:
        try:
            _download(url, path, release)
        except OutputError:
            raise
        except Exception as error:  # noqa: BLE001 - the errors of urllib and its transports have no common class
            failures.append(f"{url}: {type(error).__name__} {str(error)[:200]}")
        else:
            return path
    tried = "; ".join(failures) if failures else f"{path}: not on this machine, and offline"
    raise BaseModelError(
        f"the weights of {name!r} are not available. Tried {tried}. Download {release.urls[0]} "
        f"({release.megabytes} MB) and give its path as the weights"
    )


def _cached(release: Release) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / release.file_name


def _download(url: str, path: Path, release: Release) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, num_bytes=release.megabytes * 1_000_000) as partial:
        torch.hub.download_url_to_file(url, str(partial), progress=True)
        found = _md5(partial)
        if found != release.md5:
            raise BaseModelError(f"the file there has the MD5 {found} instead of {release.md5}")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
