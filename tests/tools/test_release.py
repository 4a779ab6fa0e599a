"""Networks that ship: what is packed is what was trained, its name stands for it, and without any nothing changes."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from utnet.apps.demo import resolve_init_config
from utnet.checkpoint import (
    DEFAULT_NETWORK,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
    shipped_networks,
    shipped_weights,
)
from utnet.config import Config, ModelConfig
from utnet.errors import InputError
from utnet.export.writer import compare
from utnet.hand import HandModel
from utnet.model import UTNet
from utnet.predict import Predictor
from utnet.synth import SyntheticHands
from utnet.weights import NETWORK

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "benchmarks")]

import average_weights  # noqa: E402
import release_scores  # noqa: E402
import release_weights  # noqa: E402

SMALL = Config(model=ModelConfig(preset="ti", size_px=64))
SCORE = {"mpjpe_mm": [9.0, 8.0, 10.0], "pa_mpjpe_mm": [5.0, 4.0, 6.0], "pve_mm": [9.0, 8.0, 10.0]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint whose weights are not round numbers."""
    torch.manual_seed(3)
    model = UTNet(SMALL.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("run") / "best"
    save_checkpoint(folder, model, SMALL, step=1234, metrics={"rgb": {"mpjpe_mm": 9.0}})
    (folder.parent / "run.json").write_text(json.dumps({"processes": 2, "seconds": 5400.0}))
    return folder


@pytest.fixture
def shipped(monkeypatch, tmp_path, trained):
    """That network ships, and no other."""
    folder = tmp_path / "weights"
    (folder / DEFAULT_NETWORK).mkdir(parents=True)
    release_weights.pack(trained, folder / DEFAULT_NETWORK)
    monkeypatch.setattr("utnet.weights.SHIPPED_FOLDER", folder)
    return folder / DEFAULT_NETWORK


@pytest.fixture
def no_network_file(monkeypatch):
    """Writing the ONNX file takes half a minute; what it holds is tested on the one that ships."""
    monkeypatch.setattr(release_weights, "write_network", lambda folder: (folder / NETWORK).write_bytes(b"") or "")


def scores_of(checkpoint, path):
    sha256 = release_weights.hashlib.sha256((checkpoint / "weights.safetensors").read_bytes()).hexdigest()
    row = {"num": 8, "constant": {name: [20.0] for name in SCORE}, "rgb": SCORE, "rgbd": SCORE}
    result = {"benchmark": "release_scores", "sha256": sha256, "seed": 1, "all": row, "parts": {"tone": {"dark": row}}}
    path.write_text(f"a table\n{json.dumps(result)}\n")
    return path


# ------------------------------------------------------------------------------------------------------- what ships


def test_what_ships_is_whole_documented_and_small():
    for name in shipped_networks():
        folder = shipped_weights(name)
        model, _ = load_checkpoint(name)
        assert model.hand.name == "open"
        release_weights.check_paths(folder)
        assert (folder / "MODEL_CARD.md").is_file()
    assert not shipped_networks() or DEFAULT_NETWORK in shipped_networks()
    files = [path for path in release_weights.SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= release_weights.LARGEST_TOTAL


def test_a_network_that_ships_runs_without_torch_as_its_checkpoint_does():
    for name in shipped_networks():
        model, config = load_checkpoint(name)
        agreement = compare(model, shipped_weights(name) / NETWORK, crop=config.crop)
        assert agreement.mm <= release_weights.LARGEST_ERROR_MM


def test_a_half_precision_file_gives_a_network_in_single_precision(shipped, trained):
    stored = load_file(shipped / "weights.safetensors")
    large = {tensor.numel() >= release_weights.LEAST_HALVED: tensor.dtype for tensor in stored.values()}
    assert large == {True: torch.half, False: torch.float32}
    (half, config), (exact, _) = load_checkpoint(shipped), load_checkpoint(trained)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    moves = release_weights.moves_mm(exact, half, config, num=8)
    assert all(0 < mm.max() < release_weights.LARGEST_MOVE_MM for mm in moves.values())


def test_a_name_stands_for_the_network(shipped, tmp_path, monkeypatch):
    by_name, by_path = load_checkpoint(DEFAULT_NETWORK)[0].state_dict(), load_checkpoint(shipped)[0].state_dict()
    assert all(torch.equal(by_name[key], by_path[key]) for key in by_path)
    with pytest.raises(InputError, match=rf"other.*give a checkpoint folder such as RUN/best or {DEFAULT_NETWORK}"):
        load_checkpoint("other")
    monkeypatch.chdir(shipped.parent)  # where the name is a checkpoint's folder, too
    with pytest.raises(InputError, match="bundled"):
        load_checkpoint(DEFAULT_NETWORK)
    (tmp_path / DEFAULT_NETWORK / "best").mkdir(parents=True)  # or that of a run
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="local path"):
        find_checkpoint(Path(f"./{DEFAULT_NETWORK}"))


def test_the_predictor_takes_what_ships(shipped):
    for predictor in (Predictor(), Predictor(DEFAULT_NETWORK, method="both")):
        assert (predictor.method, predictor.weights) == ("both", DEFAULT_NETWORK)
    for predictor in (Predictor(DEFAULT_NETWORK), Predictor(method="network")):
        assert (predictor.method, predictor.weights) == ("network", DEFAULT_NETWORK)
    assert Predictor(method="fit").weights is None


def test_mano_goes_to_the_fit_whatever_ships(shipped, tmp_path):
    with pytest.raises(InputError, match=r"MANO_RIGHT.pkl: no such file"):
        Predictor(mano=tmp_path)


def test_an_average_lies_between_two_networks(trained, tmp_path):
    torch.manual_seed(4)
    save_checkpoint(tmp_path / "other", UTNet(SMALL.model), SMALL, step=1)
    average_weights.average(trained, tmp_path / "other", 0.25, tmp_path / "mean")
    after, before, mean = (
        load_file(f / "weights.safetensors") for f in (trained, tmp_path / "other", tmp_path / "mean")
    )
    assert after.keys() == before.keys() == mean.keys()
    for name, tensor in mean.items():
        torch.testing.assert_close(
            tensor, (0.25 * after[name].double() + 0.75 * before[name].double()).to(tensor.dtype)
        )
    about = json.loads((tmp_path / "mean" / "run.json").read_text())
    assert (about["step"], about["averaged"]["share"]) == (1234, 0.25)
    with pytest.raises(InputError, match="not empty"):
        average_weights.average(trained, trained, 0.5, tmp_path / "mean")
    larger = replace(SMALL, model=replace(SMALL.model, size_px=96))
    save_checkpoint(tmp_path / "larger", UTNet(larger.model), larger, step=1)
    with pytest.raises(InputError, match=r"another network: .*model\.size_px is 64 instead of 96"):
        average_weights.average(trained, tmp_path / "larger", 0.5, tmp_path / "none")


def test_half_a_network_does_not_ship(shipped):
    (shipped / "run.json").unlink()
    assert shipped_networks() == ()
    assert shipped_weights() is None
    assert Predictor().method == "fit"


# --------------------------------------------------------------------------------------------------------- the demo


def test_the_demo_starts_from_what_ships_unless_told_otherwise(shipped):
    config = replace(SMALL, crop=replace(Config().crop, expand=1.7))
    begun, said = resolve_init_config(config, from_nothing=False)
    assert (begun.model, begun.crop, begun.train.init_from) == (SMALL.model, SMALL.crop, DEFAULT_NETWORK)
    assert begun.train.lr < config.train.lr
    assert f"({DEFAULT_NETWORK})" in said
    assert resolve_init_config(config, from_nothing=True)[0] == config
    mine = replace(config, train=replace(config.train, init_from="mine/best"))
    assert resolve_init_config(mine, from_nothing=False)[0] == mine
    (shipped / "weights.safetensors").unlink()
    assert resolve_init_config(config, from_nothing=False)[0] == config


# -------------------------------------------------------------------------------------------------------- releasing


def test_a_release_has_weights_a_card_and_no_path_of_this_machine(trained, tmp_path, no_network_file):
    scores = scores_of(trained, tmp_path / "scores.txt")
    for _ in range(2):  # a second one replaces the first
        folder = release_weights.release(
            trained, "ti", scores, pictures=[], start="", num=4, shipped=tmp_path / "weights"
        )
    assert {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "network.onnx",
        "run.json",
        "MODEL_CARD.md",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.txt", "weights"]
    assert load_checkpoint(folder)[1] == SMALL
    card = (folder / "MODEL_CARD.md").read_text()
    for text in (
        "1,234 steps of 64 hands (the run took 90 minutes)",
        "trained from nothing",
        "skin tone: dark",
        "9.0 (8.0 to 10.0)",
        "moves joints of 4",
    ):
        assert text in card


def test_what_must_not_ship_is_refused(trained, tmp_path, monkeypatch, no_network_file):
    def refused(match, checkpoint=trained, **change):
        options = {"pictures": [], "start": "", "num": 2, "shipped": tmp_path / "weights"} | change
        with pytest.raises(InputError, match=match):
            release_weights.release(checkpoint, "ti", scores_of(checkpoint, tmp_path / "s.txt"), **options)
        assert list((tmp_path / "weights").iterdir()) == []

    model, _ = load_checkpoint(trained)
    for name, change, match in (
        ("start", {"train": replace(SMALL.train, init_from="/data/lite0.pth")}, r"started from lite0\.pth.*--start"),
        ("data", {"data": replace(SMALL.data, name="shards", root="/data/mine")}, "the run read shards.*--pictures"),
    ):
        save_checkpoint(tmp_path / name / "best", model, replace(SMALL, **change))
        refused(r"run\.json: no such file", tmp_path / name / "best", start="x", pictures=["y"])
        (tmp_path / name / "run.json").write_text(json.dumps({"processes": 1}))
        refused(match, tmp_path / name / "best")
    refused("would name '/srv/photos'", pictures=["Photographs in /srv/photos, CC0"])
    monkeypatch.setattr(release_weights, "LARGEST_TOTAL", 1_000_000)
    refused("MB, more than 1")
    monkeypatch.setattr(release_weights, "LARGEST_MOVE_MM", 0.0)
    refused("half precision moves a joint")
    save_checkpoint(tmp_path / "other", UTNet(SMALL.model), SMALL)
    with pytest.raises(InputError, match="no scores of"):
        release_weights.read_scores(scores_of(trained, tmp_path / "s.txt"), tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("/data/shards", "shards"),
        ("data.root=/data/a/b", "data.root=b"),
        ("../shared/real", "real"),
        ("~/mine/best", "best"),
        ("config/synth_full.yaml", "config/synth_full.yaml"),
        ("https://host/a/{000..099}.tar", "https://host/a/{000..099}.tar"),
        ("palm / back", "palm / back"),
    ],
)
def test_paths_keep_their_last_part_alone(text, cleaned):
    assert release_weights.without_paths({"a": [text, 1, None]}) == {"a": [cleaned, 1, None]}


# ------------------------------------------------------------------------------------------------------- the scores


def test_the_tone_is_that_of_the_skin_that_was_drawn(monkeypatch):
    drawn, sample_skin = [], release_scores.sample_skin
    monkeypatch.setattr("utnet.synth.full.sample_skin", lambda *a: drawn.append(sample_skin(*a)) or drawn[-1])
    synth = release_scores.full_appearance()
    hands = SyntheticHands(seed=5, size_px=32, synth=synth)
    for index in range(6):
        drawn.clear()
        hands[index]
        assert release_scores.melanin_and_blood(synth, 5, index) == drawn[0]


def test_typology_angles_order_skins_from_dark_to_light():
    angles = [release_scores.typology_deg(release_scores.skin_albedo(m, 0.3)) for m in (2.7, 1.5, 0.8, 0.4, 0.05)]
    assert angles == sorted(angles)
    assert release_scores.typology_deg(np.full(3, 0.9)) > 85  # white has no yellow


def test_views_are_named_by_what_the_camera_sees():
    eye = np.eye(3)
    sample = SyntheticHands(seed=1, size_px=32)[0]
    # The open hand's palm faces -y at rest: turned about x by -90 degrees it faces the camera, at -z.
    for angle, expected in ((90, "palm"), (-90, "back"), (0, "side")):
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        R = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        params = replace(sample.params, global_orient=R[None], hand_pose=np.tile(eye, (15, 1, 1)))
        joints = np.tile([0.0, 0.0, 0.5], (21, 1))
        degrees = release_scores.view_deg(replace(sample, params=params, joints_cam_m=joints))
        low, high = release_scores.PARTS["view"][expected]
        assert low <= degrees < high


def test_hidden_is_what_stands_before_the_hand():
    synth = release_scores.full_appearance()
    names = ("held", "occluder", "second_hand", "sleeve", "worn")
    alone = replace(synth, forearm=False, factors=replace(synth.factors, **dict.fromkeys(names, 0.0)))
    assert (release_scores.factors_of(alone, 7, 4)["hidden"] < 0.5).all()
    sample = SyntheticHands(seed=7, size_px=64, synth=alone, jitter=False)[0]
    covered = replace(sample, depth_m=np.full_like(sample.depth_m, 0.05))
    assert release_scores.hidden_percent(covered, HandModel.open()) == 100


def test_parts_are_parts_of_the_whole():
    for ranges in release_scores.PARTS.values():
        ends = sorted(ranges.values())
        assert all(a[1] == b[0] for a, b in pairwise(ends))
