"""The state of a completion network's training, and its step in each of the three phases."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from realfill.compute.devices import resolve_device, resolve_precision, send
from realfill.errors import TrainingError
from realfill.io.images import ImageArray
from realfill.models.feedforward.completion import CompletionNetwork
from realfill.models.feedforward.discriminator import Discriminator
from realfill.training.completion_config import CompletionTrainingConfig
from realfill.training.completion_samples import Samples, cut_patches, draw_samples
from realfill.training.crops import step_rng

PhaseName: TypeAlias = Literal["completion", "discriminator", "both"]
LOSSES = ("completion", "discriminator", "adversarial")
_LAST_RATE = 0.1  # the learning rate falls to this share
_NUM_STATISTICS = 16  # batches from which the statistics of batch normalization are measured


@dataclass(slots=True, kw_only=True, eq=False)
class CompletionTrainer:
    """The state of the training.

    Attributes:
        config: the recipe.
        network: the completion network.
        discriminator: its opponent.
        optimizers: the optimizers of the network and of the discriminator.
        device: where to compute.
        autocast: whether to compute in bf16.
        step: steps done.
        losses: for each name in ``LOSSES`` one value per step, NaN where the phase has no such loss. ``completion`` is
            the mean squared error in the holes.
        is_updating: whether a step is under way, so that the state must not be saved.
    """

    config: CompletionTrainingConfig
    network: CompletionNetwork
    discriminator: Discriminator
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    device: torch.device
    autocast: bool
    step: int = 0
    losses: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LOSSES})
    is_updating: bool = False

    @classmethod
    def start(cls, config: CompletionTrainingConfig, photos: Sequence[ImageArray]) -> Self:
        """Make untrained networks, the same for the same seed and photos."""
        device = resolve_device(config.device)
        red, green, blue = np.mean([photo.mean(axis=(0, 1)) for photo in photos], axis=0) / 255
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = CompletionNetwork(
                width=config.width, resolution=config.resolution, mean=(float(red), float(green), float(blue))
            )
            discriminator = Discriminator(width=config.discriminator_width, resolution=config.resolution)
        for part in (network, discriminator):  # this order of channels is faster, on CPUs and GPUs
            part.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizers = (
            torch.optim.Adam(network.parameters(), lr=config.learning_rate),
            torch.optim.Adam(discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.999)),
        )
        autocast = resolve_precision(device, config.mixed_precision) == "bf16"
        return cls(
            config=config, network=network, discriminator=discriminator, optimizers=optimizers, device=device,
            autocast=autocast,
        )  # fmt: skip

    @property
    def phase(self) -> PhaseName:
        """The phase of the next step."""
        first, second = self.config.phase_ends
        return "completion" if self.step < first else "discriminator" if self.step < second else "both"

    def draw(self, photos: Sequence[ImageArray]) -> Samples:
        """Draw the batch of the next step, which depends on the seed and the step alone."""
        rng, _ = step_rng(self.config.seed, self.step)
        return draw_samples(photos, self.config, rng)

    def update(self, samples: Samples) -> None:
        """Do one step of the current phase (Iizuka et al. 2017, algorithm 1), and record its losses.

        The discriminator is updated first, where it takes part, and then the completion network.

        Raises:
            TrainingError: a loss is not finite.
        """
        self.is_updating = True  # an interruption before the end leaves nothing to save
        self._set_learning_rates()
        phase, images, holes = self.phase, send(samples.images, self.device), send(samples.holes, self.device)
        discriminator_loss = adversarial_loss = math.nan
        self.network.train()
        with torch.set_grad_enabled(phase != "discriminator"), self._precision():
            output = self.network(images, holes)
        completion_loss = masked_mse(output.float(), images, holes)
        completed = torch.where(holes, output.float(), images)
        if phase != "completion":
            discriminator_loss = self._update_discriminator(images, completed.detach(), samples)
        if phase != "discriminator":
            loss = completion_loss
            if phase == "both":
                adversarial = self.adversarial_loss(completed, samples)
                loss = loss + self.config.adversarial_weight * adversarial
                adversarial_loss = adversarial.item()
            self._descend(0, loss)
        values = (completion_loss.item(), discriminator_loss, adversarial_loss)
        if any(math.isinf(value) for value in values) or math.isnan(values[0]):
            raise TrainingError(
                f"the training diverged at step {self.step + 1}: its losses are {values}. Use a lower learning rate"
            )
        for name, value in zip(LOSSES, values, strict=True):
            self.losses[name].append(value)
        self.step += 1
        self.is_updating = False

    def finished(self, photos: Sequence[ImageArray]) -> CompletionNetwork:
        """Return a copy of the network in evaluation mode, with statistics of batch normalization for its own weights.

        The running statistics lag behind weights that still change. Fresh ones, over several batches, give the network
        in evaluation mode the quality that it has in training (Wu and Johnson 2021, section 3).

        Args:
            photos: the training photos.
        """
        network = copy.deepcopy(self.network).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # a plain mean over the batches
        with torch.no_grad(), self._precision():
            for number in range(_NUM_STATISTICS):
                rng, _ = step_rng(self.config.seed, self.config.num_steps + number)
                samples = draw_samples(photos, self.config, rng)
                network(send(samples.images, self.device), send(samples.holes, self.device))
        return network.eval()

    def adversarial_loss(self, completed: torch.Tensor, samples: Samples) -> torch.Tensor:
        """Measure how well the discriminator recognises completed images, as a loss of the completion network.

        It is -log D, which has the optimum of the paper's log(1 - D) and a gradient where the discriminator is sure
        (Goodfellow et al. 2014, section 3). The discriminator's own gradients stay untouched.
        """
        self.discriminator.requires_grad_(requires_grad=False)
        try:
            logits = self._judge(completed, samples.corners)
        finally:
            self.discriminator.requires_grad_(requires_grad=True)
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    def _update_discriminator(self, images: torch.Tensor, completed: torch.Tensor, samples: Samples) -> float:
        real, fake = self._judge(images, samples.other_corners), self._judge(completed, samples.corners)
        loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss = loss + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        self._descend(1, loss)
        return loss.item()

    def _judge(self, images: torch.Tensor, corners: Any) -> torch.Tensor:
        with self._precision():
            return self.discriminator(images, cut_patches(images, corners)).float()

    def _descend(self, which: int, loss: torch.Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def _set_learning_rates(self) -> None:
        """Let the completion network's rate fall along a half cosine; the discriminator's stays."""
        share = 0.5 + 0.5 * math.cos(math.pi * self.step / self.config.num_steps)
        for group in self.optimizers[0].param_groups:
            group["lr"] = self.config.learning_rate * (_LAST_RATE + (1 - _LAST_RATE) * share)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "losses": {name: torch.tensor(values, dtype=torch.float64) for name, values in self.losses.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.network.load_state_dict(state["network"])
        self.discriminator.load_state_dict(state["discriminator"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.losses = {name: values.tolist() for name, values in state["losses"].items()}
        self.step = state["step"]


def masked_mse(output: torch.Tensor, images: torch.Tensor, holes: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared error over the pixels in the holes (Iizuka et al. 2017, equation 2).

    Args:
        output: (B, 3, H, W).
        images: (B, 3, H, W).
        holes: (B, 1, H, W) bool. The errors elsewhere do not count. A hole counts by its area.
    """
    return ((output - images) ** 2 * holes).sum() / (holes.sum().clamp(min=1) * images.shape[1])
