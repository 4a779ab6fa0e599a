"""The parquet table: what goes in comes out, for `read_table` and for pandas."""

import json

import numpy as np
import pytest

from support.hands import K, frame_of, random_hand
from utnet.errors import InputError
from utnet.predict.arrays import HandRows
from utnet.predict.formats import FORMATS
from utnet.predict.formats.table import open_writer, read_table, table_schema

pytest.importorskip("pyarrow")


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    error_mm = np.linspace(1, 5, 21)
    return [
        frame_of(random_hand(rng, track=3, joint_error_mm=error_mm), random_hand(rng, "left", track=4)),
        frame_of(index=1, time_s=0.04),
        frame_of(random_hand(rng, track=3, valid=False), index=2, time_s=0.08),
        frame_of(random_hand(rng), file="a.jpg", is_video=False),
    ]


def written(path, frames):
    with open_writer(path) as writer:
        for frame in frames:
            writer.add(frame)
    return path


def test_columns_come_back_as_arrays_write_them(tmp_path, frames):
    """The same names, shapes and numbers as --npz."""
    table = read_table(written(tmp_path / FORMATS["table"].file, frames))
    rows = HandRows(with_vertices=False)
    for frame in frames:
        rows.add(frame.hands, frame.index, frame.time_s)
    rows.write(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        assert set(arrays) <= set(table)
        for name in arrays:
            np.testing.assert_array_equal(table[name], arrays[name], err_msg=name)
            assert table[name].dtype.kind == arrays[name].dtype.kind, name
    assert table["file"].tolist() == ["clip.mp4"] * 3 + ["a.jpg"]
    assert table["hand"].tolist() == [0, 1, 0, 0]
    np.testing.assert_array_equal(table["K_px"][0], K)
    assert set(read_table(tmp_path / "hands.parquet", ["side", "betas"])) == {"side", "betas"}


def test_pandas_reads_it_with_nulls_where_there_is_nothing(tmp_path, frames):
    pandas = pytest.importorskip("pandas")
    data = pandas.read_parquet(written(tmp_path / "hands.parquet", frames))
    assert data.track.isna().tolist() == [False, False, False, True]
    assert data.joint_error_mm.isna().tolist() == [False, True, True, True]
    joints = np.stack(data.joints_cam_m).reshape(-1, 21, 3)
    np.testing.assert_allclose(joints[1], frames[0].hands[1].joints_cam_m, atol=1e-6)


def test_every_array_states_unit_frame_and_shape():
    for field in table_schema():
        if hasattr(field.type, "list_size"):
            assert field.metadata[b"unit"], field.name
            assert np.prod(json.loads(field.metadata[b"shape"])) == field.type.list_size


def test_without_hands_there_is_a_table_without_rows(tmp_path):
    table = read_table(written(tmp_path / "hands.parquet", [frame_of()]))
    assert table["joints_cam_m"].shape == (0, 21, 3)


def test_another_file_is_refused_by_name(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match=r"a\.parquet"):
        read_table(tmp_path / "a.parquet")


def test_a_failure_leaves_no_file(tmp_path, frames):
    with pytest.raises(AttributeError):
        written(tmp_path / "hands.parquet", [*frames, None])
    assert not list(tmp_path.iterdir())
