"""An adapted base model is compared with the base model on the same holes of the same photos."""

import json

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill import AdaptConfig, adapt
from realfill.benchmark import adaptation
from realfill.benchmark.adaptation import compare_adapter
from realfill.errors import RealFillWarning, SceneError

pytestmark = pytest.mark.filterwarnings("ignore:(no epoch|the validation loss):realfill.errors.RealFillWarning")


class FakeEngine:
    """Fills with the image itself, darker by a constant."""

    def __init__(self, levels):
        self.levels = levels
        self.seen = []

    def fill(self, image, hole, seeds):
        self.seen.append((image.tobytes(), hole.tobytes()))
        result = image.copy()
        result[hole] = np.maximum(result[hole].astype(int) - self.levels, 0)
        return [result for _ in seeds]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(5):
        Image.fromarray(make_photo(64, 72, i) // 2 + 100).save(folder / f"photo{i}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def adapter(quick_sd, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    config = AdaptConfig(base=quick_sd, num_epochs=1, masks_per_photo=1, batch_size=2, learning_rate=0.01)
    adapt(photos, config, device="cpu", progress=False).save(folder)
    return folder


@pytest.fixture
def engines(monkeypatch):
    """Fakes in place of the base model and the adapted one."""
    arms = [FakeEngine(20), FakeEngine(5)]
    made = iter(arms)
    monkeypatch.setattr(adaptation.UnfittedBase, "load", lambda *_, **__: next(made))
    return arms


def test_both_fill_the_same_holes_and_the_better_one_wins(adapter, photos, engines):
    report = compare_adapter(adapter, photos, device="cpu", progress=False)
    assert engines[0].seen == engines[1].seen
    rows = {row.metric: row for row in report.rows}
    assert rows["psnr"].base == pytest.approx(20 * np.log10(255 / 20), abs=0.01)
    assert rows["psnr"].difference == pytest.approx(20 * np.log10(20 / 5), abs=0.01)
    assert rows["psnr"].interval == pytest.approx((rows["psnr"].difference,) * 2)
    assert report.num_photos == 5


def test_the_report_is_written_with_its_pictures(adapter, photos, engines, tmp_path):
    report = compare_adapter(adapter, photos[:2], device="cpu", progress=False)
    report.save(tmp_path)
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["metrics"]["psnr"]["difference"] > 0
    assert [epoch["number"] for epoch in values["epochs"]] == [0, 1]
    for name in ("pairs.png", "losses.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 100
    assert "psnr" in str(report)


def test_the_comparison_ends_early_and_keeps_what_it_has(adapter, photos, engines):
    report = compare_adapter(adapter, photos, device="cpu", progress=False, on_step=lambda r: r.step < 2)
    assert report.num_photos == 2


def test_no_photos_is_an_error(adapter):
    with pytest.raises(ValueError, match="photos is empty"):
        compare_adapter(adapter, [])


def test_the_base_and_the_adapter_fill_differently(adapter, photos):
    report = compare_adapter(adapter, photos[:1], device="cpu", progress=False)
    base, adapted = report.pairs[1][1], report.pairs[2][1]
    assert base.shape == adapted.shape == (64, 72, 3)
    assert (base != adapted).any()


def test_a_damaged_photo_is_left_out_with_a_warning(adapter, photos, engines, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(photos[0].read_bytes()[:400])
    with pytest.warns(RealFillWarning, match=r"damaged.png is left out"):
        report = compare_adapter(adapter, [damaged, photos[1]], device="cpu", progress=False)
    assert report.num_photos == 1
    assert len(report.pairs) == 4


def test_damaged_photos_alone_are_an_error(adapter, engines, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no photo")
    with pytest.warns(RealFillWarning), pytest.raises(SceneError, match="none of 1 photos"):
        compare_adapter(adapter, [damaged], device="cpu", progress=False)
