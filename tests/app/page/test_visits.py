"""A visit belongs to whoever holds its key, survives a restart, and is removed some days after its last use."""

import json
import os

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill.app.flow.hole import Hole
from realfill.app.page import visits as module
from realfill.app.page.drawing import draw_hole
from realfill.app.page.uploads import drop_reference, keep_photo
from realfill.app.page.visit import RefusedError
from realfill.app.page.visits import Visits


def filled(visits, key, title="a photo"):
    visit = visits.find(key)
    visit.folder.parent.mkdir(parents=True, exist_ok=True)
    path = visit.folder.parent / "received"
    for role in ("target", "reference"):
        Image.fromarray(make_photo(40, 60, 0)).save(path, format="PNG")
        keep_photo(visit, path, role, title)
    return visit


def test_a_visit_is_the_same_after_a_restart(tmp_path):
    key = Visits.new_key()
    visit = filled(Visits(tmp_path), key)
    with visit.hole_changed() as hole:
        hole.add_box((3, 4, 20, 30))
        visit.flow.choice.hides_strangers = False
    with visit.changed():
        visit.engine, visit.coverage = "smooth", ["83 %"]
    again = Visits(tmp_path).find(key)
    assert again is not visit
    assert (again.engine, again.coverage, again.mask_version) == ("smooth", ["83 %"], visit.mask_version)
    assert [photo.name for photo in again.photos.references] == ["a photo"]
    before, after = visit.flow.choice, again.flow.choice
    assert not after.hides_strangers and after.photos.target.size == (40, 60)
    for one, two in ((before.scene.target, after.scene.target), (before.scene.mask, after.scene.mask)):
        assert np.array_equal(one, two)


def test_two_keys_never_share_a_folder_and_the_folder_does_not_tell_the_key(tmp_path):
    visits = Visits(tmp_path)
    first, second = Visits.new_key(), Visits.new_key()
    assert filled(visits, first).folder != visits.find(second).folder
    assert visits.find(second).photos.target is None
    assert first not in "".join(str(path) for path in tmp_path.rglob("*"))
    assert first not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("key", [None, "", "short", "../" * 12, "a" * 65, "ä" * 40, "a/b" * 12])
def test_what_is_no_key_finds_no_visit(tmp_path, key):
    assert Visits(tmp_path).find(key) is None


def test_looking_at_the_page_leaves_nothing_on_disk(tmp_path):
    Visits(tmp_path).find(Visits.new_key())
    assert list(tmp_path.iterdir()) == []


class Running:
    is_active = True


def test_only_visits_that_were_not_used_for_long_are_removed(tmp_path):
    visits = Visits(tmp_path, keep_days=2)
    old, busy, new = (filled(visits, Visits.new_key()) for _ in range(3))
    old.used -= 2.1 * 86_400
    busy.used -= 2.1 * 86_400
    new.used -= 1.9 * 86_400
    busy.flow.job = Running()
    visits.sweep()
    assert [v.folder.exists() for v in (old, busy, new)] == [False, True, True]


def test_the_time_on_disk_counts_after_a_restart(tmp_path):
    visit = filled(Visits(tmp_path), Visits.new_key())
    path = visit.folder / "visit.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"used": values["used"] - 8 * 86_400}))
    Visits(tmp_path).sweep()
    assert not visit.folder.exists()


def test_a_folder_that_says_nothing_of_its_use_is_removed_by_its_own_time(tmp_path):
    visit = Visits(tmp_path).find(Visits.new_key())
    (visit.folder / "incoming").mkdir(parents=True)  # of a photo that was refused
    Visits(tmp_path).sweep()
    assert visit.folder.exists()
    long_ago = visit.used - 8 * 86_400
    os.utime(visit.folder, (long_ago, long_ago))
    Visits(tmp_path).sweep()
    assert not visit.folder.exists()


@pytest.mark.parametrize("content", [b"", b"PK\3\4 and no more", b"\0" * 100])
def test_a_damaged_hole_stops_neither_the_server_nor_its_visitor(tmp_path, content):
    key = Visits.new_key()
    visit, other = filled(Visits(tmp_path), key), filled(Visits(tmp_path), Visits.new_key())
    (visit.folder / "hole.npz").write_bytes(content)
    again = Visits(tmp_path)
    again.sweep()
    assert [found.name for found in again.resumable(2)] == [other.name]
    assert again.find(key).photos.target is None


def test_only_the_visits_that_are_listed_are_read(tmp_path, monkeypatch):
    names = [filled(Visits(tmp_path), Visits.new_key()).name for _ in range(3)]
    read, real = [], Hole.load
    monkeypatch.setattr(Hole, "load", lambda path: read.append(path.parent.name) or real(path))
    assert [visit.name for visit in Visits(tmp_path).resumable(2)] == read == names[:0:-1]


def test_looking_at_results_counts_as_use_after_a_restart_too(tmp_path):
    visits, key = Visits(tmp_path), Visits.new_key()
    visit = filled(visits, key)
    path = visit.folder / "visit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "used": visit.used - 8 * 86_400}))
    again = Visits(tmp_path)
    again.find(key)
    again.sweep()
    Visits(tmp_path).sweep()
    assert visit.folder.exists()


def test_a_new_key_continues_a_visit_and_the_old_one_loses_it(tmp_path):
    visits, key = Visits(tmp_path), Visits.new_key()
    name = filled(visits, key, "the beach").name
    new = visits.rekey(name)
    assert visits.find(new).photos.target.name == "the beach"
    assert visits.find(key).photos.target is None
    assert visits.rekey(name) is None


def test_a_full_server_refuses_new_visits_and_serves_those_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_VISITS", 1)
    visits = Visits(tmp_path)
    visit = filled(visits, Visits.new_key())
    visits.require_room(visit)
    with pytest.raises(RefusedError, match="already keeps the photos of 1 visits"):
        visits.require_room(visits.find(Visits.new_key()))


def test_every_change_is_seen_by_the_tabs_and_a_new_scene_forgets_its_coverage(tmp_path):
    visit = Visits(tmp_path).find(Visits.new_key())
    before = visit.revision
    with visit.changed():
        visit.coverage, visit.outcome = ["83 %"], ("Fit", "2 results are below.")
    assert visit.revision == before + 1
    with visit.scene_changed():
        pass
    assert (visit.coverage, visit.outcome) == ([], ("", ""))


def test_nothing_that_a_job_uses_changes_even_if_the_request_was_on_its_way(tmp_path):
    visit = filled(Visits(tmp_path), Visits.new_key())
    before = (visit.mask_version, visit.revision)
    visit.flow.job = Running()
    with pytest.raises(RefusedError, match="a job is using these photos"):
        draw_hole(visit, np.ones((40, 60), bool))
    (reference,) = visit.photos.references
    with pytest.raises(RefusedError, match="a job is using these photos"):
        drop_reference(visit, reference.source.name)
    assert reference.source.is_file() and (visit.mask_version, visit.revision) == before


def test_visits_that_nobody_uses_leave_the_memory_and_stay_on_disk(tmp_path):
    visits, key = Visits(tmp_path), Visits.new_key()
    visit = filled(visits, key)
    visit.used -= 7200
    visits.sweep()
    assert visits.find(key) is not visit and visits.find(key).photos.target is not None
