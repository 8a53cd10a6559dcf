"""The results of a flow: completions, which are read from disk when they are needed, and the last fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from realfill.app.flow.keeping import Keeper
from realfill.errors import SceneError
from realfill.io.json_files import read_json
from realfill.results.folder import SCORES_NAME
from realfill.scene.scene import Scene

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.results.completions import Completions

# Modules that need torch are imported where they are used, so that an interface appears at once.
# ruff: noqa: PLC0415


@dataclass(slots=True, kw_only=True, eq=False)
class Result:
    """What a job made: completions of a scene, read from disk when they are needed.

    Attributes:
        title: what people read, for example "Fit of mini, 40 steps".
        number: its number; later results have larger ones.
        folder: where it is kept; ``None`` if it is not.
    """

    title: str
    number: int
    folder: Path | None = None
    _keeper: Keeper | None = None
    _loaded: tuple[Completions, Scene] | None = None

    @property
    def completions(self) -> Completions:
        """The completions, best first.

        Raises:
            SceneError: their files are damaged.
        """
        return self._content[0]

    @property
    def scene(self) -> Scene:
        """The scene whose hole limits what can be redone.

        Raises:
            SceneError: its files are damaged.
        """
        return self._content[1]

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds that are used."""
        found = self._loaded[0].seeds if self._loaded is not None else [record["seed"] for record in self._records]
        return [seed for seed in found if seed is not None]

    @property
    def count(self) -> int:
        """The number of completions."""
        return len(self._loaded[0]) if self._loaded is not None else len(self._records)

    def unload(self) -> None:
        """Give the memory back; the files stay."""
        if self.folder is not None:
            self._loaded = None

    @property
    def _records(self) -> Sequence[dict[str, Any]]:
        """What the folder says of each completion; empty if it is damaged."""
        assert self.folder is not None
        try:
            return read_json(self.folder / SCORES_NAME)["completions"]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    @property
    def _content(self) -> tuple[Completions, Scene]:
        content = self._loaded  # another thread may unload it meanwhile
        if content is None:
            from realfill.results.completions import Completions

            assert self._keeper is not None and self.folder is not None
            scene = self._keeper.scene_of(self.folder.parent)
            content = self._loaded = (Completions.load(self.folder, scene), scene)
        return content


class Results(Sequence[Result]):
    """What the jobs of a flow made, the latest last.

    Attributes:
        keeper: keeps it on disk; ``None``: it is kept in memory only.
        adapter: the last fit, or ``None``.
    """

    def __init__(self, keeper: Keeper | None) -> None:
        """Start without results."""
        self.keeper = keeper
        self.adapter: Adapter | None = None
        self._items: list[Result] = []

    def read(self) -> None:
        """List what an earlier flow has kept."""
        if self.keeper is not None:
            found = self.keeper.list_completions()
            self._items = [Result(title=t, number=n, folder=folder, _keeper=self.keeper) for t, n, folder in found]

    def resume(self) -> Scene:
        """List what an earlier flow has kept, and return its last scene.

        Raises:
            SceneError: nothing is kept.
        """
        if self.keeper is None:
            raise SceneError("no output folder is given; legal: the output of an earlier panel")
        self.read()
        scene = self.keeper.last_scene()
        self.adapter = self.keeper.adapter_of(scene)
        return scene

    def make(self, title: str, completions: Completions, scene: Scene) -> Result:
        """Make a result of completions, and keep it; ``append`` then adds it."""
        number, folder = len(self._items) + 1, None
        if self.keeper is not None:
            number, folder = self.keeper.keep_completions(scene, title, completions)
        return Result(
            title=title, number=number, folder=folder, _keeper=self.keeper, _loaded=(completions, scene)
        )  # fmt: skip

    def append(self, result: Result) -> None:
        """Add a result."""
        self._items.append(result)

    def take_adapter(self, scene: Scene, adapter: Adapter) -> None:
        """Take over a fit of a scene, and keep it."""
        self.adapter = adapter
        if self.keeper is not None:
            self.keeper.keep_adapter(scene, adapter)

    def adapters(self, scene: Scene) -> list[Adapter]:
        """List the last fit, and the one that is kept for a scene."""
        kept = self.keeper.adapter_of(scene) if self.keeper is not None else None
        return [adapter for adapter in (self.adapter, kept) if adapter is not None]

    def next_seed(self, first: int) -> int:
        """Return a seed from which on no result has one, at least the first."""
        return max([first - 1, *(seed for result in self._items for seed in result.seeds)]) + 1

    def unload(self) -> None:
        """Give memory back; what is kept is read again when it is needed."""
        for result in self._items:
            result.unload()
        if self.keeper is not None:
            self.adapter = None

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | Sequence[Result]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)
