"""Completion: one way to fill the hole of a scene, and the image files it is saved to."""

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

from realfill.config import CLASSICAL_ENGINES
from realfill.errors import OutputError, RealFillWarning, SceneError
from realfill.io.images import ImageArray, ImageLike, MaskArray, read_photo
from realfill.io.layers import Layer, write_layers
from realfill.io.metadata import Credit, DigitalSource, read_provenance
from realfill.io.photos import Photo, put
from realfill.io.profiles import to_depth
from realfill.io.writing import write_photo
from realfill.results.evidence import Evidence
from realfill.results.pictures import evidence_colours, image_grid
from realfill.results.records import read_score, read_seed
from realfill.results.verdict import Verdict
from realfill.scene.mask_reading import read_mask
from realfill.scene.masks import bounding_box
from realfill.scene.scene import Scene

_MAX_JPEG_DIFFERENCE = 8.0  # mean difference, in levels of 255, between JPEGs of the same target
_JPEG_BLOCK_PX = 8
_MAX_STEPS = 50  # earlier steps that metadata lists


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """One completion of a scene: the generated pixels, their seed and score.

    Attributes:
        scene: the completed scene, shared by all of its completions.
        filled: (K, C), the generated pixels of the hole, row by row, in the colours and bit depth of the target's file.
        seed: the seed of the sample; ``None`` if every seed would give the same.
        score: higher is more authentic: a number of matched keypoints, or dB (see ``rank``). ``None`` if not ranked.
        num_matches: matched keypoints in the hole, over all references. ``None`` if not ranked by keypoints.
        scores_per_reference: the score against each reference; ``None`` for a reference that could not be compared.
        num_matches_per_reference: matched keypoints in the hole, for each reference.
        evidence: what each pixel rests on; ``None`` if it is not known.
        verdict: whether it shows what was there; ``None`` where no composite could be made to judge it by.
        provenance: description of how the completion was made, as plain JSON values.
    """

    scene: Scene
    filled: NDArray
    seed: int | None
    score: float | None = None
    num_matches: int | None = None
    scores_per_reference: tuple[float | None, ...] = ()
    num_matches_per_reference: tuple[int, ...] = ()
    evidence: Evidence | None = None
    verdict: Verdict | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_image(
        cls, image: NDArray, scene: Scene, seed: int | None, *, provenance: Mapping[str, Any] | None = None
    ) -> Completion:
        """Create a completion from an image of the target's size, (H, W, 3) sRGB, uint8 or uint16."""
        filled = scene.original.encode(image[scene.mask])
        return cls(scene=scene, filled=filled, seed=seed, provenance=provenance or {})

    @property
    def image(self) -> ImageArray:
        """The completed target, (H, W, 3) uint8 sRGB; outside the mask it equals the target. Composed at each call."""
        image = self.scene.target.copy()
        put(image, self.scene.mask, self.scene.original.decode(self.filled))
        return image

    @property
    def photo(self) -> Photo:
        """The completed target in the colours and bit depth of its file, with its profile and EXIF."""
        return self.scene.original.filled(self.scene.mask, self.filled)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False, quality: int = 95) -> None:
        """Write an image file whose metadata names the generative model and the seed.

        Args:
            path: the suffix decides the format. ``.png`` and ``.tif`` keep the exact values of the target outside the
                mask, in its colours and bit depth. ``.jpg`` has 8 bits and is lossy. ``.ora`` (OpenRaster) has layers:
                the generated pixels above the original target.
            overwrite: replace an existing file.
            quality: quality of a JPEG, from 1 to 100.

        Raises:
            OutputError: the file exists, and ``overwrite`` is not set.
            ValueError: the suffix or the quality is not legal.
        """
        _check_free(path, overwrite=overwrite)
        if Path(path).suffix.lower() == ".ora":
            write_layers(path, build_layers([self]), self.photo, self.credit(path))
        else:
            write_photo(path, self.photo, self.credit(path), quality=quality)

    def save_patch(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write only the generated pixels, in an image of the target's size that is transparent outside the mask.

        Args:
            path: a path that ends in ``.png`` or ``.tif``.
            overwrite: replace an existing file.

        Raises:
            OutputError: the file exists, and ``overwrite`` is not set.
            ValueError: the suffix is not legal.
        """
        _check_free(path, overwrite=overwrite)
        if Path(path).suffix.lower() not in (".png", ".tif", ".tiff"):
            raise ValueError(
                f"the path is {str(path)!r}; legal: a path that ends in .png or .tif, which can be transparent"
            )
        write_photo(path, self.scene.original.patch(self.scene.mask, self.filled), self.credit(path))

    def redo(self, mask: ImageLike | MaskArray, scene: Scene | None = None) -> Scene:
        """Create a scene that samples a part of the hole again: ``complete(completion.redo(mask), adapter)``.

        Args:
            mask: the part, of the target's size; white (True) = sample again. Pixels outside the hole are ignored, with
                a warning.
            scene: the scene whose hole limits the part. If this completion has itself redone a part, pass the first
                scene to redo any part of the whole hole. ``None``: the scene of this completion.

        Returns:
            A scene whose target is this completion and whose mask is the part. It is filled in the windows of the whole
            hole, at the scale that the adapter was fitted for. Sample it with other seeds, because the same seed draws
            the same noise again.

        Raises:
            SceneError: the mask has another size, or lies outside the hole.
        """
        hole, whole = (scene or self.scene).mask, (scene or self.scene).whole_hole
        part = read_mask(mask, self.image).mask
        if part.shape != hole.shape:
            raise SceneError(
                f"the mask of the part is {part.shape[1]} x {part.shape[0]} pixels, and the target is "
                f"{hole.shape[1]} x {hole.shape[0]}; legal: the same size"
            )
        inside = part & hole
        if not inside.any():
            raise SceneError(
                "no pixel of the part's mask lies in the hole; legal: white pixels in the hole, which are sampled again"
            )
        num_outside = int(part.sum() - inside.sum())
        if num_outside:
            warnings.warn(
                f"{num_outside} pixels of the part's mask lie outside the hole and are not changed",
                RealFillWarning,
                stacklevel=2,
            )
        step: dict[str, Any] = {"seed": self.seed, "num_pixels": int(inside.sum())}
        before = self._steps_before()
        if before:
            step["before"] = before
        step["provenance"] = {k: v for k, v in self.provenance.items() if k != "scene"}
        return self.scene.retargeted(self.photo, inside, {"redo": step}, whole_hole=whole)

    def _steps_before(self) -> list[dict[str, Any]]:
        """List the earlier steps that the provenance states, the last first, without the full provenance of each.

        The size of metadata is limited, and a stranger's file may state something else, which is left out.
        """
        history = self.provenance.get("scene", self.scene.history)
        redo = history.get("redo") if isinstance(history, Mapping) else None
        if not isinstance(redo, Mapping):
            return []
        earlier = redo.get("before", ())
        steps = [redo, *(earlier if isinstance(earlier, list | tuple) else ())]
        kept = [{k: s[k] for k in ("seed", "num_pixels") if k in s} for s in steps if isinstance(s, Mapping)]
        return kept[:_MAX_STEPS]

    @classmethod
    def load(cls, path: str | PathLike[str], scene: Scene) -> Completion:
        """Read a file that ``save`` wrote for a scene, with its seed, score and provenance.

        A file holds the shares of the evidence, in its provenance, but not the evidence of each pixel; the folder that
        ``Completions.save`` wrote holds both.

        Raises:
            SceneError: the file is not a completion, or belongs to another target.
        """
        provenance = read_provenance(path)
        photo = read_photo(path, str(path))
        try:
            seed, score = read_seed(provenance.pop("seed")), read_score(provenance.pop("score", None))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise SceneError(
                f"{str(path)!r} has no metadata of a completion; legal: a file that Completion.save wrote"
            ) from error
        filled = extract_filled(Path(path), photo, scene)
        return cls(scene=scene, filled=filled, seed=seed, score=score, provenance=provenance)

    def credit(self, path: str | PathLike[str]) -> Credit:
        """Describe where the pixels come from, for the metadata of a file of that name."""
        version = self.provenance.get("realfill", "")
        whole = bool(self.scene.whole_hole.all())
        lossy = not whole and Path(path).suffix.lower() in (".jpg", ".jpeg")
        sentences = [self._describe_making(whole=whole)]
        if self.evidence is not None and self._shows_references:
            sentences.append(f"Of that part, {self.evidence.describe().replace(' of the hole', '')}.")
        if lossy:
            sentences.append("The rest is stored lossily: close to the original photo, not equal to it.")
        return Credit(
            software=f"realfill {version}".strip(),
            description=" ".join(sentences),
            source=self._digital_source(whole=whole),
            provenance={**self.provenance, "seed": self.seed, "score": self.score},
        )

    def _describe_making(self, *, whole: bool) -> str:
        made = "This image was made" if whole else "A part of this image was completed"
        if self._has_model:
            name = self.provenance.get("base") or self.provenance.get("engine") or "a model"
            seed = "" if self.seed is None else f", seed {self.seed}"
            return f"{made} by a generative model ({name}{seed})."
        means = ["from other photos"] if self._shows_references else []
        engine = self.provenance.get("engine")
        means += [f"by inpainting without a model ({engine})"] if engine else []
        return f"{made} {' and '.join(means)}, without a generative model."

    @property
    def _has_model(self) -> bool:
        """Whether a network made any pixel."""
        return self.seed is not None or self.provenance.get("engine", "telea") not in (None, *CLASSICAL_ENGINES)

    @property
    def _shows_references(self) -> bool:
        """Whether any pixel is taken from a reference, as it is or corrected."""
        return self.evidence is not None and self.evidence.coverage > 0

    def _digital_source(self, *, whole: bool) -> DigitalSource:
        if self._has_model:
            return "trainedAlgorithmicMedia" if whole else "compositeWithTrainedAlgorithmicMedia"
        return "compositeCapture" if self._shows_references else "algorithmicallyEnhanced"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        image_grid([("", self.image)], columns=1).savefig(buffer, format="png")
        return buffer.getvalue()

    def __repr__(self) -> str:
        score = "not ranked" if self.score is None else f"score {self.score:g}"
        name = "without a model" if self.seed is None else f"seed {self.seed}"
        return f"Completion({name}, {score})"


def extract_filled(path: Path, photo: Photo, scene: Scene) -> NDArray:
    """Extract the generated pixels from the file of a completion, (K, C) in the colours and depth of the target's file.

    Raises:
        SceneError: the known pixels are those of another target.
    """
    original, known = scene.original, ~scene.mask
    image = photo.srgb()
    if image.shape != scene.target.shape:
        difference = np.inf
    elif path.suffix.lower() in (".jpg", ".jpeg"):
        difference = _coarse_difference(image, scene.target, known)
    else:
        difference = np.inf if ((image != scene.target).any(axis=2) & known).any() else 0
    if difference > _MAX_JPEG_DIFFERENCE:
        raise SceneError(f"{str(path)!r} is a completion of another target than {scene}")
    same = photo.icc_profile == original.icc_profile and photo.pixels.shape == original.pixels.shape
    return to_depth(photo.pixels[scene.mask], original.pixels.dtype) if same else original.encode(image[scene.mask])


def _coarse_difference(one: ImageArray, other: ImageArray, known: MaskArray) -> float:
    """Compare the mean colours of known pixels per block, which JPEG keeps; return the mean difference in levels."""
    if not known.any():
        return 0.0
    size = tuple(max(1, n // _JPEG_BLOCK_PX) for n in known.shape[::-1])
    share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)[:, :, None]
    first, second = (
        cv2.resize(np.where(known[:, :, None], image, np.uint8(0)), size, interpolation=cv2.INTER_AREA)
        for image in (one, other)
    )
    difference = cv2.absdiff(first, second).astype(np.float32)
    return float(difference.sum() / (3 * share.sum()))


def build_layers(completions: Sequence[Completion]) -> Iterator[Layer]:
    """Yield a layer of generated pixels per completion, of which only the first is visible, and then the target."""
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
    scene, evidence = completions[0].scene, completions[0].evidence
    if evidence is not None:
        colours = Photo(pixels=np.zeros_like(scene.target)).patch(scene.mask, evidence_colours(evidence))
        yield Layer(name=f"evidence: {evidence.describe()}", photo=colours, visible=False)
    yield Layer(name="kept completion" if "redo" in scene.history else "original", photo=scene.original)


def caption(completion: Completion) -> str:
    """Return a short text with seed and score."""
    score = "" if completion.score is None else f", score {completion.score:g}"
    return f"{'without a model' if completion.seed is None else f'seed {completion.seed}'}{score}"


def _check_free(path: str | PathLike[str], *, overwrite: bool) -> None:
    if Path(path).exists() and not overwrite:
        raise OutputError(f"{str(path)!r} exists; choose another name, or set overwrite=True")
