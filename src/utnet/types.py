"""Data types: raw record -> Sample -> Batch -> Prediction -> loss, metrics, mesh.

Frozen dataclasses. `HandParams` and `HandMesh` hold numpy arrays for one hand or torch tensors with a leading batch
axis; `Sample` is one hand in numpy; `Batch` and `Prediction` are torch,
or numpy where an exported network runs. Frames and units: `utnet.conventions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from utnet.conventions import NUM_BETAS, NUM_JOINTS, SIDES
from utnet.errors import InputError
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle

if TYPE_CHECKING:
    import torch

Array: TypeAlias = Any
"""A numpy array or a torch tensor."""


@dataclass(frozen=True)
class _Mappable:
    """A dataclass of arrays with a function to transform every array."""

    def map(self, function: Callable[[Array], Array]) -> Self:
        """Returns a copy with `function` applied to every array, also in nested records; None and text are kept."""

        def apply(value):
            if isinstance(value, _Mappable):
                return value.map(function)
            return function(value) if hasattr(value, "shape") else value

        return replace(self, **{f.name: apply(getattr(self, f.name)) for f in fields(self)})

    def pin_memory(self) -> Self:
        """Returns a copy with every tensor in page-locked memory. Called by torch's DataLoader."""
        return self.map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> Self:
        """Returns a copy with every tensor on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


def check_shape(name: str, array: Array, expected: tuple[int | None, ...], where: str = "") -> None:
    """Raises ValueError unless `array` has the `expected` shape (None: any length).

    Args:
        name: what the array is, for the message.
        array: anything with a shape.
        expected: the full shape.
        where: the file or key it comes from, for the message.
    """
    shape = tuple(array.shape)
    if shape == expected:
        return
    if len(shape) != len(expected) or any(e is not None and e != s for s, e in zip(shape, expected, strict=True)):
        wanted = "(" + ", ".join("any" if e is None else str(e) for e in expected) + ")"
        raise ValueError(f"{where + ': ' if where else ''}{name} has shape {shape}, expected {wanted}")


@dataclass(frozen=True)
class HandParams(_Mappable):
    """Parameters of a hand model: one hand without, or a batch with, a leading axis B.

    Attributes:
        global_orient: (1, 3, 3) rotation of the root joint, hand to camera.
        hand_pose: (15, 3, 3) rotations of the other joints relative to their parents, MANO order, no mean pose added.
        betas: (10,) shape coefficients of the hand model.
        transl_m: (3,) translation added after the model: `joints_cam_m = joints_m + transl_m`. NaN in samples
            whose source does not label it (training tars).
    """

    global_orient: Array
    hand_pose: Array
    betas: Array
    transl_m: Array

    @classmethod
    def from_axis_angle(
        cls, pose: Array, betas: Array = None, transl_m: Array = None, *, mean_pose: Array = None
    ) -> HandParams:
        """Returns the parameters of MANO's 48 + 10 numbers (numpy or torch, as `pose` is).

        Args:
            pose: (48,) or (B, 48) rotation vectors in radians: the root's, then those of the 15 joints in MANO order;
                also with the last axis as (16, 3).
            betas: (10,) or (B, 10); None: zeros.
            transl_m: (3,) or (B, 3) in metres; None: zeros.
            mean_pose: (45,) added to the 15 joints, for poses relative to MANO's `hands_mean` (`flat_hand_mean=False`).

        Raises:
            InputError: an array of another shape.
        """
        pose = pose if hasattr(pose, "reshape") else np.asarray(pose, float)
        if tuple(pose.shape[-2:]) == (16, 3):
            pose = pose.reshape(*pose.shape[:-2], 48)
        if pose.shape[-1:] != (48,) or pose.ndim > 2:
            raise InputError(f"pose has shape {tuple(pose.shape)}, expected (48,) or (B, 48): root and 15 joints")
        lead = tuple(pose.shape[:-1])
        betas = _like(pose, "betas", betas, (*lead, NUM_BETAS))
        transl_m = _like(pose, "transl_m", transl_m, (*lead, 3))
        joints = pose[..., 3:] + _like(pose, "mean_pose", mean_pose, (45,))
        return cls(
            global_orient=axis_angle_to_matrix(pose[..., :3])[..., None, :, :],
            hand_pose=axis_angle_to_matrix(joints.reshape(*lead, 15, 3)),
            betas=betas,
            transl_m=transl_m,
        )

    def to_axis_angle(self, *, mean_pose: Array = None) -> tuple[Array, Array]:
        """Returns MANO's pose (48,) or (B, 48) and betas (10,) or (B, 10), the inverse of `from_axis_angle`.

        Angles are in [0, pi]. Poses relative to `mean_pose` (45,) can be any that give the same rotations.
        """
        lead = tuple(self.betas.shape[:-1])
        vectors = [matrix_to_axis_angle(R) for R in (self.global_orient, self.hand_pose)]
        root, joints = vectors[0].reshape(*lead, 3), vectors[1].reshape(*lead, 45)
        joints = joints - _like(joints, "mean_pose", mean_pose, (45,))
        if isinstance(root, np.ndarray):
            return np.concatenate([root, joints], -1), self.betas
        import torch

        return torch.cat([root, joints], -1), self.betas


def _like(pose: Array, name: str, values: Array, shape: tuple[int, ...]) -> Array:
    """`values` (None: zeros) as an array of the kind, dtype and device of `pose`; InputError for another shape."""
    if isinstance(pose, np.ndarray):
        array: Array = np.zeros(shape, pose.dtype) if values is None else np.asarray(values, pose.dtype)
    else:
        import torch

        given = torch.zeros(shape) if values is None else torch.as_tensor(values)
        array = given.to(pose)
    if tuple(array.shape) != shape:
        raise InputError(f"{name} has shape {tuple(array.shape)}, expected {shape}")
    return array


@dataclass(frozen=True)
class HandMesh(_Mappable):
    """A decoded hand in the hand model's frame (before translation).

    Attributes:
        joints_m: (B, 21, 3) OpenPose-21.
        mano_joints_m: (B, 16, 3) MANO order.
        vertices_m: (B, V, 3), or None if not requested.
    """

    joints_m: Array
    mano_joints_m: Array
    vertices_m: Array


@dataclass(frozen=True)
class Sample(_Mappable):
    """One labelled hand in one image (a whole picture or a crop of it), numpy.

    With a known camera and 3D labels the image points are `project(joints_cam_m, K_px)` and are not stored. Only
    sources with separate 2D labels (training tars, pictures with 2D annotations) fill `joints_px`.

    Attributes:
        key: unique within its source; used in messages and reports.
        rgb: (H, W, 3) uint8.
        K_px: (3, 3) intrinsics of exactly this image; the last row is 0 0 1, a small skew is allowed. None if the
            camera is unknown.
        side: "right" or "left", the hand in this image.
        box_px: (4,) tight box x0, y0, x1, y1 of the hand.
        joints_cam_m: (21, 3) camera frame (without a known camera: its axes, any origin), NaN where not labelled.
        joints_2d_conf: (21,) confidence of the joints as image points, 0 = not labelled.
        joints_3d_conf: (21,) confidence of the joints as 3D points, 0 = not labelled.
        depth_m: (H, W) float32 distance along z, 0 where there is no reading. None without a depth sensor.
        params: the hand's parameters (one hand, no batch axis), or None.
        betas_ok: False if `params.betas` belong to a model other than the right-handed one and must not be trained on.
        hand_model: "open" or "mano", the model of `params`.
        sequence: the recording of the frame ("" if none); splits and reports group by it.
        joints_px: (21, 2) image points of sources with separate 2D labels, NaN where not labelled, or None.
        vertices_cam_m: (V, 3) labelled mesh in the camera frame (of `hand_model`), or None.
        hand_mask: (H, W) bool, pixels of the hand, or None.
        is_crop: True for a square crop of a right hand that is ready for the network (synthetic hands).
        landmarks_m: (21, 3) landmarks of a detector in metres relative to the hand, axes of the camera, NaN where there
            is none, or None. Their image points are `joints_px`; they are not labels.
        landmarks: (21, 6) prompts of a crop as `UTNet.forward` takes them, or None.
        mask_cells: (h, h) share of each cell of the crop that is the visible hand, NaN where not known, or None.
        in_mirror: a crop shown in a mirror for the side head: a left hand, whose joints are not labelled.
    """

    key: str
    rgb: np.ndarray
    K_px: np.ndarray | None
    side: str
    box_px: np.ndarray
    joints_cam_m: np.ndarray
    joints_2d_conf: np.ndarray
    joints_3d_conf: np.ndarray
    depth_m: np.ndarray | None = None
    params: HandParams | None = None
    betas_ok: bool = True
    hand_model: str = "open"
    sequence: str = ""
    joints_px: np.ndarray | None = None
    vertices_cam_m: np.ndarray | None = None
    hand_mask: np.ndarray | None = None
    is_crop: bool = False
    landmarks_m: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    mask_cells: np.ndarray | None = None
    in_mirror: bool = False

    def __post_init__(self):
        check_shape("rgb", self.rgb, (None, None, 3), self.key)
        if self.K_px is not None:
            check_shape("K_px", self.K_px, (3, 3), self.key)
        elif self.joints_px is None:
            raise ValueError(f"{self.key}: neither K_px nor joints_px is given; a sample needs one of them")
        check_shape("box_px", self.box_px, (4,), self.key)
        check_shape("joints_cam_m", self.joints_cam_m, (NUM_JOINTS, 3), self.key)
        check_shape("joints_2d_conf", self.joints_2d_conf, (NUM_JOINTS,), self.key)
        check_shape("joints_3d_conf", self.joints_3d_conf, (NUM_JOINTS,), self.key)
        if self.side not in SIDES:
            raise ValueError(f"{self.key}: side is {self.side!r}, expected 'right' or 'left'")
        if self.depth_m is not None:
            check_shape("depth_m", self.depth_m, self.rgb.shape[:2], self.key)
        if self.params is not None:
            check_shape("params.global_orient", self.params.global_orient, (1, 3, 3), self.key)
            check_shape("params.hand_pose", self.params.hand_pose, (15, 3, 3), self.key)
            check_shape("params.betas", self.params.betas, (NUM_BETAS,), self.key)
            check_shape("params.transl_m", self.params.transl_m, (3,), self.key)
        if self.joints_px is not None:
            check_shape("joints_px", self.joints_px, (NUM_JOINTS, 2), self.key)
        if self.landmarks_m is not None:
            check_shape("landmarks_m", self.landmarks_m, (NUM_JOINTS, 3), self.key)
        if self.vertices_cam_m is not None:
            check_shape("vertices_cam_m", self.vertices_cam_m, (None, 3), self.key)
        if self.hand_mask is not None:
            check_shape("hand_mask", self.hand_mask, self.rgb.shape[:2], self.key)
        if self.landmarks is not None:
            check_shape("landmarks", self.landmarks, (NUM_JOINTS, 6), self.key)


@dataclass(frozen=True)
class Batch(_Mappable):
    """Crops of right (or mirrored) hands and their labels, torch (numpy on the way to an exported network), B samples.

    Attributes:
        rgb: (B, 3, H, W) uint8.
        depth_m: (B, H, W) float32, 0 where there is no reading.
        depth_ok: (B,) bool, True for samples with a depth image.
        K_px: (B, 3, 3) intrinsics of the crops, NaN if the camera is unknown.
        joints_2d: (B, 21, 3) x, y in crop units and confidence.
        joints_3d: (B, 21, 4) camera frame in metres and confidence.
        params: labels with a leading axis B (identity rotations and zeros where absent).
        params_ok: (B,) bool, the pose is labelled.
        betas_ok: (B,) bool, the shape is labelled.
        keys: the samples' keys.
        vertices_m: (B, V, 3) labelled mesh in the hand frame, only if a vertex loss is used.
        landmarks: (B, 21, 6) prompts as `UTNet.forward` takes them, or None.
        mask_cells: (B, h, h) share of each cell of the crop that is the visible hand, NaN where not labelled; or None.
        is_right: (B,) bool, False for crops shown in a mirror for the side head (their joints are not labelled); or
            None: all are right hands.
    """

    rgb: Array
    depth_m: Array
    depth_ok: Array
    K_px: Array
    joints_2d: Array
    joints_3d: Array
    params: HandParams
    params_ok: Array
    betas_ok: Array
    keys: tuple[str, ...]
    vertices_m: Array = None
    landmarks: Array = None
    mask_cells: Array = None
    is_right: Array = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Prediction(_Mappable):
    """Output of the network for B right-handed crops, torch (numpy of an exported network that is given numpy).

    Attributes:
        global_orient: (B, 1, 3, 3) rotation matrices.
        hand_pose: (B, 15, 3, 3) rotation matrices, no mean pose added.
        betas: (B, 10).
        cam: (B, 3) scale s and shift tx, ty (m) of the crop's camera.
        cam_t: (B, 3) translation in that camera (nominal focal length), m: (tx, ty, 2 f / s).
        joints_m: (B, 21, 3) hand frame.
        joints_crop: (B, 21, 2) projected, in crop units ([-0.5, 0.5] inside a square crop).
        vertices_m: (B, V, 3) hand frame, or None if not requested.
        coarse: the prediction before refinement, or None.
        joint_map: (B, 21, 3) joints by soft-argmax of the joint maps (x, y in crop units, depth relative to the wrist
            in m), or None for networks without that head.
        joint_heat: (B, 21, h, w) log-probability of each joint over the cells of its map, or None likewise.
        root_z_m: (B,) z of the wrist, measured from depth; NaN for samples without depth.
        joint_scale_mm: (B, 21) expected (mean) error of each joint relative to the wrist, 0 for the wrist itself, or
            None for networks without `model.uncertainty`. See `uncertainty.interval_mm` for intervals.
        error_shape: (B, 2) shape of the error distribution (k and p of `utnet.uncertainty`), or None.
        mask_logit: (B, h, w) logit of each cell of the crop to be the visible hand, or None without `model.evidence`.
        side_logit: (B,) above 0 where the crop looks like a right hand's, or None likewise.
    """

    global_orient: Array
    hand_pose: Array
    betas: Array
    cam: Array
    cam_t: Array
    joints_m: Array
    joints_crop: Array
    vertices_m: Array = None
    coarse: Prediction | None = None
    joint_map: Array = None
    joint_heat: Array = None
    root_z_m: Array = None
    joint_scale_mm: Array = None
    error_shape: Array = None
    mask_logit: Array = None
    side_logit: Array = None
