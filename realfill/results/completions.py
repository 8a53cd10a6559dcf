"""Completions: the ordered result of ``complete``, and the folder it is saved to."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from realfill.config import RankSettings
from realfill.errors import OutputError, SceneError
from realfill.io.containment import leads_outside
from realfill.io.files import partial_folder
from realfill.io.formats import SUFFIXES, FileFormat
from realfill.io.images import ImageArray, read_photo
from realfill.io.json_files import read_json
from realfill.io.layers import write_layers
from realfill.io.lock import locked
from realfill.results.completion import Completion, build_layers, caption, extract_filled
from realfill.results.evidence import Evidence
from realfill.results.folder import (
    EVIDENCE_DATA_NAME,
    EVIDENCE_NAME,
    LAYERS_NAME,
    PATCH_ENDING,
    SCORES_NAME,
    SHEET_NAME,
    WITHOUT_MODEL,
    check_output,
    replace_files,
)
from realfill.results.pictures import evidence_figure, image_grid, thumbnail
from realfill.results.records import Record, require_different
from realfill.scene.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completions(Sequence[Completion]):
    """Completions of one scene: best first if they are ranked, else in order of their seeds.

    Attributes:
        items: the completions.
        scene: the completed scene.
        ranking: settings by which the scores were computed or, if there are no scores yet, the settings for ``rank``.
        references: hashes of the references that the scores compare with; empty if there are no scores.
        recipe: everything that determines the pixels of a completion besides its seed (``describe_recipe``). Only
            completions of the same recipe can be merged.
    """

    items: tuple[Completion, ...]
    scene: Scene
    ranking: RankSettings | None = None
    references: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """The seeds of the completions, in the same order; ``None`` for one that is the same for every seed."""
        return tuple(completion.seed for completion in self.items)

    @property
    def best(self) -> Completion:
        """The first completion."""
        return self.items[0]

    @property
    def evidence(self) -> Evidence | None:
        """What each pixel rests on, which is the same for all completions; ``None`` if it is not known."""
        return self.best.evidence

    @property
    def ranked(self) -> bool:
        """Whether the completions have scores."""
        return self.items[0].score is not None

    def require_mergeable(self, seeds: Iterable[int | None], recipe: Mapping[str, Any]) -> None:
        """Check, before an expensive job, that completions of other seeds can be merged with these.

        Args:
            seeds: the other seeds.
            recipe: the recipe of the other completions.

        Raises:
            ValueError: the recipes differ, or both have completions of the same seed.
        """
        differences = list(_differences(self.recipe, recipe))
        if differences:
            raise ValueError(
                f"completions that were made differently cannot be merged: {'; '.join(differences)}. Legal: the same "
                "scene, adapter and settings; otherwise use another folder"
            )
        if None in self.seeds:
            raise ValueError(
                "no pixel of the completion comes from a model, so other seeds give the same; legal: completions in "
                "which a model fills a part of the hole"
            )
        own = {seed for seed in self.seeds if seed is not None}
        common = sorted(seed for seed in seeds if seed in own)
        if common:
            raise ValueError(
                f"there are already completions of the seeds {', '.join(map(str, common))}; legal: other seeds, for "
                f"example from {max(own) + 1} on"
            )

    def merged(self, other: Completions) -> Completions:
        """Merge these completions with others of the same scene and recipe.

        Scores are kept if they are comparable: by keypoints or by the composite, with the same settings and the same
        references. The result is then ordered by score. Otherwise it has no scores, is ordered by seed, and ``rank``
        can order it; ``warped_references`` always compares all completions of one call.

        Raises:
            SceneError: the others belong to another target or mask.
            ValueError: the recipes differ, or both have completions of the same seed.
        """
        scene, other_scene = self.scene, other.scene
        if not (np.array_equal(scene.mask, other_scene.mask) and np.array_equal(scene.known, other_scene.known)):
            raise SceneError("completions of another target or mask cannot be merged; legal: those of the same scene")
        self.require_mergeable(other.seeds, other.recipe)
        items = [dataclasses.replace(c, scene=scene) for c in (*self.items, *other.items)]
        if self._is_comparable_with(other):
            items.sort(key=lambda c: -(c.score or 0))  # stable: ties keep the order that the matcher's confidence gave
            return dataclasses.replace(self, items=tuple(items))
        cleared = [
            dataclasses.replace(
                c, score=None, num_matches=None, scores_per_reference=(), num_matches_per_reference=()
            )
            for c in items
        ]  # fmt: skip
        return dataclasses.replace(self, items=tuple(sorted(cleared, key=lambda c: c.seed or 0)), references=())

    def _is_comparable_with(self, other: Completions) -> bool:
        return (
            self.ranked and other.ranked and self.ranking is not None and self.ranking.score_by != "warped_references"
            and self.ranking == other.ranking and self.references == other.references
        )  # fmt: skip

    def contact_sheet(self, others: Sequence[tuple[str, ImageArray]] = ()) -> Figure:
        """Draw the references, the target, the best completion, and every completion with its seed and score.

        Args:
            others: captions and images (H, W, 3) to draw before the best completion.
        """
        inputs = [(f"reference {i}", thumbnail(r)) for i, r in enumerate(self.scene.references)]
        target = np.where(self.scene.mask[:, :, None], np.uint8(255), self.scene.target)
        name = "best" if self.ranked else "first"
        cells = [*inputs, ("target", thumbnail(target)), *others, (name, thumbnail(self.best.image))]
        cells += [(caption(c), thumbnail(c.image)) for c in self.items]
        return image_grid(cells, columns=4)

    def save(
        self,
        directory: str | PathLike[str],
        *,
        overwrite: bool = False,
        extend: bool = False,
        file_format: FileFormat = "png",
        quality: int = 95,
        layers: bool = False,
    ) -> None:
        """Write every completion, best first, ``scores.json``, ``contact_sheet.png`` and the evidence.

        ``evidence.png`` shows which pixels were photographed, corrected and invented, and ``evidence.npz`` holds the
        same as arrays.

        Args:
            directory: the output folder.
            overwrite: replace the completions in the folder.
            extend: keep the completions in the folder and add these, ordered by score. Their seeds must be new, and
                scene, adapter and settings the same. An empty folder is legal too.
            file_format: ``png`` and ``tiff`` keep the exact values of the target outside the mask; ``jpeg`` is lossy.
            quality: quality of JPEGs, from 1 to 100.
            layers: also write files to edit: for each completion an image of only the generated pixels, and
                ``layers.ora`` with one layer per completion above the original target, of which the best is visible.

        Raises:
            OutputError: the folder already holds completions, and neither ``overwrite`` nor ``extend`` is set; another
                process writes to the folder; or the scores are not comparable with those in the folder.
            SceneError: the completions in the folder belong to another target.
            ValueError: a seed is in the folder already, or the completions there were made differently; the format or
                the quality is not legal.
        """
        if file_format not in SUFFIXES:
            raise ValueError(f"file_format is {file_format!r}; legal: {', '.join(SUFFIXES)}")
        if overwrite and extend:
            raise ValueError("both overwrite and extend are set; legal: one of the two")
        with locked(directory) as folder:
            completions, existing = self, {}
            if extend and (folder / SCORES_NAME).is_file():
                completions, existing = self._added_to(folder)
            else:
                check_output(folder, overwrite=overwrite)
            with partial_folder(folder) as partial:
                completions._write(partial, existing, file_format, quality, layers=layers)  # noqa: SLF001
                replace_files(folder, partial)

    def _added_to(self, folder: Path) -> tuple[Completions, dict[int | None, Path]]:
        """Merge these completions with those in a folder; also return the image file of each seed in the folder."""
        saved = Completions.load(folder, self.scene)
        merged = saved.merged(self)
        if (saved.ranked or self.ranked) and not merged.ranked:
            raise OutputError(
                f"the scores are not comparable with those in {str(folder)!r}, so all completions must be ranked "
                "together: rank(Completions.load(folder, scene).merged(completions)).save(folder, overwrite=True)"
            )
        records = map(Record.of_json, read_json(folder / SCORES_NAME)["completions"])
        return merged, {record.values["seed"]: folder / record.file for record in records}

    def _write(
        self, folder: Path, existing: Mapping[int | None, Path], file_format: FileFormat, quality: int, *, layers: bool
    ) -> None:
        """Write all files to an empty folder; existing image files of the same format are copied, by seed."""
        shared, records = self._shared_provenance(), []
        for place, completion in enumerate(self.items):
            stem = f"{place:02d}_{WITHOUT_MODEL if completion.seed is None else f'seed{completion.seed}'}"
            name = stem + SUFFIXES[file_format]
            old_file = existing.get(completion.seed)
            if old_file is not None and old_file.suffix == SUFFIXES[file_format]:
                shutil.copyfile(old_file, folder / name)  # a JPEG would lose quality otherwise
            else:
                completion.save(folder / name, quality=quality)
            if layers:
                completion.save_patch(folder / f"{stem}{PATCH_ENDING}{'.tif' if file_format == 'tiff' else '.png'}")
            records.append({
                "file": name,
                "seed": completion.seed,
                "score": completion.score,
                "num_matches": completion.num_matches,
                "scores_per_reference": completion.scores_per_reference,
                "num_matches_per_reference": completion.num_matches_per_reference,
                "verdict": asdict(completion.verdict) if completion.verdict is not None else None,
                "provenance": {k: v for k, v in completion.provenance.items() if k not in shared},
            })  # fmt: skip
        if layers:
            best = self.best
            write_layers(folder / LAYERS_NAME, build_layers(self.items), best.photo, best.credit(LAYERS_NAME))
        self.contact_sheet().savefig(folder / SHEET_NAME)
        if self.evidence is not None:
            evidence_figure(self.scene.target, self.evidence).savefig(folder / EVIDENCE_NAME)
            self.evidence.save(folder / EVIDENCE_DATA_NAME)
        ranking = self.ranking.to_dict() if self.ranking is not None else None
        values = {
            "ranking": ranking, "references": self.references, "recipe": dict(self.recipe),
            "evidence": self.evidence.to_dict() if self.evidence is not None else None,
            "provenance": shared, "completions": records,
        }  # fmt: skip
        (folder / SCORES_NAME).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    def _shared_provenance(self) -> dict[str, Any]:
        """Return the part of the provenance that is the same for all completions."""
        others = [completion.provenance for completion in self.items[1:]]
        return {k: v for k, v in self.best.provenance.items() if all(k in other and other[k] == v for other in others)}

    @classmethod
    def load(cls, directory: str | PathLike[str], scene: Scene) -> Completions:
        """Read the completions of a scene from the folder that ``save`` wrote.

        Raises:
            SceneError: the folder holds no completions, or they are damaged or belong to another target.
        """
        folder = Path(directory)
        if not (folder / SCORES_NAME).is_file():
            raise SceneError(
                f"{str(folder)!r} holds no completions: {SCORES_NAME} is missing; legal: a folder that "
                "Completions.save wrote"
            )
        try:
            values = read_json(folder / SCORES_NAME)
            provenance, recipe = {**values["provenance"]}, {**values["recipe"]}
            ranking = RankSettings.from_dict(values["ranking"]) if values["ranking"] is not None else None
            references = tuple(values["references"])
            evidence = Evidence.load(folder / EVIDENCE_DATA_NAME, scene.mask) if values.get("evidence") else None
            records = list(map(Record.of_json, values["completions"]))
            require_different(records)
        except SceneError:
            raise
        except (OSError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise SceneError(f"{str(folder / SCORES_NAME)!r} is damaged: {error}") from error
        items = tuple(
            Completion(
                scene=scene, filled=_read_filled(folder, record.file, scene), evidence=evidence,
                provenance={**provenance, **record.provenance}, **record.values,
            )
            for record in records
        )  # fmt: skip
        if not items:
            raise SceneError(f"{str(folder / SCORES_NAME)!r} lists no completions")
        return cls(items=items, scene=scene, ranking=ranking, references=references, recipe=recipe)

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


def _read_filled(folder: Path, name: str, scene: Scene) -> NDArray:
    path = folder / name
    if leads_outside(path, folder):
        raise SceneError(f"{str(path)!r} is a link out of its folder; legal: a file in the folder")
    return extract_filled(path, read_photo(path, name), scene)


def _differences(values: Mapping[str, Any], others: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a description of each value that differs between two nested mappings."""
    for key in sorted(values.keys() | others.keys()):
        value, other = values.get(key), others.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from _differences(value, other, f"{prefix}{key}.")
        elif value != other:
            yield f"{prefix}{key} is {value!r} and {other!r}"
