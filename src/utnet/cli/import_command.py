"""`utnet import wilor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from utnet.cli.options import Number
from utnet.errors import InputError


def import_wilor(file: Annotated[Path, tyro.conf.Positional], out: Path, num_heads: Number = None) -> None:
    """Writes WiLoR's published weights as a checkpoint with equal outputs, ready for RGB-D fine-tuning.

    The file holds MANO's arrays: what is made of it stays under MANO's licence.

    Args:
        file: wilor_final.ckpt.
        out: a new folder.
        num_heads: attention heads (default: 16 for ViT-H).
    """
    from utnet.checkpoint import import_wilor as read
    from utnet.checkpoint import save_checkpoint
    from utnet.config import Config, CropConfig

    if out.exists():
        raise InputError(f"{out}: exists already; give a new folder")
    model = read(file, num_heads)
    crop = CropConfig(expand=2.0, aspect=model.width_px / model.config.size_px)  # WiLoR's square round a box
    save_checkpoint(out, model, Config(model=model.config, crop=crop), imported_from=str(file))
    print(f"{out}: preset {model.config.preset}, {sum(p.numel() for p in model.parameters()):,} parameters")
