"""Measurements of a sample for `utnet data check`."""

from __future__ import annotations

from typing import Any

import numpy as np

from utnet.conventions import MM_PER_M, NUM_JOINTS, PARENTS, TIPS
from utnet.data.collate import MAX_DISTANCE_M, box_distance_m
from utnet.data.inspection.decode import Decoder, image_points, projected
from utnet.data.source import MIN_JOINT_Z_M
from utnet.types import Sample

HIDDEN_M = 0.03
"""Depth nearer than a joint by more than this is an object in front of the hand (joints lie 1 to 2 cm under the skin);
depth farther by more than this shows the background."""

BONES = tuple(joint for joint, parent in enumerate(PARENTS) if parent >= 0)
"""The bone that ends at each of these joints."""

# Why a sample's labels cannot be learnt, as bits.
_NAN_JOINTS, _NAN_2D, _NAN_PARAMS, _NO_ROTATION, _NAN_CAMERA = (2**i for i in range(5))
_BAD_BOX, _BAD_DEPTH, _FAR_DEPTH, _NAN_MESH = (2**i for i in range(5, 9))
FLAWS = {
    _NAN_JOINTS: "a 3D joint with confidence is NaN, infinite or behind the camera",
    _NAN_2D: "a 2D joint with confidence is NaN or infinite",
    _NAN_PARAMS: "parameters are NaN or infinite",
    _NO_ROTATION: "a rotation of the parameters is not a rotation matrix",
    _NAN_CAMERA: "the camera matrix is NaN or infinite, or a focal length is not positive",
    _BAD_BOX: "the box is empty, NaN or wholly outside the picture",
    _BAD_DEPTH: "depth is negative, NaN or infinite",
    _FAR_DEPTH: f"depth in the box is more than {MAX_DISTANCE_M:.0f} m: its unit is not metres",
    _NAN_MESH: "the labelled mesh is NaN or infinite",
}


class Measure:
    """Samples -> measurements, one row a sample; NaN where a sample does not have them."""

    def __init__(self, decoder: Decoder):
        self._decoder = decoder

    def __call__(self, samples: list[Sample]) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):  # NaN and infinity in labels are expected here
            decoded = self._decoder.joints_m(samples)
            rows = [self._row(sample, joints) for sample, joints in zip(samples, decoded, strict=True)]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _row(self, sample: Sample, decoded_m: np.ndarray) -> dict[str, Any]:
        joints, conf_2d, conf_3d = sample.joints_cam_m, sample.joints_2d_conf > 0, sample.joints_3d_conf > 0
        points, K = image_points(sample), sample.K_px
        height, width = sample.rgb.shape[:2]
        inside = (points > -0.5).all(1) & (points[:, 0] < width - 0.5) & (points[:, 1] < height - 0.5)
        labelled = np.where(conf_3d[:, None], joints, np.nan)
        x0, y0, x1, y1 = sample.box_px
        return {
            "left": sample.side == "left",
            "mano": sample.hand_model == "mano",
            "has_depth": sample.depth_m is not None,
            "has_params": sample.params is not None,
            "has_betas": sample.params is not None and sample.betas_ok,
            "has_camera": K is not None,
            "has_mesh": sample.vertices_cam_m is not None,
            "has_mask": sample.hand_mask is not None,
            "num_2d": np.count_nonzero(conf_2d),
            "num_3d": np.count_nonzero(conf_3d),
            "flaws": _flaws(sample, points),
            "outside": np.count_nonzero(conf_2d & np.isfinite(points).all(1) & ~inside),
            "box_cut": bool(x0 < -0.5 or y0 < -0.5 or x1 > width - 0.5 or y1 > height - 0.5),
            "on_mask": _share_on_mask(sample, points, conf_2d & inside),
            "behind_depth_m": depth_difference(sample, points, conf_3d & inside),
            "in_depth": np.count_nonzero(conf_3d & inside) if sample.depth_m is not None else 0,
            "size_mm": np.linalg.norm(labelled[9] - labelled[0]) * MM_PER_M,
            "bones_mm": np.float32(MM_PER_M)
            * np.linalg.norm(labelled[list(BONES)] - labelled[[PARENTS[j] for j in BONES]], axis=1).astype(np.float32),
            "model_px": _model_error_px(sample, decoded_m),
            "model_mm": _largest((decoded_m - decoded_m[0]) - (labelled - labelled[0])) * MM_PER_M,
            "mesh_mm": _mesh_error_mm(sample, self._decoder.tip_vertices(sample)),
            "labels_2d_share": _labels_2d_share(sample),
            "joints_m": labelled.astype(np.float32),
            "points_px": _own_points(sample).astype(np.float32),
            "K_px": np.full((3, 3), np.nan) if K is None else np.asarray(K, np.float64),
            "size_wh": np.array([width, height]),
            "box_px": np.asarray(sample.box_px, np.float64),
        }


def _own_points(sample: Sample) -> np.ndarray:
    """(21, 2) the source's own 2D labels, NaN where there is none."""
    if sample.joints_px is None:
        return np.full((NUM_JOINTS, 2), np.nan)
    return np.where((sample.joints_2d_conf > 0)[:, None], sample.joints_px, np.nan)


def _flaws(sample: Sample, points: np.ndarray) -> int:
    """The sample's `FLAWS` as bits."""
    joints, params, K = sample.joints_cam_m, sample.params, sample.K_px
    labelled = joints[sample.joints_3d_conf > 0]
    wrong = {
        _NAN_JOINTS: not np.isfinite(labelled).all(),
        _NAN_2D: not np.isfinite(points[sample.joints_2d_conf > 0]).all(),
        _NAN_CAMERA: K is not None and not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0),
        _BAD_BOX: _is_bad_box(sample),
        _BAD_DEPTH: sample.depth_m is not None and not (np.isfinite(sample.depth_m) & (sample.depth_m >= 0)).all(),
        _FAR_DEPTH: not _is_bad_box(sample) and box_distance_m(sample) > MAX_DISTANCE_M,
        _NAN_MESH: sample.vertices_cam_m is not None and not np.isfinite(sample.vertices_cam_m).all(),
    }
    if params is not None:
        R = np.concatenate([params.global_orient, params.hand_pose])
        finite = bool(np.isfinite(R).all() and np.isfinite(params.betas).all())
        wrong[_NAN_PARAMS] = not finite
        off = np.abs(R @ R.swapaxes(1, 2) - np.eye(3)).max() if finite else 0.0
        wrong[_NO_ROTATION] = finite and bool(off > 1e-3 or (np.linalg.det(R) < 0).any())
    return sum(bit for bit, is_wrong in wrong.items() if is_wrong)


def _is_bad_box(sample: Sample) -> bool:
    x0, y0, x1, y1 = sample.box_px
    height, width = sample.rgb.shape[:2]
    return not (x0 < x1 and y0 < y1 and x1 > -0.5 and y1 > -0.5 and x0 < width - 0.5 and y0 < height - 0.5)


def _pixels(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of image points that lie inside the picture."""
    x, y = np.rint(points).astype(int).T
    return y, x


def depth_difference(sample: Sample, points: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """(21,) float32 depth at the joints minus their z: a few mm negative where the skin lies in front of the joint.

    Uses the reading nearest to the joint among the 3 x 3 pixels around it: fingertips lie on the hand's outline, where
    a single pixel may show the background.
    """
    out = np.full(len(points), np.nan, np.float32)
    if sample.depth_m is None or not usable.any():
        return out
    y, x = _pixels(points[usable])
    rows = np.clip(y[:, None] + np.repeat([-1, 0, 1], 3), 0, sample.depth_m.shape[0] - 1)
    columns = np.clip(x[:, None] + np.tile([-1, 0, 1], 3), 0, sample.depth_m.shape[1] - 1)
    read = sample.depth_m[rows, columns]
    difference = np.where(read > 0, read - sample.joints_cam_m[usable, 2:], np.inf)
    nearest = np.take_along_axis(difference, np.abs(difference).argmin(1)[:, None], 1)[:, 0]
    out[usable] = np.where(np.isfinite(nearest), nearest, np.nan)
    return out


def _share_on_mask(sample: Sample, points: np.ndarray, usable: np.ndarray) -> float:
    if sample.hand_mask is None or not usable.any():
        return np.nan
    return float(sample.hand_mask[_pixels(points[usable])].mean())


def _largest(vectors: np.ndarray) -> float:
    """Largest length of the finite vectors; NaN where there is none."""
    lengths = np.linalg.norm(vectors, axis=-1)
    lengths = lengths[np.isfinite(lengths)]
    return float(lengths.max()) if len(lengths) else np.nan


def _model_error_px(sample: Sample, decoded_m: np.ndarray) -> float:
    """Largest distance in px between the decoded and the labelled joints, both projected."""
    if sample.params is None or sample.K_px is None:
        return np.nan
    labelled = np.where((sample.joints_3d_conf > 0)[:, None], sample.joints_cam_m, np.nan)
    ours = projected(decoded_m + sample.params.transl_m, sample.K_px)
    return _largest(ours - projected(labelled, sample.K_px))


def _mesh_error_mm(sample: Sample, tip_vertices: np.ndarray | None) -> float:
    """Largest distance of a labelled fingertip from its vertex of the labelled mesh."""
    if sample.vertices_cam_m is None or tip_vertices is None or len(sample.vertices_cam_m) <= tip_vertices.max():
        return np.nan
    tips = list(TIPS)
    labelled = np.where((sample.joints_3d_conf > 0)[tips, None], sample.joints_cam_m[tips], np.nan)
    return _largest(sample.vertices_cam_m[tip_vertices] - labelled) * MM_PER_M


def _labels_2d_share(sample: Sample) -> float:
    """Median distance of the source's own 2D labels from its projected joints, in longer sides of the box."""
    if sample.joints_px is None or sample.K_px is None:
        return np.nan
    both = (sample.joints_2d_conf > 0) & (sample.joints_3d_conf > 0) & (sample.joints_cam_m[:, 2] > MIN_JOINT_Z_M)
    if not both.any():
        return np.nan
    off = np.linalg.norm(sample.joints_px - projected(sample.joints_cam_m, sample.K_px), axis=1)[both]
    return float(np.median(off) / max(np.ptp(sample.box_px[[0, 2]]), np.ptp(sample.box_px[[1, 3]])))
