"""Losses: sums as WiLoR defines them (Potamias et al. 2024, after HMR 2.0 and HaMeR), means for the regularisers.

Rules that hold everywhere here
    - Inputs are never changed.
    - A label with confidence 0 adds exactly nothing, gradient included, even if it is NaN or inf. A label that is
      not finite under a positive confidence makes the loss not finite: it is not hidden.
    - Half-precision inputs are computed in float32, float64 stays float64.
    - A wrong shape or a confidence that is negative or not finite is a ValueError that says what came.

WiLoR's adversarial term (weight 0.0005, a discriminator on motion-capture poses) is left out.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import torch
from torch import Tensor, nn

from utnet.config import LossConfig
from utnet.conventions import NUM_JOINTS
from utnet.errors import InputError
from utnet.types import Batch, Prediction, check_shape

LOSS_TYPES = ("l1", "l2")
REDUCTIONS = ("sum", "batch_mean")

JOINT_MAP_Z_UNIT_M = 0.2
"""A depth error of this many metres in the joint map counts like an error of one crop width in x or y: a crop shows
about 0.2 m to 0.3 m of the scene around a hand, so the three axes weigh about the same."""

HEAT_SIGMA_CELLS = 0.8
"""Width of the joint heat maps' targets: narrower than a cell's neighbours, wide enough to tell where in the cell."""


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
            mask: (B, N) confidence for a `gt` without that channel (with it, the channel is what counts). Default 1.

        Raises:
            ValueError: a wrong shape, or a confidence that is negative or not finite.
        """
        pred, gt, conf = _split_labels(pred, gt, mask, self.num_axes)
        return _reduce(_keypoint_sums(pred, gt, conf, self.loss_type), self.reduction)


class Keypoint3DLoss(nn.Module):
    """`Keypoint2DLoss` in three dimensions, both sides first taken relative to their own joint `root_id`.

    So it is unchanged by translating either side. A root with confidence 0 and a finite label is still subtracted, as
    WiLoR does; a root label that is not finite drops its sample from the loss.

    Args:
        loss_type: "l1" or "l2".
        root_id: the joint that both sides are relative to; 0 is the wrist.
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
            pred: (B, N, 3) in metres, any frame that is not turned against the labels'.
            gt: (B, N, 3), or (B, N, 4) with the confidence in the last channel.
            mask: (B, N) confidence for a `gt` without that channel. Default 1.

        Raises:
            ValueError: a wrong shape, no joint `root_id`, or a confidence that is negative or not finite.
        """
        pred, gt, conf = _split_labels(pred, gt, mask, self.num_axes)
        if not 0 <= self.root_id < pred.shape[1]:
            raise ValueError(f"root_id is {self.root_id}, expected 0 to {pred.shape[1] - 1} for {pred.shape[1]} joints")
        root_gt = gt[:, self.root_id, None]
        conf = torch.where(root_gt.isfinite().all(-1, keepdim=True), conf, 0.0)
        relative = pred - pred[:, self.root_id, None]
        return _reduce(_keypoint_sums(relative, gt - root_gt, conf, self.loss_type), self.reduction)


class ParameterLoss(nn.Module):
    """Sum of squared errors of the samples that are labelled, each times its `has_param` (WiLoR's definition).

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
            has_param: (B,) bool, or a weight that is not negative.
        """
        difference, has_param = _labelled_difference(pred, gt, has_param)
        return _reduce((has_param[:, None] * difference.square()).sum(1), self.reduction)


class VertexLoss(nn.Module):
    """Mean of `|pred - gt|` over the labelled samples, their vertices and the three axes; 0 when none is labelled."""

    def forward(self, pred: Tensor, gt: Tensor, ok: Tensor) -> Tensor:
        """A scalar, from (B, V, 3) vertices (hand frame, m) twice and (B,) bool: the sample's mesh is labelled."""
        check_shape("vertices", pred, (None, None, 3))
        difference, ok = _labelled_difference(pred, gt, ok)
        return _labelled_mean(difference.abs(), ok)


def shape_prior(betas: Tensor) -> Tensor:
    """Mean of the squared betas, (B, 10) -> scalar."""
    (betas,) = _at_least_float32(betas)
    return betas.square().mean()


def pose_prior(hand_pose: Tensor) -> Tensor:
    """Mean over batch and joints of |R - I|^2 (Frobenius), (B, J, 3, 3) -> scalar."""
    check_shape("hand_pose", hand_pose, (None, None, 3, 3))
    (hand_pose,) = _at_least_float32(hand_pose)
    return (hand_pose - torch.eye(3).to(hand_pose)).square().sum((-1, -2)).mean()


def auxiliary(coarse: Prediction, targets: Batch) -> Tensor:
    """MSE of the coarse pose (16 rotation matrices) + MSE of the coarse betas, each over the labelled samples."""
    # One dtype before joining: autocast on the CPU refuses to join float16 with float32.
    pose = torch.cat(_at_least_float32(coarse.global_orient, coarse.hand_pose), 1)
    pose_gt = torch.cat(_at_least_float32(targets.params.global_orient, targets.params.hand_pose), 1)
    difference, ok = _labelled_difference(pose, pose_gt, targets.params_ok)
    difference_betas, ok_betas = _labelled_difference(coarse.betas, targets.params.betas, targets.betas_ok)
    return _labelled_mean(difference.square(), ok) + _labelled_mean(difference_betas.square(), ok_betas)


def heat_cross_entropy(log_heat: Tensor, joints_2d: Tensor) -> Tensor:
    """Cross-entropy between a Gaussian round each labelled joint and the network's heat map, summed over the joints.

    The Gaussian has a standard deviation of `HEAT_SIGMA_CELLS` and is normalised over the map; a joint outside the crop
    has no cell and does not count.

    Args:
        log_heat: (B, N, h, w) logarithms of each joint's probability over the cells.
        joints_2d: (B, N, 3) x, y in crop units, confidence.

    Returns:
        (B,), each joint weighted by its confidence.
    """
    height, width = log_heat.shape[-2:]
    check_shape("joints_2d", joints_2d, (*log_heat.shape[:2], 3))
    log_heat, joints_2d = _at_least_float32(log_heat, joints_2d)
    conf = _checked_confidence("confidence", joints_2d[..., 2])
    inside = (joints_2d[..., :2].abs() <= 0.5).all(-1)  # False where the label is NaN
    conf = torch.where((conf > 0) & inside, conf, 0.0)
    x, y = torch.where(inside[..., None], joints_2d[..., :2], 0.0).unbind(-1)
    columns = (torch.arange(width, device=x.device, dtype=x.dtype) + 0.5) - (x[..., None] + 0.5) * width
    rows = (torch.arange(height, device=x.device, dtype=x.dtype) + 0.5) - (y[..., None] + 0.5) * height
    squares = rows.square()[..., :, None] + columns.square()[..., None, :]
    target = (-squares / (2 * HEAT_SIGMA_CELLS**2)).flatten(2).softmax(-1)
    return -(conf * (target * log_heat.flatten(2)).sum(-1)).sum(-1)


class UTNetLoss(nn.Module):
    """The weighted sum that trains the network, called as `UTNetLoss(...)(predictions, targets)`.

    Keywords are the fields of `utnet.config.LossConfig`, which holds their defaults. The term of the weight `w_x` is
    called `loss_x` in the result, unweighted:

        loss_2d, loss_3d_joint                     `joints_crop`, `joints_m` against `joints_2d`, `joints_3d`
        loss_global_orient, loss_hand_pose         ParameterLoss, rotation matrices, samples with `params_ok`
        loss_betas                                 ParameterLoss, samples with `betas_ok`
        loss_prior, loss_pose_prior                `shape_prior`, `pose_prior` of the prediction
        loss_3d_vert                               VertexLoss, samples with both; only with `use_vertex_loss`
        loss_aux                                   `auxiliary` of `predictions.coarse`; only with `use_aux_loss`
        loss_joint_map                             `joint_map` against the joint labels; only with `w_joint_map` > 0
        loss_joint_heat                            `heat_cross_entropy`; only with `w_joint_heat` > 0

    A term that is switched off is absent. Any other term of weight 0 is there to be watched: it is computed without
    gradient and never enters `total_loss`, whatever its value.
    """

    def __init__(self, **options):
        super().__init__()
        self.config = config = LossConfig(**options)
        self.weights = {"loss_" + key[2:]: value for key, value in asdict(config).items() if key.startswith("w_")}
        for name, weight in self.weights.items():
            if not (weight >= 0 and math.isfinite(weight)):
                raise InputError(f"loss: w_{name[5:]} is {weight}, expected a finite number that is not negative")
        if config.w_3d_vert > 0 and not config.use_vertex_loss:
            raise InputError("loss: w_3d_vert is set but use_vertex_loss is false; set use_vertex_loss: true")
        if not 0 <= config.root_id < NUM_JOINTS:
            raise InputError(f"loss: root_id is {config.root_id}, expected 0 to {NUM_JOINTS - 1}")
        try:
            self.keypoint_2d = Keypoint2DLoss(config.loss_type, reduction=config.reduction)
            self.keypoint_3d = Keypoint3DLoss(config.loss_type, config.root_id, reduction=config.reduction)
            self.parameter = ParameterLoss(reduction=config.reduction)
        except ValueError as error:
            raise InputError(f"loss: {error}") from error
        self.vertex = VertexLoss()
        switches = {"loss_3d_vert": config.use_vertex_loss, "loss_aux": config.use_aux_loss}
        switches |= {"loss_joint_map": config.w_joint_map > 0, "loss_joint_heat": config.w_joint_heat > 0}
        self.terms = tuple(name for name in self.weights if switches.get(name, True))

    @classmethod
    def from_config(cls, config: LossConfig) -> UTNetLoss:
        """The loss of a run's `loss` section. An impossible value is an InputError that names its key."""
        return cls(**asdict(config))

    @property
    def summed_terms(self) -> frozenset[str]:
        """The terms that are sums over the batch: under several processes only these are scaled by their number."""
        if self.config.reduction != "sum":
            return frozenset()
        sums = {"loss_2d", "loss_3d_joint", "loss_global_orient", "loss_hand_pose", "loss_betas"}
        sums |= {"loss_joint_map", "loss_joint_heat"}
        return frozenset(sums & set(self.terms))

    def forward(self, predictions: Prediction, targets: Batch) -> dict[str, Tensor]:
        """Every term by name (unweighted scalars) and `total_loss`, the weighted sum.

        Raises:
            ValueError: a wrong shape, a bad confidence, or a term switched on whose input is missing.
        """
        result = {}
        for name in self.terms:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.weights[name] > 0):
                result[name] = getattr(self, "_" + name)(predictions, targets)
        total = torch.zeros_like(result["loss_2d"])
        for name, value in result.items():
            if self.weights[name] > 0:
                total = total + self.weights[name] * value
        return {**result, "total_loss": total}

    def _loss_2d(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.keypoint_2d(predictions.joints_crop, targets.joints_2d)

    def _loss_3d_joint(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.keypoint_3d(predictions.joints_m, targets.joints_3d)

    def _loss_3d_vert(self, predictions: Prediction, targets: Batch) -> Tensor:
        pred = _needed(predictions.vertices_m, "predictions.vertices_m", "use_vertex_loss: false")
        gt = _needed(targets.vertices_m, "targets.vertices_m", "use_vertex_loss: false")
        return self.vertex(pred, gt, targets.params_ok.bool() & targets.betas_ok.bool())

    def _loss_prior(self, predictions: Prediction, targets: Batch) -> Tensor:
        return shape_prior(predictions.betas)

    def _loss_pose_prior(self, predictions: Prediction, targets: Batch) -> Tensor:
        return pose_prior(predictions.hand_pose)

    def _loss_aux(self, predictions: Prediction, targets: Batch) -> Tensor:
        return auxiliary(_needed(predictions.coarse, "predictions.coarse", "use_aux_loss: false"), targets)

    def _loss_global_orient(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.parameter(predictions.global_orient, targets.params.global_orient, targets.params_ok)

    def _loss_hand_pose(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.parameter(predictions.hand_pose, targets.params.hand_pose, targets.params_ok)

    def _loss_betas(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.parameter(predictions.betas, targets.params.betas, targets.betas_ok)

    def _loss_joint_map(self, predictions: Prediction, targets: Batch) -> Tensor:
        """L1 of x, y by the 2D confidence + L1 of z relative to the wrist, in `JOINT_MAP_Z_UNIT_M`, by the 3D one."""
        joint_map = _needed(predictions.joint_map, "predictions.joint_map", "w_joint_map: 0")
        check_shape("predictions.joint_map", joint_map, (*targets.joints_2d.shape[:2], 3))
        xy, gt_xy, conf_2d = _split_labels(joint_map[..., :2], targets.joints_2d, None, 2)
        z, gt_z, conf_3d = _split_labels(joint_map[..., 2:], targets.joints_3d[..., 2:], None, 1)
        wrist_z = gt_z[:, :1]
        conf_3d = torch.where(wrist_z.isfinite(), conf_3d, 0.0)
        scaled, scaled_gt = z / JOINT_MAP_Z_UNIT_M, (gt_z - wrist_z) / JOINT_MAP_Z_UNIT_M
        sums = _keypoint_sums(xy, gt_xy, conf_2d, "l1") + _keypoint_sums(scaled, scaled_gt, conf_3d, "l1")
        return _reduce(sums, self.config.reduction)

    def _loss_joint_heat(self, predictions: Prediction, targets: Batch) -> Tensor:
        heat = _needed(predictions.joint_heat, "predictions.joint_heat", "w_joint_heat: 0")
        return _reduce(heat_cross_entropy(heat, targets.joints_2d), self.config.reduction)


# ------------------------------------------------------------------------------------------------------------ building


def _keypoint_sums(pred: Tensor, gt: Tensor, conf: Tensor, loss_type: str) -> Tensor:
    """(B, N, D) twice and (B, N, 1) confidence -> (B,) weighted sums of |pred - gt| or its square."""
    # Masked before the norm, not after: 0 * NaN is NaN, and so would the gradient be.
    difference = torch.where(conf > 0, pred - gt, 0.0)
    deviation = difference.abs() if loss_type == "l1" else difference.square()
    return (conf * deviation).sum((1, 2))


def _split_labels(pred: Tensor, gt: Tensor, mask: Tensor | None, num_axes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Checked pred (B, N, D), gt (B, N, D) and confidence (B, N, 1), in one dtype."""
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
    pred, gt, conf = _at_least_float32(pred, gt, mask)
    return pred, gt, _checked_confidence("confidence", conf)[..., None]


def _labelled_difference(pred: Tensor, gt: Tensor, ok: Tensor) -> tuple[Tensor, Tensor]:
    """pred - gt of the labelled samples and 0 of the others, (B, D) flattened, and `ok` (B,) as a number."""
    if pred.shape != gt.shape or pred.ndim < 2:
        raise ValueError(f"pred has shape {tuple(pred.shape)} and gt {tuple(gt.shape)}, expected one shape (B, ...)")
    check_shape("the mask of labelled samples", ok, (len(pred),))
    if ok.dtype != torch.bool:
        _checked_confidence("the mask of labelled samples", ok)
    pred, gt, weight = _at_least_float32(pred.flatten(1), gt.flatten(1), ok)
    return torch.where(weight[:, None] > 0, pred - gt, 0.0), weight


def _labelled_mean(deviation: Tensor, ok: Tensor) -> Tensor:
    """Mean of (B, D) over the samples that are `ok`; `deviation` is 0 in the others."""
    return deviation.sum() / ((ok > 0).sum().clamp(min=1) * deviation.shape[1])


def _reduce(per_sample: Tensor, reduction: str) -> Tensor:
    total = per_sample.sum()
    return total if reduction == "sum" else total / max(len(per_sample), 1)


def _at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common dtype, float32 or wider."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def _checked_confidence(name: str, conf: Tensor) -> Tensor:
    """`conf` itself. On a GPU this is the only place where the losses wait for it."""
    fine = (conf >= 0) & (conf < math.inf)
    if not fine.all():
        raise ValueError(
            f"{name} is {conf[~fine][0].item():g} somewhere, expected finite numbers that are not negative"
        )
    return conf


def _needed(value, name: str, remedy: str):
    if value is None:
        raise ValueError(f"{name} is None, but a term that needs it is switched on; provide it or set loss.{remedy}")
    return value


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}")
