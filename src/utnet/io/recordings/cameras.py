"""Cameras of recordings: intrinsics with lens distortion, and readers of camera files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utnet.errors import BAD_TREE, InputError, first_line
from utnet.io.safe_yaml import parse_yaml

_OPENCV = {
    "plumb_bob", "rational_polynomial", "brown_conrady", "distortion_brown_conrady", "simple_radial", "radial",
    "opencv", "full_opencv", "thin_prism",
}  # fmt: skip
"""Models of k1, k2, p1, p2, k3, ... in OpenCV's order: ROS's, RealSense's and COLMAP's names."""
_FISHEYE = {"equidistant", "kannala_brandt4", "kannala_brandt", "opencv_fisheye", "fisheye"}
_INVERSE = {"inverse_brown_conrady", "distortion_inverse_brown_conrady"}
_COLMAP = {
    "SIMPLE_PINHOLE": "f,cx,cy", "PINHOLE": "fx,fy,cx,cy", "SIMPLE_RADIAL": "f,cx,cy,k1", "RADIAL": "f,cx,cy,k1,k2",
    "OPENCV": "fx,fy,cx,cy,k1,k2,p1,p2", "OPENCV_FISHEYE": "fx,fy,cx,cy,k1,k2,k3,k4",
    "FULL_OPENCV": "fx,fy,cx,cy,k1,k2,p1,p2,k3,k4,k5,k6",
}  # fmt: skip
"""Parameters of COLMAP's camera models (colmap/sensor/models.h)."""
_OPENCV_ORDER = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_ITERATIONS = 20
_UNDISTORT_STEPS = 100
_ROUND_TRIP_PX = 0.05
_BOX_POINTS = 17
"""Points on each edge of a box that is rectified."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with lens distortion.

    Attributes:
        K_px: (3, 3) intrinsics; the middle of the first pixel is (0, 0).
        size_px: width and height of its pictures; None if the file does not state it.
        model: name of the distortion model in its source.
        coeffs: its coefficients; if there are none, or all are 0, there is no distortion.

    Raises:
        InputError: coefficients of a model that cannot be applied.
    """

    K_px: np.ndarray
    size_px: tuple[int, int] | None = None
    model: str = "none"
    coeffs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.is_distorted and self._name not in _OPENCV | _FISHEYE | _INVERSE:
            raise InputError(f"unknown distortion model {self.model!r}; undistort the pictures first")

    @property
    def is_distorted(self) -> bool:
        """Whether any coefficient is not 0."""
        return bool(np.any(np.asarray(self.coeffs, float)))

    @property
    def _name(self) -> str:
        return self.model.lower().replace(" ", "_")

    def scaled(self, size_px: tuple[int, int]) -> Camera:
        """Returns the camera of the same pictures at another size."""
        if self.size_px is None or self.size_px == size_px:
            return Camera(self.K_px, size_px, self.model, self.coeffs)
        return Camera(scaled_K(self.K_px, self.size_px, size_px), size_px, self.model, self.coeffs)

    def rectified(self, image: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Rectifies a picture (or depth, with `nearest`): as seen by the camera without distortion, with the same K."""
        if not self.is_distorted:
            return image
        how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        K = tuple(self.K_px.ravel().tolist())
        x, y = _maps(K, self.model, self.coeffs, (image.shape[1], image.shape[0]))
        return cv2.remap(image, x, y, how, borderMode=cv2.BORDER_CONSTANT, borderValue=0)

    def distorted_px(self, points_px: np.ndarray) -> np.ndarray:
        """Distorts (N, 2) points: from the rectified picture to the recorded one."""
        if not self.is_distorted:
            return points_px
        flat = np.column_stack([np.asarray(points_px, float), np.ones(len(points_px))])
        rays = flat @ np.linalg.inv(self.K_px).T
        if self._name in _INVERSE:
            there = np.column_stack([self._inverse_brown_conrady(rays[:, :2]), np.ones(len(rays))])
            return (there @ self.K_px.T)[:, :2]
        coeffs, zero = np.asarray(self.coeffs, float), np.zeros(3)
        if self._name in _FISHEYE:
            return cv2.fisheye.projectPoints(rays[:, None], zero, zero, self.K_px, coeffs[:4])[0][:, 0]
        return cv2.projectPoints(rays[:, None], zero, zero, self.K_px, coeffs)[0][:, 0]

    def rectified_px(self, points_px: np.ndarray) -> np.ndarray:
        """Rectifies (N, 2) points: from the recorded picture to the rectified one; NaN stays NaN.

        Raises:
            InputError: a point where the distortion model has no inverse, far outside of the picture.
        """
        points = np.asarray(points_px, float)
        known = np.isfinite(points).all(1)
        if not self.is_distorted or not known.any():
            return points
        shown, coeffs = points[known], np.asarray(self.coeffs, float)
        if self._name in _INVERSE:
            rays = np.column_stack([shown, np.ones(len(shown))]) @ np.linalg.inv(self.K_px).T
            flat = np.column_stack([self._brown_conrady(rays[:, :2]), np.ones(len(rays))])
            found = (flat @ self.K_px.T)[:, :2]
        elif self._name in _FISHEYE:
            found = cv2.fisheye.undistortPoints(shown[:, None], self.K_px, coeffs[:4], P=self.K_px)[:, 0]
        else:
            until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _UNDISTORT_STEPS, 1e-10)
            found = cv2.undistortImagePoints(shown[:, None], self.K_px, coeffs, None, until)[:, 0]
        if not np.allclose(self.distorted_px(found), shown, atol=_ROUND_TRIP_PX):
            raise InputError("a point is outside of what the lens shows; give points in the recorded picture")
        rectified = np.full(points.shape, np.nan)
        rectified[known] = found
        return rectified

    def rectified_box(self, box_px: Sequence[float] | np.ndarray) -> np.ndarray:
        """Returns the box (4,) x0, y0, x1, y1 around the rectified outline of a box in the recorded picture.

        Raises:
            InputError: as `rectified_px`.
        """
        x0, y0, x1, y1 = np.asarray(box_px, float)
        share = np.linspace(0, 1, _BOX_POINTS)
        x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        edges = [(x, np.full_like(x, y0)), (x, np.full_like(x, y1)), (np.full_like(y, x0), y), (np.full_like(y, x1), y)]
        outline = self.rectified_px(np.concatenate([np.column_stack(edge) for edge in edges]))
        return np.concatenate([outline.min(0), outline.max(0)])

    def _brown_conrady(self, at: np.ndarray) -> np.ndarray:
        """RealSense's model gives undistorted points from distorted ones (rs2_deproject_pixel_to_point)."""
        k1, k2, p1, p2, k3 = (*self.coeffs, 0, 0, 0, 0, 0)[:5]
        x, y = at.T
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        return np.column_stack(
            [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)]
        )

    def _inverse_brown_conrady(self, wanted: np.ndarray) -> np.ndarray:
        at = wanted.copy()
        for _ in range(_ITERATIONS):
            at += wanted - self._brown_conrady(at)
        return at


@lru_cache(maxsize=4)
def _maps(
    K: tuple[float, ...], model: str, coeffs: tuple[float, ...], size_px: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Position of each rectified pixel in the recorded picture, for `cv2.remap`."""
    width, height = size_px
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    maps = Camera(np.reshape(K, (3, 3)), size_px, model, coeffs).distorted_px(grid).reshape(height, width, 2)
    return np.ascontiguousarray(maps[..., 0], np.float32), np.ascontiguousarray(maps[..., 1], np.float32)


def scaled_K(K_px: np.ndarray, old_px: tuple[int, int], new_px: tuple[int, int]) -> np.ndarray:
    """Returns the (3, 3) intrinsics of a picture that is resized (the corners of the picture stay corners)."""
    sx, sy = new_px[0] / old_px[0], new_px[1] / old_px[1]
    return np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]]) @ K_px


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """Returns (3, 3) intrinsics."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], float)


def camera_of_ros(message: Any) -> Camera:
    """Returns the camera of a sensor_msgs/CameraInfo message of ROS 1 (K, D) or ROS 2 (k, d).

    Raises:
        InputError: it contains no calibration.
    """
    K = np.asarray(message.K if hasattr(message, "K") else message.k, float).reshape(3, 3)
    D = np.asarray(message.D if hasattr(message, "D") else message.d, float).ravel()
    if not K[0, 0] > 0:
        raise InputError("camera_info contains no calibration (fx is 0); give --K")
    return Camera(K, (int(message.width), int(message.height)), message.distortion_model, tuple(D.tolist()))


def read_camera(path: str | Path) -> Camera:
    """Reads a camera from a file.

    Args:
        path: sensor_msgs/CameraInfo or ROS's camera_calibration as YAML or JSON, RealSense's intrinsics or Open3D's
            camera as JSON, COLMAP's cameras.txt with one camera, or 9 numbers (a CSV of the matrix).

    Raises:
        InputError: no such file, none of these, several cameras, or a distortion model that cannot be applied.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error}); give camera_info as YAML or JSON") from error
    try:
        lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if lines and len(lines[0]) > 4 and lines[0][1] in _COLMAP:
            return _colmap(path, lines)
        numbers = _numbers(text)
        if numbers is not None and numbers.size == 9:
            return Camera(numbers.reshape(3, 3))
        first = text.partition("\n---")[0]  # the end of a message of `ros2 topic echo`
        tree = json.loads(text) if text.lstrip().startswith("{") else parse_yaml(first, where=str(path))
        if isinstance(tree, dict):
            return _from_tree(tree)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except BAD_TREE as error:
        raise InputError(f"{path}: a damaged camera file ({first_line(error)}); write it again") from error
    raise InputError(f"{path}: no camera; give camera_info (YAML, JSON), RealSense intrinsics or COLMAP's cameras.txt")


def _numbers(text: str) -> np.ndarray | None:
    try:
        return np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError:
        return None


def _from_tree(tree: dict) -> Camera:
    size = (int(tree["width"]), int(tree["height"])) if "width" in tree and "height" in tree else None
    if "image_width" in tree:
        size = (int(tree["image_width"]), int(tree["image_height"]))
    coeffs = _data(tree, "distortion_coefficients", "d", "D", "coeffs", "distortion")
    model = str(tree.get("distortion_model", tree.get("model", "plumb_bob"))).removeprefix("distortion.")
    if "fx" in tree:
        cx, cy = (float(tree[a] if a in tree else tree[b]) for a, b in (("ppx", "cx"), ("ppy", "cy")))
        K = pinhole(float(tree["fx"]), float(tree["fy"]), cx, cy)
    elif "intrinsic_matrix" in tree:  # Open3D: column by column
        K = np.asarray(tree["intrinsic_matrix"], float).reshape(3, 3).T
    else:
        K = np.asarray(_data(tree, "camera_matrix", "k", "K"), float).reshape(3, 3)
    if not K[0, 0] > 0:
        raise InputError("contains no calibration (fx is 0)")
    return Camera(K, size, model, tuple(float(value) for value in coeffs))


def _data(tree: dict, *names: str) -> Sequence[float]:
    for name in names:
        if name in tree:
            value = tree[name]["data"] if isinstance(tree[name], dict) else tree[name]
            return [] if value is None else list(np.ravel(value))
    return []


def _colmap(path: Path, lines: list[list[str]]) -> Camera:
    if len(lines) > 1:
        raise InputError(f"{len(lines)} cameras; leave the one of these pictures")
    _, model, width, height, *numbers = lines[0]
    named = dict(zip(_COLMAP[model].split(","), map(float, numbers), strict=True))
    fx, fy = (named.get(name, named.get("f", 0.0)) for name in ("fx", "fy"))
    # COLMAP counts from the corner of the first pixel.
    K = pinhole(fx, fy, named["cx"] - 0.5, named["cy"] - 0.5)
    fisheye = model == "OPENCV_FISHEYE"
    coeffs = [named[f"k{i}"] for i in range(1, 5)] if fisheye else [named.get(name, 0.0) for name in _OPENCV_ORDER]
    return Camera(K, (int(width), int(height)), model.lower(), tuple(coeffs) if any(coeffs) else ())
