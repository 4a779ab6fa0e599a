"""Distribution of units to workers: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import cv2
from tqdm import tqdm

from utnet.apps.bulk.units import Unit
from utnet.errors import InputError, WorkerError, first_line, install_line
from utnet.signals import follow_parent

Work = Callable[[Unit], dict[str, Any]]
"""Processes a unit and returns its record (`work.do_unit`); must be picklable."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Environment of every worker, so that sums do not depend on the number of cores."""
RETRIES = 5
"""Number of attempts after a worker was lost."""
_CONNECT_S = 10.0
_AHEAD = 2
"""Units queued or running, per worker."""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_here(work: Work, units: Sequence[Unit], workers: int) -> Iterator[dict[str, Any]]:
    """Processes units in `workers` processes and yields their records. Killed processes are replaced; a unit that
    kills each of its workers yields `lost`.

    Raises:
        InputError, WorkerError: raised by `work`.
    """
    left, losses = {unit.name: unit for unit in units}, 0
    while left:
        try:
            for record in _pooled(work, left.values(), workers):
                del left[record["unit"]]
                losses = 0
                yield record
        except BrokenProcessPool:
            losses += 1
            if losses > RETRIES:  # one of the distributed units is the cause
                for unit in list(islice(left.values(), _AHEAD * workers)):
                    del left[unit.name]
                    yield _alone(work, unit)


def _alone(work: Work, unit: Unit) -> dict[str, Any]:
    for _ in range(RETRIES):
        with suppress(BrokenProcessPool):
            return next(_pooled(work, [unit], 1))
    return lost(unit)


def lost(unit: Unit) -> dict[str, Any]:
    """Returns the record of a unit whose workers were lost in every attempt, with its inputs as problems."""
    why = (
        f"the workers of its unit were lost {RETRIES} times, usually for lack of memory; to retry it "
        f"delete units/{unit.name}.json"
    )
    problems = [{"file": url, "why": why} for url in unit.urls or (unit.name,)]
    return {"unit": unit.name, "lost": True, "counts": {}, "problems": problems, "files": []}


def run_on_ray(work: Work, units: Sequence[Unit], address: str) -> Iterator[dict[str, Any]]:
    """Processes units in tasks of a Ray cluster and yields their records. Ray retries them if a worker or node is lost;
    a unit that loses all of its workers yields `lost`.

    Every node needs this version of utnet, and access to sources and place.

    Args:
        work: run in each task, on one core.
        units: of the job.
        address: HOST:PORT, "auto" (a cluster running on this machine) or "local" (one started for this call).

    Raises:
        InputError: Ray is not installed, the cluster cannot be reached, or raised by `work`.
        WorkerError: raised by `work`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError
    except ImportError as error:
        raise InputError(f"--ray needs the package ray; {install_line('cluster')}") from error
    _connect(ray, address)
    try:
        task = ray.remote(_in_task).options(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")
        left, waiting = iter(units), dict[Any, Unit]()
        while True:
            num = _AHEAD * int(ray.cluster_resources().get("CPU", 1)) - len(waiting)
            waiting |= {task.remote(work, unit): unit for unit in islice(left, max(num, 0))}
            if not waiting:
                return
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            unit = waiting.pop(done)
            try:
                yield ray.get(done)
            except RayTaskError as error:
                if isinstance(error.cause, InputError | WorkerError):
                    raise error.cause from error
                raise
            except (WorkerCrashedError, OutOfMemoryError, NodeDiedError):
                yield lost(unit)
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Connects to the cluster. An address is first tested with a socket, since Ray waits for minutes."""
    remedy = "start one by `ray start --head`, or check --ray"
    host, _, port = address.rpartition(":")
    if address not in ("auto", "local"):
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        except (OSError, ValueError) as error:
            raise InputError(f"--ray {address}: no cluster at this address ({first_line(error)}); {remedy}") from error
    try:
        ray.init(
            None if address == "local" else address,
            runtime_env={"env_vars": ONE_THREAD},
            log_to_driver=False,
            logging_level="ERROR",
            **({"include_dashboard": False} if address == "local" else {}),
        )
    except Exception as error:
        raise InputError(f"--ray {address}: cannot be reached ({first_line(error)}); {remedy}") from error


def _in_task(work: Work, unit: Unit) -> dict[str, Any]:
    cv2.setNumThreads(1)
    return work(unit)


def _pooled(work: Work, units: Iterable[Unit], workers: int) -> Iterator[dict[str, Any]]:
    # Not forked, since a fork of a process with threads can deadlock.
    context = multiprocessing.get_context("spawn")
    with _environment(ONE_THREAD):
        pool = ProcessPoolExecutor(workers, context, _start)
        waiting: set[Future[dict[str, Any]]] = set()
        try:
            for unit in list(units):  # a copy, since the caller removes finished ones
                waiting.add(pool.submit(work, unit))
                if len(waiting) >= _AHEAD * workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from _results(done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from _results(done)
            pool.shutdown()
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(cancel_futures=True)
            raise


def _results(done: Iterable[Future[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Returns results before errors, so no finished unit is repeated."""
    ordered = sorted(done, key=lambda future: future.exception() is not None)
    yield from (future.result() for future in ordered)


def _start() -> None:
    follow_parent()
    cv2.setNumThreads(1)
    tqdm.set_lock(threading.RLock())  # the default is a semaphore, which killed workers leave behind


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Context with environment variables that new processes inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
