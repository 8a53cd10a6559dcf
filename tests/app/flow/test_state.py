"""The jobs of a flow on a tiny model: from coverage to a fit that pauses, stops, goes on, and is kept on disk."""

import numpy as np
import pytest

from realfill import Scene, fit
from realfill.app.flow.keeping import holds_work
from realfill.compute.progress import Progress
from realfill.errors import SceneError


def done(job):
    assert job.wait(60)
    return job


def test_coverage_is_known_before_anything_else_and_forgotten_when_the_hole_changes(flow):
    job = done(flow.examine())
    assert job.state == "done"
    assert job.message == "The references show 0 % of the hole: 100 % of the hole invented."
    assert flow.coverage == [job.message]
    assert flow.evidence.coverage == 0
    flow.choice.require_hole().grow_px = 1
    flow.choice.touch()
    assert flow.evidence is None


def test_a_quick_result_needs_no_fit(flow, scene):
    done(flow.quick("smooth"))
    (completion,) = flow.results[-1].completions
    assert (completion.image == scene.target)[~scene.mask].all()
    assert flow.results.adapter is None


def test_a_fit_with_pauses_for_previews_ends_the_same_as_one_without(make_flow, scene, tiny_fit):
    flow = make_flow(preview_every_s=0.0)
    flow.choice.use_scene(scene)
    previews = []
    flow.on_change = lambda: previews.append(flow.job.preview) if flow.job.preview is not None else None
    job = done(flow.fit())
    assert job.message == "2 results are below, the best first."
    assert previews
    plain = fit(scene, tiny_fit, device="cpu", progress=False)
    for name, tensor in plain.tensors.items():
        assert (flow.results.adapter.tensors[name] == tensor).all()
    assert [step for step, _ in job.losses] == [1, 2, 3]


def test_stop_keeps_the_fit_so_far_and_fit_goes_on_with_it_and_more_samples_have_new_seeds(flow):
    with pytest.raises(SceneError, match="nothing is fitted yet"):
        flow.sample()

    def stop_at_two(progress: Progress) -> bool:
        if progress.phase == "fit" and progress.step == 2:
            flow.stop()
        return type(flow.job).on_step(flow.job, progress)

    flow.on_change = lambda: flow.job.__dict__.setdefault("on_step", stop_at_two)
    job = done(flow.fit())
    assert job.state == "stopped"
    assert job.message.startswith("Stopped after step 2. The fit so far is kept")
    assert len(flow.results.adapter.losses) == 2
    assert list(flow.results) == []
    flow.on_change = lambda: None
    job = done(flow.fit())
    assert job.state == "done"
    assert len(flow.results.adapter.losses) == 3
    assert job.losses[0][0] == 3  # steps 1 and 2 were not done again
    done(flow.sample())
    assert sorted(flow.results[0].completions.seeds) == [0, 1]
    assert sorted(flow.results[1].completions.seeds) == [2, 3]


def test_a_job_takes_the_settings_of_its_start(flow):
    def change_settings(progress: Progress) -> bool:
        fit, preset = flow.settings.fit, flow.settings.sample.preset
        flow.settings = flow.settings.changed(base=fit.base, preset=preset, num_steps=fit.num_steps, num_samples=1)
        return type(flow.job).on_step(flow.job, progress)

    flow.on_change = lambda: flow.job.__dict__.setdefault("on_step", change_settings)
    done(flow.fit())
    assert flow.settings.sample.num_samples == 1 and flow.results[0].count == 2


def test_stop_before_the_first_sample_keeps_the_fit_and_says_so(flow):
    def stop_at_a_sample(progress: Progress) -> bool:
        if progress.phase == "sample":
            flow.stop()
        return type(flow.job).on_step(flow.job, progress)

    flow.on_change = lambda: flow.job.__dict__.setdefault("on_step", stop_at_a_sample)
    job = done(flow.fit())
    assert job.state == "stopped"
    assert job.message.startswith("Stopped after step 3. The fit so far is kept")
    assert flow.results.adapter is not None and list(flow.results) == []


def test_a_part_is_redone_and_the_rest_stays(flow, scene):
    done(flow.quick("smooth"))
    kept, part = flow.results[-1].completions.best, np.zeros(scene.mask.shape, bool)
    part[25:30, 30:45] = True
    done(flow.redo(flow.results[0], 0, part))
    again = flow.results[-1].completions.best
    changed = part & scene.mask
    assert (again.image == kept.image)[~changed].all()
    assert (again.image != kept.image)[changed].any()
    with pytest.raises(SceneError, match="no part is marked"):
        flow.redo(flow.results[0], 0, np.zeros(scene.mask.shape, bool))
    job = done(flow.redo(flow.results[0], 0, ~scene.mask))
    assert job.state == "failed" and job.message.startswith("No pixel of the part's mask lies in the hole")


def test_a_bad_base_is_a_sentence_and_the_next_job_runs(flow):
    settings = flow.settings
    flow.settings = settings.changed(base="no-such-base", preset=None, num_steps=None, num_samples=None)
    job = done(flow.fit())
    assert job.state == "failed"
    assert job.message.startswith("There is no base model 'no-such-base'; legal: ")
    flow.settings = settings
    assert done(flow.quick("smooth")).state == "done"


def test_an_output_folder_goes_on_another_day(make_flow, scene, tmp_path):
    folder = tmp_path / "out"
    flow = make_flow(output=folder)
    flow.choice.use_scene(scene)
    assert not holds_work(folder)
    done(flow.quick("smooth"))
    done(flow.fit())
    again = make_flow(output=folder)
    again.resume()
    assert (again.choice.scene.mask == scene.mask).all()
    assert [result.title for result in again.results] == [result.title for result in flow.results]
    for one, two in zip(flow.results[-1].completions, again.results[-1].completions, strict=True):
        assert (one.image == two.image).all()
    assert again.results.adapter.tensors.keys() == flow.results.adapter.tensors.keys()
    again.choice.require_hole().grow_px = 2
    again.choice.touch()
    done(again.quick("smooth"))
    assert (folder / "2" / "3-quick-result-smooth" / "scores.json").is_file()
    assert len(list((folder / "1").glob("2-fit-of-*-3-steps/scores.json"))) == 1


def test_a_redone_part_goes_on_another_day(make_flow, scene, tmp_path):
    flow, part = make_flow(output=tmp_path / "out"), np.zeros(scene.mask.shape, bool)
    part[25:30, 30:45] = True
    flow.choice.use_scene(scene)
    done(flow.quick("smooth"))
    assert done(flow.redo(flow.results[0], 0, part)).state == "done"
    again = make_flow(output=tmp_path / "out")
    again.resume()
    assert [result.title for result in again.results] == ["Quick result (smooth)", "A part of result 1 again"]
    assert (again.results[-1].completions.best.image == flow.results[-1].completions.best.image).all()


def test_a_scene_is_kept_once_however_often_one_returns_to_it(make_flow, scene, tmp_path):
    flow, part = make_flow(output=tmp_path / "out"), np.zeros(scene.mask.shape, bool)
    part[25:30, 30:45] = True
    flow.choice.use_scene(scene)
    done(flow.quick("smooth"))
    flow.choice.require_hole().grow_px = 2
    flow.choice.touch()
    done(flow.quick("smooth"))
    done(flow.redo(flow.results[0], 0, part))
    done(flow.quick("smooth"))
    found = sorted(str(path.parent.relative_to(tmp_path / "out")) for path in tmp_path.rglob("scores.json"))
    assert found == [
        "1/1-quick-result-smooth", "1/3-a-part-of-result-1-again", "2/2-quick-result-smooth", "2/4-quick-result-smooth",
    ]  # fmt: skip


def test_what_was_left_by_a_kill_is_in_nobodys_way(make_flow, scene, tmp_path):
    out = tmp_path / "out"
    flow = make_flow(output=out)
    flow.choice.use_scene(scene)
    done(flow.quick("smooth"))
    (out / "1" / "2-quick-result-smooth").mkdir()  # results
    (out / "1" / "adapter").mkdir()  # a fit
    (out / "2" / "scene.partial" / "target").mkdir(parents=True)  # a scene
    flow = make_flow(output=out)
    flow.resume()
    assert flow.results.adapter is None
    assert done(flow.quick("smooth")).state == "done"
    flow.choice.require_hole().grow_px = 2
    flow.choice.touch()
    assert done(flow.quick("smooth")).state == "done"
    found = sorted(str(path.parent.relative_to(out)) for path in out.rglob("scores.json"))
    assert found == ["1/1-quick-result-smooth", "1/3-quick-result-smooth", "2/4-quick-result-smooth"]


def test_a_fit_of_other_photos_is_not_used(flow, scene, monkeypatch):
    done(flow.fit())
    flow.choice.require_hole().grow_px = 2
    flow.choice.touch()
    assert done(flow.sample()).state == "done"  # the same photos, with another hole
    other = Scene([255 - photo for photo in scene.references], 255 - scene.target, scene.mask)
    flow.choice.use_scene(other)
    with pytest.raises(SceneError, match="has learnt from other photos"):
        flow.sample()
    done(flow.quick("smooth"))
    used = []
    monkeypatch.setattr(flow, "_sample", lambda job, scene, source, *_: used.append(source) or "done")
    done(flow.redo(flow.results[-1], 0, other.mask))
    assert used == [flow.settings.fit.base]
