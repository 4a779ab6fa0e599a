"""Detects the kind of a recording and opens it."""

from __future__ import annotations

from pathlib import Path

from utnet.errors import InputError
from utnet.io.kinds import is_video
from utnet.io.recordings.frames import Frames, Options

_BAGS = (".bag", ".mcap", ".db3")
RECORDING_SUFFIXES = (*_BAGS, ".r3d")
"""Suffixes of recordings that are not videos."""


def is_recording(path: Path) -> bool:
    """Whether a file or folder is an RGB-D recording, by its name and contents."""
    return _kind(path) is not None


def open_recording(path: str | Path, options: Options | None = None) -> Frames:
    """Opens a recording.

    Args:
        path: RealSense .bag or .db3, ROS 1 bag, ROS 2 bag (folder or .db3), MCAP, Azure Kinect .mkv, Record3D .r3d, a
            folder of Stray Scanner, of TUM RGB-D, or of colour and depth pictures; with `options.depth` also a video or
            a folder of colour pictures.
        options: settings of the user.

    Raises:
        InputError: no such file, none of these, or damaged from its start.
    """
    path, options = Path(path), options or Options()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    kind = _kind(path)
    if kind in (None, "folder") or (kind == "kinect" and options.depth is not None):
        kind = "folder" if path.is_dir() else "video" if is_video(path) else kind
    if kind == "bag":
        from utnet.io.recordings.bags import BagFrames

        return BagFrames(path, options)
    if kind == "r3d":
        from utnet.io.recordings.record3d import Record3DFrames

        return Record3DFrames(path, options)
    from utnet.io.recordings import folders, kinect

    if kind == "stray":
        return folders.StrayFrames(path, options)
    if kind == "folder":
        return folders.FolderFrames(path, options)
    if kind == "kinect":
        return kinect.KinectFrames(path, options)
    if kind == "video":
        return kinect.VideoFrames(path, options)
    raise InputError(f"{path}: not an RGB-D recording (RealSense, ROS, MCAP, Kinect, Record3D, Stray Scanner, folders)")


def _kind(path: Path) -> str | None:
    if path.is_dir():
        from utnet.io.recordings import folders

        if folders.is_stray(path):
            return "stray"
        if (path / "metadata.yaml").is_file() and any(f.suffix in _BAGS for f in path.iterdir()):
            return "bag"
        return "folder" if folders.is_folder_recording(path) else None
    if path.suffix.lower() in _BAGS:
        return "bag"
    if path.suffix.lower() == ".r3d":
        return "r3d"
    if path.suffix.lower() != ".mkv":
        return None
    from utnet.io.recordings import kinect  # loads FFmpeg

    return "kinect" if kinect.is_kinect(path) else None
