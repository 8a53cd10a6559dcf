"""The protocol that the benchmark's methods follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from realfill.errors import SceneError
from realfill.io.images import ImageArray
from realfill.scene.scene import Scene

Sampler: TypeAlias = Callable[[Sequence[int]], list[ImageArray]]
"""Maps seeds to completions, one each: (H, W, 3) uint8 of the target's size, equal to the target outside the mask."""


class Method(Protocol):
    """A method that completes scenes.

    Attributes:
        name: name on the command line.
        uses_references: whether the method looks at the scene's references.
        uses_fit_seed: whether the result of ``prepare`` depends on the fit seed.
        uses_seed: whether a completion depends on its seed.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def uses_references(self) -> bool: ...  # noqa: D102
    @property
    def uses_fit_seed(self) -> bool: ...  # noqa: D102
    @property
    def uses_seed(self) -> bool: ...  # noqa: D102

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Do the work that is done once for a scene and a fit seed.

        Args:
            scene: the scene to complete; its hole is blank.
            prompt: a description of the scene, or ``None`` if the case has none.
            fit_seed: seed of everything random in the preparation.

        Returns:
            A function from seeds to completions.

        Raises:
            RealFillError: the method is not available, or cannot complete this scene.
        """
        ...


def require_references(scene: Scene, method: str) -> None:
    """Check that a scene has references.

    Raises:
        SceneError: it has none.
    """
    if not scene.references:
        raise SceneError(f"the scene has no references, but {method!r} needs them; add photos of the scene")
