"""benchmarks/outline.py: masks of hands on paper, and what is measured of outlines."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

sys.path[:0] = [str(Path(__file__).parents[2] / "benchmarks")]

import outline  # noqa: E402

from utnet.detect import Detection  # noqa: E402
from utnet.geometry import box_of, intrinsics, project  # noqa: E402
from utnet.hand import HandModel  # noqa: E402
from utnet.predict.hand import Hand  # noqa: E402
from utnet.render.raster import render_shaded  # noqa: E402
from utnet.types import HandParams  # noqa: E402

SIZE = 100
K = intrinsics(170.0, 170.0, 49.5, 49.5)
BACK = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0.0]])  # fingers up, the palm to the camera


@pytest.fixture(scope="module")
def hand():
    """An open hand that fills most of a small picture."""
    model = HandModel.open()
    eye = torch.eye(3).expand(1, 15, 3, 3)
    mesh = model(torch.from_numpy(BACK).float()[None, None], eye, torch.zeros(1, 10))
    shift = [0, 0, 0.5] - mesh.joints_m[0].numpy().mean(0)
    joints, vertices = mesh.joints_m[0].numpy() + shift, mesh.vertices_m[0].numpy() + shift
    params = HandParams(BACK[None], np.tile(np.eye(3), (15, 1, 1)), np.zeros(10), shift)
    px, faces = project(joints, K), model.faces.numpy()
    return Hand("right", 1.0, box_of(px), joints, px, vertices, faces, params, K, "hand_size", "fit")


@pytest.fixture(scope="module")
def pictured(hand):
    """It on white paper, with a shadow, and its true mask."""
    shaded, alpha = render_shaded(hand.vertices_cam_m, hand.faces, K, (SIZE, SIZE), color=(0.85, 0.6, 0.45))
    shadow = np.roll(alpha, (2, 3), (0, 1))[..., None]
    paper = np.array([215, 215, 222]) * (1 - 0.85 * shadow)
    rgb = np.clip(paper * (1 - alpha[..., None]) + 255 * shaded, 0, 255).astype(np.uint8)
    seen = Detection("right", 1.0, hand.box_px, hand.joints_px, hand.joints_cam_m)
    empty = outline.Pictured(rgb, np.zeros((4 * SIZE, 4 * SIZE), bool), seen, K)
    return replace(empty, mask=outline.silhouette(empty, hand))


def test_a_mesh_on_its_own_mask_has_nothing_to_mend(pictured, hand):
    row = outline.measures(pictured, hand)
    assert row["iou"] == row["iou_sure"] == 1
    assert all(abs(row[f"{part}_{side}"]) < 0.05 for part in ("palm", "fingers") for side in ("thumb", "little"))
    assert abs(row["tips"]) < 3
    assert row["tips_early"] == 0


@pytest.mark.parametrize("grows", [False, True])
def test_a_mask_that_is_wider_makes_the_mesh_too_thin(pictured, hand, grows):
    change = cv2.dilate if grows else cv2.erode
    other = change(pictured.mask.astype(np.uint8), outline._disc(9)).astype(bool)  # by 4 of about 300 px
    row = outline.measures(replace(pictured, mask=other), hand)
    for name in ("palm_thumb", "palm_little", "fingers_thumb", "fingers_little"):
        assert (-2.2 if grows else 0.7) < row[name] < (-0.7 if grows else 2.2), name
    assert row["tips"] > 0 if grows else row["tips"] < 0


def test_a_hand_that_is_moved_is_too_thick_on_one_side(pictured, hand):
    """Towards the thumb: its outline is outside there, and inside on the little finger's side."""
    across = hand.joints_px[5] - hand.joints_px[17]
    step = 6 * across / np.linalg.norm(across)
    moved = cv2.warpAffine(pictured.mask.astype(np.uint8), np.array([[1, 0, -step[0]], [0, 1, -step[1]]]), (400, 400))
    row = outline.measures(replace(pictured, mask=moved.astype(bool)), hand)
    assert row["palm_thumb"] > 0.5 > -0.5 > row["palm_little"]
    assert row["fingers_thumb"] > 0.5 > -0.5 > row["fingers_little"]


def test_a_hand_is_cut_from_paper_without_its_shadow(pictured):
    mask = outline.mask_on_paper(pictured.rgb)
    assert (mask & pictured.mask).sum() / (mask | pictured.mask).sum() > 0.93
