"""Category embeddings take the place of a prompt, the combiner corrects a stage, and both travel in the adapter."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from helpers import attached, outputs

from realfill import Adapter, SampleConfig
from realfill.errors import AdapterError
from realfill.models.diffusion.lora import attach, stack
from realfill.models.diffusion.sampling import sample
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.diffusion.structure import (
    BACKGROUND,
    CATEGORIES,
    FOREGROUND,
    CategoryTable,
    Combiner,
    Structure,
)
from realfill.models.quiet import quiet


def learnt_table(width=32):
    table = CategoryTable(torch.arange(16 * width).view(16, width) / 100, 10, 24, seed=0)
    with torch.no_grad():
        table.projection.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    return table


def learnt_combiner():
    combiner = Combiner(8, seed=0)
    with torch.no_grad():
        combiner.layers[-1].weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return combiner


@pytest.fixture
def structured(adapter) -> Adapter:
    """An adapter with category embeddings and a combiner."""
    return dataclasses.replace(
        adapter, tensors={**adapter.tensors, **learnt_table().export(), **learnt_combiner().export()}
    )


def with_tensors(adapter, **changes):
    tensors = {**adapter.tensors, **{f"lora_structure.{name}": value for name, value in changes.items()}}
    return dataclasses.replace(adapter, tensors={name: t for name, t in tensors.items() if t is not None})


def test_categories_start_as_the_prompt_and_then_differ():
    start = torch.randn(16, 8)
    table = CategoryTable(start, 10, 24, seed=0)
    assert torch.equal(table(), start[:10].expand(2, 10, 8))
    assert torch.equal(CategoryTable(start, 20, 24, seed=0)()[0], torch.cat([start, start[:4]]))
    table.projection.data.normal_()
    assert (table()[0] - table()[1]).abs().max() > 0.01


def test_category_prompts_have_learnt_embeddings_and_others_do_not(structured, tiny_sd):
    inpainter = attached(structured)
    expected = learnt_table()()
    for number, prompt in enumerate(CATEGORIES):
        torch.testing.assert_close(inpainter.encode_prompt([prompt])[0], expected[number], atol=2e-3, rtol=1e-3)
    plain = StableDiffusionInpainter.load(tiny_sd)
    assert inpainter.encode_prompt(["a photo"]).shape == plain.encode_prompt([BACKGROUND]).shape == (1, 16, 32)


def test_guidance_leads_from_foreground_to_background(structured, monkeypatch):
    inpainter = attached(structured).to(torch.device("cpu"), torch.float32)
    seen = []
    monkeypatch.setattr(
        StableDiffusionInpainter, "predict",
        lambda _, noisy, *inputs: seen.append(inputs[2]) or noisy * 0 + inputs[2].mean(),
    )  # fmt: skip
    settings = SampleConfig(
        prompt=BACKGROUND, guidance_from="foreground", guidance_scale=2.0, num_inference_steps=1, scheduler="ddim"
    ).resolve({})
    image, hole = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    sample(inpainter, image, hole, seeds=[0], settings=settings)
    positive, negative = seen
    assert torch.equal(positive, inpainter.encode_prompt([BACKGROUND]))
    assert torch.equal(negative, inpainter.encode_prompt([FOREGROUND]))


def test_guidance_from_a_foreground_that_nobody_learnt_is_an_error(tiny_sd):
    settings = SampleConfig(guidance_from="foreground", guidance_scale=2.0, num_inference_steps=1).resolve({})
    image, hole = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"no adapter with learnt categories.*--preset structure"):
        sample(StableDiffusionInpainter.load(tiny_sd), image, hole, seeds=[0], settings=settings)


def test_an_untrained_combiner_changes_nothing_and_a_trained_one_the_hole_alone():
    image, known = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3)).astype(np.uint8)
    hole = np.zeros((20, 24), bool)
    hole[5:12, 6:20] = True
    assert np.array_equal(Structure(embeddings={}, combiner=None).correct(image, known, hole), image)
    assert np.array_equal(Structure(embeddings={}, combiner=Combiner(seed=1)).correct(image, known, hole), image)
    corrected = Structure(embeddings={}, combiner=learnt_combiner()).correct(image, known, hole)
    assert corrected.dtype == np.uint8
    assert np.array_equal(corrected[~hole], image[~hole])
    assert (corrected != image)[hole].mean() > 0.5
    other = np.where(hole[:, :, None], 255 - known, known)
    again = Structure(embeddings={}, combiner=learnt_combiner()).correct(image, other, hole)
    assert np.array_equal(again, corrected)


def test_the_learnt_parts_survive_saving(structured, tmp_path):
    structured = dataclasses.replace(structured, sample={"guidance_from": "foreground", "stage_guidance": [1.5]})
    structured.save(tmp_path)
    loaded = Adapter.load(tmp_path)
    assert loaded.sample == structured.sample
    for name, tensor in structured.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor), name
    image, hole = np.full((16, 16, 3), 99, np.uint8), np.ones((16, 16), bool)
    first, second = (a.structure.correct(image, image, hole) for a in (structured, loaded))
    assert np.array_equal(first, second)


def test_stock_diffusers_reads_the_lora_of_such_an_adapter(structured, adapter, tmp_path, tiny_sd):
    structured.save(tmp_path)
    with quiet():
        stock = StableDiffusionInpaintPipeline.from_pretrained(tiny_sd)
    stock.load_lora_weights(tmp_path)
    torch.testing.assert_close(
        outputs(stock)[0], outputs(attached(adapter).pipeline)[0], rtol=1e-4, atol=1e-4
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"background": None},
        {"background": torch.zeros(9, 32)},
        {"background": torch.zeros(10), "foreground": torch.zeros(10)},
        {"background": torch.zeros(1001, 32), "foreground": torch.zeros(1001, 32)},
        {"background": torch.full((10, 32), torch.nan)},
        {"background": torch.zeros(10, 32, dtype=torch.int64)},
        {"combiner.layers.0.bias": torch.zeros(5)},
        {"combiner.layers.0.bias": torch.zeros(4000)},
        {"combiner.layers.9.bias": torch.zeros(5)},
        {"combiner.layers.0.bias": None},
        {"other": torch.zeros(3)},
    ],
)
def test_damaged_parts_are_refused(structured, tmp_path, changes):
    with_tensors(structured, **changes).save(tmp_path)
    with pytest.raises(AdapterError, match="damaged"):
        Adapter.load(tmp_path)


def test_illegal_settings_of_the_sampler_are_refused(structured, tmp_path):
    for values in ({"guidance_scale": -1}, {"nonsense": 1}, ["guidance_scale"]):
        dataclasses.replace(structured, sample={"guidance_scale": 2.0}).save(tmp_path, overwrite=True)
        manifest = (tmp_path / "adapter.json").read_text()
        assert '"guidance_scale": 2.0' in manifest
        (tmp_path / "adapter.json").write_text(json.dumps({**json.loads(manifest), "sample": values}))
        with pytest.raises(AdapterError, match="damaged"):
            Adapter.load(tmp_path)


def test_embeddings_of_another_width_do_not_fit_the_base(structured):
    tensors = {**structured.tensors, **learnt_table(width=16).export()}
    inpainter = StableDiffusionInpainter.load(structured.base)
    with pytest.raises(AdapterError, match="other layers"):
        attach(inpainter, dataclasses.replace(structured, tensors=tensors))


def test_a_fit_that_starts_from_such_an_adapter_keeps_the_learnt_parts(structured, adapter):
    stacked = stack(structured, adapter)
    assert stacked.structure is not None
    assert stacked.structure.embeddings.keys() == set(CATEGORIES)
    assert stacked.structure.combiner is not None
