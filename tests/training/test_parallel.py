"""Two processes with batches of B are one with 2 B; every sample is scored once and the scores are the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from support.loaders import loader_of
from support.processes import finish, start_world
from support.runs import CONFIG, TRAINING, WEIGHTS, assert_same, rows, with_train
from utnet.config import Config, DataConfig, LossConfig, ModelConfig
from utnet.data.sources import open_data
from utnet.distributed import Engine, full_tensor, process_group, process_info
from utnet.evaluation.validation import evaluate, predict_joints
from utnet.losses import UTNetLoss
from utnet.model import UTNet
from utnet.signals import TrainingInterrupted
from utnet.training.loop import train
from utnet.types import Batch

ONE = with_train(CONFIG, accumulate=1, ema=0.0, save_every=100, eval_every=100, log_every=1, steps=4)
LOSS = LossConfig(
    w_global_orient=0.005, w_hand_pose=0.01, w_betas=0.001, w_joint_map=0.1, w_joint_heat=0.01, w_3d_vert=0.1, w_aux=0.1
)
SUMS = replace(ONE, model=ModelConfig(size_px=64, p_drop=0.0), loss=replace(LOSS, use_vertex_loss=True))
MEANS = replace(SUMS, loss=replace(SUMS.loss, reduction="batch_mean"))


def unevenly_labelled(batch: Batch) -> Batch:
    """Poses and shapes are labelled in different samples, and some batches hold none of either."""
    number = torch.tensor([int(key.split("/")[-1]) for key in batch.keys])
    poses, betas = (torch.isin(number, torch.tensor(some)) for some in ((0, 2, 4), (0, 2, 3)))
    return replace(batch, params_ok=batch.params_ok & poses, betas_ok=batch.betas_ok & betas)


def gradients(config: Config, change: Callable[[Batch], Batch] = lambda batch: batch) -> tuple[dict, float]:
    """Of the first step of a run, whole, and what was minimised, over this process's part of the samples."""
    torch.manual_seed(0)
    model, world = UTNet(config.model), process_info()
    engine = Engine(model.train(), UTNetLoss.from_config(config.loss), config.train, config.loss, world)
    source = open_data(config.data, config, train=True)
    loader = loader_of(source, config, train=True, rank=world.rank, world_size=world.size)
    return gradients_of(engine, [change(batch) for batch in islice(loader, config.train.accumulate)])


def gradients_of(engine: Engine, batches: list[Batch]) -> tuple[dict, float]:
    results = engine.backward(batches)
    (total,) = engine.world.sum([sum(objective for objective, _ in results)])
    grads = {name: full_tensor(p.grad) for name, p in engine.model.named_parameters() if p.grad is not None}
    norm = torch.stack([gradient.norm() for gradient in grads.values()]).norm()
    torch.testing.assert_close(engine.gradient_norm(), norm, rtol=1e-6, atol=0)
    return grads, total / engine.world.size


def scores_of(config: Config, limit: int, *, parts: bool = False) -> dict:
    torch.manual_seed(0)
    model = UTNet(config.model)
    if parts:
        Engine(
            model,
            UTNetLoss.from_config(config.loss),
            replace(config.train, parallel="fsdp"),
            config.loss,
            process_info(),
        )
    source = open_data(DataConfig(limit=limit), config, train=False)
    joints = predict_joints(model, source, config.crop, config.train)
    return {
        "scores": evaluate(model, source, config.crop, config.train),
        "joints": joints["rgbd"].pred_m,
        "keys": joints["rgb"].keys,
    }


def in_two(folder: str) -> None:
    """All that two processes do here, so that they start once."""
    torch.set_num_threads(1)
    found = {}
    with process_group() as world:
        for kind in ("ddp", "fsdp"):
            for name, config in (("sum", SUMS), ("batch_mean", MEANS)):
                found[kind, name] = gradients(with_train(config, parallel=kind))
                found[kind, name, 2] = gradients(with_train(config, parallel=kind, accumulate=2, batch_size=2))
                found[kind, name, "uneven"] = gradients(with_train(config, parallel=kind), unevenly_labelled)
        for limit in (2, 13):
            found["scores", limit] = scores_of(ONE, limit)
            found["scores", limit, "parts"] = scores_of(ONE, limit, parts=True)
        found["ends"] = world.gather(runs_in_parts(Path(folder)))
        if world.is_main:
            torch.save(found, Path(folder) / "found.pt")


PARTS = with_train(CONFIG, parallel="fsdp", accumulate=1, steps=6, eval_every=4, save_every=100)


def runs_in_parts(folder: Path) -> dict[str, str]:
    """Runs and how they end: undisturbed; stopped by a signal to the second process, and resumed; a loss that is not
    finite there; a loss there whose gradient's squares are too large for float32."""
    loss, second, calls = UTNetLoss.from_config(SUMS.loss), process_info().rank == 1, []

    def signalled(predictions, targets):
        calls.append(1)
        if second and len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(predictions, targets)

    def broken(predictions, targets):
        terms = loss(predictions, targets)
        return {**terms, "total_loss": terms["total_loss"] * (torch.nan if second else 1)}

    def steep(predictions, targets):
        terms = loss(predictions, targets)
        return {**terms, "total_loss": terms["total_loss"] * (1e30 if second else 1)}

    signalled.weights, signalled.summed_terms = loss.weights, loss.summed_terms
    ends = {}
    config = replace(PARTS, loss=SUMS.loss)
    train(config, folder / "whole", progress=False)
    for name, function in (("stopped", signalled), ("broken", broken), ("steep", steep), ("steep ddp", steep)):
        parallel = "ddp" if "ddp" in name else "fsdp"
        try:
            train(with_train(config, parallel=parallel), folder / name, loss_function=function, progress=False)
        except (TrainingInterrupted, FloatingPointError) as error:
            ends[name] = str(error)
    train(config, folder / "stopped", resume=True, progress=False)
    return ends


def in_three(folder: str) -> None:
    torch.set_num_threads(1)
    with process_group() as world:
        found = scores_of(ONE, 13)
        torch.save(found, Path(folder) / f"found{world.rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    assert finish(*start_world(2, in_two, str(folder))) == [0, 0]
    return {**torch.load(folder / "found.pt", weights_only=False), "folder": folder}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_close(ours: tuple[dict, float], theirs: tuple[dict, float]) -> None:
    """The gradients, and what was minimised, to the rounding of floats."""
    assert ours[1] == pytest.approx(theirs[1], rel=1e-5)
    assert set(ours[0]) == set(theirs[0])
    norm = torch.stack([g.norm() for g in theirs[0].values()]).norm()
    difference = torch.stack([(ours[0][name] - gradient).norm() for name, gradient in theirs[0].items()]).norm()
    assert difference < 1e-6 * norm


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("config", [SUMS, MEANS], ids=["sum", "batch_mean"])
def test_two_processes_are_one_with_twice_the_batch(config, kind, two):
    reduction = config.loss.reduction
    alone = gradients(with_train(config, batch_size=8))
    assert_close(two[kind, reduction], alone)
    assert_close(two[kind, reduction, 2], alone)
    other = gradients(with_train(config, batch_size=4))  # the test sees the difference
    with pytest.raises(AssertionError):
        assert_close(other, alone)
    uneven = gradients(with_train(config, batch_size=8), unevenly_labelled)
    assert_close(two[kind, reduction, "uneven"], uneven)
    with pytest.raises(AssertionError):
        assert_close(uneven, alone)


@pytest.mark.parametrize("config", [SUMS, MEANS], ids=["sum", "batch_mean"])
@pytest.mark.parametrize("change", [lambda batch: batch, unevenly_labelled], ids=["even", "uneven"])
def test_accumulated_batches_are_one_large_batch(config, change):
    alone = gradients(with_train(config, batch_size=8), change)
    assert_close(gradients(with_train(config, batch_size=4, accumulate=2), change), alone)
    assert_close(gradients(with_train(config, batch_size=2, accumulate=4), change), alone)


@pytest.mark.parametrize("config", [SUMS, MEANS], ids=["sum", "batch_mean"])
def test_a_batch_that_lost_samples_counts_for_less(config):
    """Five samples and three are eight."""
    batch = next(
        iter(loader_of(open_data(config.data, config, train=True), with_train(config, batch_size=8), train=True))
    )
    found = []
    for sizes in ([8], [5, 3]):
        torch.manual_seed(0)
        engine = Engine(
            UTNet(config.model).train(),
            UTNetLoss.from_config(config.loss),
            replace(config.train, accumulate=len(sizes)),
            config.loss,
        )
        ends = np.cumsum([0, *sizes]).tolist()
        parts = [
            replace(batch.map(lambda tensor, a=a, b=b: tensor[a:b]), keys=batch.keys[a:b]) for a, b in pairwise(ends)
        ]
        found.append(gradients_of(engine, parts))
    assert_close(*found)


def test_accumulation_trains_as_a_large_batch_does(tmp_path):
    for size, number in ((8, 1), (4, 2)):
        train(with_train(SUMS, batch_size=size, accumulate=number, lr=1e-4), tmp_path / str(number), progress=False)
    for (step, _, name, a), (*_, b) in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert float(b) == pytest.approx(float(a), rel=2e-3), (step, name)


@pytest.mark.parametrize("limit", [2, 13])
@pytest.mark.parametrize("parts", [False, True], ids=["whole", "fsdp"])
def test_two_processes_score_every_sample_once_and_alike(limit, parts, two):
    """Thirteen samples in batches of four: the second process has one batch fewer, of two samples it has none."""
    alone = scores_of(ONE, limit)
    together = two[("scores", limit, "parts") if parts else ("scores", limit)]
    assert together["keys"] == alone["keys"]
    assert len(set(alone["keys"])) == limit
    assert torch.equal(together["joints"], alone["joints"])
    assert together["scores"] == alone["scores"]


def test_three_processes_find_the_same(tmp_path):
    assert finish(*start_world(3, in_three, str(tmp_path))) == [0, 0, 0]
    alone = scores_of(ONE, 13)
    for rank in range(3):
        found = torch.load(tmp_path / f"found{rank}.pt", weights_only=False)
        assert found["scores"] == alone["scores"]
        assert torch.equal(found["joints"], alone["joints"])


def test_a_run_of_two_processes_in_parts_is_stopped_and_resumed(two):
    """FSDP: its optimiser and mean are kept whole. A signal to one process stops both, after one step."""
    whole_run, stopped = two["folder"] / "whole", two["folder"] / "stopped"
    assert ["stopped after step 3;" in ends["stopped"] for ends in two["ends"]] == [True, True]
    assert_same(stopped, whole_run)
    about = json.loads((whole_run / "run.json").read_text())
    assert (about["processes"], about["parallel"]) == (2, "fsdp")


def test_one_process_goes_on_with_what_two_wrote_in_parts(two, tmp_path):
    workdir = Path(shutil.copytree(two["folder"] / "whole", tmp_path / "run"))
    before = load_file(workdir / "last" / WEIGHTS)
    train(with_train(Config.load(workdir / "config.yaml"), steps=7), workdir, resume=True, progress=False)
    after = load_file(workdir / "last" / WEIGHTS)
    assert 0 < max(float((after[name] - before[name]).abs().max()) for name in after) < 0.1
    entries = load_file(workdir / "last" / TRAINING)
    assert {int(value) for name, value in entries.items() if name.startswith("optimiser/step/")} == {7}


@pytest.mark.parametrize("name", ["steep", "steep ddp"])
def test_a_gradient_that_is_not_finite_stops_all_processes(name, two):
    """The loss is finite, and so is every number of the gradient: its norm is not."""
    assert ["the gradient's norm is inf, of a loss of" in ends[name] for ends in two["ends"]] == [True, True]
    report = json.loads((two["folder"] / name / "bad_batch.json").read_text())
    assert report["keys"] == [f"synth/0/{i}" for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert not (two["folder"] / name / "last").exists()


def test_a_loss_that_is_not_finite_in_one_process_stops_all(two):
    workdir = two["folder"] / "broken"
    assert ["bad_batch.json" in ends["broken"] for ends in two["ends"]] == [True, True]
    assert json.loads((workdir / "bad_batch.json").read_text())["keys"] == [f"synth/0/{i}" for i in (1, 3, 5, 7)]
    assert not (workdir / "last").exists()
