"""The losses of the structure recipe: each is a mean difference, can be off, and reaches what it should train."""

import dataclasses

import pytest
import torch

from realfill import AdaptConfig
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training import loop
from realfill.training.structure import (
    boundary_band,
    enlarged_from_half,
    gaussian_blur,
    mean_difference,
)

LOSSES = ("image_weight", "boundary_weight", "consistency_weight")


@pytest.fixture(scope="module")
def plain_loss(make_structured):
    return float(loop.compute_gradients(make_structured(), ()))


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_can_be_on_alone_and_grows_with_its_weight(make_structured, plain_loss, name):
    once, twice = (float(loop.compute_gradients(make_structured(**{name: (weight,)}), ())) for weight in (0.5, 1.0))
    assert once > plain_loss + 1e-4
    assert twice - plain_loss == pytest.approx(2 * (once - plain_loss), rel=1e-3)


def test_a_weight_of_zero_decodes_nothing(make_structured, plain_loss, monkeypatch):
    monkeypatch.setattr(StableDiffusionInpainter, "decode", None)
    assert float(loop.compute_gradients(make_structured(num_stages=3), ())) == pytest.approx(plain_loss)


def test_weights_hold_for_their_stage(make_structured, plain_loss):
    def extra(weights):
        return float(loop.compute_gradients(make_structured(image_weight=weights), ())) - plain_loss

    assert extra((1.0, 0.0)) + extra((0.0, 1.0, 0.0)) + extra((0.0, 0.0, 1.0)) == pytest.approx(extra((1.0,)), rel=1e-3)
    assert extra((0.0, 1.0)) == pytest.approx(extra((0.0, 1.0, 1.0)), rel=1e-3)
    halved = float(loop.compute_gradients(make_structured(noise_weight=(0.5,)), ()))
    assert halved == pytest.approx(plain_loss / 2, rel=1e-3)


def test_losses_between_images_reach_the_lora_and_the_categories(make_structured):
    trainer = make_structured(noise_weight=(0.0,), image_weight=(1.0,), num_category_tokens=3, category_width=8)
    loop.compute_gradients(trainer, ())
    gradients = {name: p.grad for name, p in trainer.trainable.parameters()}
    assert gradients["categories.projection"].abs().max() > 0
    assert max(g.abs().max() for name, g in gradients.items() if "lora_B" in name and g is not None) > 0


def test_the_combiner_learns_without_changing_the_denoiser(make_structured):
    trainer = make_structured(noise_weight=(0.0,), combiner=True)
    loop.compute_gradients(trainer, ())
    gradients = {name: p.grad for name, p in trainer.trainable.parameters()}
    assert gradients["combiner.layers.2.bias"].abs().max() > 0
    assert all(g is None or not g.any() for name, g in gradients.items() if not name.startswith("combiner"))


def test_new_networks_have_a_learning_rate_of_their_own(make_structured):
    trainer = make_structured(combiner=True, learning_rate=1e-5, structure_learning_rate=1e-2)
    assert sorted({group["base_lr"] for group in trainer.optimizer.param_groups} - {4e-5}) == [1e-5, 1e-2]


def test_rows_get_the_embeddings_of_their_category(make_structured, monkeypatch):
    trainer = make_structured(num_category_tokens=3, category_width=8)
    assert trainer.structure is not None and trainer.structure.categories is not None
    trainer.structure.categories.projection.data.normal_()
    seen, real = [], StableDiffusionInpainter.predict
    monkeypatch.setattr(
        StableDiffusionInpainter, "predict", lambda self, *inputs: seen.append(inputs[3]) or real(self, *inputs)
    )
    loop.compute_gradients(trainer, ())
    assert torch.equal(torch.cat(seen), trainer.structure.categories()[[0, 1, 0, 1]])


def test_the_mean_difference_is_taken_where_the_mask_is():
    first, second = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    second[0, :, 1, 1], second[1] = 0.6, 0.3
    where = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    where[0, 0, 1, :2] = True
    assert mean_difference(first, second, where).tolist() == pytest.approx([0.3, 0.0])


def test_the_band_has_both_sides_of_the_boundary():
    hole = torch.zeros(1, 1, 1, 12, dtype=torch.bool)
    hole[..., 5:] = True
    assert boundary_band(hole, 2)[0, 0, 0].tolist() == [3 <= x < 7 for x in range(12)]


def test_the_blur_keeps_the_sum_and_has_the_variance_of_its_sigma():
    image = torch.zeros(1, 1, 41, 41)
    image[..., 20, 20] = 1
    blurred = gaussian_blur(image, 2.0)[0, 0]
    offsets = torch.arange(41) - 20.0
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float((blurred.sum(0) * offsets**2).sum()) == pytest.approx(4, rel=0.05)
    torch.testing.assert_close(blurred, blurred.T)


def test_halving_and_enlarging_removes_detail_only():
    smooth = torch.linspace(0.1, 0.9, 32).expand(1, 3, 32, 32)
    checks = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float().expand(1, 3, 32, 32)
    assert (enlarged_from_half(smooth) - smooth)[..., 2:-2].abs().max() < 0.02
    torch.testing.assert_close(enlarged_from_half(checks), torch.full_like(checks, 0.5))


def test_settings_without_a_part_of_the_recipe_are_not_structured():
    plain = AdaptConfig().resolve({})
    assert not plain.is_structured
    for changes in ({"combiner": True}, {"num_stages": 2}, {"blur_px": 2.0, "consistency_weight": (0.0, 0.1)}):
        assert dataclasses.replace(plain, **changes).is_structured
