"""Fast npz reader: equal to numpy, with numpy as fallback for unusual files."""

import zipfile
from contextlib import suppress

import numpy as np
import pytest

from utnet.errors import InputError
from utnet.io.npz import read_members, read_npz

RNG = np.random.default_rng(0)
ARRAYS = {
    "noise": RNG.integers(0, 255, (300, 400), np.uint8),  # larger than the tail that is read, compressed or not
    "pose_m": RNG.normal(size=(1, 51)).astype(np.float32),
    "joint_3d": RNG.normal(size=(1, 21, 3)),
    "empty": np.zeros((0, 3), np.int32),
    "scalar": np.array(3.5),
}


def damage(path, place, byte=b"\xff"):
    data = bytearray(path.read_bytes())
    data[place : place + len(byte)] = byte
    path.write_bytes(data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_members_are_numpys(save, tmp_path):
    path = tmp_path / "labels.npz"
    save(path, **ARRAYS)
    for names in (("joint_3d",), ("pose_m", "noise"), tuple(ARRAYS), ("scalar", "scalar")):
        for name, array in zip(names, read_members(path, *names), strict=True):
            assert array.dtype == ARRAYS[name].dtype
            assert array.shape == ARRAYS[name].shape
            np.testing.assert_array_equal(array, ARRAYS[name])


def test_plain_files_are_read_without_numpys_reader(tmp_path, monkeypatch):
    path = tmp_path / "labels.npz"
    np.savez_compressed(path, **ARRAYS)
    monkeypatch.setattr("utnet.io.npz.read_npz", None)
    np.testing.assert_array_equal(read_members(path, "pose_m")[0], ARRAYS["pose_m"])


def test_unusual_files_are_left_to_numpy(tmp_path):
    path = tmp_path / "labels.npz"
    fortran = np.asfortranarray(ARRAYS["noise"])
    np.savez(path, a=fortran)
    np.testing.assert_array_equal(read_members(path, "a")[0], fortran)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.comment = b"made elsewhere"
        with archive.open("a.npy", "w") as member:
            np.lib.format.write_array(member, ARRAYS["joint_3d"])
    np.testing.assert_array_equal(read_members(path, "a")[0], ARRAYS["joint_3d"])


def test_nothing_pickled_is_read(tmp_path):
    path = tmp_path / "labels.npz"
    np.savez(path, a=np.array([{"x": 1}], object))
    with pytest.raises(InputError, match=r"labels\.npz.*not a readable"):
        read_members(path, "a")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_cut_off_files_are_named(save, share, tmp_path):
    path = tmp_path / "labels.npz"
    save(path, **ARRAYS)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"labels\.npz: not a readable npz file") as caught:
        read_members(path, "joint_3d")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_changed_bytes_are_found_out(save, tmp_path):
    whole, path = tmp_path / "whole.npz", tmp_path / "labels.npz"
    save(whole, joint_3d=ARRAYS["joint_3d"])
    harmless = 0
    for place in np.linspace(80, whole.stat().st_size - 1, 40).astype(int):
        path.write_bytes(whole.read_bytes())
        damage(path, place, bytes([path.read_bytes()[place] ^ 0x55]))
        given = None
        with suppress(InputError):
            (given,) = read_members(path, "joint_3d")
        if given is not None:  # an unused byte, such as the modification time
            np.testing.assert_array_equal(given, ARRAYS["joint_3d"])
            harmless += 1
    assert harmless < 20


def test_a_missing_file_or_key_is_named(tmp_path):
    path = tmp_path / "labels.npz"
    with pytest.raises(InputError, match=r"labels\.npz: no such file"):
        read_members(path, "a")
    np.savez(path, b=np.zeros(3))
    for read in (read_members, read_npz):
        with pytest.raises(InputError, match=r"labels\.npz: .*a.* not a file of this dataset"):
            read(path, "a")
