"""Filling: several windows, coarse to fine; known pixels stay exact, hidden pixels have no influence."""

import dataclasses
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import make_photo, make_profile
from PIL import Image

from realfill import Completion, FitConfig, RankConfig, SampleConfig, Scene, complete
from realfill.config import WindowConfig
from realfill.errors import RealFillWarning
from realfill.filling import fill as filling
from realfill.filling.fill import choose_parts, fill_hole
from realfill.io.photos import Photo
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.pipeline import check_ready
from realfill.results.provenance import hash_scene

STAGED = SampleConfig(
    num_samples=2, scheduler="dpm++", num_inference_steps=2, stage_steps=(2, 1), stage_strength=(0.6, 0.4)
)
WINDOW = WindowConfig(num_stages=4)
WINDOWS = WINDOW.resolve({})
ONE_STAGE = WindowConfig()


def two_holes(shape=(150, 170)):
    mask = np.zeros(shape, bool)
    mask[:60, :50] = True
    mask[-30:, -31:] = True
    return mask


def paint(target, mask, base, config=STAGED, window=WINDOW):
    return complete(Scene([], target, mask), base, config, window=window, progress=False)


def fill(target, mask, base, config=STAGED, window=WINDOWS, **options):
    """Call ``fill_hole`` itself with settings from a config."""
    inpainter = StableDiffusionInpainter.load(base)
    settings = config.resolve(inpainter.card.sample)
    return fill_hole(inpainter, Scene([], target, mask), settings, window, progress=False, **options)


def test_holes_far_apart_are_filled_in_windows_of_their_own(tiny_sd):
    inpainter, target, mask = StableDiffusionInpainter.load(tiny_sd), make_photo(150, 170), two_holes()
    parts = choose_parts(inpainter, Scene([], target, mask), WINDOWS)
    assert [len(part.windows) for part in parts] == [3, 2]
    completions = paint(target, mask, tiny_sd)
    assert [c.seed for c in completions] == [0, 1]
    for completion in completions:
        assert (completion.image == target)[~mask].all()
        for part in parts:
            top, left, bottom, right = part.hole
            hole = np.zeros_like(mask)
            hole[top:bottom, left:right] = mask[top:bottom, left:right]
            assert (completion.image != target)[hole].mean() > 0.5
    assert (completions[0].image != completions[1].image)[mask].mean() > 0.5


@pytest.mark.parametrize(("shape", "box"), [((97, 583), (0, 200, 97, 331)), ((583, 97), (301, 5, 583, 96))])
def test_a_panorama_stays_exact_in_all_stages_and_keeps_its_aspect(shape, box, tiny_sd):
    target, mask = make_photo(*shape), np.zeros(shape, bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    inpainter = StableDiffusionInpainter.load(tiny_sd)
    (part,) = choose_parts(inpainter, Scene([], target, mask), WINDOWS)
    assert len(part.windows) > 1
    for window in part.windows:
        down, across = (b / s for b, s in zip(window.box_size, window.size, strict=True))
        assert 1 / 1.1 < down / across < 1.1
    image = paint(target, mask, tiny_sd)[0].image
    assert (image == target)[~mask].all() and (image != target)[mask].any(axis=-1).mean() > 0.9


def test_a_distant_hole_has_no_influence(tiny_sd):
    target, both = make_photo(150, 170), two_holes()
    one = both.copy()
    one[90:] = False
    image, alone = (paint(target, mask, tiny_sd)[0].image.astype(int) for mask in (both, one))
    assert np.abs(image - alone)[one].max() <= 2


@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v"])
@pytest.mark.parametrize("scheduler", ["ddpm", "dpm++", "euler"])
def test_pixels_under_the_hole_have_no_influence_on_any_stage(base, scheduler, request):
    base, target, mask = request.getfixturevalue(base), make_photo(150, 170), two_holes()
    config = dataclasses.replace(STAGED, scheduler=scheduler, num_samples=1)
    images = [
        paint(np.where(mask[:, :, None], content, target).astype(np.uint8), mask, base, config)[0].image
        for content in (0, 255, make_photo(150, 170, 4))
    ]
    assert all((image[mask] == images[0][mask]).all() for image in images)


def test_a_refined_sample_is_independent_of_its_batch(tiny_sd):
    target, mask = make_photo(150, 170), two_holes()
    one, many = (paint(target, mask, tiny_sd, dataclasses.replace(STAGED, batch_size=n)) for n in (1, 7))
    assert all(np.abs(a.image.astype(int) - b.image).max() <= 2 for a, b in zip(one, many, strict=True))


def test_a_target_of_16_bits_is_filled_in_16_bits(tiny_sd):
    target = make_photo(150, 170).astype(np.uint16) * 257
    mask = two_holes()
    best = paint(target, mask, tiny_sd).best
    assert best.photo.pixels.dtype == np.uint16 and (best.photo.pixels == target)[~mask].all()
    assert len(np.unique(best.filled % 257)) > 8


def test_strength_controls_how_much_a_stage_changes():
    target, mask = make_photo(300, 300), np.zeros((300, 300), bool)
    mask[60:240, 60:240] = True
    grain = np.random.default_rng(0).integers(-25, 26, target.shape)
    target = (target.astype(int) + grain).clip(0, 255).astype(np.uint8)
    config = SampleConfig(num_samples=1, scheduler="dpm++", num_inference_steps=4, stage_steps=(3,))
    images = []
    for stages, strength in ((1, 0.5), (2, 0.3), (2, 0.9)):
        staged = dataclasses.replace(config, stage_strength=(strength,))
        images.append(
            paint(target, mask, "mini", staged, WindowConfig(num_stages=stages))[0].image[80:220, 80:220].astype(float)
        )
    before, little, much = images
    assert 0 < np.abs(little - before).mean() < 0.7 * np.abs(much - before).mean()


def test_grain_is_matched_in_the_hole_and_reproducible(tiny_sd):
    grain = np.random.default_rng(0).normal(0, 8, (150, 170, 3))
    target, mask = (make_photo(150, 170) * 0.5 + 60 + grain).round().astype(np.uint8), two_holes()
    plain, grainy, again = (
        paint(target, mask, tiny_sd, dataclasses.replace(STAGED, num_samples=1, match_grain=m))[0].image
        for m in (False, True, True)
    )
    assert (grainy == again).all() and (grainy == target)[~mask].all()
    assert (grainy.astype(int) - plain)[mask].std() > 2


_LARGE = """
import resource, sys
import numpy as np
from realfill import SampleConfig, Scene, complete
from realfill.config import WindowConfig
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter

height, width, stages, top, left, bottom, right = map(int, sys.argv[1:])
rows, columns = np.indices((height, width), np.uint16)
target = np.stack([rows % 251, columns % 241, (rows + columns) % 239], axis=2).astype(np.uint8)
del rows, columns
mask = np.zeros((height, width), bool)
mask[top:bottom, left:right] = True
scene = Scene([], target, mask)
StableDiffusionInpainter.load("mini")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
config = SampleConfig(
    num_samples=1, num_inference_steps=1, stage_steps=(1,), tile_overlap=0.1, batch_size=4
)
image = complete(scene, "mini", config, window=WindowConfig(num_stages=stages), progress=False).best.image
assert (image == target)[~mask].all() and (image != target)[mask].any()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)
"""


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(4000, 6000, (500, 300, 1600, 1395)), (8661, 5773, (8060, 5172, 8661, 5773))],
    ids=["24 megapixels", "50 megapixels, a hole at the corner"],
)
def test_a_large_photo_stays_exact_in_bounded_memory(height, width, box):
    """Completing adds a few copies of the target, the window and a batch of tiles to the memory of the process."""
    words = [str(x) for x in (height, width, 9, *box)]
    peak = subprocess.run([sys.executable, "-c", _LARGE, *words], check=True, capture_output=True, text=True).stdout
    copies = height * width * 3 / 1e6
    print(f"{float(peak):.0f} MB, the target {copies:.0f} MB")
    assert float(peak) < 8 * copies  # three of them are what the script compares


def test_a_stage_starts_from_the_photo_and_in_the_hole_from_the_stage_before(tiny_sd, monkeypatch):
    calls, real = [], filling.sample
    monkeypatch.setattr(filling, "sample", lambda *a, **o: calls.append((a, o, real(*a, **o))) or calls[-1][2])
    target, mask = make_photo(150, 170), two_holes()
    paint(target, mask, tiny_sd, dataclasses.replace(STAGED, num_samples=1))
    later = [(image, hole, o["start"]) for (_, image, hole), o, _ in calls if o["start"] is not None]
    assert len(later) == 3
    for image, hole, start in later:
        outside = ~hole.expand_as(start)
        assert torch.equal(start[outside], image[outside])
        assert (start != image)[~outside].any()


def test_out_of_memory_halves_the_tiles_in_a_batch(tiny_sd, monkeypatch):
    sizes, real = [], filling.sample

    def scarce(*args, start, batch_size, **options):
        if start is not None:
            sizes.append(batch_size)
            if batch_size > 1:
                raise torch.OutOfMemoryError
        return real(*args, start=start, batch_size=batch_size, **options)

    monkeypatch.setattr(filling, "sample", scarce)
    target, mask = make_photo(150, 170), two_holes()
    with pytest.warns(RealFillWarning, match="out of memory"):
        paint(target, mask, tiny_sd, dataclasses.replace(STAGED, num_samples=1, batch_size=64, scheduler="ddpm"))
    assert sizes[0] == 64 and sizes[1] <= 20 and sizes[-1] == 1
    assert all(later == max(1, earlier // 2) for earlier, later in pairwise(sizes[1:]) if earlier > 1)


def test_a_redone_part_is_filled_in_the_windows_of_the_whole_hole(tiny_sd):
    inpainter, target, mask = StableDiffusionInpainter.load(tiny_sd), make_photo(150, 170), two_holes()
    scene = Scene([], target, mask)
    whole = choose_parts(inpainter, scene, WINDOWS)
    piece = np.zeros_like(mask)
    piece[5:15, 8:20] = True
    again = Completion.from_image(target, scene, 0).redo(piece)
    assert choose_parts(inpainter, again, WINDOWS) == whole[:1]
    bare = choose_parts(inpainter, Scene([], target, piece), WINDOWS)
    assert bare[0].windows[0].scale < whole[0].windows[0].scale
    assert hash_scene(again) != hash_scene(Scene([], target, piece))  # their fits differ
    other = np.zeros_like(mask)
    other[140:145, 145:150] = True
    third = Completion.from_image(target, again, 1).redo(other, scene)
    assert choose_parts(inpainter, third, WINDOWS) == whole[1:]
    assert choose_parts(inpainter, third.dilated(3), WINDOWS)[0].windows[0].scale == whole[1].windows[0].scale
    image = complete(again, tiny_sd, STAGED, window=WINDOW, progress=False)[0].image
    assert (image == target)[~piece].all() and (image != target)[piece].any()


@pytest.mark.parametrize("kind", ["wide", "wide grey", "wide 16"])
def test_a_sample_matches_known_colours_outside_of_srgb(tiny_sd, kind, monkeypatch):
    """A sample has sRGB colours; blending in the file's own colours removes the difference."""
    dtype = np.uint16 if "16" in kind else np.uint8
    colour = np.array([150] if "grey" in kind else [20, 230, 30]) * (257 if "16" in kind else 1)
    pixels = np.broadcast_to(colour, (90, 100, len(colour))).astype(dtype)
    photo = Photo(pixels=pixels, icc_profile=make_profile(grey="grey" in kind))
    mask = np.zeros((90, 100), bool)
    mask[30:60, 30:70] = True
    sample = torch.from_numpy(photo.srgb()[:1, :1].copy()).permute(2, 0, 1)[None] / 255
    monkeypatch.setattr(filling, "sample", lambda inpainter, image, *_, **__: sample.expand_as(image).clone())
    scene = Scene([], Image.new("RGB", (100, 90)), mask).retargeted(photo, mask, {}, whole_hole=mask)
    config = dataclasses.replace(STAGED, num_samples=1)
    filled = complete(scene, tiny_sd, config, progress=False)[0].photo.pixels.astype(int)
    difference = np.abs(filled - colour)[mask].max() / (257 if "16" in kind else 1)
    assert difference <= 2


def test_more_samples_than_memory_holds_are_refused_before_the_start(tiny_sd, monkeypatch):
    target, mask = make_photo(150, 170), two_holes()
    each = 3 * int(mask.sum())
    monkeypatch.setattr(filling, "free_bytes", lambda _: 2 * each)
    assert len(paint(target, mask, tiny_sd, window=ONE_STAGE)) == 2
    monkeypatch.setattr(filling, "free_bytes", lambda _: 2 * each - 1)
    with pytest.raises(ValueError, match=r"num_samples is 2, .* up to 1"):
        paint(target, mask, tiny_sd)
    scene = Scene([target], target, mask)
    with pytest.raises(ValueError, match="num_samples is 2"):
        check_ready(
            scene,
            FitConfig(base=tiny_sd),
            STAGED,
            ranking=RankConfig(score_by="keypoints", matcher="sift"),
            progress=False,
        )


@pytest.mark.parametrize("window", [WINDOWS, ONE_STAGE.resolve({})])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_each_denoising_step_of_each_seed_is_reported(tiny_sd, window, batch_size):
    reports = []
    config = dataclasses.replace(STAGED, num_samples=3, batch_size=batch_size)
    filled = fill(make_photo(150, 170), two_holes(), tiny_sd, config, window, on_step=reports.append)
    assert sorted(filled) == [0, 1, 2]
    assert {(r.phase, r.num_steps) for r in reports} == {("sample", reports[-1].step)}
    steps = [0, *(r.step for r in reports)]
    assert all(0 < later - earlier <= batch_size for earlier, later in pairwise(steps))
    assert reports[-1].left_s == 0 < reports[0].left_s


def test_false_stops_before_the_next_step_and_finished_seeds_are_kept(tiny_sd):
    target, mask = make_photo(150, 170), two_holes()
    mask[90:] = False
    config = dataclasses.replace(STAGED, num_samples=3, batch_size=2)
    options = {"config": config, "window": WindowConfig(num_stages=2).resolve({})}
    ends, counts = [], []
    expected = fill(target, mask, tiny_sd, **options, on_step=lambda progress: ends.append(progress.step))
    for end in ends:
        steps = []

        def stop(progress, end=end, steps=steps):
            steps.append(progress.step)
            return progress.step < end

        filled = fill(target, mask, tiny_sd, **options, on_step=stop)
        assert steps[-1] == end
        assert all(np.array_equal(values, expected[seed]) for seed, values in filled.items())
        counts.append(len(filled))
    assert counts == sorted(counts) and set(counts) == {0, 1, 2, 3}


def test_a_seed_is_finished_before_the_next_batch_starts(tiny_sd):
    config = dataclasses.replace(STAGED, num_samples=2, batch_size=1)
    filled = fill(make_photo(150, 170), two_holes(), tiny_sd, config, on_step=lambda p: p.step <= p.num_steps // 2)
    assert list(filled) == [0]


def test_out_of_memory_does_not_change_the_number_of_reported_steps(tiny_sd, monkeypatch):
    real, config = filling.sample, dataclasses.replace(STAGED, num_samples=3, batch_size=3, scheduler="ddpm")

    def scarce(*args, seeds, on_step, **options):
        samples = real(*args, seeds=seeds, on_step=on_step, **options)
        if len(seeds) > 1:
            raise torch.OutOfMemoryError
        return samples

    target, mask, reports = make_photo(150, 170), two_holes(), []
    expected = fill(target, mask, tiny_sd, config)
    monkeypatch.setattr(filling, "sample", scarce)
    with pytest.warns(RealFillWarning, match="continuing with 1 at a time"):
        filled = fill(target, mask, tiny_sd, config, on_step=reports.append)
    assert reports[-1].step == reports[-1].num_steps
    assert all(np.abs(filled[seed].astype(int) - expected[seed]).max() <= 2 for seed in expected)
