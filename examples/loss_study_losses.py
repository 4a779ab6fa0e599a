"""The losses that `loss_study.py` compares, and what it does to the labels,
to be read beside `utnet/losses/weighted.py`.

All take (Prediction, Batch) and return their terms by name; `total_loss` is what is trained. Only the two joint terms
are trained in the study, with the weights that UTNet and WiLoR share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from utnet.conventions import FINGERS, NUM_JOINTS
from utnet.geometry import project, px_to_crop
from utnet.losses import UTNetLoss
from utnet.types import Batch, Prediction

W_2D, W_3D = 0.01, 0.05
WILOR_PARAMETER_WEIGHTS = {"global_orient": 0.001, "hand_pose": 0.001, "betas": 0.0005}

Terms = dict[str, Tensor]
Loss = Callable[[Prediction, Batch], Terms]


def absolute_joints_m(prediction: Prediction, K_px: Tensor, size_px: int) -> Tensor:
    """Predicted joints in the label's own camera: what "absolute" means in the study, (B, 21, 3) metres.

    The network's camera is nominal (f = 5000/256 crop widths, axis through the crop's centre), so its own `cam_t` is
    metres away from any label. This is WiLoR's way out of the crop: with f of the crop's true camera in crop widths and
    the crop's centre at c from that camera's axis, t = (tx + 2 c_x / s, ty + 2 c_y / s, 2 f / s).

    Args:
        prediction: of B crops.
        K_px: (B, 3, 3) of the crops.
        size_px: side of the crops.
    """
    scale, shift_m = prediction.cam[:, :1], prediction.cam[:, 1:]
    f_crop = (K_px[:, 0, :1] + K_px[:, 1, 1:2]) / (2 * size_px)
    axis_crop = px_to_crop(K_px[:, :2, 2], size_px)
    translation_m = torch.cat([shift_m - 2 * axis_crop / scale, 2 * f_crop / scale], 1)
    return prediction.joints_m + translation_m[:, None]


def former_loss(*, units_per_m: float = 1.0, relative: bool = False, squared: bool = True) -> Loss:
    """(a) UTNet before: mean |2D error| + mean squared error of absolute 3D positions. No confidence is looked at.

    Args:
        units_per_m: 1 takes positions in metres, 1000 in millimetres; weights stay as they are.
        relative: takes positions relative to the wrist, to see what that alone does.
        squared: False takes |error|, likewise.
    """

    def loss(prediction: Prediction, batch: Batch) -> Terms:
        pred_m = absolute_joints_m(prediction, batch.K_px, batch.rgb.shape[-1])
        loss_2d = (prediction.joints_crop - batch.joints_2d[..., :2]).abs().mean()
        error = units_per_m * (pred_m - batch.joints_3d[..., :3])
        if relative:
            error = error - error[:, :1]
        loss_3d = (error.square() if squared else error.abs()).mean()
        return {"loss_2d": loss_2d, "loss_3d_joint": loss_3d, "total_loss": W_2D * loss_2d + W_3D * loss_3d}

    return loss


def aligned_loss(
    *,
    units_per_m: float = 1.0,
    reduction: str = "sum",
    confidence: bool = True,
    weights: dict[str, float] | None = None,
) -> Loss:
    """(b) `UTNetLoss` with only its two joint terms, unless `weights` says more.

    Args:
        units_per_m: 1000 hands it joints in millimetres.
        reduction: "sum" or "batch_mean".
        confidence: False counts every label in full, to see what the confidence alone does.
        weights: more weights of `LossConfig`.
    """
    options = {"w_2d": W_2D, "w_3d_joint": W_3D, "w_prior": 0.0, "w_aux": 0.0, **(weights or {})}
    utnet_loss = UTNetLoss(**options, use_aux_loss=False, reduction=reduction)

    def loss(prediction: Prediction, batch: Batch) -> Terms:
        points, confidence_3d = batch.joints_3d[..., :3] * units_per_m, batch.joints_3d[..., 3:]
        joints_2d = batch.joints_2d
        if not confidence:
            confidence_3d = torch.ones_like(confidence_3d)
            joints_2d = torch.cat([joints_2d[..., :2], confidence_3d], -1)
        batch = replace(batch, joints_2d=joints_2d, joints_3d=torch.cat([points, confidence_3d], -1))
        return utnet_loss(replace(prediction, joints_m=prediction.joints_m * units_per_m), batch)

    return loss


def wilor_loss(**parameter_weights: float) -> Loss:
    """(c) WiLoR's definitions, joint by joint, with nothing of `utnet.losses`.

    2D: sum over batch, joints and axes of conf |x - x'|. 3D: the same after each side's own wrist was subtracted.
    Parameters (rotation matrices, betas): sum over the batch of has_param times the sum of squared differences.

    Args:
        parameter_weights: e.g. `**WILOR_PARAMETER_WEIGHTS`; terms that are not named are not computed.
    """

    def loss(prediction: Prediction, batch: Batch) -> Terms:
        loss_2d = loss_3d = torch.zeros(())
        for joint in range(NUM_JOINTS):
            conf_2d, conf_3d = batch.joints_2d[:, joint, 2], batch.joints_3d[:, joint, 3]
            error_2d = (prediction.joints_crop[:, joint] - batch.joints_2d[:, joint, :2]).abs()
            loss_2d = loss_2d + (conf_2d * error_2d.sum(1)).sum()
            pred = prediction.joints_m[:, joint] - prediction.joints_m[:, 0]
            gt = batch.joints_3d[:, joint, :3] - batch.joints_3d[:, 0, :3]
            loss_3d = loss_3d + (conf_3d * (pred - gt).abs().sum(1)).sum()
        terms = {"loss_2d": loss_2d, "loss_3d_joint": loss_3d}
        total = W_2D * loss_2d + W_3D * loss_3d
        for name, weight in parameter_weights.items():
            has_param = batch.betas_ok if name == "betas" else batch.params_ok
            term = torch.zeros(())
            for pred, gt, ok in zip(getattr(prediction, name), getattr(batch.params, name), has_param, strict=True):
                term = term + float(ok) * ((pred - gt) ** 2).sum()
            terms["loss_" + name] = term
            total = total + weight * term
        return {**terms, "total_loss": total}

    return loss


# ------------------------------------------------------------------------------------------------------------- labels


def translated(batch: Batch, rng: np.random.Generator, *, reach_m: float = 0.1) -> Batch:
    """Every sample's 3D label moved as a whole by up to `reach_m` along each axis; image points stay."""
    shift = torch.from_numpy(rng.uniform(-reach_m, reach_m, (len(batch), 1, 3))).float()
    points = batch.joints_3d[..., :3] + shift
    return replace(batch, joints_3d=torch.cat([points, batch.joints_3d[..., 3:]], -1))


def occluded(batch: Batch, rng: np.random.Generator, *, num_fingers: int = 2) -> Batch:
    """Some fingers of every sample labelled with another sample's fingers, 2D and 3D alike, at confidence 0.

    The other hand's wrist is put on this one's, so the wrong label is a hand that could be, made without looking.
    """
    num, size_px = len(batch), batch.rgb.shape[-1]
    fingers = np.stack([rng.permutation(len(FINGERS))[:num_fingers] for _ in range(num)])
    hidden = np.zeros((num, NUM_JOINTS), bool)
    hidden[:, 1:] = (fingers[:, :, None] == np.repeat(np.arange(len(FINGERS)), 4)).any(1)
    donor = torch.from_numpy((np.arange(num) + rng.integers(1, num, num)) % num)
    points = batch.joints_3d[..., :3]
    wrong_m = points[donor] - points[donor, :1] + points[:, :1]
    wrong_crop = px_to_crop(project(wrong_m, batch.K_px), size_px)
    zero = torch.zeros(num, NUM_JOINTS, 1)
    is_hidden = torch.from_numpy(hidden)[..., None]
    return replace(
        batch,
        joints_2d=torch.where(is_hidden, torch.cat([wrong_crop, zero], -1), batch.joints_2d),
        joints_3d=torch.where(is_hidden, torch.cat([wrong_m, zero], -1), batch.joints_3d),
    )


def wrong_wrist(batch: Batch, rng: np.random.Generator, *, share: float = 0.5, distance_m: float = 0.05) -> Batch:
    """The wrist's 3D label moved by `distance_m` in some direction, at confidence 0, in a `share` of the samples."""
    direction = rng.normal(size=(len(batch), 3))
    direction *= distance_m / np.linalg.norm(direction, axis=1, keepdims=True)
    chosen = torch.from_numpy(rng.uniform(size=len(batch)) < share)
    joints_2d, joints_3d = batch.joints_2d.clone(), batch.joints_3d.clone()
    joints_3d[chosen, 0, :3] += torch.from_numpy(direction).float()[chosen]
    joints_3d[chosen, 0, 3] = joints_2d[chosen, 0, 2] = 0.0
    return replace(batch, joints_2d=joints_2d, joints_3d=joints_3d)
