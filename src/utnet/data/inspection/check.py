"""Validation of a source: readable files, and labels consistent with each other and the pictures (`utnet data
check`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from utnet.data.inspection import convert
from utnet.data.inspection.check_report import CheckReport, judge_files, judge_measurements
from utnet.data.inspection.decode import Decoder
from utnet.data.inspection.exif_orientation import hands_seen
from utnet.data.inspection.judge_labels import FEW, judge_labels, turn_note
from utnet.data.inspection.labels import Labels
from utnet.data.inspection.measure import HIDDEN_M, Measure
from utnet.data.inspection.scan import scan
from utnet.data.mixture import Mixture
from utnet.data.source import BadSample, evenly_spaced, is_endless, is_stream, read_sample
from utnet.errors import InputError
from utnet.types import Sample

_LEAST_READINGS = 5
"""Joints with depth that are needed to confirm a camera."""

_MOST_TURNS = 5000
"""Number of pictures whose EXIF orientation is read."""


def check_source(source: Any, *, mano: str | None = None, workers: int = 0, progress: bool = False) -> CheckReport:
    """Reads and validates every sample.

    Args:
        source: a `Source`, or a `StreamSource` whose passes end.
        mano: folder of the user's MANO files, for comparing MANO parameters with their joints.
        workers: number of reading processes.
        progress: show a progress bar.
    """
    result = scan(source, Measure(Decoder(source, mano)), workers=workers, progress=progress)
    report = CheckReport({"counts": {name: int(n) for name, n in getattr(source, "counts", {}).items()}})
    judge_files(report, source, result)
    if len(result):
        labels = labels_of(source, result.arrays, result.keys)
        report.findings += judge_labels(labels)
        if note := turn_note(labels):
            report.notes.append(note)
        judge_measurements(report, result, source.tips)
    return report


def refuse_wrong_labels(source: Any, *, num: int = 256) -> None:
    """Validates the labels of samples spread over training data. Unreadable samples are skipped, except lines of own
    data that are rejected for their conventions (millimetres, OpenGL axes, ...).

    Args:
        source: any source. Synthetic hands are skipped; the parts of a mixture share `num` equally.
        num: number of samples.

    Raises:
        InputError: labels that would make training wrong.
    """
    parts: Sequence[Any] = source.parts if isinstance(source, Mixture) else (source,)
    for part in parts:
        if not is_stream(part) and is_endless(len(part)):
            continue
        refused: list[str] = []
        samples = list(islice(_readable(part, -(-num // len(parts)), refused), -(-num // len(parts))))
        hint = f"details: `utnet data check {part.name}`; data.check=false skips this check"
        for phrase in convert.of_messages(part.name):
            like = [message for message in refused if phrase in message]
            if len(like) > FEW * (len(samples) + len(refused)):
                raise InputError(f"{len(like)} of {len(samples) + len(refused)} samples: {like[0]} ({hint})")
        if not samples:
            continue
        measure = Measure(Decoder(None))
        labels = labels_of(part, measure(samples), [sample.key for sample in samples])
        for finding in judge_labels(labels):
            raise InputError(f"{part.name}: {finding.what}; {finding.remedy} ({hint})")


def _readable(source: Any, num: int, refused: list[str]) -> Iterator[Sample]:
    """Readable samples spread over a source, or the first of a stream; messages of the others go to `refused`."""
    if is_stream(source):
        items = source.stream(seed=0, epoch=0, part=0, num_parts=1)
        yield from (item for item in items if isinstance(item, Sample))
        return
    for index in evenly_spaced(len(source), num).tolist():
        sample = read_sample(source, index)
        if isinstance(sample, BadSample):
            refused.append(sample.message)
        else:
            yield sample


def labels_of(source: Any, arrays: dict[str, np.ndarray], keys: list[str]) -> Labels:
    """Labels of measured samples.

    Args:
        source: the samples' source. A source that ignores EXIF data has `picture_turn(index)`, the EXIF orientation.
        arrays: results of `Measure`, one row for each of `keys`.
        keys: of the samples.
    """
    behind = arrays["behind_depth_m"]
    read = np.isfinite(behind)
    near = (np.abs(np.where(read, behind, np.inf)) < HIDDEN_M).sum(1) > 0.5 * np.maximum(read.sum(1), _LEAST_READINGS)
    names = ("joints_m", "points_px", "K_px", "size_wh", "box_px", "left")
    turn, scores = _turns(source, keys)
    measured = {name: arrays[name] for name in names}
    return Labels(source.name, **measured, depth_agrees=near, turn=turn, turn_scores=scores)


def _turns(source: Any, keys: list[str]) -> tuple[np.ndarray, tuple[float, float]]:
    """`Labels.turn` and `Labels.turn_scores`."""
    turn, scores = np.ones(len(keys), int), (np.nan, np.nan)
    if not hasattr(source, "picture_turn"):
        return turn, scores
    row, turned = {key: i for i, key in enumerate(keys)}, []
    for index in evenly_spaced(len(source), _MOST_TURNS).tolist():
        if (key := source.key(index)) in row and (number := source.picture_turn(index)) in range(2, 9):
            turn[row[key]] = number
            turned.append(index)
    return turn, hands_seen(source, turned) if turned else scores
