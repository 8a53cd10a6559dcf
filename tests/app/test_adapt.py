"""``realfill adapt``: trains, compares, resumes, and refuses what it cannot do."""

import json

import pytest
from helpers import make_photo
from PIL import Image

from realfill import Adapter
from realfill.app.cli import main
from realfill.benchmark import adaptation
from realfill.training import loop

pytestmark = pytest.mark.filterwarnings("ignore:(no epoch|the validation loss):realfill.errors.RealFillWarning")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(make_photo(64, 72, i)).save(folder / f"photo{i}.png")
    return folder


@pytest.fixture
def words(photos, quick_sd, tmp_path):
    recipe = ["--num-epochs", "1", "--masks-per-photo", "2", "--batch-size", "2", "--device", "cpu", "--quiet"]
    return ["adapt", str(photos), "-o", str(tmp_path / "out"), "--base", quick_sd, *recipe]


def test_it_writes_the_adapter_and_the_comparison_once(words, tmp_path, monkeypatch):
    assert main(words) == 0
    out = tmp_path / "out"
    names = {"adapter.json", "pytorch_lora_weights.safetensors", "report.json", "pairs.png", "losses.png", "job.json"}
    assert {p.name for p in out.iterdir()} == names
    assert json.loads((out / "report.json").read_text())["num_photos"] == 1
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained again"))
    assert main(words) == 0


def test_after_an_interrupted_comparison_only_that_is_done_again(words, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(adaptation, "compare_adapter", interrupt)
        assert main(words) == 130
    trained = Adapter.load(tmp_path / "out").losses
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained again"))
    assert main(words) == 0
    assert Adapter.load(tmp_path / "out").losses == trained
    assert (tmp_path / "out" / "report.json").is_file()


def test_another_request_needs_another_folder(words, capsys):
    assert main(words) == 0
    assert main([*words, "--seed", "1"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--seed", "1", "--overwrite"]) == 0


def test_two_photos_are_too_few(words, photos, capsys):
    for i in (2, 3):
        (photos / f"photo{i}.png").unlink()
    assert main(words) == 1
    assert "at least three" in capsys.readouterr().err


def test_the_default_base_needs_a_gpu(photos, tmp_path, capsys):
    assert main(["adapt", str(photos), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "--base mini" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("always:.*compar:realfill.errors.RealFillWarning")
def test_a_command_whose_test_photo_is_damaged_still_ends(words, tmp_path, monkeypatch, capsys):
    read = adaptation.read_image
    monkeypatch.setattr(adaptation, "read_image", lambda path, name: read(path.with_name("gone"), name))
    assert main(words) == 0
    assert "the adapter is not compared" in capsys.readouterr().err
    monkeypatch.setattr(adaptation, "read_image", read)
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained again"))
    assert main(words) == 0
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.filterwarnings("ignore:these files are left out:realfill.errors.RealFillWarning")
def test_the_output_folder_may_lie_among_the_photos(words, photos, monkeypatch):
    words[words.index("-o") + 1] = str(photos / "adapter")
    assert main(words) == 0
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained again"))
    assert main([*words]) == 0
