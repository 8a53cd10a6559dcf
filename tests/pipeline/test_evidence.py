"""The composite in fit and complete: what is taken from the references, what is left to the model, and what is said."""

import dataclasses
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from composites import make_composite
from helpers import make_profile
from worlds import SHIFTED, TARGET, blob, view

from realfill import (
    Adapter,
    Completions,
    GeometryConfig,
    RankConfig,
    SampleConfig,
    Scene,
    complete,
    examine,
    fit,
)  # fmt: skip
from realfill.app.commands.common import MachineOptions, say_result
from realfill.compute.progress import Progress
from realfill.errors import RealFillWarning, StoppedError
from realfill.filling import fill as hole
from realfill.geometry.cameras import Camera
from realfill.io.images import read_photo
from realfill.io.metadata import read_provenance
from realfill.io.photos import Photo
from realfill.models.classical import inpaint_telea
from realfill.pipeline.completing import rank_again
from realfill.results.evidence import CORRECTED, INVENTED, PHOTOGRAPHED

FAST = SampleConfig(num_samples=2, num_inference_steps=3)
OFF = GeometryConfig(enabled=False)

pytestmark = pytest.mark.filterwarnings("ignore:no keypoint:realfill.errors.RealFillWarning")


@pytest.fixture
def found(scene, monkeypatch):
    """A composite of the scene, found at once: confident, doubtful and blank thirds of the hole."""
    result, calls = make_composite(scene), []
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: calls.append(1) or result)
    return result, calls


@pytest.fixture
def run(with_composites):
    """Complete without ranking."""
    del with_composites
    return lambda *args, **options: complete(*args, ranked=False, progress=False, **options)


def test_photographed_pixels_equal_the_composite_in_every_seed_and_only_the_rest_differs(scene, tiny_sd, found, run):
    composite, _ = found
    one, two = run(scene, tiny_sd, FAST)
    kinds = one.evidence.kinds
    assert {PHOTOGRAPHED, CORRECTED, INVENTED} <= set(kinds.ravel().tolist())
    for image in (one.image, two.image):
        assert (image[kinds == PHOTOGRAPHED] == composite.image[kinds == PHOTOGRAPHED]).all()
        assert (image == scene.target)[~scene.mask].all()
    assert (one.image != two.image)[kinds == INVENTED].any()
    assert (one.image != two.image)[kinds == CORRECTED].any()


def test_the_metadata_say_whether_the_model_saw_hints(scene, tiny_sd, found, run):
    assert found[0].confidence.any()
    assert run(scene, "mini", FAST)[0].provenance["hints"]
    assert "hints" not in run(scene, tiny_sd, FAST)[0].provenance


def test_the_model_sees_photographed_pixels_as_known(scene, tiny_sd, found, run, monkeypatch):
    seen, fill_hole = [], hole.fill_hole
    monkeypatch.setattr(
        "realfill.pipeline.completing.fill_hole", lambda *a, **k: seen.append(a[1]) or fill_hole(*a, **k)
    )
    evidence = run(scene, tiny_sd, FAST).evidence
    assert (seen[0].mask == (scene.mask & ~evidence.photographed)).all()
    assert (seen[0].known == found[0].image)[evidence.photographed].all()


def test_without_geometry_the_result_is_that_without_references(scene, tiny_sd, found, run):
    off = run(scene, tiny_sd, FAST, geometry=OFF)
    paper = run(scene, tiny_sd, dataclasses.replace(FAST, preset="paper", scheduler="ddpm"))
    bare = run(scene.with_references(0), tiny_sd, FAST)
    assert found[1] == []
    for one, two, three in zip(off, paper, bare, strict=True):
        assert (one.filled == three.filled).all()
        assert two.evidence.shares["invented"] == one.evidence.shares["invented"] == 1
    assert "composite" not in off.recipe


def test_a_composite_that_shows_nothing_changes_nothing(scene, tiny_sd, run, monkeypatch):
    blank = make_composite(scene, confident=0.0, doubtful=0.0)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: blank)
    with pytest.warns(RealFillWarning, match="references show 0 % of the hole"):
        one = run(scene, tiny_sd, FAST)
    two = run(scene, tiny_sd, FAST, geometry=OFF)
    assert all((a.filled == b.filled).all() for a, b in zip(one, two, strict=True))
    assert one.recipe == two.recipe


def test_the_composite_is_computed_once_for_fit_complete_and_examination(scene, tiny_fit, found, run):
    adapter = fit(scene, tiny_fit, progress=False)
    assert examine(scene, progress=False).coverage == pytest.approx(2 / 3, abs=0.1)
    run(scene, adapter, FAST)
    assert len(found[1]) == 1


def test_the_adapter_carries_the_geometry(scene, tiny_fit, found, run, tmp_path):
    fit(scene, tiny_fit, geometry=OFF, progress=False).save(tmp_path)
    adapter = Adapter.load(tmp_path)
    assert not adapter.geometry.enabled
    assert run(scene, adapter, FAST).evidence.shares["photographed"] == 0
    on = run(scene, adapter, FAST, geometry=GeometryConfig(enabled=True))
    assert on.evidence.shares["photographed"] > 0
    assert not fit(scene, dataclasses.replace(tiny_fit, preset="paper"), progress=False).geometry.enabled
    del found


def test_a_hole_that_is_all_photographed_needs_no_model(scene, tiny_sd, run, monkeypatch, tmp_path):
    whole = dataclasses.replace(
        make_composite(scene), confidence=np.ones(scene.mask.shape, np.float32),
        source=np.where(scene.mask, 1, -1).astype(np.int16),
    )  # fmt: skip
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: whole)
    monkeypatch.setattr("realfill.pipeline.completing.fill_hole", lambda *_, **__: pytest.fail("a model ran"))
    (only,) = run(scene, tiny_sd, FAST)
    assert only.seed is None
    assert (only.image == whole.image).all()
    only.save(tmp_path / "image.png")
    assert read_provenance(tmp_path / "image.png")["references"].keys() == {"reference 1"}
    text = (tmp_path / "image.png").read_bytes()
    assert b"digitalsourcetype/compositeCapture" in text
    assert b"without a generative model" in text


@pytest.mark.parametrize("geometry", [None, OFF])
def test_a_plain_inpainter_fills_the_rest_without_a_seed(scene, found, run, geometry, tmp_path):
    (only,) = completions = run(scene, "telea", geometry=geometry)
    assert only.seed is None and completions.ranking is None
    photographed = only.evidence.photographed
    assert photographed.any() == (geometry is None)
    assert (only.image == found[0].image)[photographed].all()
    if geometry is not None:
        assert (only.image == inpaint_telea(scene.known, scene.mask)).all()
    completions.save(tmp_path / "out")
    assert (tmp_path / "out" / "00_composite.png").is_file()
    source = b"algorithmicallyEnhanced" if geometry is not None else b"compositeCapture"
    assert source in (tmp_path / "out" / "00_composite.png").read_bytes()
    again = Completions.load(tmp_path / "out", scene)
    assert again.best.seed is None and (again.best.image == only.image).all()
    with pytest.raises(ValueError, match="no pixel of the completion comes from a model"):
        again.merged(completions)


def test_the_evidence_is_saved_with_the_completions_and_comes_back(scene, tiny_sd, found, run, tmp_path):
    completions = run(scene, tiny_sd, FAST)
    completions.save(tmp_path / "out", layers=True)
    again = Completions.load(tmp_path / "out", scene)
    assert (again.evidence.kind == completions.evidence.kind).all()
    assert (again.evidence.source == completions.evidence.source).all()
    assert (tmp_path / "out" / "evidence.png").is_file()
    provenance = read_provenance(tmp_path / "out" / "00_seed0.png")
    shares = {kind: provenance["evidence"][kind] for kind in ("photographed", "corrected", "invented")}
    assert shares == completions.evidence.shares
    assert sum(shares.values()) == pytest.approx(1)
    assert b"compositeWithTrainedAlgorithmicMedia" in (tmp_path / "out" / "00_seed0.png").read_bytes()
    again.save(tmp_path / "out", overwrite=True)
    del found


def test_each_completion_is_judged_by_the_composite_and_the_verdict_is_saved(
    scene, tiny_sd, found, run, tmp_path, capsys
):
    completions = run(scene, tiny_sd, FAST)
    verdicts = [completion.verdict for completion in completions]
    assert all(0 < verdict.coverage < 1 and verdict.kind in verdict.__doc__ for verdict in verdicts)
    assert all(f"{100 * verdict.coverage:.0f} % of the hole" in verdict.reason for verdict in verdicts)
    completions.save(tmp_path / "out")
    assert [completion.verdict for completion in Completions.load(tmp_path / "out", scene)] == verdicts
    say_result(MachineOptions(), completions, "out")
    assert f"{completions.best.verdict.kind}: {completions.best.verdict.reason}\n" in capsys.readouterr().out


def test_without_a_composite_there_is_no_verdict(scene, tiny_sd, found, run):
    assert run(scene, tiny_sd, FAST, geometry=OFF).best.verdict is None


def test_a_part_that_is_filled_again_is_left_to_the_model(scene, tiny_sd, found, run):
    first = run(scene, tiny_sd, FAST).best
    again = first.redo(first.evidence.photographed)
    assert run(again, tiny_sd, FAST).evidence.shares["invented"] == 1
    assert len(found[1]) == 1


def test_completions_of_other_photographed_pixels_cannot_be_merged(scene, tiny_sd, found, run):
    one = run(scene, tiny_sd, FAST)
    later = dataclasses.replace(FAST, seed=2)
    assert one.merged(run(scene, tiny_sd, later)).seeds == (0, 1, 2, 3)
    strict = GeometryConfig(photographed_confidence=0.95)
    with pytest.raises(ValueError, match="composite is"):
        one.merged(run(scene, tiny_sd, later, geometry=strict))
    del found


@pytest.mark.parametrize(
    "error", [np.linalg.LinAlgError("singular"), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_a_composite_that_fails_leaves_the_hole_to_the_model(error, scene, tiny_sd, run, monkeypatch):
    monkeypatch.setattr("realfill.pipeline.evidence.composite", Mock(side_effect=error))
    with pytest.warns(RealFillWarning, match="could not be aligned"):
        assert run(scene, tiny_sd, FAST).evidence.coverage == 0


def test_another_error_of_the_composite_is_not_hidden(scene, with_composites, monkeypatch):
    monkeypatch.setattr("realfill.pipeline.evidence.composite", Mock(side_effect=RuntimeError("a mistake")))
    with pytest.raises(RuntimeError, match="a mistake"):
        examine(Scene(scene.references, scene.target, scene.mask), progress=False)


def test_aligning_reports_its_steps_and_can_be_stopped(scene, tiny_fit, found, with_composites, monkeypatch):
    result, _ = found
    reports = []

    def compose(*_, on_step, **__):
        return result if on_step(Progress(phase="composite", step=40, num_steps=100, time_s=1.0)) else None

    monkeypatch.setattr("realfill.pipeline.evidence.composite", compose)
    for work in (lambda stop: examine(scene, on_step=stop), lambda stop: fit(scene, tiny_fit, on_step=stop)):
        with pytest.raises(StoppedError, match="before the references were aligned"):
            work(lambda report: reports.append(report.phase) or False)
    assert reports == ["composite"] * 2
    assert examine(scene, on_step=lambda report: reports.append(report.step)).coverage > 0  # nothing wrong was kept
    assert reports[2:] == [40]
    del with_composites


def test_fit_says_how_much_the_references_show(scene, found, with_composites, tiny_fit, capsys):
    fit(scene, tiny_fit)
    assert "references show" in capsys.readouterr().err
    del found, with_composites


def test_depth_and_profile_of_the_file_are_kept_with_a_composite(scene, found, run, tmp_path):
    deep = Photo(pixels=scene.target.astype(np.uint16) * 257 + 3, icc_profile=make_profile())
    deep_scene = scene.retargeted(deep, scene.mask, {}, whole_hole=scene.whole_hole)
    best = run(deep_scene, "telea").best
    best.save(tmp_path / "best.tif")
    read = read_photo(tmp_path / "best.tif", "it")
    assert read.pixels.dtype == np.uint16 and read.icc_profile == deep.icc_profile
    assert np.array_equal(read.pixels[~scene.mask], deep.pixels[~scene.mask])
    photographed = best.evidence.photographed
    shown = found[0].image[photographed].astype(int)
    assert np.abs(read.srgb()[photographed].astype(int) - shown).mean() < 0.5  # some colours leave the gamut


def test_a_planted_scene_is_taken_from_its_reference(with_composites):
    scene = Scene([view(SHIFTED)], np.where(blob()[:, :, None], 0, TARGET).astype(np.uint8), blob())
    only = complete(scene, "telea", progress=False).best
    assert only.evidence.shares["photographed"] > 0.4 and only.evidence.shares["invented"] < 0.05
    assert only.evidence.references.keys() == {0}
    assert np.abs(only.image.astype(int) - TARGET)[only.evidence.photographed].mean() < 4
    del with_composites


def test_ranking_again_uses_the_composite_that_is_known(scene, tiny_sd, found, run, monkeypatch):
    completions = run(scene, tiny_sd, FAST, ranking=RankConfig(score_by="composite"))
    monkeypatch.setattr("realfill.ranking.rank.compose", lambda *_, **__: pytest.fail("it is computed again"))
    ranked = rank_again(completions, progress=False)
    assert all(c.score is not None for c in ranked) and len(found[1]) == 1


def test_the_composite_of_an_outpainted_photo_knows_where_the_photo_lies(tiny_sd, run, monkeypatch):
    given = []
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, frame, **__: given.append(frame) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(Scene.outpaint([view(SHIFTED)], TARGET, right=40), tiny_sd, FAST)
    assert given == [(0, 0, *TARGET.shape[:2])]


def test_the_composite_is_made_as_it_is_asked_for_and_once_for_each_way(scene, with_composites, monkeypatch):
    result, calls, loaded = make_composite(scene), [], []
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **options: calls.append(options) or result)
    monkeypatch.setattr(
        "realfill.pipeline.evidence.load_matcher", lambda settings, device: loaded.append((settings, device)) or "net"
    )
    for geometry in (None, GeometryConfig(photographed_confidence=0.9), GeometryConfig(matches_by="sift")):
        examine(scene, geometry, progress=False)
    assert len(calls) == 1 and calls[0]["matcher"] is None and not loaded
    for _ in range(2):
        examine(scene, GeometryConfig(matches_by="loftr", cameras_by="pycolmap"), device="cpu", progress=False)
    assert len(calls) == 2 and (calls[1]["matcher"], calls[1]["cameras_by"]) == ("net", "pycolmap")
    assert [(s.matcher, str(d)) for s, d in loaded] == [("loftr", "cpu")]
    del with_composites


def test_a_given_depth_and_given_cameras_make_the_composite_that_later_steps_use(scene, tiny_sd, run, monkeypatch):
    result, calls = make_composite(scene), []
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **options: calls.append(options) or result)
    examine(scene, progress=False)
    cameras = [Camera.unplaced(scene.mask.shape, 80.0), None, None]
    given = dataclasses.replace(result, given=("cameras", "depth"))
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **options: calls.append(options) or given)
    examine(scene, depth=np.ones_like, cameras=cameras, progress=False)
    done = run(scene, tiny_sd, FAST, geometry=GeometryConfig(cameras_by="pycolmap"))
    assert len(calls) == 2 and calls[1]["depth"] is np.ones_like and calls[1]["cameras"] is cameras
    assert done.best.provenance["given"] == ["cameras", "depth"]
    examine(scene, depth=np.ones_like, progress=False)
    assert len(calls) == 3


def test_what_is_only_corrected_counts_as_taken_from_the_references(scene, run, monkeypatch, tmp_path):
    doubtful = make_composite(scene, confident=0.1, doubtful=0.1)
    monkeypatch.setattr("realfill.pipeline.evidence.composite", lambda *_, **__: doubtful)
    (only,) = run(scene, "telea")
    assert not only.evidence.photographed.any()
    only.save(tmp_path / "image.png")
    assert b"compositeCapture" in (tmp_path / "image.png").read_bytes()
    assert read_provenance(tmp_path / "image.png")["references"].keys() == {"reference 0", "reference 1"}
    assert "corrected" in only.credit("image.png").description
