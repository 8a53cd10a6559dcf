"""Draw the picture of ``docs/guides/composite.md``: ``python examples/composite_pictures.py docs/composite.jpg``.

The scene is that of the demo, the stereo pair that scikit-image has. Also printed: PSNR and SSIM in the hole, of the
composite alone and of the result without a fit, in which Telea's method fills the rest, and the median confidence.
"""

import sys
from pathlib import Path

import numpy as np

from realfill import complete, draw_composite
from realfill.app.demo import demo_scene
from realfill.benchmark.metrics import psnr, ssim
from realfill.io.images import ImageArray, resize
from realfill.io.photos import Photo
from realfill.io.writing import write_photo
from realfill.pipeline.evidence import composite_of

WIDTH_PX = 880


def main(path: Path) -> None:
    """Write matches, layers, depth, sources, confidence and the composite, two in a row, and print the figures."""
    scene, truth = demo_scene()
    pictures = draw_composite(scene, progress=False)
    found = composite_of(scene)
    if found is None or found.depth is None:
        raise RuntimeError("the demo's photos give no depth")
    image = np.asarray(found.image, np.uint8)
    rows = [
        pictures["matches_0"],
        pictures["layers"],
        beside(pictures["depth"], pictures["sources"]),
        beside(pictures["confidence"], image),
    ]
    sheet = [resize(row, (round(row.shape[0] * WIDTH_PX / row.shape[1]), WIDTH_PX)) for row in rows]
    write_photo(path, Photo(pixels=np.concatenate(sheet)), quality=75)
    without_fit = complete(scene, "telea", progress=False).best
    for name, result in (("composite", image), ("without a fit", without_fit.image)):
        print(f"{name}: {psnr(result, truth, scene.mask):.2f} dB, SSIM {ssim(result, truth, scene.mask):.3f}")
    print(f"median confidence: {np.median(found.confidence[scene.mask]):.2f}")
    if without_fit.evidence is not None:
        print(f"without a fit: {without_fit.evidence.describe()}")


def beside(left: ImageArray, right: ImageArray) -> ImageArray:
    """Put two pictures side by side, at the size of the left one."""
    return np.concatenate([left, resize(right, (left.shape[0], left.shape[1]))], axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
