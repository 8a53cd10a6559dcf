"""Measure time and memory of a composite and of a completion without a fit on large photos, in files of 16 bits.

    python examples/large_photos.py --megapixels 24 50

A planted scene of ``planted_3d.py`` is enlarged, gets grain at its full size, and is written as TIFF files with a
profile: 16 bits for the target, 8 for the references. Each row is a process of its own, and its memory is the peak
that the system counted. The script also checks that known pixels, depth and profile are those of the target's file.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import cv2
import numpy as np
import tifffile
import tyro
from numpy.typing import NDArray
from PIL import ImageCms
from planted_3d import plant
from skimage import data

from realfill import GeometryConfig, SampleConfig, Scene, complete
from realfill.geometry.composite import composite
from realfill.io.images import ImageArray
from realfill.io.writing import write_png

Work = Literal["load", "composite", "complete"]
_SIDES = (600, 800)  # of the planted scene, before it is enlarged
_GRAIN = 2.0  # standard deviation in levels


def make(folder: Path, megapixels: float, num_references: int, bits: int) -> None:
    """Write an enlarged scene to a folder."""
    planted = plant("boxes", [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()], 2, size=_SIDES)
    factor = float(np.sqrt(megapixels * 1e6 / (_SIDES[0] * _SIDES[1])))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (folder / "target").mkdir(parents=True)
    (folder / "ref").mkdir()
    target = enlarge(planted.truth, factor, bits)
    write_tiff(folder / "target" / "target.tif", target, profile)
    mask = cv2.resize(planted.scene.mask.view(np.uint8), target.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    write_png(folder / "target" / "mask.png", np.repeat(255 * mask[..., None], 3, axis=2))
    for number in range(num_references):
        photo = planted.scene.references[number % len(planted.scene.references)]
        write_tiff(folder / "ref" / f"{number}.tif", enlarge(photo, factor, 8), profile)


def enlarge(image: ImageArray, factor: float, bits: int) -> NDArray:
    """Enlarge a photo and add grain."""
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(0)
    levels = 2**bits // 256
    result = np.empty(large.shape, np.uint16 if bits == 16 else np.uint8)
    for top in range(0, len(large), 256):
        rows = large[top : top + 256].astype(np.float32)
        noisy = rows + rng.normal(scale=_GRAIN, size=rows.shape).astype(np.float32)
        result[top : top + 256] = (noisy * levels).clip(0, 2**bits - 1)
    return result


def write_tiff(path: Path, image: NDArray, profile: bytes) -> None:
    tifffile.imwrite(path, image, photometric="rgb", iccprofile=profile, metadata=None)


def work(folder: Path, what: Work) -> None:
    """Do the work once, check the result, and print the figures of a row of the table."""
    started = time.monotonic()
    scene = Scene.load(folder)
    loaded = time.monotonic()
    if what == "composite":
        composite(scene.known, scene.mask, scene.references, reference_masks=scene.reference_masks)
    if what == "complete":
        done = complete(scene, "mini", SampleConfig(num_samples=1), geometry=GeometryConfig(), progress=False)
        path = folder.parent / "result.tif"
        done.best.save(path, overwrite=True)
        check(folder / "target" / "target.tif", path, scene.mask)
    seconds = loaded - started, time.monotonic() - loaded, time.process_time()
    print(" | ".join(f"{value:.0f}" for value in seconds), f"| {peak_bytes() / 1e9:.2f}", flush=True)


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far; Linux only."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def check(source: Path, result: Path, mask: NDArray[np.bool_]) -> None:
    """Check that a result keeps what is known."""
    with tifffile.TiffFile(source) as one, tifffile.TiffFile(result) as other:
        before, after = one.pages[0], other.pages[0]
        assert before.dtype == after.dtype, (before.dtype, after.dtype)
        assert before.tags["InterColorProfile"].value == after.tags["InterColorProfile"].value
        assert np.array_equal(before.asarray()[~mask], after.asarray()[~mask])


def main(
    megapixels: Sequence[float] = (12, 24, 50),
    num_references: int = 3,
    bits: Literal[8, 16] = 16,
    works: tuple[Work, ...] = ("load", "composite", "complete"),
    folder: Path | None = None,
    what: Work | None = None,
) -> None:
    """Print the table.

    Args:
        megapixels: sizes of the target.
        num_references: number of references.
        bits: depth of the target's file.
        works: what is measured.
        folder: of the one scene that a process works on; not for people.
        what: the one thing that it does; not for people.
    """
    if folder is not None and what is not None:
        work(folder, what)
        return
    print("| megapixels | work | s to read | s | processor s | peak memory (GB) |\n|---|---|---|---|---|---|")
    for size in megapixels:
        with TemporaryDirectory() as place:
            make(Path(place) / "scene", size, num_references, bits)
            for each in works:
                command = [sys.executable, __file__, "--folder", str(Path(place) / "scene"), "--what", each]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - this file
                print(f"| {size:g} | {each} | {done.stdout.splitlines()[-1]} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
