"""Predictions as labels: COCO-WholeBody for its own reader and ours, and a data set that utnet reads back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.hands import SIZE_PX, K, frame_of, hand_of, random_params
from utnet.data import open_source
from utnet.errors import InputError
from utnet.predict.formats import coco, custom
from utnet.predict.formats.coco import custom_to_coco
from utnet.predict.given_landmarks import read_landmarks

WIDTH, HEIGHT = SIZE_PX


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (HEIGHT // 40, WIDTH // 40, 3), np.uint8).repeat(40, 0).repeat(40, 1)
    hands = [hand_of(random_params(rng), side, track=k) for k, side in enumerate(("right", "left", "right"))]
    first = frame_of(*hands[:2], index=2, time_s=0.08)
    second = frame_of(hands[2], file="photos/a.jpg", is_video=False)
    return [replace(f, read_rgb=lambda: picture) for f in (first, frame_of(index=3), second)]


def written(module, path, frames):
    with module.open_writer(path) as writer:
        for frame in frames:
            writer.add(frame)
    return path


def test_coco_gives_the_joints_back(tmp_path, frames):
    path = written(coco, tmp_path / "coco.json", frames)
    hands = [hand for frame in frames for hand in frame.hands]
    tree = json.loads(path.read_text())
    for theirs, hand in zip(tree["annotations"], hands, strict=True):
        points = np.reshape(theirs[f"{hand.side}hand_kpts"], (21, 3))
        np.testing.assert_allclose(points[:, :2], hand.joints_px, atol=1e-3)
    assert [image.get("frame_index") for image in tree["images"]] == [2, 3, None]
    assert [hand["image_id"] for hand in tree["annotations"]] == [1, 1, 3]


def test_a_picture_gets_its_own_hands_of_a_file_of_several(tmp_path, frames):
    namesake = replace(frames[0], file="more/a.jpg", is_video=False)
    path = written(coco, tmp_path / "coco.json", [*frames, namesake])
    for frame in (frames[2], namesake):
        given = read_landmarks(path, SIZE_PX, Path(frame.file))
        for theirs, hand in zip(given, frame.hands, strict=True):
            np.testing.assert_allclose(theirs.landmarks_px[:, :2], hand.joints_px, atol=1e-3)
    only = written(coco, tmp_path / "only.json", [frames[2], replace(frames[1], file="b.jpg")])
    assert len(read_landmarks(only, SIZE_PX, Path("moved/a.jpg"))) == 1
    for name in (None, Path("a.jpg"), Path("b.jpg"), Path("clip.mp4")):  # none, two, none, two of that name
        with pytest.raises(InputError, match="several"):
            read_landmarks(path, SIZE_PX, name)


def test_pycocotools_opens_it(tmp_path, frames):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    data = COCO(str(written(coco, tmp_path / "coco.json", frames)))
    (first, second) = data.loadAnns(data.getAnnIds(imgIds=[1]))
    assert (first["righthand_valid"], second["lefthand_valid"], second["righthand_valid"]) == (True, True, False)
    assert len(first["righthand_kpts"]) == 63


def test_joints_outside_the_picture_do_not_count(tmp_path):
    params = random_params(np.random.default_rng(1))
    hand = hand_of(type(params)(params.global_orient, params.hand_pose, params.betas, np.array([-0.25, 0, 0.5])))
    tree = json.loads(written(coco, tmp_path / "coco.json", [frame_of(hand)]).read_text())
    v = np.reshape(tree["annotations"][0]["righthand_kpts"], (21, 3))[:, 2]
    inside = ((hand.joints_px > -0.5) & (hand.joints_px < np.array(SIZE_PX) - 0.5)).all(1)
    assert 0 < inside.sum() < 21
    np.testing.assert_array_equal(v > 0, inside)


def test_the_data_set_gives_the_hands_back(tmp_path, frames):
    root = written(custom, tmp_path / "custom", frames)
    source = open_source("custom", str(root), split="train")
    hands = [hand for frame in frames for hand in frame.hands]
    assert len(source) == 3
    for i, hand in enumerate(hands):
        sample = source[i]
        assert sample.side == hand.side
        np.testing.assert_allclose(sample.joints_cam_m, hand.joints_cam_m, atol=1e-6)
        np.testing.assert_allclose(sample.K_px, K)
        np.testing.assert_allclose(sample.params.hand_pose, hand.params.hand_pose, atol=1e-5)
        assert sample.rgb.shape == (HEIGHT, WIDTH, 3)
    assert {source.sequence(i) for i in range(3)} == {"clip.mp4", "photos"}
    with pytest.raises(InputError, match="corrected"):
        written(custom, root, frames)


def test_a_labelled_data_set_as_coco(tmp_path, frames):
    root = written(custom, tmp_path / "custom", frames)
    assert custom_to_coco(root, tmp_path / "coco.json") == 3
    direct = json.loads(written(coco, tmp_path / "direct.json", frames).read_text())["annotations"]
    for ours, theirs in zip(json.loads((tmp_path / "coco.json").read_text())["annotations"], direct, strict=True):
        for side in ("left", "right"):
            np.testing.assert_allclose(ours[f"{side}hand_kpts"], theirs[f"{side}hand_kpts"], atol=2e-3)
