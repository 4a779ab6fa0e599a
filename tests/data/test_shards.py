"""Shards: what is stored is what the source says, crops need nothing more, damage is named, streams give the same."""

import json
import multiprocessing
import shutil
import tarfile
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.laws import assert_labels_agree
from support.loaders import loader_of
from utnet.cli.main import main
from utnet.config import Config, CropConfig, ModelConfig, TrainConfig
from utnet.data import open_source
from utnet.data.shards.shard_format import MEMBERS, decode_depth, decode_sample, encode_depth, encode_sample
from utnet.data.shards.shards_reader import Shards
from utnet.data.shards.write_shards import EXPAND, SIZE_PX, ShardOptions, cut, write_shards
from utnet.data.source import BadSample
from utnet.data.tars.tars_reader import Tars
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.geometry import jittered_crop_affine, mirror_camera, mirror_params, mirror_points, project
from utnet.hand import HandModel
from utnet.synth.source import SyntheticHands
from utnet.types import HandParams, Sample

NUM = 9


class Pictures:
    """Map-style: pictures of hands, right and left, with all that a sample can hold."""

    name, tips, split, root = "pictures", "manopth", "train", "/somewhere/private"

    def __init__(self, num=NUM, bad=(), size_px=320):
        self._hands = SyntheticHands(seed=4, size_px=size_px, num=num, jitter=False)
        self._bad = bad
        self.counts = {"frames": num + 1, "without a hand": 1}

    def __len__(self):
        return len(self._hands)

    def key(self, index):
        return f"person/hand {index}"

    def sequence(self, index):
        return f"person/{index // 4}"

    def __getitem__(self, index):
        if index in self._bad:
            raise InputError(f"{self.root}/{index}.jpg: no such file; get it")
        s, rng = self._hands[index], np.random.default_rng(index)
        if index % 2:
            width = s.rgb.shape[1]
            x0, y0, x1, y1 = s.box_px
            s = replace(
                s,
                side="left",
                rgb=np.ascontiguousarray(s.rgb[:, ::-1]),
                depth_m=np.ascontiguousarray(s.depth_m[:, ::-1]),
                K_px=mirror_camera(s.K_px, width),
                box_px=np.array([width - 1 - x1, y0, width - 1 - x0, y1]),
                joints_cam_m=mirror_points(s.joints_cam_m),
                params=mirror_params(s.params),
            )
        s = replace(s, key=self.key(index), sequence=self.sequence(index))
        if index == 2:
            points = project(s.joints_cam_m.astype(float), s.K_px)
            points[5], joints = np.nan, s.joints_cam_m.copy()
            joints[3] = np.nan
            conf = np.where(np.arange(21) == 3, 0, 0.3).astype(np.float32)
            s = replace(s, K_px=None, joints_px=points, joints_cam_m=joints, joints_3d_conf=conf, depth_m=None)
        if index == 3:
            s = replace(s, params=None, betas_ok=False, hand_model="mano")
        if index == 4:
            vertices = rng.normal(size=(778, 3)).astype(np.float32)
            s = replace(s, vertices_cam_m=vertices, hand_mask=s.depth_m < s.joints_cam_m[0, 2] + 0.05)
        if index == 5:
            params = HandParams(*(getattr(s.params, f.name) for f in fields(HandParams)))
            s = replace(s, params=replace(params, transl_m=np.full(3, np.nan)))
        return s


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "set"
    write_shards(Pictures(), out, shard_mb=0.3, progress=False)
    return out


def assert_same_labels(a, b):
    for name in ("key", "side", "sequence", "hand_model", "betas_ok"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("joints_cam_m", "joints_2d_conf", "joints_3d_conf"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-8, atol=0, err_msg=name)
    for name in ("K_px", "joints_px", "vertices_cam_m", "depth_m", "hand_mask", "params"):
        assert (getattr(a, name) is None) == (getattr(b, name) is None), name
    if a.params is not None:
        for f in fields(HandParams):
            np.testing.assert_allclose(getattr(a.params, f.name), getattr(b.params, f.name), rtol=1e-8)


def assert_same(a, b):
    """Every field, bit by bit."""
    assert a.map(np.asarray).__dict__.keys() == b.__dict__.keys()
    for f in fields(Sample):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, HandParams):
            x, y = (np.concatenate([np.ravel(getattr(p, g.name)) for g in fields(HandParams)]) for p in (x, y))
        if hasattr(x, "shape"):
            np.testing.assert_array_equal(x, y, err_msg=f.name)
            assert x.dtype == y.dtype, f.name
        else:
            assert x == y, f.name


# ----------------------------------------------------------------------------------------------------------- what it is


def test_a_stored_sample_is_what_the_source_gives(folder):
    source, shards = Pictures(), open_source("shards", folder)
    assert (len(shards), shards.tips, shards.name) == (NUM, "manopth", "shards")
    assert len(list(folder.glob("*.tar"))) > 1
    for index in range(NUM):
        given_, stored = source[index], shards[index]
        assert shards.key(index) == stored.key == source.key(index)
        assert shards.sequence(index) == stored.sequence == source.sequence(index)
        assert_same_labels(given_, stored)
        expected = cut(given_, ShardOptions())
        for name in ("K_px", "box_px", "joints_px"):
            if getattr(expected, name) is not None:
                np.testing.assert_allclose(getattr(stored, name), getattr(expected, name), rtol=1e-8, err_msg=name)
        for name in ("depth_m", "hand_mask", "vertices_cam_m"):  # nothing is lost here: the source has whole mm
            if getattr(expected, name) is not None:
                np.testing.assert_array_equal(getattr(stored, name), getattr(expected, name), err_msg=name)
        smooth = [cv2.blur(rgb.astype(np.float32), (5, 5)) for rgb in (stored.rgb, expected.rgb)]
        assert np.abs(smooth[0] - smooth[1]).mean() < 1.5  # JPEG takes some of the noise away


def test_the_description_is_complete_and_names_no_path(folder):
    about = json.loads((folder / "shards.json").read_text())
    assert about["counts"] == {"frames": NUM + 1, "without a hand": 1}
    assert about["num"] == NUM == sum(shard["num"] for shard in about["shards"])
    assert about["options"] == {"size_px": SIZE_PX, "expand": EXPAND, "jpeg_quality": 95, "depth_unit_m": 0.001}
    assert "/somewhere" not in json.dumps(about)
    assert Shards(folder).verify() == []
    assert Shards(folder).counts == {"samples": NUM, "skipped when written": 0, "shards": len(about["shards"])}


def test_any_tar_reader_can_read_a_shard(folder):
    names = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert [name for name in names if name.endswith(".jpg")] == [f"{i:08d}.jpg" for i in range(NUM)]
    assert {name.partition(".")[2] for name in names} == set(MEMBERS)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_source_gives_the_same_bytes(folder, tmp_path, workers):
    write_shards(Pictures(), tmp_path / "again", shard_mb=0.3, workers=workers, progress=False)
    files = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == files
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


# ---------------------------------------------------------------------------------------------------------------- crops


def large(index, size_wh=(1200, 900), box_px=(540, 400, 640, 520)):
    """A picture far larger than the window, of noise that no neighbour can stand in for."""
    rng, (width, height) = np.random.default_rng(index), size_wh
    rgb = cv2.resize(rng.integers(0, 256, (height // 6, width // 6, 3), np.uint8), size_wh)
    joints = np.concatenate([rng.uniform(-0.05, 0.05, (21, 2)), np.full((21, 1), 0.6)], 1)
    return Sample(
        key=str(index),
        rgb=rgb,
        K_px=np.array([[610.0, 0, 590], [0, 605, 460], [0, 0, 1.0]]),
        side="right",
        box_px=np.array(box_px, float),
        joints_cam_m=joints,
        joints_2d_conf=np.ones(21, np.float32),
        joints_3d_conf=np.ones(21, np.float32),
        depth_m=rng.integers(300, 3000, (height, width)).astype(np.float32) * np.float32(0.001),
    )


@pytest.mark.parametrize("box_px", [(540, 400, 640, 520), (2, 300, 90, 420), (1100, 780, 1190, 890)])
def test_every_jittered_crop_of_a_window_equals_that_of_the_picture(box_px):
    whole = large(0, box_px=box_px)
    stored, config = cut(whole, ShardOptions(size_px=440)), CropConfig()
    assert max(stored.rgb.shape) < 440  # not shrunk
    for seed in range(40):
        a, b = (crop(s, 128, config, np.random.default_rng(seed)) for s in (whole, stored))
        np.testing.assert_allclose(a.K_px, b.K_px, atol=1e-9)
        np.testing.assert_allclose(a.joints_cam_m, b.joints_cam_m, atol=1e-12)
        assert np.abs(a.rgb.astype(int) - b.rgb).max() <= 2  # warping rounds positions to 1/32 px
        assert (a.depth_m != b.depth_m).mean() < 0.005
        assert ((a.depth_m == 0) != (b.depth_m == 0)).mean() < 0.002  # only what lies outside the picture is missing


def test_the_stored_margin_is_what_the_largest_jitter_needs():
    """Corners of jittered crops, found by trying: they reach nearly as far as the window and no farther."""
    config, far = CropConfig(), 0.0
    box, rng = np.array([100.0, 100, 200, 180]), np.random.default_rng(0)
    corners = np.array([[-0.5, -0.5], [255.5, -0.5], [255.5, 255.5], [-0.5, 255.5]])
    for _ in range(20000):
        back = np.linalg.inv(jittered_crop_affine(box, 256, config, rng))
        reach = np.abs(corners @ back[:2, :2].T + back[:2, 2] - [150, 140]).max() / 100
        far = max(far, reach)
    assert 0.95 * EXPAND / 2 < far <= EXPAND / 2


def test_a_large_window_is_shrunk_and_keeps_its_geometry():
    whole = large(1, box_px=(350, 200, 850, 600))
    stored, config = cut(whole, ShardOptions(size_px=300)), CropConfig()
    assert max(stored.rgb.shape) == 300
    a, b = (crop(s, 128, config) for s in (whole, stored))
    np.testing.assert_allclose(project(a.joints_cam_m, a.K_px), project(b.joints_cam_m, b.K_px), atol=1e-6)
    # The same place of the picture: a ramp survives, where noise would not.
    ramp = np.broadcast_to(np.arange(1200, dtype=np.float32) / 8, (900, 1200)).astype(np.uint8)
    whole = replace(whole, rgb=np.stack([ramp] * 3, -1), depth_m=ramp.astype(np.float32))
    stored = cut(whole, ShardOptions(size_px=300))
    a, b = (crop(s, 128, config) for s in (whole, stored))
    seen = (a.rgb > 0) & (b.rgb > 0)
    assert np.abs(a.rgb.astype(int) - b.rgb)[seen].max() <= 2
    assert np.abs((a.depth_m - b.depth_m)[(a.depth_m > 0) & (b.depth_m > 0)]).mean() < 0.5
    with pytest.raises(InputError, match="lies outside the picture"):
        cut(replace(whole, box_px=np.array([3000.0, 0, 3100, 100])), ShardOptions())


def test_the_law_holds_for_stored_hands_and_their_crops(folder):
    hands = {side: HandModel.open(side) for side in ("right", "left")}
    shards, sides = Shards(folder), set()
    for index in (0, 1, 5, 6, 7):
        sample = shards[index]
        right = to_right(sample)
        for moved in (sample, right, crop(right, 128, CropConfig(), np.random.default_rng(index))):
            assert_labels_agree(moved, hands[sample.side])
        sides.add(sample.side)
    assert sides == {"right", "left"}


# ---------------------------------------------------------------------------------------------------------------- depth


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([2, 300, 65536]))
def test_depth_comes_back_exactly(height, width, seed, top):
    units = np.random.default_rng(seed).integers(0, top, (height, width))
    depth = units.astype(np.float32) * np.float32(0.001)
    np.testing.assert_array_equal(decode_depth(encode_depth(depth, 0.001), "here"), depth)


def test_depth_that_does_not_fit_is_no_reading_and_other_bytes_are_refused():
    depth = np.array([[70.0, 0.0004, -1.0], [65.535, 0.0006, 1.0]], np.float32)
    read = decode_depth(encode_depth(depth, 0.001), "here")
    np.testing.assert_allclose(read, [[0, 0, 0], [65.535, 0.001, 1.0]], atol=1e-5)
    fine = decode_depth(encode_depth(depth, 0.0001), "here")
    np.testing.assert_allclose(fine, [[0, 0.0004, 0], [0, 0.0006, 1.0]], atol=1e-6)
    data = encode_depth(depth, 0.001)
    for broken in (b"", data[:10], data[:-1], b"x" + data[1:], data + b"0"):
        with pytest.raises(InputError, match=r"^here: "):
            decode_depth(broken, "here")


# ------------------------------------------------------------------------------------------------------ access, streams


def test_a_stream_of_the_same_tars_gives_the_same_samples(folder):
    shards = Shards(folder)
    wanted = {shards.key(i): shards[i] for i in range(NUM)}
    last = len(list(folder.glob("*.tar"))) - 1
    for root in (folder, f"pipe:cat {folder}/shard-{{000000..{last:06d}}}.tar"):
        for num_parts in (1, 2, 9):
            source = Tars(root)
            items = [
                x for part in range(num_parts) for x in source.stream(seed=0, epoch=0, part=part, num_parts=num_parts)
            ]
            if root.__class__ is str and root.startswith("pipe"):
                break  # shards one after another are not one tar: the first is read
            assert sorted(item.key for item in items) == sorted(wanted)
            for item in items:
                assert_same(item, wanted[item.key])
    assert Tars(folder).tips == "manopth"
    (left,) = {item.side for item in Tars(folder, sides="left").stream(seed=0, epoch=0, part=0, num_parts=1)}
    assert left == "left"


def test_without_depth_none_is_given_and_limit_spreads(folder):
    few = Shards(folder, limit=3, with_depth=False)
    assert [few.key(i) for i in range(3)] == [f"person/hand {i}" for i in (0, 4, 8)]
    assert all(few[i].depth_m is None for i in range(3))
    assert all(s.depth_m is None for s in Tars(folder, with_depth=False).stream(seed=0, epoch=0, part=0, num_parts=1))


def _keys_of(shards, indices):
    return [(shards[i].key, int(shards[i].rgb.sum())) for i in indices]


def test_forked_readers_do_not_disturb_each_other(folder):
    shards = Shards(folder)
    expected = _keys_of(shards, range(NUM))  # files are open now, and inherited
    # As in the loader's workers: OpenCV's own threads do not live through a fork.
    with multiprocessing.get_context("fork").Pool(3, cv2.setNumThreads, (0,)) as pool:
        got = pool.starmap(_keys_of, [(shards, [i] * 20) for i in range(NUM)])
    assert got == [[row] * 20 for row in expected]


def test_the_index_is_not_in_memory(folder):
    shards = Shards(folder)
    for table in (shards._index, shards._keys, shards._sequences):
        assert isinstance(table, np.memmap)
        assert table.dtype != object


# --------------------------------------------------------------------------------------------------------------- faults


def test_a_folder_that_is_not_empty_is_refused_before_the_data_set_is_looked_at(tmp_path, capsys):
    (tmp_path / "mine").touch()
    with pytest.raises(SystemExit):
        main(["data", "shard", "dexycb", "--root", str(tmp_path / "nowhere"), "--out", str(tmp_path)])
    assert f"{tmp_path}: not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_frames_that_cannot_be_read_are_listed_and_limited(tmp_path):
    about = write_shards(Pictures(bad=[1, 6]), tmp_path / "set", max_bad=2, progress=False)
    assert [item["key"] for item in about["skipped"]] == ["person/hand 1", "person/hand 6"]
    assert about["skipped"][0]["message"] == "/1.jpg: no such file; get it"
    shards = Shards(tmp_path / "set")
    assert [shards.key(i) for i in range(len(shards))] == [f"person/hand {i}" for i in (0, 2, 3, 4, 5, 7, 8)]
    assert shards[1].key == "person/hand 2"
    assert shards.counts["skipped when written"] == 2
    with pytest.raises(InputError, match=r"more than 1 samples cannot be read; the last: .*6\.jpg"):
        write_shards(Pictures(bad=[1, 6]), tmp_path / "no", max_bad=1, progress=False)
    with pytest.raises(InputError, match="no sample can be read"):
        write_shards(Pictures(num=2, bad=[0, 1]), tmp_path / "no", progress=False)
    with pytest.raises(InputError, match="not empty"):
        write_shards(Pictures(), tmp_path / "set", progress=False)
    with pytest.raises(InputError, match=r"expand is 0\.5"):
        ShardOptions(expand=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def damaged(folder, tmp_path, number, ending, change):
    """A copy of the set with one member's bytes changed in place."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    row = np.load(copy / "index.npy")[number]
    offset, size = row[1 + 2 * MEMBERS.index(ending) :][:2]
    path = sorted(copy.glob("*.tar"))[row[0]]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = change(bytes(data[offset : offset + size])).ljust(size, b"\0")
    path.write_bytes(data)
    return copy, path


DAMAGE = {
    "cut off picture": ("jpg", lambda data: data[: len(data) // 2], "truncated"),
    "another picture": ("jpg", lambda data: cv2.imencode(".jpg", np.zeros((9, 9, 3), np.uint8))[1].tobytes(), "9x9"),
    "zeroed picture": ("jpg", lambda data: b"", "not an image"),
    "cut off labels": ("json", lambda data: data[:99], "not JSON"),
    "other labels": ("json", lambda data: b"{}".ljust(len(data)), "not a sample"),
    "short labels": ("json", lambda data: data.replace(b'"betas"', b'"bates"'), "do not make a sample"),
    "zeroed mask": ("mask.png", lambda data: b"", "not an image"),
    "zeroed mesh": ("vertices.npy", lambda data: b"", "not a readable array"),
    "zeroed depth": ("depth", lambda data: b"", "not depth"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_member_is_named_and_the_others_are_read(what, folder, tmp_path):
    ending, change, message = DAMAGE[what]
    copy, path = damaged(folder, tmp_path, 4, ending, change)
    shards = Shards(copy)
    with pytest.raises(InputError, match=message) as caught:
        shards[4]
    assert str(caught.value).startswith(f"{path}: 00000004 (person/hand 4)")
    assert "\n" not in str(caught.value)
    assert shards[3].key == "person/hand 3"
    (fault,) = shards.verify()
    assert fault.startswith(f"{path}: is not the file that was written")
    streamed = list(Tars(copy).stream(seed=0, epoch=0, part=0, num_parts=1))
    (bad,) = [item for item in streamed if isinstance(item, BadSample)]
    assert "00000004" in bad.message
    assert len(streamed) == NUM


def test_a_single_wrong_bit_is_found_by_verify(folder, tmp_path):
    copy, path = damaged(folder, tmp_path, 2, "jpg", lambda data: data[:-90] + bytes([data[-90] ^ 1]) + data[-89:])
    assert [line.split(": ")[0] for line in Shards(copy).verify()] == [str(path)]


def test_a_folder_that_is_no_set_is_said_once(tmp_path):
    with pytest.raises(
        InputError, match=r"^\S*shards\.json: no such file; give the folder that `utnet data shard` wrote$"
    ):
        Shards(tmp_path)


def test_a_missing_or_cut_off_file_of_the_set_is_named(folder, tmp_path):
    for name, message in {
        "shard-000001.tar": r"shard-000001\.tar: ",
        "index.npy": r"index\.npy: ",
        "keys.npy": r"keys\.npy: ",
        "shards.json": r"shards\.json: ",
    }.items():
        for how in ("missing", "cut off"):
            copy = shutil.copytree(folder, tmp_path / f"{how} {name}")
            data = (copy / name).read_bytes()
            (copy / name).unlink()
            if how == "cut off":
                (copy / name).write_bytes(data[: len(data) // 2])
            with pytest.raises(InputError, match=message):
                Shards(copy)
    with pytest.raises(InputError, match="utnet data shard"):
        Shards(tmp_path)
    copy = shutil.copytree(folder, tmp_path / "objects")
    np.save(copy / "sequences.npy", np.array([["a"], {}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"sequences\.npy: "):
        Shards(copy)
    copy = shutil.copytree(folder, tmp_path / "swapped")
    keys = np.load(copy / "keys.npy")
    np.save(copy / "keys.npy", keys[::-1])
    assert [line.split(": ")[0] for line in Shards(copy).verify()] == [str(copy / "keys.npy")]


def test_keys_that_are_no_text_are_shown_all_the_same(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in ("keys.npy", "sequences.npy"):
        table = np.load(copy / name)
        table[4] = b"\xff\xe4"
        np.save(copy / name, table)
    shards = Shards(copy)
    assert (shards.key(4), shards.sequence(4)) == ("\\xff\\xe4", "\\xff\\xe4")
    np.testing.assert_array_equal(shards[4].rgb, Shards(folder)[4].rgb)


def set_at(path, value):
    def change(about):
        *way, last = path
        for step in way:
            about = about[step]
        about[last] = value

    return change


DESCRIPTIONS = {
    "no shards": (set_at(["shards"], []), "shards is not a list"),
    "numbers for shards": (set_at(["shards"], [1]), "shard 0 is not described"),
    "text for bytes": (set_at(["shards", 0, "bytes"], "1"), "shard 0 is not described"),
    "another folder": (set_at(["shards", 1, "file"], "../shard-000001.tar"), "shard 1 is the file"),
    "no name": (set_at(["shards", 1, "file"], ""), "shard 1 is the file"),
    "text for a number": (set_at(["num"], "9"), "num is '9'"),
    "true for a number": (set_at(["num_skipped"], True), "num_skipped is True"),
    "null tips": (set_at(["tips"], None), "tips is None"),
    "tables elsewhere": (set_at(["tables_sha256"], {"/etc/x": ""}), "tables_sha256"),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_a_description_of_other_types_is_refused(what, folder, tmp_path):
    change, message = DESCRIPTIONS[what]
    copy = shutil.copytree(folder, tmp_path / "copy")
    about = json.loads((copy / "shards.json").read_text())
    change(about)
    (copy / "shards.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=rf"shards\.json: {message}"):
        Shards(copy)


@pytest.mark.parametrize(("column", "value"), [(0, 99), (0, -1), (1, -512), (2, 2**40), (2, -1)])
def test_an_index_that_points_beyond_the_shards_is_named(column, value, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    index = np.load(copy / "index.npy")
    index[3, column] = value
    np.save(copy / "index.npy", index)
    shards = Shards(copy)
    with pytest.raises(InputError, match=r"index\.npy: row 3 points beyond the shards"):
        shards[3]
    assert shards[4].key == shards.key(4)
    assert any("index.npy" in line for line in shards.verify())
    np.save(copy / "index.npy", index.astype(np.float64))
    with pytest.raises(InputError, match="float64"):
        Shards(copy)


NULLS = {
    "box_px": "the box is not finite",
    "K_px": "K is not finite",
    "joints_3d_conf": "a confidence is not finite",
    "hand_pose": "a rotation is not finite",
    "global_orient": "a rotation is not finite",
    "betas": "betas is not finite",
    "transl_m": None,
}


@pytest.mark.parametrize("name", NULLS)
def test_null_labels_never_reach_a_batch(name, folder, tmp_path):
    """Null is NaN. Where the shard's reader takes it, training skips the sample by name (a translation may be NaN)."""

    def nulled(data):
        tree = json.loads(data)
        place = tree if name in tree else tree["params"]
        first = place[name]
        while isinstance(first[0], list):
            first = first[0]
        first[0] = None
        return json.dumps(tree | {"sequence": ""}, separators=(",", ":")).encode().ljust(len(data))  # keeps its size

    copy, _ = damaged(folder, tmp_path, 0, "json", nulled)
    shards = Shards(copy)
    config = Config(model=ModelConfig(size_px=64), train=TrainConfig(batch_size=NUM, num_workers=0))
    loader = loader_of(shards, config, train=True)
    (batch, _) = next(iter(zip(loader, range(1), strict=False)))
    bad = {key: message for key, message in loader.bad.items() if key != shards.key(2)}  # it lacks a labelled joint
    if NULLS[name] is None:
        assert not bad
        return
    assert bad == {shards.key(0): f"{shards.key(0)}: {NULLS[name]}; mend or leave out the label"}
    assert len(batch) == NUM - 2
    for tensor in (batch.joints_2d, batch.joints_3d, batch.params.hand_pose, batch.params.betas):
        assert tensor.isfinite().all()
    with pytest.raises(InputError, match=NULLS[name]):
        list(loader_of(shards, config, train=False))


def test_a_stream_does_not_lose_a_member_in_silence(folder):
    sample = Pictures()[4]
    members = encode_sample(sample, tips="", jpeg_quality=90, depth_unit_m=0.001)
    assert tuple(members) == MEMBERS
    for ending in MEMBERS:
        rest = {name: data for name, data in members.items() if name != ending}
        with pytest.raises(InputError, match="here"):
            decode_sample(rest, where="here")
