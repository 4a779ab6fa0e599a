"""Layouts, readers and the loader: official numbering, exact decoding, bad files by name, batches by the seed."""

import json
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import yaml

from mano_files import random_mano, write_mano
from trees import NUM_DEXYCB, copy_of, dexycb_tree, ho3d_tree
from utnet import layouts
from utnet.config import Config, ModelConfig, TrainConfig
from utnet.conventions import MANO21_NAMES
from utnet.data import open_source
from utnet.data.files import read_yaml
from utnet.data.loader import collate, make_loader
from utnet.data.source import evenly_spaced, ground_truth_box
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.geometry import axis_angle_to_matrix, project, px_to_crop
from utnet.synth.source import SyntheticHands

CONFIG = Config(model=ModelConfig(size_px=64), train=TrainConfig(batch_size=4, num_workers=0))


@pytest.fixture(scope="module")
def dexycb():
    return open_source("dexycb", dexycb_tree(), split="train")


@pytest.fixture(scope="module")
def ho3d():
    return open_source("ho3d", ho3d_tree(), split="train")


# -------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("setup", "sizes"),  # subjects x cameras x sequences of train, val, test in the toolkit
    [("s0", (6400, 320, 1280)), ("s1", (5600, 800, 1600)), ("s2", (6000, 1000, 1000)), ("s3", (6000, 800, 1200))],
)
def test_dexycb_splits_are_the_official_ones_and_share_nothing(setup, sizes):
    parts = []
    for split in layouts.DEXYCB_SPLITS:
        subjects, cameras, sequences = layouts.dexycb_split(setup, split)
        parts.append({(s, c, q) for s in subjects for c in cameras for q in sequences})
    assert tuple(len(part) for part in parts) == sizes
    assert len(set.union(*parts)) == sum(sizes)
    assert layouts.dexycb_split("s0", "val")[2] == list(range(4, 100, 5))
    assert layouts.dexycb_split("s3", "test")[2] == [*range(35, 40), *range(55, 60), *range(75, 80)]
    with pytest.raises(InputError, match=r"s0, s1, s2, s3"):
        layouts.dexycb_split("s4", "train")


def test_dexycb_numbers_cameras_before_frames():
    rows = layouts.dexycb_numbering([2, 0, 1], 3)
    assert rows.tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
        [0, 1, 1],
        [0, 2, 0],
        [0, 2, 1],
        [2, 0, 0],
        [2, 1, 0],
        [2, 2, 0],
    ]


def test_depth_survives_both_encodings():
    depth = np.array([[0.0, 0.001, 0.0331, 0.4567], [1.0, 2.5, 8.19, 70.0]], np.float32)
    mm = layouts.depth_mm_decode(layouts.depth_mm_encode(depth))
    np.testing.assert_allclose(mm[depth < 65], depth[depth < 65], atol=0.00051)
    encoded = layouts.ho3d_depth_encode(depth)
    assert encoded.dtype == np.uint8
    assert encoded[0, 3, 1] > 0  # more than one byte: multiplying before widening would overflow
    ho3d = layouts.ho3d_depth_decode(encoded)
    np.testing.assert_allclose(ho3d[depth < 8.2], depth[depth < 8.2], atol=0.00007)
    assert mm[1, 3] == 0
    assert ho3d[1, 3] == 0  # too far to be written: no reading, not a wrong one


def test_calibration_with_python_tuples_is_read_and_other_python_tags_are_not(tmp_path):
    path = tmp_path / "extrinsics.yml"
    path.write_text("master: '8'\nextrinsics: !!python/tuple [1.5, 2]\n")
    assert read_yaml(path, "master")["extrinsics"] == (1.5, 2)
    path.write_text("extrinsics: !!python/object/apply:os.system ['touch /tmp/never']\n")
    with pytest.raises(InputError, match=r"extrinsics\.yml: not a YAML file that can be read safely"):
        read_yaml(path)
    path.write_text("other: 1\n")
    with pytest.raises(InputError, match="has no key 'master'"):
        read_yaml(path, "master")


def test_limit_spreads_evenly():
    assert evenly_spaced(10, None).tolist() == list(range(10))
    assert evenly_spaced(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_spaced(3, 9).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="limit is 0"):
        evenly_spaced(3, 0)


def test_the_box_is_tight_and_stays_in_the_picture():
    K = np.array([[100.0, 0, 50], [0, 100.0, 40], [0, 0, 1]])
    joints = np.array([[0.0, 0.0, 1.0], [0.2, 0.1, 1.0], [3.0, 0.0, 1.0], [0.1, 0.0, -1.0]])
    assert ground_truth_box(joints, K, (100, 80)).tolist() == [50, 40, 99.5, 50]
    away = joints[:3] + [5, 5, 0]  # all of it out of view: nothing to clip to
    assert ground_truth_box(away, K, (100, 80)).tolist() == [550, 540, 850, 550]


# --------------------------------------------------------------------------------------------------------------- DexYCB


def test_dexycb_skips_frames_without_a_hand_but_counts_them():
    sources = [open_source("dexycb", dexycb_tree(), split=split) for split in layouts.DEXYCB_SPLITS]
    assert sum(source.num_official for source in sources) == 64
    assert sum(len(source) for source in sources) == NUM_DEXYCB
    for source in sources:
        for index in (0, len(source) - 1):
            sample, official = source[index], source.official_index(index)
            assert sample.key == source.key(index)
            assert sample.sequence == source.sequence(index)
            # One moment a sequence here, so the official number is 8 times the sequence plus the camera.
            assert layouts.DEXYCB_SERIALS[official % 8] == sample.key.split("/")[2]
    assert any(source.official_index(len(source) - 1) != source.num_official - 1 for source in sources)


def test_dexycb_setup_s2_takes_its_own_cameras():
    val = open_source("dexycb", dexycb_tree(), setup="s2", split="val")
    assert {val.key(i).split("/")[2] for i in range(len(val))} == {"932122061900"}


def test_dexycb_sample_is_what_the_label_says(dexycb):
    sample = dexycb[3]
    subject, name, serial, frame = sample.key.split("/")
    folder = dexycb_tree() / subject / name / serial
    with np.load(folder / f"labels_{frame}.npz") as labels:
        np.testing.assert_array_equal(sample.joints_cam_m, labels["joint_3d"][0])
        np.testing.assert_allclose(project(sample.joints_cam_m, sample.K_px), labels["joint_2d"][0], atol=1e-3)
        np.testing.assert_allclose(sample.params.transl_m, labels["pose_m"][0, 48:], atol=1e-9)
    depth_mm = cv2.imread(str(folder / f"aligned_depth_to_color_{frame}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(sample.depth_m * 1000, depth_mm, atol=1e-3)
    np.testing.assert_array_equal(sample.rgb[..., ::-1], cv2.imread(str(folder / f"color_{frame}.jpg")))
    assert sample.hand_model == "open"
    assert sample.betas_ok


def test_dexycb_without_depth_reads_no_depth_file(tmp_path):
    root = tmp_path / "tree"
    _copy_one_sequence("dexycb", root)
    for path in root.rglob("aligned*.png"):
        path.unlink()
    source = open_source("dexycb", root, split="train", with_depth=False)
    assert source[0].depth_m is None


def test_dexycb_of_mano_gives_joints_and_with_the_users_file_poses(tmp_path):
    plain = open_source("dexycb", dexycb_tree(), split="train", hand_model="mano")
    assert plain[0].params is None
    assert plain[0].hand_model == "mano"
    data = {side: random_mano(1, side=side) for side in ("right", "left")}
    for side, numbers in data.items():
        write_mano(tmp_path / f"MANO_{side.upper()}.pkl", numbers)
    source = open_source("dexycb", dexycb_tree(), split="train", hand_model="mano", mano=tmp_path)
    sides = set()
    for index in range(len(source)):
        sample = source[index]
        subject, name, serial, frame = sample.key.split("/")
        pose = np.load(dexycb_tree() / subject / name / serial / f"labels_{frame}.npz")["pose_m"][0].astype(float)
        numbers = data[sample.side]
        axis_angle = pose[3:48] @ numbers["hands_components"] + numbers["hands_mean"]
        np.testing.assert_allclose(sample.params.hand_pose, axis_angle_to_matrix(axis_angle.reshape(15, 3)), atol=1e-5)
        assert sample.betas_ok == (sample.side == "right")
        sides.add(sample.side)
    assert sides == {"right", "left"}


# ----------------------------------------------------------------------------------------------------------------- HO3D


def test_ho3d_turns_opengl_into_opencv_and_its_order_into_openpose(ho3d):
    sample = ho3d[0]
    _, sequence, frame = sample.key.split("/")
    meta = pickle.loads((ho3d_tree() / "train" / sequence / "meta" / f"{frame}.pkl").read_bytes())
    raw = dict(zip(MANO21_NAMES, meta["handJoints3D"], strict=True))
    for place, name in ((0, "wrist"), (4, "thumb_tip"), (9, "middle_mcp"), (16, "ring_tip"), (17, "little_mcp")):
        np.testing.assert_allclose(sample.joints_cam_m[place], raw[name] * [1, -1, -1], atol=1e-12)
    # The official script's projection: flip y and z, times camMat, divide.
    points = meta["handJoints3D"] * [1, -1, -1] @ meta["camMat"].T
    np.testing.assert_allclose(project(sample.joints_cam_m, sample.K_px)[9], points[4, :2] / points[4, 2], atol=1e-9)
    assert ho3d.official_index(0) == 0


def test_ho3d_evaluation_uses_the_published_truth_where_it_is(tmp_path):
    source = open_source("ho3d", ho3d_tree(), split="evaluation")
    truth = json.loads((ho3d_tree() / "evaluation_xyz.json").read_text())
    assert len(source) == len(truth) == 3
    np.testing.assert_allclose(source[2].joints_cam_m[0], np.array(truth[2][0]) * [1, -1, -1])
    assert source[2].params is None
    root = copy_of(ho3d_tree(), tmp_path)
    (root / "evaluation_xyz.json").unlink()
    blind = open_source("ho3d", root, split="evaluation")[2]
    np.testing.assert_allclose(blind.joints_cam_m[0], source[2].joints_cam_m[0], atol=1e-6)
    assert blind.joints_3d_conf.tolist() == [1] + [0] * 20
    np.testing.assert_array_equal(blind.box_px, source[2].box_px)
    (root / "evaluation_xyz.json").write_text(json.dumps(truth[:2]))
    with pytest.raises(InputError, match=r"evaluation_xyz\.json: shape \(2, 21, 3\), expected \(3, 21, 3\)"):
        open_source("ho3d", root, split="evaluation")


def test_ho3d_leaves_out_frames_that_are_not_annotated(tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    path = sorted((root / "train").rglob("*.pkl"))[1]
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | {"handPose": None}, protocol=2))
    source = open_source("ho3d", root, split="train")
    assert [source.official_index(i) for i in range(len(source))] == [0, 2, 3, 4, 5]


# ------------------------------------------------------------------------------------------------------------ bad input


def first(root, pattern):
    return sorted(root.rglob(pattern))[0]


def scale_depth(path, factor):
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), (depth * factor).astype(np.uint16))


def tiny_png(path):
    cv2.imwrite(str(path), np.zeros((10, 12), np.uint16))


DAMAGE = {
    "cut off picture": ("dexycb", "color_*.jpg", lambda p: p.write_bytes(p.read_bytes()[:9000]), "cut off"),
    "empty picture": ("dexycb", "color_*.jpg", lambda p: p.write_bytes(b""), "not an image"),
    "missing picture": ("dexycb", "color_*.jpg", lambda p: p.unlink(), "no such file"),
    "missing depth": ("dexycb", "aligned*.png", lambda p: p.unlink(), "no such file"),
    "cut off depth": ("dexycb", "aligned*.png", lambda p: p.write_bytes(p.read_bytes()[:9000]), "cut off"),
    "small depth": ("dexycb", "aligned*.png", tiny_png, "12x10 pixels, expected 640x480"),
    "depth in tenths of mm": ("dexycb", "aligned*.png", lambda p: scale_depth(p, 10), r"depth says .* in millimetres"),
    "depth in cm": ("dexycb", "aligned*.png", lambda p: scale_depth(p, 0.1), r"depth says .* in millimetres"),
    "damaged labels": ("dexycb", "labels*.npz", lambda p: p.write_bytes(p.read_bytes()[:500]), "not a readable npz"),
    "labels without a key": ("dexycb", "labels*.npz", lambda p: np.savez(p, seg=np.zeros(3)), "pose_m"),
    "plain depth in HO3D": ("ho3d", "depth/*.png", tiny_png, "red \\+ 256"),
    "missing meta": ("ho3d", "meta/*.pkl", lambda p: p.unlink(), "cannot be read|no such file"),
    "meta that calls": ("ho3d", "meta/*.pkl", lambda p: p.write_bytes(b"cos\nsystem\n(S'true'\ntR."), "os.system"),
    "meta without a key": ("ho3d", "meta/*.pkl", lambda p: p.write_bytes(pickle.dumps({"objRot": 1}, 2)), "has no key"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_bad_file_is_named_with_what_is_wrong(what, tmp_path):
    name, pattern, damage, message = DAMAGE[what]
    root = tmp_path / "tree"
    _copy_one_sequence(name, root)
    path = first(root, pattern)
    damage(path)
    source = open_source(name, root, split="train")
    with pytest.raises(InputError, match=message) as caught:
        [source[i] for i in range(len(source))]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _copy_one_sequence(name, root):
    """A light copy: links instead of the frames' bytes would let a test damage the shared tree."""
    tree = dexycb_tree() if name == "dexycb" else ho3d_tree()
    root.mkdir()
    (root / "calibration").symlink_to(tree / "calibration")
    if name == "ho3d":
        line = (tree / "train.txt").read_text().split()[0]
        (root / "train.txt").write_text(line)
        copy_of(tree / "train" / line.split("/")[0], root).rename(root / "moved")
        (root / "train").mkdir()
        (root / "moved").rename(root / "train" / line.split("/")[0])
        return
    taken = False
    for subject in layouts.DEXYCB_SUBJECTS:
        (root / subject).mkdir()
        for sequence in sorted((tree / subject).iterdir()):
            frames = any(sequence.rglob("*.jpg"))
            if frames and not taken and int(sequence.name[-6:]) % 5 != 4:
                copy_of(sequence, root / subject)
                taken = True
            elif frames:
                meta = yaml.safe_load((sequence / "meta.yml").read_text()) | {"num_frames": 0}
                (root / subject / sequence.name).mkdir()
                (root / subject / sequence.name / "meta.yml").write_text(yaml.safe_dump(meta))
            else:
                (root / subject / sequence.name).symlink_to(sequence)


def test_a_wrong_folder_name_or_split_is_explained(tmp_path):
    with pytest.raises(InputError, match="dexycb, ho3d"):
        open_source("freihnad", tmp_path)
    for name in ("dexycb", "ho3d"):
        with pytest.raises(InputError, match="no such folder"):
            open_source(name, tmp_path / "none")
        with pytest.raises(InputError, match="no such file"):
            open_source(name, tmp_path)
    with pytest.raises(InputError, match="expected one of train, evaluation"):
        open_source("ho3d", ho3d_tree(), split="test")
    (tmp_path / "evaluation.txt").write_text("")
    with pytest.raises(InputError, match=r"evaluation\.txt: lists no frames"):
        open_source("ho3d", tmp_path, split="evaluation")


# --------------------------------------------------------------------------------------------------------------- loader


def batches(source, num, config=CONFIG, **options):
    loader = make_loader(source, config, train=True, **options)
    return [batch for batch, _ in zip(loader, range(num), strict=False)], loader


def test_collate_holds_what_the_samples_hold(dexycb):
    samples = [crop(to_right(dexycb[i]), 64, CONFIG.crop) for i in (0, 7)]
    samples.append(replace(samples[0], depth_m=None, params=None))
    samples.append(replace(samples[1], hand_model="mano"))
    samples.append(replace(samples[1], betas_ok=False))
    behind = samples[0].joints_cam_m.copy()
    behind[5, 2] = -0.1
    samples.append(replace(samples[0], joints_cam_m=behind))
    batch = collate(samples)
    assert batch.rgb.dtype == torch.uint8
    for b, sample in enumerate(samples[:2]):
        np.testing.assert_array_equal(batch.rgb[b].permute(1, 2, 0), sample.rgb)
        expected = px_to_crop(project(sample.joints_cam_m, sample.K_px), 64)
        np.testing.assert_allclose(batch.joints_2d[b, :, :2], expected, atol=1e-5)
        np.testing.assert_allclose(batch.joints_3d[b, :, :3], sample.joints_cam_m, atol=1e-6)
        np.testing.assert_allclose(batch.params.transl_m[b], sample.params.transl_m, atol=1e-6)
        assert batch.joints_2d[b, :, :2].abs().max() < 0.5  # a crop of twice the box holds the whole hand
    assert batch.depth_ok.tolist() == [True, True, False, True, True, True]
    assert not batch.depth_m[2].any()
    assert batch.params_ok.tolist() == [True, True, False, False, True, True]
    assert batch.betas_ok.tolist() == [True, True, False, False, False, True]
    assert torch.equal(batch.params.hand_pose[2], torch.eye(3).expand(15, 3, 3))
    assert batch.joints_2d[5, 5, 2] == 0
    assert batch.joints_2d.isfinite().all()
    with pytest.raises(ValueError, match="left hand"):
        collate([replace(samples[0], side="left")])


def test_batches_depend_on_the_seed_and_not_on_the_workers(dexycb):
    alone, _ = batches(dexycb, 3)
    shared, _ = batches(dexycb, 3, replace(CONFIG, train=replace(CONFIG.train, num_workers=2)))
    other, _ = batches(dexycb, 3, replace(CONFIG, seed=1))
    for a, b in zip(alone, shared, strict=True):
        assert a.keys == b.keys
        for name in ("rgb", "depth_m", "joints_2d", "K_px"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert [a.keys for a in alone] != [b.keys for b in other]


def test_training_sees_every_sample_once_an_epoch_differently_each_time(ho3d):
    seen, _ = batches(ho3d, 3)  # 6 samples, batches of 4: two epochs
    keys = [key for batch in seen for key in batch.keys]
    crops = torch.cat([batch.K_px for batch in seen])
    assert len(ho3d) == 6
    assert set(keys[:6]) == set(keys[6:]) == {ho3d.key(i) for i in range(6)}
    assert not torch.equal(crops[keys.index(keys[0])], crops[6 + keys[6:].index(keys[0])])
    later, _ = batches(ho3d, 2, start=4)  # going on after one batch
    assert [batch.keys for batch in later] == [batch.keys for batch in seen[1:]]
    assert torch.equal(later[0].rgb, seen[1].rgb)


def test_evaluation_sees_every_sample_once_in_order_and_unchanged(ho3d):
    loader = make_loader(ho3d, CONFIG, train=False)
    first_pass, second_pass = list(loader), list(loader)
    assert [key for batch in first_pass for key in batch.keys] == [ho3d.key(i) for i in range(6)]
    assert len(loader) == len(first_pass) == 2
    for a, b in zip(first_pass, second_pass, strict=True):
        assert torch.equal(a.rgb, b.rgb)
    np.testing.assert_array_equal(first_pass[0].rgb[1].permute(1, 2, 0), crop(ho3d[1], 64, CONFIG.crop).rgb)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_samples_are_named_and_skipped_in_training_only(num_workers, tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    for path in sorted((root / "train").rglob("*.jpg"))[:2]:
        path.write_bytes(path.read_bytes()[:5000])
    source = open_source("ho3d", root, split="train")
    config = replace(CONFIG, train=replace(CONFIG.train, num_workers=num_workers, max_bad_samples=2))
    seen, loader = batches(source, 5, config)
    assert set(loader.bad) == {source.key(0), source.key(1)}
    assert all("cut off" in message and ".jpg" in message for message in loader.bad.values())
    assert {key for batch in seen for key in batch.keys} == {source.key(i) for i in range(2, 6)}
    with pytest.raises(InputError, match=r"2 of 6 samples cannot be read .* is 1.*cut off"):
        batches(source, 5, replace(config, train=replace(config.train, max_bad_samples=1)))
    with pytest.raises(InputError, match="cut off") as caught:
        list(make_loader(source, config, train=False))
    assert "\n" not in str(caught.value)


def test_training_stops_when_nothing_can_be_read(tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    for path in (root / "train").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(InputError, match="6 of 6 samples cannot be read"):
        batches(open_source("ho3d", root, split="train"), 3)


def test_the_endless_synthetic_source_is_taken_as_it_is():
    source = SyntheticHands(seed=2, size_px=64)
    (a, b), _ = batches(source, 2)
    assert a.keys + b.keys == tuple(source.key(i) for i in range(8))
    np.testing.assert_array_equal(a.rgb[2].permute(1, 2, 0), source[2].rgb)
    np.testing.assert_allclose(a.joints_3d[2, :, :3], source[2].joints_cam_m, atol=1e-6)
    assert a.params_ok.all()
    with pytest.raises(ValueError, match="64 px"):
        make_loader(source, replace(CONFIG, model=ModelConfig(size_px=96)), train=True)
