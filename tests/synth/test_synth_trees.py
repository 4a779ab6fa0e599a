"""Written data sets: consistency of picture, depth, camera and parameters, and the official layouts."""

import io
import json
import pickle
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import yaml

from support.trees import NUM_DEXYCB, NUM_HO3D, dexycb_tree, ho3d_tree
from utnet.config import CropConfig
from utnet.data import open_source
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.geometry import mirror_params, project
from utnet.hand import HandModel
from utnet.io import layouts
from utnet.io.atomic import atomic_dir
from utnet.render.raster import rasterize
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.appearance import Appearance
from utnet.synth.motion import Motion
from utnet.synth.pair import PairRenderer
from utnet.synth.poses import JOINT_LIMITS_RAD
from utnet.synth.scene import SceneRenderer
from utnet.synth.write_dexycb import write_dexycb
from utnet.synth.write_ho3d import write_ho3d
from utnet.types import HandParams, Sample

HANDS = {side: HandModel.open(side) for side in ("right", "left")}
WHOLE, RIGHT, CROPPED = "as it is", "to_right", "turned crop"


def moved(sample: Sample, how: str) -> Sample:
    if how == WHOLE:
        return sample
    if how == RIGHT:
        return to_right(sample)
    config = CropConfig(rotation_jitter_deg=180.0, scale_jitter=0.3, shift_jitter=0.1)
    return crop(to_right(sample), 160, config, np.random.default_rng(len(sample.key)))


def assert_law(sample: Sample, pixel: float = 1.0) -> float:
    """Asserts the law of docs/design.md; returns the fraction of joints with compared depth.

    `pixel` is the size of a pixel of the depth's file in this picture: nearest sampling frays outlines by that much.
    """
    hand = HANDS[sample.side]
    batch = sample.params.map(lambda array: torch.from_numpy(np.array(array, np.float32))[None])
    mesh = hand.decode(batch)
    joints = mesh.joints_m[0].numpy() + sample.params.transl_m
    error_px = project(joints, sample.K_px) - project(sample.joints_cam_m, sample.K_px)
    assert np.abs(error_px).max() < 0.5, f"{sample.key}: {np.abs(error_px).max()} px"

    # The decoded mesh, drawn with the sample's own camera, lies on the sample's own depth.
    height, width = sample.depth_m.shape
    vertices = mesh.vertices_m[0].numpy() + sample.params.transl_m
    drawn = rasterize(vertices, hand.faces.numpy(), sample.K_px, (width, height))
    reach = 2 * int(np.ceil(max(pixel, 1.0))) + 1
    core = cv2.erode((drawn.mask & (sample.depth_m > 0)).astype(np.uint8), np.ones((reach, reach))) > 0
    assert core.sum() > 50, sample.key
    assert np.median(np.abs(sample.depth_m - drawn.depth_m)[core]) < 0.006, sample.key

    x, y = np.rint(project(sample.joints_cam_m, sample.K_px)).astype(int).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y, z = x[inside], y[inside], sample.joints_cam_m[inside, 2]
    visible = core[y, x] & (np.abs(drawn.depth_m[y, x] - z) < 0.03)
    beyond = (sample.depth_m[y, x] - z)[visible]
    assert beyond.max(initial=0.0) < 0.05, f"{sample.key}: depth lies {beyond.max()} m behind a joint"
    compared = beyond > -0.05  # the forearm, which the decoded mesh lacks, may stand before a joint
    assert not len(beyond) or compared.mean() > 0.7, sample.key
    return compared.sum() / 21


@pytest.mark.parametrize("how", [WHOLE, RIGHT, CROPPED])
@pytest.mark.parametrize(
    ("name", "split"), [("dexycb", "train"), ("dexycb", "val"), ("dexycb", "test"), ("ho3d", "train")]
)
def test_parameters_joints_camera_and_depth_agree(name, split, how):
    source = open_source(name, dexycb_tree() if name == "dexycb" else ho3d_tree(), split=split, limit=6)
    samples = [source[i] for i in range(len(source))]
    if (name, split) == ("dexycb", "train"):
        assert {s.side for s in samples} == {"right", "left"}
    compared = []
    for sample in samples:
        changed = moved(sample, how)
        compared.append(assert_law(changed, np.sqrt(abs(np.linalg.det(changed.K_px) / np.linalg.det(sample.K_px)))))
    assert np.mean(compared) > 0.3


def test_the_law_fails_for_a_hand_of_the_other_side():
    """A mirrored hand decoded by the wrong model violates the law."""
    source = open_source("ho3d", ho3d_tree(), limit=1)
    sample = source[0]
    mirrored = Sample(**{**vars(sample), "side": "left"})
    with pytest.raises(AssertionError, match="px"):
        assert_law(mirrored)


# --------------------------------------------------------------------------------------------------------------- DexYCB


def test_dexycb_has_exactly_the_frames_asked_for_and_every_file_that_the_toolkit_opens():
    root, with_hand, sequences = dexycb_tree(), 0, 0
    for subject in layouts.DEXYCB_SUBJECTS:
        names = sorted(path.name for path in (root / subject).iterdir())
        assert len(names) == 100  # the toolkit asserts it
        for name in names:
            meta = yaml.safe_load((root / subject / name / "meta.yml").read_text())
            assert meta["serials"] == list(layouts.DEXYCB_SERIALS)
            assert meta["hand_model"] == "open"
            assert layouts.dexycb_mano(root, meta["mano_calib"][0]).is_file()
            assert layouts.dexycb_extrinsics(root, meta["extrinsics"]).is_file()
            sequences += meta["num_frames"] > 0
            for frame in range(meta["num_frames"]):
                for serial in layouts.DEXYCB_SERIALS:
                    folder = root / subject / name / serial
                    assert (folder / f"color_{frame:06d}.jpg").is_file()
                    assert (folder / f"aligned_depth_to_color_{frame:06d}.png").is_file()
                    with np.load(folder / f"labels_{frame:06d}.npz") as labels:
                        shapes = {key: (labels[key].shape, labels[key].dtype.str) for key in labels}
                        with_hand += bool((labels["joint_3d"] != -1).all())
                    assert shapes == {
                        "seg": ((480, 640), "|u1"),
                        "pose_y": ((1, 3, 4), "<f4"),
                        "pose_m": ((1, 51), "<f4"),
                        "joint_3d": ((1, 21, 3), "<f4"),
                        "joint_2d": ((1, 21, 2), "<f4"),
                    }
    assert with_hand == NUM_DEXYCB
    assert sequences == 8


def test_dexycb_segmentation_covers_the_hand():
    source = open_source("dexycb", dexycb_tree(), split="test", limit=4)
    for index in range(len(source)):
        sample = source[index]
        subject, name, serial, frame = sample.key.split("/")
        seg = np.load(dexycb_tree() / subject / name / serial / f"labels_{frame}.npz")["seg"]
        assert set(np.unique(seg)) == {0, 255}
        x, y = np.rint(project(sample.joints_cam_m, sample.K_px)).astype(int).T
        inside = (x >= 0) & (x < 640) & (y >= 0) & (y < 480)
        assert (seg[y[inside], x[inside]] == 255).mean() > 0.75  # tips may fall beside the outline by a pixel


def test_dexycb_cameras_and_world_poses_tell_of_one_hand():
    """Labels of all eight cameras coincide in the world frame, also with `pose.npz`."""
    root = dexycb_tree()
    source = open_source("dexycb", root, split="train")
    worlds: dict[str, list[np.ndarray]] = {}
    for index in range(len(source)):
        sample = source[index]
        subject, name, serial, frame = sample.key.split("/")
        meta = yaml.safe_load((root / subject / name / "meta.yml").read_text())
        extrinsics = yaml.safe_load(layouts.dexycb_extrinsics(root, meta["extrinsics"]).read_text())
        T = np.array(extrinsics["extrinsics"][serial]).reshape(3, 4)
        if serial == extrinsics["master"]:
            np.testing.assert_allclose(T, np.eye(3, 4), atol=1e-12)
            world = np.load(root / subject / name / "pose.npz")["pose_m"][int(frame), 0]
            label = np.load(root / subject / name / serial / f"labels_{frame}.npz")["pose_m"][0]
            np.testing.assert_allclose(world, label, atol=1e-6)
        worlds.setdefault(sample.sequence + frame, []).append(sample.joints_cam_m @ T[:, :3].T + T[:, 3])
    assert max(len(views) for views in worlds.values()) == 8
    for views in worlds.values():
        np.testing.assert_allclose(views, np.broadcast_to(views[0], np.shape(views)), atol=2e-6)


def test_dexycb_sequences_belong_to_one_split_each():
    splits = [open_source("dexycb", dexycb_tree(), split=split) for split in ("train", "val", "test")]
    sequences = [{source.sequence(i) for i in range(len(source))} for source in splits]
    assert all(sequences)
    assert len(set.union(*sequences)) == sum(map(len, sequences))
    assert sum(len(source) for source in splits) == NUM_DEXYCB


def test_dexycb_puts_all_into_the_split_asked_for(tmp_path):
    write_dexycb(tmp_path / "tree", num=9, seed=0, split="test", progress=False)
    assert len(open_source("dexycb", tmp_path / "tree", split="test")) == 9
    with pytest.raises(InputError, match="split s0 train has no frame with a hand"):
        open_source("dexycb", tmp_path / "tree", split="train")


# ----------------------------------------------------------------------------------------------------------------- HO3D


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_ho3d_lists_every_frame_and_its_files(version):
    root, num = ho3d_tree(version), 0
    for split in layouts.HO3D_SPLITS:
        for line in (root / f"{split}.txt").read_text().split():
            sequence, frame = line.split("/")
            folder, num = root / split / sequence, num + 1
            assert (folder / "rgb" / (frame + {"v2": ".png", "v3": ".jpg"}[version])).is_file()
            assert (folder / "depth" / f"{frame}.png").is_file()
            assert (folder / "meta" / f"{frame}.pkl").is_file()
    assert num == NUM_HO3D


def test_h2o3d_has_both_hands_in_every_frame_and_withholds_their_poses():
    root, num = ho3d_tree("h2o3d"), 0
    assert not (root / "evaluation_xyz.json").exists()
    for split in layouts.HO3D_SPLITS:
        for line in (root / f"{split}.txt").read_text().split():
            sequence, frame = line.split("/")
            folder, num = root / split / sequence, num + 1
            assert (folder / "rgb" / f"{frame}.jpg").is_file()
            assert (folder / "depth" / f"{frame}.png").is_file()
            meta = pickle.loads((folder / "meta" / f"{frame}.pkl").read_bytes())
            assert not any(key.startswith("hand") for key in meta if key not in ("handBeta", "handModel"))
            assert ("handBeta" in meta) == (split == "train")
            hands_px = {}
            for side in ("right", "left"):
                joints = meta[f"{side}HandJoints3D"]
                assert joints.shape == ((21, 3) if split == "train" else (3,))
                assert (joints[..., 2] < 0).all()  # OpenGL: the hand is at negative z
                given = {f"{side}HandPose", f"{side}HandTrans", f"jointValid{side.capitalize()}"} <= set(meta)
                assert given == (split == "train")
                point = (joints if split == "train" else joints[None]) * [1, -1, -1] @ meta["camMat"].T
                hands_px[side] = (point[:, :2] / point[:, 2:]).mean(0)
                if split == "evaluation":
                    x1, y1, x2, y2 = meta[f"{side}HandBoundingBox"]
                    assert x1 <= hands_px[side][0] <= x2
                    assert y1 <= hands_px[side][1] <= y2
            if split == "train":
                assert hands_px["right"][0] > hands_px["left"][0] + 20
                assert meta["poseValidLeft"].shape == (48,)
    assert num == NUM_HO3D


def test_a_pair_is_drawn_with_the_nearer_hand_before_the_other():
    pair, K = PairRenderer(forearm=False), np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]])
    rng = np.random.default_rng(0)
    flat = HandParams(axis_angle_to_matrix(np.array([[np.pi / 2, 0.0, 0.0]])), np.tile(np.eye(3), (15, 1, 1)),
                      np.zeros(10), np.zeros(3))  # fmt: skip
    look = Appearance.sample(rng)
    posed = {}
    for side, z in (("right", 0.5), ("left", 0.6)):
        hand = flat if side == "right" else mirror_params(flat)
        middle = pair.hands[side].decode(hand).joints_m.mean(0)
        posed[side] = pair.hands[side].decode(replace(hand, transl_m=np.array([0, 0, z]) - middle))
    renders = pair.render(posed, K, (640, 480), look, rng=rng, depth_noise_m=0.0)
    right, left = renders["right"], renders["left"]
    assert right.rgb is left.rgb
    assert not (right.mask & left.mask).any()
    alone = SceneRenderer("right", forearm=False).render(posed["right"], K, (640, 480), look, rng=rng)
    np.testing.assert_array_equal(right.mask, alone.mask)  # nothing hides the nearer hand
    assert abs(np.median(right.depth_m[right.mask]) - 0.5) < 0.03
    behind = SceneRenderer("left", forearm=False).render(posed["left"], K, (640, 480), look, rng=rng)
    np.testing.assert_array_equal(left.mask, behind.mask & ~right.mask)
    assert left.mask.sum() < 0.9 * behind.mask.sum()


def test_ho3d_evaluation_withholds_the_pose_and_publishes_the_truth():
    root = ho3d_tree()
    lines = (root / "evaluation.txt").read_text().split()
    joints, vertices = (json.loads((root / f"evaluation_{what}.json").read_text()) for what in ("xyz", "verts"))
    assert np.shape(joints) == (len(lines), 21, 3)
    assert np.shape(vertices) == (len(lines), HANDS["right"].num_vertices, 3)
    for line, truth in zip(lines, joints, strict=True):
        sequence, frame = line.split("/")
        meta = pickle.loads((root / "evaluation" / sequence / "meta" / f"{frame}.pkl").read_bytes())
        assert meta["handModel"] == "open"
        assert not {"handPose", "handBeta", "handTrans"} & set(meta)
        assert meta["handJoints3D"].shape == (3,)
        np.testing.assert_allclose(truth[0], meta["handJoints3D"], atol=1e-6)
        assert truth[0][2] < 0  # OpenGL: the hand is at negative z
        x1, y1, x2, y2 = meta["handBoundingBox"]
        points = np.array(truth) * [1, -1, -1] @ meta["camMat"].T
        points = points[:, :2] / points[:, 2:]
        assert (points > [x1 - 0.01, y1 - 0.01]).all()
        assert (points < [x2 + 0.01, y2 + 0.01]).all()


def test_ho3d_metas_open_with_old_and_new_numpy():
    path = next((ho3d_tree() / "train").rglob("*.pkl"))
    data = path.read_bytes()
    assert b"numpy.core.multiarray" in data
    assert b"numpy._core" not in data
    assert pickle.loads(data, encoding="latin1")["handPose"].shape == (48,)


# --------------------------------------------------------------------------------------------------- writing as a whole


def contents(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("write", "other"), [(write_dexycb, dexycb_tree), (write_ho3d, ho3d_tree)])
def test_same_seed_same_bytes_and_another_seed_other_bytes(write, other, tmp_path):
    for name in "ab":
        write(tmp_path / name, num=2, seed=3, progress=False)
    a, b, other_seed = contents(tmp_path / "a"), contents(tmp_path / "b"), other()
    assert a == b
    pictures = [name for name in a if name.endswith(".jpg") and (other_seed / name).is_file()]
    assert pictures
    assert all(a[name] != (other_seed / name).read_bytes() for name in pictures)
    for name in a:  # no clock in the archives, so that trees written on other days are the same too
        if name.endswith(".npz"):
            with zipfile.ZipFile(io.BytesIO(a[name])) as archive:
                assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("write", [write_dexycb, write_ho3d])
def test_a_folder_that_is_in_use_is_refused(write, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not empty"):
        write(tmp_path / "tree", num=1, progress=False)
    assert [path.name for path in (tmp_path / "tree").iterdir()] == ["note.txt"]
    for bad in ({"num": 0}, {"num": 1, "split": "holiday"}):
        with pytest.raises(InputError, match="expected"):
            write(tmp_path / "other", **bad, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail():
        with atomic_dir(tmp_path / "tree") as folder:
            (folder / "half").write_text("written")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_hands_move_smoothly_and_within_limits():
    rng = np.random.default_rng(0)
    motion = Motion.sample(rng, betas=np.zeros(10), centres_m=rng.uniform(-0.05, 0.05, (3, 3)), max_tilt_deg=40)
    wrists = np.array([motion.at(time).transl_m for time in np.linspace(0, 1, 400)])
    steps = np.linalg.norm(np.diff(wrists, axis=0), axis=1)
    assert steps.max() < 0.005
    assert np.linalg.norm(wrists[0] - wrists[-1]) > 0.005
    assert (motion.angles_rad >= JOINT_LIMITS_RAD[..., 0] - 1e-9).all()
    assert (motion.angles_rad <= JOINT_LIMITS_RAD[..., 1] + 1e-9).all()
    assert (np.abs(motion.orientations[:, 2, 1]) >= np.cos(np.deg2rad(40)) - 1e-6).all()
