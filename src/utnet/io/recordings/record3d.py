"""Record3D's .r3d files."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utnet.errors import InputError
from utnet.io.files import decode_rgb
from utnet.io.recordings.cameras import Camera, pinhole
from utnet.io.recordings.codecs import decode_lzfse
from utnet.io.recordings.frames import Frames, Options, RawFrame
from utnet.rotations import quaternion_to_matrix

_ARKIT_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_PICTURE = re.compile(r"(?:^|/)rgbd/(\d+)\.jpg$")


class Record3DFrames(Frames):
    """An .r3d file (layout: the readers of codekansas/usa and BernieZhu/RGBD-Video-iPhone12Pro).

    A zip of `metadata` (JSON: K column by column for w x h, perFrameIntrinsicCoeffs fx, fy, cx, cy, dw, dh, fps,
    frameTimestamps, poses qx, qy, qz, qw, x, y, z in ARKit's axes), rgbd/0.jpg, rgbd/0.depth (float32 metres, dh x dw,
    LZFSE) and rgbd/0.conf (uint8 0, 1, 2, LZFSE).
    """

    def __init__(self, path: Path, options: Options):
        super().__init__(str(path), options)
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                meta = json.loads(archive.read(next(n for n in names if n.split("/")[-1].startswith("metadata"))))
            self._names = sorted((int(m.group(1)), name) for name in names if (m := _PICTURE.search(name)))
            self._size = (int(meta["w"]), int(meta["h"]))
            self._depth_shape = (int(meta.get("dh", 256)), int(meta.get("dw", 192)))
            self._K = np.asarray(meta["K"], float).reshape(3, 3).T
            self.fps = float(meta.get("fps", options.fps))
            self._times = [float(time) for time in meta.get("frameTimestamps") or []]
            self._poses = [np.asarray(pose, float) for pose in meta.get("poses") or []]
            self._each_K = [row for row in meta.get("perFrameIntrinsicCoeffs") or [] if len(row) == 4]
        except (OSError, zipfile.BadZipFile, StopIteration, KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path}: an incomplete or damaged .r3d file of Record3D ({error!r}); export it again"
            ) from error
        self.num_frames = len(self._names)

    def read(self) -> Iterator[RawFrame]:
        with zipfile.ZipFile(self._path) as archive:
            for i, name in self._names:
                where = f"{self._path.name}/{name}"
                try:
                    rgb = decode_rgb(archive.read(name), where=where)
                except (InputError, zipfile.BadZipFile, zlib.error, OSError) as error:
                    self.skip(name, str(error))
                    continue
                depth_m, confidence = self._depth(archive, name.removesuffix(".jpg"))
                time_s = self._times[i] if i < len(self._times) else i / self.fps
                K = pinhole(*self._each_K[i]) if i < len(self._each_K) else self._K
                pose = _pose(self._poses[i]) if i < len(self._poses) else None
                yield RawFrame(
                    time_s, rgb, Camera(K, self._size), depth_m, confidence=confidence, T_world_cam=pose, source=where
                )

    def _depth(self, archive: zipfile.ZipFile, stem: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        images: list[np.ndarray | None] = []
        for suffix, kind in ((".depth", np.float32), (".conf", np.uint8)):
            try:
                data = decode_lzfse(archive.read(stem + suffix), stem + suffix)
                images.append(np.frombuffer(data, kind).reshape(self._depth_shape))
            except KeyError:  # not recorded
                images.append(None)
            except ValueError as error:
                self.skip(stem + suffix, f"not {self._depth_shape[1]}x{self._depth_shape[0]} readings ({error})")
                images.append(None)
            except (zipfile.BadZipFile, zlib.error) as error:
                self.skip(stem + suffix, str(error))
                images.append(None)
        depth, confidence = images
        return (None, None) if depth is None else (self.options.metres(depth), confidence)


def _pose(row: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = quaternion_to_matrix(row[:4]), row[4:7]
    return T @ _ARKIT_TO_OPENCV
