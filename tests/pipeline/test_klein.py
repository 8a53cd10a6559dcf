"""FLUX.2 klein through the pipeline: completion without and with a fit, laws, resuming, another base for sampling."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from composites import make_composite
from helpers import make_photo

from realfill import FitConfig, GeometryConfig, SampleConfig, Scene, WindowConfig, complete, fill, fit
from realfill.compute.devices import make_accelerator
from realfill.errors import AdapterError
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.family import ReferenceView
from realfill.models.diffusion.klein import KleinInpainter
from realfill.models.diffusion.lora import trainable_lora
from realfill.results.evidence import INVENTED
from realfill.training import trainer as trainer_module
from realfill.training.crops import TrainingImage
from realfill.training.loop import train
from realfill.training.trainer import Trainer

ALONE = {"num_samples": 1}
OFF = GeometryConfig(enabled=False)


@pytest.fixture(scope="module")
def scene() -> Scene:
    mask = cv2.ellipse(np.zeros((64, 80), np.uint8), (40, 30), (16, 12), 0, 0, 360, 1, -1) > 0
    return Scene([make_photo(70, 90, 1), make_photo(64, 64, 2)], make_photo(64, 80, 0), mask)


@pytest.fixture(scope="module")
def config(tiny_klein) -> FitConfig:
    return FitConfig(base=tiny_klein, learning_rate=0.1, mixed_precision="no")


@pytest.fixture(scope="module")
def adapter(scene, config):
    return fit(scene, config, geometry=OFF, progress=False)


@pytest.fixture(scope="module")
def picture(scene, tiny_klein) -> np.ndarray:
    """One completion without a fit."""
    return pictures(scene, tiny_klein)[0]


def with_hole(scene, other) -> Scene:
    """The same scene with other pixels under the hole."""
    return Scene(scene.references, np.where(scene.mask[..., None], other, scene.target), scene.mask)


def pictures(scene, source, window=None, **changes):
    """Completions in the order of their seeds."""
    config, options = SampleConfig(**{**ALONE, **changes}), {"window": window, "geometry": OFF}
    return [c.image for c in complete(scene, source, config, **options, ranked=False, progress=False)]


def test_known_pixels_are_exact(scene, picture):
    assert (picture[~scene.mask] == scene.target[~scene.mask]).all()
    assert (picture[scene.mask] != scene.known[scene.mask]).any()


def test_the_hole_has_no_influence(scene, picture, tiny_klein, config, adapter):
    other = with_hole(scene, make_photo(64, 80, 9))
    assert (other.target != scene.target).any()
    assert (pictures(other, tiny_klein)[0] == picture).all()
    again = fit(other, config, progress=False)
    assert again.losses == adapter.losses
    assert all(torch.equal(again.tensors[n], t) for n, t in adapter.tensors.items())


def test_references_are_conditioning(scene, picture, tiny_klein):
    for references in ([], [scene.references[0], make_photo(64, 64, 7)]):
        changed = Scene(references, scene.target, scene.mask)
        assert (pictures(changed, tiny_klein)[0] != picture).any()


def test_a_picture_does_not_depend_on_the_batch(scene, picture, tiny_klein):
    together = pictures(scene, tiny_klein, num_samples=2, batch_size=2)
    alone = pictures(scene, tiny_klein, seed=1)[0]
    assert np.abs(together[0].astype(int) - picture).max() <= 1
    assert np.abs(together[1].astype(int) - alone).max() <= 1
    assert np.abs(together[1].astype(int) - picture).max() > 1


def test_stages_from_coarse_to_fine(tiny_klein):
    mask = np.zeros((128, 128), bool)
    mask[30:100, 30:100] = True
    large = Scene([make_photo(64, 64, 2)], make_photo(128, 128, 0), mask)
    window = WindowConfig(num_stages=2)
    (image,) = pictures(large, tiny_klein, window=window, stage_steps=(2,))
    assert (image[~mask] == large.target[~mask]).all()
    assert (image != pictures(large, tiny_klein)[0]).any()


def test_a_shifted_sample_is_registered_and_the_shift_is_reported(scene, tiny_klein, monkeypatch):
    """STAND-IN for a model that shifts what it sees: it decodes to the photo, three pixels lower."""
    big = Scene(scene.references, make_photo(96, 96, 3), np.pad(scene.mask, ((16, 16), (8, 8))))
    truth = torch.from_numpy(big.target).permute(2, 0, 1)[None].float() / 255

    def decode(self, latents):
        size = [n * self.vae_scale_factor for n in latents.shape[-2:]]
        return torch.nn.functional.interpolate(truth.roll(3, dims=2), size, mode="area").expand(
            len(latents), -1, -1, -1
        )

    monkeypatch.setattr(KleinInpainter, "decode", decode)
    whole = WindowConfig(context=10)
    (completion,) = complete(big, tiny_klein, SampleConfig(**ALONE), window=whole, ranked=False, progress=False)
    down, right = completion.provenance["shift_px"]
    assert down == pytest.approx(3, abs=0.5)
    assert right == pytest.approx(0, abs=0.5)
    error = np.abs(completion.image.astype(int) - big.target)[big.mask].mean()
    assert error < 25
    assert (completion.image[~big.mask] == big.target[~big.mask]).all()


def test_a_fit_changes_the_picture(scene, picture, adapter):
    assert len(adapter.tensors) == 2 * 12
    assert (pictures(scene, adapter)[0] != picture).any()


def test_an_adapter_made_on_base_samples_with_the_distilled_model(scene, adapter, tiny_distilled):
    (image,) = pictures(scene, adapter, base=tiny_distilled)
    assert (image[~scene.mask] == scene.target[~scene.mask]).all()
    assert (image != pictures(scene, tiny_distilled, prompt=adapter.config.prompt)[0]).any()
    completion = complete(scene, adapter, SampleConfig(base=tiny_distilled, **ALONE), ranked=False, progress=False)[0]
    assert completion.provenance["fingerprint"] == load_family(tiny_distilled).fingerprint
    assert "/" not in completion.provenance["sample"]["base"], "published photos name no folders"


def test_another_family_does_not_take_the_adapter(scene, adapter, tiny_sd):
    with pytest.raises(AdapterError, match="whose layers differ"):
        pictures(scene, adapter, base=tiny_sd)


def test_a_stopped_fit_resumes_to_the_same_result(scene, config, adapter, tmp_path):
    options = {"checkpoint_dir": tmp_path, "progress": False}
    stopped = fit(scene, config, on_step=lambda report: report.step < 2, **options)
    assert len(stopped.losses) == 2
    resumed = fit(scene, config, **options)
    assert resumed.losses == pytest.approx(adapter.losses, abs=1e-6)
    assert all(torch.equal(resumed.tensors[n], t) for n, t in adapter.tensors.items())


def test_one_step_lowers_the_loss_on_a_fixed_batch(config, tiny_klein, monkeypatch):
    settings = config.resolve(load_family(tiny_klein).card.fit)
    inpainter = load_family(tiny_klein)
    photo = make_photo(64, 64, 1)
    inpainter.use_references([ReferenceView(reference=0, image=photo), ReferenceView(reference=1, image=photo)], 32)
    settings = replace(settings, learning_rate=0.003, lora_dropout=0.0, num_steps=3)
    draw = trainer_module.step_rng
    monkeypatch.setattr(trainer_module, "step_rng", lambda seed, _: draw(seed, 0))
    trainer = Trainer(
        inpainter, trainable_lora(inpainter, settings), settings, make_accelerator(inpainter.device, "no")
    )
    train(trainer, [TrainingImage(image=photo, crop_sides_px=(32, 64), reference=0)], progress=False)
    first, second, third = trainer.losses
    assert first > second > third


def test_the_references_matter_in_training(scene, config, adapter):
    fewer = fit(scene.with_references(1), config, progress=False)
    assert fewer.losses != adapter.losses


@pytest.mark.parametrize("kind", ["plain", "warped", "both"])
def test_views_of_the_references(kind, tiny_klein, monkeypatch):
    """A reference that shows the target from the same place is warped; one of something else stays plain."""
    seen = []
    monkeypatch.setattr(KleinInpainter, "use_references", lambda self, views, side_px: seen.append((views, side_px)))
    target, mask = make_photo(160, 160, 4), np.zeros((160, 160), bool)
    mask[60:100, 60:100] = True
    moved = np.roll(target, 9, axis=1)
    pair = Scene([make_photo(120, 120, 5), moved], target, mask)
    pictures(pair, tiny_klein, window=WindowConfig(reference_views=kind, reference_px=64))
    ((views, side_px),) = seen
    assert side_px == 64
    assert [v.reference for v in views] == {"plain": [0, 1], "warped": [0, 1], "both": [0, 1, 1]}[kind]
    if kind != "plain":
        warped = views[-1].image
        assert warped.shape[0] * warped.shape[1] <= 66**2
        assert warped.shape[:2] != moved.shape[:2]


def test_photographed_pixels_come_from_the_composite_and_the_rest_from_the_model(
    scene, tiny_klein, with_composites, monkeypatch
):
    found = make_composite(scene)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: found)
    one, two = complete(scene, tiny_klein, SampleConfig(num_samples=2), ranked=False, progress=False)
    photographed, invented = one.evidence.photographed, one.evidence.kinds == INVENTED
    assert photographed.any() and (one.image == found.image)[photographed].all()
    assert (one.image == two.image)[photographed].all() and (one.image != two.image)[invented].any()
    assert (one.image == scene.target)[~scene.mask].all()


@pytest.mark.parametrize("kind", ["plain", "both"])
def test_what_is_left_out_of_a_reference_is_not_shown(kind, tiny_klein, monkeypatch):
    """Neither the pixels themselves nor a black area in their place."""
    seen = []
    monkeypatch.setattr(KleinInpainter, "use_references", lambda self, views, side_px: seen.extend(views))
    target, mask = make_photo(160, 160, 4) // 2 + 60, np.zeros((160, 160), bool)
    mask[60:100, 60:100] = True
    moved, passer_by = np.roll(target, 9, axis=1), np.zeros((160, 160), bool)
    passer_by[40:80, 100:140] = True
    moved[passer_by] = 255
    scene = Scene([moved], target, mask, reference_masks=[passer_by])
    pictures(scene, tiny_klein, window=WindowConfig(reference_views=kind))
    assert len(seen) == {"plain": 1, "both": 2}[kind]
    assert all(view.image.min() >= 60 and view.image.max() < 200 for view in seen)
    assert (seen[0].image[~passer_by] == moved[~passer_by]).all()


def test_of_many_references_fit_and_completion_show_the_same_five(config, monkeypatch):
    """The two that show the hole are the last of seven."""
    seen, use = [], KleinInpainter.use_references
    monkeypatch.setattr(
        KleinInpainter, "use_references", lambda self, views, side_px: (seen.append(views), use(self, views, side_px))
    )
    target, mask = make_photo(160, 160, 4), np.zeros((160, 160), bool)
    mask[60:100, 60:100] = True
    others = [make_photo(64, 64, seed) for seed in range(5, 10)]
    many = Scene([*others, np.roll(target, 9, axis=1), np.roll(target, -9, axis=0)], target, mask)
    adapter = fit(many, config, window=WindowConfig(reference_px=16), progress=False)
    pictures(many, adapter)
    fitted, completed = ([view.image for view in views] for views in seen)
    assert len(fitted) == len(completed) == 5
    assert all((a == b).all() for a, b in zip(fitted, completed, strict=True))
    assert all(any(r is image or np.array_equal(r, image) for image in fitted) for r in many.references[-2:])


def test_klein_without_references_is_an_engine(scene, tiny_klein):
    completion = fill(scene.target, scene.mask, "base", weights=tiny_klein)
    assert (completion.image == pictures(scene.with_references(0), tiny_klein)[0]).all()
