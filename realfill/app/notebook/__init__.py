"""The notebook panel: widgets that show a ``realfill.app.flow``. Everything with ipywidgets stays in this folder."""
