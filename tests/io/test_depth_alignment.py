"""Depth at the pixels of colour: registration, sizes, compressed formats, lenses, camera files."""

import json
import struct

import cv2
import numpy as np
import pytest

from support.recording_files import encode_rvl, png
from utnet.errors import InputError
from utnet.io.depth import read_depth
from utnet.io.recordings import Camera, Frames, Options, read_camera
from utnet.io.recordings.alignment import register_depth, resample_depth
from utnet.io.recordings.cameras import pinhole, scaled_K
from utnet.io.recordings.codecs import decode_compressed_depth, decode_rvl
from utnet.io.recordings.frames import RawFrame

K = pinhole(300.0, 310.0, 79.5, 59.5)


def plane(K_px, size, normal=(0.1, -0.2, 1.0), offset_m=0.8):
    """(H, W) float32 z of n . X = offset."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K_px).T
    return (offset_m / (rays @ np.array(normal))).astype(np.float32)


def test_a_plane_registers_to_the_plane_of_the_other_camera():
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0.02, -0.03, 0.05]))[0]
    T[:3, 3] = (-0.05, 0.01, 0.02)
    K_depth, normal = pinhole(150, 152, 60, 45), np.array([0.1, -0.2, 1.0])
    depth = plane(K_depth, (120, 90), normal)
    got = register_depth(depth, K_depth, T, K, (160, 120))
    turned = T[:3, :3] @ normal
    true = plane(K, (160, 120), turned, 0.8 + float(turned @ T[:3, 3]))
    inside = got[20:100, 40:120]
    assert (inside > 0).all(), "no holes where depth is enlarged"
    np.testing.assert_allclose(inside, true[20:100, 40:120], rtol=5e-3)


def test_what_is_hidden_from_the_colour_camera_is_not_seen_through():
    depth = np.full((120, 160), 1.0, np.float32)
    depth[:, 60:100] = 0.4
    T = np.eye(4)
    T[0, 3] = 0.05
    got = register_depth(depth, K, T, K, (160, 120))
    near = np.flatnonzero(got[60] == np.float32(0.4))
    shift = 300 * 0.05 / 0.4
    assert abs(near.min() - (60 + shift)) <= 1
    assert len(near) == pytest.approx(40, abs=1)
    assert set(np.unique(got)) <= {0, np.float32(0.4), np.float32(1.0)}


def test_the_same_camera_registers_to_itself():
    depth = plane(K, (160, 120))
    np.testing.assert_allclose(register_depth(depth, K, np.eye(4), K, (160, 120)), depth, rtol=1e-6)


@pytest.mark.parametrize("size", [(320, 240), (40, 30), (160, 120)])
def test_resampling_is_that_of_the_scaled_camera_and_mixes_no_surfaces(size):
    small = plane(K, (160, 120))
    got, true = resample_depth(small, size), plane(scaled_K(K, (160, 120), size), size)
    np.testing.assert_allclose(got[2:-2, 2:-2], true[2:-2, 2:-2], rtol=3e-3)
    two = np.where(np.arange(160) < 70, np.float32(0.5), np.float32(1.0)) * np.ones((120, 1), np.float32)
    two[30:40, 30:40] = 0
    assert set(np.unique(resample_depth(two, size))) <= {0, np.float32(0.5), np.float32(1.0)}


def test_another_shape_of_picture_is_refused():
    with pytest.raises(InputError, match="aspect"):
        resample_depth(np.ones((90, 90), np.float32), (160, 120))


def test_rvl_and_ros_compressed_depth_come_back():
    rng = np.random.default_rng(0)
    depth = rng.integers(300, 5000, (24, 32)).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.4] = 0
    for image in (depth, np.zeros_like(depth), np.full_like(depth, 65535)):
        np.testing.assert_array_equal(decode_rvl(encode_rvl(image), (32, 24)), image)
    with pytest.raises(InputError, match="RVL"):
        decode_rvl(encode_rvl(depth)[:40], (32, 24))
    head = struct.pack("<iff", 0, 0, 0)
    rvl = head + struct.pack("<II", 32, 24) + encode_rvl(depth)
    np.testing.assert_array_equal(decode_compressed_depth(rvl, "16UC1", "rvl"), depth)
    np.testing.assert_array_equal(decode_compressed_depth(head + png(depth), "16UC1", "png"), depth)
    # 32FC1: inverse depth, quantised (compressed_depth_image_transport).
    metres, a = np.where(depth > 0, depth / 1000, 0), 100.0 * 101.0
    b = 1 - a / 10.0
    inverse = np.where(metres > 0, a / np.maximum(metres, 1e-3) + b, 0).astype(np.uint16)
    got = decode_compressed_depth(struct.pack("<iff", 0, a, b) + png(inverse), "32FC1", "png")
    np.testing.assert_allclose(got, metres, rtol=1e-2)


LENSES = [
    ("plumb_bob", (0.1, -0.05, 0.002, -0.001, 0.01)),
    ("rational_polynomial", (0.1, -0.05, 0.001, 0.001, 0.01, 0.02, 0.0, 0.0)),
    ("equidistant", (0.02, -0.01, 0.0, 0.0)),
    ("Inverse Brown Conrady", (0.15, -0.05, 0.002, 0.002, 0.0)),
]


@pytest.mark.parametrize(("model", "coeffs"), LENSES)
def test_lenses_are_taken_out(model, coeffs):
    camera = Camera(K, (160, 120), model, coeffs)
    points = np.array([[20.0, 30.0], [80.0, 60.0], [140.0, 100.0]])
    shown = camera.distorted_px(points)
    assert np.abs(shown - points).max() > 0.3
    picture = np.zeros((120, 160), np.float32)
    for x, y in shown:
        picture += np.exp(-(((np.arange(160) - x) / 2) ** 2) - ((np.arange(120)[:, None] - y) / 2) ** 2)
    straight = camera.rectified(picture)
    for x, y in points.astype(int):
        part = straight[y - 5 : y + 6, x - 5 : x + 6]
        peak = np.unravel_index(part.argmax(), part.shape)
        assert np.abs(np.subtract(peak, 5)).max() <= 1


@pytest.mark.parametrize(("model", "coeffs"), LENSES)
def test_points_through_the_lens_and_back(model, coeffs):
    camera = Camera(K, (160, 120), model, coeffs)
    points = np.array([[20.0, 30.0], [np.nan, 3.0], [80.0, 60.0], [-6.0, 118.0]])
    np.testing.assert_allclose(
        camera.rectified_px(camera.distorted_px(points)), points * [[1], [np.nan], [1], [1]], atol=1e-3
    )
    box = camera.rectified_box([20.0, 10.0, 100.0, 90.0])
    inside = np.stack(np.meshgrid(np.linspace(20, 100, 9), np.linspace(10, 90, 9)), -1).reshape(-1, 2)
    flat = camera.rectified_px(inside)
    np.testing.assert_allclose(box, [*flat.min(0), *flat.max(0)], atol=0.05)
    assert np.abs(box - [20.0, 10.0, 100.0, 90.0]).max() > 0.1


def test_points_that_no_lens_shows_are_refused():
    with pytest.raises(InputError, match="lens"):
        Camera(K, (160, 120), "plumb_bob", (-0.6, 0.0, 0.0, 0.0)).rectified_px(np.array([[2000.0, 60.0]]))


def test_realsenses_inverse_model_is_its_deprojection():
    k1, k2, p1, p2, k3 = coeffs = (0.05, -0.02, 0.001, 0.002, 0.01)
    camera = Camera(K, (160, 120), "Inverse Brown Conrady", coeffs)
    shown = camera.distorted_px(np.array([[130.0, 20.0]]))
    x, y = (np.array([*shown[0], 1.0]) @ np.linalg.inv(K).T)[:2]  # rs2_deproject_pixel_to_point
    r2 = x * x + y * y
    f = 1 + k1 * r2 + k2 * r2 * r2 + k3 * r2**3
    ux, uy = x * f + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * f + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    np.testing.assert_allclose((np.array([ux, uy, 1.0]) @ K.T)[:2], [130.0, 20.0], atol=1e-6)


def test_a_model_that_is_not_known_is_refused_unless_it_does_nothing():
    Camera(K, None, "f-theta", (0.0, 0.0))
    with pytest.raises(InputError, match="f-theta"):
        Camera(K, None, "f-theta", (0.1,))


INFO = {"width": 160, "height": 120, "distortion_model": "plumb_bob"}
FILES = {
    "camera_info.yaml": "header: {frame_id: c}\nheight: 120\nwidth: 160\ndistortion_model: plumb_bob\n"
    "d: [0.1, 0.0, 0.0, 0.0, 0.0]\nk: [300.0, 0.0, 79.5, 0.0, 310.0, 59.5, 0.0, 0.0, 1.0]\n---\n",
    "ost.yaml": "image_width: 160\nimage_height: 120\ncamera_name: c\ncamera_matrix: {rows: 3, cols: 3, data: [300, 0, "
    "79.5, 0, 310, 59.5, 0, 0, 1]}\ndistortion_model: plumb_bob\ndistortion_coefficients: {rows: 1, cols: 5, data: "
    "[0.1, 0, 0, 0, 0]}\n",
    "info.json": json.dumps({**INFO, "D": [0.1, 0, 0, 0, 0], "K": K.ravel().tolist()}),
    "realsense.json": json.dumps(
        {"width": 160, "height": 120, "fx": 300, "fy": 310, "ppx": 79.5, "ppy": 59.5,
         "model": "distortion.brown_conrady", "coeffs": [0.1, 0, 0, 0, 0]}
    ),
    "cameras.txt": "# Camera list\n1 OPENCV 160 120 300 310 80 60 0.1 0 0 0\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_cameras_are_read_from_files(name, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    camera = read_camera(tmp_path / name)
    np.testing.assert_allclose(camera.K_px, K)
    assert (camera.size_px, camera.coeffs[0], camera.is_distorted) == ((160, 120), 0.1, True)
    np.testing.assert_allclose(camera.scaled((320, 240)).K_px, scaled_K(K, (160, 120), (320, 240)))


@pytest.mark.parametrize("text", ["", "hello", "{}", "1 OPENCV 160 120 300\n", "width: [", '{"fx": 0, "fy": 1}'])
def test_what_is_no_camera_is_named(text, tmp_path):
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(InputError, match=r"camera\.yaml"):
        read_camera(tmp_path / "camera.yaml")


def test_units_of_depth_files(tmp_path):
    depth = np.array([[500, 0], [700, 900]], np.uint16)
    np.save(tmp_path / "i.npy", depth)
    np.save(tmp_path / "f.npy", (depth / 1000).astype(np.float32))
    np.savez(tmp_path / "z.npz", depth=depth, other=np.zeros(3))
    cv2.imwrite(str(tmp_path / "p.png"), depth)
    cv2.imwrite(str(tmp_path / "t.tiff"), (depth / 1000).astype(np.float32))
    for name in ("i.npy", "f.npy", "z.npz", "p.png", "t.tiff"):
        np.testing.assert_allclose(read_depth(tmp_path / name), depth / 1000, rtol=1e-6)
        scale = 0.002 if name in ("i.npy", "z.npz", "p.png") else 2.0
        np.testing.assert_allclose(read_depth(tmp_path / name, scale), depth / 500, rtol=1e-6)


def test_a_frame_has_the_picture_with_and_without_the_lens():
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    for coeffs in ((0.1, -0.05, 0.0, 0.0), (0.0,)):
        lens = Camera(K, (160, 120), "plumb_bob", coeffs)

        class One(Frames):
            def read(self, lens=lens):
                yield RawFrame(0.0, picture, lens)

        (frame,) = One("one", Options())
        np.testing.assert_array_equal(frame.rgb, lens.rectified(picture))
        assert (frame.recorded_rgb is picture) == lens.is_distorted
