"""Photos are checked before they are decoded, and kept under names of the page's own."""

import asyncio

import numpy as np
import pytest
from helpers import make_photo
from PIL import Image

from realfill.app.flow import photos
from realfill.app.page.uploads import drop_reference, keep_photo, receive, take_example
from realfill.app.page.visit import RefusedError, file_of
from realfill.app.page.visits import Visits
from realfill.errors import SceneError


@pytest.fixture
def visit(tmp_path):
    return Visits(tmp_path / "visits").find(Visits.new_key())


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "received"
    Image.fromarray(make_photo(48, 64, 0)).save(path, format="PNG")
    return path


async def in_chunks(*chunks):
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd.png", "C:\\x\\y.png", "/root/.bashrc", "a\x00b\n.png", "", "ü" * 500]
)
def test_the_name_of_a_file_never_becomes_a_path(visit, photo, tmp_path, name):
    upload = keep_photo(visit, photo, "target", name)
    assert file_of(upload) == visit.folder / "photos" / "1.png"
    assert {path.name for path in (visit.folder / "photos").iterdir()} == {"1.png", "1.thumb.jpg", "preview.png"}
    assert upload.name and len(upload.name) <= 80 and upload.name.isprintable()
    assert not photo.exists()


def test_the_stored_photo_is_the_file_that_was_sent(visit, photo):
    sent = photo.read_bytes()
    upload = keep_photo(visit, photo, "reference", "x.jpg")
    assert file_of(upload).read_bytes() == sent and upload.size == (48, 64)


def test_what_is_no_photo_is_refused_in_a_sentence_and_leaves_nothing(visit, photo, tmp_path):
    photo.write_bytes(b"hello, I am a text")
    with pytest.raises(SceneError, match="no image in a known format") as error:
        keep_photo(visit, photo, "target", "photo.png")
    assert str(tmp_path) not in str(error.value) and visit.photos.target is None and not visit.photo_folder.exists()


def test_a_truncated_photo_is_refused(visit, photo):
    photo.write_bytes(photo.read_bytes()[:-200])
    with pytest.raises(SceneError, match="is the file complete") as error:
        keep_photo(visit, photo, "target", "holiday.png")
    assert "holiday.png" in str(error.value) and str(visit.folder) not in str(error.value)
    assert list(visit.photo_folder.iterdir()) == []


def test_the_number_of_references_is_bounded(visit, photo, monkeypatch):
    monkeypatch.setattr(photos, "MAX_REFERENCES", 1)
    sent = photo.read_bytes()
    keep_photo(visit, photo, "reference", "a")
    photo.write_bytes(sent)
    with pytest.raises(SceneError, match="2 references are chosen; legal: up to 1"):
        keep_photo(visit, photo, "reference", "b")
    drop_reference(visit, file_of(visit.photos.references[0]).name)
    photo.write_bytes(sent)
    keep_photo(visit, photo, "reference", "b")
    assert [upload.name for upload in visit.photos.references] == ["b"]


def test_another_target_ends_what_was_marked_on_the_first(visit, photo):
    sent = photo.read_bytes()
    first = keep_photo(visit, photo, "target", "a")
    with visit.hole_changed() as hole:
        hole.add(np.ones((48, 64), bool))
    version = visit.mask_version
    photo.write_bytes(sent)
    second = keep_photo(visit, photo, "target", "b")
    assert file_of(first) != file_of(second) and not file_of(first).exists()
    assert visit.mask_version != version and visit.flow.choice.hole.reading() is None


def test_the_example_replaces_the_photos_and_marks_its_hole(visit, photo):
    keep_photo(visit, photo, "reference", "mine")
    take_example(visit)
    assert [found.name for found in visit.photos.references] == ["right view of the motorcycle"]
    assert visit.flow.choice.scene.mask.any() and len(list(visit.photo_folder.iterdir())) == 5


@pytest.mark.parametrize("announced", [None, 5])
def test_a_body_that_is_too_large_is_cut_off(tmp_path, announced):
    path, read = tmp_path / "body", []

    async def endless():
        while True:
            read.append(1)
            yield b"x" * 10

    with pytest.raises(RefusedError, match="too large"):
        asyncio.run(receive(endless(), path, announced=announced, limit=95))
    assert len(read) == 10


def test_a_body_that_announces_too_much_is_not_read(tmp_path):
    with pytest.raises(RefusedError, match="too large"):
        asyncio.run(receive(in_chunks(b"x"), tmp_path / "body", announced=96, limit=95))
    assert not (tmp_path / "body").exists()


def test_an_empty_body_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="empty"):
        asyncio.run(receive(in_chunks(), tmp_path / "body", announced=0))
