"""Worlds for planted scenes: textured quads that stand as walls, layers, boxes and streets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from realfill.io.images import ImageArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quad:
    """A textured parallelogram in space.

    Attributes:
        corner: (3,) the corner at the texture's top left.
        right: (3,) its upper edge.
        down: (3,) its left edge.
        texture: (h, w, 3) uint8.
    """

    corner: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    texture: ImageArray


def draw_texture(textures: Sequence[ImageArray], rng: np.random.Generator) -> ImageArray:
    photo = textures[int(rng.integers(len(textures)))]
    height, width = photo.shape[:2]
    side = int(rng.uniform(0.5, 1) * min(height, width))
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return photo[y : y + side, x : x + side]


def rectangle(centre: Sequence[float], width: float, height: float, turn: float, texture: ImageArray) -> Quad:
    """Stand a rectangle upright, turned about the vertical axis."""
    right = np.array([np.cos(turn), 0, np.sin(turn)]) * width
    down = np.array([0, height, 0.0])
    return Quad(corner=np.asarray(centre, float) - right / 2 - down / 2, right=right, down=down, texture=texture)


def wall(textures: Sequence[ImageArray], rng: np.random.Generator) -> list[Quad]:
    return [rectangle((0, 0, 6), 16, 12, rng.uniform(-0.3, 0.3), draw_texture(textures, rng))]


def layers(textures: Sequence[ImageArray], rng: np.random.Generator) -> list[Quad]:
    quads = [rectangle((0, 0, 12), 34, 26, 0, draw_texture(textures, rng))]
    for depth in (8, 5, 3.5):
        x, y = rng.uniform(-0.35, 0.35, 2) * depth
        width, height = rng.uniform(0.3, 0.7, 2) * depth
        quads.append(rectangle((x, y, depth), width, height, rng.uniform(-0.4, 0.4), draw_texture(textures, rng)))
    return quads


def _floor(textures: Sequence[ImageArray], rng: np.random.Generator) -> Quad:
    return Quad(
        corner=np.array([-14, 1.5, 1.0]),
        right=np.array([28, 0, 0.0]),
        down=np.array([0, 0, 18.0]),
        texture=draw_texture(textures, rng),
    )


def boxes(textures: Sequence[ImageArray], rng: np.random.Generator) -> list[Quad]:
    quads = [
        rectangle((0, -3, 12), 40, 20, rng.uniform(-0.15, 0.15), draw_texture(textures, rng)),
        _floor(textures, rng),
    ]
    for _ in range(int(rng.integers(3, 6))):
        depth = rng.uniform(3.5, 8)
        x, width, height = rng.uniform(-0.4, 0.4) * depth, rng.uniform(0.8, 1.8), rng.uniform(0.8, 2.4)
        turn = rng.uniform(-0.7, 0.7)
        quads += box((x, 1.5 - height / 2, depth), width, height, turn, textures, rng)
    return quads


def box(
    middle: Sequence[float],
    width: float,
    height: float,
    turn: float,
    textures: Sequence[ImageArray],
    rng: np.random.Generator,
) -> list[Quad]:
    """Stand a box upright: a front and two sides, turned about the vertical axis."""
    front = np.array([np.sin(turn), 0, -np.cos(turn)]) * width / 2
    side = np.array([np.cos(turn), 0, np.sin(turn)]) * width / 2
    quads = [rectangle(middle + front, width, height, turn, draw_texture(textures, rng))]
    return quads + [
        rectangle(middle + sign * side, width, height, turn + np.pi / 2, draw_texture(textures, rng))
        for sign in (-1, 1)
    ]


def moved(quads: Sequence[Quad], by: Sequence[float]) -> list[Quad]:
    """Put quads elsewhere."""
    return [replace(quad, corner=quad.corner + np.asarray(by, float)) for quad in quads]


def street(textures: Sequence[ImageArray], rng: np.random.Generator) -> list[Quad]:
    quads = [rectangle((0, 0, 22), 20, 16, 0, draw_texture(textures, rng)), _floor(textures, rng)]
    for side in (-1, 1):
        for start in (2.0, 8.0, 14.0):
            quads.append(  # noqa: PERF401
                Quad(
                    corner=np.array([side * 2.5, -4.5, start]),
                    right=np.array([0, 0, 6.0]),
                    down=np.array([0, 6.0, 0]),
                    texture=draw_texture(textures, rng),
                )
            )
    return quads
