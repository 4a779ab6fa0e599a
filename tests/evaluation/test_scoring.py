"""Evaluation: scores equal utnet.metrics, protocols are reported, partial splits are refused, runs are compared."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from support.evaluations import CONFIG, Truth
from support.mano_files import random_mano, write_mano
from support.trees import copy_of, dexycb_tree, ho3d_tree
from utnet.checkpoint import save_checkpoint
from utnet.cli import evaluate_command as commands
from utnet.config import DataConfig
from utnet.conventions import MANO_TIP_VERTICES, SIDES, TIPS
from utnet.data import open_source
from utnet.distributed import ProcessInfo
from utnet.errors import InputError
from utnet.evaluation.compare import compare_lines, compare_runs
from utnet.evaluation.crops import VISIBILITY, CropDataset, crop_batches, visibility
from utnet.evaluation.passes import forward
from utnet.evaluation.placing import benchmark_tips, place
from utnet.evaluation.protocol import Protocol, read_boxes
from utnet.evaluation.rows import METRICS, sample_auc
from utnet.evaluation.saved_scores import load_run
from utnet.evaluation.scoring import _meshes, score_source
from utnet.evaluation.summary import bootstrap, clusters_of, summarise
from utnet.evaluation.validation import predict_joints, score
from utnet.hand import HandModel
from utnet.metrics import official_scores, pck_curve
from utnet.metrics.joints import area
from utnet.model import UTNet
from utnet.synth.source import SyntheticHands

RGB, RGBD = Protocol(depth=False), Protocol(depth=True)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return UTNet(CONFIG.model).eval()


@pytest.fixture(scope="module")
def source():
    return open_source("dexycb", dexycb_tree(), split="train", with_vertices=True, limit=18)


@pytest.fixture(scope="module")
def run(network, source):
    return score_source(network, source, CONFIG.crop, CONFIG.train, protocols=[RGB, RGBD])


def test_scores_are_those_of_the_metrics_on_gathered_arrays(network, source, run):
    for row in run.rows:
        joints, gt, vertices, gt_vertices = [], [], [], []
        for part in crop_batches(CropDataset(source, CONFIG.model.size_px, CONFIG.crop), CONFIG.train):
            placed = place(
                forward(network, part, use_depth=row.protocol.depth),
                part,
                network.hand,
                use_depth=row.protocol.depth,
            )
            joints += list(placed.joints_m + placed.transl_m)
            vertices += list(placed.vertices_m + placed.transl_m)
            gt += [crop.sample.joints_cam_m.astype(np.float64) for crop in part.crops]
            gt_vertices += [crop.sample.vertices_cam_m.astype(np.float64) for crop in part.crops]
        expected = official_scores(*(np.stack(x) for x in (joints, gt, vertices, gt_vertices)))
        found = {name: values.mean() for name, values in row.metrics.items()}
        for ours, theirs in (
            ("mpjpe_mm", "root_relative"),
            ("pa_mpjpe_mm", "procrustes"),
            ("st_mpjpe_mm", "scale_translation"),
            ("absolute_mpjpe_mm", "absolute"),
        ):
            assert found[ours] == pytest.approx(1000 * expected[f"joints/{theirs}"]["epe_mean_m"], abs=1e-9)
        assert found["auc"] == pytest.approx(expected["joints/root_relative"]["auc_0_50mm"], abs=1e-12)
        assert found["pa_auc"] == pytest.approx(expected["joints/procrustes"]["auc_0_50mm"], abs=1e-12)
        for ours, theirs in (("absolute", "absolute"), ("pa", "procrustes")):
            mesh = expected[f"mesh/{theirs}"]
            assert found[f"{ours}_pve_mm"] == pytest.approx(1000 * mesh["epe_mean_m"], abs=1e-9)
            assert found[f"{ours}_f5"] == pytest.approx(mesh["f5"], abs=1e-12)
            assert found[f"{ours}_f15"] == pytest.approx(mesh["f15"], abs=1e-12)
        medians = np.median(row.joints_mm["root"], axis=0).mean()
        assert 1000 * expected["joints/root_relative"]["epe_median_m"] == pytest.approx(medians, abs=1e-9)


def test_scores_are_those_of_the_training_loops_evaluation(network, source, run):
    theirs = predict_joints(network, source, CONFIG.crop, CONFIG.train)
    for row in run.rows:
        for name, value in score(theirs[row.protocol.input]).items():
            assert row.metrics[name].mean() == pytest.approx(value, rel=1e-5)
    assert tuple(run.rows[0].keys) == theirs["rgb"].keys


def test_a_samples_auc_is_the_curves_area():
    errors = np.random.default_rng(0).uniform(0, 70, (30, 21))
    errors[0, :3] = 0, 50, 50 / 99 * 7
    for sample, found in zip(errors, sample_auc(errors), strict=True):
        thresholds, fractions = pck_curve(sample[None])
        assert found == pytest.approx(area(fractions, thresholds) / 50, abs=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_shares_of_several_processes_are_the_whole(network, source, run, size):
    gathered = []

    class Rank(ProcessInfo):
        def gather(self, value):
            gathered.append(value)
            return [value]

    for rank in range(size):
        with pytest.raises(InputError, match="not reported"):
            score_source(
                network, source, CONFIG.crop, CONFIG.train, protocols=[RGB, RGBD], world=Rank(rank=rank, size=size)
            )

    class Last(ProcessInfo):
        def gather(self, value):
            return gathered

    whole = score_source(
        network, source, CONFIG.crop, CONFIG.train, protocols=[RGB, RGBD], world=Last(rank=size - 1, size=size)
    )
    for ours, theirs in zip(whole.rows, run.rows, strict=True):
        assert (ours.keys == theirs.keys).all()
        assert (ours.visibility == theirs.visibility).all()
        for name in METRICS:
            np.testing.assert_array_equal(ours.metrics[name], theirs.metrics[name])
        for name, errors in ours.joints_mm.items():
            np.testing.assert_array_equal(errors, theirs.joints_mm[name])


def test_the_truth_scores_zero(source):
    found = score_source(Truth(HandModel.open()), source, CONFIG.crop, CONFIG.train, protocols=[RGB])
    row = found.rows[0]
    for name in METRICS:
        expected, slack = (1.0, 0.0051) if METRICS[name].higher_is_better else (0.0, 0.05)
        assert row.metrics[name].mean() == pytest.approx(expected, abs=slack), name
    assert row.metrics["pa_mpjpe_mm"].max() < 1e-3


def test_parts_of_a_summary_add_up(run):
    row = run.rows[0]
    summary = summarise(row)
    assert summary["num"] == 18
    mean = summary["metrics"]["mpjpe_mm"]["mean"]
    for section in ("joints", "fingers", "visibility"):
        groups = summary[section].values()
        total = sum(group["num"] for group in groups)
        assert total == 18 * 21
        assert sum(g["num"] * g["mpjpe_mm"] for g in groups) / total == pytest.approx(mean)
    for section in ("sides", "sequences"):
        groups = summary[section].values()
        assert sum(group["num"] for group in groups) == 18
        assert sum(g["num"] * g["mpjpe_mm"] for g in groups) / 18 == pytest.approx(mean)
    assert set(summary["sides"]) == set(SIDES)
    for metric in summary["metrics"].values():
        assert metric["low"] <= metric["mean"] <= metric["high"]
    assert summary["not_reported"] == {}


def test_sides_are_the_labelled_ones(source, run):
    assert list(run.rows[0].sides) == [source[i].side for i in range(len(source))]


def test_visibility_is_judged_in_the_picture(source):
    sample = source[0]
    joints, K = sample.joints_cam_m.copy(), sample.K_px
    flat = replace(sample, depth_m=np.full(sample.rgb.shape[:2], joints[0, 2], np.float32))
    joints[:, 2] = joints[0, 2]
    joints[:4] = [[0, 0, joints[0, 2]]] * 4
    joints[1, 2] += 0.031  # behind the surface
    joints[2, 2] -= 0.05  # in front of the surface: unknown
    joints[3, 0] = 5.0
    names = [VISIBILITY[i] for i in visibility(replace(flat, joints_cam_m=joints, K_px=K))]
    assert names[:4] == ["visible", "hidden", "unknown", "outside"]
    blind = [VISIBILITY[i] for i in visibility(replace(flat, joints_cam_m=joints, depth_m=None))]
    assert blind[:4] == ["unknown", "unknown", "unknown", "outside"]


# ----------------------------------------------------------------------------------------------------------- protocols


def test_protocols_name_every_switch():
    labels = {
        Protocol(depth=d, boxes=b, joints=j).label
        for d in (True, False)
        for b in ("ground-truth", "det.json")
        for j in ("own", "benchmark")
    }
    assert len(labels) == 8
    for label in labels:
        for switch in ("boxes: ", "joints: ", "depth: ", "flips: none"):
            assert switch in label


def test_two_files_of_boxes_with_one_name_are_not_taken_for_one(source, tmp_path):
    paths = [tmp_path / folder / name for folder, name in (("a", "det.json"), ("b", "det.json"), ("b", "other.json"))]
    for i, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({source.key(0): [0, 0, 10, 10 + i]}))
    first, second, other = map(str, paths)
    with pytest.raises(InputError, match=r"a/det\.json .*b/det\.json: both rows would have the name det\.json; rename"):
        commands._protocols(source, (first, second), ("own",), "without", False)
    found, boxes = commands._protocols(source, (first, other, first), ("own",), "without", False)
    assert [protocol.boxes for protocol in found] == list(boxes) == ["det.json", "other.json"]


def test_detected_boxes_are_a_row_of_their_own(network, source):
    boxes = {source.key(i): source[i].box_px + [-6, 3, 4, 9] for i in range(len(source))}
    other = replace(RGB, boxes="det.json")
    same = replace(RGB, boxes="same.json")
    exact = {source.key(i): source[i].box_px for i in range(len(source))}
    rows = score_source(
        network,
        source,
        CONFIG.crop,
        CONFIG.train,
        protocols=[RGB, other, same],
        boxes={"det.json": boxes, "same.json": exact},
    ).rows
    assert [row.protocol for row in rows] == [RGB, other, same]
    assert "boxes: detected (det.json)" in rows[1].label
    np.testing.assert_array_equal(rows[0].metrics["mpjpe_mm"], rows[2].metrics["mpjpe_mm"])
    assert (rows[0].metrics["mpjpe_mm"] != rows[1].metrics["mpjpe_mm"]).all()


def test_a_hand_that_no_box_was_found_for_is_missing(network, source):
    boxes = {source.key(i): source[i].box_px for i in range(1, len(source))}
    options = {"protocols": [replace(RGB, boxes="det.json")], "boxes": {"det.json": boxes}}
    with pytest.raises(InputError, match=r"1 of 18.*no hand"):
        score_source(network, source, CONFIG.crop, CONFIG.train, **options)
    row = score_source(network, source, CONFIG.crop, CONFIG.train, allow_missing=True, **options).rows[0]
    assert row.label.endswith("1 of 18 samples missing")
    assert list(row.missing) == [source.key(0)]
    assert len(row) == 17


def test_an_unreadable_sample_is_missing(network, tmp_path):
    tree = copy_of(dexycb_tree(), tmp_path)
    source = open_source("dexycb", tree, split="train", limit=6)
    (tree / source.key(3).rsplit("/", 1)[0] / f"color_{source.key(3)[-6:]}.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1 of 6.*color_"):
        score_source(network, source, CONFIG.crop, CONFIG.train, protocols=[RGB])
    row = score_source(network, source, CONFIG.crop, CONFIG.train, protocols=[RGB], allow_missing=True).rows[0]
    assert list(row.missing) == [source.key(3)]
    assert "1 of 6 samples missing" in summarise(row)["label"]


def test_the_command_leaves_out_what_it_is_told_to(network, tmp_path, capsys):
    tree = copy_of(dexycb_tree(), tmp_path)
    source = open_source("dexycb", tree, split="train", limit=6)
    (tree / source.key(0).rsplit("/", 1)[0] / f"color_{source.key(0)[-6:]}.jpg").unlink()
    save_checkpoint(tmp_path / "weights", network, CONFIG)
    options = {"data": "dexycb", "root": str(tree), "split": "train", "limit": 6, "depth": "with"}
    with pytest.raises(InputError, match="color_"):
        commands.evaluate(tmp_path / "weights", **options)
    commands.evaluate(tmp_path / "weights", allow_missing=True, **options)
    said = capsys.readouterr().out
    assert "5 hands" in said
    assert "depth: with; flips: none; 1 of 6 samples missing" in said


def test_a_row_with_depth_leaves_out_samples_without(network, source):
    class Partly:
        name, tips, counts = source.name, source.tips, source.counts
        key = staticmethod(source.key)

        def __len__(self):
            return 9

        def __getitem__(self, index):
            return replace(source[index], depth_m=None) if index % 3 else source[index]

    with pytest.raises(InputError, match=r"6 of 9.*no depth image"):
        score_source(network, Partly(), CONFIG.crop, CONFIG.train, protocols=[RGB, RGBD])
    rgb, rgbd = score_source(
        network, Partly(), CONFIG.crop, CONFIG.train, protocols=[RGB, RGBD], allow_missing=True
    ).rows
    assert (len(rgb), rgb.label) == (9, RGB.label)
    assert rgbd.label.endswith("6 of 9 samples missing")
    assert list(rgbd.keys) == [source.key(i) for i in (0, 3, 6)]
    (alone,) = score_source(network, Partly(), CONFIG.crop, CONFIG.train, protocols=[RGBD], allow_missing=True).rows
    np.testing.assert_array_equal(alone.metrics["mpjpe_mm"], rgbd.metrics["mpjpe_mm"])


def test_eval_says_that_it_was_trained_on_these_samples(network, tmp_path, capsys):
    data = DataConfig(name="dexycb", root=str(dexycb_tree()), split="train")
    save_checkpoint(tmp_path / "weights", network, replace(CONFIG, data=data))
    options = {"data": "dexycb", "root": str(dexycb_tree()), "limit": 4, "depth": "without"}
    commands.evaluate(tmp_path / "weights", split="train", out=tmp_path / "scores", **options)
    assert "note: it was TRAINED on 4 of the 4 samples" in capsys.readouterr().out
    assert "It was TRAINED on 4" in (tmp_path / "scores" / "report.html").read_text()
    commands.evaluate(tmp_path / "weights", split="val", **options)
    assert "TRAINED" not in capsys.readouterr().out


def test_ready_crops_take_no_other_boxes(network):
    hands = SyntheticHands(size_px=64, num=2, jitter=False)
    options = {"protocols": [replace(RGB, boxes="det.json")], "boxes": {"det.json": {}}}
    with pytest.raises(InputError, match=r"2 of 2.*already a crop"):
        score_source(network, hands, CONFIG.crop, CONFIG.train, **options)


def test_a_row_holds_no_mesh(run):
    row = run.rows[0]
    arrays = [*row.joints_mm.values(), *row.metrics.values(), row.visibility, row.expected_mm, row.label_conf, row.keys]
    assert all(array.shape in {(18,), (18, 21)} for array in arrays)


def test_samples_without_labels_or_depth_are_refused(network, tmp_path):
    tree = copy_of(ho3d_tree(), tmp_path)
    (tree / "evaluation_xyz.json").unlink()
    source = open_source("ho3d", tree, split="evaluation")
    with pytest.raises(InputError, match="3D label"):
        score_source(network, source, CONFIG.crop, CONFIG.train, protocols=[RGB])
    blind = open_source("ho3d", ho3d_tree(), split="evaluation", with_depth=False)
    with pytest.raises(InputError, match="no depth image"):
        score_source(network, blind, CONFIG.crop, CONFIG.train, protocols=[RGBD])


def test_benchmark_tips_need_mano(network, source):
    with pytest.raises(InputError, match="MANO"):
        score_source(network, source, CONFIG.crop, CONFIG.train, protocols=[replace(RGB, joints="benchmark")])
    rng = np.random.default_rng(0)
    joints, vertices = rng.normal(size=(2, 21, 3)), rng.normal(size=(2, 778, 3))
    tips = benchmark_tips(joints, vertices, "manopth", ["right", "left"])
    np.testing.assert_array_equal(tips[0, list(TIPS)], vertices[0, list(MANO_TIP_VERTICES["manopth"])])
    assert (tips[1, 12] == vertices[1, 445]).all()
    others = [j for j in range(21) if j not in TIPS]
    np.testing.assert_array_equal(tips[:, others], joints[:, others])


def test_a_mano_network_has_a_row_for_either_kind_of_joints(source, tmp_path):
    torch.manual_seed(0)
    hand = HandModel.from_mano(write_mano(tmp_path / "MANO_RIGHT.pkl", random_mano()))
    model = UTNet(CONFIG.model, hand).eval()
    own, tips = score_source(
        model, source, CONFIG.crop, CONFIG.train, protocols=[RGB, replace(RGB, joints="benchmark")]
    ).rows
    others = [j for j in range(21) if j not in TIPS]
    np.testing.assert_array_equal(own.joints_mm["root"][:, others], tips.joints_mm["root"][:, others])
    assert (own.joints_mm["root"][:, list(TIPS)] != tips.joints_mm["root"][:, list(TIPS)]).all()
    assert "joints: benchmark's tips" in tips.label
    summary = summarise(tips)
    assert "pve_mm" not in summary["metrics"]  # the labels are the open hand's meshes
    assert "0 of 18 samples" in summary["not_reported"]["pve_mm"]


def test_meshes_of_another_hand_are_not_scored(network, source):
    crops = next(iter(crop_batches(CropDataset(source, CONFIG.model.size_px, CONFIG.crop), CONFIG.train))).crops
    assert all(mesh is not None for mesh in _meshes(network, crops))
    other = [replace(c, sample=replace(c.sample, hand_model="mano")) for c in crops]
    assert all(mesh is None for mesh in _meshes(network, other))
    decoded = [replace(c, sample=replace(c.sample, vertices_cam_m=None)) for c in crops]
    for ours, labelled in zip(_meshes(network, decoded), _meshes(network, crops), strict=True):
        np.testing.assert_allclose(ours, labelled, atol=2e-6)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": [1, 2, 3]}', '{"a": [5, 5, 5, 9]}', '{"a": "x"}'])
def test_boxes_that_are_none(tmp_path, text):
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_boxes(path)


# ----------------------------------------------------------------------------------------------------------- intervals


def test_the_bootstrap_draws_whole_recordings():
    values = np.repeat([0.0, 1.0, 2.0, 5.0], 25)[:, None]
    sequences = np.repeat(["a", "b", "c", "d"], 25)
    cluster, over = clusters_of(sequences)
    assert over == "sequences"
    by_recording, single = bootstrap(values, cluster), bootstrap(values, np.arange(100))
    assert by_recording.mean() == pytest.approx(values.mean(), abs=0.1)
    assert by_recording.std() == pytest.approx(values.std() / np.sqrt(4), rel=0.1)
    assert single.std() == pytest.approx(values.std() / np.sqrt(100), rel=0.1)
    assert clusters_of(np.array(["", "", ""]))[1] == "samples"
    assert clusters_of(np.array(["a", "a"]))[1] == "sequences"
    np.testing.assert_array_equal(bootstrap(values, cluster), by_recording)


# ------------------------------------------------------------------------------------------------------------ commands


@pytest.fixture(scope="module")
def runs(tmp_path_factory, network):
    """Scored runs of two networks, as written by the command."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(3)
    for name, model in (("a", network), ("b", UTNet(CONFIG.model))):
        save_checkpoint(folder / f"{name}_weights", model, CONFIG)
        options = {"data": "dexycb", "root": str(dexycb_tree()), "split": "train", "limit": 10}
        commands.evaluate(folder / f"{name}_weights", out=folder / name, json=folder / f"{name}.json", **options)
    return folder


def test_eval_writes_page_tables_and_arrays(runs, capsys):
    assert {p.name for p in (runs / "a").iterdir()} == {"report.html", "scores.json", "scores.npz", "per_sample.csv"}
    means, scores = (json.loads((runs / name).read_text()) for name in ("a.json", "a/scores.json"))
    assert set(means) == {"num", "constant", "rgb", "rgbd"}
    page = (runs / "a" / "report.html").read_text()
    for row in scores["rows"]:
        assert row["label"] in page.replace("&#x27;", "'")
        assert "flips: none" in row["label"]
    assert means["rgb"]["mpjpe_mm"] == pytest.approx(scores["rows"][0]["metrics"]["mpjpe_mm"]["mean"])
    with (runs / "a" / "per_sample.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 20
    mean = np.mean([float(line["pa_mpjpe_mm"]) for line in lines[:10]])
    assert mean == pytest.approx(means["rgb"]["pa_mpjpe_mm"], rel=1e-4)
    saved = load_run(runs / "a")
    assert saved.rows[1].metrics["auc"].mean() == pytest.approx(means["rgbd"]["auc"], abs=1e-12)


def test_a_run_is_not_better_than_itself(runs):
    a = load_run(runs / "a")
    result = compare_runs(a, a)
    assert len(result["rows"]) == 2
    for row in result["rows"]:
        assert set(row["metrics"]) >= {"mpjpe_mm", "pa_mpjpe_mm", "auc", "pve_mm"}
        for metric in row["metrics"].values():
            assert (metric["difference"], metric["low"], metric["high"], metric["better"]) == (0, 0, 0, None)
    assert not any("is better" in line for line in compare_lines(result))


def test_comparing_turns_round(runs):
    a, b = load_run(runs / "a"), load_run(runs / "b")
    there, back = compare_runs(a, b), compare_runs(b, a)
    opposite, verdicts = {"a": "b", "b": "a", None: None}, set()
    for x, y in zip(there["rows"], back["rows"], strict=True):
        for name, metric in x["metrics"].items():
            assert metric["difference"] == pytest.approx(-y["metrics"][name]["difference"])
            assert metric["difference"] == pytest.approx(metric["b"] - metric["a"])
            assert metric["better"] == opposite[y["metrics"][name]["better"]]
            assert metric["excludes_zero"] == (not metric["low"] <= 0 <= metric["high"])
            verdicts.add(metric["better"])


@pytest.mark.parametrize("num", [1, 5, 6, 10])
def test_a_verdict_takes_recordings(runs, num):
    """Every hand is worse by 1 mm, in `num` recordings: significant from six on; one has no interval."""
    a = load_run(runs / "a")
    one = replace(a.rows[0], sequences=np.array([f"take{i % num}" for i in range(10)]))
    worse = replace(one, metrics={name: values + 1 for name, values in one.metrics.items()})
    result = compare_runs(replace(a, rows=[one]), replace(a, rows=[worse]))
    found, said = result["rows"][0]["metrics"], "\n".join(compare_lines(result))
    assert (found["mpjpe_mm"]["better"], found["auc"]["better"]) == (("a", "b") if num >= 6 else (None, None))
    assert ("A is better" in said) == (num >= 6)
    assert ("no verdict" in said) == (num < 6)
    assert found["mpjpe_mm"]["difference"] == pytest.approx(1)
    assert (found["mpjpe_mm"]["low"] is None) == (num == 1)
    ends = summarise(one)["metrics"]["mpjpe_mm"]
    assert (ends["low"] is None) == (ends["high"] is None) == (num == 1)


def test_only_pairs_are_compared(runs):
    a = load_run(runs / "a")
    elsewhere = replace(a, about={**a.about, "data": {**a.about["data"], "keys_sha256": "0"}})
    with pytest.raises(InputError, match="different data"):
        compare_runs(a, elsewhere)
    shuffled = replace(a, rows=[replace(row, keys=row.keys[::-1]) for row in a.rows])
    with pytest.raises(InputError, match="not the same ones"):
        compare_runs(a, shuffled)
    with pytest.raises(InputError, match="no protocol in common"):
        compare_runs(replace(a, rows=a.rows[:1]), replace(a, rows=a.rows[1:]))
    with pytest.raises(InputError, match="counted from 0"):
        compare_runs(a, a, pairs=[(0, 2)])
    with pytest.raises(InputError, match="no such file"):
        load_run(runs)
