"""Sampling: a seed's sample is its own, whatever the batch, the global state, and what lies under the hole."""

import pytest
import torch
from conftest import make_photo
from diffusers import DDPMScheduler

import realfill.models.inpainter
import realfill.sampling
from realfill.capacity import FREE_SHARE, peak_bytes
from realfill.images import to_tensor
from realfill.models.inpainter import Inpainter
from realfill.sampling import largest_batch, sample

CPU = torch.device("cpu")
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


@pytest.mark.parametrize("guided", [False, True])
def test_the_largest_batch_is_what_free_memory_holds(inpainter, draw, monkeypatch, guided):
    size = (4 * inpainter.latent_px, 6 * inpainter.latent_px)

    def fit_into(free):
        monkeypatch.setattr(realfill.sampling, "free_bytes", lambda _: free)
        return largest_batch(inpainter, size, guided=guided)

    options = {"guidance_scale": 3.0} if guided else {}
    taken = peak_bytes(lambda: draw(seeds=[1], num_inference_steps=1, **options), inpainter.device)[1]
    assert fit_into(0) == 1
    found = [fit_into(n * taken / FREE_SHARE) for n in (8, 16)]
    assert found[1] in (2 * found[0], 2 * found[0] + 1)
    for number in (4, 8):
        found = fit_into(number * taken / FREE_SHARE)
        together = peak_bytes(lambda n=found: draw(seeds=list(range(n)), num_inference_steps=1, **options), CPU)[1]
        assert together < 1.3 * number * taken


def test_a_window_too_large_for_memory_is_sampled_one_seed_at_a_time(inpainter, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(realfill.sampling, "peak_bytes", fail)
    assert largest_batch(inpainter, (32, 32), guided=False) == 1
