"""Validation scores of a network for RGB and RGB-D input, with those of the best constant hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utnet.config import Config
from utnet.data.loader import make_loader
from utnet.data.source import Source, evenly_spaced, read_sample
from utnet.distributed import is_sharded, process_info, reshard
from utnet.errors import InputError
from utnet.geometry import align_similarity
from utnet.metrics import joint_errors_mm, mpjpe_mm, pa_mpjpe_mm, root_relative, summary
from utnet.model import UTNet
from utnet.types import Batch, Sample

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
    model: UTNet, source: Source, config: Config, *, inputs: tuple[str, ...] = INPUTS, progress: bool = False
) -> dict:
    """Scores `model` on all samples of `source` with 3D labels, for "rgbd" on those that also have depth.

    Crops are made from labelled boxes.

    Args:
        model: the network; its training mode is restored.
        source: samples.
        config: crop, size and loader settings.
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
    joints = predict_joints(model, source, config, inputs=inputs, progress=progress)
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


def is_labelled(sample: Sample) -> bool:
    """Whether all joints have a 3D label."""
    return bool((sample.joints_3d_conf > 0).all() and np.isfinite(sample.joints_cam_m).all())


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
    model: UTNet, source: Source, config: Config, *, inputs: tuple[str, ...] = INPUTS, progress: bool = False
) -> dict[str, Joints]:
    """Predicts the joints of all samples that can be scored (`evaluate`), by input, in the order of the source.

    The data are read once. Batches are distributed over the processes and are the same for any number of them, so
    results are bit-equal; all processes get all results.
    """
    world = process_info()
    device = next(model.parameters()).device
    size, num = config.train.batch_size, len(source)
    starts = range(world.rank * size, num, world.size * size)
    share = _SourceSubset(source, [i for start in starts for i in range(start, min(start + size, num))])
    loader = make_loader(share, config, train=False)
    was_training = model.training
    model.eval()
    pred: dict[str, list[Tensor]] = {name: [] for name in inputs}
    gt: list[Tensor] = []
    usable: dict[str, list[Tensor]] = {name: [] for name in inputs}
    keys: list[str] = []
    batch = None
    with torch.no_grad():
        for batch in tqdm(loader, total=len(loader), desc="score", disable=None if progress else True, leave=False):
            labelled = (batch.joints_3d[..., 3] > 0).all(1)
            for name in inputs:
                usable[name].append(labelled & batch.depth_ok if name == "rgbd" else labelled)
            gt.append(batch.joints_3d[..., :3].double())
            keys.extend(batch.keys)
            for name, joints in _forward(model, batch, inputs, device).items():
                pred[name].append(joints)
        if any(map(is_sharded, model.parameters())):  # sharded networks need equally many passes per process
            spare = batch or next(iter(make_loader(_SourceSubset(source, [0]), config, train=False)))
            for _ in range(-(-num // (world.size * size)) - len(loader)):
                _forward(model, spare, inputs, device)
    model.train(was_training)
    reshard(model)
    return _in_order(world.gather((share.indices, keys, gt, usable, pred)), num, inputs)


def _forward(model: UTNet, batch: Batch, inputs: tuple[str, ...], device: torch.device) -> dict[str, Tensor]:
    """(B, 21, 3) float64 joints on the CPU for each of `inputs`."""
    batch = batch.to(device)
    return {
        name: model.forward_batch(batch, use_depth=name == "rgbd", with_vertices=False).joints_m.double().cpu()
        for name in inputs
    }


def _in_order(parts: list[tuple], num: int, inputs: tuple[str, ...]) -> dict[str, Joints]:
    """Merges the results of all processes: samples with a score for each input, in the order of the source."""
    indices = [index for part in parts for index in part[0]]
    keys = [key for part in parts for key in part[1]]
    if len(keys) != len(indices) or sorted(indices) != list(range(num)):
        raise InputError(f"{len(keys)} of {num} samples were read; a mean over a part is not reported")
    order = torch.tensor(indices).argsort()
    gt = torch.cat([batch for part in parts for batch in part[2]])[order]
    result = {}
    for name in inputs:
        usable = torch.cat([batch for part in parts for batch in part[3][name]])[order]
        if not usable.any():
            lacking = "a depth image and joints labelled in 3D" if name == "rgbd" else "joints labelled in 3D"
            raise InputError(f"{keys[order[0]]}: none of {num} samples has {lacking}; nothing can be scored ({name})")
        joints = torch.cat([batch for part in parts for batch in part[4][name]])[order][usable]
        kept = tuple(keys[i] for i in order[usable].tolist())
        broken = ~joints.isfinite().flatten(1).all(1)
        if broken.any():
            raise FloatingPointError(
                f"{kept[int(broken.int().argmax())]}: the predicted joints are NaN or inf ({name}), in "
                f"{int(broken.sum())} of {len(kept)} samples"
            )
        result[name] = Joints(joints, gt[usable], kept)
    return result


class _SourceSubset:
    """A subset of a source."""

    def __init__(self, source: Source, indices: list[int]):
        self._source, self.indices = source, indices
        self.name, self.tips, self.counts = source.name, source.tips, source.counts

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self._source[self.indices[index]]

    def key(self, index: int) -> str:
        return self._source.key(self.indices[index])

    def sequence(self, index: int) -> str:
        return self._source.sequence(self.indices[index])
