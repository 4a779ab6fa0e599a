"""Shared by the importers of WiLoR's and HaMeR's published checkpoints: reading, validation, ViT-H's entries, the hand.

Only names and shapes of their state dicts are used, no code. Both contain a ViTPose backbone under `backbone.*`, whose
class token's position embedding is added to that of every patch, and a right MANO hand in smplx's layout under
`mano.*`.
"""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utnet.config import ModelConfig
from utnet.conventions import MANO21_TO_OPENPOSE, MANO_PARENTS, NUM_BETAS, NUM_MANO_JOINTS
from utnet.errors import InputError
from utnet.hand import HandModel
from utnet.hand.arrays import HandArrays
from utnet.model.presets import get_preset
from utnet.model.utnet import UTNet
from utnet.types import check_shape

_ASPECT = 4 / 3  # both use 256 x 192 of 256 x 256

BACKBONE_NAMES = {
    "backbone.pos_embed": "pos_embed",
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in {
            "backbone.patch_embed.proj": "stem.patches",
            "backbone.last_norm": "encoder.norm",
        }.items()
        for kind in ("weight", "bias")
    },
}
"""Their name -> UTNet's, for the backbone outside its blocks."""
_BLOCK_NAMES = {
    f"{theirs}.{kind}": f"{ours}.{kind}"
    for theirs, ours in {
        "norm1": "norm1",
        "norm2": "norm2",
        "attn.qkv": "attn.qkv",
        "attn.proj": "attn.proj",
        "mlp.fc1": "fc1",
        "mlp.fc2": "fc2",
    }.items()
    for kind in ("weight", "bias")
}
_MAX_LISTED = 20
_HAND = ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights", "faces_tensor", "extra_joints_idxs")
_HAND_CHECKED = {"parents": MANO_PARENTS, "joint_map": MANO21_TO_OPENPOSE}
_UNUSED = (
    "initialized",
    "mano.hand_components",
    "mano.hand_mean",
    "mano.pose_mean",
    "mano.vertex_joint_selector.extra_joints_idxs",
)
"""Optional entries without an effect on the outputs (no mean pose is added to rotations)."""
_DEPTH_PATH = ("stem.placeholder", "stem.embed_depth.0", "stem.embed_depth.2", "root_head")
"""Layers that only UTNet has: zero except the depth path's first layer."""


def block_names(num_blocks: int) -> dict[str, str]:
    """Their name -> UTNet's, for the entries of the ViT's blocks."""
    return {
        f"backbone.blocks.{i}.{theirs}": f"encoder.blocks.{i}.{ours}"
        for i in range(num_blocks)
        for theirs, ours in _BLOCK_NAMES.items()
    }


def count(state: Iterable[str], pattern: str) -> int:
    """How many numbers `pattern` finds in the names, at least 1; of a damaged file a name may hold any number."""
    return max(1, len({match[1] for name in state if (match := re.match(pattern, name))}))


def _listed(names: Sequence[str]) -> str:
    """The first names of many, each cut to 80 characters."""
    return ", ".join(name[:80] for name in names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")


def read_state(source: str | Path | Mapping, project: str) -> tuple[str, dict[str, Tensor]]:
    """Reads a checkpoint (a Lightning file, with `weights_only=True`) or takes a state dict.

    Args:
        source: a file, or tensors or numpy arrays by name.
        project: the expected project, for messages.

    Returns:
        The source's name for messages, and its state dict as tensors.

    Raises:
        InputError: no such file, a file that cannot be read without executing code, or entries that are no arrays.
    """
    if isinstance(source, Mapping):
        where, tree = "state dict", source
    else:
        path = Path(source)
        where = str(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; give the checkpoint published by {project}'s authors")
        try:
            # The run's settings beside the weights are a yacs node, read as a dict here.
            with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
                tree = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # a damaged or hostile pickle may raise anything
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            reason = next((line for line in lines if "Unsupported" in line), lines[0])
            raise InputError(
                f"{path}: cannot be read as a checkpoint without executing code ({reason.strip().split('. ')[0]})"
            ) from error
        if isinstance(tree, Mapping) and "state_dict" in tree:
            tree = tree["state_dict"]
    if not isinstance(tree, Mapping):
        raise InputError(f"{where}: contains a {type(tree).__name__}, expected a state dict")
    odd = [str(name) for name, value in tree.items() if not isinstance(value, Tensor | np.ndarray)]
    if odd:
        raise InputError(f"{where}: these entries are not arrays: {_listed(odd)}")
    return where, {str(name): torch.as_tensor(value) for name, value in tree.items()}


def select_entries(
    state: dict[str, Tensor], names: Mapping[str, str], where: str, project: str
) -> tuple[dict[str, Tensor], HandModel]:
    """Converts all entries to UTNet's names and layout of the position embedding, and builds the hand.

    Args:
        state: theirs.
        names: their name -> UTNet's, for all required entries except `mano.*`.
        where: the file, for messages.
        project: the expected project.

    Raises:
        InputError: entries that are missing, unknown, not finite or of the wrong number of axes.
    """
    dropped = [name for name in state if name.startswith("discriminator.")]
    wanted = {*names, *(f"mano.{name}" for name in (*_HAND, *_HAND_CHECKED))}
    odd = {"missing": sorted(wanted - state.keys())}
    odd["unknown"] = sorted(state.keys() - wanted - set(_UNUSED) - set(dropped))
    if any(odd.values()):
        parts = [f"{len(listed)} {kind}: {_listed(listed)}" for kind, listed in odd.items() if listed]
        raise InputError(f"{where}: not the entries of a {project} checkpoint; {'; '.join(parts)}")
    broken = [name for name in wanted if not state[name].isfinite().all()]
    if broken:
        raise InputError(f"{where}: NaN or inf in {', '.join(sorted(broken))}; the file is damaged")
    if dropped:
        warnings.warn(
            f"{where}: {len(dropped)} discriminator.* entries dropped (used in {project}'s training only)", stacklevel=4
        )
    for name, num_axes in (("backbone.pos_embed", 3), ("backbone.patch_embed.proj.weight", 4)):
        if state[name].ndim != num_axes:
            raise InputError(f"{where}: {name} has shape {tuple(state[name].shape)}, expected {num_axes} axes")
    ours = {name: state[theirs] for theirs, name in names.items()}
    ours["pos_embed"] = ours["pos_embed"][:, 1:] + ours["pos_embed"][:, :1]
    return ours, _hand_of(state, where)


def reshape_means(state: dict[str, Tensor], module: str) -> None:
    """Reshapes the mean parameters under `module`, one row each, to UTNet's shapes, in place."""
    for name, shape in (("mean_pose", (NUM_MANO_JOINTS, 6)), ("mean_betas", (NUM_BETAS,)), ("mean_cam", (3,))):
        row = state[f"{module}.{name}"]
        state[f"{module}.{name}"] = row.reshape(shape) if row.numel() == math.prod(shape) else row


def load_entries(model: UTNet, state: dict[str, Tensor], where: str, zero: tuple[str, ...] = ()) -> UTNet:
    """Loads the entries into the network, in eval mode; zeroes its depth path and entries that start with `zero`.

    Raises:
        InputError: entries of a wrong shape (all of them listed).
    """
    expected = model.state_dict()
    for name in (*zero, *_DEPTH_PATH):
        for key in (key for key in expected if key.startswith(name) and not key.startswith("stem.embed_depth.0")):
            expected[key].zero_()
        state |= {key: value for key, value in expected.items() if key.startswith(name)}
    wrong = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if state[name].shape != expected[name].shape
    ]
    if wrong:
        raise InputError(f"{where}: {len(wrong)} entries have a wrong shape (by UTNet's names): {'; '.join(wrong)}")
    model.load_state_dict(state)
    return model.eval()


def config_of(
    state: dict[str, Tensor], preset_name: str, num_heads: int | None, where: str, **settings: Any
) -> ModelConfig:
    """Derives the config from the shapes; only values that differ from the preset's are set.

    Args:
        state: entries by UTNet's names.
        preset_name: "h" or "hamer".
        num_heads: attention heads of the ViT, which the shapes do not determine; None: the preset's, at its width.
        where: the file, for messages.
        **settings: further fields of `ModelConfig`.
    """
    preset = get_preset(preset_name)
    dim, _, patch_px, _ = state["stem.patches.weight"].shape
    num_blocks = len({name.split(".")[2] for name in state if name.startswith("encoder.blocks.")})
    if num_heads is None:
        if dim != preset.dim:
            raise InputError(
                f"{where}: the number of attention heads of a network of width {dim} is not in its weights; give it "
                f"(num_heads)"
            )
        num_heads = preset.num_heads
    num_tokens = state["pos_embed"].shape[1]
    rows = math.isqrt(round(num_tokens * _ASPECT))
    if rows * round(rows / _ASPECT) != num_tokens:
        raise InputError(f"{where}: backbone.pos_embed has {num_tokens} patches, which are no 4:3 picture")

    def unless_preset(name: str, value: int) -> int | None:
        return None if value == getattr(preset, name) else value

    try:
        return ModelConfig(
            preset=preset_name,
            size_px=rows * patch_px,
            dim=unless_preset("dim", dim),
            num_blocks=unless_preset("num_blocks", num_blocks),
            num_heads=unless_preset("num_heads", num_heads),
            patch_px=unless_preset("patch_px", patch_px),
            **settings,
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _hand_of(state: dict[str, Tensor], where: str) -> HandModel:
    """The hand model from `mano.*`: smplx's layout, so posedirs are (135, 3 V)."""
    for name, expected in _HAND_CHECKED.items():
        if state[f"mano.{name}"].tolist() != list(expected):
            raise InputError(f"{where}: mano.{name} is {state[f'mano.{name}'].tolist()}, expected {list(expected)}")
    num_vertices = len(state["mano.v_template"])
    shapes = {"v_template": (num_vertices, 3), "shapedirs": (num_vertices, 3, NUM_BETAS)}
    shapes |= {"posedirs": (135, 3 * num_vertices), "J_regressor": (NUM_MANO_JOINTS, num_vertices)}
    try:
        for name, shape in shapes.items():
            check_shape(f"mano.{name}", state[f"mano.{name}"], shape)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    v_template, shapedirs, posedirs, regressor, weights, faces, tips = (
        state[f"mano.{name}"].double().numpy() for name in _HAND
    )
    arrays = HandArrays(
        v_template=v_template,
        shapedirs=shapedirs,
        J_template=regressor @ v_template,
        J_shapedirs=np.einsum("jv,vck->jck", regressor, shapedirs),
        weights=weights,
        faces=faces.astype(np.int64),
        tip_vertices=tips.astype(np.int64),
        posedirs=posedirs.T.reshape(*v_template.shape, 135),
        pose_basis=state["mano.hand_components"].numpy() if "mano.hand_components" in state else None,
    )
    return HandModel(arrays.check(where), name="mano")
