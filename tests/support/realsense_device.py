"""A recording made by pyrealsense2's own software device."""

import time

import numpy as np

WIDTH, HEIGHT = 64, 48


def record(rs, path, *, num, offset_m):
    """Grey levels 40, 70, ... and distances 0.5 m, 0.51 m, ...; the colour camera is turned by a degree."""
    device = rs.software_device()
    sensors = device.add_sensor("Stereo Module"), device.add_sensor("RGB Camera")
    streams = []
    for uid, (sensor, kind, form, size, f) in enumerate(
        ((sensors[0], rs.stream.depth, rs.format.z16, 2, 60.0), (sensors[1], rs.stream.color, rs.format.rgb8, 3, 70.0))
    ):
        lens = rs.intrinsics()
        lens.width, lens.height, lens.fx, lens.fy, lens.ppx, lens.ppy = WIDTH, HEIGHT, f, f, 31.5, 23.5
        lens.model, lens.coeffs = rs.distortion.brown_conrady, [0.0] * 5
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fmt, stream.bpp, stream.fps = kind, 0, uid, form, size, 30
        stream.width, stream.height, stream.intrinsics = WIDTH, HEIGHT, lens
        streams.append(sensor.add_video_stream(stream))
    to_color = rs.extrinsics()
    cos, sin = np.cos(np.deg2rad(1.0)), np.sin(np.deg2rad(1.0))
    to_color.rotation, to_color.translation = [cos, 0, -sin, 0, 1, 0, sin, 0, cos], [offset_m, 0, 0]  # about y
    streams[0].register_extrinsics_to(streams[1], to_color)
    sensors[0].add_read_only_option(rs.option.depth_units, 0.001)
    recorder = rs.recorder(str(path), device)
    queue, recorded = rs.frame_queue(100), recorder.query_sensors()
    for sensor in recorded:
        sensor.open(sensor.get_stream_profiles()[0])
        sensor.start(queue)
    for i in range(num):
        pictures = np.full((HEIGHT, WIDTH), 500 + 10 * i, np.uint16), np.full((HEIGHT, WIDTH, 3), 40 + 30 * i, np.uint8)
        for sensor, stream, pixels in zip(sensors, streams, pictures, strict=True):
            frame = rs.software_video_frame()
            frame.pixels, frame.bpp = pixels, pixels.nbytes // (WIDTH * HEIGHT)
            frame.stride, frame.timestamp, frame.frame_number = WIDTH * frame.bpp, 33.0 * i, i
            frame.domain, frame.profile = rs.timestamp_domain.hardware_clock, stream.as_video_stream_profile()
            frame.depth_units = 0.001
            sensor.on_video_frame(frame)
        time.sleep(0.05)  # it is recorded in the background
    for sensor in recorded:
        sensor.stop()
        sensor.close()
    recorder.pause()
    del recorder
    return path
