"""Masks: random masks, dilation, bounding boxes, resizing, and smooth interpolation under a mask."""

import numpy as np
import pytest
import torch
from helpers import make_photo

from realfill.io.images import resize, to_tensor
from realfill.scene.masks import bounding_box, dilate, fill_smooth, random_mask, resize_mask

SPREAD = {"num_rectangles": (1, 4), "rectangle_size": (0.2, 0.7)}


def holes(height, width):
    """Yield a compact hole, salt and pepper, all but a pixel, and half of the image."""
    compact, pixel, half = (
        np.zeros((height, width), bool),
        np.ones((height, width), bool),
        np.zeros((height, width), bool),
    )
    compact[height // 4 : height // 2 + 1, width // 4 : width // 2 + 1] = True
    pixel[height // 2, width // 3] = False
    half[:, width // 2 :] = True
    return compact, np.random.default_rng(0).random((height, width)) < 0.6, pixel, half


def one_rectangle(seed, size=(50, 80), sides=(0.2, 0.7)):
    mask = random_mask(size, np.random.default_rng(seed), num_rectangles=(1, 1), rectangle_size=sides)
    corners = [mask[0, 0], mask[0, -1], mask[-1, 0], mask[-1, -1]]
    return mask, sum(corners) >= 3


def test_random_mask_is_the_union_or_its_complement():
    complements = sum(one_rectangle(seed)[1] for seed in range(200))
    assert 70 < complements < 130


def test_random_rectangles_have_legal_sides():
    shares = []
    for seed in range(100):
        mask, complement = one_rectangle(seed)
        top, left, bottom, right = bounding_box(~mask if complement else mask)
        assert (~mask if complement else mask)[top:bottom, left:right].all()
        shares.append(((bottom - top) / 50, (right - left) / 80))
    assert np.min(shares) >= 0.2 - 0.5 / 50 and np.max(shares) <= 0.7 + 0.5 / 50
    assert np.ptp(shares, axis=0).min() > 0.4


def test_random_mask_draws_the_given_number_of_rectangles():
    areas = {
        n: np.mean(
            [
                min(m.mean(), 1 - m.mean())
                for m in (
                    random_mask((40, 40), np.random.default_rng(s), num_rectangles=(n, n), rectangle_size=(0.1, 0.2))
                    for s in range(50)
                )
            ]
        )
        for n in (1, 4)
    }
    assert 0.01 <= areas[1] <= 0.04 and 2.5 * areas[1] < areas[4] <= 4 * 0.04


@pytest.mark.parametrize("size", [(64, 64), (7, 200), (1, 1)])
def test_random_mask_has_the_given_size_and_depends_only_on_the_generator(size):
    first, again, other = (random_mask(size, np.random.default_rng(seed), **SPREAD) for seed in (3, 3, 4))
    assert first.shape == size and first.dtype == bool
    assert np.array_equal(first, again)
    assert size == (1, 1) or not np.array_equal(first, other)


@pytest.mark.parametrize("radius", [1, 3, 6])
def test_dilation_reaches_its_radius_in_every_direction(radius):
    mask = np.zeros((31, 41), bool)
    mask[15, 20] = True
    grown = dilate(mask, radius)
    assert bounding_box(grown) == (15 - radius, 20 - radius, 15 + radius + 1, 20 + radius + 1)
    distance = np.hypot(*(np.indices(mask.shape) - np.array([15, 20])[:, None, None]))
    assert grown[distance <= radius - 0.5].all() and not grown[distance > radius + 0.5].any()


def test_dilation_by_zero_changes_nothing_and_dilation_ends_at_the_edge():
    mask = np.zeros((10, 12), bool)
    mask[0, 0] = True
    assert np.array_equal(dilate(mask, 0), mask)
    assert bounding_box(dilate(mask, 4)) == (0, 0, 5, 5)


def test_bounding_box_is_tight():
    mask = np.zeros((10, 12), bool)
    mask[3, 5] = mask[7, 2] = True
    assert bounding_box(mask) == (3, 2, 8, 6)


def test_bounding_box_of_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty; legal: "):
        bounding_box(np.zeros((5, 5), bool))


@pytest.mark.parametrize("size", [(20, 30), (120, 90), (64, 48), (200, 31)])
def test_a_resized_mask_covers_the_influence_of_masked_pixels_and_little_more(size):
    photo = make_photo(64, 48)
    for mask in holes(64, 48)[:2]:
        covered = resize_mask(mask, size)
        black, white = (resize(np.where(mask[:, :, None], np.uint8(under), photo), size) for under in (0, 255))
        assert np.array_equal(black[~covered], white[~covered])
    zoom = size[0] / 64, size[1] / 48
    top, left, bottom, right = bounding_box(resize_mask(holes(64, 48)[0], size))
    assert bottom - top <= (17 + 4) * zoom[0] + 2 and right - left <= (13 + 4) * zoom[1] + 2


@pytest.mark.parametrize("size", [(64, 64), (37, 51), (1, 40), (33, 1)])
def test_fill_keeps_known_pixels_and_ignores_pixels_under_the_hole(size):
    image = to_tensor(make_photo(*size))
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) * 9 - 4
    for mask in holes(*size):
        hole = torch.from_numpy(mask)[None, None]
        filled = fill_smooth(image, hole)
        assert torch.equal(filled.masked_fill(hole, 0), image.masked_fill(hole, 0))
        for under in (torch.zeros(()), torch.ones(()), noise, torch.full((), torch.nan)):
            assert torch.equal(fill_smooth(torch.where(hole, under, image), hole), filled)


@pytest.mark.parametrize("size", [(64, 64), (37, 51), (1, 40)])
def test_fill_stays_in_the_range_of_the_known_pixels(size):
    image = to_tensor(make_photo(*size)) * 0.5 + 0.4
    for mask in holes(*size):
        hole = torch.from_numpy(mask)[None, None]
        known = image[0][:, ~hole[0, 0]]
        filled = fill_smooth(image, hole)[0]
        assert (filled.amin(dim=(1, 2)) >= known.amin(dim=1) - 1e-5).all()
        assert (filled.amax(dim=(1, 2)) <= known.amax(dim=1) + 1e-5).all()


@pytest.mark.parametrize("size", [(64, 64), (37, 51), (1, 40)])
def test_fill_continues_a_constant(size):
    image = torch.tensor([0.1, 0.7, 1.0])[None, :, None, None].expand(1, 3, *size)
    for mask in holes(*size):
        assert torch.allclose(fill_smooth(image, torch.from_numpy(mask)[None, None]), image, atol=1e-5)


def test_fill_without_known_pixels_is_grey():
    image = torch.rand(2, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros(2, 1, 20, 31, dtype=torch.bool)
    hole[0] = True
    filled = fill_smooth(image, hole)
    assert (filled[0] == 0.5).all() and torch.equal(filled[1], image[1])


def test_fill_follows_the_nearer_side():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 32:] = 1
    hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 16:48] = True
    row = fill_smooth(image, hole)[0, 0, 32]
    assert row[18] < 0.25 and row[45] > 0.75 and (row.diff() >= -1e-6).all() and row.diff().max() < 0.1


def test_images_of_a_batch_are_filled_independently():
    images = to_tensor(np.stack([make_photo(37, 51, seed) for seed in (0, 1)]))
    masks = torch.from_numpy(np.stack(holes(37, 51)[:2]))[:, None]
    together = fill_smooth(images, masks)
    for i in (0, 1):
        assert torch.allclose(together[i], fill_smooth(images[i : i + 1], masks[i : i + 1])[0], atol=1e-6)


@pytest.mark.parametrize("shape", ["ellipse", "polygon"])
def test_shapes_fill_less_than_their_box(shape):
    masks = [
        random_mask(
            (60, 80), np.random.default_rng(seed), num_rectangles=(1, 1), rectangle_size=(0.5, 0.5), shapes=(shape,),
            complement_share=0.0,
        )
        for seed in range(20)
    ]  # fmt: skip
    shares = [mask.sum() / (30 * 40) for mask in masks]
    assert all(0.05 < share < 0.95 for share in shares)
    boxes = [bounding_box(mask) for mask in masks]
    assert all(bottom - top <= 30 and right - left <= 40 for top, left, bottom, right in boxes)


def test_the_share_of_complements_can_be_chosen():
    def masks(share):
        draw = [np.random.default_rng(seed) for seed in range(40)]
        return [
            random_mask((20, 20), rng, num_rectangles=(1, 1), rectangle_size=(0.2, 0.2), complement_share=share).mean()
            for rng in draw
        ]

    assert all(m < 0.5 for m in masks(0.0))
    assert all(m > 0.5 for m in masks(1.0))
