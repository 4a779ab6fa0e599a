"""How fast samples come from files: `python benchmarks/data.py [--num 256] [--size 256] [--memory]`.

Writes a tree in DexYCB's layout (640x480 JPEG and 16-bit PNG) to a temporary folder and prints a table and one JSON
line: decoding the two files alone (`cv2.imdecode` of files in the page cache), complete samples (read, labels, crop,
augmentation, batch) from files and from shards, and the loader with one and two workers, from files and from shards.
Decoding and samples take turns in blocks of 32 in one process that is set up as a data worker is, in processor time
(one thread, nothing to wait for), so that other programs disturb them little; the median of the blocks' ratios counts.

`--memory` instead reads 100,000 samples through two workers and prints how much memory they hold on the way.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

BLOCK = 32


def decode_and_sample(root: Path, shards: Path, size_px: int, rounds: int) -> dict[str, list[float]]:
    """Seconds a frame of each block, in turns: decoding alone, samples from files, samples from shards."""
    from utnet.config import Config, ModelConfig
    from utnet.data import open_source
    from utnet.data.augment import augment
    from utnet.data.collate import collate
    from utnet.data.transforms import right_crop
    from utnet.data.workers import init_worker

    init_worker()
    source, config = open_source("dexycb", root), Config(model=ModelConfig(size_px=size_px))
    packed = open_source("shards", shards)
    places = [root / source.key(i) for i in range(len(source))]
    files = [(p.with_name(f"color_{p.name}.jpg"), p.with_name(f"aligned_depth_to_color_{p.name}.png")) for p in places]

    def decode(block: range) -> None:
        for i in block:
            color, depth = files[i % len(files)]
            cv2.imdecode(np.frombuffer(color.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
            cv2.imdecode(np.frombuffer(depth.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)

    def sample(block: range, source=source) -> None:
        samples = []
        for i in block:
            rng = np.random.default_rng((0, i))
            cropped = right_crop(source[i % len(source)], size_px, config.crop, rng)
            samples.append(augment(cropped, config.augment, rng))
        collate(samples)

    works = {"decode": decode, "sample": sample, "shard": lambda block: sample(block, packed)}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        block = range(turn * BLOCK, (turn + 1) * BLOCK)
        for name, work in works.items():
            start = time.thread_time()
            work(block)
            if turn > 0:  # the first turn warms up
                seconds[name].append((time.thread_time() - start) / BLOCK)
    return seconds


def loader_rate(name: str, root: Path, size_px: int, num_workers: int, num: int) -> float:
    """Samples a second that reach the main process, once every worker has started."""
    from utnet.config import Config, ModelConfig, TrainConfig
    from utnet.data import open_source
    from utnet.training.loop import training_loader

    train = TrainConfig(batch_size=BLOCK, num_workers=num_workers)
    config = Config(model=ModelConfig(size_px=size_px), train=train)
    batches = iter(training_loader(open_source(name, root), config))
    for _ in range(3 * num_workers):
        next(batches)
    start = time.perf_counter()
    for _ in range(num // BLOCK):
        next(batches)
    return num // BLOCK * BLOCK / (time.perf_counter() - start)


def memory(root: Path, num: int) -> None:
    """Reads `num` samples with two workers; prints the private (USS) and shared-out (PSS) megabytes of each process."""
    from utnet.config import Config, ModelConfig, TrainConfig
    from utnet.data import open_source
    from utnet.training.loop import training_loader

    config = Config(model=ModelConfig(size_px=64), train=TrainConfig(batch_size=BLOCK, num_workers=2))
    rows, seen, start = [], 0, time.perf_counter()
    print(f"{'samples':>9s}{'seconds':>9s}   USS and PSS [MB]: main, worker 0, worker 1")
    for batch in training_loader(open_source("dexycb", root), config):
        seen += len(batch)
        if seen // BLOCK % (num // BLOCK // 20) == 0 or seen >= num:
            sizes = [_megabytes(pid) for pid in ("self", *_children())]
            rows.append([seen, *(uss for uss, _ in sizes)])
            text = "".join(f"{uss:10.1f}{pss:7.1f}" for uss, pss in sizes)
            print(f"{seen:9d}{time.perf_counter() - start:9.0f}{text}", flush=True)
        if seen >= num:
            break
    # The first fifth fills caches; what grows afterwards would go on growing.
    early = next(row for row in rows if row[0] >= num / 5)
    growth = [round(last - first, 1) for first, last in zip(early[1:], rows[-1][1:], strict=True)]
    print(json.dumps({"benchmark": "data_memory", "samples": seen, "uss_mb": rows[-1][1:], "growth_mb": growth}))


def _children() -> list[str]:
    import multiprocessing

    return [str(child.pid) for child in multiprocessing.active_children()]


def _megabytes(pid: str) -> tuple[float, float]:
    """USS and PSS of a process."""
    rows = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {key: float(value.split()[0]) for key, value in rows.items()}
    return (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) / 1024, kilobytes["Pss"] / 1024


def in_process(function, *arguments):
    """Runs in a process of its own, so that one measurement's settings and caches are not the next one's."""
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def shards_of(root: Path, out: Path) -> Path:
    """The tree as shards of crops."""
    from utnet.data import open_source
    from utnet.data.shards.write_shards import write_shards

    write_shards(open_source("dexycb", root), out, progress=False)
    return out


def main() -> None:
    from utnet.synth.write_dexycb import write_dexycb

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=256, help="frames of the written tree")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=40, help="blocks of 32 frames, each way")
    parser.add_argument("--loaded", type=int, default=1920, help="samples of each run of the loader")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--samples", type=int, default=100_000, help="with --memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="utnet-bench-") as folder:
        os.environ["UTNET_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "dexycb"
        write_dexycb(root, num=32 if arguments.memory else arguments.num, seed=3, progress=False)
        if arguments.memory:
            memory(root, arguments.samples)
            return
        size = arguments.size
        shards = shards_of(root, Path(folder) / "shards")
        blocks = in_process(decode_and_sample, root, shards, size, arguments.rounds)
        medians = {name: statistics.median(values) for name, values in blocks.items()}
        ratio = statistics.median(d / s for d, s in zip(blocks["decode"], blocks["sample"], strict=True))
        rates = {name: 1 / seconds for name, seconds in medians.items()}
        print(f"640x480 JPEG + 16-bit PNG -> {size} px RGB-D, augmented   per second   ms")
        texts = {
            "decode": "decoding alone, one process",
            "sample": "whole sample from files, one process",
            "shard": "whole sample from shards, one process",
        }
        for name, text in texts.items():
            print(f"{text:54s}{rates[name]:13.0f}{1000 * medians[name]:6.2f}")
        print(f"{'whole sample / decoding alone':54s}{ratio:13.2f}")
        sources = {"files": ("dexycb", root), "shards": ("shards", shards)}
        for kind, (name, place) in sources.items():
            for workers in (1, 2):
                rate = in_process(loader_rate, name, place, size, workers, arguments.loaded)
                rates[f"{kind}_{workers}"] = rate
                print(f"{f'loader, {workers} worker(s), from {kind}':54s}{rate:13.0f}")
        rounded = {name: round(rate, 1) for name, rate in rates.items()}
        print(json.dumps({"benchmark": "data", "size_px": size, "ratio": round(ratio, 3), **rounded}))


if __name__ == "__main__":
    main()
