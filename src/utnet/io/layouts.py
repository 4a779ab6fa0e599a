"""File names, numbering and encodings of the official data layouts, shared by readers and writers.

DexYCB follows dex-ycb-toolkit (`dex_ycb.py`), HO3D follows the ho3d scripts (`vis_utils.py`, `pred.py`), FreiHAND
follows its toolbox (`fh_utils.py`, `model.py`).
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np

from utnet.errors import InputError

HAND_MODEL_KEY = "hand_model"
"""Key of DexYCB's `meta.yml` and `mano.yml` in trees written by UTNet; official trees (MANO) do not have it."""

OPEN_HAND = "open"
"""Its value for labels of the open hand: pose coefficients with identity basis and no mean pose."""

# --------------------------------------------------------------------------------------------------------------- DexYCB

DEXYCB_SUBJECTS = (
    "20200709-subject-01", "20200813-subject-02", "20200820-subject-03", "20200903-subject-04", "20200908-subject-05",
    "20200918-subject-06", "20200928-subject-07", "20201002-subject-08", "20201015-subject-09", "20201022-subject-10",
)  # fmt: skip

DEXYCB_SERIALS = (
    "836212060125", "839512060362", "840412060917", "841412060263",
    "932122060857", "932122060861", "932122061900", "932122062010",
)  # fmt: skip
"""The eight cameras, in their official order."""

DEXYCB_SIZE_WH = (640, 480)
DEXYCB_NUM_SEQUENCES = 100
"""Number of sequences per subject (sorted by name), asserted by the official toolkit."""

DEXYCB_HAND_SEG = 255
"""Value of the hand in `seg`."""

DEXYCB_NO_HAND = -1.0
"""Value of all of `joint_3d` if the frame has no hand."""

DEXYCB_SETUPS = ("s0", "s1", "s2", "s3")
DEXYCB_SPLITS = ("train", "val", "test")


def dexycb_color(frame: int) -> str:
    return f"color_{frame:06d}.jpg"


def dexycb_depth(frame: int) -> str:
    return f"aligned_depth_to_color_{frame:06d}.png"


def dexycb_labels(frame: int) -> str:
    return f"labels_{frame:06d}.npz"


def dexycb_intrinsics(root: Path, serial: str) -> Path:
    width, height = DEXYCB_SIZE_WH
    return root / "calibration" / "intrinsics" / f"{serial}_{width}x{height}.yml"


def dexycb_extrinsics(root: Path, name: str) -> Path:
    """`name` is `extrinsics` of a sequence's `meta.yml`."""
    return root / "calibration" / f"extrinsics_{name}" / "extrinsics.yml"


def dexycb_mano(root: Path, name: str) -> Path:
    """`name` is `mano_calib[0]` of a sequence's `meta.yml`."""
    return root / "calibration" / f"mano_{name}" / "mano.yml"


def dexycb_split(setup: str, split: str) -> tuple[list[int], list[int], list[int]]:
    """The official splits: s0 unseen sequences, s1 unseen subjects, s2 unseen cameras, s3 unseen grasps.

    Returns:
        Indices of subjects (0-9), cameras (0-7) and sequences of each subject (0-99) in that split.

    Raises:
        InputError: no such setup or split.
    """
    if setup not in DEXYCB_SETUPS or split not in DEXYCB_SPLITS:
        raise InputError(
            f"DexYCB has no split {setup!r} {split!r}; setups are {', '.join(DEXYCB_SETUPS)}, "
            f"splits are {', '.join(DEXYCB_SPLITS)}"
        )
    subjects, cameras, sequences = list(range(10)), list(range(8)), list(range(DEXYCB_NUM_SEQUENCES))
    if setup == "s0":
        subjects = {"train": subjects, "val": [0, 1], "test": [2, 3, 4, 5, 6, 7, 8, 9]}[split]
        sequences = [i for i in sequences if (i % 5 == 4) != (split == "train")]
    elif setup == "s1":
        subjects = {"train": [0, 1, 2, 3, 4, 5, 9], "val": [6], "test": [7, 8]}[split]
    elif setup == "s2":
        cameras = {"train": [0, 1, 2, 3, 4, 5], "val": [6], "test": [7]}[split]
    else:
        held_out = {"val": (3, 19), "test": (7, 11, 15)}
        wanted = held_out.get(split, tuple(k for k in range(20) if k not in (3, 7, 11, 15, 19)))
        sequences = [i for i in sequences if i // 5 in wanted]
    return subjects, cameras, sequences


class DexYcbNumbering:
    """Official sample index of a split: sequences in order, then cameras, then frames.

    Computed, not stored, so opening a split of half a million samples costs nothing.

    Args:
        num_frames: number of frames of each sequence of the split, in order (may be 0).
        num_cameras: number of cameras of the split.
    """

    def __init__(self, num_frames: list[int] | np.ndarray, num_cameras: int):
        self.num_frames, self.num_cameras = np.asarray(num_frames, np.int64), num_cameras
        self._starts = np.concatenate([[0], np.cumsum(self.num_frames * num_cameras)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def place(self, index: int) -> tuple[int, int, int]:
        """Returns sequence, camera and frame of sample `index`; sequence and camera are numbers within the split."""
        sequence = int(np.searchsorted(self._starts, index, side="right")) - 1
        camera, frame = divmod(index - int(self._starts[sequence]), int(self.num_frames[sequence]))
        return sequence, camera, frame

    def index(self, sequence: int, camera: int, frame: int) -> int:
        """Inverse of `place`."""
        return int(self._starts[sequence] + camera * self.num_frames[sequence]) + frame


DEPTH_MM_M = 0.001
"""Metres of one unit of millimetre depth."""


def depth_mm_encode(depth_m: np.ndarray) -> np.ndarray:
    """Converts metres to uint16 millimetres; distances out of range (over 65.5 m) become 0, no reading."""
    mm = np.rint(np.asarray(depth_m, np.float64) * 1000.0)
    return np.where((mm > 0) & (mm <= 65535), mm, 0).astype(np.uint16)


# ----------------------------------------------------------------------------------------------------------------- HO3D

HO3D_SPLITS = ("train", "evaluation")
"""The official lists. Readers also split "train" into "train_fit" and "val", by recording."""

HO3D_SIZE_WH = (640, 480)
HO3D_RGB_SUFFIXES = {"v2": ".png", "v3": ".jpg", "h2o3d": ".jpg"}
"""By version; h2o3d is H2O3D, with two hands per frame in the same layout."""

HO3D_DEPTH_SCALE = 0.00012498664727900177
"""Metres of one unit of HO3D's depth."""

HO3D_HAND_MODEL_KEY = "handModel"
"""Key of a meta pickle in trees written by UTNet (value `OPEN_HAND`)."""

HO3D_NOT_ANNOTATED = "objRot"
"""Key whose value is None if the frame has no annotation."""

HO3D_XYZ = "evaluation_xyz.json"
"""Published ground truth of the evaluation split, one entry per line of the list; H2O3D has none."""

HO3D_VERTS = "evaluation_verts.json"

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0])
"""HO3D's axes are OpenGL's (y up, z backwards); the matrix is its own inverse."""


def ho3d_list(split: str) -> str:
    """Name of the file that lists the frames of a split, one "SEQUENCE/ID" per line."""
    return f"{split}.txt"


def ho3d_file(split: str, frame: str, folder: str, suffix: str) -> str:
    """Relative path of a file of `frame` ("SEQUENCE/ID"); folders are rgb, depth and meta."""
    sequence, number = frame.split("/")
    return f"{split}/{sequence}/{folder}/{number}{suffix}"


def ho3d_keys(side: str, *, two_hands: bool) -> dict[str, str]:
    """Keys of one hand in a meta file: pose, transl, joints, box, and validity of joints and pose angles.

    HO3D has only the right hand, fully labelled; H2O3D has two. `handBeta` is shared by both hands.
    """
    hand, name = (f"{side}Hand", side.capitalize()) if two_hands else ("hand", "")
    return {
        "pose": f"{hand}Pose",
        "transl": f"{hand}Trans",
        "joints": f"{hand}Joints3D",
        "box": f"{hand}BoundingBox",
        "joints_ok": f"jointValid{name}",
        "pose_ok": f"poseValid{name}",
    }


def ho3d_recording(sequence: str) -> str:
    """Recording that a sequence belongs to: its leading letters.

    ABF10 to ABF14 are five cameras of one recording, MC1 to MC6 takes of one person with one object.
    """
    letters = sequence[: len(sequence) - len(sequence.lstrip(string.ascii_letters))]
    return letters or sequence


def ho3d_depth_encode(depth_m: np.ndarray) -> np.ndarray:
    """Converts metres to a (H, W, 3) uint8 RGB image: depth units are red + 256 * green.

    Distances out of range (over 8.19 m) become 0, no reading.
    """
    units = np.rint(np.asarray(depth_m, np.float64) / HO3D_DEPTH_SCALE)
    units = np.where((units > 0) & (units <= 65535), units, 0).astype(np.uint16)
    return np.stack([units & 255, units >> 8, np.zeros_like(units)], -1).astype(np.uint8)


def ho3d_depth_decode(rgb: np.ndarray) -> np.ndarray:
    """Inverse of `ho3d_depth_encode`, float32 metres."""
    units = rgb[..., 1].astype(np.uint16)  # uint8 would overflow
    units <<= 8
    units |= rgb[..., 0]
    return units * np.float32(HO3D_DEPTH_SCALE)


# ------------------------------------------------------------------------------------------------------------- FreiHAND

FREIHAND_SIZE_WH = (224, 224)

FREIHAND_SETS = ("training", "evaluation")
"""Prefixes of the annotation files and names of the picture folders."""

FREIHAND_BACKGROUNDS = ("gs", "hom", "sample", "auto")
"""The toolbox's names of background variants, in the order of the numbering: green screen as recorded, homogenised,
coloured automatically with and without sample points. Evaluation has only the first."""

FREIHAND_HAND_MODEL = "hand_model.json"
"""File {"hand_model": "open"} in trees written by UTNet; official trees (MANO) do not have it."""

FREIHAND_ROOT_JOINT = 9
"""Middle MCP: the joint of `uv_root` and `scale` in a mano row, and the reference of `scale.json`."""


def freihand_json(which: str, what: str) -> str:
    """Name of an annotation file: `which` is one of `FREIHAND_SETS`, `what` is K, mano, scale, verts or xyz."""
    return f"{which}_{what}.json"


def freihand_rgb(which: str, number: int) -> str:
    """Path of picture `number` = row + (rows of the set) * (index of the background in `FREIHAND_BACKGROUNDS`)."""
    return f"{which}/rgb/{number:08d}.jpg"


def freihand_mask(row: int) -> str:
    """Path of the hand mask of training picture `row`, shared by all backgrounds; evaluation has none."""
    return f"training/mask/{row:08d}.jpg"
