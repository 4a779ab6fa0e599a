"""HaMeR's dictionary: the formulas of their forward step and demo hold, and what is written comes back."""

from dataclasses import replace

import numpy as np
import pytest

from support.hands import ARRAYS, SIZE_PX, K, hand_of, random_hand, random_params
from support.mano_files import random_mano, write_mano
from utnet.errors import InputError
from utnet.geometry import project
from utnet.hand.mano import load_mano
from utnet.hand.numpy_model import NumpyHandModel
from utnet.predict import Hands
from utnet.predict.formats.hamer import HamerRows, hand_to_hamer, hands_to_hamer
from utnet.predict.formats.mano_fit import fit_mano

MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def mano_file(tmp_path_factory):
    return write_mano(tmp_path_factory.mktemp("mano") / "MANO_RIGHT.pkl", random_mano())


@pytest.fixture(scope="module")
def mano_hands(mano_file):
    """A right and a left hand of a file in MANO's format."""
    rng, hands = np.random.default_rng(0), []
    model = NumpyHandModel(load_mano(mano_file), name="mano", dtype=np.float64)
    for side in ("right", "left"):
        own = model if side == "right" else model.mirrored()
        p = replace(random_params(rng), transl_m=np.array([0.1, -0.05, 20.0]))  # far: the two perspectives agree
        mesh = own(p.global_orient[None], p.hand_pose[None], p.betas[None])
        joints, vertices = mesh.joints_m[0] + p.transl_m, mesh.vertices_m[0] + p.transl_m
        px = project(joints, K)
        hand = hand_of(p, side, hand_model="mano", method="network", track=7)
        box = np.concatenate([px.min(0), px.max(0)])
        faces = np.asarray(own.faces)
        hands.append(replace(hand, joints_cam_m=joints, joints_px=px, vertices_cam_m=vertices, faces=faces, box_px=box))
    return hands


def test_their_demo_puts_the_mesh_where_ours_is(mano_hands):
    """`cam_crop_to_full` and the flip of their demo.py, with the camera that is in the dictionary."""
    for hand in mano_hands:
        out = hand_to_hamer(hand, SIZE_PX)
        sign = 2 * out["right"] - 1
        s, tx, ty = out["pred_cam"] * [1, sign, 1]
        bs = out["box_size"] * s + 1e-9
        (cx, cy), (width, height) = out["box_center"], out["img_size"]
        full = [2 * (cx - width / 2) / bs + tx, 2 * (cy - height / 2) / bs + ty, 2 * out["scaled_focal_length"] / bs]
        np.testing.assert_allclose(out["pred_cam_t_full"], full, rtol=1e-6)
        vertices = out["pred_vertices"] * [sign, 1, 1] + full
        np.testing.assert_allclose(vertices, hand.vertices_cam_m, atol=1e-6)
        joints = out["pred_keypoints_3d"] * [sign, 1, 1] + full
        np.testing.assert_allclose(joints, hand.joints_cam_m, atol=1e-6)


def test_their_forward_step_gives_the_same_fields(mano_hands, mano_file):
    """The right model decodes the parameters to the vertices; the crop's camera projects the joints."""
    right = NumpyHandModel(load_mano(mano_file), name="mano", dtype=np.float64)
    for hand in mano_hands:
        out = hand_to_hamer(hand, SIZE_PX)
        p = out["pred_mano_params"]
        mesh = right(p["global_orient"][None], p["hand_pose"][None], p["betas"][None])
        np.testing.assert_allclose(mesh.vertices_m[0], out["pred_vertices"], atol=1e-6)
        s, tx, ty = out["pred_cam"]
        np.testing.assert_allclose(out["pred_cam_t"], [tx, ty, 2 * 5000 / (256 * s + 1e-9)], rtol=1e-9)
        points = out["pred_keypoints_3d"] + out["pred_cam_t"]
        np.testing.assert_allclose(out["pred_keypoints_2d"], 5000 / 256 * points[:, :2] / points[:, 2:], atol=1e-9)
        assert np.abs(out["pred_keypoints_2d"]).max() < 0.5
        # In the crop the joints are where the picture shows them, in the mirror for a left hand.
        sign = 2 * out["right"] - 1
        shown = (hand.joints_px - out["box_center"] + 0.5) / out["box_size"] * [sign, 1]
        assert np.abs(shown - out["pred_keypoints_2d"]).max() < 0.006


def test_a_file_gives_the_hands_back(mano_hands, tmp_path):
    rows = HamerRows(SIZE_PX, None)
    rows.add(mano_hands)
    rows.write(tmp_path / "a.npz")
    picture = np.full((SIZE_PX[1], SIZE_PX[0], 3), 90, np.uint8)
    for source in (tmp_path / "a.npz", hands_to_hamer(mano_hands, SIZE_PX)):
        read = Hands.from_hamer(source, picture)
        assert read.sides == ["right", "left"]
        for ours, theirs in zip(mano_hands, read, strict=True):
            np.testing.assert_allclose(theirs.vertices_cam_m, ours.vertices_cam_m, atol=1e-6)
            np.testing.assert_allclose(theirs.joints_px, ours.joints_px, atol=1e-3)
            np.testing.assert_allclose(theirs.params.hand_pose, ours.params.hand_pose, atol=1e-6)
            np.testing.assert_allclose(theirs.params.transl_m, ours.params.transl_m, atol=1e-6)
    read = Hands.from_hamer(tmp_path / "a.npz", picture)
    np.testing.assert_array_equal(read[1].faces, mano_hands[1].faces)
    assert (read.draw() != picture).any()


def test_no_hands_come_back_as_none(tmp_path):
    picture = np.zeros((SIZE_PX[1], SIZE_PX[0], 3), np.uint8)
    HamerRows(SIZE_PX, None).write(tmp_path / "none.npz")
    for source in (tmp_path / "none.npz", hands_to_hamer([], SIZE_PX)):
        assert len(Hands.from_hamer(source, picture)) == 0


def test_what_their_network_returns_is_enough(mano_hands):
    """Without what the demo adds; the focal length is then the demo's guess."""
    out = hands_to_hamer(mano_hands, SIZE_PX)
    for name in ("pred_cam_t_full", "scaled_focal_length", "K_px"):
        del out[name]
    read = Hands.from_hamer(out, np.zeros((SIZE_PX[1], SIZE_PX[0], 3), np.uint8))
    for ours, theirs in zip(mano_hands, read, strict=True):
        assert theirs.K_px[0, 0] == pytest.approx(5000 / 256 * 640)
        relative = [hand.vertices_cam_m - hand.joints_cam_m[0] for hand in (ours, theirs)]
        np.testing.assert_allclose(*relative, atol=1e-6)
        assert np.abs(theirs.joints_px - ours.joints_px).max() < 0.5  # flatter perspective from farther away
    with pytest.raises(InputError, match="pred_cam"):
        Hands.from_hamer({k: v for k, v in out.items() if k != "pred_cam"}, np.zeros((480, 640, 3), np.uint8))
    with pytest.raises(InputError, match="no such file"):
        Hands.from_hamer("none.npz", np.zeros((480, 640, 3), np.uint8))
    single = {name: value[0] for name, value in out.items() if name != "pred_mano_params"}
    for fault, word in (
        ({"pred_keypoints_3d": np.zeros((2, 16, 3))}, "pred_keypoints_3d"),
        ({"pred_mano_params": {**out["pred_mano_params"], "betas": np.zeros((2, 8))}}, "betas"),
        (single, "right"),
        ({"pred_vertices": out["pred_vertices"] * np.nan}, "pred_vertices holds NaN"),
        ({"box_size": np.full(2, 1e30)}, "box_size"),
        ({"pred_cam": -out["pred_cam"]}, "in front of the camera"),
        ({"scaled_focal_length": np.zeros(2)}, "scaled_focal_length"),
        ({"scaled_focal_length": np.ones(3)}, "scaled_focal_length"),
        ({"img_size": np.zeros((2, 2))}, "img_size"),
        ({"faces": np.full((9, 3), 10**6)}, "faces"),
        ({"track": np.zeros(7)}, "track"),
    ):
        with pytest.raises(InputError, match=word):
            Hands.from_hamer({**out, **fault}, np.zeros((480, 640, 3), np.uint8))
    with pytest.raises(InputError, match="global_orient"):  # NaN instead would be in every file that is written
        Hands.from_hamer({**out, "pred_mano_params": {}}, np.zeros((480, 640, 3), np.uint8))


def test_mano_is_fitted_to_the_open_hand():
    """Another rest pose, place and shape space: the joints are met, and a left hand as its mirror image."""
    open_hand = ARRAYS["right"]
    shift, rng = np.array([0.09, 0.01, -0.01]), np.random.default_rng(3)
    bases = rng.normal(0, 0.2, (10, 10)) + np.eye(10)
    mano = replace(
        open_hand,
        v_template=open_hand.v_template + shift,
        J_template=open_hand.J_template + shift,
        shapedirs=open_hand.shapedirs @ bases,
        J_shapedirs=open_hand.J_shapedirs @ bases,
    )
    for side in ("right", "left"):
        hand = random_hand(rng, side)
        out = hand_to_hamer(hand, SIZE_PX, mano)
        assert out["mano_fit_mm"] < 0.5
        sign = MIRROR if side == "left" else 1
        joints = out["pred_keypoints_3d"] * sign + out["pred_cam_t_full"]
        assert np.linalg.norm(joints - hand.joints_cam_m, axis=1).mean() < 5e-4
        vertices = out["pred_vertices"] * sign + out["pred_cam_t_full"]
        assert np.linalg.norm(vertices - hand.vertices_cam_m, axis=1).max() < 3e-3


def test_the_fit_states_how_far_it_ends(mano_file):
    hand = random_hand(np.random.default_rng(5))
    mano = load_mano(mano_file)
    params, error_mm = fit_mano(hand.params, hand.joints_cam_m, mano)
    mesh = NumpyHandModel(mano, dtype=np.float64)(
        params.global_orient[None], params.hand_pose[None], params.betas[None]
    )
    far = np.linalg.norm(mesh.joints_m[0] + params.transl_m - hand.joints_cam_m, axis=1).mean()
    assert error_mm == pytest.approx(1e3 * far, abs=1e-3)


def test_an_open_hand_without_mano_is_refused():
    hand = random_hand(np.random.default_rng(0))
    with pytest.raises(InputError, match="MANO"):
        hand.to_hamer(SIZE_PX)
