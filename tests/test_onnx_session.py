"""ONNX Runtime as UTNet opens it: silent."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import utnet

PACKAGE = Path(utnet.__file__).parent
FIND = """
import numpy as np
from utnet import HandDetector
assert HandDetector().find(np.zeros((64, 64, 3), np.uint8)) == []
"""


def test_nothing_is_noted_for_a_report_to_microsoft(tmp_path):
    """With telemetry ONNX Runtime keeps a device's number and a queue of reports in the user's folders."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PACKAGE.parent),
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", FIND], env=env, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_onnx_runtime_is_imported_in_one_place():
    """Imports for type checkers are outside of functions."""
    functions = [
        (path.name, node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert {name for name, node in functions if "import onnxruntime" in ast.unparse(node)} == {"onnx_session.py"}
