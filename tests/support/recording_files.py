"""Recordings in the layouts of sensors and applications, written from the same frames."""

import json
import struct
import zipfile
from fractions import Fraction

import av
import cv2
import numpy as np

FPS = 30
COLOR_PX, DEPTH_PX = (64, 48), (32, 24)
K_COLOR = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])


def frames(num=4, color_px=COLOR_PX, depth_px=DEPTH_PX):
    """[(time_s, (H, W, 3) uint8, (h, w) uint16 millimetres)]: a grey level and a distance that tell the frame, two
    surfaces, and a hole."""
    out = []
    for i in range(num):
        rgb = np.full((*color_px[::-1], 3), 40 + 30 * (i % 7), np.uint8)
        depth = np.full(depth_px[::-1], 900, np.uint16)
        depth[: depth_px[1] // 2] = 500 + 10 * (i % 7)
        depth[-1, -1] = 0
        out.append((1_700_000_000 + i / FPS, rgb, depth))
    return out


def png(image):
    return cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


def write_tum(folder, shots, *, associations=False, late_s=0.004):
    """rgb.txt and depth.txt, or associations.txt, with pictures named by their times."""
    lists = {"rgb": [], "depth": []}
    for kind in lists:
        (folder / kind).mkdir(parents=True)
    for time_s, rgb, depth in shots:
        for kind, image, at in (("rgb", rgb, time_s), ("depth", depth, time_s + late_s)):
            name = f"{kind}/{at:.6f}.png"
            (folder / name).write_bytes(png(image))
            lists[kind].append(f"{at:.6f} {name}")
    if associations:
        (folder / "associations.txt").write_text(
            "\n".join(f"{a} {b}" for a, b in zip(lists["rgb"], lists["depth"], strict=True))
        )
        return folder
    for kind, lines in lists.items():
        (folder / f"{kind}.txt").write_text("\n".join([f"# {kind} maps", "# timestamp filename", *lines]))
    return folder


def write_numbered(folder, shots, *, color="rgb/{:06d}.png", depth="depth/{:06d}.png"):
    for i, (_, rgb, depth_mm) in enumerate(shots):
        for name, image in ((color, rgb), (depth, depth_mm)):
            path = folder / name.format(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))
    return folder


def write_video(path, pictures, *, codec="libx264", pix_fmt="yuv444p", source="rgb24"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=source)))
        container.mux(stream.encode(None))
    return path


def write_stray(folder, shots, *, low_confidence=False):
    folder.mkdir(parents=True)
    write_video(folder / "rgb.mp4", [rgb for _, rgb, _ in shots])
    np.savetxt(folder / "camera_matrix.csv", K_COLOR, delimiter=",")
    rows = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for i, (time_s, _, depth) in enumerate(shots):
        for kind, image in (("depth", depth), ("confidence", np.full(depth.shape, 2, np.uint8))):
            (folder / kind).mkdir(exist_ok=True)
            if kind == "confidence" and low_confidence:
                image[0] = 0
            (folder / kind / f"{i:06d}.png").write_bytes(png(image))
        rows.append(f"{time_s}, {i:06d}, {0.1 * i}, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0")
    (folder / "odometry.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_r3d(path, shots, compress):
    """`compress`: LZFSE."""
    height, width = shots[0][2].shape
    meta = {
        "w": COLOR_PX[0], "h": COLOR_PX[1], "dw": width, "dh": height, "fps": FPS,
        "K": K_COLOR.T.ravel().tolist(), "poses": [[0, 0, 0, 1, 0.1 * i, 0, 0] for i in range(len(shots))],
        "frameTimestamps": [time_s for time_s, _, _ in shots],
        "perFrameIntrinsicCoeffs": [[60 + i, 60 + i, 31.5, 23.5] for i in range(len(shots))],
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata", json.dumps(meta))
        for i, (_, rgb, depth) in enumerate(shots):
            metres = depth.astype(np.float32) / 1000
            metres[depth == 0] = np.nan
            archive.writestr(f"rgbd/{i}.jpg", cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes())
            archive.writestr(f"rgbd/{i}.depth", compress(metres.tobytes()))
            archive.writestr(f"rgbd/{i}.conf", compress(np.full(depth.shape, 2, np.uint8).tobytes()))
    return path


def kinect_calibration():
    """calibration.json: a depth camera of 320x288 pixels and a colour camera 32 mm beside it."""

    def camera(place, cx, cy, fx, fy, translation, k1=0.0):
        return {
            "Intrinsics": {
                "ModelParameterCount": 14,
                "ModelParameters": [cx, cy, fx, fy, k1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                "ModelType": "CALIBRATION_LensDistortionModelBrownConrady",
            },
            "Location": f"CALIBRATION_CameraLocation{place}",
            "Rt": {"Rotation": [1, 0, 0, 0, 1, 0, 0, 0, 1], "Translation": translation},
            "SensorHeight": 1024,
            "SensorWidth": 1024,
        }

    cameras = [camera("D0", 0.5, 0.5, 0.49, 0.49, [0, 0, 0]), camera("PV0", 0.5, 0.5, 0.48, 0.64, [-0.032, 0, 0])]
    return json.dumps({"CalibrationInformation": {"Cameras": cameras}}).encode()


def write_kinect(path, shots):
    """Tracks COLOR (MJPEG), DEPTH and IR (b16g), calibration.json attached; shots of 1280x720 and 320x288."""
    with av.open(str(path), "w", format="matroska", options={"allow_raw_vfw": "1"}) as container:
        tracks = []
        for title, codec, size, pix_fmt in (
            ("COLOR", "mjpeg", shots[0][1].shape, "yuvj420p"),
            ("DEPTH", "rawvideo", shots[0][2].shape, "gray16be"),
            ("IR", "rawvideo", shots[0][2].shape, "gray16be"),
        ):
            stream = container.add_stream(codec, rate=FPS)
            stream.height, stream.width, stream.pix_fmt = size[0], size[1], pix_fmt
            stream.metadata["title"] = title
            tracks.append(stream)
        container.add_attachment("calibration.json", "application/octet-stream", kinect_calibration())
        for i, (_, rgb, depth) in enumerate(shots):
            for stream, picture, source in zip(
                tracks, (rgb, depth, np.zeros_like(depth)), ("rgb24", "gray16le", "gray16le"), strict=True
            ):
                frame = av.VideoFrame.from_ndarray(picture, format=source)
                frame.pts, frame.time_base = i, Fraction(1, FPS)
                container.mux(stream.encode(frame))
        for stream in tracks:
            container.mux(stream.encode(None))
    data = path.read_bytes()  # FFmpeg leaves the FourCC of the BITMAPINFOHEADER empty
    height, width = shots[0][2].shape
    for flipped in (height, -height):
        head = struct.pack("<IiiHH", 40, width, flipped, 1, 16)
        data = data.replace(head + bytes(4), head + b"b16g")
    assert b"b16g" in data
    path.write_bytes(data)
    return path


def encode_rvl(depth):
    """RVL by its definition (Wilson 2017): counts of zeros and readings, zigzag differences, nibbles of words."""
    nibbles = []

    def put(value):
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | (8 if value else 0))
            if not value:
                return

    flat, place, previous = depth.ravel().tolist(), 0, 0
    while place < len(flat):
        zeros = next((n for n, v in enumerate(flat[place:]) if v), len(flat) - place)
        place += zeros
        readings = next((n for n, v in enumerate(flat[place:]) if not v), len(flat) - place)
        put(zeros)
        put(readings)
        for value in flat[place : place + readings]:
            difference, previous = value - previous, value
            put((difference << 1) ^ (difference >> 31))
        place += readings
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    return struct.pack(f"<{len(words)}I", *words)
