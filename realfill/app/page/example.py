"""The example: the demo's scene as the photos of a visit."""

from __future__ import annotations

from realfill.app.demo import demo_scene
from realfill.app.page.holes import save_hole
from realfill.app.page.uploads import drop_reference, keep_photo
from realfill.app.page.visits import Visit
from realfill.io.writing import write_png


def take_example(visit: Visit) -> None:
    """Replace the photos of a visit by the demo's: the left view with its hole, and the right view."""
    scene, _ = demo_scene()
    folder = visit.folder / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    for upload in list(visit.references):
        drop_reference(visit, upload.file)
    write_png(folder / "target.png", scene.target)
    write_png(folder / "reference.png", scene.references[0])
    keep_photo(visit, folder / "target.png", "target", "left view of a motorcycle, with a hole")
    keep_photo(visit, folder / "reference.png", "reference", "right view of the motorcycle")
    save_hole(visit, scene.mask)
