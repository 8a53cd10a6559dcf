"""Training in epochs keeps the state with the lowest validation loss, and stops when it no longer falls."""

import numpy as np
import pytest
import torch

from realfill import AdaptConfig
from realfill.compute.devices import make_accelerator
from realfill.errors import RealFillWarning
from realfill.models.diffusion.lora import trainable_lora
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training import epochs
from realfill.training.crops import Crops
from realfill.training.epochs import best_epoch, train_in_epochs
from realfill.training.structure import StructureTraining
from realfill.training.trainer import Trainer
from realfill.training.validation import ValidationLosses


class FakeFolder:
    """Three items of noise."""

    num_items = 3

    def draw_batch(self, step, rng):
        images = rng.integers(256, size=(1, 32, 32, 3), dtype=np.uint8)
        known = np.ones((1, 32, 32), bool)
        hidden = np.zeros_like(known)
        hidden[:, 8:24, 8:24] = True
        return Crops(
            images=images, known=known, learnt=known, hidden=hidden, references=np.full(1, -1),
            categories=np.zeros(1, int), stages=np.zeros(1, int),
        )  # fmt: skip

    def draw_all(self, seed, *, masks_per_photo):
        self.num_masks = masks_per_photo
        return self.draw_batch(seed, np.random.default_rng(seed))


@pytest.fixture
def start(tiny_sd, monkeypatch):
    """A function that trains with given validation losses; returns the trainer and the epochs."""

    def run(losses, *, errors=None, checkpoint=None, stop_at=None, **changes):
        settings = AdaptConfig(base=tiny_sd, batch_size=1, **changes).resolve({})
        fit = settings.fit_settings(3, {"text_encoder_learning_rate": 0.0})
        inpainter = StableDiffusionInpainter.load(tiny_sd).to(torch.device("cpu"), torch.float32)
        folder = FakeFolder()
        structure = StructureTraining.prepare(inpainter, settings)
        trainer = Trainer(
            inpainter, structure.added_to(trainable_lora(inpainter, fit)), fit,
            make_accelerator(torch.device("cpu"), "no"), draw_batch=folder.draw_batch, structure=structure,
        )  # fmt: skip
        seen = []

        def loss(trainer, crops, seed):
            seen.append([p.detach().clone() for p in trainer.parameters])
            number = trainer.step // 3
            return ValidationLosses(losses[number], errors and errors[number])

        monkeypatch.setattr(epochs, "validate", loss)
        done = train_in_epochs(
            trainer, folder, folder, settings, checkpoint=checkpoint, identity="x", progress=False,
            on_step=lambda report: stop_at is None or report.step < stop_at,
        )  # fmt: skip
        trainer.notes["masks"] = folder.num_masks
        return trainer, done, seen

    return run


def equal(parameters, others):
    return all(torch.equal(a, b) for a, b in zip(parameters, others, strict=True))


def test_the_best_epoch_is_kept(start):
    with pytest.warns(RealFillWarning, match=r"lowest after epoch 1 \(0.5000\) and rose to 0.7000 .* learnt by heart"):
        trainer, done, seen = start([1.0, 0.5, 0.7], num_epochs=2)
    assert [e.validation_loss for e in done] == [1.0, 0.5, 0.7]
    assert done[0].training_loss is None
    assert done[2].training_loss == pytest.approx(np.mean(trainer.losses[3:6]))
    assert equal(trainer.parameters, seen[1])
    assert not equal(trainer.parameters, seen[2])


def test_the_last_epoch_is_kept_on_request(start):
    with pytest.warns(RealFillWarning, match=r"0.5010 after epoch 2: more epochs do not help. The state of epoch 2"):
        trainer, _, seen = start([1.0, 0.5, 0.501], num_epochs=2, keep="last")
    assert equal(trainer.parameters, seen[2])
    assert not equal(trainer.parameters, seen[1])


def test_a_training_that_never_helps_can_be_kept_on_request(start):
    with pytest.warns(RealFillWarning, match="keep='last' keeps the last one"):
        trainer, _, seen = start([0.5, 0.6], num_epochs=1, keep="last")
    assert equal(trainer.parameters, seen[1])


def test_training_stops_when_the_validation_loss_no_longer_falls(start):
    with pytest.warns(RealFillWarning, match="learnt by heart"):
        trainer, done, _ = start([1.0, 0.5, 0.6, 0.7, 0.1], num_epochs=9, patience=2)
    assert trainer.step == 9
    assert best_epoch(done).number == 1


def test_a_training_that_never_helps_leaves_the_base_model_unchanged(start):
    with pytest.warns(RealFillWarning, match="the adapter changes nothing"):
        trainer, _, seen = start([0.5, 0.6, 0.7], num_epochs=2)
    assert equal(trainer.parameters, seen[0])


@pytest.mark.parametrize(("num_stages", "num_masks"), [(1, 4), (2, 8), (3, 12)])
def test_every_stage_is_validated_with_every_kind_of_mask(start, num_stages, num_masks):
    trainer, _, _ = start([1.0, 0.5], num_epochs=1, num_stages=num_stages, masks_per_photo=10)
    assert trainer.notes["masks"] == num_masks


@pytest.mark.parametrize(
    ("losses", "errors", "kept", "message"),
    [
        ([0.5, 0.6, 0.7], [1.0, 0.8, 0.9], (0, 1), "so only the combiner has an effect"),
        ([0.5, 0.4, 0.45], [1.0, 0.9, 0.8], (1, 2), "The state of epoch 1 is kept; the combiner is that of epoch 2"),
        ([0.5, 0.6, 0.7], [1.0, 1.1, 1.2], (0, 0), "so the adapter changes nothing"),
    ],
)
def test_the_combiner_is_kept_by_its_own_error_because_the_loss_does_not_depend_on_it(
    start, losses, errors, kept, message
):
    with pytest.warns(RealFillWarning, match=message):
        trainer, done, seen = start(losses, errors=errors, num_epochs=2, num_stages=3, combiner=True)
    assert f", the combiner leaves {100 * errors[1]:.2f} % of the error" in done[1].describe()
    of_combiner = [name.startswith("combiner") for name, _ in trainer.trainable.parameters()]
    assert 0 < sum(of_combiner) < len(of_combiner)
    for is_combiner, parameter, *states in zip(of_combiner, trainer.parameters, *seen, strict=True):
        assert torch.equal(parameter, states[kept[is_combiner]])
    assert not torch.equal(seen[1][of_combiner.index(True)], seen[2][of_combiner.index(True)])


def test_a_later_best_epoch_does_not_replace_a_better_combiner(start):
    trainer, _, seen = start([1.0, 0.9, 0.8], errors=[1.0, 0.8, 0.9], num_epochs=2, num_stages=3, combiner=True)
    for (name, parameter), *states in zip(trainer.trainable.parameters(), *seen, strict=True):
        assert torch.equal(parameter, states[1 if name.startswith("combiner") else 2])


@pytest.mark.parametrize("stop_at", [2, 3, 4, 6])
def test_an_interrupted_training_ends_with_the_same_result(start, tmp_path, stop_at):
    losses, file = [1.0, 0.5, 0.4, 0.3], tmp_path / "checkpoint.safetensors"
    whole, epochs_of_whole, _ = start(losses, num_epochs=3)
    start(losses, num_epochs=3, checkpoint=file, stop_at=stop_at)
    resumed, epochs_of_resumed, _ = start(losses, num_epochs=3, checkpoint=file)
    assert epochs_of_resumed == epochs_of_whole
    assert equal(whole.parameters, resumed.parameters)
    assert whole.losses == resumed.losses


def test_a_training_that_has_stopped_early_does_not_go_on(start, tmp_path):
    losses, file = [0.5, 0.6, 0.1], tmp_path / "checkpoint.safetensors"
    for _ in range(2):
        with pytest.warns(RealFillWarning, match="changes nothing"):
            trainer, _, _ = start(losses, num_epochs=5, patience=1, checkpoint=file)
        assert trainer.step == 3
