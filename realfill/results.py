"""Completions: what ``complete`` returns, best first, and the folder that it is kept in."""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import overload

import numpy as np
from matplotlib.figure import Figure

from realfill.completion import Completion, caption, read_filled, stack_of
from realfill.config import FileFormat
from realfill.errors import OutputError, SceneError
from realfill.io.images import read_photo
from realfill.io.layers import write_layers
from realfill.io.writing import SUFFIXES
from realfill.plotting import image_grid, thumbnail
from realfill.scene import Scene

SCORES_NAME = "scores.json"
SHEET_NAME = "contact_sheet.png"
_PARTIAL = ".partial"
_PATCH = "_patch"
_OWN_NAME = re.compile(rf"\d{{2,}}_seed\d+({_PATCH})?")
_LAYERS_NAME = "layers.ora"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completions(Sequence[Completion]):
    """Completions of a scene, best first once they are ranked, else by seed.

    Attributes:
        items: the completions.
        scene: what was completed.
    """

    items: tuple[Completion, ...]
    scene: Scene

    @property
    def best(self) -> Completion:
        """The first of them."""
        return self.items[0]

    @property
    def ranked(self) -> bool:
        """Whether they have scores."""
        return self.items[0].score is not None

    def contact_sheet(self) -> Figure:
        """Draw references, target, best, and every sample with its seed and score."""
        inputs = [(f"reference {i}", thumbnail(r)) for i, r in enumerate(self.scene.references)]
        target = np.where(self.scene.mask[:, :, None], np.uint8(255), self.scene.target)
        name = "best" if self.ranked else "first"
        cells = [*inputs, ("target", thumbnail(target)), (name, thumbnail(self.best.image))]
        cells += [(caption(c), thumbnail(c.image)) for c in self.items]
        return image_grid(cells, columns=4)

    def save(
        self,
        directory: str | PathLike[str],
        *,
        overwrite: bool = False,
        file_format: FileFormat = "png",
        quality: int = 95,
        layers: bool = False,
    ) -> None:
        """Write every completion, best first, ``scores.json`` and ``contact_sheet.png``.

        Args:
            directory: where to.
            overwrite: replace the completions that are there.
            file_format: ``png`` and ``tiff`` keep the target's own values outside the mask, ``jpeg`` values close to
                them.
            quality: of JPEGs, from 1 to 100.
            layers: write what can be edited too: for each completion only what was filled, and ``layers.ora``, which
                holds them all above the untouched target, the best visible.

        Raises:
            OutputError: the folder holds completions already, and ``overwrite`` isn't set.
            ValueError: the format isn't one of these, or the quality is out of range.
        """
        if file_format not in SUFFIXES:
            raise ValueError(f"file_format is {file_format!r}; legal: {', '.join(SUFFIXES)}")
        folder = check_output(directory, overwrite=overwrite)
        partial = folder / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        records = []
        for place, completion in enumerate(self.items):
            stem = f"{place:02d}_seed{completion.seed}"
            name = stem + SUFFIXES[file_format]
            completion.save(partial / name, quality=quality)
            if layers:
                completion.save_patch(partial / f"{stem}{_PATCH}{'.tif' if file_format == 'tiff' else '.png'}")
            records.append({
                "file": name,
                "seed": completion.seed,
                "score": completion.score,
                "num_matches": completion.num_matches,
                "scores_per_reference": completion.scores_per_reference,
                "num_matches_per_reference": completion.num_matches_per_reference,
            })  # fmt: skip
        if layers:
            best = self.best
            write_layers(partial / _LAYERS_NAME, stack_of(self.items), best.photo, best.credit(_LAYERS_NAME))
        self.contact_sheet().savefig(partial / SHEET_NAME)
        values = {"provenance": dict(self.best.provenance), "completions": records}
        (partial / SCORES_NAME).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        for old in _saved_files(folder):
            old.unlink()
        for file in sorted(partial.iterdir(), key=lambda f: f.name == SCORES_NAME):
            file.replace(folder / file.name)
        partial.rmdir()

    @classmethod
    def load(cls, directory: str | PathLike[str], scene: Scene) -> Completions:
        """Read what ``save`` wrote for a scene.

        Raises:
            SceneError: the folder holds no completions, damaged ones, or ones of another target.
        """
        folder = Path(directory)
        if not (folder / SCORES_NAME).is_file():
            raise SceneError(
                f"{str(folder)!r} holds no completions: {SCORES_NAME} is missing; complete() and save() make it"
            )
        try:
            values = json.loads((folder / SCORES_NAME).read_text(encoding="utf-8"))
            provenance = {**values["provenance"]}
            items = tuple(
                Completion(
                    scene=scene,
                    filled=read_filled(folder / r["file"], read_photo(folder / r["file"], r["file"]), scene),
                    seed=r["seed"],
                    score=r["score"],
                    num_matches=r["num_matches"],
                    scores_per_reference=tuple(r["scores_per_reference"]),
                    num_matches_per_reference=tuple(r["num_matches_per_reference"]),
                    provenance=provenance,
                )
                for r in values["completions"]
            )
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise SceneError(f"{str(folder / SCORES_NAME)!r} is damaged: {error}") from error
        if not items:
            raise SceneError(f"{str(folder / SCORES_NAME)!r} lists no completions")
        return cls(items=items, scene=scene)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.contact_sheet().savefig(buffer, format="png")
        return buffer.getvalue()

    @overload
    def __getitem__(self, index: int) -> Completion: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Completion]: ...
    def __getitem__(self, index: int | slice) -> Completion | Sequence[Completion]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Completion]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"Completions({len(self)}, best: {self.best!r})"


def check_output(directory: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Make sure, before anything expensive, that completions can be written to a folder; make it if need be.

    Raises:
        OutputError: it is a file, can't be written to, or holds completions and ``overwrite`` isn't set.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=folder).cleanup()  # other processes may be trying too
    except OSError as error:
        raise OutputError(f"{str(folder)!r} can't be written to ({error.strerror}); give another folder") from error
    if not overwrite and _saved_files(folder):
        raise OutputError(f"{str(folder)!r} already holds completions; choose another folder, or overwrite explicitly")
    return folder


def _saved_files(folder: Path) -> list[Path]:
    """List what an earlier ``save`` left in a folder."""
    own = [f for f in folder.iterdir() if _OWN_NAME.fullmatch(f.stem) and f.suffix in SUFFIXES.values()]
    return [f for f in (*own, folder / _LAYERS_NAME, folder / SHEET_NAME, folder / SCORES_NAME) if f.exists()]
