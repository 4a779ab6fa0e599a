"""Time of `utnet bulk predict` with one and two processes, and on Ray with as many cores.

    python benchmarks/bulk.py FOLDER --out runs/bulk [--workers 1 2] [--ray 1]

Seconds of the job without the start of Ray, which is printed beside; CPU seconds of this machine's processes.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from functools import partial
from pathlib import Path

from utnet.apps.bulk.engine import run_here, run_on_ray
from utnet.apps.bulk.job import run_on_items
from utnet.apps.bulk.predicting import Predict
from utnet.apps.bulk.sources import find_items


def cpu_s() -> float:
    """CPU seconds of processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(name: str, items: list, out: Path, engine) -> None:
    shutil.rmtree(out, ignore_errors=True)
    start, before = time.perf_counter(), cpu_s()
    summary = run_on_items(items, str(out), Predict(), engine, pictures=16)
    took, num = time.perf_counter() - start, summary.counts["pictures"]
    cpu = cpu_s() - before
    print(f"{name}: {num} pictures, {took:.1f} s, {took / num:.4f} s a picture, CPU {cpu:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--out", type=Path, default=Path("runs/bulk"))
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--ray", type=int, nargs="*", default=[1])
    options = parser.parse_args()
    items = find_items([options.folder])
    for workers in options.workers:
        measure(f"{workers} processes", items, options.out / f"here_{workers}", partial(run_here, workers=workers))
    for cores in options.ray:
        from ray.cluster_utils import Cluster

        start = time.perf_counter()
        node = {"num_cpus": cores, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        print(f"start of Ray: {time.perf_counter() - start:.1f} s", flush=True)
        engine = partial(run_on_ray, address=cluster.address)
        measure(f"Ray, {cores} cores", items, options.out / f"ray_{cores}", engine)
        cluster.shutdown()


if __name__ == "__main__":
    main()
