"""Hands as the dictionary of HaMeR and WiLoR, and back.

The output of their networks for a crop, with the values that their demos add for the full picture (geopavlakos/hamer
and rolpotamias/WiLoR: `forward_step`, `demo.py`, `cam_crop_to_full`). Everything before `pred_cam_t_full` is of a right
hand: a left hand is mirrored, so x of points and `pred_cam[1]` have the other sign. Rotations are matrices without mean
pose (`flat_hand_mean=True`).

    pred_mano_params    global_orient (1, 3, 3), hand_pose (15, 3, 3), betas (10,), of MANO_RIGHT
    pred_vertices       (778, 3) m, pred_keypoints_3d (21, 3) m: MANO's frame, OpenPose's order
    pred_cam            (3,) s, tx, ty of the crop; pred_cam_t (3,) m with the focal length 5000 px at 256
    pred_keypoints_2d   (21, 2) of the crop, -0.5 to 0.5; focal_length (2,) 5000
    right               1 or 0
    box_center          (2,) px, box_size px: the crop, twice the tight box grown to 192:256; img_size (2,) px
    pred_cam_t_full     (3,) m: pred_vertices (x turned for a left hand) + this are in the picture's camera
    scaled_focal_length px: of that camera, whose principal point is the picture's middle

Their demos guess `scaled_focal_length` (5000 / 256 of the longer side); here it is that of the camera used, with the
corresponding distance. Added are `K_px` (3, 3), that camera with its principal point, and `mano_fit_mm`, the mean
distance of the joints from the fitted hand, 0 for MANO hands.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utnet.conventions import NUM_JOINTS
from utnet.errors import InputError
from utnet.geometry import box_of, project
from utnet.hand.arrays import HandArrays
from utnet.hand.mano import load_mano, mano_file
from utnet.hand.numpy_model import NumpyHandModel
from utnet.io.atomic import atomic_write
from utnet.io.npz import read_npz_all
from utnet.predict.formats.mano_fit import fit_mano
from utnet.predict.hand import Hand
from utnet.types import HandParams

_FOCAL_PX, _CROP_PX, _ASPECT, _RESCALE = 5000.0, 256, 256 / 192, 2.0
_MIRROR = np.array([-1.0, 1.0, 1.0])
_PARAMS = {"global_orient": (1, 3, 3), "hand_pose": (15, 3, 3), "betas": (10,)}


def hand_to_hamer(hand: Hand, size_px: tuple[int, int], mano: HandArrays | None = None) -> dict[str, Any]:
    """Returns a hand's dictionary (see the module), numpy.

    Args:
        hand: of MANO, or of the open hand with `mano`.
        size_px: width and height of the picture.
        mano: the user's MANO_RIGHT without mean pose (`utnet.hand.mano.load_mano`), to which an open hand is fitted.

    Raises:
        InputError: an open hand without `mano`: its parameters and vertices are not MANO's.
    """
    flip = _MIRROR if hand.side == "left" else np.ones(3)
    params, vertices, joints = _of_right(hand.params, flip), hand.vertices_cam_m * flip, hand.joints_cam_m * flip
    fit_mm = 0.0
    if hand.hand_model != "mano":
        if mano is None:
            raise InputError("the open hand has no MANO parameters; give your MANO folder (mano=FOLDER) to fit them")
        params, fit_mm = fit_mano(params, joints, mano)
        mesh = NumpyHandModel(mano, name="mano", dtype=np.float64)(*(p[None] for p in _three(params)))
        vertices, joints = mesh.vertices_m[0] + params.transl_m, mesh.joints_m[0] + params.transl_m
    full = params.transl_m * flip
    f, (width, height) = float(hand.K_px[0, 0]), size_px
    center = (hand.box_px[:2] + hand.box_px[2:]) / 2
    size = _crop_size(hand.box_px)
    s = 2 * f / (size * full[2])
    tx, ty = full[:2] - 2 * (center - np.array([width, height]) / 2) / (size * s)
    cam = np.array([s, tx * flip[0], ty])
    cam_t = np.array([cam[1], cam[2], 2 * _FOCAL_PX / (_CROP_PX * s + 1e-9)])
    seen = joints - params.transl_m + cam_t
    return {
        "pred_cam": cam,
        "pred_cam_t": cam_t,
        "focal_length": np.full(2, _FOCAL_PX),
        "pred_mano_params": dict(zip(_PARAMS, _three(params), strict=True)),
        "pred_keypoints_3d": joints - params.transl_m,
        "pred_vertices": vertices - params.transl_m,
        "pred_keypoints_2d": _FOCAL_PX / _CROP_PX * seen[:, :2] / seen[:, 2:],
        "right": float(hand.side == "right"),
        "box_center": center,
        "box_size": size,
        "img_size": np.array(size_px, float),
        "pred_cam_t_full": full,
        "scaled_focal_length": f,
        "K_px": np.asarray(hand.K_px, float),
        "mano_fit_mm": fit_mm,
    }


def load_right(mano: str | Path) -> HandArrays:
    """Loads MANO_RIGHT without mean pose; `mano`: its folder, or the file."""
    return load_mano(mano_file(mano))


def hands_to_hamer(hands: Sequence[Hand], size_px: tuple[int, int], mano: HandArrays | None = None) -> dict[str, Any]:
    """Returns the dictionary of a batch: arrays with a leading axis N, `personid` 0 to N - 1."""
    each = [hand_to_hamer(hand, size_px, mano) for hand in hands]
    if not each:
        return {"right": np.zeros(0), "personid": np.zeros(0, int), "pred_mano_params": {}}
    batch: dict[str, Any] = {
        name: np.stack([one[name] for one in each]) for name in each[0] if name != "pred_mano_params"
    }
    batch["pred_mano_params"] = {name: np.stack([one["pred_mano_params"][name] for one in each]) for name in _PARAMS}
    return {**batch, "personid": np.arange(len(each))}


class HamerRows:
    """Collects hands of a picture or a video into one .npz, as `arrays.HandRows` does: the batch's arrays, those of
    `pred_mano_params` at the top level, with `frame`, `time_s`, `track`, `valid`, `score` and MANO's `faces`."""

    def __init__(self, size_px: tuple[int, int], mano: HandArrays | None):
        self._size_px, self._mano, self._rows = size_px, mano, list[dict]()
        self._faces: np.ndarray | None = None

    def add(self, hands: Sequence[Hand], frame: int = 0, time_s: float = 0.0) -> None:
        """Appends the hands of a frame; InputError as of `hand_to_hamer`."""
        for number, hand in enumerate(hands):
            row = hand_to_hamer(hand, self._size_px, self._mano)
            row |= row.pop("pred_mano_params")
            row |= {"frame": frame, "time_s": time_s, "track": -1 if hand.track is None else hand.track}
            self._rows.append({**row, "personid": number, "valid": hand.valid, "score": hand.score})
            if hand.hand_model == "mano":
                self._faces = hand.faces if hand.side == "right" else hand.faces[:, ::-1]
            elif self._mano is not None:
                self._faces = self._mano.faces

    def write(self, path: Path) -> None:
        """Writes the file atomically; without hands it contains an empty `right` only."""
        columns = {name: np.stack([row[name] for row in self._rows]) for name in (self._rows[0] if self._rows else ())}
        columns = columns or {"right": np.zeros(0)}
        if self._faces is not None:
            columns["faces"] = self._faces.astype(np.int32)
        data = io.BytesIO()
        np.savez_compressed(data, **columns)  # type: ignore[arg-type]
        atomic_write(path, data.getvalue())


def read_hamer(source: str | Path | Mapping[str, Any], faces: np.ndarray | None = None) -> list[Hand]:
    """Returns the hands of a batch's dictionary, or of an .npz with its arrays.

    Required are `pred_vertices`, `pred_keypoints_3d`, `right`, the camera (`pred_cam_t_full` and `scaled_focal_length`
    with `img_size`, or `pred_cam` as returned by the network with `box_center`, `box_size` and `img_size`) and the
    parameters, in `pred_mano_params` or at the top level. Without hands an empty `right` is enough. A missing `score`
    (their files have none) becomes 1.

    Args:
        source: the file, or arrays (tensors on the CPU are fine) with a leading axis N.
        faces: (F, 3) of MANO_RIGHT, for drawing; None: those of the file, if any.

    Raises:
        InputError: a field is missing or of another shape, or the file contains pickled objects.
    """
    where = str(source) if isinstance(source, str | Path) else "the dictionary"
    try:
        data: dict[str, Any] = dict(read_npz_all(Path(source)) if isinstance(source, str | Path) else source)
        data = {**data, **data.get("pred_mano_params", {})}
        arrays = {name: np.asarray(value, float) for name, value in data.items() if name in _READ}
        if faces is None:
            faces = np.asarray(data.get("faces", np.zeros((0, 3))), int)
    except InputError:  # of the file; it is also a ValueError
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: not arrays ({error}); save each field separately, params as arrays") from error
    if "right" in arrays and arrays["right"].shape == (0,):
        return []
    missing = [name for name in _NEEDED if name not in arrays]
    if missing:
        raise InputError(f"{where}: has no {missing[0]}; expected the fields of HaMeR's dictionary")
    _check_shapes(arrays, where)
    full, focal = _full_camera(arrays, where)
    if faces.ndim != 2 or faces.shape[1] != 3 or (faces < 0).any() or (faces >= arrays["pred_vertices"].shape[1]).any():
        raise InputError(f"{where}: faces are not triangles of its {arrays['pred_vertices'].shape[1]} vertices")
    if (full[:, 2] <= 0).any():
        raise InputError(f"{where}: a hand is not in front of the camera; check pred_cam and the camera's fields")
    return [_hand(arrays, i, full[i], float(focal[i]), faces) for i in range(len(arrays["right"]))]


_NEEDED = ("pred_vertices", "pred_keypoints_3d", "right", "img_size", *_PARAMS)
_READ = (
    *_NEEDED, "pred_cam", "box_center", "box_size", "pred_cam_t_full", "scaled_focal_length", "K_px", "track", "valid",
    "score",
)  # fmt: skip


_MOST = 1e9
"""Bound of its numbers; larger ones are neither pixels nor metres."""


def _check_shapes(arrays: Mapping[str, np.ndarray], where: str) -> None:
    num = arrays["right"].size
    num_vertices = arrays["pred_vertices"].shape[1:2]
    shapes = {"right": (num,), "pred_vertices": (num, *num_vertices, 3), "pred_keypoints_3d": (num, NUM_JOINTS, 3)}
    shapes |= {"img_size": (num, 2), "pred_cam": (num, 3), "box_center": (num, 2), "box_size": (num,)}
    shapes |= {"pred_cam_t_full": (num, 3), "K_px": (num, 3, 3), "track": (num,), "valid": (num,), "score": (num,)}
    wrong = [name for name, shape in shapes.items() if name in arrays and arrays[name].shape != shape]
    wrong += [name for name, shape in _PARAMS.items() if arrays[name].size != num * np.prod(shape)]
    if wrong:
        shape = arrays[wrong[0]].shape
        raise InputError(f"{where}: {wrong[0]} has shape {shape}; expected HaMeR's batch, one row a hand")
    for name, array in arrays.items():
        if not (np.abs(array) < _MOST).all():  # False for NaN
            raise InputError(f"{where}: {name} holds NaN or numbers beyond {_MOST:g}; write the file again")


def _full_camera(arrays: Mapping[str, np.ndarray], where: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) translations into the picture's camera and (N,) focal lengths, as in their demos."""
    num, sizes = len(arrays["right"]), arrays["img_size"]
    focal = arrays.get("scaled_focal_length", _FOCAL_PX / _CROP_PX * sizes.max())
    try:
        focal = np.broadcast_to(focal, num)
    except ValueError as error:
        raise InputError(f"{where}: scaled_focal_length has shape {focal.shape}; expected one or {num}") from error
    if (focal <= 0).any() or (sizes <= 0).any():
        raise InputError(f"{where}: scaled_focal_length and img_size are not of a camera; expected numbers above 0")
    if "pred_cam_t_full" in arrays:
        return arrays["pred_cam_t_full"], focal
    missing = [name for name in ("pred_cam", "box_center", "box_size") if name not in arrays]
    if missing:
        raise InputError(f"{where}: has neither pred_cam_t_full nor {missing[0]}, so the camera is unknown")
    s, tx, ty = arrays["pred_cam"].T
    bs = arrays["box_size"] * s + 1e-9
    shift = 2 * (arrays["box_center"] - sizes / 2) / bs[:, None]
    return np.column_stack([(2 * arrays["right"] - 1) * tx + shift[:, 0], ty + shift[:, 1], 2 * focal / bs]), focal


def _hand(arrays: Mapping[str, np.ndarray], i: int, full: np.ndarray, focal: float, faces: np.ndarray) -> Hand:
    is_right = bool(arrays["right"][i])
    flip = np.ones(3) if is_right else _MIRROR
    width, height = arrays["img_size"][i]
    K = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1.0]])
    if "K_px" in arrays:
        K = arrays["K_px"][i]
    joints = arrays["pred_keypoints_3d"][i] * flip + full
    px = project(joints, K)
    orient, pose, betas = (arrays[name][i].reshape(shape) for name, shape in _PARAMS.items())
    params = _of_right(HandParams(orient, pose, betas, full * flip), flip)
    return Hand(
        side="right" if is_right else "left",
        score=float(arrays["score"][i]) if "score" in arrays else 1.0,
        box_px=box_of(px),
        joints_cam_m=joints,
        joints_px=px,
        vertices_cam_m=arrays["pred_vertices"][i] * flip + full,
        faces=faces if is_right else faces[:, ::-1],
        params=params,
        K_px=K,
        distance_source="hand_size",
        method="network",
        shape_source="network",
        valid=bool(arrays["valid"][i]) if "valid" in arrays else True,
        hand_model="mano",
        track=int(arrays["track"][i]) if "track" in arrays and arrays["track"][i] >= 0 else None,
    )


def _of_right(params: HandParams, flip: np.ndarray) -> HandParams:
    """Parameters of the mirrored hand; betas are those of the mirrored model."""
    turn = np.outer(flip, flip)
    return HandParams(params.global_orient * turn, params.hand_pose * turn, params.betas, params.transl_m * flip)


def _three(params: HandParams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return params.global_orient, params.hand_pose, params.betas


def _crop_size(box_px: np.ndarray) -> float:
    """Side of their square crop for a tight box."""
    width, height = _RESCALE * (box_px[2:] - box_px[:2])
    return float(max(width * _ASPECT, height))
