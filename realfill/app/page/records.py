"""What a visit consists of, and the error that refuses a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from realfill.errors import RealFillError

RoundKind = Literal["quick", "fit", "redo"]


class RefusedError(RealFillError):
    """A request cannot be met; the message is shown beside the control that it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A photo of a visit.

    Attributes:
        file: name of its file, which the page made up.
        name: name that the visitor's computer gave it; it is shown, and never part of a path.
        size: (height, width) in pixels, upright.
    """

    file: str
    name: str
    size: tuple[int, int]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Restore what ``asdict`` made."""
        return cls(file=values["file"], name=values["name"], size=(values["size"][0], values["size"][1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One set of results.

    Attributes:
        number: name of its folder.
        kind: ``quick`` (without a fit), ``fit``, or ``redo`` (a part of an earlier result, sampled again).
        title: the words that the page shows above it.
        size: (height, width) of the canvas in pixels.
        scene: number of the scene's folder.
        parent: number of the round and place of the result whose part it redoes; ``None`` otherwise.
    """

    number: int
    kind: RoundKind
    title: str
    size: tuple[int, int]
    scene: int
    parent: tuple[int, int] | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Restore what ``asdict`` made."""
        parent = values["parent"]
        return cls(
            number=values["number"], kind=values["kind"], title=values["title"],
            size=(values["size"][0], values["size"][1]), scene=values["scene"],
            parent=(parent[0], parent[1]) if parent else None,
        )  # fmt: skip
