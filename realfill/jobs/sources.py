"""The items of a batch: photos, and scene folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

from realfill.errors import SceneError
from realfill.io.formats import SUFFIXES, FileFormat
from realfill.scene.reading import find_photos

Kind: TypeAlias = Literal["photo", "scene"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One photo or scene.

    Attributes:
        kind: ``photo`` or ``scene``.
        source: the file or the folder.
        target: the file or the folder that the result goes to.
        label: name of the source; its path, if another source of the batch has the same name.
    """

    kind: Kind
    source: Path
    target: Path
    label: str

    @property
    def name(self) -> str:
        """The name of the result, which is unique in its batch."""
        return self.target.name

    @property
    def result(self) -> Path:
        """The target, or the copy of a photo that shows nothing to remove, if only that exists."""
        copy = copy_path(self.source, self.target)
        return copy if self.kind == "photo" and copy.is_file() and not self.target.exists() else self.target

    def signature(self) -> list[list[str | int]]:
        """Return name, size and time of each source file, to tell whether it has changed."""
        files = [self.source] if self.kind == "photo" else sorted(p for p in self.source.rglob("*") if p.is_file())
        root = self.source.parent if self.kind == "photo" else self.source
        return [[str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def copy_path(source: Path, target: Path) -> Path:
    """Say where an unchanged photo is copied to: as its result, with the source's suffix."""
    return target.with_suffix(source.suffix)


def find_items(
    sources: Iterable[str | PathLike[str]], output: Path, *, file_format: FileFormat = "png"
) -> tuple[Item, ...]:
    """Find the photos and scenes of a batch.

    Args:
        sources: photos, scene folders, and folders of photos or of scene folders. In a folder, other files are left
            out with a warning.
        output: the folder for the results.
        file_format: the format of erased photos.

    Raises:
        SceneError: a source does not exist, there is no photo and no scene, or a source lies in the output folder.
    """
    found: list[tuple[Kind, Path]] = []
    for source in map(Path, sources):
        found += _found_in(source, output)
    unique = list(dict.fromkeys(found))
    if not unique:
        raise SceneError("there is no photo and no scene; legal: photos, scene folders, or folders of them")
    inside = [path for _, path in unique if path.parent.resolve() == output.resolve()]
    if inside:
        raise SceneError(
            f"{str(inside[0])!r} lies in the output folder, where it would be replaced; use another folder"
        )
    return tuple(_items(unique, output, SUFFIXES[file_format]))


def _found_in(source: Path, output: Path) -> list[tuple[Kind, Path]]:
    if source.is_file():
        return [("photo", source)]
    if not source.is_dir():
        raise SceneError(
            f"there is no file and no folder {str(source)!r}; legal: photos, scene folders, folders of them"
        )
    if _is_scene(source):
        return [("scene", source)]
    scenes = [p for p in sorted(source.iterdir()) if p.is_dir() and p.resolve() != output.resolve() and _is_scene(p)]
    return [*(("scene", p) for p in scenes), *(("photo", p) for p in find_photos(source))]


def _is_scene(folder: Path) -> bool:
    return (folder / "target").is_dir()


def _items(found: Sequence[tuple[Kind, Path]], output: Path, suffix: str) -> Iterable[Item]:
    """Give each source a result of its own; where two would have the same name, it keeps the source's suffix."""
    names = [path.name if kind == "scene" else f"{path.stem}{suffix}" for kind, path in found]
    sources = [path.name for _, path in found]
    taken: set[str] = set()
    for (kind, path), name in zip(found, names, strict=True):
        unique = name if names.count(name) == 1 or kind == "scene" else f"{path.name}{suffix}"
        count = 1
        while unique in taken:
            count += 1
            unique = f"{path.stem}_{count}{suffix}" if kind == "photo" else f"{path.name}_{count}"
        taken.add(unique)
        label = path.name if sources.count(path.name) == 1 else str(path)
        yield Item(kind=kind, source=path, target=output / unique, label=label)
