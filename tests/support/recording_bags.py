"""Bags as ROS and RealSense write them, by rosbags."""

import struct

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from support.recording_files import K_COLOR, encode_rvl, png

K_DEPTH = np.array([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])


class Bag:
    """Writes messages to a ROS 1 bag (path.bag), or a ROS 2 bag (folder) of sqlite3 or MCAP; use it in `with`."""

    def __init__(self, path, *, mcap=False):
        self.is_ros1 = path.suffix == ".bag"
        self.types = get_typestore(Stores.ROS1_NOETIC if self.is_ros1 else Stores.ROS2_HUMBLE)
        plugin = StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3
        self._writer = Writer1(path) if self.is_ros1 else Writer2(path, version=8, storage_plugin=plugin)
        self._connections, self._written_ns = {}, 0
        if self.is_ros1:
            kind = "tf2_msgs/msg/TFMessage"
            self.types.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", kind))

    def __enter__(self):
        self._writer.open()
        return self

    def __exit__(self, *_):
        self._writer.close()

    def put(self, topic, kind, time_s, **fields):
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=self.types)
        message = self.types.types[kind](**fields)
        write = self.types.serialize_ros1 if self.is_ros1 else self.types.serialize_cdr
        self._written_ns = max(self._written_ns + 1, round(time_s * 1e9))  # the recorder's own clock never goes back
        self._writer.write(self._connections[topic], self._written_ns, write(message, kind))

    def header(self, time_s, frame_id):
        stamp = self.types.types["builtin_interfaces/msg/Time"](int(time_s), round(time_s % 1 * 1e9))
        seq = {"seq": 0} if self.is_ros1 else {}
        return self.types.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id, **seq)

    def image(self, topic, time_s, array, encoding, frame_id="camera_color_optical_frame"):
        data = np.ascontiguousarray(array)
        self.put(
            topic, "sensor_msgs/msg/Image", time_s, header=self.header(time_s, frame_id), height=array.shape[0],
            width=array.shape[1], encoding=encoding, is_bigendian=0, step=data.nbytes // array.shape[0],
            data=data.view(np.uint8).ravel(),
        )  # fmt: skip

    def compressed(self, topic, time_s, text, data, frame_id="camera_color_optical_frame"):
        self.put(
            topic, "sensor_msgs/msg/CompressedImage", time_s, header=self.header(time_s, frame_id), format=text,
            data=np.frombuffer(data, np.uint8),
        )  # fmt: skip

    def info(self, topic, time_s, K, size, frame_id="camera_color_optical_frame", model="plumb_bob", d=(0.0,) * 5):
        named = {"D": np.array(d), "K": K.ravel(), "R": np.eye(3).ravel(), "P": np.eye(3, 4).ravel()}
        named = named if self.is_ros1 else {name.lower(): value for name, value in named.items()}
        roi = self.types.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        self.put(
            topic, "sensor_msgs/msg/CameraInfo", time_s, header=self.header(time_s, frame_id), height=size[1],
            width=size[0], distortion_model=model, binning_x=0, binning_y=0, roi=roi, **named,
        )  # fmt: skip

    def transform(self, xyz, xyzw=(0.0, 0.0, 0.0, 1.0)):
        types = self.types.types
        return types["geometry_msgs/msg/Transform"](
            types["geometry_msgs/msg/Vector3"](*map(float, xyz)), types["geometry_msgs/msg/Quaternion"](*xyzw)
        )


def write_ros(path, shots, *, mcap=False, compressed="", offset_m=(0.0, 0.0, 0.0), size=(64, 48)):
    """realsense2_camera's topics: colour, depth with a camera of its own, camera_info, /tf_static.

    `compressed`: "png" or "rvl" for CompressedImage topics.
    """
    depth_frame = "camera_depth_optical_frame"
    with Bag(path, mcap=mcap) as bag:
        stamped = bag.types.types["geometry_msgs/msg/TransformStamped"](
            bag.header(shots[0][0], "camera_color_optical_frame"), depth_frame, bag.transform(offset_m)
        )
        bag.put("/tf_static", "tf2_msgs/msg/TFMessage", shots[0][0], transforms=[stamped])
        for time_s, rgb, depth in shots:
            bag.info("/camera/color/camera_info", time_s, K_COLOR, size)
            bag.info("/camera/depth/camera_info", time_s, K_DEPTH, depth.shape[::-1], depth_frame)
            if not compressed:
                bag.image("/camera/color/image_raw", time_s, rgb, "rgb8")
                bag.image("/camera/depth/image_rect_raw", time_s + 0.002, depth, "16UC1", depth_frame)
                continue
            jpeg = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
            bag.compressed("/camera/color/image_raw/compressed", time_s, "rgb8; jpeg compressed bgr8", jpeg)
            head = struct.pack("<iff", 0, 0.0, 0.0)
            size_rvl = struct.pack("<II", depth.shape[1], depth.shape[0])
            body = size_rvl + encode_rvl(depth) if compressed == "rvl" else png(depth)
            topic, text = "/camera/depth/image_rect_raw/compressedDepth", f"16UC1; compressedDepth {compressed}"
            bag.compressed(topic, time_s + 0.002, text, head + body, depth_frame)
    return path


def write_realsense(path, shots, *, unit_m=0.001, offset_m=(0.015, 0.0, 0.0), model="Brown Conrady"):
    """A .bag of the RealSense SDK (librealsense, src/media/ros/ros_file_format.h, file version 3)."""
    depth_at, color_at = "/device_0/sensor_0/Depth_0", "/device_0/sensor_1/Color_0"
    with Bag(path) as bag:
        start = shots[0][0]
        bag.put("/file_version", "std_msgs/msg/UInt32", start, data=3)
        bag.put("/device_0/sensor_0/option/Depth_Units/value", "std_msgs/msg/Float32", start, data=unit_m)
        bag.info(f"{depth_at}/info/camera_info", start, K_DEPTH, shots[0][2].shape[::-1], "", model)
        bag.info(f"{color_at}/info/camera_info", start, K_COLOR, shots[0][1].shape[1::-1], "", model)
        for at, xyz in ((depth_at, (0, 0, 0)), (color_at, offset_m)):
            T = bag.transform(xyz)
            bag.put(f"{at}/tf/0", "geometry_msgs/msg/Transform", start, translation=T.translation, rotation=T.rotation)
        for time_s, rgb, depth in shots:
            bag.image(f"{depth_at}/image/data", time_s, depth, "mono16", "0")
            bag.image(f"{color_at}/image/data", time_s, rgb, "rgb8", "1")
    return path
