"""Cameras, crops, mirrors and alignment, for numpy arrays and torch tensors alike unless a docstring names one; torch
is not imported.

Rotations are matrices; their conversions are in `utnet.rotations`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, overload

import numpy as np

from utnet.types import Array, HandParams

if TYPE_CHECKING:
    import torch

# ------------------------------------------------------------------------------------------------------------- camera


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """(3, 3) float64 camera matrix from focal lengths and principal point in pixels."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def project(points_cam_m: Array, K_px: Array) -> Array:
    """Pinhole projection.

    Args:
        points_cam_m: (..., N, 3) in the camera frame, z > 0.
        K_px: (..., 3, 3) intrinsics, skew included.

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
    """Longer side of the tight box of (N, 2) points."""
    return float(np.ptp(points_px, axis=0).max())


def normalized_distance_percent(points_px: np.ndarray, other_px: np.ndarray) -> np.ndarray:
    """(N,) distances between (N, 2) points, in percent of the longer side of the tight box of `points_px`."""
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
    """Affine from the full image to a square crop around a box.

    The square's side is `expand` times the box's longer side; its centre (in the pixel-centre convention) maps to
    the crop's centre (size - 1) / 2, so the edges of a crop are the outer edges of its pixels.

    Args:
        box_px: (4,) tight box x0, y0, x1, y1.
        size_px: side of the crop.
        expand: side of the square over the longer side of the box.
        aspect: width over height of the part of the square that the network takes. The box is fitted into that part,
            so a wide box gives a larger square (WiLoR: 0.75).
        rotation_rad: rotation of the picture (positive: from x towards y).
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
    """Size of a crop and half-widths of its random changes; see `utnet.config.CropConfig`."""

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
    """Camera of a crop, and its rotation.

    Rotating a picture is rotating the camera about its axis: points are rotated by R, and K' = A K R^T. With fx != fy
    K' has a slight skew.

    Args:
        A: (3, 3) affine from `crop_affine` (a similarity).
        K_px: (3, 3) of the full image, or None if unknown (3D labels rotate with the picture all the same).

    Returns:
        K' (3, 3) of the crop (None without K) and R (3, 3), camera of the full image to camera of the crop, such that
        `project(points @ R.T, K') == A(project(points, K))`.
    """
    angle = math.atan2(A[1, 0], A[0, 0])
    cos, sin = math.cos(angle), math.sin(angle)
    R = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return None if K_px is None else A @ K_px @ R.T, R


def px_to_crop(points_px: Array, size_px: int) -> Array:
    """Pixels of a square crop to crop units (outer edges at -0.5 and 0.5)."""
    return (points_px + 0.5) / size_px - 0.5


def crop_to_px(points_crop: Array, size_px: int) -> Array:
    """Inverse of `px_to_crop`."""
    return (points_crop + 0.5) * size_px - 0.5


def apply_affine(A: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """Applies a (3, 3) affine to (..., 2) points, numpy."""
    return points_px @ A[:2, :2].T + A[:2, 2]


_DEPTH_QUANTILE = 0.2
"""The hand is mostly the nearest object in its box; edge-on it covers less than a third of the box."""


def hand_distance(depth_m: torch.Tensor) -> torch.Tensor:
    """Robust distance of the hand: a quantile of the depth over the middle of its crop, torch.

    The middle half of a crop lies inside the hand's box for any margin up to twice the box.

    Args:
        depth_m: (B, H, W), 0 where there is no reading.

    Returns:
        (B,) metres; NaN if there is no reading in the middle.
    """
    height, width = depth_m.shape[1:]
    middle = depth_m[:, height // 4 : height - height // 4 : 2, width // 4 : width - width // 4 : 2].flatten(1)
    # torch.nanquantile without NaN, which OpenVINO cannot sort: sort readings first, interpolate between two ranks.
    readings, num = middle.where(middle > 0, math.inf).sort(1).values, (middle > 0).sum(1, keepdim=True)
    rank = _DEPTH_QUANTILE * (num - 1).clamp_min(0).to(depth_m.dtype)
    below, above = (readings.gather(1, near.long()) for near in (rank.floor(), rank.ceil()))
    return below.lerp(above, rank - rank.floor()).where(num > 0, math.nan)[:, 0]


# ------------------------------------------------------------------------------------------- moving and mirroring hands


def rotate_params(params: HandParams, R: np.ndarray, wrist_cam_m: np.ndarray) -> HandParams:
    """Parameters of the same hand in a camera rotated by R (numpy, one hand).

    The root joint is at J0 in the model's frame and the model rotates about it, so R' = R R_root and
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
    """Mirrors (..., 3) points at the plane x = 0."""
    return points * _mirror_signs(points)


def mirror_rotations(R: Array) -> Array:
    """Mirrors (..., 3, 3) rotations: S R S with S = diag(-1, 1, 1)."""
    sign = _mirror_signs(R)
    return R * sign[:, None] * sign


def _mirror_signs(like: Array) -> Array:
    """(3,) of the kind, dtype and device of an array or a tensor."""
    return np.array(_MIRROR, like.dtype) if isinstance(like, np.ndarray) else like.new_tensor(_MIRROR)


def mirror_params(params: HandParams) -> HandParams:
    """Parameters of the mirrored hand (a left hand for a right one) in the mirrored hand model; betas stay the same."""
    return HandParams(
        global_orient=mirror_rotations(params.global_orient),
        hand_pose=mirror_rotations(params.hand_pose),
        betas=params.betas,
        transl_m=mirror_points(params.transl_m),
    )


def mirror_camera(K_px: np.ndarray, width_px: int) -> np.ndarray:
    """K of the picture flipped left to right (x -> W - 1 - x), for points mirrored at x = 0, numpy."""
    flip = np.array([[-1.0, 0.0, width_px - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return flip @ K_px @ np.diag(_MIRROR)


# ---------------------------------------------------------------------------------------------------------- alignment


def align_similarity(source: np.ndarray, target: np.ndarray, *, allow_reflection: bool = True) -> np.ndarray:
    """Procrustes alignment: the similarity of `source` that is nearest to `target` (least squares), batched, numpy.

    Follows HO3D's and FreiHAND's `align_w_scale` (scipy's `orthogonal_procrustes` on centred, norm-scaled points): 1e-8
    is added to each norm, and the orthogonal matrix may be a reflection.

    Args:
        source: (B, N, 3).
        target: (B, N, 3).
        allow_reflection: False restricts to proper rotations (Umeyama 1991).

    Returns:
        (B, N, 3) aligned source.
    """
    mean_s, mean_t = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    s, t = source - mean_s, target - mean_t
    norm_s = np.linalg.norm(s, axis=(1, 2), keepdims=True) + 1e-8
    norm_t = np.linalg.norm(t, axis=(1, 2), keepdims=True) + 1e-8
    s, t = s / norm_s, t / norm_t
    U, w, Vh = np.linalg.svd(t.swapaxes(1, 2) @ s)
    if not allow_reflection:
        sign = np.ones_like(w)
        sign[:, -1] = np.linalg.det(U @ Vh)
        U, w = U * sign[:, None], w * sign
    R = U @ Vh
    return (s @ R.swapaxes(1, 2)) * w.sum(-1)[:, None, None] * norm_t + mean_t
