"""HO3D and H2O3D: axes, order, index, held-out recordings, published truth, two hands, MANO's files, bad files."""

import json
import pickle
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from support.laws import assert_labels_agree
from support.loaders import loader_of
from support.mano_files import random_mano, write_mano
from support.trees import NUM_HO3D, copy_of, ho3d_tree
from utnet.config import Config, CropConfig, ModelConfig, TrainConfig
from utnet.conventions import MANO21_NAMES, MANO21_TO_OPENPOSE, SIDES
from utnet.data import open_source
from utnet.data.ho3d import ho3d_index
from utnet.data.ho3d.ho3d_index import held_out
from utnet.data.source import hold_out
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.evaluation.validation import scorable_inputs
from utnet.geometry import project
from utnet.hand import HandModel
from utnet.rotations import axis_angle_to_matrix

C = np.array([1.0, -1.0, -1.0])
CONFIG = Config(model=ModelConfig(size_px=64), train=TrainConfig(batch_size=4, num_workers=0))
TURNED = CropConfig(rotation_jitter_deg=180.0, scale_jitter=0.3, shift_jitter=0.1)


@pytest.fixture(scope="module")
def ho3d():
    return open_source("ho3d", ho3d_tree(), split="train")


@pytest.fixture(scope="module")
def h2o3d():
    return open_source("ho3d", ho3d_tree("h2o3d"), split="train")


def first(root, pattern):
    return sorted(root.rglob(pattern))[0]


def change_meta(path, **changes):
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | changes, protocol=2))


# -------------------------------------------------------------------------------------------------------------- samples


def test_opengl_becomes_opencv_and_its_order_openpose(ho3d):
    sample = ho3d[0]
    _, sequence, frame = sample.key.split("/")
    meta = pickle.loads((ho3d_tree() / "train" / sequence / "meta" / f"{frame}.pkl").read_bytes())
    raw = dict(zip(MANO21_NAMES, meta["handJoints3D"], strict=True))
    for place, name in ((0, "wrist"), (4, "thumb_tip"), (9, "middle_mcp"), (16, "ring_tip"), (17, "little_mcp")):
        np.testing.assert_allclose(sample.joints_cam_m[place], raw[name] * C, atol=1e-12)
    # The official script's projection: flip y and z, times camMat, divide.
    points = meta["handJoints3D"] * C @ meta["camMat"].T
    np.testing.assert_allclose(project(sample.joints_cam_m, sample.K_px)[9], points[4, :2] / points[4, 2], atol=1e-9)
    assert ho3d.official_index(0) == 0
    assert sample.key == ho3d.key(0)
    assert sample.sequence == ho3d.sequence(0) == sequence


def test_depth_decodes_as_the_official_script_does(ho3d):
    image = cv2.imread(str(first(ho3d_tree() / "train", "depth/*.png"))).astype(np.int64)
    expected = (image[..., 2] + image[..., 1] * 256) * 0.00012498664727900177
    np.testing.assert_allclose(ho3d[0].depth_m, expected, rtol=1e-6)


@pytest.mark.parametrize("version", ["v2", "v3", "h2o3d"])
@pytest.mark.parametrize("how", ["as it is", "to_right", "turned crop"])
def test_the_law_holds(version, how):
    source = open_source("ho3d", ho3d_tree(version), split="train")
    hands = {side: source.hand_model_of(side) for side in SIDES}
    shares = []
    for index in range(len(source)):
        sample = whole = source[index]
        if how != "as it is":
            sample = to_right(sample)
        if how == "turned crop":
            sample = crop(sample, 160, TURNED, np.random.default_rng(index))
        # A hand or a forearm may hide most of another hand.
        shares.append(assert_labels_agree(sample, hands[whole.side], min_seen=0.0 if source.two_hands else 0.1))
    assert np.mean(shares) > 0.3


def test_vertices_are_the_decoded_hands(ho3d, h2o3d):
    for version, sources in (("v3", ho3d), ("h2o3d", h2o3d)):
        source = open_source("ho3d", ho3d_tree(version), split="train", with_vertices=True, with_depth=False)
        for index in (0, len(source) - 1):
            sample = source[index]
            assert_labels_agree(sample, source.hand_model_of(sample.side), max_m=1e-5)
            assert sample.vertices_cam_m.shape == (1609, 3)
            assert sample.depth_m is None
        assert sources[0].vertices_cam_m is None


# ---------------------------------------------------------------------------------------------------- index and splits


def test_frames_without_annotation_are_left_out_and_the_limit_counts_the_others(tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    metas = sorted((root / "train").rglob("*.pkl"))
    change_meta(metas[1], handPose=None)
    change_meta(metas[4], objRot=None)
    source = open_source("ho3d", root, split="train")
    assert [source.official_index(i) for i in range(len(source))] == [0, 2, 3, 5]
    assert source.counts == {"frames": 6, "not annotated": 2}
    assert source.num_official == 6
    few = open_source("ho3d", root, split="train", limit=3)
    assert [few.official_index(i) for i in range(len(few))] == [0, 3, 5]


def test_the_index_is_read_once_and_again_when_files_come_or_the_user_says_so(tmp_path, monkeypatch):
    root, reads = copy_of(ho3d_tree(), tmp_path), []
    read = ho3d_index.read_meta
    monkeypatch.setattr(ho3d_index, "read_meta", lambda *args: reads.append(args[0]) or read(*args))
    first_open = open_source("ho3d", root, split="train")
    assert len(reads) == 6
    again = open_source("ho3d", root, split="val")
    assert len(reads) == 6
    for rows in (first_open._index.frames, first_open._index.hands, again._index.sequence_of):
        assert isinstance(rows, np.memmap)
    metas = sorted((root / "train").rglob("*.pkl"))
    fresh = pickle.loads(metas[2].read_bytes()) | {"handJoints3D": None}
    metas[2].unlink()
    metas[2].write_bytes(pickle.dumps(fresh, 2))
    assert len(open_source("ho3d", root, split="train")) == 5
    assert len(reads) == 12
    open_source("ho3d", root, split="train", refresh=True)
    assert len(reads) == 18


V3_TRAIN = {
    "ABF": (10, 11, 12, 13, 14), "BB": (10, 11, 12, 13, 14), "GPMF": (10, 11, 12, 13, 14), "GSF": (10, 11, 12, 13, 14),
    "MC": (1, 2, 4, 5, 6), "MDF": (10, 11, 12, 13, 14), "ND": (2,), "SB": (10, 12, 14), "SM": (2, 3, 4, 5),
    "SMu": (1, 40, 41, 42), "SS": (1, 2, 3), "ShSu": (10, 12, 13, 14), "SiBF": (10, 11, 12, 13, 14), "SiS": (1,),
}  # fmt: skip
"""Recordings as HO3D v3 names them, and their sequences' numbers."""


def test_validation_takes_whole_recordings():
    sizes = {f"{group}{number}": 1000 + 9 * number for group, numbers in V3_TRAIN.items() for number in numbers}
    taken = held_out(sizes)
    groups = [group for group in V3_TRAIN if f"{group}{V3_TRAIN[group][0]}" in taken]
    assert taken == {f"{group}{number}" for group in groups for number in V3_TRAIN[group]}
    share = sum(sizes[name] for name in taken) / sum(sizes.values())
    assert 0.05 <= share < 0.15
    assert held_out(dict(reversed(sizes.items()))) == taken  # whatever the order of the list
    assert held_out({"A1": 5, "A2": 5, "A3": 5}) in ({"A1"}, {"A2"}, {"A3"})  # one recording: by sequence
    assert held_out({"A1": 95, "B1": 3, "B2": 2}) == {"B1", "B2"}  # never most of the frames
    assert held_out({"A1": 1, "B1": 1}) in ({"A1"}, {"B1"})  # never all


def test_validation_never_holds_more_than_half():
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = {
            str(i): int(n) for i, n in enumerate(rng.integers(1, 1 + 10 ** rng.integers(1, 4), rng.integers(2, 6)))
        }
        taken = sum(sizes[name] for name in hold_out(sizes, 0.1))
        assert 0 < taken <= sum(sizes.values()) / 2
    with pytest.raises(ValueError, match="at least two"):
        hold_out({"a": 5}, 0.1)


@pytest.mark.parametrize("version", ["v3", "h2o3d"])
def test_train_fit_and_val_divide_train_by_sequence(version):
    sources = {split: open_source("ho3d", ho3d_tree(version), split=split) for split in ("train", "train_fit", "val")}
    keys = {split: {source.key(i) for i in range(len(source))} for split, source in sources.items()}
    sequences = {split: {source.sequence(i) for i in range(len(source))} for split, source in sources.items()}
    assert keys["train_fit"] | keys["val"] == keys["train"]
    assert keys["train_fit"]
    assert keys["val"]
    assert not sequences["train_fit"] & sequences["val"]
    assert sources["val"][0].params is not None


def test_one_sequence_alone_cannot_be_divided(tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    lines = (root / "train.txt").read_text().split()
    (root / "train.txt").write_text("\n".join(line for line in lines if line.startswith(lines[0].split("/")[0])))
    assert len(open_source("ho3d", root, split="train")) < len(lines)
    with pytest.raises(
        InputError, match=r"train\.txt: all frames are of the sequence SYNT000, .* held out by recording"
    ):
        open_source("ho3d", root, split="val")


# ----------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_uses_the_published_truth_where_it_is(tmp_path):
    source = open_source("ho3d", ho3d_tree(), split="evaluation", with_vertices=True)
    truth, meshes = (json.loads((ho3d_tree() / f"evaluation_{what}.json").read_text()) for what in ("xyz", "verts"))
    assert len(source) == len(truth) == 3
    for index in range(3):
        sample = source[index]
        np.testing.assert_allclose(sample.joints_cam_m, np.array(truth[index])[list(MANO21_TO_OPENPOSE)] * C)
        np.testing.assert_allclose(sample.vertices_cam_m, np.array(meshes[index]) * C, atol=1e-7)
        assert sample.params is None
        assert sample.joints_3d_conf.all()
    assert scorable_inputs(source) == ("rgb", "rgbd")
    root = copy_of(ho3d_tree(), tmp_path)
    (root / "evaluation_xyz.json").write_text(json.dumps(truth[:2]))
    with pytest.raises(InputError, match=r"evaluation_xyz\.json: 2 rows, .* have 3"):
        open_source("ho3d", root, split="evaluation")
    (root / "evaluation_xyz.json").write_text(json.dumps(truth)[:-40])
    with pytest.raises(InputError, match=r"evaluation_xyz\.json.*truncated"):
        open_source("ho3d", root, split="evaluation")
    (root / "evaluation_xyz.json").write_text(json.dumps([truth[0], truth[1], np.full((21, 3), np.nan).tolist()]))
    with pytest.raises(InputError, match=r"evaluation_xyz\.json: holds a point that is NaN"):
        open_source("ho3d", root, split="evaluation")
    (root / "evaluation_verts.json").unlink()
    (root / "evaluation_xyz.json").unlink()
    with pytest.raises(InputError, match=r"evaluation_verts\.json: no such file; with_vertices needs it"):
        open_source("ho3d", root, split="evaluation", with_vertices=True)


@pytest.mark.parametrize("version", ["v3", "h2o3d"])
def test_evaluation_without_truth_is_read_whole_and_not_scored(version, tmp_path):
    root = copy_of(ho3d_tree(version), tmp_path)
    (root / "evaluation_xyz.json").unlink(missing_ok=True)
    source = open_source("ho3d", root, split="evaluation")
    hands = 2 if version == "h2o3d" else 1
    assert len(source) == 3 * hands
    assert [source.official_index(i) for i in range(len(source))] == np.repeat([0, 1, 2], hands).tolist()
    for index in range(len(source)):
        sample = source[index]
        assert sample.joints_3d_conf.tolist() == sample.joints_2d_conf.tolist() == [1] + [0] * 20
        assert np.isfinite(sample.joints_cam_m[0]).all()
        assert np.isnan(sample.joints_cam_m[1:]).all()
        x, y = project(sample.joints_cam_m[:1], sample.K_px)[0]
        x0, y0, x1, y1 = sample.box_px
        assert x0 <= x <= x1
        assert y0 <= y <= y1
    seen = list(loader_of(source, CONFIG, train=False))
    assert [key for batch in seen for key in batch.keys] == [source.key(i) for i in range(len(source))]
    assert all(batch.rgb.any() and batch.depth_ok.all() and batch.K_px.isfinite().all() for batch in seen)
    assert all((batch.joints_3d[..., 3].sum(1) == 1).all() for batch in seen)
    assert all(batch.joints_2d.isfinite().all() for batch in seen)
    with pytest.raises(InputError, match=rf"{source.key(0)}: joints without a 3D label cannot be scored"):
        scorable_inputs(source)


# ---------------------------------------------------------------------------------------------------------------- H2O3D


def test_h2o3d_gives_two_samples_a_frame(h2o3d):
    assert h2o3d.two_hands
    assert h2o3d.counts == {"frames": 6, "not annotated": 0, "right hands": 6, "left hands": 6}
    assert len(h2o3d) == 12
    right, left = h2o3d[0], h2o3d[1]
    assert (right.side, left.side) == SIDES
    assert right.key.endswith("/0000/right")
    assert left.key.endswith("/0000/left")
    np.testing.assert_array_equal(right.rgb, left.rgb)
    np.testing.assert_array_equal(right.params.betas, left.params.betas)
    meta = pickle.loads(first(ho3d_tree("h2o3d") / "train", "*.pkl").read_bytes())
    for sample in (right, left):
        expected = meta[f"{sample.side}HandJoints3D"][list(MANO21_TO_OPENPOSE)] * C
        np.testing.assert_allclose(sample.joints_cam_m, expected, atol=1e-12)
    assert right.betas_ok
    assert left.betas_ok  # the open hand's left is the mirror image of its right
    for side in SIDES:
        one = open_source("ho3d", ho3d_tree("h2o3d"), split="train", sides=side)
        assert {one[i].side for i in range(0, 6, 2)} == {side}
        assert len(one) == 6
    assert len(open_source("ho3d", ho3d_tree("h2o3d"), split="train", limit=5)) == 5
    with pytest.raises(InputError, match="no annotated left hand"):
        open_source("ho3d", ho3d_tree(), split="train", sides="left")
    with pytest.raises(InputError, match="right, left or both"):
        open_source("ho3d", ho3d_tree(), split="train", sides="up")


def test_h2o3d_joints_and_poses_that_are_not_valid_are_not_labels(tmp_path):
    root = copy_of(ho3d_tree("h2o3d"), tmp_path)
    metas = sorted((root / "train").rglob("*.pkl"))
    some = np.ones(21)
    some[MANO21_NAMES.index("ring_tip")] = 0
    joints = pickle.loads(metas[0].read_bytes())["rightHandJoints3D"]
    joints[MANO21_NAMES.index("ring_tip")] = np.nan
    change_meta(metas[0], jointValidRight=some, rightHandJoints3D=joints, jointValidLeft=np.zeros(21))
    change_meta(metas[1], poseValidLeft=np.arange(48) > 20, jointValidRight=np.arange(21) > 0, leftHandPose=None)
    change_meta(metas[2], poseValidLeft=np.arange(48) > 20)
    source = open_source("ho3d", root, split="train")
    by_key = {source.key(i): source[i] for i in range(len(source))}
    frames = [str(path.relative_to(root)).replace("/meta/", "/")[:-4] for path in metas[:3]]
    assert f"{frames[0]}/left" not in by_key
    assert f"{frames[1]}/left" not in by_key
    labelled = by_key[f"{frames[0]}/right"]
    assert np.flatnonzero(labelled.joints_3d_conf == 0).tolist() == [16]
    assert np.isnan(labelled.joints_cam_m[16]).all()
    assert labelled.params is not None
    assert_labels_agree(labelled, source.hand_model_of("right"), min_seen=0.0)
    no_wrist = by_key[f"{frames[1]}/right"]
    assert np.flatnonzero(no_wrist.joints_2d_conf == 0).tolist() == [0]
    assert no_wrist.params is None
    assert by_key[f"{frames[2]}/left"].params is None
    assert source.counts == {"frames": 6, "not annotated": 0, "right hands": 6, "left hands": 4}


# ----------------------------------------------------------------------------------------------------------------- MANO


def label_with_mano(root, models, two_hands):
    """Rewrites the training metas as the data set's: MANO's numbers, which say nothing of a hand model."""
    rng = np.random.default_rng(3)
    for path in (root / "train").rglob("*.pkl"):
        meta = pickle.loads(path.read_bytes())
        del meta["handModel"]
        meta["handBeta"] = rng.normal(0, 1, 10)
        for side in SIDES[: 1 + two_hands]:
            hand = f"{side}Hand" if two_hands else "hand"
            pose, transl = rng.normal(0, 0.5, 48), rng.normal(0, 0.05, 3) - [0, 0, 0.6]
            R = torch.from_numpy(axis_angle_to_matrix(pose.reshape(16, 3))).float()[None]
            joints = models[side](R[:, :1], R[:, 1:], torch.from_numpy(meta["handBeta"]).float()[None]).joints_m[0]
            order = np.argsort(MANO21_TO_OPENPOSE)
            meta |= {f"{hand}Pose": pose, f"{hand}Trans": transl, f"{hand}Joints3D": joints.numpy()[order] + transl}
        path.write_bytes(pickle.dumps(meta, protocol=2))


@pytest.mark.parametrize("version", ["v3", "h2o3d"])
def test_manos_labels_decode_with_the_users_files(version, tmp_path):
    """As H2O3D's set-up does, the left model here has all of its shapedirs negated; the reader gets the plain file."""
    root, models = copy_of(ho3d_tree(version), tmp_path), {}
    for side in SIDES:
        data = random_mano(4, side=side)
        write_mano(tmp_path / f"MANO_{side.upper()}.pkl", data, style="python2")
        made_with = data | {"shapedirs": -data["shapedirs"]} if side == "left" else data
        path = write_mano(tmp_path / f"{side}.pkl", made_with)
        models[side] = HandModel.from_mano(path, side=side, tips="ho3d")
    two_hands = version == "h2o3d"
    label_with_mano(root, models, two_hands)
    source = open_source("ho3d", root, split="train", mano=tmp_path, with_depth=False, with_vertices=True)
    sides = set()
    for index in range(len(source)):
        sample = source[index]
        hand = source.hand_model_of(sample.side)
        assert_labels_agree(sample, hand)
        bare = replace(sample, vertices_cam_m=None)
        for changed in (to_right(bare), crop(to_right(bare), 160, TURNED, np.random.default_rng(index))):
            assert_labels_agree(changed, hand)
        assert sample.hand_model == "mano"
        assert sample.betas_ok == (sample.side == "right")
        assert sample.vertices_cam_m.shape == (778, 3)
        sides.add(sample.side)
    assert sides == set(SIDES[: 1 + two_hands])
    if two_hands:  # the plain file is another hand: millimetres off
        plain = HandModel.from_mano(tmp_path / "MANO_LEFT.pkl", side="left", tips="ho3d")
        with pytest.raises(AssertionError, match="off the joints"):
            assert_labels_agree(source[1], plain)
    joints_only = open_source("ho3d", root, split="train", with_depth=False)
    assert joints_only[0].params is not None
    with pytest.raises(InputError, match=r"name the folder of your MANO_RIGHT\.pkl"):
        joints_only.hand_model_of("right")
    assert joints_only.hand_model_of("right", tmp_path).name == "mano"
    with pytest.raises(InputError, match=r"data\.mano"):
        open_source("ho3d", root, split="train", with_vertices=True)


# ------------------------------------------------------------------------------------------------------------ bad input


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').write('ran')",))


def test_a_malicious_meta_is_refused_and_not_run(tmp_path):
    root, ran = copy_of(ho3d_tree(), tmp_path), tmp_path / "ran"
    pickle.loads(pickle.dumps(Evil(ran)))
    assert ran.is_file()  # it does run where it is let
    ran.unlink()
    path = first(root / "train", "*.pkl")
    for meta in (Evil(ran), pickle.loads(path.read_bytes()) | {"objName": Evil(ran)}):
        path.write_bytes(pickle.dumps(meta, protocol=2))
        source = open_source("ho3d", root, split="train", refresh=True)
        assert len(source) == 6
        with pytest.raises(InputError, match=r"refused.*exec"):
            source[0]
        assert not ran.exists()


def tiny_png(path):
    cv2.imwrite(str(path), np.zeros((10, 12), np.uint16))


def cut(num):
    return lambda path: path.write_bytes(path.read_bytes()[:num])


def nan_joint(path):
    joints = pickle.loads(path.read_bytes())["handJoints3D"]
    joints[3] = np.nan
    change_meta(path, handJoints3D=joints)


def test_listed_frames_without_a_meta_file_are_not_annotated(tmp_path):
    whole = open_source("ho3d", ho3d_tree())
    root = copy_of(ho3d_tree(), tmp_path)
    path = first(root / "train", "meta/*.pkl")
    path.unlink()
    source = open_source("ho3d", root)
    assert [source.key(i) for i in range(len(source))] == [whole.key(i) for i in range(1, len(whole))]
    assert source.official_index(0) == 1
    assert source.counts["of these without a meta file"] == 1
    shutil.rmtree(path.parent)  # a sequence that was not extracted is damage, not a gap in the annotation
    source = open_source("ho3d", root)
    with pytest.raises(InputError, match="cannot be read"):
        source[0]


DAMAGE = {
    "plain depth": ("train", "depth/*.png", tiny_png, r"red \+ 256"),
    "cut off depth": ("train", "depth/*.png", cut(9000), "truncated"),
    "missing depth": ("train", "depth/*.png", lambda p: p.unlink(), "no such file"),
    "cut off picture": ("train", "rgb/*.jpg", cut(5000), "truncated"),
    "small picture": ("train", "rgb/*.jpg", lambda p: cv2.imwrite(str(p), np.zeros((9, 9, 3), np.uint8)), "9x9 pixels"),
    "missing picture": ("train", "rgb/*.jpg", lambda p: p.unlink(), "no such file"),
    "cut off meta": ("train", "meta/*.pkl", cut(300), "truncated"),
    "empty meta": ("train", "meta/*.pkl", cut(0), "truncated"),
    "meta of a list": ("train", "meta/*.pkl", lambda p: p.write_bytes(pickle.dumps([1], 2)), "holds a list"),
    "meta without a key": (
        "train",
        "meta/*.pkl",
        lambda p: p.write_bytes(pickle.dumps({"objRot": 1}, 2)),
        "has no key",
    ),
    "NaN joint": ("train", "meta/*.pkl", nan_joint, "handJoints3D holds NaN"),
    "joints as text": ("train", "meta/*.pkl", lambda p: change_meta(p, handJoints3D="abc"), "handJoints3D is not"),
    "hand behind": (
        "train",
        "meta/*.pkl",
        lambda p: change_meta(p, handJoints3D=np.ones((21, 3))),
        "before the camera",
    ),
    "short pose": ("train", "meta/*.pkl", lambda p: change_meta(p, handPose=np.zeros(45)), r"expected \(48,\)"),
    "empty box": ("evaluation", "meta/*.pkl", lambda p: change_meta(p, handBoundingBox=[5, 5, 5, 9]), "is empty"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_bad_file_is_named_with_what_is_wrong(what, tmp_path):
    split, pattern, damage, message = DAMAGE[what]
    root = copy_of(ho3d_tree(), tmp_path)
    path = first(root / split, pattern)
    damage(path)
    source = open_source("ho3d", root, split=split)
    with pytest.raises(InputError, match=message) as caught:
        source[0]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert source[1].key == source.key(1)


def test_a_wrong_split_or_list_is_explained(tmp_path):
    with pytest.raises(InputError, match="expected one of train, train_fit, val, evaluation"):
        open_source("ho3d", ho3d_tree(), split="test")
    with pytest.raises(InputError, match=r"evaluation\.txt: no such file"):
        open_source("ho3d", tmp_path, split="evaluation")
    (tmp_path / "evaluation.txt").write_text("")
    with pytest.raises(InputError, match=r"evaluation\.txt: lists no frames"):
        open_source("ho3d", tmp_path, split="evaluation")
    (tmp_path / "evaluation.txt").write_text("SM1/0001\n../0002\n")
    with pytest.raises(InputError, match=r"evaluation\.txt: entry 2 is '\.\./0002', expected SEQUENCE/ID"):
        open_source("ho3d", tmp_path, split="evaluation")


def test_all_versions_have_the_frames_asked_for():
    for version in ("v2", "v3", "h2o3d"):
        sources = [open_source("ho3d", ho3d_tree(version), split=split) for split in ("train", "evaluation")]
        assert sum(source.num_official for source in sources) == NUM_HO3D
