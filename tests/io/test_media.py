"""Users' pictures, depth images and videos: each is read correctly or refused with a one-line message."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from utnet.errors import InputError
from utnet.io.depth import read_depth
from utnet.io.limits import MAX_MEGAPIXELS
from utnet.io.pictures import read_picture
from utnet.io.videos import VideoReader, VideoWriter

# ----------------------------------------------------------------------------------------------------------- pictures


def scene(width=60, height=40):
    """A smooth asymmetric picture."""
    y, x = np.mgrid[:height, :width].astype(float)
    return np.stack([255 * x / width, 255 * y / height, 127 + 80 * np.sin(x / 9 + y / 7)], -1).astype(np.uint8)


def exif(**tags):
    """EXIF data with the given tags (Orientation in the main IFD, others in the Exif IFD)."""
    from PIL.ExifTags import IFD, Base

    data = Image.Exif()
    for name, value in tags.items():
        (data if name == "Orientation" else data.get_ifd(IFD.Exif))[Base[name]] = value
    return data


def saved(folder, image, name="p.jpg", **options):
    path = folder / name
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def test_jpeg_pixels_are_pillows_whatever_the_orientation(tmp_path):
    """OpenCV decodes, Pillow is the reference; cut anywhere in its scans the file is an error, as Pillow has it."""
    path, rng = tmp_path / "a.jpg", np.random.default_rng(1)
    picture = Image.fromarray(cv2.resize(rng.integers(0, 256, (9, 13, 3), np.uint8), (131, 97)))
    for orientation in range(1, 10):
        exif = Image.Exif()
        exif[0x112] = orientation
        mode, progressive = ("RGB", "L", "CMYK")[orientation % 3], orientation % 2 == 0
        picture.convert(mode).save(path, exif=exif, progressive=progressive, subsampling=orientation % 3)
        with Image.open(path) as image:
            np.testing.assert_array_equal(
                read_picture(path).rgb, np.array(ImageOps.exif_transpose(image).convert("RGB"))
            )
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(InputError, match="cut short"):
            read_picture(path)


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("p.png", {}, 0),
        ("p.bmp", {}, 0),
        ("p.tiff", {"compression": "tiff_lzw"}, 0),
        ("p.webp", {"lossless": True}, 0),
        ("p.jpg", {"quality": 95, "subsampling": 0}, 6),
        ("without_ending", {"format": "PNG"}, 0),
        ("wrong_ending.jpg", {"format": "PNG"}, 0),
    ],
)
def test_a_picture_comes_back_as_it_was_saved(tmp_path, name, options, tolerance):
    picture = read_picture(saved(tmp_path, scene(), name, **options))
    assert picture.rgb.dtype == np.uint8
    assert picture.K_px is None
    np.testing.assert_allclose(picture.rgb.astype(int), scene(), atol=tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_stands_upright_and_its_camera_with_it(tmp_path, orientation):
    """Stored rotated, with the orientation tag; fx and fy differ to detect a swap."""
    stored = {  # how the camera stores an upright picture under each orientation (Exif 2.32, 4.6.4)
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](scene())
    height, width = stored.shape[:2]
    tags = exif(
        Orientation=orientation,
        FocalLength=5.0,
        FocalPlaneXResolution=1000.0 if width > height else 800.0,  # along the picture's longer side
        FocalPlaneYResolution=800.0 if width > height else 1000.0,
        FocalPlaneResolutionUnit=3,
        ExifImageWidth=width,
        ExifImageHeight=height,
    )
    picture = read_picture(saved(tmp_path, np.ascontiguousarray(stored), "p.png", exif=tags))
    np.testing.assert_array_equal(picture.rgb, scene())
    assert picture.turned is (orientation > 1)
    np.testing.assert_allclose(picture.K_px, [[500, 0, 29.5], [0, 400, 19.5], [0, 0, 1]])


def test_grey_and_16_bits_become_colours(tmp_path):
    grey = scene()[..., 0]
    three = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(read_picture(saved(tmp_path, grey, "g.png")).rgb, three)
    deep = grey.astype(np.uint16) * 256 + 200
    np.testing.assert_array_equal(read_picture(saved(tmp_path, Image.fromarray(deep), "d.png")).rgb, three)
    cv2.imwrite(str(tmp_path / "c.png"), scene()[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_picture(tmp_path / "c.png").rgb, scene())
    bilevel = Image.fromarray(grey > 100)
    np.testing.assert_array_equal(read_picture(saved(tmp_path, bilevel, "b.png")).rgb, (three > 100) * 255)


def test_what_is_transparent_stands_on_white(tmp_path):
    alpha = np.zeros((40, 60), np.uint8)
    alpha[:, 20:40], alpha[:, 40:] = 128, 255
    rgba = Image.fromarray(np.dstack([scene(), alpha]))
    wanted = 255 - (255 - scene().astype(float)) * (alpha[..., None] / 255)
    np.testing.assert_allclose(read_picture(saved(tmp_path, rgba, "a.png")).rgb, wanted, atol=1)
    grey = Image.fromarray(np.dstack([scene()[..., 0], alpha]), "LA")
    np.testing.assert_allclose(read_picture(saved(tmp_path, grey, "l.png")).rgb[..., 1], wanted[..., 0], atol=1)
    palette = Image.fromarray((alpha // 100).astype(np.uint8), "P")  # 0, 1, 2
    palette.putpalette([9, 9, 9, 10, 200, 30, 200, 20, 10])
    seen = read_picture(saved(tmp_path, palette, "p.png", transparency=0)).rgb
    assert [seen[0, x].tolist() for x in (0, 30, 50)] == [[255, 255, 255], [10, 200, 30], [200, 20, 10]]


def test_cmyk_keeps_its_colours(tmp_path):
    path = saved(tmp_path, Image.fromarray(scene()).convert("CMYK"), quality=95, subsampling=0)
    assert Image.open(path).mode == "CMYK"
    np.testing.assert_allclose(read_picture(path).rgb.astype(int), scene(), atol=10)


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.webp", "p.tiff", "p.bmp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_half_a_picture_is_no_picture(tmp_path, name, share):
    rng = np.random.default_rng(0)
    path = saved(tmp_path, rng.integers(0, 255, (80, 90, 3), dtype=np.uint8), name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=rf"{name}: (damaged or cut short|not a picture)"):
        read_picture(path)


def png_header(width, height):
    """A PNG header of that size without pixels: decoding fails, reading the size works."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (12_000, 10_100), (60_000, 60_000)])
def test_huge_pictures_are_refused_by_their_header(tmp_path, width, height):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(InputError, match=rf"huge.png: .*{MAX_MEGAPIXELS}.*make it smaller"):
        read_picture(path)


def test_files_that_are_no_pictures_are_named(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("a letter, not a picture")
    (tmp_path / "folder.jpg").mkdir()
    Image.fromarray(np.full((4, 4), 3.5, np.float32)).save(tmp_path / "float.tiff")
    for name, message in (
        ("empty.jpg", r"empty \(0 bytes\)"),
        ("text.jpg", "not a picture"),
        ("folder.jpg", "a folder"),
        ("none.jpg", "no such file"),
        ("float.tiff", "one channel of floats"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            read_picture(tmp_path / name)


def test_threads_read_the_same(tmp_path):
    paths = [saved(tmp_path, np.roll(scene(), i, 1), f"{i}.png") for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        for i, picture in enumerate(pool.map(read_picture, paths)):
            np.testing.assert_array_equal(picture.rgb, np.roll(scene(), i, 1))


# --------------------------------------------------------------------------------------------------------------- EXIF

FILM = {"FocalLengthIn35mmFilm": 28}
PLANE = {
    "FocalLength": 4.0,
    "FocalPlaneXResolution": 600.0,
    "FocalPlaneResolutionUnit": 3,
    "ExifImageWidth": 120,
    "ExifImageHeight": 80,
}


@pytest.mark.parametrize(
    ("tags", "focal_px"),
    [
        (FILM, 28 * np.hypot(60, 40) / np.hypot(36, 24)),
        (FILM | {"DigitalZoomRatio": 2.0}, 28 * np.hypot(60, 40) / np.hypot(36, 24)),  # in it already
        (FILM | PLANE, 28 * np.hypot(60, 40) / np.hypot(36, 24)),  # the first rule
        (PLANE, 4.0 * 60 / 2),  # 60 px/mm in the picture that the camera wrote, which was twice as large
        (PLANE | {"DigitalZoomRatio": 1.5}, 4.0 * 60 / 2 * 1.5),
        (PLANE | {"FocalPlaneResolutionUnit": 2}, 4.0 * 600 / 25.4 / 2),
        (PLANE | {"DigitalZoomRatio": 0.0}, 4.0 * 60 / 2),  # 0: zoom was not used
        (FILM | {"ExifImageWidth": 120, "ExifImageHeight": 80}, 28 * np.hypot(60, 40) / np.hypot(36, 24)),
        (FILM | {"ExifImageWidth": 80, "ExifImageHeight": 80}, None),  # cropped since
        ({k: v for k, v in PLANE.items() if "Image" not in k}, None),  # perhaps made smaller since
        ({"FocalLengthIn35mmFilm": 0}, None),
        ({"FocalLengthIn35mmFilm": 3}, None),  # no camera sees that much
        ({"FocalLength": 4.0}, None),
        (PLANE | {"FocalLength": float("inf")}, None),
        ({}, None),
    ],
)
def test_the_camera_of_a_photograph(tmp_path, tags, focal_px):
    K = read_picture(saved(tmp_path, scene(), exif=exif(**tags))).K_px
    if focal_px is None:
        assert K is None
    else:
        np.testing.assert_allclose(K, [[focal_px, 0, 29.5], [0, focal_px, 19.5], [0, 0, 1]], rtol=1e-4)


# -------------------------------------------------------------------------------------------------------------- depth

METRES = np.array([[0.0, 0.5, 0.7], [1.25, 0.801, 2.0]], np.float32)


def test_depth_comes_back_in_metres(tmp_path):
    steps = (METRES * 1000).round().astype(np.uint16)
    for name in ("d.png", "d.tiff"):
        cv2.imwrite(str(tmp_path / name), steps)
        np.testing.assert_allclose(read_depth(tmp_path / name), METRES, atol=1e-6)
        np.testing.assert_allclose(read_depth(tmp_path / name, 0.0001), METRES / 10, atol=1e-6)
    holes = METRES.copy()
    holes[0, 0], holes[0, 1] = np.nan, np.inf
    wanted = METRES.copy()
    wanted[0, :2] = 0
    np.save(tmp_path / "d.npy", holes)
    (tmp_path / "D.NPY").write_bytes((tmp_path / "d.npy").read_bytes())
    Image.fromarray(holes).save(tmp_path / "f.tiff")
    for name in ("d.npy", "D.NPY", "f.tiff"):
        np.testing.assert_array_equal(read_depth(tmp_path / name), wanted)


def test_depth_files_that_are_none_are_refused(tmp_path):
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "below.npy", -METRES)
    (tmp_path / "empty.npy").touch()
    (tmp_path / "empty.png").touch()
    cv2.imwrite(str(tmp_path / "grey.png"), np.zeros((4, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((4, 4, 3), np.uint16))
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (30_000, 30_000)})
    (tmp_path / "huge.npy").write_bytes(huge.getvalue())
    for name, message in (
        ("text.npy", "one array"),
        ("cube.npy", "one array"),
        ("below.npy", "below 0"),
        ("empty.npy", "not a readable array"),
        ("empty.png", "0 bytes"),
        ("grey.png", "one channel of 16 bits"),
        ("colour.png", "one channel of 16 bits"),
        ("huge.npy", "not a readable array|megapixels"),
        ("none.npy", "no such file"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*({message})"):
            read_depth(tmp_path / name)
    with pytest.raises(InputError, match="--depth-scale is 0"):
        read_depth(tmp_path / "grey.png", 0.0)


# ------------------------------------------------------------------------------------------------------------- videos


def movie(path, frames=12, size=(64, 48), times=None):
    """Writes a video of a moving square; returns its pictures."""
    pictures = []
    with VideoWriter(path, 25.0) as writer:
        for i in range(frames):
            picture = np.full((size[1], size[0], 3), (180, 60, 40), np.uint8)
            picture[8:24, 2 * i : 2 * i + 16] = (30, 200, 90)
            writer.write(picture, i / 25 if times is None else times[i])
            pictures.append(picture)
    return pictures


def frames_of(source):
    with VideoReader(source) as reader:
        return list(reader), reader


def test_a_video_comes_back_with_its_times_and_colours(tmp_path):
    times = [0.0, 0.04, 0.08, 0.5, 0.54, 1.0 / 3 + 0.5]
    pictures = movie(tmp_path / "v.mp4", 6, times=times)
    frames, reader = frames_of(tmp_path / "v.mp4")
    assert [frame.index for frame in frames] == list(range(6))
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=2e-5)
    assert (reader.num_frames, reader.incomplete) == (6, None)
    for frame, picture in zip(frames, pictures, strict=True):
        flat = np.s_[30:, :]  # away from edges, which 4:2:0 blurs
        np.testing.assert_allclose(frame.rgb[flat].astype(int), picture[flat], atol=6)


@pytest.mark.parametrize("start_s", [0.01, 0.52, 1.16])
def test_a_video_is_read_from_its_middle(tmp_path, start_s):
    """The frames from a time on are those of the complete video, to the bit."""
    path, rng = tmp_path / "v.mp4", np.random.default_rng(0)
    pictures = rng.integers(0, 255, (30, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    with VideoWriter(path, 25.0) as writer:
        for i, rgb in enumerate(pictures):
            writer.write(rgb, i / 25)
    with VideoReader(path) as reader:
        later = [frame for frame in reader if frame.time_s >= start_s]
    with VideoReader(path, start_s) as reader:
        found = list(reader)
        assert reader.incomplete is None
    assert [frame.index for frame in found] == list(range(len(later)))
    for a, b in zip(found, later, strict=True):
        assert a.time_s == b.time_s
        assert np.array_equal(a.rgb, b.rgb)
    with VideoReader(path, 2.0) as reader, pytest.raises(InputError, match="cut short"):
        next(iter(reader))


def test_what_is_written_plays_in_browsers(tmp_path):
    movie(tmp_path / "v.mp4", size=(63, 47))  # odd
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (64, 48)
    data = (tmp_path / "v.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")  # its index first: it plays before it is all there


def test_a_video_appears_whole_or_not_at_all(tmp_path):
    class Fault(Exception):
        pass

    def fail():
        with VideoWriter(tmp_path / "v.mp4", 25.0) as writer:
            writer.write(scene(), 0.0)
            raise Fault

    with pytest.raises(Fault):
        fail()
    with VideoWriter(tmp_path / "v.mp4", 25.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_video_cut_short_gives_the_frames_that_are_there(tmp_path):
    movie(tmp_path / "v.mp4", 60)
    whole, _ = frames_of(tmp_path / "v.mp4")
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * 0.8)])
    part, reader = frames_of(tmp_path / "cut.mp4")
    assert 0 < len(part) < 58
    assert reader.incomplete is not None
    assert "cut short" in reader.incomplete or "damaged" in reader.incomplete
    for frame, other in zip(part, whole, strict=False):
        np.testing.assert_array_equal(frame.rgb, other.rgb)


def movie_at(path, times_s, size=(64, 48), codec="mjpeg"):
    """Frames of noise, which take about equally many bytes, at these times, with a declared rate of 1000 fps, as in
    recordings of browsers."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (len(times_s), *size[::-1], 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for time_s, rgb in zip(times_s, noise, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("codec", ["mjpeg", "libx264"])
def test_a_video_with_a_false_rate_is_judged_by_its_times(tmp_path, codec):
    times = [0.033 * i for i in range(40)]
    movie_at(tmp_path / "whole.mkv", times, codec=codec)
    frames, reader = frames_of(tmp_path / "whole.mkv")
    assert len(frames) == 40
    assert reader.incomplete is None
    assert 30 <= reader.fps < 31
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=2e-3)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: int(len(data) * 0.6)])
    frames, reader = frames_of(tmp_path / "cut.mkv")
    assert 16 <= len(frames) <= 28
    assert reader.incomplete is not None


def test_a_video_with_huge_frames_is_refused_before_one_is_decoded(tmp_path):
    movie_at(tmp_path / "huge.mkv", [0.0], size=(8000, 6000))
    with pytest.raises(InputError, match=r"huge.mkv: 8000 x 6000 px are 48 megapixels; at most 40"):
        VideoReader(tmp_path / "huge.mkv")


def test_a_video_whose_end_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    def write():
        with VideoWriter(tmp_path / "v.mp4", 25.0) as writer:
            writer.write(scene(), 0.0)
            writer._container = SimpleNamespace(mux=full_disk, close=writer._container.close)

    with pytest.raises(OSError, match="No space"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_turned_video_stands_upright(tmp_path):
    """Phones store the rotation in the track's matrix; OpenCV, which applies it, is the reference."""
    movie(tmp_path / "v.mp4")
    data = (tmp_path / "v.mp4").read_bytes()
    at = data.index(b"tkhd") + 44
    for name, matrix in (("90", (0, 1, -1, 0)), ("180", (-1, 0, 0, -1)), ("270", (0, -1, 1, 0))):
        a, b, c, d = (value * 65536 for value in matrix)
        turned = data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]
        (tmp_path / f"{name}.mp4").write_bytes(turned)
        frames, _ = frames_of(tmp_path / f"{name}.mp4")
        ok, bgr = cv2.VideoCapture(str(tmp_path / f"{name}.mp4")).read()
        assert ok
        assert frames[0].rgb.shape == bgr.shape == ((48, 64, 3) if name == "180" else (64, 48, 3))
        np.testing.assert_allclose(frames[0].rgb.astype(int), bgr[..., ::-1], atol=12)


def test_files_that_are_no_videos_are_named(tmp_path):
    movie(tmp_path / "v.mp4", 30)
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "index.mp4").write_bytes(data[:200])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("a letter, not a video")
    for name, message in (
        ("index.mp4", "not a video, or cut short before its index"),
        ("empty.mp4", "0 bytes"),
        ("text.mp4", "not a video"),
        ("none.mp4", "no such file"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            frames_of(tmp_path / name)
    with pytest.raises(InputError, match="camera 99: cannot be opened"):
        VideoReader(99)
