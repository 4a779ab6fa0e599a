"""Small training runs, started, read and compared."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from utnet.config import Config, DataConfig, ModelConfig, TrainConfig

CONFIG = Config(
    val=DataConfig(limit=8),
    model=ModelConfig(size_px=64),
    train=TrainConfig(
        steps=12,
        batch_size=4,
        accumulate=2,
        lr=1e-3,
        warmup_steps=5,
        ema=0.9,
        num_workers=0,
        num_threads=1,
        log_every=2,
        eval_every=5,
        save_every=3,
        pictures=2,
    ),
)


WEIGHTS, TRAINING = "weights.safetensors", "training.safetensors"


def with_train(config: Config, **changes) -> Config:
    return replace(config, train=replace(config.train, **changes))


def rows(workdir: Path) -> list[tuple[str, ...]]:
    """All but what clocks say."""
    with (workdir / "metrics.csv").open() as file:
        found = [(r["step"], r["split"], r["name"], r["value"]) for r in csv.DictReader(file)]
    return [row for row in found if row[2] != "samples_per_s"]


def assert_same(workdir: Path, undisturbed: Path) -> None:
    for name in (f"last/{WEIGHTS}", f"last/{TRAINING}", f"best/{WEIGHTS}"):
        ours, theirs = load_file(workdir / name), load_file(undisturbed / name)
        assert set(ours) == set(theirs)
        different = [entry for entry in ours if not torch.equal(ours[entry], theirs[entry])]
        assert not different, (name, different[:5])
    assert rows(workdir) == rows(undisturbed)
