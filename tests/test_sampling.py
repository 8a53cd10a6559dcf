"""Sampling: a seed's sample is its own, whatever the batch, the global state, and what lies under the hole."""

import pytest
import torch
from conftest import make_photo
from diffusers import DDPMScheduler

import realfill.models.inpainter
from realfill.images import to_tensor
from realfill.models.inpainter import Inpainter
from realfill.sampling import sample

DDPM_OPTIONS = {"clip_sample": False, "variance_type": "fixed_small"}


@pytest.fixture(scope="module", params=["tiny_sd", "tiny_v", "mini"])
def inpainter(request):
    return Inpainter.load(request.param if request.param == "mini" else request.getfixturevalue(request.param))


@pytest.fixture
def image(inpainter):
    return to_tensor(make_photo(4 * inpainter.latent_px, 6 * inpainter.latent_px))


@pytest.fixture
def hole(image):
    return torch.rand(image[:, :1].shape, generator=torch.Generator().manual_seed(0)) < 0.5


@pytest.fixture
def draw(inpainter, image, hole):
    def run(**changes):
        options = {"image": image, "hole": hole, "seeds": [5], "scheduler": "ddpm", "num_inference_steps": 4}
        return sample(inpainter, **{**options, **changes})

    return run


def difference(a, b):
    return (a - b).abs().max().item() * 255


@pytest.mark.parametrize("scheduler", ["ddpm", "dpm++", "euler"])
def test_a_seed_gives_the_same_image_in_any_batch(draw, scheduler):
    together = draw(seeds=[4, 5, 6], scheduler=scheduler)
    assert together.shape[0] == 3
    assert difference(together[1:2], draw(seeds=[5], scheduler=scheduler)) <= 2


def test_a_seed_gives_the_same_image_in_any_batch_under_guidance(draw):
    options = {"guidance_scale": 3.0, "prompt": "a photo of sks", "negative_prompt": "fog"}
    assert difference(draw(seeds=[4, 5, 6], **options)[1:2], draw(seeds=[5], **options)) <= 2


def test_other_seeds_give_other_images(draw):
    images = draw(seeds=[4, 5, 6])
    assert min(difference(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 2


def test_samples_are_images_of_the_windows_size(draw, image):
    images = draw(seeds=[1, 2])
    assert images.shape == (2, *image.shape[1:])
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1


def test_no_global_random_state_is_touched_or_read(draw):
    state = torch.get_rng_state()
    wanted = draw()
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        assert torch.equal(draw(), wanted)


def test_what_lies_under_the_hole_has_no_influence(draw, image, hole):
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(1))
    wanted = draw()
    for stranger in (torch.zeros(()), torch.ones(()), noise):
        assert torch.equal(draw(image=torch.where(hole, stranger, image)), wanted)


def test_what_is_known_has_influence(draw, image):
    assert difference(draw(image=image.flip(-1)), draw()) > 0.1


def test_without_guidance_the_negative_prompt_is_not_looked_at(draw):
    assert torch.equal(draw(negative_prompt="fog"), draw(negative_prompt="rain"))


def test_guidance_leads_away_from_the_negative_prompt(draw):
    assert not torch.equal(
        draw(guidance_scale=3.0, negative_prompt="fog"), draw(guidance_scale=3.0, negative_prompt="rain")
    )


def test_guidance_away_from_the_prompt_itself_leads_nowhere(draw):
    wanted = draw(prompt="sks")
    assert difference(draw(guidance_scale=3.0, prompt="sks", negative_prompt="sks"), wanted) <= 2


def test_the_prompt_is_heard(draw):
    assert not torch.equal(draw(prompt="a photo of sks"), draw(prompt=""))


@pytest.mark.parametrize("num_steps", [1, 7])
def test_each_denoising_step_is_reported(draw, num_steps):
    calls = []
    draw(num_inference_steps=num_steps, on_step=lambda: calls.append(1))
    assert len(calls) == num_steps


def test_no_gradients_are_kept(draw):
    assert not draw().requires_grad


def test_a_lower_temperature_makes_seeds_more_alike_and_one_is_stock_ddpm(draw, inpainter, monkeypatch):
    def spread(**changes):
        images = draw(seeds=[4, 5, 6, 7], **changes)
        return images.std(dim=0).mean().item()

    assert spread(temperature=0.0) < spread(temperature=1.0) < spread(temperature=1.5)
    ours = draw(temperature=1.0)
    monkeypatch.setitem(realfill.models.inpainter._SCHEDULERS, "ddpm", (DDPMScheduler, DDPM_OPTIONS))
    assert torch.equal(draw(), ours)
