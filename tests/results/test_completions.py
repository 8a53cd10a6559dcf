"""Completions: a sequence, a folder, a contact sheet, and PNG metadata."""

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill import Completion, Completions, RankConfig, Scene
from realfill.errors import OutputError, SceneError
from realfill.io.images import read_image
from realfill.io.lock import locked
from realfill.results.folder import check_output

PROVENANCE = {"realfill": "0.1.0", "base": "tiny", "sample": {"num_inference_steps": 5}}
KEYPOINTS = RankConfig(matcher="sift").resolve({})
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
    more = {"ranking": KEYPOINTS, "references": ("ab", "cd")} if ranked else {}
    return Completions(items=tuple(items), scene=scene, recipe={"base": "ef", "sample": {"steps": [5]}}, **more)


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


def test_completions_with_scores_are_ranked(completions):
    assert completions.ranked and not make_completions(completions.scene, ranked=False).ranked


def test_repr_shows_seed_and_score(completions):
    assert repr(completions) == "Completions(3, best: Completion(seed 7, score 9.5))"
    scene = completions.scene
    assert repr(Completion.from_image(scene.target, scene, 4)) == "Completion(seed 4, not ranked)"


def test_saving_writes_images_scores_and_a_contact_sheet(completions, saved):
    names = ["00_seed7.png", "01_seed3.png", "02_seed5.png"]
    assert sorted(p.name for p in saved.iterdir()) == [*names, "contact_sheet.png", "scores.json"]
    for name, completion in zip(names, completions, strict=True):
        assert np.array_equal(read_image(saved / name)[0], completion.image)
    with Image.open(saved / "contact_sheet.png") as sheet:
        sheet.load()
        assert sheet.width > 300


def test_scores_json_holds_everything_except_the_pixels(saved):
    values = json.loads((saved / "scores.json").read_text())
    assert values["provenance"] == PROVENANCE
    assert values["completions"][1] == {
        "file": "01_seed3.png",
        "seed": 3,
        "score": 8.5,
        "num_matches": 11,
        "scores_per_reference": [5.5, 3.0],
        "num_matches_per_reference": [10, 1],
        "verdict": None,
        "provenance": {},
    }


@pytest.mark.parametrize("ranked", [True, False])
def test_loading_restores_saved_completions(ranked, completions, tmp_path):
    made = make_completions(completions.scene, ranked=ranked)
    made.save(tmp_path)
    loaded = Completions.load(tmp_path, made.scene)
    assert loaded.scene is made.scene
    assert (loaded.ranking, loaded.references, loaded.recipe) == (made.ranking, made.references, made.recipe)
    for a, b in zip(loaded, made, strict=True):
        assert np.array_equal(a.image, b.image) and values_of(a) == values_of(b)


def test_each_completion_keeps_its_own_provenance(completions, tmp_path):
    shifts = [{"shift_px": [3.0, 0.5]}, {"shift_px": [1.0, 0.0]}, {}]
    made = [dataclasses.replace(c, provenance=PROVENANCE | own) for c, own in zip(completions, shifts, strict=True)]
    dataclasses.replace(completions, items=tuple(made)).save(tmp_path)
    loaded = Completions.load(tmp_path, completions.scene)
    assert [c.provenance for c in loaded] == [c.provenance for c in made]
    values = json.loads((tmp_path / "scores.json").read_text())
    assert values["provenance"] == PROVENANCE
    assert [record["provenance"] for record in values["completions"]] == shifts
    for record in values["completions"]:  # as earlier versions wrote it
        del record["provenance"]
    (tmp_path / "scores.json").write_text(json.dumps(values))
    assert [c.provenance for c in Completions.load(tmp_path, completions.scene)] == [PROVENANCE] * 3


def test_saving_over_completions_needs_overwrite(completions, saved):
    before = (saved / "scores.json").read_bytes()
    with pytest.raises(OutputError, match="already holds completions"):
        completions.save(saved)
    completions.save(saved, overwrite=True)
    assert (saved / "scores.json").read_bytes() == before


def test_overwriting_removes_old_completions_and_keeps_other_files(completions, tmp_path):
    completions.save(tmp_path)
    (tmp_path / "mine.png").write_text("precious")
    Completions(items=completions.items[1:2], scene=completions.scene).save(tmp_path, overwrite=True)
    names = ["00_seed3.png", "contact_sheet.png", "mine.png", "scores.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_files_of_similar_names_are_kept(completions, tmp_path):
    other_files = {"00_seed5_retouched.png", "2021_seed_bank.jpg", "01_seed3.txt"}
    for name in other_files:
        (tmp_path / name).write_text("precious")
    completions.save(tmp_path)
    completions.save(tmp_path, overwrite=True)
    assert other_files <= {p.name for p in tmp_path.iterdir()}


def test_an_output_folder_is_checked_and_created(saved, tmp_path):
    assert check_output(tmp_path / "new") == tmp_path / "new" and not list((tmp_path / "new").iterdir())
    assert check_output(tmp_path) == tmp_path and check_output(saved, overwrite=True) == saved
    with pytest.raises(OutputError, match="already holds completions"):
        check_output(saved)
    with pytest.raises(OutputError, match=r"cannot be written to .*choose another folder"):
        check_output(saved / "scores.json", overwrite=True)


def test_an_unknown_format_is_an_error_before_anything_is_written(completions, tmp_path):
    with pytest.raises(ValueError, match=r"file_format is 'bmp'; legal: png, tiff, jpeg"):
        completions.save(tmp_path / "out", file_format="bmp")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_save_leaves_nothing_behind_and_loses_nothing(completions, tmp_path, monkeypatch):
    completions.save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(Completions, "contact_sheet", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Completions(items=completions.items[1:], scene=completions.scene).save(tmp_path, overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_interruption_between_two_files_leaves_loadable_completions(completions, tmp_path, monkeypatch):
    completions.save(tmp_path)
    moves, replace = [], Path.replace

    def interrupted(self, target):
        moves.append(target)
        if len(moves) == 3:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        more_completions(completions, {20: 9.0, 21: 1.0}).save(tmp_path, extend=True)
    monkeypatch.undo()
    assert Completions.load(tmp_path, completions.scene).seeds == completions.seeds
    more_completions(completions, {20: 9.0, 21: 1.0}).save(tmp_path, extend=True)
    assert len(list(tmp_path.iterdir())) == 5 + 2


def more_completions(completions, scores, **changes):
    """Completions of the same scene and recipe, with a score for each seed; ``None``: not ranked."""
    scene = changes.get("scene", completions.scene)
    items = [
        dataclasses.replace(
            Completion.from_image(make_photo(*scene.target.shape[:2], seed), scene, seed, provenance=PROVENANCE),
            score=score, num_matches=None if score is None else int(score),
        )
        for seed, score in scores.items()
    ]  # fmt: skip
    return dataclasses.replace(completions, items=tuple(items), **changes)


def test_merged_completions_are_ordered_by_score(completions):
    merged = completions.merged(more_completions(completions, {20: 9.0, 21: 8.5, 22: 1.0}))
    assert merged.seeds == (7, 20, 3, 21, 5, 22)
    assert [c.score for c in merged] == [9.5, 9.0, 8.5, 8.5, 7.5, 1.0]
    assert merged.ranking == KEYPOINTS and merged.references == completions.references
    assert all(c.scene is completions.scene for c in merged)


@pytest.mark.parametrize(
    "changes",
    [
        {"ranking": RankConfig(matcher="sift", max_ratio=0.7).resolve({})},
        {"references": ("ab", "ef")},
        {"scores": {20: None}},
    ],
    ids=["other settings", "other references", "not ranked"],
)
def test_completions_whose_scores_are_not_comparable_are_merged_without_scores(changes, completions, tmp_path):
    other = more_completions(completions, **{"scores": {20: 9.0}, **changes})
    merged = completions.merged(other)
    assert merged.seeds == (3, 5, 7, 20) and not merged.ranked and merged.references == ()
    assert all(c.num_matches is None and c.scores_per_reference == () for c in merged)
    completions.save(tmp_path)
    before = (tmp_path / "scores.json").read_bytes()
    with pytest.raises(OutputError, match=r"not comparable with those in .*ranked together: rank\("):
        other.save(tmp_path, extend=True)
    assert (tmp_path / "scores.json").read_bytes() == before


def test_scores_by_warped_references_are_comparable_within_one_call_only(completions):
    ranking = RankConfig(score_by="warped_references").resolve({})
    completions = dataclasses.replace(completions, ranking=ranking)
    assert not completions.merged(more_completions(completions, {20: 9.0})).ranked


@pytest.mark.parametrize("score_by", ["verified_keypoints", "composite"])
def test_scores_by_a_composite_are_comparable(score_by, completions):
    ranking = RankConfig(score_by=score_by).resolve({})
    completions = dataclasses.replace(completions, ranking=ranking)
    merged = completions.merged(more_completions(completions, {20: 9.0}))
    assert merged.ranked and merged.seeds[:2] == (7, 20)


def test_completions_that_were_made_differently_are_not_merged(completions):
    other = more_completions(completions, {20: 9.0}, recipe={"base": "ef", "sample": {"steps": [6]}, "adapter": "1"})
    with pytest.raises(ValueError, match=r"adapter is None and '1'; sample.steps is \[5\] and \[6\]"):
        completions.merged(other)
    with pytest.raises(ValueError, match="made differently"):
        completions.require_mergeable([20], other.recipe)
    completions.require_mergeable([20], completions.recipe)


def test_the_same_seed_is_not_merged_twice(completions, tmp_path):
    other = more_completions(completions, {20: 9.0, 3: 2.0, 7: 1.0})
    with pytest.raises(ValueError, match=r"of the seeds 3, 7; legal: other seeds, for example from 8 on"):
        completions.merged(other)
    completions.save(tmp_path)
    with pytest.raises(ValueError, match=r"of the seeds 3, 7"):
        other.save(tmp_path, extend=True)
    assert Completions.load(tmp_path, completions.scene).seeds == completions.seeds


@pytest.mark.parametrize("part", ["target", "mask"])
def test_completions_of_another_scene_are_not_merged(part, completions, tmp_path):
    scene = completions.scene
    target, mask = scene.target.copy(), scene.mask.copy()
    if part == "target":
        target[0, 0] ^= 255
    else:
        mask[0, 0] = True
    other = more_completions(completions, {20: 9.0}, scene=Scene(scene.references, target, mask))
    with pytest.raises(SceneError, match="another target or mask"):
        completions.merged(other)


def test_pixels_under_the_hole_do_not_make_another_scene(completions):
    scene = completions.scene
    other = Scene(scene.references, np.where(scene.mask[:, :, None], np.uint8(0), scene.target), scene.mask)
    assert len(completions.merged(more_completions(completions, {20: 9.0}, scene=other))) == 4


@pytest.mark.parametrize("file_format", ["png", "jpeg"])
def test_a_folder_is_extended_by_new_seeds(file_format, completions, tmp_path):
    suffix = {"png": "png", "jpeg": "jpg"}[file_format]
    for scores in ({1: 8.0, 2: 3.0}, {3: 9.0, 4: 1.0}):  # the first call finds an empty folder
        more_completions(completions, scores).save(tmp_path, extend=True, file_format=file_format, layers=True)
        if 1 in scores:
            kept = (tmp_path / f"00_seed1.{suffix}").read_bytes()
    names = ["00_seed3", "01_seed1", "02_seed2", "03_seed4"]
    images = {f"{name}.{suffix}" for name in names} | {f"{name}_patch.png" for name in names}
    assert {p.name for p in tmp_path.iterdir()} == images | {"contact_sheet.png", "layers.ora", "scores.json"}
    assert (tmp_path / f"01_seed1.{suffix}").read_bytes() == kept
    loaded = Completions.load(tmp_path, completions.scene)
    assert loaded.seeds == (3, 1, 2, 4) and [c.score for c in loaded] == [9.0, 8.0, 3.0, 1.0]
    for completion in loaded:
        image = read_image(tmp_path / f"{loaded.seeds.index(completion.seed):02d}_seed{completion.seed}.{suffix}")[0]
        assert np.array_equal(image[completions.scene.mask], completion.image[completions.scene.mask])


def test_unranked_completions_are_extended_in_order_of_their_seeds(completions, tmp_path):
    for seeds in ((5, 9), (2, 7)):
        more_completions(completions, dict.fromkeys(seeds)).save(tmp_path, extend=True)
    assert Completions.load(tmp_path, completions.scene).seeds == (2, 5, 7, 9)


def test_extending_and_overwriting_exclude_each_other(completions, tmp_path):
    with pytest.raises(ValueError, match="both overwrite and extend"):
        completions.save(tmp_path / "out", overwrite=True, extend=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_written_to_while_another_process_holds_it(completions, tmp_path):
    with locked(tmp_path):
        completions.save(tmp_path)
        with pytest.raises(OutputError, match="in use by process"), ThreadPoolExecutor(1) as pool:
            pool.submit(completions.save, tmp_path, overwrite=True).result()
    assert len(Completions.load(tmp_path, completions.scene)) == 3


def test_completions_of_another_target_are_not_loaded(completions, tmp_path):
    completions.save(tmp_path)
    scene = completions.scene
    other = Scene(scene.references, 255 - scene.target, scene.mask)
    with pytest.raises(SceneError, match="of another target"):
        Completions.load(tmp_path, other)


def test_saving_over_a_file_needs_overwrite(completions, tmp_path):
    path = tmp_path / "a.png"
    path.write_text("precious")
    with pytest.raises(OutputError, match=r"a\.png.*overwrite"):
        completions.best.save(path)
    assert path.read_text() == "precious"
    completions.best.save(path, overwrite=True)
    assert np.array_equal(read_image(path)[0], completions.best.image)


def test_png_metadata_name_the_model_and_the_seed(saved):
    with Image.open(saved / "00_seed7.png") as image:
        text = image.text
    assert text["Software"] == "realfill 0.1.0"
    assert "completed by a generative model (tiny, seed 7)" in text["Description"]
    assert json.loads(text["realfill"]) == {**PROVENANCE, "seed": 7, "score": 9.5}
    assert "compositeWithTrainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]


def test_a_notebook_shows_a_png(completions):
    assert completions._repr_png_().startswith(PNG_MAGIC)
    assert completions.best._repr_png_().startswith(PNG_MAGIC)


def test_the_contact_sheet_shows_inputs_the_best_and_every_seed(completions):
    titles = ["reference 0", "reference 1", "target", "best"]
    titles += ["seed 7, score 9.5", "seed 3, score 8.5", "seed 5, score 7.5"]
    sheet = completions.contact_sheet()
    assert [axis.get_title() for axis in sheet.axes if axis.get_title()] == titles
    unranked = make_completions(completions.scene, ranked=False).contact_sheet()
    assert [axis.get_title() for axis in unranked.axes][3:7] == ["first", "seed 7", "seed 3", "seed 5"]


def test_the_contact_sheet_hides_target_pixels_under_the_hole(completions):
    target = next(a for a in completions.contact_sheet().axes if a.get_title() == "target").images[0].get_array()
    scene = completions.scene
    assert (target[scene.mask] == 255).all() and np.array_equal(target[~scene.mask], scene.target[~scene.mask])


def test_a_folder_without_completions_is_an_error(completions, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SceneError, match=r"holds no completions: scores\.json is missing"):
            Completions.load(folder, completions.scene)


@pytest.mark.parametrize(
    "content",
    [
        b'{"provenance": {}, "compl',
        b'{"provenance": {}}',
        b"[]",
        (
            b'{"ranking": null, "references": [], "recipe": {}, "provenance": {}, '
            b'"completions": [{"file": "00_seed7.png"}]}'
        ),
        b'{"ranking": null, "references": [], "recipe": {}, "provenance": {}, "completions": [7]}',
        b"\xff\xfe\x00\xd8",
    ],
    ids=["cut", "no completions", "a list", "no seed", "a number", "no text"],
)
def test_damaged_scores_are_an_error(content, completions, tmp_path):
    completions.best.save(tmp_path / "00_seed7.png")
    (tmp_path / "scores.json").write_bytes(content)
    with pytest.raises(SceneError, match=r"scores\.json' is damaged"):
        Completions.load(tmp_path, completions.scene)


@pytest.mark.parametrize("provenance", [None, [], "mini"])
def test_damaged_provenance_is_an_error(provenance, completions, tmp_path):
    completions.save(tmp_path)
    values = json.loads((tmp_path / "scores.json").read_text())
    (tmp_path / "scores.json").write_text(json.dumps({**values, "provenance": provenance}))
    with pytest.raises(SceneError, match=r"scores\.json' is damaged"):
        Completions.load(tmp_path, completions.scene)


def test_missing_and_damaged_images_are_an_error(completions, tmp_path):
    completions.save(tmp_path)
    path = tmp_path / "01_seed3.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SceneError, match=r"01_seed3\.png"):
        Completions.load(tmp_path, completions.scene)
    path.unlink()
    with pytest.raises(SceneError, match=r"01_seed3\.png"):
        Completions.load(tmp_path, completions.scene)


def test_known_pixels_identify_the_target(saved, scene):
    with pytest.raises(SceneError, match="of another target"):
        Completions.load(saved, scene)


def test_an_empty_list_of_completions_is_an_error(completions, tmp_path):
    (tmp_path / "scores.json").write_text(
        '{"ranking": null, "references": [], "recipe": {}, "provenance": {}, "completions": []}'
    )
    with pytest.raises(SceneError, match="lists no completions"):
        Completions.load(tmp_path, completions.scene)


def test_a_folder_can_be_checked_concurrently(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: check_output(tmp_path), range(400))) == {tmp_path}
    assert not list(tmp_path.iterdir())
