"""Submission files: written files are readable by the benchmarks, and invalid ones are refused."""

import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utnet.conventions import JOINT_NAMES, MANO21_NAMES
from utnet.errors import InputError
from utnet.evaluation import submission

WRITERS = {
    "ho3d": (submission.write_ho3d_submission, submission.check_ho3d_submission),
    "freihand": (submission.write_freihand_submission, submission.check_freihand_submission),
}


def hands(num: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Joints (OpenPose-21) and meshes half a metre in front of an OpenCV camera."""
    rng = np.random.default_rng(seed)
    place = rng.normal(size=(num, 1, 3)) * 0.05 + (0, 0, 0.6)
    return rng.uniform(-0.1, 0.1, (num, 21, 3)) + place, rng.uniform(-0.1, 0.1, (num, 778, 3)) + place


def zip_of(path, tree, member="pred.json"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, tree if isinstance(tree, str) else json.dumps(tree))
    return path


def official_tree(num=2):
    joints, vertices = hands(num)
    return [(joints * (1, -1, -1)).tolist(), (vertices * (1, -1, -1)).tolist()]


# ------------------------------------------------------------------------------------------------------ HO3D, FreiHAND


def test_ho3d_order_and_axes(tmp_path):
    joints, vertices = hands()
    submission.write_ho3d_submission(tmp_path / "pred.zip", joints, vertices, num=4)
    with zipfile.ZipFile(tmp_path / "pred.zip") as archive:
        assert archive.namelist() == ["pred.json"]
        xyz, verts = json.loads(archive.read("pred.json"))
    assert np.shape(xyz) == (4, 21, 3)
    assert np.shape(verts) == (4, 778, 3)
    for name in ("wrist", "little_mcp", "thumb_tip", "ring_tip"):  # HO3D has the little finger before the ring finger
        ours = joints[:, JOINT_NAMES.index(name)] * (1, -1, -1)
        np.testing.assert_allclose(np.array(xyz)[:, MANO21_NAMES.index(name)], ours, atol=0.51e-7)
    np.testing.assert_allclose(verts, vertices * (1, -1, -1), atol=0.51e-7)


def test_freihand_keeps_order_and_axes(tmp_path):
    joints, vertices = hands()
    submission.write_freihand_submission(tmp_path / "pred.zip", joints, vertices)
    with zipfile.ZipFile(tmp_path / "pred.zip") as archive:
        xyz, verts = json.loads(archive.read("pred.json"))
    np.testing.assert_allclose(xyz, joints, atol=0.51e-7)
    np.testing.assert_allclose(verts, vertices, atol=0.51e-7)


@pytest.mark.parametrize("name", WRITERS)
def test_checks_read_what_json_reads(tmp_path, name):
    write, check = WRITERS[name]
    joints, vertices = hands(5)
    write(tmp_path / "pred.zip", torch.from_numpy(joints).requires_grad_(), (v for v in vertices.astype(np.float32)))
    with zipfile.ZipFile(tmp_path / "pred.zip") as archive:
        archive.extract("pred.json", tmp_path)
    xyz, verts = json.loads((tmp_path / "pred.json").read_text())
    for path in (tmp_path / "pred.zip", tmp_path / "pred.json"):
        found = check(path, num=5)
        assert np.array_equal(found.joints_m, xyz)
        assert np.array_equal(found.vertices_m, verts)
        assert found.has_mesh


@settings(max_examples=20)
@given(chunk=st.integers(1, 5000), indent=st.sampled_from([None, 1]), seed=st.integers(0, 100))
def test_reading_does_not_depend_on_chunks_or_spaces(tmp_path_factory, chunk, indent, seed):
    folder = tmp_path_factory.mktemp("chunks")
    joints, vertices = hands(2, seed)
    tree = [joints.tolist(), vertices.tolist()]
    (folder / "pred.json").write_text(json.dumps(tree, indent=indent) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission.pred_json, "_CHUNK", max(chunk, 400))
        found = submission.check_freihand_submission(folder / "pred.json", num=2)
    assert np.array_equal(found.joints_m, joints)
    assert np.array_equal(found.vertices_m, vertices)


@pytest.mark.parametrize("name", WRITERS)
def test_joints_alone_come_with_zeros(tmp_path, name):
    write, check = WRITERS[name]
    write(tmp_path / "pred.zip", hands()[0], None)
    found = check(tmp_path / "pred.zip", num=4)
    assert not found.has_mesh
    assert not found.vertices_m.any()


def test_official_numbers_of_samples(tmp_path):
    write, _ = WRITERS["ho3d"]
    write(tmp_path / "pred.zip", *hands(3))
    for version, num in submission.HO3D_NUM.items():
        with pytest.raises(InputError, match=f"joints of 3 samples, expected {num}"):
            submission.check_ho3d_submission(tmp_path / "pred.zip", version=version)
    with pytest.raises(InputError, match="'v4'"):
        submission.check_ho3d_submission(tmp_path / "pred.zip", version="v4")
    with pytest.raises(InputError, match="more than 2 samples"):
        submission.check_ho3d_submission(tmp_path / "pred.zip", num=2)
    submission.write_freihand_submission(tmp_path / "pred.zip", *hands(3))
    with pytest.raises(InputError, match="expected 3960"):
        submission.check_freihand_submission(tmp_path / "pred.zip")


def test_the_other_benchmarks_axes_are_refused(tmp_path):
    submission.write_ho3d_submission(tmp_path / "ho3d.zip", *hands(3))
    submission.write_freihand_submission(tmp_path / "freihand.zip", *hands(3))
    with pytest.raises(InputError, match="OpenCV"):
        submission.check_freihand_submission(tmp_path / "ho3d.zip", num=3)
    with pytest.raises(InputError, match="OpenGL"):
        submission.check_ho3d_submission(tmp_path / "freihand.zip", num=3)


def bad_hands():
    joints, vertices = hands()
    nan, behind = joints.copy(), vertices.copy()
    nan[2, 5, 1], behind[3, :, 2] = np.nan, -behind[3, :, 2]
    yield "joints of sample 2 are NaN", nan, vertices
    yield "vertices of sample 3 lie behind", joints, behind
    yield "metres long", joints * 1000, vertices
    yield "metres long", joints, vertices * 1000
    yield "metres long", np.zeros_like(joints), vertices
    yield r"joints of sample 0 have shape \(20, 3\)", joints[:, :20], vertices
    yield r"vertices of sample 0 have shape \(700, 3\).*MANO", joints, vertices[:, :700]
    yield "vertices of 3 samples, expected 4", joints, vertices[:3]
    yield "joints of 4 samples, expected 5", np.concatenate([joints, joints[:1]])[:4], vertices
    yield "are no array", [["x"]], vertices


@pytest.mark.parametrize("case", range(10))
@pytest.mark.parametrize("name", WRITERS)
def test_what_a_server_refuses_is_not_written(tmp_path, name, case):
    message, joints, vertices = list(bad_hands())[case]
    path = tmp_path / "pred.zip"
    path.write_bytes(b"an older file")
    with pytest.raises(InputError, match=message):
        WRITERS[name][0](path, joints, vertices, num=5 if "expected 5" in message else None)
    assert [p.name for p in tmp_path.iterdir()] == ["pred.zip"]
    assert path.read_bytes() == b"an older file"


def damaged():
    good = official_tree()
    opencv = [[[[x, -y, -z] for x, y, z in hand] for hand in part] for part in good]
    nan, null, short = (json.loads(json.dumps(good)) for _ in range(3))
    nan[0][1][3][2], null[1][0][5][0] = float("nan"), None
    short[0][1] = short[0][1][:20]
    text = json.dumps(good)
    yield "joints of sample 0 lie behind the camera.*OpenGL", opencv
    yield "joints of sample 1 are NaN", nan
    yield "vertices of sample 0 are NaN", null
    yield r"joints of sample 1 have shape \(20, 3\)", short
    yield "second list", good[:1]
    yield "no more", [*good, []]
    yield "joints of 1 samples, expected 2", [good[0][:1], good[1]]
    yield "vertices of 1 samples, expected 2", [good[0], good[1][:1]]
    yield "joints of 0 samples", [[], []]
    yield "list of two lists", {"xyz": good[0]}
    yield "metres long", [(np.array(part) * 1000).tolist() for part in good]
    yield "vertices of sample 1 are cut off", text[:-10]
    yield "after the end", text + "]"
    yield "are cut off or no JSON", text.replace("[[[", "[[[oops", 1)
    yield "list of two lists", ""


@pytest.mark.parametrize("case", range(15))
def test_what_the_server_refuses_is_refused(tmp_path, case):
    message, tree = list(damaged())[case]
    with pytest.raises(InputError, match=message):
        submission.check_ho3d_submission(zip_of(tmp_path / "pred.zip", tree), num=2)


def test_files_that_are_no_submission(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        submission.check_ho3d_submission(tmp_path / "none.zip")
    with pytest.raises(InputError, match=r"no pred.json at the top of the zip \(out/pred.json\)"):
        submission.check_ho3d_submission(zip_of(tmp_path / "a.zip", official_tree(), "out/pred.json"), num=2)
    cut = zip_of(tmp_path / "b.zip", official_tree())
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cannot be read|list of two"):
        submission.check_ho3d_submission(cut, num=2)
    bare = tmp_path / "binary.json"
    bare.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        submission.check_ho3d_submission(bare, num=2)


def test_writing_holds_one_hand_at_a_time(tmp_path):
    joints, vertices = hands(4)
    tracemalloc.start()
    submission.write_ho3d_submission(
        tmp_path / "pred.zip", (joints[i % 4] for i in range(60)), (vertices[i % 4] for i in range(60))
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5e6  # one list of 60 meshes of Python floats would take 4.5e6


# -------------------------------------------------------------------------------------------------------------- DexYCB


def test_dexycb_lines(tmp_path):
    joints, _ = hands(3)
    path = tmp_path / "results.txt"
    submission.write_dexycb_results(path, [7, 0, 41], torch.from_numpy(joints))
    lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["7", "0", "41"]
    assert all(len(line.split(",")) == 64 for line in lines)
    np.testing.assert_allclose(np.array(lines[1].split(",")[1:], float).reshape(21, 3), joints[1] * 1000, atol=0.51e-4)
    found = submission.check_dexycb_results(path, [0, 7])
    assert list(found) == [7, 0, 41]
    np.testing.assert_allclose(found[41], joints[2] * 1000, atol=0.51e-4)


def test_dexycb_scores_are_over_the_truths_samples():
    joints, _ = hands(4)
    truth = {i: joints[i] * 1000 for i in (0, 2)}
    results = {i: joints[i] * 1000 + (3.0, 0.0, 4.0) for i in range(4)}
    scores = submission.dexycb_scores(results, truth)
    assert scores["absolute"]["mpjpe"] == pytest.approx(5.0)
    assert scores["root-relative"]["mpjpe"] == pytest.approx(0.0, abs=1e-9)
    assert scores["procrustes"]["mpjpe"] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InputError, match="1 image ids are missing, the first is 2"):
        submission.dexycb_scores({0: results[0]}, truth)
    with pytest.raises(InputError, match="labelled hand"):
        submission.dexycb_scores(results, {})
    with pytest.raises(ValueError, match="sample 1"):
        submission.dexycb_scores(results | {2: results[2] * np.nan}, truth)


@pytest.mark.parametrize(
    ("message", "ids", "change"),
    [
        ("image id 7 is there twice", [7, 7], lambda j: j),
        ("image id -1 is negative", [-1, 0], lambda j: j),
        ("of different numbers", [1], lambda j: j),
        ("sample 5 are NaN", [4, 5], lambda j: np.where([[[False]], [[True]]], np.nan, j)),
        ("sample 4 lie behind", [4, 5], lambda j: -j),
        ("millimetres long", [4, 5], lambda j: j * 1000),
        ("at least one", [], lambda j: j[:0]),
    ],
)
def test_dexycb_files_that_cannot_be_meant_are_not_written(tmp_path, message, ids, change):
    with pytest.raises(InputError, match=message):
        submission.write_dexycb_results(tmp_path / "results.txt", ids, change(hands(2)[0]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("line 2 has 63 fields", lambda lines: [lines[0], lines[1].rsplit(",", 1)[0]]),
        ("line 1 is not an id", lambda lines: ["x" + lines[0], lines[1]]),
        ("line 1 is not an id", lambda lines: ["0.5" + lines[0][1:], lines[1]]),
        ("image id 0 is there twice", lambda lines: [lines[0], lines[0]]),
        ("sample 0 are NaN", lambda lines: [lines[0].rsplit(",", 1)[0] + ",nan", lines[1]]),
        ("1 image ids are missing, the first is 1", lambda lines: lines[:1]),
        ("at least one", lambda lines: []),
    ],
)
def test_dexycb_files_that_the_toolkit_refuses_are_refused(tmp_path, message, change):
    path = tmp_path / "results.txt"
    submission.write_dexycb_results(path, range(2), hands(2)[0])
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(InputError, match=message):
        submission.check_dexycb_results(path, range(2))
