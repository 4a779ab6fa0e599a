"""DexYCB: official splits and numbering, both hands by both hand models, the cached index, bad files by name."""

import shutil
import warnings

import cv2
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from support.laws import assert_labels_agree
from support.mano_files import random_mano, write_mano
from support.trees import NUM_DEXYCB, copy_of, dexycb_tree
from utnet.config import CropConfig
from utnet.conventions import MANO21_TO_OPENPOSE, MANO_PARENTS, SIDES
from utnet.data import open_source
from utnet.data.dexycb import dexycb_index
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.geometry import project
from utnet.io import layouts

SUBJECT = layouts.DEXYCB_SUBJECTS[6]
"""The only subject of s1 val: a tree of it alone is small and enough."""


def open_dexycb(root=None, **options):
    return open_source("dexycb", root or dexycb_tree(), **options)


def open_light(root, **options):
    return open_dexycb(root, setup="s1", split="val", **options)


@pytest.fixture(scope="module")
def train():
    return open_dexycb(split="train", with_vertices=True, with_mask=True)


@pytest.fixture
def light(tmp_path):
    return light_tree(tmp_path / "dexycb")


def light_tree(root):
    """Subject 7 of the written tree, with one sequence of one moment: eight frames, all with a right hand."""
    shutil.copytree(dexycb_tree() / SUBJECT, root / SUBJECT)
    shutil.copytree(dexycb_tree() / "calibration", root / "calibration")
    return root


def written(root):
    """The sequence of the light tree that has frames."""
    (folder,) = {path.parents[1] for path in (root / SUBJECT).rglob("color_*.jpg")}
    return folder


def change_meta(sequence, **changes):
    path = sequence / "meta.yml"
    tree = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in tree.items() if value is not None}))


def change_labels(path, **changes):
    arrays = dict(np.load(path))
    np.savez_compressed(path, **(arrays | changes))


def no_hand():
    return {"pose_m": np.zeros((1, 51), np.float32), "joint_3d": np.full((1, 21, 3), -1, np.float32)}


def labels_of(source, index, root=None):
    subject, name, serial, frame = source.key(index).split("/")
    with np.load((root or dexycb_tree()) / subject / name / serial / f"labels_{frame}.npz") as labels:
        return dict(labels)


# ---------------------------------------------------------------------------------------------- splits and numbering


@pytest.mark.parametrize(
    ("setup", "sizes"),  # subjects x cameras x sequences of train, val, test in the toolkit
    [("s0", (6400, 320, 1280)), ("s1", (5600, 800, 1600)), ("s2", (6000, 1000, 1000)), ("s3", (6000, 800, 1200))],
)
def test_splits_are_the_official_ones_and_share_nothing(setup, sizes):
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


def test_numbering_goes_through_cameras_before_frames():
    numbering = layouts.DexYcbNumbering([0, 2, 0, 0, 1, 0], 3)
    expected = [(1, c, f) for c in range(3) for f in range(2)] + [(4, c, 0) for c in range(3)]
    assert [numbering.place(i) for i in range(len(numbering))] == expected
    assert [numbering.index(*place) for place in expected] == list(range(9))
    assert len(layouts.DexYcbNumbering([], 8)) == 0


def test_frames_without_a_hand_count_and_are_left_out():
    sources = [open_dexycb(split=split) for split in layouts.DEXYCB_SPLITS]
    assert sum(source.num_official for source in sources) == 64
    assert sum(len(source) for source in sources) == NUM_DEXYCB
    assert sum(source.counts["without a hand"] for source in sources) == 3
    for source in sources:
        assert source.num_official == source.counts["frames"] == len(source) + source.counts["without a hand"]
        for index in (0, len(source) - 1):
            sample, official = source[index], source.official_index(index)
            assert sample.key == source.key(index)
            assert sample.sequence == source.sequence(index)
            # One moment a sequence here, so the official number is 8 times the sequence plus the camera.
            assert layouts.DEXYCB_SERIALS[official % 8] == sample.key.split("/")[2]
    assert any(source.official_index(len(source) - 1) != source.num_official - 1 for source in sources)


def test_some_subjects_are_a_part_in_the_official_numbering(tmp_path):
    whole = open_dexycb(split="test")
    subjects = {layouts.DEXYCB_SUBJECTS.index(whole.sequence(i).split("/")[0]) + 1 for i in range(len(whole))}
    chosen = sorted(subjects)[-1:]
    part = open_dexycb(split="test", subjects=chosen)
    names = {layouts.DEXYCB_SUBJECTS[number - 1] for number in chosen}
    wanted = [i for i in range(len(whole)) if whole.sequence(i).split("/")[0] in names]
    assert 0 < len(part) < len(whole)
    assert [part.key(i) for i in range(len(part))] == [whole.key(i) for i in wanted]
    assert [part.official_index(i) for i in range(len(part))] == [whole.official_index(i) for i in wanted]
    root = copy_of(dexycb_tree(), tmp_path)  # without the folders of the others the numbering is not known
    for folder in root.iterdir():
        if folder.name in layouts.DEXYCB_SUBJECTS and folder.name not in names:
            shutil.rmtree(folder)
    alone = open_dexycb(root, split="test", subjects=chosen)
    assert [alone.key(i) for i in range(len(alone))] == [part.key(i) for i in range(len(part))]
    np.testing.assert_array_equal(alone[0].rgb, part[0].rgb)
    with pytest.raises(InputError, match="numbering"):
        alone.official_index(0)
    with pytest.raises(InputError, match="no subject 1"):
        open_dexycb(root, split="test", subjects=[1])


def test_setup_s2_takes_its_own_cameras():
    val = open_dexycb(setup="s2", split="val")
    assert {val.key(i).split("/")[2] for i in range(len(val))} == {"932122061900"}


def test_each_side_alone_is_a_part_of_both(train):
    keys = {train.key(i) for i in range(len(train))}
    parts = {side: open_dexycb(split="train", sides=side) for side in SIDES}
    for side, part in parts.items():
        assert {part[i].side for i in range(len(part))} == {side}
        assert part.num_official == train.num_official
        assert part.counts["of the other hand"] == len(train) - len(part)
        assert part.counts[f"{side} hands"] == train.counts[f"{side} hands"] == len(part) > 0
    found = [{part.key(i): part.official_index(i) for i in range(len(part))} for part in parts.values()]
    assert found[0] | found[1] == {train.key(i): train.official_index(i) for i in range(len(train))}
    assert len(found[0]) + len(found[1]) == len(keys)
    with pytest.raises(InputError, match=r"data.sides is 'two'; expected right, left or both"):
        open_dexycb(sides="two")


def test_a_limit_is_spread_over_the_frames_with_a_hand(light):
    paths = sorted(written(light).rglob("labels_*.npz"))
    for path in paths[1:5]:
        change_labels(path, **no_hand())
    source = open_light(light, limit=3)
    assert [source.official_index(i) for i in range(len(source))] == [0, 6, 7]  # of 0, 5, 6, 7
    assert source.counts["without a hand"] == 4
    for path in paths:
        change_labels(path, **no_hand())
    with pytest.raises(InputError, match="s1 val has no frame with a hand"):
        open_light(light, refresh=True)


# ------------------------------------------------------------------------------------------------------------- samples


def test_a_sample_is_what_its_files_say(train):
    sample, labels = train[3], labels_of(train, 3)
    subject, name, serial, frame = sample.key.split("/")
    folder = dexycb_tree() / subject / name / serial
    np.testing.assert_array_equal(sample.joints_cam_m, labels["joint_3d"][0])
    np.testing.assert_allclose(project(sample.joints_cam_m, sample.K_px), labels["joint_2d"][0], atol=1e-3)
    np.testing.assert_allclose(sample.params.transl_m, labels["pose_m"][0, 48:], atol=1e-9)
    depth_mm = cv2.imread(str(folder / f"aligned_depth_to_color_{frame}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(sample.depth_m * 1000, depth_mm, atol=1e-3)
    np.testing.assert_array_equal(sample.rgb[..., ::-1], cv2.imread(str(folder / f"color_{frame}.jpg")))
    np.testing.assert_array_equal(sample.hand_mask, labels["seg"] == 255)
    assert sample.hand_mask.any()
    assert sample.hand_model == "open"
    assert sample.betas_ok


def test_labels_agree_before_and_after_transforms(train):
    rng, sides, seen = np.random.default_rng(0), set(), []
    config = CropConfig(rotation_jitter_deg=90.0)
    for index in range(0, len(train), 2):
        sample = train[index]
        model = train.hand_model_of(sample.side)
        right = to_right(sample)
        for changed in (sample, right, crop(right, 128, config), crop(right, 128, config, rng)):
            seen.append(assert_labels_agree(changed, model))
        sides.add(sample.side)
    assert sides == set(SIDES)
    assert np.mean(seen) > 0.3


def test_the_mask_is_the_hand_and_not_the_objects(light):
    seg = np.zeros((480, 640), np.uint8)
    seg[10:20, 30:50], seg[100:110] = 255, 5
    change_labels(min(written(light).rglob("labels_*.npz")), seg=seg)
    mask = open_light(light, with_mask=True)[0].hand_mask
    assert mask.dtype == bool
    assert mask.sum() == 200
    assert mask[10:20, 30:50].all()


def test_what_is_not_asked_for_is_not_read(light):
    for path in light.rglob("aligned*.png"):
        path.unlink()
    sample = open_light(light, with_depth=False)[0]
    assert sample.depth_m is None
    assert sample.hand_mask is None
    assert sample.vertices_cam_m is None


def test_eight_cameras_see_one_hand_in_one_world(light):
    source = open_light(light)
    world = []
    for index in range(len(source)):
        T = source.T_world_cam(index)
        np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
        assert T[3].tolist() == [0, 0, 0, 1]
        world.append(source[index].joints_cam_m @ T[:3, :3].T + T[:3, 3])
    assert len(world) == 8
    np.testing.assert_allclose(world, np.broadcast_to(world[0], np.shape(world)), atol=1e-5)
    source.T_world_cam(0)[:] = 0  # a caller's copy
    assert source.T_world_cam(0)[3, 3] == 1


def test_extrinsics_are_needed_only_where_they_are_used(light):
    (path,) = light.glob(f"calibration/extrinsics_{SUBJECT}/extrinsics.yml")
    path.write_text(path.read_text().replace(f"'{layouts.DEXYCB_SERIALS[3]}'", "'1'"))
    source = open_light(light)
    assert len(source) == 8
    with pytest.raises(InputError, match=r"extrinsics\.yml: extrinsics of 841412060263 is not a list of 12 numbers"):
        source.T_world_cam(0)
    change_meta(written(light), extrinsics=None)
    with pytest.raises(InputError, match=r"meta\.yml: has no key 'extrinsics'"):
        open_light(light).T_world_cam(0)


# ----------------------------------------------------------------------------------------------- labels made with MANO


def plain_mano(numbers, pose_m, betas, side):
    """manopth as DexYCB calls it, joint after joint: (21, 3) joints in OpenPose's order and (778, 3) vertices."""
    axis_angle = np.concatenate([pose_m[:3], pose_m[3:48] @ numbers["hands_components"] + numbers["hands_mean"]])
    R = Rotation.from_rotvec(axis_angle.reshape(16, 3)).as_matrix()
    shaped = numbers["v_template"] + numbers["shapedirs"] @ betas
    rest = numbers["J_regressor"] @ shaped
    posed = shaped + numbers["posedirs"] @ (R[1:] - np.eye(3)).ravel()
    chain, blend = [], []
    for joint, parent in enumerate(MANO_PARENTS):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = R[joint], rest[joint] - (0 if parent < 0 else rest[parent])
        chain.append(local if parent < 0 else chain[parent] @ local)
        back = chain[joint].copy()
        back[:3, 3] -= back[:3, :3] @ rest[joint]
        blend.append(back)
    T = np.einsum("vj,jab->vab", numbers["weights"], np.stack(blend))
    vertices = (T[:, :3, :3] @ posed[..., None])[..., 0] + T[:, :3, 3] + pose_m[48:]
    tips = vertices[[745, 317, 445 if side == "left" else 444, 556, 673]]
    joints = np.concatenate([np.stack(chain)[:, :3, 3] + pose_m[48:], tips])
    return joints[list(MANO21_TO_OPENPOSE)], vertices


NUMBERS = {side: random_mano(seed, side=side) for seed, side in enumerate(SIDES)}


@pytest.fixture(scope="module")
def mano_tree(tmp_path_factory):
    """Two sequences, a right and a left hand, labelled by MANO files of made-up numbers; metadata as the release's."""
    folder = tmp_path_factory.mktemp("mano")
    root = light_tree(folder / "dexycb")
    right = written(root)
    left = next(path for path in sorted((root / SUBJECT).iterdir()) if path != right)
    shutil.copytree(right, left, dirs_exist_ok=True)
    change_meta(left, mano_sides=["left"], mano_calib=[f"{SUBJECT}_left"])
    for path in (root / SUBJECT).glob("*/meta.yml"):
        path.write_text(path.read_text().replace("hand_model: open\n", ""))
    rng = np.random.default_rng(0)
    for side, sequence in (("right", right), ("left", left)):
        write_mano(folder / f"MANO_{side.upper()}.pkl", NUMBERS[side], style="python2")
        betas = yaml.safe_load(layouts.dexycb_mano(root, f"{SUBJECT}_{side}").read_text())["betas"]
        for path in sequence.rglob("labels_*.npz"):
            place = [*rng.uniform(-0.05, 0.05, 2), rng.uniform(0.5, 0.9)]
            pose = np.concatenate([rng.normal(0, 1, 3), rng.normal(0, 0.4, 45), place]).astype(np.float32)
            joints, _ = plain_mano(NUMBERS[side], pose.astype(float), betas, side)
            change_labels(path, pose_m=pose[None], joint_3d=joints[None].astype(np.float32))
    return root


def test_mano_labels_decode_with_the_users_files(mano_tree):
    source = open_light(mano_tree, mano=mano_tree.parent, with_depth=False, with_vertices=True)
    rng, sides = np.random.default_rng(0), set()
    assert len(source) == 16
    for index in range(len(source)):
        sample, pose = source[index], labels_of(source, index, mano_tree)["pose_m"][0].astype(float)
        joints, vertices = plain_mano(NUMBERS[sample.side], pose, sample.params.betas, sample.side)
        np.testing.assert_allclose(sample.joints_cam_m, joints, atol=1e-6)
        np.testing.assert_allclose(sample.vertices_cam_m, vertices, atol=1e-5)
        model = source.hand_model_of(sample.side)
        right = to_right(sample)
        for changed in (sample, right, crop(right, 64, CropConfig(), rng)):
            assert_labels_agree(changed, model, max_px=0.05, max_m=1e-5)
        assert sample.hand_model == model.name == "mano"
        assert sample.betas_ok == (sample.side == "right")
        sides.add(sample.side)
    assert sides == set(SIDES)


def test_without_mano_files_joints_remain(mano_tree):
    source = open_light(mano_tree, with_depth=False, with_vertices=True)
    for index in (0, len(source) - 1):
        sample = source[index]
        np.testing.assert_array_equal(sample.joints_cam_m, labels_of(source, index, mano_tree)["joint_3d"][0])
        assert (sample.params, sample.vertices_cam_m, sample.hand_model) == (None, None, "mano")
    with pytest.raises(InputError, match=r"a left hand of DexYCB needs MANO_LEFT\.pkl"):
        source.hand_model_of("left")


def test_without_mano_left_only_left_hands_lack_a_pose(mano_tree, tmp_path):
    shutil.copy(mano_tree.parent / "MANO_RIGHT.pkl", tmp_path)
    options = {"mano": tmp_path, "with_depth": False}
    with pytest.warns(UserWarning, match=r"MANO_LEFT\.pkl: no such file"):
        source = open_light(mano_tree, **options)
    samples = [source[i] for i in range(len(source))]
    assert {(sample.side, sample.params is None, sample.betas_ok) for sample in samples} == {
        ("right", False, True),
        ("left", True, False),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_light(mano_tree, sides="right", **options)) == 8  # no left hand, no need of the file
    (tmp_path / "MANO_RIGHT.pkl").unlink()
    with pytest.raises(InputError, match=r"MANO_RIGHT\.pkl: no such MANO file"):
        open_light(mano_tree, **options)
    with pytest.raises(InputError, match="no such folder; name the one that holds your MANO_RIGHT"):
        open_light(mano_tree, mano=tmp_path / "none")


def test_trees_of_two_hand_models_need_the_users_word(light):
    change_meta(written(light), hand_model=None)
    with pytest.raises(InputError, match="some with MANO; give hand_model"):
        open_light(light)
    assert open_light(light, hand_model="open")[0].params is not None
    assert open_light(light, hand_model="mano")[0].params is None
    with pytest.raises(InputError, match="expected auto, open or mano"):
        open_light(light, hand_model="smpl")


# --------------------------------------------------------------------------------------------------------------- index


@pytest.fixture
def reads(monkeypatch):
    """Label files that the index has read."""
    paths, read = [], dexycb_index.read_members

    def counting(path, *names):
        paths.append(path)
        return read(path, *names)

    monkeypatch.setattr(dexycb_index, "read_members", counting)
    return paths


def test_the_index_is_read_once_for_all_splits(light, reads):
    first = open_light(light)
    assert len(reads) == first.num_official == 8
    again = open_light(light)
    assert len(reads) == 8
    assert [again.official_index(i) for i in range(8)] == [first.official_index(i) for i in range(8)]
    for subject in layouts.DEXYCB_SUBJECTS:
        if subject != SUBJECT:
            shutil.copytree(dexycb_tree() / subject, light / subject, ignore=lambda *_: layouts.DEXYCB_SERIALS)
    assert len(open_dexycb(light, setup="s2", split="val", with_depth=False)) >= 1
    assert not any(SUBJECT in str(path) for path in reads[8:])


def test_files_that_come_or_go_are_noticed_and_labels_changed_in_place_on_request(light, reads):
    assert len(open_light(light)) == 8
    path = min(written(light).rglob("labels_*.npz"))
    change_labels(path, **no_hand())
    stale = open_light(light)
    assert len(stale) == 8
    with pytest.raises(InputError, match="joint_3d is not a hand"):
        stale[0]
    assert len(open_light(light, refresh=True)) == 7
    assert len(open_light(light)) == 7
    path.unlink()  # changes the camera's folder
    gone = open_light(light)
    assert (len(gone), gone.counts["unreadable labels"], gone.counts["without a hand"]) == (8, 1, 0)
    with pytest.raises(InputError, match="no such file") as caught:
        gone[0]
    assert str(path) in str(caught.value)
    change_meta(written(light), num_frames=0)
    with pytest.raises(InputError, match="no frame with a hand"):
        open_light(light)


def test_only_what_the_split_takes_must_be_whole(light):
    with pytest.raises(InputError, match=r"subject-08: no such folder; s1 test of DexYCB needs it"):
        open_dexycb(light, setup="s1", split="test")
    for subject in layouts.DEXYCB_SUBJECTS:
        if subject != SUBJECT:
            shutil.copytree(dexycb_tree() / subject, light / subject, ignore=lambda *_: layouts.DEXYCB_SERIALS)
    outside = sorted((light / SUBJECT).iterdir())[layouts.dexycb_split("s0", "test")[2][0]]
    (outside / "meta.yml").write_text("serials: [\n")
    assert open_dexycb(light, split="train").counts["right hands"] >= 8
    for _ in range(2):  # built, then from the cache
        with pytest.raises(InputError, match=r"meta\.yml.*YAML") as caught:
            open_dexycb(light, split="test")
        assert str(outside) in str(caught.value)
    shutil.rmtree(outside)
    with pytest.raises(InputError, match="99 sequences, expected 100; splits count them"):
        open_light(light)


# ----------------------------------------------------------------------------------------------------------- bad input


def scale_depth(path, factor):
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), (depth * factor).astype(np.uint16))


def cut(num):
    return lambda path: path.write_bytes(path.read_bytes()[:num])


def small(path):
    cv2.imwrite(str(path), np.zeros((10, 12), np.uint16))


def nan_in(name):
    def change(path):
        array = dict(np.load(path))[name]
        array.flat[7] = np.nan
        change_labels(path, **{name: array})

    return change


def replaced(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new))


DAMAGE = {
    "cut off picture": ("color_*.jpg", cut(9000), "truncated"),
    "empty picture": ("color_*.jpg", cut(0), "not an image"),
    "missing picture": ("color_*.jpg", lambda p: p.unlink(), "no such file"),
    "small picture": ("color_*.jpg", small, "12x10 pixels, expected 640x480"),
    "missing depth": ("aligned*.png", lambda p: p.unlink(), "no such file"),
    "cut off depth": ("aligned*.png", cut(9000), "truncated"),
    "small depth": ("aligned*.png", small, "12x10 pixels, expected 640x480"),
    "depth in tenths of mm": ("aligned*.png", lambda p: scale_depth(p, 10), r"depth image.* in millimetres"),
    "depth in cm": ("aligned*.png", lambda p: scale_depth(p, 0.1), r"depth image.* in millimetres"),
    "colour as depth": ("aligned*.png", lambda p: cv2.imwrite(str(p), np.zeros((480, 640, 3), np.uint8)), "16-bit PNG"),
    "damaged labels": ("labels*.npz", cut(500), "not a readable npz"),
    "labels without a key": ("labels*.npz", lambda p: np.savez(p, seg=np.zeros(3)), "pose_m"),
    "labels of another shape": ("labels*.npz", lambda p: change_labels(p, pose_m=np.zeros((2, 51))), r"\(2, 51\), exp"),
    "joints that are no numbers": ("labels*.npz", nan_in("joint_3d"), "joint_3d is not a hand before the camera"),
    "a pose that is no number": ("labels*.npz", nan_in("pose_m"), "pose_m has values that are not numbers"),
    "small segmentation": ("labels*.npz", lambda p: change_labels(p, seg=np.zeros((3, 4))), r"seg \(3, 4\)"),
    "damaged meta": ("meta.yml", cut(30), r"meta\.yml"),
    "meta without a key": ("meta.yml", replaced("num_frames", "frames"), "has no key 'num_frames'"),
    "meta that calls": (
        "meta.yml",
        replaced("ycb_ids:", "x: !!python/object/apply:os.abort []\nycb_ids:"),
        "safe YAML",
    ),
    "frames that are no count": ("meta.yml", replaced("num_frames: ", "num_frames: -"), "expected a count"),
    "meta of two hands": ("meta.yml", replaced("- right", "- right\n- left"), r"expected \[right\] or \[left\]"),
    "missing intrinsics": ("intrinsics/8*.yml", lambda p: p.unlink(), "no such file"),
    "intrinsics of text": ("intrinsics/8*.yml", replaced("fx:", "fx: one #"), "numbers fx, fy, ppx and ppy"),
    "missing betas": (f"mano_{SUBJECT}_right/mano.yml", lambda p: p.unlink(), "no such file"),
    "nine betas": (
        f"mano_{SUBJECT}_right/mano.yml",
        lambda p: p.write_text("betas: [1, 2]"),
        "not a list of 10 numbers",
    ),
}


def read_all(root):
    source = open_light(root, with_mask=True)
    return [source[i] for i in range(len(source))]


@pytest.mark.parametrize("what", DAMAGE)
def test_a_bad_file_is_named_with_what_is_wrong(what, light):
    pattern, damage, message = DAMAGE[what]
    inside = written(light) if not pattern.endswith(".yml") or pattern == "meta.yml" else light
    path = min(inside.rglob(pattern))
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        read_all(light)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_folder_is_explained(tmp_path):
    with pytest.raises(InputError, match="no such folder; give the folder that holds DexYCB's subjects"):
        open_dexycb(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no folder calibration, so it is not DexYCB's"):
        open_dexycb(tmp_path)
