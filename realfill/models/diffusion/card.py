"""The card of a base model: its properties and default settings, and its family, read from its directory.

This module loads none of the model libraries when it is imported, so that the command line answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from realfill.config import AdaptConfig, FitConfig, RankConfig, SampleConfig, WindowConfig
from realfill.errors import BaseModelError
from realfill.io.files import write_text
from realfill.io.json_files import read_json
from realfill.models.diffusion import klein_cards

CARD_NAME = "card.json"
INDEX_NAME = "model_index.json"  # every model in diffusers' layout has it
Family = Literal["stable_diffusion", "klein"]
_MAX_SIDE_PX = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The properties and default settings of a base model, from ``card.json`` beside its weights."""

    resolution: int | None = None
    """Side in pixels of the square images that it was trained on. None: derived from the U-Net's sample size."""
    masked_image: Literal["grey", "smooth"] = "grey"
    """Content of the hole in the masked image: mid-grey (Stable Diffusion), or a smooth continuation of the known
    pixels."""
    masked_latent: Literal["nearest", "any"] = "nearest"
    """Latents that the mask channel marks: those whose first pixel is hidden (Stable Diffusion), or any pixel."""
    reads_hints: bool = False
    """Whether the hole of the masked image may show doubtful pixels of a composite, and the mask channel how doubtful
    they are. It needs ``masked_image`` ``smooth``."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """The base model's defaults for ``FitConfig``."""
    covered_fit: Mapping[str, Any] = field(default_factory=dict)
    """Defaults for ``FitConfig`` that replace those of ``fit`` where the references show at least 90 % of the hole
    (``Evidence.coverage``)."""
    adapt: Mapping[str, Any] = field(default_factory=dict)
    """The base model's defaults for ``AdaptConfig``."""
    sample: Mapping[str, Any] = field(default_factory=dict)
    """The base model's defaults for ``SampleConfig``."""
    rank: Mapping[str, Any] = field(default_factory=dict)
    """The base model's defaults for ``RankConfig``."""
    window: Mapping[str, Any] = field(default_factory=dict)
    """The base model's defaults for ``WindowConfig``."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Information for people: data and its terms, compute, losses, limits."""

    @classmethod
    def load(cls, directory: Path) -> Card:
        """Read ``card.json`` from a model's directory; without one, return a card that fits the model's family.

        Raises:
            BaseModelError: the file is damaged, or has values that this version does not know.
        """
        path = directory / CARD_NAME
        if not path.is_file():
            return _default_card(directory)
        try:
            card = cls(**read_json(path))
            card._check()
        except (OSError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            raise BaseModelError(
                f"{str(path)!r} is damaged or from another version ({error}); download the base model again"
            ) from error
        return card

    def _check(self) -> None:
        """Check the values, which may come from a stranger.

        Raises:
            TypeError: defaults are no object.
            ValueError: a value is not legal. A card names no base model, since naming one may download it.
        """
        side = self.resolution
        if side is not None and not (type(side) is int and 8 <= side <= _MAX_SIDE_PX):
            raise ValueError(f"resolution is {side!r}; legal: None, or from 8 to {_MAX_SIDE_PX}")
        for name, legal in (("masked_image", ("grey", "smooth")), ("masked_latent", ("nearest", "any"))):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} is {getattr(self, name)!r}; legal: {', '.join(legal)}")
        if type(self.reads_hints) is not bool or (self.reads_hints and self.masked_image != "smooth"):
            raise ValueError(f"reads_hints is {self.reads_hints!r}; legal: false, or true if masked_image is smooth")
        if not isinstance(self.about, Mapping):
            raise TypeError("about is no object")
        for config, defaults in (
            (FitConfig(), self.fit), (FitConfig(), self.fit_defaults(covered=True)), (AdaptConfig(), self.adapt),
            (SampleConfig(), self.sample), (RankConfig(), self.rank), (WindowConfig(), self.window),
        ):  # fmt: skip
            if {"base", "preset"} & set(defaults):
                raise ValueError("it names a base model or a preset; legal: settings other than base and preset")
            config.resolve(defaults)

    def fit_defaults(self, *, covered: bool) -> Mapping[str, Any]:
        """Return the base model's defaults for ``FitConfig``.

        Args:
            covered: whether the references show at least 90 % of the hole.
        """
        return {**self.fit, **self.covered_fit} if covered else self.fit

    def describe_covered_fit(self, config: FitConfig) -> dict[str, Any]:
        """Return the values that a recipe has for the fields of ``covered_fit`` where these defaults hold."""
        settings = config.resolve(self.fit_defaults(covered=True))
        return {name: getattr(settings, name) for name in self.covered_fit}

    def save(self, directory: Path) -> None:
        """Write ``card.json`` into a directory."""
        write_text(directory / CARD_NAME, json.dumps(asdict(self), indent=1) + "\n")


def family_of(directory: Path) -> Family:
    """Return the family of a base model, by the pipeline class that its files name.

    Args:
        directory: a directory in diffusers' layout. A damaged index counts as Stable Diffusion's; its loader reports
            it.
    """
    return "klein" if str(read_index(directory).get("_class_name")).startswith("Flux2Klein") else "stable_diffusion"


def read_index(directory: Path) -> Mapping[str, Any]:
    """Read ``model_index.json``; empty if it is missing or damaged."""
    try:
        values = read_json(directory / INDEX_NAME)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _default_card(directory: Path) -> Card:
    """Return the card of a model whose directory has none."""
    if family_of(directory) == "klein":
        return Card(**(klein_cards.DISTILLED if read_index(directory).get("is_distilled") else klein_cards.BASE))
    return Card()
