"""The study of the losses: what it says of (a), (b) and (c) holds on small numbers, and all of it runs."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

EXAMPLES = str(Path(__file__).parents[2] / "examples")
sys.path.insert(0, EXAMPLES)
import loss_study  # noqa: E402
from loss_study import LOSSES, QUICK, Run, code_hash, load_data, new_model, score, study, take, train_one  # noqa: E402
from loss_study_losses import (  # noqa: E402
    WILOR_PARAMETER_WEIGHTS,
    absolute_joints_m,
    aligned_loss,
    former_loss,
    occluded,
    translated,
    wilor_loss,
    wrong_wrist,
)

sys.path.remove(EXAMPLES)

from utnet.conventions import NOMINAL_FOCAL  # noqa: E402
from utnet.geometry import project, px_to_crop  # noqa: E402

KEYS = ("loss_2d", "loss_3d_joint", "total_loss")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def hands(work):
    torch.set_num_threads(1)
    return load_data(work, QUICK)


@pytest.fixture(scope="module")
def predicted(hands):
    """An untrained network's answer to all training hands, with gradients."""
    return new_model(hands[0], 0).forward_batch(hands[0], with_vertices=False)


def gradient(loss, prediction, batch):
    """With respect to everything that a joint loss can read of a prediction."""
    leaves = [prediction.joints_m, prediction.joints_crop, prediction.cam]
    found = torch.autograd.grad(loss(prediction, batch)["total_loss"], leaves, retain_graph=True, allow_unused=True)
    return torch.cat([torch.zeros(1) if g is None else g.flatten() for g in found])


def rng():
    return np.random.default_rng(5)


def test_b_and_c_are_one_curve(hands):
    budget = replace(QUICK, samples=24)
    b, c = (train_one(Run(loss, batch_size=4), *hands, budget)["curve"] for loss in ("aligned", "wilor"))
    assert len(b["total_loss"]) == 6
    for key in KEYS:
        np.testing.assert_allclose(b[key], c[key], rtol=2e-5)
    assert b["total_loss"][0] != b["total_loss"][-1]


def test_b_and_c_agree_with_all_terms_and_any_confidence(hands, predicted):
    number = torch.arange(len(hands[0]))
    batch = replace(hands[0], params_ok=number % 3 > 0, betas_ok=number % 2 > 0, joints_2d=hands[0].joints_2d.clone())
    batch.joints_2d[..., 2] = torch.from_numpy(rng().uniform(0, 2, batch.joints_2d.shape[:2]))
    batch = occluded(batch, rng())
    ours = aligned_loss(weights={f"w_{k}": v for k, v in WILOR_PARAMETER_WEIGHTS.items()})(predicted, batch)
    theirs = wilor_loss(**WILOR_PARAMETER_WEIGHTS)(predicted, batch)
    assert set(theirs) == {*KEYS, *(f"loss_{name}" for name in WILOR_PARAMETER_WEIGHTS)}
    for name in theirs:
        assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-5)
    torch.testing.assert_close(
        gradient(LOSSES["aligned"], predicted, batch), gradient(LOSSES["wilor"], predicted, batch)
    )


def test_moving_the_labels_moves_a_and_not_b(hands, predicted):
    moved = translated(hands[0], rng(), reach_m=0.1)
    assert (moved.joints_3d - hands[0].joints_3d)[..., :3].abs().max() > 0.05
    b, a = LOSSES["aligned"], LOSSES["former_m"]
    values = [b(predicted, batch)["loss_3d_joint"].item() for batch in (hands[0], moved)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    values = [a(predicted, batch)["loss_3d_joint"].item() for batch in (hands[0], moved)]
    assert abs(values[1] / values[0] - 1) > 0.01


def test_sums_grow_with_the_batch_and_means_do_not(hands, predicted):
    twice = hands[0].map(lambda tensor: torch.cat([tensor, tensor]))
    twice = replace(twice, keys=hands[0].keys * 2)
    both = replace(predicted, coarse=None).map(lambda tensor: torch.cat([tensor, tensor]))
    for name, factor in (("aligned", 2), ("wilor", 2), ("aligned_mean", 1), ("former_m", 1)):
        once, now = LOSSES[name](predicted, hands[0]), LOSSES[name](both, twice)
        for key in KEYS:
            assert now[key].item() == pytest.approx(factor * once[key].item(), rel=1e-5), (name, key)
    total = LOSSES["aligned"](predicted, hands[0])["loss_2d"] / LOSSES["former_m"](predicted, hands[0])["loss_2d"]
    assert total.item() == pytest.approx(len(hands[0]) * 21 * 2, rel=1e-5)  # where all confidences are 1


def test_wrong_labels_of_confidence_0_reach_a_and_not_b(hands, predicted):
    wrong = occluded(hands[0], rng())
    hidden = wrong.joints_3d[..., 3] == 0
    assert hidden.sum(1).eq(8).all()
    assert not hidden[:, 0].any()
    assert torch.equal(hidden, wrong.joints_2d[..., 2] == 0)
    difference = (wrong.joints_3d - hands[0].joints_3d)[..., :3].norm(dim=-1)
    assert difference[hidden].median() > 0.01
    assert difference[~hidden].max() == 0
    # the same confidences with the right labels: what a wrong label adds is the difference
    right = replace(
        wrong,
        joints_2d=torch.cat([hands[0].joints_2d[..., :2], wrong.joints_2d[..., 2:]], -1),
        joints_3d=torch.cat([hands[0].joints_3d[..., :3], wrong.joints_3d[..., 3:]], -1),
    )
    for name, touched in (("aligned", False), ("wilor", False), ("former_m", True), ("aligned_no_conf", True)):
        loss = LOSSES[name]
        same = torch.equal(gradient(loss, predicted, wrong), gradient(loss, predicted, right))
        assert same != touched, name
        assert (loss(predicted, wrong)["total_loss"] == loss(predicted, right)["total_loss"]) != touched, name


def test_a_wrong_wrist_of_confidence_0_reaches_b_as_it_reaches_wilor(hands, predicted):
    wrong = wrong_wrist(hands[0], rng())
    moved = (wrong.joints_3d - hands[0].joints_3d)[..., :3].norm(dim=-1)
    torch.testing.assert_close(moved[moved > 0], torch.full_like(moved[moved > 0], 0.05), rtol=1e-4, atol=0)
    values = [LOSSES[name](predicted, wrong)["loss_3d_joint"].item() for name in ("aligned", "wilor")]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert values[0] > 1.05 * LOSSES["aligned"](predicted, hands[0])["loss_3d_joint"].item()


def test_labels_keep_their_source(hands):
    before = hands[0].joints_3d.clone(), hands[0].joints_2d.clone()
    for change in (translated, occluded, wrong_wrist):
        change(hands[0], rng())
    assert torch.equal(before[0], hands[0].joints_3d)
    assert torch.equal(before[1], hands[0].joints_2d)


def test_the_unit_scales_a_by_its_square_and_b_linearly(hands, predicted):
    metres, millimetres = (former_loss(units_per_m=u)(predicted, hands[0]) for u in (1.0, 1000.0))
    assert millimetres["loss_3d_joint"].item() == pytest.approx(1e6 * metres["loss_3d_joint"].item(), rel=1e-4)
    assert millimetres["loss_2d"] == metres["loss_2d"]
    metres, millimetres = (LOSSES[name](predicted, hands[0]) for name in ("aligned", "aligned_mm"))
    assert millimetres["loss_3d_joint"].item() == pytest.approx(1e3 * metres["loss_3d_joint"].item(), rel=1e-4)


def test_absolute_positions_are_in_the_labels_camera(hands, predicted):
    """Seen by the true camera they fall where the network's own camera puts them, but for what a hand's depth does."""
    batch = hands[0]
    absolute = absolute_joints_m(predicted, batch.K_px, loss_study.SIZE_PX)
    wrist_free = predicted.joints_m - predicted.joints_m.mean(1, keepdim=True)
    assert torch.allclose(absolute - absolute.mean(1, keepdim=True), wrist_free, atol=1e-5)  # moved, not turned
    flat = replace(predicted, joints_m=predicted.joints_m * torch.tensor([1.0, 1.0, 0.0]))  # a plane: no depth in it
    seen = px_to_crop(project(absolute_joints_m(flat, batch.K_px, loss_study.SIZE_PX), batch.K_px), loss_study.SIZE_PX)
    nominal = NOMINAL_FOCAL * (flat.joints_m + predicted.cam_t[:, None])[..., :2] / predicted.cam_t[:, None, 2:]
    torch.testing.assert_close(seen, nominal, rtol=1e-3, atol=2e-3)


def test_scores_of_a_perfect_answer_are_zero_and_of_nan_are_none(hands, predicted):
    class Answer(torch.nn.Module):
        def forward_batch(self, batch, **_):
            s = 2 * (batch.K_px[:, :1, 0] / loss_study.SIZE_PX) / batch.params.transl_m[:, 2:]
            axis = px_to_crop(batch.K_px[:, :2, 2], loss_study.SIZE_PX)
            cam = torch.cat([s, batch.params.transl_m[:, :2] + 2 * axis / s], 1)
            joints = batch.joints_3d[..., :3] - batch.params.transl_m[:, None] + self.error
            return replace(
                predicted, joints_m=joints, joints_crop=batch.joints_2d[..., :2], cam=cam, joint_map=None, coarse=None
            )

    model = Answer()
    model.error = 0.0
    scores = score(model, hands[1])
    assert scores["mpjpe_mm"] < 1e-3
    assert scores["absolute_mm"] < 1.0  # fx and fy of a turned crop differ by a hair
    assert scores["image_px"] == 0
    model.error = float("nan")
    assert set(score(model, hands[1]).values()) == {None}


def test_batches_of_any_size_see_the_same_samples(hands):
    budget = replace(QUICK, samples=48)
    orders = []
    for size in (4, 8):
        parts = loss_study.batches(hands[0], Run("aligned", batch_size=size), budget)
        orders.append([key for batch in parts for key in batch.keys])
    assert orders[0] == orders[1]
    assert sorted(orders[0][:24]) == sorted(hands[0].keys)


def test_the_whole_study_runs_and_goes_on_where_it_stopped(work, hands, monkeypatch):
    figures = work / "figures"
    study(work, figures, QUICK, progress=False)
    pictures = sorted(path.name for path in figures.glob("*.png"))
    assert len(pictures) == 5
    assert all(0 < path.stat().st_size < 150_000 for path in figures.glob("*.png"))
    tables = (work / "tables.md").read_text()
    assert "nan" not in tables.lower()
    victim = work / "runs" / f"{Run('aligned', batch_size=4).name}.json"
    kept = json.loads(victim.read_text())
    victim.unlink()
    trained = []
    monkeypatch.setattr(loss_study, "train_one", lambda run, *rest: trained.append(run) or train_one(run, *rest))
    study(work, figures, QUICK, progress=False)
    assert trained == [Run("aligned", batch_size=4)]
    again = json.loads(victim.read_text())
    assert again["curve"] == kept["curve"]
    assert again["scores"] == kept["scores"]
    monkeypatch.setattr(loss_study, "train_one", lambda run, *rest: trained.append(run) or again)
    monkeypatch.setattr(loss_study, "write_report", lambda *_: None)
    monkeypatch.setattr(loss_study, "RUN_CODE", ("losses/weighted.py",))  # as after an edit: other bytes
    trained.clear()
    study(work, figures, QUICK, progress=False)
    assert trained == loss_study.planned(QUICK)


def test_the_code_that_runs_came_from_is_part_of_their_key(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_study, "utnet", SimpleNamespace(__file__=str(tmp_path / "__init__.py")))
    (tmp_path / "model").mkdir()
    hashes = []
    for edited in ("losses.py", "model/encoder.py", "serve.py"):
        (tmp_path / "losses.py").touch()
        (tmp_path / edited).write_text(f"{edited}: a change")
        hashes.append(code_hash("losses.py", "model"))
    assert hashes[0] != hashes[1] == hashes[2]


def test_take_keeps_keys_and_labels_together(hands):
    few = take(hands[0], np.array([3, 1]))
    assert few.keys == (hands[0].keys[3], hands[0].keys[1])
    assert torch.equal(few.joints_3d[1], hands[0].joints_3d[1])
    assert torch.equal(few.params.betas[0], hands[0].params.betas[3])
