"""RGB-D recordings and camera files, damaged at one place: the frames that are whole are read, or it is refused."""

from __future__ import annotations

import json
import shutil
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.base import base
from fuzz.data_sets import damage
from fuzz.mutate import bytes_of, text_of
from support import recording_files
from utnet.io.recordings import open_recording, read_camera

Rng = np.random.Generator


def _write(name: str, path: Path) -> None:
    shots = recording_files.frames(3)
    path.mkdir()
    if name == "tum":
        recording_files.write_tum(path / "tum", shots)
    elif name == "numbered":
        recording_files.write_numbered(path / "numbered", shots)
    elif name == "stray":
        recording_files.write_stray(path / "stray", shots)
    elif name == "r3d":
        recording_files.write_r3d(path / "a.r3d", shots, zlib.compress)
    elif name == "mcap" or name == "bag":
        from support.recording_bags import write_ros

        write_ros(path / f"a.{name}", shots, mcap=name == "mcap")
    else:
        raise ValueError(name)


def _names() -> list[str]:
    try:
        import rosbags  # noqa: F401
    except ImportError:
        return ["tum", "numbered", "stray", "r3d"]
    return ["tum", "numbered", "stray", "r3d", "bag", "mcap"]


def make_recording(rng: Rng, folder: Path) -> Path:
    name = str(rng.choice(_names()))
    root = base(f"recording_{name}", lambda path: _write(name, path))
    out = Path(shutil.copytree(root, folder / name))
    if rng.random() < 0.9:
        damage(rng, out)
    (path,) = out.iterdir() if any(out.iterdir()) else (out / "gone",)
    return path


def read_recording(path: Path) -> None:
    for frame in islice(open_recording(path), 5):
        assert frame.rgb.dtype == np.uint8
        assert np.isfinite(frame.time_s)
        assert frame.depth_m is None or np.isfinite(frame.depth_m).all()


_CAMERAS: list[Any] = [
    {"width": 64, "height": 48, "distortion_model": "plumb_bob", "D": [0.0] * 5, "K": [60, 0, 31, 0, 60, 23, 0, 0, 1]},
    {"intrinsic_matrix": [60.0, 0, 0, 0, 60.0, 0, 31, 23, 1], "width": 64, "height": 48},
    {"image_width": 64, "image_height": 48, "camera_matrix": {"data": [60.0, 0, 31, 0, 60.0, 23, 0, 0, 1]}},
]


def make_camera(rng: Rng, folder: Path) -> Path:
    path = folder / str(rng.choice(["camera.json", "camera.yaml", "cameras.txt"]))
    tree = _CAMERAS[int(rng.integers(len(_CAMERAS)))]
    texts = [json.dumps(tree).encode(), b"1 PINHOLE 64 48 60 60 31 23\n", b"60 0 31\n0 60 23\n0 0 1\n"]
    data = texts[int(rng.integers(3))]
    path.write_bytes(text_of(rng, tree) if rng.random() < 0.5 else bytes_of(rng, data))
    return path


KINDS = {"recording": (make_recording, read_recording), "camera": (make_camera, read_camera)}
