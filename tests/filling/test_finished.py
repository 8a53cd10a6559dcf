"""Finished seeds on disk: a resumed job fills only the others, in the same batches, to the same pixels."""

import numpy as np
import pytest
from helpers import make_photo

from realfill import SampleConfig, Scene
from realfill.config import WindowConfig
from realfill.errors import OutputError
from realfill.filling import fill as filling
from realfill.filling.fill import fill_hole
from realfill.filling.finished import FinishedSeeds, remove_finished_seeds
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter

PIXELS = {3: np.arange(12, dtype=np.uint16).reshape(4, 3), 4: np.zeros((4, 3), np.uint16)}


def seeds_in(folder, identity="one", **options):
    return FinishedSeeds(folder=folder, identity=identity, **options)


def test_pixels_and_shifts_come_back_as_they_were(tmp_path):
    kept = seeds_in(tmp_path / "new")
    kept.add(PIXELS, {3: [(0.1, -2.5)], 9: [(1.0, 1.0)]})
    pixels, shifts = kept.load()
    assert shifts == {3: [(0.1, -2.5)]}
    assert pixels.keys() == PIXELS.keys()
    assert all(pixels[s].dtype == np.uint16 and np.array_equal(pixels[s], PIXELS[s]) for s in PIXELS)
    remove_finished_seeds(tmp_path / "new")
    assert kept.load() == ({}, {})


def test_seeds_of_another_job_are_refused_unless_they_may_be_replaced(tmp_path):
    seeds_in(tmp_path).add(PIXELS, {})
    with pytest.raises(OutputError, match="finished seeds of another scene, adapter or settings"):
        seeds_in(tmp_path, "other").load()
    other = seeds_in(tmp_path, "other", overwrite=True)
    assert other.load() == ({}, {})
    other.add(PIXELS, {})
    assert other.load()[0].keys() == PIXELS.keys()


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: b"{}", lambda data: b""])
def test_a_damaged_file_counts_as_missing(damage, tmp_path):
    kept = seeds_in(tmp_path)
    kept.add(PIXELS, {})
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert kept.load() == ({}, {})


def test_a_killed_job_resumes_in_the_same_batches(tiny_sd, tmp_path, monkeypatch):
    """Five seeds in batches of two: 2, 2, 1. The job dies in the second batch, after its first seed was blended."""
    inpainter, target = StableDiffusionInpainter.load(tiny_sd), make_photo(60, 64)
    mask = np.zeros((60, 64), bool)
    mask[20:40, 20:44] = True
    settings = SampleConfig(num_samples=5, num_inference_steps=2, batch_size=2).resolve(inpainter.card.sample)
    windows, sampled, reports = WindowConfig().resolve({}), [], []
    sample, blend = filling.sample, filling.blend

    def noted(*args, **options):
        sampled.append(list(options["seeds"]))
        return sample(*args, **options)

    def fill(**options):
        scene = Scene([], target, mask)
        return fill_hole(inpainter, scene, settings, windows, progress=False, on_step=reports.append, **options)

    monkeypatch.setattr(filling, "sample", noted)
    whole = fill()
    assert sampled == [[0, 1], [2, 3], [4]]

    def killed(*args, **options):
        if sampled[-1] == [2, 3] and len(blended) == 3:
            raise KeyboardInterrupt
        blended.append(1)
        return blend(*args, **options)

    sampled.clear()
    blended = []
    monkeypatch.setattr(filling, "blend", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(finished=seeds_in(tmp_path))
    monkeypatch.setattr(filling, "blend", blend)
    sampled.clear()
    reports.clear()
    resumed = fill(finished=seeds_in(tmp_path))
    assert sampled == [[2, 3], [4]]
    assert [report.step for report in reports] == [6, 8, 9, 10] and reports[0].num_steps == 10
    assert list(resumed) == list(whole) == [0, 1, 2, 3, 4]
    assert all(np.array_equal(resumed[seed], whole[seed]) for seed in whole)
