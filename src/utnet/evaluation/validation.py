"""Validation scores of a network for RGB and RGB-D input, with those of the best constant hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utnet.config import CropConfig, TrainConfig
from utnet.data.source import Source, evenly_spaced, read_sample
from utnet.errors import InputError
from utnet.evaluation.crops import CropBatch, CropDataset, NotScorable, is_labelled
from utnet.evaluation.passes import Measured, measure_source
from utnet.geometry import align_similarity
from utnet.metrics import joint_errors_mm, mpjpe_mm, pa_mpjpe_mm, root_relative, summary
from utnet.model import UTNet
from utnet.types import Prediction, Sample

INPUTS = ("rgb", "rgbd")

_LOOKED_AT = 64
"""Number of samples that `scorable_inputs` examines; more only if none of them is labelled."""


@dataclass(frozen=True)
class Joints:
    """Predicted and ground-truth joints of N samples, (N, 21, 3) float64 metres, left hands mirrored.

    Attributes:
        pred_m: hand frame.
        gt_m: camera frame of the crop.
        keys: N sample keys.
    """

    pred_m: Tensor
    gt_m: Tensor
    keys: tuple[str, ...]


def evaluate(
    model: UTNet,
    source: Source,
    crop: CropConfig,
    loading: TrainConfig | None = None,
    *,
    inputs: tuple[str, ...] = INPUTS,
    progress: bool = False,
) -> dict:
    """Scores `model` on all samples of `source` with 3D labels, for "rgbd" on those that also have depth.

    Crops are made from labelled boxes.

    Args:
        model: the network; its training mode is restored.
        source: samples.
        crop: how crops are cut, `config.crop` of the checkpoint.
        loading: batch size and workers (default: those of `TrainConfig`).
        inputs: "rgb" hides the depth, "rgbd" uses it.
        progress: show a progress bar.

    Returns:
        {"num": N, "num_expected": N, "constant": {...}, "rgb": {...}, "rgbd": {...}}: the number of samples scored for
        the first input, that of the source, and rows with `mpjpe_mm` (root-relative), `pa_mpjpe_mm` and `auc`
        (root-relative, 0-50 mm); rows of the network also have `num`. "constant" is `constant_hand` of the samples of
        the first input.

    Raises:
        InputError: samples cannot be read, or an input has no sample to score.
        FloatingPointError: predicted joints are NaN or inf; the message has the key of the first such sample.
    """
    joints = predict_joints(model, source, crop, loading, inputs=inputs, progress=progress)
    truth = joints[inputs[0]]
    scores = {"num": len(truth.keys), "num_expected": len(source), "constant": constant_hand(truth.gt_m)}
    return {**scores, **{name: {"num": len(joints[name].keys), **score(joints[name])} for name in inputs}}


def scorable_inputs(source: Source, *, skip_unreadable: bool = False) -> tuple[str, ...]:
    """Inputs that can be scored: "rgb", and "rgbd" if one of 64 evenly spaced samples has depth and labels.

    Args:
        source: samples.
        skip_unreadable: ignore samples that cannot be read.

    Raises:
        InputError: no sample of the source has all joints labelled in 3D.
    """
    labelled = False
    for sample in _readable(source, evenly_spaced(len(source), _LOOKED_AT).tolist(), skip_unreadable):
        if is_labelled(sample) and sample.depth_m is not None:
            return INPUTS
        labelled = labelled or is_labelled(sample)
    if not (labelled or any(map(is_labelled, _readable(source, range(len(source)), skip_unreadable)))):
        raise InputError(
            f"{source.key(0)}: joints without a 3D label cannot be scored, and none of the {len(source)} samples has "
            "all of them; choose another split (HO3D's evaluation split needs the published evaluation_xyz.json beside "
            "evaluation.txt)"
        )
    return ("rgb",)


def _readable(source: Source, indices: Iterable[int], skip_unreadable: bool) -> Iterator[Sample]:
    for index in indices:
        sample = read_sample(source, index)
        if isinstance(sample, Sample):
            yield sample
        elif not skip_unreadable:
            raise InputError(sample.message)


def score(joints: Joints) -> dict[str, float]:
    """Mean root-relative and Procrustes-aligned errors in mm, and the AUC of the former."""
    errors = joint_errors_mm(joints.pred_m, joints.gt_m, align="root")
    return {
        "mpjpe_mm": errors.mean().item(),
        "pa_mpjpe_mm": pa_mpjpe_mm(joints.pred_m, joints.gt_m).mean().item(),
        "auc": summary(errors)["auc"],
    }


def constant_hand(gt_m: Tensor) -> dict[str, float]:
    """Scores of the best constant prediction, a lower bound on useful accuracy.

    For MPJPE the constant is the geometric median of each root-relative joint over the ground truth (Weiszfeld 1937),
    which is optimal; for PA-MPJPE it is the Procrustes mean of the ground truth.
    """
    truth = root_relative(gt_m.double().numpy())
    constant = truth.mean(0)
    for _ in range(50):
        weights = 1 / np.linalg.norm(truth - constant, axis=-1, keepdims=True).clip(1e-6)
        constant = (truth * weights).sum(0) / weights.sum(0)
    mean = truth[0]
    for _ in range(5):
        mean = align_similarity(truth, np.broadcast_to(mean, truth.shape)).mean(0)
    constants, means = (np.broadcast_to(hand, truth.shape) for hand in (constant, mean))
    return {
        "mpjpe_mm": mpjpe_mm(constants, truth).mean().item(),
        "pa_mpjpe_mm": pa_mpjpe_mm(means, truth).mean().item(),
        "auc": summary(joint_errors_mm(constants, truth))["auc"],
    }


def predict_joints(
    model: UTNet,
    source: Source,
    crop: CropConfig,
    loading: TrainConfig | None = None,
    *,
    inputs: tuple[str, ...] = INPUTS,
    progress: bool = False,
) -> dict[str, Joints]:
    """Predicts the joints of all samples that can be scored, by input, in the order of the source; arguments and errors
    as for `evaluate`. All processes get all results."""
    found = measure_source(
        model,
        CropDataset(source, model.config.size_px, crop),
        loading or TrainConfig(),
        _measure,
        uses_depth={name: name == "rgbd" for name in inputs},
        with_vertices=False,
        progress=progress,
    )
    return {name: _checked(found[name], name, source) for name in inputs}


def _measure(part: CropBatch, out: Prediction, use_depth: bool) -> dict[str, dict[str, np.ndarray]]:
    return {
        "rgbd" if use_depth else "rgb": {
            "keys": np.array([crop.sample.key for crop in part.crops]),
            "gt_m": np.stack([crop.sample.joints_cam_m for crop in part.crops]).astype(np.float64),
            "pred_m": out.joints_m.double().numpy(),
        }
    }


def _checked(found: Measured, name: str, source: Source) -> Joints:
    """The joints for one input, after checks of the samples and of the predictions."""
    for bad in found.missing.values():
        if not isinstance(bad, NotScorable):
            raise InputError(f"{bad.message} (evaluation counts every sample of the split)")
    if not found.arrays:
        lacking = "a depth image and joints labelled in 3D" if name == "rgbd" else "joints labelled in 3D"
        raise InputError(
            f"{source.key(0)}: none of {len(source)} samples has {lacking}; nothing can be scored ({name})"
        )
    joints, keys = found.arrays["pred_m"], found.arrays["keys"]
    broken = ~np.isfinite(joints).all((1, 2))
    if broken.any():
        raise FloatingPointError(
            f"{keys[broken.argmax()]}: the predicted joints are NaN or inf ({name}), in {broken.sum()} of {len(keys)} "
            "samples"
        )
    return Joints(torch.from_numpy(joints), torch.from_numpy(found.arrays["gt_m"]), tuple(keys.tolist()))
