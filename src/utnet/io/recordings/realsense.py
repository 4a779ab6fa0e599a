"""A live RealSense, or its recording played back by the SDK, through pyrealsense2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utnet.errors import InputError, install_line
from utnet.io.recordings.cameras import Camera, pinhole
from utnet.io.recordings.frames import Frames, Options, RawFrame

_WAIT_MS = 5000
_NO_DEVICE = "no RealSense can be opened ({}); is it plugged in, free, and permitted?"


class RealSenseFrames(Frames):
    """Live colour and depth of a RealSense, depth registered to colour.

    Args:
        options: settings of the user.
        file: a recording, played back as fast as its frames are read; None: the camera.
        size_px: width and height of the streams of a camera.

    Raises:
        InputError: pyrealsense2 is missing, or there is no camera.
    """

    def __init__(self, options: Options, *, file: Path | None = None, size_px: tuple[int, int] = (640, 480)):
        super().__init__("realsense" if file is None else str(file), options)
        self._sdk = rs = _sdk()
        config, self._pipeline = rs.config(), rs.pipeline()
        try:
            if file is None:
                config.enable_stream(rs.stream.depth, *size_px, rs.format.z16, round(options.fps))
                config.enable_stream(rs.stream.color, *size_px, rs.format.rgb8, round(options.fps))
            else:
                config.enable_device_from_file(str(file), False)
            self._profile = self._pipeline.start(config)
            if file is not None:
                self._profile.get_device().as_playback().set_real_time(False)
            streams = [
                self._profile.get_stream(kind).as_video_stream_profile() for kind in (rs.stream.color, rs.stream.depth)
            ]
            self._color, self._depth = (_camera(stream.get_intrinsics()) for stream in streams)
            self._T = _transform(streams[1].get_extrinsics_to(streams[0]))
            self._unit_m = _unit_m(self._profile)
        except RuntimeError as error:
            raise InputError(_NO_DEVICE.format(error)) from error
        self.fps, self._is_live = options.fps, file is None

    def read(self) -> Iterator[RawFrame]:
        try:
            while True:
                try:
                    pair = self._pipeline.wait_for_frames(_WAIT_MS)
                except RuntimeError as error:  # no more frames
                    if self._is_live:
                        self.incomplete = f"gave no more frames ({error})"
                    return
                color, depth = pair.get_color_frame(), pair.get_depth_frame()
                if not color:
                    continue
                depth_m = self.options.metres(np.asanyarray(depth.get_data()), self._unit_m) if depth else None
                time_s = color.get_timestamp() / 1000
                rgb = np.asanyarray(color.get_data()).copy()  # the SDK takes its buffers back
                yield RawFrame(time_s, rgb, self._color, depth_m, self._depth, self._T, source=f"{time_s:.3f} s")
        finally:
            self._pipeline.stop()


def _sdk() -> Any:
    try:
        import pyrealsense2
    except ImportError as error:
        raise InputError(f"a RealSense needs pyrealsense2 ({error}); {install_line('realsense')}") from error
    return pyrealsense2


def _camera(given: Any) -> Camera:
    model = str(given.model).removeprefix("distortion.")
    K = pinhole(given.fx, given.fy, given.ppx, given.ppy)
    return Camera(K, (given.width, given.height), model, tuple(float(value) for value in given.coeffs))


def _transform(given: Any) -> np.ndarray:
    """(4, 4) of rs2_extrinsics, whose rotation is stored column by column."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.reshape(given.rotation, (3, 3)).T, given.translation
    return T


def _unit_m(profile: Any) -> float:
    try:
        return float(profile.get_device().first_depth_sensor().get_depth_scale())
    except RuntimeError:  # a device without that option
        return 0.001
