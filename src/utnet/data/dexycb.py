"""DexYCB (Chao et al., CVPR 2021) -> Sample. Numbering, splits and labels as dex-ycb-toolkit reads them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from utnet import layouts
from utnet.data.files import check_size, read_image, read_npz, read_rgb, read_yaml
from utnet.data.source import check_depth, evenly_spaced, ground_truth_box
from utnet.errors import InputError
from utnet.geometry import axis_angle_to_matrix, intrinsics
from utnet.hand import HandModel
from utnet.types import HandParams, Sample

_META_KEYS = ("serials", "num_frames", "mano_sides", "mano_calib")
_DEPTH_EXPECTED = "a 16-bit PNG in millimetres (DexYCB)"


class DexYcb:
    """Whole 640x480 pictures of one split, one hand each, right or left.

    Frames without a hand count in the official numbering and are left out. `params` are given for trees of the open
    hand (identity basis), and for MANO's where the user's MANO folder is named, since the labels are principal
    components of its poses; without it `params` is None and the joints are labelled. Given rotations include the mean
    pose, so they decode with a model of `flat_hand_mean=True`. A left MANO hand's betas belong to MANO_LEFT as
    shipped, so `betas_ok` is False for it.
    """

    name, tips = "dexycb", "manopth"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        setup: str = "s0",
        limit: int | None = None,
        hand_model: str = "auto",
        mano: str | Path | None = None,
        with_depth: bool = True,
    ):
        self.root, self.split, self.setup, self._with_depth = Path(root), split, setup, with_depth
        subjects, cameras, sequences = layouts.dexycb_split(setup, split)
        if not self.root.is_dir():
            raise InputError(
                f"{self.root}: no such folder; give the folder that holds DexYCB's subjects and calibration"
            )
        self._serials = [layouts.DEXYCB_SERIALS[i] for i in cameras]
        self._K = [_read_intrinsics(self.root, serial) for serial in self._serials]
        self._sequences = [name for i in subjects for name in self._subject(layouts.DEXYCB_SUBJECTS[i], sequences)]
        self._metas = [self._read_meta(name) for name in self._sequences]
        self._hand_model = _hand_model(self._metas, hand_model, mano)
        sides = {meta["mano_sides"][0] for meta in self._metas}
        self._mano = _load_mano(mano, sides) if self._hand_model == "mano" and mano is not None else {}
        self._betas = {meta["mano_calib"][0]: self._read_betas(meta["mano_calib"][0]) for meta in self._metas}
        frames = layouts.dexycb_numbering([meta["num_frames"] for meta in self._metas], len(cameras))
        self.num_official = len(frames)
        """Samples of the split with those without a hand: the length of the official toolkit's dataset."""
        candidates = evenly_spaced(len(frames), limit)
        self._rows = frames
        self._ids = np.array([i for i in candidates if self._has_hand(i)], np.int64)
        if not len(self._ids):
            raise InputError(
                f"{self.root}: split {setup} {split} has no frame with a hand; choose another split or setup"
            )

    def __len__(self) -> int:
        return len(self._ids)

    def official_index(self, index: int) -> int:
        """The number of sample `index` in the official numbering (`image_id` of result files)."""
        return int(self._ids[index])

    def sequence(self, index: int) -> str:
        return self._sequences[self._rows[self._ids[index]][0]]

    def key(self, index: int) -> str:
        sequence, serial, frame = self._place(self._ids[index])
        return f"{self._sequences[sequence]}/{serial}/{frame:06d}"

    def __getitem__(self, index: int) -> Sample:
        sequence, serial, frame = self._place(self._ids[index])
        folder, meta = self._folder(sequence, serial), self._metas[sequence]
        K = self._K[self._serials.index(serial)]
        label_path = folder / layouts.dexycb_labels(frame)
        pose, joints = read_npz(label_path, "pose_m", "joint_3d")
        if joints.size != 63 or pose.size != 51:
            raise InputError(
                f"{label_path}: joint_3d {joints.shape} and pose_m {pose.shape}, expected (1, 21, 3) and (1, 51)"
            )
        joints = joints.reshape(21, 3).astype(np.float64)
        if not np.isfinite(joints).all() or not (joints[:, 2] > 0).any():
            raise InputError(
                f"{label_path}: joint_3d is not a hand before the camera; extract or download the file again"
            )
        side = meta["mano_sides"][0]
        depth_path = folder / layouts.dexycb_depth(frame)
        sample = Sample(
            key=self.key(index),
            rgb=read_rgb(folder / layouts.dexycb_color(frame), layouts.DEXYCB_SIZE_WH),
            K_px=K,
            side=side,
            box_px=ground_truth_box(joints, K, layouts.DEXYCB_SIZE_WH, self.key(index)),
            joints_cam_m=joints,
            joints_2d_conf=(joints[:, 2] > 0).astype(np.float32),
            joints_3d_conf=np.ones(21, np.float32),
            depth_m=_read_depth(depth_path) if self._with_depth else None,
            params=self._params(pose.reshape(51).astype(np.float64), meta),
            betas_ok=self._hand_model == "open" or side == "right",
            hand_model=self._hand_model,
            sequence=self._sequences[sequence],
        )
        check_depth(sample, depth_path, _DEPTH_EXPECTED)
        return sample

    def _place(self, official: int) -> tuple[int, str, int]:
        sequence, camera, frame = self._rows[official].tolist()
        return sequence, self._serials[camera], frame

    def _folder(self, sequence: int, serial: str) -> Path:
        return self.root / self._sequences[sequence] / serial

    def _subject(self, subject: str, indices: list[int]) -> list[str]:
        """Names "subject/sequence" of a subject's sequences in the split."""
        folder = self.root / subject
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder; {self.setup} {self.split} of DexYCB needs it, extract the subject's archive"
            )
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        if len(names) != layouts.DEXYCB_NUM_SEQUENCES:
            raise InputError(
                f"{folder}: {len(names)} sequences, expected {layouts.DEXYCB_NUM_SEQUENCES}; splits count them, "
                "so extract the subject's whole archive"
            )
        return [f"{subject}/{names[i]}" for i in indices]

    def _read_meta(self, sequence: str) -> dict:
        path = self.root / sequence / "meta.yml"
        meta = read_yaml(path, *_META_KEYS)
        sides, num = meta["mano_sides"], meta["num_frames"]
        if not isinstance(sides, list) or len(sides) != 1 or sides[0] not in ("right", "left"):
            raise InputError(f"{path}: mano_sides is {sides!r}, expected [right] or [left]")
        if not isinstance(num, int) or num < 0:
            raise InputError(f"{path}: num_frames is {num!r}, expected a count")
        if not isinstance(meta["mano_calib"], list) or not meta["mano_calib"]:
            raise InputError(f"{path}: mano_calib is {meta['mano_calib']!r}, expected a list of one name")
        return meta

    def _read_betas(self, name: str) -> np.ndarray:
        path = layouts.dexycb_mano(self.root, name)
        betas = read_yaml(path, "betas")["betas"]
        if not isinstance(betas, list) or len(betas) != 10 or not all(isinstance(b, int | float) for b in betas):
            raise InputError(f"{path}: betas is not a list of 10 numbers")
        return np.array(betas, np.float64)

    def _has_hand(self, official: int) -> bool:
        """False where the labels say that there is none. An unreadable file stays in, to fail by name when read."""
        sequence, serial, frame = self._place(official)
        try:
            (joints,) = read_npz(self._folder(sequence, serial) / layouts.dexycb_labels(frame), "joint_3d")
        except InputError:
            return True
        return not (joints == layouts.DEXYCB_NO_HAND).all()

    def _params(self, pose: np.ndarray, meta: dict) -> HandParams | None:
        """3 global axis-angle, 45 pose coefficients, 3 translation -> parameters in the colour camera."""
        coefficients, side = pose[3:48], meta["mano_sides"][0]
        if self._hand_model == "mano":
            if side not in self._mano:
                return None
            model = self._mano[side]
            axis_angle = model.pose_from_pca(torch.from_numpy(coefficients[None]).float())[0]
            axis_angle = axis_angle if model.pose_mean is None else axis_angle + model.pose_mean.flatten()
            coefficients = axis_angle.numpy().astype(np.float64)
        return HandParams(
            global_orient=axis_angle_to_matrix(pose[None, :3]),
            hand_pose=axis_angle_to_matrix(coefficients.reshape(15, 3)),
            betas=self._betas[meta["mano_calib"][0]],
            transl_m=pose[48:],
        )


def _read_intrinsics(root: Path, serial: str) -> np.ndarray:
    path = layouts.dexycb_intrinsics(root, serial)
    color = read_yaml(path, "color")["color"]
    try:
        return intrinsics(*(float(color[name]) for name in ("fx", "fy", "ppx", "ppy")))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: color must hold the numbers fx, fy, ppx and ppy") from error


def _read_depth(path: Path) -> np.ndarray:
    depth = read_image(path, flags=cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f"{path}: {depth.dtype} with shape {depth.shape}; expected {_DEPTH_EXPECTED}")
    check_size(path, depth, layouts.DEXYCB_SIZE_WH)
    return layouts.depth_mm_decode(depth)


def _hand_model(metas: list[dict], wanted: str, mano: str | Path | None) -> str:
    """ "open" or "mano": what the metadata says, unless the user says otherwise."""
    if wanted not in ("auto", "open", "mano"):
        raise InputError(f"hand_model is {wanted!r}; expected auto, open or mano")
    if wanted != "auto":
        return wanted
    return layouts.OPEN_HAND if metas[0].get(layouts.HAND_MODEL_KEY) == layouts.OPEN_HAND else "mano"


def _load_mano(folder: str | Path, sides: set[str]) -> dict[str, HandModel]:
    """MANO's hands of these sides, with the mean pose and the tips of DexYCB."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one that holds your MANO_RIGHT.pkl and MANO_LEFT.pkl")
    paths = {side: folder / f"MANO_{side.upper()}.pkl" for side in sorted(sides)}
    return {
        side: HandModel.from_mano(path, side=side, flat_hand_mean=False, tips="manopth") for side, path in paths.items()
    }
