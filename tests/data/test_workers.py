"""Worker processes that are killed or hang end their loader in one line, whoever uses it."""

import multiprocessing
import os
import signal
import struct
import sys
import tempfile
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import DataLoader

from support.loaders import loader_of
from utnet.config import Config, ModelConfig, TrainConfig
from utnet.data.inspection.scan import scan
from utnet.data.workers import init_worker, iterate, worker_context
from utnet.errors import InputError, WorkerError
from utnet.evaluation.crops import CropDataset, crop_batches
from utnet.synth.source import SyntheticHands

CONFIG = Config(model=ModelConfig(size_px=64), train=TrainConfig(batch_size=2, num_workers=1, worker_timeout_s=120.0))


class Signalled(SyntheticHands):
    """Hands whose reader gets a signal at the fourth."""

    def __init__(self, number: int):
        super().__init__(seed=1, size_px=64, num=8)
        self.number = number

    def __getitem__(self, index):
        if index == 3:
            os.kill(os.getpid(), self.number)
        return super().__getitem__(index)


class SignalledWhileSending(SyntheticHands):
    """Hands whose reader gets a signal when it has sent a part of the message that holds the fourth."""

    def __init__(self, number: int):
        super().__init__(seed=1, size_px=64, num=8)
        self.number = number

    def __getitem__(self, index):
        if index == 3:

            def send_a_part(connection, data):
                os.write(connection.fileno(), struct.pack("!i", len(data)) + bytes(data[:9]))
                os.kill(os.getpid(), self.number)

            Connection._send_bytes = send_a_part  # in this process, which ends
        return super().__getitem__(index)


def num_measured(samples):
    return {"n": np.ones(len(samples))}


USERS = {
    "data check": lambda source: scan(source, num_measured, workers=1),
    "eval": lambda source: list(crop_batches(CropDataset(source, CONFIG.model.size_px, CONFIG.crop), CONFIG.train)),
    "train": lambda source: list(loader_of(source, CONFIG, train=False)),
}


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
@pytest.mark.parametrize("source", [Signalled, SignalledWhileSending])
@pytest.mark.parametrize("user", USERS)
def test_a_killed_worker_is_named(user, source):
    with pytest.raises(WorkerError, match="killed") as caught:
        USERS[user](source(signal.SIGKILL))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
@pytest.mark.parametrize("source", [Signalled, SignalledWhileSending])
def test_a_stuck_worker_is_named(source):
    config = replace(CONFIG, train=replace(CONFIG.train, worker_timeout_s=4.0))
    with pytest.raises(WorkerError, match=r"hangs.*train\.worker_timeout_s") as caught:
        list(crop_batches(CropDataset(source(signal.SIGSTOP), config.model.size_px, config.crop), config.train))
    assert "\n" not in str(caught.value)


class Given:
    """A loader that gives two batches and then raises."""

    def __init__(self, error: Exception):
        self.error, self.num_workers, self.timeout = error, 1, 0.0
        self.multiprocessing_context = worker_context(1)

    def __iter__(self):
        yield from (1, 2)
        raise self.error


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset by peer"), EOFError()])
def test_a_worker_that_is_killed_while_it_hands_over_a_batch_is_named(error):
    batches = iterate(Given(error))
    assert [next(batches), next(batches)] == [1, 2]
    with pytest.raises(WorkerError, match="killed"):
        next(batches)


def test_an_error_of_the_source_stays_what_it_is():
    with pytest.raises(ConnectionResetError, match="in DataLoader worker process 0"):
        list(iterate(Given(ConnectionResetError("Caught ConnectionResetError in DataLoader worker process 0."))))


def test_a_stream_that_fails_is_a_sample_that_cannot_be_read():
    def stream(**_):
        yield SyntheticHands(seed=1, size_px=64, num=1)[0]
        raise InputError("a.tar: no such file")

    for num in (0, 1):
        found = scan(SimpleNamespace(name="tars", stream=stream), num_measured, workers=num)
        assert len(found) == 1
        assert [failure.message for failure in found.failures] == ["a.tar: no such file"]


@pytest.mark.skipif(sys.platform != "linux", reason="torch sets its handler where workers are forked")
def test_loaders_leave_the_handler_of_sigchld_alone():
    """torch's own raises in whatever the main thread is doing when a worker ends."""
    loader = DataLoader([1, 2], num_workers=1, multiprocessing_context=worker_context(1), worker_init_fn=init_worker)
    before = signal.getsignal(signal.SIGCHLD)
    assert [int(batch) for batch in iterate(loader)] == [1, 2]
    assert signal.getsignal(signal.SIGCHLD) is before


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_a_killed_worker_leaves_no_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    with pytest.raises(WorkerError, match="killed"):
        USERS["train"](Signalled(signal.SIGKILL))
    assert [str(path) for path in tmp_path.iterdir()] == [get_temp_dir()]  # removed at the end of this process
