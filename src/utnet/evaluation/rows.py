"""Per-sample scores under one protocol, from which means, intervals, comparisons and tables are computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utnet.evaluation.protocol import Protocol
from utnet.metrics import SampleScores

ALIGNMENTS = {"absolute": "absolute", "root": "root_relative", "pa": "procrustes", "st": "scale_translation"}
"""Short names, and those of `metrics.SampleScores`."""


@dataclass(frozen=True)
class Metric:
    """Display of a metric.

    Attributes:
        title: name with unit.
        decimals: number of decimals.
        higher_is_better: False for errors.
    """

    title: str
    decimals: int = 2
    higher_is_better: bool = False


METRICS = {
    "mpjpe_mm": Metric("MPJPE [mm]"),
    "pa_mpjpe_mm": Metric("PA-MPJPE [mm]"),
    "st_mpjpe_mm": Metric("scale+translation MPJPE [mm]"),
    "absolute_mpjpe_mm": Metric("absolute MPJPE [mm]"),
    "auc": Metric("AUC", 3, higher_is_better=True),
    "pa_auc": Metric("PA-AUC", 3, higher_is_better=True),
    "pve_mm": Metric("PVE [mm]"),
    "pa_pve_mm": Metric("PA-PVE [mm]"),
    "absolute_pve_mm": Metric("absolute PVE [mm]"),
    "pa_f5": Metric("PA-F@5mm", 3, higher_is_better=True),
    "pa_f15": Metric("PA-F@15mm", 3, higher_is_better=True),
    "absolute_f5": Metric("absolute F@5mm", 3, higher_is_better=True),
    "absolute_f15": Metric("absolute F@15mm", 3, higher_is_better=True),
}
"""Metrics with one number per sample; the score of a split is their mean (also for AUC: all samples have 21 joints).
MPJPE and PVE are relative to the wrist, PA after Procrustes alignment, absolute in the camera frame."""

_MESH = ("pve_mm", "pa_pve_mm", "absolute_pve_mm", "pa_f5", "pa_f15", "absolute_f5", "absolute_f15")


@dataclass(frozen=True)
class Row:
    """One network under one protocol on N samples of a split.

    Attributes:
        protocol: the settings.
        num_expected: number of samples of the split, including missing ones.
        missing: messages of samples without a score, by key.
        keys: (N,) keys of the samples, in the order of the source.
        sequences: (N,) recordings.
        sides: (N,) "right" or "left" as labelled.
        visibility: (N, 21) uint8 indices into `crops.VISIBILITY`.
        label_conf: (N, 21) confidence of the labels.
        expected_mm: (N, 21) errors predicted by the network, NaN without uncertainty.
        joints_mm: (N, 21) float64 errors by alignment: absolute (NaN without a camera), root, pa, st.
        metrics: (N,) float64 by name, keys of `METRICS`; NaN without the required ground truth.
    """

    protocol: Protocol
    num_expected: int
    missing: dict[str, str]
    keys: np.ndarray
    sequences: np.ndarray
    sides: np.ndarray
    visibility: np.ndarray
    label_conf: np.ndarray
    expected_mm: np.ndarray
    joints_mm: dict[str, np.ndarray]
    metrics: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def label(self) -> str:
        """The protocol, and the number of missing samples, if any."""
        lacking = f"; {len(self.missing)} of {self.num_expected} samples missing" if self.missing else ""
        return self.protocol.label + lacking


def joint_metrics(errors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(N, 21) errors by alignment -> (N,) numbers by name."""
    return {
        "mpjpe_mm": errors["root"].mean(1),
        "pa_mpjpe_mm": errors["pa"].mean(1),
        "st_mpjpe_mm": errors["st"].mean(1),
        "absolute_mpjpe_mm": errors["absolute"].mean(1),
        "auc": sample_auc(errors["root"]),
        "pa_auc": sample_auc(errors["pa"]),
    }


def sample_auc(errors_mm: np.ndarray) -> np.ndarray:
    """(N,) area under the PCK curve of each sample, 100 thresholds from 0 to 50 mm; their mean is the split's AUC."""
    thresholds = np.linspace(0.0, 50.0, 100)
    first = np.searchsorted(thresholds, errors_mm)  # index of the first threshold >= error
    width = thresholds[1]
    # Trapezoidal rule: an error counts from its threshold on, plus half a step before it.
    area = np.clip((99 - first) * width + np.where((first > 0) & (first < 100), width / 2, 0.0), 0.0, None)
    return area.mean(1) / 50.0


def mesh_metrics(scores: SampleScores, pve_mm: np.ndarray, has_mesh: np.ndarray) -> dict[str, np.ndarray]:
    """Mesh metrics by name, (N,) each, NaN for samples without mesh.

    Args:
        scores: with `mesh`, of the samples where `has_mesh` is True.
        pve_mm: their wrist-relative vertex errors.
        has_mesh: (N,) bool.
    """
    absolute, aligned = scores.mesh["absolute"], scores.mesh["procrustes"]
    found = {"pve_mm": pve_mm, "absolute_pve_mm": absolute.mean_mm, "pa_pve_mm": aligned.mean_mm}
    for name, mesh in (("absolute", absolute), ("pa", aligned)):
        found |= {f"{name}_f5": mesh.f[:, 0], f"{name}_f15": mesh.f[:, 1]}
    out = no_mesh(len(has_mesh))
    for name, values in found.items():
        out[name][has_mesh] = values
    return out


def no_mesh(num: int) -> dict[str, np.ndarray]:
    """Mesh metrics of `num` samples without mesh: NaN."""
    return {name: np.full(num, np.nan) for name in _MESH}
