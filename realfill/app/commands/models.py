"""``realfill models``: the base models by name."""

from __future__ import annotations

from dataclasses import dataclass

from realfill.config import FitConfig, RankConfig, SampleConfig, WindowConfig
from realfill.errors import BaseModelError

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """List the base models with their licence, source and size, and tell whether they are on this machine."""

    recipes: bool = False
    """Also print the default settings for each base model: its own if it is on this machine, else the paper's."""

    def __call__(self) -> None:
        """Run the command."""
        from realfill.models.diffusion.card import Card
        from realfill.models.diffusion.hub import BASES, locate

        for name, source in BASES.items():
            card = Card()
            try:
                directory = locate(name, local_files_only=True)
                card = Card.load(directory)
                megabytes = sum(f.stat().st_size for f in directory.rglob("*") if f.is_file()) / 1e6
                state = f"present, {megabytes:,.0f} MB"
            except BaseModelError:
                state = f"not on this machine, about {source.download_gb:g} GB to download"
            lines = [state, f"licence: {source.licence}", *source.repositories]
            if self.recipes:
                configs = (
                    (FitConfig(), card.fit), (SampleConfig(), card.sample), (WindowConfig(), card.window),
                    (RankConfig(), card.rank),
                )  # fmt: skip
                lines += [str(config.resolve(defaults)) for config, defaults in configs]
                if card.covered_fit:
                    covered = card.describe_covered_fit(FitConfig())
                    values = ", ".join(f"{name}={value!r}" for name, value in covered.items())
                    lines.append(f"FitSettings where the references show at least 90 % of the hole: {values}")
            print(f"{name:10} {source.about}")
            for line in lines:
                print(f"           {line}")
