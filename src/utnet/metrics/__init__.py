"""Metrics of hands: errors in millimetres, PCK curves and F-scores, equal to the official evaluations.

Functions take arrays or tensors and return float64 numpy arrays. A NaN or inf coordinate raises a ValueError that
names the sample. Samples are scored independently.
"""

from utnet.metrics.joints import (
    ALIGNMENTS,
    align_scale_translation,
    auc,
    joint_errors_mm,
    mpjpe_mm,
    pa_mpjpe_mm,
    pck_curve,
    root_relative,
    summary,
)
from utnet.metrics.mesh import F_THRESHOLDS_MM, f_scores, pa_pve_mm, pve_mm
from utnet.metrics.official import MeshScores, SampleScores, dexycb_scores_mm, official_scores, sample_scores

__all__ = [
    "ALIGNMENTS",
    "F_THRESHOLDS_MM",
    "MeshScores",
    "SampleScores",
    "align_scale_translation",
    "auc",
    "dexycb_scores_mm",
    "f_scores",
    "joint_errors_mm",
    "mpjpe_mm",
    "official_scores",
    "pa_mpjpe_mm",
    "pa_pve_mm",
    "pck_curve",
    "pve_mm",
    "root_relative",
    "sample_scores",
    "summary",
]
