"""The commands: what they write, refuse, resume and extend."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from composites import make_composite
from helpers import make_photo
from PIL import Image

from realfill import FitConfig, Scene
from realfill.app.cli import main
from realfill.app.commands.common import SceneOptions
from realfill.app.commands.jobs import make_request
from realfill.errors import RealFillWarning
from realfill.io.images import read_image
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.training import loop

pytestmark = pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")


@pytest.fixture
def no_training(monkeypatch):
    """Fail if anything is trained."""
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained"))


def seeds_of(folder):
    return sorted(c["seed"] for c in json.loads((folder / "scores.json").read_text())["completions"])


def test_run_writes_everything(folder, fit_words, sample_words, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", str(folder), "-o", str(out), *fit_words, *sample_words]) == 0
    files = {c["file"] for c in json.loads((out / "scores.json").read_text())["completions"]}
    assert seeds_of(out) == [0, 1]
    written = {"adapter", "contact_sheet.png", "evidence.npz", "evidence.png", "job.json", "scores.json", *files}
    assert {p.name for p in out.iterdir()} == written
    assert "best" in capsys.readouterr().out


@pytest.fixture
def found(folder, with_composites, monkeypatch):
    """A composite of the small scene that is found at once."""
    del with_composites
    result = make_composite(Scene.load(folder))
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: result)
    return result


@pytest.mark.parametrize("words", [[], ["--no-fit"], ["--no-fit", "--base", "{tiny}"]])
def test_run_without_a_fit_takes_what_the_references_show(
    words, folder, found, tiny_sd, sample_words, tmp_path, capsys, no_training
):
    out = tmp_path / "out"
    words = [word.format(tiny=tiny_sd) for word in words]
    assert main(["run", str(folder), "-o", str(out), *words, *sample_words]) == 0
    printed, error = capsys.readouterr()
    values = json.loads((out / "scores.json").read_text())
    base = values["provenance"]["base"]
    assert base == ("tiny-sd0" if "--base" in words else "mini")
    assert ("takes days without a GPU" in printed) == (not words)
    assert "references show 71 % of the hole" in error and "of the hole photographed (references 0 and 1)" in printed
    assert sum(values["evidence"][kind] for kind in ("photographed", "corrected", "invented")) == pytest.approx(1)
    assert seeds_of(out) == [0, 1] and not (out / "adapter").exists()
    image = read_image(out / values["completions"][0]["file"])[0]
    shown = (found.confidence > 0.5) & (found.source >= 0)
    assert shown.any() and (image == found.image)[shown].all()
    assert main(["run", str(folder), "-o", str(out), *words, *sample_words]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_plain_inpainter_gives_a_single_result_without_a_seed(folder, found, tmp_path, capsys, no_training):
    out = tmp_path / "out"
    words = ["complete", str(folder), "-o", str(out), "--base", "telea"]
    assert main(words) == 0
    assert "one result, the same for every seed" in capsys.readouterr().out
    assert seeds_of(out) == [None] and (out / "00_composite.png").is_file()
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*words, "--extend"]) == 1
    assert "no other seeds to add" in capsys.readouterr().err
    assert main(["run", str(folder), "-o", str(tmp_path / "run"), "--base", "telea"]) == 0
    assert (tmp_path / "run" / "00_composite.png").read_bytes() == (out / "00_composite.png").read_bytes()
    del found


def test_no_fit_starts_where_the_references_show_everything(
    folder, fit_words, sample_words, with_composites, monkeypatch, tmp_path, capsys, no_training
):
    scene = Scene.load(folder)
    whole = dataclasses.replace(
        make_composite(scene), confidence=np.ones(scene.mask.shape, np.float32),
        source=np.where(scene.mask, 0, -1).astype(np.int16),
    )  # fmt: skip
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: whole)
    assert main(["run", str(folder), "-o", str(tmp_path / "out"), *fit_words, *sample_words]) == 0
    assert "so no fit is needed" in capsys.readouterr().out
    assert seeds_of(tmp_path / "out") == [None]
    monkeypatch.setattr("realfill.pipeline.fitting.locate", lambda *_, **__: pytest.fail("downloaded a base model"))
    monkeypatch.setattr("realfill.training.plan.download_bytes", lambda *_: pytest.fail("announced a download"))
    assert main(["run", str(folder), "-o", str(tmp_path / "sd2"), "--base", "sd2"]) == 0
    assert seeds_of(tmp_path / "sd2") == [None]
    del with_composites


def test_geometry_can_be_turned_off(folder, found, tiny_sd, sample_words, tmp_path):
    out = tmp_path / "out"
    words = ["complete", str(folder), "-o", str(out), "--base", tiny_sd, "--geometry", "False", *sample_words]
    assert main(words) == 0
    assert json.loads((out / "scores.json").read_text())["evidence"]["invented"] == 1
    assert main([word.replace("False", "True") for word in words]) == 1  # it is another request
    del found


def test_a_preset_applies_to_fit_and_sampling_and_given_options_win(folder, fit_words, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["run", str(folder), "-o", str(out), *fit_words, "--preset", "draft", "--device", "cpu"]
    assert main([*words, "--matcher", "sift", "--num-samples", "2"]) == 0
    made = json.loads((out / "scores.json").read_text())["provenance"]
    assert (made["fit"]["preset"], made["fit"]["num_steps"], made["fit"]["latent_cache_size"]) == ("draft", 3, 512)
    assert (made["sample"]["preset"], made["sample"]["scheduler"]) == ("draft", "dpm++")
    assert (made["sample"]["num_inference_steps"], made["sample"]["num_samples"]) == (12, 2)


def test_options_of_fit_and_sampling_do_not_mix(folder, fit_words, sample_words, tmp_path):
    out = tmp_path / "out"
    words = ["--seed", "3", "--sample-seed", "7", "--prompt", "a", "--sample-prompt", "b", "--context", "2.5"]
    assert main(["run", str(folder), "-o", str(out), *fit_words, *sample_words, *words]) == 0
    made = json.loads((out / "scores.json").read_text())["provenance"]
    assert (made["fit"]["seed"], made["sample"]["seed"], seeds_of(out)) == (3, 7, [7, 8])
    assert (made["fit"]["prompt"], made["sample"]["prompt"], made["window"]["context"]) == ("a", "b", 2.5)


def test_a_finished_job_is_not_repeated_and_a_different_request_is_refused(
    folder, fit_words, sample_words, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    words = ["run", str(folder), "-o", str(out), *fit_words, *sample_words]
    assert main(words) == 0
    kept = (out / "scores.json").read_bytes()
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained"))
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*words, "--checkpoint-every", "7", "--sample-batch-size", "1"]) == 0  # they change no result
    assert main([*words, "--num-inference-steps", "3"]) == 1
    assert "sample num_inference_steps: 2 instead of 3" in capsys.readouterr().err
    (folder / "ref" / "1.png").unlink()
    assert main(words) == 1
    assert "scene reference 1: changed" in capsys.readouterr().err
    assert (out / "scores.json").read_bytes() == kept


def test_completions_without_a_record_are_refused_unless_overwritten(folder, tiny_sd, sample_words, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["complete", str(folder), "-o", str(out), "--base", tiny_sd, *sample_words]
    assert main(words) == 0
    (out / "job.json").unlink()
    assert main(words) == 1
    assert "already holds completions" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_an_interrupted_fit_resumes(folder, fit_words, sample_words, tmp_path, capsys, monkeypatch):
    words = ["run", str(folder), "-o", str(tmp_path / "out"), *fit_words, *sample_words]
    compute_gradients, steps = loop.compute_gradients, []

    def interrupted(trainer, photos):
        if trainer.step == 2:
            raise KeyboardInterrupt
        return compute_gradients(trainer, photos)

    def counted(trainer, photos):
        steps.append(trainer.step)
        return compute_gradients(trainer, photos)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "compute_gradients", interrupted)
        assert main(words) == 130
    assert "the same command resumes" in capsys.readouterr().err
    monkeypatch.setattr(loop, "compute_gradients", counted)
    assert main(words) == 0
    assert steps == [2]
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_other_files_beside_a_checkpoint_survive(folder, fit_words, tmp_path):
    (tmp_path / "adapter" / "checkpoint").mkdir(parents=True)
    (tmp_path / "adapter" / "checkpoint" / "notes.txt").write_text("mine")
    assert main(["fit", str(folder), "-o", str(tmp_path / "adapter"), *fit_words]) == 0
    assert [p.name for p in (tmp_path / "adapter" / "checkpoint").iterdir()] == ["notes.txt"]


def test_fit_then_complete_then_rank(folder, fit_words, sample_words, tmp_path, capsys, monkeypatch):
    adapter, out, ranked = (str(tmp_path / n) for n in ("adapter", "out", "ranked"))
    fit = ["fit", str(folder), "-o", adapter, *fit_words, "--device", "cpu"]
    assert main(fit) == 0
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained"))
    assert main(fit) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*fit, "--lora-rank", "3"]) == 1
    assert "fit lora_rank: 2 instead of 3" in capsys.readouterr().err
    assert main(["complete", str(folder), "--adapter", adapter, "-o", out, *sample_words]) == 0
    rank = ["rank", str(folder), out, "-o", ranked, "--matcher", "sift"]
    assert main(rank) == 0
    assert (tmp_path / "ranked" / "scores.json").exists()
    assert "matches" in capsys.readouterr().out
    assert main(rank) == 0
    assert "matches" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::realfill.errors.RealFillWarning")
def test_rank_by_warped_references(folder, tiny_sd, sample_words, tmp_path, capsys):
    out, ranked = str(tmp_path / "out"), str(tmp_path / "ranked")
    assert main(["complete", str(folder), "--base", tiny_sd, "-o", out, *sample_words]) == 0
    capsys.readouterr()
    assert main(["rank", str(folder), out, "-o", ranked, "--score-by", "warped_references"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("hole:")]
    assert len(lines) == 2 and all("dB" in line or "not comparable" in line for line in lines)


def test_the_folder_of_a_run_serves_as_its_adapter(folder, fit_words, sample_words, tmp_path):
    out = tmp_path / "out"
    assert main(["run", str(folder), "-o", str(out), *fit_words, *sample_words]) == 0
    words = ["complete", str(folder), "--adapter", str(out), "-o", str(tmp_path / "more"), *sample_words]
    assert main(words) == 0
    assert "fit" in json.loads((tmp_path / "more" / "scores.json").read_text())["provenance"]


def test_ctrl_c_keeps_the_finished_seeds_and_the_same_command_resumes(
    folder, tiny_sd, sample_words, tmp_path, capsys, press_ctrl_c
):
    words = ["complete", str(folder), "--base", tiny_sd, *sample_words, "--num-samples", "3"]
    words += ["--sample-batch-size", "1"]
    assert main([*words, "-o", str(tmp_path / "whole")]) == 0
    out = tmp_path / "out"
    press_ctrl_c(at_step=3)
    assert main([*words, "-o", str(out)]) == 130
    error = capsys.readouterr().err
    assert "1 finished completions are written" in error
    assert seeds_of(out) == [0]
    press_ctrl_c(at_step=0)
    assert main([*words, "-o", str(out)]) == 0
    assert seeds_of(out) == [0, 1, 2]
    images = {
        folder: {p.name: read_image(p)[0] for p in folder.glob("*_seed*.png")} for folder in (out, out.parent / "whole")
    }
    resumed, whole = images.values()
    assert resumed.keys() == whole.keys()
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)


def test_ctrl_c_before_a_seed_is_finished_writes_nothing(folder, tiny_sd, sample_words, tmp_path, press_ctrl_c):
    out = tmp_path / "out"
    press_ctrl_c(at_step=1)
    words = ["complete", str(folder), "--base", tiny_sd, "-o", str(out), *sample_words, "--sample-batch-size", "1"]
    assert main(words) == 130
    assert list(out.iterdir()) == []


def test_a_second_ctrl_c_ends_at_once(folder, tiny_sd, sample_words, tmp_path, press_ctrl_c):
    out = tmp_path / "out"
    press_ctrl_c(at_step=3, times=2)
    words = ["complete", str(folder), "--base", tiny_sd, "-o", str(out), *sample_words, "--sample-batch-size", "1"]
    assert main(words) == 130
    assert [str(p.relative_to(out)) for p in out.rglob("*.*")] == ["checkpoint/seeds-0.safetensors"]


def test_ctrl_c_while_run_samples_keeps_adapter_and_finished_seeds(
    folder, fit_words, sample_words, tmp_path, press_ctrl_c, monkeypatch
):
    out = tmp_path / "out"
    words = ["run", str(folder), "-o", str(out), *fit_words, *sample_words, "--sample-batch-size", "1"]
    press_ctrl_c(at_step=3)
    assert main(words) == 130
    assert seeds_of(out) == [0] and (out / "adapter" / "adapter.json").exists()
    press_ctrl_c(at_step=0)
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("trained again"))
    assert main(words) == 0
    assert seeds_of(out) == [0, 1]
    assert not (out / "checkpoint").exists()


def test_seeds_are_added_to_a_folder(folder, tiny_sd, sample_words, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["complete", str(folder), "--base", tiny_sd, "-o", str(out), *sample_words]
    assert main(words) == 0
    assert main([*words, "--extend", "--num-samples", "1"]) == 0
    assert seeds_of(out) == [0, 1, 2]
    assert main([*words, "--extend", "--num-samples", "1", "--sample-seed", "10"]) == 0
    assert seeds_of(out) == [0, 1, 2, 10]
    assert len(list(out.glob("*_seed*.png"))) == 4
    assert main(words) == 0  # the request that the folder began with is done
    assert main([*words, "--extend", "--num-inference-steps", "3"]) == 1
    assert "sample num_inference_steps: 2 instead of 3" in capsys.readouterr().err


@pytest.mark.filterwarnings("always:ranking failed:realfill.errors.RealFillWarning")
def test_added_seeds_are_ranked_once_and_kept_if_that_fails(
    folder, tiny_sd, sample_words, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    words = ["complete", str(folder), "--base", tiny_sd, "-o", str(out), *sample_words]
    assert main(words) == 0

    ranked = []

    def fail(completions, **_):
        ranked.append(len(completions))
        raise RuntimeError("out of memory")

    monkeypatch.setattr("realfill.pipeline.ranking.rank", fail)
    assert main([*words, "--extend", "--num-samples", "1"]) == 0
    assert "ranking failed (RuntimeError: out of memory)" in capsys.readouterr().err
    values = json.loads((out / "scores.json").read_text())["completions"]
    assert seeds_of(out) == [0, 1, 2] and all(c["score"] is None for c in values)
    assert ranked == [3], "all are ranked together, and once"


def test_extending_an_empty_folder_begins_it(folder, tiny_sd, sample_words, tmp_path):
    out = tmp_path / "out"
    assert main(["complete", str(folder), "--base", tiny_sd, "-o", str(out), *sample_words, "--extend"]) == 0
    assert seeds_of(out) == [0, 1]


def test_the_source_of_the_hole_is_reported(folder, tiny_sd, sample_words, tmp_path, capsys):
    assert main(["complete", str(folder), "--base", tiny_sd, "-o", str(tmp_path / "out"), *sample_words]) == 0
    assert "hole: the white pixels of the mask" in capsys.readouterr().out


def test_quiet_prints_nothing(folder, tiny_sd, sample_words, tmp_path, capsys):
    words = ["complete", str(folder), "--base", tiny_sd, "-o", str(tmp_path / "out"), *sample_words, "--quiet"]
    assert main(words) == 0
    assert capsys.readouterr().out == ""


def test_a_rotated_jpeg_of_odd_size_can_be_completed(fit_words, sample_words, tmp_path):
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
    assert main(["run", str(tmp_path / "scene"), "-o", str(tmp_path / "out"), *fit_words, *sample_words]) == 0
    scene = Scene.load(tmp_path / "scene")
    image, _ = read_image(next((tmp_path / "out").glob("00_*.png")))
    assert image.shape == (77, 53, 3)
    assert (image == scene.target)[~scene.mask].all()


def test_outpainting_needs_no_mask_and_works_in_every_command(fit_words, sample_words, tiny_sd, tmp_path, capsys):
    photo = make_photo(44, 60)
    for name in ("ref/0.png", "target/target.png"):
        (tmp_path / "scene" / name).parent.mkdir(parents=True)
        Image.fromarray(photo).save(tmp_path / "scene" / name)
    scene, adapter, out, ranked = (str(tmp_path / n) for n in ("scene", "adapter", "out", "ranked"))
    grow = ("--outpaint", "25%", "--outpaint-left", "3px")
    assert main(["fit", scene, "-o", adapter, *fit_words, *grow]) == 0
    assert main(["complete", scene, "--adapter", adapter, "-o", out, *sample_words, *grow]) == 0
    assert main(["rank", scene, out, "-o", ranked, "--matcher", "sift", *grow]) == 0
    image, _ = read_image(next((tmp_path / "ranked").glob("00_*.png")))
    assert image.shape == (66, 78, 3) and np.array_equal(image[11:55, 3:63], photo)
    assert main(["run", scene, "-o", str(tmp_path / "run"), *fit_words, *sample_words, *grow]) == 0
    image, _ = read_image(next((tmp_path / "run").glob("00_*.png")))
    assert image.shape == (66, 78, 3) and np.array_equal(image[11:55, 3:63], photo)
    long = ["--base", "mini", "--format", "jpeg", "--outpaint-left", "65500px"]
    assert main(["run", scene, "-o", str(tmp_path / "long"), *long]) == 1
    assert "at most 65500 pixels a side" in capsys.readouterr().err
    wide = ["complete", scene, "--base", tiny_sd, "-o", str(tmp_path / "wide"), *sample_words, "--outpaint-aspect"]
    assert main([*wide, "16:9"]) == 0
    assert read_image(next((tmp_path / "wide").glob("00_*.png")))[0].shape == (44, 78, 3)
    assert main([*wide, "16:9", "--overwrite", "--outpaint", "20%"]) == 1
    assert main([*wide, "wide", "--overwrite"]) == 1
    assert "16:9" in capsys.readouterr().err
    assert main(["complete", scene, "--base", tiny_sd, "-o", str(tmp_path / "none"), *sample_words]) == 1
    assert "no mask" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "suffix"), [("tiff", "tif"), ("jpeg", "jpg")])
def test_other_formats_and_layers_on_request(name, suffix, folder, tiny_sd, sample_words, tmp_path):
    words = ["complete", str(folder), "--base", tiny_sd, "-o", str(tmp_path / "out"), *sample_words]
    assert main([*words, "--format", name, "--layers"]) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert len([n for n in names if n.endswith(f".{suffix}") and "patch" not in n]) == 2
    assert len([n for n in names if "_patch" in n]) == 2 and "layers.ora" in names


def test_a_part_is_redone_and_the_rest_stays_exact(folder, tiny_sd, sample_words, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    words = ["complete", str(folder), "--base", tiny_sd, *sample_words]
    assert main([*words, "-o", str(out)]) == 0
    part = np.zeros((64, 80), bool)
    part[26:34, 34:44] = True
    Image.fromarray(part).save(tmp_path / "part.png")
    kept = next(out.glob("01_*.png"))
    redo = ["--redo", str(kept), "--redo-mask", str(tmp_path / "part.png"), "--sample-seed", "50"]
    assert main([*words, *redo, "-o", str(again)]) == 0
    before, after = read_image(kept)[0], read_image(next(again.glob("00_*.png")))[0]
    assert np.array_equal(before[~part], after[~part]) and (before[part] != after[part]).any()
    made = json.loads((again / "scores.json").read_text())["provenance"]["scene"]["redo"]
    assert made["seed"] == int(kept.stem.split("seed")[1]) and made["provenance"]["base"] == Path(tiny_sd).name
    assert main(["rank", str(folder), str(again), "-o", str(tmp_path / "r"), "--matcher", "sift"]) == 0


def test_a_border_mixed_with_the_hole_is_warned_about_unless_the_hole_is_grown(tmp_path):
    hole = np.zeros((90, 120), bool)
    hole[30:60, 40:80] = True
    edge = hole.copy()
    edge[29:61, 39:81] = True
    target = np.where(hole[:, :, None], 255, make_photo(90, 120)).astype(np.uint8)
    target[edge & ~hole] = target[edge & ~hole] // 2 + 128
    Scene([make_photo(90, 120)], target, edge).save(tmp_path / "scene")
    Image.fromarray(hole).save(tmp_path / "scene" / "target" / "mask.png")
    with pytest.warns(RealFillWarning, match="mixed with the blank"):
        SceneOptions().load_scene(tmp_path / "scene")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SceneOptions(dilation_px=2).load_scene(tmp_path / "scene")


def test_sampling_that_the_base_cannot_do_is_refused_before_the_fit(folder, fit_words, tmp_path, capsys, no_training):
    words = ["run", str(folder), "-o", str(tmp_path / "out"), *fit_words, "--stage-steps", "800"]
    assert main(words) == 1
    assert "--stage-steps is (800,); legal: steps that, divided by" in capsys.readouterr().err


def test_demo_measures_bare_base_mean_and_best(tmp_path, capsys):
    words = ["demo", "-o", str(tmp_path / "demo"), "--num-steps", "2"]
    assert main(words) == 0
    figures = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert list(figures) == ["composite without a fit", "unfitted base", "mean of the samples", "top-ranked sample"]
    assert all(5 < v["psnr"] < 40 and -1 < v["ssim"] < 1 for v in figures.values())
    assert f"{figures['top-ranked sample']['psnr']:.2f}" in capsys.readouterr().out
    assert len(list((tmp_path / "demo").glob("*_seed*.png"))) == 8
    assert (tmp_path / "demo" / "adapter" / "pytorch_lora_weights.safetensors").exists()
    assert main(words) == 0
    assert "finished demo" in capsys.readouterr().out
    assert main([*words[:-1], "3"]) == 1
    assert "fit num_steps: 2 instead of 3" in capsys.readouterr().err


def test_pretrain_passes_its_options_on(tmp_path, capsys, monkeypatch):
    configs = []

    def pretrain(config, *, progress):
        configs.append((config, progress))
        return config.output

    monkeypatch.setattr("realfill.app.commands.pretrain.pretrain", pretrain)
    out = tmp_path / "base"
    assert main(["pretrain", "photos", "-o", str(out), "--num-steps", "5", "--widths", "8", "8", "8", "--quiet"]) == 0
    ((config, progress),) = configs
    assert (config.photos, config.output, config.num_steps, config.widths) == (Path("photos"), out, 5, (8, 8, 8))
    assert not progress
    assert capsys.readouterr().out == ""


def test_a_request_is_the_same_however_the_base_is_written(folder, tiny_sd, fit_words, tmp_path, capsys, monkeypatch):
    words = ["run", str(folder), "-o", str(tmp_path / "out"), *fit_words[2:], "--num-samples", "1"]
    words += ["--num-inference-steps", "2", "--matcher", "sift", "--device", "cpu"]
    monkeypatch.chdir(Path(tiny_sd).parent)
    assert main([*words, "--base", tiny_sd]) == 0
    assert main([*words, "--base", f"./{Path(tiny_sd).name}/"]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["adapter", "run"])
def test_an_adapter_given_as_the_base_is_named(place, folder, sample_words, tmp_path, capsys):
    adapter = tmp_path / "run" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter.json").touch()
    base = str(adapter if place == "adapter" else tmp_path / "run")
    assert main(["complete", str(folder), "-o", str(tmp_path / "out"), "--base", base, *sample_words]) == 1
    assert f"is an adapter, not a base model; give it as the adapter: --adapter {adapter}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("always:.*is missing in:realfill.errors.RealFillWarning")
def test_a_finished_job_whose_picture_is_gone_says_so(folder, tiny_sd, sample_words, tmp_path, capsys):
    words = ["complete", str(folder), "-o", str(tmp_path / "out"), "--base", tiny_sd, *sample_words]
    assert main(words) == 0
    picture = next((tmp_path / "out").glob("00_seed*.png"))
    picture.unlink()
    capsys.readouterr()
    assert main(words) == 0
    out, error = capsys.readouterr()
    assert "nothing to do" in out
    assert f"{picture.name} is missing in" in error and "though scores.json lists it" in error


def test_a_finished_fit_whose_weights_are_gone_is_not_called_finished(folder, fit_words, tmp_path, capsys):
    words = ["fit", str(folder), "-o", str(tmp_path), *fit_words, "--device", "cpu"]
    assert main(words) == 0
    (tmp_path / "pytorch_lora_weights.safetensors").unlink()
    assert main(words) == 1
    assert "already holds an adapter" in capsys.readouterr().err


def test_an_illegal_quality_of_a_batch_is_refused_before_any_work(tmp_path, capsys):
    assert main(["batch", str(tmp_path), "-o", str(tmp_path / "out"), "--quality", "500"]) == 2
    assert "legal: from 1 to 100" in capsys.readouterr().err


def test_a_request_for_the_longer_of_two_recipes_is_not_that_of_the_base_itself():
    card = Card.load(MINI_DIRECTORY)
    own, longer = (
        make_request("fit", "mini", fit=FitConfig(base="mini", **changes))
        for changes in ({}, {"num_steps": card.fit["num_steps"]})
    )
    assert own["fit"] == longer["fit"] and own != longer
    assert own["covered_fit"] == card.covered_fit
