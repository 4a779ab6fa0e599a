"""Pictures and videos from phones and cameras, and inputs of the command line."""

import base64
import struct
import sys
import zlib
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from support.mano_files import random_mano, write_mano
from utnet.checkpoint import load_checkpoint
from utnet.cli.options import gathered
from utnet.errors import InputError
from utnet.hand.mano import load_mano, mano_file
from utnet.io.hdr import HLG, PQ, hdr_to_srgb
from utnet.io.kinds import is_video, picture_format
from utnet.io.pictures import picture_size, read_picture
from utnet.io.safe_pickle import load_pickle
from utnet.io.shown import as_shown, display_matrix, fitted_into, square_pixels
from utnet.io.videos import VideoReader
from utnet.predict.inputs import DepthFiles, find_inputs, passed_over
from utnet.predict.option_warnings import camera_warnings


def scene(height=48, width=64) -> np.ndarray:
    """An asymmetric picture: each corner has another colour."""
    y, x = np.mgrid[:height, :width] / 64
    return np.rint(np.stack([40 + 200 * x, 200 - 180 * x * y, 60 + 150 * y], 2).clip(0, 255)).astype(np.uint8)


_HEIC = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJp"
    "bG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAIUAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAAB"
    "AAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEA"
    "AQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAA"
    "FGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhp"
    "cG1hAAAAAAAAAAEAAQWBAgMFhAAAAI1tZGF0AAAAgSgBrwngPjLXJFw8ez9pIL/eMooqXfppm4e8fG0mCuEZEhGos6c11jygXZ8mvtue"
    "eHFTNZmi5A62m6a3ZiwbZqBH5bXRh9hNtxgkwhm/Xv15ADPxWAb5Zj71Z/z3WgEgxpkEqXHrVOK+KrCPCLxep+71LjZQQ2Xl3WfsrRjK"
    "3PI9OA=="
)
"""`scene()` as HEIC (encoded by libheif and x265; pi-heif only decodes)."""


def video(path, rgb=None, frames=4, codec="libx264", **about):
    """A short video of one picture; `about` sets attributes of the stream."""
    rgb = scene() if rgb is None else rgb
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *rgb.shape[:2], "yuv420p"
        for name, value in about.items():
            setattr(stream.codec_context, name, value)
        for _ in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(stream.encode(None))
    return path


# ------------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("suffix", ["jfif", "gif", "avif", "heic"])
def test_other_formats_are_read_whatever_they_are_called(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "heic":
        pytest.importorskip("pi_heif")
        path.write_bytes(base64.b64decode(_HEIC))
    else:
        Image.fromarray(scene()).save(path, format={"jfif": "JPEG"}.get(suffix, suffix))
    other = tmp_path / "b.png"
    other.write_bytes(path.read_bytes())
    for file in (path, other):
        rgb = read_picture(file).rgb
        assert rgb.shape == scene().shape
        assert np.abs(rgb.astype(int) - scene()).mean() < 8
        assert picture_size(file) == (64, 48)
        assert [item.kind for item in find_inputs([str(file)])] == ["picture"]


def test_heic_without_the_extra_names_it(tmp_path, monkeypatch):
    path = tmp_path / "IMG_1.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert picture_format(path) == "HEIF"
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(InputError, match=r"IMG_1.jpg: a HEIC picture; pip install 'utnet\[heif\]'"):
        read_picture(path)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(("suffix", "color"), [("png", False), ("png", True), ("tiff", False), ("tiff", True)])
def test_few_bits_in_sixteen_are_as_bright_as_they_were(tmp_path, bits, suffix, color):
    rgb = scene() if color else np.repeat(scene()[..., :1], 3, 2)
    rgb[0, 0] = 255
    deep = np.rint(rgb / 255 * (2**bits - 1)).astype(np.uint16)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), deep[..., ::-1] if color else deep[..., 0])
    assert np.abs(read_picture(path).rgb.astype(int) - rgb).max() <= 1


def test_floats_are_colours_in_0_to_1(tmp_path):
    for name, factor in (("a.tiff", 1 / 255), ("b.tiff", 1.0)):
        cv2.imwrite(str(tmp_path / name), (scene()[..., ::-1] * factor).astype(np.float32))
        assert np.abs(read_picture(tmp_path / name).rgb.astype(int) - scene()).max() <= 1


def test_gifs_of_several_frames_are_videos(tmp_path):
    frames = [Image.fromarray(scene()), Image.fromarray(scene()[::-1])]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    assert [item.kind for item in find_inputs([str(tmp_path)])] == ["video"]
    with VideoReader(tmp_path / "a.gif") as reader:
        assert len(list(reader)) == 2


def test_deep_pictures_are_turned_by_exif(tmp_path):
    image = Image.fromarray(np.rot90(scene()))
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array(image)[..., ::-1].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[274] = 6
    data = path.read_bytes()
    raw = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(raw)) + b"eXIf" + raw + struct.pack(">I", zlib.crc32(b"eXIf" + raw))
    path.write_bytes(data[:33] + chunk + data[33:])
    picture = read_picture(path)
    assert picture.turned
    np.testing.assert_array_equal(picture.rgb, scene())


# --------------------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize("turn", range(8))
def test_display_matrices_turn_and_mirror_as_players_do(turn):
    """All eight: a pixel at (x, y) is displayed at (x, y) @ matrix, up to translation."""
    matrix = np.array([[1, 0], [0, 1]])
    for _ in range(turn % 4):
        matrix = matrix @ [[0, 1], [-1, 0]]
    matrix = matrix @ ([[-1, 0], [0, 1]] if turn >= 4 else np.eye(2, dtype=int))
    shown = as_shown(scene(), matrix)
    y, x = np.mgrid[:48, :64]
    places = np.stack([x.ravel(), y.ravel()], 1) @ matrix
    places -= places.min(0)
    expected = np.zeros_like(shown)
    expected[places[:, 1], places[:, 0]] = scene().reshape(-1, 3)
    np.testing.assert_array_equal(shown, expected)


def test_a_display_matrix_is_read_from_the_frame():
    numbers = np.array([-65536, 0, 0, 0, 65536, 0, 64 << 16, 0, 1 << 30], np.int32)
    data = type("Data", (bytes,), {"type": SimpleNamespace(name="DISPLAYMATRIX")})(numbers.tobytes())
    np.testing.assert_array_equal(display_matrix(SimpleNamespace(side_data=[data])), [[-1, 0], [0, 1]])
    assert display_matrix(SimpleNamespace(side_data=[])) is None


def test_pixels_become_square(tmp_path):
    path = video(tmp_path / "a.mp4", scene(48, 32), sample_aspect_ratio=Fraction(2, 1))
    with VideoReader(path) as reader:
        assert {frame.rgb.shape for frame in reader} == {(48, 64, 3)}
    assert square_pixels(scene(), Fraction(1, 2)).shape == (96, 64, 3)
    assert square_pixels(scene(), Fraction(1001, 1000)).shape == scene().shape


@pytest.mark.parametrize("suffix", ["3gp", "ts", "mts", "flv", "wmv", "mkv", "mpg", "avi"])
def test_containers_are_known_by_content_too(tmp_path, suffix):
    codec = {"wmv": "wmv2", "mpg": "mpeg1video"}.get(suffix, "libx264")
    frames = 30 if suffix == "mpg" else 4
    path = video(tmp_path / f"a.{suffix}", codec=codec, frames=frames)
    named = tmp_path / "b.jpg"
    named.write_bytes(path.read_bytes())
    assert is_video(path)
    assert picture_format(path) is None
    assert [item.kind for item in find_inputs([str(path), str(named)])] == ["video", "video"]
    with VideoReader(named) as reader:
        assert len(list(reader)) == frames


def test_depth_tracks_are_named_and_not_taken_for_the_film(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        depth, color = out.add_stream("ffv1", rate=10), out.add_stream("libx264", rate=10)
        depth.width, depth.height, depth.pix_fmt = 32, 24, "gray16le"
        color.width, color.height, color.pix_fmt = 64, 48, "yuv420p"
        depth.metadata["title"], color.metadata["title"] = "DEPTH", "COLOR"
        for _ in range(3):
            out.mux(depth.encode(av.VideoFrame.from_ndarray(np.full((24, 32), 800, np.uint16), format="gray16le")))
            out.mux(color.encode(av.VideoFrame.from_ndarray(scene(), format="rgb24")))
        for stream in (depth, color):
            out.mux(stream.encode(None))
    with VideoReader(path) as reader:
        assert [frame.rgb.shape for frame in reader] == [(48, 64, 3)] * 3
        assert any("DEPTH" in note for note in reader.notes)


def test_frames_of_another_size_are_fitted_into_the_first_ones():
    small = fitted_into(scene(), (96, 64))
    assert small.shape == (96, 64, 3)
    np.testing.assert_array_equal(small[24:72], scene())
    assert not small[:24].any()
    assert not small[72:].any()
    np.testing.assert_array_equal(fitted_into(scene(), (48, 64)), scene())


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_hdr_white_is_white_and_grey_stays_grey(transfer):
    """BT.2408: reference white is 75 % HLG and 58 % PQ; 18 % grey is 38 % of both."""
    white, grey = ((0.75, 0.38), (0.58, 0.38))[transfer == PQ]
    signal = np.array([[[white] * 3, [grey] * 3, [0.0] * 3, [1.0] * 3]])
    out = hdr_to_srgb(np.rint(signal * 65535).astype(np.uint16), transfer)[0].astype(int)
    assert np.ptp(out, axis=1).max() <= 1
    assert 215 <= out[0, 0] < 250
    assert 100 <= out[1, 0] <= 135
    assert out[2, 0] == 0
    assert out[3, 0] >= 250


def test_hdr_brightness_grows_without_a_step():
    ramp = np.repeat(np.linspace(0, 65535, 1024).astype(np.uint16)[None, :, None], 3, 2)
    for transfer in (HLG, PQ):
        steps = np.diff(hdr_to_srgb(ramp, transfer)[0, :, 0].astype(int))
        assert steps.min() >= 0
        assert steps.max() <= 4


# ------------------------------------------------------------------------------------------------------------- command


def test_words_of_several_values_are_gathered():
    assert gathered(["predict", "--box", "1,2,3,4", "a.jpg", "--box", "-5,6,7,8", "--out", "b"]) == (
        ["predict", "a.jpg", "--out", "b", "--box=1,2,3,4", "--box=-5,6,7,8"]
    )
    assert gathered(["--side", "left", "right", "a.jpg"]) == ["a.jpg", "--side=left", "--side=right"]
    assert gathered(["train", "--set", "a=1", "c.yaml", "--set", "b=2"]) == ["train", "c.yaml", "--set", "a=1", "b=2"]


def test_folders_name_what_is_not_read(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "color_1.png")
    Image.fromarray(np.full((48, 64), 800, np.uint16)).save(tmp_path / "depth_1.png")
    (tmp_path / "notes.txt").write_text("hands")
    assert [item.name for item in find_inputs([str(tmp_path)])] == ["color_1"]
    text = " ".join(passed_over([str(tmp_path)]))
    assert "1 depth image, not read (use --depth): depth_1.png" in text
    assert "1 other file, neither pictures nor videos: notes.txt" in text
    assert "depth" not in " ".join(passed_over([str(tmp_path)], with_depth=True))
    assert DepthFiles(str(tmp_path), 1).of(tmp_path / "color_1.png").name == "depth_1.png"


def test_depth_of_another_second_is_no_pair(tmp_path):
    for name in ("1701234561.033", "1701234562.033"):
        Image.fromarray(np.full((4, 4), 800, np.uint16)).save(tmp_path / f"{name}.png")
    depth = DepthFiles(str(tmp_path), 2)
    assert depth.of(tmp_path.parent / "1701234561.033.png").name == "1701234561.033.png"
    with pytest.raises(InputError, match=r"no depth image of its time .*1701234561.033.png, 0.041 s"):
        depth.of(tmp_path.parent / "1701234561.074.png")


def test_cameras_of_other_pictures_are_doubted(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "a.png")
    Image.fromarray(scene(20, 100)).save(tmp_path / "b.png")
    a = find_inputs([str(tmp_path / "a.png")])
    assert camera_warnings(a, None) == []
    assert camera_warnings(a, np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])) == []
    assert "128 x 96 px" in camera_warnings(a, np.array([[120.0, 0, 63.5], [0, 120, 47.5], [0, 0, 1]]))[0]
    assert "field of view of 136" in camera_warnings(a, np.array([[13.0, 0, 31.5], [0, 13, 23.5], [0, 0, 1]]))[0]
    both = find_inputs([str(tmp_path)])
    assert "panorama" in camera_warnings(both, None)[0]
    assert any("2 sizes" in line for line in camera_warnings(both, np.eye(3)))


# ---------------------------------------------------------------------------------------------------------------- files


def test_mano_as_npz_is_the_same_hand(tmp_path):
    model = random_mano(3)
    write_mano(tmp_path / "MANO_RIGHT.pkl", model)
    expected = load_mano(mano_file(tmp_path, "right"))
    dense = {key: np.asarray(value) for key, value in model.items() if isinstance(value, np.ndarray)}
    dense["J_regressor"] = np.asarray(getattr(model["J_regressor"], "toarray", lambda: model["J_regressor"])())
    (tmp_path / "MANO_RIGHT.pkl").unlink()
    np.savez(tmp_path / "MANO_RIGHT.npz", **dense)
    arrays = load_mano(mano_file(tmp_path, "right"))
    for name in ("v_template", "shapedirs", "J_template", "weights", "faces", "posedirs"):
        np.testing.assert_allclose(getattr(arrays, name), getattr(expected, name), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("<!DOCTYPE html><html>", "web page"),
    ],
)
def test_what_stands_in_place_of_a_download_is_named(tmp_path, text, what):
    for name, read in {"a.pkl": load_pickle, "a.npz": load_mano, "a.jpg": read_picture, "a.mp4": VideoReader}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=what):
            read(tmp_path / name)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "weights.safetensors").write_text(text)
    with pytest.raises(InputError, match=what):
        load_checkpoint(tmp_path)
