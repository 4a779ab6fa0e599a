"""Stopped anywhere, a run goes on as if it had not been: real processes, real signals, equal to the bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.processes import finish, start, start_world, wait_for_step
from support.runs import CONFIG, TRAINING, WEIGHTS, assert_same, rows, with_train
from support.trees import dexycb_tree
from support.waiting import PATIENCE_S
from utnet.checkpoint import save_checkpoint
from utnet.cli.main import main
from utnet.config import Config, DataConfig, ModelConfig
from utnet.distributed import ProcessInfo, is_restart
from utnet.errors import InputError
from utnet.model import UTNet
from utnet.signals import TrainingInterrupted
from utnet.training.loop import train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    return workdir, train(CONFIG, workdir, progress=False)


@pytest.fixture
def path(tmp_path):
    CONFIG.save(tmp_path / "run.yaml")
    return str(tmp_path / "run.yaml")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_by_a_signal_goes_on_to_the_same_end(number, undisturbed, path, tmp_path):
    workdir = tmp_path / "run"
    process = start(main, ["train", path, "--out", str(workdir)])
    wait_for_step(workdir, 6, process)
    os.kill(process.pid, number)
    (code,) = finish(process)
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    kept = [workdir / "last"]
    if number == signal.SIGKILL:
        kept.append(workdir / "last.old")  # killed between the two renames of a save
    assert any((folder / TRAINING).is_file() for folder in kept)
    assert rows(workdir) != rows(undisturbed[0])
    result = train(Config.load(workdir / "config.yaml"), workdir, resume=True, progress=False)
    assert_same(workdir, undisturbed[0])
    assert result["best"] == undisturbed[1]["best"]
    assert result["metrics"] == undisturbed[1]["metrics"]


def stop_at(number: int):
    """A loss that asks its own process to stop, the `number`th time that it is called."""
    from utnet.losses import UTNetLoss

    loss, calls = UTNetLoss.from_config(CONFIG.loss), []

    def function(predictions, targets):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(predictions, targets)

    function.weights, function.summed_terms = loss.weights, loss.summed_terms
    return function


@pytest.mark.parametrize("step", [1, 5, 12])
def test_a_request_ends_the_run_after_its_own_step(step, undisturbed, tmp_path):
    """Also at the first step, at one that is validated, and at the last: what is due then is done on resuming."""
    workdir = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match=rf"after step {step}") as stopped:
        train(CONFIG, workdir, loss_function=stop_at(2 * step), progress=False)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(CONFIG, workdir, resume=True, progress=False)
    assert_same(workdir, undisturbed[0])


def test_a_validation_that_was_cut_short_is_done_again(undisturbed, tmp_path, monkeypatch):
    """Its rows are in the file already and stand there once in the end."""
    workdir = tmp_path / "run"

    def fails(*_, **__):
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("utnet.training.loop.prediction_pictures", fails)
        with pytest.raises(RuntimeError, match="disk is full"):
            train(CONFIG, workdir, progress=False)
    assert rows(workdir)[-1][:2] == ("5", "val")
    train(CONFIG, workdir, resume=True, progress=False)
    assert_same(workdir, undisturbed[0])


def test_a_kill_right_after_the_validation_that_a_resumed_run_began_with(undisturbed, tmp_path, monkeypatch):
    """What is saved then says where the data are for the next step, and nothing of them is lost."""
    workdir = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match="after step 5"):  # saved, not yet validated
        train(CONFIG, workdir, loss_function=stop_at(10), progress=False)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("utnet.training.loop.train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, workdir, resume=True, progress=False)
    assert json.loads((workdir / "last" / "run.json").read_text())["progress"]["scored"] == 5
    train(CONFIG, workdir, resume=True, progress=False)
    assert_same(workdir, undisturbed[0])


def test_a_finished_run_stays_as_it_is(undisturbed, tmp_path):
    workdir, result = undisturbed
    before = (workdir / "last" / WEIGHTS).stat().st_mtime_ns
    again = train(CONFIG, workdir, resume=True, progress=False)
    assert again == result
    assert (workdir / "last" / WEIGHTS).stat().st_mtime_ns == before


@pytest.mark.parametrize("num_workers", [0, 2])
def test_mixtures_and_bad_samples_go_on_at_their_place(num_workers, tmp_path):
    """A mixture is a stream: every worker passes over what it gave before. Of a tree every place is known."""
    tree = DataConfig(name="dexycb", root=str(dexycb_tree()))
    mixture = DataConfig(name="mixture", mixture=(replace(tree, weight=0.7), DataConfig(weight=0.3)))
    config = with_train(replace(CONFIG, data=mixture), num_workers=num_workers, steps=6, ema=0.0)
    train(config, tmp_path / "whole", progress=False)
    with pytest.raises(TrainingInterrupted):
        train(config, tmp_path / "parts", loss_function=stop_at(6), progress=False)
    train(config, tmp_path / "parts", resume=True, progress=False)
    assert_same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("changes", [{}, {"backbone_lr": 0.0}])
def test_what_a_run_started_from_is_not_needed_to_go_on(changes, tmp_path):
    """last/ has all weights; run.json still says what they were once."""
    network = replace(CONFIG, model=replace(CONFIG.model, stem="lite0"))
    save_checkpoint(tmp_path / "start", UTNet(network.model), network)
    config = with_train(network, steps=4, ema=0.0, init_from=str(tmp_path / "start"), **changes)
    train(config, tmp_path / "whole", progress=False)
    with pytest.raises(TrainingInterrupted):
        train(config, tmp_path / "parts", loss_function=stop_at(4), progress=False)
    init = json.loads((tmp_path / "parts" / "run.json").read_text())["init"]
    shutil.rmtree(tmp_path / "start")
    with pytest.raises(InputError, match="start"):
        train(config, tmp_path / "anew", progress=False)
    train(config, tmp_path / "parts", resume=True, progress=False)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    about = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert (about["resumed_at"], about["init"]) == (2, init)


def test_what_cannot_be_resumed_is_refused(undisturbed, tmp_path, capsys):
    workdir = undisturbed[0]
    for config, message in (
        (with_train(CONFIG, ema=0.0), "train.ema was on"),
        (replace(CONFIG, model=ModelConfig(size_px=96)), "size_px is 96 instead of 64"),
    ):
        with pytest.raises(InputError, match=message):
            train(config, workdir, resume=True, progress=False)
    with pytest.raises(InputError, match=r"last/run.json: no such file"):
        train(CONFIG, tmp_path / "none", resume=True, progress=False)
    shutil.copytree(workdir / "best", tmp_path / "last")
    with pytest.raises(InputError, match="no progress"):
        train(CONFIG, tmp_path, resume=True, progress=False)
    for words, message in (
        (["--resume", str(tmp_path / "nothing")], "give --resume the folder of a run"),
        (["config/config.yaml", "--resume", str(workdir)], "leave out config/config.yaml"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["train", *words])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_a_worker_killed_under_torchrun_recovers_by_itself(tmp_path, path):
    """Two processes, one of them killed with -9; torchrun starts both anew and they go on from last/."""
    finish(*start_world(2, main, ["train", path, "--out", str(tmp_path / "whole")]))
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m", "utnet", "train", path, "--out"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with (tmp_path / "log").open("w") as log:
        agent = subprocess.Popen([*command, str(workdir)], env=env, stdout=log, stderr=log)
        try:
            wait_for_step(workdir, 6)
            children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            assert agent.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()[-3000:]
        finally:
            agent.kill()
    assert json.loads((workdir / "run.json").read_text())["resumed_at"] is not None
    assert_same(workdir, tmp_path / "whole")


def test_a_machine_that_came_in_anothers_place_goes_on_with_the_jobs_run(path, undisturbed, tmp_path):
    """Its agent has counted no restart; another job with the same command is refused."""
    workdir, words = tmp_path / "run", ["train", path, "--out", str(tmp_path / "run")]
    env = {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    env |= {"MASTER_PORT": "0", "TORCHELASTIC_RESTART_COUNT": "0"}
    process = start(main, words, env={**env, "TORCHELASTIC_RUN_ID": "job 7"})
    wait_for_step(workdir, 6, process)
    process.kill()
    finish(process)
    assert finish(start(main, words, env={**env, "TORCHELASTIC_RUN_ID": "job 8"})) == [2]
    assert finish(start(main, words, env={**env, "TORCHELASTIC_RUN_ID": "job 7"})) == [0]
    assert json.loads((workdir / "run.json").read_text())["resumed_at"] >= 3
    assert_same(workdir, undisturbed[0])


class OtherWasRestarted(ProcessInfo):
    """This process beside one whose agent started it anew."""

    def gather(self, value):
        return [value, True]


def test_a_restart_is_one_of_all_processes_or_of_a_named_job(monkeypatch):
    alone = ProcessInfo()
    for count, job, previous_job_id, restarted in (
        ("0", "a", "a", True),
        ("0", "a", "b", False),
        ("1", "a", "b", True),
        ("0", "none", "none", False),  # torchrun's word for a job without a name: every such job's
        ("1", "none", "", True),
        (None, None, "", False),
    ):
        for name, value in (("TORCHELASTIC_RESTART_COUNT", count), ("TORCHELASTIC_RUN_ID", job)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        assert is_restart(alone, previous_job_id) is restarted, (count, job, previous_job_id)
        assert is_restart(OtherWasRestarted(), previous_job_id)


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Otherwise a machine that goes down leaves a whole folder of empty files."""
    model, on_disk, renamed = UTNet(CONFIG.model), set(), []
    fsync, rename, replaced = os.fsync, os.rename, os.replace

    def synced(descriptor):
        fsync(descriptor)
        on_disk.add(os.readlink(f"/proc/self/fd/{descriptor}"))

    def moved(move):
        def function(source, target, **options):
            there = Path(source)
            assert {str(path) for path in (there, *there.glob("*"))} <= on_disk, source
            move(source, target, **options)
            on_disk.discard(str(there.parent))  # its names have changed
            on_disk.update(str(path) for path in (Path(target), *Path(target).glob("*")))
            renamed.append(Path(target).name)

        return function

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", moved(rename))
    monkeypatch.setattr(os, "replace", moved(replaced))
    for _ in range(2):
        save_checkpoint(tmp_path / "last", model, CONFIG, extra_files={"more.safetensors": {"a": torch.zeros(3)}})
        assert str(tmp_path) in on_disk
    assert renamed == ["run.json", "last", "run.json", "last.old", "last"]


@pytest.mark.long
@pytest.mark.timeout(3600)  # about a minute on an idle machine
def test_fifty_kills_at_random_moments(tmp_path):
    """Each within the loop, of which half is writing: a checkpoint at every step, a validation at every third."""
    rng, kills, runs = random.Random(0), 0, 0
    config = with_train(CONFIG, save_every=1, eval_every=3, pictures=0)
    config.save(tmp_path / "run.yaml")
    train(config, tmp_path / "undisturbed", progress=False)
    started = Path("run.json")
    while kills < 50:
        workdir, code, seen = tmp_path / f"run{runs}", -9, None
        runs += 1
        while code != 0:
            there = any(workdir.glob("last*/run.json"))
            words = ["--resume", str(workdir)] if there else [str(tmp_path / "run.yaml"), "--out", str(workdir)]
            process = start(main, ["train", *words])
            while process.is_alive() and (
                not (workdir / started).exists() or seen == (workdir / started).stat().st_ino
            ):
                time.sleep(0.005)
            seen = (workdir / started).stat().st_ino  # it is written anew when the loop begins
            if kills < 50:
                time.sleep(rng.uniform(0.0, 1.5))
                kills += process.is_alive()
                process.kill()
            (code,) = finish(process)
            assert code in (0, -9)
        assert_same(workdir, tmp_path / "undisturbed")
    print(f"{kills} kills in {runs} runs: each ended in the weights and rows of the undisturbed one")
