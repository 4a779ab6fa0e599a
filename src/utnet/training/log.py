"""Log of a run: metrics.csv, TensorBoard's curves and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from utnet.config import CropConfig, TrainConfig
from utnet.data.collate import collate
from utnet.data.source import Source, evenly_spaced
from utnet.data.sources import counted
from utnet.data.transforms import right_crop
from utnet.distributed import reshard
from utnet.geometry import crop_to_px
from utnet.io.atomic import atomic_write
from utnet.model import UTNet
from utnet.render.drawing import contact_sheet, draw_joints, draw_skeleton, label
from utnet.training.state import Progress

_SHOWN = ("loss_2d", "loss_3d_joint")
"""Loss terms shown in the progress bar."""

HEADER = ["step", "seconds", "split", "name", "value"]
_TILE_PX = 160
_NAMED = 5
"""Number of unreadable samples listed on the terminal."""


class RunLog:
    """TensorBoard events, and metrics.csv with one row (step, seconds, split, name, value) per number.

    Args:
        workdir: the run's folder.
        after: step from which the run is resumed; rows of later steps are dropped. 0: a new run.
        scored: the same for validation.
        active: False writes nothing (all processes but the first).
    """

    def __init__(self, workdir: Path, *, after: int = 0, scored: int = 0, active: bool = True):
        self._active = active
        if not active:
            return
        path = workdir / "metrics.csv"
        atomic_write(path, _rows_up_to(path, after, scored))
        self._file = path.open("a", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._board = SummaryWriter(workdir, purge_step=after + 1 if after else None)

    def write(self, split: str, step: int, seconds: float, row: dict[str, float]) -> None:
        if not self._active:
            return
        for name, value in row.items():
            self._rows.writerow([step, f"{seconds:.2f}", split, name, f"{value:.6g}"])
            self._board.add_scalar(f"{split}/{name}", value, step)
        self._file.flush()

    def picture(self, name: str, step: int, rgb: np.ndarray) -> None:
        if self._active:
            self._board.add_image(name, rgb, step, dataformats="HWC")

    def close(self) -> None:
        if self._active:
            self._file.close()
            self._board.close()


def skipped_lines(bad: dict[str, str]) -> Iterator[str]:
    """Lines on unreadable training samples: their number and the first messages."""
    if bad:
        yield f"skipped {counted(len(bad), 'sample')} that cannot be read (run.json names all of them):"
        yield from (f"    {message}" for message in list(bad.values())[:_NAMED])


def _rows_up_to(path: Path, step: int, scored: int) -> str:
    """The file's complete rows up to a step, those of validation up to `scored`, or a new file's header."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(HEADER)
    if step and path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            old = [row for row in csv.reader(file) if len(row) == len(HEADER) and row[0].isdigit()]
        rows.writerows(row for row in old if int(row[0]) <= (scored if row[2] == "val" else step))
    return text.getvalue()


def prediction_pictures(
    model: UTNet, source: Source, crop: CropConfig, *, num: int, inputs: tuple[str, ...]
) -> np.ndarray:
    """Draws samples evenly spaced over a source, one per row: labelled, then predicted joints.

    Args:
        model: the network; its mode is restored.
        source: samples.
        crop: how crops are cut.
        num: number of samples.
        inputs: "rgb" hides the depth, "rgbd" uses it.
    """
    size_px = model.config.size_px
    batch = collate([right_crop(source[int(i)], size_px, crop) for i in evenly_spaced(len(source), num)])
    was_training = model.training
    model.eval()
    with torch.no_grad():
        on_device = batch.to(next(model.parameters()).device)
        outs = {
            name: model.forward_batch(on_device, use_depth=name == "rgbd", with_vertices=False).joints_crop.cpu()
            for name in inputs
        }
    model.train(was_training)
    reshard(model)
    size = max(size_px, _TILE_PX)
    tiles = []
    for i, key in enumerate(batch.keys):
        picture = cv2.resize(batch.rgb[i].permute(1, 2, 0).numpy(), (size, size))
        truth = crop_to_px(batch.joints_2d[i, :, :2].numpy(), size)
        tiles.append(label(draw_joints(picture, truth, batch.joints_2d[i, :, 2].numpy()), f"truth {key[-14:]}"))
        for name, joints in outs.items():
            points = crop_to_px(joints[i].double().numpy(), size)
            ok = np.isfinite(points).all()
            drawn = draw_skeleton(picture, points) if ok else picture
            tiles.append(label(drawn, name if ok else f"{name}: NaN or inf"))
    return contact_sheet(tiles, 1 + len(inputs))


def progress_values(step: int, losses: dict[str, float], speed: float) -> dict[str, str]:
    """Values of the progress bar.

    Args:
        step: number of completed steps.
        losses: loss terms per sample.
        speed: samples per second.
    """
    shown = {"step": str(step), "loss": f"{losses['total_loss']:.4f}"}
    shown |= {name.removeprefix("loss_"): f"{losses[name]:.3f}" for name in _SHOWN if name in losses}
    return {**shown, "samples/s": f"{speed:.0f}"}


def resume_message(done: Progress, train: TrainConfig) -> str:
    """A line with the progress of a resumed run."""
    used = f"step {done.step} of {train.steps}, {done.seconds / 60:.1f} minutes"
    used += f" of {train.minutes:g}" if train.minutes else ""
    if done.share < 1:
        return f"resuming at {used}"
    return f"nothing left to do at {used}; make it longer by --set train.steps=N or train.minutes=N"
