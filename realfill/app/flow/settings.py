"""Settings of a flow's fit and samples: the few that people change, checked when they are set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realfill.config import FitConfig, Preset, RankConfig, SampleConfig

BASES: Mapping[str, str] = {
    "mini": "mini (packaged, for trying out)", "sd2": "Stable Diffusion 2", "sd15": "Stable Diffusion 1.5",
    "klein-base": "FLUX.2 klein",
}  # fmt: skip
"""The named base models, and what people call them."""
EFFORTS: Mapping[str, Preset | None] = {
    "as the base model suggests": None, "draft: a tenth of the steps": "draft", "fast: a quarter of the steps": "fast",
    "as in the paper": "paper",
}  # fmt: skip
"""What people call the presets."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the hole is filled.

    Attributes:
        fit: settings of the fit.
        sample: settings of the samples.
        rank: settings of the ranking.
        device: where to compute; ``None``: the best available.
        local_files_only: do not use the network for weights.
        completion: weights that ``realfill train-completion`` wrote, for the engine ``completion``; ``None``: the
            packaged ones.
    """

    fit: FitConfig
    sample: SampleConfig = SampleConfig()
    rank: RankConfig = RankConfig()
    device: str | None = None
    local_files_only: bool = False
    completion: Path | None = None

    def changed(
        self, *, base: str, preset: Preset | None, num_steps: int | None, num_samples: int | None
    ) -> Settings:  # fmt: skip
        """Return settings with other values.

        Raises:
            ValueError: a value is illegal.
        """
        return dataclasses.replace(
            self,
            fit=dataclasses.replace(self.fit, base=base, preset=preset, num_steps=num_steps),
            sample=dataclasses.replace(self.sample, preset=preset, num_samples=num_samples),
        )

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of library functions for device and network."""
        return {"device": self.device, "local_files_only": self.local_files_only}


def suggest_base(device: str | None) -> str:
    """Return Stable Diffusion 2 on a machine with a GPU that has its weights, else the packaged base."""
    from realfill.compute.devices import resolve_device  # noqa: PLC0415 - imports torch
    from realfill.models.diffusion.hub import is_present  # noqa: PLC0415

    return "sd2" if resolve_device(device).type == "cuda" and is_present("sd2") else "mini"
