"""Step 1: the photo to complete and the references."""

from __future__ import annotations

import html
from collections.abc import Callable

import ipywidgets as widgets

from realfill.app.flow.photos import NamedPhoto
from realfill.app.flow.state import Flow
from realfill.app.notebook.parts import Note, beside, button, heading, labelled, on_click, picture, row
from realfill.config.fit import MAX_REFERENCES
from realfill.errors import SceneError

_THUMBNAIL = "max-height:120px;width:auto"


class PhotosStep(widgets.VBox):
    """Uploads and paths for the target and the references."""

    def __init__(self, flow: Flow, on_change: Callable[[], object]) -> None:
        """Make the controls.

        Args:
            flow: the state.
            on_change: called when other photos are chosen.
        """
        self._flow, self._on_change = flow, on_change
        self.target_upload = _upload("Upload the photo", several=False)
        self.target_path = labelled(widgets.Text, "or its path", placeholder="photo.jpg", continuous_update=False)
        self.target_note = Note()
        self.references_upload = _upload("Upload references", several=True)
        self.references_path = labelled(
            widgets.Text, "or a path", placeholder="a photo, or a folder of photos", continuous_update=False
        )
        self.remove = button("Remove all", about="Remove all references")
        self.references_note = Note()
        self.example = button("Example", about="Start from the demo's scene, which comes with the package")
        self._pictures = widgets.HTML()
        self._connect()
        super().__init__([
            heading(
                1, "Photos", "The photo with something missing in it, and other photos of the same place and moment. "
                "Uploads above about 10 MB can be too large for a notebook's connection: give the path instead.",
            ),
            row(self.target_upload, self.target_path, self.example), self.target_note,
            row(self.references_upload, self.references_path, self.remove), self.references_note, self._pictures,
        ])  # fmt: skip

    def refresh(self) -> None:
        """Show the photos that are chosen."""
        photos = self._flow.choice.photos
        shown = [] if photos.target is None else [_figure(photos.target, "to complete", _size(photos.target))]
        shown += [_figure(photo, f"reference {i}", photo.name) for i, photo in enumerate(photos.references)]
        self._pictures.value = f'<div class="realfill-thumbs">{"".join(shown)}</div>'

    def _connect(self) -> None:
        log, choice = self._flow.log, self._flow.choice
        self.target_upload.observe(lambda _: self._take_target(), "value")
        self.references_upload.observe(lambda _: self._take_references(), "value")
        self.target_path.observe(
            lambda change: (
                change["new"].strip() and self._do(self.target_note, lambda: choice.set_target(change["new"].strip()))
            ),
            "value",
        )
        self.references_path.observe(
            lambda change: (
                change["new"].strip()
                and self._do(self.references_note, lambda: choice.add_references(change["new"].strip()))
            ),
            "value",
        )
        on_click(self.remove, self.references_note, log, lambda: self._then(choice.remove_references))
        on_click(self.example, self.target_note, log, lambda: self._then(choice.use_example))

    def _take_target(self) -> None:
        files, self.target_upload.value = self.target_upload.value, ()
        if files:
            name = files[0]["name"]
            self._do(
                self.target_note,
                lambda: self._flow.choice.set_target(self._flow.uploads.keep_photo(name, files[0]["content"]), name),
            )

    def _take_references(self) -> None:
        files, self.references_upload.value = self.references_upload.value, ()

        def add() -> None:
            if len(files) > MAX_REFERENCES:
                raise SceneError(f"{len(files)} references are uploaded; legal: up to {MAX_REFERENCES}")
            kept = [(file["name"], self._flow.uploads.keep_photo(file["name"], file["content"])) for file in files]
            self._flow.choice.photos.add_named(kept)
            self._flow.choice.touch()

        if files:
            self._do(self.references_note, add)

    def _do(self, note: Note, action: Callable[[], object]) -> None:
        note.say()
        with beside(note, self._flow.log):
            self._then(action)

    def _then(self, action: Callable[[], object]) -> None:
        action()
        self.refresh()
        self._on_change()


def _upload(text: str, *, several: bool) -> widgets.FileUpload:
    return widgets.FileUpload(
        description=text, accept="image/*,.heic,.heif,.tif,.tiff", multiple=several, tooltip=text,
        layout=widgets.Layout(width="auto"),
    )  # fmt: skip


def _figure(photo: NamedPhoto, role: str, about: str) -> str:
    assert photo.preview is not None
    image = picture(photo.preview, f"{role}: {photo.name}", style=_THUMBNAIL)
    return f"<figure>{image}<figcaption>{html.escape(role)}: {html.escape(about)}</figcaption></figure>"


def _size(photo: NamedPhoto) -> str:
    return f"{photo.name}, {photo.size[1]} x {photo.size[0]}"
