"""The detector's three networks on ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utnet.errors import InputError

if TYPE_CHECKING:
    import onnxruntime

ASSETS = Path(__file__).parents[1] / "assets" / "detector"
_MOST_THREADS = 4
"""These networks take milliseconds; more threads do not make them faster."""


def open_network(name: str, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Opens a bundled network; sessions may be used by several Python threads at once.

    Args:
        name: file in `assets/detector` without its suffix.
        threads: of one call; None: the cores available to this process, at most 4.

    Raises:
        InputError: the file is missing.
    """
    path = ASSETS / f"{name}.onnx"
    if not path.is_file():
        raise InputError(f"{path}: is missing; install utnet again, or make it with tools/build_detector.py")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or min(_usable_cores(), _MOST_THREADS)
    options.inter_op_num_threads = 1
    # Threads that spin between calls would block the cores for the fitting and drawing that follow.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, picture: np.ndarray) -> list[np.ndarray]:
    """One picture (S, S, 3) in the network's input range -> its outputs without their batch axis."""
    feed = {session.get_inputs()[0].name: picture[None].astype(np.float32, copy=False)}
    return [np.asarray(output)[0] for output in session.run(None, feed)]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
