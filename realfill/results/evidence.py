"""Evidence: for each pixel of a completion, whether it was photographed, corrected or invented, and by which photo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from realfill.config import MAX_REFERENCES, GeometrySettings
from realfill.errors import SceneError
from realfill.io.images import MaskArray
from realfill.io.photos import put

Kind: TypeAlias = Literal["photographed", "corrected", "invented"]
KNOWN, PHOTOGRAPHED, CORRECTED, INVENTED = range(4)
"""Values of ``Evidence.kind`` and ``Evidence.kinds``."""
_KINDS: Mapping[Kind, int] = {"photographed": PHOTOGRAPHED, "corrected": CORRECTED, "invented": INVENTED}
NO_REFERENCE = -1
_STORED = {"kind": np.uint8, "source": np.int16, "confidence": np.uint8}
_LEGAL = {"kind": (PHOTOGRAPHED, INVENTED), "source": (NO_REFERENCE, MAX_REFERENCES - 1), "confidence": (0, 255)}
_MAX_EXTRA_BYTES = 65_536  # of a file: what a zip archive adds, by far


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What the pixels of a completion rest on.

    A pixel outside the hole is known. One in the hole is photographed (a reference shows it, and it is taken from
    there), corrected (a mean of what a reference shows and of the model's fill, with the reference's detail), or
    invented (by the model or by a plain inpainter). The pixels of the hole are listed row by row.

    Attributes:
        mask: (H, W) bool, the hole.
        kind: (K,) uint8: 1 photographed, 2 corrected, 3 invented.
        source: (K,) int16: number of the reference, from 0; -1 for an invented pixel.
        confidence: (K,) uint8: confidence in the composite in steps of 1/255; 0 where no reference reaches.
    """

    mask: MaskArray
    kind: NDArray[np.uint8]
    source: NDArray[np.int16]
    confidence: NDArray[np.uint8]

    @classmethod
    def judge(
        cls, mask: MaskArray, confidence: NDArray, source: NDArray[np.int16], settings: GeometrySettings
    ) -> Evidence:
        """Judge the pixels of a composite by its confidence.

        Args:
            mask: (H, W) bool, the hole.
            confidence: (H, W) in [0, 1].
            source: (H, W), number of the reference; -1: none.
            settings: the thresholds.
        """
        trust, shown = confidence[mask], source[mask] >= 0
        kind = np.full(trust.shape, INVENTED, np.uint8)
        kind[shown & (trust >= settings.corrected_confidence)] = CORRECTED
        kind[shown & (trust >= settings.photographed_confidence)] = PHOTOGRAPHED
        return cls(
            mask=mask,
            kind=kind,
            source=np.where(kind == INVENTED, NO_REFERENCE, source[mask]).astype(np.int16),
            confidence=np.where(shown, (trust * 255).round(), 0).astype(np.uint8),
        )

    @classmethod
    def of_invention(cls, mask: MaskArray) -> Evidence:
        """Return the evidence of a hole (H, W) for which no reference speaks."""
        count = int(mask.sum())
        return cls(
            mask=mask,
            kind=np.broadcast_to(np.uint8(INVENTED), count),  # takes no memory
            source=np.broadcast_to(np.int16(NO_REFERENCE), count),
            confidence=np.broadcast_to(np.uint8(0), count),
        )

    @property
    def kinds(self) -> NDArray[np.uint8]:
        """The kind of every pixel, (H, W): 0 known, 1 photographed, 2 corrected, 3 invented. Composed at each call."""
        return self._spread(self.kind, KNOWN)

    @property
    def sources(self) -> NDArray[np.int16]:
        """The reference of every pixel, (H, W); -1 where there is none. Composed at each call."""
        return self._spread(self.source, NO_REFERENCE)

    @property
    def confidences(self) -> NDArray[np.float32]:
        """The confidence of every pixel, (H, W) in [0, 1]; 1 for known pixels. Composed at each call."""
        return self._spread(self.confidence, 255).astype(np.float32) / np.float32(255)

    @property
    def photographed(self) -> MaskArray:
        """The photographed pixels, (H, W) bool. Composed at each call."""
        return self._spread(self.kind == PHOTOGRAPHED, 0).astype(bool)

    @property
    def shares(self) -> dict[Kind, float]:
        """The share of the hole's pixels that is photographed, corrected and invented; they sum to 1."""
        return {name: float(np.mean(self.kind == value)) for name, value in _KINDS.items()}

    @property
    def coverage(self) -> float:
        """The share of the hole's pixels that the references show: those photographed or corrected."""
        return float(np.mean(self.kind != INVENTED))

    @property
    def references(self) -> dict[int, float]:
        """The references that the photographed pixels come from, and the share of the hole that each shows."""
        numbers, counts = np.unique(self.source[self.kind == PHOTOGRAPHED], return_counts=True)
        return {int(n): float(c) / len(self.kind) for n, c in zip(numbers, counts, strict=True)}

    def describe(self) -> str:
        """Describe the evidence in a line, with whole percentages that sum to 100.

        For example: "84 % of the hole photographed (references 2 and 3), 9 % corrected, 7 % invented".
        """
        numbers = list(map(str, self.references))
        names = f" (reference{'s' if len(numbers) > 1 else ''} {_enumerated(numbers)})" if numbers else ""
        shares = {kind: share for kind, share in self.shares.items() if share}
        parts = [
            f"{percent or 'under 1'} %{'' if place else ' of the hole'} {kind}{names if kind == 'photographed' else ''}"
            for place, (kind, percent) in enumerate(zip(shares, percentages(list(shares.values())), strict=True))
        ]
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Convert the shares to plain JSON values."""
        return {**self.shares, "references": {str(n): share for n, share in self.references.items()}}

    def save(self, path: Path) -> None:
        """Write the evidence of every pixel of the hole as compressed arrays of numpy, ``*.npz``."""
        np.savez_compressed(path, kind=self.kind, source=self.source, confidence=self.confidence)

    @classmethod
    def load(cls, path: Path, mask: MaskArray) -> Evidence | None:
        """Read what ``save`` wrote for a hole (H, W).

        Returns:
            The evidence; ``None`` if there is no such file, or if it belongs to another hole, for example to a part of
            this one that was filled again.

        Raises:
            SceneError: the file is damaged.
        """
        if not path.is_file():
            return None
        count = int(np.count_nonzero(mask))
        if path.stat().st_size > 2 * count * sum(np.dtype(d).itemsize for d in _STORED.values()) + _MAX_EXTRA_BYTES:
            return None
        try:
            with ZipFile(path) as archive:
                values = {name: _read_values(archive, name, dtype, count) for name, dtype in _STORED.items()}
        except Exception as error:  # zipfile and numpy raise anything for a damaged file
            raise SceneError(f"{str(path)!r} is damaged: {error}") from error
        return None if any(v is None for v in values.values()) else cls(mask=mask, **values)

    def _spread(self, values: NDArray, outside: int) -> NDArray:
        image = np.full(self.mask.shape, outside, values.dtype)
        put(image, self.mask, values)
        return image


def _read_values(archive: ZipFile, name: str, dtype: type, count: int) -> Any:
    """Read one array of an ``npz`` file, whose declared type and length are checked first.

    Returns:
        The values, (K,); ``None`` if there are not as many as ``count``.

    Raises:
        ValueError: the array is another than ``Evidence.save`` writes.
    """
    with archive.open(f"{name}.npy") as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"the version of {name} is unknown")
        shape, _, stored = np.lib.format.read_array_header_1_0(stream)
        if stored != np.dtype(dtype) or len(shape) != 1:
            raise ValueError(f"{name} has the type {stored} and the shape {shape}")
        if shape[0] != count:
            return None
        num_bytes = count * stored.itemsize
        data = stream.read(num_bytes + 1)
    low, high = _LEGAL[name]
    values = np.frombuffer(data, dtype, count) if len(data) == num_bytes else None
    if values is None or (count and not (low <= values.min() and values.max() <= high)):
        raise ValueError(f"{name} is incomplete, or has values that are not from {low} to {high}")
    return values.copy()


def percentages(shares: list[float]) -> list[int]:
    """Round shares, which sum to 1, to whole percentages that sum to 100 (largest remainders)."""
    exact = [100 * share for share in shares]
    whole = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: whole[i] - exact[i])
    for i in by_remainder[: 100 - sum(whole)]:
        whole[i] += 1
    return whole


def _enumerated(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
