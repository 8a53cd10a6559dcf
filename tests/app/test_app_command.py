"""`realfill app` serves the page, and says in a line why it cannot."""

import socket
import sys

import pytest

from realfill.app.cli import main
from realfill.app.commands.app import App


def test_without_the_extra_a_line_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "realfill.app.page.server", None)  # as if an import in it failed
    assert main(["app", "--no-browser", "--work", str(tmp_path / "work")]) == 1
    error = capsys.readouterr().err
    assert "pip install 'realfill[app]'" in error and error.count("\n") == 1
    assert not (tmp_path / "work").exists()


def test_the_help_names_the_options_of_every_day(capsys):
    assert main(["app", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--host", "--port", "--work", "--base", "--no-browser"))
    assert "--keep-days" not in shown


@pytest.mark.parametrize("words", [["--port", "70000"], ["--keep-days", "0"], ["--keep-days", "inf"], ["--port", "x"]])
def test_illegal_values_are_named(words, capsys):
    assert main(["app", *words]) == 2
    assert "legal" in capsys.readouterr().err


def test_a_port_in_use_is_named():
    pytest.importorskip("gradio", reason="the extra app is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} cannot be used"):
            App(port=port)._free_port()


def test_a_free_port_is_found():
    assert App(port=0)._free_port() > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("host", "has_token"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)])
def test_a_token_is_made_where_others_can_reach_the_page(host, has_token, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="the extra app is not installed")
    monkeypatch.delenv("REALFILL_TOKEN", raising=False)
    page = App(host=host, work=tmp_path)._build()
    page.queue.close()
    assert (page.options.token is not None) == has_token
    assert page.options.token is None or len(page.options.token) >= 16
