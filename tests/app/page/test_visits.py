"""A visit belongs to whoever holds its key, survives a restart, and is removed some days after its last use."""

import json

import pytest

from realfill.app.page import visits as module
from realfill.app.page.records import RefusedError, Round, Upload
from realfill.app.page.visits import Visits


def filled(visits, key, title="a photo"):
    visit = visits.find(key)
    with visit.changed():
        visit.target = Upload(file="1.png", name=title, size=(40, 60))
        visit.rounds.append(Round(number=3, kind="redo", title="again", size=(40, 60), scene=2, parent=(1, 0)))
        visit.people = {0: "person 0"}
        visit.margins = {"left": 5}
    return visit


def test_a_visit_is_the_same_after_a_restart(tmp_path):
    key = Visits.new_key()
    visit = filled(Visits(tmp_path), key)
    again = Visits(tmp_path).find(key)
    assert again is not visit
    assert {**again._to_dict(), "used": 0} == {**visit._to_dict(), "used": 0}
    assert again.rounds == visit.rounds and again.people == visit.people and again.scene_key == visit.scene_key


def test_two_keys_never_share_a_folder_and_the_folder_does_not_tell_the_key(tmp_path):
    visits = Visits(tmp_path)
    first, second = Visits.new_key(), Visits.new_key()
    assert filled(visits, first).folder != visits.find(second).folder
    assert visits.find(second).target is None
    assert first not in "".join(str(path) for path in tmp_path.rglob("*"))
    assert first not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("key", [None, "", "short", "../" * 12, "a" * 65, "ä" * 40, "a/b" * 12])
def test_what_is_no_key_finds_no_visit(tmp_path, key):
    assert Visits(tmp_path).find(key) is None


def test_looking_at_the_page_leaves_nothing_on_disk(tmp_path):
    Visits(tmp_path).find(Visits.new_key())
    assert list(tmp_path.iterdir()) == []


def test_only_visits_that_were_not_used_for_long_are_removed(tmp_path):
    visits = Visits(tmp_path, keep_days=2)
    old, busy, new = (filled(visits, Visits.new_key()) for _ in range(3))
    old.used -= 2.1 * 86_400
    busy.used -= 2.1 * 86_400
    new.used -= 1.9 * 86_400
    visits.sweep(busy=frozenset({busy.name}))
    assert [v.folder.exists() for v in (old, busy, new)] == [False, True, True]


def test_the_time_on_disk_counts_after_a_restart(tmp_path):
    visit = filled(Visits(tmp_path), Visits.new_key())
    path = visit.folder / "visit.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"used": values["used"] - 8 * 86_400}))
    Visits(tmp_path).sweep()
    assert not visit.folder.exists()


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
    assert visits.find(new).target.name == "the beach"
    assert visits.find(key).target is None
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
        visit.coverage, visit.has_adapter, visit.scene_number = "83 %", True, 4
    assert visit.revision == before + 1
    with visit.changed():
        visit.scene_changed()
    assert (visit.coverage, visit.has_adapter, visit.scene_number) == ("", False, 0)
