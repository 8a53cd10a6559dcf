"""The options of training a completion network, apart from its code, so that the command line shows them quickly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionTrainingConfig:
    """Settings for training a completion network on a folder of photos."""

    photos: Path
    """Folder of photos, which may have subfolders. All photos are held in memory, shrunk to what the crops need."""
    output: Path
    """Folder for the weights, the checkpoint, sample pictures and loss curves. An unfinished run found there is
    resumed."""
    num_steps: int = 50_000
    """Total number of steps over all three phases. Paper: 500,000."""
    phase_shares: tuple[float, float, float] = (0.18, 0.02, 0.8)
    """Shares of the steps: the completion network alone, the discriminators alone, both. Paper: 0.18, 0.02, 0.8."""
    batch_size: int = 16
    """Random crops per step. Paper: 96."""
    width: int = 64
    """Channels of the completion network's first layer, an even number. Twice the width makes a file of four times
    the size; 64 makes 12 MB. Paper: 64."""
    discriminator_width: int = 64
    """Channels of the discriminators' first layers. Paper: 64."""
    resolution: int = 256
    """Side of the crops in pixels, a multiple of 64. The local discriminator sees patches of half of it. Paper: 256."""
    hole_size: tuple[float, float] = (0.375, 0.5)
    """Smallest and largest side of a hole, as a share of ``resolution``; at most 0.5, the side of the local
    discriminator's patch. Paper: 96 and 128 pixels of 256."""
    crop_scale: float = 1.5
    """Largest side of a crop before it is resized, in multiples of ``resolution``; 1 or more. Photos are shrunk to this
    shorter side first. Paper: 384 of 256 pixels."""
    adversarial_weight: float = 4e-4
    """Weight of the adversarial loss beside the mean squared error. Paper: 0.0004."""
    learning_rate: float = 1e-3
    """Adam's learning rate for the completion network, which falls to a tenth over the steps. The paper uses
    AdaDelta."""
    discriminator_learning_rate: float = 1e-4
    """Adam's learning rate for the discriminators."""
    minutes: float | None = None
    """Stop after this many minutes; the same command resumes the run later. None: no limit."""
    num_holdout: int = 60
    """Number of photos to keep out of training, for sample pictures, chosen by a hash of their names."""
    holdout: Path | None = None
    """Text file that names the photos to keep out of training, one file name per line. None: ``num_holdout`` photos."""
    preview_every: int = 1000
    """Steps between sample pictures, which show photos that were kept out. The weights and the loss curves are written
    at the same steps."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    mixed_precision: Literal["no", "bf16"] | None = None
    """``no`` or ``bf16``. None: bf16 where the device computes fast in it, else no."""
    device: str | None = None
    """``cpu``, ``cuda``, ``mps`` and so on. None: the best available."""
    seed: int = 0
    """Seed of all randomness."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "discriminator_width", "preview_every", "checkpoint_every"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("num_holdout", "adversarial_weight", "seed"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("learning_rate", "discriminator_learning_rate"):
            self._require(name, getattr(self, name) > 0, "above 0")
        self._require("batch_size", self.batch_size >= 2, "2 or more, which batch normalization needs")
        self._require("width", self.width >= 2 and self.width % 2 == 0, "even numbers from 2")
        self._require("resolution", self.resolution >= 64 and self.resolution % 64 == 0, "multiples of 64")
        self._require("hole_size", 0 < self.hole_size[0] <= self.hole_size[1] <= 0.5, "0 < smallest <= largest <= 0.5")
        self._require("crop_scale", self.crop_scale >= 1, "1 or more")
        shares = self.phase_shares
        legal = min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6
        self._require("phase_shares", legal, "three numbers from 0 that add up to 1")

    def _require(self, name: str, legal: object, what: str) -> None:
        if not legal:
            raise ValueError(f"{name} is {getattr(self, name)}; legal: {what}")

    @property
    def phase_ends(self) -> tuple[int, int]:
        """The steps after which the first and the second phase end."""
        first, second, _ = self.phase_shares
        return round(self.num_steps * first), round(self.num_steps * (first + second))
