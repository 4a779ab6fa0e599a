"""Loops compiled at their first call: importing loads no numba, and the first process to compile prints a line."""

import os
import signal
import subprocess
import sys

import pytest

from utnet.compiled import njit
from utnet.signals import Terminated, delay_signals, sigterm_raises

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


@njit(cache=False)
def _twice(x):
    return 2 * x


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_request_to_stop_waits_for_the_compiler(number, error):
    """In one of llvmlite's callbacks the exception would be lost, and with it the request."""
    from numba.core import event

    class Stop(event.Listener):
        reached = False

        def on_start(self, event):
            signal.raise_signal(number)
            Stop.reached = True

        def on_end(self, event):
            pass

    _twice(1)  # loads numba
    value = {signal.SIGINT: 2.0, signal.SIGTERM: 2j}[number]  # a type that is not compiled yet
    with event.install_listener("numba:compile", Stop()), sigterm_raises(), pytest.raises(error):
        _twice(value)
    assert Stop.reached
    assert _twice(value) == 2 * value


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_delayed_signals_come_after_the_block():
    reached = False
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the order is what is tested)
        with delay_signals(), delay_signals():
            signal.raise_signal(signal.SIGINT)
            reached = True
        raise AssertionError
    assert reached
