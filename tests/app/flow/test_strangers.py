"""Where people go, those in the references are hidden too, and the notes say so."""

import numpy as np
import pytest

from realfill.app.flow.choice import Choice
from realfill.segmentation.instances import Instance, Instances


def people_in(size, *boxes):
    masks = [np.zeros(size, bool) for _ in boxes]
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    found = [Instance.of_mask(mask, name="person", score=1, detector="hand") for mask in masks]
    return Instances.ordered(found, size=size, detector="hand", threshold=0.5)


@pytest.fixture
def flow(make_flow, scene, monkeypatch):
    """The small scene with a person to remove; its second reference shows two people."""
    flow = make_flow()
    flow.choice = Choice()
    flow.choice.set_target(scene.target)
    flow.choice.add_references(scene.references)
    size, second = scene.references[1].shape[:2], scene.references[1]
    hole = flow.choice.require_hole()
    hole.instances = people_in(hole.size, (10, 10, 30, 30))

    def find(photo, **_):
        return people_in(size, (2, 2, 20, 12), (30, 30, 50, 45)) if np.array_equal(photo, second) else people_in(size)

    monkeypatch.setattr("realfill.pipeline.strangers.find_instances", find)
    return flow


def look(flow):
    job = flow.examine()
    assert job.wait(60) and job.state == "done", job.message
    return job


def test_people_are_hidden_in_the_references_if_people_go(flow):
    flow.choice.require_hole().choose([0])
    flow.choice.touch()
    job = look(flow)
    first, second = flow.choice.scene.reference_masks
    assert first is None and second[10, 5] and second[40, 35] and not second[25, 20]
    assert "people hidden in the references: 2 in reference 1" in job.notes
    assert not (flow.choice.scene.references[1][second]).any()
    assert look(flow).notes == []  # nobody is looked for twice


def test_nobody_is_hidden_if_the_option_is_off_or_nobody_goes(flow):
    hole = flow.choice.require_hole()
    hole.add_box((30, 30, 40, 40))
    flow.choice.touch()
    assert not any("hidden" in note for note in look(flow).notes)
    hole.choose([0])
    flow.choice.hides_strangers = False
    flow.choice.touch()
    look(flow)
    assert flow.choice.scene.reference_masks == (None, None)


def test_a_scene_that_is_given_keeps_its_own_masks(flow, scene):
    flow.choice.use_scene(scene)
    hole = flow.choice.require_hole()
    hole.instances = people_in(hole.size, (10, 10, 30, 30))
    hole.choose([0])
    flow.choice.touch()
    look(flow)
    assert flow.choice.scene.reference_masks == scene.reference_masks


def test_looking_for_people_in_references_can_be_cancelled(flow):
    flow.choice.require_hole().choose([0])
    flow.choice.touch()
    flow.on_change = lambda: flow.cancel() if flow.job.phase.startswith("looking for people") else None
    job = flow.examine()
    assert job.wait(60)
    assert (job.state, job.message) == ("stopped", "Cancelled.") and flow.evidence is None
