"""A child of the campaign: makes some inputs and reads each within limits.

An input ends well with a result or with an InputError of one line, below `SECONDS` of CPU and `MEGABYTES` above what
the process had before.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from fuzz.kinds import KINDS
from utnet.errors import InputError, first_line

SECONDS, MEGABYTES = 10.0, 1500
_ADDRESS_SPACE = 12 * 2**30
_MAX_MESSAGE = 4000


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _reset_peak() -> float:
    """Megabytes now; the peak starts from here, where the system can be told so."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_mb()


def run(seed: int, number: int, kind: str, folder: Path) -> dict:
    """Makes and reads input `number` of a campaign."""
    rng = np.random.default_rng((seed, number))
    try:
        made = KINDS[kind].make(rng, folder)
    except Exception as error:
        fault = f"the input cannot be made: {first_line(error)}"
        return {"number": number, "kind": kind, "outcome": "not made", "fault": fault}
    before, start, fault = _reset_peak(), time.process_time(), ""
    try:
        KINDS[kind].read(made)
        outcome = "result"
    except InputError as error:
        outcome, text = "refused", str(error)
        if "\n" in text or len(text) > _MAX_MESSAGE:
            fault = f"a message of {len(text)} characters: {text[:200]}"
    except SystemExit as error:  # the command line itself
        outcome = "refused"
        fault = "" if error.code in (0, 1, 2) else f"exit code {error.code}"
    except BaseException as error:
        outcome, fault = "raised", "".join(traceback.format_exception(error)[-6:])
    seconds, megabytes = time.process_time() - start, _peak_mb() - before
    if not fault and seconds > SECONDS:
        fault = f"{seconds:.1f} s"
    if not fault and megabytes > MEGABYTES:
        fault = f"{megabytes:.0f} MB"
    return {"number": number, "kind": kind, "outcome": outcome, "s": seconds, "mb": megabytes, "fault": fault}


def run_batch(seed: int, out: Path, words: list[str], report: Connection) -> None:
    """What a forked child does: sends where it is and the result of each input; inputs of faults are kept in `out`."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for stream in (1, 2):  # what libraries print
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    for word in words:
        number, _, kind = word.partition(":")
        report.send({"begins": int(number), "kind": kind})
        with tempfile.TemporaryDirectory(prefix="utnet-fuzz-") as folder:
            result = run(seed, int(number), kind, Path(folder))
            if result["fault"]:
                shutil.copytree(folder, out / f"{number}_{kind}", dirs_exist_ok=True)
        report.send(result)
