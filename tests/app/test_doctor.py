"""``realfill doctor``: what it prints, what it keeps to itself, and what it fails on."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from realfill.app import doctor
from realfill.app.cli import main


def test_it_describes_the_machine_and_its_self_test_passes(capsys):
    assert main(["doctor", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err == "", "a healthy machine gives no warning"
    for words in (
        "Python 3",
        "torch 2",
        "device: cpu (",
        "GiB free",
        "base mini: present",
        "base sd2: ",
        "extra heic: ",
    ):
        assert words in out
    assert "self-test: passed in " in out
    assert "MISSING" not in out
    assert str(Path.home()) not in out


def test_a_failed_self_test_is_an_error_without_the_users_name(capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(f"cannot read '{Path.home()}/photo'")

    monkeypatch.setattr(doctor, "fit", fail)
    assert main(["doctor", "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "self-test: passed" not in captured.out
    assert captured.err == "error: RuntimeError: the self-test failed: cannot read '~/photo'\n"


def test_a_completion_that_changes_known_pixels_fails_the_self_test(capsys, monkeypatch):
    class Wrong:
        def __init__(self, scene):
            self.best, self.image = self, scene.target + 1

    monkeypatch.setattr(doctor, "complete", lambda scene, *_, **__: Wrong(scene))
    monkeypatch.setattr(doctor, "fit", lambda *_, **__: None)
    assert main(["doctor", "--device", "cpu"]) == 1
    assert "differs from the target outside the hole" in capsys.readouterr().err


def test_missing_and_outdated_packages_are_named(capsys, monkeypatch):
    def find(name):
        if name == "pillow-heif":
            raise PackageNotFoundError(name)
        return "0.1" if name == "kornia" else "99"

    monkeypatch.setattr(doctor.importlib.metadata, "version", find)
    main(["doctor", "--device", "cpu", "--no-self-test"])
    out = capsys.readouterr().out
    assert "extra heic: missing pillow-heif; pip install 'realfill[heic]'" in out
    assert "kornia MISSING (needs >=0.9)" in out
    assert "extra metrics: installed" in out


def test_a_device_that_does_not_exist_is_bad_usage(capsys):
    assert main(["doctor", "--device", "abacus", "--no-self-test"]) == 2
    assert "legal: a device of this machine" in capsys.readouterr().err


@pytest.mark.parametrize("home", ["/home/jane", "/"])
def test_the_home_folder_is_written_as_a_tilde(monkeypatch, home):
    monkeypatch.setattr(doctor.Path, "home", lambda: Path(home))
    assert doctor.without_names("/home/jane/a") == ("~/a" if home != "/" else "/home/jane/a")
