"""How many threads one call may use."""

from __future__ import annotations

import os


def usable_threads() -> int:
    """The cores this process may use, at most OMP_NUM_THREADS where that is set: torch's rule, without torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(cores, int(limit)) if limit.isdigit() and int(limit) > 0 else cores
