"""Time, CPU and memory of `utnet bulk predict` with one and two processes, and on Ray; all results must be equal.

    python benchmarks/bulk.py FOLDER --out runs/bulk [--workers 1 2] [--ray 1]

CPU seconds are those of this process and all that it has started, Ray's own included, without the start of Ray.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from utnet.apps.bulk.engine import run_here, run_on_ray
from utnet.apps.bulk.job import run_on_items
from utnet.apps.bulk.predicting import Predict
from utnet.apps.bulk.sources import find_items

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def descendants() -> Iterator[list[str]]:
    """Fields of /proc/PID/stat, from the parent's number on, of this process and all that it started and that live."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats[path.parent.name] = path.read_text().rpartition(")")[2].split()[1:]
        except OSError:
            continue
    known, more = {str(os.getpid())}, True
    while more:
        more = {pid for pid, fields in stats.items() if fields[0] in known} - known
        known |= more
    yield from (stats[pid] for pid in known)


def cpu_s() -> float:
    """CPU seconds of all descendants, those that ended included."""
    living = sum(int(value) for fields in descendants() for value in fields[10:12]) / _TICKS
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return living + usage.ru_utime + usage.ru_stime


def measure(name: str, items: list, out: Path, engine: Callable) -> None:
    shutil.rmtree(out, ignore_errors=True)
    memory, cpu = [], []

    def watched(work, units):
        for record in engine(work, units):
            memory.append(max(int(fields[20]) for fields in descendants()) * _PAGE / 2**20)
            cpu.append(cpu_s() - before)  # while Ray's workers are there
            yield record

    start, before = time.perf_counter(), cpu_s()
    summary = run_on_items(items, str(out), Predict(), watched, pictures=16)
    took, num = time.perf_counter() - start, summary.counts["pictures"]
    quarters = ", ".join(f"{memory[len(memory) * i // 4 - 1]:.0f}" for i in range(1, 5))
    print(f"{name}: {num} pictures, {took:.1f} s, CPU {cpu[-1]:.1f} s, {cpu[-1] / num:.4f} s a picture", flush=True)
    print(f"  largest process after each quarter: {quarters} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--out", type=Path, default=Path("runs/bulk"))
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--ray", type=int, nargs="*", default=[1])
    options = parser.parse_args()
    items, made = find_items([options.folder]), []
    for workers in options.workers:
        made.append(options.out / f"here_{workers}")
        measure(f"{workers} processes", items, made[-1], partial(run_here, workers=workers))
    for cores in options.ray:
        from ray.cluster_utils import Cluster

        folder = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-")
        start, before = time.perf_counter(), cpu_s()
        node = {"num_cpus": cores, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        print(f"start of Ray: {time.perf_counter() - start:.1f} s, CPU {cpu_s() - before:.1f} s", flush=True)
        made.append(options.out / f"ray_{cores}")
        measure(f"Ray, {cores} cores", items, made[-1], partial(run_on_ray, address=cluster.address))
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    files = [{str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} for out in made]
    print(f"all results are equal: {all(found == files[0] for found in files)}")


if __name__ == "__main__":
    main()
