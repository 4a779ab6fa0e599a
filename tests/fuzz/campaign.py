"""`make test-fuzz`: damaged and hostile inputs of every kind, seeded, in child processes with limits.

python -m fuzz.campaign [--seed S] [--num N] [--kinds a,b] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from fuzz.batch import run_batch
from fuzz.kinds import KINDS

_BATCH, _STUCK_CPU_S = 50, 40.0
_FORK = multiprocessing.get_context("fork")


def _plan(seed: int, num: int, kinds: list[str]) -> list[str]:
    """NUMBER:KIND of every input: bombs once each, the rest evenly over the kinds."""
    rng = np.random.default_rng(seed)
    once = [kind for kind in kinds if KINDS[kind].once]
    many = [kind for kind in kinds if not KINDS[kind].once]
    drawn = [many[i % len(many)] for i in range(max(0, num - len(once)))] if many else []
    rng.shuffle(drawn)
    return [f"{number}:{kind}" for number, kind in enumerate([*once, *drawn])]


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _batch(seed: int, out: Path, words: list[str]) -> list[dict]:
    """Runs a batch. Where the child dies or hangs the input it was at is a fault, and the rest is run by another."""
    results: list[dict] = []
    while words:
        ours, theirs = _FORK.Pipe(duplex=False)
        child = _FORK.Process(target=run_batch, args=(seed, out, words, theirs))
        child.start()
        theirs.close()
        at, cpu, done, why = None, 0.0, len(results), ""
        while True:
            if not ours.poll(1.0):
                if at and _cpu_s(child.pid or 0) - cpu > _STUCK_CPU_S:
                    child.kill()
                    why = f"not done after {_STUCK_CPU_S:.0f} s of CPU"
                continue
            try:
                message = ours.recv()
            except EOFError:
                break
            if "begins" in message:
                at, cpu = message, _cpu_s(child.pid or 0)
            else:
                results.append(message)
                at = None
        child.join()
        if at:
            why = why or f"the process ended with {child.exitcode}"
            results.append({"number": at["begins"], "kind": at["kind"], "outcome": "ended", "fault": why})
        elif len(results) == done:
            raise SystemExit(f"a child ended with {child.exitcode} before its first input")
        words = words[len(results) - done :]
    return results


def main() -> None:
    """Prints the counts by kind; exits with 1 where there are faults, whose inputs are then in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    given = parser.parse_args()
    kinds = given.kinds.split(",") if given.kinds else list(KINDS)
    words, start, results = _plan(given.seed, given.num, kinds), time.monotonic(), []
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("UTNET_FUZZ_BASE", str(given.out.absolute() / "base"))
    os.environ.setdefault("UTNET_CACHE", str(given.out.absolute() / "cache"))
    Path(os.environ["UTNET_FUZZ_BASE"]).mkdir(parents=True, exist_ok=True)
    for first in range(0, len(words), _BATCH):
        found = _batch(given.seed, given.out, words[first : first + _BATCH])
        results += found
        for result in found:
            if result["fault"]:
                print(f"FAULT {result['number']}:{result['kind']}: {result['fault']}", flush=True)
        print(f"{len(results)} of {len(words)} inputs, {time.monotonic() - start:.0f} s", flush=True)
    (given.out / "results.json").write_text(json.dumps(results, indent=1))
    for kind in kinds:
        of_kind = [result for result in results if result["kind"] == kind]
        counts = Counter("fault" if result["fault"] else result["outcome"] for result in of_kind)
        said = ", ".join(f"{num} {name}" for name, num in sorted(counts.items()))
        most = max((result.get("mb", 0) for result in of_kind), default=0)
        longest = max((result.get("s", 0) for result in of_kind), default=0)
        print(f"{kind:20} {said}; at most {longest:.1f} s, {most:.0f} MB")
    sys.exit(any(result["fault"] for result in results))


if __name__ == "__main__":
    main()
