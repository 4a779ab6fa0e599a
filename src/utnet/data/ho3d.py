"""HO3D v2 and v3 (Hampali et al., CVPR 2020) -> Sample. Files as the ho3d scripts read them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from utnet import layouts
from utnet.conventions import MANO21_TO_OPENPOSE
from utnet.data.files import check_size, read_bytes, read_image, read_rgb
from utnet.data.source import check_depth, evenly_spaced, ground_truth_box
from utnet.errors import InputError
from utnet.geometry import axis_angle_to_matrix, rotate_params
from utnet.safe_pickle import load_pickle
from utnet.types import HandParams, Sample

_C = layouts.OPENGL_TO_OPENCV
_DEPTH_EXPECTED = "HO3D's PNG, red + 256 * green in units of 0.125 mm"


class Ho3d:
    """Whole 640x480 pictures of one split, right hands.

    Training frames have joints and parameters (MANO's, or the open hand's in trees that UTNet wrote). Evaluation frames
    have the root joint and a box; all joints where `evaluation_xyz.json` lies beside the list. Joints that are not
    labelled repeat the wrist and have confidence 0.
    """

    name, tips = "ho3d", "ho3d"

    def __init__(
        self, root: str | Path, *, split: str = "train", limit: int | None = None, hand_model: str = "auto",
        with_depth: bool = True,
    ):  # fmt: skip
        self.root, self.split, self._with_depth = Path(root), split, with_depth
        if split not in layouts.HO3D_SPLITS:
            raise InputError(f"HO3D has no split {split!r}; expected one of {', '.join(layouts.HO3D_SPLITS)}")
        if hand_model not in ("auto", "open", "mano"):
            raise InputError(f"hand_model is {hand_model!r}; expected auto, open or mano")
        if not self.root.is_dir():
            raise InputError(
                f"{self.root}: no such folder; give the folder that holds HO3D's train and evaluation folders"
            )
        self._hand_model = hand_model
        self._frames = _read_list(self.root / layouts.ho3d_list(split))
        self._truth = _read_truth(self.root / layouts.HO3D_XYZ, len(self._frames)) if split == "evaluation" else None
        candidates = evenly_spaced(len(self._frames), limit)
        self._ids = np.array([i for i in candidates if self._is_annotated(i)], np.int64)
        if not len(self._ids):
            raise InputError(f"{self.root}: split {split} has no annotated frame; choose the other split")

    def __len__(self) -> int:
        return len(self._ids)

    def official_index(self, index: int) -> int:
        """The line of sample `index` in train.txt or evaluation.txt, from 0: its place in a submission."""
        return int(self._ids[index])

    def sequence(self, index: int) -> str:
        return self._frames[self._ids[index]].split("/")[0]

    def key(self, index: int) -> str:
        return f"{self.split}/{self._frames[self._ids[index]]}"

    def __getitem__(self, index: int) -> Sample:
        frame = self._frames[self._ids[index]]
        path, meta = self._path(frame, "meta", ".pkl"), self._read_meta(frame)
        K = _numbers(meta, "camMat", (3, 3), path)
        joints, labelled = self._joints(meta, path, int(self._ids[index]))
        if not labelled[0] or joints[0, 2] <= 0:
            raise InputError(
                f"{path}: handJoints3D is not a hand before the camera; extract or download the file again"
            )
        depth_path = self._path(frame, "depth", ".png")
        sample = Sample(
            key=self.key(index),
            rgb=read_rgb(self._rgb_path(frame), layouts.HO3D_SIZE_WH),
            K_px=K,
            side="right",
            box_px=self._box(meta, path, joints, K),
            joints_cam_m=joints,
            joints_2d_conf=labelled * (joints[:, 2] > 0),
            joints_3d_conf=labelled,
            depth_m=_read_depth(depth_path) if self._with_depth else None,
            params=self._params(meta, path, joints[0]),
            hand_model=self._model_of(meta),
            sequence=self.sequence(index),
        )
        check_depth(sample, depth_path, _DEPTH_EXPECTED)
        return sample

    def _path(self, frame: str, folder: str, suffix: str) -> Path:
        return self.root / layouts.ho3d_file(self.split, frame, folder, suffix)

    def _rgb_path(self, frame: str) -> Path:
        """PNG first, as the official script looks for it."""
        paths = [self._path(frame, "rgb", suffix) for suffix in layouts.HO3D_RGB_SUFFIXES.values()]
        return next((path for path in paths if path.is_file()), paths[-1])

    def _read_meta(self, frame: str) -> dict:
        path = self._path(frame, "meta", ".pkl")
        meta = load_pickle(path)
        if not isinstance(meta, dict):
            raise InputError(f"{path}: holds a {type(meta).__name__}, expected HO3D's dictionary of annotations")
        return meta

    def _is_annotated(self, official: int) -> bool:
        """False where the annotation is None. An unreadable file stays in, to fail by name when it is read."""
        needed = ("objRot", "handJoints3D") if self.split == "evaluation" else ("objRot", "handJoints3D", "handPose")
        try:
            meta = self._read_meta(self._frames[official])
        except InputError:
            return True
        return all(name not in meta or meta[name] is not None for name in needed)

    def _model_of(self, meta: dict) -> str:
        if self._hand_model != "auto":
            return self._hand_model
        return layouts.OPEN_HAND if meta.get(layouts.HO3D_HAND_MODEL_KEY) == layouts.OPEN_HAND else "mano"

    def _joints(self, meta: dict, path: Path, official: int) -> tuple[np.ndarray, np.ndarray]:
        """(21, 3) joints in the OpenCV camera, OpenPose-21, and (21,) which of them are labelled."""
        if self.split == "train":
            joints = _numbers(meta, "handJoints3D", (21, 3), path)[list(MANO21_TO_OPENPOSE)]
        elif self._truth is not None:
            joints = self._truth[official][list(MANO21_TO_OPENPOSE)]
        else:
            root = _numbers(meta, "handJoints3D", (3,), path)
            return np.tile(root @ _C, (21, 1)), np.eye(21, dtype=np.float32)[0]
        return joints @ _C, np.ones(21, np.float32)

    def _box(self, meta: dict, path: Path, joints: np.ndarray, K: np.ndarray) -> np.ndarray:
        """The published box in evaluation, the ground-truth-box protocol in training."""
        if self.split == "train":
            return ground_truth_box(joints, K, layouts.HO3D_SIZE_WH, str(path))
        box = _numbers(meta, "handBoundingBox", (4,), path)
        if not (box[2] > box[0] and box[3] > box[1]):
            raise InputError(f"{path}: handBoundingBox {box.tolist()} is empty, expected x1 < x2 and y1 < y2")
        return box

    def _params(self, meta: dict, path: Path, wrist_cam_m: np.ndarray) -> HandParams | None:
        """48 axis-angle and a translation in OpenGL axes -> parameters in the OpenCV camera.

        R' = C R and t' = C (t + J0) - J0, where t + J0 is the labelled wrist, so no model file is needed. C turns the
        axes by half a turn about x.
        """
        if self.split != "train":
            return None
        pose = axis_angle_to_matrix(_numbers(meta, "handPose", (48,), path).reshape(16, 3))
        params = HandParams(
            global_orient=pose[:1],
            hand_pose=pose[1:],
            betas=_numbers(meta, "handBeta", (10,), path),
            transl_m=_numbers(meta, "handTrans", (3,), path),
        )
        return rotate_params(params, _C, wrist_cam_m @ _C)


def _numbers(meta: dict, name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """float64 array of an annotation, or InputError naming the file and the key."""
    try:
        value = np.asarray(meta[name], np.float64)
    except KeyError as error:
        raise InputError(f"{path}: has no key {name!r}; not HO3D's annotation, or that of another split") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {name} is not an array of numbers") from error
    if value.size != np.prod(shape) or not np.isfinite(value).all():
        raise InputError(f"{path}: {name} has shape {value.shape}, expected {shape} of finite numbers")
    return value.reshape(shape)


def _read_list(path: Path) -> list[str]:
    lines = (
        read_bytes(path, "give the folder that holds train.txt and evaluation.txt").decode("utf-8", "replace").split()
    )
    for number, line in enumerate(lines, 1):
        if line.count("/") != 1:
            raise InputError(f"{path}: entry {number} is {line!r}, expected SEQUENCE/ID")
    if not lines:
        raise InputError(f"{path}: lists no frames; choose the other split, or get the file again")
    return lines


def _read_truth(path: Path, num: int) -> np.ndarray | None:
    """(num, 21, 3) published joints of the evaluation split (OpenGL axes, HO3D order), None if they are not there."""
    if not path.is_file():
        return None
    try:
        truth = np.asarray(json.loads(read_bytes(path)), np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a JSON list of (21, 3) joints; get the file again") from error
    if truth.shape != (num, 21, 3):
        raise InputError(f"{path}: shape {truth.shape}, expected ({num}, 21, 3), one entry a line of evaluation.txt")
    if not np.isfinite(truth).all():
        raise InputError(f"{path}: holds a joint that is NaN or inf; get the file again")
    return truth


def _read_depth(path: Path) -> np.ndarray:
    depth = read_image(path, flags=cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint8 or depth.ndim != 3:
        raise InputError(f"{path}: {depth.dtype} with shape {depth.shape}; expected {_DEPTH_EXPECTED}")
    check_size(path, depth, layouts.HO3D_SIZE_WH)
    return layouts.ho3d_depth_decode(depth[..., 2::-1])
