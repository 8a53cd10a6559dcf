"""Completion: one way to fill a scene's hole, and the files that a person goes on with."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realfill.errors import OutputError, RealFillWarning, SceneError
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_photo
from realfill.io.layers import Layer, write_layers
from realfill.io.metadata import Credit, read_provenance
from realfill.io.photos import Photo, put
from realfill.io.profiles import to_depth
from realfill.io.writing import write_photo
from realfill.masks import bounding_box
from realfill.plotting import image_grid
from realfill.scene import Scene
from realfill.scene_parts import read_mask

_LOSSY = 8.0  # mean difference, in levels of 255, up to which a JPEG may still be of the same target
_JPEG_BLOCK_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """One completion of a scene: what was filled in, and where from.

    Attributes:
        scene: what was completed, shared by all of its completions.
        filled: (K, C), the hole's pixels row by row, in the colours and the depth of the target's file.
        seed: it was sampled with.
        score: higher is more authentic: matched keypoints, or dB (``ranking.rank``); ``None`` until ranked.
        num_matches: matched keypoints in the hole, over all references; ``None`` until ranked by such.
        scores_per_reference: how well it agrees with each reference; ``None`` for one that can't be compared.
        num_matches_per_reference: likewise.
        provenance: what it was made with; plain JSON values.
    """

    scene: Scene
    filled: NDArray
    seed: int
    score: float | None = None
    num_matches: int | None = None
    scores_per_reference: tuple[float | None, ...] = ()
    num_matches_per_reference: tuple[int, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_image(
        cls, image: NDArray, scene: Scene, seed: int, *, provenance: Mapping[str, Any] | None = None
    ) -> Completion:
        """Take the hole's pixels from an image of the target's size, (H, W, 3) sRGB, uint8 or uint16."""
        filled = scene.original.encode(image[scene.mask])
        return cls(scene=scene, filled=filled, seed=seed, provenance=provenance or {})

    @property
    def image(self) -> ImageArray:
        """The completed target, (H, W, 3) uint8 sRGB, equal to it outside the mask; put together at each call."""
        image = self.scene.target.copy()
        put(image, self.scene.mask, self.scene.original.decode(self.filled))
        return image

    @property
    def photo(self) -> Photo:
        """The same in the colours and the depth of the target's file, with its profile and EXIF."""
        return self.scene.original.filled(self.scene.mask, self.filled)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False, quality: int = 95) -> None:
        """Write a file whose metadata says that a model completed it, which one, and with what seed.

        Args:
            path: ``.png`` and ``.tif`` hold the target's own values outside the mask, in its own colours and depth;
                ``.jpg`` has 8 bits and holds values close to them; ``.ora`` is a file of layers: what was filled
                above the untouched target.
            overwrite: replace an existing file.
            quality: of a JPEG, from 1 to 100.

        Raises:
            OutputError: the file exists, and ``overwrite`` isn't set.
            ValueError: the path ends in something else.
        """
        _check_free(path, overwrite=overwrite)
        if Path(path).suffix.lower() == ".ora":
            write_layers(path, stack_of([self]), self.photo, self.credit(path))
        else:
            write_photo(path, self.photo, self.credit(path), quality=quality)

    def save_patch(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write only what was filled, ``.png`` or ``.tif``: of the target's size, transparent outside the mask.

        Raises:
            OutputError: the file exists, and ``overwrite`` isn't set.
            ValueError: the path ends in something else.
        """
        _check_free(path, overwrite=overwrite)
        if Path(path).suffix.lower() not in (".png", ".tif", ".tiff"):
            raise ValueError(
                f"the path is {str(path)!r}; legal: one that ends in .png or .tif, which can be transparent"
            )
        write_photo(path, self.scene.original.patch(self.scene.mask, self.filled), self.credit(path))

    def redo(self, mask: ImageLike | MaskArray, scene: Scene | None = None) -> Scene:
        """Keep this completion but for a part of its hole, to be sampled again: ``complete(c.redo(mask), adapter)``.

        Args:
            mask: white (True) = sample again, of the target's size. What lies outside the hole stays out.
            scene: whose hole the part has to lie in: the first scene, where this completion is itself of a part.
                ``None``: this completion's own.

        Returns:
            A scene whose target is this completion and whose mask is the part. It is filled in the windows of the whole
            hole, at the scale that the adapter was fitted for. Sample it with other seeds: there a seed has the same
            noise as before.

        Raises:
            SceneError: the mask has another size, or lies outside the hole.
        """
        hole, whole = (scene or self.scene).mask, (scene or self.scene).whole_hole
        part = read_mask(mask)
        if part.shape != hole.shape:
            raise SceneError(
                f"the part's mask is {part.shape[1]} x {part.shape[0]} pixels and the target {hole.shape[1]} x "
                f"{hole.shape[0]}; legal: the same size"
            )
        inside = part & hole
        if not inside.any():
            raise SceneError("no pixel of the part's mask lies in the hole; legal: white where to sample again")
        spilled = int(part.sum() - inside.sum())
        if spilled:
            warnings.warn(
                f"{spilled} pixels of the part's mask lie outside the hole; they stay as they are",
                RealFillWarning,
                stacklevel=2,
            )
        made: dict[str, Any] = {"seed": self.seed, "num_pixels": int(inside.sum())}
        before = self.provenance.get("scene", self.scene.history).get("redo")
        if before is not None:  # of earlier ones not all, again and again: metadata have their limits
            made["before"] = [{k: before[k] for k in ("seed", "num_pixels")}, *before.get("before", ())]
        made["provenance"] = {k: v for k, v in self.provenance.items() if k != "scene"}
        return self.scene.retargeted(self.photo, inside, {"redo": made}, whole_hole=whole)

    @classmethod
    def load(cls, path: str | PathLike[str], scene: Scene) -> Completion:
        """Read a file that ``save`` wrote for a scene, with the seed and the provenance that it tells.

        Raises:
            SceneError: it isn't a completion, or one of another target.
        """
        told = read_provenance(path)
        photo = read_photo(path, str(path))
        try:
            seed, score = int(told.pop("seed")), told.pop("score", None)
        except (KeyError, TypeError, AttributeError) as error:
            raise SceneError(
                f"{str(path)!r} doesn't tell what it was made with; legal: a file that a completion was saved to"
            ) from error
        return cls(scene=scene, filled=read_filled(Path(path), photo, scene), seed=seed, score=score, provenance=told)

    def credit(self, path: str | PathLike[str]) -> Credit:
        """Say, for a file of that name, that a model completed a part, which one, and with what seed."""
        base, version = self.provenance.get("base", "a model"), self.provenance.get("realfill", "")
        whole = bool(self.scene.whole_hole.all())
        lossy = not whole and Path(path).suffix.lower() in (".jpg", ".jpeg")
        made = "This image was made" if whole else "A part of this image was completed"
        return Credit(
            software=f"realfill {version}".strip(),
            description=f"{made} by a generative model ({base}, seed {self.seed})."
            + (" The rest is stored lossily: close to the original photo, not equal to it." if lossy else ""),
            whole=whole,
            provenance={**self.provenance, "seed": self.seed, "score": self.score},
        )

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        image_grid([("", self.image)], columns=1).savefig(buffer, format="png")
        return buffer.getvalue()

    def __repr__(self) -> str:
        score = "not ranked" if self.score is None else f"score {self.score:g}"
        return f"Completion(seed {self.seed}, {score})"


def read_filled(path: Path, photo: Photo, scene: Scene) -> NDArray:
    """Take what was filled from a completion's file: (K, C) of the target's kind."""
    original, known = scene.original, ~scene.mask
    image = photo.srgb()
    if image.shape != scene.target.shape:
        difference = np.inf
    elif path.suffix.lower() in (".jpg", ".jpeg"):
        difference = _coarse_difference(image, scene.target, known)
    else:
        difference = _LOSSY + 1 if ((image != scene.target).any(axis=2) & known).any() else 0
    if difference > _LOSSY:
        raise SceneError(f"{str(path)!r} is a completion of another target than {scene}")
    same = photo.icc_profile == original.icc_profile and photo.pixels.shape == original.pixels.shape
    return to_depth(photo.pixels[scene.mask], original.pixels.dtype) if same else original.encode(image[scene.mask])


def _coarse_difference(one: ImageArray, other: ImageArray, known: MaskArray) -> float:
    """Compare known pixels, averaged over blocks of those that a JPEG is coded in, which keep their mean: in levels."""
    if not known.any():
        return 0.0
    size = tuple(max(1, n // _JPEG_BLOCK_PX) for n in known.shape[::-1])
    share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)[:, :, None]
    first, second = (
        cv2.resize(np.where(known[:, :, None], image, np.uint8(0)), size, interpolation=cv2.INTER_AREA)
        for image in (one, other)
    )
    different = cv2.absdiff(first, second).astype(np.float32)  # of means over blocks, their unknown pixels 0
    return float(different.sum() / (3 * share.sum()))


def stack_of(completions: Sequence[Completion]) -> Iterator[Layer]:
    """Stack what was filled in completions of one scene, of which only the first is visible, on the target."""
    for place, completion in enumerate(completions):
        mask = completion.scene.mask
        top, left, bottom, right = bounding_box(mask)
        patch = completion.scene.original.patch(mask, completion.filled)
        cut = dataclasses.replace(
            patch,
            pixels=patch.pixels[top:bottom, left:right].copy(),
            alpha=None if patch.alpha is None else patch.alpha[top:bottom, left:right].copy(),
        )
        yield Layer(name=caption(completion), photo=cut, offset=(left, top), visible=place == 0)
    scene = completions[0].scene
    yield Layer(name="kept completion" if "redo" in scene.history else "original", photo=scene.original)


def caption(completion: Completion) -> str:
    """Tell seed and score."""
    score = "" if completion.score is None else f", score {completion.score:g}"
    return f"seed {completion.seed}{score}"


def _check_free(path: str | PathLike[str], *, overwrite: bool) -> None:
    if Path(path).exists() and not overwrite:
        raise OutputError(f"{str(path)!r} exists; choose another name, or overwrite=True")
