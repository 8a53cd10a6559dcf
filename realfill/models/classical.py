"""Inpainting without references and without weights: a smooth fill, OpenCV's Telea and shift map.

Each is a function of an image, blank in the hole, and a hole: ``(H, W, 3) uint8, (H, W) bool -> (H, W, 3) uint8``. Its
result equals the image outside the hole.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realfill.compute.progress import OnStep
from realfill.errors import MissingDependencyError, SceneError
from realfill.io.images import ImageArray, MaskArray, fit_within, resize, to_array, to_tensor
from realfill.scene.masks import fill_smooth, resize_mask

_RADIUS_PX = 5  # neighbourhood that Telea averages; OpenCV's examples use 3 to 5
_SHIFT_MAP_SIZE_PX = 800  # above 800 x 600 OpenCV shrinks the image, and enlarges the result without bounds checks

_SHIFT_MAP = """
import io, sys
import cv2, numpy as np
both = np.load(io.BytesIO(sys.stdin.buffer.read()))
lab, known = np.ascontiguousarray(both[:, :, :3]), np.ascontiguousarray(both[:, :, 3])
filled = np.zeros_like(lab)
cv2.xphoto.inpaint(lab, known, filled, cv2.xphoto.INPAINT_SHIFTMAP)
np.save(sys.stdout.buffer, filled)
"""
_ZEROED = {"MALLOC_PERTURB_": "255"}  # glibc then hands out zeros: OpenCV reads memory that it never wrote


def inpaint_smooth(image: ImageArray, hole: MaskArray) -> ImageArray:
    """Fill a hole by push-pull (Gortler et al., The Lumigraph, SIGGRAPH 1996), the smoothest fill: a lower bound.

    An image without known pixels becomes grey.
    """
    return to_array(fill_smooth(to_tensor(image), torch.from_numpy(hole)[None, None])[0])


def inpaint_telea(image: ImageArray, hole: MaskArray) -> ImageArray:
    """Fill a hole from its border inward (Telea, Journal of Graphics Tools 2004; ``cv2.inpaint``).

    Raises:
        SceneError: there are no known pixels.
    """
    if hole.all():
        raise SceneError("the mask covers the whole target; inpainting needs known pixels to continue")
    filled = cv2.inpaint(image, hole.astype(np.uint8), _RADIUS_PX, cv2.INPAINT_TELEA)
    return np.where(hole[:, :, None], filled, image)


def inpaint_shift_map(image: ImageArray, hole: MaskArray) -> ImageArray:
    """Copy pieces of the known part, with seams by graph cut (He and Sun, ECCV 2012; ``cv2.xphoto.inpaint``).

    Takes about half a minute. Works at up to 800 pixels and in Lab, as OpenCV recommends. Telea fills the pixels that
    no shift reaches.

    Raises:
        SceneError: there are no known pixels, or OpenCV crashes on this image.
        MissingDependencyError: OpenCV is installed without its contrib modules.
    """
    size = fit_within(hole.shape, _SHIFT_MAP_SIZE_PX)
    small, small_hole = resize(image, size), resize_mask(hole, size)
    if small_hole.all():  # too few known pixels for this size
        return inpaint_telea(image, hole)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.uint8)
    shifted = _shift_map(lab, small_hole)
    reached = small_hole & shifted.any(axis=2)  # 8-bit Lab has no colour (0, 0, 0): black is (0, 128, 128)
    small = np.where(reached[:, :, None], cv2.cvtColor(shifted, cv2.COLOR_LAB2RGB), small)
    unreached = small_hole & ~reached
    if unreached.any():
        small = inpaint_telea(np.where(unreached[:, :, None], np.uint8(0), small), unreached)
    return np.where(hole[:, :, None], resize(small, hole.shape), image)


def _shift_map(lab: NDArray[np.uint8], hole: MaskArray) -> NDArray[np.uint8]:
    """Run OpenCV's shift map in a separate process, since it may crash, and since its result depends on memory.

    Args:
        lab: (H, W, 3) uint8.
        hole: (H, W) bool, True = fill.

    Returns:
        (H, W, 3) uint8, zero where no shift reaches. Pixels near the hole may have changed too.
    """
    if not hasattr(cv2, "xphoto"):
        raise MissingDependencyError(
            "this OpenCV has no xphoto module; pip uninstall opencv-python, then pip install opencv-contrib-python"
        )
    stdin = io.BytesIO()
    np.save(stdin, np.dstack([lab, np.where(hole, np.uint8(0), np.uint8(255))]))  # OpenCV's mask marks known pixels
    process = subprocess.run(  # noqa: S603 - our own program, without arguments from outside
        [sys.executable, "-P", "-c", _SHIFT_MAP],
        input=stdin.getvalue(), env=os.environ | _ZEROED, capture_output=True, check=False,
    )  # fmt: skip
    if process.returncode:
        reason = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SceneError(
            f"OpenCV's shift map failed on this target (exit status {process.returncode}) {reason}".strip()
        )
    return np.load(io.BytesIO(process.stdout))


class _Deterministic:
    """An engine that fills the hole by one of the functions of this module."""

    inpaint: ClassVar[Callable[[ImageArray, MaskArray], ImageArray]]

    def fill(
        self, image: ImageArray, hole: MaskArray, seeds: Sequence[int], *, on_step: OnStep | None = None
    ) -> list[ImageArray]:
        """Fill the hole once, and return the image for each seed; see ``Engine.fill``."""
        del on_step  # there are no steps
        blank = np.where(hole[..., None], np.uint8(0), image)
        filled = type(self).inpaint(blank, hole)
        return [filled.copy() for _ in seeds]


class Smooth(_Deterministic):
    """A smooth fill; see ``inpaint_smooth``."""

    inpaint = staticmethod(inpaint_smooth)


class Telea(_Deterministic):
    """Telea's method; see ``inpaint_telea``."""

    inpaint = staticmethod(inpaint_telea)


class ShiftMap(_Deterministic):
    """OpenCV's shift map; see ``inpaint_shift_map``."""

    inpaint = staticmethod(inpaint_shift_map)
