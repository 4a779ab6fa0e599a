"""Another program's joints on the samples of a scored run."""

from dataclasses import replace

import numpy as np
import pytest

from utnet.cli.main import main
from utnet.errors import InputError
from utnet.evaluation.given_predictions import load_predictions
from utnet.evaluation.protocol import Protocol
from utnet.evaluation.rows import ALIGNMENTS, METRICS, Row, joint_metrics
from utnet.evaluation.saved_scores import load_run, save_run
from utnet.evaluation.summary import summarise
from utnet.metrics import sample_scores

NUM = 12


@pytest.fixture
def run(tmp_path):
    """A run whose joints are 3 mm off, and the truth."""
    rng = np.random.default_rng(0)
    gt = rng.normal(0, 0.04, (NUM, 21, 3)) + [0, 0, 0.5]
    theirs = sample_scores(gt + rng.normal(0, 0.003, gt.shape), gt).joints_mm
    errors = {name: np.asarray(theirs[official]) for name, official in ALIGNMENTS.items()}
    row = Row(
        protocol=Protocol(depth=False),
        num_expected=NUM,
        missing={},
        keys=np.array([f"images/{i}.jpg" for i in range(NUM)]),
        sequences=np.array([f"s{i}" for i in range(NUM)]),
        sides=np.array(["right", "left"] * (NUM // 2)),
        visibility=np.zeros((NUM, 21), np.uint8),
        label_conf=np.ones((NUM, 21)),
        expected_mm=np.full((NUM, 21), np.nan),
        joints_mm=errors,
        metrics={**dict.fromkeys(METRICS, np.full(NUM, np.nan)), **joint_metrics(errors)},
    )
    folder = tmp_path / "run"
    folder.mkdir()
    save_run(folder, [row], [summarise(row)], {"data": {"name": "x", "num": NUM, "keys_sha256": "0"}}, gt)
    return folder, row, gt


def test_joints_are_scored_by_key_in_any_place_and_unit(run, tmp_path, capsys):
    folder, row, gt = run
    rng = np.random.default_rng(1)
    order = rng.permutation(NUM)
    joints = (1000 * gt + rng.normal(0, 1, gt.shape) + 50)[order]
    joints[::2, :, 0] *= -1  # left as left
    np.savez(tmp_path / "other.npz", keys=row.keys[order], pred_keypoints_3d=joints)
    scored = load_predictions(tmp_path / "other.npz", load_run(folder))
    (other,) = scored.rows
    assert 0.5 < other.metrics["pa_mpjpe_mm"].mean() < 1.6
    assert np.isnan(other.metrics["mpjpe_mm"]).all()
    main(["compare", str(folder), "--predictions", str(tmp_path / "other.npz")])
    assert "PA-MPJPE" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["gt_m", "0/keys", "0/sides", "0/visibility", "0/joints_pa_mm", "0/pa_mpjpe_mm"])
@pytest.mark.parametrize("damage", [lambda a: a[:-1], lambda a: np.array(3.0), lambda a: a.astype("S")])
def test_arrays_of_another_shape_or_type_are_no_run(run, name, damage):
    folder = run[0]
    with np.load(folder / "scores.npz") as file:
        arrays = dict(file)
    np.savez(folder / "scores.npz", **{**arrays, name: damage(arrays[name])})
    with pytest.raises(InputError, match="not a scored run, or damaged"):
        load_run(folder)


def test_what_lacks_is_named(run, tmp_path):
    folder, row, gt = run
    for wrong in (np.nan, 1e300):
        np.savez(tmp_path / "part.npz", keys=row.keys, joints_cam_m=wrong * gt)
        with pytest.raises(InputError, match="not finite, or beyond"):
            load_predictions(tmp_path / "part.npz", load_run(folder))
    np.savez(tmp_path / "part.npz", keys=row.keys[:-1], joints_cam_m=gt[:-1])
    with pytest.raises(InputError, match=r"images/11\.jpg"):
        load_predictions(tmp_path / "part.npz", load_run(folder))
    np.savez(tmp_path / "other.npz", joints=gt)
    with pytest.raises(InputError, match="keys"):
        load_predictions(tmp_path / "other.npz", load_run(folder))
    with pytest.raises(InputError, match="utnet eval"):
        load_predictions(tmp_path / "part.npz", replace(load_run(folder), gt_m=None))
