"""The optimizer, its learning rate schedule, and the progress of a run."""

from __future__ import annotations

import math

import torch

from utnet.config import TrainConfig
from utnet.model import UTNet
from utnet.training.pretrained import backbone_parameters


def make_optimizer(model: UTNet, train: TrainConfig) -> torch.optim.AdamW:
    """AdamW without decay of biases, norms and 1D embeddings. "lr_scale" of a group: factor on the learning rate."""
    backbone, groups = backbone_parameters(model), []
    for scale, of_backbone in ((1.0, False), (train.backbone_lr, True)):
        own = [p for name, p in model.named_parameters() if (name in backbone) == of_backbone and p.requires_grad]
        for decay, matrices in ((train.weight_decay, True), (0.0, False)):
            chosen = [p for p in own if (p.ndim > 1) == matrices]
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "lr_scale": scale})
    return torch.optim.AdamW(groups, lr=train.lr, betas=(0.9, 0.99), fused=True)


def progress_of(step: int, seconds: float, train: TrainConfig) -> float:
    """Completed share of the run, by steps or by time, whichever is larger."""
    by_time = seconds / (60 * train.minutes) if train.minutes else 0.0
    return max(step / train.steps, by_time)


def learning_rate(share: float, step: int, train: TrainConfig) -> float:
    """Linear warm-up by steps, and a half cosine over the completed share of the run."""
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    return train.min_lr + (train.lr - train.min_lr) * warm * 0.5 * (1 + math.cos(math.pi * share))
