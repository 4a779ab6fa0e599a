"""The last step of a run with `model.uncertainty`: expected errors are calibrated on held-out samples.

Errors on training data are smaller than on unseen pictures, so the trained head is overconfident. Only the level of
each joint and the shape of the distribution are fitted, for every kind of input (with and without depth, with and
without prompts): some ninety numbers, on the validation samples.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import CropConfig, PromptConfig, TrainConfig
from utnet.conventions import MM_PER_M
from utnet.data.crop_datasets import CropMaker
from utnet.data.loader import make_loader
from utnet.data.prompts_and_masks import PromptsAndMasks
from utnet.data.source import Source
from utnet.model import UTNet
from utnet.model.heads import PACE, ScaleHead
from utnet.training.state import read_run_metadata
from utnet.uncertainty import error_nll

_STEPS, _LR = 300, 0.001


def calibrate(model: UTNet, source: Source, crop: CropConfig, prompts: PromptConfig, loading: TrainConfig) -> None:
    """Fits the levels and shapes of `model.scale_head` in place; all other parameters are unchanged.

    Args:
        model: with `model.uncertainty`, in eval mode.
        source: held-out samples; those with all joints labelled in 3D are used.
        crop: how crops are cut.
        prompts: how prompts are drawn, for a network with them.
        loading: batch size and workers.
    """
    head = model.scale_head
    if head is None:
        raise ValueError("the network has no model.uncertainty to calibrate")
    inputs, errors = _collect(model, source, crop, prompts, loading)
    if not len(errors):
        return
    _match_means(head, inputs, errors)  # a good start: far from it, the likelihood would distort the shape
    free = [head.level, head.log_shape]
    optimizer = torch.optim.Adam(free, lr=_LR)
    with torch.enable_grad():
        for step in range(_STEPS):
            for group in optimizer.param_groups:
                group["lr"] = _LR * (1 - step / _STEPS)
            scale, shape = head(*inputs)
            loss = error_nll(errors, scale[:, 1:], shape[:, None]).mean()
            for parameter, gradient in zip(free, torch.autograd.grad(loss, free), strict=True):
                parameter.grad = gradient
            optimizer.step()
    for parameter in free:
        parameter.grad = None


def calibrate_best(folder: Path, source: Source, device: torch.device) -> None:
    """Calibrates the checkpoint in a run's best/, which is replaced."""
    model, config = load_checkpoint(folder, device=str(device))
    calibrate(model, source, config.crop, config.prompts, config.train)
    info = read_run_metadata(folder)
    save_checkpoint(folder, model, config, step=info["step"], metrics=info["metrics"], calibrated=True)


@torch.no_grad()
def _match_means(head: ScaleHead, inputs: list[Tensor], errors: Tensor) -> None:
    """Scales each joint's expected error to the true mean, for every kind of input."""
    scale, _ = head(*inputs)
    kind = inputs[2].long() + 2 * inputs[3].long()
    for each in kind.unique().tolist():
        rows = kind == each
        head.level[each, 1:] += (errors[rows].mean(0) / scale[rows, 1:].mean(0)).log() / PACE


@torch.no_grad()
def _collect(
    model: UTNet, source: Source, crop: CropConfig, prompts: PromptConfig, loading: TrainConfig
) -> tuple[list[Tensor], Tensor]:
    """The head's inputs for every sample and kind of input, and the true errors (N, 20) in mm."""
    noise = PromptsAndMasks.of(model.config, replace(prompts, drop_p=0.0)).prompts
    crops = CropMaker(model.config.size_px, crop, extras=PromptsAndMasks(noise))
    device = next(model.parameters()).device
    seen: list[tuple[Tensor, ...]] = []
    errors: list[Tensor] = []
    hook = model.scale_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))  # type: ignore[union-attr]
    try:
        for batch in make_loader(source, crops, loading, endless=False):
            batch = batch.to(device)
            ok = (batch.joints_3d[..., 3] > 0).all(1)
            gt = batch.joints_3d[..., :3]
            for use_depth in (False, True):
                for use_landmarks in (False, True) if noise is not None else (False,):
                    out = model.forward_batch(
                        batch, use_depth=use_depth, use_landmarks=use_landmarks, with_vertices=False
                    )
                    off = (out.joints_m - out.joints_m[:, :1]) - (gt - gt[:, :1])
                    tokens, joints, depth_ok, prompted = seen.pop()
                    prompted = torch.zeros_like(depth_ok) if prompted is None else prompted
                    seen.append(tuple(part[ok] for part in (tokens.float(), joints, depth_ok, prompted)))
                    errors.append(off[ok, 1:].norm(dim=-1) * MM_PER_M)
    finally:
        hook.remove()
    return [torch.cat(parts) for parts in zip(*seen, strict=True)], torch.cat(errors)
