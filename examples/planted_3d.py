"""Planted scenes with true depth: textured quads seen by several cameras, with known poses, depth and pixels.

    python examples/planted_3d.py TEXTURES planted --kinds boxes street --num-scenes 4

TEXTURES is a folder of photos that serve as textures. Each scene has exposure differences, vignetting, lens distortion,
blur and noise between its photos, and some have passers-by in single photos. What the hole hides is known to the pixel.
In some kinds the references cannot show it: those of another scene, of a moved object, turned away, or mirrored.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray
from planted_worlds import Quad, box, boxes, draw_texture, layers, moved, rectangle, street, wall

from realfill import Scene
from realfill.errors import SceneError
from realfill.geometry.cameras import Camera
from realfill.io.images import ImageArray, read_image
from realfill.io.recognition import find_fault
from realfill.io.writing import write_png

Kind = Literal[
    "plane", "layers", "boxes", "street", "closer", "night", "walkers", "elsewhere", "moved", "unseen", "mirrored",
    "single", "wide", "outpainted",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
_SUPERSAMPLING = 2
_PHOTO_SHARE = 0.7  # of the canvas, on which a photo is outpainted to the right
_FAR = 1e6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """How a photo is taken.

    Attributes:
        camera: from where.
        gain: (3,) factor of each channel.
        gamma: exponent of the brightness.
        vignette: loss of brightness in the corners, from 0 to 1.
        blur: standard deviation in pixels.
        noise: standard deviation in levels.
        passers: quads that are only in this photo.
    """

    camera: Camera
    gain: NDArray[np.float64] = field(default_factory=lambda: np.ones(3))
    gamma: float = 1.0
    vignette: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    passers: tuple[Quad, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planted:
    """A scene whose truth is known.

    Attributes:
        scene: references, target with a blank hole, mask.
        truth: (H, W, 3) uint8, the whole target.
        depth: (H, W) true depth of the target's pixels.
        cameras: the true ones, the target's first.
        visible: (N, H, W) bool: which pixels of the target each reference shows.
    """

    scene: Scene
    truth: ImageArray
    depth: NDArray[np.float64]
    cameras: tuple[Camera, ...]
    visible: NDArray[np.bool_]


def plant(kind: Kind, textures: Sequence[ImageArray], seed: int, *, size: tuple[int, int] = (360, 480)) -> Planted:
    """Make a scene.

    Args:
        kind: ``plane``: one wall; ``layers``: walls at several depths; ``boxes``: boxes on a floor before a wall;
            ``street``: forward motion between two walls. All others show boxes. ``closer``: one reference far closer;
            ``wide``: wide lenses with barrel distortion; ``night``: references by night; ``walkers``: passers-by in
            the references; ``single``: one reference; ``outpainted``: the target is a photo on a canvas that extends it
            to the right; ``mirrored``: one reference is mirrored; ``elsewhere``: references of another scene;
            ``moved``: a box by the hole stands in other places in the references (in one other place if ``seed`` is
            even, in one for each if it is odd); ``unseen``: the references are turned away from the hole (even seeds),
            or one large thing hides it from all of them (odd seeds).
        textures: photos.
        seed: of all randomness.
        size: (height, width) of the target.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    build = {"plane": wall, "layers": layers, "street": street}.get(kind, boxes)
    quads = build(textures, rng)
    cameras = _cameras(kind, size, rng, turned_away=kind == "unseen" and seed % 2 == 0)
    shots = [_shot(kind, n, camera, textures, rng) for n, camera in enumerate(cameras)]
    mask = _hole(size, rng) if kind in ("moved", "unseen") else None
    if kind == "moved":
        shots = _with_moved_box(shots, _middle(mask, cameras[0]), textures, rng, together=seed % 2 == 0)
    if kind == "unseen":
        mask, shots = _hide(mask, shots, textures, rng, turned_away=seed % 2 == 0)
    truth, depth = render(quads, shots[0], rng)
    others = quads if kind != "elsewhere" else build(textures[::-1], np.random.default_rng(seed + 1000))
    rendered = [render(others, shot, rng) for shot in shots[1:]]
    mask = _hole(size, rng) if mask is None else mask
    visible = np.stack(
        [_visible(depth, cameras[0], shot.camera, z) for shot, (_, z) in zip(shots[1:], rendered, strict=True)]
    )
    photos = [image for image, _ in rendered]
    if kind == "mirrored":
        photos[0] = photos[0][:, ::-1].copy()
    visible[: {"elsewhere": len(visible), "mirrored": 1}.get(kind, 0)] = False
    scene = Scene(photos, np.where(mask[..., None], np.uint8(0), truth), mask)
    if kind == "outpainted":
        width = round(_PHOTO_SHARE * size[1])
        scene = Scene.outpaint(photos, truth[:, :width], right=size[1] - width)
        mask = scene.mask
    return Planted(scene=scene, truth=truth, depth=depth, cameras=tuple(cameras), visible=visible)


def render(quads: Sequence[Quad], shot: Shot, rng: np.random.Generator) -> tuple[ImageArray, NDArray[np.float64]]:
    """Take a photo; returns it and its depth (H, W), 1e6 where nothing is."""
    camera, (height, width) = shot.camera, shot.camera.size
    factor = _SUPERSAMPLING
    x = (np.arange(width * factor) + 0.5) / factor - 0.5
    y = (np.arange(height * factor) + 0.5) / factor - 0.5
    rays = camera.rays(np.stack(np.meshgrid(x, y), axis=-1))
    directions = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1) @ camera.rotation
    origin = -camera.rotation.T @ camera.translation
    image = np.full((height * factor, width * factor, 3), 128.0, np.float32)
    depth = np.full(image.shape[:2], _FAR)
    for quad in (*quads, *shot.passers):
        normal = np.cross(quad.right, quad.down)
        along = directions @ normal
        distance = ((quad.corner - origin) @ normal) / np.where(np.abs(along) > 1e-9, along, 1e-9)
        local = origin + distance[..., None] * directions - quad.corner
        u, v = local @ quad.right / (quad.right @ quad.right), local @ quad.down / (quad.down @ quad.down)
        hit = (distance > 1e-3) & (distance < depth) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
        if not hit.any():
            continue
        texture, (rows, columns) = quad.texture, quad.texture.shape[:2]
        step = float(np.median(np.abs(np.diff(u, axis=1))[hit[:, 1:]])) * columns if hit[:, 1:].any() else 1.0
        if step > 1.5:
            texture = cv2.GaussianBlur(texture, (0, 0), 0.4 * step)
        at_x, at_y = (u * columns - 0.5).astype(np.float32), (v * rows - 0.5).astype(np.float32)
        shown = cv2.remap(texture, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        image[hit], depth[hit] = shown[hit], distance[hit]
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    depth = depth[factor // 2 :: factor, factor // 2 :: factor]
    if shot.blur:
        image = cv2.GaussianBlur(image, (0, 0), shot.blur)
    radius = np.hypot(*np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))) / np.sqrt(2)
    light = (image / 255).clip(0, 1) ** shot.gamma * shot.gain * (1 - shot.vignette * radius**2)[..., None]
    noisy = light * 255 + rng.normal(scale=shot.noise, size=light.shape) if shot.noise else light * 255
    return noisy.round().clip(0, 255).astype(np.uint8), depth


def _cameras(kind: Kind, size: tuple[int, int], rng: np.random.Generator, *, turned_away: bool) -> list[Camera]:
    is_wide = kind == "wide"
    focal = (rng.uniform(0.5, 0.65) if is_wide else rng.uniform(0.8, 1.3)) * max(size)
    bends = (-0.16, -0.08) if is_wide else (-0.05, 0.02)
    cameras = [
        Camera(
            size=size, focal=focal, distortion=rng.uniform(*bends), rotation=np.eye(3), translation=np.zeros(3),
            frame=(0, 0, size[0], round(_PHOTO_SHARE * size[1])) if kind == "outpainted" else None,
        )
    ]  # fmt: skip
    for n in range(1 if kind == "single" else 3):
        place = rng.uniform(-1, 1, 3) * (0.9, 0.3, 0.5)
        if kind == "street":
            place = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.1, 0.1), -(n + 1) * 0.7])
        if kind == "closer" and n == 0:
            place = np.array([rng.uniform(-0.2, 0.2), 0.1, 2.0])
        angles = rng.uniform(-1, 1, 3) * (0.06, 0.12, 0.06)
        if turned_away:
            angles[1] = -np.arctan(0.42 * size[1] / focal)  # to the right, since the hole is at the left
        rotation = cv2.Rodrigues(angles)[0]
        scale = rng.uniform(0.8, 1.25)
        other = (round(size[0] * scale), round(size[1] * scale))
        cameras.append(
            Camera(
                size=other,
                focal=focal * scale * rng.uniform(0.9, 1.15),
                distortion=rng.uniform(*bends),
                rotation=rotation,
                translation=-rotation @ place,
            )
        )
    return cameras


def _shot(kind: Kind, number: int, camera: Camera, textures: Sequence[ImageArray], rng: np.random.Generator) -> Shot:
    gain, gamma = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3), rng.uniform(0.9, 1.1)
    if kind == "night" and number:
        gain, gamma = rng.uniform(0.35, 0.5) * np.array([0.8, 0.9, 1.15]), 1.4
    passers: tuple[Quad, ...] = ()
    if kind == "walkers" and number:
        passers = tuple(
            rectangle((rng.uniform(-1, 1), 0.6, rng.uniform(2.5, 3.5)), 0.5, 1.7, 0, draw_texture(textures, rng))
            for _ in range(2)
        )
    return Shot(
        camera=camera,
        gain=gain if number else np.ones(3),
        gamma=gamma if number else 1.0,
        vignette=rng.uniform(0, 0.3),
        blur=rng.uniform(0.3, 0.7),
        noise=rng.uniform(1, 3),
        passers=passers,
    )


def _middle(mask: NDArray[np.bool_], camera: Camera) -> NDArray[np.float64]:
    """Return the ray, at depth 1, that the target's camera sends through the middle of the hole."""
    rows, columns = np.nonzero(mask)
    return np.append(camera.rays(np.array([columns.mean(), rows.mean()])), 1.0)


def _with_moved_box(
    shots: Sequence[Shot],
    ray: NDArray[np.float64],
    textures: Sequence[ImageArray],
    rng: np.random.Generator,
    *,
    together: bool,
) -> list[Shot]:
    """Stand a box by the hole in the target, and aside of it in the references."""
    depth = rng.uniform(2.8, 4)
    middle = ray * depth + (rng.uniform(-0.4, 0.4), 0, 0)
    thing = box(middle, rng.uniform(0.7, 1.1), rng.uniform(0.9, 1.6), rng.uniform(-0.5, 0.5), textures, rng)
    moves = [np.zeros(3), *(rng.choice([-1, 1]) * rng.uniform((0.6, 0, -0.3), (1.2, 0, 0.5)) for _ in shots[1:])]
    if together:
        moves[1:] = [moves[1]] * len(shots[1:])
    return [replace(shot, passers=tuple(moved(thing, by))) for shot, by in zip(shots, moves, strict=True)]


def _hide(
    mask: NDArray[np.bool_],
    shots: Sequence[Shot],
    textures: Sequence[ImageArray],
    rng: np.random.Generator,
    *,
    turned_away: bool,
) -> tuple[NDArray[np.bool_], list[Shot]]:
    """Hide the hole from the references: it lies beside what they show, or a thing stands before it in all of them."""
    if turned_away:
        height, width = mask.shape
        beside = np.zeros_like(mask)
        top = round(rng.uniform(0.1, 0.3) * height)
        beside[top : round(rng.uniform(0.7, 0.9) * height), : round(rng.uniform(0.2, 0.3) * width)] = True
        return beside, list(shots)
    depth = rng.uniform(2.2, 2.8)
    rows, columns = np.nonzero(mask)
    focal = shots[0].camera.focal
    width, height = (1.5 * (np.ptp(axis) + 1) / focal * depth for axis in (columns, rows))
    thing = rectangle(_middle(mask, shots[0].camera) * depth, width, height, 0, draw_texture(textures, rng))
    return mask, [shots[0], *(replace(shot, passers=(thing,)) for shot in shots[1:])]


def _hole(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw an ellipse or a strip."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    if rng.random() < 0.3:
        mask[:, : round(0.3 * width)] = 1
        return mask > 0
    axes = round(rng.uniform(0.13, 0.22) * width), round(rng.uniform(0.13, 0.24) * height)
    centre = (
        int(rng.uniform(axes[0] + 20, width - axes[0] - 20)),
        int(rng.uniform(axes[1] + 20, height - axes[1] - 20)),
    )
    return cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1) > 0


def _visible(depth: NDArray[np.float64], target: Camera, other: Camera, seen: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which of the target's pixels another photo shows, by its own depth: the same thing at the same place."""
    pixels = np.stack(np.meshgrid(np.arange(target.size[1]), np.arange(target.size[0])), axis=-1).astype(float)
    place, far = other.project(target.unproject(pixels, depth))
    at = np.rint(place).astype(int)
    inside = (at >= 0).all(axis=2) & (at[..., 0] < other.size[1]) & (at[..., 1] < other.size[0]) & (far > 0)
    nearest = seen[at[..., 1].clip(0, other.size[0] - 1), at[..., 0].clip(0, other.size[1] - 1)]
    return inside & (np.abs(far / nearest - 1) < 0.03)


def read_textures(folder: Path, *, limit: int = 40) -> list[ImageArray]:
    """Read the first photos of a folder. Files that cannot be read are named and left out."""
    photos: list[ImageArray] = []
    for path in sorted(p for p in folder.iterdir() if find_fault(p) is None):
        if len(photos) == limit:
            break
        try:
            photos.append(read_image(path, path.name)[0])
        except SceneError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not photos:
        raise SystemExit(f"{str(folder)!r} has no photo that can be read; legal: a folder of photos")
    return photos


def main(
    textures: tyro.conf.Positional[Path],
    output: tyro.conf.Positional[Path],
    /,
    kinds: tuple[Kind, ...] = KINDS,
    num_scenes: int = 4,
) -> None:
    photos = read_textures(textures)
    for kind in kinds:
        for seed in range(num_scenes):
            planted = plant(kind, photos, seed)
            folder = output / f"{kind}-{seed}"
            planted.scene.save(folder)
            write_png(folder / "target" / "gt.png", planted.truth)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
