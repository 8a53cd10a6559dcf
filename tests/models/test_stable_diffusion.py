"""StableDiffusionInpainter: masked-image latents without the hole, training targets, latents, layers, samplers."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from helpers import make_photo
from torch import nn

import realfill.compute.memory
from realfill.compute.memory import FREE_SHARE, peak_bytes
from realfill.errors import RealFillWarning
from realfill.io.images import to_tensor
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.quiet import quiet

SCHEDULERS = ("ddpm", "ddim", "dpm++", "unipc", "euler")
CPU = torch.device("cpu")
PAPER_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture(scope="module", params=["tiny_sd", "tiny_v", "mini"])
def inpainter(request):
    """Each base model in turn; tests do not change it."""
    return StableDiffusionInpainter.load(
        request.param if request.param == "mini" else request.getfixturevalue(request.param)
    )


@pytest.fixture
def sd(tiny_sd):
    return StableDiffusionInpainter.load(tiny_sd)


@pytest.fixture
def velocity(tiny_v):
    return StableDiffusionInpainter.load(tiny_v)


def make_hole(kind, height=48, width=64):
    hole = torch.zeros(1, 1, height, width, dtype=torch.bool)
    if kind == "compact":
        hole[..., 9:30, 13:41] = True
    elif kind == "scattered":
        hole[:] = torch.rand(hole.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    else:
        hole[:] = True
    return hole


def with_other_content(image, hole):
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(1))
    return [torch.where(hole, content, image) for content in (torch.zeros(()), torch.ones(()), noise)]


def photo(height=48, width=64, seed=0):
    return to_tensor(make_photo(height, width, seed))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["compact", "scattered", "everything"])
def test_pixels_under_the_hole_have_no_influence_on_the_mask_latents(inpainter, kind):
    hole = make_hole(kind)
    expected = inpainter.prepare_mask_latents(photo(), hole)
    channels, *size = inpainter.latent_shape((48, 64))
    assert expected.shape == (1, channels + 1, *size)
    for image in with_other_content(photo(), hole):
        assert torch.equal(inpainter.prepare_mask_latents(image, hole), expected)


def test_the_mask_latents_depend_on_known_pixels_and_on_the_hole(inpainter):
    hole = make_hole("compact")
    expected = inpainter.prepare_mask_latents(photo(), hole)
    assert not torch.equal(inpainter.prepare_mask_latents(photo(seed=1), hole), expected)
    assert not torch.equal(inpainter.prepare_mask_latents(photo(), make_hole("scattered")), expected)


@pytest.mark.parametrize("kind", ["compact", "scattered", "everything"])
def test_the_mask_latents_of_stable_diffusion_are_those_of_the_stock_pipeline(sd, monkeypatch, kind):
    image, hole = photo(), make_hole(kind)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    masked = (2 * image - 1) * (hole.float() < 0.5)
    expected = sd.pipeline.prepare_mask_latents(hole.float(), masked, 1, 48, 64, torch.float32, "cpu", None, False)
    torch.testing.assert_close(sd.prepare_mask_latents(image, hole), torch.cat(expected, dim=1), rtol=0, atol=1e-5)


def test_a_latent_is_known_only_if_all_of_its_pixels_are(inpainter):
    known, side = ~make_hole("compact"), inpainter.vae_scale_factor
    known[0, 0, 40:] = ~make_hole("scattered")[0, 0, 40:]
    expected = [[known[0, 0, y : y + side, x : x + side].all() for x in range(0, 64, side)] for y in range(0, 48, side)]
    assert torch.equal(inpainter.known_latents(known)[0, 0], torch.tensor(expected))
    assert torch.tensor(expected).any()


def test_the_packaged_base_marks_every_latent_with_a_hidden_pixel():
    mini, hole = StableDiffusionInpainter.load("mini"), make_hole("compact")
    assert torch.equal(mini.prepare_mask_latents(photo(), hole)[:, :1] == 0, mini.known_latents(~hole))


def test_a_hint_without_confidence_is_no_hint(inpainter):
    hole = make_hole("scattered")
    expected = inpainter.prepare_mask_latents(photo(), hole)
    assert torch.equal(inpainter.prepare_mask_latents(photo(), hole, torch.zeros(hole.shape)), expected)


def test_a_base_that_does_not_read_hints_ignores_them(sd):
    hole = make_hole("compact")
    expected = sd.prepare_mask_latents(photo(), hole)
    assert not sd.reads_hints
    assert torch.equal(sd.prepare_mask_latents(photo(), hole, torch.full(hole.shape, 0.7)), expected)


def test_hints_stay_in_the_masked_image_and_lower_the_mask_channel():
    mini, hole = StableDiffusionInpainter.load("mini"), make_hole("compact")
    trust = torch.where(torch.arange(64) < 24, 0.25, 0.0).expand(hole.shape)
    latents = mini.prepare_mask_latents(photo(), hole, trust)
    mask, masked = latents[:, :1], latents[:, 1:]
    hinted = mini.known_latents(~(hole & (trust == 0))) & ~mini.known_latents(~hole)
    assert hinted.any() and mask[hinted] == pytest.approx(0.75)
    assert (mask[mini.known_latents(~hole)] == 0).all()
    assert mask[..., 3:5][~mini.known_latents(~hole)[..., 3:5]] == pytest.approx(1)
    assert torch.equal(masked[..., :2], mini.encode(photo())[0][..., :2]), "these latents show known pixels and hints"
    assert not torch.equal(masked, mini.prepare_mask_latents(photo(), hole)[:, 1:])


def test_a_latent_with_some_hints_is_marked_by_the_mean_of_its_hidden_pixels():
    mini = StableDiffusionInpainter.load("mini")
    hole, trust = torch.zeros(1, 1, 32, 32, dtype=torch.bool), torch.zeros(1, 1, 32, 32)
    hole[..., :8, 4:8] = True
    trust[..., :4, :8] = 0.5
    assert mini.prepare_mask_latents(photo(32, 32), hole, trust)[0, 0, 0, 0] == pytest.approx(0.75)


def test_a_latent_that_is_marked_by_its_first_pixel_takes_the_hint_of_that_pixel(sd):
    card = dataclasses.replace(sd.card, masked_image="smooth", reads_hints=True)
    reader = StableDiffusionInpainter(sd.base, card, sd.pipeline, sd.fingerprint, sd.device, sd.dtype)
    hole, side = make_hole("everything", 32, 32), sd.vae_scale_factor
    trust = torch.rand(hole.shape, generator=torch.Generator().manual_seed(0))
    mask = reader.prepare_mask_latents(photo(32, 32), hole, trust)[:, :1]
    assert torch.equal(mask, 1 - trust[..., ::side, ::side])


def test_the_target_of_a_model_of_noise_is_the_noise(sd):
    latents, noise = normal(3, 4, 16, 16), normal(3, 4, 16, 16, seed=1)
    noisy, timesteps, target, weights = sd.diffuse(latents, noise, torch.tensor([0.0, 0.5, 1.0]))
    assert timesteps.tolist() == [0, 500, 999]
    assert torch.equal(target, noise)
    assert torch.equal(weights, torch.ones(3, 1, 1, 1))
    kept = sd.pipeline.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, kept.sqrt() * latents + (1 - kept).sqrt() * noise)


def test_the_target_of_a_model_of_velocity_is_the_velocity(velocity):
    latents, noise = normal(3, 6, 16, 16), normal(3, 6, 16, 16, seed=1)
    _, timesteps, target, weights = velocity.diffuse(latents, noise, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(target, velocity.pipeline.scheduler.get_velocity(latents, noise, timesteps))
    kept = velocity.pipeline.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(target, kept.sqrt() * noise - (1 - kept).sqrt() * latents)
    assert torch.equal(weights, torch.ones(3, 1, 1, 1))


def test_the_target_of_a_model_of_latents_is_the_latents(sd):
    sd.pipeline.scheduler.register_to_config(prediction_type="sample")
    latents, noise = normal(2, 4, 16, 16), normal(2, 4, 16, 16, seed=1)
    noisy, timesteps, target, weights = sd.diffuse(latents, noise, torch.tensor([0.3, 0.99]))
    assert torch.equal(target, latents)
    # the weighted error of the latents is the error of the velocity that they imply
    kept = sd.pipeline.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    guess = latents + 0.1 * noise

    def velocity_of(clean):
        return (kept.sqrt() * noisy - clean) / (1 - kept).sqrt()

    squared = (velocity_of(guess) - velocity_of(latents)) ** 2
    torch.testing.assert_close(weights * (guess - latents) ** 2, squared, rtol=1e-3, atol=1e-5)


def test_the_weight_of_the_error_of_latents_is_bounded(sd):
    sd.pipeline.scheduler.register_to_config(prediction_type="sample")
    latents = normal(1, 4, 16, 16)
    assert sd.diffuse(latents, latents, torch.zeros(1))[3].item() == pytest.approx(50)


@pytest.mark.parametrize(("base", "pure"), [("tiny_v", True), ("mini", True), ("tiny_sd", False)])
def test_at_zero_terminal_snr_the_last_timestep_is_pure_noise(request, base, pure):
    loaded = StableDiffusionInpainter.load(base if base == "mini" else request.getfixturevalue(base))
    shape = loaded.latent_shape((32, 32))
    latents, noise = normal(1, *shape), normal(1, *shape, seed=1)
    assert torch.equal(loaded.diffuse(latents, noise, torch.ones(1))[0], noise) == pure


@pytest.mark.parametrize("kind", [PNDMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
def test_the_scheduler_in_the_files_does_not_change_the_training_targets(sd, kind):
    latents, noise, quantiles = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1), torch.tensor([0.1, 0.9])
    expected = sd.diffuse(latents, noise, quantiles)
    sd.pipeline.scheduler = kind.from_config(sd.pipeline.scheduler.config)
    for a, b in zip(sd.diffuse(latents, noise, quantiles), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_encode_scales_latents_and_decode_undoes_it(velocity):
    vae, image = velocity.pipeline.vae, photo(32, 48)
    expected = vae.encode(2 * image - 1).latent_dist
    mean, std = velocity.encode(image)
    torch.testing.assert_close(mean, 0.7 * expected.mode())
    torch.testing.assert_close(std, 0.7 * expected.std)
    torch.testing.assert_close(velocity.decode(mean), (vae.decode(expected.mode()).sample / 2 + 0.5).clamp(0, 1))


def test_encode_and_decode_agree_on_a_shift(sd):
    (mean, std), image = sd.encode(photo(32, 32)), sd.decode(normal(1, 4, 16, 16))
    sd.pipeline.vae.register_to_config(shift_factor=0.25)
    scale = sd.pipeline.vae.config.scaling_factor
    torch.testing.assert_close(sd.encode(photo(32, 32)), (mean - 0.25 * scale, std))
    torch.testing.assert_close(sd.decode(normal(1, 4, 16, 16) - 0.25 * scale), image)


def test_decoded_images_are_clipped_to_0_and_1():
    images = StableDiffusionInpainter.load("mini").decode(50 * normal(1, 40, 4, 6))
    assert images.shape == (1, 3, 32, 48)
    assert (images.min(), images.max()) == (0, 1)


def test_the_papers_targets_are_the_attention_layers(sd):
    layers = sd.lora_layers(PAPER_TARGETS)
    assert all(".attn1.to_" in name or ".attn2.to_" in name for name in layers)
    num_blocks = sum(name.endswith(("attn1", "attn2")) for name, _ in sd.unet.named_modules())
    assert len(layers) == 4 * num_blocks > 0
    assert all(layer is sd.unet.get_submodule(name) for name, layer in layers.items())


def test_a_star_stands_for_every_linear_layer_and_convolution(sd):
    layers = sd.lora_layers(("*",))
    num_matrices = sum(name.endswith("weight") and p.ndim >= 2 for name, p in sd.unet.named_parameters())
    assert len(layers) == num_matrices
    assert {type(layer) for layer in layers.values()} >= {nn.Conv2d}
    assert "conv_in" in layers


@pytest.mark.parametrize("unknown", ["to_z", "q", "attn1", ""])
def test_a_target_without_layers_is_refused(sd, unknown):
    with pytest.raises(ValueError, match=f"{unknown!r}.*ends of layer names"):
        sd.lora_layers(("to_q", unknown))


def test_the_fingerprint_depends_on_the_weights_but_not_on_their_precision(tiny_sd, tiny_v, tmp_path):
    with quiet():
        StableDiffusionInpaintPipeline.from_pretrained(tiny_sd).to(dtype=torch.float16).save_pretrained(
            tmp_path, variant="fp16"
        )
    assert list(tmp_path.rglob("*.fp16.safetensors"))
    fingerprint = StableDiffusionInpainter.load(tiny_sd).fingerprint
    assert StableDiffusionInpainter.load(str(tmp_path)).fingerprint == fingerprint
    others = [StableDiffusionInpainter.load(base).fingerprint for base in (tiny_v, "mini")]
    assert len({fingerprint, *others}) == 3


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_half_precision_files_are_loaded_in_single_precision(tiny_sd, tmp_path, variant):
    with quiet():
        halved = StableDiffusionInpaintPipeline.from_pretrained(tiny_sd).to(dtype=torch.float16)
        halved.save_pretrained(tmp_path, variant=variant)
    loaded = StableDiffusionInpainter.load(str(tmp_path))
    parts = (loaded.unet, loaded.text_encoder, loaded.pipeline.vae)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32} == {loaded.dtype}


def test_loading_freezes_every_part(inpainter):
    parts = (inpainter.unet, inpainter.text_encoder, inpainter.pipeline.vae)
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    assert not any(part.training for part in parts)


def test_sizes_come_from_the_base_model(tiny_sd):
    sd, mini = StableDiffusionInpainter.load(tiny_sd), StableDiffusionInpainter.load("mini")
    assert (sd.resolution, sd.vae_scale_factor, sd.latent_shape((32, 48))) == (32, 2, (4, 16, 24))
    assert (mini.resolution, mini.vae_scale_factor, mini.latent_shape((128, 64))) == (128, 8, (40, 16, 8))
    assert (
        StableDiffusionInpainter.from_pipeline(
            sd.pipeline, base="", card=dataclasses.replace(sd.card, resolution=48)
        ).resolution
        == 48
    )


def test_embeddings_have_one_length_and_differ_between_prompts(sd):
    embeddings = sd.encode_prompt(["", "a photo of sks", "a photo of sks " * 9])
    assert embeddings.shape == (3, 16, 32)
    assert not torch.allclose(embeddings[0], embeddings[1], atol=1e-3)


def test_saving_keeps_the_fingerprint_and_does_not_change_the_base_model(sd, tmp_path):
    before = {k: v.clone() for k, v in sd.unet.state_dict().items()}
    sd.save(tmp_path, sd.card)
    assert StableDiffusionInpainter.load(str(tmp_path)).fingerprint == sd.fingerprint
    assert all(torch.equal(v, before[k]) for k, v in sd.unet.state_dict().items())


def test_an_image_too_large_for_memory_is_decoded_in_tiles_with_a_warning(tiny_sd, monkeypatch):
    loaded = StableDiffusionInpainter.load(tiny_sd)
    latents = normal(2, 4, 24, 40)
    whole = loaded.decode(latents)
    free = 3 * 32 * 4 * 48 * 80 / FREE_SHARE  # bytes that one image takes
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: free + 1)
    assert torch.equal(loaded.decode(latents), whole)
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: free - 100)
    with pytest.warns(RealFillWarning, match=r"48 x 80 pixels is decoded in tiles"):
        tiled = loaded.decode(latents)
    assert not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.05 < whole.std()
    vae = loaded.pipeline.vae
    assert not vae.use_tiling
    assert not vae.use_slicing


def test_an_image_no_larger_than_a_tile_is_decoded_as_a_whole(tiny_sd, monkeypatch):
    loaded = StableDiffusionInpainter.load(tiny_sd)
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: 1)
    assert loaded.decode(normal(1, 4, 16, 16)).shape == (1, 3, 32, 32)


def test_decoding_needs_the_estimated_memory(tiny_sd):
    loaded = StableDiffusionInpainter.load(tiny_sd)
    peaks = [peak_bytes(lambda n=n: loaded.decode(normal(n, 4, 24, 40)), CPU)[1] for n in (1, 4)]
    estimated = 3 * 32 * 4 * 48 * 80
    assert estimated <= peaks[0] < 1.2 * estimated
    assert peaks[1] - peaks[0] < 4 * 4 * (4 * 24 * 40 + 4 * 3 * 48 * 80)  # one at a time: only the results add up


def test_the_packaged_base_never_decodes_in_tiles(monkeypatch):
    loaded = StableDiffusionInpainter.load("mini")
    latents = normal(1, *loaded.latent_shape((128, 128)))
    whole = loaded.decode(latents)
    monkeypatch.setattr(realfill.compute.memory, "free_bytes", lambda _: 0)
    assert torch.equal(loaded.decode(latents), whole)


def small_shape(loaded):
    return loaded.latent_shape((4 * loaded.vae_scale_factor, 4 * loaded.vae_scale_factor))


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
def test_every_sampler_arrives_at_the_answer_of_a_perfect_model(request, base, name, num_steps):
    loaded = StableDiffusionInpainter.load(request.getfixturevalue(base))
    goal = normal(1, *small_shape(loaded), seed=9)
    schedule = loaded.pipeline.scheduler

    def predict(noisy, timestep):
        kept = schedule.alphas_cumprod[int(timestep)].double()
        noise = (noisy.double() - kept.sqrt() * goal) / (1 - kept).sqrt()
        expected = noise if base == "tiny_sd" else kept.sqrt() * noise - (1 - kept).sqrt() * goal
        return expected.float()

    torch.testing.assert_close(run_sampler(loaded, name, num_steps, predict), goal, rtol=0, atol=0.02)


@pytest.mark.parametrize("num_steps", [6, 7, 30])
@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v"])
def test_ddim_steps_follow_its_formula(request, base, num_steps):
    loaded = StableDiffusionInpainter.load(request.getfixturevalue(base))
    levels = loaded.pipeline.scheduler.alphas_cumprod.double()
    timesteps = [int(t) for t in loaded.make_scheduler("ddim", num_steps).timesteps]
    expected = normal(1, *small_shape(loaded), seed=3).double()
    for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        signal, noise, guess = levels[t].sqrt(), (1 - levels[t]).sqrt(), 0.3 * expected + 0.1
        if base == "tiny_sd":
            clean, rest = (expected - noise * guess) / signal, guess
        else:
            clean, rest = signal * expected - noise * guess, signal * guess + noise * expected
        level = torch.ones(()) if following is None else levels[following]
        expected = level.sqrt() * clean + (1 - level).sqrt() * rest
    latents = run_sampler(loaded, "ddim", num_steps, lambda x, _: 0.3 * x + 0.1)
    torch.testing.assert_close(latents, expected.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_steps", [7, 30])
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("base", ["tiny_sd", "tiny_v"])
def test_every_sampler_gives_finite_latents(request, base, name, num_steps):
    inpainter = StableDiffusionInpainter.load(request.getfixturevalue(base))
    side = 4 * inpainter.vae_scale_factor
    condition = inpainter.prepare_mask_latents(photo(side, side), make_hole("everything", side, side))
    with torch.no_grad():
        embeddings = inpainter.encode_prompt([""])
        latents = run_sampler(
            inpainter, name, num_steps, lambda x, t: inpainter.predict(x, t.expand(1), condition, embeddings)
        )
    assert latents.isfinite().all()
    assert latents.abs().max() < 100


@pytest.mark.parametrize("kind", [PNDMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_scheduler_in_the_files_does_not_change_the_sampler(sd, name, kind):
    expected = run_sampler(sd, name, 7, lambda x, t: x * 0.5)
    sd.pipeline.scheduler = kind.from_config(sd.pipeline.scheduler.config)
    torch.testing.assert_close(run_sampler(sd, name, 7, lambda x, t: x * 0.5), expected)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_at_zero_terminal_snr_every_sampler_starts_from_pure_noise(velocity, name):
    velocity.pipeline.scheduler.register_to_config(timestep_spacing="leading")  # as some base models wrongly state
    assert int(velocity.make_scheduler(name, 7).timesteps[0]) == 999


def test_moving_changes_the_precision_of_every_part(sd):
    sd.to(torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for part in (sd.unet, sd.text_encoder, sd.pipeline.vae) for p in part.parameters()} == {
        torch.bfloat16
    }
    condition = sd.prepare_mask_latents(photo(), make_hole("compact"))
    assert condition.dtype == torch.float32
    assert np.isfinite(condition.numpy()).all()


def test_the_unfitted_copy_moves_with_the_base_model(tiny_sd):
    inpainter = StableDiffusionInpainter.load(tiny_sd)
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
