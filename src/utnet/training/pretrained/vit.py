"""ViTPose's, DINOv2's and MAE's encoders.

A network with patches (presets b, l, h) loads the patch embedding, the position embedding, the blocks and the last
norm; its image tokens then pass through the same computation as in the original (written out in
`tests/training/test_starting_weights.py`). Only names and shapes of the files are used, no code of the projects.

- Class token, mask token, registers, decoders and keypoint heads are left out. ViTPose has no class token but adds its
  position (row 0) to every patch; that sum is loaded. In the other two it belongs to the class token alone, so row 0 is
  left out.
- Positions for another grid are interpolated as in each project, bicubic with a = -0.75 and clamped edges. DINOv2
  (trained at 37 x 37) scales by (n + 0.1) / 37 without smoothing; its variants with registers scale by n / 37 and
  smooth (`antialias`, a = -0.5); ViTPose and MAE scale by the ratio of the grids without smoothing.
- DINOv2's LayerScale is loaded into a network with `model.layer_scale`, and otherwise multiplied into the layer before
  it (attn.proj, fc2), which is equivalent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from utnet.errors import InputError
from utnet.model import UTNet
from utnet.model.stems import PatchStem
from utnet.training.pretrained.weight_files import Report, listed

_BLOCK_LAYERS = {
    "norm1": "norm1",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
"""Layer of a block in all three projects -> ours."""
_SCALES = {"ls1.gamma": ("scale1", "attn.proj"), "ls2.gamma": ("scale2", "fc2")}
"""LayerScale in DINOv2 -> its factors in our block, and our layer before them."""


@dataclass(frozen=True)
class Layout:
    """Layout of one project's files.

    Attributes:
        title: its name.
        norm: its name of the last norm.
        patch_pad_px: padding of its patch convolution.
        num_heads: attention heads by width, as published; shapes do not determine them.
        layer_scale: each half of a block has one factor per channel.
        shared_row: position row 0 is added to every patch.
        grid_margin: added to the sides of a new grid before positions are scaled to it.
        left_out: pattern of a full name -> why it is left out.
    """

    title: str
    norm: str
    patch_pad_px: int
    num_heads: Mapping[int, int]
    layer_scale: bool
    shared_row: bool
    left_out: Mapping[str, str]
    grid_margin: float = 0.0


LAYOUTS = {
    "vitpose": Layout(
        title="ViTPose",
        norm="last_norm",
        patch_pad_px=2,
        num_heads={384: 12, 768: 12, 1024: 16, 1280: 16},
        layer_scale=False,
        shared_row=True,
        left_out={
            r"cls_token": "unused in ViTPose too",
            r"keypoint_head\..*": "its keypoint head",
        },
    ),
    "dinov2": Layout(
        title="DINOv2",
        norm="norm",
        patch_pad_px=0,
        num_heads={384: 6, 768: 12, 1024: 16},
        layer_scale=True,
        shared_row=False,
        left_out={
            r"cls_token": "no class token here",
            r"register_tokens": "no registers here",
            r"mask_token": "used in its pretraining only",
            r"(dino|ibot)_head\..*": "used in its pretraining only",
        },
        grid_margin=0.1,
    ),
    "mae": Layout(
        title="MAE",
        norm="norm",
        patch_pad_px=0,
        num_heads={768: 12, 1024: 16, 1280: 16},
        layer_scale=False,
        shared_row=False,
        left_out={
            r"cls_token": "no class token here",
            r"mask_token|decoder_.*": "its decoder, used in its pretraining only",
        },
    ),
}


def load_vit(model: UTNet, state: dict[str, Tensor], where: str, kind: str) -> Report:
    """`load_backbone` for a state dict of one of `LAYOUTS`."""
    layout = LAYOUTS[kind]
    if kind == "dinov2":
        state = _without_chunks(state, where)
    prefix = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    names = entry_names(kind, model.preset.num_blocks, prefix=prefix)
    left_out = {
        name: reason
        for name in sorted(state.keys() - names.keys())
        for pattern, reason in layout.left_out.items()
        if re.fullmatch(pattern, name.removeprefix(prefix))
    }
    state = {name: tensor for name, tensor in state.items() if name not in left_out}
    _check(model, state, names, layout, where)

    ours = {names[name]: tensor.float() for name, tensor in state.items()}
    rows, registers = ours["pos_embed"], f"{prefix}register_tokens" in left_out
    ours["pos_embed"] = _positions(rows, model, layout, where, smooth=registers)
    notes = [_about_positions(rows, model, layout)]
    if layout.layer_scale and not model.preset.layer_scale:
        notes.append(f"LayerScale multiplied into {_fold(ours)} layers (attn.proj, fc2)")
    if model.preset.dim not in layout.num_heads:
        notes.append(f"no published size has this width: using the config's {model.preset.num_heads} attention heads")
    created = tuple(sorted(model.state_dict().keys() - ours.keys()))
    model.load_state_dict(ours, strict=False)
    return Report(where, layout.title, {name: names[name] for name in state}, left_out, created, tuple(notes))


def entry_names(kind: str, num_blocks: int, *, prefix: str = "") -> dict[str, str]:
    """The project's name -> UTNet's, for every entry loaded into a network of `num_blocks` blocks."""
    layout, both = LAYOUTS[kind], ("weight", "bias")
    names = {"pos_embed": "pos_embed"}
    names |= {f"patch_embed.proj.{end}": f"stem.patches.{end}" for end in both}
    for i in range(num_blocks):
        block, ours = f"blocks.{i}", f"encoder.blocks.{i}"
        names |= {f"{block}.{a}.{end}": f"{ours}.{b}.{end}" for a, b in _BLOCK_LAYERS.items() for end in both}
        if layout.layer_scale:
            names |= {f"{block}.{gamma}": f"{ours}.{scale}" for gamma, (scale, _) in _SCALES.items()}
    names |= {f"{layout.norm}.{end}": f"encoder.norm.{end}" for end in both}
    return {prefix + theirs: ours for theirs, ours in names.items()}


def _without_chunks(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """`blocks.CHUNK.i.` (how DINOv2 trains) -> `blocks.i.`: i counts through all chunks."""
    plain = {re.sub(r"\bblocks\.\d+\.(\d+)\.", r"blocks.\1.", name): tensor for name, tensor in state.items()}
    if len(plain) != len(state):
        raise InputError(f"{where}: a block is in two chunks; the file is damaged")
    return plain


def _check(model: UTNet, state: dict[str, Tensor], names: dict[str, str], layout: Layout, where: str) -> None:
    """InputError unless the file's entries are exactly those of the network's encoder."""
    preset = model.preset
    if not isinstance(model.stem, PatchStem):
        raise InputError(
            f"{where}: model.preset {model.config.preset!r} has a convolutional stem and takes no ViT's weights; "
            f"choose b, l or h (for DINOv2-S: b with model.dim 384, num_blocks 12, num_heads 6)"
        )
    wrong = [
        f"model.{name} is {have}, the file's {want}"
        for name, have, want in _sizes(model, state, layout)
        if have != want
    ]
    missing, unknown = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
    odd = {"missing": missing, "unknown": unknown}
    wrong += [f"{len(entries)} {word}: {listed(entries)}" for word, entries in odd.items() if entries]
    if not wrong:
        shapes = {ours: tuple(tensor.shape) for ours, tensor in model.state_dict().items()}
        shapes |= {ours: (preset.dim,) for ours in names.values() if ours.endswith(("scale1", "scale2"))}
        wrong = [
            f"{name} is {tuple(state[name].shape)}, expected {shapes[ours]}"
            for name, ours in names.items()
            if ours != "pos_embed" and tuple(state[name].shape) != shapes[ours]
        ]
        wrong += [f"NaN or inf in {name}" for name in names if not state[name].isfinite().all()]
    if wrong:
        raise InputError(f"{where}: {layout.title}'s weights do not fit the network: {'; '.join(wrong)}")


def _sizes(model: UTNet, state: dict[str, Tensor], layout: Layout) -> list[tuple[str, object, object]]:
    """(key of the config, the network's, the file's) of all sizes that must be equal and can be read from the file."""
    preset = model.preset
    blocks = [int(match[1]) for name in state if (match := re.match(r"(?:backbone\.)?blocks\.(\d+)\.", name))]
    sizes: list[tuple[str, object, object]] = [("num_blocks", preset.num_blocks, max(blocks, default=-1) + 1)]
    patches = next((tensor for name, tensor in state.items() if name.endswith("patch_embed.proj.weight")), None)
    if patches is not None and patches.ndim == 4:
        sizes += [("dim", preset.dim, len(patches)), ("patch_px", preset.patch_px, patches.shape[-1])]
    sizes.append(("patch_pad_px", preset.patch_pad_px, layout.patch_pad_px))
    sizes.append(("num_heads", preset.num_heads, layout.num_heads.get(preset.dim, preset.num_heads)))
    if preset.layer_scale and not layout.layer_scale:
        sizes.append(("layer_scale", True, False))
    return sizes


def _fold(ours: dict[str, Tensor]) -> int:
    """Folds LayerScale into the layers before it, in float64: (W x + b) g = (g W) x + g b."""
    scales = {scale: layer for scale, layer in _SCALES.values()}
    folded = [name for name in ours if name.rsplit(".", 1)[-1] in scales]
    for name in folded:
        block, scale = name.rsplit(".", 1)
        factor = ours.pop(name).double()
        weight, bias = f"{block}.{scales[scale]}.weight", f"{block}.{scales[scale]}.bias"
        ours[weight] = (factor[:, None] * ours[weight].double()).float()
        ours[bias] = (factor * ours[bias].double()).float()
    return len(folded)


def _positions(rows: Tensor, model: UTNet, layout: Layout, where: str, *, smooth: bool) -> Tensor:
    """(1, 1 + rows * columns, dim) of the file -> (1, N, dim) on the network's grid."""
    if rows.ndim != 3 or len(rows) != 1 or rows.shape[2] != model.preset.dim:
        raise InputError(f"{where}: pos_embed is {tuple(rows.shape)}, expected (1, N, {model.preset.dim})")
    grid = native_grid(rows.shape[1] - 1)
    if grid is None:
        raise InputError(f"{where}: pos_embed has {rows.shape[1]} rows: less the first, neither square nor 4:3")
    patches = rows[:, 1:] + rows[:, :1] if layout.shared_row else rows[:, 1:]
    target = _grid_of(model)
    if grid == target:
        return patches
    maps = patches.transpose(1, 2).unflatten(2, grid)
    if layout.grid_margin and not smooth:
        factors = tuple((new + layout.grid_margin) / old for new, old in zip(target, grid, strict=True))
        maps = F.interpolate(maps, scale_factor=factors, mode="bicubic")
    else:
        maps = F.interpolate(maps, size=target, mode="bicubic", antialias=smooth)
    return maps.flatten(2).transpose(1, 2)


def native_grid(num: int) -> tuple[int, int] | None:
    """Rows and columns of a position embedding of `num` patches: a square, else 4:3 (ViTPose), else None."""
    side = math.isqrt(max(num, 0))
    if side and side**2 == num:
        return side, side
    unit = math.isqrt(max(num, 0) // 12)
    return (4 * unit, 3 * unit) if unit and 12 * unit**2 == num else None


def _grid_of(model: UTNet) -> tuple[int, int]:
    patch = model.preset.patch_px
    return model.config.size_px // patch, model.width_px // patch


def _about_positions(rows: Tensor, model: UTNet, layout: Layout) -> str:
    (height, width), (new_height, new_width) = native_grid(rows.shape[1] - 1) or (0, 0), _grid_of(model)
    change = "as they are" if (height, width) == (new_height, new_width) else f"interpolated from {height} x {width}"
    first = "row 0 added to every patch" if layout.shared_row else "row 0 (class token) left out"
    return f"positions of {new_height} x {new_width} patches {change}; {first}"
