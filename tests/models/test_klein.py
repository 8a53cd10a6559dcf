"""KleinInpainter: the same numbers as stock diffusers, tokens, conditioning, flow, adapters on another base model."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from helpers import make_photo
from PIL import Image
from safetensors.torch import load_file, save_file

from realfill import FitConfig, GeometryConfig, Scene, fit
from realfill.config import SampleConfig, SampleSettings
from realfill.errors import AdapterError, BaseModelError
from realfill.io.images import to_array, to_tensor
from realfill.models.diffusion.adapter import Adapter
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.family import ReferenceView
from realfill.models.diffusion.klein import KleinInpainter, _patchify, _unpatchify
from realfill.models.diffusion.klein_cards import BASE
from realfill.models.diffusion.lora import attach, trainable_lora
from realfill.models.diffusion.sampling import sample
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.quiet import quiet
from realfill.scene.masks import fill_smooth

CPU = torch.device("cpu")
EVERYWHERE = torch.ones(1, 1, 64, 64, dtype=torch.bool)


@pytest.fixture(scope="module")
def klein(tiny_klein) -> KleinInpainter:
    return load_family(tiny_klein)  # type: ignore[return-value]


@pytest.fixture
def inpainter(klein):
    """The shared base model, without references."""
    klein.use_references([], 64)
    return klein


@pytest.fixture(scope="module")
def stock(tiny_klein):
    with quiet():
        pipeline = Flux2KleinPipeline.from_pretrained(tiny_klein)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def adapter(tiny_klein) -> Adapter:
    """An adapter that has an effect, of a fit with conditioning."""
    mask = np.zeros((64, 80), bool)
    mask[20:40, 30:60] = True
    scene = Scene([make_photo(70, 90, 1), make_photo(64, 64, 2)], make_photo(64, 80, 0), mask)
    config, off = FitConfig(base=tiny_klein, learning_rate=0.1, mixed_precision="no"), GeometryConfig(enabled=False)
    return fit(scene, config, geometry=off, progress=False)


def settings(**changes) -> SampleSettings:
    values = {"scheduler": "euler", "num_inference_steps": 2, "prompt": "fill it", **changes}
    return SampleConfig(**values).resolve({})


def views(*seeds):
    return [ReferenceView(reference=i, image=make_photo(64, 64 + 8 * i, s)) for i, s in enumerate(seeds)]


def as_stock(pipeline, photos, *, guidance_scale, prompt="fill it", steps=2, seed=7):
    """Run stock diffusers from our noise; the first photo is the one with the hole."""
    noise = torch.randn((1, 16, 16, 16), generator=torch.Generator().manual_seed(seed))
    return pipeline(
        image=[Image.fromarray(p) for p in photos], prompt=prompt, latents=noise, num_inference_steps=steps,
        guidance_scale=guidance_scale, output_type="np",
    ).images  # fmt: skip


def ours(inpainter, photo, monkeypatch, **changes):
    """Sample with nothing known, but with the photo itself as the first conditioning image."""
    monkeypatch.setattr(KleinInpainter, "prepare_mask_latents", lambda self, images, *_: self.encode(images)[0])
    samples = sample(inpainter, to_tensor(photo), EVERYWHERE, seeds=[7], settings=settings(**changes))
    return samples.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_sampling_equals_stock_diffusers(inpainter, stock, monkeypatch, guidance_scale):
    photo = make_photo(64, 64)
    inpainter.use_references(views(1, 2), 512)
    expected = as_stock(stock, [photo, *(v.image for v in views(1, 2))], guidance_scale=guidance_scale)
    assert np.abs(ours(inpainter, photo, monkeypatch, guidance_scale=guidance_scale) - expected).max() < 1e-4


def test_an_adapter_gives_the_same_picture_in_stock_diffusers(adapter, tiny_klein, stock, monkeypatch, tmp_path):
    photo, loaded = make_photo(64, 64), load_family(tiny_klein)
    loaded.use_references(views(1), 512)
    bare = ours(loaded, photo, monkeypatch)
    attach(loaded, adapter)
    with_adapter = ours(loaded, photo, monkeypatch)
    adapter.save(tmp_path)
    stock.load_lora_weights(tmp_path)
    expected = as_stock(stock, [photo, views(1)[0].image], guidance_scale=1.0)
    stock.unload_lora_weights()
    assert np.abs(with_adapter - expected).max() < 1e-4
    assert np.abs(with_adapter - bare).max() > 0.01


def test_latents_equal_those_of_stock_diffusers(inpainter, stock):
    image = to_tensor(make_photo(32, 48))
    mean, std = inpainter.encode(image)
    with torch.no_grad():
        expected = stock._encode_vae_image(image * 2 - 1, None)
    assert torch.allclose(mean, expected, atol=1e-6)
    assert mean.shape == (1, *inpainter.latent_shape((32, 48))) == (1, 16, 8, 12)
    with torch.no_grad():
        posterior = stock.vae.encode(image * 2 - 1).latent_dist
    scale = torch.sqrt(stock.vae.bn.running_var + stock.vae.config.batch_norm_eps).view(1, -1, 1, 1)
    assert torch.allclose(std, stock._patchify_latents(posterior.std) / scale, atol=1e-6)
    assert torch.equal(_unpatchify(_patchify(posterior.mean)), posterior.mean)
    with torch.no_grad():
        decoded = stock.vae.decode(posterior.mode()).sample
    assert torch.allclose(inpainter.decode(mean), (decoded / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_a_token_is_known_if_all_of_its_pixels_are(inpainter):
    known = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    known[0, 0, 7, 8] = False
    assert inpainter.vae_scale_factor == 4
    assert (~inpainter.known_latents(known)[0, 0]).nonzero().tolist() == [[1, 2]]


def test_the_conditioning_does_not_contain_the_hole(inpainter):
    hole = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 8:20, 12:28] = True
    one, two = (to_tensor(make_photo(32, 32, seed)) for seed in (0, 1))
    other = torch.where(hole, two, one)
    assert torch.equal(*(inpainter.prepare_mask_latents(i, hole) for i in (one, other)))
    known_changed = torch.where(hole, one, two)
    assert not torch.equal(*(inpainter.prepare_mask_latents(i, hole) for i in (one, known_changed)))


def test_a_crop_does_not_see_the_reference_that_it_shows(inpainter):
    noisy, condition = torch.randn((3, 16, 4, 4)), torch.randn((3, 16, 4, 4))
    times, words = torch.tensor([900.0, 500.0, 10.0]), inpainter.encode_prompt(["a"] * 3)
    own = torch.tensor([0, 1, -1])
    results = []
    for seeds in ((1, 2), (3, 2), (1, 4)):
        inpainter.use_references(views(*seeds), 64)
        with torch.no_grad():
            results.append(inpainter.predict(noisy, times, condition, words, own))
            everything = inpainter.predict(noisy, times, condition, words)
    assert torch.allclose(results[0][0], results[1][0], atol=1e-6), "row 0 shows reference 0"
    assert not torch.allclose(results[0][1:], results[1][1:], atol=1e-6)
    assert torch.allclose(results[0][1], results[2][1], atol=1e-6), "row 1 shows reference 1"
    assert torch.allclose(results[2][2], everything[2], atol=1e-5), "row 2 shows none"


def test_references_are_shrunk_to_a_number_of_pixels(inpainter):
    assert inpainter._reference_size((400, 900, 3), 60) == (40, 88)
    assert inpainter._reference_size((40, 33, 3), 600) == (40, 32)
    inpainter.use_references(views(1), 64)
    tokens = 2 * 8 * 8 + 16 * 16 + 512
    assert inpainter.num_latents((32, 32)) == tokens


def test_flow_matching(inpainter):
    x, noise = torch.randn((2, 16, 4, 4)), torch.randn((2, 16, 4, 4))
    noisy, timesteps, target, weights = inpainter.diffuse(x, noise, torch.tensor([0.25, 1.0]))
    assert torch.allclose(noisy[0], 0.75 * x[0] + 0.25 * noise[0])
    assert torch.allclose(noisy[1], noise[1])
    assert torch.allclose(target, noise - x)
    assert timesteps.tolist() == [250, 1000]
    assert (weights == 1).all()
    scheduler = inpainter.make_scheduler("euler", 3)
    first = scheduler.timesteps[0]
    assert (
        scheduler.step(noise - x, first, noise)
        .prev_sample.sub(scheduler.add_noise(x, noise, scheduler.timesteps[1].expand(2)))
        .abs()
        .max()
        < 1e-5
    ), "a step with the true velocity leads to the next noise level"


def test_a_later_stage_takes_the_last_steps_of_a_longer_schedule(inpainter):
    whole, part = (inpainter.make_scheduler("euler", n, strength=s) for n, s in ((8, 1.0), (4, 0.5)))
    assert torch.equal(part.timesteps, whole.timesteps)
    x = torch.zeros((1, 16, 2, 2))
    stepped = part.step(torch.ones_like(x), part.timesteps[-4], x).prev_sample
    assert torch.allclose(stepped, (part.timesteps[-3] - part.timesteps[-4]).expand_as(x) / 1000)


def test_other_samplers_are_refused(inpainter):
    with pytest.raises(ValueError, match=r"'ddpm'; legal for .*'euler'"):
        inpainter.make_scheduler("ddpm", 3)


def test_a_picture_does_not_depend_on_the_batch(inpainter):
    image, hole = to_tensor(make_photo(32, 32)), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 10:20, 8:24] = True
    inpainter.use_references(views(1), 64)
    together = sample(inpainter, image, hole, seeds=[3, 4, 5], settings=settings())
    alone = sample(inpainter, image, hole, seeds=[5], settings=settings())
    assert (together[2] - alone[0]).abs().max() < 1e-5
    assert (together[0] - alone[0]).abs().max() > 1e-3


def test_known_tokens_follow_the_image(inpainter, monkeypatch):
    """With a model that leaves its input alone, the known side is the noised image before each step, not at the end."""
    image, hole = to_tensor(make_photo(32, 32)), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 16:, :] = True
    seen = []
    monkeypatch.setattr(
        KleinInpainter, "predict", lambda self, noisy, *_: seen.append(noisy) or torch.zeros_like(noisy)
    )
    monkeypatch.setattr(KleinInpainter, "decode", lambda self, z: seen.append(z) or torch.zeros_like(image))
    sample(inpainter, image, hole, seeds=[3], settings=settings())
    assert torch.equal(seen[2], seen[1]), "the last step shows the model's own rendition"
    sigma = float(inpainter.make_scheduler("euler", 2, num_latents=64).timesteps[1]) / 1000
    noise = torch.randn((1, 16, 8, 8), generator=torch.Generator().manual_seed(3))
    assert torch.equal(seen[0], noise)
    assert torch.equal(seen[1][..., 4:, :], noise[..., 4:, :])
    clean = inpainter.encode(fill_smooth(image, hole))[0]
    assert torch.allclose(seen[1][..., :4, :], ((1 - sigma) * clean + sigma * noise)[..., :4, :], atol=1e-5)


def test_each_prompt_is_encoded_once(inpainter, monkeypatch):
    prompts, encode = [], type(inpainter.pipeline).encode_prompt
    monkeypatch.setattr(
        type(inpainter.pipeline), "encode_prompt", lambda self, p, **k: prompts.extend(p) or encode(self, p, **k)
    )
    inpainter._embeddings.clear()
    one, two = inpainter.encode_prompt(["a", "b"]), inpainter.encode_prompt(["b", "a", "a"])
    assert prompts == ["a", "b"]
    assert torch.equal(one[[1, 0, 0]], two)


@pytest.mark.parametrize("has_room", [True, False])
def test_the_text_encoder_is_on_the_device_only_while_it_computes(tiny_klein, monkeypatch, has_room):
    """STAND-IN for a GPU: torch's device without memory."""
    loaded, places = load_family(tiny_klein), []
    loaded.device = torch.device("meta")
    monkeypatch.setattr("realfill.models.diffusion.klein.fits", lambda *_: has_room)
    monkeypatch.setattr(loaded.pipeline.text_encoder, "to", lambda place: places.append(str(place)))

    def encode(prompts, *, device):
        places.append(f"computes on {device}")
        return torch.zeros(len(prompts), 3, 24), None

    monkeypatch.setattr(loaded.pipeline, "encode_prompt", encode)
    assert loaded.encode_prompt(["a"]).device == loaded.device
    place = "meta" if has_room else "cpu"
    assert places == [place, f"computes on {place}", "cpu"]


def test_lora_targets_are_read_from_the_model(inpainter):
    assert len(inpainter.lora_layers(FitConfig().resolve({}).lora_targets)) == 2 * 4
    names = set(inpainter.lora_layers(BASE["fit"]["lora_targets"]))
    single = {f"single_transformer_blocks.{i}.attn.{n}" for i in range(2) for n in ("to_qkv_mlp_proj", "to_out")}
    double = {f"transformer_blocks.{i}.attn.{n}" for i in range(2) for n in ("to_q", "to_k", "to_v", "to_out.0")}
    assert names == single | double
    with pytest.raises(ValueError, match="no layer name"):
        inpainter.lora_layers(["to_nothing"])


def test_the_text_encoder_is_not_trained(tiny_klein):
    config = FitConfig(base=tiny_klein, text_encoder_learning_rate=1e-5).resolve({})
    with pytest.raises(ValueError, match=r"text_encoder_learning_rate is 1e-05; legal for .*: 0"):
        trainable_lora(load_family(tiny_klein), config)


def test_an_adapter_of_base_serves_the_distilled_model_on_request(adapter, tiny_distilled, tiny_sd):
    loaded = load_family(tiny_distilled)
    before = loaded.parts["transformer"].transformer_blocks[0].attn.to_q.weight.clone()
    with pytest.raises(AdapterError, match="was fitted on"):
        attach(loaded, adapter)
    attach(loaded, adapter, elsewhere=True)
    name = "transformer.transformer_blocks.0.attn.to_q"
    up, down = (adapter.tensors[f"{name}.lora_{m}.weight"].float() for m in "BA")
    scale = adapter.config.lora_alpha / adapter.config.lora_rank
    after = loaded.parts["transformer"].transformer_blocks[0].attn.to_q.weight
    assert torch.allclose(after - before, scale * up @ down, atol=1e-6)
    with pytest.raises(AdapterError, match="whose layers differ"):
        attach(StableDiffusionInpainter.load(tiny_sd), adapter, elsewhere=True)


def test_guidance_away_from_the_base_model(adapter, tiny_klein):
    loaded = load_family(tiny_klein)
    loaded.keep_unfitted()
    attach(loaded, adapter)
    loaded.use_references(views(1), 64)
    noisy, words = torch.randn((1, 16, 4, 4)), loaded.encode_prompt(["a"])
    with torch.no_grad():
        fitted, unfitted = (m.predict(noisy, torch.tensor([500.0]), noisy, words) for m in (loaded, loaded.unfitted))
    bare = load_family(tiny_klein)
    bare.use_references(views(1), 64)
    with torch.no_grad():
        assert torch.allclose(unfitted, bare.predict(noisy, torch.tensor([500.0]), noisy, words), atol=1e-5)
    assert not torch.allclose(fitted, unfitted, atol=1e-4)


def test_half_precision(tiny_klein):
    loaded = load_family(tiny_klein).to(CPU, torch.float16)
    assert loaded.dtype == torch.bfloat16, "the precision that the model was trained in"
    image, hole = to_tensor(make_photo(32, 32)), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 10:20, 8:24] = True
    result = to_array(sample(loaded, image, hole, seeds=[1], settings=settings())[0])
    exact = to_array(sample(load_family(tiny_klein), image, hole, seeds=[1], settings=settings())[0])
    assert 0 < np.abs(result.astype(int) - exact).mean() < 5


def test_the_family_follows_from_the_files(tiny_klein, tiny_sd, tmp_path):
    assert isinstance(load_family(tiny_klein), KleinInpainter)
    assert isinstance(load_family(tiny_sd), StableDiffusionInpainter)
    copy = shutil.copytree(tiny_klein, tmp_path / "copy")
    (copy / "card.json").unlink()
    for is_distilled, steps in ((False, 50), (True, 4)):
        index = json.loads((copy / "model_index.json").read_text())
        (copy / "model_index.json").write_text(json.dumps({**index, "is_distilled": is_distilled}))
        card = Card.load(copy)
        assert card.resolution == 1024
        assert SampleConfig().resolve(card.sample).num_inference_steps == steps
    shutil.rmtree(copy / "transformer")
    with pytest.raises(BaseModelError, match="transformer is missing"):
        load_family(str(copy))


def test_a_damaged_transformer_is_named(tiny_klein, tmp_path):
    copy = shutil.copytree(tiny_klein, tmp_path / "copy")
    (path,) = (copy / "transformer").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_family(str(copy))


def test_weights_are_loaded_in_the_precision_of_the_files(klein, tiny_klein, tmp_path):
    copy = shutil.copytree(tiny_klein, tmp_path / "copy")
    (path,) = (copy / "transformer").glob("*.safetensors")
    weights = load_file(path)
    save_file({n: w.bfloat16() for n, w in weights.items()}, path, metadata={"format": "pt"})
    assert load_family(str(copy)).dtype == torch.bfloat16
    assert klein.dtype == torch.float32
