"""Filling: several windows, coarse to fine, and the laws hold for all of it."""

import dataclasses
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import make_photo, make_profile
from PIL import Image

from realfill import Completion, FitConfig, RankConfig, SampleConfig, Scene, complete
from realfill.errors import RealFillWarning
from realfill.filling import hole as filling
from realfill.filling.hole import choose_parts
from realfill.io.photos import Photo
from realfill.models.inpainter import Inpainter
from realfill.pipeline import check_ready
from realfill.provenance import hash_scene

STAGED = SampleConfig(
    num_samples=2, scheduler="dpm++", num_inference_steps=2, num_stages=4, stage_steps=(2, 1), stage_strength=(0.6, 0.4)
)


def two_holes(shape=(150, 170)):
    mask = np.zeros(shape, bool)
    mask[:60, :50] = True
    mask[-30:, -31:] = True
    return mask


def paint(target, mask, base, config=STAGED):
    return complete(Scene([], target, mask), base, config, progress=False)


def test_holes_far_apart_are_filled_each_in_its_windows(tiny_sd):
    inpainter, target, mask = Inpainter.load(tiny_sd), make_photo(150, 170), two_holes()
    parts = choose_parts(inpainter, Scene([], target, mask), STAGED.resolve(inpainter.card.sample))
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
    inpainter = Inpainter.load(tiny_sd)
    (part,) = choose_parts(inpainter, Scene([], target, mask), STAGED.resolve(inpainter.card.sample))
    assert len(part.windows) > 1
    for window in part.windows:
        down, across = (b / s for b, s in zip(window.box_size, window.size, strict=True))
        assert 1 / 1.1 < down / across < 1.1
    image = paint(target, mask, tiny_sd)[0].image
    assert (image == target)[~mask].all() and (image != target)[mask].any(axis=-1).mean() > 0.9


def test_a_hole_is_filled_alike_whether_another_is_far_away_or_not(tiny_sd):
    target, both = make_photo(150, 170), two_holes()
    one = both.copy()
    one[90:] = False
    image, alone = (paint(target, mask, tiny_sd)[0].image.astype(int) for mask in (both, one))
    assert np.abs(image - alone)[one].max() <= 2


@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v"])
@pytest.mark.parametrize("scheduler", ["ddpm", "dpm++", "euler"])
def test_what_lies_under_the_hole_has_no_influence_on_any_stage(base, scheduler, request):
    base, target, mask = request.getfixturevalue(base), make_photo(150, 170), two_holes()
    config = dataclasses.replace(STAGED, scheduler=scheduler, num_samples=1)
    images = [
        paint(np.where(mask[:, :, None], under, target).astype(np.uint8), mask, base, config)[0].image
        for under in (0, 255, make_photo(150, 170, 4))
    ]
    assert all((image[mask] == images[0][mask]).all() for image in images)


def test_a_refined_sample_does_not_depend_on_its_batch(tiny_sd):
    target, mask = make_photo(150, 170), two_holes()
    one, many = (paint(target, mask, tiny_sd, dataclasses.replace(STAGED, batch_size=n)) for n in (1, 7))
    assert all(np.abs(a.image.astype(int) - b.image).max() <= 2 for a, b in zip(one, many, strict=True))


def test_sixteen_bits_and_a_canvas_of_holes(tiny_sd):
    target = make_photo(150, 170).astype(np.uint16) * 257
    mask = two_holes()
    best = paint(target, mask, tiny_sd).best
    assert best.photo.pixels.dtype == np.uint16 and (best.photo.pixels == target)[~mask].all()
    assert len(np.unique(best.filled % 257)) > 8


def test_a_stage_that_starts_from_much_noise_shows_more_detail_and_from_little_leaves_what_was():
    target, mask = make_photo(300, 300), np.zeros((300, 300), bool)
    mask[60:240, 60:240] = True
    grain = np.random.default_rng(0).integers(-25, 26, target.shape)
    target = (target.astype(int) + grain).clip(0, 255).astype(np.uint8)
    config = SampleConfig(num_samples=1, scheduler="dpm++", num_inference_steps=4, stage_steps=(3,))
    images = []
    for stages, strength in ((1, 0.5), (2, 0.3), (2, 0.9)):
        staged = dataclasses.replace(config, num_stages=stages, stage_strength=(strength,))
        images.append(paint(target, mask, "mini", staged)[0].image[80:220, 80:220].astype(float))
    before, little, much = images
    assert (np.diff(much, axis=1) ** 2).mean() > 1.3 * (np.diff(little, axis=1) ** 2).mean()
    assert np.abs(little - before).mean() < 0.7 * np.abs(much - before).mean()


def test_grain_is_matched_in_the_hole_and_a_seed_gives_the_same(tiny_sd):
    grain = np.random.default_rng(0).normal(0, 8, (150, 170, 3))
    target, mask = (make_photo(150, 170) * 0.5 + 60 + grain).round().astype(np.uint8), two_holes()
    plain, grainy, again = (
        paint(target, mask, tiny_sd, dataclasses.replace(STAGED, num_samples=1, match_grain=m))[0].image
        for m in (False, True, True)
    )
    assert (grainy == again).all() and (grainy == target)[~mask].all()
    assert (grainy.astype(int) - plain)[mask].std() > 2


@pytest.mark.parametrize("stages", [1, 2])
def test_sharpness_is_matched_in_the_hole_and_what_lies_under_it_has_no_influence(tiny_sd, stages):
    target, mask = make_photo(150, 170), two_holes()
    config = dataclasses.replace(STAGED, num_samples=1, num_stages=stages)
    plain, sharp = (paint(target, mask, tiny_sd, dataclasses.replace(config, match_sharpness=m)) for m in (False, True))
    assert (sharp[0].image == target)[~mask].all()
    assert (sharp[0].image != plain[0].image)[mask].mean() > 0.2
    other = np.where(mask[:, :, None], 255 - target, target)
    again = paint(other, mask, tiny_sd, dataclasses.replace(config, match_sharpness=True))
    assert (again[0].image == sharp[0].image)[mask].all()


_LARGE = """
import resource, sys
import numpy as np
from realfill import SampleConfig, Scene, complete
from realfill.models.inpainter import Inpainter

height, width, stages, top, left, bottom, right = map(int, sys.argv[1:])
rows, columns = np.indices((height, width), np.uint16)
target = np.stack([rows % 251, columns % 241, (rows + columns) % 239], axis=2).astype(np.uint8)
del rows, columns
mask = np.zeros((height, width), bool)
mask[top:bottom, left:right] = True
scene = Scene([], target, mask)
Inpainter.load("mini")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
config = SampleConfig(
    num_samples=1, num_inference_steps=1, num_stages=stages, stage_steps=(1,), tile_overlap=0.1, batch_size=4
)
image = complete(scene, "mini", config, progress=False).best.image
assert (image == target)[~mask].all() and (image != target)[mask].any()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)
"""


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(4000, 6000, (500, 300, 1600, 1395)), (8661, 5773, (8060, 5172, 8661, 5773))],
    ids=["24 megapixels", "50 megapixels, a hole at the corner"],
)
def test_a_large_photo_stays_exact_in_bounded_memory(height, width, box):
    """What completing adds to the process's memory: some copies of the target, the window, and a batch of tiles."""
    words = [str(x) for x in (height, width, 9, *box)]
    made = subprocess.run([sys.executable, "-c", _LARGE, *words], check=True, capture_output=True, text=True).stdout
    copies = height * width * 3 / 1e6
    print(f"{float(made):.0f} MB, the target {copies:.0f} MB")
    assert float(made) < 8 * copies  # three of them are what the script compares


def test_a_stage_starts_from_the_photo_outside_the_hole_and_from_the_stage_before_in_it(tiny_sd, monkeypatch):
    seen, real = [], filling.sample
    monkeypatch.setattr(filling, "sample", lambda *a, **o: seen.append((a, o, real(*a, **o))) or seen[-1][2])
    target, mask = make_photo(150, 170), two_holes()
    paint(target, mask, tiny_sd, dataclasses.replace(STAGED, num_samples=1))
    later = [(image, hole, o["start"]) for (_, image, hole), o, _ in seen if o["start"] is not None]
    assert len(later) == 3
    for image, hole, start in later:
        outside = ~hole.expand_as(start)
        assert torch.equal(start[outside], image[outside])
        assert (start != image)[~outside].any()


def test_memory_running_out_halves_the_tiles_of_a_stage(tiny_sd, monkeypatch):
    tried, real = [], filling.sample

    def scarce(*args, start, batch_size, **options):
        if start is not None:
            tried.append(batch_size)
            if batch_size > 1:
                raise torch.OutOfMemoryError
        return real(*args, start=start, batch_size=batch_size, **options)

    monkeypatch.setattr(filling, "sample", scarce)
    target, mask = make_photo(150, 170), two_holes()
    with pytest.warns(RealFillWarning, match="out of memory"):
        paint(target, mask, tiny_sd, dataclasses.replace(STAGED, num_samples=1, batch_size=64, scheduler="ddpm"))
    assert tried[0] == 64 and tried[1] <= 20 and tried[-1] == 1
    assert all(later == max(1, earlier // 2) for earlier, later in pairwise(tried[1:]) if earlier > 1)


def test_a_part_that_is_redone_is_seen_at_the_scale_of_the_whole_hole(tiny_sd):
    inpainter, target, mask = Inpainter.load(tiny_sd), make_photo(150, 170), two_holes()
    scene, config = Scene([], target, mask), STAGED.resolve(inpainter.card.sample)
    whole = choose_parts(inpainter, scene, config)
    piece = np.zeros_like(mask)
    piece[5:15, 8:20] = True
    again = Completion.from_image(target, scene, 0).redo(piece)
    assert choose_parts(inpainter, again, config) == whole[:1]
    bare = choose_parts(inpainter, Scene([], target, piece), config)
    assert bare[0].windows[0].scale < whole[0].windows[0].scale
    assert hash_scene(again) != hash_scene(Scene([], target, piece))  # a fit for it isn't one for the other
    other = np.zeros_like(mask)
    other[140:145, 145:150] = True
    third = Completion.from_image(target, again, 1).redo(other, scene)
    assert choose_parts(inpainter, third, config) == whole[1:]
    assert choose_parts(inpainter, third.dilated(3), config)[0].windows[0].scale == whole[1].windows[0].scale
    done = complete(again, tiny_sd, STAGED, progress=False)[0].image
    assert (done == target)[~piece].all() and (done != target)[piece].any()


@pytest.mark.parametrize("blend", ["poisson", "membrane"])
@pytest.mark.parametrize("kind", ["wide", "wide grey", "wide 16"])
def test_a_fill_meets_colours_that_srgb_does_not_have(tiny_sd, kind, blend, monkeypatch):
    """A sample that is right in sRGB fits colours beyond it, too: blended in the file's own."""
    dtype = np.uint16 if "16" in kind else np.uint8
    own = np.array([150] if "grey" in kind else [20, 230, 30]) * (257 if "16" in kind else 1)
    pixels = np.broadcast_to(own, (90, 100, len(own))).astype(dtype)
    photo = Photo(pixels=pixels, icc_profile=make_profile(grey="grey" in kind))
    mask = np.zeros((90, 100), bool)
    mask[30:60, 30:70] = True
    right = torch.from_numpy(photo.srgb()[:1, :1].copy()).permute(2, 0, 1)[None] / 255
    monkeypatch.setattr(filling, "sample", lambda inpainter, image, *_, **__: right.expand_as(image).clone())
    scene = Scene([], Image.new("RGB", (100, 90)), mask).retargeted(photo, mask, {}, whole_hole=mask)
    config = dataclasses.replace(STAGED, num_samples=1, num_stages=1, blend=blend)
    filled = complete(scene, tiny_sd, config, progress=False)[0].photo.pixels.astype(int)
    near = np.abs(filled - own)[mask].max() / (257 if "16" in kind else 1)
    assert near <= (2 if blend == "poisson" else 60)
    border = np.abs(filled[30, 30:70] - own).max() / (257 if "16" in kind else 1)
    assert border <= (2 if blend == "poisson" else 25)


def test_more_samples_than_memory_holds_are_refused_before_anything_starts(tiny_sd, monkeypatch):
    target, mask = make_photo(150, 170), two_holes()
    each = 3 * int(mask.sum())
    monkeypatch.setattr(filling, "free_bytes", lambda _: 2 * each)
    assert len(paint(target, mask, tiny_sd, dataclasses.replace(STAGED, num_stages=1))) == 2
    monkeypatch.setattr(filling, "free_bytes", lambda _: 2 * each - 1)
    with pytest.raises(ValueError, match=r"num_samples is 2, .* up to 1"):
        paint(target, mask, tiny_sd)
    scene = Scene([target], target, mask)
    with pytest.raises(ValueError, match="num_samples is 2"):
        check_ready(scene, FitConfig(base=tiny_sd), STAGED, ranking=RankConfig(matcher="sift"), progress=False)
