"""The examples run from top to bottom."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["quickstart"])
def test_notebook_runs(name, tmp_path):
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    parameters = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    assert len(parameters) == 1
    parameters[0].source = "NUM_STEPS = 4"

    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env={**os.environ, "OMP_NUM_THREADS": "1"})  # more threads than free cores are far slower than one

    pictures = [c for c in notebook.cells if any("image/png" in o.get("data", {}) for o in c.get("outputs", ()))]
    assert len(pictures) == 6  # scene, losses, completions, composite, best, matches
    output = tmp_path / "realfill-quickstart"
    assert (output / "scores.json").is_file()
    assert (output / "contact_sheet.png").is_file()
    assert (output / "adapter" / "pytorch_lora_weights.safetensors").is_file()


def test_notebooks_hold_no_outputs():
    for path in EXAMPLES.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(c.get("outputs") or c.get("execution_count") for c in cells), path.name
