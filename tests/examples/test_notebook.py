"""The notebook runs from its first cell to its last, and its numbers are what its text says."""

import json
from pathlib import Path

import matplotlib

NOTEBOOK = Path(__file__).parents[2] / "examples" / "hands.ipynb"


def test_the_notebook_runs():
    matplotlib.use("Agg")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        assert not cell.get("outputs"), "committed without outputs"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    rgb, rgbd = names["errors_mm"].T
    assert (rgbd < 25).all()
    assert rgbd.mean() < rgb.mean()
    assert names["difference_mm"] < 0.01
