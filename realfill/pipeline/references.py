"""The references of a job: matched with the target once per scene, chosen, and shown to the model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from realfill.compute.progress import say
from realfill.config import MAX_FIT_REFERENCES, WindowSettings
from realfill.errors import SceneError
from realfill.geometry.matching import Matches, match_references
from realfill.geometry.selection import Selection, choose_references, survey
from realfill.geometry.smooth import hide
from realfill.geometry.views import warped_views
from realfill.models.diffusion.family import DiffusionFamily, ReferenceView
from realfill.scene.masks import union
from realfill.scene.scene import Scene
from realfill.scene.windows import Part

_selections: WeakKeyDictionary[Scene, Selection] = WeakKeyDictionary()
_matches: WeakKeyDictionary[Scene, list[Matches]] = WeakKeyDictionary()  # references are matched once per scene


def require_references(scene: Scene) -> None:
    """Check that a fit has something to learn from.

    Raises:
        SceneError: the scene has no references.
    """
    if not scene.references:
        raise SceneError(
            "the scene has no references to learn from; add photos of it (to the folder's ref/), or complete it with a "
            "bare base model"
        )


def match(scene: Scene) -> list[Matches]:
    """Match the references with the target, once per scene."""
    if scene not in _matches:
        _matches[scene] = match_references(scene.known, scene.mask, scene.references, scene.reference_masks)
    return _matches[scene]


def select_references(scene: Scene) -> Selection:
    """Choose the references that a fit learns from: up to five, which together show most of the hole.

    All references serve the geometry, whatever their number.
    """
    if scene not in _selections:
        views, hole = survey(scene.known, scene.mask, scene.references, match(scene), scene.reference_masks)
        _selections[scene] = choose_references(views, hole, MAX_FIT_REFERENCES)
    return _selections[scene]


def with_best_references(scene: Scene, use: str, *, progress: bool) -> Scene:
    """Return the scene with at most five references, those that show most of the hole.

    Args:
        scene: the scene with all of its references.
        use: the beginning of the line that names the chosen references, such as ``the fit learns from``.
        progress: print that line if references are left out.
    """
    if len(scene.references) <= MAX_FIT_REFERENCES:
        return scene
    matches, selection = match(scene), select_references(scene)
    say(selection.describe(use) if progress else None)
    chosen = sorted(selection.references)
    scene = scene.with_chosen_references(chosen)
    _matches[scene] = [matches[i] for i in chosen]
    return scene


def show_references(inpainter: DiffusionFamily, scene: Scene, parts: Sequence[Part], windows: WindowSettings) -> None:
    """Give a base model that reads references as conditioning the views of them that the settings name.

    What a mask of a reference leaves out is not shown.
    """
    if not inpainter.sees_references:
        return
    kind, region = windows.reference_views, functools.reduce(union, (part.windows[0].box for part in parts))
    warped = {}
    if kind != "plain" and scene.references:
        warped = warped_views(
            scene.known, scene.mask, scene.references, matches=match(scene), reference_masks=scene.reference_masks,
            region=region, side_px=windows.reference_px,
        )  # fmt: skip
    shown = [hide(*pair) for pair in zip(scene.references, scene.reference_masks, strict=True)]
    plain = {i: image for i, image in enumerate(shown) if kind != "warped" or i not in warped}
    views = [ReferenceView(reference=i, image=image) for named in (plain, warped) for i, image in named.items()]
    inpainter.use_references(views, side_px=windows.reference_px)
