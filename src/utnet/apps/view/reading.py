"""Moments of a predictions.json with its recording or pictures, or of a recording alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from utnet.apps.view.moments import Moment, Moments
from utnet.conventions import NUM_BETAS, NUM_JOINTS, SIDES
from utnet.errors import BAD_TREE, InputError, as_input_error, shown
from utnet.geometry import unproject
from utnet.io.depth import read_depth
from utnet.io.pictures import read_picture
from utnet.io.recordings import Camera, Options, is_recording, open_recording
from utnet.io.videos import VideoReader
from utnet.placement import default_intrinsics
from utnet.predict.reading import read_predictions

MOST_MOMENTS = 1500
"""Largest number of displayed frames, evenly spaced in longer recordings."""
_PICTURE_PX, _POINTS_PX = 640, 240
"""Longer sides of the displayed pictures and depth images."""
_FARTHEST_M = 6.0
_MOST, _MOST_PX = 1e6, 1_000_000
"""Bounds of numbers and of picture sizes; larger ones cannot be drawn."""


def fill(moments: Moments, path: Path, recording: Path | None, options: Options) -> list[str]:
    """Adds all frames; returns remarks.

    Args:
        moments: extended in place.
        path: predictions.json, its folder, or a recording.
        recording: instead of the one in predictions.json.
        options: for the recording.

    Raises:
        InputError: no such file, or none of these.
    """
    if path.is_dir() and (path / "predictions.json").is_file():
        path = path / "predictions.json"
    if path.suffix.lower() != ".json":
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        for moment in _of_frames(path, options, {}, None):
            moments.add(moment)
        return []
    try:
        return _fill(moments, path, recording, options)
    except BAD_TREE as error:
        raise as_input_error(error, str(path)) from error


def _fill(moments: Moments, path: Path, recording: Path | None, options: Options) -> list[str]:
    """`fill` for a predictions.json."""
    tree = read_predictions(path)
    videos, remarks = tree["videos"], []
    if recording is not None and len(videos) != 1:
        raise InputError(f"{path}: has {len(videos)} videos; a recording can be given for one")
    for record in tree["images"]:
        moments.add(_of_picture(record, options))
    missing = [record["file"] for record in tree["images"] if not Path(record["file"]).is_file()]
    if missing:
        remarks.append(f"{missing[0]}: not found ({len(missing)} of {len(tree['images'])}), so only hands are shown")
    for number, record in enumerate(videos):
        source = Path(record["file"]) if recording is None else recording
        prefix = f"{number + 1}_" if len(videos) > 1 else ""
        if source.exists():
            found = _of_frames(source, _as_predicted(record, options), record, prefix)
        elif recording is not None:
            raise InputError(f"{recording}: no such file or folder")
        else:
            remarks.append(f"{source}: not found, so only hands are shown; name the recording after predictions.json")
            found = (_of_record(record, frame, prefix) for frame in _spread(record["frames"]))
        for moment in found:
            moments.add(moment)
    if not len(moments):
        raise InputError(f"{path}: contains nothing to show")
    return remarks


def _as_predicted(record: dict, options: Options) -> Options:
    """Returns the options with the camera given for prediction."""
    if options.camera is None and record["K_from"] == "given":
        return replace(options, camera=Camera(np.array(record["K_px"], float)))
    return options


def _spread(frames: list[Any]) -> list[Any]:
    return frames[:: -(-len(frames) // MOST_MOMENTS) or 1]


def _of_record(video: dict, frame: dict, prefix: str) -> Moment:
    """Returns a moment of predictions.json, without picture."""
    pose = frame.get("T_world_cam")
    hands: dict[str, dict] = {}
    for number, hand in enumerate(frame["hands"]):
        track = number if hand["track"] is None else int(hand["track"])
        hands[f"{prefix}{hand['side']}_{track}"] = _checked_hand(hand)
    width, height = int(video["width"]), int(video["height"])
    if not (0 < width < _MOST_PX and 0 < height < _MOST_PX):
        raise ValueError(f"a picture of {width}x{height} px")
    K = _numbers("K_px", video["K_px"], (3, 3))
    if min(K[0, 0], K[1, 1]) < 1:
        raise ValueError("K_px is not a camera")
    return Moment(
        f"{video['file']} frame {int(frame['index'])}",
        float(_numbers("time_s", frame["time_s"], ())),
        (width, height),
        K,
        np.eye(4) if pose is None else _numbers("T_world_cam", pose, (4, 4)),
        hands,
    )


def _checked_hand(hand: dict) -> dict:
    """A hand's record as it is; ValueError unless it can be shown."""
    if hand["side"] not in SIDES:
        raise ValueError(f"side is {shown(hand['side'])}")
    _numbers("joints_cam_m", hand["joints_cam_m"], (NUM_JOINTS, 3))
    if hand["hand_model"] in (None, "open"):
        _numbers("global_orient_axis_angle", np.ravel(hand["global_orient_axis_angle"]), (3,))
        _numbers("hand_pose_axis_angle", np.ravel(hand["hand_pose_axis_angle"]), (45,))
        _numbers("betas", hand["betas"], (NUM_BETAS,))
    return hand


def _numbers(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(value, float)
    if array.shape != shape or not (np.abs(array) < _MOST).all():  # False for NaN
        raise ValueError(f"{name}: expected {shape} numbers below {_MOST:g}")
    return array


def _of_frames(source: Path, options: Options, record: dict, prefix: str | None) -> Iterator[Moment]:
    """Yields frames of a recording or video, with their hands."""
    of_frame = {frame["index"]: frame for frame in record.get("frames", ())}
    with ExitStack() as stack:
        frames: Iterable[Any]
        if options.depth is not None or is_recording(source):
            recording = open_recording(source, options)
            frames, total = recording, recording.num_frames
        else:
            video = stack.enter_context(VideoReader(source))
            frames, total = video, video.num_frames
        last = max(of_frame, default=None)
        step = -(-(len(of_frame) or total or 1) // MOST_MOMENTS) or 1
        for frame in tqdm(frames, desc=source.name, total=total, unit="frame", disable=None):
            if last is not None and frame.index > last:
                return
            if frame.index % step or (of_frame and frame.index not in of_frame):
                continue
            size = (frame.rgb.shape[1], frame.rgb.shape[0])
            moment = Moment(f"{source} frame {frame.index}", frame.time_s, size)
            if of_frame:
                moment = _of_record(record, of_frame[frame.index], prefix or "")
            elif getattr(frame, "T_world_cam", None) is not None:
                moment = replace(moment, T_world_cam=frame.T_world_cam)
            K = getattr(frame, "K_px", None)
            yield _with_picture(moment, frame.rgb, getattr(frame, "depth_m", None), K)


def _of_picture(record: dict, options: Options) -> Moment:
    moment = replace(_of_record(record, {"index": 0, "time_s": 0, "hands": record["hands"]}, ""), name=record["file"])
    if not Path(record["file"]).is_file():
        return moment
    depth = record["depth"]
    depth_m = read_depth(depth, options.depth_scale) if depth and Path(depth).is_file() else None
    return _with_picture(moment, read_picture(record["file"]).rgb, depth_m, None)


def _with_picture(moment: Moment, rgb: np.ndarray, depth_m: np.ndarray | None, K_px: np.ndarray | None) -> Moment:
    """Returns the moment with its picture, and with depth as points."""
    height, width = rgb.shape[:2]
    K = K_px if K_px is not None else moment.K_px
    K = default_intrinsics(width, height) if K is None else K
    scale = min(1.0, _PICTURE_PX / max(width, height))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    moment = replace(moment, size_px=(width, height), K_px=K, rgb=small)
    if depth_m is None:
        return moment
    if depth_m.shape != (height, width):
        depth_m = cv2.resize(depth_m, (width, height), interpolation=cv2.INTER_NEAREST)
    step = max(1, round(max(width, height) / _POINTS_PX))
    v, u = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    z = depth_m[v, u]
    seen = (z > 0) & (z < _FARTHEST_M)
    points = unproject(np.stack([u[seen], v[seen]], -1).astype(float), z[seen].astype(float), K)
    return replace(moment, points_cam_m=points.astype(np.float32), colors=rgb[v[seen], u[seen]])
