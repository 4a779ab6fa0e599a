"""`utnet import hamer | wilor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from utnet.cli.options import Number
from utnet.errors import InputError

if TYPE_CHECKING:
    from utnet.model import UTNet


def import_wilor(file: Annotated[Path, tyro.conf.Positional], out: Path, num_heads: Number = None) -> None:
    """Writes WiLoR's published weights as a checkpoint with equal outputs, ready for RGB-D fine-tuning.

    The file contains MANO's arrays, so MANO's licence also applies to the checkpoint.

    Args:
        file: wilor_final.ckpt.
        out: a new folder.
        num_heads: attention heads (default: 16 for ViT-H).
    """
    from utnet.checkpoint import import_wilor

    _import(import_wilor, file, out, num_heads)


def import_hamer(file: Annotated[Path, tyro.conf.Positional], out: Path, num_heads: Number = None) -> None:
    """Writes HaMeR's published weights as a checkpoint with equal outputs, ready for RGB-D fine-tuning.

    The file contains MANO's arrays, so MANO's licence also applies to the checkpoint.

    Args:
        file: hamer.ckpt.
        out: a new folder.
        num_heads: attention heads of the ViT (default: 16 for ViT-H).
    """
    from utnet.checkpoint import import_hamer

    _import(import_hamer, file, out, num_heads)


def _import(read: Callable[[Path, int | None], UTNet], file: Path, out: Path, num_heads: int | None) -> None:
    from utnet.checkpoint import save_checkpoint
    from utnet.config import Config, CropConfig

    if out.exists():
        raise InputError(f"{out}: exists already; give a new folder")
    model = read(file, num_heads)
    # The crop of both demos, equal in every pixel.
    crop = CropConfig(expand=2.0, aspect=model.width_px / model.config.size_px, recipe="wilor")
    save_checkpoint(out, model, Config(model=model.config, crop=crop), imported_from=str(file))
    print(f"{out}: preset {model.config.preset}, {sum(p.numel() for p in model.parameters()):,} parameters")
