"""The study of faults: each stage that it disturbs exists, and its faults strike."""

import pytest
from fault_study import _STAGES_OF
from planted_faults import STAGES, failing, find_stage, wrap
from small_jobs import make_jobs

from realfill.ranking import rank as module


def test_every_command_has_stages_and_every_stage_is_a_function_of_the_library(tmp_path):
    assert set(_STAGES_OF) == {job.name for job in make_jobs(tmp_path)}
    assert {stage for stages in _STAGES_OF.values() for stage in stages} == set(STAGES)
    for stage in STAGES:
        owner, name = find_stage(stage)
        assert callable(getattr(owner, name)), stage


def test_a_fault_strikes_once_or_always_and_leaves_a_note(tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "here", (module.__name__, "rank"))
    for lasting in (False, True):
        note = tmp_path / f"{lasting}"
        with monkeypatch.context() as patch:
            patch.setattr(module, "rank", lambda: "done")
            wrap("here", failing(MemoryError(), note, lasting=lasting))
            assert not note.exists()
            with pytest.raises(MemoryError):
                module.rank()
            assert note.exists()
            if lasting:
                with pytest.raises(MemoryError):
                    module.rank()
            else:
                assert module.rank() == "done"
