"""predictions.json read back, of this version and of the one before."""

import json

import numpy as np
import pytest

from utnet.errors import InputError
from utnet.predict import read_predictions
from utnet.rotations import axis_angle_to_matrix

JOINTS = np.round(np.random.default_rng(0).normal(0, 0.05, (21, 3)) + [0.0, 0.0, 0.5], 6)
TURN = [0.3, -0.2, 1.1]


def of_version_2(distance_from="depth"):
    """A hand as version 2 had it."""
    return {
        "side": "left",
        "score": 0.97,
        "track": None,
        "box_px": [10.0, 20.0, 90.0, 110.0],
        "method": "both",
        "distance_from": distance_from,
        "landmarks_percent": 2.5,
        "joints_cam_m": JOINTS.tolist(),
        "joints_px": np.zeros((21, 2)).tolist(),
        "hand_model": "open",
        "global_orient_axis_angle": TURN,
        "hand_pose_axis_angle": np.zeros((15, 3)).tolist(),
        "betas": [0.0] * 10,
        "transl_m": [0.0, 0.0, 0.5],
        "mesh": None,
    }


def written(path, **changes):
    image = {"file": "a.jpg", "width": 100, "height": 120, "K_px": np.eye(3).tolist(), "K_from": "exif", "depth": None}
    clip = {
        **image,
        "fps": 25.0,
        "smoothed": True,
        "frames": [{"index": 0, "time_s": 0.0, "hands": [of_version_2("size")]}],
    }
    tree = {
        "schema": "utnet-hands",
        "version": 2,
        "made_by": {"utnet": "0.1", "method": "both"},
        "images": [{**image, "overlay": None, "arrays": None, "hands": [of_version_2()]}],
        "videos": [clip],
        "problems": [],
        **changes,
    }
    path.write_text(json.dumps(tree))
    return path


def test_version_2_is_read_as_version_3(tmp_path):
    tree = read_predictions(written(tmp_path / "predictions.json"))
    (hand,), (frame,) = tree["images"][0]["hands"], tree["videos"][0]["frames"]
    assert (tree["version"], hand["presence"], hand["score"], hand["valid"]) == (3, 0.97, None, True)
    assert (hand["distance_source"], frame["hands"][0]["distance_source"]) == ("sensor", "hand_size")
    assert "distance_from" not in hand
    T = np.array(hand["T_cam_wrist"])
    np.testing.assert_allclose(T[:3, :3], axis_angle_to_matrix(np.array(TURN)), atol=1e-12)
    back = np.array(hand["joints_wrist_m"]) @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(back, JOINTS, atol=1e-9)
    assert hand["landmark_error_percent"] == 2.5
    assert "landmarks_percent" not in hand
    again = tmp_path / "again.json"
    again.write_text(json.dumps(tree))
    assert read_predictions(again) == tree
    again.write_text(json.dumps(tree).replace("landmark_error_percent", "landmarks_percent"))  # early version 3
    assert read_predictions(again) == tree


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"schema": "someone else"}, "schema"),
        ({"version": 4}, "version 4"),
        ({"images": [{"hands": [{"side": "left"}]}]}, "damaged"),
        ({"images": None}, "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, changes, word):
    with pytest.raises(InputError, match=word):
        read_predictions(written(tmp_path / "p.json", **changes))


def test_files_that_are_not_json_are_refused(tmp_path):
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read_predictions(tmp_path / "p.json")
    with pytest.raises(InputError, match="no such file"):
        read_predictions(tmp_path / "none.json")
