"""The public names of the package: lazy exports, the version, the error classes."""

import inspect
import json
import re
import subprocess
import sys
import types
from importlib.metadata import version
from importlib.resources import files

import pytest

import realfill
from realfill import errors


def test_import_loads_no_large_library_and_writes_nothing(tmp_path):
    code = "import json, sys, realfill; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-P", "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    heavy = {"torch", "numpy", "PIL", "cv2", "matplotlib", "diffusers", "transformers", "peft", "kornia", "accelerate"}
    assert not loaded & heavy
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_every_export_exists_and_is_listed():
    for name in realfill.__all__:
        assert getattr(realfill, name).__name__ == name
        assert name in dir(realfill)
    assert sorted(realfill.__all__) == sorted(set(realfill.__all__))
    assert not any(isinstance(getattr(realfill, name), types.ModuleType) for name in realfill.__all__)


def test_type_checkers_see_the_same_exports():
    source = inspect.getsource(realfill)
    imported = re.findall(r"^    from [\w.]+ import (.+)$", source, re.MULTILINE)
    assert sorted(name for line in imported for name in line.split(", ")) == sorted(realfill.__all__)


def test_version():
    assert realfill.__version__ == version("realfill")
    assert "__version__" in dir(realfill)


def test_type_hints_are_shipped():
    assert (files("realfill") / "py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'realfill' has no attribute 'realfull'"):
        _ = realfill.realfull


def test_the_error_classes_match_the_tree_in_the_docstring():
    drawn = dict(re.findall(r"[├└]── (\w+)(?: \((\w+)\))?", errors.__doc__))
    classes = {
        name: cls
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, Exception) and not issubclass(cls, Warning)
    }
    assert set(classes) == {"RealFillError", *drawn}
    for name, other in drawn.items():
        bases = [base.__name__ for base in classes[name].__bases__]
        assert bases == ([other] if other in classes else ["RealFillError", *([other] if other else [])])
    assert errors.RealFillError.__bases__ == (Exception,)
    assert issubclass(errors.RealFillWarning, UserWarning)
