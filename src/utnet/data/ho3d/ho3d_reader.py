"""HO3D v2 and v3 (Hampali et al., CVPR 2020) and H2O3D (CVPR 2022) -> Sample. Files as the ho3d scripts read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from utnet.conventions import MANO21_TO_OPENPOSE, SIDES
from utnet.data.cache import cached_arrays
from utnet.data.ho3d.ho3d_index import SPLITS, lines_of_split, official_list, read_index, read_meta
from utnet.data.source import check_depth, evenly_spaced, ground_truth_box
from utnet.errors import InputError
from utnet.geometry import rotate_params
from utnet.hand import HandModel
from utnet.hand.mano import load_mano, mano_file
from utnet.io import layouts
from utnet.io.files import check_size, read_image, read_rgb
from utnet.io.json_rows import read_rows
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams, Sample

_C = layouts.OPENGL_TO_OPENCV
_ORDER = list(MANO21_TO_OPENPOSE)
_DEPTH_EXPECTED = "HO3D's PNG, red + 256 * green in units of 0.125 mm"


class Ho3d:
    """Full 640x480 pictures of one split: right hands in HO3D, two samples per frame in H2O3D.

    Training frames have joints and parameters (MANO's, or the open hand's in trees that UTNet wrote); the parameters
    contain no mean pose, so they decode with `flat_hand_mean=True` and HO3D's fingertips (`hand_model_of`). Evaluation
    frames have the root joint and a box, and every line of evaluation.txt is a sample that a network can predict; where
    HO3D's `evaluation_xyz.json` lies beside the list, all joints are labelled. Joints that are not labelled are NaN
    with confidence 0, and H2O3D's `jointValid*` and `poseValid*` are honoured: `params` is None where any angle or the
    wrist is not labelled.

    H2O3D's own set-up negates the whole of MANO_LEFT's `shapedirs`, and one `handBeta` serves both hands: the betas of
    its left hands belong to that model and to no other, so `betas_ok` is False for them.

    The list of annotated frames is read once and cached; see `ho3d_index.read_index` for how changes are detected.

    Args:
        root: the folder of train.txt, evaluation.txt and the folders train and evaluation.
        split: "train" (the full official list), "evaluation", or "train_fit" and "val", which divide train by
            recording (`ho3d_index.held_out`).
        limit: at most this many samples, evenly spaced over those that are annotated.
        sides: "right", "left" (H2O3D only) or "both".
        hand_model: model of the labels, "open", "mano", or "auto": detected (MANO if unmarked).
        mano: folder of the user's MANO_RIGHT.pkl and MANO_LEFT.pkl; needed only to decode vertices.
        with_depth: read the depth images.
        with_vertices: return `vertices_cam_m`: decoded from the parameters, in evaluation the published ones.
        refresh: rebuild the list of annotated frames.

    Attributes:
        two_hands: it is H2O3D.
        num_official: lines of the split's list: what a submission has to have.
        counts: numbers of frames by kind.

    Raises:
        InputError: no such folder, list, split or option, no annotated frame, or a file that `with_vertices` needs.
    """

    name, tips = "ho3d", "ho3d"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        limit: int | None = None,
        sides: str = "both",
        hand_model: str = "auto",
        mano: str | Path | None = None,
        with_depth: bool = True,
        with_vertices: bool = False,
        refresh: bool = False,
    ):
        self.root, self.split, self._folder = Path(root), split, official_list(split)
        self._with_depth, self._with_vertices = with_depth, with_vertices
        if split not in SPLITS:
            raise InputError(f"HO3D has no split {split!r}; expected one of {', '.join(SPLITS)}")
        if hand_model not in ("auto", "open", "mano"):
            raise InputError(f"hand_model is {hand_model!r}; expected auto, open or mano")
        if sides not in (*SIDES, "both"):
            raise InputError(f"data.sides is {sides!r}; expected right, left or both")
        if not self.root.is_dir():
            raise InputError(
                f"{self.root}: no such folder; give the folder that holds HO3D's train and evaluation folders"
            )
        self._hand_model, self._mano = hand_model, mano
        self._index = read_index(self.root, self._folder, refresh=refresh)
        self.two_hands, self.num_official = self._index.two_hands, len(self._index.frames)
        self._keys = {side: layouts.ho3d_keys(side, two_hands=self.two_hands) for side in SIDES}
        self._rows, self.counts = self._choose(sides, limit)
        self._truth = self._published(layouts.HO3D_XYZ, (21, 3), np.float64)
        self._vertices = self._published(layouts.HO3D_VERTS, (None, 3), np.float32) if with_vertices else None
        self._models: dict[str, HandModel] = {}
        if with_vertices:
            self._prepare_vertices()

    def __len__(self) -> int:
        return len(self._rows)

    def official_index(self, index: int) -> int:
        """The line of sample `index` in train.txt or evaluation.txt, from 0: its place in a submission."""
        return int(self._rows[index, 0])

    def sequence(self, index: int) -> str:
        return self._frame(index).split("/")[0]

    def key(self, index: int) -> str:
        side = f"/{self._side(index)}" if self.two_hands else ""
        return f"{self._folder}/{self._frame(index)}{side}"

    def hand_model_of(self, side: str, mano: str | Path | None = None) -> HandModel:
        """The model that decodes this source's parameters: no mean pose, HO3D's fingertips.

        A left hand of MANO is H2O3D's: MANO_LEFT with the whole of its `shapedirs` negated.

        Args:
            side: "right" or "left".
            mano: folder of MANO_RIGHT.pkl and MANO_LEFT.pkl; by default the option `mano`. The open hand needs none.

        Raises:
            InputError: the labels are MANO's and no folder is named, or its file cannot be read.
        """
        if self._model_name() == layouts.OPEN_HAND:
            return HandModel.open(side)
        folder = mano or self._mano
        if folder is None:
            raise InputError(
                f"{self.root}: the labels are MANO's; name the folder of your MANO_RIGHT.pkl and MANO_LEFT.pkl "
                "(data.mano)"
            )
        arrays = load_mano(mano_file(folder, side), side=side, tips=self.tips)
        if side == "left":
            arrays = replace(arrays, shapedirs=-arrays.shapedirs, J_shapedirs=-arrays.J_shapedirs)
        return HandModel(arrays, side=side, name="mano")

    def __getitem__(self, index: int) -> Sample:
        frame, side, official = self._frame(index), self._side(index), self.official_index(index)
        path, depth_path = self._path(frame, "meta", ".pkl"), self._path(frame, "depth", ".png")
        meta = self._read_meta(path, side)
        K = _numbers(meta, "camMat", (3, 3), path)
        joints, labelled = self._joints(meta, path, official, side)
        ahead = labelled * (joints[:, 2] > 0)
        if not ahead.any():
            raise InputError(
                f"{path}: {self._keys[side]['joints']} is not a hand before the camera; extract or download the file "
                "again"
            )
        model = self._model_of(meta)
        params = self._params(meta, path, joints[0], side)
        sample = Sample(
            key=self.key(index),
            rgb=read_rgb(self._rgb_path(frame), layouts.HO3D_SIZE_WH),
            K_px=K,
            side=side,
            box_px=self._box(meta, path, joints, K, side),
            joints_cam_m=joints,
            joints_2d_conf=ahead,
            joints_3d_conf=labelled,
            depth_m=_read_depth(depth_path) if self._with_depth else None,
            params=params,
            betas_ok=model == layouts.OPEN_HAND or side == "right",
            hand_model=model,
            sequence=self.sequence(index),
            vertices_cam_m=self._vertices_of(params, official, side) if self._with_vertices else None,
        )
        check_depth(sample, depth_path, _DEPTH_EXPECTED)
        return sample

    # ------------------------------------------------------------------------------------------------------ opening

    def _choose(self, sides: str, limit: int | None) -> tuple[np.ndarray, dict[str, int]]:
        """(M, 2) line and side (0 right, 1 left) of every sample, and counts of frames."""
        path = self.root / layouts.ho3d_list(self._folder)
        lines = lines_of_split(self._index, self.split, path)
        hands = self._index.hands & lines[:, None]
        counts = {"frames": int(lines.sum()), "not annotated": int((lines & ~hands.any(1)).sum())}
        if num := int((lines & self._index.without_meta).sum()):
            counts["of these without a meta file"] = num
        if self.two_hands:
            counts |= {f"{side} hands": int(hands[:, i].sum()) for i, side in enumerate(SIDES)}
        if sides != "both":
            hands = hands & [side == sides for side in SIDES]
        rows = np.argwhere(hands).astype(np.int32)
        if not len(rows):
            what = "annotated frame" if sides == "both" else f"annotated {sides} hand"
            raise InputError(f"{path}: split {self.split} has no {what}; choose another split or side")
        return rows[evenly_spaced(len(rows), limit)], counts

    def _published(self, name: str, shape: tuple[int | None, ...], dtype: type) -> np.ndarray | None:
        """HO3D's published truth of the evaluation split (OpenGL axes, HO3D order), None where it is not there.

        Parsed once and memory-mapped afterwards: the meshes are a gigabyte of text.
        """
        path, num = self.root / name, self.num_official
        if self.split != "evaluation" or self.two_hands or not path.is_file():
            return None

        def build() -> dict[str, np.ndarray]:
            rows = read_rows(path, shape, dtype=dtype, num=num)
            if not all(np.isfinite(row).all() for row in rows):
                raise InputError(f"{path}: holds a point that is NaN or inf; get the file again")
            return {"rows": rows}

        about = path.stat()
        return cached_arrays(f"ho3d-{path.stem}", self.root, [about.st_size, about.st_mtime_ns, num], build)["rows"]

    def _prepare_vertices(self) -> None:
        """Checks the files that vertices need when the source is opened, not at the first sample."""
        if self.split != "evaluation":
            self._models = {SIDES[i]: self.hand_model_of(SIDES[i]) for i in np.unique(self._rows[:, 1])}
        elif self._vertices is None:
            raise InputError(
                f"{self.root / layouts.HO3D_VERTS}: no such file; with_vertices needs it in the evaluation split"
            )

    # ------------------------------------------------------------------------------------------------------ reading

    def _frame(self, index: int) -> str:
        return self._index.frames[self._rows[index, 0]].decode()

    def _side(self, index: int) -> str:
        return SIDES[self._rows[index, 1]]

    def _path(self, frame: str, folder: str, suffix: str) -> Path:
        return self.root / layouts.ho3d_file(self._folder, frame, folder, suffix)

    def _rgb_path(self, frame: str) -> Path:
        """PNG first, as the official script looks for it."""
        paths = [self._path(frame, "rgb", suffix) for suffix in dict.fromkeys(layouts.HO3D_RGB_SUFFIXES.values())]
        return next((path for path in paths if path.is_file()), paths[-1])

    def _read_meta(self, path: Path, side: str) -> dict:
        return read_meta(path, "camMat", "handBeta", layouts.HO3D_HAND_MODEL_KEY, *self._keys[side].values())

    def _model_of(self, meta: dict) -> str:
        if self._hand_model != "auto":
            return self._hand_model
        return layouts.OPEN_HAND if meta.get(layouts.HO3D_HAND_MODEL_KEY) == layouts.OPEN_HAND else "mano"

    def _model_name(self) -> str:
        """The model of all labels, by the first sample's."""
        if self._hand_model != "auto":
            return self._hand_model
        return self._model_of(self._read_meta(self._path(self._frame(0), "meta", ".pkl"), "right"))

    def _joints(self, meta: dict, path: Path, official: int, side: str) -> tuple[np.ndarray, np.ndarray]:
        """(21, 3) joints in the OpenCV camera, OpenPose-21, and (21,) confidence: 1 labelled, 0 not (and NaN)."""
        keys, labelled = self._keys[side], np.ones(21, bool)
        if self.split != "evaluation":
            labelled = _flags(meta, keys["joints_ok"], 21, path)[_ORDER]
            joints = _numbers(meta, keys["joints"], (21, 3), path, finite=False)[_ORDER]
            if not np.isfinite(joints[labelled]).all():
                raise InputError(f"{path}: {keys['joints']} holds NaN or inf; extract or download the file again")
        elif self._truth is not None:
            joints = self._truth[official][_ORDER]
        else:
            joints, labelled = np.tile(_numbers(meta, keys["joints"], (3,), path), (21, 1)), np.arange(21) == 0
        return np.where(labelled[:, None], joints @ _C, np.nan), labelled.astype(np.float32)

    def _box(self, meta: dict, path: Path, joints: np.ndarray, K: np.ndarray, side: str) -> np.ndarray:
        """The published box in evaluation, the ground-truth-box protocol in training."""
        if self.split != "evaluation":
            return ground_truth_box(joints, K, layouts.HO3D_SIZE_WH, str(path))
        key = self._keys[side]["box"]
        box = _numbers(meta, key, (4,), path)
        if not (box[2] > box[0] and box[3] > box[1]):
            raise InputError(f"{path}: {key} {box.tolist()} is empty, expected x1 < x2 and y1 < y2")
        return box

    def _params(self, meta: dict, path: Path, wrist_cam_m: np.ndarray, side: str) -> HandParams | None:
        """48 axis-angle and a translation in OpenGL axes -> parameters in the OpenCV camera.

        R' = C R and t' = C (t + J0) - J0, where t + J0 is the labelled wrist, so no model file is needed. C turns the
        axes by half a turn about x.
        """
        keys = self._keys[side]
        if self.split == "evaluation" or not _flags(meta, keys["pose_ok"], 48, path).all():
            return None
        if not np.isfinite(wrist_cam_m).all():
            return None
        pose = axis_angle_to_matrix(_numbers(meta, keys["pose"], (48,), path).reshape(16, 3))
        params = HandParams(
            global_orient=pose[:1],
            hand_pose=pose[1:],
            betas=_numbers(meta, "handBeta", (10,), path),
            transl_m=_numbers(meta, keys["transl"], (3,), path),
        )
        return rotate_params(params, _C, wrist_cam_m @ _C)

    def _vertices_of(self, params: HandParams | None, official: int, side: str) -> np.ndarray | None:
        """(V, 3) in the OpenCV camera, None where the pose is not labelled."""
        if self._vertices is not None:
            return self._vertices[official].astype(np.float64) @ _C
        if params is None:
            return None
        batch = params.map(lambda array: torch.from_numpy(np.asarray(array, np.float32))[None])
        with torch.inference_mode():
            vertices_m = self._models[side].decode(batch).vertices_m[0].numpy()
        return vertices_m + params.transl_m


def _numbers(meta: dict, name: str, shape: tuple[int, ...], path: Path, *, finite: bool = True) -> np.ndarray:
    """float64 array of an annotation, or InputError naming the file and the key."""
    try:
        value = np.asarray(meta[name], np.float64)
    except KeyError as error:
        raise InputError(f"{path}: has no key {name!r}; not HO3D's annotation, or that of another split") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {name} is not an array of numbers") from error
    if value.size != np.prod(shape) or (finite and not np.isfinite(value).all()):
        raise InputError(f"{path}: {name} has shape {value.shape}, expected {shape} of finite numbers")
    return value.reshape(shape)


def _flags(meta: dict, name: str, num: int, path: Path) -> np.ndarray:
    """(num,) bool of H2O3D's validity; all True where the annotation has none."""
    return np.ones(num, bool) if meta.get(name) is None else _numbers(meta, name, (num,), path) > 0


def _read_depth(path: Path) -> np.ndarray:
    depth = read_image(path, flags=cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint8 or depth.ndim != 3:
        raise InputError(f"{path}: {depth.dtype} with shape {depth.shape}; expected {_DEPTH_EXPECTED}")
    check_size(path, depth, layouts.HO3D_SIZE_WH)
    return layouts.ho3d_depth_decode(depth[..., 2::-1])
