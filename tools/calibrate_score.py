"""Fits and evaluates the constants of `Hand.score` and `joint_error_mm`: `python tools/calibrate_score.py --work DIR`.

Run it again whenever the weights that ship, the detector or the fit change (with an empty DIR; or --fresh), and commit
src/utnet/assets/score.json.

Drawn hands of one seed and full appearance are reconstructed by every method from RGB and RGB-D (with --num 600 half
an hour on a core): as the detector finds them, whatever its side; in the user's box, tight but inexact, found or not;
and in wrong boxes (moved off the hand, over a part of it, over no hand). Each mesh is right or not (`confidence`). A
logistic model for each method and input is fitted to them by maximum likelihood with a little ridge and weights that
are not negative. A linear model of the logarithm of the joints' mean error is fitted to the hands that are found or in
the user's box, half as many of "harder" appearance included. The report is on hands of another seed, of the same
appearance and of two others ("plain" shading, which no model is fitted to, and "harder": stronger light, more things in
the way, worse cameras).

Columns: hands that the detector finds (n); how many are right; correlation of the score with the PA error (Pearson)
and of ranks (Spearman); share of those above 0.8 that are right; share of the right ones that are above 0.8; mean
error of the probability (ECE, ten bins); then for wrong boxes the share above 0.5; for methods with expected errors the
shares of joints within their 50 % and 90 % intervals (`utnet.uncertainty.HAND_SHAPE`) and the correlation of expected
and true mean error, over the found and boxed hands, each before and after the linear model.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.stats import spearmanr
from tqdm import tqdm

from utnet.config import Config, SynthConfig, override
from utnet.detect import Detection
from utnet.errors import InputError
from utnet.geometry import box_of, normalized_distance_percent, project
from utnet.io.atomic import atomic_file
from utnet.metrics import pa_mpjpe_mm
from utnet.predict import Hand, Predictor
from utnet.predict.confidence import FEATURES, RIGHT_MM, RIGHT_PERCENT, FeatureModel, kind_of
from utnet.synth import SyntheticHands
from utnet.types import Sample
from utnet.uncertainty import HAND_SHAPE, quantile

METHODS = ("fit", "network", "both")
FIT_SEED, REPORT_SEED = 4_100_003, 4_200_019
ASSET = Path(__file__).parents[1] / "src" / "utnet" / "assets" / "score.json"
_HARDER = ("light", "gloss", "exposure", "noise", "jpeg", "held", "occluder", "second_hand", "lens_blur", "rescale")
_CHANGES = {
    "full": ("synth.appearance=full",),
    "plain": ("synth.appearance=plain",),
    "harder": ("synth.appearance=full", *(f"synth.factors.{name}=1.8" for name in _HARDER)),
}
_SIZE_PX = 320
_EXPAND = 2.75
_OWN_HAND_PERCENT = 25.0
"""A detection nearer than this to the drawn hand is a detection of it, whatever its side."""
_RIDGE = 0.005
_ERROR_RIDGE = 3.0
_FOUND, _BOXED, _WRONG = range(3)


@dataclass(frozen=True)
class Rows:
    """Meshes of one method from one input.

    Attributes:
        features: (N, F).
        error_mm: (N,) PA-MPJPE without reflection; infinite in a box without a hand.
        right: (N,) bool.
        origin: (N,) 0 found by the detector, 1 in the user's box, 2 in a wrong box.
        joints_mm: (N, 20) errors of the joints relative to the wrist.
        stated_mm: (N, 20) the network's expected errors; NaN without.
    """

    features: np.ndarray
    error_mm: np.ndarray
    right: np.ndarray
    origin: np.ndarray
    joints_mm: np.ndarray
    stated_mm: np.ndarray

    @property
    def has_errors(self) -> np.ndarray:
        """(N,) bool: hands in their own box, with expected errors."""
        return (self.origin != _WRONG) & np.isfinite(self.stated_mm).all(1)


# ------------------------------------------------------------------------------------------------------- reconstructing


def appearance(name: str) -> SynthConfig:
    return override(Config(), list(_CHANGES[name])).synth


def detections_of(predictor: Predictor, sample: Sample, rng: np.random.Generator) -> list[tuple[int, Detection]]:
    """Origins and detections: found, boxed, and in wrong boxes."""
    px = project(sample.joints_cam_m, sample.K_px)
    box = box_of(px)
    size = float(np.ptp(px, axis=0).max())
    result = [
        (_FOUND, detection)
        for detection in predictor.detector(sample.rgb)
        if normalized_distance_percent(px, detection.joints_px).mean() < _OWN_HAND_PERCENT
    ]
    inexact = box + rng.normal(0, 0.05, 4) * size
    angle = rng.uniform(0, 2 * np.pi)
    moved = box + np.tile([np.cos(angle), np.sin(angle)], 2) * rng.uniform(0.5, 1.0) * size
    corner = rng.uniform(0, 0.6, 2) * (box[2:] - box[:2])
    part = np.concatenate([box[:2] + corner, box[:2] + corner + 0.4 * (box[2:] - box[:2])])
    side = rng.uniform(0.1, 0.25) * _SIZE_PX
    place = rng.uniform(0, _SIZE_PX - side, 2)
    anywhere = np.concatenate([place, place + side])
    boxes = [inexact, (moved, part, anywhere)[rng.integers(3)]]
    for origin, given in zip((_BOXED, _WRONG), boxes, strict=True):
        given = np.clip(given, -0.2 * _SIZE_PX, 1.2 * _SIZE_PX)
        if (given[2:] - given[:2] > 8).all() and (given[2:] > 4).all() and (given[:2] < _SIZE_PX - 4).all():
            (detection,) = predictor.detector.in_boxes(sample.rgb, [given.tolist()])
            result.append((origin, replace(detection, box_px=given)))
    return result


def judged(hand: Hand, sample: Sample) -> tuple[float, bool]:
    """PA error in mm, and whether the mesh is right."""
    truth = sample.joints_cam_m
    error = float(pa_mpjpe_mm(hand.joints_cam_m[None], truth[None], allow_reflection=False)[0])
    apart = normalized_distance_percent(project(truth, sample.K_px), hand.joints_px).mean()
    return error, bool(error < RIGHT_MM and apart < RIGHT_PERCENT and hand.side == sample.side)


def stated_mm(hand: Hand) -> np.ndarray:
    """(20,) the network's expected errors, before they are scaled; NaN without."""
    if hand.joint_error_mm is None or hand.evidence is None:
        return np.full(20, np.nan)
    error = hand.joint_error_mm[1:]
    return error * (hand.evidence.stated_mm / error.mean())


def collect(name: str, seed: int, num: int, work: Path, *, fresh: bool) -> dict[str, Rows]:
    """Rows by method and input, kept in DIR."""
    path = work / f"score_{name}_{seed}_{num}.npz"
    if fresh or not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        columns = _columns(name, seed, num)
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
    with np.load(path) as loaded:
        kinds = [kind_of(method, with_depth=depth) for method in METHODS for depth in (False, True)]
        return {kind: Rows(*(loaded[f"{kind} {column.name}"] for column in fields(Rows))) for kind in kinds}


def _columns(name: str, seed: int, num: int) -> dict[str, np.ndarray]:
    crop = replace(Config().crop, expand=_EXPAND)
    hands = SyntheticHands(seed=seed, size_px=_SIZE_PX, num=num, synth=appearance(name), crop=crop, jitter=False)
    predictors = [Predictor(method=method) for method in METHODS]
    rows: dict[str, list] = {}
    for index in tqdm(range(num), desc=name, unit="hand", disable=None):
        sample = hands[index]
        for origin, detection in detections_of(predictors[0], sample, np.random.default_rng((seed, index))):
            for predictor in predictors:
                for depth_m in (None, sample.depth_m):
                    try:
                        (hand,) = predictor.from_detections(sample.rgb, [detection], depth_m, sample.K_px)
                    except InputError:  # refused: an arm nearer than any hand may fill the box
                        continue
                    error, right = judged(hand, sample)
                    assert hand.evidence is not None
                    joints = hand.joints_cam_m - hand.joints_cam_m[0] - (sample.joints_cam_m - sample.joints_cam_m[0])
                    errors = 1e3 * np.linalg.norm(joints[1:], axis=1)
                    row = (hand.evidence.features(), error, right, origin, errors, stated_mm(hand))
                    rows.setdefault(kind_of(predictor.method, with_depth=depth_m is not None), []).append(row)
    return {
        f"{kind} {column}": np.array([row[i] for row in values])
        for kind, values in rows.items()
        for i, column in enumerate(column.name for column in fields(Rows))
    }


# -------------------------------------------------------------------------------------------------------------- fitting


def fitted(rows: Rows) -> FeatureModel:
    """Weights >= 0 by maximum likelihood; features that never vary have none."""
    mean, spread = (function(rows.features, axis=0) for function in (_nanmean, _nanstd))
    known = np.where(np.isfinite(rows.features), rows.features, mean)
    use = spread > 1e-6
    x = np.where(use, (known - mean) / np.where(use, spread, 1.0), 0.0)
    y = rows.right.astype(float)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = w[0] + x @ w[1:]
        p = 1 / (1 + np.exp(-z))
        value = np.logaddexp(0, z) - y * z
        gradient = np.concatenate([[(p - y).mean()], x.T @ (p - y) / len(y) + _RIDGE * w[1:]])
        return float(value.mean() + 0.5 * _RIDGE * (w[1:] ** 2).sum()), gradient

    bounds = [(None, None)] + [(0.0, None) if used else (0.0, 0.0) for used in use]
    w = minimize(loss, np.zeros(1 + len(FEATURES)), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = np.where(use, w[1:] / np.where(use, spread, 1.0), 0.0)
    return FeatureModel.from_dict(FeatureModel(float(w[0]), weights, np.where(use, mean, 0.0)).to_dict())


def fitted_error(rows: Rows) -> FeatureModel:
    """Ridge regression of the logarithm of the joints' mean error; its mean error is that of the rows."""
    use = rows.has_errors
    features, error = rows.features[use], rows.joints_mm[use].mean(1)
    mean = _nanmean(features, axis=0)
    known = np.where(np.isfinite(features), features, mean)
    spread = known.std(0)
    varies = spread > 1e-6
    x = np.where(varies, (known - mean) / np.where(varies, spread, 1.0), 0.0)
    target = np.log(error)
    w = np.linalg.solve(x.T @ x + _ERROR_RIDGE * np.eye(x.shape[1]), x.T @ (target - target.mean()))
    bias = np.log(error.mean() / np.exp(x @ w).mean())
    weights = np.where(varies, w / np.where(varies, spread, 1.0), 0.0)
    return FeatureModel.from_dict(FeatureModel(float(bias), weights, np.where(varies, mean, 0.0)).to_dict())


def joined(*parts: Rows) -> Rows:
    return Rows(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Rows)))


def _nanmean(array: np.ndarray, axis: int) -> np.ndarray:
    count = np.isfinite(array).sum(axis)
    return np.nansum(array, axis) / np.maximum(count, 1)


def _nanstd(array: np.ndarray, axis: int) -> np.ndarray:
    return np.sqrt(_nanmean((array - _nanmean(array, axis)) ** 2, axis))


# ------------------------------------------------------------------------------------------------------------ reporting


def quality(model: FeatureModel, rows: Rows) -> dict[str, float]:
    """The columns of the report."""
    score = model.probability(rows.features)
    found = rows.origin == _FOUND
    s, right, error = score[found], rows.right[found], rows.error_mm[found]
    sure = s > 0.8
    bins = np.minimum((10 * s).astype(int), 9)
    ece = sum(abs(s[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    return {
        "n": int(found.sum()),
        "right": float(right.mean()),
        "pearson": float(np.corrcoef(s, error)[0, 1]),
        "spearman": float(spearmanr(s, error).statistic),
        "sure_right": float(right[sure].mean()) if sure.any() else float("nan"),
        "sure_within": float((error[sure] < RIGHT_MM).mean()) if sure.any() else float("nan"),
        "right_sure": float(sure[error < RIGHT_MM].mean()),
        "ece": float(ece),
        "boxed_right": float(rows.right[rows.origin == _BOXED].mean()),
        "wrong_right": float(rows.right[rows.origin == _WRONG].mean()),
        "wrong_sure": float((score[rows.origin == _WRONG] > 0.5).mean()),
    }


def error_quality(model: FeatureModel, rows: Rows) -> dict[str, float]:
    """The columns of expected errors, before and after."""
    use = rows.has_errors
    true, stated = rows.joints_mm[use], rows.stated_mm[use]
    scaled = stated * (np.exp(model(rows.features[use])) / stated.mean(1))[:, None]
    radii = [(name, float(quantile(p, torch.tensor(HAND_SHAPE)))) for name, p in (("50", 0.5), ("90", 0.9))]
    row = {}
    for name, radius in radii:
        row[f"in_{name}_before"] = float((true < radius * stated).mean())
        row[f"in_{name}"] = float((true < radius * scaled).mean())
    row["r_before"], row["r"] = (float(np.corrcoef(true.mean(1), each.mean(1))[0, 1]) for each in (stated, scaled))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what was reconstructed")
    parser.add_argument("--num", type=int, default=600, help="drawn hands of each set")
    parser.add_argument("--fresh", action="store_true", help="reconstruct again what DIR holds")
    parser.add_argument("--out", type=Path, default=ASSET, help="where the constants go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    learnt = collect("full", FIT_SEED, args.num, args.work, fresh=args.fresh)
    models = {kind: fitted(rows) for kind, rows in learnt.items()}
    harder = collect("harder", FIT_SEED, max(args.num // 2, 1), args.work, fresh=args.fresh)
    errors = {k: fitted_error(joined(rows, harder[k])) for k, rows in learnt.items() if rows.has_errors.any()}
    made = {"right_mm": RIGHT_MM, "right_percent": RIGHT_PERCENT, "seed": FIT_SEED, "num": args.num}
    tree = {"made_by": "tools/calibrate_score.py", **made}
    tree |= {key: {k: m.to_dict() for k, m in of.items()} for key, of in (("models", models), ("errors", errors))}
    args.out.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    result, printed = {}, set[str]()
    for name in _CHANGES:
        num = args.num if name == "full" else max(args.num // 2, 1)
        reported = collect(name, REPORT_SEED, num, args.work, fresh=args.fresh)
        for kind, model in models.items():
            row = quality(model, reported[kind])
            row |= error_quality(errors[kind], reported[kind]) if kind in errors else {}
            result[f"{name} {kind}"] = row
            if not row.keys() <= printed:
                printed |= row.keys()
                print(f"{'':22s}" + "".join(f"{key:>15s}" for key in row))
            print(f"{name} {kind}".ljust(22) + "".join(f"{value:15.3f}" for value in row.values()))
    rows = {name: {k: None if np.isnan(v) else round(v, 4) for k, v in row.items()} for name, row in result.items()}
    print(json.dumps({"benchmark": "calibrate_score", **made, "rows": rows}))


if __name__ == "__main__":
    main()
