"""Loss terms: sums as in WiLoR (Potamias et al. 2024, after HMR 2.0 and HaMeR), means for regularisers.

All terms follow these rules:
    - Inputs are not modified.
    - A label with confidence 0 contributes exactly nothing, gradient included, even if it is NaN or inf. A non-finite
      label with positive confidence makes the loss non-finite.
    - Half-precision inputs are computed in float32; float64 stays float64.
    - A wrong shape, or a negative or non-finite confidence, raises a ValueError.

See `utnet.losses.weighted` for the weighted sum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.types import Batch, Prediction, check_shape

LOSS_TYPES = ("l1", "l2")
REDUCTIONS = ("sum", "batch_mean")

HEAT_SIGMA_CELLS = 0.8
"""Standard deviation of heat map targets, in cells: narrow, but wide enough for sub-cell positions."""


class Keypoint2DLoss(nn.Module):
    """Sum over batch, joints and axes of `conf * |pred - gt|` ("l1") or `conf * (pred - gt)^2` ("l2").

    Args:
        loss_type: "l1" or "l2".
        reduction: "sum" (WiLoR's; grows with the batch) or "batch_mean" (the sum divided by B; not WiLoR's).
    """

    num_axes = 2

    def __init__(self, loss_type: str = "l1", *, reduction: str = "sum"):
        super().__init__()
        _check_choice("loss_type", loss_type, LOSS_TYPES)
        _check_choice("reduction", reduction, REDUCTIONS)
        self.loss_type, self.reduction = loss_type, reduction

    def forward(self, pred: Tensor, gt: Tensor, mask: Tensor | None = None) -> Tensor:
        """A scalar.

        Args:
            pred: (B, N, 2), in crop units.
            gt: (B, N, 2), or (B, N, 3) with the confidence in the last channel.
            mask: (B, N) confidence for a `gt` without that channel (ignored otherwise). Default 1.

        Raises:
            ValueError: a wrong shape, or a negative or non-finite confidence.
        """
        pred, gt, conf = split_labels(pred, gt, mask, self.num_axes)
        return reduced(keypoint_sums(pred, gt, conf, self.loss_type), self.reduction)


class Keypoint3DLoss(nn.Module):
    """`Keypoint2DLoss` in 3D, with prediction and label relative to their own joint `root_id`.

    It is invariant to translation of either side. A root label with confidence 0 is still subtracted, as in WiLoR; a
    non-finite root label drops its sample from the loss.

    Args:
        loss_type: "l1" or "l2".
        root_id: index of the root joint; 0 is the wrist.
        reduction: as in `Keypoint2DLoss`.
    """

    num_axes = 3

    def __init__(self, loss_type: str = "l1", root_id: int = 0, *, reduction: str = "sum"):
        super().__init__()
        _check_choice("loss_type", loss_type, LOSS_TYPES)
        _check_choice("reduction", reduction, REDUCTIONS)
        self.loss_type, self.root_id, self.reduction = loss_type, root_id, reduction

    def forward(self, pred: Tensor, gt: Tensor, mask: Tensor | None = None) -> Tensor:
        """A scalar.

        Args:
            pred: (B, N, 3) in metres, in a frame with the same orientation as that of the labels.
            gt: (B, N, 3), or (B, N, 4) with the confidence in the last channel.
            mask: (B, N) confidence for a `gt` without that channel. Default 1.

        Raises:
            ValueError: a wrong shape, no joint `root_id`, or a negative or non-finite confidence.
        """
        pred, gt, conf = split_labels(pred, gt, mask, self.num_axes)
        if not 0 <= self.root_id < pred.shape[1]:
            raise ValueError(f"root_id is {self.root_id}, expected 0 to {pred.shape[1] - 1} for {pred.shape[1]} joints")
        root_gt = gt[:, self.root_id, None]
        conf = torch.where(root_gt.isfinite().all(-1, keepdim=True), conf, 0.0)
        relative = pred - pred[:, self.root_id, None]
        return reduced(keypoint_sums(relative, gt - root_gt, conf, self.loss_type), self.reduction)


class ParameterLoss(nn.Module):
    """Sum of squared errors of the labelled samples, weighted by `has_param` (as in WiLoR).

    Args:
        reduction: as in `Keypoint2DLoss`.
    """

    def __init__(self, *, reduction: str = "sum"):
        super().__init__()
        _check_choice("reduction", reduction, REDUCTIONS)
        self.reduction = reduction

    def forward(self, pred: Tensor, gt: Tensor, has_param: Tensor) -> Tensor:
        """A scalar.

        Args:
            pred: (B, ...) parameters; rotations as matrices.
            gt: the same shape.
            has_param: (B,) bool, or a non-negative weight.
        """
        difference, has_param = _labelled_difference(pred, gt, has_param)
        return reduced((has_param[:, None] * difference.square()).sum(1), self.reduction)


class VertexLoss(nn.Module):
    """Mean of `|pred - gt|` over the labelled samples, their vertices and the three axes; 0 if none is labelled."""

    def forward(self, pred: Tensor, gt: Tensor, ok: Tensor, num: float | None = None) -> Tensor:
        """A scalar.

        Args:
            pred: (B, V, 3) vertices, hand frame, m.
            gt: the same shape.
            ok: (B,) bool, True for samples with a labelled mesh.
            num: divide by this instead of the number of labelled samples (see `UTNetLoss.forward`).
        """
        check_shape("vertices", pred, (None, None, 3))
        difference, ok = _labelled_difference(pred, gt, ok)
        return _labelled_mean(difference.abs(), ok, num)


def shape_prior(betas: Tensor) -> Tensor:
    """Mean of the squared betas, (B, 10) -> scalar."""
    (betas,) = at_least_float32(betas)
    return betas.square().mean()


def pose_prior(hand_pose: Tensor) -> Tensor:
    """Mean over batch and joints of |R - I|^2 (Frobenius), (B, J, 3, 3) -> scalar."""
    check_shape("hand_pose", hand_pose, (None, None, 3, 3))
    (hand_pose,) = at_least_float32(hand_pose)
    return (hand_pose - torch.eye(3).to(hand_pose)).square().sum((-1, -2)).mean()


def auxiliary(
    coarse: Prediction, targets: Batch, *, num_poses: float | None = None, num_betas: float | None = None
) -> Tensor:
    """MSE of the coarse pose (16 rotation matrices) + MSE of the coarse betas, each over the labelled samples.

    Args:
        coarse: of B samples.
        targets: their labels.
        num_poses: divide by this instead of the number of labelled poses (see `UTNetLoss.forward`).
        num_betas: likewise for betas.
    """
    # Convert to one dtype first: CPU autocast cannot concatenate float16 with float32.
    pose = torch.cat(at_least_float32(coarse.global_orient, coarse.hand_pose), 1)
    pose_gt = torch.cat(at_least_float32(targets.params.global_orient, targets.params.hand_pose), 1)
    difference, ok = _labelled_difference(pose, pose_gt, targets.params_ok)
    difference_betas, ok_betas = _labelled_difference(coarse.betas, targets.params.betas, targets.betas_ok)
    poses = _labelled_mean(difference.square(), ok, num_poses)
    return poses + _labelled_mean(difference_betas.square(), ok_betas, num_betas)


def heat_cross_entropy(log_heat: Tensor, joints_2d: Tensor) -> Tensor:
    """Cross-entropy between a Gaussian around each labelled joint and the network's heat map, summed over joints.

    The Gaussian has a standard deviation of `HEAT_SIGMA_CELLS` and is normalised over the map. Joints outside the crop
    are ignored.

    Args:
        log_heat: (B, N, h, w) log-probability of each joint over the cells.
        joints_2d: (B, N, 3) x, y in crop units, confidence.

    Returns:
        (B,), each joint weighted by its confidence.
    """
    height, width = log_heat.shape[-2:]
    check_shape("joints_2d", joints_2d, (*log_heat.shape[:2], 3))
    log_heat, joints_2d = at_least_float32(log_heat, joints_2d)
    conf = _checked_confidence("confidence", joints_2d[..., 2])
    inside = (joints_2d[..., :2].abs() <= 0.5).all(-1)  # False where the label is NaN
    conf = torch.where((conf > 0) & inside, conf, 0.0)
    x, y = torch.where(inside[..., None], joints_2d[..., :2], 0.0).unbind(-1)
    columns = (torch.arange(width, device=x.device, dtype=x.dtype) + 0.5) - (x[..., None] + 0.5) * width
    rows = (torch.arange(height, device=x.device, dtype=x.dtype) + 0.5) - (y[..., None] + 0.5) * height
    squares = rows.square()[..., :, None] + columns.square()[..., None, :]
    target = (-squares / (2 * HEAT_SIGMA_CELLS**2)).flatten(2).softmax(-1)
    return -(conf * (target * log_heat.flatten(2)).sum(-1)).sum(-1)


def mask_cross_entropy(logit: Tensor, cells: Tensor) -> Tensor:
    """Binary cross-entropy of a mask: mean over the labelled cells of each sample (0 if there are none).

    Args:
        logit: (B, h, w).
        cells: (B, h, h) coverage in [0, 1], NaN where not labelled; wider masks are cropped to the central columns.

    Returns:
        (B,).
    """
    margin = (cells.shape[2] - logit.shape[2]) // 2
    cells = cells[..., margin : margin + logit.shape[2]]
    check_shape("mask cells", cells, tuple(logit.shape))
    logit, cells = at_least_float32(logit, cells)
    known = cells.isfinite()
    nll = F.binary_cross_entropy_with_logits(logit, torch.where(known, cells, 0.0), reduction="none")
    return torch.where(known, nll, 0.0).sum((1, 2)) / known.sum((1, 2)).clamp_min(1)


# ------------------------------------------------------------------------------------------------------------- helpers


def keypoint_sums(pred: Tensor, gt: Tensor, conf: Tensor, loss_type: str) -> Tensor:
    """(B, N, D) twice and (B, N, 1) confidence -> (B,) weighted sums of |pred - gt| or its square."""
    # Masked before the norm, not after: 0 * NaN would give NaN values and gradients.
    difference = torch.where(conf > 0, pred - gt, 0.0)
    deviation = difference.abs() if loss_type == "l1" else difference.square()
    return (conf * deviation).sum((1, 2))


def split_labels(pred: Tensor, gt: Tensor, mask: Tensor | None, num_axes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Checks and splits labels into pred (B, N, D), gt (B, N, D) and confidence (B, N, 1), in one dtype."""
    check_shape("pred", pred, (None, None, num_axes))
    if gt.ndim != 3 or gt.shape[:2] != pred.shape[:2] or gt.shape[2] not in (num_axes, num_axes + 1):
        wanted = f"{(*pred.shape[:2], num_axes)}, or {(*pred.shape[:2], num_axes + 1)} with a confidence"
        raise ValueError(f"gt has shape {tuple(gt.shape)}, expected {wanted}")
    if mask is not None:
        check_shape("mask", mask, tuple(pred.shape[:2]))
    if gt.shape[2] > num_axes:
        gt, mask = gt[..., :num_axes], gt[..., num_axes]
    elif mask is None:
        mask = torch.ones_like(gt[..., 0])
    pred, gt, conf = at_least_float32(pred, gt, mask)
    return pred, gt, _checked_confidence("confidence", conf)[..., None]


def _labelled_difference(pred: Tensor, gt: Tensor, ok: Tensor) -> tuple[Tensor, Tensor]:
    """pred - gt for labelled samples and 0 for others, flattened to (B, D), and `ok` (B,) as float."""
    if pred.shape != gt.shape or pred.ndim < 2:
        raise ValueError(f"pred has shape {tuple(pred.shape)} and gt {tuple(gt.shape)}, expected one shape (B, ...)")
    check_shape("the mask of labelled samples", ok, (len(pred),))
    if ok.dtype != torch.bool:
        _checked_confidence("the mask of labelled samples", ok)
    pred, gt, weight = at_least_float32(pred.flatten(1), gt.flatten(1), ok)
    return torch.where(weight[:, None] > 0, pred - gt, 0.0), weight


def _labelled_mean(deviation: Tensor, ok: Tensor, num: float | None) -> Tensor:
    """Mean of (B, D) over the samples that are `ok`, or the sum / (`num` D); `deviation` must be 0 for the others."""
    return deviation.sum() / (((ok > 0).sum().clamp(min=1) if num is None else num) * deviation.shape[1])


def reduced(per_sample: Tensor, reduction: str) -> Tensor:
    """Sum of (B,) values, divided by B unless `reduction` is "sum"."""
    total = per_sample.sum()
    return total if reduction == "sum" else total / max(len(per_sample), 1)


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common dtype, float32 or wider."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def _checked_confidence(name: str, conf: Tensor) -> Tensor:
    """Returns `conf` after a check. On a GPU this is the only synchronisation of the losses."""
    fine = (conf >= 0) & (conf < math.inf)
    if not fine.all():
        raise ValueError(f"{name} contains {conf[~fine][0].item():g}, expected finite non-negative numbers")
    return conf


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}")
