"""Fits and evaluates the constants of `Hand.score` and `joint_error_mm`: `python tools/calibrate_score.py --work DIR`.

Run it again whenever the weights that ship, the detector or the fit change (with an empty DIR; or --fresh), and commit
src/utnet/assets/score.json. --keep-scores calibrates the expected errors alone, in a third of the time.

Drawn hands of one seed and full appearance are reconstructed by every method from RGB and RGB-D (with --num 600 half
an hour on a core): as the detector finds them, whatever its side; in the user's box, tight but inexact, found or not;
and in wrong boxes (moved off the hand, over a part of it, over no hand). Each mesh is right or not (`confidence`). A
logistic model for each method and input is fitted to them by maximum likelihood with a little ridge and weights that
are not negative. A linear model of the logarithm of the joints' mean error is fitted to the hands that are found or in
the user's box, of "mixed" appearance (each factor of each hand between none and the most); the network without
landmarks ("network alone") has its own. The report is on hands of another seed: of full appearance, and of two others
that nothing is fitted to: "plain" shading, and "harder" (stronger light, more things in the way, worse cameras).

Columns: hands that the detector finds (n); how many are right; correlation of the score with the PA error (Pearson)
and of ranks (Spearman); share of those above 0.8 that are right; share of the right ones that are above 0.8; mean
error of the probability (ECE, ten bins); then for wrong boxes the share above 0.5; for methods with expected errors the
shares of joints within their 50 % and 90 % intervals (before the linear model those of
`utnet.uncertainty.HAND_SHAPE`, after it the quantiles of the hands that it was fitted to) and the correlation of
expected and true mean error, over the found and boxed hands.
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
from scipy.optimize import minimize, nnls
from scipy.stats import spearmanr
from tqdm import tqdm

from utnet.config import Config, FactorsConfig, override
from utnet.detect import Detection
from utnet.errors import InputError
from utnet.geometry import box_of, normalized_distance_percent, project
from utnet.io.atomic import atomic_file
from utnet.metrics import pa_mpjpe_mm
from utnet.predict import Hand, Predictor
from utnet.predict.confidence import (
    ALONE,
    FEATURES,
    INTERVALS,
    MOST_SCALE,
    RIGHT_MM,
    RIGHT_PERCENT,
    FeatureModel,
    kind_of,
)
from utnet.synth import SyntheticHands
from utnet.types import Sample
from utnet.uncertainty import HAND_SHAPE, quantile

PREDICTORS: dict[str, dict] = {
    "fit": {"method": "fit"},
    "network": {"method": "network"},
    ALONE: {"method": "network", "prompts": False},
    "both": {"method": "both"},
}
FIT_SEED, REPORT_SEED = 4_100_003, 4_200_019
ASSET = Path(__file__).parents[1] / "src" / "utnet" / "assets" / "score.json"
_HARDER = ("light", "gloss", "exposure", "noise", "jpeg", "held", "occluder", "second_hand", "lens_blur", "rescale")
_CHANGES = {
    "full": ("synth.appearance=full",),
    "plain": ("synth.appearance=plain",),
    "harder": ("synth.appearance=full", *(f"synth.factors.{name}=1.8" for name in _HARDER)),
}
_MIXED = tuple(factor.name for factor in fields(FactorsConfig) if factor.name != "depth_missing")
_SIZE_PX = 320
_EXPAND = 2.75
_OWN_HAND_PERCENT = 25.0
"""A detection nearer than this to the drawn hand is a detection of it, whatever its side."""
_RIDGE = 0.005
_ERROR_RIDGE = 3.0
_FOLDS = 10
_MIXED_SEED = 77
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

    def of(self, index: np.ndarray) -> Rows:
        """Those of an index or a mask."""
        return Rows(*(getattr(self, column.name)[index] for column in fields(self)))


# ------------------------------------------------------------------------------------------------------- reconstructing


def source(name: str, seed: int, index: int) -> SyntheticHands:
    """Drawn hands of an appearance; "mixed" is another one for each hand, every factor between none and the most."""
    changes = list(_CHANGES[name if name in _CHANGES else "full"])
    if name == "mixed":
        strengths = np.random.default_rng((_MIXED_SEED, seed, index)).uniform(0, 2, len(_MIXED))
        changes += [
            f"synth.factors.{factor}={strength:.2f}" for factor, strength in zip(_MIXED, strengths, strict=True)
        ]
    config, crop = override(Config(), changes), replace(Config().crop, expand=_EXPAND)
    return SyntheticHands(seed=seed, size_px=_SIZE_PX, synth=config.synth, crop=crop, jitter=False)


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


def collect(name: str, seed: int, num: int, work: Path, *, fresh: bool, errors_only: bool) -> dict[str, Rows]:
    """Rows by method and input, kept in DIR; without the fit and wrong boxes for `errors_only`."""
    path = work / f"{'errors' if errors_only else 'score'}_{name}_{seed}_{num}.npz"
    if fresh or not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        columns = _columns(name, seed, num, errors_only=errors_only)
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
    with np.load(path) as loaded:
        kinds = [kind_of(method, with_depth=depth) for method in PREDICTORS for depth in (False, True)]
        kinds = [kind for kind in kinds if f"{kind} right" in loaded]
        return {kind: Rows(*(loaded[f"{kind} {column.name}"] for column in fields(Rows))) for kind in kinds}


def _columns(name: str, seed: int, num: int, *, errors_only: bool) -> dict[str, np.ndarray]:
    predictors = {method: Predictor(**of) for method, of in PREDICTORS.items() if not (errors_only and method == "fit")}
    rows: dict[str, list] = {}
    for index in tqdm(range(num), desc=name, unit="hand", disable=None):
        sample = source(name, seed, index)[index]
        for origin, detection in detections_of(predictors["both"], sample, np.random.default_rng((seed, index))):
            if errors_only and origin == _WRONG:
                continue
            for method, predictor in predictors.items():
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
                    rows.setdefault(kind_of(method, with_depth=depth_m is not None), []).append(row)
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
    """Ridge regression of the logarithm of the joints' mean error, weights <= 0: evidence for a mesh never raises it.

    Its mean error is that of the rows."""
    use = rows.has_errors
    features, error = rows.features[use], rows.joints_mm[use].mean(1)
    mean = _nanmean(features, axis=0)
    known = np.where(np.isfinite(features), features, mean)
    spread = known.std(0)
    varies = spread > 1e-6
    x = np.where(varies, (known - mean) / np.where(varies, spread, 1.0), 0.0)
    target = np.log(error)
    design = np.vstack([x, np.sqrt(_ERROR_RIDGE) * np.eye(x.shape[1])])
    w = -nnls(-design, np.concatenate([target - target.mean(), np.zeros(x.shape[1])]))[0]
    bias = np.log(error.mean() / np.exp(x @ w).mean())
    weights = np.where(varies, w / np.where(varies, spread, 1.0), 0.0)
    return FeatureModel.from_dict(FeatureModel(float(bias), weights, np.where(varies, mean, 0.0)).to_dict())


def interval_factors(rows: Rows) -> dict[str, float]:
    """Quantiles of the joints' errors in units of their expected errors, each by a model of the other hands."""
    use = rows.has_errors
    ratios, parts = [], np.array_split(np.flatnonzero(use), _FOLDS)
    for part in parts:  # of consecutive rows, so that the two of a hand are not in two parts
        others = use.copy()
        others[part] = False
        own = rows.of(part)
        ratios.append(own.joints_mm / scaled(fitted_error(rows.of(others)), own))
    return {str(p): round(float(np.quantile(np.concatenate(ratios), p)), 3) for p in INTERVALS}


def scaled(model: FeatureModel, rows: Rows) -> np.ndarray:
    """(N, 20) expected errors, by the features of each hand."""
    scale = np.exp(model(rows.features)) / rows.stated_mm.mean(1)
    return rows.stated_mm * np.clip(scale, 1 / MOST_SCALE, MOST_SCALE)[:, None]


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


def error_quality(model: FeatureModel, factors: dict[str, float], rows: Rows) -> dict[str, float]:
    """The columns of expected errors, before and after."""
    rows = rows.of(rows.has_errors)
    true, stated, now = rows.joints_mm, rows.stated_mm, scaled(model, rows)
    row = {}
    for p in INTERVALS:
        name, before = f"in_{round(100 * p)}", float(quantile(p, torch.tensor(HAND_SHAPE)))
        row[f"{name}_before"] = float((true < before * stated).mean())
        row[name] = float((true < factors[str(p)] * now).mean())
    row["r_before"], row["r"] = (float(np.corrcoef(true.mean(1), each.mean(1))[0, 1]) for each in (stated, now))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what was reconstructed")
    parser.add_argument("--num", type=int, default=600, help="drawn hands of each set")
    parser.add_argument("--fresh", action="store_true", help="reconstruct again what DIR holds")
    parser.add_argument("--keep-scores", action="store_true", help="calibrate expected errors only; FILE exists")
    parser.add_argument("--out", type=Path, default=ASSET, help="where the constants go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = {"work": args.work, "fresh": args.fresh, "errors_only": args.keep_scores}
    made = {"right_mm": RIGHT_MM, "right_percent": RIGHT_PERCENT, "seed": FIT_SEED, "num": args.num}
    tree = {"made_by": "tools/calibrate_score.py", **made}
    if args.keep_scores:
        tree = json.loads(args.out.read_text(encoding="utf-8"))
        models = {kind: FeatureModel.from_dict(model) for kind, model in tree["models"].items()}
    else:
        learnt = collect("full", FIT_SEED, args.num, **options)
        models = {kind: fitted(rows) for kind, rows in learnt.items() if not kind.startswith(ALONE)}
        tree["models"] = {kind: model.to_dict() for kind, model in models.items()}
    mixed = collect("mixed", FIT_SEED, args.num, **(options | {"errors_only": True}))
    errors = {kind: fitted_error(rows) for kind, rows in mixed.items()}
    intervals = {kind: interval_factors(rows) for kind, rows in mixed.items()}
    tree |= {"errors": {kind: model.to_dict() for kind, model in errors.items()}, "intervals": intervals}
    args.out.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    result, printed = {}, set[str]()
    for name in _CHANGES:
        num = args.num if name == "full" and not args.keep_scores else max(args.num // 2, 1)
        reported = collect(name, REPORT_SEED, num, **options)
        for kind, rows in reported.items():
            row = quality(models[kind], rows) if kind in models and not args.keep_scores else {}
            row |= error_quality(errors[kind], intervals[kind], rows) if kind in errors else {}
            result[f"{name} {kind}"] = row
            if not row.keys() <= printed:
                printed |= row.keys()
                print(f"{'':26s}" + "".join(f"{key:>15s}" for key in row))
            print(f"{name} {kind}".ljust(26) + "".join(f"{value:15.3f}" for value in row.values()))
    rows = {name: {k: None if np.isnan(v) else round(v, 4) for k, v in row.items()} for name, row in result.items()}
    print(json.dumps({"benchmark": "calibrate_score", **made, "rows": rows}))


if __name__ == "__main__":
    main()
