"""``adapt`` fine-tunes a base model on a folder of photos; ``complete`` takes its adapter, and a fit starts from it."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import TINY_FIT, make_photo
from PIL import Image

from realfill import AdaptConfig, Adapter, FitConfig, SampleConfig, Scene, adapt, complete, fit
from realfill.errors import AdapterError
from realfill.filling.unfitted import UnfittedBase
from realfill.models.diffusion.lora import attach
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter

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
