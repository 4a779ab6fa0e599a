"""Official scores, batched against hand by hand: `python benchmarks/metrics.py [--num 256] [--repeats 5]`.

The hand-by-hand twins do what the published evaluations do for every sample, written anew: scipy's Procrustes for
joints; for meshes the F-score as HO3D publishes it (all distances, once for each threshold) and, faster, by a tree once
for each alignment (FreiHAND's script takes Open3D's tree). Rounds are interleaved, medians are shown, and every round
checks that the numbers are the same. Prints a table and one JSON line.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import cKDTree

from utnet import metrics
from utnet.hand import HandModel
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams

NUM_VERTICES = 778  # of the open hand's 1,609: as many as MANO has
THRESHOLDS_M = (0.005, 0.015)
Hands = dict[str, np.ndarray]


def make_hands(num: int, seed: int) -> Hands:
    """Posed hands and predictions that are some 20 mm off, 6 mm after alignment."""
    rng = np.random.default_rng(seed)
    model = HandModel.open()
    kept = np.linspace(0, model.num_vertices - 1, NUM_VERTICES).astype(int)
    orient, pose, betas = rng.normal(size=(num, 1, 3)), rng.normal(size=(num, 15, 3)) * 0.25, rng.normal(size=(num, 10))
    place = rng.normal(size=(num, 1, 3)) * 0.1 + (0.0, 0.0, 0.7)

    def decode(noise: float) -> tuple[np.ndarray, np.ndarray]:
        def rotations(angles: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(axis_angle_to_matrix(angles + noise * rng.normal(size=angles.shape))).float()

        shape = torch.from_numpy(betas + noise * rng.normal(size=betas.shape)).float()
        mesh = model.decode(HandParams(rotations(orient), rotations(pose), shape, torch.zeros(num, 3)))
        moved = place + 0.1 * noise * rng.normal(size=place.shape)
        return mesh.joints_m.numpy() + moved, mesh.vertices_m[:, kept].numpy() + moved

    gt, pred = decode(0.0), decode(0.1)
    return {"pred_joints": pred[0], "gt_joints": gt[0], "pred_vertices": pred[1], "gt_vertices": gt[1]}


# --------------------------------------------------------------------------------------------------------- hand by hand


def align(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    p, g = pred - pred.mean(0), gt - gt.mean(0)
    norm = np.linalg.norm(g) + 1e-8
    p, g = p / (np.linalg.norm(p) + 1e-8), g / norm
    R, scale = orthogonal_procrustes(g, p)
    return p @ R.T * scale * norm + gt.mean(0)


def distances(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(np.square(pred - gt), axis=1))


def joints_one(pred: np.ndarray, gt: np.ndarray) -> list[np.ndarray]:
    """Errors in the four alignments, in the order of `official_scores`."""
    scaled = pred / np.linalg.norm(pred[9] - pred[0]) * np.linalg.norm(gt[9] - gt[0])
    return [
        distances(pred, gt),
        distances(align(pred, gt), gt),
        distances(scaled - scaled[0] + gt[0], gt),
        distances(pred - pred[0], gt - gt[0]),
    ]


def f_score(to_gt: np.ndarray, to_pred: np.ndarray, threshold: float) -> float:
    recall, precision = float(np.mean(to_gt < threshold)), float(np.mean(to_pred < threshold))
    return 2 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0


def f_dense(pred: np.ndarray, gt: np.ndarray) -> list[float]:
    scores = []
    for threshold in THRESHOLDS_M:
        to_pred = np.linalg.norm(gt[:, None] - pred[None], axis=-1).min(-1)
        to_gt = np.linalg.norm(pred[:, None] - gt[None], axis=-1).min(-1)
        scores.append(f_score(to_gt, to_pred, threshold))
    return scores


def f_tree(pred: np.ndarray, gt: np.ndarray) -> list[float]:
    to_gt, to_pred = cKDTree(gt).query(pred)[0], cKDTree(pred).query(gt)[0]
    return [f_score(to_gt, to_pred, threshold) for threshold in THRESHOLDS_M]


def joints_loop(hands: Hands) -> np.ndarray:
    pairs = zip(hands["pred_joints"], hands["gt_joints"], strict=True)
    return np.array([[errors.mean() for errors in joints_one(pred, gt)] for pred, gt in pairs]).mean(0)


def meshes_loop(hands: Hands, f_one: Callable[[np.ndarray, np.ndarray], list[float]]) -> np.ndarray:
    rows = []
    for pred, gt in zip(hands["pred_vertices"], hands["gt_vertices"], strict=True):
        rows.append([v for p in (pred, align(pred, gt)) for v in (distances(p, gt).mean(), *f_one(p, gt))])
    return np.array(rows).mean(0)


# -------------------------------------------------------------------------------------------------------------- batched


def joints_batched(hands: Hands) -> np.ndarray:
    scores = metrics.sample_scores(hands["pred_joints"], hands["gt_joints"]).joints_mm.values()
    return np.array([errors.mean().item() / 1000 for errors in scores])


def meshes_batched(hands: Hands) -> np.ndarray:
    """With the joints, which cost next to nothing, and the counts of the PCK curve, which the twins leave out."""
    mesh = metrics.sample_scores(**hands).mesh.values()
    return np.array([v for m in mesh for v in (m.mean_mm.mean().item() / 1000, *m.f.mean(0).tolist())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=256, help="hands a round; all distances are taken of a 16th of them")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = {
        "joints, hand by hand": (joints_loop, "joints", 1),
        "joints, batched": (joints_batched, "joints", 1),
        "meshes, all distances": (lambda hands: meshes_loop(hands, f_dense), "meshes", 16),
        "meshes, trees": (lambda hands: meshes_loop(hands, f_tree), "meshes", 1),
        "meshes, batched": (meshes_batched, "meshes", 1),
    }
    ms: dict[str, list[float]] = {name: [] for name in rows}
    for repeat in range(-1, arguments.repeats):
        hands = make_hands(arguments.num, repeat + 1)
        part = {name: array[: max(1, arguments.num // 16)] for name, array in hands.items()}
        expected = {"joints": joints_batched(hands), "meshes": meshes_batched(hands)}
        expected_part = {"meshes": meshes_batched(part)}
        for name, (work, what, share) in rows.items():
            start = time.perf_counter()
            found = work(hands if share == 1 else part)
            seconds = time.perf_counter() - start
            np.testing.assert_allclose(found, (expected if share == 1 else expected_part)[what], rtol=0, atol=1e-9)
            if repeat >= 0:  # the first round compiles
                ms[name].append(seconds * 1000 / len(hands["gt_joints"] if share == 1 else part["gt_joints"]))
    medians = {name: statistics.median(values) for name, values in ms.items()}
    print(f"{arguments.num} hands, {arguments.threads} threads   median ms a hand      min      max   times faster")
    for name, values in ms.items():
        batched = medians[f"{name.split(',')[0]}, batched"]
        print(f"{name:32s}{medians[name]:12.4f}{min(values):13.4f}{max(values):9.4f}{medians[name] / batched:15.1f}")
    line = {name.replace(", ", "_").replace(" ", "_") + "_ms": round(value, 5) for name, value in medians.items()}
    print(json.dumps({"benchmark": "metrics", "threads": arguments.threads, **line}))


if __name__ == "__main__":
    main()
