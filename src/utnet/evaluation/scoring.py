"""Evaluation of a network on a source: per-sample scores under each requested protocol, in one pass (`passes`).

Only a few hundred numbers per sample are kept, never a mesh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utnet.config import CropConfig, TrainConfig
from utnet.data.source import Source
from utnet.distributed import ProcessInfo
from utnet.errors import InputError
from utnet.evaluation.crops import Crop, CropBatch, CropDataset, stack_params
from utnet.evaluation.passes import Measure, Measured, measure_source
from utnet.evaluation.placing import PlacedHands, benchmark_tips, check_benchmark_tips, place
from utnet.evaluation.protocol import GROUND_TRUTH, Protocol
from utnet.evaluation.rows import ALIGNMENTS, Row, joint_metrics, mesh_metrics, no_mesh
from utnet.metrics import pve_mm, sample_scores
from utnet.model import UTNet
from utnet.types import Prediction

Boxes = Mapping[str, Mapping[str, np.ndarray]]
"""Boxes of detectors by sample key, by the name in `Protocol.boxes`."""
_FACTS = ("keys", "sequences", "sides", "visibility", "label_conf")


@dataclass(frozen=True)
class ScoredRun:
    """Result of a pass.

    Attributes:
        rows: one per protocol, in the requested order.
        gt_m: (N, 21, 3) ground-truth joints of the first row's samples, camera of the crop, mirrored hands as right
            hands.
    """

    rows: list[Row]
    gt_m: np.ndarray


def score_source(
    model: UTNet,
    source: Source,
    crop: CropConfig,
    loading: TrainConfig | None = None,
    *,
    protocols: Sequence[Protocol],
    boxes: Boxes | None = None,
    allow_missing: bool = False,
    world: ProcessInfo | None = None,
    progress: bool = False,
) -> ScoredRun:
    """Scores `model` on every sample of `source`.

    Args:
        model: the network; its training mode is restored.
        source: map-style, with 3D labels.
        crop: how crops are cut.
        loading: batch size and workers (default: those of `TrainConfig`).
        protocols: one per row; those with the same boxes share one pass over the data.
        boxes: boxes for `Protocol.boxes` other than "ground-truth".
        allow_missing: skip samples that cannot be read, have no 3D label, no detected box or, with depth, no depth
            image. Their number is reported in every row.
        world: the processes (default: the current process group). All of them get the result.
        progress: show a progress bar.

    Raises:
        InputError: a sample is missing or lacks required depth, or a setting does not fit this network.
    """
    for protocol in protocols:
        if protocol.joints == "benchmark":
            check_benchmark_tips(model.hand, source.tips)
    rows: dict[Protocol, Row] = {}
    truth: dict[Protocol, np.ndarray] = {}
    for name in dict.fromkeys(protocol.boxes for protocol in protocols):
        wanted = [protocol for protocol in protocols if protocol.boxes == name]
        crops = CropDataset(source, model.config.size_px, crop, None if name == GROUND_TRUTH else (boxes or {})[name])
        found = measure_source(
            model,
            crops,
            loading or TrainConfig(),
            _measure(model, source.tips, wanted),
            uses_depth={protocol: protocol.depth for protocol in wanted},
            with_vertices=True,
            world=world,
            progress=progress,
        )
        for protocol in wanted:
            rows[protocol], truth[protocol] = _row(protocol, found[protocol], len(source), allow_missing)
    return ScoredRun([rows[protocol] for protocol in protocols], truth[protocols[0]])


def _facts(crops: list[Crop]) -> dict[str, np.ndarray]:
    """Facts about the samples that do not depend on the prediction."""
    return {
        "keys": np.array([crop.sample.key for crop in crops]),
        "sequences": np.array([crop.sample.sequence for crop in crops]),
        "sides": np.array([crop.side for crop in crops]),
        "visibility": np.stack([crop.visibility for crop in crops]),
        "label_conf": np.stack([crop.sample.joints_3d_conf for crop in crops]),
        "gt_m": np.stack([crop.sample.joints_cam_m for crop in crops]).astype(np.float64),
    }


def _measure(model: UTNet, tips: str, protocols: Sequence[Protocol]) -> Measure[Protocol]:
    """Scores a batch under every protocol with its input."""

    def measure(part: CropBatch, out: Prediction, use_depth: bool) -> dict[Protocol, dict[str, np.ndarray]]:
        truth, sides = _meshes(model, part.crops), [crop.side for crop in part.crops]
        placed = place(out, part, model.hand, use_depth=use_depth)
        found = {}
        for protocol in (protocol for protocol in protocols if protocol.depth == use_depth):
            joints = placed.joints_m
            if protocol.joints == "benchmark":
                joints = benchmark_tips(joints, placed.vertices_m, tips, sides)
            found[protocol] = {**_facts(part.crops), **_numbers(joints, placed, part.crops, truth)}
        return found

    return measure


def _numbers(
    joints_m: np.ndarray, placed: PlacedHands, crops: list[Crop], truth: list[np.ndarray | None]
) -> dict[str, np.ndarray]:
    """(B, ...) arrays by name: joint errors by alignment, and one number per sample for each metric."""
    gt = np.stack([crop.sample.joints_cam_m for crop in crops]).astype(np.float64)
    known = np.isfinite(placed.transl_m)
    joints = joints_m + np.where(known, placed.transl_m, 0.0)
    official = sample_scores(joints, gt)
    errors = {name: official.joints_mm[theirs] for name, theirs in ALIGNMENTS.items()}
    errors["absolute"] = np.where(known[:, :, 0], errors["absolute"], np.nan)
    numbers = joint_metrics(errors)
    has_mesh = np.array([mesh is not None for mesh in truth])
    meshes = no_mesh(len(crops))
    if has_mesh.any():
        true = np.stack([mesh for mesh in truth if mesh is not None])
        vertices = (placed.vertices_m + np.where(known, placed.transl_m, 0.0))[has_mesh]
        scored = sample_scores(joints[has_mesh], gt[has_mesh], vertices, true)
        relative = pve_mm(vertices - joints[has_mesh][:, :1], true - gt[has_mesh][:, :1])
        meshes = mesh_metrics(scored, relative, has_mesh)
        for name in meshes:
            if name.startswith("absolute"):
                meshes[name][~known[:, 0, 0]] = np.nan
    return {"expected_mm": placed.expected_mm, **errors, **numbers, **meshes}


def _meshes(model: UTNet, crops: list[Crop]) -> list[np.ndarray | None]:
    """Ground-truth mesh (V, 3) of each sample in the camera of the crop, or None.

    It is the labelled mesh, or else decoded from labelled parameters, if these are of the network's hand model.
    """
    hand = model.hand
    out: list[np.ndarray | None] = [None] * len(crops)
    decodable = []
    for i, crop in enumerate(crops):
        sample = crop.sample
        if sample.hand_model != hand.name:
            continue
        if sample.vertices_cam_m is not None and len(sample.vertices_cam_m) == hand.num_vertices:
            out[i] = sample.vertices_cam_m.astype(np.float64)
        elif sample.params is not None and sample.betas_ok and np.isfinite(sample.params.transl_m).all():
            decodable.append(i)
    if decodable:
        params = [crops[i].sample.params for i in decodable]
        device = hand.v_template.device
        with torch.inference_mode():
            mesh = hand.decode(stack_params([p for p in params if p is not None]).to(device)).vertices_m
        for i, p, vertices in zip(decodable, params, mesh.double().cpu().numpy(), strict=True):
            out[i] = vertices + p.transl_m  # type: ignore[union-attr]
    return out


def _row(protocol: Protocol, found: Measured, num: int, allow_missing: bool) -> tuple[Row, np.ndarray]:
    """The row, and its ground-truth joints."""
    missing, arrays = list(found.missing.values()), dict(found.arrays)
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing)} of {num} samples cannot be scored, the first: {missing[0].message}; a mean over a part is "
            "not reported (use --allow-missing to skip them)"
        )
    if not arrays:
        raise InputError(f"none of {num} samples can be scored, the first: {missing[0].message}")
    facts = {name: arrays.pop(name) for name in _FACTS}
    gt_m, expected = arrays.pop("gt_m"), arrays.pop("expected_mm")
    errors = {name: arrays.pop(name) for name in ALIGNMENTS}
    row = Row(
        protocol=protocol,
        num_expected=num,
        missing={bad.key: bad.message for bad in missing},
        expected_mm=expected,
        joints_mm=errors,
        metrics=arrays,
        **facts,
    )
    return row, gt_m
