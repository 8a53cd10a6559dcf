"""``adapt`` fine-tunes a base model on a folder of photos; ``complete`` takes its adapter, and a fit starts from it."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import TINY_FIT, make_photo
from PIL import Image

from realfill import AdaptConfig, Adapter, FitConfig, SampleConfig, Scene, adapt, complete, erase, fit
from realfill.errors import AdapterError, RealFillWarning
from realfill.filling.unfitted import UnfittedBase
from realfill.models.diffusion.lora import attach
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.diffusion.structure import Structure
from realfill.segmentation.instances import Instance

TINY = {"num_epochs": 1, "batch_size": 4, "masks_per_photo": 2, "learning_rate": 1e-2}

pytestmark = pytest.mark.filterwarnings("ignore:(no epoch|the validation loss):realfill.errors.RealFillWarning")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        Image.fromarray(make_photo(70, 90, i)).save(folder / f"photo{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def adapted(tiny_sd, photos):
    return adapt(photos, AdaptConfig(base=tiny_sd, **TINY), device="cpu", progress=False)


@pytest.fixture
def bare(tiny_sd):
    return StableDiffusionInpainter.load(tiny_sd)


def weights(inpainter):
    return {
        f"{part}.{name}": weight.detach().clone()
        for part in ("unet", "text_encoder")
        for name, weight in inpainter.parts[part].state_dict().items()
    }


def effect(tiny_sd, *adapters):
    """Return the change of all weights by adapters that are attached one after another."""
    inpainter = StableDiffusionInpainter.load(tiny_sd)
    before = weights(inpainter)
    for adapter in adapters:
        attach(inpainter, adapter)
    return {name: weight - before[name] for name, weight in weights(inpainter).items()}


def test_the_adapter_says_how_it_was_made(adapted, photos):
    about = adapted.manifest["adaptation"]
    names = [name for part in about["photos"].values() for name in part]
    assert sorted(names) == sorted(p.name for p in photos.iterdir())
    assert [epoch["number"] for epoch in about["epochs"]] == [0, 1]
    assert about["best_epoch"] == min(about["epochs"], key=lambda e: e["validation_loss"])["number"]


def test_complete_takes_the_adapter_after_a_round_trip(adapted, tmp_path, scene):
    adapted.save(tmp_path / "adapter")
    sampling = SampleConfig(num_samples=1, num_inference_steps=2)
    result = complete(Scene((), scene.target, scene.mask), tmp_path / "adapter", sampling, device="cpu", progress=False)
    np.testing.assert_array_equal(result[0].image[~scene.mask], scene.target[~scene.mask])


def test_as_an_engine_it_fills_in_the_windows_that_the_adapter_carries(adapted, tmp_path):
    window = dataclasses.replace(adapted.window, context=2 * adapted.window.context)
    dataclasses.replace(adapted, window=window).save(tmp_path)
    assert UnfittedBase.load(str(tmp_path), device="cpu").window == window


def test_a_fit_starts_from_the_adapter_and_contains_it(adapted, tiny_sd, scene):
    config = FitConfig(base=tiny_sd, **{**TINY_FIT, "learning_rate": 0.0, "text_encoder_learning_rate": 0.0})
    fitted = fit(scene, config, start=adapted, device="cpu", progress=False)
    assert fitted.config.lora_rank == adapted.config.lora_rank + config.resolve({}).lora_rank
    for (name, one), other in zip(effect(tiny_sd, fitted).items(), effect(tiny_sd, adapted).values(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-2, msg=name)
    assert fitted.manifest["inputs"]["start"]


def test_what_a_fit_learns_is_added_to_the_adapter(adapted, tiny_sd, scene):
    config = FitConfig(base=tiny_sd, **TINY_FIT)
    fitted = fit(scene, config, start=adapted, device="cpu", progress=False)
    change = effect(tiny_sd, fitted)
    start = effect(tiny_sd, adapted)
    assert any((change[name] - start[name]).abs().max() > 1e-3 for name in change)
    assert Adapter is type(fitted)


def test_a_fit_cannot_start_from_an_adapter_of_another_base(adapted, tiny_v, scene):
    with pytest.raises(AdapterError, match="was fitted on"):
        fit(scene, FitConfig(base=tiny_v, **TINY_FIT), start=adapted, device="cpu", progress=False)


def test_the_whole_unet_is_stored_at_a_rank_that_keeps_its_change(tiny_sd, photos):
    config = AdaptConfig(base=tiny_sd, preset="ocean-study", num_epochs=1, masks_per_photo=1, learning_rate=1e-3)
    adapter = adapt(photos, config, device="cpu", progress=False)
    assert adapter.manifest["adaptation"]["kept_change"] >= 0.99
    assert adapter.config.batch_size == 9
    assert not any(name.startswith("text_encoder") for name in adapter.tensors)
    assert any(change.abs().max() > 1e-4 for change in effect(tiny_sd, adapter).values())


def test_a_base_without_a_unet_is_refused(tiny_klein, photos):
    with pytest.raises(ValueError, match="has no U-Net"):
        adapt(photos, AdaptConfig(base=tiny_klein, **TINY), device="cpu", progress=False)


class Middle:
    """Finds a thing in the middle of each photo."""

    name, side_px, segments, classes = "middle", 0, False, ("thing",)

    def find(self, image, *, lowest):
        mask = np.zeros(image.shape[:2], bool)
        mask[20:40, 30:50] = True
        return [Instance.of_mask(mask, name="thing", score=1.0, detector=self.name)]


STRUCTURE = {**TINY, "preset": "structure", "num_category_tokens": 3, "category_width": 8, "masks_per_photo": 12}


@pytest.fixture(scope="module")
def structured(tiny_sd, photos):
    config = AdaptConfig(base=tiny_sd, foreground_classes=("thing",), **STRUCTURE)
    return adapt(photos, config, device="cpu", detector=Middle(), progress=False)


def test_the_structure_recipe_learns_categories_and_a_combiner_and_says_how_to_sample(structured):
    assert structured.structure is not None and structured.structure.combiner is not None
    assert {tuple(e.shape) for e in structured.structure.embeddings.values()} == {(3, 32)}
    assert structured.config.prompt == "<background>"
    assert structured.window.num_stages == 3
    assert structured.sample["guidance_from"] == "foreground"
    assert structured.sample["num_inference_steps"] == 60
    assert structured.sample["stage_steps"] == [40, 30]
    assert structured.sample["guidance_scale"] > structured.sample["stage_guidance"][0] > 1
    assert structured.manifest["adaptation"]["photos_with_objects"] == 4


def test_erase_is_guided_from_the_foreground_in_stages(structured, tmp_path, scene, monkeypatch):
    structured.save(tmp_path / "adapter")
    guided, corrected = [], []
    real_prompt, real_correct = StableDiffusionInpainter.encode_prompt, Structure.correct
    monkeypatch.setattr(
        StableDiffusionInpainter, "encode_prompt",
        lambda self, prompts: guided.extend(prompts) or real_prompt(self, prompts),
    )  # fmt: skip
    monkeypatch.setattr(Structure, "correct", lambda *args: corrected.append(1) or real_correct(*args))
    photo, mask = np.kron(scene.target, np.ones((2, 2, 1), np.uint8)), np.kron(scene.mask, np.ones((2, 2), bool))
    sampling = SampleConfig(num_inference_steps=2, stage_steps=(1,), guidance_from="foreground")
    result = erase(
        photo, mask, engine="base", weights=tmp_path / "adapter", sample=sampling, device="cpu", progress=False
    )  # fmt: skip
    np.testing.assert_array_equal(result.image[~mask], photo[~mask])
    assert set(guided) == {"<background>", "<foreground>", ""}  # the last one measures the memory
    assert len(corrected) >= 1


def test_settings_of_a_sampler_need_a_diffusion_model(scene):
    sampling = SampleConfig(guidance_from="foreground")
    with pytest.raises(ValueError, match="legal: the engine 'base' or 'fit'"):
        erase(scene.target, scene.mask, engine="telea", sample=sampling, progress=False)


def test_a_detector_that_finds_nothing_leaves_guidance_out_and_is_named(tiny_sd, photos):
    config = AdaptConfig(base=tiny_sd, detector="offline", **{**STRUCTURE, "masks_per_photo": 2})
    with pytest.warns(RealFillWarning, match="no object of person was found"):
        adapter = adapt(photos, config, device="cpu", progress=False)
    assert adapter.sample["guidance_scale"] == 1.0
    assert adapter.manifest["adaptation"]["photos_with_objects"] == 0


def test_a_class_that_the_detector_does_not_know_ends_the_job_before_the_first_step(tiny_sd, photos):
    config = AdaptConfig(base=tiny_sd, foreground_classes=("unicorn",), **STRUCTURE)
    with pytest.raises(ValueError, match="'unicorn', which the detector 'middle' does not know"):
        adapt(photos, config, device="cpu", detector=Middle(), on_step=lambda _: pytest.fail("it runs"), progress=False)


def test_the_structure_recipe_resumes_to_the_same_result(structured, tiny_sd, photos, tmp_path):
    config = AdaptConfig(base=tiny_sd, foreground_classes=("thing",), **STRUCTURE)
    options = {"device": "cpu", "detector": Middle(), "checkpoint_dir": tmp_path, "progress": False}
    adapt(photos, config, on_step=lambda report: report.step < 3, **options)
    resumed = adapt(photos, config, **options)
    assert resumed.losses == structured.losses
    for name, tensor in structured.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    finished = adapt(photos, config, **options)  # no step is left, so no photo is drawn
    assert (finished.sample, finished.losses) == (structured.sample, structured.losses)
    about = structured.manifest["adaptation"]["photos_with_objects"]
    assert finished.manifest["adaptation"]["photos_with_objects"] == about
