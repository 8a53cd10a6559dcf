"""Make scenes with ground truth from single photos, to choose settings without real scenes.

The target is the photo's centre, with a box or a strip to fill. Each reference is a view of the photo by a similarity,
a perspective, a smooth random displacement and a change of colours. Only photos that pre-training keeps out are used.

    python examples/planted_scenes.py PHOTOS planted
    realfill bench planted -o out --base mini --methods realfill base stitching

Without references, to measure a base model without a fit:

    python examples/planted_scenes.py PHOTOS bare --num-scenes 60 --num-references 0 --least-structure 0
    realfill bench bare -o out --base mini --methods base smooth
"""

from pathlib import Path

import cv2
import numpy as np
import tyro
from holdout import load_held_out
from numpy.typing import NDArray

from realfill import Scene
from realfill.io.images import ImageArray
from realfill.io.writing import write_png

SHARE = 0.85  # share of the photo's sides that the target shows


def view(photo: ImageArray, rng: np.random.Generator, size: tuple[int, int]) -> ImageArray:
    """Draw a view of a photo, (h, w, 3), with another size, zoom, angle, perspective, position and colour."""
    height, width = size
    zoom = float(np.exp(rng.uniform(np.log(0.6), np.log(1.5))))
    angle = np.deg2rad(rng.uniform(-10, 10))
    tilt = rng.uniform(-3e-4, 3e-4, 2)
    shift = rng.uniform(-15, 15, 2)
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, zoom]]) / zoom
    lean = np.array([[1, 0, 0], [0, 1, 0], [*tilt, 1]])
    back = np.array([[1, 0, photo.shape[1] / 2 + shift[0]], [0, 1, photo.shape[0] / 2 + shift[1]], [0, 0, 1]])
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([x, y, np.ones_like(x)], axis=-1) @ (back @ lean @ turn @ centre).T
    positions = points[..., :2] / points[..., 2:] + displacement(rng, size)
    blurred = photo if zoom >= 1 else cv2.GaussianBlur(photo, (0, 0), 0.5 * (1 / zoom - 1) + 0.01)
    warped = cv2.remap(blurred, positions.astype(np.float32), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    gain = rng.uniform(0.75, 1.3) * rng.uniform(0.93, 1.07, 3)
    return ((warped / 255.0) ** rng.uniform(0.8, 1.25) * gain * 255).clip(0, 255).round().astype(np.uint8)


def displacement(rng: np.random.Generator, size: tuple[int, int], deviation_px: float = 3.0) -> NDArray[np.float32]:
    """Draw a smooth random displacement field (h, w, 2), similar to parallax."""
    coarse = rng.normal(scale=deviation_px, size=(4, 5, 2)).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def plant(photo: ImageArray, rng: np.random.Generator, num_references: int) -> tuple[Scene, ImageArray]:
    """Make a scene from a photo, and its ground truth."""
    height, width = (round(n * SHARE) for n in photo.shape[:2])
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    truth = photo[top : top + height, left : left + width]
    mask = np.zeros((height, width), bool)
    if rng.random() < 0.5:
        mask[:, : int(0.35 * width)] = True
    else:
        side = rng.uniform(0.4, 0.55) * height
        y, x = (int(rng.uniform(0.1, 0.9) * (n - side)) for n in (height, width))
        mask[y : y + int(side), x : x + int(side * rng.uniform(0.8, 1.2))] = True
    return Scene([view(photo, rng, (height, width)) for _ in range(num_references)], truth, mask), truth


def structure(photo: ImageArray) -> float:
    """Compute the standard deviation of the Laplacian of the brightness."""
    return float(cv2.Laplacian(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.CV_64F).std())


def main(
    photos: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    /,
    num_scenes: int = 8,
    num_references: int = 3,
    least_structure: float = 12.0,
) -> None:
    structured = [photo for photo in load_held_out(photos) if structure(photo) >= least_structure]
    for i, photo in enumerate(structured[:num_scenes]):
        scene, truth = plant(photo, np.random.default_rng(i), num_references)
        scene.save(output / f"{i:02}")
        write_png(output / f"{i:02}" / "target" / "gt.png", truth)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
