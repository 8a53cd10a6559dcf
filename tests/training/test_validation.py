"""Validation: the loss of the noise alone, whatever the pieces, and what the combiner leaves of the error."""

import numpy as np
import pytest

from realfill.models.diffusion.structure import Combiner
from realfill.training.crops import Crops
from realfill.training.validation import validate


def test_the_pieces_of_a_batch_do_not_change_the_validation_loss(make_trainer):
    images = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    known, hidden = np.ones((3, 32, 32), bool), np.zeros((3, 32, 32), bool)
    hidden[:, 8:24, 8:24] = True
    crops = Crops(images=images, known=known, learnt=known, hidden=hidden, references=np.full(3, -1))
    whole, pieces = (
        validate(make_trainer(batch_size=4, gradient_accumulation_steps=n), crops, seed=1).loss for n in (1, 2)
    )
    assert pieces == pytest.approx(whole, rel=1e-4)


def test_the_validation_loss_is_that_of_the_noise_alone(make_structured, four_crops):
    one, two = (validate(make_structured(**changes), four_crops, 3).loss for changes in ({}, {"image_weight": (1.0,)}))
    assert one == two


def test_the_combiner_is_validated_by_what_it_leaves_of_the_error(make_structured, four_crops, monkeypatch):
    trainer = make_structured(combiner=True)
    assert validate(make_structured(), four_crops, 3).combiner_error is None
    assert validate(trainer, four_crops, 3).combiner_error == pytest.approx(1)
    before = validate(trainer, four_crops, 3).loss
    monkeypatch.setattr(Combiner, "forward", lambda self, enlarged, known, hole: enlarged.lerp(known, 0.25))
    assert validate(trainer, four_crops, 3).combiner_error == pytest.approx(0.75)
    assert validate(trainer, four_crops, 3).loss == before
