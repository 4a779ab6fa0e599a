"""Every data set's reader on a tree in its layout: `python benchmarks/sources.py [--num 200]`.

Writes synthetic trees to a temporary folder and prints a table and one JSON line: samples, seconds of the first opening
(the index is made) and of the next, memory that opening takes, whole samples read a second in one process, and how far
labels decoded by the hand model lie from the labelled joints (px; mm for tars, which know no camera).
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import argparse
import json
import multiprocessing
import runpy
import sys
import tempfile
import time
from functools import partial
from pathlib import Path


def write_trees(folder: Path, num: int) -> dict[str, tuple[str, Path]]:
    """Row title -> name of the source and its folder."""
    from utnet.data import open_source
    from utnet.data.shards.write_shards import write_shards
    from utnet.synth.write_dexycb import write_dexycb
    from utnet.synth.write_freihand import write_freihand
    from utnet.synth.write_ho3d import write_ho3d
    from utnet.synth.write_tars import write_tars

    writers = {
        "DexYCB": ("dexycb", write_dexycb),
        "HO3D v2": ("ho3d", partial(write_ho3d, version="v2")),
        "HO3D v3": ("ho3d", write_ho3d),
        "H2O3D": ("ho3d", partial(write_ho3d, version="h2o3d")),
        "FreiHAND": ("freihand", write_freihand),
    }
    trees = {}
    for title, (name, writer) in writers.items():
        trees[title] = (name, folder / title)
        writer(trees[title][1], num=num, split="train", progress=False)  # type: ignore[operator]
    trees["training tars"] = ("tars", folder / "tars")
    write_tars(folder / "tars", num=num, progress=False)
    trees["shards of DexYCB"] = ("shards", folder / "shards")
    write_shards(open_source("dexycb", folder / "DexYCB"), folder / "shards", progress=False)
    trees["custom"] = ("custom", folder / "custom")
    example = str(Path(__file__).parents[1] / "examples" / "custom_hands.py")
    sys.argv = [example, str(folder / "custom")]
    runpy.run_path(example, run_name="__main__")
    return trees


def memory_mib() -> float:
    """Memory that this process holds for itself."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def measure(name: str, root: Path) -> dict:
    """One row, in a process of its own."""
    from utnet.data import open_source
    from utnet.data.inspection.check import check_source
    from utnet.data.source import is_stream

    open_source(name, root)  # imports and compiled code do not count
    os.environ["UTNET_CACHE"] = str(root.parent / f"{root.name}-cache")
    held, start = memory_mib(), time.perf_counter()
    open_source(name, root)
    first, start = time.perf_counter() - start, time.perf_counter()
    source = open_source(name, root)
    again, memory = time.perf_counter() - start, memory_mib() - held
    start, num = time.perf_counter(), 0
    for _ in source.stream(seed=0, epoch=0, part=0, num_parts=1) if is_stream(source) else _all(source):
        num += 1
    rate = num / (time.perf_counter() - start)
    report = check_source(source).to_tree()
    off = report.get("model_px") or report.get("model_mm") or {}
    return {
        "samples": num, "first_s": first, "again_s": again, "memory_mib": max(0.0, memory), "per_s": rate,
        "labels_off": off.get("max"), "unit": "px" if report.get("model_px") else "mm", "ok": report["ok"],
    }  # fmt: skip


def _all(source):
    return (source[i] for i in range(len(source)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=200, help="pictures of each tree")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        trees = write_trees(Path(folder), args.num)
        titles = f"{'source':18s}{'samples':>8s}{'first, s':>10s}{'again, ms':>11s}"
        print(f"{titles}{'MiB':>6s}{'read/s':>8s}{'labels off':>16s}")
        for title, (name, root) in trees.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = rows[title] = pool.apply(measure, (name, root))
            off = "no parameters" if row["labels_off"] is None else f"{row['labels_off']:.1e} {row['unit']}"
            print(
                f"{title:18s}{row['samples']:8d}{row['first_s']:10.2f}{1000 * row['again_s']:11.1f}"
                f"{row['memory_mib']:6.1f}{row['per_s']:8.0f}{off:>16s}{'' if row['ok'] else '  NOT OK'}"
            )
    print(json.dumps({"benchmark": "sources", "num": args.num, "rows": rows}))


if __name__ == "__main__":
    main()
