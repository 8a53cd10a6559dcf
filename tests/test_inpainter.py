"""Inpainter: conditioning that can't see under the hole, the diffusion's targets, latents, layers, samplers."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import make_photo
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

import realfill.models.inpainter
from realfill.capacity import FREE_SHARE, peak_bytes
from realfill.errors import RealFillWarning
from realfill.io.images import to_tensor
from realfill.models._quiet import quiet
from realfill.models.inpainter import Inpainter

SCHEDULERS = ("ddpm", "ddim", "dpm++", "unipc", "euler")
CPU = torch.device("cpu")
PAPER_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture(scope="module", params=["tiny_sd", "tiny_v", "mini"])
def inpainter(request):
    """Give each base in turn, not to be changed."""
    return Inpainter.load(request.param if request.param == "mini" else request.getfixturevalue(request.param))


@pytest.fixture
def sd(tiny_sd):
    return Inpainter.load(tiny_sd)


@pytest.fixture
def velocity(tiny_v):
    return Inpainter.load(tiny_v)


def make_hole(kind, height=48, width=64):
    hole = torch.zeros(1, 1, height, width, dtype=torch.bool)
    if kind == "compact":
        hole[..., 9:30, 13:41] = True
    elif kind == "scattered":
        hole[:] = torch.rand(hole.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    else:
        hole[:] = True
    return hole


def strangers(image, hole):
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(1))
    return [torch.where(hole, stranger, image) for stranger in (torch.zeros(()), torch.ones(()), noise)]


def photo(height=48, width=64, seed=0):
    return to_tensor(make_photo(height, width, seed))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["compact", "scattered", "everything"])
def test_what_lies_under_the_hole_has_no_influence_on_the_condition(inpainter, kind):
    hole = make_hole(kind)
    wanted = inpainter.condition(photo(), hole)
    channels, *size = inpainter.latent_shape((48, 64))
    assert wanted.shape == (1, channels + 1, *size)
    assert all(torch.equal(inpainter.condition(image, hole), wanted) for image in strangers(photo(), hole))


def test_the_condition_depends_on_what_is_known_and_on_the_hole(inpainter):
    hole = make_hole("compact")
    wanted = inpainter.condition(photo(), hole)
    assert not torch.equal(inpainter.condition(photo(seed=1), hole), wanted)
    assert not torch.equal(inpainter.condition(photo(), make_hole("scattered")), wanted)


@pytest.mark.parametrize("kind", ["compact", "scattered", "everything"])
def test_the_condition_of_stable_diffusion_is_the_stock_pipelines(sd, monkeypatch, kind):
    image, hole = photo(), make_hole(kind)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    masked = (2 * image - 1) * (hole.float() < 0.5)
    wanted = sd.pipeline.prepare_mask_latents(hole.float(), masked, 1, 48, 64, torch.float32, "cpu", None, False)
    torch.testing.assert_close(sd.condition(image, hole), torch.cat(wanted, dim=1), rtol=0, atol=1e-5)


def test_a_latent_is_known_only_if_all_of_its_pixels_are(inpainter):
    known, side = ~make_hole("compact"), inpainter.latent_px
    known[0, 0, 40:] = ~make_hole("scattered")[0, 0, 40:]
    wanted = [[known[0, 0, y : y + side, x : x + side].all() for x in range(0, 64, side)] for y in range(0, 48, side)]
    assert torch.equal(inpainter.known_latents(known)[0, 0], torch.tensor(wanted))
    assert torch.tensor(wanted).any()


def test_the_packaged_base_marks_every_latent_with_a_hidden_pixel():
    mini, hole = Inpainter.load("mini"), make_hole("compact")
    assert torch.equal(mini.condition(photo(), hole)[:, :1] == 0, mini.known_latents(~hole))


def test_a_model_of_noise_is_taught_the_noise(sd):
    latents, noise = normal(3, 4, 16, 16), normal(3, 4, 16, 16, seed=1)
    noisy, timesteps, wanted, counts = sd.diffuse(latents, noise, torch.tensor([0.0, 0.5, 1.0]))
    assert timesteps.tolist() == [0, 500, 999]
    assert torch.equal(wanted, noise)
    assert torch.equal(counts, torch.ones(3, 1, 1, 1))
    kept = sd.pipeline.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, kept.sqrt() * latents + (1 - kept).sqrt() * noise)


def test_a_model_of_velocity_is_taught_the_velocity(velocity):
    latents, noise = normal(3, 6, 16, 16), normal(3, 6, 16, 16, seed=1)
    _, timesteps, wanted, counts = velocity.diffuse(latents, noise, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(wanted, velocity.pipeline.scheduler.get_velocity(latents, noise, timesteps))
    kept = velocity.pipeline.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(wanted, kept.sqrt() * noise - (1 - kept).sqrt() * latents)
    assert torch.equal(counts, torch.ones(3, 1, 1, 1))


def test_a_model_of_latents_is_taught_the_latents(sd):
    sd.pipeline.scheduler.register_to_config(prediction_type="sample")
    latents, noise = normal(2, 4, 16, 16), normal(2, 4, 16, 16, seed=1)
    noisy, timesteps, wanted, counts = sd.diffuse(latents, noise, torch.tensor([0.3, 0.99]))
    assert torch.equal(wanted, latents)
    # an error counts as much as that of the velocity that follows from the latents and the noisy ones
    kept = sd.pipeline.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    guess = latents + 0.1 * noise

    def velocity_of(clean):
        return (kept.sqrt() * noisy - clean) / (1 - kept).sqrt()

    squared = (velocity_of(guess) - velocity_of(latents)) ** 2
    torch.testing.assert_close(counts * (guess - latents) ** 2, squared, rtol=1e-3, atol=1e-5)


def test_the_error_of_latents_that_hardly_carry_noise_is_not_weighed_up_without_bound(sd):
    sd.pipeline.scheduler.register_to_config(prediction_type="sample")
    latents = normal(1, 4, 16, 16)
    assert sd.diffuse(latents, latents, torch.zeros(1))[3].item() == pytest.approx(50)


@pytest.mark.parametrize(("base", "pure"), [("tiny_v", True), ("mini", True), ("tiny_sd", False)])
def test_at_zero_terminal_snr_the_last_step_is_noise_alone(request, base, pure):
    loaded = Inpainter.load(base if base == "mini" else request.getfixturevalue(base))
    shape = loaded.latent_shape((32, 32))
    latents, noise = normal(1, *shape), normal(1, *shape, seed=1)
    assert torch.equal(loaded.diffuse(latents, noise, torch.ones(1))[0], noise) == pure


@pytest.mark.parametrize("kind", [PNDMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
def test_the_scheduler_that_a_base_comes_with_does_not_change_what_it_is_taught(sd, kind):
    latents, noise, quantiles = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1), torch.tensor([0.1, 0.9])
    wanted = sd.diffuse(latents, noise, quantiles)
    sd.pipeline.scheduler = kind.from_config(sd.pipeline.scheduler.config)
    for a, b in zip(sd.diffuse(latents, noise, quantiles), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_posterior_is_scaled_and_decode_undoes_it(velocity):
    vae, image = velocity.pipeline.vae, photo(32, 48)
    wanted = vae.encode(2 * image - 1).latent_dist
    mean, std = velocity.posterior(image)
    torch.testing.assert_close(mean, 0.7 * wanted.mode())
    torch.testing.assert_close(std, 0.7 * wanted.std)
    torch.testing.assert_close(velocity.decode(mean), (vae.decode(wanted.mode()).sample / 2 + 0.5).clamp(0, 1))


def test_posterior_and_decode_agree_on_a_shift(sd):
    (mean, std), image = sd.posterior(photo(32, 32)), sd.decode(normal(1, 4, 16, 16))
    sd.pipeline.vae.register_to_config(shift_factor=0.25)
    scale = sd.pipeline.vae.config.scaling_factor
    torch.testing.assert_close(sd.posterior(photo(32, 32)), (mean - 0.25 * scale, std))
    torch.testing.assert_close(sd.decode(normal(1, 4, 16, 16) - 0.25 * scale), image)


def test_decoded_images_lie_between_0_and_1():
    images = Inpainter.load("mini").decode(50 * normal(1, 40, 4, 6))
    assert images.shape == (1, 3, 32, 48)
    assert (images.min(), images.max()) == (0, 1)


def test_the_papers_targets_are_the_attention_layers(sd):
    layers = sd.lora_layers(PAPER_TARGETS)
    assert all(".attn1.to_" in name or ".attn2.to_" in name for name in layers)
    num_blocks = sum(name.endswith(("attn1", "attn2")) for name, _ in sd.unet.named_modules())
    assert len(layers) == 4 * num_blocks > 0
    assert all(layer is sd.unet.get_submodule(name) for name, layer in layers.items())


def test_a_star_means_every_linear_layer_and_convolution(sd):
    layers = sd.lora_layers(("*",))
    num_matrices = sum(name.endswith("weight") and p.ndim >= 2 for name, p in sd.unet.named_parameters())
    assert len(layers) == num_matrices
    assert {type(layer) for layer in layers.values()} >= {nn.Conv2d}
    assert "conv_in" in layers


@pytest.mark.parametrize("unknown", ["to_z", "q", "attn1", ""])
def test_a_target_that_names_no_layer_is_refused(sd, unknown):
    with pytest.raises(ValueError, match=f"{unknown!r}.*ends of names"):
        sd.lora_layers(("to_q", unknown))


def test_the_fingerprint_is_of_the_weights_not_of_their_precision(tiny_sd, tiny_v, tmp_path):
    with quiet():
        StableDiffusionInpaintPipeline.from_pretrained(tiny_sd).to(dtype=torch.float16).save_pretrained(
            tmp_path, variant="fp16"
        )
    assert list(tmp_path.rglob("*.fp16.safetensors"))
    print_ = Inpainter.load(tiny_sd).fingerprint
    assert Inpainter.load(str(tmp_path)).fingerprint == print_
    assert len({print_, Inpainter.load(tiny_v).fingerprint, Inpainter.load("mini").fingerprint}) == 3


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_base_in_half_precision_is_loaded_in_single(tiny_sd, tmp_path, variant):
    with quiet():
        halved = StableDiffusionInpaintPipeline.from_pretrained(tiny_sd).to(dtype=torch.float16)
        halved.save_pretrained(tmp_path, variant=variant)
    loaded = Inpainter.load(str(tmp_path))
    parts = (loaded.unet, loaded.text_encoder, loaded.pipeline.vae)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32} == {loaded.dtype}


def test_loading_freezes_every_part(inpainter):
    parts = (inpainter.unet, inpainter.text_encoder, inpainter.pipeline.vae)
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    assert not any(part.training for part in parts)


def test_the_sizes_are_the_bases_own(tiny_sd):
    sd, mini = Inpainter.load(tiny_sd), Inpainter.load("mini")
    assert (sd.resolution, sd.latent_px, sd.latent_shape((32, 48))) == (32, 2, (4, 16, 24))
    assert (mini.resolution, mini.latent_px, mini.latent_shape((128, 64))) == (128, 8, (40, 16, 8))
    assert (
        Inpainter.from_pipeline(sd.pipeline, base="", card=dataclasses.replace(sd.card, resolution=48)).resolution == 48
    )


def test_prompts_are_embedded_at_one_length_and_differently(sd):
    embeddings = sd.embed(["", "a photo of sks", "a photo of sks " * 9])
    assert embeddings.shape == (3, 16, 32)
    assert not torch.allclose(embeddings[0], embeddings[1], atol=1e-3)


def test_a_saved_base_has_the_same_fingerprint_and_stays_as_it_is(sd, tmp_path):
    before = {k: v.clone() for k, v in sd.unet.state_dict().items()}
    sd.save(tmp_path, sd.card)
    assert Inpainter.load(str(tmp_path)).fingerprint == sd.fingerprint
    assert all(torch.equal(v, before[k]) for k, v in sd.unet.state_dict().items())


def test_an_image_too_large_for_memory_is_decoded_in_tiles_and_told(tiny_sd, monkeypatch):
    loaded = Inpainter.load(tiny_sd)
    latents = normal(2, 4, 24, 40)
    whole = loaded.decode(latents)
    free = 3 * 32 * 4 * 48 * 80 / FREE_SHARE  # bytes that one image takes
    monkeypatch.setattr(realfill.models.inpainter, "free_bytes", lambda _: free + 1)
    assert torch.equal(loaded.decode(latents), whole)
    monkeypatch.setattr(realfill.models.inpainter, "free_bytes", lambda _: free - 100)
    with pytest.warns(RealFillWarning, match=r"48 x 80 pixels is decoded in tiles"):
        tiled = loaded.decode(latents)
    assert not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.05 < whole.std()
    vae = loaded.pipeline.vae
    assert not vae.use_tiling
    assert not vae.use_slicing


def test_an_image_no_larger_than_a_tile_is_decoded_whole_without_a_warning(tiny_sd, monkeypatch):
    loaded = Inpainter.load(tiny_sd)
    monkeypatch.setattr(realfill.models.inpainter, "free_bytes", lambda _: 1)
    assert loaded.decode(normal(1, 4, 16, 16)).shape == (1, 3, 32, 32)


def test_decoding_takes_the_memory_that_is_reckoned_with(tiny_sd):
    loaded = Inpainter.load(tiny_sd)
    peaks = [peak_bytes(lambda n=n: loaded.decode(normal(n, 4, 24, 40)), CPU)[1] for n in (1, 4)]
    reckoned = 3 * 32 * 4 * 48 * 80
    assert reckoned <= peaks[0] < 1.2 * reckoned
    assert peaks[1] - peaks[0] < 4 * 4 * (4 * 24 * 40 + 4 * 3 * 48 * 80)  # one at a time: only the results add up


def test_the_packaged_bases_images_are_never_tiled(monkeypatch):
    loaded = Inpainter.load("mini")
    latents = normal(1, *loaded.latent_shape((128, 128)))
    whole = loaded.decode(latents)
    monkeypatch.setattr(realfill.models.inpainter, "free_bytes", lambda _: 0)
    assert torch.equal(loaded.decode(latents), whole)


def small_shape(loaded):
    return loaded.latent_shape((4 * loaded.latent_px, 4 * loaded.latent_px))


def run_sampler(loaded, name, num_steps, predict, seed=3):
    scheduler = loaded.make_scheduler(name, num_steps)
    latents = normal(1, *small_shape(loaded), seed=seed) * scheduler.init_noise_sigma
    options = {"generator": torch.Generator().manual_seed(seed)} if name == "ddpm" else {}
    for t in scheduler.timesteps:
        inputs = scheduler.scale_model_input(latents, t)
        latents = scheduler.step(predict(inputs, t), t, latents, **options).prev_sample
    return latents


@pytest.mark.parametrize("num_steps", [1, 7, 30])
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v"])
def test_every_sampler_arrives_where_a_perfect_model_points(request, base, name, num_steps):
    loaded = Inpainter.load(request.getfixturevalue(base))
    goal = normal(1, *small_shape(loaded), seed=9)
    schedule = loaded.pipeline.scheduler

    def predict(noisy, timestep):
        kept = schedule.alphas_cumprod[int(timestep)].double()
        noise = (noisy.double() - kept.sqrt() * goal) / (1 - kept).sqrt()
        wanted = noise if base == "tiny_sd" else kept.sqrt() * noise - (1 - kept).sqrt() * goal
        return wanted.float()

    torch.testing.assert_close(run_sampler(loaded, name, num_steps, predict), goal, rtol=0, atol=0.02)


@pytest.mark.parametrize("num_steps", [6, 7, 30])
@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v"])
def test_ddim_goes_from_each_timestep_to_the_next(request, base, num_steps):
    loaded = Inpainter.load(request.getfixturevalue(base))
    levels = loaded.pipeline.scheduler.alphas_cumprod.double()
    timesteps = [int(t) for t in loaded.make_scheduler("ddim", num_steps).timesteps]
    wanted = normal(1, *small_shape(loaded), seed=3).double()
    for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        signal, noise, guess = levels[t].sqrt(), (1 - levels[t]).sqrt(), 0.3 * wanted + 0.1
        if base == "tiny_sd":
            clean, rest = (wanted - noise * guess) / signal, guess
        else:
            clean, rest = signal * wanted - noise * guess, signal * guess + noise * wanted
        level = torch.ones(()) if following is None else levels[following]
        wanted = level.sqrt() * clean + (1 - level).sqrt() * rest
    found = run_sampler(loaded, "ddim", num_steps, lambda x, _: 0.3 * x + 0.1)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_steps", [7, 30])
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v"])
def test_every_sampler_gives_finite_latents(request, base, name, num_steps):
    inpainter = Inpainter.load(request.getfixturevalue(base))
    side = 4 * inpainter.latent_px
    condition = inpainter.condition(photo(side, side), make_hole("everything", side, side))
    with torch.no_grad():
        embeddings = inpainter.embed([""])
        latents = run_sampler(
            inpainter, name, num_steps, lambda x, t: inpainter.predict(x, t.expand(1), condition, embeddings)
        )
    assert latents.isfinite().all()
    assert latents.abs().max() < 100


@pytest.mark.parametrize("kind", [PNDMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_scheduler_that_a_base_comes_with_does_not_change_the_sampler(sd, name, kind):
    wanted = run_sampler(sd, name, 7, lambda x, t: x * 0.5)
    sd.pipeline.scheduler = kind.from_config(sd.pipeline.scheduler.config)
    torch.testing.assert_close(run_sampler(sd, name, 7, lambda x, t: x * 0.5), wanted)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_at_zero_terminal_snr_every_sampler_starts_from_noise_alone(velocity, name):
    velocity.pipeline.scheduler.register_to_config(timestep_spacing="leading")  # as some bases wrongly say
    assert int(velocity.make_scheduler(name, 7).timesteps[0]) == 999


def test_moving_changes_the_precision_of_every_part(sd):
    sd.to(torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for part in (sd.unet, sd.text_encoder, sd.pipeline.vae) for p in part.parameters()} == {
        torch.bfloat16
    }
    condition = sd.condition(photo(), make_hole("compact"))
    assert condition.dtype == torch.float32
    assert np.isfinite(condition.numpy()).all()


def test_what_the_base_was_before_an_adapter_goes_where_the_base_goes(tiny_sd):
    inpainter = Inpainter.load(tiny_sd)
    inpainter.keep_unfitted()
    before = {name: p.clone() for name, p in inpainter.unet.named_parameters()}
    with torch.no_grad():
        for weight in inpainter.unet.parameters():
            weight.add_(1)
    inpainter.to(torch.device("cpu"), torch.bfloat16)
    assert inpainter.unfitted.dtype == torch.bfloat16
    assert inpainter.unfitted.pipeline.vae is inpainter.pipeline.vae
    for name, weight in inpainter.unfitted.unet.named_parameters():
        assert torch.equal(weight, before[name].bfloat16())
