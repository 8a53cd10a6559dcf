"""Errors for people: which are expected, and where the others are written."""

import json
import threading
from pathlib import Path

import pytest

from realfill import FitConfig
from realfill.app.flow.failures import ErrorLog
from realfill.errors import RealFillWarning, warn, warnings_to


@pytest.fixture
def log(tmp_path):
    return ErrorLog(tmp_path / "logs")


def test_a_value_that_the_library_refuses_is_a_sentence(log):
    with pytest.raises(ValueError) as refused:
        FitConfig(num_steps=0)
    assert log.describe(refused.value) == "FitConfig.num_steps is 0; legal: a number of at least 1."
    assert not log.folder.exists()


def test_a_value_error_of_another_library_is_unexpected(log):
    with pytest.raises(ValueError) as broken:
        json.loads("{")
    text = log.describe(broken.value)
    (report,) = log.folder.iterdir()
    assert text.endswith(f"The details are in {report}.")
    assert "Traceback" in report.read_text()


def test_strangers_read_the_name_of_the_report_and_no_more(log):
    private = ErrorLog(log.folder, is_private=True)
    text = private.describe(KeyError("a bug"))
    (report,) = log.folder.iterdir()
    assert text == f"The server failed; the file logs/{report.name} in its folder holds the details."
    assert "KeyError: 'a bug'" in report.read_text()


def test_a_report_that_cannot_be_written_goes_to_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    text = ErrorLog(Path("/proc/no/such/folder")).describe(KeyError("x"))
    (report,) = tmp_path.iterdir()
    assert str(report) in text


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
