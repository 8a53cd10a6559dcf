"""Sampling: a sample depends on its seed and the known pixels, not on the batch, global state or hidden pixels."""

import dataclasses

import pytest
import torch
from diffusers import DDPMScheduler
from helpers import make_photo

import realfill.compute.memory
from realfill.compute.memory import FREE_SHARE, peak_bytes
from realfill.compute.progress import Interrupted
from realfill.config import SampleConfig
from realfill.io.images import to_bytes, to_tensor
from realfill.models.diffusion.sampling import largest_batch, sample
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.diffusion.tiles import Tiles

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["tiny_sd", "tiny_v", "mini"])
def inpainter(request):
    return StableDiffusionInpainter.load(
        request.param if request.param == "mini" else request.getfixturevalue(request.param)
    )


@pytest.fixture
def image(inpainter):
    return to_tensor(make_photo(4 * inpainter.vae_scale_factor, 6 * inpainter.vae_scale_factor))


@pytest.fixture
def hole(image):
    return torch.rand(image[:, :1].shape, generator=torch.Generator().manual_seed(0)) < 0.5


def drawn(inpainter, image, hole, *, seeds=(5,), start=None, batch_size=None, on_step=None, confidence=None, **config):
    """Sample with the given settings; with ``start``, apply them to the second stage."""
    if start is not None:
        names = {"num_inference_steps": "stage_steps", "strength": "stage_strength"}
        config = {names.get(n, n): (v,) if n in names else v for n, v in config.items()}
    return sample(
        inpainter, image, hole, seeds=seeds, settings=SampleConfig(**config).resolve({}), stage=int(start is not None),
        start=start, batch_size=batch_size, on_step=on_step, confidence=confidence,
    )  # fmt: skip


@pytest.fixture
def draw(inpainter, image, hole):
    def run(**changes):
        options = {"image": image, "hole": hole, "scheduler": "ddpm", "num_inference_steps": 4}
        return drawn(inpainter, **{**options, **changes})

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


def test_the_global_random_state_is_neither_changed_nor_used(draw):
    state = torch.get_rng_state()
    expected = draw()
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        assert torch.equal(draw(), expected)


def test_pixels_under_the_hole_have_no_influence(draw, image, hole):
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(1))
    expected = draw()
    for content in (torch.zeros(()), torch.ones(()), noise):
        assert torch.equal(draw(image=torch.where(hole, content, image)), expected)


def test_known_pixels_have_influence(draw, image):
    assert difference(draw(image=image.flip(-1)), draw()) > 0.1


def test_without_guidance_the_negative_prompt_has_no_influence(draw):
    assert torch.equal(draw(negative_prompt="fog"), draw(negative_prompt="rain"))


def test_guidance_leads_away_from_the_negative_prompt(draw):
    assert not torch.equal(
        draw(guidance_scale=3.0, negative_prompt="fog"), draw(guidance_scale=3.0, negative_prompt="rain")
    )


def test_guidance_away_from_the_prompt_itself_has_no_effect(draw):
    expected = draw(prompt="sks")
    assert difference(draw(guidance_scale=3.0, prompt="sks", negative_prompt="sks"), expected) <= 2


@pytest.fixture
def fitted(inpainter):
    """A base model whose U-Net changed a little, as in a fit, with a copy from before."""
    changed = StableDiffusionInpainter.load(inpainter.base)
    changed.keep_unfitted()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in changed.unet.parameters():
            weight.add_(0.01 * weight.abs().mean() * torch.randn(weight.shape, generator=generator))
    return changed


def test_guidance_leads_away_from_the_base_without_its_adapter(inpainter, fitted, image, hole):
    def draw(who, **changes):
        return drawn(who, image, hole, seeds=[4, 5], scheduler="ddim", num_inference_steps=1, **changes)

    def guided(scale):
        return draw(fitted, guidance_from="base", guidance_scale=scale, negative_prompt="fog")

    before, after = draw(inpainter), draw(fitted)
    assert not torch.equal(before, after)
    assert torch.equal(guided(1.0), after)
    assert difference(guided(0.0), before) <= 0.1
    inside = ((before > 0.05) & (before < 0.95)).all(dim=1, keepdim=True).expand_as(before)
    assert difference(guided(2.0)[inside], (2 * after - before)[inside]) < 0.3 * difference(
        after[inside], before[inside]
    )


@pytest.mark.parametrize("inpainter", ["mini"], indirect=True)
def test_a_model_that_sees_hints_is_guided_away_from_a_prompt_but_not_from_its_base(fitted, image, hole, monkeypatch):
    def draw(**changes):
        options = {"scheduler": "ddim", "num_inference_steps": 1, "confidence": 0.2 * hole.float(), **changes}
        return drawn(fitted, image, hole, **options)

    def is_guided(**changes):
        return not torch.equal(draw(guidance_from="base", guidance_scale=3.0, **changes), draw(**changes))

    assert not is_guided() and not is_guided(start=image, scheduler="ddpm", num_inference_steps=4)
    assert is_guided(confidence=None) and is_guided(confidence=(~hole).float()), "without hints in the hole"
    assert not torch.equal(draw(guidance_scale=3.0, negative_prompt="fog", prompt="sks"), draw(prompt="sks"))
    monkeypatch.setattr(fitted, "card", dataclasses.replace(fitted.card, reads_hints=False))
    assert is_guided(), "a model that reads no hints sees none"


def test_guidance_away_from_the_base_has_no_effect_without_an_adapter(draw):
    assert torch.equal(draw(guidance_from="base", guidance_scale=3.0), draw())


def test_the_prompt_has_influence(draw):
    assert not torch.equal(draw(prompt="a photo of sks"), draw(prompt=""))


@pytest.mark.parametrize("num_steps", [1, 7])
def test_each_denoising_step_is_reported(draw, num_steps):
    reports = []
    draw(num_inference_steps=num_steps, on_step=reports.append)
    assert [(r.phase, r.step, r.num_steps) for r in reports] == [
        ("sample", i, num_steps) for i in range(1, num_steps + 1)
    ]
    times = [r.time_s for r in reports]
    assert times == sorted(times) and times[0] > 0


@pytest.mark.parametrize("answer", [None, True])
def test_only_false_stops_sampling(draw, answer):
    assert torch.equal(draw(on_step=lambda _: answer), draw())


@pytest.mark.parametrize("last", [1, 3])
def test_false_stops_sampling_before_the_next_step(draw, last):
    steps = []

    def stop(progress):
        steps.append(progress.step)
        return progress.step < last

    with pytest.raises(Interrupted):
        draw(num_inference_steps=4, on_step=stop)
    assert steps == list(range(1, last + 1))


def test_false_after_the_last_step_keeps_the_sample(draw):
    assert torch.equal(draw(num_inference_steps=4, on_step=lambda progress: progress.step < 4), draw())


def test_no_gradients_are_kept(draw):
    assert not draw().requires_grad


@pytest.mark.parametrize("scheduler", ["ddpm", "dpm++"])
def test_sampling_a_whole_window_is_a_plain_denoising_loop(draw, inpainter, image, hole, scheduler):
    steps = inpainter.make_scheduler(scheduler, 4)
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn((1, *inpainter.latent_shape(image.shape[-2:])), generator=generator) * steps.init_noise_sigma
    mask_latents, embeddings = inpainter.prepare_mask_latents(image, hole), inpainter.encode_prompt([""])
    options = {"generator": [generator]} if scheduler == "ddpm" else {}
    with torch.no_grad():
        for timestep in steps.timesteps:
            model_pred = inpainter.predict(
                steps.scale_model_input(latents, timestep), timestep[None], mask_latents, embeddings
            )
            latents = steps.step(model_pred, timestep, latents, **options).prev_sample
    assert torch.equal(draw(scheduler=scheduler), inpainter.decode(latents))


def enlarged(latents, factor):
    return latents.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


SCHEDULERS = ["ddpm", "ddim", "dpm++", "unipc", "euler"]


def large(inpainter):
    """Return a canvas of several tiles, a hole in its middle, and an image to start from."""
    side = inpainter.resolution
    image = to_tensor(make_photo(side + side // 2, 2 * side))
    hole = torch.zeros_like(image[:, :1], dtype=torch.bool)
    hole[..., side // 2 : side, side // 2 : -side // 2] = True
    return image, hole, to_tensor(make_photo(side + side // 2, 2 * side, 3))


def refine(inpainter, canvas=None, **changes):
    image, hole, first = canvas or large(inpainter)
    options = {"scheduler": "dpm++", "num_inference_steps": 2, "start": torch.where(hole, first, image)}
    return drawn(inpainter, image, hole, **{**options, **changes})


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0])
def test_a_perfect_model_arrives_at_its_answer_from_any_strength(inpainter, monkeypatch, scheduler, strength):
    """With every sampler, the noise levels match the start, and steps and tiles add up."""
    image, hole, first = large(inpainter)
    config = {**inpainter.pipeline.scheduler.config, "prediction_type": "sample"}
    monkeypatch.setattr(inpainter.pipeline, "scheduler", DDPMScheduler.from_config(config))
    monkeypatch.setattr(StableDiffusionInpainter, "predict", lambda self, noisy, *_: torch.full_like(noisy, 0.3))
    monkeypatch.setattr(StableDiffusionInpainter, "decode", lambda self, z: enlarged(z[:, :3], self.vae_scale_factor))
    steps = []
    refined = drawn(
        inpainter, image, hole, seeds=[1], scheduler=scheduler, num_inference_steps=5, start=first,
        strength=strength, tile_overlap=0.25, on_step=steps.append,
    )  # fmt: skip
    assert len(steps) == 5
    assert (refined[hole.expand_as(refined)] - 0.3).abs().max() < 1e-4
    assert refined.shape == image.shape and ((refined - 0.3).abs()[~hole.expand_as(refined)] > 0.1).any()


def test_tiles_do_not_change_the_result_of_a_pixelwise_model(inpainter, monkeypatch):
    canvas, channels = large(inpainter), inpainter.latent_shape((2, 2))[0]

    def posterior(self, images):
        latents = torch.nn.functional.avg_pool2d(images[:, [0] * channels], self.vae_scale_factor)
        return latents, torch.zeros_like(latents)

    monkeypatch.setattr(StableDiffusionInpainter, "encode", posterior)
    monkeypatch.setattr(StableDiffusionInpainter, "decode", lambda self, z: enlarged(z[:, :3], self.vae_scale_factor))
    monkeypatch.setattr(StableDiffusionInpainter, "predict", lambda self, noisy, *_: 0.4 * noisy)
    many = refine(inpainter, canvas)
    monkeypatch.setattr(StableDiffusionInpainter, "resolution", property(lambda _: 10_000))
    assert torch.allclose(many, refine(inpainter, canvas), atol=1e-4)


def test_the_number_of_tiles_in_a_batch_does_not_change_the_result(inpainter):
    assert difference(refine(inpainter), refine(inpainter, batch_size=2)) <= 2
    image, hole, first = large(inpainter)
    several = {"seeds": (5, 6, 7), "start": torch.where(hole, first, image).repeat(3, 1, 1, 1)}
    whole = refine(inpainter, **several)
    assert all(difference(whole, refine(inpainter, batch_size=n, **several)) <= 2 for n in (1, 2, 4, 5))


def test_leaving_out_tiles_without_a_hole_hardly_changes_the_hole(inpainter, monkeypatch):
    image, _, first = large(inpainter)
    hole = torch.zeros_like(image[:, :1], dtype=torch.bool)
    hole[..., : inpainter.resolution // 2, : inpainter.resolution // 2] = True
    canvas, batches, predict = (image, hole, first), [], StableDiffusionInpainter.predict
    monkeypatch.setattr(
        StableDiffusionInpainter, "predict", lambda *args: batches.append(len(args[1])) or predict(*args)
    )
    few, some = refine(inpainter, canvas), sum(batches)
    monkeypatch.setattr(Tiles, "meeting", lambda tiles, mask: tiles)
    batches.clear()
    everything = refine(inpainter, canvas)
    assert some < 0.4 * sum(batches)
    assert difference_in(few, everything, hole) <= 3  # the encodings of neighbouring tiles differ at their edges
    assert torch.equal(few[..., -1], image[..., -1]) and not torch.equal(everything[..., -1], image[..., -1])


def test_known_latents_follow_the_start():
    inpainter = StableDiffusionInpainter.load("mini")
    image, hole, first = large(inpainter)
    start = torch.where(hole, first, image)
    refined = refine(inpainter)
    coded = inpainter.decode(inpainter.encode(start)[0])
    near = torch.nn.functional.max_pool2d(hole.float(), 49, stride=1, padding=24) > 0
    assert difference(refined * ~near, coded * ~near) <= 2


def test_less_strength_stays_closer_to_the_start():
    inpainter = StableDiffusionInpainter.load("mini")
    image, hole, first = large(inpainter)
    images = torch.where(hole, first, image)
    near, far = (difference_in(refine(inpainter, strength=s), images, hole) for s in (0.1, 0.9))
    assert near < 0.7 * far


def test_the_memory_of_refining_grows_only_by_the_images(tiny_sd):
    inpainter = StableDiffusionInpainter.load(tiny_sd)

    def peak(side, *, tiled):
        image = to_bytes(make_photo(side, side))
        hole = torch.zeros_like(image[:, :1], dtype=torch.bool)
        hole[..., side // 4 : -side // 4, side // 4 : -side // 4] = True
        options = {"num_inference_steps": 1, "batch_size": 1, "tile_overlap": 0.25, "start": image if tiled else None}
        return peak_bytes(lambda: drawn(inpainter, image, hole, **options), CPU)[1]

    sides = (64, 128, 256)
    small, middle, large = (peak(side, tiled=True) for side in sides)
    an_image = 3 * torch.float32.itemsize
    assert large - middle < 5 * an_image * (256**2 - 128**2)  # the result, its weights and latents
    assert large - small < 5 * an_image * (256**2 - 64**2)
    assert large < 0.2 * peak(256, tiled=False)


def difference_in(a, b, hole):
    return float((a - b).abs()[hole.expand_as(a)].mean()) * 255


def test_pixels_under_the_hole_have_no_influence_on_a_refined_sample(inpainter):
    image, hole, first = large(inpainter)
    options = {"scheduler": "dpm++", "num_inference_steps": 2, "start": torch.where(hole, first, image)}
    expected = drawn(inpainter, image, hole, **options)
    assert torch.equal(drawn(inpainter, torch.where(hole, 1.0, image), hole, **options), expected)


@pytest.mark.parametrize("stage", [0, 1], ids=["from noise", "in tiles"])
def test_hints_reach_the_model_in_each_tile(tiny_sd, monkeypatch, stage):
    tiny, seen, prepare = StableDiffusionInpainter.load(tiny_sd), [], StableDiffusionInpainter.prepare_mask_latents

    def watch(self, images, hole, confidence=None):
        seen.append((images, confidence))
        return prepare(self, images, hole, confidence)

    monkeypatch.setattr(StableDiffusionInpainter, "prepare_mask_latents", watch)
    side = tiny.resolution * (1 + stage)
    trust = torch.rand(1, 1, side, side)
    image, hole = trust.repeat(1, 3, 1, 1), torch.ones_like(trust, dtype=torch.bool)
    settings = SampleConfig(num_samples=1, num_inference_steps=1, stage_steps=(1,)).resolve({})
    sample(
        tiny, image, hole, seeds=[0], settings=settings, stage=stage, start=image if stage else None, confidence=trust
    )  # fmt: skip
    assert len(seen) > 3 if stage else len(seen) == 1
    assert all(torch.equal(confidence.expand_as(images), images) for images, confidence in seen), "the same places"


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 3.0}])
def test_the_largest_batch_fits_into_free_memory(inpainter, draw, monkeypatch, options):
    size = (4 * inpainter.vae_scale_factor, 6 * inpainter.vae_scale_factor)
    assert largest_batch(inpainter, size) <= 16  # on a CPU
    monkeypatch.setattr(realfill.compute.memory, "MAX_BATCH_ON_CPU", 10**6)

    def fit_into(free):
        monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: free)
        return largest_batch(inpainter, size)

    num_bytes = peak_bytes(lambda: draw(seeds=[1], num_inference_steps=1, **options), inpainter.device)[1]
    assert fit_into(0) == 1
    counts = [fit_into(n * num_bytes / FREE_SHARE) for n in (8, 16)]
    assert counts[1] in (2 * counts[0], 2 * counts[0] + 1)
    for number in (4, 8):
        count = fit_into(number * num_bytes / FREE_SHARE)
        together = peak_bytes(lambda n=count: draw(seeds=list(range(n)), num_inference_steps=1, **options), CPU)[1]
        assert together < 1.3 * number * num_bytes
