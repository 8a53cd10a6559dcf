"""Completions: a sequence, a folder, a picture, and a PNG that says where it comes from."""

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import make_photo
from PIL import Image

from realfill import Completion, Completions, Scene
from realfill.errors import OutputError, SceneError
from realfill.io.images import read_image
from realfill.results import check_output

PROVENANCE = {"realfill": "0.1.0", "base": "tiny", "sample": {"num_inference_steps": 5}}
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def make_completions(scene, *, ranked=True):
    items = []
    for place, seed in enumerate((7, 3, 5)):
        values = make_photo(*scene.target.shape[:2], seed)
        scores = {"score": 9.5 - place, "num_matches": 12 - place}
        scores |= {"scores_per_reference": (5.5, 4.0 - place), "num_matches_per_reference": (10, 2 - place)}
        image = np.where(scene.mask[:, :, None], values, scene.target)
        made = Completion.from_image(image, scene, seed, provenance=PROVENANCE)
        items.append(dataclasses.replace(made, **scores) if ranked else made)
    return Completions(items=tuple(items), scene=scene)


@pytest.fixture(scope="module")
def completions():
    mask = np.zeros((40, 50), bool)
    mask[10:30, 15:35] = True
    return make_completions(Scene([make_photo(40, 40, 1), make_photo(50, 40, 2)], make_photo(40, 50), mask))


@pytest.fixture(scope="module")
def saved(completions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "new" / "folder"
    completions.save(folder)
    return folder


def values_of(completion):
    return [getattr(completion, name) for name in Completion.__slots__ if name not in ("scene", "filled")]


def test_completions_are_a_sequence(completions):
    assert isinstance(completions, Sequence) and len(completions) == 3
    assert completions[0] is completions.best is completions.items[0] and completions[-1].seed == 5
    assert [c.seed for c in completions] == [7, 3, 5] == [c.seed for c in completions[0:3]]
    assert completions[1] in completions and completions.index(completions[2]) == 2
    with pytest.raises(IndexError):
        completions[3]


def test_ranked_where_there_are_scores(completions):
    assert completions.ranked and not make_completions(completions.scene, ranked=False).ranked


def test_repr_tells_seed_and_score(completions):
    assert repr(completions) == "Completions(3, best: Completion(seed 7, score 9.5))"
    scene = completions.scene
    assert repr(Completion.from_image(scene.target, scene, 4)) == "Completion(seed 4, not ranked)"


def test_saving_writes_images_best_first_scores_and_a_sheet(completions, saved):
    names = ["00_seed7.png", "01_seed3.png", "02_seed5.png"]
    assert sorted(p.name for p in saved.iterdir()) == [*names, "contact_sheet.png", "scores.json"]
    for name, completion in zip(names, completions, strict=True):
        assert np.array_equal(read_image(saved / name)[0], completion.image)
    with Image.open(saved / "contact_sheet.png") as sheet:
        sheet.load()
        assert sheet.width > 300


def test_scores_json_tells_everything_but_the_pixels(saved):
    values = json.loads((saved / "scores.json").read_text())
    assert values["provenance"] == PROVENANCE
    assert values["completions"][1] == {
        "file": "01_seed3.png",
        "seed": 3,
        "score": 8.5,
        "num_matches": 11,
        "scores_per_reference": [5.5, 3.0],
        "num_matches_per_reference": [10, 1],
    }


@pytest.mark.parametrize("ranked", [True, False])
def test_loading_gives_back_what_was_saved(ranked, completions, tmp_path):
    made = make_completions(completions.scene, ranked=ranked)
    made.save(tmp_path)
    loaded = Completions.load(tmp_path, made.scene)
    assert loaded.scene is made.scene
    for a, b in zip(loaded, made, strict=True):
        assert np.array_equal(a.image, b.image) and values_of(a) == values_of(b)


def test_saving_over_completions_is_refused_unless_told(completions, saved):
    before = (saved / "scores.json").read_bytes()
    with pytest.raises(OutputError, match="already holds completions"):
        completions.save(saved)
    completions.save(saved, overwrite=True)
    assert (saved / "scores.json").read_bytes() == before


def test_saving_fewer_over_more_leaves_none_of_the_old_but_what_is_not_ours(completions, tmp_path):
    completions.save(tmp_path)
    (tmp_path / "mine.png").write_text("precious")
    Completions(items=completions.items[1:2], scene=completions.scene).save(tmp_path, overwrite=True)
    names = ["00_seed3.png", "contact_sheet.png", "mine.png", "scores.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_files_of_similar_names_are_not_ours(completions, tmp_path):
    others = {"00_seed5_retouched.png", "2021_seed_bank.jpg", "01_seed3.txt"}
    for name in others:
        (tmp_path / name).write_text("precious")
    completions.save(tmp_path)
    completions.save(tmp_path, overwrite=True)
    assert others <= {p.name for p in tmp_path.iterdir()}


def test_output_is_checked_before_it_is_made(saved, tmp_path):
    assert check_output(tmp_path / "new") == tmp_path / "new" and not list((tmp_path / "new").iterdir())
    assert check_output(tmp_path) == tmp_path and check_output(saved, overwrite=True) == saved
    with pytest.raises(OutputError, match="already holds completions"):
        check_output(saved)
    with pytest.raises(OutputError, match=r"can't be written to .*give another folder"):
        check_output(saved / "scores.json", overwrite=True)


def test_an_unknown_format_is_refused_before_anything_is_written(completions, tmp_path):
    with pytest.raises(ValueError, match=r"file_format is 'bmp'; legal: png, tiff, jpeg"):
        completions.save(tmp_path / "out", file_format="bmp")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_save_leaves_nothing_that_is_in_the_way(completions, tmp_path, monkeypatch):
    monkeypatch.setattr(Completions, "contact_sheet", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        completions.save(tmp_path)
    monkeypatch.undo()
    completions.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(completions) + 2


def test_completions_of_another_target_are_refused(completions, tmp_path):
    completions.save(tmp_path)
    scene = completions.scene
    other = Scene(scene.references, 255 - scene.target, scene.mask)
    with pytest.raises(SceneError, match="of another target"):
        Completions.load(tmp_path, other)


def test_saving_one_over_a_file_is_refused_unless_told(completions, tmp_path):
    path = tmp_path / "a.png"
    path.write_text("precious")
    with pytest.raises(OutputError, match=r"a\.png.*overwrite"):
        completions.best.save(path)
    assert path.read_text() == "precious"
    completions.best.save(path, overwrite=True)
    assert np.array_equal(read_image(path)[0], completions.best.image)


def test_png_says_that_a_model_completed_it_which_and_with_what_seed(saved):
    with Image.open(saved / "00_seed7.png") as image:
        text = image.text
    assert text["Software"] == "realfill 0.1.0"
    assert "completed by a generative model (tiny, seed 7)" in text["Description"]
    assert json.loads(text["realfill"]) == {**PROVENANCE, "seed": 7, "score": 9.5}
    assert "compositeWithTrainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]


def test_a_notebook_shows_a_png(completions):
    assert completions._repr_png_().startswith(PNG_MAGIC)
    assert completions.best._repr_png_().startswith(PNG_MAGIC)


def test_contact_sheet_shows_inputs_best_and_every_seed(completions):
    titles = ["reference 0", "reference 1", "target", "best"]
    titles += ["seed 7, score 9.5", "seed 3, score 8.5", "seed 5, score 7.5"]
    sheet = completions.contact_sheet()
    assert [axis.get_title() for axis in sheet.axes if axis.get_title()] == titles
    unranked = make_completions(completions.scene, ranked=False).contact_sheet()
    assert [axis.get_title() for axis in unranked.axes][3:7] == ["first", "seed 7", "seed 3", "seed 5"]


def test_contact_sheet_does_not_show_what_lies_under_the_hole(completions):
    target = next(a for a in completions.contact_sheet().axes if a.get_title() == "target").images[0].get_array()
    scene = completions.scene
    assert (target[scene.mask] == 255).all() and np.array_equal(target[~scene.mask], scene.target[~scene.mask])


def test_loading_from_a_folder_without_completions_is_refused(completions, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SceneError, match=r"holds no completions: scores\.json is missing"):
            Completions.load(folder, completions.scene)


@pytest.mark.parametrize(
    "content",
    [
        b'{"provenance": {}, "compl',
        b'{"provenance": {}}',
        b"[]",
        b'{"provenance": {}, "completions": [{"file": "00_seed7.png"}]}',
        b'{"provenance": {}, "completions": [7]}',
        b"\xff\xfe\x00\xd8",
    ],
    ids=["cut", "no completions", "a list", "no seed", "a number", "no text"],
)
def test_damaged_scores_are_refused(content, completions, tmp_path):
    completions.best.save(tmp_path / "00_seed7.png")
    (tmp_path / "scores.json").write_bytes(content)
    with pytest.raises(SceneError, match=r"scores\.json' is damaged"):
        Completions.load(tmp_path, completions.scene)


@pytest.mark.parametrize("provenance", [None, [], "mini"])
def test_damaged_provenance_is_refused(provenance, completions, tmp_path):
    completions.save(tmp_path)
    values = json.loads((tmp_path / "scores.json").read_text())
    (tmp_path / "scores.json").write_text(json.dumps({**values, "provenance": provenance}))
    with pytest.raises(SceneError, match=r"scores\.json' is damaged"):
        Completions.load(tmp_path, completions.scene)


def test_missing_and_damaged_images_are_refused(completions, tmp_path):
    completions.save(tmp_path)
    path = tmp_path / "01_seed3.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SceneError, match=r"01_seed3\.png"):
        Completions.load(tmp_path, completions.scene)
    path.unlink()
    with pytest.raises(SceneError, match=r"01_seed3\.png"):
        Completions.load(tmp_path, completions.scene)


def test_known_pixels_tell_completions_of_another_target(saved, scene):
    with pytest.raises(SceneError, match="of another target"):
        Completions.load(saved, scene)


def test_no_completions_at_all_are_refused(completions, tmp_path):
    (tmp_path / "scores.json").write_text('{"provenance": {}, "completions": []}')
    with pytest.raises(SceneError):
        Completions.load(tmp_path, completions.scene)


def test_several_processes_may_try_a_folder_at_a_time(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: check_output(tmp_path), range(400))) == {tmp_path}
    assert not list(tmp_path.iterdir())
