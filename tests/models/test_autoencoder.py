"""The packaged base model: the linear autoencoder, the character-level tokenizer, and a model built around them."""

import numpy as np
import pytest
import skimage.data
import torch
from diffusers import AutoencoderKL, StableDiffusionInpaintPipeline
from transformers import CLIPTokenizer

from realfill.io.images import resize, to_tensor
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.mini.autoencoder import PatchAutoencoder
from realfill.models.mini.building import (
    build_pipeline,
    principal_components,
    regress_decoder,
    spelling_tokenizer,
    widen,
)
from realfill.models.quiet import quiet


@pytest.fixture(scope="module")
def photos():
    return [resize(p, (256, 256)) for p in (skimage.data.astronaut(), skimage.data.coffee())]


@pytest.fixture(scope="module")
def unseen():
    """A photo that no autoencoder here was made from, (1, 3, 256, 256) in [-1, 1]."""
    return to_tensor(resize(skimage.data.chelsea(), (256, 256))) * 2 - 1


@pytest.fixture(scope="module")
def autoencoder(photos):
    return principal_components(photos, 8, 20, num_patches=3000)


@torch.no_grad()
def encode(model, images):
    return model.encode(images).latent_dist.mode()


@torch.no_grad()
def decode(model, latents):
    return model.decode(latents).sample


def psnr(a, b):
    return -10 * ((a - b) ** 2).mean().div(4).log10().item()


def test_an_unseen_photo_is_reconstructed(autoencoder, unseen):
    assert psnr(decode(autoencoder, encode(autoencoder, unseen)), unseen) > 26


def test_the_packaged_autoencoder_reconstructs_an_unseen_photo(unseen):
    packaged = PatchAutoencoder.from_pretrained(MINI_DIRECTORY / "vae")
    assert psnr(decode(packaged, encode(packaged, unseen)), unseen) > 26


def test_more_components_reconstruct_better(photos, unseen):
    quality = []
    for channels in (4, 20, 192):
        model = principal_components(photos, 8, channels, num_patches=1000)
        quality.append(psnr(decode(model, encode(model, unseen)), unseen))
    assert quality[0] + 2 < quality[1] < quality[2] - 20


@pytest.mark.parametrize("contrast", [1, 4])
def test_latents_have_a_mean_of_0_and_a_mean_variance_of_1(photos, contrast):
    dim = [p // contrast for p in photos]
    latents = encode(principal_components(dim, 8, 20, num_patches=1000), to_tensor(np.stack(dim)) * 2 - 1)
    latents = latents.transpose(0, 1).flatten(1)
    assert latents.var(dim=1).mean() == pytest.approx(1, abs=0.3)
    assert latents.mean(dim=1).abs().max() < 0.5
    assert latents[0].var() > latents[-1].var() * 3


def test_encoding_is_linear(autoencoder, unseen):
    other, blank = unseen.flip(-1), torch.zeros_like(unseen)
    mixed = encode(autoencoder, 0.3 * unseen + 0.7 * other)
    expected = 0.3 * encode(autoencoder, unseen) + 0.7 * encode(autoencoder, other)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-4)
    assert encode(autoencoder, blank).abs().max() > 0.01


def test_a_latent_depends_only_on_its_own_patch(autoencoder, unseen):
    changed = unseen.clone()
    changed[..., 16:24, 32:40] = 0
    moved = (encode(autoencoder, changed) != encode(autoencoder, unseen)).any(dim=1)[0]
    assert moved.nonzero().tolist() == [[2, 4]]


def test_encoding_inverts_decoding(autoencoder):
    latents = torch.randn((1, 20, 3, 4), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode(autoencoder, decode(autoencoder, latents)), latents, rtol=0, atol=1e-3)


def test_the_posterior_has_no_variance(autoencoder, unseen):
    with torch.no_grad():
        posterior = autoencoder.encode(unseen).latent_dist
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, posterior.mode(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("patch", "channels"), [(2, 3), (4, 7), (8, 20)])
def test_sizes_come_from_the_components(patch, channels):
    generator = torch.Generator().manual_seed(0)
    components = torch.linalg.qr(torch.randn((3 * patch**2, channels), generator=generator))[0].T
    components = components.reshape(channels, 3, patch, patch)
    mean, scale = torch.tensor([0.1, -0.2, 0.3]), torch.linspace(2, 0.5, channels)
    model = PatchAutoencoder.from_components(mean, components, scale)
    assert (model.config["patch_size"], model.config["latent_channels"]) == (patch, channels)
    image = mean.view(1, 3, 1, 1) + components[1:2]
    expected = torch.zeros(channels)
    expected[1] = 1 / scale[1]
    torch.testing.assert_close(encode(model, image).flatten(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(decode(model, expected.view(1, -1, 1, 1)), image, rtol=0, atol=1e-5)


def test_components_depend_on_the_seed(photos):
    weights = [principal_components(photos, 4, 5, seed=s, num_patches=200).encoder.weight for s in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_autoencoder_survives_saving_and_loading(autoencoder, unseen, tmp_path):
    autoencoder.save_pretrained(tmp_path)
    loaded = PatchAutoencoder.from_pretrained(tmp_path)
    assert loaded.config["latent_channels"] == 20
    assert torch.equal(encode(loaded, unseen), encode(autoencoder, unseen))


def test_block_out_channels_must_match_the_patch_size():
    with pytest.raises(ValueError, match="block_out_channels has 3 entries"):
        PatchAutoencoder(patch_size=8, block_out_channels=(1, 1, 1))


def test_results_have_the_types_of_autoencoder_kl(autoencoder, unseen):
    other = AutoencoderKL(block_out_channels=(32,), latent_channels=20)
    image = unseen[..., :16, :16]
    with torch.no_grad():
        for model in (autoencoder, other):
            (posterior,) = model.encode(image, return_dict=False)
            assert posterior.mode().shape[1] == 20
            (decoded,) = model.decode(posterior.mode(), return_dict=False, generator=torch.Generator())
            assert decoded.shape == image.shape


@pytest.fixture(scope="module")
def built(photos):
    """An untrained base model with 4 latent channels, which stock pipelines require."""
    return build_pipeline(principal_components(photos, 8, 4, num_patches=1000), resolution=64, widths=(32, 64, 64))


def test_a_stock_pipeline_runs_with_the_autoencoder(built, photos):
    mask = np.zeros((64, 64), np.float32)
    mask[20:40, 20:40] = 1
    with quiet():
        stock = StableDiffusionInpaintPipeline(**built.components, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    image = to_tensor(resize(photos[0], (64, 64)))
    images = stock(
        "sks", image=image, mask_image=torch.from_numpy(mask)[None, None], height=64, width=64, strength=1.0,
        num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert stock.vae_scale_factor == 8
    assert images.shape == (1, 64, 64, 3)
    assert np.isfinite(images).all() and images.std() > 0


def test_a_built_base_is_an_inpainting_model_and_survives_saving(built, tmp_path):
    card = Card(resolution=64, masked_image="smooth", masked_latent="any")
    made = StableDiffusionInpainter.from_pipeline(built, base="new", card=card)
    made.save(tmp_path, card)
    loaded = StableDiffusionInpainter.load(str(tmp_path))
    assert isinstance(loaded.pipeline.vae, PatchAutoencoder)
    assert (loaded.fingerprint, loaded.card) == (made.fingerprint, card)
    assert (loaded.resolution, loaded.vae_scale_factor, loaded.latent_shape((64, 32))) == (64, 8, (4, 8, 4))
    image = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.encode(image), made.encode(image))


def test_a_built_base_depends_on_the_seed_alone(photos):
    autoencoder = principal_components(photos, 8, 4, num_patches=200)
    state = torch.get_rng_state()
    made = [build_pipeline(autoencoder, resolution=64, widths=(32, 32, 32), seed=s) for s in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    weights = [p.unet.conv_in.weight for p in made]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_tokenizer_spells_a_prompt():
    tokenizer = spelling_tokenizer()
    ids = tokenizer("a photo of sks").input_ids
    assert len(ids) == 2 + len("aphotoofsks") <= 16
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a photo of sks"


def test_every_prompt_fits_into_16_tokens():
    tokenizer = spelling_tokenizer()
    for prompt in ("", "sks", "a photo of sks " * 20):
        ids = tokenizer(prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
        assert len(ids) == 16
        assert max(ids) < len(tokenizer)


@pytest.mark.parametrize("prompt", ["a cat", "a dog", "Café ☕ 東京", "naïve"])
def test_the_tokenizer_survives_saving_and_knows_every_byte(prompt, tmp_path):
    tokenizer = spelling_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    ids = tokenizer(prompt).input_ids
    assert CLIPTokenizer.from_pretrained(tmp_path)(prompt).input_ids == ids
    assert ids.count(tokenizer.unk_token_id) == 1  # the end token is the same
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == prompt.lower()


def test_different_prompts_have_different_tokens():
    tokenizer = spelling_tokenizer()
    assert len({tuple(tokenizer(p).input_ids) for p in ("ab", "a b", "ba", "aab", "")}) == 5


@pytest.fixture(scope="module")
def crops(photos):
    """Crops of 64 pixels, (N, 3, 64, 64) in [0, 1]."""
    corners = [(y, x) for y in range(0, 193, 16) for x in range(0, 193, 16)]
    return to_tensor(np.stack([p[y : y + 64, x : x + 64] for p in photos for y, x in corners]))


def test_a_decoder_with_neighbours_reconstructs_better(autoencoder, crops, photos):
    wide = regress_decoder(autoencoder, crops, noise=0.0)
    alone = regress_decoder(autoencoder, crops, reach=0, noise=0.0)
    images = to_tensor(np.stack(photos)) * 2 - 1
    latents = encode(autoencoder, images)
    assert torch.equal(encode(wide, images), latents)
    assert decode(wide, latents).shape == images.shape
    assert psnr(decode(wide, latents), images) > psnr(decode(alone, latents), images) + 0.3
    assert (
        psnr(decode(alone, latents), decode(autoencoder, latents)) > 35
    )  # orthonormal components leave little to gain


def test_a_latent_contributes_only_to_pixels_around_it(autoencoder, crops):
    wide = regress_decoder(autoencoder, crops)
    latents = torch.zeros(1, 20, 8, 8)
    latents[0, 0, 4, 2] = 1
    changed = (decode(wide, latents) - decode(wide, torch.zeros_like(latents))).abs().sum(1)[0]
    rows, columns = (changed > 1e-6).nonzero().unbind(1)
    assert rows.min() >= 24 and rows.max() < 48 and columns.min() >= 8 and columns.max() < 32
    assert changed[32:40, 16:24].sum() > changed.sum() / 2


def test_a_decoder_with_neighbours_survives_saving(autoencoder, crops, unseen, tmp_path):
    wide = regress_decoder(autoencoder, crops)
    wide.save_pretrained(tmp_path)
    loaded = PatchAutoencoder.from_pretrained(tmp_path)
    latents = encode(wide, unseen)
    assert torch.equal(decode(loaded, latents), decode(wide, latents))


def test_components_can_be_added(autoencoder, photos, unseen):
    more = principal_components(photos, 8, 40, keep=autoencoder, num_patches=3000)
    assert torch.allclose(encode(more, unseen)[:, :20], encode(autoencoder, unseen), atol=1e-4)
    assert torch.allclose(more.mean, autoencoder.mean, atol=1e-4)
    flat = more.components.flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(40), atol=1e-4)
    assert psnr(decode(more, encode(more, unseen)), unseen) > psnr(
        decode(autoencoder, encode(autoencoder, unseen)), unseen
    )


def test_new_latent_channels_do_not_change_the_prediction(autoencoder, photos):
    small = build_pipeline(autoencoder, resolution=32, widths=(32, 32, 64))
    more = principal_components(photos, 8, 24, keep=autoencoder, num_patches=3000)
    wide = widen(small, more, 32)
    generator = torch.Generator().manual_seed(0)
    noisy, masked = (torch.randn((1, 24, 4, 4), generator=generator) for _ in range(2))
    mask, words = torch.zeros(1, 1, 4, 4), torch.zeros(1, 16, 64)
    with torch.no_grad():
        before = small.unet(torch.cat([noisy[:, :20], mask, masked[:, :20]], 1), 500, words).sample
        after = wide.unet(torch.cat([noisy, mask, masked], 1), 500, words).sample
    assert torch.allclose(after[:, :20], before, atol=1e-5)
    assert not after[:, 20:].any()


@pytest.mark.parametrize(("width", "tolerance"), [(64, 0.15), (48, 0.35)])
def test_a_wider_level_hardly_changes_the_prediction(autoencoder, width, tolerance):
    small = build_pipeline(autoencoder, resolution=32, widths=(32, 96, 128))
    wide = widen(small, autoencoder, width)
    assert wide.unet.config.block_out_channels == (width, 96, 128)
    generator = torch.Generator().manual_seed(0)
    inputs, words = torch.randn((4, 41, 8, 8), generator=generator), torch.zeros(4, 16, 64)
    times = torch.tensor([20, 300, 700, 999])
    with torch.no_grad():
        before, after = (x.unet(inputs, times, words).sample for x in (small, wide))
    assert (after - before).norm() < tolerance * before.norm()
    assert all(p.abs().max() < 20 for p in wide.unet.parameters()), "too large for half precision"
    weight = wide.unet.conv_out.weight
    assert not torch.allclose(weight[:, 0], weight[:, 1], rtol=0.01), "copies can't part"


@pytest.mark.parametrize("width", [16, 40, 96])
def test_a_level_cannot_become_narrower_or_as_wide_as_the_next(autoencoder, width):
    small = build_pipeline(autoencoder, resolution=32, widths=(32, 96, 128))
    with pytest.raises(ValueError, match=r"32, or a larger multiple of 16 other than 96"):
        widen(small, autoencoder, width)
