"""Completion and Completions: what ``complete`` returns, and how it is kept."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, overload

from matplotlib.figure import Figure

from realfill.errors import OutputError, SceneError
from realfill.images import ImageArray, read_image, write_png
from realfill.plotting import image_grid
from realfill.scene import Scene

SCORES_NAME = "scores.json"
SHEET_NAME = "contact_sheet.png"
_PARTIAL = ".partial"
_DIGITAL_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{_DIGITAL_SOURCE}"/></rdf:RDF></x:xmpmeta>'
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """One completion of a scene.

    Attributes:
        image: (H, W, 3) uint8, of the target's size; equal to the target outside the mask.
        seed: it was sampled with.
        score: higher is more authentic; ``None`` until ranked.
        num_matches: matched keypoints in the hole, over all references; ``None`` until ranked.
        scores_per_reference: the same for each reference.
        num_matches_per_reference: likewise.
        provenance: what it was made with; plain JSON values.
    """

    image: ImageArray
    seed: int
    score: float | None = None
    num_matches: int | None = None
    scores_per_reference: tuple[float, ...] = ()
    num_matches_per_reference: tuple[int, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write a PNG whose metadata says that a model completed it, which one, and with what seed.

        Raises:
            OutputError: the file exists, and ``overwrite`` isn't set.
            ValueError: the path doesn't end in ``.png``.
        """
        if Path(path).exists() and not overwrite:
            raise OutputError(f"{str(path)!r} exists; choose another name, or overwrite=True")
        base, version = self.provenance.get("base", "a model"), self.provenance.get("realfill", "")
        metadata = {
            "Software": f"realfill {version}".strip(),
            "Description": f"A part of this image was completed by a generative model ({base}, seed {self.seed}).",
            "realfill": json.dumps({**self.provenance, "seed": self.seed, "score": self.score}),
            "XML:com.adobe.xmp": _XMP,
        }
        write_png(path, self.image, metadata)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        image_grid([("", self.image)], columns=1).savefig(buffer, format="png")
        return buffer.getvalue()

    def __repr__(self) -> str:
        score = "not ranked" if self.score is None else f"score {self.score:g}"
        return f"Completion(seed {self.seed}, {score})"


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
        hole = self.scene.mask[:, :, None]
        target = (self.scene.known * ~hole + hole * (255, 255, 255)).astype("uint8")
        inputs = [(f"reference {i}", r) for i, r in enumerate(self.scene.references)]
        name = "best" if self.ranked else "first"
        cells = [*inputs, ("target", target), (name, self.best.image)]
        cells += [(_caption(c), c.image) for c in self.items]
        return image_grid(cells, columns=4)

    def save(self, directory: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write every completion, best first, ``scores.json`` and ``contact_sheet.png``.

        Raises:
            OutputError: the folder holds completions already, and ``overwrite`` isn't set.
        """
        folder = check_output(directory, overwrite=overwrite)
        partial = folder / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        records = []
        for place, completion in enumerate(self.items):
            name = f"{place:02d}_seed{completion.seed}.png"
            completion.save(partial / name)
            records.append({
                "file": name,
                "seed": completion.seed,
                "score": completion.score,
                "num_matches": completion.num_matches,
                "scores_per_reference": completion.scores_per_reference,
                "num_matches_per_reference": completion.num_matches_per_reference,
            })  # fmt: skip
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
            items = tuple(
                Completion(
                    image=read_image(folder / r["file"], r["file"])[0],
                    seed=r["seed"],
                    score=r["score"],
                    num_matches=r["num_matches"],
                    scores_per_reference=tuple(r["scores_per_reference"]),
                    num_matches_per_reference=tuple(r["num_matches_per_reference"]),
                    provenance=values["provenance"],
                )
                for r in values["completions"]
            )
            grown = scene.dilated(values["provenance"].get("sample", {}).get("dilation_px", 0))
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise SceneError(f"{str(folder / SCORES_NAME)!r} is damaged: {error}") from error
        known = ~grown.mask
        if not items or any(
            c.image.shape != scene.target.shape or (c.image[known] != scene.target[known]).any() for c in items
        ):
            raise SceneError(f"the completions in {str(folder)!r} are of another target than {scene}")
        return cls(items=items, scene=grown)

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
        (folder / _PARTIAL).mkdir(exist_ok=True)
        shutil.rmtree(folder / _PARTIAL)
    except OSError as error:
        raise OutputError(f"{str(folder)!r} can't be written to ({error.strerror}); give another folder") from error
    if not overwrite and _saved_files(folder):
        raise OutputError(f"{str(folder)!r} already holds completions; choose another folder, or overwrite explicitly")
    return folder


def _saved_files(folder: Path) -> list[Path]:
    """List what an earlier ``save`` left in a folder."""
    return [f for f in (*folder.glob("[0-9][0-9]*_seed*.png"), folder / SHEET_NAME, folder / SCORES_NAME) if f.exists()]


def _caption(completion: Completion) -> str:
    score = "" if completion.score is None else f", score {completion.score:g}"
    return f"seed {completion.seed}{score}"
