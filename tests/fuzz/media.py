"""Pictures, videos and depth: damaged ones, and the odd ones that cameras and programs write."""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from fuzz.mutate import bytes_of
from support.tiff_files import tiff
from utnet.errors import InputError
from utnet.io.depth import read_depth
from utnet.io.files import read_image
from utnet.io.pictures import is_animation, is_depth_image, picture_size, read_picture
from utnet.io.videos import VideoReader
from utnet.predict.inputs import DepthFiles, find_inputs, passed_over

Rng = np.random.Generator
_MODES = ("RGB", "L", "RGBA", "P", "LA", "CMYK", "I;16", "F", "1", "I")
_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP", "gif": "GIF", "avif": "AVIF"}
_CONTAINERS = {
    "mp4": ("mp4", "libx264"), "mov": ("mov", "mpeg4"), "mkv": ("matroska", "libx264"), "avi": ("avi", "mjpeg"),
    "webm": ("webm", "libvpx-vp9"), "ts": ("mpegts", "mpeg2video"), "flv": ("flv", "flv1"),
    "mpg": ("mpeg", "mpeg1video"), "wmv": ("asf", "wmv2"), "3gp": ("3gp", "mpeg4"),
}  # fmt: skip


def _pixels(rng: Rng, channels: int = 3) -> np.ndarray:
    height, width = rng.integers(1, 90, 2)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def picture_bytes(rng: Rng) -> tuple[bytes, str]:
    """A picture of some format and mode, and its suffix; with EXIF now and then."""
    while True:
        suffix, mode = str(rng.choice(list(_FORMATS))), str(rng.choice(_MODES))
        if mode in ("I;16", "I", "F"):
            numbers = _pixels(rng, 1)[..., 0].astype(np.uint16) * int(rng.choice([1, 16, 257]))
            image = Image.fromarray(
                numbers if mode == "I;16" else numbers.astype(np.int32 if mode == "I" else np.float32)
            )
        else:
            image = Image.fromarray(_pixels(rng)).convert(mode)
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = int(rng.integers(0, 10))
        exif[0xA405], exif[0x920A] = int(rng.integers(0, 2**16)), float(rng.choice([0.0, 4.2, 1e30]))
        try:
            image.save(file, _FORMATS[suffix], **({"exif": exif} if rng.random() < 0.5 and suffix != "bmp" else {}))
        except (OSError, ValueError, KeyError, TypeError, SystemError):  # a format without this mode
            continue
        return file.getvalue(), suffix


def make_picture(rng: Rng, folder: Path) -> Path:
    data, suffix = picture_bytes(rng)
    if rng.random() < 0.1:
        suffix = str(rng.choice(["jpg", "mp4", "heic", "dng", "", "npy"]))  # called what it is not
    if rng.random() < 0.05:
        data = b"\0\0\0\x18ftypheic" + data
    path = folder / f"a.{suffix}"
    path.write_bytes(bytes_of(rng, data) if rng.random() < 0.8 else data)
    return path


def make_tiff(rng: Rng, folder: Path) -> Path:
    """TIFFs of one page or several, of up to 1.6e9 pixels, whose strips may be others than the header states."""
    path = folder / "a.tif"
    if rng.random() < 0.3:
        pages = [Image.fromarray(_pixels(rng)).convert(str(rng.choice(["RGB", "L", "I;16"]))) for _ in range(4)]
        pages[0].save(path, save_all=True, append_images=pages[1:], compression=str(rng.choice(["raw", "tiff_lzw"])))
    else:
        width, height = np.exp(rng.uniform(0, np.log(40_000), 2)).astype(int).tolist()
        rows = int(min(rng.choice([1, 7, 10, 64, height]), 1 + 10**7 // width))
        stated = int(rng.choice([rows, rows, 0, 1, rows + 1, height, 2**31, 2**32 - 1]))
        bits, channels = int(rng.choice([8, 16, 32])), int(rng.choice([1, 3]))
        page = int(rng.choice([0, 0, 8, 9, 2**32 - 1]))
        data = tiff(width, height, bits=bits, channels=channels, rows=rows, stated_rows=stated, next_page=page)
        path.write_bytes(data)
    if rng.random() < 0.4:
        path.write_bytes(bytes_of(rng, path.read_bytes()))
    return path


def read_any_picture(path: Path) -> None:
    is_animation(path)
    is_depth_image(path)
    with suppress(InputError, OSError, SyntaxError):  # its errors are said when the picture is read
        picture_size(path)
    with suppress(InputError):
        read_image(path)
    read_picture(path)


def make_depth(rng: Rng, folder: Path) -> Path:
    depth = rng.uniform(0.2, 2, tuple(rng.integers(1, 60, 2)))
    suffix = str(rng.choice(["npy", "png", "tiff"]))
    path = folder / f"d.{suffix}"
    if suffix == "npy":
        np.save(path, depth.astype(rng.choice(["f4", "f8", "u2", "c8", "M8[s]", ">f4", "S3"])))
    else:
        cv2.imwrite(str(path), (depth * 1000).astype(np.uint16 if suffix == "png" else np.float32))
    if rng.random() < 0.8:
        path.write_bytes(bytes_of(rng, path.read_bytes()))
    return path


def video_file(rng: Rng, path: Path, container: str, codec: str) -> None:
    """A few drawn frames: odd sizes, oblong pixels, rotations and several tracks are among them."""
    height, width = (int(n) for n in 2 * rng.integers(8, 40, 2))
    if codec == "flv1":
        height, width = 64, 96
    with av.open(str(path), "w", format=container) as file:
        tracks = []
        for number in range(2 if rng.random() < 0.15 and container in ("matroska", "mp4") else 1):
            stream: Any = file.add_stream(codec, rate=Fraction(25))
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if rng.random() < 0.3:
                stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
            stream.metadata["title"] = str(rng.choice(["", "DEPTH", "colour", "x" * 300])) if number else "t"
            tracks.append(stream)
        for index in range(int(rng.integers(1, 6))):
            for stream in tracks:
                frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (height, width, 3), np.uint8), format="rgb24")
                frame.pts = index
                file.mux(stream.encode(frame))
        for stream in tracks:
            file.mux(stream.encode(None))


def make_video(rng: Rng, folder: Path) -> Path:
    suffix = str(rng.choice(list(_CONTAINERS)))
    path = folder / f"v.{suffix}"
    while not path.is_file():
        try:
            video_file(rng, path, *_CONTAINERS[suffix])
        except (ValueError, OSError):  # a codec that this build lacks
            path.unlink(missing_ok=True)
            suffix = "mp4"
            path = folder / "v.mp4"
    data = path.read_bytes()
    kind = rng.random()
    if kind < 0.1:  # the same file twice: the size may change in streams
        other = folder / f"w.{suffix}"
        video_file(rng, other, *_CONTAINERS[suffix])
        data += other.read_bytes()
        other.unlink()
    elif kind < 0.2:
        data = data.replace(b"Lavf", b"L\xe4\xfff").replace(b"avc1", bytes(rng.choice([b"zzzz", b"mp4v", b"hvc1"])))
    elif kind < 0.9:
        data = bytes_of(rng, data)
    path.write_bytes(data)
    if rng.random() < 0.1:
        path = path.rename(folder / str(rng.choice(["v.jpg", "v", "v.png", "v.wav"])))
    return path


def read_video(path: Path) -> None:
    with VideoReader(path) as reader:
        for frame in islice(reader, 60):
            assert frame.rgb.dtype == np.uint8
            assert np.isfinite(frame.time_s)


def make_folder(rng: Rng, folder: Path) -> tuple[Path, Path]:
    """Pictures, videos and depth with the names that cameras and programs give them."""
    (folder / "rgb").mkdir()
    (folder / "depth").mkdir()
    names = [
        "color_000001",
        "000001_color",
        "IMG_0001",
        "1311868164.363181",
        "frame",
        "a b",
        "ä",
        "x" * 200,
        "-1",
        "[a]",
    ]
    for name in rng.choice(names, 4, replace=False).tolist():
        data, suffix = picture_bytes(rng)
        suffix = str(rng.choice([suffix, suffix.upper(), "jfif", "heic", "txt"]))
        (folder / "rgb" / f"{name}.{suffix}").write_bytes(data if rng.random() < 0.7 else bytes_of(rng, data))
        stem = str(rng.choice([name, name.replace("color", "depth"), f"{name}_depth_z16"]))
        target = folder / str(rng.choice(["depth", "depth", "rgb"])) / f"{stem}.png"
        cv2.imwrite(str(target), rng.integers(0, 4000, (8, 8)).astype(np.uint16))
    return folder / "rgb", folder / "depth"


def read_folder(folders: tuple[Path, Path]) -> None:
    rgb, depth = folders
    inputs = find_inputs([str(rgb)])
    passed_over([str(rgb)], with_depth=bool(len(inputs) % 2))
    files = DepthFiles(str(depth), len(inputs))
    for item in inputs:
        if item.kind == "picture":
            assert isinstance(item.source, Path)
            with suppress(InputError):
                read_depth(files.of(item.source))


KINDS = {
    "picture": (make_picture, read_any_picture),
    "tiff": (make_tiff, read_any_picture),
    "depth": (make_depth, read_depth),
    "video": (make_video, read_video),
    "folder": (make_folder, read_folder),
}
