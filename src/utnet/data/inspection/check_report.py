"""Report of a check: measurements of all samples, and the errors and possible problems that follow from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utnet.conventions import JOINT_NAMES, MM_PER_M, SIDES
from utnet.data.inspection import convert
from utnet.data.inspection.judge_labels import hand_unit
from utnet.data.inspection.labels import Finding
from utnet.data.inspection.measure import BONES, FLAWS, HIDDEN_M
from utnet.data.inspection.scan import ScanResult

FRAME_OFF_M = 0.05
"""Samples whose median difference between depth and joints exceeds this are listed."""

MAX_BEHIND_SAMPLES = 0.01
"""Largest share of samples whose depth lies behind their joints. Only wrong labels, cameras or units place a hand in
front of the measured surface; the allowance is for single blurred or badly synchronised frames."""

MAX_HIDDEN_SAMPLES = 0.25
"""Largest share of samples that are mostly occluded. Held objects and crossing arms occlude one sample in twenty in the
published data sets; a quarter means a misaligned depth image."""

MAX_BEHIND_JOINTS = 0.1
"""Largest share of joints in front of the depth. Clean labels have none; thin fingers and depth edges cause a few per
cent; a tenth means a wrong camera matrix (a focal length 5 % too long gives 13 %)."""

HAND_SIZE_MM = (50.0, 140.0)
"""Range of wrist to middle knuckle (small child 55, long adult hand 120); outside, unit or joint order are wrong."""

MAX_SIZE_OUTLIERS = 0.01
"""Largest share of hands outside `HAND_SIZE_MM`: units and joint orders are wrong for all hands or none."""

SIDES_SPREAD = 0.1
"""Largest relative difference between a person's left and right bones, which is normally a few per cent."""

BONE_SPREAD = 0.05
"""Largest standard deviation of a bone over its mean within a recording, which shows one hand."""

REPROJECTION_PX = 0.5
"""Largest distance between `project(HandModel(params))` and `project(joints_cam_m)`."""

FREIHAND_PX = 5.0
"""The same for FreiHAND, whose joints are regressed from the posed MANO mesh: at bent fingers they are up to a few
millimetres (two or three pixels) from the kinematic joints."""

MESH_MM = 5.0
"""Largest distance of labelled fingertips from their vertices of the labelled mesh; more is a wrong vertex or unit."""

LABELS_2D_SHARE = 0.1
"""Largest median distance of 2D labels from projected joints, relative to the box's longer side. Annotators differ by a
few per cent; a wrong camera or joint order gives far more."""

MAX_OUTSIDE_JOINTS = 0.25
"""Largest share of joints outside their picture. Hands at the edge have a few; K of another picture size gives many."""


@dataclass
class CheckReport:
    """Result of a check.

    Attributes:
        numbers: all measurements by section, as plain JSON.
        findings: errors that would make training wrong.
        notes: possible problems, to be reviewed.
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


def judge_files(report: CheckReport, source: Any, result: ScanResult) -> None:
    """Adds unreadable files and duplicate keys to a report."""
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
        text, remedy = f"{other} of {num} samples cannot be read", "download the named files again, or repair them"
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
        remedy = "every sample needs a unique key; look for a duplicate folder or line"
        report.findings.append(Finding(f"{len(twice)} keys belong to more than one sample", remedy))


def judge_measurements(report: CheckReport, result: ScanResult, tips: str) -> None:
    """Adds measurements of readable samples, and what contradicts in them, to a report.

    Args:
        report: extended in place.
        result: with at least one sample.
        tips: fingertip vertices of the source.
    """
    for judge in (_labels, _depth, _hands, _bones, _pictures):
        judge(report, result)
    _reprojection(report, result, tips)


def _labels(report: CheckReport, result: ScanResult) -> None:
    a, samples = result.arrays, report.numbers["samples"]
    samples["right"], samples["left"] = int((~a["left"]).sum()), int(a["left"].sum())
    for name in ("depth", "camera", "params", "betas", "mesh", "mask"):
        samples[name] = int(a[f"has_{name}"].sum())
    samples["2D joints"], samples["3D joints"] = int((a["num_2d"] > 0).sum()), int((a["num_3d"] > 0).sum())
    flaws = {text: _named(result, a["flaws"] & bit > 0) for bit, text in FLAWS.items()}
    report.numbers["flaws"] = {text: keys for text, keys in flaws.items() if keys}
    for text, keys in report.numbers["flaws"].items():
        report.findings.append(Finding(f"{len(keys)} samples: {text}", f"correct or remove {keys[0]} and the others"))


def _depth(report: CheckReport, result: ScanResult) -> None:
    difference, given = result.arrays["behind_depth_m"], result.arrays["in_depth"]
    if not np.isfinite(difference).any():
        return
    read = np.isfinite(difference)
    visible = np.abs(difference[read & (difference >= -HIDDEN_M)])
    few = read.sum(1) < np.maximum(1, given // 4)  # too few readings to judge the sample
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
    remedy = "depth, K and joints are inconsistent: check K, the picture size, the depth's unit and alignment"
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
        report.notes.append(f"{hidden.sum()} of {judged} samples are mostly occluded")


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
    """Index and value of the largest `values / of`; NaN is ignored."""
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
        remedy = "K is for another picture size, or the labels are for another picture"
        report.findings.append(Finding(f"{share:.0%} of the joints lie outside their pictures", remedy))


def spread_of(values: np.ndarray) -> dict[str, float]:
    """Minimum, 5th percentile, median, 95th percentile and maximum, ignoring NaN."""
    values = values[np.isfinite(values)]
    low, p5, median, p95, high = np.percentile(values, [0, 5, 50, 95, 100])
    return {"min": float(low), "p5": float(p5), "median": float(median), "p95": float(p95), "max": float(high)}


def _named(result: ScanResult, which: np.ndarray) -> list[str]:
    return [result.keys[i] for i in np.flatnonzero(which)]
