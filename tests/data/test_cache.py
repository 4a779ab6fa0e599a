"""Cached arrays: built once, mapped afterwards, built anew when the stamp changes or a file is damaged."""

import numpy as np
import pytest

from utnet.data.cache import cached_arrays


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"rows": np.arange(6).reshape(3, 2), "empty": np.zeros((0, 3))}


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("UTNET_CACHE", str(tmp_path / "cache"))
    return Builder()


def test_arrays_are_built_once_and_then_mapped_read_only(build, tmp_path):
    first, second = (cached_arrays("x", tmp_path, {"size": 3}, build) for _ in range(2))
    assert build.calls == 1
    for arrays in (first, second):
        assert isinstance(arrays["rows"], np.memmap)
        np.testing.assert_array_equal(arrays["rows"], [[0, 1], [2, 3], [4, 5]])
        assert arrays["empty"].shape == (0, 3)
        with pytest.raises(ValueError, match="read-only"):
            arrays["rows"][0] = 1


def test_another_stamp_name_or_folder_is_another_cache(build, tmp_path):
    cached_arrays("x", tmp_path, [1, 2.5, "a"], build)
    cached_arrays("x", tmp_path, [1, 2.5, "b"], build)
    cached_arrays("y", tmp_path, [1, 2.5, "b"], build)
    cached_arrays("y", tmp_path / "other", [1, 2.5, "b"], build)
    assert build.calls == 4
    cached_arrays("y", tmp_path, (1, 2.5, "b"), build)  # JSON knows no tuples
    assert build.calls == 4


@pytest.mark.parametrize("name", ["rows.npy", "stamp.json"])
def test_a_damaged_cache_is_made_again(name, build, tmp_path):
    cached_arrays("x", tmp_path, 1, build)
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[:20])
    np.testing.assert_array_equal(cached_arrays("x", tmp_path, 1, build)["rows"][2], [4, 5])
    assert build.calls == 2
    cached_arrays("x", tmp_path, 1, build)
    assert build.calls == 2


def test_nothing_is_left_beside_the_cache(build, tmp_path):
    cached_arrays("x", tmp_path, 1, build)
    cached_arrays("x", tmp_path, 2, build)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_where_nothing_can_be_written_the_arrays_come_with_a_warning(build, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UTNET_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="UTNET_CACHE"):
        arrays = cached_arrays("x", tmp_path, 1, build)
    np.testing.assert_array_equal(arrays["rows"][0], [0, 1])
