"""Recordings: one interface to every layout, one clock, pairs by time; damaged ones give what they have."""

import json

import numpy as np
import pytest

from support.recording_bags import write_realsense, write_ros
from support.recording_files import (
    K_COLOR,
    frames,
    write_kinect,
    write_numbered,
    write_r3d,
    write_stray,
    write_tum,
    write_video,
)
from utnet.errors import InputError
from utnet.io.recordings import Camera, Options, is_recording, open_recording
from utnet.io.recordings.frames import Event, pair_streams
from utnet.io.recordings.poses import read_poses

lzfse = pytest.importorskip("liblzfse")


def one_folder(folder, shots):
    return write_numbered(folder, shots, color="{:06d}-color.png", depth="{:06d}-depth.png")


LAYOUTS = {
    "tum": lambda at, shots: write_tum(at / "tum", shots),
    "associations": lambda at, shots: write_tum(at / "tum", shots, associations=True),
    "numbered": lambda at, shots: write_numbered(at / "numbered", shots),
    "one_folder": lambda at, shots: one_folder(at / "one", shots),
    "stray": lambda at, shots: write_stray(at / "stray", shots),
    "r3d": lambda at, shots: write_r3d(at / "clip.r3d", shots, lzfse.compress),
    "ros1": lambda at, shots: write_ros(at / "ros.bag", shots),
    "ros2": lambda at, shots: write_ros(at / "ros2", shots),
    "mcap": lambda at, shots: write_ros(at / "mcap", shots, mcap=True),
    "compressed": lambda at, shots: write_ros(at / "png.bag", shots, compressed="png"),
    "rvl": lambda at, shots: write_ros(at / "rvl", shots, compressed="rvl"),
    "realsense": lambda at, shots: write_realsense(at / "realsense.bag", shots, offset_m=(0, 0, 0)),
}


def read(path, **options):
    recording = open_recording(path, Options(**options))
    return list(recording), recording


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_frames(layout, tmp_path):
    shots = frames()
    path = LAYOUTS[layout](tmp_path, shots)
    assert is_recording(path)
    got, recording = read(path)
    assert [frame.index for frame in got] == [0, 1, 2, 3]
    np.testing.assert_allclose([frame.time_s for frame in got], np.arange(4) / 30, atol=0.002)
    for i, frame in enumerate(got):
        assert frame.rgb.shape == (48, 64, 3)
        assert abs(frame.rgb.mean() - (40 + 30 * i)) < 3
        assert frame.depth_m.shape == (48, 64)
        assert frame.depth_m[10, 30] == pytest.approx(0.5 + 0.01 * i, abs=1e-3)
        assert frame.depth_m[40, 30] == pytest.approx(0.9, abs=1e-3)
        assert frame.depth_m[-1, -1] == 0
        assert set(np.unique(frame.depth_m.round(3))) <= {0, np.float32(0.5 + 0.01 * i).round(3), np.float32(0.9)}
        if layout not in ("tum", "associations", "numbered", "one_folder"):
            assert frame.K_px[0, 0] == pytest.approx(60 + i if layout == "r3d" else 60)
    assert recording.incomplete is None
    assert recording.fps == pytest.approx(30, rel=0.05)
    assert len(read(path)[0]) == len(list(recording)) == 4, "a second reading gives the same"


def test_kinect_has_its_calibration_and_registers_depth(tmp_path):
    path = write_kinect(tmp_path / "kinect.mkv", frames(3, (1280, 720), (320, 288)))
    assert is_recording(path)
    got, recording = read(path)
    assert len(got) == 3
    assert recording.incomplete is None
    np.testing.assert_allclose(got[0].K_px, [[614.4, 0, 639.5], [0, 614.4, 359.5], [0, 0, 1]])
    assert got[1].depth_m.shape == (720, 1280)
    assert got[1].depth_m[200, 640] == pytest.approx(0.51, abs=2e-3)
    assert got[1].depth_m[600, 640] == pytest.approx(0.9, abs=2e-3)


def test_confidence_leaves_readings_out(tmp_path):
    path = write_stray(tmp_path / "stray", frames(), low_confidence=True)
    assert (read(path)[0][0].depth_m[0] == 0).all()
    assert (read(path, least_confidence=0)[0][0].depth_m[0] > 0).all()


def test_poses_of_telephones_are_read(tmp_path):
    for path in (write_stray(tmp_path / "s", frames()), write_r3d(tmp_path / "c.r3d", frames(), lzfse.compress)):
        poses = [frame.T_world_cam for frame in read(path)[0]]
        np.testing.assert_allclose(poses[2][:3, 3], [0.2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(poses[0][:3, :3], np.diag([1, -1, -1]))  # ARKit's axes to OpenCV's


def test_poses_of_a_trajectory_belong_to_the_frames_of_their_time(tmp_path):
    path = write_tum(tmp_path / "tum", frames())
    lines = [f"{time_s:.6f} {i} 0 0 0 0 0.6 0.8" for i, (time_s, _, _) in enumerate(frames()) if i != 2]
    (tmp_path / "poses.txt").write_text("\n".join(["# timestamp tx ty tz qx qy qz qw", *lines[::-1]]))
    got, _ = read(path, poses=read_poses(tmp_path / "poses.txt"))
    assert [frame.T_world_cam is None for frame in got] == [False, False, True, False]
    np.testing.assert_allclose(
        got[3].T_world_cam[:3], [[0.28, -0.96, 0, 3], [0.96, 0.28, 0, 0], [0, 0, 1, 0]], atol=1e-9
    )
    axes, _ = read(path, poses=read_poses(tmp_path / "poses.txt", arkit=True))
    np.testing.assert_allclose(axes[0].T_world_cam @ [0, 1, 2, 1], got[0].T_world_cam @ [0, -1, -2, 1])
    for text in ("", "1 2 3", "0 0 0 0 0 0 0 0"):
        (tmp_path / "poses.txt").write_text(text)
        with pytest.raises(InputError, match=r"poses\.txt"):
            read_poses(tmp_path / "poses.txt")


def test_realsense_unit_and_offset_of_the_cameras(tmp_path):
    shots = frames(2)
    near, _ = read(write_realsense(tmp_path / "a.bag", shots, unit_m=0.0001))
    assert near[0].depth_m[10, 30] == pytest.approx(0.05, abs=1e-4)
    there, _ = read(write_realsense(tmp_path / "b.bag", shots, offset_m=(0.05, 0.0, 0.0)))
    # x = f X / Z: 60 * 0.05 / 0.5 = 6 pixels to the right, 3.3 pixels for the far surface.
    assert (there[0].depth_m[10, :5] == 0).all()
    assert (there[0].depth_m[10, 8:] > 0).all()
    assert (there[0].depth_m[40, 5:60] > 0).all()


def test_videos_with_depth_in_a_video_or_a_folder(tmp_path):
    shots = frames()
    video = write_video(tmp_path / "color.mp4", [rgb for _, rgb, _ in shots])
    depth = [depth_mm for _, _, depth_mm in shots]
    write_video(tmp_path / "depth.mkv", depth, codec="ffv1", pix_fmt="gray16le", source="gray16le")
    write_numbered(tmp_path / "both", shots)
    for place in ("depth.mkv", "both/depth"):
        got, _ = read(video, depth=str(tmp_path / place))
        assert [round(float(frame.depth_m[10, 30]), 3) for frame in got] == [0.5, 0.51, 0.52, 0.53]


def test_a_second_apart_is_no_pair(tmp_path):
    path = write_tum(tmp_path / "tum", frames(), late_s=1.0)
    got, recording = read(path)
    assert all(frame.depth_m is None for frame in got)
    assert any("0.02 s" in note for note in recording.notes)
    assert all(frame.depth_m is not None for frame in read(path, tolerance_s=1.1)[0])


@pytest.mark.parametrize("layout", ["numbered", "stray", "r3d", "ros1", "mcap"])
def test_gaps_a_clock_set_back_and_missing_depth_are_named(layout, tmp_path):
    shots = frames(6)
    times = [0.0, 1 / 30, 2 / 30, 5.0, 0.5, 0.5 + 1 / 30]
    shots = [(1_700_000_000 + t, rgb, depth) for t, (_, rgb, depth) in zip(times, shots, strict=True)]
    path = LAYOUTS[layout](tmp_path, shots)
    if layout == "numbered":
        (path / "depth" / "000003.png").unlink()
        (path / "depth" / "000004.png").write_bytes(b"\x89PNG damaged")
    got, recording = read(path)
    steps = np.diff([frame.time_s for frame in got])
    assert len(got) == 6
    assert (steps > 0).all()
    notes = " ".join(recording.notes)
    if layout == "numbered":
        assert got[3].depth_m is None
        assert got[4].depth_m is None
        assert got[5].depth_m is not None
        assert "2 of 6" in notes
        assert "000004.png" in notes
    else:
        assert steps.max() > 4
        assert "clock" in notes
        assert "gap" in notes


@pytest.mark.parametrize("layout", ["stray", "mcap", "ros1"])
def test_a_file_without_its_end_is_named(layout, tmp_path):
    path = LAYOUTS[layout](tmp_path, frames(40))
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    file = next(file for file in files if file.suffix in (".bag", ".mcap", ".mp4"))
    data = file.read_bytes()
    file.write_bytes(data[: int(0.7 * len(data))])
    with pytest.raises(InputError, match=path.name):  # their index is at the end
        read(path)


def test_a_matroska_file_cut_short_gives_the_frames_before(tmp_path):
    path = write_kinect(tmp_path / "kinect.mkv", frames(6, (1280, 720), (320, 288)))
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    got, _ = read(path, camera=Camera(K_COLOR, (64, 48)))
    assert 0 < len(got) < 6


def test_one_bad_picture_does_not_end_a_recording(tmp_path):
    path = write_numbered(tmp_path / "numbered", frames())
    (path / "rgb" / "000001.png").write_bytes(b"no picture")
    got, recording = read(path)
    assert len(got) == 3
    assert "000001.png" in " ".join(recording.notes)


@pytest.mark.parametrize("name", ["no.bag", "text.bag", "text.r3d", "empty"])
def test_what_is_no_recording_is_named(name, tmp_path):
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("not one")
    elif name == "empty":
        path.mkdir()
    with pytest.raises(InputError, match=name):
        read(path)


@pytest.mark.parametrize("seed", range(30))
def test_pairs_of_streams_are_the_nearest_in_time(seed):
    rng = np.random.default_rng(seed)
    colors, depths = (np.sort(rng.uniform(0, 2, rng.integers(0, 12))).tolist() for _ in range(2))
    tolerance = [0.01, 0.1, 0.5][seed % 3]
    events = sorted([(t, False) for t in colors] + [(t, True) for t in depths])
    pairs = list(pair_streams([Event(is_depth, t, t) for t, is_depth in events], tolerance))
    assert [t for t, _, _ in pairs] == colors
    for t, _, depth in pairs:
        nearest = min(depths, key=lambda d: abs(d - t), default=np.inf)
        if abs(nearest - t) > tolerance:
            assert depth is None
        else:
            assert abs(depth - t) == abs(nearest - t)


def test_a_camera_file_in_the_folder_gives_its_camera(tmp_path):
    path = write_numbered(tmp_path / "rec", frames(2))
    info = {"width": 64, "height": 48, "fx": 60, "fy": 60, "ppx": 31.5, "ppy": 23.5, "coeffs": [0] * 5}
    (path / "intrinsics.json").write_text(json.dumps(info))
    np.testing.assert_allclose(read(path)[0][0].K_px, K_COLOR)


def test_depth_larger_than_the_picture_and_other_formats(tmp_path):
    shots = frames(2, depth_px=(128, 96))
    path = write_numbered(tmp_path / "rec", shots)
    for i, (_, _, depth) in enumerate(shots):
        (path / "depth" / f"{i:06d}.png").unlink()
        np.save(path / "depth" / f"{i:06d}.npy", depth)
    assert read(path)[0][1].depth_m[10, 30] == pytest.approx(0.51)
    assert read(path, depth_scale=0.002)[0][1].depth_m[10, 30] == pytest.approx(1.02)
