"""Pictures and sentences of a flow for people: the hole on its photo, the curve of a fit, what a job does now."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np

from realfill.app.flow.choice import Choice
from realfill.app.flow.job import Job
from realfill.io.images import ImageArray, MaskArray, fit_within, resize
from realfill.io.photos import put
from realfill.results.completion import Completion
from realfill.results.evidence import Evidence
from realfill.results.pictures import evidence_colours
from realfill.scene.masks import Box
from realfill.scene.scene import Scene
from realfill.segmentation.preview import draw_instances, draw_mask

PREVIEW_PX = 1000
EVIDENCE_COLOURS = "Green and blue: photographed; yellow: corrected; red: invented."
_CANVAS_COLOURS = ((255, 214, 214), (255, 150, 150))  # of the stripes where the canvas grows
_STRIPE_PX = 12
_CURVE = (480, 130)  # width and height of the curve's drawing area in its own units
_CURVE_POINTS = 240


def draw_choice(choice: Choice, *, box: Box | None = None) -> ImageArray:
    """Draw the target with the numbered instances, the hole in red and the canvas around it, (h, w, 3) uint8.

    Args:
        choice: what is chosen.
        box: a box to outline, (top, left, bottom, right) in pixels of the target.

    Raises:
        SceneError: there is no target, or nothing is left of the hole.
    """
    hole, picture = choice.require_hole(), choice.target.preview
    assert picture is not None
    if hole.instances:
        picture = draw_instances(picture, hole.instances)
    reading = hole.reading()
    if reading is not None:
        picture = draw_mask(picture, shrunk(reading.mask, picture.shape[:2]))
    if box is not None:
        picture = draw_box(picture, box, choice.target.size)
    return draw_canvas(picture, choice.margins, choice.target.size)


def describe_choice(choice: Choice) -> str:
    """Say in a sentence what is missing.

    Raises:
        SceneError: there is no target, or nothing is left of the hole.
    """
    height, width = choice.target.size
    reading, grows = choice.require_hole().reading(), any(choice.margins.values())
    parts = [] if reading is None else [f"{_percent(float(reading.mask.mean()))} of the photo ({reading.source})"]
    if grows:
        wide = width + choice.margins["left"] + choice.margins["right"]
        tall = height + choice.margins["top"] + choice.margins["bottom"]
        parts.append(f"what a canvas of {wide} x {tall} pixels adds to the photo's {width} x {height}")
    return f"Missing: {'; '.join(parts)}." if parts else "Nothing is marked as missing yet."


def draw_box(picture: ImageArray, box: Box, size: tuple[int, int]) -> ImageArray:
    """Outline a box on a copy of a picture.

    Args:
        picture: (h, w, 3) uint8.
        box: (top, left, bottom, right) in pixels of the photo.
        size: (height, width) of the photo.
    """
    scale = picture.shape[1] / size[1]
    top, left, bottom, right = (round(side * scale) for side in box)
    outlined = picture.copy()
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.rectangle(outlined, (left, top), (right - 1, bottom - 1), colour, width)
    return outlined


def draw_canvas(picture: ImageArray, margins: Mapping[str, int], size: tuple[int, int]) -> ImageArray:
    """Put a picture of a photo on the larger canvas, which is striped.

    Args:
        picture: (h, w, 3) uint8.
        margins: pixels by which the photo's canvas grows.
        size: (height, width) of the photo.
    """
    if not any(margins.values()):
        return picture
    scale = picture.shape[1] / size[1]
    left, right, top, bottom = (round(margins[side] * scale) for side in ("left", "right", "top", "bottom"))
    tall, wide = picture.shape[0] + top + bottom, picture.shape[1] + left + right
    rows, columns = np.mgrid[:tall, :wide]
    canvas = np.array(_CANVAS_COLOURS, np.uint8)[((rows + columns) // _STRIPE_PX) % 2]
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return resize(canvas, fit_within((tall, wide), PREVIEW_PX))


def shrunk(mask: MaskArray, size: tuple[int, int]) -> MaskArray:
    """Shrink or enlarge a mask for a picture; a hole of one pixel stays visible."""
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) > 0


def draw_losses(losses: Sequence[tuple[int, float]]) -> str:
    """Draw the losses of a fit as SVG, in the colour of the text around it; empty for fewer than two.

    A faint line shows each step, a bold one the mean of the last twentieth.
    """
    if len(losses) < 2:
        return ""
    steps, values = (np.array(column, np.float64) for column in zip(*losses, strict=True))
    count = max(1, len(values) // 20)
    shown = np.unique(np.linspace(0, len(values) - 1, _CURVE_POINTS).round().astype(int))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    firsts = np.maximum(np.arange(1, len(values) + 1) - count, 0)
    means = (sums[1:] - sums[firsts]) / (np.arange(1, len(values) + 1) - firsts)
    top = float(np.quantile(values, 0.99)) or 1.0
    width, height = _CURVE

    def line(series: np.ndarray) -> str:
        x = (steps[shown] - steps[0]) / (steps[-1] - steps[0]) * width
        y = height * (1 - np.clip(series[shown] / top, 0, 1))
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    label = f"Loss of the fit from step {steps[0]:.0f} to {steps[-1]:.0f}: the mean is now {means[-1]:.3f}"
    stroke = '<polyline fill="none" stroke="currentColor" points="{}" stroke-opacity="{}" stroke-width="{}"/>'
    return (
        f'<svg role="img" aria-label="{label}" viewBox="-4 -4 {width + 8} {height + 26}" width="100%" '
        f'style="max-width:{width}px">{stroke.format(line(values), 0.25, 1)}'
        f"{stroke.format(line(means), 1, 2)}"
        f'<path d="M0 {height}H{width}" stroke="currentColor" stroke-opacity="0.4"/>'
        f'<g fill="currentColor" font-size="12"><text y="{height + 16}">step {steps[0]:.0f}</text>'
        f'<text x="{width}" y="{height + 16}" text-anchor="end">step {steps[-1]:.0f}, mean loss {means[-1]:.3f}</text>'
        "</g></svg>"
    )


def describe_job(job: Job, num_before: int = 0) -> str:
    """Say in a sentence what a job does now, and how long it still takes.

    Args:
        job: the job.
        num_before: the number of jobs that run or wait before it.
    """
    if not job.is_active:
        return job.message
    if job.state == "waiting" and not job.is_ending:
        return f"{job.title}: waiting, {num_before} job{'s' if num_before != 1 else ''} before this one."
    parts, state = [f"{job.title}: {job.phase}"], job.progress
    if state is not None and not job.is_ending:
        parts.append(f"{state.step} %" if state.phase == "composite" else f"step {state.step} of {state.num_steps}")
        if state.phase == "fit" and state.loss is not None:
            parts.append(f"loss {state.loss:.3g}")
        if state.left_s is not None and state.step < state.num_steps:
            parts.append(f"about {describe_time(state.left_s)} left")
    return f"{', '.join(parts)}."


def describe_warnings(warnings: Iterable[str]) -> list[str]:
    """Turn warnings of the library into sentences, each once."""
    return [f"Note: {warning.rstrip('.')}." for warning in dict.fromkeys(warnings)]


def share_done(job: Job) -> float:
    """Return how much of its current work a job has done, from 0 to 1."""
    if job.state == "done":
        return 1.0
    state = job.progress
    return 0.0 if state is None else min(1.0, state.step / max(1, state.num_steps))


def describe_time(seconds: float) -> str:
    """Write a duration in the unit that people would use."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def evidence_map(scene: Scene, evidence: Evidence) -> ImageArray:
    """Colour the hole of a scene by what its pixels rest on, over the target in grey, (h, w, 3) uint8."""
    colours = np.zeros_like(scene.target)
    put(colours, evidence.mask, evidence_colours(evidence))
    size = fit_within(scene.mask.shape, PREVIEW_PX)
    grey = resize(scene.target, size).mean(axis=2, keepdims=True)
    small = cv2.resize(colours, size[::-1], interpolation=cv2.INTER_NEAREST)
    hole = cv2.resize(evidence.mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(hole[:, :, None], small, (0.5 * grey + 127).astype(np.uint8))


def describe_evidence(evidence: Evidence) -> str:
    """Describe the evidence, with the colours of its map."""
    return f"{evidence.describe()}. {EVIDENCE_COLOURS}"


def draw_part(image: ImageArray, hole: MaskArray, part: MaskArray | None) -> ImageArray:
    """Draw a completion (H, W, 3) with the rim of its hole and, in red, the part of it to redo."""
    size = fit_within(hole.shape, PREVIEW_PX)
    picture = resize(image, size).copy()
    if part is not None:
        picture = draw_mask(picture, shrunk(part & hole, size))
    contours = cv2.findContours(shrunk(hole, size).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    return cv2.drawContours(picture, contours, -1, (255, 255, 255), 1)  # type: ignore[return-value]


def describe_completion(completion: Completion, number: int) -> list[str]:
    """Describe a completion in sentences: its place, seed and score; its verdict with the reason.

    Args:
        completion: the completion.
        number: its place, from 0.
    """
    name = "without a model" if completion.seed is None else f"seed {completion.seed}"
    score = "" if completion.score is None else f", score {completion.score:.1f}"
    verdict = completion.verdict
    first = f"{number + 1}: {name}{score}{f', {verdict.kind}' if verdict is not None else ''}."
    if verdict is None:
        return [first]
    return [first, f"{verdict.kind.capitalize()}: {verdict.reason}."]
