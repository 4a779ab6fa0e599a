"""FreiHAND (Zimmermann et al., ICCV 2019) -> Sample. Files as its toolbox (`fh_utils.py`, `model.py`) reads them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import torch

from utnet.data.cache import cached_arrays
from utnet.data.source import evenly_spaced, ground_truth_box
from utnet.errors import BAD_TREE, InputError, shown
from utnet.hand import HandModel
from utnet.hand.mano import mano_file
from utnet.io import layouts
from utnet.io.files import check_size, read_bytes, read_image, read_rgb
from utnet.io.json_rows import read_rows
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams, Sample

SPLITS = ("train", "train_fit", "val", "evaluation")
BACKGROUNDS = ("all", *layouts.FREIHAND_BACKGROUNDS)
VAL_SHARE = 0.05

_ROWS: dict[str, tuple[int | None, ...]] = {
    "K": (3, 3),
    "mano": (1, 61),
    "scale": (),
    "xyz": (21, 3),
    "verts": (None, 3),
}
_VERSION = 1  # of the cached arrays
_DECODED_AT_ONCE = 512


class FreiHand:
    """Full 224x224 pictures of one split, right hands, no depth.

    Splits: `train` is the full training set; `val` is the last 5 % of its hands as one block, since neighbouring
    numbers come from the same recording, and `train_fit` is the rest (the official site publishes no such division).
    Every background of a hand is in the same split. `evaluation` has joints (confidence 1) where
    `evaluation_xyz.json` lies beside it, as newer releases have; in older ones joints are NaN with confidence 0.

    Boxes: the tight box of the labelled joints (ground-truth-box protocol); without labelled joints the middle half of
    the picture, so that a crop of twice the box is the full picture (FreiHAND's pictures are crops of hands already).

    Parameters: a mano row holds 48 axis-angle numbers to which the model adds its mean pose (`model.py`,
    use_mean_pose), so MANO's `params` need the user's file and are None without it; they include the mean, so they
    decode with `flat_hand_mean=True` and the tips "freihand" (`hand_model_of`). The translation is not stored: it is
    the labelled wrist minus the model's rest wrist J0(betas). FreiHAND regresses its joints from the posed mesh
    (`model.py`, `_calc_coords`), so on official trees the kinematic joints of decoded parameters lie some tenths of a
    millimetre (wrist) to a few millimetres (bent fingers) from `joints_cam_m`; tips and mesh agree up to the wrist's
    share.

    Attributes:
        num_unique: hands of the set, each before one (evaluation) or four backgrounds.
        num_official: pictures of the set in the official numbering.
    """

    name, tips = "freihand", "freihand"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        background: str = "all",
        limit: int | None = None,
        hand_model: str = "auto",
        mano: str | Path | None = None,
        with_vertices: bool = False,
        with_mask: bool = False,
    ):
        """Opens a split; the first time its JSON files are parsed into the cache (minutes at the most for vertices).

        Args:
            root: the folder of `training`, `evaluation` and the JSON files.
            split: one of `SPLITS`.
            background: "all", or one of the four versions of the training pictures: gs, hom, sample, auto.
            limit: at most this many pictures, evenly spaced.
            hand_model: model of the labels: "auto" detected (MANO if unmarked), "open" or "mano".
            mano: folder of the user's MANO_RIGHT.pkl.
            with_vertices: return `vertices_cam_m`.
            with_mask: return `hand_mask` (training only).

        Raises:
            InputError: no such folder, split, background or file, or a file that is damaged.
        """
        self.root, self.split = Path(root), split
        self._check_options(background, hand_model, with_mask)
        if not any((self.root / which).is_dir() for which in layouts.FREIHAND_SETS):
            raise InputError(
                f"{self.root}: has neither a folder training nor evaluation, so it is not FreiHAND's; give the folder "
                "that holds them and the JSON files"
            )
        self._set = "evaluation" if split == "evaluation" else "training"
        self._hand_model = _model_of(self.root) if hand_model == "auto" else hand_model
        self._mano, self._with_mask = mano or None, with_mask
        self._labels = self._read_labels()
        self.num_unique = len(self._labels["K"])
        self._vertices = self._read_vertices() if with_vertices else None
        self._decoded = self._decode() if {"mano", "xyz"} <= self._labels.keys() else None
        versions = self._versions(background)
        rows = self._rows_of_split()
        numbers = (np.array(versions)[:, None] * self.num_unique + rows).ravel()
        self.num_official = self.num_unique * (1 if split == "evaluation" else len(layouts.FREIHAND_BACKGROUNDS))
        self._ids = numbers[evenly_spaced(len(numbers), limit)]
        self.counts = {"hands": self.num_unique, "hands of the split": len(rows), "backgrounds": len(versions)}
        self.counts["pictures"] = len(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def official_index(self, index: int) -> int:
        """The number in the picture's name; in evaluation also the place in `pred.json`."""
        return int(self._ids[index])

    def key(self, index: int) -> str:
        return f"{self._set}/{self._ids[index]:08d}"

    def sequence(self, index: int) -> str:
        """The hand shared by several backgrounds. FreiHAND has no list of recordings."""
        return f"{self._set}/{self._ids[index] % self.num_unique:08d}"

    def scale_m(self, index: int) -> float:
        """`scale.json`: length of the middle finger's first bone, which the official protocol gives to methods."""
        return float(self._labels["scale"][self._ids[index] % self.num_unique])

    def hand_model_of(self, side: str = "right") -> HandModel:
        """The model that decodes `params` (`flat_hand_mean=True`, FreiHAND's tips).

        Raises:
            InputError: the labels are MANO's and no MANO folder was given, or it lacks the file.
        """
        model = self._load_hand(flat_hand_mean=True)
        return model if side == "right" else model.mirrored()

    def __getitem__(self, index: int) -> Sample:
        number = int(self._ids[index])
        row = number % self.num_unique
        path = self.root / layouts.freihand_rgb(self._set, number)
        K, joints = self._numbers("K", row), self._joints(row)
        labelled = np.isfinite(joints[:, 0]).astype(np.float32)
        if not (K[0, 0] > 0 and K[1, 1] > 0 and (K[2] == [0, 0, 1]).all()):
            raise InputError(f"{self._json('K')}: row {row} is {K.tolist()}, not a camera matrix; get the file again")
        return Sample(
            key=self.key(index),
            rgb=read_rgb(path, layouts.FREIHAND_SIZE_WH),
            K_px=K,
            side="right",
            box_px=self._box(joints, K, self.key(index)),
            joints_cam_m=joints,
            joints_2d_conf=labelled * (np.nan_to_num(joints[:, 2]) > 0),
            joints_3d_conf=labelled,
            params=self._params(row),
            hand_model=self._hand_model,
            sequence=self.sequence(index),
            vertices_cam_m=None if self._vertices is None else self._mesh(row),
            hand_mask=self._mask(row) if self._with_mask else None,
        )

    # ------------------------------------------------------------------------------------------------------- opening

    def _check_options(self, background: str, hand_model: str, with_mask: bool) -> None:
        if self.split not in SPLITS:
            raise InputError(f"FreiHAND has no split {self.split!r}; expected one of {', '.join(SPLITS)}")
        if background not in BACKGROUNDS:
            raise InputError(f"background is {background!r}; expected one of {', '.join(BACKGROUNDS)}")
        if hand_model not in ("auto", "open", "mano"):
            raise InputError(f"hand_model is {hand_model!r}; expected auto, open or mano")
        if self.split == "evaluation" and background not in ("all", "gs"):
            raise InputError(
                f"background is {background!r}; FreiHAND's evaluation pictures have one background, use all"
            )
        if self.split == "evaluation" and with_mask:
            raise InputError("with_mask: FreiHAND publishes no masks of its evaluation pictures; leave it out")
        if not self.root.is_dir():
            raise InputError(
                f"{self.root}: no such folder; give the folder that holds FreiHAND's training and evaluation folders"
            )

    def _versions(self, background: str) -> list[int]:
        if self.split == "evaluation":
            return [0]
        every = list(range(len(layouts.FREIHAND_BACKGROUNDS)))
        return every if background == "all" else [layouts.FREIHAND_BACKGROUNDS.index(background)]

    def _rows_of_split(self) -> np.ndarray:
        if self.split in ("train", "evaluation"):
            return np.arange(self.num_unique)
        first = self.num_unique - math.ceil(VAL_SHARE * self.num_unique)
        if not first:
            raise InputError(f"{self.root}: one hand cannot be divided into train_fit and val; use the split train")
        return np.arange(first) if self.split == "train_fit" else np.arange(first, self.num_unique)

    def _json(self, what: str) -> Path:
        return self.root / layouts.freihand_json(self._set, what)

    def _read_labels(self) -> dict[str, np.ndarray]:
        """K, scale, and where they are there (always in training) mano and xyz."""
        optional = () if self._set == "training" else ("mano", "xyz")
        names = [name for name in ("K", "scale", "mano", "xyz") if name not in optional or self._json(name).is_file()]

        def build() -> dict[str, np.ndarray]:
            K = read_rows(self._json("K"), _ROWS["K"])
            return {"K": K} | {name: read_rows(self._json(name), _ROWS[name], num=len(K)) for name in names[1:]}

        stamp = [_VERSION, {name: _stamp(self._json(name)) for name in names}]
        return cached_arrays(f"freihand-{self._set}", self.root, stamp, build)

    def _read_vertices(self) -> np.ndarray:
        path, num = self._json("verts"), self.num_unique
        expected = HandModel.open().num_vertices if self._hand_model == "open" else 778
        if self._set == "evaluation" and not path.is_file():
            raise InputError(f"{path}: no such file; older releases have none: get the newer one, or no vertices")
        stamp = [_VERSION, num, _stamp(path)]
        arrays = cached_arrays(
            f"freihand-{self._set}-verts",
            self.root,
            stamp,
            lambda: {"verts": read_rows(path, _ROWS["verts"], dtype=np.float32, num=num)},
        )
        if arrays["verts"].shape[1] != expected:
            raise InputError(
                f"{path}: meshes of {arrays['verts'].shape[1]} vertices, expected {expected} of the {self._hand_model} "
                "hand; get the file again or name the right hand_model"
            )
        return arrays["verts"]

    def _decode(self) -> dict[str, np.ndarray] | None:
        """Rotations (mean pose included) and translations of the whole set, or None where MANO's file is not given."""
        if self._hand_model == "mano" and self._mano is None:
            return None
        hand = _stamp(self._mano_path()) if self._hand_model == "mano" else "open"
        stamp = [_VERSION, hand, _stamp(self._json("mano")), _stamp(self._json("xyz"))]
        return cached_arrays(f"freihand-{self._set}-{self._hand_model}", self.root, stamp, self._decode_all)

    def _decode_all(self) -> dict[str, np.ndarray]:
        model = self._load_hand(flat_hand_mean=True)
        mean = None if self._hand_model == "open" else self._load_hand(flat_hand_mean=False).pose_mean
        rows, wrists = self._labels["mano"][:, 0], self._labels["xyz"][:, 0]
        rotations, translations = [], []
        for start in range(0, len(rows), _DECODED_AT_ONCE):
            part = rows[start : start + _DECODED_AT_ONCE]
            axis_angle = part[:, :48].reshape(-1, 16, 3).copy()
            if mean is not None:
                axis_angle[:, 1:] += mean.double().numpy().reshape(15, 3)
            R, betas = axis_angle_to_matrix(axis_angle).astype(np.float32), part[:, 48:58].astype(np.float32)
            with torch.inference_mode():
                given = (torch.from_numpy(array) for array in (R[:, :1], R[:, 1:], betas))
                rest = model(*given, with_vertices=False).mano_joints_m[:, 0].double().numpy()
            rotations.append(R)
            translations.append(wrists[start : start + _DECODED_AT_ONCE] - rest)
        return {"rotations": np.concatenate(rotations), "transl_m": np.concatenate(translations)}

    def _mano_path(self) -> Path:
        if self._mano is None:
            raise InputError("FreiHAND's labels are MANO's; name the folder of your MANO_RIGHT.pkl (data.mano)")
        folder = Path(self._mano)
        path = mano_file(folder)
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the folder that holds your MANO_RIGHT.pkl (data.mano)")
        return path

    def _load_hand(self, *, flat_hand_mean: bool) -> HandModel:
        if self._hand_model == "open":
            return HandModel.open()
        return HandModel.from_mano(self._mano_path(), flat_hand_mean=flat_hand_mean, tips=self.tips)

    # ------------------------------------------------------------------------------------------------------- reading

    def _numbers(self, what: str, row: int) -> np.ndarray:
        """float64 copy of a row of labels, or InputError naming the file and the row."""
        numbers = self._labels[what][row].astype(np.float64)
        if not np.isfinite(numbers).all():
            raise InputError(f"{self._json(what)}: row {row} has numbers that are NaN or inf; get the file again")
        return numbers

    def _joints(self, row: int) -> np.ndarray:
        if "xyz" not in self._labels:
            return np.full((21, 3), np.nan)
        joints = self._numbers("xyz", row)
        if joints[0, 2] <= 0:
            raise InputError(f"{self._json('xyz')}: row {row} is not a hand before the camera; get the file again")
        return joints

    def _box(self, joints: np.ndarray, K: np.ndarray, where: str) -> np.ndarray:
        if "xyz" in self._labels:
            return ground_truth_box(joints, K, layouts.FREIHAND_SIZE_WH, where)
        width, height = layouts.FREIHAND_SIZE_WH
        return np.array([width / 4, height / 4, 3 * width / 4, 3 * height / 4]) - 0.5

    def _params(self, row: int) -> HandParams | None:
        if self._decoded is None:
            return None
        R = self._decoded["rotations"][row].astype(np.float64)
        return HandParams(
            global_orient=R[:1],
            hand_pose=R[1:],
            betas=self._numbers("mano", row)[0, 48:58],
            transl_m=self._decoded["transl_m"][row].astype(np.float64),
        )

    def _mesh(self, row: int) -> np.ndarray:
        assert self._vertices is not None
        mesh = np.array(self._vertices[row])
        if not np.isfinite(mesh).all():
            raise InputError(f"{self._json('verts')}: row {row} has numbers that are NaN or inf; get the file again")
        return mesh

    def _mask(self, row: int) -> np.ndarray:
        path = self.root / layouts.freihand_mask(row)
        mask = read_image(path, flags=cv2.IMREAD_GRAYSCALE)
        check_size(path, mask, layouts.FREIHAND_SIZE_WH)
        return mask > 127


def _stamp(path: Path) -> list:
    """Size and time of change; InputError where there is no such file."""
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: no such file; extract FreiHAND's archive again, with its JSON files") from error
    return [found.st_size, found.st_mtime_ns]


def _model_of(root: Path) -> str:
    """ "open" for trees written by UTNet, which are marked, else "mano"."""
    path = root / layouts.FREIHAND_HAND_MODEL
    if not path.is_file():
        return "mano"
    try:
        hand_model = json.loads(read_bytes(path))[layouts.HAND_MODEL_KEY]
    except BAD_TREE as error:
        raise InputError(f'{path}: expected {{"hand_model": "open"}}; write the tree again') from error
    if hand_model not in ("open", "mano"):
        raise InputError(f"{path}: hand_model is {shown(hand_model)}, expected open or mano")
    return hand_model
