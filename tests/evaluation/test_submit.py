"""Submissions of a network: all samples in the official order and axes, scored as in the benchmark."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from support.evaluations import CONFIG, Truth
from support.mano_files import random_mano, write_mano
from support.trees import copy_of, dexycb_tree, ho3d_tree
from utnet.checkpoint import save_checkpoint
from utnet.cli.submit_command import submit
from utnet.conventions import FINGERS, MANO21_NAMES, MANO_TIP_VERTICES, MM_PER_M
from utnet.data import open_source
from utnet.errors import InputError
from utnet.evaluation.protocol import MIDDLE
from utnet.evaluation.submission import (
    check_dexycb_results,
    check_freihand_submission,
    check_ho3d_submission,
    dexycb_scores,
)
from utnet.evaluation.submit import write_submission
from utnet.hand import HandModel
from utnet.io import layouts
from utnet.metrics import official_scores
from utnet.model import UTNet
from utnet.synth.write_freihand import write_freihand

TOLERANCE_MM = 0.05  # float32 pixels, and labels rounded to a micrometre


class TruthWithMesh(Truth):
    """A network that returns synthetic MANO meshes around the labelled joints, by sample key."""

    def __init__(self, hand, meshes):
        super().__init__(hand)
        self.meshes = meshes

    def forward_batch(self, batch, **options):
        out = super().forward_batch(batch, **options)
        vertices = np.stack([self.meshes[key] for key in batch.keys]) - batch.joints_3d[:, :1, :3].numpy()
        return replace(out, vertices_m=torch.from_numpy(vertices))


@pytest.fixture(scope="module")
def freihand_tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("freihand") / "tree"
    write_freihand(root, num=4, seed=3, split="evaluation", progress=False)
    return root


JOINTS = {"use_depth": False, "joints_only": True}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "best"
    torch.manual_seed(0)
    save_checkpoint(folder, UTNet(CONFIG.model), CONFIG)
    return folder


def test_the_truth_is_ho3ds_truth(tmp_path):
    root = ho3d_tree()
    source = open_source("ho3d", root, split="evaluation")
    written = write_submission(Truth(HandModel.open()), source, CONFIG.crop, tmp_path / "pred.zip", **JOINTS)
    found = check_ho3d_submission(tmp_path / "pred.zip", num=len(source))
    truth = np.array(json.loads((root / layouts.HO3D_XYZ).read_text()))
    scores = official_scores(found.joints_m, truth, scale_joint=4)  # HO3D's own order
    for score in scores.values():
        assert score["epe_mean_m"] * MM_PER_M < TOLERANCE_MM
    assert not found.has_mesh
    text = "\n".join(written.lines)
    for words in ("all vertices are zeros", "joints only", "11524 (v2) or 20137 (v3)", "fingertips"):
        assert words in text
    assert "depth: without" in written.protocol.label


def test_a_mano_network_brings_its_mesh_and_the_benchmarks_tips(tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    truth = np.array(json.loads((root / layouts.HO3D_XYZ).read_text()))
    rng = np.random.default_rng(0)
    vertices = truth[:, :1] + rng.uniform(-0.05, 0.05, (len(truth), 778, 3))
    vertices[:, list(MANO_TIP_VERTICES["ho3d"])] = truth[:, [MANO21_NAMES.index(f"{f}_tip") for f in FINGERS]]
    source = open_source("ho3d", root, split="evaluation")
    meshes = {source.key(i): (vertices[i] @ layouts.OPENGL_TO_OPENCV).astype(np.float32) for i in range(len(source))}
    hand = HandModel.from_mano(write_mano(tmp_path / "MANO_RIGHT.pkl", random_mano()))
    written = write_submission(TruthWithMesh(hand, meshes), source, CONFIG.crop, tmp_path / "pred.zip", use_depth=False)
    found = check_ho3d_submission(tmp_path / "pred.zip", num=len(source))
    for score in official_scores(found.joints_m, truth, found.vertices_m, vertices, scale_joint=4).values():
        assert score["epe_mean_m"] * MM_PER_M < TOLERANCE_MM
        assert score.get("f5", 1.0) == 1.0
    assert "joints: benchmark's tips" in written.protocol.label
    assert not any("zeros" in line for line in written.lines)


def test_the_truth_is_freihands_truth(tmp_path, freihand_tree):
    source = open_source("freihand", freihand_tree, split="evaluation")
    write_submission(Truth(HandModel.open()), source, CONFIG.crop, tmp_path / "pred.zip", **JOINTS)
    found = check_freihand_submission(tmp_path / "pred.zip", num=4)
    truth = np.array(json.loads((freihand_tree / layouts.freihand_json("evaluation", "xyz")).read_text()))
    assert official_scores(found.joints_m, truth)["joints/absolute"]["epe_mean_m"] * MM_PER_M < TOLERANCE_MM


def test_the_truth_is_dexycbs_truth_of_both_hands(tmp_path):
    source = open_source("dexycb", dexycb_tree(), split="train")
    path = tmp_path / "results.txt"
    written = write_submission(Truth(HandModel.open()), source, CONFIG.crop, path, use_depth=False)
    truth = {source.official_index(i): 1000 * source[i].joints_cam_m for i in range(len(source))}
    assert {source[i].side for i in range(len(source))} == {"right", "left"}
    results = check_dexycb_results(path, truth)
    assert list(results) == list(truth)
    assert len(results) == source.counts["frames"] - source.counts["without a hand"] < source.num_official
    for score in dexycb_scores(results, truth).values():
        assert score["mpjpe"] < TOLERANCE_MM
    assert f"{source.counts['without a hand']} without a hand" in written.lines[-1]


def test_depth_measures_the_distance_of_a_hand_of_the_wrong_size(tmp_path):
    class TooLarge(Truth):
        def forward_batch(self, batch, **options):
            out = super().forward_batch(batch, **options)
            return replace(out, joints_m=1.1 * out.joints_m, vertices_m=1.1 * out.vertices_m)

    source = open_source("dexycb", dexycb_tree(), split="test")
    true_z = np.array([source[i].joints_cam_m[:, 2].mean() for i in range(len(source))])
    errors = []
    for use_depth in (False, True):
        write_submission(TooLarge(HandModel.open()), source, CONFIG.crop, tmp_path / "r.txt", use_depth=use_depth)
        z = [hand[:, 2].mean() / MM_PER_M for hand in check_dexycb_results(tmp_path / "r.txt").values()]
        errors.append(np.median(np.abs(z - true_z)))
    assert errors[0] == pytest.approx(0.1 * np.median(true_z), rel=0.3)
    assert errors[1] < 0.25 * errors[0]


@pytest.mark.parametrize("damage", ["picture", "box"])
def test_every_picture_is_wanted(tmp_path, damage):
    root = copy_of(ho3d_tree(), tmp_path)
    source = open_source("ho3d", root, split="evaluation")
    frame = source.key(1).removeprefix("evaluation/")
    if damage == "picture":
        (root / layouts.ho3d_file("evaluation", frame, "rgb", ".jpg")).write_bytes(b"none")
        message = "a submission requires"
    else:
        source = open_source("ho3d", root, split="evaluation", limit=len(source) - 1)
        message = f"1 of {source.num_official} pictures have no box or were left out"
    with pytest.raises(InputError, match=message):
        write_submission(Truth(HandModel.open()), source, CONFIG.crop, tmp_path / "pred.zip", **JOINTS)
    assert not (tmp_path / "pred.zip").exists()


def test_what_is_no_official_split_is_refused(tmp_path):
    model = Truth(HandModel.open())
    with pytest.raises(InputError, match="only the split evaluation"):
        write_submission(model, open_source("ho3d", ho3d_tree()), CONFIG.crop, tmp_path / "x", **JOINTS)
    with pytest.raises(InputError, match="H2O3D"):
        write_submission(
            model, open_source("ho3d", ho3d_tree("h2o3d"), split="evaluation"), CONFIG.crop, tmp_path / "x", **JOINTS
        )
    for choice in ({"limit": 5}, {"sides": "left"}):
        part = open_source("dexycb", dexycb_tree(), split="train", **choice)
        with pytest.raises(InputError, match="frames with a hand"):
            write_submission(model, part, CONFIG.crop, tmp_path / "x", **JOINTS)
    assert not list(tmp_path.iterdir())


def test_the_command_submits_and_says_how(tmp_path, weights, freihand_tree, capsys):
    with pytest.raises(InputError, match="zeros"):
        submit(weights, "freihand", str(freihand_tree), tmp_path / "pred.zip")
    assert not list(tmp_path.iterdir())
    submit(weights, "freihand", str(freihand_tree), tmp_path / "pred.zip", joints_only=True)
    said = capsys.readouterr().out
    for words in ("4 hands", "boxes: ground-truth; joints: own 21; depth: without; flips: none", "checked", "3960"):
        assert words in said
    with pytest.raises(InputError, match="no depth"):
        submit(weights, "freihand", str(freihand_tree), tmp_path / "pred.zip", depth="with")
    submit(weights, "dexycb", str(dexycb_tree()), tmp_path / "results.txt")
    said = capsys.readouterr().out
    assert "depth: with;" in said
    assert "s0 test" in said


def test_unlabelled_freihand_says_that_its_boxes_are_the_middle(tmp_path, freihand_tree, weights, capsys):
    root = copy_of(freihand_tree, tmp_path)
    for name in ("xyz", "verts", "mano"):
        (root / layouts.freihand_json("evaluation", name)).unlink()
    submit(weights, "freihand", str(root), tmp_path / "pred.zip", joints_only=True)
    assert f"boxes: {MIDDLE}; " in capsys.readouterr().out
    assert len(check_freihand_submission(tmp_path / "pred.zip", num=4).joints_m) == 4
