"""The loop: it learns, repeats itself to the bit, takes any loss, and says what is wrong with its input."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from support.loaders import loader_of
from support.mano_files import random_mano, write_mano
from utnet.checkpoint import load_checkpoint
from utnet.config import Config, DataConfig, LossConfig, ModelConfig, TrainConfig, override
from utnet.data import open_source
from utnet.data.sources import open_data, open_validation
from utnet.errors import InputError
from utnet.evaluation.validation import constant_hand, evaluate, predict_joints, scorable_inputs
from utnet.geometry import project
from utnet.losses import UTNetLoss
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.synth.write_dexycb import write_dexycb
from utnet.training.ema import EMA
from utnet.training.loop import selection_score, train
from utnet.training.optimizer import learning_rate, progress_of

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "loss_curve.json"
VAL = DataConfig(limit=16)
SMALL = Config(
    val=VAL,
    model=ModelConfig(size_px=64),
    loss=LossConfig(w_joint_map=0.02, w_joint_heat=0.005, w_global_orient=0.002),
    train=TrainConfig(steps=20, batch_size=8, lr=1e-3, warmup_steps=5, num_workers=0, log_every=1, eval_every=100),
)


def with_train(config, **changes):
    return replace(config, train=replace(config.train, **changes))


def curve(workdir, name="total_loss", split="train"):
    with (workdir / "metrics.csv").open() as file:
        return [float(r["value"]) for r in csv.DictReader(file) if (r["split"], r["name"]) == (split, name)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("golden") / "run"
    return workdir, train(SMALL, workdir, progress=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree") / "dexycb"
    write_dexycb(root, num=64, seed=5, progress=False)
    return root


def test_loss_curve_is_the_golden_one(run):
    """Twenty steps from seed 0. Machines round differently, and the difference grows: 1 % at the end."""
    assert curve(run[0]) == pytest.approx(json.loads(GOLDEN.read_text())["total_loss"], rel=0.01)


def test_it_learns(run):
    losses = curve(run[0])
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])


def test_run_folder_is_complete_and_its_checkpoint_scores_as_reported(run):
    workdir, result = run
    names = {path.name for path in workdir.iterdir()}
    assert {"config.yaml", "run.json", "metrics.csv", "last", "best"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert Config.load(workdir / "config.yaml") == SMALL
    model, config = load_checkpoint(workdir / "best")
    assert config == SMALL
    again = evaluate(model, open_validation(config), config.crop, config.train)
    assert again == result["metrics"] == json.loads((workdir / "best" / "run.json").read_text())["metrics"]
    assert again["num"] == 16


def test_same_seed_same_weights_whatever_the_workers(run, tmp_path):
    train(with_train(SMALL, num_workers=2), tmp_path / "again", progress=False)
    first, second = (load_checkpoint(folder / "last")[0].state_dict() for folder in (run[0], tmp_path / "again"))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_trains_from_a_tree_on_disk(tree, tmp_path):
    data = DataConfig(name="dexycb", root=str(tree))
    config = replace(SMALL, data=data, val=replace(data, split="val"))
    result = train(with_train(config, steps=6), tmp_path / "run", progress=False)
    losses = curve(tmp_path / "run")
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    assert result["metrics"]["num"] == len(open_source("dexycb", tree, split="val"))
    assert set(result["metrics"]) == {"num", "num_expected", "constant", "rgb", "rgbd"}


def mean_reduced_absolute(predictions, targets):
    """A loss of the old kind: means, and joints in absolute camera coordinates."""
    joints = predictions.joints_m + predictions.cam_t[:, None]
    loss_3d = (joints - targets.joints_3d[..., :3]).abs().mean()
    loss_2d = (predictions.joints_crop - targets.joints_2d[..., :2]).abs().mean()
    return {"loss_2d": loss_2d, "loss_3d_joint": loss_3d, "total_loss": loss_2d + loss_3d}


def test_the_same_trainer_runs_with_another_loss(tmp_path):
    config = with_train(SMALL, steps=3)
    train(config, tmp_path / "old", loss_function=mean_reduced_absolute, progress=False)
    assert len(curve(tmp_path / "old", "loss_3d_joint")) == 3
    assert not curve(tmp_path / "old", "loss_joint_map")
    train(config, tmp_path / "new", progress=False)
    assert curve(tmp_path / "old") != curve(tmp_path / "new")


@pytest.mark.parametrize("name", ["w_2d", "w_3d_joint", "w_prior", "w_aux", "w_global_orient", "w_joint_map"])
def test_a_changed_weight_in_the_yaml_changes_exactly_its_term(name, tmp_path):
    torch.manual_seed(0)
    batch = next(iter(loader_of(open_data(SMALL.data, SMALL, train=True), SMALL, train=True)))
    prediction = UTNet(SMALL.model).eval().forward_batch(batch)
    losses = []
    for factor in (1, 3):
        path = tmp_path / f"{factor}.yaml"
        override(SMALL, [f"loss.{name}={getattr(SMALL.loss, name) * factor}"]).save(path)
        losses.append(UTNetLoss.from_config(Config.load(path).loss)(prediction, batch))
    plain, changed = losses
    term = "loss_" + name.removeprefix("w_")
    assert {key for key in plain if key != "total_loss" and not torch.equal(plain[key], changed[key])} == set()
    grown = plain["total_loss"] + 2 * getattr(SMALL.loss, name) * plain[term]
    torch.testing.assert_close(changed["total_loss"], grown, rtol=1e-5, atol=0)
    assert plain[term] > 0


def test_train_py_is_utnet_train(tmp_path):
    path = tmp_path / "tiny.yaml"
    with_train(SMALL, steps=2).save(path)
    for command, out in (
        ([sys.executable, "train.py", "--config", str(path)], "script"),
        ([sys.executable, "-m", "utnet", "train", str(path)], "command"),
    ):
        done = subprocess.run([*command, "--out", str(tmp_path / out)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert curve(tmp_path / "script") == curve(tmp_path / "command")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_samples(tmp_path):
    def broken(predictions, targets):
        return {"total_loss": predictions.joints_m.sum() * torch.nan}

    with pytest.raises(FloatingPointError, match=r"bad_batch\.json"):
        train(SMALL, tmp_path / "run", loss_function=broken, progress=False)
    keys = json.loads((tmp_path / "run" / "bad_batch.json").read_text())["keys"]
    assert keys == [f"synth/0/{i}" for i in range(8)]


class NoNumber(torch.autograd.Function):
    """The identity, with a gradient that is `value`."""

    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.value, None


@pytest.mark.parametrize(("clip_grad", "value"), [(1.0, torch.nan), (0.0, torch.inf)])
def test_a_gradient_that_is_not_finite_stops_the_run_before_it_does_harm(clip_grad, value, tmp_path):
    loss, calls = UTNetLoss.from_config(SMALL.loss), []

    def broken(predictions, targets):
        calls.append(1)
        terms = loss(predictions, targets)
        return {**terms, "total_loss": NoNumber.apply(terms["total_loss"], value if len(calls) == 3 else 1.0)}

    config = with_train(SMALL, steps=4, save_every=1, clip_grad=clip_grad)
    with pytest.raises(FloatingPointError, match=r"the gradient's norm is (nan|inf), of a loss of \d.*bad_batch\.json"):
        train(config, tmp_path / "run", loss_function=broken, progress=False)
    report = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert report["keys"] == [f"synth/0/{i}" for i in range(16, 24)]
    assert np.isfinite(report["terms"]["total_loss"])
    load_checkpoint(tmp_path / "run" / "last")  # which refuses NaN
    train(config, tmp_path / "run", resume=True, progress=False)
    train(config, tmp_path / "whole", progress=False)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_speed_is_that_of_learning(tmp_path, monkeypatch):
    """Of the steps since the last row, validations left out; seconds are all that passed."""
    clock, loss = SimpleNamespace(now=0.0), UTNetLoss.from_config(SMALL.loss)

    def learns(predictions, targets):
        clock.now += 2.0
        return loss(predictions, targets)

    def validates(*args, **options):
        clock.now += 100.0
        return evaluate(*args, **options)

    monkeypatch.setattr("utnet.training.loop.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("utnet.training.loop.evaluate", validates)
    config = with_train(SMALL, steps=4, log_every=2, eval_every=1, pictures=0)
    result = train(config, tmp_path / "run", loss_function=learns, progress=False)
    assert curve(tmp_path / "run", "samples_per_s") == [4.0, 4.0]
    assert result["seconds"] == 4 * 2.0 + 3 * 100.0  # the fourth validation comes after the last step


def test_bad_input_is_refused_before_anything_is_written(run, tree, tmp_path):
    with pytest.raises(InputError, match="contains a run"):
        train(SMALL, run[0], progress=False)
    for data, message in (
        (DataConfig(name="dexycb", root=str(tmp_path / "none")), "no such folder"),
        (DataConfig(name="dexycb", root=str(tree), split="holdout"), "holdout"),
        (DataConfig(name="dexicb", root=str(tree)), "dexicb"),
    ):
        with pytest.raises(InputError, match=message):
            train(replace(SMALL, data=data), tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_does_not_block_the_next(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    train(with_train(SMALL, steps=1), tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="contains a run"):
        train(with_train(SMALL, steps=1), tmp_path / "run", progress=False)


def test_validation_belongs_to_the_training_data(tree):
    data = DataConfig(name="dexycb", root=str(tree))
    assert open_validation(Config(data=data)).name == "dexycb"
    assert open_validation(Config(data=data)).split == "val"
    assert open_validation(Config()).name == "synth"
    with pytest.raises(InputError, match="no official validation split"):
        open_validation(Config(data=DataConfig(name="ho3d", root=str(tree))))
    with pytest.raises(InputError, match="is not set"):
        open_data(DataConfig(root=str(tree)), Config(), train=True)


def test_evaluation_refuses_a_part_of_a_split(tree, tmp_path):
    source = open_source("dexycb", tree, split="test")
    model = UTNet(SMALL.model)
    scores = evaluate(model, source, SMALL.crop, SMALL.train)
    assert scores["num"] == len(source)
    broken = tmp_path / "broken"
    write_dexycb(broken, num=16, seed=6, split="test", progress=False)
    picture = next(iter(sorted(broken.glob("*/*/*/color_*.jpg"))))
    picture.write_bytes(picture.read_bytes()[:500])
    with pytest.raises(InputError, match=picture.name):
        evaluate(model, open_source("dexycb", broken, split="test"), SMALL.crop, SMALL.train)


class Partly:
    """Held-out hands: every second one without 3D labels, and of the others every second one without depth."""

    name, tips, counts = "partly", "", {}

    def __init__(self, indices):
        self.source, self.indices = open_validation(SMALL), list(indices)

    def __len__(self):
        return len(self.indices)

    def key(self, index):
        return self.source.key(self.indices[index])

    def __getitem__(self, index):
        number = self.indices[index]
        sample = self.source[number]
        if number % 2:
            points = project(sample.joints_cam_m, sample.K_px)
            return replace(sample, joints_3d_conf=np.zeros(21, np.float32), joints_px=points)
        return replace(sample, depth_m=None) if number % 4 else sample


def test_scores_are_over_the_samples_that_can_be_scored():
    model = UTNet(SMALL.model)
    source = Partly(range(12))
    scores = evaluate(model, source, SMALL.crop, SMALL.train, inputs=scorable_inputs(source))
    assert (scores["num"], scores["num_expected"], scores["rgb"]["num"], scores["rgbd"]["num"]) == (6, 12, 6, 3)
    for name, step in (("rgb", 2), ("rgbd", 4)):
        alone = evaluate(model, Partly(range(0, 12, step)), SMALL.crop, SMALL.train, inputs=(name,))[name]
        assert scores[name] == pytest.approx(alone, rel=1e-5)
    assert scorable_inputs(Partly([1, 3, 2])) == ("rgb",)
    with pytest.raises(InputError, match=r"none of the 2 samples"):
        scorable_inputs(Partly([1, 3]))
    with pytest.raises(InputError, match=r"none of 2 samples has a depth image and joints labelled in 3D"):
        evaluate(model, Partly([2, 3]), SMALL.crop, SMALL.train, inputs=("rgb", "rgbd"))


def test_a_run_says_what_it_trains_on_and_what_it_skipped(tmp_path, capsys):
    hand = SyntheticHands(seed=1)[0]
    line = {"side": "right", "joints_3d": hand.joints_cam_m.tolist(), "K": hand.K_px.tolist()}
    lines = [{**line, "image": f"{i}.png", "split": "val" if i == 3 else "train"} for i in range(4)]
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full_like(hand.rgb, 90))
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "hands.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = with_train(replace(SMALL, data=DataConfig(name="custom", root=str(tmp_path)), val=None), steps=2)
    val = replace(config.data, split="val")
    train(replace(config, val=val), tmp_path / "run")
    said = capsys.readouterr().out
    assert "training on custom train (3 samples), validating on custom val (1 sample)" in said
    assert "skipped 1 sample that cannot be read" in said
    assert "1.png: not an image" in said


def test_scores_do_not_depend_on_the_batch_size():
    model, source = UTNet(SMALL.model), open_validation(SMALL)
    whole = predict_joints(model, source, SMALL.crop, SMALL.train)
    parts = predict_joints(model, source, SMALL.crop, replace(SMALL.train, batch_size=3))
    for name in ("rgb", "rgbd"):
        torch.testing.assert_close(whole[name].pred_m, parts[name].pred_m, atol=1e-5, rtol=1e-4)
        assert whole[name].keys == parts[name].keys == tuple(source.key(i) for i in range(16))
    assert not torch.equal(whole["rgb"].pred_m, whole["rgbd"].pred_m)


def test_no_constant_beats_the_best_constant_hand():
    gt = open_validation(SMALL)
    joints = torch.stack([torch.from_numpy(np.asarray(gt[i].joints_cam_m)).double() for i in range(16)])
    best = constant_hand(joints)["mpjpe_mm"]
    relative = joints - joints[:, :1]
    for other in (relative.mean(0), relative.median(0).values, relative[3]):
        error = (relative - other).norm(dim=-1).mean().item() * 1000
        assert best <= error + 1e-6


def test_schedule_warms_up_and_ends_low():
    config = Config(train=TrainConfig(steps=100, lr=1.0, min_lr=0.01, warmup_steps=10))
    rates = [learning_rate(progress_of(step, 0.0, config.train), step, config.train) for step in range(100)]
    assert rates[0] == pytest.approx(0.109, abs=0.001)
    assert max(rates) == rates[9]
    assert all(a >= b for a, b in pairwise(rates[9:]))
    assert rates[-1] < 0.012
    timed = replace(config, train=replace(config.train, minutes=1.0))
    assert progress_of(10, 30.0, timed.train) == 0.5


def test_selection_is_the_mean_of_both_errors_over_both_inputs():
    scores = {"rgb": {"mpjpe_mm": 40.0, "pa_mpjpe_mm": 20.0}, "rgbd": {"mpjpe_mm": 20.0, "pa_mpjpe_mm": 10.0}}
    assert selection_score(scores) == 22.5


def test_a_running_mean_of_the_weights_is_what_is_scored_and_kept(tmp_path):
    config = with_train(SMALL, steps=4, ema=0.9)
    result = train(config, tmp_path / "mean", progress=False)
    best, _ = load_checkpoint(tmp_path / "mean" / "best")
    last, _ = load_checkpoint(tmp_path / "mean" / "last")
    kept = load_file(tmp_path / "mean" / "last" / "training.safetensors")
    assert evaluate(best, open_validation(config), config.crop, config.train) == result["metrics"]
    for name, parameter in best.named_parameters():
        assert torch.equal(parameter, kept[f"mean/{name}"])
    train(with_train(SMALL, steps=4), tmp_path / "plain", progress=False)
    plain, _ = load_checkpoint(tmp_path / "plain" / "last")
    for name, parameter in plain.named_parameters():  # the mean is watched, it changes nothing
        assert torch.equal(parameter, last.get_parameter(name))


def test_the_mean_is_what_its_rule_says():
    layer = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 1.0)
    mean, expected = EMA(layer, 0.5), 1.0
    for step in range(1, 30):
        torch.nn.init.constant_(layer.weight, float(step))
        mean.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert mean.shadow["weight"].tolist() == [pytest.approx([expected] * 2, rel=1e-5)]
    with mean.applied():
        assert layer.weight[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert layer.weight[0, 0].item() == 29.0


def test_a_run_starts_from_a_checkpoint_of_the_same_network(run, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(run[0] / "best", start)
    config = with_train(SMALL, steps=1, lr=1e-9, init_from=str(start))
    result = train(config, tmp_path / "run", progress=False)
    assert result["metrics"]["rgbd"]["mpjpe_mm"] == pytest.approx(run[1]["best"]["rgbd"]["mpjpe_mm"], rel=1e-3)
    assert "entries loaded" in json.loads((tmp_path / "run" / "run.json").read_text())["init"][0]
    more = replace(config, model=replace(SMALL.model, uncertainty=True), loss=LossConfig(w_uncertainty=0.1))
    assert train(more, tmp_path / "more", progress=False)["metrics"]["rgbd"] == pytest.approx(
        result["metrics"]["rgbd"], rel=1e-3
    )
    other = replace(config, model=ModelConfig(size_px=96))
    with pytest.raises(InputError, match=r"size_px is 96 instead of 64"):
        train(other, tmp_path / "other", progress=False)


def test_a_network_with_manos_hand_learns_manos_parameters(tmp_path):
    """From its file, and from a checkpoint that holds it; the loader gives the labels of that hand."""
    mano = write_mano(tmp_path / "MANO_RIGHT.pkl", random_mano())
    config = replace(with_train(SMALL, steps=1), model=ModelConfig(size_px=64, mano=str(mano)))
    train(config, tmp_path / "run", progress=False)
    model, _ = load_checkpoint(tmp_path / "run" / "best")
    assert (model.hand.name, model.hand.num_vertices) == ("mano", 778)
    mano.unlink()
    again = replace(SMALL, train=replace(config.train, init_from=str(tmp_path / "run" / "best")))
    train(again, tmp_path / "again", progress=False)
    assert load_checkpoint(tmp_path / "again" / "last")[0].hand.name == "mano"
    assert curve(tmp_path / "again", "loss_hand_pose") == [0.0]  # synthetic hands are labelled with the open hand's
    with pytest.raises(InputError, match=r"MANO_RIGHT\.pkl"):
        train(config, tmp_path / "gone", progress=False)


@pytest.mark.parametrize("collapse", [0.0, 1e-12])
def test_a_degenerate_network_gets_numbers_or_a_named_error(collapse, monkeypatch):
    """All joints in one point, or nearly; and joints that are no numbers."""
    model, source = UTNet(SMALL.model), open_validation(SMALL)
    whole = UTNet.forward_batch

    def changed(factor):
        def forward_batch(self, *args, **options):
            out = whole(self, *args, **options)
            return replace(out, joints_m=out.joints_m * factor)

        monkeypatch.setattr(UTNet, "forward_batch", forward_batch)

    changed(collapse)
    scores = evaluate(model, source, SMALL.crop, SMALL.train)
    for name in ("rgb", "rgbd"):
        row = scores[name]
        assert all(np.isfinite(value) for value in row.values())
        assert row["mpjpe_mm"] > 20
        assert row["pa_mpjpe_mm"] > 5
    assert np.isfinite(selection_score(scores))
    changed(torch.nan)
    with pytest.raises(FloatingPointError, match=r"^synth/\d+/0: .*NaN"):
        evaluate(model, source, SMALL.crop, SMALL.train)


def test_tensorboard_has_curves_and_pictures(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run[0])).Reload()
    assert {"train/total_loss", "train/lr", "val/rgbd/mpjpe_mm"} <= set(events.Tags()["scalars"])
    (picture,) = events.Images("val/predictions")
    image = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (picture.height, picture.width, 3)
    assert image.shape[0] > 8 * 160
    assert image.std() > 10


@pytest.mark.long
@pytest.mark.timeout(3600)  # a C++ compiler has minutes to do, and more on a busy machine
def test_a_compiled_network_trains_alike(tmp_path):
    """Without dropped depth: compiled code has random numbers of its own."""
    config = replace(with_train(SMALL, steps=4), model=ModelConfig(size_px=64, p_drop=0.0))
    train(config, tmp_path / "eager", progress=False)
    train(with_train(config, compile=True), tmp_path / "compiled", progress=False)
    assert curve(tmp_path / "compiled") == pytest.approx(curve(tmp_path / "eager"), rel=1e-3)
