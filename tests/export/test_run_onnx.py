"""examples/run_onnx.py, which imports nothing of utnet, gives what `Predictor(method="network")` gives."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from utnet.predict import Predictor
from utnet.synth import SyntheticHands
from utnet.weights import NETWORK, shipped_weights

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_onnx.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("run_onnx", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network():
    return shipped_weights("ti") / NETWORK


def test_it_needs_three_packages_and_fits_150_lines():
    tree = ast.parse(EXAMPLE.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"argparse", "json", "math", "cv2", "numpy", "onnxruntime"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert len(EXAMPLE.read_text().splitlines()) <= 150


@pytest.mark.parametrize("size_px", [96, 260, 700])  # enlarged, smoothed, halved
@pytest.mark.parametrize("side", ["right", "left"])
def test_it_equals_the_predictor(example, network, side, size_px):
    sample = SyntheticHands(seed=5, size_px=size_px)[3]
    given = {"boxes": [sample.box_px], "sides": [side], "K_px": sample.K_px}
    predictor, hand = Predictor(network, method="network", prompts=False), example.OnnxHand(str(network))
    for depth in (None, sample.depth_m):
        (expected,) = predictor(sample.rgb, depth, **given)
        joints, vertices, faces = hand(sample.rgb, sample.box_px, side, sample.K_px, depth)
        assert np.array_equal(faces, expected.faces)
        for ours, theirs in ((joints, expected.joints_cam_m), (vertices, expected.vertices_cam_m)):
            relative = (ours - joints[0]) - (theirs - expected.joints_cam_m[0])
            assert np.abs(relative).max() < 1e-5
            if depth is None:
                assert np.abs(ours - theirs).max() < 1e-5
        if depth is not None:  # the network's own distance, beside the one measured under the mesh
            assert abs(joints[0, 2] - expected.joints_cam_m[0, 2]) < 0.03


def test_a_picture_that_is_not_there_is_named(example, network, monkeypatch):
    words = ["--box", "0", "0", "9", "9", "--side", "left"]
    monkeypatch.setattr("sys.argv", ["run_onnx.py", str(network), "none.png", *words])
    with pytest.raises(SystemExit, match=r"none\.png"):
        example.main()
