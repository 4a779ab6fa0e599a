"""Units and workers for tests of `utnet bulk`."""

import io
import os
import signal
import tarfile
from pathlib import Path

from utnet.apps.bulk.job import run_on_items
from utnet.apps.bulk.predicting import Predict
from utnet.apps.bulk.sources import find_items

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
"""A node of a cluster for tests."""


def in_turn(work, units):
    """An engine without workers: one unit after the other, in this process."""
    return map(work, units)


def bulk(words, place, engine=in_turn, *, pictures=2, chunk_s=120.0, **options):
    """A job as `utnet bulk` runs it, by the fit."""
    task, items = Predict(**{"method": "fit", **options}), find_items([str(word) for word in words])
    chunk_s = 0.0 if task.overlay or task.npz else chunk_s
    return run_on_items(items, str(place), task, engine, pictures=pictures, chunk_s=chunk_s)


def contents(place):
    """Every file of a local place by its name."""
    return {
        str(path.relative_to(place)): path.read_bytes() for path in sorted(Path(place).rglob("*")) if path.is_file()
    }


def tar_of(path, files):
    """A tar of files under their names."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def dies_once(folder, unit):
    """Work that kills its worker the first time it is given part-000002, and names its process."""
    mark = Path(folder) / "died"
    if unit.name == "part-000002" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with (Path(folder) / unit.name).open("a") as file:
        file.write("done\n")
    return {"unit": unit.name, "threads": os.environ["OMP_NUM_THREADS"]}


def always_dies(unit):
    os.kill(os.getpid(), signal.SIGKILL)


def work_of(folder, name, work, unit):
    """Does the work, but kills the worker the first time it is given the unit of this name."""
    mark = Path(folder) / name
    if unit.name == name and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(unit)
