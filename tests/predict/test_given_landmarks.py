"""Landmarks of a file or a caller: read from three formats, taken as prompts, mirrored for left hands."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from utnet.checkpoint import save_checkpoint
from utnet.cli.main import main
from utnet.config import Config, ModelConfig
from utnet.detect import Detection
from utnet.errors import InputError
from utnet.geometry import mirror_points, normalized_distance_percent, project
from utnet.io.recordings import read_camera
from utnet.model import UTNet
from utnet.predict import Predictor
from utnet.predict.given_landmarks import box_of_landmarks, checked_landmarks, read_landmarks, with_landmarks
from utnet.synth import SyntheticHands

SIZE_WH = (200, 100)
POINTS = np.random.default_rng(0).uniform(20, 80, (21, 2))
BOX = (10.0, 10.0, 90.0, 90.0)
FOUND = Detection(
    box_px=np.array(BOX), side="right", score=1.0, joints_px=POINTS, joints_m=np.zeros((21, 3)), side_probability=1.0
)


def written(tmp_path, tree):
    path = tmp_path / "landmarks.json"
    path.write_text(json.dumps(tree))
    return path


def test_own_landmarks_may_be_few_and_carry_side_and_box(tmp_path):
    points = [None] * 21
    points[4], points[8] = [30.0, 40.0], [50.0, 60.0, 0.3]
    path = written(tmp_path, {"hands": [{"side": "left", "box_px": [1, 2, 30, 40], "landmarks_px": points}]})
    (hand,) = read_landmarks(path, SIZE_WH)
    assert hand.side == "left"
    assert hand.box_px.tolist() == [1, 2, 30, 40]
    assert hand.landmarks_px[[4, 8]].tolist() == [[30, 40, 1], [50, 60, 0.3]]
    assert np.isnan(hand.landmarks_px[0, :2]).all()
    assert hand.landmarks_px[:, 2].sum() == pytest.approx(1.3)


@pytest.mark.parametrize("whole", [False, True])
def test_coco_wholebody_has_hands_of_known_sides(tmp_path, whole):
    numbers = np.column_stack([POINTS, np.ones(21)]).ravel().tolist()
    if whole:
        annotation = {"keypoints": [0.0] * (3 * 112) + numbers}
    else:
        annotation = {"lefthand_kpts": [0] * 63, "righthand_kpts": numbers}
    (hand,) = read_landmarks(written(tmp_path, {"annotations": [annotation]}), SIZE_WH)
    assert hand.side == "right"
    np.testing.assert_allclose(hand.landmarks_px[:, :2], POINTS)
    assert (hand.landmarks_px[:, 2] == 0.5).all()


def test_mediapipe_gives_shares_of_the_picture(tmp_path):
    points = [{"x": (x + 0.5) / 200, "y": (y + 0.5) / 100, "z": 0.0} for x, y in POINTS]
    (hand,) = read_landmarks(written(tmp_path, {"hand_landmarks": [points]}), SIZE_WH)
    np.testing.assert_allclose(hand.landmarks_px[:, :2], POINTS)
    assert hand.side is None


@pytest.mark.parametrize(
    ("tree", "word"),
    [
        ({"hands": []}, "no hand"),
        ({"hands": [{"landmarks_px": [[1, 2]] * 20}]}, "shape"),
        ({"hands": [{"landmarks_px": [None] * 21}]}, "no joint"),
        ({"hands": [{"landmarks_px": [[1, 2, 7]] * 21}]}, "confidence"),
        ({"hands": [{"landmarks_px": [[1, 2]] * 21, "side": "up"}]}, "side"),
        ({"frames": 3}, "expected"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, tree, word):
    with pytest.raises(InputError, match=word):
        read_landmarks(written(tmp_path, tree), SIZE_WH)


def test_a_moved_joint_casts_doubt_on_its_finger():
    given = np.full((21, 2), np.nan)
    given[8] = POINTS[8]
    same = with_landmarks(FOUND, checked_landmarks(given))
    assert (same.joints_px == POINTS).all()
    assert same.joint_confidence[8] == 1
    assert len(set(np.delete(same.joint_confidence, 8))) == 1  # it was where the detector had it
    given[8] += 20
    moved = with_landmarks(FOUND, checked_landmarks(given)).joint_confidence
    assert (moved[[6, 7]] < 0.2 * same.joint_confidence[7]).all()
    rest = [*range(6), *range(9, 21)]
    assert (moved[rest] == same.joint_confidence[rest]).all()


@pytest.mark.parametrize(("place", "word"), [(1e300, "away"), (-1e9, "away"), (120.0, "one point")])
def test_landmarks_of_no_hand_are_refused(place, word):
    with pytest.raises(InputError, match=word):
        with_landmarks(FOUND, checked_landmarks(np.full((21, 2), place)))


def test_few_landmarks_need_a_box():
    few = np.full((21, 2), np.nan)
    few[:3] = POINTS[:3]
    with pytest.raises(InputError, match="too few"):
        box_of_landmarks(checked_landmarks(few))
    x0, y0, x1, y1 = box_of_landmarks(checked_landmarks(POINTS))
    assert x0 < POINTS[:, 0].min() < POINTS[:, 0].max() < x1
    assert y0 < POINTS[:, 1].min() < POINTS[:, 1].max() < y1


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Checkpoints with and without prompts, away from the start."""
    folder = tmp_path_factory.mktemp("networks")
    for name, prompts in (("with", True), ("without", False)):
        torch.manual_seed(0)
        model = UTNet(ModelConfig(size_px=64, prompts=prompts)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        save_checkpoint(folder / name, model, Config(model=model.config))
    return folder


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(1).integers(0, 255, (100, 200, 3), np.uint8)


def test_given_landmarks_move_the_hand_and_mirror_with_it(networks, picture):
    predict = Predictor(networks / "with")
    (before,) = predict(picture, boxes=[BOX], sides=["right"], landmarks_px=[POINTS])
    moved = POINTS.copy()
    moved[8] += 15
    (after,) = predict(picture, boxes=[BOX], sides=["right"], landmarks_px=[moved])
    assert np.abs(after.joints_cam_m - before.joints_cam_m).max() > 1e-4
    mirrored = np.column_stack([199 - POINTS[:, 0], POINTS[:, 1]])
    box = (199 - BOX[2], BOX[1], 199 - BOX[0], BOX[3])
    flipped = np.ascontiguousarray(picture[:, ::-1])
    (left,) = predict(flipped, boxes=[box], sides=["left"], landmarks_px=[mirrored])
    relative = before.joints_cam_m - before.joints_cam_m[0]
    there = mirror_points(left.joints_cam_m) - mirror_points(left.joints_cam_m)[0]
    # Relative 3D is the detector's, whose answers a mirror changes a little.
    assert np.abs(there - relative).max() < 0.02


def test_landmarks_go_with_networks_that_take_them(networks, picture):
    with pytest.raises(InputError, match="does not accept landmarks"):
        Predictor(networks / "without")(picture, boxes=[BOX], sides=["right"], landmarks_px=[POINTS])
    with pytest.raises(InputError, match="landmarks of 2 hands"):
        Predictor(networks / "with")(picture, boxes=[BOX], sides=["right"], landmarks_px=[POINTS, POINTS])


def test_without_prompts_the_network_needs_no_landmarks(networks, picture):
    predict = Predictor(networks / "with", prompts=False)
    assert not predict._reconstruct.needs_landmarks
    assert len(predict(picture, boxes=[BOX], sides=["right"])) == 1


@pytest.mark.parametrize("kind", ["own", "coco", "mediapipe"])
def test_the_command_line_follows_a_landmark_file(tmp_path, kind):
    sample = SyntheticHands(seed=3, size_px=192)[0]
    points = project(sample.joints_cam_m, sample.K_px)
    tree = {
        "own": {"hands": [{"side": "right", "landmarks_px": points.tolist()}]},
        "coco": [{"righthand_kpts": np.column_stack([points, np.ones(21)]).ravel().tolist()}],
        "mediapipe": {"hand_landmarks": [[{"x": (x + 0.5) / 192, "y": (y + 0.5) / 192} for x, y in points]]},
    }[kind]
    Image.fromarray(sample.rgb).save(tmp_path / "hand.png")
    command = ["predict", str(tmp_path / "hand.png"), "--landmarks", str(written(tmp_path, tree)), "--method", "fit"]
    main([*command, "--out", str(tmp_path / "out"), "--mesh", "none", "--no-overlay"])
    (record,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    (hand,) = record["hands"]
    assert normalized_distance_percent(points, np.array(hand["joints_px"])).mean() < 12


@pytest.mark.parametrize("as_landmarks", [False, True])
def test_boxes_and_landmarks_are_those_of_the_picture_with_its_lens(tmp_path, as_landmarks):
    """With a distorting camera they give the hand of the rectified picture with rectified box and landmarks."""
    sample = SyntheticHands(seed=5, size_px=200, jitter=False)[0]
    rgb, joints_px = sample.rgb, project(sample.joints_cam_m, sample.K_px)
    side_px = rgb.shape[0]
    tree = {"width": side_px, "height": side_px, "fx": 260.0, "fy": 260.0, "ppx": side_px / 2, "ppy": side_px / 2}
    lens = {**tree, "model": "brown_conrady", "coeffs": [0.5, -0.1, 0.004, 0.003, 0]}
    (tmp_path / "lens.json").write_text(json.dumps(lens))
    (tmp_path / "flat.json").write_text(json.dumps({**tree, "coeffs": []}))
    camera = read_camera(tmp_path / "lens.json")
    box = np.concatenate([joints_px.min(0) - 9, joints_px.max(0) + 9])
    Image.fromarray(rgb).save(tmp_path / "lens.png")
    Image.fromarray(camera.rectified(rgb)).save(tmp_path / "flat.png")
    seen = {"lens": (joints_px, box), "flat": (camera.rectified_px(joints_px), camera.rectified_box(box))}
    assert np.abs(seen["lens"][0] - seen["flat"][0]).max() > 1
    hands = {}
    for name, (points, box) in seen.items():
        words = ["predict", str(tmp_path / f"{name}.png"), "--K", str(tmp_path / f"{name}.json"), "--method", "fit"]
        words += ["--out", str(tmp_path / name), "--mesh", "none", "--no-overlay"]
        if as_landmarks:
            landmarks = {"hands": [{"side": "right", "landmarks_px": points.tolist(), "box_px": box.tolist()}]}
            words += ["--landmarks", str(written(tmp_path, landmarks))]
        else:
            words += ["--box", ",".join(f"{x:.6f}" for x in box), "--side", "right"]
        main(words)
        record = json.loads((tmp_path / name / "predictions.json").read_text())
        hands[name] = record["images"][0]["hands"][0]
    np.testing.assert_allclose(hands["lens"]["joints_cam_m"], hands["flat"]["joints_cam_m"], atol=2e-4)
    np.testing.assert_allclose(hands["lens"]["box_px"], hands["flat"]["box_px"], atol=0.02)
