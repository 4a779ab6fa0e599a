"""Second part of `make test-fuzz`: train, predict, shard, synth and submit are killed at random moments, and run on a
full disk.

After SIGTERM nothing half-written is left, and it ends within 20 s; after SIGKILL the same call again removes what was
left. Either way its results are then those of an undisturbed run, to the byte.

python -m fuzz.kills [--seed S] [--num N]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fuzz.base import base
from fuzz.data_sets import write_custom
from fuzz.networks import CONFIG, checkpoint
from support.processes import finish, start
from utnet.cli.main import main as utnet
from utnet.render.drawing import save_picture
from utnet.synth.source import SyntheticHands
from utnet.synth.write_freihand import write_freihand

_TERM_S = 20.0


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        words: output path -> its words.
        again: output path -> those of the call after it was killed.
        out: name of the output below the folder of a trial.
        results: the files that are the same each time, of an output.
    """

    words: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    out: str
    results: Callable[[Path], list[Path]]


def _files(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]


def _write_pictures(folder: Path) -> None:
    folder.mkdir()
    source = SyntheticHands(seed=3, size_px=128, num=6)
    for i in range(6):
        save_picture(folder / f"{i}.png", source[i].rgb)


def _write_config(path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, steps=12, save_every=2, num_workers=1, num_threads=1))
    config.save(path)


def _commands() -> dict[str, Command]:
    config, pictures = base("run.yaml", _write_config), base("pictures", _write_pictures)
    custom, network = base("custom", write_custom), checkpoint()
    hands = base("hands", lambda path: write_freihand(path, num=6, seed=5, split="evaluation", progress=False))

    def resumed(out: Path) -> list[str]:
        whole = (out / "last").exists() or (out / "last.old").exists()
        return ["train", "--resume", str(out)] if whole else ["train", str(config), "--out", str(out)]

    def same(words: Callable[[Path], list[str]], out: str, results=_files) -> Command:
        return Command(words, words, out, results)

    return {
        "synth": same(lambda out: ["synth", "--layout", "tars", "--num", "30", "--out", str(out)], "tree"),
        "shard": same(
            lambda out: ["data", "shard", "custom", "--root", str(custom), "--out", str(out), "--workers", "1"], "set"
        ),
        "submit": same(
            lambda out: [
                *("submit", str(network), "--data", "freihand", "--root", str(hands)),
                *("--joints-only", "--out", str(out)),
            ],
            "pred.zip",
        ),
        "train": Command(
            lambda out: ["train", str(config), "--out", str(out)],
            resumed,
            "run",
            lambda out: [out / "last" / "weights.safetensors"],
        ),
        "predict": Command(
            lambda out: ["predict", str(pictures), "--out", str(out), "--method", "fit"],
            lambda out: ["predict", str(pictures), "--out", str(out), "--method", "fit", "--overwrite"],
            "hands",
            lambda out: [out / "predictions.json"],
        ),
    }


def _digest(command: Command, out: Path) -> str:
    digest = hashlib.sha256()
    for path in command.results(out):
        digest.update(path.relative_to(out.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _leftovers(folder: Path) -> list[str]:
    """Temporary files, folders and locks below a folder."""
    marks = (".partial-", ".tmp", ".lock")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return [name for name in names if any(mark in name.rpartition("/")[2] for mark in marks)]


def _quietly(words: list[str]) -> None:
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    utnet(words)


def _run(words: list[str]) -> int:
    return finish(start(_quietly, words), timeout=600)[0]


def _trial(name: str, command: Command, whole: str, after_s: float, number: int, folder: Path) -> str:
    """Kills a command once; what is wrong, or ""."""
    out = folder / command.out
    process = start(_quietly, command.words(out))
    process.join(after_s)
    ended_by_itself = not process.is_alive()
    if not ended_by_itself:
        os.kill(process.pid or 0, number)
    began = time.monotonic()
    process.join(_TERM_S + 10)
    if process.is_alive():
        process.kill()
        return f"alive {_TERM_S + 10:.0f} s after signal {number}"
    if number == signal.SIGTERM and time.monotonic() - began > _TERM_S:
        return f"ended only {time.monotonic() - began:.0f} s after SIGTERM"
    if number == signal.SIGTERM and process.exitcode not in (0, 143, -signal.SIGTERM):
        return f"exit code {process.exitcode} after SIGTERM"
    if number == signal.SIGTERM and process.exitcode != -signal.SIGTERM and _leftovers(folder):
        return f"left after SIGTERM: {_leftovers(folder)}"
    if not (ended_by_itself and out.exists() and name != "train"):
        code = _run((command.words if not out.exists() else command.again)(out))
        if name in ("synth", "shard") and code == 2 and out.exists():
            code = 0  # it had become whole before the kill, and nothing is overwritten
        if code:
            return f"exit code {code} of the call after it"
    if _leftovers(folder):
        return f"left after the next call: {_leftovers(folder)}"
    return "" if _digest(command, out) == whole else "the results are not those of an undisturbed run"


def _limited(words: list[str], num_bytes: int) -> None:
    """Runs a command whose files may have so many bytes: a disk that is full, where none can be made."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    _quietly(words)


def _full_disk(name: str, command: Command, folder: Path) -> str:
    """Runs a command with too little room for its results; what is wrong, or ""."""
    disk = folder / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    mounted = shutil.which("mount") and subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        out, is_small = disk / command.out, name == "submit"
        words = command.words(out)
        if mounted and is_small:
            with suppress(OSError):
                (disk / "others").write_bytes(bytes(2**20))
        process = start(_quietly, words) if mounted else start(_limited, words, 500 if is_small else 20_000)
        (code,) = finish(process, timeout=600)
        if code not in (1, 2):
            return f"exit code {code} on a full disk"
        if _leftovers(disk):
            return f"left on a full disk: {_leftovers(disk)}"
        if name in ("synth", "shard", "submit") and out.exists():
            return "half of the results on a full disk"
        return ""
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    """Prints every fault and the counts; exits with 1 where there are faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num", type=int, default=50)
    given = parser.parse_args()
    rng, faults, commands = np.random.default_rng(given.seed), [], _commands()
    whole, seconds = {}, {}
    for name, command in commands.items():
        with tempfile.TemporaryDirectory() as folder:
            began, out = time.monotonic(), Path(folder) / command.out
            if code := _run(command.words(out)):
                raise SystemExit(f"{name}: an undisturbed run ends with {code}")
            seconds[name], whole[name] = time.monotonic() - began, _digest(command, out)
            if left := _leftovers(Path(folder)):
                faults.append(f"{name}: left by an undisturbed run: {left}")
    for trial in range(given.num):
        name = list(commands)[trial % len(commands)]
        number = signal.SIGKILL if rng.random() < 0.5 else signal.SIGTERM
        after_s = float(rng.uniform(0, seconds[name]))
        with tempfile.TemporaryDirectory() as folder:
            fault = _trial(name, commands[name], whole[name], after_s, number, Path(folder))
        if fault:
            faults.append(f"{name}, signal {number} after {after_s:.2f} of {seconds[name]:.2f} s: {fault}")
            print(f"FAULT {faults[-1]}", flush=True)
    for name, command in commands.items():
        with tempfile.TemporaryDirectory() as folder:
            if fault := _full_disk(name, command, Path(folder)):
                faults.append(f"{name}: {fault}")
                print(f"FAULT {faults[-1]}", flush=True)
    print(f"{given.num} kills, {len(commands)} full disks, {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
