"""The objective: which latents count, the prediction of the model, and its mask latents."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from helpers import make_photo

from realfill import FitConfig
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.scene.masks import fill_smooth
from realfill.training import loop
from realfill.training.crops import Crops, TrainingImage, draw_crops
from realfill.training.objective import Denoiser, Latents, encode_crops, loss_weights

PAPER = FitConfig().resolve({})
PHOTO = TrainingImage(image=make_photo(64, 96), crop_sides_px=(20, 60))


def half_known():
    known = np.zeros((64, 64), bool)
    known[:, :32] = True
    image = np.where(known[:, :, None], make_photo(64, 64), 0).astype(np.uint8)
    return TrainingImage(image=image, known=known, crop_sides_px=(64, 64))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_latent_counts_if_all_its_pixels_do_and_less_if_the_model_sees_them_all(tiny_sd):
    learnt, hidden = torch.ones(1, 1, 4, 8, dtype=torch.bool), torch.zeros(1, 1, 4, 8, dtype=torch.bool)
    learnt[..., 0, 0] = False  # one pixel of the first latent of 2 x 2 pixels
    hidden[..., 0, 2] = True  # one pixel of the second
    hidden[..., 2:, 4:6] = True  # the third of the second row
    weights = loss_weights(StableDiffusionInpainter.load(tiny_sd), learnt, hidden, 0.25)
    assert weights.tolist() == [[[[0, 1, 0.25, 0.25], [0.25, 0.25, 1, 0.25]]]]


def test_latents_sample_the_posterior_and_are_indexed_by_row():
    latents = Latents(mean=normal(3, 4, 2, 2), std=normal(3, 4, 2, 2, seed=1), mask_latents=normal(3, 5, 2, 2),
                      weights=normal(3, 1, 2, 2), references=torch.tensor([0, -1, 2]))  # fmt: skip
    noise = normal(3, 4, 2, 2, seed=2)
    assert torch.equal(latents.sample(noise), latents.mean + noise * latents.std)
    assert torch.equal(latents[1:].mask_latents, latents.mask_latents[1:])
    assert latents[1:].references.tolist() == [-1, 2]


def test_crops_are_encoded_with_their_masks_and_weights(tiny_sd):
    inpainter = StableDiffusionInpainter.load(tiny_sd)
    settings = dataclasses.replace(PAPER, mask_dropout=0.0)
    crops = draw_crops([half_known(), PHOTO], settings, 32, 4, np.random.default_rng(1))
    assert {bool(known.all()) for known in crops.known} == {True, False}
    latents = encode_crops(inpainter, crops, 0.3, 3)
    known, learnt, hidden = (torch.from_numpy(m[:, None]) for m in (crops.known, crops.learnt, crops.hidden))
    images = torch.from_numpy(crops.images).permute(0, 3, 1, 2) / 255
    mean, std = inpainter.encode(fill_smooth(images, ~known))
    torch.testing.assert_close(latents.mean, mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(latents.std, std, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        latents.mask_latents, inpainter.prepare_mask_latents(images, hidden), atol=1e-4, rtol=1e-3
    )
    assert torch.equal(latents.weights, loss_weights(inpainter, learnt, hidden, 0.3))


def test_unknown_pixels_have_no_influence(tiny_sd):
    crops = draw_crops([half_known()], PAPER, 32, 2, np.random.default_rng(1))
    other = dataclasses.replace(crops, images=np.where(crops.known[..., None], crops.images, 77).astype(np.uint8))
    one, two = (encode_crops(StableDiffusionInpainter.load(tiny_sd), c, 1.0, 2) for c in (crops, other))
    assert all(torch.equal(tensor, two.tensors()[name]) for name, tensor in one.tensors().items())


def test_rows_with_the_prompt_get_its_embedding_and_the_others_an_empty_ones(tiny_sd, monkeypatch):
    inpainter = StableDiffusionInpainter.load(tiny_sd)
    monkeypatch.setattr(StableDiffusionInpainter, "predict", lambda *inputs: inputs)
    inputs = normal(3, 4, 2, 2), torch.arange(3), normal(3, 5, 2, 2)
    prompted, references = torch.tensor([True, False, True]), torch.tensor([1, -1, 0])
    _, *passed, embeddings, own = Denoiser(inpainter, "a photo of sks")(*inputs, prompted, references)
    assert own is references
    with_prompt, empty = inpainter.encode_prompt(["a photo of sks", ""])
    assert not torch.equal(with_prompt, empty)
    assert torch.equal(embeddings, torch.stack([with_prompt, empty, with_prompt]))
    assert all(a is b for a, b in zip(passed, inputs, strict=True))


def test_a_text_encoder_that_is_not_trained_runs_once(make_trainer, train_steps, monkeypatch):
    calls, real = [], StableDiffusionInpainter.encode_prompt
    monkeypatch.setattr(
        StableDiffusionInpainter,
        "encode_prompt",
        lambda self, prompts: calls.append(len(prompts)) or real(self, prompts),
    )
    train_steps(make_trainer(text_encoder_learning_rate=0.0), [PHOTO], 3)
    assert calls == [2]
    train_steps(make_trainer(), [PHOTO], 3)
    assert calls == [2] * 4


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 4}])
def test_the_loss_is_the_mean_squared_error_over_latents_that_count(make_trainer, monkeypatch, changes):
    trainer = make_trainer(batch_size=4, hole_margin_px=3, visible_weight=0.5, mask_dropout=0.0, **changes)
    drawn, predictions = [], []
    real, diffuse = loop.draw_noising, StableDiffusionInpainter.diffuse
    monkeypatch.setattr(loop, "draw_noising", lambda *inputs: drawn.append(real(*inputs)) or drawn[-1])

    def scaled(inpainter, latents, noise, quantiles):  # a base model that weights errors by their noise level
        return *diffuse(inpainter, latents, noise, quantiles)[:3], 1 + quantiles[:, None, None, None]

    monkeypatch.setattr(StableDiffusionInpainter, "diffuse", scaled)

    def predict(noisy_latents, *_):
        predictions.append(torch.full_like(noisy_latents, 0.5, requires_grad=True))
        return predictions[-1]

    trainer.denoiser.forward = predict
    loss = loop.compute_gradients(trainer, [half_known(), PHOTO])
    weights = trainer.next_batch([half_known(), PHOTO])[0].weights
    assert {0.0, 0.5, 1.0} == set(weights.unique().tolist())
    errors = 0.5 - drawn[0].noise[1]  # the base model predicts the noise
    factors = (1 + drawn[0].quantiles[:, None, None, None]) * weights / (weights.sum() * 4)
    assert float(loss) == pytest.approx(float((errors**2 * factors).sum()), rel=1e-4)
    torch.testing.assert_close(torch.cat([p.grad for p in predictions]), 2 * errors * factors)


@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v"])
def test_the_model_sees_what_the_step_drew(base, request, make_trainer, monkeypatch):
    trainer = make_trainer(request.getfixturevalue(base), batch_size=4, prompt_dropout=0.5)
    drawn, inputs = [], []
    real = loop.draw_noising
    monkeypatch.setattr(loop, "draw_noising", lambda *args: drawn.append(real(*args)) or drawn[-1])
    forward = trainer.denoiser.forward
    trainer.denoiser.forward = lambda *args: inputs.append(args) or forward(*args)
    loop.compute_gradients(trainer, [PHOTO])
    (noisy_latents, timesteps, mask_latents, prompted, references, categories), (noising,) = inputs[0], drawn
    latents = trainer.next_batch([PHOTO])[0]
    expected = trainer.inpainter.diffuse(
        latents.mean + latents.std * noising.noise[0], noising.noise[1], noising.quantiles
    )
    torch.testing.assert_close(noisy_latents, expected[0])
    assert torch.equal(timesteps, expected[1])
    assert torch.equal(mask_latents, latents.mask_latents)
    assert torch.equal(prompted, noising.prompted)
    assert references.tolist() == [-1] * 4
    assert categories is None
    assert {True, False} == set(prompted.tolist())


def test_crops_are_encoded_in_the_precision_of_the_fit(make_trainer, monkeypatch):
    dtypes, real = [], AutoencoderKL.encode

    def encode(self, *inputs, **options):
        result = real(self, *inputs, **options)
        dtypes.append(result.latent_dist.mean.dtype)
        return result

    monkeypatch.setattr(AutoencoderKL, "encode", encode)
    single, half, cached = (
        make_trainer(mixed_precision=precision, **changes).next_batch([PHOTO])[0]
        for precision, changes in (("no", {}), ("bf16", {}), ("bf16", {"latent_cache_size": 2}))
    )
    assert dtypes == [torch.float32] * 2 + [torch.bfloat16] * 4
    names = set(single.tensors()) - {"references"}
    assert all(getattr(x, name).dtype == torch.float32 for x in (single, half, cached) for name in names)
    assert 0 < (half.mean - single.mean).norm() < 0.03 * single.mean.norm()


def test_crops_are_indexed_by_row():
    crops = draw_crops([PHOTO], PAPER, 16, 4, np.random.default_rng(0))
    assert crops[1::2].categories is None
    hints = np.arange(4).repeat(16 * 16 * 4).astype(np.uint8).reshape(4, 16, 16, 4)
    crops = dataclasses.replace(crops, categories=np.arange(4), stages=np.arange(4, 8), hints=hints)
    half = crops[1::2]
    assert isinstance(half, Crops) and len(half) == 2
    assert all(np.array_equal(getattr(half, name), getattr(crops, name)[1::2]) for name in Crops.__slots__)
