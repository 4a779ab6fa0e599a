"""Killed and stuck processes, locks, leftovers and full disks: one line, and nothing is lost."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from support.processes import finish, start, wait_for_step
from support.waiting import PATIENCE_S
from utnet import signals
from utnet.cli.main import main
from utnet.config import Config, DataConfig, LossConfig, ModelConfig, TrainConfig
from utnet.data import workers
from utnet.data.shards import write_shards
from utnet.errors import InputError, WorkerError, worker_errors
from utnet.io.atomic import atomic_dir, atomic_file, atomic_files, atomic_write, output_folder
from utnet.synth.source import SyntheticHands
from utnet.training import loop
from utnet.training.loop import train
from utnet.training.step import train_step

CONFIG = Config(
    val=DataConfig(limit=4),
    model=ModelConfig(size_px=64, num_blocks=1, refiner="none"),
    loss=LossConfig(use_aux_loss=False),
    train=TrainConfig(
        steps=6, batch_size=2, num_workers=0, num_threads=1, log_every=1, eval_every=100, save_every=2, pictures=0
    ),
)


def with_train(config: Config, **changes) -> Config:
    return replace(config, train=replace(config.train, **changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train(CONFIG, workdir, progress=False)
    return workdir


# -------------------------------------------------------------------------------------------------------------- workers


def loader_workers() -> list:
    """The processes that read samples; others are those of other tests."""
    return [child for child in multiprocessing.active_children() if isinstance(child, workers._Worker)]


def signal_a_worker(number: int):
    """A loss that sends a signal to a process that reads samples, the third time that it is called."""
    from utnet.losses import UTNetLoss

    loss, calls = UTNetLoss.from_config(CONFIG.loss), []

    def function(predictions, targets):
        calls.append(1)
        if len(calls) == 3:
            os.kill(loader_workers()[0].pid, number)
        return loss(predictions, targets)

    return function


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_a_killed_worker_ends_training_in_one_line(finished, tmp_path):
    config = with_train(CONFIG, steps=200, num_workers=1)
    with pytest.raises(WorkerError, match="memory ran out") as caught:
        train(config, tmp_path / "run", loss_function=signal_a_worker(signal.SIGKILL), progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_a_stuck_worker_ends_training_in_one_line_and_what_was_learnt_is_kept(finished, tmp_path, monkeypatch):
    read, calls = SyntheticHands.__getitem__, []

    def stuck(self, index):
        if multiprocessing.parent_process() is not None:  # in a worker
            calls.append(index)
            if len(calls) > 6:
                time.sleep(1000)
        return read(self, index)

    monkeypatch.setattr(SyntheticHands, "__getitem__", stuck)
    config = with_train(CONFIG, steps=200, save_every=200, num_workers=1, worker_timeout_s=10.0)
    with pytest.raises(WorkerError, match="hangs") as caught:
        train(config, tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "run" / "last" / "run.json").read_text())["step"] == 3
    end = time.monotonic() + PATIENCE_S
    while loader_workers():  # a process that is killed takes a moment to end
        assert time.monotonic() < end, "a worker is left"
        time.sleep(0.01)


def train_with_a_stuck_worker(workdir: str) -> None:
    signals.GRACE_S = 1.0
    config = with_train(CONFIG, steps=200, num_workers=1)
    config.save(Path(workdir).with_suffix(".yaml"))
    stuck = signal_a_worker(signal.SIGSTOP)
    loop.UTNetLoss.from_config = lambda config: stuck
    main(["train", str(Path(workdir).with_suffix(".yaml")), "--out", workdir])


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_sigterm_ends_a_run_whose_worker_is_stuck(tmp_path):
    workdir = tmp_path / "run"
    process = start(train_with_a_stuck_worker, str(workdir))
    wait_for_step(workdir, 3, process)
    time.sleep(2)
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process) == [143]
    assert (workdir / "last" / "training.safetensors").is_file()
    assert not (workdir / ".utnet.lock").exists()


def test_other_errors_of_the_loader_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape") as caught, worker_errors():
        raise RuntimeError("shape of DataLoader worker")
    assert type(caught.value) is RuntimeError


class Dies(SyntheticHands):
    def __getitem__(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class DiesWhileSending(SyntheticHands):
    def __getitem__(self, index):
        def send_a_part(connection, data):
            os.write(connection.fileno(), struct.pack("!i", len(data)) + bytes(data[:9]))
            os.kill(os.getpid(), signal.SIGKILL)

        Connection._send_bytes = send_a_part  # in this process, which ends
        return super().__getitem__(index)


@pytest.mark.parametrize("source", [Dies, DiesWhileSending])
def test_a_killed_encoder_of_shards_ends_in_one_line(source, tmp_path):
    with pytest.raises(WorkerError, match="killed"):
        write_shards.write_shards(source(seed=1, size_px=64, num=8), tmp_path / "set", workers=2, progress=False)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- locks and leftovers

HOLD = """
import sys, time
from utnet.io.atomic import atomic_dir, output_folder, atomic_file
kind, path = sys.argv[1:]
with {"output": output_folder, "new": atomic_dir, "file": atomic_file}[kind](path) as there:
    if kind == "file":
        there.write_text("half")
    if kind == "new":
        (there / "a").write_text("half")
    print("ready", flush=True)
    time.sleep(100)
"""


def holder(kind: str, path: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, kind, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_a_folder_is_written_by_one_process_and_a_killed_one_leaves_nothing(tmp_path):
    for kind, enter, name in (("output", output_folder, "run"), ("new", atomic_dir, "tree")):
        process = holder(kind, tmp_path / name)
        try:
            with pytest.raises(InputError, match=f"{name}: another utnet is writing") as caught, enter(tmp_path / name):
                pass
            assert "\n" not in str(caught.value)
        finally:
            process.kill()
            process.wait()
        assert len(list(tmp_path.iterdir())) > 0
        with enter(tmp_path / name) as there:
            (tmp_path / name if there is None else there).joinpath("b").write_text("whole")
        assert [path.name for path in (tmp_path / name).iterdir()] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tree"]


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_temporary_files_of_killed_processes_go_and_those_of_others_stay(tmp_path):
    process = holder("file", tmp_path / "a.json")
    process.kill()
    process.wait()
    assert [p.name for p in tmp_path.iterdir()] == [f".a.json.{process.pid}.tmp"]
    alive = holder("file", tmp_path / "b.json")
    try:
        atomic_write(tmp_path / "c.json", "{}")
        assert sorted(p.name for p in tmp_path.iterdir()) == [f".b.json.{alive.pid}.tmp", "c.json"]
    finally:
        alive.kill()
        alive.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_a_second_run_into_a_folder_is_refused(finished, tmp_path):
    process = holder("output", tmp_path / "run")
    try:
        with pytest.raises(InputError, match="another utnet is writing"):
            train(CONFIG, tmp_path / "run", progress=False)
    finally:
        process.kill()
        process.wait()
    train(with_train(CONFIG, steps=1), tmp_path / "run", progress=False)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_cleans_up_as_ctrl_c_does(tmp_path):
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start(main, ["synth", "--layout", "tars", "--num", "2000", "--out", str(tmp_path / "tree")])
        end = time.monotonic() + PATIENCE_S
        while not list(tmp_path.glob(".tree.partial-*/*")) and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(process.pid, number)
        assert finish(process) == [code]
        assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------- full disks


def test_a_full_disk_is_named_and_last_stays(finished, tmp_path, monkeypatch, capsys):
    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("utnet.checkpoint.save_file", full)
    CONFIG.save(tmp_path / "run.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "safetensors: No space left on device" in line
    assert not list((tmp_path / "run").glob("last*"))


def test_a_full_disk_names_the_file_whoever_writes(tmp_path):
    def fail(there: Path):
        if there.is_dir():
            (there / "first.json").write_text("whole")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for enter, name in ((atomic_file, "a.json"), (atomic_dir, "tree"), (atomic_files, "scores")):
        with pytest.raises(OSError, match="No space left") as caught, enter(tmp_path / name) as there:
            fail(there)
        assert caught.value.filename == str(tmp_path / name)
    assert not list(tmp_path.iterdir())
    with atomic_files(tmp_path / "scores") as there:
        (there / "first.json").write_text("whole")
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["first.json"]


# ------------------------------------------------------------------------------------------------- what is resumed from


def test_last_is_not_replaced_by_weights_that_are_not_finite(tmp_path, monkeypatch):
    config = with_train(CONFIG, steps=3, save_every=1)
    train(config, tmp_path / "run", progress=False)
    before = (tmp_path / "run" / "last" / "weights.safetensors").read_bytes()

    def break_weights(engine, *args, **kwargs):
        step = train_step(engine, *args, **kwargs)
        with torch.no_grad():
            next(engine.model.parameters()).view(-1)[0] = torch.nan
        return step

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", break_weights)
        with pytest.raises(FloatingPointError, match=r"is NaN or inf after step 4; .*last is not written"):
            train(with_train(config, steps=9), tmp_path / "run", resume=True, progress=False)
    assert (tmp_path / "run" / "last" / "weights.safetensors").read_bytes() == before
    train(with_train(config, steps=4), tmp_path / "run", resume=True, progress=False)


def set_progress(**changes):
    def edit(last: Path):
        tree = json.loads((last / "run.json").read_text())
        tree["progress"] |= changes
        (last / "run.json").write_text(json.dumps(tree))

    return edit


def set_tensors(change):
    def edit(last: Path):
        tensors = load_file(last / "training.safetensors")
        change(tensors)
        save_file(tensors, last / "training.safetensors")

    return edit


def first(tensors: dict, start: str) -> str:
    return next(name for name in tensors if name.startswith(start))


TAMPERED = {
    "step": set_progress(step="six"),
    "seconds": set_progress(seconds=float("nan")),
    "lowest": set_progress(lowest="low"),
    "sums": set_progress(sums={"a": "b"}),
    "scores": set_progress(scores=[1]),
    "best": set_progress(best={"rgb": 1}),
    "loaders": set_progress(loaders=[{"position": {"drawn": -1, "turn": 0, "places": {}}, "bad": {}}]),
    "no loaders": set_progress(loaders=[]),
    "unknown": set_progress(more=1),
    "nested": lambda last: (last / "run.json").write_text("[" * 100_000),
    "a moment less": set_tensors(lambda t: t.pop(first(t, "optimiser/exp_avg/"))),
    "a moment of another shape": set_tensors(lambda t: t.update({first(t, "optimiser/exp_avg/"): torch.zeros(7)})),
    "a moment of NaN": set_tensors(lambda t: t[first(t, "optimiser/exp_avg_sq/")].fill_(torch.nan)),
    "a moment of whole numbers": set_tensors(
        lambda t: t.update({first(t, "optimiser/exp_avg/"): t[first(t, "optimiser/exp_avg/")].to(torch.int8)})
    ),
    "an entry of another network": set_tensors(lambda t: t.update({"optimiser/exp_avg/other": torch.zeros(1)})),
    "an entry of another kind": set_tensors(lambda t: t.update({"other": torch.zeros(1)})),
    "random state": set_tensors(lambda t: t.update({"random/cpu/0": torch.zeros(3, dtype=torch.uint8)})),
    "random floats": set_tensors(lambda t: t.update({"random/cpu/0": torch.zeros(5056)})),
    "cut off": lambda last: os.truncate(last / "training.safetensors", 1000),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_damaged_last_is_refused_with_what_is_wrong(name, finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    TAMPERED[name](tmp_path / "run" / "last")
    with pytest.raises(InputError, match=r"last.(run\.json|training\.safetensors): ") as caught:
        train(with_train(CONFIG, steps=7), tmp_path / "run", resume=True, progress=False)
    assert "\n" not in str(caught.value)
