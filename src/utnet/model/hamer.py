"""HaMeR's published weights as a UTNet of preset `hamer` (Pavlakos et al. 2024), with equal outputs.

Only the names and shapes of its state dict are used, no code. Differences of layout that are converted, in addition to
those of `utnet.model.published`: the decoder's query is the embedding of the number 0, which is that layer's bias, plus
a position. The depth path's last layer, the placeholder and the root's residual are zero, so depth has no effect until
it is trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from utnet.errors import InputError
from utnet.model.decoder import DECODER_HEAD_DIM
from utnet.model.published import (
    BACKBONE_NAMES,
    block_names,
    config_of,
    count,
    load_entries,
    read_state,
    reshape_means,
    select_entries,
)
from utnet.model.utnet import UTNet

_QUERY = "mano_head.transformer."
_LAYERS = "mano_head.transformer.transformer.layers."
_NAMES = {
    **BACKBONE_NAMES,
    "mano_head.init_hand_pose": "decoder.mean_pose",
    "mano_head.init_betas": "decoder.mean_betas",
    "mano_head.init_cam": "decoder.mean_cam",
    f"{_QUERY}to_token_embedding.bias": "decoder.query",
    f"{_QUERY}to_token_embedding.weight": "embedding of 0",
    f"{_QUERY}pos_embedding": "query's position",
    **{
        f"mano_head.{theirs}.{kind}": f"coarse_head.{ours}.{kind}"
        for theirs, ours in {"decpose": "pose", "decshape": "betas", "deccam": "cam"}.items()
        for kind in ("weight", "bias")
    },
}
_LAYER_NAMES = {
    "0.fn.to_qkv.weight": "attend_self.qkv.weight",
    "1.fn.to_q.weight": "attend_image.q.weight",
    "1.fn.to_kv.weight": "attend_image.kv.weight",
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in {
            "0.norm": "attend_self.norm",
            "0.fn.to_out.0": "attend_self.proj",
            "1.norm": "attend_image.norm",
            "1.fn.to_out.0": "attend_image.proj",
            "2.norm": "norm",
            "2.fn.net.0": "fc1",
            "2.fn.net.3": "fc2",
        }.items()
        for kind in ("weight", "bias")
    },
}


def import_hamer(source: str | Path | Mapping, num_heads: int | None = None) -> UTNet:
    """HaMeR's network with its weights and its hand, in eval mode; its depth path starts without effect.

    The size is derived from the weights; the decoder's heads are 64 wide. `discriminator.*` entries are dropped with a
    UserWarning that counts them. The hand's arrays (`mano.*`) become the network's hand model; they are MANO's, so
    files made from it stay under MANO's licence.

    Args:
        source: the published checkpoint (hamer.ckpt, a Lightning file, read with `weights_only=True`) or a state dict
            (tensors or numpy arrays by name).
        num_heads: attention heads of the ViT, which the shapes do not determine; default 16 for ViT-H's width of 1280.

    Returns:
        UTNet whose outputs equal HaMeR's: `cam`, `cam_t`, `global_orient`, `hand_pose`, `betas`, `joints_m`,
        `vertices_m`, `joints_crop` are its pred_cam, pred_cam_t, ..., pred_keypoints_3d, pred_vertices and
        pred_keypoints_2d for crops of `config.size_px`. Its `config` describes it, so `save_checkpoint` can write it.

    Raises:
        InputError: not a readable file, entries that are missing, unknown or of the wrong shape (all of them listed),
            values that are not finite, or a width whose number of heads cannot be derived.
    """
    where, state = read_state(source, "HaMeR")
    num_layers = count(state, re.escape(_LAYERS) + r"(\d+)\.")
    names = entry_names(count(state, r"backbone\.blocks\.(\d+)\."), num_layers)
    state, hand = select_entries(state, names, where, "HaMeR")
    del state["embedding of 0"]
    bias, position = state["decoder.query"], state.pop("query's position")
    if position.shape != (1, 1, *bias.shape):
        raise InputError(
            f"{where}: {_QUERY}pos_embedding has shape {tuple(position.shape)}, expected {(1, 1, *bias.shape)}"
        )
    state["decoder.query"] = position + bias
    reshape_means(state, "decoder")
    decoder = _decoder_of(state, num_layers)
    model = UTNet(config_of(state, "hamer", num_heads, where, decoder=decoder), hand)
    return load_entries(model, state, where)


def entry_names(num_blocks: int, num_layers: int) -> dict[str, str]:
    """HaMeR's name -> UTNet's, for every entry of a network with these numbers of ViT blocks and decoder layers, except
    the hand's (`mano.*`)."""
    layers = {
        f"{_LAYERS}{i}.{theirs}": f"decoder.layers.{i}.{ours}"
        for i in range(num_layers)
        for theirs, ours in _LAYER_NAMES.items()
    }
    return _NAMES | block_names(num_blocks) | layers


def _decoder_of(state: dict[str, Tensor], num_layers: int) -> tuple[int, int, int, int]:
    """`ModelConfig.decoder`: width, layers, heads, hidden width."""
    hidden = len(state["decoder.layers.0.fc1.bias"])
    heads = len(state["decoder.layers.0.attend_image.q.weight"]) // DECODER_HEAD_DIM
    return state["decoder.query"].shape[-1], num_layers, max(1, heads), hidden
