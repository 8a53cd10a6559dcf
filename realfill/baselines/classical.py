"""Inpainting without references and without weights: a smooth fill, OpenCV's Telea and shift map."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.baselines.method import Sampler
from realfill.errors import MissingDependencyError, SceneError
from realfill.io.images import ImageArray, MaskArray, fit_within, resize, to_array, to_tensor
from realfill.masks import fill_smooth, resize_mask
from realfill.scene import Scene

_RADIUS_PX = 5  # pixels around each one that Telea averages; OpenCV's examples take 3 to 5
_SHIFT_MAP_SIZE_PX = 800  # above 800 x 600 OpenCV shrinks by itself, and goes back without checking bounds

_SHIFT_MAP = """
import io, sys
import cv2, numpy as np
both = np.load(io.BytesIO(sys.stdin.buffer.read()))
lab, known = np.ascontiguousarray(both[:, :, :3]), np.ascontiguousarray(both[:, :, 3])
filled = np.zeros_like(lab)
cv2.xphoto.inpaint(lab, known, filled, cv2.xphoto.INPAINT_SHIFTMAP)
np.save(sys.stdout.buffer, filled)
"""
_ZEROED = {"MALLOC_PERTURB_": "255"}  # glibc hands out zeros: it reads memory that it never wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth:
    """Push-pull (Gortler et al., The Lumigraph, SIGGRAPH 1996): the smoothest of fills, and so the floor."""

    name: ClassVar[str] = "smooth"
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = False

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fill the hole, grey where nothing is known; neither references nor words nor seeds are used."""
        del prompt, fit_seed
        return same_for_all(to_array(fill_smooth(to_tensor(scene.known), torch.from_numpy(scene.mask)[None, None])[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Telea:
    """Continue the known pixels inward, nearest first (Telea, Journal of Graphics Tools 2004; ``cv2.inpaint``)."""

    name: ClassVar[str] = "telea"
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = False

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fill the hole; neither references nor words nor seeds are used.

        Raises:
            SceneError: nothing is known.
        """
        del prompt, fit_seed
        return same_for_all(inpaint_telea(scene.known, scene.mask))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftMap:
    """Copy pieces of the known part, seams by graph cut (He and Sun, ECCV 2012; ``cv2.xphoto.inpaint``).

    Takes about half a minute. Works at up to 800 pixels and in Lab, as OpenCV advises. What none of its shifts reaches
    is left open; Telea fills that.
    """

    name: ClassVar[str] = "shiftmap"
    uses_references: ClassVar[bool] = False
    uses_fit_seed: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = False

    def prepare(self, scene: Scene, prompt: str | None, fit_seed: int) -> Sampler:
        """Fill the hole; neither references nor words nor seeds are used.

        Raises:
            SceneError: nothing is known, or OpenCV breaks down on this target.
            MissingDependencyError: OpenCV is installed without its contrib modules.
        """
        del prompt, fit_seed
        return same_for_all(_inpaint_shift_map(scene.known, scene.mask))


def same_for_all(image: ImageArray) -> Sampler:
    """Make a sampler that gives one image, (H, W, 3) uint8, for every seed."""
    return partial(_copies, image)


def _copies(image: ImageArray, seeds: Sequence[int]) -> list[ImageArray]:
    return [image.copy() for _ in seeds]


def inpaint_telea(known: ImageArray, mask: MaskArray) -> ImageArray:
    """Fill a hole by Telea's method.

    Args:
        known: (H, W, 3) uint8, blank under the mask: on scattered masks OpenCV reads some of that.
        mask: (H, W) bool, True = fill.

    Returns:
        (H, W, 3) uint8: ``known`` outside the mask, exactly.

    Raises:
        SceneError: nothing is known.
    """
    if mask.all():
        raise SceneError("the mask covers the whole target; inpainting needs known pixels to continue")
    filled = cv2.inpaint(known, mask.astype(np.uint8), _RADIUS_PX, cv2.INPAINT_TELEA)
    return np.where(mask[:, :, None], filled, known)


def _inpaint_shift_map(known: ImageArray, mask: MaskArray) -> ImageArray:
    size = fit_within(mask.shape, _SHIFT_MAP_SIZE_PX)
    small, hole = resize(known, size), resize_mask(mask, size)
    if hole.all():  # what little is known is gone at this size
        return inpaint_telea(known, mask)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.uint8)
    found = _shift_map(lab, hole)
    reached = hole & found.any(axis=2)  # 8-bit Lab has no colour (0, 0, 0): black is (0, 128, 128)
    small = np.where(reached[:, :, None], cv2.cvtColor(found, cv2.COLOR_LAB2RGB), small)
    left = hole & ~reached
    if left.any():
        small = inpaint_telea(np.where(left[:, :, None], np.uint8(0), small), left)
    return np.where(mask[:, :, None], resize(small, mask.shape), known)


def _shift_map(lab: NDArray[np.uint8], hole: MaskArray) -> NDArray[np.uint8]:
    """Run OpenCV's shift map in a process of its own: crashes are known, and small photos gave one of two results.

    Args:
        lab: (H, W, 3) uint8.
        hole: (H, W) bool, True = fill.

    Returns:
        (H, W, 3) uint8, zero where no shift reaches; pixels near the hole may have changed too.
    """
    if not hasattr(cv2, "xphoto"):
        raise MissingDependencyError(
            "this OpenCV has no xphoto module; pip uninstall opencv-python, then pip install opencv-contrib-python"
        )
    given = io.BytesIO()
    np.save(given, np.dstack([lab, np.where(hole, np.uint8(0), np.uint8(255))]))  # its masks mark what is known
    done = subprocess.run(  # noqa: S603 - our own program, no arguments from outside
        [sys.executable, "-P", "-c", _SHIFT_MAP],
        input=given.getvalue(), env=os.environ | _ZEROED, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SceneError(f"OpenCV's shift map broke down on this target (exit status {done.returncode}) {why}".strip())
    return np.load(io.BytesIO(done.stdout))
