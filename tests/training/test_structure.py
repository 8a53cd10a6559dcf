"""The losses of the structure recipe: each is a mean difference, can be off, and reaches what it should train."""

import dataclasses

import numpy as np
import pytest
import torch

from realfill import AdaptConfig
from realfill.compute.devices import make_accelerator
from realfill.models.diffusion.lora import trainable_lora
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.diffusion.structure import Combiner
from realfill.training import loop
from realfill.training.crops import Crops
from realfill.training.structure import (
    StructureTraining,
    boundary_band,
    enlarged_from_half,
    gaussian_blur,
    mean_difference,
)
from realfill.training.trainer import Trainer
from realfill.training.validation import validate

LOSSES = ("image_weight", "boundary_weight", "consistency_weight")


def make_crops():
    rng = np.random.default_rng(0)
    hidden = np.zeros((4, 32, 32), bool)
    hidden[:, 8:24, 8:20] = True
    known = np.ones_like(hidden)
    return Crops(
        images=rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8), known=known, learnt=known, hidden=hidden,
        references=np.full(4, -1), categories=np.array([0, 1, 0, 1]), stages=np.array([0, 1, 2, 0]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def make(tiny_sd):
    """A function that sets up the training of a recipe on the same four crops."""

    def trainer_of(**changes):
        settings = AdaptConfig(base=tiny_sd, batch_size=4, mixed_precision="no", **changes).resolve({})
        fit = settings.fit_settings(1, {})
        inpainter = StableDiffusionInpainter.load(tiny_sd).to(torch.device("cpu"), torch.float32)
        trainable = trainable_lora(inpainter, fit)
        structure = StructureTraining.prepare(inpainter, settings)
        accelerator = make_accelerator(torch.device("cpu"), "no")
        return Trainer(
            inpainter, structure.added_to(trainable), fit, accelerator, draw_batch=lambda *_: make_crops(),
            structure=structure,
        )  # fmt: skip

    return trainer_of


@pytest.fixture(scope="module")
def plain_loss(make):
    return float(loop.compute_gradients(make(), ()))


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_can_be_on_alone_and_grows_with_its_weight(make, plain_loss, name):
    once, twice = (float(loop.compute_gradients(make(**{name: (weight,)}), ())) for weight in (0.5, 1.0))
    assert once > plain_loss + 1e-4
    assert twice - plain_loss == pytest.approx(2 * (once - plain_loss), rel=1e-3)


def test_a_weight_of_zero_decodes_nothing(make, plain_loss, monkeypatch):
    monkeypatch.setattr(StableDiffusionInpainter, "decode", None)
    assert float(loop.compute_gradients(make(num_stages=3), ())) == pytest.approx(plain_loss)


def test_weights_hold_for_their_stage(make, plain_loss):
    def extra(weights):
        return float(loop.compute_gradients(make(image_weight=weights), ())) - plain_loss

    assert extra((1.0, 0.0)) + extra((0.0, 1.0, 0.0)) + extra((0.0, 0.0, 1.0)) == pytest.approx(extra((1.0,)), rel=1e-3)
    assert extra((0.0, 1.0)) == pytest.approx(extra((0.0, 1.0, 1.0)), rel=1e-3)
    halved = float(loop.compute_gradients(make(noise_weight=(0.5,)), ()))
    assert halved == pytest.approx(plain_loss / 2, rel=1e-3)


def test_losses_between_images_reach_the_lora_and_the_categories(make):
    trainer = make(noise_weight=(0.0,), image_weight=(1.0,), num_category_tokens=3, category_width=8)
    loop.compute_gradients(trainer, ())
    gradients = {name: p.grad for name, p in trainer.trainable.parameters()}
    assert gradients["categories.projection"].abs().max() > 0
    assert max(g.abs().max() for name, g in gradients.items() if "lora_B" in name and g is not None) > 0


def test_the_combiner_learns_without_changing_the_denoiser(make):
    trainer = make(noise_weight=(0.0,), combiner=True)
    loop.compute_gradients(trainer, ())
    gradients = {name: p.grad for name, p in trainer.trainable.parameters()}
    assert gradients["combiner.layers.2.bias"].abs().max() > 0
    assert all(g is None or not g.any() for name, g in gradients.items() if not name.startswith("combiner"))


def test_new_networks_have_a_learning_rate_of_their_own(make):
    trainer = make(combiner=True, learning_rate=1e-5, structure_learning_rate=1e-2)
    assert sorted({group["base_lr"] for group in trainer.optimizer.param_groups} - {4e-5}) == [1e-5, 1e-2]


def test_the_validation_loss_is_that_of_the_noise_alone(make):
    crops = make_crops()
    one, two = (validate(make(**changes), crops, 3).loss for changes in ({}, {"image_weight": (1.0,)}))
    assert one == two


def test_the_combiner_is_validated_by_what_it_leaves_of_the_error(make, monkeypatch):
    trainer, crops = make(combiner=True), make_crops()
    assert validate(make(), crops, 3).combiner_error is None
    assert validate(trainer, crops, 3).combiner_error == pytest.approx(1)
    before = validate(trainer, crops, 3).loss
    monkeypatch.setattr(Combiner, "forward", lambda self, enlarged, known, hole: enlarged.lerp(known, 0.25))
    assert validate(trainer, crops, 3).combiner_error == pytest.approx(0.75)
    assert validate(trainer, crops, 3).loss == before


def test_rows_get_the_embeddings_of_their_category(make, monkeypatch):
    trainer = make(num_category_tokens=3, category_width=8)
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
