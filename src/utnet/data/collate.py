"""Samples -> Batch. Missing labels become zeros with confidence 0."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utnet.conventions import NUM_BETAS
from utnet.data.source import MIN_JOINT_Z_M
from utnet.geometry import project, px_to_crop
from utnet.types import Batch, HandParams, Sample

MAX_DISTANCE_M = 10.0
"""Range of depth sensors for hands; larger numbers are not metres."""

_NO_PARAMS = HandParams(np.eye(3)[None], np.tile(np.eye(3), (15, 1, 1)), np.zeros(NUM_BETAS), np.zeros(3))


def collate(samples: Sequence[Sample], *, hand_model: str = "open", root_id: int = 0) -> Batch:
    """`stack_samples` in torch's tensors, which share its memory."""
    import torch

    return stack_samples(samples, hand_model=hand_model, root_id=root_id).map(torch.from_numpy)


def stack_samples(samples: Sequence[Sample], *, hand_model: str = "open", root_id: int = 0) -> Batch:
    """Square crops of right hands -> Batch of numpy arrays.

    A joint without a label (confidence 0, NaN) becomes 0 with confidence 0; a source's own image points (`joints_px`)
    take precedence over projected ones. 3D losses are relative to a root: without a labelled wrist and root all 3D
    confidences are 0.

    Args:
        samples: of one size.
        hand_model: the trained model; parameters of another one are ignored (`params_ok` False), joints are used.
        root_id: the root of the 3D loss.
    """
    size_px = samples[0].rgb.shape[0]
    for sample in samples:
        if sample.side != "right" or sample.rgb.shape != (size_px, size_px, 3):
            raise ValueError(
                f"{sample.key}: {sample.side} hand, rgb {sample.rgb.shape}; expected right hands in square crops"
            )
    rgb = np.empty((len(samples), 3, size_px, size_px), np.uint8)
    depth = np.zeros((len(samples), size_px, size_px), np.float32)
    for i, sample in enumerate(samples):
        cv2.split(sample.rgb, list(rgb[i]))  # into the batch itself
        if sample.depth_m is not None:
            depth[i] = sample.depth_m
    ok = np.array([s.params is not None and s.hand_model == hand_model for s in samples])
    params = [(s.params or _NO_PARAMS) if good else _NO_PARAMS for s, good in zip(samples, ok, strict=True)]
    return Batch(
        rgb=rgb,
        depth_m=depth,
        depth_ok=np.array([s.depth_m is not None for s in samples]),
        K_px=_floats(np.stack([_camera(s) for s in samples])),
        joints_2d=_floats(np.stack([_image_points(s, size_px) for s in samples])),
        joints_3d=_floats(np.stack([_points(s, root_id) for s in samples])),
        params=HandParams(
            global_orient=_floats(np.stack([p.global_orient for p in params])),
            hand_pose=_floats(np.stack([p.hand_pose for p in params])),
            betas=_floats(np.stack([p.betas for p in params])),
            transl_m=_floats(np.stack([p.transl_m for p in params])),
        ),
        params_ok=ok,
        betas_ok=ok & np.array([s.betas_ok for s in samples]),
        keys=tuple(s.key for s in samples),
        landmarks=_stacked([s.landmarks for s in samples], 0.0),
        mask_cells=_stacked([s.mask_cells for s in samples], np.nan),
        is_right=np.array([not s.in_mirror for s in samples]),
    )


def _stacked(arrays: Sequence[np.ndarray | None], absent: float) -> np.ndarray | None:
    """Stacks arrays of one shape, with `absent` for None; None if all are None."""
    shape = next((array.shape for array in arrays if array is not None), None)
    if shape is None:
        return None
    return _floats(np.stack([np.full(shape, absent) if array is None else array for array in arrays]))


def label_fault(sample: Sample) -> str:
    """A message on a used label that is not finite, an empty box, or depth in another unit; "" without faults.

    Unused labels may be NaN: joints without confidence, and `params.transl_m`.
    """
    points, params, box = sample.joints_px, sample.params, sample.box_px
    conf_2d, conf_3d = sample.joints_2d_conf, sample.joints_3d_conf
    checked = [
        ("the box", box),
        ("a confidence", conf_2d),
        ("a confidence", conf_3d),
        ("a labelled joint", sample.joints_cam_m[conf_3d > 0]),
    ]
    if points is not None:
        checked.append(("a labelled joint", points[conf_2d > 0]))
    if sample.K_px is not None:
        checked.append(("K", sample.K_px))
    if params is not None:
        checked += [("a rotation", params.global_orient), ("a rotation", params.hand_pose), ("betas", params.betas)]
    for name, values in checked:
        if not np.isfinite(values).all():
            return f"{sample.key}: {name} is not finite; mend or leave out the label"
    if not (box[2] > box[0] and box[3] > box[1]):
        return f"{sample.key}: the box {np.round(box, 1).tolist()} is empty; mend or leave out the label"
    distance_m = box_distance_m(sample)
    if distance_m > MAX_DISTANCE_M:
        return f"{sample.key}: the hand is at {distance_m:.0f} m in the depth image; depth_m must be in metres"
    return ""


def box_distance_m(sample: Sample) -> float:
    """Rough distance of the hand by depth: a low quantile of every fourth reading in the box; NaN without a reading.

    The hand is usually the nearest object in its box.
    """
    if sample.depth_m is None:
        return np.nan
    x0, y0, x1, y1 = np.rint(np.maximum(sample.box_px, 0)).astype(int).tolist()
    part = sample.depth_m[y0 : y1 + 1 : 4, x0 : x1 + 1 : 4]
    read = part[part > 0]
    return float(np.partition(read, len(read) // 5)[len(read) // 5]) if len(read) else np.nan


def _floats(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _camera(sample: Sample) -> np.ndarray:
    return np.full((3, 3), np.nan) if sample.K_px is None else sample.K_px


def _image_points(sample: Sample, size_px: int) -> np.ndarray:
    """(21, 3) x, y in crop units and confidence. A joint behind the camera has no image point."""
    conf = sample.joints_2d_conf
    if sample.joints_px is not None:
        points, seen = sample.joints_px.astype(np.float64), np.isfinite(sample.joints_px).all(1) | (conf > 0)
    else:
        joints = sample.joints_cam_m.astype(np.float64)
        seen = joints[:, 2] > MIN_JOINT_Z_M
        points = project(np.where(seen[:, None], joints, [0.0, 0.0, 1.0]), _camera(sample))
    points = np.where(seen[:, None], px_to_crop(points, size_px), 0.0)
    return np.column_stack([points, np.where(seen, conf, 0.0)])


def _points(sample: Sample, root_id: int) -> np.ndarray:
    """(21, 4) camera frame in metres and confidence."""
    joints, conf = sample.joints_cam_m, sample.joints_3d_conf
    known = np.isfinite(joints).all(1)
    if not (known[0] and known[root_id]):
        conf = np.zeros_like(conf)
    # A NaN with a positive confidence is an error of the source, and is not hidden.
    return np.column_stack([np.where((known | (conf > 0))[:, None], joints, 0.0), conf])
