"""FreiHAND: numbering, splits, MANO's mean pose, evaluation with and without truth, long JSON, faults by name."""

import json
import shutil
import tracemalloc
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from support.laws import assert_labels_agree
from support.mano_files import random_mano, write_mano
from utnet.config import CropConfig
from utnet.data import freihand, open_source
from utnet.data.transforms import crop, mirror, to_right
from utnet.errors import InputError
from utnet.geometry import project
from utnet.hand import HandModel
from utnet.io import layouts
from utnet.io.json_rows import read_rows
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.write_freihand import write_freihand

NUM, NUM_TRAIN, NUM_EVALUATION = 36, 24, 12
SPLITS = ("train", "train_fit", "val", "evaluation")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trees") / "freihand"
    write_freihand(folder, num=NUM, seed=5, progress=False)
    return folder


@pytest.fixture
def copy(tree, tmp_path) -> Path:
    """A tree that a test may damage."""
    return Path(shutil.copytree(tree, tmp_path / "freihand"))


def rows_of(root: Path, which: str, what: str) -> list:
    return json.loads((root / f"{which}_{what}.json").read_text())


def change_row(root: Path, name: str, row: int, change) -> None:
    rows = json.loads((root / name).read_text())
    rows[row] = change(rows[row])
    (root / name).write_text(json.dumps(rows))


# --------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("how", ["as it is", "right", "left", "turned crop"])
@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_parameters_mesh_joints_and_camera_agree(tree, split, how):
    source = open_source("freihand", tree, split=split, limit=9, with_vertices=True)
    for index in range(len(source)):
        sample = source[index]
        assert sample.side == "right"
        assert sample.depth_m is None
        assert sample.hand_model == "open"
        if how == "left":
            sample = mirror(sample)
            assert sample.side == "left"
        elif how != "as it is":
            sample = to_right(sample)
        if how == "turned crop":
            config = CropConfig(rotation_jitter_deg=180.0, scale_jitter=0.3, shift_jitter=0.1)
            sample = crop(sample, 160, config, np.random.default_rng(index))
        assert_labels_agree(sample, source.hand_model_of("right"), max_px=0.1, max_m=1e-4)


def test_labels_are_those_of_the_files(tree):
    source = open_source("freihand", tree, with_vertices=True, with_mask=True)
    for index in (0, 7, 30, len(source) - 1):
        sample, row = source[index], index % NUM_TRAIN
        np.testing.assert_array_equal(sample.K_px, rows_of(tree, "training", "K")[row])
        np.testing.assert_array_equal(sample.joints_cam_m, rows_of(tree, "training", "xyz")[row])
        np.testing.assert_allclose(sample.vertices_cam_m, rows_of(tree, "training", "verts")[row], atol=1e-7)
        np.testing.assert_array_equal(sample.params.betas, rows_of(tree, "training", "mano")[row][0][48:58])
        assert source.scale_m(index) == rows_of(tree, "training", "scale")[row]
        bone = sample.joints_cam_m[9] - sample.joints_cam_m[10]
        assert abs(np.linalg.norm(bone) - source.scale_m(index)) < 1e-5
        x, y = np.rint(project(sample.joints_cam_m, sample.K_px)).astype(int).T
        inside = (x >= 0) & (x < 224) & (y >= 0) & (y < 224)
        assert sample.hand_mask[y[inside], x[inside]].mean() > 0.75
        assert sample.hand_mask.mean() < 0.6


def test_backgrounds_show_the_same_hand_under_the_official_numbers(tree):
    every = open_source("freihand", tree)
    assert every.num_official == len(every) == 4 * NUM_TRAIN
    for version, background in enumerate(("gs", "hom", "sample", "auto")):
        source = open_source("freihand", tree, background=background)
        assert len(source) == NUM_TRAIN
        for index in (0, 11):
            number = index + NUM_TRAIN * version
            sample, first = source[index], every[index]
            assert source.official_index(index) == number
            assert sample.key == every.key(number) == f"training/{number:08d}"
            assert sample.sequence == first.sequence == source.sequence(index)
            np.testing.assert_array_equal(sample.rgb, every[number].rgb)
            np.testing.assert_array_equal(sample.joints_cam_m, first.joints_cam_m)
            assert version == 0 or np.abs(sample.rgb.astype(int) - first.rgb).mean() > 10


def test_validation_is_a_block_of_hands_with_all_their_backgrounds(tree):
    hands, numbers = {}, {}
    for split in ("train", "train_fit", "val"):
        source = open_source("freihand", tree, split=split)
        numbers[split] = {source.official_index(i) for i in range(len(source))}
        hands[split] = {number % NUM_TRAIN for number in numbers[split]}
        assert len(numbers[split]) == 4 * len(hands[split])
    assert hands["val"] == {22, 23}  # 5 % of 24, rounded up
    assert hands["train_fit"] == set(range(22))
    assert numbers["val"] | numbers["train_fit"] == numbers["train"]
    assert set(open_source("freihand", tree, split="val").counts.items()) >= {
        ("hands of the split", 2),
        ("pictures", 8),
    }


def test_a_limit_is_spread_over_hands_and_backgrounds(tree):
    source = open_source("freihand", tree, limit=5)
    numbers = [source.official_index(i) for i in range(5)]
    assert (numbers[0], numbers[-1]) == (0, 4 * NUM_TRAIN - 1)
    assert {number // NUM_TRAIN for number in numbers} == {0, 1, 2, 3}


# ----------------------------------------------------------------------------------------------------------- evaluation


def test_older_releases_have_no_joints_in_evaluation(copy):
    for what in ("xyz", "verts", "mano"):
        (copy / f"evaluation_{what}.json").unlink()
    source = open_source("freihand", copy, split="evaluation")
    assert len(source) == source.num_official == NUM_EVALUATION
    sample = source[3]
    assert np.isnan(sample.joints_cam_m).all()
    assert not sample.joints_2d_conf.any()
    assert not sample.joints_3d_conf.any()
    assert sample.params is None
    assert source.scale_m(3) > 0.01
    whole = crop(sample, 224, CropConfig(expand=2.0))
    np.testing.assert_array_equal(whole.rgb, sample.rgb)  # a crop of twice the box is the whole picture
    with pytest.raises(InputError, match=r"evaluation_verts\.json: no such file; older releases"):
        open_source("freihand", copy, split="evaluation", with_vertices=True)


def test_evaluation_with_published_truth_uses_the_box_of_the_joints(tree):
    sample = open_source("freihand", tree, split="evaluation")[1]
    points = project(sample.joints_cam_m, sample.K_px)
    np.testing.assert_allclose(sample.box_px, np.clip([*points.min(0), *points.max(0)], -0.5, 223.5))
    assert sample.joints_3d_conf.all()
    assert sample.params is not None


# ----------------------------------------------------------------------------------------------------------------- MANO


@lru_cache(maxsize=1)
def local_mano() -> dict:
    """A made-up MANO whose joints are regressed from vertices around them, as the real one's are."""
    data = random_mano(3)
    nearest = data["weights"].argmax(1)
    regressor = np.stack([nearest == joint for joint in range(16)]).astype(float)
    data["J_regressor"] = type(data["J_regressor"])(regressor / regressor.sum(1, keepdims=True))
    return data


@pytest.fixture
def mano_tree(copy, tmp_path) -> tuple[Path, Path, np.ndarray]:
    """A tree as the official site gives it, and the folder of a made-up MANO file.

    Meshes are posed by a model that adds the mean pose itself, and joints regressed from the posed mesh, with the tips
    of `mano_utils.py`, as in the toolbox's `model.py`. Returns also the kinematic joints, (24, 21, 3).
    """
    folder = tmp_path / "mano"
    folder.mkdir()
    data = local_mano()
    path = write_mano(folder / "MANO_RIGHT.pkl", data, style="python2")
    model = HandModel.from_mano(path, flat_hand_mean=False, tips="freihand")
    rows = np.array(rows_of(copy, "training", "mano"))
    wrists = np.array(rows_of(copy, "training", "xyz"))[:, :1]
    R = torch.from_numpy(axis_angle_to_matrix(rows[:, 0, :48].reshape(-1, 16, 3))).float()
    mesh = model(R[:, :1], R[:, 1:], torch.from_numpy(rows[:, 0, 48:58]).float())
    vertices, kinematic = mesh.vertices_m.numpy(), mesh.joints_m.numpy()
    regressed = np.einsum("jv,nvc->njc", data["J_regressor"].toarray(), vertices)
    xyz = np.zeros((NUM_TRAIN, 21, 3))
    places = {
        0: 0,
        1: 5,
        2: 6,
        3: 7,
        4: 9,
        5: 10,
        6: 11,
        7: 17,
        8: 18,
        9: 19,
        10: 13,
        11: 14,
        12: 15,
        13: 1,
        14: 2,
        15: 3,
    }
    for mano_joint, place in places.items():
        xyz[:, place] = regressed[:, mano_joint]
    for place, vertex in {4: 744, 8: 320, 12: 443, 16: 555, 20: 672}.items():
        xyz[:, place] = vertices[:, vertex]
    shift = wrists - xyz[:, :1]
    (copy / "training_xyz.json").write_text(json.dumps((xyz + shift).tolist()))
    (copy / "training_verts.json").write_text(json.dumps((vertices + shift).tolist()))
    (copy / "hand_model.json").unlink()
    return copy, folder, kinematic + shift


def test_mano_parameters_include_the_mean_pose(mano_tree):
    root, mano, kinematic = mano_tree
    source = open_source("freihand", root, mano=mano, with_vertices=True, background="hom")
    model = source.hand_model_of("right")
    plain = HandModel.from_mano(mano / "MANO_RIGHT.pkl", flat_hand_mean=True, tips="freihand")
    torch.testing.assert_close(model.v_template, plain.v_template)
    assert model.pose_mean is None
    for index in range(0, NUM_TRAIN, 3):
        sample = source[index]
        assert sample.hand_model == "mano"
        assert sample.vertices_cam_m.shape == (778, 3)
        decoded = model.decode(sample.params.map(lambda array: torch.from_numpy(np.array(array, np.float32))[None]))
        # The labelled wrist is regressed from the mesh: that constant is all that parts mesh and label.
        off = decoded.vertices_m[0].numpy() + sample.params.transl_m - sample.vertices_cam_m
        np.testing.assert_allclose(off, sample.joints_cam_m[0] - kinematic[index, 0] + np.zeros_like(off), atol=2e-5)
        wrist = decoded.joints_m[0, 0].numpy() + sample.params.transl_m
        np.testing.assert_allclose(wrist, sample.joints_cam_m[0], atol=1e-6)
        with_kinematic = dict(vars(sample), vertices_cam_m=None)
        with_kinematic["joints_cam_m"] = kinematic[index] + sample.joints_cam_m[0] - kinematic[index, 0]
        assert_labels_agree(type(sample)(**with_kinematic), model, max_px=0.05, max_m=1e-4)
    assert np.abs(np.asarray(local_mano()["hands_mean"])).max() > 0.1  # the mean was worth adding


def test_without_the_mano_file_joints_and_meshes_are_there_and_parameters_are_not(mano_tree):
    root, mano, _ = mano_tree
    source = open_source("freihand", root, with_vertices=True, limit=3)
    assert source[0].params is None
    assert source[0].hand_model == "mano"
    assert source[0].joints_3d_conf.all()
    with pytest.raises(InputError, match=r"name the folder of your MANO_RIGHT\.pkl"):
        source.hand_model_of("right")
    (mano / "MANO_RIGHT.pkl").unlink()
    with pytest.raises(InputError, match=r"MANO_RIGHT\.pkl: no such file"):
        open_source("freihand", root, mano=mano)
    with pytest.raises(
        InputError, match=r"training_verts\.json: meshes of 778 vertices, expected 1609 of the open hand"
    ):
        open_source("freihand", root, hand_model="open", with_vertices=True)


def test_another_mano_file_gives_other_parameters(mano_tree):
    root, mano, _ = mano_tree
    before = open_source("freihand", root, mano=mano)[0].params
    data = dict(local_mano(), hands_mean=np.zeros(45))
    write_mano(mano / "MANO_RIGHT.pkl", data)
    after = open_source("freihand", root, mano=mano)[0].params
    assert np.abs(after.hand_pose - before.hand_pose).max() > 0.1
    np.testing.assert_array_equal(after.global_orient, before.global_orient)


# --------------------------------------------------------------------------------------------------------------- faults


def test_the_second_opening_parses_nothing(tree, monkeypatch):
    first = open_source("freihand", tree, with_vertices=True)[5]

    def fail(*args, **kwargs):
        raise AssertionError("parsed again")

    monkeypatch.setattr(freihand, "read_rows", fail)
    monkeypatch.setattr(freihand.FreiHand, "_decode_all", fail)
    second = open_source("freihand", tree, with_vertices=True)[5]
    for name in ("joints_cam_m", "vertices_cam_m", "K_px"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("what", ["K", "mano", "xyz", "scale", "verts"])
def test_json_files_that_are_missing_damaged_or_short_are_named(copy, what):
    path = copy / f"training_{what}.json"
    rows = json.loads(path.read_text())
    expected = {"K": r"\(3, 3\)", "mano": r"\(1, 61\)", "xyz": r"\(21, 3\)", "scale": r"\(\)", "verts": r"\(1609, 3\)"}

    def opened(match):
        with pytest.raises(InputError, match=match):
            open_source("freihand", copy, with_vertices=True)

    path.write_text(json.dumps(rows)[:-30])
    opened(rf"training_{what}\.json: truncated")
    path.write_text(json.dumps([*rows[:4], [rows[4]], *rows[5:]]))
    opened(rf"training_{what}\.json: row 4 has shape .*, expected {expected[what]}")
    path.write_text(json.dumps(rows[:-1]))
    opened(r"rows, but the other files have")
    path.write_text(json.dumps([*rows, rows[0]]))
    opened(r"rows, but the other files have")
    path.unlink()
    opened(rf"training_{what}\.json: no such file")


@pytest.mark.parametrize("what", ["K", "mano", "xyz", "verts"])
def test_labels_that_are_not_numbers_spoil_their_own_hand_alone(copy, what):
    def spoil(row):
        array = np.array(row)
        array.reshape(-1)[49 if what == "mano" else 2] = np.nan
        return array.tolist()

    change_row(copy, f"training_{what}.json", 2, spoil)
    source = open_source("freihand", copy, with_vertices=True)
    assert np.isfinite(source[1].joints_cam_m).all()
    for index in (2, 2 + NUM_TRAIN):
        with pytest.raises(InputError, match=rf"training_{what}\.json: row 2 .*NaN"):
            source[index]


def test_labels_of_something_else_are_named(copy):
    change_row(copy, "training_K.json", 1, lambda K: np.transpose(K).tolist())
    change_row(copy, "training_xyz.json", 3, lambda xyz: (-np.array(xyz)).tolist())
    source = open_source("freihand", copy)
    with pytest.raises(InputError, match=r"training_K\.json: row 1 is .*not a camera matrix"):
        source[1]
    with pytest.raises(InputError, match=r"training_xyz\.json: row 3 is not a hand before the camera"):
        source[3]


def test_pictures_that_are_missing_cut_off_or_of_another_size_are_named(copy):
    source = open_source("freihand", copy, with_mask=True)
    rgb = copy / "training/rgb"
    (rgb / "00000001.jpg").unlink()
    (rgb / "00000002.jpg").write_bytes((rgb / "00000002.jpg").read_bytes()[:3000])
    cv2.imwrite(str(rgb / "00000003.jpg"), np.zeros((200, 224, 3), np.uint8))
    (copy / "training/mask/00000004.jpg").unlink()
    reasons = {1: "no such file", 2: "truncated", 3: "224x200 pixels, expected 224x224", 4: "mask.*no such file"}
    for index, reason in reasons.items():
        with pytest.raises(InputError, match=rf"{index:08d}\.jpg: .*{reason}|{reason}"):
            source[index]
    assert source[5].hand_mask.any()


def test_options_that_do_not_exist_are_named(tree, tmp_path):
    for options, message in (
        ({"split": "test"}, "no split 'test'; expected one of train, train_fit, val, evaluation"),
        ({"background": "beach"}, "background is 'beach'; expected one of all, gs, hom, sample, auto"),
        ({"background": "hom", "split": "evaluation"}, "evaluation pictures have one background"),
        ({"with_mask": True, "split": "evaluation"}, "no masks"),
        ({"hand_model": "smpl"}, "hand_model is 'smpl'"),
        ({"setup": "s0"}, "freihand has no option 'setup'"),
    ):
        with pytest.raises(InputError, match=message):
            open_source("freihand", tree, **options)
    with pytest.raises(InputError, match="no such folder"):
        open_source("freihand", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"neither a folder training nor evaluation, so it is not FreiHAND's"):
        open_source("freihand", tmp_path)
    (tmp_path / "training").mkdir()
    with pytest.raises(InputError, match=r"training_K\.json: no such file; extract"):
        open_source("freihand", tmp_path)
    (tmp_path / "hand_model.json").write_text('{"hand_model": "paper"}')
    with pytest.raises(InputError, match=r"hand_model\.json: hand_model is 'paper'"):
        open_source("freihand", tmp_path)


# ------------------------------------------------------------------------------------------------------------ long JSON

VALUES = [
    "[[1, 2.5], [-3e-2, 4]]",
    " [ [1,2] ,\n[3,4]\t]\n ",
    "[[123456.789, -0.000012345], [1E5, 2]]",
    "[[null, NaN], [-Infinity, 1]]",
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("text", VALUES)
def test_rows_are_those_of_the_json_module_wherever_chunks_end(tmp_path, text, chunk):
    path = tmp_path / "rows.json"
    path.write_text(text)
    np.testing.assert_array_equal(read_rows(path, (2,), chunk_size=chunk), np.array(json.loads(text), float))
    path.write_text("[0.125, 12, 3]")
    np.testing.assert_array_equal(read_rows(path, (), chunk_size=chunk), [0.125, 12, 3])


@pytest.mark.parametrize("chunk", [1, 1000])
def test_a_list_cut_off_anywhere_is_refused(tmp_path, chunk):
    text, path = VALUES[0], tmp_path / "rows.json"
    for end in range(len(text)):
        path.write_text(text[:end])
        with pytest.raises(InputError, match="truncated"):
            read_rows(path, (2,), chunk_size=chunk)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not a JSON list"),
        ("[]", "an empty list"),
        ("[[1, 2] [3, 4]]", r"'\[' after row 0, expected a comma"),
        ("[[1, 2], [3, x], " + "[1, 2], " * 20 + "[1, 2]]", "row 1 is not JSON"),
        ("[[1, 2], [3, [4]]]", "row 1 is not an array of numbers"),
        ('[["a", 2]]', "row 0 is not an array of numbers"),
        ("[[1, 2], [3]]", r"row 1 has shape \(1,\), expected \(2\)"),
        ("[" * 100000, "row 0 is not JSON"),
        ("[[" + "9" * 5000 + ", 2], [1, 2]]", "row 0 is not JSON|row 0 is not an array"),
    ],
)
def test_what_is_no_list_of_numbers_is_named(tmp_path, text, message):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(InputError, match=rf"rows\.json: {message}"):
        read_rows(tmp_path / "rows.json", (2,))


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "rows.json").write_bytes(b"[\xff\xfe")
    with pytest.raises(InputError, match=r"rows\.json: not a text file"):
        read_rows(tmp_path / "rows.json", (2,))


def test_memory_stays_far_below_the_file(tmp_path):
    path = tmp_path / "rows.json"
    rows = np.random.default_rng(0).normal(size=(3000, 60))
    path.write_text(json.dumps(rows.tolist()))
    size = path.stat().st_size
    tracemalloc.start()
    read = read_rows(path, (60,), dtype=np.float32, num=len(rows), chunk_size=2**14)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(read, rows, rtol=1e-6)
    assert size > 3e6
    assert peak - read.nbytes < 3e5


# -------------------------------------------------------------------------------------------------------------- writing


def test_the_tree_has_every_file_that_the_toolbox_opens(tree):
    for which, num, versions in (("training", NUM_TRAIN, 4), ("evaluation", NUM_EVALUATION, 1)):
        for what, shape in (("K", (3, 3)), ("mano", (1, 61)), ("xyz", (21, 3)), ("scale", ()), ("verts", (1609, 3))):
            assert np.shape(rows_of(tree, which, what)) == (num, *shape)
        pictures = sorted(path.name for path in (tree / which / "rgb").iterdir())
        assert pictures == [f"{i:08d}.jpg" for i in range(num * versions)]
    assert len(list((tree / "training/mask").iterdir())) == NUM_TRAIN
    for K, mano, xyz in zip(*(rows_of(tree, "training", what) for what in ("K", "mano", "xyz")), strict=True):
        K, (uv, scale) = np.array(K), (np.array(mano[0][58:60]), mano[0][60])
        focal = (K[0, 0] + K[1, 1]) / 2
        root = np.array([*(uv - K[:2, 2]), focal]) / scale  # model.py, recover_root
        np.testing.assert_allclose(root, xyz[layouts.FREIHAND_ROOT_JOINT], atol=1e-5)


def test_same_seed_same_bytes_and_requests_are_checked(tree, tmp_path):
    for name in "ab":
        write_freihand(tmp_path / name, num=2, seed=3, split="train", progress=False)
    files = {
        name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in "ab"
    }
    assert files["a"] == files["b"]
    assert len(files["a"]) == 1 + 5 + 8 + 2
    assert files["a"][Path("training/rgb/00000000.jpg")] != (tree / "training/rgb/00000000.jpg").read_bytes()
    with pytest.raises(InputError, match="not empty"):
        write_freihand(tmp_path / "a", num=1, progress=False)
    for bad in ({"num": 0}, {"num": 1, "split": "val"}):
        with pytest.raises(InputError, match="expected"):
            write_freihand(tmp_path / "c", **bad, progress=False)
    write_freihand(tmp_path / "d", num=1, seed=3, split="train", progress=False)
    with pytest.raises(InputError, match="one hand cannot be divided"):
        open_source("freihand", tmp_path / "d", split="val")
    with pytest.raises(InputError, match=r"evaluation_K\.json: no such file"):
        open_source("freihand", tmp_path / "d", split="evaluation")
