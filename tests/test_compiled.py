"""Loops compiled at their first call: importing loads no numba, and the first process to compile prints a line."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from support.fitting import decode, make_hands
from support.recording_files import encode_rvl
from utnet.compiled import njit
from utnet.config import AugmentConfig
from utnet.data.augment import augment_depth
from utnet.fit import HandFitter
from utnet.geometry import project
from utnet.io.recordings.alignment import register_depth, resample_depth
from utnet.io.recordings.codecs import decode_rvl
from utnet.metrics.mesh import f_scores
from utnet.render.raster import blend, interpolate, rasterize, render_light
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


@njit(cache=False)
def _ones(num):
    return np.ones(num)


def python_called_by_numba(function):
    """Names of Numba's Python functions that run in the second call of `function`, when all is compiled."""
    function()
    seen = set()

    def note(frame, event, _):
        if event == "call" and f"{os.sep}numba{os.sep}" in frame.f_code.co_filename:
            seen.add(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return seen


def test_compiled_code_calls_no_python():
    """A Ctrl-C that arrives in Python called by compiled code becomes a SystemError, which is taken for a bad file."""
    rng, K_px, size_wh = np.random.default_rng(0), np.array([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]]), (64, 48)
    fitter = HandFitter()
    joints, vertices = decode(fitter, make_hands(1))
    faces = fitter.hand.faces
    depth, image = rng.uniform(0.5, 0.6, (48, 64)).astype(np.float32), np.zeros((48, 64, 3), np.uint8)
    lost_edges = AugmentConfig(depth_edges_p=1.0)
    calls = {
        "fit": lambda: fitter(project(joints, K_px), joints, K_px[None], depth_m=[depth]),
        "draw": lambda: blend(image, *render_light(vertices[0], faces, K_px, size_wh), (1.0, 1.0, 1.0), 0.5),
        "values": lambda: interpolate(rasterize(vertices[0], faces, K_px, size_wh), faces, vertices[0]),
        "F-scores": lambda: f_scores(vertices, vertices + 0.01),
        "augment": lambda: augment_depth(depth, lost_edges, np.random.default_rng(0)),
        "resample": lambda: resample_depth(depth, (32, 24)),
        "register": lambda: register_depth(depth, K_px, np.eye(4), K_px, size_wh),
        "RVL": lambda: decode_rvl(encode_rvl((1000 * depth).astype(np.uint16)), size_wh),
    }
    assert {name: seen for name, call in calls.items() if (seen := python_called_by_numba(call))} == {}
    assert python_called_by_numba(lambda: _ones(3)) == {"_numba_unpickle"}  # where an array is returned


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
