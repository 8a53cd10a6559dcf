"""The photos that pre-training keeps out."""

from pathlib import Path

from realfill.io.images import ImageArray, read_image

HOLDOUT = Path(__file__).parent / "holdout.txt"


def load_held_out(folder: Path) -> list[ImageArray]:
    """Read the photos that ``holdout.txt`` names and that are in a folder or its subfolders.

    Raises:
        FileNotFoundError: the folder holds none of them.
    """
    lines = HOLDOUT.read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    paths = {path.name: path for path in sorted(folder.rglob("*"))}
    photos = [read_image(paths[name], name)[0] for name in names if name in paths]
    if not photos:
        raise FileNotFoundError(f"{str(folder)!r} contains none of the {len(names)} photos that {HOLDOUT} names")
    return photos
