"""The official scores of a whole split, computed part by part.

Definitions, with their corner cases, from the `eval.py` and `eval_util.py` of HO3D and FreiHAND and DexYCB's
`hpe_eval.py`:

- Procrustes: centred, divided by (Frobenius norm + 1e-8), best orthogonal matrix, best scale. The matrix may be a
  reflection; `allow_reflection=False` is not official. A mesh is aligned by its vertices.
- Scale and translation: the bone from wrist to middle knuckle gets its true length, the wrist its true position.
- PCK counts `error <= threshold` at 100 thresholds from 0 to 50 mm, both ends included; AUC is its trapezoidal area
  over 50 mm. Curves, means and medians are computed per joint (or vertex), then averaged over joints.
- F-scores count `distance < threshold` and are averaged over samples.
- Root-relative scores come from DexYCB; HO3D and FreiHAND have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utnet.conventions import MM_PER_M
from utnet.geometry import align_similarity
from utnet.metrics.joints import area, checked, joint_errors_mm, root_relative, summary
from utnet.metrics.mesh import F_THRESHOLDS_MM, f_scores
from utnet.types import Array

MAX_MM, NUM_THRESHOLDS = 50.0, 100

_ALIGNMENTS = {
    "absolute": "none",
    "procrustes": "procrustes",
    "scale_translation": "scale_translation",
    "root_relative": "root",
}
_MESH_ALIGNMENTS = ("absolute", "procrustes")


@dataclass(frozen=True)
class MeshScores:
    """Per-sample numbers from which the mesh scores of a split follow, a few hundred per sample.

    All vertices have equal weight, so means over samples of vertex means, and sums of counts, equal the official order
    (each vertex first). There is no median; the official scripts print none.

    Attributes:
        mean_mm: (B,) mean vertex error.
        num_within: (B, 100) int32, number of vertices with an error of at most each threshold of the PCK curve.
        f: (B, 2) F-scores at 5 and 15 mm.
        num_vertices: number of vertices of the mesh.
    """

    mean_mm: np.ndarray
    num_within: np.ndarray
    f: np.ndarray
    num_vertices: int

    def official(self) -> dict[str, float]:
        """`epe_mean_m`, `auc_0_50mm`, `f5`, `f15`."""
        pck = self.num_within.mean(0) / self.num_vertices
        f5, f15 = self.f.mean(0).tolist()
        return {
            "epe_mean_m": float(self.mean_mm.mean()) / MM_PER_M,
            "auc_0_50mm": area(pck, _thresholds_mm()) / MAX_MM,
            "f5": f5,
            "f15": f15,
        }


@dataclass(frozen=True)
class SampleScores:
    """Per-sample numbers from which the official scores follow exactly; concatenate parts of a split with `cat`.

    About 3 kB per sample with a mesh: 21 joint errors in each of four alignments, and two `MeshScores`.

    Attributes:
        joints_mm: (B, 21) errors by alignment: absolute, procrustes, scale_translation, root_relative.
        mesh: scores by alignment: absolute, procrustes; empty without vertices.
    """

    joints_mm: dict[str, np.ndarray]
    mesh: dict[str, MeshScores]

    def __len__(self) -> int:
        return len(self.joints_mm["absolute"])

    @staticmethod
    def cat(parts: Sequence[SampleScores]) -> SampleScores:
        """Concatenates parts in order. Raises ValueError if there are none or they do not match."""
        if not parts:
            raise ValueError("no parts: nothing to score")
        first = parts[0]
        sizes = {name: {part.mesh[name].num_vertices for part in parts if name in part.mesh} for name in first.mesh}
        if any(part.mesh.keys() != first.mesh.keys() for part in parts) or any(len(s) > 1 for s in sizes.values()):
            raise ValueError("parts with and without meshes, or with meshes of different sizes, cannot be combined")
        mesh = {
            name: MeshScores(
                np.concatenate([part.mesh[name].mean_mm for part in parts]),
                np.concatenate([part.mesh[name].num_within for part in parts]),
                np.concatenate([part.mesh[name].f for part in parts]),
                first.mesh[name].num_vertices,
            )
            for name in first.mesh
        }
        return SampleScores(
            {name: np.concatenate([part.joints_mm[name] for part in parts]) for name in _ALIGNMENTS}, mesh
        )

    def official(self) -> dict[str, dict[str, float]]:
        """Returns the scores of `official_scores`."""
        scores = {}
        for name, errors in self.joints_mm.items():
            found = summary(errors)
            scores[f"joints/{name}"] = {
                "epe_mean_m": found["mean_mm"] / MM_PER_M,
                "epe_median_m": found["median_mm"] / MM_PER_M,
                "auc_0_50mm": found["auc"],
            }
        return scores | {f"mesh/{name}": mesh.official() for name, mesh in self.mesh.items()}


def official_scores(
    pred_joints: Array,
    gt_joints: Array,
    pred_vertices: Array | None = None,
    gt_vertices: Array | None = None,
    *,
    scale_joint: int = 9,
    allow_reflection: bool = True,
    chunk_size: int = 256,
) -> dict[str, dict[str, float]]:
    """Scores of a whole split by HO3D's, FreiHAND's and DexYCB's evaluations.

    Args:
        pred_joints: (B, 21, 3) metres, wrist first.
        gt_joints: (B, 21, 3) metres, in the same order and frame.
        pred_vertices: (B, V, 3) metres, or None.
        gt_vertices: (B, V, 3) metres, or None.
        scale_joint: the middle knuckle, 9 in OpenPose's order, 4 in HO3D's.
        allow_reflection: Procrustes may mirror, as in the official code.
        chunk_size: samples scored at once; 256 have 15 MB of vertices.

    Returns:
        Keys `joints/absolute`, `joints/procrustes`, `joints/scale_translation`, `joints/root_relative` with
        `epe_mean_m`, `epe_median_m` (metres) and `auc_0_50mm`; with vertices also `mesh/absolute` and
        `mesh/procrustes` with `epe_mean_m`, `auc_0_50mm`, `f5` and `f15`.

    Raises:
        ValueError: wrong shapes, no samples, or a NaN or inf coordinate (the message names the sample).
    """
    return sample_scores(
        pred_joints,
        gt_joints,
        pred_vertices,
        gt_vertices,
        scale_joint=scale_joint,
        allow_reflection=allow_reflection,
        chunk_size=chunk_size,
    ).official()


def sample_scores(
    pred_joints: Array,
    gt_joints: Array,
    pred_vertices: Array | None = None,
    gt_vertices: Array | None = None,
    *,
    scale_joint: int = 9,
    allow_reflection: bool = True,
    chunk_size: int = 256,
) -> SampleScores:
    """Per-sample scores of one part of a split; arguments and errors as in `official_scores`.

    Samples are converted to float64 in chunks, so memory-mapped arrays are never loaded as a whole.
    """
    if (pred_vertices is None) != (gt_vertices is None):
        raise ValueError("give both pred_vertices and gt_vertices, or neither")
    arrays = {"pred_joints": pred_joints, "gt_joints": gt_joints}
    if pred_vertices is not None and gt_vertices is not None:
        arrays |= {"pred_vertices": pred_vertices, "gt_vertices": gt_vertices}
    _check_shapes(arrays, scale_joint)
    parts = []
    for first in range(0, len(pred_joints), chunk_size):
        chunk = {name: checked(name, a[first : first + chunk_size], first=first) for name, a in arrays.items()}
        joints = {
            name: joint_errors_mm(
                chunk["pred_joints"],
                chunk["gt_joints"],
                align=align,
                scale_joint=scale_joint,
                allow_reflection=allow_reflection,
            )
            for name, align in _ALIGNMENTS.items()
        }
        mesh = {}
        if "pred_vertices" in chunk:
            mesh = _mesh_scores(chunk["pred_vertices"], chunk["gt_vertices"], allow_reflection)
        parts.append(SampleScores(joints, mesh))
    return SampleScores.cat(parts)


def dexycb_scores_mm(pred_mm: Array, gt_mm: Array) -> dict[str, dict[str, float]]:
    """The three scores of DexYCB's toolkit for (B, 21, 3) joints in millimetres.

    Computed in millimetres, as there; the 1e-8 in the alignment is then a thousandth of HO3D's.

    Returns:
        Keys `absolute`, `root-relative` and `procrustes`, each with `mpjpe` (mm) and `auc`.
    """
    pred, gt = checked("pred_mm", pred_mm), checked("gt_mm", gt_mm)
    if pred.shape != gt.shape:
        raise ValueError(f"pred_mm has shape {tuple(pred.shape)} and gt_mm {tuple(gt.shape)}, expected one shape")
    errors = {
        "absolute": pred - gt,
        "root-relative": root_relative(pred) - root_relative(gt),
        "procrustes": align_similarity(pred, gt) - gt,
    }
    scores = {name: summary(np.linalg.norm(error, axis=-1)) for name, error in errors.items()}
    return {name: {"mpjpe": score["mean_mm"], "auc": score["auc"]} for name, score in scores.items()}


def _mesh_scores(pred: np.ndarray, gt: np.ndarray, allow_reflection: bool) -> dict[str, MeshScores]:
    """Scores of the vertices without and with Procrustes alignment."""
    scores = {}
    for name in _MESH_ALIGNMENTS:
        if name == "procrustes":
            pred = align_similarity(pred, gt, allow_reflection=allow_reflection)
        errors = np.linalg.norm(pred - gt, axis=-1) * MM_PER_M
        num, edges = len(errors), NUM_THRESHOLDS + 1
        first_within = np.searchsorted(_thresholds_mm(), errors)  # index of the first threshold >= error
        num_first = np.bincount((first_within + edges * np.arange(num)[:, None]).ravel(), minlength=num * edges)
        num_within = num_first.reshape(num, edges)[:, :NUM_THRESHOLDS].cumsum(1, dtype=np.int32)
        f = f_scores(pred, gt, thresholds_mm=F_THRESHOLDS_MM)
        scores[name] = MeshScores(errors.mean(1), num_within, f, errors.shape[1])
    return scores


def _check_shapes(arrays: dict[str, Array], scale_joint: int) -> None:
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    for what in ("joints", "vertices"):
        pred, gt = shapes.get(f"pred_{what}"), shapes.get(f"gt_{what}")
        if pred != gt:
            raise ValueError(
                f"pred_{what} has shape {pred} and gt_{what} {gt}, expected one shape (B, N, 3)"
                + (": official mesh scores need the benchmark's own mesh" if what == "vertices" else "")
            )
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise ValueError(f"joints and vertices have different numbers of samples: {shapes}")
    if shapes["gt_joints"][0] == 0:
        raise ValueError("pred_joints is empty: nothing to score")
    if not 0 < scale_joint < shapes["gt_joints"][1]:
        raise ValueError(f"scale_joint is {scale_joint}, expected 1 to {shapes['gt_joints'][1] - 1}")


def _thresholds_mm() -> np.ndarray:
    return np.linspace(0.0, MAX_MM, NUM_THRESHOLDS)
