"""The MANO reader: all published forms give equal arrays, equal to body-models, and no code in a file is run."""

import codecs
import copyreg
import functools
import io
import operator
import os
import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from support.mano_files import chumpy_classes, python2_pickle, random_mano, write_mano
from utnet.conventions import MANO_TIP_VERTICES, MANOPTH_LEFT_TIP_VERTICES, SIDES
from utnet.errors import InputError
from utnet.hand import HandModel
from utnet.hand.mano import load_mano
from utnet.io.safe_pickle import load_pickle, parse_pickle
from utnet.rotations import axis_angle_to_matrix

ARRAYS = ("v_template", "shapedirs", "posedirs", "weights", "faces", "J_template", "J_shapedirs", "pose_basis")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mano")


@pytest.fixture(scope="module")
def plain(folder) -> Path:
    return write_mano(folder / "plain.pkl", random_mano())


@pytest.fixture(scope="module")
def python2(folder) -> Path:
    return write_mano(folder / "python2.pkl", random_mano(), style="python2")


# ------------------------------------------------------------------------------------------------------ same numbers


def test_plain_and_python2_files_read_the_same(plain, python2):
    data, a, b = random_mano(), load_mano(plain), load_mano(python2)
    assert b"chumpy.ch\n" in python2.read_bytes()
    assert b"scipy.sparse.csc\n" in python2.read_bytes()
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name, key in (("v_template", "v_template"), ("shapedirs", "shapedirs"), ("posedirs", "posedirs")):
        np.testing.assert_array_equal(getattr(b, name), data[key])
    np.testing.assert_allclose(b.J_template, data["J_regressor"] @ data["v_template"], atol=1e-15)
    assert not any(name.split(".")[0] == "chumpy" for name in sys.modules)


@pytest.mark.parametrize("make", ["csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array"])
@pytest.mark.parametrize("old", [True, False])
def test_every_sparse_regressor_is_the_dense_one(folder, plain, make, old):
    data = random_mano()
    data["J_regressor"] = getattr(scipy.sparse, make)(data["J_regressor"])
    path = folder / f"{make}{old}.pkl"
    path.write_bytes(python2_pickle(data) if old else pickle.dumps(data, protocol=4))
    np.testing.assert_array_equal(load_mano(path).J_template, load_mano(plain).J_template)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_reads_the_same(folder, plain, protocol):
    data = random_mano()
    data["J_regressor"] = data["J_regressor"].toarray()
    data["weights"] = np.asfortranarray(data["weights"])
    path = folder / f"protocol{protocol}.pkl"
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    arrays, expected = load_mano(path), load_mano(plain)
    for name in set(ARRAYS) - {"J_template", "J_shapedirs"}:
        np.testing.assert_array_equal(getattr(arrays, name), getattr(expected, name))
    np.testing.assert_allclose(arrays.J_template, expected.J_template, atol=1e-15)


@pytest.mark.parametrize("style", ["plain", "python2"])
@pytest.mark.parametrize("flat_hand_mean", [True, False])
def test_equals_body_models(plain, python2, style, flat_hand_mean):
    from body_models.mano.torch import MANO

    path = plain if style == "plain" else python2
    oracle = MANO(model_path=path, flat_hand_mean=flat_hand_mean)
    hand = HandModel.from_mano(path, flat_hand_mean=flat_hand_mean)
    rng = np.random.default_rng(1)
    vectors = torch.from_numpy(rng.normal(0, 0.5, (4, 16, 3))).float()
    betas = torch.from_numpy(rng.normal(size=(4, 10))).float()
    pose = axis_angle_to_matrix(vectors)
    mesh = hand(pose[:, :1], pose[:, 1:], betas)
    given = {"wrist_rotation": vectors[:, 0], "shape": betas}
    vertices = oracle.forward_vertices(vectors[:, 1:], **given)
    skeleton = oracle.forward_skeleton(vectors[:, 1:], **given)
    torch.testing.assert_close(mesh.vertices_m, vertices, atol=2e-6, rtol=0)
    torch.testing.assert_close(mesh.mano_joints_m, skeleton[..., :3, 3], atol=2e-6, rtol=0)


def test_mean_pose_is_there_only_when_asked_for(plain):
    assert load_mano(plain, flat_hand_mean=True).pose_mean is None
    np.testing.assert_array_equal(load_mano(plain, flat_hand_mean=False).pose_mean, random_mano()["hands_mean"])


@pytest.mark.parametrize("tips", MANO_TIP_VERTICES)
@pytest.mark.parametrize("side", SIDES)
def test_tips_are_those_of_the_source(plain, tips, side):
    expected = MANO_TIP_VERTICES[tips]
    if (tips, side) == ("manopth", "left"):
        expected = MANOPTH_LEFT_TIP_VERTICES
        assert expected != MANO_TIP_VERTICES[tips]
    assert tuple(load_mano(plain, side=side, tips=tips).tip_vertices) == expected
    hand = HandModel.from_mano(plain, side=side, tips=tips)
    assert (hand.side, hand.name, tuple(hand.tip_vertices.tolist())) == (side, "mano", expected)


def test_left_file_is_taken_as_it_is(folder):
    """The sign of MANO_LEFT's shapedirs depends on the data set, so the reader does not change it."""
    data = random_mano(3, side="left")
    arrays = load_mano(write_mano(folder / "left.pkl", data), side="left")
    np.testing.assert_array_equal(arrays.shapedirs, data["shapedirs"])


def test_more_than_ten_components_are_cut(folder):
    data = random_mano()
    data["shapedirs"] = np.concatenate([data["shapedirs"], np.ones((778, 3, 6))], -1)
    arrays = load_mano(write_mano(folder / "sixteen.pkl", data))
    np.testing.assert_array_equal(arrays.shapedirs, data["shapedirs"][..., :10])


# ------------------------------------------------------------------------------------------------------- bad input


def test_missing_file_says_what_to_do(tmp_path):
    path = tmp_path / "MANO_LEFT.pkl"
    with pytest.raises(InputError, match="licence-gated") as caught:
        HandModel.from_mano(path, side="left")
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "mano.is.tue.mpg.de" in message
    assert "open hand" in message
    assert "\n" not in message


BAD = {
    "shapedirs": np.zeros((778, 3, 9)),
    "v_template": np.zeros((777, 3)),
    "posedirs": np.zeros((778, 3, 134)),
    "J_regressor": scipy.sparse.csc_matrix((15, 778)),
    "weights": np.zeros((16, 778)),
    "f": np.zeros((1538, 4), int),
    "kintree_table": np.zeros((2, 16), int),
    "hands_components": np.zeros((6, 45)),
    "hands_mean": np.full(45, np.nan),
}


@pytest.mark.parametrize("key", BAD)
@pytest.mark.parametrize("how", ["missing", "wrong", "text", "none"])
def test_bad_arrays_are_named(folder, key, how):
    data = random_mano()
    if how == "missing":
        del data[key]
    else:
        data[key] = {"wrong": BAD[key], "text": "text", "none": np.array([None] * 3)}[how]
    path = write_mano(folder / "bad.pkl", data)
    with pytest.raises(InputError, match=rf"bad\.pkl: .*\b{key}\b"):
        load_mano(path)


def test_faces_outside_the_mesh_are_refused(folder):
    data = random_mano()
    data["f"][7, 1] = 778
    with pytest.raises(InputError, match=r"faces\.pkl: faces points outside the 778 vertices"):
        load_mano(write_mano(folder / "faces.pkl", data))


def test_not_a_dict(folder):
    path = folder / "list.pkl"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match=r"contains a list"):
        load_mano(path)


def test_unknown_tips_and_side(plain):
    with pytest.raises(ValueError, match="tips is 'mano', expected one of smplx"):
        load_mano(plain, tips="mano")
    with pytest.raises(ValueError, match="side is 'up'"):
        load_mano(plain, side="up")


@pytest.mark.parametrize("part", [0, 1, 7, 300, 5_000, 0.5, 0.999])
def test_truncated_files(python2, folder, part):
    data = python2.read_bytes()
    path = folder / "cut.pkl"
    path.write_bytes(data[: int(part * len(data)) if isinstance(part, float) else part])
    with pytest.raises(InputError, match="truncated"):
        load_mano(path)


def test_garbage_is_an_input_error():
    """Random bytes, and valid files with a few bytes changed, are either read or raise InputError."""
    rng = np.random.default_rng(0)
    good = python2_pickle({"a": np.arange(3.0), "b": np.float32(2), "c": {1, 2}, "d": ["x", None, True, 2**70]})
    messages = []
    for trial in range(400):
        data = bytearray(rng.bytes(60) if trial % 2 else good)
        if trial % 2 == 0:
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        try:
            parse_pickle(bytes(data), where="noise")
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(message.startswith("noise: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize("what", ["data", "indices", "indptr"])
def test_sparse_matrix_that_does_not_fit_is_refused(folder, what):
    data = random_mano()
    matrix = data["J_regressor"]
    broken = {"data": matrix.data[:-1], "indices": matrix.indices + 5, "indptr": matrix.indptr[:-1]}[what]
    setattr(matrix, what, broken)
    with pytest.raises(InputError, match="csc_matrix is not as expected"):
        load_mano(write_mano(folder / "sparse.pkl", data))


# ------------------------------------------------------------------------------------------------ nothing is ever run


class Call:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "ran"


def attack(kind: str, marker: Path) -> object:
    command = f"touch {marker}"
    source = f"open({str(marker)!r}, 'w')"
    return {
        "posix.system": Call(os.system, command),
        "eval": Call(eval, source),
        "exec": Call(exec, source),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "open": Call(io.open, str(marker), "w"),
        "numpy.load": Call(np.load, str(marker)),
        "numpy.fromfile": Call(np.save, str(marker), 1),
        "functools.partial": Call(functools.partial, os.system, command),
        "operator.attrgetter": Call(operator.attrgetter, "system"),
        "codecs.open": Call(codecs.open, str(marker), "w"),
        "copyreg.add_extension": Call(copyreg.add_extension, "os", "system", 240),
        "numpy.matrix": np.zeros((1, 1)).view(np.matrix),
        "numpy.memmap": Call(np.memmap, str(marker), "uint8", "w+", 0, (4,)),
        "pickle.loads": Call(pickle.loads, b"."),
        "in_a_state": Call(OrderedDict, state={"x": Call(os.system, command)}),
    }[kind]


NAMED = {
    "posix.system": r"(posix|nt)\.system",
    "eval": r"(__builtin__|builtins)\.eval",
    "exec": r"(__builtin__|builtins)\.exec",
    "getattr": r"(__builtin__|builtins)\.getattr",
    "open": r"(io|_io)\.open",
    "numpy.load": r"numpy\.load",
    "numpy.fromfile": r"numpy\.save",
    "functools.partial": r"functools\.partial",
    "operator.attrgetter": r"operator\.attrgetter",
    "codecs.open": r"codecs\.open",
    "copyreg.add_extension": r"copy_?reg\.add_extension",
    "numpy.matrix": r"numpy(\.matrixlib\.defmatrix)?\.matrix",
    "numpy.memmap": r"numpy\.memmap",
    "pickle.loads": r"(_|c|)[pP]ickle\.loads",
    "in_a_state": r"(posix|nt)\.system",
}


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_calls_are_refused_by_name(tmp_path, marker, kind, protocol):
    """A call in an otherwise valid file: the message names the callable, and it is not run."""
    path = tmp_path / "MANO_RIGHT.pkl"
    data = {"v_template": np.zeros((2, 3)), "extra": attack(kind, marker)}
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    with pytest.raises(InputError, match=NAMED[kind]) as caught:
        load_mano(path)
    assert "nothing was run" in str(caught.value)
    assert str(path) in str(caught.value)
    assert not marker.exists()


def stack_global(module: str, name: str) -> bytes:
    def text(value: str) -> bytes:
        return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + text(module) + text(name) + pickle.STACK_GLOBAL


TOUCH = b"X\x05\x00\x00\x00touchq\x00\x85R."
NDARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
HAND_MADE = {
    "old-style instance": (b"(S'touch'\nios\nsystem\n.", r"os\.system"),
    "old-style object": (b"(cos\nsystem\nS'touch'\no.", r"os\.system"),
    "dotted name of an admitted class": (stack_global("numpy", "ndarray.tofile") + TOUCH, "ndarray.tofile"),
    "dotted name of a module": (stack_global("numpy", "f2py.os.system") + TOUCH, r"f2py\.os\.system"),
    "module with a name in it": (stack_global("numpy.ndarray", "tofile") + TOUCH, r"numpy\.ndarray\.tofile"),
    "dotted chumpy": (stack_global("chumpy.ch", "Ch.__init__.__globals__") + b".", "__globals__"),
    "other chumpy": (b"\x80\x02cchumpy.utils\ncol\n)R.", r"chumpy\.utils\.col"),
    "persistent id": (b"Pos.system\n.", "truncated"),
    "binary persistent id": (b"K\x01Q.", "truncated"),
    "extension 1": (b"\x80\x02\x82\xf0)R.", "truncated"),
    "extension 2": (b"\x80\x02\x83\xf0\x00)R.", "truncated"),
    "extension 4": (b"\x80\x02\x84\xf0\x00\x00\x00)R.", "truncated"),
    "buffer from outside": (b"\x80\x05\x97.", "truncated"),
    "call of a class that is only a mark": (NDARRAY + b"(I2\ntR.", "numpy.ndarray is not as expected"),
    "new object of it": (b"\x80\x02" + NDARRAY + b"K\x02\x85\x81.", "numpy.ndarray is not as expected"),
    "call of text": (b"S'os.system'\n(S'touch'\ntR.", "call of something that is not callable"),
    "call of an array": (pickle.dumps(np.zeros(2), protocol=2)[:-1] + b")R.", "not callable"),
    "state for a class": (NDARRAY + b"}S'x'\nI1\nsb.", "state for something"),
    "state for a function": (b"c_codecs\nencode\n(N}S'__defaults__'\n(I1\ntstb.", "state for something"),
    "items for an array": (pickle.dumps(np.zeros(2), protocol=2)[:-1] + b"I0\nI1\ns.", "items for something"),
    "list items for a class": (NDARRAY + b"I1\na.", "items for something"),
    "bare class": (NDARRAY + b".", "bare reference"),
    "bare class in a list": (b"(" + NDARRAY + b"l.", "bare reference"),
    "array of another class": (RECONSTRUCT + b"(c_codecs\nencode\n(I0\ntS'b'\ntR.", "array class other"),
    "object scalar": (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRI1\ntR.", "scalar of Python objects"),
    "dtype of fields": (b"cnumpy\ndtype\n(S'i4,i4'\ntR.", "element type other"),
    "dtype by ctypes": (b"cnumpy\ndtype\n((S'a'\nI1\nttR.", "element type other"),
    "codec that runs code": (b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.", "encoding other than latin1"),
    "huge bytes": (b"c__builtin__\nbytes\n(I9999999999\ntR.", "with arguments"),
    "huge bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.", "truncated"),
    "huge memo index": (b"\x80\x02Nr\xff\xff\xff\xff0.", "truncated"),
    "list in itself": (b"\x80\x02]q\x00h\x00a.", "contains itself"),
    "deep nesting": (b"N" + b"\x85" * 200_000 + b".", "RecursionError"),
    "deep key": (b"}N" + b"\x85" * 200_000 + b"Ns.", "as a key"),
    "wrong end of Reconstructor": (b"ccopy_reg\n_reconstructor\n(S'os'\nc__builtin__\nobject\nNtR.", "is not a class"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HAND_MADE)
def test_tricks_of_the_pickle_machine(kind):
    data, message = HAND_MADE[kind]
    with pytest.raises(InputError, match=message):
        parse_pickle(data, where="trick.pkl", allow=None)


def test_extension_registry_is_not_consulted():
    """Codes registered in this process are refused, too."""
    copyreg.add_extension("posix", "system", 240)
    try:
        with pytest.raises(InputError, match="truncated"):
            parse_pickle(b"\x80\x02\x82\xf0)R.", where="extension")
    finally:
        copyreg.remove_extension("posix", "system", 240)


def test_nothing_is_imported_for_a_name():
    assert "antigravity" not in sys.modules
    with pytest.raises(InputError, match=r"antigravity\.fly"):
        parse_pickle(b"cantigravity\nfly\n.", where="import")
    assert "antigravity" not in sys.modules


def test_stand_ins_of_chumpy_hold_numbers_only(folder):
    with chumpy_classes() as (Ch, Select):
        cases = {
            "text": Ch(x="os.system"),
            "nested": Ch(x=[Ch(x=np.array([None]))]),
            "no array": Ch(y=1),
            "outside": Select(a=np.zeros(4), idxs=np.array([9])),
        }
        files = {name: pickle.dumps(value, protocol=2) for name, value in cases.items()}
    for name, content in files.items():
        path = folder / f"{name}.pkl"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"chumpy\.\w+\.\w+ is not as expected"):
            load_mano(path)


def test_values_shared_many_times_stay_small():
    """A list of the same list, forty levels deep, would have 2**40 entries as an array."""
    value: list = [1.0]
    for _ in range(10):
        value = [value, value]
    read = parse_pickle(pickle.dumps(value, protocol=2), where="laughs")
    assert read[0] is read[1]
    for _ in range(30):
        value = [value, value]
    with pytest.raises(InputError, match="values"):
        parse_pickle(pickle.dumps(value, protocol=2), where="laughs")


# ------------------------------------------------------------------------------------------------- plain data reads


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_survives(protocol):
    """Contents of HO3D's meta files and training tars: arrays of every kind, numpy scalars, text, None, nested."""
    value = {
        "camMat": np.eye(3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">f4"),
        "integers": np.array([[1, -2]], np.int16),
        "bools": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "scalar": np.float32(1.5),
        "zero_dim": np.array(3),
        "text": "Äpfel",
        "names": np.array(["a", "bc"]),
        "objects": np.array([None, "x", 1.5, (1, 2.5), None, True], object),
        "bytes": b"\x00\xff",
        "tuple": (1, 2.5, None, True, -(2**70)),
        "set": {1, "a"},
        "ordered": OrderedDict(a=1, b=[2]),
        "nested": [{"k": [1, {"x": np.int64(7)}]}],
    }
    read = parse_pickle(pickle.dumps(value, protocol=protocol), where="plain")
    np.testing.assert_equal(read, value)
    assert list(read) == list(value)
    for key in ("camMat", "fortran", "integers", "bools", "empty", "names", "scalar"):
        assert read[key].dtype == value[key].dtype
        assert type(read[key]) is type(value[key])
    assert type(read["ordered"]) is OrderedDict
    read["camMat"][0, 0] = 5  # writable, its own memory


def test_python2_arrays_survive():
    value = {"handPose": np.linspace(-3, 3, 48), "objName": "004_sugar_box", "bytes": np.arange(256, dtype=np.uint8)}
    np.testing.assert_equal(parse_pickle(python2_pickle(value), where="python2"), value)


def test_load_pickle_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.pkl: cannot be read"):
        load_pickle(tmp_path / "none.pkl")
    with pytest.raises(InputError, match="cannot be read"):
        load_pickle(tmp_path)


def test_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("utnet.io.safe_pickle.MAX_BYTES", 10)
    path = tmp_path / "large.pkl"
    path.write_bytes(pickle.dumps(list(range(50))))
    with pytest.raises(InputError, match=r"large\.pkl: \d+ bytes is too large"):
        load_pickle(path)
    with pytest.raises(InputError, match="too large"):
        parse_pickle(path.read_bytes(), where="large")
