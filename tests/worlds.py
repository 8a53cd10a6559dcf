"""A planar world drawn at random, and photos of it by known homographies."""

import cv2
import numpy as np
from helpers import make_photo

SIZE = (150, 200)
HEIGHT, WIDTH = SIZE


def make_world(seed=0, size=(300, 400)):
    """Draw smooth patches with fine detail that SIFT can match, (H, W, 3) uint8 in [40, 215]."""
    rng = np.random.default_rng(seed)
    image = make_photo(*size, seed).astype(np.float32)
    fine = rng.random((size[0] // 3, size[1] // 3, 1)).astype(np.float32)
    image += 160 * (cv2.resize(fine, size[::-1], interpolation=cv2.INTER_CUBIC)[:, :, None] - 0.5)
    return image.clip(40, 215).astype(np.uint8)


WORLD = make_world()
TARGET = WORLD[75:225, 100:300].copy()
OFFSET = np.array([[1, 0, -100], [0, 1, -75], [0, 0, 1.0]])  # from the world to the target


def view(matrix, size=SIZE, world=WORLD):
    """Take a photo of the world; ``matrix`` maps pixels of the target to pixels of the photo."""
    return cv2.warpPerspective(world, np.array(matrix, float) @ OFFSET, size[::-1], flags=cv2.INTER_CUBIC)


def turned(degrees, scale=1.0):
    """Rotate and scale about the centre of the target."""
    return np.vstack([cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, scale), (0, 0, 1)])


SHIFTED = ((1, 0, 9), (0, 1, -6), (0, 0, 1))
VIEWS = {
    "same": np.eye(3),
    "shifted": SHIFTED,
    "turned": turned(35),
    "closer": turned(5, 1.4),
    "further": turned(-8, 0.7),
    "aslant": ((1.1, 0.08, -12), (0.02, 1.05, -4), (4e-4, 3e-4, 1)),
}


def blob(center=(100, 75), axes=(30, 22)):
    """Draw an elliptic hole mask of the target's size."""
    return cv2.ellipse(np.zeros(SIZE, np.uint8), center, axes, 0, 0, 360, 1, -1) > 0
