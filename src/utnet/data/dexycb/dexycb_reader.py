"""DexYCB (Chao et al., CVPR 2021) -> Sample. Numbering, splits and labels as dex-ycb-toolkit reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utnet.conventions import SIDES
from utnet.data.dexycb.dexycb_hands import DexYcbHands
from utnet.data.dexycb.dexycb_index import LEFT_OUT, NO_HAND, UNREADABLE, open_index
from utnet.data.source import check_depth, evenly_spaced, ground_truth_box
from utnet.errors import InputError
from utnet.geometry import intrinsics
from utnet.hand import HandModel
from utnet.io import layouts
from utnet.io.files import check_size, read_depth_png, read_rgb, read_yaml
from utnet.io.npz import read_members
from utnet.types import Sample

_DEPTH_EXPECTED = "a 16-bit PNG in millimetres (DexYCB)"


class DexYcb:
    """Full 640x480 pictures of one split, one hand each, read from the original release.

    Frames without a hand count in the official numbering and are left out. Joints are right for both hands. The
    labelled poses are principal components of MANO's, made with its mean pose, so `params` need the user's MANO files;
    they then include the mean, and decode with a model of `flat_hand_mean=True` and manopth's fingertips
    (`hand_model_of`). A left hand's betas belong to MANO_LEFT as shipped (its `shapedirs` unfixed, as the labels were
    made), so `betas_ok` is False for it. A side whose file is not there has joints only (`params` None). Trees of the
    open hand (identity basis, no mean) always have `params`.

    The list of frames with a hand is read once and cached; see `dexycb_index.open_index` for how changes are detected.

    Args:
        root: the folder of the subjects and `calibration`.
        split: "train", "val" or "test".
        setup: "s0" (unseen sequences), "s1" (subjects), "s2" (cameras) or "s3" (grasps).
        subjects: 1 to 10, those of the split to take (empty: all): only their folders are needed. The numbering stays
            the official one if the folders of the others are there, too.
        limit: at most this many samples, evenly spaced over those with a hand.
        sides: "right", "left" or "both".
        hand_model: model of the labels, "open", "mano", or "auto": detected (MANO if unmarked).
        mano: folder of the user's MANO_RIGHT.pkl and MANO_LEFT.pkl.
        with_depth: read the depth images.
        with_mask: return `hand_mask`, the hand's pixels in the labelled segmentation.
        with_vertices: return `vertices_cam_m`, decoded from the parameters.
        refresh: rebuild the list of frames (label files changed in place are not detected).

    Attributes:
        num_official: samples of the split with those without a hand: the length of the official toolkit's dataset.
        counts: numbers of frames by kind.

    Raises:
        InputError: no such split or option, a folder or a calibration file missing, or no frame with such a hand.
    """

    name, tips = "dexycb", "manopth"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        setup: str = "s0",
        subjects: Sequence[int] = (),
        limit: int | None = None,
        sides: str = "both",
        hand_model: str = "auto",
        mano: str | Path | None = None,
        with_depth: bool = True,
        with_mask: bool = False,
        with_vertices: bool = False,
        refresh: bool = False,
    ):
        self.root, self.split, self.setup = Path(root), split, setup
        self._with_depth, self._with_mask, self._with_vertices = with_depth, with_mask, with_vertices
        cameras = layouts.dexycb_split(setup, split)[1]
        if sides not in (*SIDES, "both"):
            raise InputError(f"data.sides is {sides!r}; expected right, left or both")
        if not self.root.is_dir():
            raise InputError(
                f"{self.root}: no such folder; give the folder that holds DexYCB's subjects and calibration"
            )
        if not (self.root / "calibration").is_dir():
            raise InputError(
                f"{self.root}: has no folder calibration, so it is not DexYCB's, or not whole; give the folder that "
                "holds the subjects and calibration"
            )
        self._serials = [layouts.DEXYCB_SERIALS[i] for i in cameras]
        self._K = [_read_intrinsics(self.root, serial) for serial in self._serials]
        self._index = open_index(self.root, setup, split, subjects=subjects, refresh=refresh)
        self.num_official = len(self._index.numbering)
        self._ids, self.counts = self._choose(sides, limit)
        hands = [side for side in SIDES if sides in (side, "both") and (self._index.is_left == (side == "left")).any()]
        self._hands = DexYcbHands(_hand_model(self._index.is_open, hand_model, self.root), mano, hands)
        self._betas = {name: self._read_betas(name) for name in {mano for mano, _ in self._index.calibrations}}
        self._extrinsics: dict[str, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def official_index(self, index: int) -> int:
        """The number of sample `index` in the official numbering (`image_id` of result files).

        Raises:
            InputError: folders of subjects that are left out are not there, so their frames cannot be counted.
        """
        if not self._index.is_numbered:
            raise InputError(
                f"{self.root}: without the folders of the other subjects the official numbering is not known; extract "
                "them, at least meta.yml of their sequences"
            )
        return int(self._ids[index])

    def sequence(self, index: int) -> str:
        return self._index.sequences[self._place(index)[0]]

    def key(self, index: int) -> str:
        sequence, camera, frame = self._place(index)
        return f"{self._index.sequences[sequence]}/{self._serials[camera]}/{frame:06d}"

    def hand_model_of(self, side: str) -> HandModel:
        """The model that decodes `params` of this side, with the tips of the labels.

        Raises:
            InputError: it is MANO's and the user's file is not there.
        """
        return self._hands.model(side)

    def T_world_cam(self, index: int) -> np.ndarray:
        """(4, 4) float64 pose of the sample's colour camera: camera to the world that the eight cameras share, metres.

        Raises:
            InputError: the sequence's extrinsics are missing or damaged.
        """
        sequence, camera, _ = self._place(index)
        name = self._index.calibrations[sequence][1]
        if name not in self._extrinsics:
            self._extrinsics[name] = _read_extrinsics(self.root, name, self._index.sequences[sequence])
        return self._extrinsics[name][self._serials[camera]].copy()

    def __getitem__(self, index: int) -> Sample:
        sequence, camera, frame = self._place(index)
        K, name = self._K[camera], self._index.sequences[sequence]
        side = SIDES[int(self._index.is_left[sequence])]
        folder = self.root / name / self._serials[camera]
        key = f"{name}/{self._serials[camera]}/{frame:06d}"
        pose, joints, mask = _read_labels(folder / layouts.dexycb_labels(frame), with_mask=self._with_mask)
        params = self._hands.params(pose, side, self._betas[self._index.calibrations[sequence][0]])
        depth_path = folder / layouts.dexycb_depth(frame)
        depth_m = _read_depth(depth_path) if self._with_depth else None
        sample = Sample(
            key=key,
            rgb=read_rgb(folder / layouts.dexycb_color(frame), layouts.DEXYCB_SIZE_WH),
            K_px=K,
            side=side,
            box_px=ground_truth_box(joints, K, layouts.DEXYCB_SIZE_WH, key),
            joints_cam_m=joints,
            joints_2d_conf=(joints[:, 2] > 0).astype(np.float32),
            joints_3d_conf=np.ones(21, np.float32),
            depth_m=depth_m,
            params=params,
            betas_ok=self._hands.name == "open" or side == "right",
            hand_model=self._hands.name,
            sequence=name,
            vertices_cam_m=self._hands.vertices_cam_m(params, side) if self._with_vertices and params else None,
            hand_mask=mask,
        )
        check_depth(sample, depth_path, _DEPTH_EXPECTED)
        return sample

    def _place(self, index: int) -> tuple[int, int, int]:
        return self._index.numbering.place(int(self._ids[index]))

    def _choose(self, sides: str, limit: int | None) -> tuple[np.ndarray, dict[str, int]]:
        """Official indices of the samples, and counts of frames."""
        index, numbering = self._index, self._index.numbering
        is_left = np.repeat(index.is_left, numbering.num_frames * numbering.num_cameras)
        taken = index.flags != LEFT_OUT
        hand = taken & (index.flags != NO_HAND)
        wanted = hand if sides == "both" else hand & (is_left == (sides == "left"))
        ids = np.flatnonzero(wanted)
        if not len(ids):
            what = "hand" if sides == "both" else f"{sides} hand"
            raise InputError(
                f"{self.root}: split {self.setup} {self.split} has no frame with a {what}; choose another one"
            )
        ids = ids[evenly_spaced(len(ids), limit)]
        counts = {
            "frames": len(hand),
            "of other subjects": len(hand) - int(taken.sum()),
            "without a hand": int((taken & ~hand).sum()),
            "of the other hand": int(hand.sum()) - int(wanted.sum()),
            "unreadable labels": int((index.flags[ids] == UNREADABLE).sum()),
            "right hands": int((~is_left[ids]).sum()),
            "left hands": int(is_left[ids].sum()),
        }
        return ids, counts

    def _read_betas(self, name: str) -> np.ndarray:
        path = layouts.dexycb_mano(self.root, name)
        betas = read_yaml(path, "betas")["betas"]
        if not isinstance(betas, list | tuple) or len(betas) != 10 or not np.isfinite(_numbers(betas)).all():
            raise InputError(f"{path}: betas is not a list of 10 numbers")
        return _numbers(betas)


def _numbers(values: list | tuple) -> np.ndarray:
    """float64, NaN where something is no number."""
    return np.array([v if isinstance(v, int | float) else np.nan for v in values], np.float64)


def _read_labels(path: Path, *, with_mask: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(51,) pose numbers as they are, (21, 3) float64 joints in the colour camera, and the hand's pixels if wanted."""
    pose, joints, *seg = read_members(path, "pose_m", "joint_3d", *(("seg",) if with_mask else ()))
    if joints.size != 63 or pose.size != 51:
        raise InputError(f"{path}: joint_3d {joints.shape} and pose_m {pose.shape}, expected (1, 21, 3) and (1, 51)")
    joints, pose = joints.reshape(21, 3).astype(np.float64), pose.reshape(51)
    if not np.isfinite(joints).all() or not (joints[:, 2] > 0).any():
        raise InputError(f"{path}: joint_3d is not a hand before the camera; extract or download the file again")
    if not np.isfinite(pose).all():
        raise InputError(f"{path}: pose_m has values that are not numbers; extract or download the file again")
    if not with_mask:
        return pose, joints, None
    width, height = layouts.DEXYCB_SIZE_WH
    if seg[0].shape != (height, width):
        raise InputError(
            f"{path}: seg {seg[0].shape}, expected ({height}, {width}); extract or download the file again"
        )
    return pose, joints, seg[0] == layouts.DEXYCB_HAND_SEG


def _read_intrinsics(root: Path, serial: str) -> np.ndarray:
    path = layouts.dexycb_intrinsics(root, serial)
    color = read_yaml(path, "color")["color"]
    try:
        return intrinsics(*(float(color[name]) for name in ("fx", "fy", "ppx", "ppy")))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: color must hold the numbers fx, fy, ppx and ppy") from error


def _read_extrinsics(root: Path, name: str, sequence: str) -> dict[str, np.ndarray]:
    """(4, 4) camera to world by serial."""
    if not name:
        raise InputError(f"{root / sequence / 'meta.yml'}: has no key 'extrinsics', so its cameras have no known place")
    path = layouts.dexycb_extrinsics(root, name)
    poses = read_yaml(path, "extrinsics")["extrinsics"]
    matrices = {}
    for serial in layouts.DEXYCB_SERIALS:
        numbers = poses.get(serial) if isinstance(poses, dict) else None
        if not isinstance(numbers, list | tuple) or len(numbers) != 12 or not np.isfinite(_numbers(numbers)).all():
            raise InputError(f"{path}: extrinsics of {serial} is not a list of 12 numbers (3x4, camera to world)")
        matrices[serial] = np.concatenate([_numbers(numbers).reshape(3, 4), [[0.0, 0.0, 0.0, 1.0]]])
    return matrices


def _read_depth(path: Path) -> np.ndarray:
    depth_m = read_depth_png(path, layouts.DEPTH_MM_M, _DEPTH_EXPECTED)
    check_size(path, depth_m, layouts.DEXYCB_SIZE_WH)
    return depth_m


def _hand_model(is_open: np.ndarray, wanted: str, root: Path) -> str:
    """ "open" or "mano": the user's choice, else the metadata's."""
    if wanted not in ("auto", "open", "mano"):
        raise InputError(f"hand_model is {wanted!r}; expected auto, open or mano")
    if wanted != "auto":
        return wanted
    if is_open.any() and not is_open.all():
        raise InputError(f"{root}: some sequences are labelled with the open hand and some with MANO; give hand_model")
    return layouts.OPEN_HAND if is_open.any() else "mano"
