"""Errors for people: which are expected, and where the others are written."""

import json
import threading
from pathlib import Path

import pytest

from realfill import FitConfig
from realfill.app.flow.failures import explain
from realfill.errors import RealFillWarning, warn, warnings_to


def test_a_value_that_the_library_refuses_is_a_sentence(tmp_path):
    with pytest.raises(ValueError) as refused:
        FitConfig(num_steps=0)
    text = explain(refused.value, tmp_path / "log")
    assert text == "FitConfig.num_steps is 0; legal: a number of at least 1."
    assert not (tmp_path / "log").exists()


def test_a_value_error_of_another_library_is_unexpected(tmp_path):
    with pytest.raises(ValueError) as broken:
        json.loads("{")
    text = explain(broken.value, tmp_path / "log")
    assert text.endswith(f"The details are in {tmp_path / 'log'}.")
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_log_that_cannot_be_written_goes_to_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    text = explain(KeyError("x"), Path("/no/such/folder/panel.log"))
    assert str(tmp_path / "panel.log") in text
    assert (tmp_path / "panel.log").is_file()


def test_a_listener_hears_the_warnings_of_its_own_thread_only():
    heard, elsewhere = [], []

    def warn_elsewhere():
        with pytest.raises(RealFillWarning) as raised:  # the tests turn warnings into errors
            warn("elsewhere")
        elsewhere.append(str(raised.value))

    with warnings_to(heard.append):
        warn("the mask looks inverted")
        other = threading.Thread(target=warn_elsewhere)
        other.start()
        other.join()
    assert (heard, elsewhere) == (["the mask looks inverted"], ["elsewhere"])
    with pytest.warns(RealFillWarning, match="afterwards"):
        warn("afterwards")
