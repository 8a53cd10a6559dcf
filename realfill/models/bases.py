"""Base models by name, the card that says what each declares, and getting their files onto this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from diffusers import StableDiffusionInpaintPipeline
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from realfill.config import FitConfig, RankConfig, SampleConfig
from realfill.errors import BaseModelError
from realfill.models._quiet import quiet

MINI_DIRECTORY = Path(__file__).parent / "mini" / "weights"
CARD_NAME = "card.json"
_PARTS = ("unet/", "vae/", "text_encoder/")
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a base model declares about itself; ``card.json`` beside its weights, where it has one."""

    resolution: int | None = None
    """Side in pixels of the square images it was trained on. None: from the U-Net's sample size."""
    masked_image: Literal["grey", "smooth"] = "grey"
    """What the masked image holds in the hole: mid-grey (Stable Diffusion), or what is known, continued smoothly."""
    masked_latent: Literal["nearest", "any"] = "nearest"
    """Which latents the mask channel marks: those whose first pixel is hidden (Stable Diffusion), or any pixel."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """Its own defaults for ``FitConfig``."""
    sample: Mapping[str, Any] = field(default_factory=dict)
    """Its own defaults for ``SampleConfig``."""
    rank: Mapping[str, Any] = field(default_factory=dict)
    """Its own defaults for ``RankConfig``."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """For people: data and its terms, compute, losses, limits."""

    @classmethod
    def load(cls, directory: Path) -> Card:
        """Read ``card.json`` in a model's directory; a model without one is as Stable Diffusion is."""
        path = directory / CARD_NAME
        if not path.is_file():
            return cls()
        try:
            card = cls(**json.loads(path.read_text(encoding="utf-8")))
            for config, defaults in ((FitConfig(), card.fit), (SampleConfig(), card.sample), (RankConfig(), card.rank)):
                config.resolve(defaults)
        except (TypeError, ValueError) as error:
            raise BaseModelError(f"{str(path)!r} is not a card that this version reads: {error}") from error
        return card

    def save(self, directory: Path) -> None:
        """Write ``card.json``."""
        (directory / CARD_NAME).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a named base lives: a packaged directory, or hub repositories in the order in which they are tried."""

    about: str
    repositories: tuple[str, ...] = ()
    directory: Path | None = None
    download_gb: float = 0.0


BASES: Mapping[str, Source] = {
    "sd2": Source(
        about="Stable Diffusion 2 inpainting, 512 px; the paper's base",
        repositories=(
            "sd2-community/stable-diffusion-2-inpainting",
            "stabilityai/stable-diffusion-2-inpainting",
        ),
        download_gb=2.6,
    ),
    "sd15": Source(
        about="Stable Diffusion 1.5 inpainting, 512 px",
        repositories=(
            "stable-diffusion-v1-5/stable-diffusion-inpainting",
            "runwayml/stable-diffusion-inpainting",
        ),
        download_gb=2.1,
    ),
    "mini": Source(about="packaged demonstration base, 128 px, runs on a CPU", directory=MINI_DIRECTORY),
}


def locate(base: str, *, local_files_only: bool = False) -> Path:
    """Find a base model's directory, downloading it where need be.

    Args:
        base: a name in ``BASES``, a hub id, or a local directory.
        local_files_only: don't touch the network; the hub's own offline switch (``HF_HUB_OFFLINE``) does the same.

    Returns:
        A directory in diffusers' layout.

    Raises:
        BaseModelError: what was tried, why it failed, what to do.
    """
    source = BASES.get(base)
    if source is not None and source.directory is not None:
        return _checked(source.directory, base)
    if source is None and Path(base).is_dir():
        return _checked(Path(base), base)
    if source is None and not _is_hub_id(base):
        raise BaseModelError(
            f"there is no base model {base!r}; legal: {', '.join(BASES)}, a hub id such as 'owner/name', or a directory"
        )
    repositories = source.repositories if source else (base,)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    failures = []
    for repository in repositories:  # what is on this machine already, whatever its name, saves a download
        try:
            return _checked(_download(repository, local_files_only=True), repository)
        except BaseModelError as error:
            failures.append(str(error))
        except Exception:  # noqa: BLE001, S112 - not cached: the next one
            continue
    for repository in () if offline else repositories:
        try:
            return _checked(_download(repository, local_files_only=False), repository)
        except Exception as error:  # noqa: BLE001 - the hub's errors have no common class
            failures.append(f"{repository}: {_explain(error)}")
    tried = "; ".join(failures) if failures else f"{', '.join(repositories)}: not on this machine, and offline"
    raise BaseModelError(
        f"the base model {base!r} can't be had. Tried {tried}. Connect once to download it, or give a directory that"
        " holds it in diffusers' layout; the packaged base 'mini' needs no download"
    )


def is_present(base: str) -> bool:
    """Tell whether a base is on this machine, ready to load."""
    try:
        locate(base, local_files_only=True)
    except BaseModelError:
        return False
    return True


def download_bytes(base: str) -> int | None:
    """Ask the hub how much a base's files come to; ``None``: it can't be known.

    Args:
        base: a name in ``BASES`` or a hub id.
    """
    source = BASES.get(base)
    hub_ids = source.repositories if source is not None else (base,) if _is_hub_id(base) else ()
    for repository in hub_ids:
        try:
            info = HfApi().model_info(repository, files_metadata=True, timeout=_PATIENCE_S)
        except Exception:  # noqa: BLE001, S112 - no network, no such repository: whoever downloads it will tell
            continue
        sizes = {f.rfilename: f.size or 0 for f in info.siblings or () if f.rfilename.startswith(_PARTS)}
        weights = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
        half = {name.split("/")[0] for name in weights if ".fp16." in name}
        wanted = (s for n, s in weights.items() if (".fp16." in n) == (n.split("/")[0] in half) and "non_ema" not in n)
        return sum(wanted) or None
    return None


def _is_hub_id(base: str) -> bool:
    return base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).is_dir()


def _download(repository: str, *, local_files_only: bool) -> Path:
    """Fetch what an inpainting pipeline needs, without its safety checker; half precision where it is offered."""
    failure: Exception | None = None
    for variant in ("fp16", None):
        try:
            with quiet(bars=True):
                folder = StableDiffusionInpaintPipeline.download(
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
    index = directory / "model_index.json"
    if not index.is_file():
        raise BaseModelError(
            f"{base!r} ({directory}) is not a model in diffusers' layout: it has no model_index.json;"
            " convert a single-file checkpoint with diffusers first"
        )
    missing = [
        part
        for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
        if not (directory / part).is_dir() or not any((directory / part).iterdir())
    ]
    weights = [
        part
        for part in ("unet", "vae", "text_encoder")
        if part not in missing
        and not any((directory / part).glob("*.safetensors"))
        and not any((directory / part).glob("*.bin"))
    ]
    if missing or weights:
        lacks = ", ".join([*missing, *(f"the weights of {w}" for w in weights)])
        raise BaseModelError(f"{base!r} ({directory}) is incomplete: it lacks {lacks}; download it again")
    return directory


def _explain(error: Exception) -> str:
    if isinstance(error, BaseModelError):
        return str(error)
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return _known_reason(error) or f"{type(error).__name__} {first_line[:200]}".strip()


def _known_reason(error: BaseException | None) -> str:
    """Explain an error by the first in its chain of causes that says something; "" where none does."""
    while error is not None:
        if isinstance(error, GatedRepoError):
            return "gated: accept its terms on its page, then `hf auth login`"
        if isinstance(error, RepositoryNotFoundError):
            return "no such repository, or a private one"
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & {"OfflineModeIsEnabled", "ConnectionError", "TransportError"}:  # whichever HTTP library it is
            return "no network"
        error = error.__cause__
    return ""
