"""Submission files for benchmarks: predictions of a whole split, written and checked.

Samples are predicted in the official order. HO3D and FreiHAND require every picture of their evaluation split; a
picture that cannot be read or has no box is an error. DexYCB scores only the frames with a hand, so the file contains
only those.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from utnet.config import CropConfig, TrainConfig
from utnet.errors import InputError
from utnet.evaluation.crops import CropBatch, CropDataset, crop_batches
from utnet.evaluation.passes import forward
from utnet.evaluation.placing import benchmark_tips, place
from utnet.evaluation.protocol import GROUND_TRUTH, MIDDLE, Protocol
from utnet.evaluation.submission import (
    FREIHAND_NUM,
    HO3D_NUM,
    check_dexycb_results,
    check_freihand_submission,
    check_ho3d_submission,
    write_dexycb_results,
    write_freihand_submission,
    write_ho3d_submission,
)
from utnet.geometry import mirror_points
from utnet.model import UTNet

_NUM_VERTICES = 778


@dataclass(frozen=True)
class SubmissionResult:
    """A written submission.

    Attributes:
        path: the file.
        num: number of hands in it.
        protocol: protocol of the predictions.
        lines: result of the check, for the user; warnings first.
    """

    path: Path
    num: int
    protocol: Protocol
    lines: list[str]


def write_submission(
    model: UTNet,
    source: Any,
    crop: CropConfig,
    path: str | Path,
    *,
    use_depth: bool,
    joints_only: bool = False,
    loading: TrainConfig | None = None,
    progress: bool = False,
) -> SubmissionResult:
    """Predicts a split, writes the submission file and checks it.

    For MANO networks fingertips are the benchmark's vertices. Translations are solved from pixels in the benchmark's
    camera (`placement`), with distances measured from the depth image if `use_depth` is True.

    Args:
        model: the network.
        source: HO3D, FreiHAND or DexYCB, a whole official split.
        crop: how crops are cut.
        path: the zip, or the text file of DexYCB, written atomically.
        use_depth: use the depth images (FreiHAND has none).
        joints_only: allow zeros for the vertices of a network with another hand than MANO's (HO3D, FreiHAND).
        loading: batch size and workers (default: those of `TrainConfig`).
        progress: show a progress bar.

    Raises:
        InputError: vertices would be zeros, a sample is missing or cannot be read, its camera is unknown, the split is
            incomplete, or the check fails.
    """
    path = Path(path)
    if source.name not in _WRITERS:
        raise InputError(f"{source.name}: submissions are not supported; expected {', '.join(_WRITERS)}")
    _check_complete(source)
    mano = model.hand.name == "mano" and model.hand.num_vertices == _NUM_VERTICES
    if not (mano or joints_only or source.name == "dexycb"):
        raise InputError(
            f"{path}: {source.name} scores vertices of MANO's mesh, and those of a network with the {model.hand.name} "
            "hand would all be zeros; train with model.mano, or write joints alone by --joints-only"
        )
    protocol = Protocol(use_depth, _boxes(source), joints="benchmark" if mano else "own")
    was_training = model.training
    model.eval()
    try:
        with tempfile.TemporaryFile() as spool:  # meshes are kept on disk, since joints come first
            crops = CropDataset(source, model.config.size_px, crop, labelled=False)
            batches = _shown(crop_batches(crops, loading or TrainConfig()), len(crops), progress)
            hands = _Hands(model, batches, source.tips, protocol, spool if mano else None)
            lines = _WRITERS[source.name](path, hands, source)
    finally:
        model.train(was_training)
    return SubmissionResult(path, len(source), protocol, [*_warnings(model, mano, source), *lines])


class _Hands:
    """Predicted hands in the official order: joints first, then the meshes from the spool file."""

    def __init__(self, model: UTNet, batches: Iterator[CropBatch], tips: str, protocol: Protocol, spool: Any):
        self._model, self._batches, self._tips, self._protocol, self._spool = model, batches, tips, protocol, spool

    def joints(self) -> Iterator[np.ndarray]:
        """Yields (21, 3) joints in the camera of the picture; left hands are mirrored back."""
        use_depth = self._protocol.depth
        for part in self._batches:
            for index, bad in sorted(part.missing.items()):
                raise InputError(f"{bad.message} (sample {index}; a submission requires all samples)")
            for crop in part.crops:
                if crop.sample.K_px is None or (use_depth and crop.sample.depth_m is None):
                    lacks = "camera" if crop.sample.K_px is None else "depth image"
                    raise InputError(f"{crop.sample.key}: has no {lacks}; required for a submission")
            placed = place(forward(self._model, part, use_depth=use_depth), part, self._model.hand, use_depth=use_depth)
            joints, sides = placed.joints_m, [crop.side for crop in part.crops]
            if self._protocol.joints == "benchmark":
                joints = benchmark_tips(joints, placed.vertices_m, self._tips, sides)
            for i, side in enumerate(sides):
                if self._spool is not None:
                    self._spool.write(_back(placed.vertices_m[i] + placed.transl_m[i], side).tobytes())
                yield _back(joints[i] + placed.transl_m[i], side)

    def vertices(self) -> Iterator[np.ndarray] | None:
        """Yields (778, 3) meshes, after all joints; None if the network's mesh is not MANO's."""
        return None if self._spool is None else self._read()

    def _read(self) -> Iterator[np.ndarray]:
        self._spool.seek(0)
        size = _NUM_VERTICES * 3 * 8
        while data := self._spool.read(size):
            yield np.frombuffer(data).reshape(_NUM_VERTICES, 3)


def _shown(batches: Iterator[CropBatch], num: int, progress: bool) -> Iterator[CropBatch]:
    """The batches, with a progress bar over the hands."""
    with tqdm(total=num, desc="predict", unit="hand", disable=None if progress else True, leave=False) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.crops))


def _back(points_m: np.ndarray, side: str) -> np.ndarray:
    """Mirrors left hands back (crops are not rotated, so the frame is that of the picture's camera)."""
    return mirror_points(points_m) if side == "left" else points_m


def is_complete(source: Any) -> bool:
    """Whether a source is a complete official split, as a submission requires."""
    if not hasattr(source, "official_index"):
        return False
    try:
        _check_complete(source)
    except InputError:
        return False
    return True


def _check_complete(source: Any) -> None:
    """Raises InputError unless the source is a complete official split."""
    ids = [source.official_index(i) for i in range(len(source))]
    if source.name == "dexycb":
        expected = source.counts["frames"] - source.counts["without a hand"]  # with those of subjects left out
        if len(ids) != expected:
            raise InputError(
                f"{len(ids)} of {expected} frames with a hand; remove limit, sides and subjects: all are scored"
            )
        return
    if source.split != "evaluation":
        raise InputError(f"{source.name} {source.split}: only the split evaluation can be submitted")
    if getattr(source, "two_hands", False):
        raise InputError(f"{source.root}: H2O3D submissions have another format; only HO3D is supported")
    lacking = sorted(set(range(source.num_official)) - set(ids))
    if lacking or ids != sorted(ids):
        raise InputError(
            f"{source.root}: {len(lacking)} of {source.num_official} pictures have no box or were left out, the first "
            f"is number {lacking[0] if lacking else 0}; the benchmark requires all: use the whole split"
        )


def _boxes(source: Any) -> str:
    """Ground-truth boxes, except for old releases of FreiHAND, which have none."""
    unlabelled = source.name == "freihand" and not (source[0].joints_3d_conf > 0).any()
    return MIDDLE if unlabelled else GROUND_TRUTH


def _warnings(model: UTNet, mano: bool, source: Any) -> list[str]:
    if mano:
        return []
    lines = [
        f"warning: fingertips are those of the {model.hand.name} hand, not the benchmark's vertices of MANO's mesh"
    ]
    if source.name != "dexycb":
        lines.insert(0, "warning: joints only, all vertices are zeros: the benchmark's mesh scores mean nothing")
    return lines


def _write_ho3d(path: Path, hands: _Hands, source: Any) -> list[str]:
    num = source.num_official
    write_ho3d_submission(path, hands.joints(), hands.vertices(), num=num)
    version = next((version for version, official in HO3D_NUM.items() if official == num), None)
    found = check_ho3d_submission(path, num=num)
    wanted = " or ".join(f"{n} ({v})" for v, n in HO3D_NUM.items())
    return _checked_lines(path, len(found.joints_m), found.has_mesh, f"HO3D {version}" if version else None, wanted)


def _write_freihand(path: Path, hands: _Hands, source: Any) -> list[str]:
    num = source.num_official
    write_freihand_submission(path, hands.joints(), hands.vertices(), num=num)
    found = check_freihand_submission(path, num=num)
    name = "FreiHAND" if num == FREIHAND_NUM else None
    return _checked_lines(path, len(found.joints_m), found.has_mesh, name, str(FREIHAND_NUM))


def _write_dexycb(path: Path, hands: _Hands, source: Any) -> list[str]:
    ids = [source.official_index(i) for i in range(len(source))]
    write_dexycb_results(path, ids, hands.joints())
    found = check_dexycb_results(path, ids)
    without = source.counts["without a hand"]
    return [
        f"checked {path}: {len(found)} hands of {source.num_official} frames of {source.setup} {source.split}, "
        f"{without} without a hand are left out, as in the toolkit"
    ]


def _checked_lines(path: Path, num: int, has_mesh: bool, benchmark: str | None, wanted: str) -> list[str]:
    """Lines with the result of the check, with a warning if the split does not have the official size."""
    mesh = "with meshes" if has_mesh else "joints only"
    line = f"checked {path}: {num} hands, {mesh}; order, axes and units are valid"
    if benchmark is None:
        return [line, f"warning: the official split has {wanted} pictures, so the server would reject these {num}"]
    return [f"{line}; the number is that of {benchmark}"]


_WRITERS: dict[str, Callable[[Path, _Hands, Any], list[str]]] = {
    "ho3d": _write_ho3d,
    "freihand": _write_freihand,
    "dexycb": _write_dexycb,
}
