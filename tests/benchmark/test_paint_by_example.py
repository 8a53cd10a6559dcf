import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PaintByExamplePipeline, PNDMScheduler, UNet2DConditionModel
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from helpers import make_photo
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig

from realfill import Scene
from realfill.benchmark.methods.paint_by_example import PaintByExample, _example
from realfill.errors import BaseModelError, SceneError
from realfill.models.quiet import quiet


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """The path of Paint by Example's classes at 32 x 32."""
    directory = tmp_path_factory.mktemp("tiny-paint")
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        encoder = PaintByExampleImageEncoder(
            CLIPVisionConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, image_size=32,
                patch_size=8, projection_dim=32,
            )
        )  # fmt: skip
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(16, 32), latent_channels=4, norm_num_groups=8, sample_size=32,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=16, in_channels=9, out_channels=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), block_out_channels=(16, 32), layers_per_block=1,
            cross_attention_dim=32, attention_head_dim=2, norm_num_groups=8,
        )  # fmt: skip
        scheduler = PNDMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
        )
        PaintByExamplePipeline(
            vae=vae, image_encoder=encoder, unet=unet, scheduler=scheduler, safety_checker=None, feature_extractor=None
        ).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def method(tiny) -> PaintByExample:
    return PaintByExample(base=tiny, num_inference_steps=2, device="cpu", guidance_scale=3.0)


def test_only_the_hole_changes(method, scene):
    images = method.prepare(scene, None, 0)([0, 1])
    for image in images:
        assert image.shape == scene.target.shape and image.dtype == np.uint8
        assert (image[~scene.mask] == scene.target[~scene.mask]).all()
        assert (image[scene.mask] != 0).any()
    assert (images[0] != images[1]).any()


def test_a_seed_gives_the_same_picture_in_any_batch(method, scene):
    sampler = method.prepare(scene, None, 0)
    assert (sampler([3, 5])[1] == sampler([5])[0]).all()
    assert (sampler([5])[0] == method.prepare(scene, "words", 7)([5])[0]).all()


def test_odd_sizes(method):
    mask = np.zeros((45, 131), bool)
    mask[20:, 90:] = True
    target = make_photo(45, 131)
    image = method.prepare(Scene([make_photo(33, 50, 1)], target, mask), None, 0)([0])[0]
    assert image.shape == target.shape
    assert (image[~mask] == target[~mask]).all()


def test_the_hole_has_no_influence(method, scene):
    other = np.where(scene.mask[..., None], make_photo(64, 80, 9), scene.target)
    images = [method.prepare(Scene(scene.references, t, scene.mask), None, 0)([2])[0] for t in (scene.target, other)]
    assert (images[0] == images[1]).all()


def test_each_seed_uses_one_reference(method, scene):
    first, second = [method.prepare(s, None, 0)(range(8)) for s in _single(scene)]
    both = method.prepare(scene, None, 0)(range(8))
    from_first = [(a == b).all() for a, b in zip(both, first, strict=True)]
    from_second = [(a == b).all() for a, b in zip(both, second, strict=True)]
    assert all(a != b for a, b in zip(from_first, from_second, strict=True))  # one of them, and it matters which
    assert 0 < sum(from_first) < 8


def _single(scene):
    return (Scene([r], scene.target, scene.mask) for r in scene.references)


def test_the_example_is_the_whole_reference_normalized_for_clip():
    reference = np.zeros((40, 80, 3), np.uint8)
    reference[:, :20] = 255
    example = _example(reference, 32)
    assert example.shape == (1, 3, 32, 32)
    assert torch.allclose(example[0, :, 0, 0], torch.tensor([1.9303, 2.0749, 2.1459]), atol=1e-3)  # CLIP's white
    assert torch.allclose(example[0, :, 0, -1], torch.tensor([-1.7923, -1.7521, -1.4802]), atol=1e-3)  # its black


def test_image_encoders_of_older_versions_can_be_read(tiny, method, scene, tmp_path):
    shutil.copytree(tiny, tmp_path / "old")
    path = tmp_path / "old" / "image_encoder" / "model.safetensors"
    state = {k.replace("model.", "model.vision_model.", 1): v for k, v in load_file(path).items()}
    assert any(k.startswith("model.vision_model.encoder") for k in state)
    save_file(state, path, metadata={"format": "pt"})
    old = PaintByExample(base=str(tmp_path / "old"), num_inference_steps=2, device="cpu", guidance_scale=3.0)
    assert (old.prepare(scene, None, 0)([0])[0] == method.prepare(scene, None, 0)([0])[0]).all()


def test_weights_are_loaded_once(method, scene):
    assert method.prepare(scene, None, 0).args[0] is method.prepare(scene, None, 1).args[0]


def test_half_precision(tiny, scene):
    image = PaintByExample(base=tiny, num_inference_steps=2, device="cpu", dtype=torch.bfloat16).prepare(
        scene, None, 0
    )([0])[0]
    assert (image[~scene.mask] == scene.target[~scene.mask]).all()
    assert (image[scene.mask] != 0).any()


def test_missing_weights_are_named(scene):
    method = PaintByExample(base="nobody/nothing", local_files_only=True, device="cpu")
    with pytest.raises(BaseModelError, match=r"nobody/nothing.*download.*directory"):
        method.prepare(scene, None, 0)


def test_needs_references(method, scene):
    with pytest.raises(SceneError, match="paint_by_example"):
        method.prepare(Scene([], scene.target, scene.mask), None, 0)
