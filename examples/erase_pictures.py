"""Draw the pictures of ``docs/guides/erase.md``: ``python examples/erase_pictures.py docs/guides/erase.jpg``.

The photo is NASA's portrait of Eileen Collins, public domain, as scikit-image has it.
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data

from realfill import erase_selected, find_instances
from realfill.config.selection import EraseConfig, SelectionConfig
from realfill.io.images import fit_within, resize
from realfill.io.photos import Photo
from realfill.io.writing import write_photo
from realfill.segmentation.preview import draw_instances, draw_mask

SHUTTLE = "338,0,462,272"  # left, top, right, bottom
HEIGHT_PX = 360


def main(path: Path) -> None:
    """Write instances, the mask of the shuttle, and the photo without it, side by side."""
    photo = skimage.data.astronaut()
    found = find_instances(photo, detector="offline")
    result = erase_selected(
        photo, SelectionConfig(fill_box=(SHUTTLE,), detector="offline"), EraseConfig(engine="telea")
    )
    pictures = [draw_instances(photo, found), draw_mask(photo, result.mask), result.image]
    size = fit_within(photo.shape[:2], HEIGHT_PX)
    write_photo(path, Photo(pixels=np.hstack([resize(picture, size) for picture in pictures])), quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
