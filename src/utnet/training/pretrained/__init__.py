"""Pretrained weights of other projects: encoders of ViTPose, DINOv2 and MAE, and EfficientNet-Lite0's stem.

Only names and shapes of the files are used, no code of the projects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from utnet.errors import InputError
from utnet.model import UTNet
from utnet.model.lite_stem import LiteStem
from utnet.model.stems import PatchStem
from utnet.training.pretrained.lite0 import KIND as LITE0
from utnet.training.pretrained.lite0 import load_lite0, packaged_lite0
from utnet.training.pretrained.vit import LAYOUTS, entry_names, load_vit, native_grid
from utnet.training.pretrained.weight_files import Report, listed, read

__all__ = ["LAYOUTS", "Report", "backbone_parameters", "entry_names", "load_backbone", "native_grid"]


def load_backbone(model: UTNet, path: str | Path, *, kind: str = "auto") -> Report:
    """Loads another project's weights into the network, in place; on an error the network is unchanged.

    Args:
        model: a network with a patch stem of the file's width, blocks, heads and patch size (`pos_embed` may have
            another grid), or with `model.stem: lite0`.
        path: a file of torch (read with `weights_only=True`) or safetensors: ViTPose's (a `state_dict` with
            `backbone.*`), DINOv2's (bare, or a `teacher` with `backbone.*`; blocks in chunks or not), MAE's (`model`),
            EfficientNet-Lite0's (the PyTorch port's; the path "lite0": from the extra "features").
        kind: a key of `LAYOUTS`, "lite0", or "auto": detected by the entries.

    Returns:
        Entries loaded, left out and not found.

    Raises:
        InputError: not a readable file, or one that does not fit, with all differences.
    """
    where, state = read(packaged_lite0() if str(path) == LITE0 else Path(path))
    kind = _kind_of(state, kind, where)
    return load_lite0(model, state, where) if kind == LITE0 else load_vit(model, state, where, kind)


def backbone_parameters(model: UTNet) -> dict[str, int]:
    """The parameters that `load_backbone` can fill, by name, with the block of each: -1 before the first block, the
    number of blocks after the last. Empty for a network without pretrained parts."""
    starts: tuple[str, ...] = ()
    if isinstance(model.stem, LiteStem):
        starts = ("stem.first.", "stem.blocks.")
    elif isinstance(model.stem, PatchStem):
        starts = ("pos_embed", "stem.patches.", "encoder.")
    names = [name for name, _ in model.named_parameters() if name.startswith(starts)]
    blocks = {name: int(match[1]) for name in names if (match := re.search(r"\.blocks\.(\d+)\.", name))}
    last = max(blocks.values(), default=-1) + 1
    return {name: blocks.get(name, last if name.startswith("encoder.norm.") else -1) for name in names}


def _kind_of(state: Mapping[str, Tensor], kind: str, where: str) -> str:
    if kind != "auto" and kind not in (*LAYOUTS, LITE0):
        raise InputError(f"{where}: kind {kind!r} is not known; choose auto, {', '.join((*LAYOUTS, LITE0))}")
    if any(".mlp.w12." in name for name in state):
        raise InputError(f"{where}: its blocks have SwiGLU layers (DINOv2's giant), UTNet's have none; use S, B or L")
    if kind != "auto":
        return kind
    names = {name.removeprefix("backbone.") for name in state}
    if "_conv_stem.weight" in names:
        return LITE0
    if "last_norm.weight" in names:
        return "vitpose"
    if any(name.endswith("ls1.gamma") for name in names):
        return "dinov2"
    if {"norm.weight", "patch_embed.proj.weight"} <= names:
        return "mae"
    raise InputError(
        f"{where}: not the entries of ViTPose, DINOv2, MAE or EfficientNet-Lite0; it contains "
        f"{listed(sorted(state))}. WiLoR's and HaMeR's checkpoints are read by utnet import"
    )
