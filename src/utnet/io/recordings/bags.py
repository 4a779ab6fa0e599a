"""ROS 1 and ROS 2 bags, MCAP, and RealSense's .bag and .db3, read by `rosbags`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utnet.errors import InputError, first_line, install_line
from utnet.io.deep import to_8_bits
from utnet.io.files import decode_rgb
from utnet.io.recordings.cameras import Camera, camera_of_ros, pinhole
from utnet.io.recordings.codecs import decode_compressed_depth
from utnet.io.recordings.frames import Event, Frames, Options, RawFrame, pair_streams
from utnet.rotations import quaternion_to_matrix

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_REALSENSE = re.compile(r"^/device_\d+/sensor_\d+/(Depth|Color)_0/")
_DEPTH_TOPIC = re.compile(r"depth", re.IGNORECASE)
_ALIGNED = re.compile(r"aligned_depth|depth_registered|depth_to_color|registered", re.IGNORECASE)
_NO_COLOR = re.compile(r"infra|/ir\b|fisheye|confidence|disparity|segment|mask", re.IGNORECASE)
_CONVERSIONS = {
    "bgr8": cv2.COLOR_BGR2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB, "mono8": cv2.COLOR_GRAY2RGB,
    "8uc1": cv2.COLOR_GRAY2RGB, "8uc3": cv2.COLOR_BGR2RGB, "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2, "yuyv": cv2.COLOR_YUV2RGB_YUY2, "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB, "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB, "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
}  # fmt: skip


class BagFrames(Frames):
    """A bag with a colour and a depth topic.

    ROS: sensor_msgs/Image or CompressedImage (JPEG, PNG, compressedDepth as PNG or RVL) with camera_info beside; of
    several depth topics the one aligned to colour is taken. Unaligned depth is registered by /tf_static.
    RealSense (librealsense, ros_file_format.h, file versions 2 to 4): /device_0/sensor_0/Depth_0/..., camera_info and
    transforms as messages or as text.
    """

    def __init__(self, path: Path, options: Options):
        super().__init__(str(path), options)
        self._path = path
        with self._opened() as reader:
            topics = {connection.topic: connection for connection in reader.connections}
            images = [c for c in reader.connections if c.msgtype in _IMAGES]
            color = [c for c in images if not _DEPTH_TOPIC.search(c.topic) and not _NO_COLOR.search(c.topic)]
            depth = [c for c in images if _DEPTH_TOPIC.search(c.topic) and not _NO_COLOR.search(c.topic)]
            if not color:
                names = ", ".join(sorted(topics)[:6]) or "none"
                raise InputError(f"{path}: no topic with colour pictures (topics: {names})")
            self._color_topic = min(color, key=_color_rank).topic
            self._depth_topic = min(depth, key=_depth_rank).topic if depth else ""
            seconds = reader.duration / 1e9
            count = topics[self._color_topic].msgcount
            self.num_frames = count or None
            self.fps = float(np.clip((count - 1) / seconds, 0.5, 250)) if count > 1 and seconds > 0 else 30.0
            self._setup = _Setup(reader, self._color_topic, self._depth_topic)

    def read(self) -> Iterator[RawFrame]:
        setup = self._setup
        with self._opened() as reader:
            for time_s, color, depth in pair_streams(self._events(reader), self.options.tolerance_s):
                try:
                    rgb = decode_color(color)
                except InputError as error:
                    self.skip(f"{self._color_topic} at {time_s:.3f} s", str(error))
                    continue
                depth_m = None
                if depth is not None:
                    try:
                        depth_m = self.options.metres(decode_depth(depth), setup.unit_m)
                    except InputError as error:
                        self.skip(f"{self._depth_topic} at {time_s:.3f} s", str(error))
                yield RawFrame(
                    time_s, rgb, setup.color, depth_m, setup.depth, setup.T_color_depth, source=f"{time_s:.6f} s"
                )
        self.notes += setup.notes

    def _events(self, reader: Any) -> Iterator[Event[Any]]:
        wanted = [c for c in reader.connections if c.topic in (self._color_topic, self._depth_topic)]
        try:
            for connection, written_ns, data in reader.messages(wanted):
                message = reader.deserialize(data, connection.msgtype)
                stamp = message.header.stamp
                time_s = stamp.sec + stamp.nanosec * 1e-9
                if time_s <= 0:
                    time_s = written_ns * 1e-9
                yield Event(connection.topic == self._depth_topic, time_s, message)
        except InputError:
            raise
        except Exception as error:  # rosbags raises many kinds of errors
            self.incomplete = f"cut short or damaged ({first_line(error)})"

    def _opened(self) -> Any:
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise InputError(f"{self._path}: a bag; {install_line('recordings')}") from error
        reader = AnyReader([self._path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        try:
            reader.open()
        except Exception as error:  # rosbags raises many kinds of errors
            raise InputError(
                f"{self._path}: an incomplete or damaged bag ({first_line(error)}); "
                "`rosbag reindex` or `ros2 bag reindex` repairs one that was cut short"
            ) from error
        return _Closing(reader)


class _Closing:
    """Context with an open reader."""

    def __init__(self, reader: Any):
        self._reader = reader

    def __enter__(self) -> Any:
        return self._reader

    def __exit__(self, *_: Any) -> None:
        self._reader.close()


class _Setup:
    """Properties of a bag: cameras, their transform, the unit of depth.

    Args:
        reader: an open bag.
        color_topic: topic of the colour pictures.
        depth_topic: topic of the depth images, "" if there is none.

    Raises:
        InputError: a distortion model that cannot be applied.
    """

    def __init__(self, reader: Any, color_topic: str, depth_topic: str):
        self.color: Camera | None = None
        self.depth: Camera | None = None
        self.T_color_depth: np.ndarray | None = None
        self.unit_m = 0.001
        self.notes: list[str] = []
        is_realsense = bool(_REALSENSE.match(color_topic))
        frames: dict[str, str] = {}
        for name, topic in (("color", color_topic), ("depth", depth_topic)):
            message = _first(reader, _info_topics(topic)) if topic else None
            if message is None:
                continue
            camera = _text_camera(message.data) if hasattr(message, "data") else camera_of_ros(message)
            setattr(self, name, camera)
            frames[name] = getattr(getattr(message, "header", None), "frame_id", "")
        if is_realsense and depth_topic:
            self._realsense(reader, color_topic, depth_topic)
        elif self.color and self.depth and frames["color"] != frames["depth"]:
            self.T_color_depth = _static_transform(reader, frames["color"], frames["depth"])
            if self.T_color_depth is None and not _ALIGNED.search(depth_topic):
                self.notes.append(
                    f"no transform from {frames['depth']} to {frames['color']} in /tf_static; "
                    "depth is registered as if both cameras were at the same place"
                )
        if depth_topic and self.depth is None and not _ALIGNED.search(depth_topic):
            self.notes.append(
                f"no camera_info of {depth_topic}; depth is assumed to have the view of the colour pictures"
            )

    def _realsense(self, reader: Any, color_topic: str, depth_topic: str) -> None:
        transforms = [_realsense_transform(reader, topic) for topic in (color_topic, depth_topic)]
        if transforms[0] is not None and transforms[1] is not None:
            self.T_color_depth = transforms[0] @ np.linalg.inv(transforms[1])
        sensor = "/".join(depth_topic.split("/")[:3])
        for topic in (f"{sensor}/option/Depth_Units/value", f"{sensor}/option/Depth Units/value"):
            message = _first(reader, [topic])
            if message is not None:
                self.unit_m = float(message.data)


def decode_color(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or CompressedImage; InputError for an unknown encoding."""
    if not hasattr(message, "encoding"):
        return decode_rgb(bytes(message.data), where="compressed picture")
    encoding = message.encoding.lower()
    rows = _rows(message, np.uint16 if encoding.endswith("16") else np.uint8)
    if encoding in ("rgb8", "rgb16", "bgr16", "mono16"):
        image = to_8_bits(Path(encoding), rows)
        if image.ndim == 2 or image.shape[2] == 1:
            return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        return np.ascontiguousarray(image[..., ::-1] if encoding == "bgr16" else image)
    if encoding not in _CONVERSIONS:
        raise InputError(f"unknown colour encoding {message.encoding!r}")
    return cv2.cvtColor(rows, _CONVERSIONS[encoding])


def decode_depth(message: Any) -> np.ndarray:
    """(H, W) uint16 or float32 of an Image (16UC1, mono16, 32FC1) or CompressedImage; InputError for others."""
    if not hasattr(message, "encoding"):
        encoding, _, transport = message.format.partition(";")
        kind = "rvl" if "rvl" in transport.lower() else "png"
        return decode_compressed_depth(bytes(message.data), encoding.strip().upper() or "16UC1", kind)
    encoding = message.encoding.lower()
    if encoding in ("16uc1", "mono16", "z16"):
        return _rows(message, np.uint16)[..., 0]
    if encoding == "32fc1":
        return _rows(message, np.float32)[..., 0]
    raise InputError(f"unknown depth encoding {message.encoding!r}")


def _rows(message: Any, kind: type) -> np.ndarray:
    """(H, W, C) pixels of an Image, without the padding of its rows."""
    data = np.asarray(message.data, np.uint8)
    if data.size < message.step * message.height or not message.step:
        raise InputError("picture is cut short")
    size = np.dtype(kind).itemsize
    per_pixel = message.step // (message.width * size)
    rows = data[: message.step * message.height].reshape(message.height, message.step)
    rows = np.ascontiguousarray(rows[:, : message.width * per_pixel * size]).view(kind)
    if getattr(message, "is_bigendian", 0) and size > 1:
        rows = rows.byteswap()
    return rows.reshape(message.height, message.width, per_pixel)


def _color_rank(connection: Any) -> tuple:
    topic = connection.topic.lower()
    named = any(word in topic for word in ("color", "rgb", "colour"))
    return (not named, "rect" not in topic, -connection.msgcount, "compressed" in topic, topic)


def _depth_rank(connection: Any) -> tuple:
    topic = connection.topic.lower()
    return (not _ALIGNED.search(topic), -connection.msgcount, "compressed" in topic, topic)


def _info_topics(topic: str) -> list[str]:
    """Possible topics of the camera_info of an image topic: in its namespace, or RealSense's."""
    if realsense := _REALSENSE.match(topic):
        stream = realsense.group(0)
        return [f"{stream}camera_info", f"{stream}info/camera_info"]
    base = re.sub(r"/(compressed|compressedDepth)$", "", topic).rsplit("/", 1)[0]
    return [f"{base}/camera_info", f"{base.rsplit('/', 1)[0]}/camera_info"]


def _first(reader: Any, topics: list[str]) -> Any:
    """The first message of the first of these topics that has one, or None."""
    for topic in topics:
        connections = [c for c in reader.connections if c.topic == topic]
        for connection, _, data in reader.messages(connections) if connections else ():
            return reader.deserialize(data, connection.msgtype)
    return None


def _fields(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";") if "=" in part)


def _text_camera(text: str) -> Camera:
    """Parses "width=640;height=480;fx=...;ppx=...;fy=...;ppy=...;model=...;coeffs=..." (RealSense, file version 4)."""
    field = _fields(text)
    try:
        K = pinhole(*(float(field[name]) for name in ("fx", "fy", "ppx", "ppy")))
        coeffs = tuple(float(value) for value in field["coeffs"].split(","))
        return Camera(K, (int(field["width"]), int(field["height"])), field["model"], coeffs)
    except (KeyError, ValueError) as error:
        raise InputError(f"RealSense's camera_info {text!r} is damaged ({error})") from error


def _realsense_transform(reader: Any, topic: str) -> np.ndarray | None:
    """(4, 4) from the reference stream to this stream: a Transform, or text with a matrix column by column."""
    match = _REALSENSE.match(topic)
    assert match is not None
    found = [c.topic for c in reader.connections if c.topic.startswith(f"{match.group(0)}tf/")]
    message = _first(reader, found)
    if message is None:
        return None
    T = np.eye(4)
    if hasattr(message, "data"):
        field = _fields(message.data)
        T[:3, :3] = np.array(field["rotation"].split(","), float).reshape(3, 3).T
        T[:3, 3] = np.array(field["translation"].split(","), float)
        return T
    return _matrix(message)


def _matrix(transform: Any) -> np.ndarray:
    T, r, t = np.eye(4), transform.rotation, transform.translation
    T[:3, :3], T[:3, 3] = quaternion_to_matrix(np.array([r.x, r.y, r.z, r.w])), (t.x, t.y, t.z)
    return T


def _static_transform(reader: Any, target: str, source: str) -> np.ndarray | None:
    """(4, 4) p_target = T p_source through the tree of /tf_static, or None."""
    edges: dict[str, list[tuple[str, np.ndarray]]] = {}
    connections = [c for c in reader.connections if c.topic.endswith("tf_static")]
    for connection, _, data in reader.messages(connections) if connections else ():
        for one in reader.deserialize(data, connection.msgtype).transforms:
            parent, child, T = one.header.frame_id.lstrip("/"), one.child_frame_id.lstrip("/"), _matrix(one.transform)
            edges.setdefault(child, []).append((parent, T))
            edges.setdefault(parent, []).append((child, np.linalg.inv(T)))
    waiting, seen = [(source.lstrip("/"), np.eye(4))], {source.lstrip("/")}
    while waiting:
        name, T = waiting.pop()
        if name == target.lstrip("/"):
            return T
        for other, step in edges.get(name, []):
            if other not in seen:
                seen.add(other)
                waiting.append((other, step @ T))
    return None
