"""Draw the picture of ``docs/guides/composite.md``: ``python examples/composite_pictures.py docs/composite.jpg``.

The scene is that of the demo, the stereo pair that scikit-image has. Also printed: PSNR and SSIM in the hole, of the
composite alone and of the result without a fit, in which Telea's method fills the rest, and the median confidence.
"""

import sys
from pathlib import Path

import numpy as np

from realfill import complete
from realfill.app.demo import demo_scene
from realfill.benchmark.metrics import psnr, ssim
from realfill.geometry import pictures
from realfill.geometry.composite import composite
from realfill.geometry.correspondences import match_all
from realfill.io.images import ImageArray, resize
from realfill.io.photos import Photo
from realfill.io.writing import write_photo

WIDTH_PX = 880


def main(path: Path) -> None:
    """Write matches, layers, depth, sources, confidence and the composite, two in a row, and print the figures."""
    scene, truth = demo_scene()
    pairs = match_all([scene.known, *scene.references], scene.mask)
    found = composite(scene.known, scene.mask, scene.references, pairs=pairs)
    if found.depth is None:
        raise RuntimeError("the demo's photos give no depth")
    rows = [
        pictures.draw_matches(scene.known, scene.references[0], pairs[0, 1]),
        pictures.draw_layers(found.layers, scene.mask),
        beside(
            pictures.draw_depth(found.depth, scene.mask),
            pictures.draw_sources(found.image, found.source, scene.mask),
        ),
        beside(pictures.draw_confidence(found.image, found.confidence, scene.mask), np.asarray(found.image, np.uint8)),
    ]
    sheet = [resize(row, (round(row.shape[0] * WIDTH_PX / row.shape[1]), WIDTH_PX)) for row in rows]
    write_photo(path, Photo(pixels=np.concatenate(sheet)), quality=75)
    without_fit = complete(scene, "telea", progress=False).best
    for name, image in (("composite", np.asarray(found.image, np.uint8)), ("without a fit", without_fit.image)):
        print(f"{name}: {psnr(image, truth, scene.mask):.2f} dB, SSIM {ssim(image, truth, scene.mask):.3f}")
    print(f"median confidence: {np.median(found.confidence[scene.mask]):.2f}")
    if without_fit.evidence is not None:
        print(f"without a fit: {without_fit.evidence.describe()}")


def beside(left: ImageArray, right: ImageArray) -> ImageArray:
    """Put two pictures side by side, at the size of the left one."""
    return np.concatenate([left, resize(right, (left.shape[0], left.shape[1]))], axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
