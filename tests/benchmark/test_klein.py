import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinInpaintPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from helpers import make_photo
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from realfill import Scene
from realfill.benchmark.methods.klein import Klein, _to_one_size
from realfill.benchmark.methods.stock import View, load_pipeline
from realfill.errors import BaseModelError, SceneError
from realfill.models.quiet import quiet
from realfill.scene.windows import choose_window

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{{ '> ' * add_generation_prompt }}"


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Build a tokenizer that spells: the byte alphabet, no merges."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    vocabulary = {token: i for i, token in enumerate([*alphabet, "<|endoftext|>"])}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """The path of klein's classes: cells of 4 pixels, saved as the text-to-image pipeline that its hub id names."""
    directory = tmp_path_factory.mktemp("tiny-klein")
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        tokenizer = qwen_tokenizer()
        text_encoder = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=28,
                num_attention_heads=1, num_key_value_heads=1, head_dim=8,
            )
        )  # fmt: skip
        vae = AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(16, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=32,
        )  # fmt: skip
        transformer = Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=24, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        )  # fmt: skip
        Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae, text_encoder=text_encoder,
            tokenizer=tokenizer, transformer=transformer, is_distilled=True,
        ).save_pretrained(directory)  # fmt: skip
    return str(directory)


@pytest.fixture(scope="module")
def options(tiny) -> dict:
    return {"base": tiny, "resolution": 32, "reference_px": 24, "num_inference_steps": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def method(options) -> Klein:
    return Klein(**options)


def test_only_the_hole_changes(method, scene):
    images = method.prepare(scene, None, 0)([0, 1])
    for image in images:
        assert image.shape == scene.target.shape and image.dtype == np.uint8
        assert (image[~scene.mask] == scene.target[~scene.mask]).all()
    assert (images[0] != images[1]).any()


def test_a_seed_gives_the_same_picture_in_any_batch(method, scene):
    sampler = method.prepare(scene, None, 0)
    assert (sampler([3, 5])[1] == sampler([5])[0]).all()
    assert (sampler([5])[0] == method.prepare(scene, None, 7)([5])[0]).all()


def test_odd_sizes(method):
    mask = np.zeros((45, 131), bool)
    mask[20:, 90:] = True
    target = make_photo(45, 131)
    image = method.prepare(Scene([make_photo(33, 50, 1)], target, mask), None, 0)([0])[0]
    assert image.shape == target.shape
    assert (image[~mask] == target[~mask]).all()


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_hole_has_no_influence(options, scene, strength):
    method = Klein(**options, strength=strength)
    other = np.where(scene.mask[..., None], make_photo(64, 80, 9), scene.target)
    images = [method.prepare(Scene(scene.references, t, scene.mask), None, 0)([2])[0] for t in (scene.target, other)]
    assert (images[0] == images[1]).all()


def test_every_reference_and_the_prompt_matter(method, scene):
    first, second = scene.references
    base = method.prepare(scene, None, 0)([2])[0]
    for references in ([first], [second], [first, make_photo(64, 64, 7)], [make_photo(70, 90, 7), second]):
        assert (method.prepare(Scene(references, scene.target, scene.mask), None, 0)([2])[0] != base).any()
    assert (method.prepare(scene, "A red door.", 0)([2])[0] != base).any()


def test_the_pipeline_sees_the_window_at_the_chosen_size(options, scene, monkeypatch):
    method, shapes = Klein(**options), []
    pipeline = method._pipeline
    original = pipeline.vae.encode
    monkeypatch.setattr(pipeline.vae, "encode", lambda x: shapes.append(tuple(x.shape)) or original(x))
    method.prepare(scene, None, 0)([0])
    view = View.of(scene, resolution=32, multiple=4, context=method.context)
    assert shapes == [(1, 3, *view.window.size), (2, 3, 20, 24)]  # both references, of their mean aspect


def test_references_are_cropped_as_little_as_one_size_allows():
    tall, wide = make_photo(120, 60, 1), make_photo(60, 120, 2)
    (same,) = _to_one_size([make_photo(60, 120, 2)], 500, 4)
    assert (same == wide).all()
    sizes = {i.shape for i in _to_one_size([tall, wide], 500, 4)}
    assert sizes == {(84, 84, 3)}
    small, large = _to_one_size([make_photo(40, 80), make_photo(160, 320)], 64, 16)
    assert small.shape == large.shape == (32, 80, 3)


def test_the_mask_covers_whole_cells(scene):
    view = View.of(scene, resolution=32, multiple=4, context=1.7)
    mask = np.asarray(view.mask(4)) > 0
    assert (mask >= view.hole).all()
    cells = mask.reshape(mask.shape[0] // 4, 4, -1, 4)
    assert (cells.all((1, 3)) == cells.any((1, 3))).all()
    assert (np.asarray(view.mask()) > 0).tolist() == view.hole.tolist()


def test_windows_stay_below_the_size_at_which_the_pipeline_shrinks():
    for height, width in ((3000, 4000), (1200, 9000), (2001, 1999)):
        mask = np.zeros((height, width), bool)
        mask[5:-5, 5:-5] = True
        size = choose_window(mask, resolution=Klein().resolution, multiple=16, context=1.7).size
        assert size[0] * size[1] <= 1024**2
    with pytest.raises(ValueError, match="resolution"):
        Klein(resolution=1024)


def test_half_precision(options, scene):
    image = Klein(**options, dtype=torch.bfloat16).prepare(scene, None, 0)([0])[0]
    assert (image[~scene.mask] == scene.target[~scene.mask]).all()
    assert (image[scene.mask] != 0).any()


def test_missing_weights_are_named(scene, tiny, tmp_path):
    with pytest.raises(BaseModelError, match=r"black-forest-labs/FLUX.2-klein-4B.*download.*directory"):
        Klein(local_files_only=True, device="cpu").prepare(scene, None, 0)
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        Klein(base=str(tmp_path), device="cpu").prepare(scene, None, 0)
    pipeline = load_pipeline(  # the first available one of several
        "klein", Flux2KleinInpaintPipeline.from_pretrained, ("nobody/nothing", tiny), device=torch.device("cpu"),
        dtype=torch.bfloat16, local_files_only=True,
    )  # fmt: skip
    assert pipeline.transformer.dtype == pipeline.vae.dtype == pipeline.text_encoder.dtype == torch.bfloat16


def test_needs_references(method, scene):
    with pytest.raises(SceneError, match="klein"):
        method.prepare(Scene([], scene.target, scene.mask), None, 0)
