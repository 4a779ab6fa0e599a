"""`UTNetLoss`: weighted sum of the terms of `utnet.losses.terms`, which are re-exported here.

WiLoR's adversarial term (weight 0.0005, a discriminator on motion-capture poses) is not included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.config import LossConfig
from utnet.conventions import MM_PER_M, NUM_JOINTS
from utnet.errors import InputError
from utnet.geometry import hand_distance
from utnet.losses.terms import (
    HEAT_SIGMA_CELLS,
    LOSS_TYPES,
    REDUCTIONS,
    Keypoint2DLoss,
    Keypoint3DLoss,
    ParameterLoss,
    VertexLoss,
    at_least_float32,
    auxiliary,
    heat_cross_entropy,
    keypoint_sums,
    mask_cross_entropy,
    pose_prior,
    reduced,
    shape_prior,
    split_labels,
)
from utnet.types import Batch, Prediction, check_shape
from utnet.uncertainty import error_nll

__all__ = [
    "HEAT_SIGMA_CELLS",
    "JOINT_MAP_Z_UNIT_M",
    "LOSS_TYPES",
    "REDUCTIONS",
    "Keypoint2DLoss",
    "Keypoint3DLoss",
    "ParameterLoss",
    "UTNetLoss",
    "VertexLoss",
    "auxiliary",
    "heat_cross_entropy",
    "pose_prior",
    "shape_prior",
]

JOINT_MAP_Z_UNIT_M = 0.2
"""Depth error in the joint map, in metres, that is equivalent to one crop width in x or y. A crop covers 0.2 m to 0.3 m
of the scene, so the three axes have about equal weight."""
_OVER_LABELLED = frozenset({"loss_3d_vert", "loss_aux"})
"""Means over the labelled samples for any reduction."""


class UTNetLoss(nn.Module):
    """Weighted sum of loss terms, called as `UTNetLoss(...)(predictions, targets)`.

    Keywords and defaults are the fields of `utnet.config.LossConfig`. The term with weight `w_x` is returned unweighted
    as `loss_x`:

        loss_2d, loss_3d_joint                     `joints_crop`, `joints_m` against `joints_2d`, `joints_3d`
        loss_global_orient, loss_hand_pose         ParameterLoss, rotation matrices, samples with `params_ok`
        loss_betas                                 ParameterLoss, samples with `betas_ok`
        loss_prior, loss_pose_prior                `shape_prior`, `pose_prior` of the prediction
        loss_3d_vert                               VertexLoss, samples with both; only with `use_vertex_loss`
        loss_aux                                   `auxiliary` of `predictions.coarse`; only with `use_aux_loss`
        loss_joint_map                             `joint_map` against the joint labels; only with `w_joint_map` > 0
        loss_joint_heat                            `heat_cross_entropy`; only with `w_joint_heat` > 0
        loss_root_z                                `root_z_m` against the wrist's z, L1 in m; only with `w_root_z` > 0
        loss_uncertainty                           `uncertainty.error_nll`; only with `w_uncertainty` > 0
        loss_mask                                  `mask_cross_entropy`; only with `w_mask` > 0
        loss_side                                  cross-entropy of `side_logit`; only with `w_side` > 0

    Terms that are switched off are absent. Other terms of weight 0 are for monitoring: they are computed without
    gradient and never added to `total_loss`.
    """

    def __init__(self, **options):
        super().__init__()
        self.config = config = LossConfig(**options)
        self.weights = {"loss_" + key[2:]: value for key, value in asdict(config).items() if key.startswith("w_")}
        for name, weight in self.weights.items():
            if not (weight >= 0 and math.isfinite(weight)):
                raise InputError(f"loss: w_{name[5:]} is {weight}, expected a finite non-negative number")
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
        switches |= {"loss_root_z": config.w_root_z > 0, "loss_uncertainty": config.w_uncertainty > 0}
        switches |= {"loss_mask": config.w_mask > 0, "loss_side": config.w_side > 0}
        self.terms = tuple(name for name in self.weights if switches.get(name, True))

    @classmethod
    def from_config(cls, config: LossConfig) -> UTNetLoss:
        """Creates the loss of a config's `loss` section. Raises InputError, naming the key, for invalid values."""
        return cls(**asdict(config))

    @property
    def summed_terms(self) -> frozenset[str]:
        """Terms that are sums over the batch; only these are scaled by the number of processes."""
        if self.config.reduction != "sum":
            return frozenset()
        sums = {"loss_2d", "loss_3d_joint", "loss_global_orient", "loss_hand_pose", "loss_betas"}
        sums |= {"loss_joint_map", "loss_joint_heat", "loss_root_z", "loss_uncertainty", "loss_mask", "loss_side"}
        return frozenset(sums & set(self.terms))

    @staticmethod
    def count(targets: Batch) -> dict[str, int]:
        """Number of samples: "all", with labelled "poses", "betas", and both ("meshes")."""
        poses, betas = targets.params_ok > 0, targets.betas_ok > 0
        labelled = {"poses": poses, "betas": betas, "meshes": poses & betas}
        return {"all": len(targets), **{name: int(ok.sum()) for name, ok in labelled.items()}}

    def forward(
        self, predictions: Prediction, targets: Batch, counts: Mapping[str, float] | None = None
    ) -> dict[str, Tensor]:
        """Returns every term by name (unweighted scalars) and `total_loss`, the weighted sum.

        Args:
            predictions: of B samples.
            targets: their labels.
            counts: `count` of the average batch, if `targets` is one of several batches of a step. The average of the
                batches' terms is then the mean over the step, also if the numbers of labelled samples differ.

        Raises:
            ValueError: a wrong shape, an invalid confidence, or a missing input of an active term.
        """
        result, of_all = {}, frozenset(self.terms) - _OVER_LABELLED - self.summed_terms
        for name in self.terms:
            of_step = (counts or {},) if name in _OVER_LABELLED else ()
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.weights[name] > 0):
                result[name] = getattr(self, "_" + name)(predictions, targets, *of_step)
                if counts and name in of_all:  # batches differ in size if samples could not be read
                    result[name] = result[name] * (len(targets) / counts["all"])
        total = torch.zeros_like(result["loss_2d"])
        for name, value in result.items():
            if self.weights[name] > 0:
                total = total + self.weights[name] * value
        return {**result, "total_loss": total}

    def _loss_2d(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.keypoint_2d(predictions.joints_crop, targets.joints_2d)

    def _loss_3d_joint(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.keypoint_3d(predictions.joints_m, targets.joints_3d)

    def _loss_3d_vert(self, predictions: Prediction, targets: Batch, counts: Mapping[str, float]) -> Tensor:
        pred = _needed(predictions.vertices_m, "predictions.vertices_m", "use_vertex_loss: false")
        gt = _needed(targets.vertices_m, "targets.vertices_m", "use_vertex_loss: false")
        return self.vertex(pred, gt, targets.params_ok.bool() & targets.betas_ok.bool(), counts.get("meshes"))

    def _loss_prior(self, predictions: Prediction, targets: Batch) -> Tensor:
        return shape_prior(predictions.betas)

    def _loss_pose_prior(self, predictions: Prediction, targets: Batch) -> Tensor:
        return pose_prior(predictions.hand_pose)

    def _loss_aux(self, predictions: Prediction, targets: Batch, counts: Mapping[str, float]) -> Tensor:
        coarse = _needed(predictions.coarse, "predictions.coarse", "use_aux_loss: false")
        return auxiliary(coarse, targets, num_poses=counts.get("poses"), num_betas=counts.get("betas"))

    def _loss_global_orient(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.parameter(predictions.global_orient, targets.params.global_orient, targets.params_ok)

    def _loss_hand_pose(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.parameter(predictions.hand_pose, targets.params.hand_pose, targets.params_ok)

    def _loss_betas(self, predictions: Prediction, targets: Batch) -> Tensor:
        return self.parameter(predictions.betas, targets.params.betas, targets.betas_ok)

    def _loss_joint_map(self, predictions: Prediction, targets: Batch) -> Tensor:
        """L1 of x, y weighted by 2D confidence + L1 of wrist-relative z / `JOINT_MAP_Z_UNIT_M` by 3D confidence."""
        joint_map = _needed(predictions.joint_map, "predictions.joint_map", "w_joint_map: 0")
        check_shape("predictions.joint_map", joint_map, (*targets.joints_2d.shape[:2], 3))
        xy, gt_xy, conf_2d = split_labels(joint_map[..., :2], targets.joints_2d, None, 2)
        z, gt_z, conf_3d = split_labels(joint_map[..., 2:], targets.joints_3d[..., 2:], None, 1)
        wrist_z = gt_z[:, :1]
        conf_3d = torch.where(wrist_z.isfinite(), conf_3d, 0.0)
        scaled, scaled_gt = z / JOINT_MAP_Z_UNIT_M, (gt_z - wrist_z) / JOINT_MAP_Z_UNIT_M
        sums = keypoint_sums(xy, gt_xy, conf_2d, "l1") + keypoint_sums(scaled, scaled_gt, conf_3d, "l1")
        return reduced(sums, self.config.reduction)

    def _loss_joint_heat(self, predictions: Prediction, targets: Batch) -> Tensor:
        heat = _needed(predictions.joint_heat, "predictions.joint_heat", "w_joint_heat: 0")
        return reduced(heat_cross_entropy(heat, targets.joints_2d), self.config.reduction)

    def _loss_root_z(self, predictions: Prediction, targets: Batch) -> Tensor:
        """L1 over samples with depth readings on the hand and a labelled wrist in a known camera.

        These are selected by the batch, not by the prediction, so a NaN prediction (divergence) is not hidden.
        """
        root_z = _needed(predictions.root_z_m, "predictions.root_z_m", "w_root_z: 0")
        check_shape("predictions.root_z_m", root_z, (len(targets.joints_3d),))
        has_distance = targets.depth_ok & hand_distance(targets.depth_m.nan_to_num(posinf=0.0)).isfinite()
        # Labels in an unknown camera may have any origin.
        ok = has_distance & targets.K_px.isfinite().all(-1).all(-1)
        conf = torch.where(ok, targets.joints_3d[:, 0, 3], 0.0)
        z, gt, conf = split_labels(root_z[:, None, None], targets.joints_3d[:, :1, 2:3], conf[:, None], 1)
        return reduced(keypoint_sums(z, gt, conf, "l1"), self.config.reduction)

    def _loss_uncertainty(self, predictions: Prediction, targets: Batch) -> Tensor:
        """NLL of the 20 wrist-relative errors, weighted by 3D confidence. No gradient flows to the joints."""
        scale = _needed(predictions.joint_scale_mm, "predictions.joint_scale_mm", "w_uncertainty: 0")
        shape = _needed(predictions.error_shape, "predictions.error_shape", "w_uncertainty: 0")
        check_shape("predictions.joint_scale_mm", scale, tuple(targets.joints_3d.shape[:2]))
        joints, gt, conf = split_labels(predictions.joints_m.detach(), targets.joints_3d, None, 3)
        conf = torch.where(gt[:, :1].isfinite().all(-1, keepdim=True), conf, 0.0)
        error = torch.where(conf > 0, (joints - joints[:, :1]) - (gt - gt[:, :1]), 0.0).norm(dim=-1) * MM_PER_M
        scale, shape = at_least_float32(scale, shape)
        nll = error_nll(error[:, 1:], scale[:, 1:], shape[:, None])
        return reduced((conf[:, 1:, 0] * nll).sum(1), self.config.reduction)

    def _loss_mask(self, predictions: Prediction, targets: Batch) -> Tensor:
        logit = _needed(predictions.mask_logit, "predictions.mask_logit", "w_mask: 0")
        if targets.mask_cells is None:
            return logit.sum() * 0.0
        return reduced(mask_cross_entropy(logit, targets.mask_cells), self.config.reduction)

    def _loss_side(self, predictions: Prediction, targets: Batch) -> Tensor:
        logit = _needed(predictions.side_logit, "predictions.side_logit", "w_side: 0")
        right = torch.ones_like(logit) if targets.is_right is None else targets.is_right.to(logit.dtype)
        nll = F.binary_cross_entropy_with_logits(logit, right, reduction="none")
        return reduced(nll, self.config.reduction)


def _needed(value, name: str, remedy: str):
    if value is None:
        raise ValueError(f"{name} is None but required by an active term; provide it or set loss.{remedy}")
    return value
