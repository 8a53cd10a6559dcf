"""``realfill instances``, ``mask``, ``erase`` and ``batch`` on the command line."""

import dataclasses

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill import pipeline
from realfill.app.cli import main
from realfill.pipeline import erase_selected


@pytest.fixture
def photo(tmp_path):
    image = np.minimum(make_photo(96, 128, 3), 190)
    image[30:60, 40:70] = (255, 0, 255)
    Image.fromarray(image).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_mask_and_its_preview_are_written(photo, tmp_path, capsys):
    words = ["mask", str(photo), "-o", str(tmp_path / "mask.png"), "--colour", "magenta", "--grow-px", "2"]
    assert main(words) == 0
    assert "mask: the pixels of the colour magenta, grown by 2 pixels, " in capsys.readouterr().out
    mask = pixels(tmp_path / "mask.png")[..., 0] > 0
    assert mask[28:62, 42:68].all() and not mask[:27].any()
    assert (tmp_path / "mask_preview.jpg").is_file()
    assert main(words) == 1
    assert "exists; choose another name, or use --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_a_mask_is_no_jpeg(photo, tmp_path, capsys):
    assert main(["mask", str(photo), "-o", str(tmp_path / "mask.jpg"), "--colour", "magenta"]) == 1
    assert "legal: .png or .tif" in capsys.readouterr().err


def test_what_a_mask_covers_is_erased_and_the_rest_stays(photo, tmp_path, capsys):
    main(["mask", str(photo), "-o", str(tmp_path / "mask.png"), "--fill-box", "38,28,72,62"])
    words = [
        "erase",
        str(photo),
        "--mask",
        str(tmp_path / "mask.png"),
        "-o",
        str(tmp_path / "out.png"),
        "--engine",
        "smooth",
    ]
    assert main([*words, "--preview", str(tmp_path / "seen.jpg")]) == 0
    out = capsys.readouterr().out
    assert "removed: the white pixels of the mask" in out and "filled by smooth; written to" in out
    before, after = pixels(photo), pixels(tmp_path / "out.png")
    mask = pixels(tmp_path / "mask.png")[..., 0] > 0
    assert (after[~mask] == before[~mask]).all() and (after[mask] != (255, 0, 255)).any(axis=1).all()
    assert (tmp_path / "seen.jpg").is_file()


def test_people_hidden_in_references_are_counted_for_each(photo, tmp_path, capsys, monkeypatch):
    def erase_with_references(*args, **keywords):
        return dataclasses.replace(erase_selected(*args, **keywords), num_strangers=(2, 0, 1))

    monkeypatch.setattr(pipeline, "erase_selected", erase_with_references)
    words = ["erase", str(photo), "-o", str(tmp_path / "out.png"), "--colour", "magenta", "--engine", "smooth"]
    assert main(words) == 0
    assert "instances hidden in the references: 2 in reference 0, 1 in reference 2\n" in capsys.readouterr().out


def test_nobody_found_is_an_error_that_suggests_a_box(photo, tmp_path, capsys):
    assert main(["erase", str(photo), "-o", str(tmp_path / "out.png"), "--detector", "offline"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error: the offline detector finds no person at the threshold 0.25. Mark it with a box or a click"
    )
    assert not (tmp_path / "out.png").exists()


def test_instances_are_listed_and_drawn(photo, tmp_path, capsys):
    assert main(["instances", str(photo), "--detector", "offline", "-o", str(tmp_path / "seen.png")]) == 0
    assert capsys.readouterr().out.startswith("no instances\nfound by the offline detector at threshold 0.25\n")
    assert pixels(tmp_path / "seen.png").shape == (96, 128, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--box", "1,2,3"], "--box is '1,2,3'; legal: left,top,right,bottom in pixels"),
        (["--keep", "0", "--mask", "m.png"], "legal: one of the two. --without takes"),
        (["--grow-px", "-3"], "--grow-px is -3; legal: 0 or more"),
        (["--references", "nowhere", "--colour", "magenta"], "there is no folder 'nowhere'"),
        (["--engine", "composite", "--colour", "magenta"], "the engine 'composite' needs references"),
        (["--quality", "0"], "quality is 0; legal: from 1 to 100"),
    ],
)
def test_bad_options_are_named_as_options(photo, tmp_path, capsys, words, message):
    assert main(["erase", str(photo), "-o", str(tmp_path / "out.png"), *words]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_folder_is_refused_by_the_name_of_the_command_that_takes_it(photo, tmp_path, capsys):
    assert main(["erase", str(photo.parent), "-o", str(tmp_path / "out.png"), "--fill-box", "1,1,9,9"]) == 1
    assert "a folder; legal: an image file, or realfill batch" in capsys.readouterr().err


def test_a_batch_shows_a_table_and_fails_if_an_item_does(photo, tmp_path, capsys):
    Image.fromarray(make_photo(96, 128, 4)).save(tmp_path / "other.png")  # without the colour
    words = ["batch", str(photo), str(tmp_path / "other.png"), "-o", str(tmp_path / "out"), "--colour", "magenta"]
    assert main([*words, "--engine", "smooth"]) == 1
    captured = capsys.readouterr()
    assert "1 done, 0 unchanged, 1 failed, 0 left" in captured.out
    assert "no pixel of the photo has the colour magenta" in captured.out
    assert "error: 1 of 2 failed; the same command tries them again" in captured.err
    assert main([*words, "--engine", "telea"]) == 1
    assert "other settings for each photo" in capsys.readouterr().err
