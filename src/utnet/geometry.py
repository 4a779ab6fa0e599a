"""Cameras, crops, mirrors and alignment. Works on numpy arrays and torch tensors alike unless a docstring says which.

Rotations are matrices; every conversion to or from another form is named `a_to_b`, and roma does it or tests it.
"""

from __future__ import annotations

import math
from typing import Protocol, overload

import numpy as np
import torch

from utnet.types import Array, HandParams

# ------------------------------------------------------------------------------------------------------------- camera


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """(3, 3) float64 camera matrix from focal lengths and principal point in pixels."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def project(points_cam_m: Array, K_px: Array) -> Array:
    """Pinhole projection.

    Args:
        points_cam_m: (..., N, 3) in the camera frame, z > 0.
        K_px: (..., 3, 3) intrinsics; skew is honoured.

    Returns:
        (..., N, 2) pixels.
    """
    homogeneous = points_cam_m @ K_px.swapaxes(-1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def unproject(points_px: Array, depth_m: Array, K_px: np.ndarray) -> Array:
    """Inverse of `project`, numpy: (..., N, 2) pixels and (..., N) z in metres -> (..., N, 3) in the camera frame."""
    ones = np.ones((*points_px.shape[:-1], 1))
    rays = np.concatenate([points_px, ones], -1) @ np.linalg.inv(K_px).swapaxes(-1, -2)
    return rays * depth_m[..., None]


# --------------------------------------------------------------------------------------------------------------- crop


def box_of(points_px: np.ndarray) -> np.ndarray:
    """Tight box (x0, y0, x1, y1) of (N, 2) points."""
    return np.concatenate([points_px.min(0), points_px.max(0)])


def longer_side(points_px: np.ndarray) -> float:
    """Of the tight box of (N, 2) points."""
    return float(np.ptp(points_px, axis=0).max())


def apart_percent(points_px: np.ndarray, other_px: np.ndarray) -> np.ndarray:
    """(N,) distances between points (N, 2), in percent of the longer side of the first ones' box."""
    return np.linalg.norm(points_px - other_px, axis=1) / longer_side(points_px) * 100


def crop_affine(
    box_px: np.ndarray,
    size_px: int,
    *,
    expand: float = 2.0,
    aspect: float = 1.0,
    rotation_rad: float = 0.0,
    shift: tuple = (0.0, 0.0),
) -> np.ndarray:
    """The one affine of a sample: full image to a square crop around a box.

    The square's side is `expand` times the box's longer side; its centre (in the pixel-centre convention) lands on
    the crop's centre (size - 1) / 2, so a crop's edges are its pixels' outer edges.

    Args:
        box_px: (4,) tight box x0, y0, x1, y1.
        size_px: side of the crop.
        expand: side of the square over the longer side of the box.
        aspect: width over height of what the network sees of the square: the box has to fit into that, so a wide box
            gives a larger square (WiLoR: 0.75).
        rotation_rad: turns the picture (positive: from x towards y).
        shift: moves the square's centre by this many sides in x and y.

    Returns:
        (3, 3) A with `x_crop = A @ x_full` for homogeneous pixels.

    Raises:
        ValueError: the box is empty or not finite.
    """
    x0, y0, x1, y1 = (float(v) for v in box_px)
    side = max((x1 - x0) / aspect, y1 - y0) * expand
    if not (math.isfinite(side) and x1 > x0 and y1 > y0):
        raise ValueError(f"box {[x0, y0, x1, y1]} is empty or not finite; expected x0 < x1 and y0 < y1 in pixels")
    centre_x, centre_y = (x0 + x1) / 2 + shift[0] * side, (y0 + y1) / 2 + shift[1] * side
    cos, sin = math.cos(rotation_rad) * size_px / side, math.sin(rotation_rad) * size_px / side
    x = (size_px - 1) / 2 - (cos * centre_x - sin * centre_y)
    y = (size_px - 1) / 2 - (sin * centre_x + cos * centre_y)
    return np.array([[cos, -sin, x], [sin, cos, y], [0.0, 0.0, 1.0]])


class CropJitter(Protocol):
    """A crop's size and half-widths of its random changes: fields of `utnet.config.CropConfig`, which says more."""

    @property
    def expand(self) -> float: ...
    @property
    def aspect(self) -> float: ...
    @property
    def scale_jitter(self) -> float: ...
    @property
    def shift_jitter(self) -> float: ...
    @property
    def rotation_jitter_deg(self) -> float: ...


def jittered_crop_affine(box_px: np.ndarray, size_px: int, config: CropJitter, rng: np.random.Generator) -> np.ndarray:
    """`crop_affine` with a random scale, shift and rotation within the half-widths of `config`."""
    log_scale, shift_x, shift_y, turn = rng.uniform(-1, 1, 4).tolist()
    expand = config.expand * math.exp(log_scale * math.log1p(config.scale_jitter))
    shift = (shift_x * config.shift_jitter, shift_y * config.shift_jitter)
    angle = math.radians(turn * config.rotation_jitter_deg)
    return crop_affine(box_px, size_px, expand=expand, aspect=config.aspect, rotation_rad=angle, shift=shift)


@overload
def crop_camera(A: np.ndarray, K_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def crop_camera(A: np.ndarray, K_px: None) -> tuple[None, np.ndarray]: ...
def crop_camera(A: np.ndarray, K_px: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray]:
    """The camera of a crop, and how it is turned.

    Turning a picture by an angle is turning the camera about its axis: points are rotated by R and K absorbs the
    rest, K' = A K R^T. With fx != fy that leaves a slight skew, which K' carries.

    Args:
        A: (3, 3) affine from `crop_affine` (a similarity).
        K_px: (3, 3) of the full image, or None where it is not known: 3D labels turn with the picture all the same.

    Returns:
        K' (3, 3) of the crop (None without K) and R (3, 3), camera of the full image to camera of the crop, such that
        `project(points @ R.T, K') == A(project(points, K))`.
    """
    angle = math.atan2(A[1, 0], A[0, 0])
    cos, sin = math.cos(angle), math.sin(angle)
    R = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return None if K_px is None else A @ K_px @ R.T, R


def px_to_crop(points_px: Array, size_px: int) -> Array:
    """Pixels of a square crop to crop units: its outer edges are -0.5 and 0.5. The one place that converts."""
    return (points_px + 0.5) / size_px - 0.5


def crop_to_px(points_crop: Array, size_px: int) -> Array:
    """Inverse of `px_to_crop`."""
    return (points_crop + 0.5) * size_px - 0.5


def apply_affine(A: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """(..., 2) points through a (3, 3) affine, numpy."""
    return points_px @ A[:2, :2].T + A[:2, 2]


_DEPTH_QUANTILE = 0.2
"""The hand is mostly the nearest thing in its box, and edge-on it covers less than a third of it."""


def hand_distance(depth_m: torch.Tensor) -> torch.Tensor:
    """Robust distance of the hand from the depth inside its box, without labels: a quantile over the crop's middle.

    The middle half of a crop lies inside the hand's box whatever the margin round it (up to twice the box).

    Args:
        depth_m: (B, H, W), 0 where there is no reading.

    Returns:
        (B,) metres; NaN where the middle holds no reading.
    """
    height, width = depth_m.shape[1:]
    middle = depth_m[:, height // 4 : height - height // 4 : 2, width // 4 : width - width // 4 : 2].flatten(1)
    # torch.nanquantile without NaN, which OpenVINO cannot sort: readings first, then between the nearest two ranks.
    readings, num = torch.where(middle > 0, middle, torch.inf).sort(1).values, (middle > 0).sum(1, keepdim=True)
    rank = _DEPTH_QUANTILE * (num - 1).clamp_min(0).to(depth_m.dtype)
    below, above = (readings.gather(1, near.long()) for near in (rank.floor(), rank.ceil()))
    return torch.where(num > 0, below.lerp(above, rank - rank.floor()), torch.nan)[:, 0]


# ------------------------------------------------------------------------------------------- moving and mirroring hands


def rotate_params(params: HandParams, R: np.ndarray, wrist_cam_m: np.ndarray) -> HandParams:
    """Parameters of the same hand seen from a camera turned by R (numpy, one hand).

    The root joint sits at J0 in the model's frame and the model turns about it, so R' = R R_root and
    t' = R (J0 + t) - J0 (`FORMATS.md`, DexYCB). J0 is the labelled wrist minus the translation.

    Args:
        params: one hand.
        R: (3, 3) old camera to new camera.
        wrist_cam_m: (3,) wrist in the old camera.
    """
    root = wrist_cam_m - params.transl_m
    return HandParams(
        global_orient=R @ params.global_orient,
        hand_pose=params.hand_pose,
        betas=params.betas,
        transl_m=R @ wrist_cam_m - root,
    )


_MIRROR = (-1.0, 1.0, 1.0)


def mirror_points(points: Array) -> Array:
    """(..., 3) points through the plane x = 0."""
    sign = torch.tensor(_MIRROR).to(points) if isinstance(points, torch.Tensor) else np.array(_MIRROR, points.dtype)
    return points * sign


def mirror_rotations(R: Array) -> Array:
    """S R S with S = diag(-1, 1, 1): the rotation seen in a mirror, (..., 3, 3)."""
    sign = torch.tensor(_MIRROR).to(R) if isinstance(R, torch.Tensor) else np.array(_MIRROR, R.dtype)
    return R * sign[:, None] * sign


def mirror_params(params: HandParams) -> HandParams:
    """The mirrored hand, a left hand for a right one; its model is the mirrored model, so betas stay."""
    return HandParams(
        global_orient=mirror_rotations(params.global_orient),
        hand_pose=mirror_rotations(params.hand_pose),
        betas=params.betas,
        transl_m=mirror_points(params.transl_m),
    )


def mirror_camera(K_px: np.ndarray, width_px: int) -> np.ndarray:
    """K of the picture flipped left to right (x -> W - 1 - x) for points mirrored through x = 0, numpy."""
    flip = np.array([[-1.0, 0.0, width_px - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return flip @ K_px @ np.diag(_MIRROR)


# ---------------------------------------------------------------------------------------------------------- rotations


def rotation_6d_to_matrix(six: torch.Tensor) -> torch.Tensor:
    """(..., 6) first column then second column -> (..., 3, 3), by Gram-Schmidt (Zhou et al. 2019; WiLoR's layout)."""
    import roma  # costs a second to import

    return roma.special_gramschmidt(six.unflatten(-1, (2, 3)).transpose(-1, -2))


def matrix_to_rotation_6d(R: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) -> (..., 6), the first two columns one after the other."""
    return R[..., :2].transpose(-1, -2).flatten(-2)


def rotation_to_z(direction: np.ndarray) -> np.ndarray:
    """(..., 3) unit vectors with z > -1 -> (..., 3, 3) the smallest rotation that takes each to the z axis, numpy."""
    x, y, z = np.moveaxis(direction, -1, 0)
    k = 1 / (1 + z)
    rows = (1 - k * x * x, -k * x * y, -x), (-k * x * y, 1 - k * y * y, -y), (x, y, z)
    return np.stack([np.stack(row, -1) for row in rows], -2)


def axis_angle_to_matrix(axis_angle: Array) -> Array:
    """(..., 3) rotation vectors in radians -> (..., 3, 3). Numpy in, numpy out (every label that is read needs it: a
    kernel of our own, ten times faster than roma's for one hand)."""
    if isinstance(axis_angle, np.ndarray):
        return _rodrigues(axis_angle)
    import roma

    return roma.rotvec_to_rotmat(axis_angle)


def _rodrigues(axis_angle: np.ndarray) -> np.ndarray:
    """R = cos I + sin/angle [v] + (1 - cos)/angle^2 v v^T (Rodrigues), in the input's dtype, finite at 0."""
    x, y, z = (axis_angle[..., i] for i in range(3))
    squared = x * x + y * y + z * z
    half = 0.5 * np.sqrt(squared)
    half_sinc = np.sinc(half / np.pi)  # sin(half) / half, 1 at 0
    a, b = half_sinc * np.cos(half), 0.5 * half_sinc * half_sinc  # sin(angle) / angle, (1 - cos(angle)) / angle^2
    R = b[..., None, None] * (axis_angle[..., :, None] * axis_angle[..., None, :])
    cos = 1 - b * squared
    for i, j, s in ((2, 1, a * x), (0, 2, a * y), (1, 0, a * z)):
        R[..., i, j] += s
        R[..., j, i] -= s
    for i in range(3):
        R[..., i, i] += cos
    return R


def matrix_to_axis_angle(R: Array) -> Array:
    """(..., 3, 3) -> (..., 3) rotation vectors in radians, angle in [0, pi]. Numpy in, numpy out."""
    import roma

    if isinstance(R, np.ndarray):
        return roma.rotmat_to_rotvec(torch.from_numpy(np.ascontiguousarray(R))).numpy()
    return roma.rotmat_to_rotvec(R)


# ---------------------------------------------------------------------------------------------------------- alignment


def align_similarity(source: torch.Tensor, target: torch.Tensor, *, allow_reflection: bool = True) -> torch.Tensor:
    """Procrustes: `source` moved, turned and scaled onto `target` by least squares, batched.

    Follows HO3D's and FreiHAND's `align_w_scale` (scipy's `orthogonal_procrustes` on centred, norm-scaled points), with
    its two corners: 1e-8 is added to each norm, and the orthogonal matrix may be a reflection.

    Args:
        source: (B, N, 3).
        target: (B, N, 3).
        allow_reflection: False restricts to proper rotations (Umeyama 1991).

    Returns:
        (B, N, 3) aligned source.
    """
    mean_s, mean_t = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - mean_s, target - mean_t
    norm_s = torch.linalg.matrix_norm(s)[:, None, None] + 1e-8
    norm_t = torch.linalg.matrix_norm(t)[:, None, None] + 1e-8
    s, t = s / norm_s, t / norm_t
    U, w, Vh = torch.linalg.svd(t.transpose(1, 2) @ s)
    if not allow_reflection:
        sign = torch.ones_like(w)
        sign[:, -1] = torch.linalg.det(U @ Vh)
        U, w = U * sign[:, None], w * sign
    R = U @ Vh
    return (s @ R.transpose(1, 2)) * w.sum(-1)[:, None, None] * norm_t + mean_t
