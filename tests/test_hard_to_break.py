"""Small files that would take the machine, and damaged ones: one line each, in no time."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import time
import zipfile
import zlib
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, ModelConfig, TrainConfig, override
from utnet.data.shards.shard_format import _DEPTH_HEADER, decode_depth, decode_sample
from utnet.data.source import BadSample
from utnet.data.tars import tar_streams
from utnet.data.tars.tar_streams import members_of
from utnet.errors import InputError, shown
from utnet.evaluation.protocol import read_boxes
from utnet.io import npz, safe_pickle
from utnet.io.files import decode_rgb
from utnet.io.files import read_yaml as read_labels_yaml
from utnet.io.npy import parse_npy
from utnet.io.npz import read_members, read_npz
from utnet.io.safe_pickle import load_pickle, parse_pickle
from utnet.model import UTNet
from utnet.model.wilor import import_wilor
from utnet.predict.given_landmarks import read_landmarks
from utnet.predict.reading import read_predictions


@pytest.fixture(autouse=True)
def in_no_time():
    start = time.process_time()
    yield
    assert time.process_time() - start < 15


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


# ------------------------------------------------------------------------------------------------------------- configs


YAMLS = {
    "a date that is none": "seed: 2020-02-30",
    "a tag on the wrong value": "seed: !!int foo",
    "another": "seed: !!bool foo",
    "a third": "seed: !!timestamp foo",
    "a mapping that is none": "train: !!map [a]",
    "nesting": "train: " + "[" * 20_000,
    "nesting that ends": "train: " + "[" * 900 + "]" * 900,
    "itself": "data: &a {name: mixture, mixture: [*a]}",
    "aliases": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefghi", "bcdefghij", strict=True))
    + "seed: *j\n",
    "keys": "".join(f"k{i}: 1\n" for i in range(30_000)),
    "digits": "train: {lr: " + "9" * 400 + "}",
    "more digits": "seed: " + "9" * 5000,
    "a long value": "seed: [" + "1," * 10_000 + "]",
    "a long key": "k" * 50_000 + ": 1",
}


@pytest.mark.parametrize("name", YAMLS)
def test_no_config_file_takes_more_than_a_line(name, tmp_path):
    (tmp_path / "run.yaml").write_text(YAMLS[name])
    with pytest.raises(InputError, match=r"run\.yaml") as caught:
        Config.load(tmp_path / "run.yaml")
    one_line(caught)
    (tmp_path / "meta.yaml").write_text(YAMLS[name][:100_000])
    with pytest.raises(InputError, match=r"meta\.yaml"):
        read_labels_yaml(tmp_path / "meta.yaml", "no such key")


@pytest.mark.parametrize(
    "change",
    [
        "seed=99999999999999999999",
        "seed=!!int foo",
        "synth.betas_std=1e300",
        "synth.depth_noise_m=.inf",
        "train.num_threads=1000000",
        "train.num_workers=5000",
        "train.batch_size=1000000000",
        "train.worker_timeout_s=.nan",
        "loss.w_2d=.nan",
        "model.num_blocks=10000000",
        "model.dim=1000000000",
        "model.size_px=32000000",
        "crop.shift_jitter=1e30",
    ],
)
def test_every_number_of_a_config_has_a_limit(change):
    with pytest.raises(InputError, match=change.partition("=")[0].rpartition(".")[2]) as caught:
        override(Config(), [change])
    one_line(caught)


def test_values_in_messages_are_no_longer_than_a_line():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10**6, 10**6000, list(range(10**5)), {i: [i] * 100 for i in range(1000)}):
        assert len(shown(value)) <= 120
    assert shown([1, "a", None]) == repr([1, "a", None])


# -------------------------------------------------------------------------------------------------------------- pickles


def repeated(levels: int) -> bytes:
    """A list of ten times the same list of ten times the same list ..."""
    text = b"\x80\x04K\x01"
    for level in range(levels):
        text += b"\x940(" + 10 * (b"h" + bytes([level])) + b"l"
    return text + b"."


@pytest.mark.parametrize(
    "data",
    [
        repeated(7),
        repeated(60),
        pickle.dumps({i * (2**61 - 1) + 1: 0 for i in range(16_000)}, 2),
        pickle.dumps({i * (2**61 - 1) + 1 for i in range(16_000)}, 4),
        b"\x80\x02" + b"}" * 500_000 + b".",
        b"\x80\x02" + b"(" * 500_000 + b".",
    ],
)
def test_pickles_are_limited_by_what_they_build(data, monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_STEPS", 200_000)
    with pytest.raises(InputError, match=r"data\.pyd") as caught:
        parse_pickle(data, where="data.pyd")
    one_line(caught)


def test_pickles_are_limited_by_computing_not_by_waiting(monkeypatch):
    """A busy machine refuses no file."""
    data = pickle.dumps([Fraction(1, 2), {1: [2]}])
    monkeypatch.setattr(safe_pickle, "MAX_SECONDS", 0.05)

    def slow(args, state):
        time.sleep(0.1)
        return args

    assert parse_pickle(data, where="data.pyd", allow={("fractions", "Fraction"): slow})[1] == {1: [2]}


def test_a_path_with_a_null_byte_is_no_file():
    with pytest.raises(InputError, match="cannot be read"):
        load_pickle("meta/\0.pkl")


# ------------------------------------------------------------------------------------------------- arrays and pictures


def npy(header: bytes, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (200000, 200000), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,, }",
    b"{'descr': '<f4', 'fortran_order' False, 'shape'",
    b"  {'descr': \xff",
    b"(" * 5000,
    b"{'descr': " + b"[" * 3000,
    b"{1: 2}",
]


@pytest.mark.parametrize("header", HEADERS)
def test_damaged_headers_of_arrays(header, tmp_path):
    with pytest.raises(InputError, match=r"x\.npy: not a readable array") as caught:
        parse_npy(npy(header), where="x.npy")
    one_line(caught)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "labels.npz", "w", method) as archive:
            archive.writestr("pose.npy", npy(header))
        for read in (read_npz, read_members):
            with pytest.raises(InputError, match=r"labels\.npz") as caught:
                read(tmp_path / "labels.npz", "pose")
            one_line(caught)


def test_an_array_is_what_was_saved(tmp_path):
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(3, 2)), np.array(["a", "bc"]), np.array(3)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        np.testing.assert_array_equal(parse_npy(buffer.getvalue(), where="x"), array)
        np.savez_compressed(tmp_path / "a.npz", a=array)
        np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", "a")[0], array)


def test_a_large_npz_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 2**20)
    with (
        zipfile.ZipFile(tmp_path / "big.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("seg.npy", "w") as file,
    ):
        file.write(npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (3145728,), }\n"))
        for _ in range(3):
            file.write(bytes(2**20))
    for read in (read_npz, read_members):
        with pytest.raises(InputError, match=r"big\.npz: seg has 314\d+ bytes"):
            read(tmp_path / "big.npz", "seg")


def test_a_picture_of_a_billion_pixels_is_not_unpacked():
    size = (30_000).to_bytes(4, "big")
    head = b"IHDR" + size + size + bytes([8, 2, 0, 0, 0])
    png = (
        b"\x89PNG\r\n\x1a\n"
        + bytes([0, 0, 0, 13])
        + head
        + zlib.crc32(head).to_bytes(4, "big")
        + b"\0\0\0\0IEND\xaeB`\x82"
    )
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = (30_000).to_bytes(2, "big") * 2
    for data in (png, bytes(jpeg)):
        with pytest.raises(InputError, match=r"p: 30000 x 30000 px"):
            decode_rgb(data, where="p")
    bmp = bytearray(cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    bmp[18:26] = (30_000).to_bytes(4, "little") * 2
    with pytest.raises(InputError, match="p: not an image"):
        decode_rgb(bytes(bmp), where="p")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "{}", "[1]", '{"a": [1e999, 1, 2, 3], "hands": 5}', f'{{"a": [{10**400}, 1, 2, 3], "hands": [[]]}}']
    + ['{"schema": "utnet-hands", "version": 2, "images": [3], "videos": []}', '{"hands": [{"landmarks_px": 7}]}'],
)
def test_json_beside_pictures_is_read_or_refused_in_a_line(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    for read in (lambda path: read_landmarks(path, (64, 48)), read_predictions, read_boxes):
        said = ""
        try:
            read(tmp_path / "a.json")
        except InputError as error:
            said = str(error)
        assert "\n" not in said
        assert len(said) < 1000


# ---------------------------------------------------------------------------------------------------- tars and shards


def test_a_large_member_ends_its_tar_before_it_is_read(tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    monkeypatch.setattr(tar_streams, "MAX_MEMBER_BYTES", 2**20)

    class Zeros(io.RawIOBase):
        def read(self, size=-1):
            return bytes(size)

    small, path = io.BytesIO(b"{}"), tmp_path / "a.tar"
    with gzip.open(path, "wb", compresslevel=1) as file, tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("000.json")
        info.size = 2
        tar.addfile(info, small)
        info = tarfile.TarInfo("001.jpg")
        info.size = 3 * 2**20
        tar.addfile(info, Zeros())
    first, bad = members_of(str(path), "a")
    assert first["json"] == b"{}"
    assert "001.jpg has 3145728 bytes" in bad.message
    assert "1 samples were" in bad.message


def test_tars_are_limited_by_samples_names_and_packing(tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    monkeypatch.setattr(tar_streams, "MAX_MEMBER_BYTES", 2**20)
    monkeypatch.setattr(tar_streams, "MAX_NAME_BYTES", 2**12)
    monkeypatch.setattr(tar_streams, "FREE_BYTES", 2**20)

    def said(*members, long=0) -> str:
        with tarfile.open(tmp_path / "a.tar", "w:gz", format=tarfile.GNU_FORMAT) as tar:
            for name, size, data in members:
                info = tarfile.TarInfo(name + "x" * long)
                info.size = size
                tar.addfile(info, io.BytesIO(data * size))
        *_, bad = members_of(str(tmp_path / "a.tar"), "a")
        assert isinstance(bad, BadSample)
        return bad.message

    assert "1200000 bytes" in said(*((f"000.{i}", 200_000, b"\0") for i in range(9)))
    assert "packed" in said(*((f"{i:03}.jpg", 500_000, b"\0") for i in range(9)))
    assert "header of" in said(("000.jpg", 1, b"a"), long=5_000)


@pytest.mark.parametrize(
    "data",
    [b'{"format":"utnet-sample-1","members":5}', b'{"format":"utnet-sample-1"}', b"[" * 100_000, b'{"a":' * 50_000],
)
def test_labels_of_a_shard_that_are_none(data):
    with pytest.raises(InputError, match=r"000") as caught:
        decode_sample({"json": data, "jpg": b""}, where="a.tar: 000")
    one_line(caught)


@pytest.mark.parametrize("unit", [float("nan"), -0.001, 0.0, float("inf")])
def test_depth_of_a_shard_has_a_unit(unit):
    data = _DEPTH_HEADER.pack(b"UTD1", 1, 2, unit, 0) + bytes(4)
    with pytest.raises(InputError, match="steps of"):
        decode_depth(data, "a.depth")


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hard") / "best"
    config = Config(model=ModelConfig(size_px=64, num_blocks=1, refiner="none"), train=TrainConfig(num_workers=0))
    save_checkpoint(folder, UTNet(config.model), config)
    return folder


def changed(checkpoint, folder, *, run=None, weights=None):
    folder.mkdir()
    tree = json.loads((checkpoint / "run.json").read_text())
    text = json.dumps(tree) if run is None else run(tree)
    (folder / "run.json").write_text(text)
    state = load_file(checkpoint / "weights.safetensors")
    save_file(state if weights is None else weights(state), folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"num_blocks": 200},
        {"dim": 8192},
        {"num_blocks": 10**7},
        {"dim": 10**9},
        {"size_px": 32_000_000},
        {"num_blocks": 10**400},
    ],
)
def test_no_network_is_made_that_the_weights_do_not_fill(change, checkpoint, tmp_path):
    def edit(tree):
        tree["config"]["model"] |= change
        return json.dumps(tree)

    with pytest.raises(InputError, match=r"run\.json") as caught:
        load_checkpoint(changed(checkpoint, tmp_path / "c", run=edit))
    one_line(caught)


def test_a_nested_run_json_is_none(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"run\.json"):
        load_checkpoint(changed(checkpoint, tmp_path / "c", run=lambda _: '{"config":' + "[" * 100_000))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn])
def test_weights_are_floats(dtype, checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"weights\.safetensors: .* is of type ") as caught:
        load_checkpoint(changed(checkpoint, tmp_path / "c", weights=lambda s: {k: v.to(dtype) for k, v in s.items()}))
    one_line(caught)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_hand_in_a_checkpoint_is_whole(dtype, checkpoint, tmp_path):
    empty = {f"hand.{name}": torch.zeros(0, 3, dtype=dtype) for name in ("v_template", "shapedirs", "J_template")}
    empty |= {f"hand.{name}": torch.zeros(0, 16, dtype=dtype) for name in ("J_shapedirs", "weights")}
    empty |= {
        "hand.faces": torch.zeros(0, 3, dtype=torch.int64),
        "hand.tip_vertices": torch.zeros(0, dtype=torch.int64),
    }
    with pytest.raises(InputError, match="hand model"):
        load_checkpoint(changed(checkpoint, tmp_path / "c", weights=lambda state: state | empty))


@pytest.mark.parametrize("number", ["99999999", "9" * 5000, "999"])
def test_block_numbers_of_a_wilor_checkpoint(number, tmp_path):
    torch.save({"state_dict": {f"backbone.blocks.{number}.norm1.weight": torch.zeros(1)}}, tmp_path / "w.ckpt")
    with pytest.raises(InputError, match="not the entries of a WiLoR checkpoint") as caught:
        import_wilor(tmp_path / "w.ckpt")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 3000
