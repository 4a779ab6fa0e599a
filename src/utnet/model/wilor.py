"""WiLoR's published weights as a UTNet of preset `h` (Potamias et al. 2025), with equal outputs.

Only the names and shapes of its state dict are used, no code. Differences of layout that are converted: WiLoR adds its
class token's position embedding to that of every patch, its mean pose is one row of 96 numbers, and its joints come
from a regressor over the vertices. Layers that only UTNet has (the depth path's last layer, the placeholder, the
embedding of each hand token, the root's residual) are zero and have no effect until they are trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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

_NAMES = {
    **BACKBONE_NAMES,
    "backbone.init_cam": "hand_tokens.mean_cam",
    "backbone.init_hand_pose": "hand_tokens.mean_pose",
    "backbone.init_betas": "hand_tokens.mean_betas",
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in {
            "backbone.pose_emb": "hand_tokens.embed_pose",
            "backbone.shape_emb": "hand_tokens.embed_betas",
            "backbone.cam_emb": "hand_tokens.embed_cam",
            "backbone.decpose": "coarse_head.pose",
            "backbone.decshape": "coarse_head.betas",
            "backbone.deccam": "coarse_head.cam",
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


def import_wilor(source: str | Path | Mapping, num_heads: int | None = None) -> UTNet:
    """WiLoR's network with its weights and its hand, in eval mode; its depth path starts without effect.

    The size is derived from the weights. `discriminator.*` entries are dropped with a UserWarning that counts them. The
    hand's arrays (`mano.*`) become the network's hand model; they are MANO's, so files made from it stay under MANO's
    licence.

    Args:
        source: the published checkpoint (a Lightning file, read with `weights_only=True`) or a state dict (tensors or
            numpy arrays by name).
        num_heads: attention heads, which the shapes do not determine; default 16 for ViT-H's width of 1280.

    Returns:
        UTNet whose outputs equal WiLoR's: `cam`, `cam_t`, `global_orient`, `hand_pose`, `betas`, `joints_m`,
        `vertices_m`, `joints_crop` are its pred_cam, pred_cam_t, ..., pred_keypoints_3d, pred_vertices and
        pred_keypoints_2d for crops of `config.size_px`. Its `config` describes it, so `save_checkpoint` can write it.

    Raises:
        InputError: not a readable file, entries that are missing, unknown or of the wrong shape (all of them listed),
            values that are not finite, or a width whose number of heads cannot be derived.
    """
    where, state = read_state(source, "WiLoR")
    names = entry_names(count(state, r"backbone\.blocks\.(\d+)\."))
    state, hand = select_entries(state, names, where, "WiLoR")
    reshape_means(state, "hand_tokens")
    model = UTNet(config_of(state, "h", num_heads, where), hand)
    return load_entries(model, state, where, zero=("hand_tokens.embed_slot",))


def entry_names(num_blocks: int) -> dict[str, str]:
    """WiLoR's name -> UTNet's, for every entry of a network of `num_blocks` blocks, except the hand's (`mano.*`)."""
    return _NAMES | block_names(num_blocks)
