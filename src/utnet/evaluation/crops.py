"""Crops of a source for evaluation, with side and joint visibility from the full picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from utnet.config import CropConfig, TrainConfig
from utnet.conventions import NUM_JOINTS
from utnet.data.collate import collate, label_fault
from utnet.data.inspection.decode import image_points
from utnet.data.inspection.measure import HIDDEN_M, depth_difference
from utnet.data.source import BadSample, Source, bad_sample, read_sample
from utnet.data.transforms import right_crop
from utnet.data.workers import init_worker, iterate, worker_context
from utnet.types import Batch, HandParams, Sample

VISIBILITY = ("visible", "hidden", "outside", "unknown")
"""Visibility of a joint: the depth agrees with its z (within `HIDDEN_M`); something is nearer to the camera; outside
the picture; unknown (no depth or no reading)."""
_VISIBLE, _HIDDEN, _OUTSIDE, _UNKNOWN = range(4)


@dataclass(frozen=True)
class Crop:
    """A sample ready for the network.

    Attributes:
        index: index in the source.
        sample: the crop, of a right hand.
        side: labelled side, before mirroring.
        visibility: (21,) uint8 indices into `VISIBILITY`, computed in the full picture.
    """

    index: int
    sample: Sample
    side: str
    visibility: np.ndarray


class NotScorable(BadSample):
    """A readable sample without the labels or the depth image that a score needs."""


@dataclass(frozen=True)
class CropBatch:
    """Consecutive samples: a batch, its crops, and missing samples by index."""

    batch: Batch | None
    crops: list[Crop]
    missing: dict[int, BadSample]


class CropDataset(Dataset):
    """Crops of a source, by index.

    Args:
        source: map-style.
        size_px: side of the crops.
        crop: how they are cut.
        boxes: boxes of a detector, by key; None uses those of the source.
        labelled: samples with a joint without 3D label count as missing.
    """

    def __init__(
        self,
        source: Source,
        size_px: int,
        crop: CropConfig,
        boxes: Mapping[str, np.ndarray] | None = None,
        *,
        labelled: bool = True,
    ):
        self._source, self._size_px, self._crop, self._boxes, self._labelled = source, size_px, crop, boxes, labelled

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Crop | tuple[int, BadSample]:
        sample = read_sample(self._source, index)
        if isinstance(sample, BadSample):
            return index, sample
        if self._labelled and not is_labelled(sample):
            return index, NotScorable(sample.key, f"{sample.key}: joints without a 3D label cannot be scored")
        if self._boxes is not None:
            if sample.is_crop:
                return index, BadSample(sample.key, f"{sample.key}: already a crop; other boxes cannot be used")
            if sample.key not in self._boxes:
                return index, BadSample(sample.key, f"{sample.key}: the detector found no hand")
            sample = replace(sample, box_px=self._boxes[sample.key])
        fault = label_fault(sample)
        if fault:
            return index, BadSample(sample.key, fault)
        try:
            cropped = right_crop(sample, self._size_px, self._crop)
            return Crop(index, _light(cropped), sample.side, visibility(sample))
        except Exception as error:
            return index, bad_sample(sample.key, error)


def is_labelled(sample: Sample) -> bool:
    """Whether all joints have a 3D label."""
    return bool((sample.joints_3d_conf > 0).all() and np.isfinite(sample.joints_cam_m).all())


def visibility(sample: Sample) -> np.ndarray:
    """(21,) uint8 indices into `VISIBILITY`."""
    points = image_points(sample)
    height, width = sample.rgb.shape[:2]
    inside = (points > -0.5).all(1) & (points[:, 0] < width - 0.5) & (points[:, 1] < height - 0.5)
    behind = depth_difference(sample, points, inside & (sample.joints_3d_conf > 0))
    out = np.full(NUM_JOINTS, _UNKNOWN, np.uint8)
    out[np.abs(np.nan_to_num(behind, nan=np.inf)) <= HIDDEN_M] = _VISIBLE
    out[np.nan_to_num(behind) < -HIDDEN_M] = _HIDDEN
    out[~inside] = _OUTSIDE
    return out


def crop_batches(
    crops: CropDataset, loading: TrainConfig, *, rank: int = 0, world_size: int = 1
) -> Iterator[CropBatch]:
    """Yields every `world_size`-th batch. Batches are equal for any number of processes, hence also predictions."""
    size = loading.batch_size
    starts = range(rank * size, len(crops), world_size * size)
    workers = min(loading.num_workers, len(starts))
    loader: DataLoader = DataLoader(
        crops,
        batch_sampler=[list(range(start, min(start + size, len(crops)))) for start in starts],
        num_workers=workers,
        collate_fn=_part,
        worker_init_fn=init_worker,
        multiprocessing_context=worker_context(workers),
        generator=torch.Generator(),  # keeps the caller's random state
    )
    yield from iterate(loader, loading.worker_timeout_s)


def _part(items: Sequence[Crop | tuple[int, BadSample]]) -> CropBatch:
    crops = [item for item in items if isinstance(item, Crop)]
    missing = dict(item for item in items if not isinstance(item, Crop))
    return CropBatch(collate([crop.sample for crop in crops]) if crops else None, crops, missing)


def with_depth(part: CropBatch) -> CropBatch:
    """Keeps the samples with a depth image; the others count as missing."""
    lacking = {
        crop.index: NotScorable(crop.sample.key, f"{crop.sample.key}: no depth image (--depth without scores RGB only)")
        for crop in part.crops
        if crop.sample.depth_m is None
    }
    if not lacking:
        return part
    kept = [crop for crop in part.crops if crop.index not in lacking]
    return CropBatch(collate([crop.sample for crop in kept]) if kept else None, kept, {**part.missing, **lacking})


def stack_params(params: Sequence[HandParams]) -> HandParams:
    """Stacks parameters of several hands to float32 tensors."""

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(p, name) for p in params]).astype(np.float32))

    return HandParams(tensor("global_orient"), tensor("hand_pose"), tensor("betas"), tensor("transl_m"))


def _light(crop: Sample) -> Sample:
    """Drops unused arrays, since workers send crops between processes."""
    return replace(crop, hand_mask=None)
