"""What a training step takes of memory, and how to make it fit: in pieces, or with activations computed anew."""

from __future__ import annotations

from dataclasses import dataclass

# Values of half precision. The first two were counted on Stable Diffusion 2's layers (420; 50, and those of the block
# that is computed anew), the third is estimated; none was measured on a GPU.
_PLAIN = 440  # kept for the backward pass, for each latent and channel of the U-Net's first level
_CHECKPOINTED = 85  # the same with gradient checkpointing
_ENCODED = 512  # at a time for each pixel, while a convolutional VAE encodes
_TRAINED = 16  # bytes for each trained value: gradient, AdamW's two averages, the running average
_USABLE = 0.85  # of the memory that is free: the rest is for fragments and what isn't counted


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFootprint:
    """What a training step's memory depends on.

    Attributes:
        num_trained: values that are trained.
        width: channels of the U-Net's first level.
        num_latents: of a crop, height times width.
        num_pixels: of a crop.
        value_bytes: of a value that is computed with: 2 in half precision, else 4.
        bank_bytes: of what is encoded ahead.
    """

    num_trained: int
    width: int
    num_latents: int
    num_pixels: int
    value_bytes: int
    bank_bytes: int = 0

    def crop_bytes(self, *, checkpointing: bool) -> int:
        """Estimate what each crop of a piece takes at most, as it is encoded or trained on."""
        kept = self.num_latents * self.width * (_CHECKPOINTED if checkpointing else _PLAIN)
        return self.value_bytes * max(kept, self.num_pixels * _ENCODED)

    def total_bytes(self, num_crops: int, *, checkpointing: bool) -> int:
        """Estimate what a step takes beside the weights, with so many crops at a time."""
        return self.num_trained * _TRAINED + self.bank_bytes + num_crops * self.crop_bytes(checkpointing=checkpointing)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """How a batch is computed.

    Attributes:
        pieces: that it is split into, one after the other.
        checkpointing: whether activations are computed anew in the backward pass.
        total_bytes: that it is expected to take beside the weights.
    """

    pieces: int
    checkpointing: bool
    total_bytes: int


def legal_pieces(batch_size: int, num_processes: int = 1) -> list[int]:
    """List the numbers of pieces that a batch can be split into, for a number of processes to share each."""
    return [n for n in range(1, batch_size + 1) if batch_size % n == 0 and batch_size // n % num_processes == 0]


def plan_memory(
    free_bytes: int,
    footprint: StepFootprint,
    batch_size: int,
    *,
    num_processes: int = 1,
    pieces: int | None = None,
    checkpointing: bool | None = None,
) -> MemoryPlan:
    """Choose the quickest way that is expected to fit: the whole batch, else pieces, else checkpointing too.

    The result of a step is the same either way, but for rounding.

    Args:
        free_bytes: that are free once the weights are loaded.
        footprint: what it depends on.
        batch_size: of all processes together.
        num_processes: that share each piece.
        pieces: take this many; ``None``: choose.
        checkpointing: take it or not; ``None``: choose.

    Raises:
        ValueError: the batch can't be shared like this.
    """
    numbers = legal_pieces(batch_size, num_processes)
    if pieces is not None:
        if pieces not in numbers:
            raise ValueError(
                f"a batch of {batch_size} crops in {pieces} pieces can't be shared by {num_processes} processes; legal "
                f"for gradient_accumulation_steps: {', '.join(map(str, numbers)) or 'none, change the batch size'}"
            )
        numbers = [pieces]
    elif not numbers:
        raise ValueError(f"a batch of {batch_size} crops can't be shared by {num_processes} processes")
    ways = [
        MemoryPlan(
            pieces=n,
            checkpointing=anew,
            total_bytes=footprint.total_bytes(batch_size // n // num_processes, checkpointing=anew),
        )
        for anew in ((False, True) if checkpointing is None else (checkpointing,))
        for n in numbers
    ]
    fitting = (way for way in ways if way.total_bytes <= free_bytes * _USABLE)
    return next(fitting, ways[-1])
