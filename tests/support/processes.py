"""Real processes for tests, quickly: a server that has everything imported forks them."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from support.waiting import PATIENCE_S
from utnet import signals

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["utnet.training.loop", "utnet.cli.main", "utnet.data.dexycb.dexycb_reader", "torch.distributed.fsdp"]
)


def start(function: Callable, *args, env: dict[str, str] | None = None) -> multiprocessing.process.BaseProcess:
    """A process that calls an importable function, with some environment variables."""
    process = _CONTEXT.Process(target=_call, args=(env or {}, function, args))
    process.start()
    return process


def start_world(num: int, function: Callable, *args) -> list[multiprocessing.process.BaseProcess]:
    """`num` processes with the variables that torchrun would give them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {"WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env |= {"TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": 1}
    return [
        start(function, *args, env={key: str(value) for key, value in {**env, "RANK": r, "LOCAL_RANK": r}.items()})
        for r in range(num)
    ]


def finish(*processes, timeout: float = PATIENCE_S) -> list[int]:
    """Exit codes, when all have ended; those that do not are ended."""
    end = time.monotonic() + timeout
    for process in processes:
        process.join(max(0.1, end - time.monotonic()))
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
        process.join()
    assert not late, "a process did not end"
    return [process.exitcode for process in processes]


def wait_for_step(workdir: Path, step: int, process=None, timeout: float = PATIENCE_S) -> None:
    """Until metrics.csv has a row of that step."""
    path, end = workdir / "metrics.csv", time.monotonic() + timeout
    while time.monotonic() < end:
        rows = path.read_text().splitlines()[1:] if path.exists() else []
        if any(row.split(",")[0].isdigit() and int(row.split(",")[0]) >= step for row in rows):
            return
        assert process is None or process.is_alive(), "the process ended before it"
        time.sleep(0.005)
    raise AssertionError(f"no step {step} in {timeout:.0f} s")


def _call(env: dict[str, str], function: Callable, args: tuple) -> None:
    os.environ.update(env)
    faulthandler.enable()  # where a process that is aborted was
    # On a busy machine saving after a SIGTERM may take longer than a scheduler waits; interrupted in the middle of it,
    # one of several processes is no longer in step with the others.
    signals.GRACE_S = signals.HARD_S = PATIENCE_S
    function(*args)
