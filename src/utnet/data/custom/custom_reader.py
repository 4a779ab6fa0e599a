"""Own data -> Sample: a folder with pictures and one file `hands.jsonl`, one hand a line (docs/custom_data.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from tqdm import tqdm

from utnet.conventions import MANO_TIP_VERTICES, SIDES
from utnet.data.cache import cached_arrays
from utnet.data.custom.custom_line import HAND_MODELS, LINE_SPLITS, OPENGL, RELATIVE, Line, is_at_camera
from utnet.data.source import NoSuchHands, check_depth, clip_box, evenly_spaced, ground_truth_box, hold_out
from utnet.errors import InputError
from utnet.geometry import box_of
from utnet.io.files import decode_rgb, read_bytes, read_depth_png
from utnet.types import Sample

FILE = "hands.jsonl"
SPLITS = ("train", "train_fit", "val", "test")
VAL_SHARE = 0.1

_VERSION = 2  # of the index
_BAD = -1  # side and split of an invalid line
_MAX_BAD_LINES = 0.1  # share of invalid lines above which the file is refused
_MAX_LINE = 2**20
_BAR_BYTES = 2**25  # larger files take seconds and show a bar
_DEPTH_EXPECTED = "a 16-bit PNG whose numbers times depth_scale are metres along z"


class BadLines(InputError):
    """Invalid lines of `hands.jsonl`; the text is the message of the first.

    Attributes:
        messages: of all invalid lines.
    """

    def __init__(self, messages: list[str]):
        more = len(messages) - 1
        also = (
            f" ({more} more such line{'' if more == 1 else 's'}; `utnet data check custom` lists them)" if more else ""
        )
        super().__init__(messages[0] + also)
        self.messages = messages


class Custom:
    """Full pictures of any size, one hand per line.

    Splits: the key `"split": "train" | "val" | "test"` of a line, by default train. If no line has val, `val` is about
    a tenth of the training hands, by recording (`sequence`, by default the picture's folder; see `hold_out`), and
    `train_fit` the remainder.

    Labels: 3D and 2D joints are separate labels. `joints_2d`, where given, are the image points (`Sample.joints_px`);
    otherwise the 3D joints are projected. Joints that are null are NaN with confidence 0. Parameters contain no mean
    pose (`flat_hand_mean=True`). Betas of a left MANO hand are assumed to be MANO_LEFT's, so `betas_ok` is False.

    Opening parses the structure of every line once and keeps an index; numbers and files are checked when the hand is
    read. An invalid line belongs to train and raises an error when read; if more than a tenth of the lines are invalid,
    opening fails.
    """

    name = "custom"

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        limit: int | None = None,
        sides: str = "both",
        hand_model: str = "auto",
        tips: str = "smplx",
        with_depth: bool = True,
    ):
        """Opens a split.

        Args:
            root: the folder that contains `hands.jsonl`.
            split: one of `SPLITS`.
            limit: at most this many hands, evenly spaced.
            sides: "right", "left" or "both".
            hand_model: "auto": each line's own `hand_model`; else "open" or "mano" for all.
            tips: whose fingertip vertices decode MANO parameters (`conventions.MANO_TIP_VERTICES`).
            with_depth: False leaves depth files unread.

        Raises:
            InputError: no such folder, split or option, or too many invalid lines.
        """
        self.root, self.split, self.tips = Path(root), split, tips
        self._hand_model, self._with_depth = hand_model, with_depth
        for option, value, known in (
            ("split", split, SPLITS),
            ("sides", sides, (*SIDES, "both")),
            ("hand_model", hand_model, ("auto", *HAND_MODELS)),
            ("tips", tips, tuple(MANO_TIP_VERTICES)),
        ):
            if value not in known:
                raise InputError(f"custom data: {option} is {value!r}; expected one of {', '.join(known)}")
        self.path = self.root / FILE
        try:
            about = self.path.stat()
        except OSError as error:
            raise InputError(f"{self.path}: no such file; write one hand a line (docs/custom_data.md)") from error
        if not self.path.is_file():
            raise InputError(f"{self.path}: a folder; write a file with one hand a line (docs/custom_data.md)")
        stamp = [_VERSION, about.st_size, about.st_mtime_ns]
        self._index = cached_arrays("custom", self.root, stamp, lambda: _read_index(self.path))
        in_split = self._of_split(split)
        side = self._index["side"]
        on_side = in_split if sides == "both" else in_split & ((side == SIDES.index(sides)) | (side == _BAD))
        rows = np.flatnonzero(on_side)
        if not len(rows):
            which = "hand" if sides == "both" else f"{sides} hand"
            raise NoSuchHands(
                f"{self.path}: split {split} has no {which}; it has {self._describe_splits()}: choose another"
            )
        self._rows = rows[evenly_spaced(len(rows), limit)]
        num, num_split = len(in_split), int(in_split.sum())
        self.counts = {"lines": num, "of other splits": num - num_split, "of the other side": num_split - len(rows)}
        self.counts["hands"] = len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, index: int) -> str:
        """The picture's path and the number of the line."""
        if self._index["side"][self._rows[index]] == _BAD:
            return f"line {self._index['line'][self._rows[index]]}"
        return self._line(index).key

    def sequence(self, index: int) -> str:
        return self._index["sequence_names"][self._index["sequence"][self._rows[index]]].decode()

    def picture_turn(self, index: int) -> int:
        """EXIF orientation of the picture, 1 to 8 (1: upright as stored), which is not applied."""
        try:
            with Image.open(self._line(index).file("image", self.root)) as image:
                return int(image.getexif().get(Base.Orientation, 1))
        except Exception:  # reported when the sample is read
            return 1

    def __getitem__(self, index: int) -> Sample:
        line = self._line(index)
        image_path = line.file("image", self.root)
        rgb = decode_rgb(read_bytes(image_path), where=str(image_path))
        size_wh = (rgb.shape[1], rgb.shape[0])
        K = line.camera()
        joints, conf_3d = line.joints("joints_3d", 3)
        joints_px, conf_2d = line.joints("joints_2d", 2)
        box = _box(line, joints, joints_px, K, size_wh)
        projected = K is not None and "joints_2d" not in line.values
        if projected:
            conf_2d = conf_3d * (np.nan_to_num(joints[:, 2]) > 0)
        params, hand_model = line.params(self._hand_model)
        depth_path = line.file("depth", self.root) if self._with_depth and "depth" in line.values else None
        if depth_path and K is None:
            line.fail("'depth' needs 'K': without it depth cannot be turned into metres across the picture")
        sample = Sample(
            key=line.key,
            rgb=rgb,
            K_px=K,
            side=line.side,
            box_px=box,
            joints_cam_m=joints,
            joints_2d_conf=conf_2d,
            joints_3d_conf=conf_3d,
            depth_m=_read_depth(depth_path, size_wh, line.depth_scale()) if depth_path else None,
            params=params,
            betas_ok=hand_model == "open" or line.side == "right",
            hand_model=hand_model,
            sequence=self.sequence(index),
            joints_px=None if projected else joints_px,
        )
        if depth_path:
            check_depth(sample, depth_path, _DEPTH_EXPECTED)
        return sample

    def _line(self, index: int) -> Line:
        row = self._rows[index]
        number, size = int(self._index["line"][row]), int(self._index["size"][row])
        try:
            with open(self.path, "rb") as file:
                file.seek(int(self._index["offset"][row]))
                text = file.read(size)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); check the folder") from error
        return Line(text, self.path, number)

    def _of_split(self, split: str) -> np.ndarray:
        """(N,) bool: the lines of a split."""
        labelled = self._index["split"]
        train, bad = labelled == LINE_SPLITS.index("train"), labelled == _BAD
        if split == "train":
            return train | bad
        if split == "test":
            return labelled == LINE_SPLITS.index(split)
        if (labelled == LINE_SPLITS.index("val")).any():
            return train | bad if split == "train_fit" else labelled == LINE_SPLITS.index("val")
        held_out = self._held_out(train)
        return train & held_out if split == "val" else (train & ~held_out) | bad

    def _describe_splits(self) -> str:
        """The splits that have hands, and how many of either side."""
        parts = []
        for split in SPLITS:
            try:
                rows = self._of_split(split)
            except InputError:  # a single recording cannot be split
                continue
            counts = [int((rows & (self._index["side"] == i)).sum()) for i in range(len(SIDES))]
            hands = " and ".join(f"{num} {side}" for num, side in zip(counts, SIDES, strict=True) if num)
            parts += [f"{split} ({hands})"] if hands else []
        return ", ".join(parts)

    def _held_out(self, train: np.ndarray) -> np.ndarray:
        """(N,) bool: lines of the held-out recordings."""
        names, sequence = self._index["sequence_names"], self._index["sequence"]
        counts = np.bincount(sequence[train], minlength=len(names)).tolist()
        sizes = {name.decode(): num for name, num in zip(names.tolist(), counts, strict=True) if num}
        if len(sizes) < 2:
            raise NoSuchHands(
                f"{self.path}: all training hands belong to one recording, so none can be held out; give lines a "
                "'sequence' or a 'split'"
            )
        taken = [name.encode() for name in hold_out(sizes, VAL_SHARE)]
        return np.isin(names, taken)[sequence]


def _read_index(path: Path) -> dict[str, np.ndarray]:
    """Index of the lines: position, size and split. Blank lines are skipped."""
    rows: list[tuple[int, int, int, int, int, int]] = []
    sequences: dict[str, int] = {}
    end = number = 0
    size = path.stat().st_size
    hidden = True if size < _BAR_BYTES else None
    bad: list[str] = []
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=hidden)
    with open(path, "rb") as file, bar:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(
                f"{path}: text in UTF-16, as PowerShell's > writes it; save it as UTF-8 "
                "(Get-Content FILE | Set-Content -Encoding utf8 NEW)"
            )
        file.seek(0)
        while text := file.readline(_MAX_LINE + 1):
            number += 1
            offset, end = end, end + len(text)
            bar.update(len(text))
            if len(text) > _MAX_LINE:
                raise InputError(f"{path}: line {number}: more than {_MAX_LINE} bytes; every line is one hand")
            if text.strip():
                try:
                    line = Line(text, path, number)
                except InputError as error:
                    bad.append(str(error))
                    rows.append((offset, len(text), number, _BAD, _BAD, sequences.setdefault("", len(sequences))))
                    continue
                sequence = sequences.setdefault(line.sequence, len(sequences))
                split = LINE_SPLITS.index(line.split or "train")
                rows.append((offset, len(text), number, SIDES.index(line.side), split, sequence))
    if len(bad) > _MAX_BAD_LINES * len(rows):
        raise BadLines(bad)
    if not rows:
        raise InputError(f"{path}: has no line; write one hand a line (docs/custom_data.md)")
    offsets, sizes, lines, sides, splits, sequence_ids = np.array(rows, np.int64).T
    return {
        "offset": offsets,
        "size": sizes.astype(np.int32),
        "line": lines,
        "side": sides.astype(np.int8),
        "split": splits.astype(np.int8),
        "sequence": sequence_ids.astype(np.int32),
        "sequence_names": np.array([name.encode() for name in sequences]),
    }


def _box(
    line: Line, joints: np.ndarray, joints_px: np.ndarray, K: np.ndarray | None, size_wh: tuple[int, int]
) -> np.ndarray:
    """The line's box, else the tight box of its image points, else that of its projected joints."""
    box = line.box()
    labelled = joints_px[np.isfinite(joints_px[:, 0])]
    if box is None and len(labelled) > 1 and (np.ptp(labelled, axis=0) > 0).all():
        box = clip_box(box_of(labelled), size_wh)
    if box is None and K is not None and np.isfinite(joints[:, 0]).sum() > 1:
        _check_frame(line, joints)
        box = ground_truth_box(joints, K, size_wh, line.where)
    if box is None:
        line.fail("no 'box', and no joints with image points to take one from; give [x0, y0, x1, y1] in pixels")
    width, height = size_wh
    if not (box[0] < width - 0.5 and box[1] < height - 0.5 and box[2] > -0.5 and box[3] > -0.5):
        line.fail(f"the hand's box {np.round(box, 1).tolist()} lies outside the picture of {width}x{height} pixels")
    return box


def _check_frame(line: Line, joints: np.ndarray) -> None:
    """InputError for joints behind the camera or around it."""
    if is_at_camera(joints):
        line.fail(f"{RELATIVE}; add the wrist's position in the camera, or leave K out and give a box")
    if not (joints[:, 2] > 0).any():
        line.fail(f"{OPENGL}: all of them lie behind the camera; negate y and z")


def _read_depth(path: Path, size_wh: tuple[int, int], scale: float) -> np.ndarray:
    if path.suffix.lower() in (".npy", ".npz", ".exr", ".pfm"):
        raise InputError(f"{path}: expected {_DEPTH_EXPECTED}; save it as one (millimetres in uint16)")
    depth = read_depth_png(path, scale, _DEPTH_EXPECTED)
    if depth.shape[::-1] != size_wh:
        raise InputError(
            f"{path}: {depth.shape[1]}x{depth.shape[0]} pixels, the picture has {size_wh[0]}x{size_wh[1]}; expected "
            "depth of the picture's own camera, pixel by pixel"
        )
    return depth
