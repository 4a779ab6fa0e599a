"""Validation of a source: readable files, and labels consistent with each other and the pictures (`utnet data
check`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from utnet.conventions import JOINT_NAMES, MM_PER_M, SIDES
from utnet.data.inspection import convert
from utnet.data.inspection.decode import Decoder
from utnet.data.inspection.judge_labels import FEW, hand_unit, judge_labels, turn_note
from utnet.data.inspection.labels import Finding, Labels
from utnet.data.inspection.measure import BONES, FLAWS, Measure
from utnet.data.inspection.scan import ScanResult, scan
from utnet.data.inspection.turned import hands_seen
from utnet.data.mixture import Mixture
from utnet.data.source import BadSample, evenly_spaced, is_endless, is_stream, read_sample
from utnet.errors import InputError
from utnet.types import Sample

HIDDEN_M = 0.03
"""Depth this much nearer than a joint is something in front of the hand (a hand is some 2 to 3 cm thick, and its joints
lie 1 to 2 cm under the skin); this much farther, the joint is not where the picture shows a hand."""

FRAME_OFF_M = 0.05
"""A sample whose depth at its joints is off by more than this in the median is listed."""

MAX_BEHIND_SAMPLES = 0.01
"""Share of samples whose depth lies behind their joints: nothing but wrong labels, cameras or units puts a hand before
the surface that the sensor saw, so this allows for single blurred or badly synchronised frames only."""

MAX_HIDDEN_SAMPLES = 0.25
"""Share of samples hidden behind something in the median. Objects in the hand and crossing arms hide one sample in
twenty in the field's data; a quarter is a depth image in the wrong place."""

MAX_BEHIND_JOINTS = 0.1
"""Share of joints before the depth. Clean labels have none; thin fingers and edges of depth images cost a few per cent;
a tenth is a camera matrix that points beside the hand (a focal length 5 % too long gives 13 %)."""

HAND_SIZE_MM = (50.0, 140.0)
"""Wrist to the middle finger's knuckle: 55 mm for a small child, 120 for the longest adult hands. Outside it is a wrong
unit or a wrong order of the joints."""

MAX_SIZE_OUTLIERS = 0.01
"""Share of hands of an impossible size: units and orders are wrong everywhere or nowhere, single bad fits happen."""

SIDES_SPREAD = 0.1
"""A person's left and right bones differ by a few per cent."""

BONE_SPREAD = 0.05
"""Standard deviation of a bone over its mean within a recording, which shows one hand: bones do not grow."""

REPROJECTION_PX = 0.5
"""The project's law: `project(HandModel(params))` stays this close to `project(joints_cam_m)`."""

FREIHAND_PX = 5.0
"""FreiHAND regresses its joints from the posed MANO mesh, up to a few millimetres from the kinematic ones at bent
fingers: two or three of its pixels."""

MESH_MM = 5.0
"""Labelled fingertips against their vertices of the labelled mesh: a nail's thickness; more is another vertex, order or
unit."""

LABELS_2D_SHARE = 0.1
"""A source's own 2D labels against the projected joints, in shares of the box's longer side: annotators differ by a few
per cent, a wrong camera or order of joints by far more."""

_LEAST_READINGS = 5
"""Depth at fewer joints does not say that a camera is right."""

_MOST_TURNS = 5000
"""Pictures whose EXIF orientation is looked up."""

MAX_OUTSIDE_JOINTS = 0.25
"""Share of joints outside their picture; hands at the edge lose a few, a camera of another picture size loses many."""


@dataclass
class CheckReport:
    """What a check found.

    Attributes:
        numbers: every number by section, plain JSON.
        findings: what makes training wrong.
        notes: what may be as it should, but deserves a look.
    """

    numbers: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON."""
        found = [{"what": f.what, "remedy": f.remedy, "convert": f.convert} for f in self.findings]
        return {"ok": self.ok, "findings": found, "notes": self.notes, **self.numbers}


def check_source(source: Any, *, mano: str | None = None, workers: int = 0, progress: bool = False) -> CheckReport:
    """Reads every sample and judges it.

    Args:
        source: a `Source`, or a `StreamSource` whose passes end.
        mano: folder of the user's MANO files, so that MANO's parameters can be compared with their joints.
        workers: processes that read.
        progress: show a bar.
    """
    result = scan(source, Measure(Decoder(source, mano)), workers=workers, progress=progress)
    report = CheckReport({"counts": {name: int(n) for name, n in getattr(source, "counts", {}).items()}})
    _files(report, source, result)
    if len(result):
        _conventions(report, labels_of(source, result.arrays, result.keys))
        for judge in (_labels, _depth, _hands, _bones, _pictures):
            judge(report, result)
        _reprojection(report, result, source.tips)
    return report


def refuse_wrong_labels(source: Any, *, num: int = 256) -> None:
    """Judges the labels of samples spread over training data. Unreadable samples are skipped, except lines of own data
    that are refused for their conventions (millimetres, OpenGL axes, ...).

    Args:
        source: any source. Synthetic hands are not judged; of a mixture each part gives its share of `num`.

    Raises:
        InputError: labels that would train a wrong network.
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
    """Samples spread evenly over a source, or the first ones of a stream. Messages of the others go to `refused`."""
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
    """The labels of measured samples, as they are judged.

    Args:
        source: where they come from. One that ignores EXIF data has `picture_turn(index)`, the orientation that they
            give.
        arrays: of `Measure`, for the samples of `keys`.
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


def _conventions(report: CheckReport, labels: Labels) -> None:
    report.findings += judge_labels(labels)
    if note := turn_note(labels):
        report.notes.append(note)


def _files(report: CheckReport, source: Any, result: ScanResult) -> None:
    missing = {f.key: f.message for f in result.failures if f.missing}
    damaged = {f.key: f.message for f in result.failures if not f.missing}
    num = len(result) + len(result.failures)
    report.numbers["samples"] = {"expected": num, "read": len(result)}
    report.numbers["missing"], report.numbers["damaged"] = missing, damaged
    if missing:
        report.findings.append(Finding(f"{len(missing)} of {num} samples lack a file", "extract the archive again"))
    lines = convert.of_messages(source.name)
    other = sum(not any(phrase in message for phrase in lines) for message in damaged.values())
    if other:
        text, remedy = f"{other} of {num} samples cannot be read", "get the named files again, or mend them"
        report.findings.append(Finding(text, remedy))
    for phrase, line in lines.items():
        like = sum(phrase in message for message in (damaged | missing).values())
        if like:
            report.findings.append(Finding(f"{like} of {num} samples: {phrase}", "run the convert line", line))
    if not num:
        report.findings.append(Finding("there are no samples", "choose another split or folder"))
    if hasattr(source, "verify"):
        report.numbers["damaged_shards"] = source.verify()
        if report.numbers["damaged_shards"]:
            report.findings.append(Finding("the shards are not as they were written", "copy or write the set again"))
    twice = sorted(key for key, n in Counter(result.keys).items() if n > 1)
    report.numbers["duplicate_keys"] = twice
    if twice:
        remedy = "every sample needs a key of its own; look for a folder or line that is there twice"
        report.findings.append(Finding(f"{len(twice)} keys stand for more than one sample", remedy))


def _labels(report: CheckReport, result: ScanResult) -> None:
    a, samples = result.arrays, report.numbers["samples"]
    samples["right"], samples["left"] = int((~a["left"]).sum()), int(a["left"].sum())
    for name in ("depth", "camera", "params", "betas", "mesh", "mask"):
        samples[name] = int(a[f"has_{name}"].sum())
    samples["2D joints"], samples["3D joints"] = int((a["num_2d"] > 0).sum()), int((a["num_3d"] > 0).sum())
    flaws = {text: _named(result, a["flaws"] & bit > 0) for bit, text in FLAWS.items()}
    report.numbers["flaws"] = {text: keys for text, keys in flaws.items() if keys}
    for text, keys in report.numbers["flaws"].items():
        report.findings.append(Finding(f"{len(keys)} samples: {text}", f"mend or leave out {keys[0]} and its like"))


def _depth(report: CheckReport, result: ScanResult) -> None:
    difference, given = result.arrays["behind_depth_m"], result.arrays["in_depth"]
    if not np.isfinite(difference).any():
        return
    read = np.isfinite(difference)
    visible = np.abs(difference[read & (difference >= -HIDDEN_M)])
    few = read.sum(1) < np.maximum(1, given // 4)  # too few readings to judge the sample by
    median = np.array([np.median(d[r]) if not f else np.nan for d, r, f in zip(difference, read, few, strict=True)])
    behind, hidden = median > FRAME_OFF_M, median < -FRAME_OFF_M
    judged = max(1, int((~few).sum()))
    numbers = report.numbers["depth"] = {
        "samples": judged,
        "visible_median_mm": float(np.median(visible) * MM_PER_M) if len(visible) else None,
        "visible_p95_mm": float(np.percentile(visible, 95) * MM_PER_M) if len(visible) else None,
        "hidden_joints": float((difference[read] < -HIDDEN_M).mean()),
        "joints_before_depth": float((difference[read] > HIDDEN_M).mean()),
        "no_reading": float(1 - read.sum() / max(1, given.sum())),
        "samples_before_depth": _named(result, behind),
        "samples_hidden": _named(result, hidden),
    }
    share = numbers["joints_before_depth"]
    remedy = "depth, K and joints do not belong together: check K, the picture size, the depth's unit and alignment"
    if behind.sum() > MAX_BEHIND_SAMPLES * judged:
        text = f"{behind.sum()} of {judged} samples: the depth lies more than 5 cm behind the joints"
        report.findings.append(Finding(text, remedy))
    elif share > MAX_BEHIND_JOINTS:
        report.findings.append(Finding(f"{share:.0%} of the joints lie more than 3 cm before the depth", remedy))
    elif behind.any():
        report.notes.append(f"{behind.sum()} of {judged} samples: the depth lies more than 5 cm behind the joints")
    if hidden.sum() > MAX_HIDDEN_SAMPLES * judged:
        text = f"{hidden.sum()} of {judged} samples: the depth lies more than 5 cm before the joints"
        report.findings.append(Finding(text, remedy))
    elif hidden.any():
        report.notes.append(f"{hidden.sum()} of {judged} samples are hidden behind something")


def _hands(report: CheckReport, result: ScanResult) -> None:
    size = result.arrays["size_mm"]
    if not np.isfinite(size).any():
        return
    low, high = HAND_SIZE_MM
    wrong = (size < low) | (size > high)
    report.numbers["hand_size_mm"] = {**spread_of(size), "outliers": _named(result, wrong)}
    if wrong.any():
        text = (
            f"{wrong.sum()} hands measure less than {low:.0f} or more than {high:.0f} mm from wrist to middle knuckle"
        )
        remedy = "joints must be metres in OpenPose-21's order (`utnet data preview` shows it)"
        if unit := hand_unit(float(np.median(size[wrong]))):
            text, remedy = f"{text}: they look like {unit[0]}", f"multiply 3D joints by {unit[1]:g}"
        if wrong.sum() > MAX_SIZE_OUTLIERS * np.isfinite(size).sum():
            report.findings.append(Finding(text, remedy))
        else:
            report.notes.append(text)


def _bones(report: CheckReport, result: ScanResult) -> None:
    bones, left = result.arrays["bones_mm"], result.arrays["left"]
    if not np.isfinite(bones).any():
        return
    names = [JOINT_NAMES[joint] for joint in BONES]
    report.numbers["bones_mm"] = {
        name: spread_of(column) for name, column in zip(names, bones.T, strict=True) if np.isfinite(column).any()
    }
    vary: dict[str, str] = {}
    differ: dict[str, str] = {}
    medians: dict[str, np.ndarray] = {}
    order = np.lexsort([left, result.sequences])
    groups = np.split(order, np.flatnonzero(np.diff(result.sequences[order] * 2 + left[order])) + 1)
    for group in groups:  # a recording's hands of one side, right before left
        recording, side = result.sequence_names[result.sequences[group[0]]], int(left[group[0]])
        known = np.isfinite(bones[group]).all(0)
        if not recording or not known.any():
            continue
        median = np.where(known, np.median(bones[group], 0), np.nan)
        worst, by = _largest_share(bones[group].std(0), median)
        if by > BONE_SPREAD:
            vary[f"{recording} ({SIDES[side]})"] = f"{names[worst]} by {by:.0%}"
        if side and recording in medians:
            worst, by = _largest_share(np.abs(median - medians[recording]), median)
            if by > SIDES_SPREAD:
                differ[recording] = f"{names[worst]} by {by:.0%}"
        medians[recording] = median
    report.numbers["bones_that_vary"], report.numbers["sides_that_differ"] = vary, differ
    for text, found in (("change their length within", vary), ("differ between left and right in", differ)):
        if found:
            name, example = next(iter(found.items()))
            report.notes.append(f"bones {text} {len(found)} recordings, such as {name}: {example}")


def _largest_share(values: np.ndarray, of: np.ndarray) -> tuple[int, float]:
    """Where `values / of` is largest, and that; entries that are NaN do not count."""
    share = np.nan_to_num(values / of, nan=-1.0)
    return int(share.argmax()), float(share.max())


def _reprojection(report: CheckReport, result: ScanResult, tips: str) -> None:
    a = result.arrays
    px, mm, share, mesh = a["model_px"], a["model_mm"], a["labels_2d_share"], a["mesh_mm"]
    if np.isfinite(px).any():
        limit = np.where(a["mano"] & (tips == "freihand"), FREIHAND_PX, REPROJECTION_PX)
        wrong = px > limit
        report.numbers["model_px"] = {**spread_of(px), "num": int(np.isfinite(px).sum()), "over": _named(result, wrong)}
        if wrong.any():
            text = f"{wrong.sum()} samples: parameters and joints disagree by more than {limit.max():.1f} px"
            remedy = "parameters of another hand model, side, mean pose or axes: check hand_model and --mano"
            report.findings.append(Finding(text, remedy))
    if np.isfinite(mm).any():
        report.numbers["model_mm"] = {**spread_of(mm), "num": int(np.isfinite(mm).sum())}
    undecoded = int((a["has_params"] & ~np.isfinite(mm)).sum())
    if undecoded and not np.isfinite(mm).any():
        report.notes.append(f"parameters of {undecoded} samples were not compared with joints: name your --mano folder")
    if np.isfinite(mesh).any():
        wrong = mesh > MESH_MM
        report.numbers["mesh_mm"] = {
            **spread_of(mesh),
            "num": int(np.isfinite(mesh).sum()),
            "over": _named(result, wrong),
        }
        if wrong.any():
            text = f"{wrong.sum()} samples: labelled mesh and joints disagree by more than {MESH_MM:.0f} mm"
            report.findings.append(Finding(text, "the mesh belongs to another model, unit or frame than the joints"))
    if np.isfinite(share).any():
        report.numbers["labels_2d_share"] = {**spread_of(share), "num": int(np.isfinite(share).sum())}
        if np.nanmedian(share) > LABELS_2D_SHARE:
            text = f"2D labels lie {np.nanmedian(share):.0%} of the box's side from the projected joints"
            report.findings.append(Finding(text, "check K, the picture size and the order of the joints"))


def _pictures(report: CheckReport, result: ScanResult) -> None:
    a = result.arrays
    share = float(a["outside"].sum() / max(1, a["num_2d"].sum()))
    on_mask = a["on_mask"][np.isfinite(a["on_mask"])]
    report.numbers["pictures"] = {
        "joints_outside": share,
        "boxes_cut": int(a["box_cut"].sum()),
        "joints_on_mask": float(on_mask.mean()) if len(on_mask) else None,
    }
    if share > MAX_OUTSIDE_JOINTS:
        remedy = "K belongs to a picture of another size, or the labels to another picture"
        report.findings.append(Finding(f"{share:.0%} of the joints lie outside their pictures", remedy))


def spread_of(values: np.ndarray) -> dict[str, float]:
    """Smallest, 5 %, median, 95 % and largest of the numbers that are not NaN."""
    values = values[np.isfinite(values)]
    low, p5, median, p95, high = np.percentile(values, [0, 5, 50, 95, 100])
    return {"min": float(low), "p5": float(p5), "median": float(median), "p95": float(p95), "max": float(high)}


def _named(result: ScanResult, which: np.ndarray) -> list[str]:
    return [result.keys[i] for i in np.flatnonzero(which)]
