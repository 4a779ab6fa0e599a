"""Labelled synthetic pairs a second, in one process and in two: `python benchmarks/synth.py [--size 128] [--num 600]`.

Prints a table and one JSON line. Two processes, because that is how a loader with two workers makes them.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import argparse
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import cv2
import torch


def rate(size_px: int, num: int, seed: int) -> float:
    """Samples a second of one process, after a warm-up that compiles and draws the textures."""
    from utnet.synth import SyntheticHands

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    source = SyntheticHands(seed=seed, size_px=size_px)
    for i in range(20):
        source[i]
    start = time.perf_counter()
    for i in range(num):
        source[i]
    return num / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--num", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = {"one process": [], "two processes": []}
    for repeat in range(arguments.repeats):
        with ProcessPoolExecutor(1) as pool:
            rows["one process"].append(pool.submit(rate, arguments.size, arguments.num, repeat).result())
        with ProcessPoolExecutor(2) as pool:
            jobs = [pool.submit(rate, arguments.size, arguments.num, 100 + 2 * repeat + k) for k in range(2)]
            rows["two processes"].append(sum(job.result() for job in jobs))
    print(f"{arguments.size} px, RGB + depth + labels{'':8s}median pairs/s   min    max")
    for name, values in rows.items():
        print(f"{name:36s}{statistics.median(values):12.0f}{min(values):8.0f}{max(values):7.0f}")
    medians = {name.replace(" ", "_"): round(statistics.median(v), 1) for name, v in rows.items()}
    print(json.dumps({"benchmark": "synth", "size_px": arguments.size, **medians}))


if __name__ == "__main__":
    main()
