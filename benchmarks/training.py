"""Time of a training step of `ti`, by part, in one process and in two: `python benchmarks/training.py [--data SHARDS]`.

Each row runs in processes of its own, the way `utnet train CONFIG` does: loader, `train_step`, mean of the weights.

    data        the next batch: read, cropped, augmented (`--workers` of the config are set to 0: all of it is seen)
    forward     the network and its loss
    backward    gradients, with their exchange where there are several processes
    update      norm, clipping, optimizer, mean of the weights

Prints wall and CPU time of a step in ms (medians; CPU of this process with all its threads, which depends little on
what else runs), samples per second of all processes, and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

PARTS = ("data", "forward", "backward", "update")


def measure(config_name: str, data: str, threads: int, steps: int, changes: list[str]) -> dict:
    """Trains for `steps` in this process (one of several under torchrun); returns the medians of each part."""
    import torch

    from utnet.config import Config, override
    from utnet.data.sources import open_data
    from utnet.distributed import Engine, process_group
    from utnet.heap import keep_blocks
    from utnet.losses import UTNetLoss
    from utnet.training.ema import EMA
    from utnet.training.loop import training_loader
    from utnet.training.optimizer import make_optimizer
    from utnet.training.state import make_model
    from utnet.training.step import train_step

    fixed = [f"data={{name: shards, root: {data}}}", "train.num_workers=0", *changes]
    config = override(Config.load(config_name), fixed)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    keep_blocks(32, spare_mb=1024)
    with process_group() as world:
        model, _ = make_model(config.model, config.train, last=None)
        engine = Engine(model.train(), UTNetLoss.from_config(config.loss), config.train, config.loss, world)
        optimizer, mean = make_optimizer(model, config.train), EMA(model, config.train.ema)
        source = open_data(config.data, config, train=True)
        loader = training_loader(source, config, rank=world.rank, world_size=world.size, hand_model=model.hand.name)
        for group in optimizer.param_groups:
            group["lr"] = 1e-4
        batches, marks, rows = iter(loader), [], defaultdict(list)

        def mark(*_: object) -> None:
            marks.append((time.perf_counter(), time.process_time()))

        engine._objective.register_forward_hook(mark)
        original = engine.gradient_norm

        def gradient_norm():
            mark()
            return original()

        engine.gradient_norm = gradient_norm
        for step in range(1, steps + 4):
            marks.clear()
            mark()
            batch = next(batches)
            mark()
            train_step(engine, [batch], optimizer)
            mean.update(step)
            mark()
            if step > 3:  # the first ones allocate
                for name, (begin, end) in zip(PARTS, pairwise(marks), strict=True):
                    rows[name].append([1e3 * (after - before) for before, after in zip(begin, end, strict=True)])
                rows["step"].append([1e3 * (b - a) for a, b in zip(marks[0], marks[-1], strict=True)])
        wall_s = sum(wall for wall, _ in rows["step"]) / 1e3
        rate = world.sum([steps * config.train.batch_size / wall_s])[0]
    medians = {
        name: [round(statistics.median(column), 1) for column in zip(*values, strict=True)]
        for name, values in rows.items()
    }
    return {"rank": world.rank, "samples_per_s": round(rate, 1), **medians}


def child(processes: int, arguments: argparse.Namespace, data: str, threads: int) -> dict:
    """The row of rank 0."""
    own = [__file__, "--child", "--config", arguments.config, "--data", data, "--threads", str(threads)]
    own += ["--steps", str(arguments.steps), "--set", *arguments.set]
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    done = subprocess.run([sys.executable, *run, *own], stdout=subprocess.PIPE, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(row for row in rows if row["rank"] == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="open_ti_prompts")
    parser.add_argument("--data", help="a folder of shards; default: 256 drawn hands")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of one process; several have one each")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--set", nargs="*", default=[], help="changes to the config, KEY=VALUE")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        row = measure(arguments.config, arguments.data, arguments.threads[0], arguments.steps, arguments.set)
        print(json.dumps(row), flush=True)
        return
    rows = {}
    with tempfile.TemporaryDirectory(prefix="utnet-bench-") as folder:
        data = arguments.data or drawn_hands(Path(folder) / "hands")
        print(f"{'':24s}" + "".join(f"{name:>16s}" for name in (*PARTS, "step")) + f"{'samples/s':>12s}")
        for processes in arguments.processes:
            for threads in arguments.threads if processes == 1 else [1]:
                name = f"{processes} process{'es' * (processes > 1)}, {threads} thread{'s' * (threads > 1)}"
                rows[name] = row = child(processes, arguments, data, threads)
                times = "".join(f"{wall:9.1f}/{cpu:<6.1f}" for wall, cpu in (row[part] for part in (*PARTS, "step")))
                print(f"{name:24s}{times}{row['samples_per_s']:12.1f}", flush=True)
    print(json.dumps({"benchmark": "training", "config": arguments.config, "rows": rows}))


def drawn_hands(out: Path) -> str:
    """256 synthetic hands in shards, as large as those that the shipped weights are trained on."""
    changes = ["seed=1", "model.size_px=224", "crop.expand=2.75"]
    command = [sys.executable, "-m", "utnet", "data", "shard", "synth", "--out", str(out), "--limit", "256"]
    subprocess.run([*command, "--config", "synth_full", "--set", *changes], check=True, stdout=subprocess.DEVNULL)
    return str(out)


if __name__ == "__main__":
    main()
