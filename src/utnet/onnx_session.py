"""Sessions of ONNX Runtime, which is imported here only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime


def open_session(file: Path | bytes, *, threads: int = 1, keep_memory: bool = True) -> onnxruntime.InferenceSession:
    """Opens a network on the CPU. Several Python threads may run it at once.

    From 1.29 on, ONNX Runtime reports to Microsoft what it runs. This is switched off by ORT_DISABLE_TELEMETRY, unless
    the caller's environment has that variable, or the process has imported ONNX Runtime before.

    Args:
        file: an .onnx file, or its contents.
        threads: of one call.
        keep_memory: whether a call's memory is kept for the next.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning would occupy all cores
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = keep_memory
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
