"""What a method is to the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypeAlias

from realfill.io.images import ImageArray
from realfill.scene import Scene

Sampler: TypeAlias = Callable[[Sequence[int]], list[ImageArray]]
"""Seeds to completions, one each, (H, W, 3) uint8 of the target's size, equal to the target outside the mask."""


class Method(Protocol):
    """A way to complete scenes.

    Attributes:
        name: as the command line knows it.
        uses_references: whether it looks at the scene's references.
        uses_fit_seed: whether ``prepare`` gives something else for another fit seed.
        uses_seed: whether a sampler gives something else for another seed.
    """

    name: ClassVar[str]
    uses_references: ClassVar[bool]
    uses_fit_seed: ClassVar[bool]
    uses_seed: ClassVar[bool]

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Do what is done once for a scene and a fit seed.

        Args:
            scene: what to complete; its hole is blank.
            prompt: what the scene shows, in words; ``None`` where nobody wrote it down.
            fit_seed: of everything random in the preparation.

        Returns:
            What turns seeds into completions.

        Raises:
            RealFillError: the method can't be had, or can't do this scene.
        """
        ...
