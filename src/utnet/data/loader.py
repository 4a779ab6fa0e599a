"""Sources -> batches: crops of right hands, the same for a seed whatever the number of workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from utnet.config import Config, CropConfig
from utnet.conventions import NUM_BETAS
from utnet.data.source import MIN_JOINT_Z_M, Source
from utnet.data.transforms import augment_colors, crop, to_right
from utnet.errors import InputError
from utnet.geometry import project, px_to_crop
from utnet.types import Batch, HandParams, Sample

_SHUFFLED = 2**24
"""Longer sources are endless ones, whose items are random already: they are read in their own order."""

_NO_PARAMS = HandParams(np.eye(3)[None], np.tile(np.eye(3), (15, 1, 1)), np.zeros(NUM_BETAS), np.zeros(3))


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be read, and why (a message that names the file)."""

    key: str
    message: str


def collate(samples: Sequence[Sample], *, hand_model: str = "open") -> Batch:
    """Square crops of right hands -> Batch.

    Args:
        samples: of one size.
        hand_model: the model that is learnt; parameters of another one are left out (`params_ok` False), joints count.
    """
    size_px = samples[0].rgb.shape[0]
    for sample in samples:
        if sample.side != "right" or sample.rgb.shape != (size_px, size_px, 3):
            raise ValueError(
                f"{sample.key}: {sample.side} hand, rgb {sample.rgb.shape}; expected right hands in square crops"
            )
    rgb = np.stack([s.rgb for s in samples]).transpose(0, 3, 1, 2)
    no_depth = np.zeros((size_px, size_px), np.float32)
    K = np.stack([s.K_px for s in samples])
    joints = np.stack([s.joints_cam_m for s in samples]).astype(np.float64)
    ahead = joints[..., 2] > MIN_JOINT_Z_M
    safe = np.where(ahead[..., None], joints, [0.0, 0.0, 1.0])  # a joint behind the camera has no image point
    conf_2d = np.stack([s.joints_2d_conf for s in samples]) * ahead
    conf_3d = np.stack([s.joints_3d_conf for s in samples])
    ok = np.array([s.params is not None and s.hand_model == hand_model for s in samples])
    params = [(s.params or _NO_PARAMS) if good else _NO_PARAMS for s, good in zip(samples, ok, strict=True)]

    def tensor(array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    return Batch(
        rgb=torch.from_numpy(np.ascontiguousarray(rgb)),
        depth_m=tensor(np.stack([no_depth if s.depth_m is None else s.depth_m for s in samples])),
        depth_ok=torch.tensor([s.depth_m is not None for s in samples]),
        K_px=tensor(K),
        joints_2d=tensor(np.concatenate([px_to_crop(project(safe, K), size_px), conf_2d[..., None]], -1)),
        joints_3d=tensor(np.concatenate([joints, conf_3d[..., None]], -1)),
        params=HandParams(
            global_orient=tensor(np.stack([p.global_orient for p in params])),
            hand_pose=tensor(np.stack([p.hand_pose for p in params])),
            betas=tensor(np.stack([p.betas for p in params])),
            transl_m=tensor(np.stack([p.transl_m for p in params])),
        ),
        params_ok=torch.from_numpy(ok),
        betas_ok=torch.from_numpy(ok & np.array([s.betas_ok for s in samples])),
        keys=tuple(s.key for s in samples),
    )


class CropDataset(Dataset):
    """Crops of a source's samples, indexed by (epoch, index) so that every draw depends on those and the seed alone.

    Args:
        source: whole images, or crops of right hands where its `is_cropped` is True.
        size_px: side of the crops.
        config: how crops are cut.
        seed: of the jitters; None gives the fixed crops of evaluation.
        augment: change colours as well.
    """

    def __init__(
        self, source: Source, size_px: int, *, config: CropConfig, seed: int | None = None, augment: bool = False
    ):
        is_cropped = getattr(source, "is_cropped", False)
        if is_cropped and source.size_px != size_px:  # type: ignore[attr-defined]
            raise ValueError(f"the source's crops have {source.size_px} px, the model takes {size_px}")  # type: ignore[attr-defined]
        self._source, self._size_px, self._config = source, size_px, config
        self._seed, self._augment, self._is_cropped = seed, augment, is_cropped

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, item: tuple[int, int]) -> Sample | BadSample:
        epoch, index = item
        try:
            sample = self._source[index]
        except InputError as error:
            return BadSample(self._source.key(index), str(error))
        rng = None if self._seed is None else np.random.default_rng((self._seed, epoch, index))
        if not self._is_cropped:
            sample = crop(to_right(sample), self._size_px, self._config, rng)
        if self._augment and rng is not None:
            sample = replace(sample, rgb=augment_colors(sample.rgb, rng))
        return sample


class _Order(Sampler):
    """(epoch, index) pairs: once in order, or endlessly, each epoch shuffled by (seed, epoch)."""

    def __init__(self, num: int, *, endless: bool, seed: int, start: int = 0):
        self._num, self._endless, self._seed, self._start = num, endless, seed, start

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if not self._endless:
            yield from ((0, index) for index in range(self._num))
            return
        epoch, skip = divmod(self._start, self._num)
        while True:
            shuffled = self._num <= _SHUFFLED
            order = np.random.default_rng((self._seed, epoch)).permutation(self._num) if shuffled else range(self._num)
            yield from ((epoch, int(order[place])) for place in range(skip, self._num))
            epoch, skip = epoch + 1, 0


class Loader:
    """Batches of a source. Training: without end. Evaluation: every sample once, in order.

    Attributes:
        source: where the samples come from.
        bad: message of every sample that could not be read so far, by key (training skips them).
    """

    def __init__(self, source: Source, loader: DataLoader, *, train: bool, max_bad: int):
        self.source, self._loader, self._train, self._max_bad = source, loader, train, max_bad
        self.bad: dict[str, str] = {}

    def __len__(self) -> int:
        """Batches of one pass."""
        return -(-len(self.source) // self._loader.batch_size)  # type: ignore[operator]

    def __iter__(self) -> Iterator[Batch]:
        """Yields batches.

        Raises:
            InputError: evaluation: a sample that cannot be read. Training: more than `max_bad` of them, or all.
        """
        batches = iter(self._loader)
        try:
            for batch, bad in batches:
                for sample in bad:
                    self._count(sample)
                if batch is not None:
                    yield batch
        finally:
            del batches  # ends the workers now: left to the garbage collector, they are waited for, 5 s each

    def _count(self, sample: BadSample) -> None:
        if not self._train:
            raise InputError(f"{sample.message} (evaluation counts every sample of the split)")
        self.bad[sample.key] = sample.message
        if len(self.bad) > self._max_bad or len(self.bad) >= len(self.source):
            raise InputError(
                f"{len(self.bad)} of {len(self.source)} samples cannot be read (train.max_bad_samples is "
                f"{self._max_bad}); the last: {sample.message}"
            )


class _Collate:
    """Parts good samples from bad ones; a class because workers may have to pickle it."""

    def __init__(self, hand_model: str):
        self._hand_model = hand_model

    def __call__(self, items: list[Any]) -> tuple[Batch | None, list[BadSample]]:
        good = [item for item in items if isinstance(item, Sample)]
        bad = [item for item in items if isinstance(item, BadSample)]
        return (collate(good, hand_model=self._hand_model) if good else None), bad


def _init_worker(_: int) -> None:
    """One thread a worker: the workers are the threads."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def make_loader(
    source: Source,
    config: Config,
    *,
    train: bool,
    start: int = 0,
    augment: bool | None = None,
    hand_model: str = "open",
) -> Loader:
    """The loader of a run.

    Args:
        source: whole images, or crops of right hands where its `is_cropped` is True.
        config: `seed`, `crop`, `model.size_px` and `train.{batch_size, num_workers, max_bad_samples}`.
        train: endless, shuffled and jittered; otherwise every sample once, in order, in its fixed crop.
        start: samples that training has seen already (to go on where a run stopped).
        augment: change colours; by default in training, except for sources that draw their own crops.
        hand_model: the model that is learnt (see `collate`).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # workers that spin slow a small machine by up to 100 times
    if augment is None:
        augment = not getattr(source, "is_cropped", False)
    seed = config.seed if train else None
    dataset = CropDataset(source, config.model.size_px, config=config.crop, seed=seed, augment=augment)
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=config.train.batch_size,
        sampler=_Order(len(source), endless=train, seed=config.seed, start=start),
        num_workers=config.train.num_workers,
        collate_fn=_Collate(hand_model),
        worker_init_fn=_init_worker,
    )
    return Loader(source, loader, train=train, max_bad=config.train.max_bad_samples)
