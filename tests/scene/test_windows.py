"""Windows: their position and size, and that cropping and restoring keep positions."""

import math
from itertools import pairwise

import numpy as np
import pytest
from helpers import make_photo

from realfill.scene import windows
from realfill.scene.masks import bounding_box
from realfill.scene.windows import Window, choose_window, choose_windows

CASES = [  # target, hole (top, left, bottom, right), resolution, multiple, context
    ((600, 400), (300, 200, 301, 201), 128, 8, 1.7),
    ((600, 400), (0, 0, 30, 20), 128, 8, 1.7),
    ((600, 400), (560, 100, 600, 400), 128, 8, 1.7),
    ((600, 400), (0, 0, 600, 400), 128, 8, 1.0),
    ((200, 1200), (50, 300, 90, 1100), 512, 8, 1.7),
    ((1200, 200), (0, 0, 1200, 200), 512, 8, 1.3),
    ((64, 80), (20, 30, 40, 60), 128, 8, 1.7),
    ((64, 80), (20, 30, 40, 60), 32, 2, 1.7),
    ((33, 200), (0, 0, 33, 1), 512, 64, 3.0),
]


def box_of(size, box):
    mask = np.zeros(size, bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def random_cases(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        height = int(np.exp(rng.uniform(np.log(32), np.log(700))))
        width = int(np.clip(height * 6 ** rng.uniform(-1, 1), 32, 900))
        top, left = int(rng.integers(height)), int(rng.integers(width))
        bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
        resolution, multiple = ((512, 8), (128, 8), (256, 16), (32, 2))[rng.integers(4)]
        yield (height, width), (top, left, bottom, right), resolution, multiple, float(rng.uniform(1, 3))


def check(size, hole, resolution, multiple, context):
    mask = box_of(size, hole)
    window = choose_window(mask, resolution=resolution, multiple=multiple, context=context)
    top, left, bottom, right = window.box
    assert 0 <= top <= hole[0] < hole[2] <= bottom <= size[0] and 0 <= left <= hole[1] < hole[3] <= right <= size[1]
    assert all(n > 0 and n % multiple == 0 for n in window.size)
    share, rounding = math.prod(window.size) / resolution**2, multiple / min(window.size)
    assert 1 / (1 + rounding) <= share <= 1 + rounding
    zoom = [a / b for a, b in zip(window.size, window.box_size, strict=True)]
    assert max(zoom) / min(zoom) <= 1 + rounding
    least = 1 / (1 - 2 * multiple / resolution)  # a latent on each side
    least_px = max(max(context, least) * max(hole[2] - hole[0], hole[3] - hole[1]), resolution)
    for n, whole in zip(window.box_size, size, strict=True):
        assert n <= whole and n >= min(whole, least_px) * (1 - rounding) - 1
        assert n <= (least_px + 1) * (1 + rounding) + 1


@pytest.mark.parametrize("case", CASES)
def test_window_contains_the_hole_and_fits_the_model(case):
    check(*case)


def test_window_contains_the_hole_and_fits_the_model_for_random_holes():
    for case in random_cases(400):
        check(*case)


def test_window_is_centred_on_the_hole_if_there_is_room():
    window = choose_window(box_of((600, 600), (280, 300, 320, 330)), resolution=128, multiple=8, context=2)
    assert window.box == (300 - 64, 315 - 64, 300 + 64, 315 + 64) and window.size == (128, 128) and window.scale == 1


def test_a_small_hole_gets_the_models_resolution_and_a_large_hole_its_context():
    small, large = (
        choose_window(box_of((900, 900), (400, 400, 400 + n, 400 + n)), resolution=128, multiple=8, context=2)
        for n in (3, 200)
    )
    assert small.box_size == (128, 128) and large.box_size == (400, 400)
    assert (small.scale, large.scale) == (1, 400 / 128)


def test_window_moves_inside_at_a_corner():
    window = choose_window(box_of((300, 300), (295, 0, 300, 4)), resolution=128, multiple=8, context=2)
    assert window.box == (172, 0, 300, 128)


def test_aspect_is_exact_if_the_box_can_change():
    window = choose_window(box_of((500, 900), (200, 100, 210, 660)), resolution=128, multiple=8, context=1.7)
    assert window.size == (96, 168) and window.box_size == (500, 875)


def test_a_sliver_gets_at_least_one_multiple():
    window = choose_window(box_of((32, 4000), (0, 0, 32, 4000)), resolution=256, multiple=64, context=1)
    assert window.size[0] == 64 and window.box == (0, 0, 32, 4000)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        choose_window(np.zeros((64, 64), bool), resolution=32, multiple=8, context=2)


WINDOWS = [
    Window(box=(10, 20, 74, 84), size=(32, 32)),
    Window(box=(10, 20, 74, 84), size=(128, 128)),
    Window(box=(3, 5, 63, 95), size=(48, 72)),
    Window(box=(10, 20, 74, 84), size=(64, 64)),
]


def centroid(image):
    rows, columns = np.indices(image.shape)
    return (rows * image).sum() / image.sum(), (columns * image).sum() / image.sum()


@pytest.mark.parametrize("window", WINDOWS)
def test_crop_and_restore_keep_positions(window):
    rows, columns = np.indices((100, 120))
    blob = np.exp(-((rows - 38.3) ** 2 + (columns - 55.6) ** 2) / 50).astype(np.float32)
    inside = 38.3 - window.box[0], 55.6 - window.box[1]
    expected = [(x + 0.5) * n / b - 0.5 for x, n, b in zip(inside, window.size, window.box_size, strict=True)]
    crop = window.crop(blob)
    back = window.restore(np.dstack([crop] * 3))
    assert crop.shape == window.size and centroid(crop.astype(float)) == pytest.approx(expected, abs=0.05)
    assert back.shape == (*window.box_size, 3)
    assert centroid(back[:, :, 0].astype(float)) == pytest.approx(inside, abs=0.05)
    assert np.abs(back[:, :, 0] - blob[window.slices]).max() < 0.05


def test_a_window_of_the_models_size_changes_no_pixel():
    photo, window = make_photo(100, 120), WINDOWS[3]
    assert np.array_equal(window.crop(photo), photo[10:74, 20:84])
    assert np.array_equal(window.restore(window.crop(photo)), photo[10:74, 20:84])


def masks():
    scattered = np.random.default_rng(0).random((100, 120)) < 0.05
    return {"compact": box_of((100, 120), (30, 40, 50, 70)), "scattered": scattered}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["compact", "scattered"])
def test_cropped_mask_covers_every_masked_pixel(window, kind):
    mask = masks()[kind]
    cropped = window.crop_mask(mask)
    assert cropped.shape == window.size and cropped.dtype == bool
    rows, columns = np.nonzero(mask[window.slices])
    zoom = [a / b for a, b in zip(window.size, window.box_size, strict=True)]
    assert cropped[((rows + 0.5) * zoom[0]).astype(int), ((columns + 0.5) * zoom[1]).astype(int)].all()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["compact", "scattered"])
def test_pixels_under_the_mask_influence_no_pixel_outside_the_cropped_mask(window, kind):
    mask, photo = masks()[kind], make_photo(100, 120)
    black, white = (window.crop(np.where(mask[:, :, None], np.uint8(under), photo)) for under in (0, 255))
    outside = ~window.crop_mask(mask)
    assert outside.any() and np.array_equal(black[outside], white[outside])


def test_cropped_mask_is_not_much_larger_than_the_mask():
    mask = masks()["compact"]
    for window in WINDOWS:
        top, left, bottom, right = bounding_box(window.crop_mask(mask))
        zoom = [a / b for a, b in zip(window.size, window.box_size, strict=True)]
        margin = [2 * max(1, z) + 1 for z in zoom]
        assert bottom - top <= 20 * zoom[0] + 2 * margin[0] and right - left <= 30 * zoom[1] + 2 * margin[1]


def parts_of(mask, resolution=128, multiple=8, **options):
    """Choose parts and check that they contain every masked pixel once, in nested windows that fit the model."""
    parts = choose_windows(mask, resolution=resolution, multiple=multiple, context=1.7, **options)
    count = np.zeros(mask.shape, int)
    for part in parts:
        top, left, bottom, right = part.hole
        count[top:bottom, left:right] += 1
        outer = (0, 0, *mask.shape)
        for window in part.windows:
            for inner, around in ((part.hole, window.box), (window.box, outer)):
                assert inner[0] >= around[0] and inner[1] >= around[1]
                assert inner[2] <= around[2] and inner[3] <= around[3]
            assert all(n > 0 and n % multiple == 0 for n in window.size)
            outer = window.box
        scales = [window.scale for window in part.windows]
        assert scales == sorted(scales, reverse=True)
    assert (count[mask] == 1).all() and count.max() == 1
    return parts


def masked(size, *boxes):
    return np.logical_or.reduce([box_of(size, box) for box in boxes])


def test_holes_in_distant_corners_get_separate_windows():
    mask = masked((600, 800), (0, 0, 90, 90), (500, 700, 600, 800))
    one, two = parts_of(mask)
    assert one.hole == (0, 0, 90, 90) and two.hole == (500, 700, 600, 800)
    assert max(part.windows[0].scale for part in (one, two)) < 1.5
    assert len(parts_of(mask, max_growth=20)) == 1


def test_two_near_holes_share_a_window():
    (part,) = parts_of(masked((600, 800), (200, 200, 250, 230), (210, 240, 240, 262)))
    assert part.hole == (200, 200, 250, 262)


def test_holes_with_overlapping_boxes_are_one_part():
    ring = box_of((600, 600), (50, 50, 550, 550)) & ~box_of((600, 600), (60, 60, 540, 540))
    assert len(parts_of(ring | box_of((600, 600), (300, 300, 305, 305)), max_growth=1)) == 1


@pytest.mark.parametrize("num_stages", [1, 5])
@pytest.mark.parametrize(
    "mask",
    [
        box_of((900, 900), (0, 899, 1, 900)),
        box_of((200, 1200), (0, 900, 200, 1200)),
        box_of((1200, 200), (0, 0, 1200, 30)),
        np.random.default_rng(0).random((300, 500)) < 0.01,
        np.random.default_rng(0).random((300, 2000)) < 0.0001,
        np.ones((300, 410), bool),
        box_of((33, 57), (3, 4, 20, 50)),
    ],
    ids=["pixel", "panorama", "strip", "scattered", "sparse", "everything", "small"],
)
def test_windows_of_odd_holes(mask, num_stages):
    for resolution, multiple in ((128, 8), (32, 2), (512, 8)):
        assert parts_of(mask, resolution, multiple, num_stages=num_stages)


def test_windows_of_fifty_megapixels():
    mask = masked((5774, 8660), (100, 100, 1400, 1500), (5000, 8000, 5003, 8010))
    large, small = parts_of(mask, num_stages=9)
    assert [round(w.scale, 1) for w in large.windows] == [18.6, 9.3, 4.6, 2.3, 1]
    assert len(small.windows) == 1 and small.windows[0].scale == 1


def test_stages_double_the_resolution_up_to_the_targets():
    (part,) = parts_of(box_of((900, 1000), (300, 300, 600, 600)), num_stages=8)
    scales = [window.scale for window in part.windows]
    assert scales == pytest.approx([510 / 128, 510 / 256, 1], rel=0.02)
    assert part.windows[-1].size == part.windows[-1].box_size == (432, 432)
    assert len(parts_of(box_of((900, 1000), (300, 300, 600, 600)), num_stages=2)[0].windows) == 2
    assert len(parts_of(box_of((900, 1000), (300, 300, 380, 380)), num_stages=8)[0].windows) == 1


@pytest.mark.parametrize("hole", [(30, 300, 470, 600), (2, 300, 450, 600), (60, 300, 501, 600)])
def test_the_last_window_has_scale_one_if_the_side_is_no_multiple(hole):
    (part,) = parts_of(box_of((501, 1000), hole), num_stages=8)
    assert part.windows[-1].size == part.windows[-1].box_size == (496, 432)
    top, _, bottom, _ = part.windows[-1].box
    assert top <= max(0, hole[0] - 8) and bottom >= min(501, hole[2] + 8)


def test_windows_contain_known_pixels_beside_a_hole_that_nearly_spans_a_side():
    for low, high in ((5, 501), (3, 499), (0, 497), (1, 500)):
        (part,) = parts_of(box_of((501, 1000), (low, 300, high, 600)), num_stages=8)
        for window in part.windows:
            assert window.box[0] == 0 and window.box[2] == 501


@pytest.mark.parametrize(
    ("shape", "hole", "resolution", "context"),
    [
        ((1024, 768), (34, 324, 1021, 584), 128, 1.7),
        ((4000, 3000), (549, 24, 2505, 2997), 512, 1.7),
        ((3000, 4000), (14, 1300, 2987, 3483), 512, 1.7),
        ((84, 1123), (1, 19, 84, 993), 128, 1.7),
        ((352, 374), (13, 18, 326, 369), 128, 1.7),
        ((900, 1200), (300, 400, 600, 700), 128, 1.0),
    ],
)
def test_no_window_ends_at_the_border_of_a_hole_inside_the_target(shape, hole, resolution, context):
    mask = box_of(shape, hole)
    (part,) = choose_windows(mask, resolution=resolution, multiple=8, context=context, num_stages=9)
    for window in part.windows:
        near = math.floor(8 * window.scale)
        for i in (0, 1):
            assert window.box[i] <= max(0, hole[i] - near)
            assert window.box[i + 2] >= min(shape[i], hole[i + 2] + near)


def test_a_hole_from_side_to_side_is_resampled_slightly():
    (part,) = parts_of(box_of((501, 1000), (0, 300, 501, 600)), num_stages=8)
    assert part.windows[-1].box_size == (501, 432) and part.windows[-1].size == (504, 432)


def test_a_sample_resampled_to_a_finer_window_equals_a_crop_of_the_restored_sample():
    part = parts_of(box_of((900, 1000), (300, 340, 600, 600)), num_stages=3)[0]
    rows, columns = np.indices((900, 1000), np.float32) + 0.5
    positions = np.stack([rows, columns], axis=2)
    for outer, inner in pairwise(part.windows):
        resampled = outer.restore_within(inner, outer.crop(positions))
        assert resampled.shape == (*inner.size, 2)
        inside = np.s_[4:-4, 4:-4]  # at the edge of the sample, interpolation lacks neighbours
        assert np.abs(resampled - inner.crop(positions))[inside].max() < 0.1 * outer.scale


def test_the_aspect_is_kept_to_eight_percent_if_the_models_sizes_are_coarse():
    rng = np.random.default_rng(0)
    stretched = []
    for _ in range(300):
        shape = (int(rng.integers(150, 900)), int(rng.integers(150, 2400)))
        (top, bottom), (left, right) = (np.sort(rng.choice(n + 1, 2, replace=False)) for n in shape)
        window = choose_window(box_of(shape, (top, left, bottom, right)), resolution=128, multiple=16, context=1.05)
        stretched.append(abs(np.log(window.box_size[0] / window.size[0] / (window.box_size[1] / window.size[1]))))
    assert max(stretched) <= 0.085


@pytest.mark.parametrize(
    ("hole", "room", "span"),
    [
        ((400, 500), 1000, (266, 634, 184)),  # half the resolution on each side, in whole latents
        ((100, 200), 230, (3, 227, 112)),  # the largest number of whole latents that fits
        ((2, 234), 236, (0, 236, 120)),  # the hole needs all the room, so the scale changes a little
    ],
)
def test_a_finer_window_along_one_axis(hole, room, span):
    assert windows._span(hole, (0, room), 64, 8, 2.0) == span
