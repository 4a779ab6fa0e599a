"""The path of a prediction does not import torch, also where it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utnet.synth import SyntheticHands

LATE = ("torch", "roma", "matplotlib", "tensorboard")

CODE = """
import sys
import numpy as np
import utnet
from utnet import Hand, HandDetector, HandFitter, Hands, Predictor
from utnet.cli.main import main
from utnet.predict import read_predictions

folder = sys.argv[1]
if "--block" in sys.argv:
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("torch", "roma"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Absent())
sys.argv = ["utnet", "predict", f"{folder}/hand.png", "--out", f"{folder}/out"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
read = read_predictions(f"{folder}/out/predictions.json")
picture = utnet.read_picture(f"{folder}/hand.png").rgb
depth = np.full(picture.shape[:2], 0.6, np.float32)
predictor = Predictor()
(hand,) = predictor(picture, depth, boxes=[[20, 20, 300, 300]], sides=["left"])
assert hand.joint_error_mm is not None or predictor.method == "both"
fit = Predictor(method="fit")(picture, boxes=[[20, 20, 300, 300]])
assert np.isfinite(fit[0].vertices_cam_m).all()
from utnet.predict.smooth import HandSmoother
from dataclasses import replace
HandSmoother(25.0)([replace(hand, track=0)], 0.0)
from utnet.metrics import official_scores
joints, mesh = np.random.default_rng(0).normal(size=(2, 4, 21, 3)), np.random.default_rng(1).normal(size=(2, 4, 30, 3))
assert official_scores(*joints, *mesh)["mesh/procrustes"]["f15"] >= 0
import utnet.apps.label.dataset, utnet.apps.serve.service
print("late:", sorted({name.split(".")[0] for name in sys.modules} & set(LATE)))
"""


@pytest.mark.parametrize("block", [False, True])
def test_predicting_needs_no_torch(tmp_path, block):
    import cv2

    drawn = SyntheticHands(seed=7, size_px=320, num=44)[43].rgb
    cv2.imwrite(str(tmp_path / "hand.png"), drawn[..., ::-1])
    code = CODE.replace("set(LATE)", repr(set(LATE)))
    command = [sys.executable, "-c", code, str(tmp_path), *(["--block"] if block else [])]
    source = str(Path(__file__).parents[2] / "src")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "late: []"


def test_a_checkpoint_without_torch_names_the_extra(tmp_path, monkeypatch):
    from utnet.errors import InputError
    from utnet.predict.methods.network import NetworkMethod

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"utnet\[train\]"):
        NetworkMethod(tmp_path / "best")
