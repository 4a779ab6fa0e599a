"""examples/gesture_counts.py: gestures of posed hands."""

import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from support.bulk_work import bulk
from support.label_clips import Drawn, pictures
from utnet.apps.bulk.predicting import predictor
from utnet.hand import NumpyHandModel
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import gesture_counts


@pytest.fixture
def drawn_detector(monkeypatch):
    """A detector that knows the drawn hands."""
    monkeypatch.setattr("utnet.predict.predictor.HandDetector", Drawn)
    predictor.cache_clear()
    yield
    predictor.cache_clear()


def joints_of(*bent):
    """Joints of a flat hand whose fingers (0 thumb to 4 little finger) are bent."""
    pose = np.zeros((15, 3))
    for finger in bent:
        first = {1: 0, 2: 3, 4: 6, 3: 9, 0: 12}[finger]  # MANO's order
        pose[first : first + 3] = [0, 0.9, 0] if finger == 0 else [0, 0, 1.4]
    params = HandParams(np.eye(3)[None], axis_angle_to_matrix(pose), np.zeros(10), np.zeros(3))
    return NumpyHandModel.open().decode(params.map(lambda array: array[None])).joints_m[0]


def test_bent_fingers_give_the_gesture():
    joints = np.stack([joints_of(), joints_of(1, 2, 3, 4), joints_of(2, 3, 4), joints_of(3, 4)])
    fingers = gesture_counts.straight_fingers(joints)[:, 1:].astype(int).tolist()
    assert fingers == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert gesture_counts.gestures_of(joints)[0] == "open hand"


def test_a_place_becomes_a_chart(drawn_detector, monkeypatch, tmp_path, capsys):
    bulk([pictures(tmp_path / "in", "a.jpg", "b left.jpg")], tmp_path / "place")
    words = ["gesture_counts.py", str(tmp_path / "place"), "--out", str(tmp_path / "chart.png"), "--min-score", "0"]
    monkeypatch.setattr(sys, "argv", words)
    gesture_counts.main()
    assert (tmp_path / "chart.png").stat().st_size > 1000
    assert {"left", "right"} <= set(capsys.readouterr().out.split())
    assert len(pandas.read_parquet(tmp_path / "place" / "hands")) == 2
