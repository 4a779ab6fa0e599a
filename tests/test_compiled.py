"""Loops compiled at their first call: importing loads no numba, and the first process to compile prints a line."""

import os
import subprocess
import sys

CODE = """
import sys
import utnet
from utnet import HandDetector, HandFitter, HandTracker, Predictor
print("early:", sorted({"numba", "scipy", "torch", "onnxruntime"} & set(sys.modules)))
import numpy as np
from utnet.io.recordings.alignment import resample_depth
depth = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
out = resample_depth(depth, (6, 4)), resample_depth(depth, (6, 4))
assert (out[0] == out[1]).all() and out[0].shape == (4, 6)
"""


def test_numba_is_loaded_late_and_compiles_once(tmp_path):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env) for _ in range(2)]
    for run in runs:
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip() == "early: []"
    assert [run.stderr.count("compiling") for run in runs] == [1, 0]
