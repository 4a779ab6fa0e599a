"""Evaluation of a network on a source: per-sample scores under each requested protocol, in one pass.

Only a few hundred numbers per sample are kept, never a mesh. Under torchrun batches are distributed over the processes,
and results are gathered once, at the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from utnet.config import Config
from utnet.data.source import BadSample, Source
from utnet.distributed import ProcessInfo, process_info
from utnet.errors import InputError
from utnet.evaluation.crops import Crop, CropBatch, CropDataset, crop_batches, stack_params, with_depth
from utnet.evaluation.placing import PlacedHands, benchmark_tips, check_benchmark_tips, forward, place
from utnet.evaluation.protocol import GROUND_TRUTH, Protocol
from utnet.evaluation.rows import ALIGNMENTS, Row, joint_metrics, mesh_metrics, no_mesh
from utnet.metrics import pve_mm, sample_scores
from utnet.model import UTNet

Boxes = Mapping[str, Mapping[str, np.ndarray]]
"""Boxes of detectors by sample key, by the name in `Protocol.boxes`."""


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
    config: Config,
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
        config: crop, size and loader settings.
        protocols: one per row; those with the same boxes share one pass over the data.
        boxes: boxes for `Protocol.boxes` other than "ground-truth".
        allow_missing: skip samples that cannot be read, have no 3D label, no detected box or, with depth, no depth
            image. Their number is reported in every row.
        world: the processes (default: the current process group). All of them get the result.
        progress: show a progress bar.

    Raises:
        InputError: a sample is missing or lacks required depth, or a setting does not fit this network.
    """
    world = world or process_info()
    for protocol in protocols:
        if protocol.joints == "benchmark":
            check_benchmark_tips(model.hand, source.tips)
    rows: dict[Protocol, Row] = {}
    truth: dict[Protocol, np.ndarray] = {}
    was_training = model.training
    model.eval()
    try:
        for name in dict.fromkeys(protocol.boxes for protocol in protocols):
            wanted = [protocol for protocol in protocols if protocol.boxes == name]
            crops = CropDataset(source, config, None if name == GROUND_TRUTH else (boxes or {})[name])
            found = _one_pass(model, source, crops, config, wanted, world, progress)
            for protocol in wanted:
                rows[protocol], truth[protocol] = _row(protocol, found[protocol], len(source), allow_missing)
    finally:
        model.train(was_training)
    return ScoredRun([rows[protocol] for protocol in protocols], truth[protocols[0]])


@dataclass
class _RowParts:
    """Parts of a row, of one process or of all: lists of per-batch arrays by name."""

    facts: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    scores: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    missing: dict[int, BadSample] = field(default_factory=dict)

    def add(self, other: _RowParts) -> None:
        self.missing.update(other.missing)
        _add(self.facts, other.facts)
        _add(self.scores, other.scores)


def _one_pass(
    model: UTNet,
    source: Source,
    crops: CropDataset,
    config: Config,
    protocols: list[Protocol],
    world: ProcessInfo,
    progress: bool,
) -> dict[Protocol, _RowParts]:
    own = {protocol: _RowParts() for protocol in protocols}
    size = config.train.batch_size * world.size
    shown = None if progress and world.is_main else True
    with tqdm(total=-(-len(crops) // size), desc="score", disable=shown, leave=False) as bar:
        for part in crop_batches(crops, config, rank=world.rank, world_size=world.size):
            _score_part(model, source, part, own)
            bar.update()
    merged = {protocol: _RowParts() for protocol in protocols}
    for parts in world.gather(own):
        for protocol in protocols:
            merged[protocol].add(parts[protocol])
    return merged


def _facts(crops: list[Crop]) -> dict[str, np.ndarray]:
    """Facts about the samples that do not depend on the prediction."""
    return {
        "index": np.array([crop.index for crop in crops]),
        "keys": np.array([crop.sample.key for crop in crops]),
        "sequences": np.array([crop.sample.sequence for crop in crops]),
        "sides": np.array([crop.side for crop in crops]),
        "visibility": np.stack([crop.visibility for crop in crops]),
        "label_conf": np.stack([crop.sample.joints_3d_conf for crop in crops]),
        "gt_m": np.stack([crop.sample.joints_cam_m for crop in crops]).astype(np.float64),
    }


def _score_part(model: UTNet, source: Source, batch: CropBatch, found: dict[Protocol, _RowParts]) -> None:
    """Runs the network once per input (RGB, RGB-D) and scores it under every protocol with that input."""
    for use_depth in dict.fromkeys(protocol.depth for protocol in found):
        part = with_depth(batch) if use_depth else batch
        rows = {protocol: row for protocol, row in found.items() if protocol.depth == use_depth}
        for row in rows.values():
            row.missing.update(part.missing)
        if not part.crops:
            continue
        truth = _meshes(model, part.crops)
        placed = place(forward(model, part, use_depth=use_depth), part, model.hand, use_depth=use_depth)
        for protocol, row in rows.items():
            joints = placed.joints_m
            if protocol.joints == "benchmark":
                sides = [crop.side for crop in part.crops]
                joints = benchmark_tips(joints, placed.vertices_m, source.tips, sides)
            _append(row.facts, _facts(part.crops))
            _append(row.scores, _numbers(joints, placed, part.crops, truth))


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


def _append(lists: dict[str, list], arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        lists[name].append(array)


def _add(lists: dict[str, list], others: dict[str, list]) -> None:
    for name, arrays in others.items():
        lists[name] += arrays


def _row(protocol: Protocol, found: _RowParts, num: int, allow_missing: bool) -> tuple[Row, np.ndarray]:
    """The row in the order of the source, and its ground-truth joints."""
    missing = [found.missing[index] for index in sorted(found.missing)]
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing)} of {num} samples cannot be scored, the first: {missing[0].message}; a mean over a part is "
            "not reported (use --allow-missing to skip them)"
        )
    if not found.facts:
        raise InputError(f"none of {num} samples can be scored, the first: {missing[0].message}")
    facts = {name: np.concatenate(arrays) for name, arrays in found.facts.items()}
    index = facts.pop("index")
    if len(index) + len(missing) != num:
        raise InputError(f"{len(index)} of {num} samples were scored; a mean over a part is not reported")
    order = np.argsort(index, kind="stable")
    facts = {name: array[order] for name, array in facts.items()}
    arrays = {name: np.concatenate(values)[order] for name, values in found.scores.items()}
    gt_m = facts.pop("gt_m")
    expected, errors = arrays.pop("expected_mm"), {name: arrays.pop(name) for name in ALIGNMENTS}
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
