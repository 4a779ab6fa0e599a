"""WiLoR's published weights as a UTNet of preset `h` (Potamias et al. 2025), with equal outputs.

Only the names and shapes of its state dict are known here; no code of it is used. Differences of layout that are folded
in: WiLoR adds its class token's position embedding to that of every patch, its mean pose is one row of 96 numbers, and
its joints come from a regressor over the vertices. What UTNet has beside it (the depth path's last layer, the
placeholder, the embedding of each hand token, the root's residual) is zero, so it has no effect on the outputs until it
is trained.
"""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

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

_ASPECT = 4 / 3  # WiLoR looks at 256 x 192 of 256 x 256

_NAMES = {
    "backbone.pos_embed": "pos_embed",
    "backbone.init_cam": "hand_tokens.mean_cam",
    "backbone.init_hand_pose": "hand_tokens.mean_pose",
    "backbone.init_betas": "hand_tokens.mean_betas",
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in {
            "backbone.patch_embed.proj": "stem.patches",
            "backbone.pose_emb": "hand_tokens.embed_pose",
            "backbone.shape_emb": "hand_tokens.embed_betas",
            "backbone.cam_emb": "hand_tokens.embed_cam",
            "backbone.decpose": "coarse_head.pose",
            "backbone.decshape": "coarse_head.betas",
            "backbone.deccam": "coarse_head.cam",
            "backbone.last_norm": "encoder.norm",
            "refine_net.deconv.first_conv.0": "upsampler.first",
            "refine_net.dec_pose": "refiner.pose",
            "refine_net.dec_shape": "refiner.betas",
            "refine_net.dec_cam": "refiner.cam",
        }.items()
        for kind in ("weight", "bias")
    },
    **{
        f"refine_net.deconv.deconv.{theirs}.{kind}": f"upsampler.{ours}.{kind}"
        for theirs, ours, kinds in (
            ("0.0", "twice.0", ("weight",)),
            ("0.1", "twice.1", ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
            ("1.0", "four_times.0", ("weight",)),
            ("1.1", "four_times.1", ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
            ("1.3", "four_times.3", ("weight",)),
            ("1.4", "four_times.4", ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        )
        for kind in kinds
    },
}
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
_HAND = ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights", "faces_tensor", "extra_joints_idxs")
_HAND_CHECKED = {"parents": MANO_PARENTS, "joint_map": MANO21_TO_OPENPOSE}
_UNUSED = (
    "initialized",
    "mano.hand_components",
    "mano.hand_mean",
    "mano.pose_mean",
    "mano.vertex_joint_selector.extra_joints_idxs",
)
"""Entries without an effect on the outputs (WiLoR's rotations have no mean pose added); they may be there or not."""
_OWN = ("hand_tokens.embed_slot", "stem.placeholder", "stem.embed_depth.0", "stem.embed_depth.2", "root_head")
"""What UTNet has beside WiLoR; all zero but the depth path's first layer."""


_MAX_LISTED = 20


def import_wilor(source: str | Path | Mapping, num_heads: int | None = None) -> UTNet:
    """WiLoR's network with its weights and its hand, in eval mode; its depth path starts without effect.

    The size is read off the weights. `discriminator.*` entries are dropped with a UserWarning that counts them. The
    hand's arrays (`mano.*`) become the network's hand model; they are MANO's, so what is made of the file stays under
    MANO's licence.

    Args:
        source: the published checkpoint (a Lightning file, read with `weights_only=True`) or a state dict (tensors or
            numpy arrays by name).
        num_heads: attention heads, which no shape tells; default 16 for ViT-H's width of 1280.

    Returns:
        UTNet whose outputs equal WiLoR's: `cam`, `cam_t`, `global_orient`, `hand_pose`, `betas`, `joints_m`,
        `vertices_m`, `joints_crop` are its pred_cam, pred_cam_t, ..., pred_keypoints_3d, pred_vertices and
        pred_keypoints_2d for crops of `config.size_px`. Its `config` describes it, so `save_checkpoint` can write it.

    Raises:
        InputError: not a readable file, entries that are missing, unknown or of the wrong shape (all of them listed),
            values that are not finite, or a width whose number of heads cannot be told.
    """
    where, state = _read(source)
    state, hand = _sorted_entries(state, where)
    model = UTNet(_config_of(state, num_heads, where), hand)
    expected = model.state_dict()
    for name in _OWN:
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


def _read(source: str | Path | Mapping) -> tuple[str, dict[str, Tensor]]:
    """What to call the source in messages, and its state dict as tensors."""
    if isinstance(source, Mapping):
        where, tree = "state dict", source
    else:
        path = Path(source)
        where = str(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; give WiLoR's checkpoint (its authors publish wilor_final.ckpt)")
        try:
            # The run's settings beside the weights are a yacs node: a dict, here read as one, without yacs.
            with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
                tree = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # a damaged or hostile pickle may raise anything
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            reason = next((line for line in lines if "Unsupported" in line), lines[0])
            raise InputError(
                f"{path}: cannot be read as a checkpoint without running it ({reason.strip().split('. ')[0]})"
            ) from error
        if isinstance(tree, Mapping) and "state_dict" in tree:
            tree = tree["state_dict"]
    if not isinstance(tree, Mapping):
        raise InputError(f"{where}: holds a {type(tree).__name__}, not a state dict")
    odd = [str(name) for name, value in tree.items() if not isinstance(value, Tensor | np.ndarray)]
    if odd:
        raise InputError(f"{where}: these entries are not arrays: {_listed(odd)}")
    return where, {str(name): torch.as_tensor(value) for name, value in tree.items()}


def _sorted_entries(state: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], HandModel]:
    """Every entry under UTNet's name, and the hand; or InputError with the entries that are missing or unknown."""
    dropped = [name for name in state if name.startswith("discriminator.")]
    found = [re.fullmatch(r"backbone\.blocks\.(\d{1,3})\..*", name) for name in state]
    # Never more blocks than entries: a name may say any number.
    depth = min(1 + max((int(match[1]) for match in found if match), default=0), max(1, len(state)))
    names = entry_names(depth)
    wanted = {*names, *(f"mano.{name}" for name in (*_HAND, *_HAND_CHECKED))}
    odd = {"missing": sorted(wanted - state.keys())}
    odd["unknown"] = sorted(state.keys() - wanted - set(_UNUSED) - set(dropped))
    if any(odd.values()):
        parts = [f"{len(listed)} {kind}: {_listed(listed)}" for kind, listed in odd.items() if listed]
        raise InputError(f"{where}: these are not the entries of a WiLoR checkpoint; {'; '.join(parts)}")
    broken = [name for name in wanted if not state[name].isfinite().all()]
    if broken:
        raise InputError(f"{where}: NaN or inf in {', '.join(sorted(broken))}; the file is damaged")
    if dropped:
        warnings.warn(
            f"{where}: {len(dropped)} discriminator.* entries dropped (used in WiLoR's training only)", stacklevel=3
        )
    for name, num_axes in (("backbone.pos_embed", 3), ("backbone.patch_embed.proj.weight", 4)):
        if state[name].ndim != num_axes:
            raise InputError(f"{where}: {name} has shape {tuple(state[name].shape)}, expected {num_axes} axes")
    ours = {name: state[theirs] for theirs, name in names.items()}
    ours["pos_embed"] = ours["pos_embed"][:, 1:] + ours["pos_embed"][:, :1]
    for name, shape in (("mean_pose", (NUM_MANO_JOINTS, 6)), ("mean_betas", (NUM_BETAS,)), ("mean_cam", (3,))):
        row = ours[f"hand_tokens.{name}"]
        ours[f"hand_tokens.{name}"] = row.reshape(shape) if row.numel() == math.prod(shape) else row
    return ours, _hand_of(state, where)


def _listed(names: Sequence[str]) -> str:
    """The first names of many, each no longer than a line."""
    return ", ".join(name[:80] for name in names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")


def entry_names(depth: int) -> dict[str, str]:
    """WiLoR's name -> UTNet's, of every entry of a network of `depth` blocks; its hand's (`mano.*`) are not in it."""
    return _NAMES | {
        f"backbone.blocks.{i}.{theirs}": f"encoder.blocks.{i}.{ours}"
        for i in range(depth)
        for theirs, ours in _BLOCK_NAMES.items()
    }


def _config_of(state: dict[str, Tensor], num_heads: int | None, where: str) -> ModelConfig:
    """The network that the shapes describe; a number is stated only where preset `h` has another."""
    preset = get_preset("h")
    dim, _, patch_px, _ = state["stem.patches.weight"].shape
    depth = len({name.split(".")[2] for name in state if name.startswith("encoder.blocks.")})
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
            preset="h",
            size_px=rows * patch_px,
            dim=unless_preset("dim", dim),
            depth=unless_preset("depth", depth),
            num_heads=unless_preset("num_heads", num_heads),
            patch_px=unless_preset("patch_px", patch_px),
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
