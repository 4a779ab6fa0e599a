"""Starting weights from other projects: ViTPose, DINOv2 and MAE encoders, by path.

A network with patches (presets b, l, h) takes the patch embedding, the position embedding, the blocks and the last
norm; its image tokens then pass through the same computation as in the original (`tests/test_starting_weights.py` has
the original's, written out). Only names and shapes of the files are known here; no code of the projects is used.

- Class token, mask token, registers, decoders and keypoint heads have no place in a UTNet and are left out. ViTPose
  has no class token but adds its position (row 0) to every patch; that sum is loaded. The other two give it to the
  class token alone, so their row 0 is left out with the token.
- Positions for another grid are interpolated as each project does, bicubic with a = -0.75 and clamped edges. DINOv2
  (trained at 37 x 37) scales by (n + 0.1) / 37 and does not smooth; its variants with registers scale by n / 37 and
  smooth (`antialias`, a = -0.5); ViTPose and MAE scale by the ratio of the grids and do not smooth.
- DINOv2's LayerScale is loaded as such into a network with `model.layer_scale`, and multiplied into the layer before it
  (attn.proj, fc2) in any other: the same function, and no parameters more.
"""

from __future__ import annotations

import argparse
import math
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from utnet.errors import InputError
from utnet.model import UTNet
from utnet.model.stems import PatchStem

_BLOCK_LAYERS = {
    "norm1": "norm1",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
"""Layer of a block in all three projects -> in ours."""
_SCALES = {"ls1.gamma": ("scale1", "attn.proj"), "ls2.gamma": ("scale2", "fc2")}
"""LayerScale in DINOv2 -> its factors in a block of ours, and the layer of ours that they follow."""
_MOST_LISTED = 20


@dataclass(frozen=True)
class Layout:
    """What one project's files look like.

    Attributes:
        title: its name.
        norm: its name of the last norm.
        patch_pad_px: padding of its patch convolution.
        num_heads: attention heads by width, as published; no shape tells them.
        layer_scale: every half of a block has a factor a channel.
        shared_row: position row 0 is added to every patch.
        grid_margin: what it adds to the sides of a new grid before it scales its positions to it.
        left_out: pattern of a whole name -> why it has no place here.
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


@dataclass(frozen=True)
class Report:
    """What became of every entry of the file and of the network; `print` it.

    Attributes:
        source: the file.
        kind: a key of `LAYOUTS`.
        loaded: entry of the file -> entry of the network.
        left_out: entry of the file -> why it has no place.
        created: entries of the network that the file says nothing of; they keep their own start.
        notes: what was computed on the way.
    """

    source: str
    kind: str
    loaded: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    created: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        lines = [f"{self.source}: {len(self.loaded)} entries loaded ({LAYOUTS[self.kind].title})"]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  left out, {reason}: {_listed(names)}" for reason, names in reasons.items()]
        parts = sorted({name.split(".")[0] if "stem." not in name else name for name in self.created})
        lines += [f"  new, from their own start: {len(self.created)} entries ({', '.join(parts)})"]
        return "\n".join(lines)


def load_backbone(model: UTNet, path: str | Path, *, kind: str = "auto") -> Report:
    """Puts another project's encoder into the network, in place; nothing is changed where anything does not fit.

    Args:
        model: a network with a patch stem whose width, blocks, heads and patch are the file's; `pos_embed` may have
            another grid.
        path: a file of torch (read with `weights_only=True`) or safetensors: ViTPose's (a `state_dict` with
            `backbone.*`), DINOv2's (bare, or a `teacher` with `backbone.*`; blocks in chunks or not), MAE's (`model`).
        kind: a key of `LAYOUTS`, or "auto": as the entries say.

    Returns:
        What was loaded, left out and not found.

    Raises:
        InputError: not a readable file, or one that does not fit: all that is wrong is listed.
    """
    where, state = _read(Path(path))
    kind = _kind_of(state, kind, where)
    layout = LAYOUTS[kind]
    if kind == "dinov2":
        state = _without_chunks(state, where)
    prefix = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    names = entry_names(kind, model.preset.depth, prefix=prefix)
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
        notes.append(f"no published size has this width: {model.preset.num_heads} attention heads as the network says")
    created = tuple(sorted(model.state_dict().keys() - ours.keys()))
    model.load_state_dict(ours, strict=False)
    return Report(where, kind, {name: names[name] for name in state}, left_out, created, tuple(notes))


def entry_names(kind: str, depth: int, *, prefix: str = "") -> dict[str, str]:
    """The project's name -> UTNet's, of every entry that is loaded into a network of `depth` blocks."""
    layout, both = LAYOUTS[kind], ("weight", "bias")
    names = {"pos_embed": "pos_embed"}
    names |= {f"patch_embed.proj.{end}": f"stem.patches.{end}" for end in both}
    for i in range(depth):
        block, ours = f"blocks.{i}", f"encoder.blocks.{i}"
        names |= {f"{block}.{a}.{end}": f"{ours}.{b}.{end}" for a, b in _BLOCK_LAYERS.items() for end in both}
        if layout.layer_scale:
            names |= {f"{block}.{gamma}": f"{ours}.{scale}" for gamma, (scale, _) in _SCALES.items()}
    names |= {f"{layout.norm}.{end}": f"encoder.norm.{end}" for end in both}
    return {prefix + theirs: ours for theirs, ours in names.items()}


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The file's name for messages, and the state dict in it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the weights of ViTPose, DINOv2 or MAE that you downloaded")
    tree: object
    try:
        if path.suffix == ".safetensors":
            tree = load_file(path)
        else:  # argparse's Namespace, which MAE's training keeps beside the weights, only holds attributes
            with torch.serialization.safe_globals([argparse.Namespace]):
                tree = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile pickle may raise anything
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if "Unsupported" in line), lines[0]).strip().split(". ")[0]
        raise InputError(f"{path}: cannot be read as weights without running it ({reason})") from error
    for key in ("state_dict", "model", "teacher"):
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    if not isinstance(tree, Mapping) or not tree:
        raise InputError(f"{path}: holds no state dict; give the weights of ViTPose, DINOv2 or MAE")
    odd = [str(name) for name, value in tree.items() if not isinstance(value, Tensor)]
    if odd:
        raise InputError(f"{path}: these entries are not tensors: {_listed(odd)}")
    return str(path), {str(name): tensor for name, tensor in tree.items()}


def _kind_of(state: Mapping[str, Tensor], kind: str, where: str) -> str:
    if kind != "auto" and kind not in LAYOUTS:
        raise InputError(f"{where}: kind {kind!r} is not known; choose auto, {', '.join(LAYOUTS)}")
    if any(".mlp.w12." in name for name in state):
        raise InputError(f"{where}: its blocks have SwiGLU layers (DINOv2's giant), UTNet's have none; use S, B or L")
    if kind != "auto":
        return kind
    names = {name.removeprefix("backbone.") for name in state}
    if "last_norm.weight" in names:
        return "vitpose"
    if any(name.endswith("ls1.gamma") for name in names):
        return "dinov2"
    if {"norm.weight", "patch_embed.proj.weight"} <= names:
        return "mae"
    raise InputError(
        f"{where}: neither ViTPose's, DINOv2's nor MAE's entries; it holds {_listed(sorted(state))}. "
        f"WiLoR's checkpoint is read by utnet.checkpoint.import_wilor"
    )


def _without_chunks(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """`blocks.CHUNK.i.` (how DINOv2 trains) -> `blocks.i.`: i counts through all chunks."""
    plain = {re.sub(r"\bblocks\.\d+\.(\d+)\.", r"blocks.\1.", name): tensor for name, tensor in state.items()}
    if len(plain) != len(state):
        raise InputError(f"{where}: a block stands in two chunks; the file is damaged")
    return plain


def _check(model: UTNet, state: dict[str, Tensor], names: dict[str, str], layout: Layout, where: str) -> None:
    """InputError unless the file's entries are exactly those of the network's encoder."""
    preset = model.preset
    if not isinstance(model.stem, PatchStem):
        raise InputError(
            f"{where}: model.preset {model.config.preset!r} has a convolutional stem and takes no ViT's weights; "
            f"choose b, l or h (for DINOv2-S: b with model.dim 384, depth 12, num_heads 6)"
        )
    wrong = [
        f"model.{name} is {have}, the file's {want}"
        for name, have, want in _sizes(model, state, layout)
        if have != want
    ]
    missing, unknown = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
    odd = {"missing": missing, "unknown": unknown}
    wrong += [f"{len(listed)} {word}: {_listed(listed)}" for word, listed in odd.items() if listed]
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
    """(key of the config, the network's, the file's) of all that must be equal and that names and shapes tell."""
    preset = model.preset
    blocks = [int(match[1]) for name in state if (match := re.match(r"(?:backbone\.)?blocks\.(\d+)\.", name))]
    sizes: list[tuple[str, object, object]] = [("depth", preset.depth, max(blocks, default=-1) + 1)]
    patches = next((tensor for name, tensor in state.items() if name.endswith("patch_embed.proj.weight")), None)
    if patches is not None and patches.ndim == 4:
        sizes += [("dim", preset.dim, len(patches)), ("patch_px", preset.patch_px, patches.shape[-1])]
    sizes.append(("patch_pad_px", preset.patch_pad_px, layout.patch_pad_px))
    sizes.append(("num_heads", preset.num_heads, layout.num_heads.get(preset.dim, preset.num_heads)))
    if preset.layer_scale and not layout.layer_scale:
        sizes.append(("layer_scale", True, False))
    return sizes


def _fold(ours: dict[str, Tensor]) -> int:
    """Multiplies the factors of every half block into its last layer, in float64: (W x + b) g = (g W) x + g b."""
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
    """(1, 1 + rows * columns, dim) of the file -> (1, N, dim) of the network's grid."""
    if rows.ndim != 3 or len(rows) != 1 or rows.shape[2] != model.preset.dim:
        raise InputError(f"{where}: pos_embed is {tuple(rows.shape)}, expected (1, N, {model.preset.dim})")
    grid = native_grid(rows.shape[1] - 1)
    if grid is None:
        raise InputError(f"{where}: pos_embed has {rows.shape[1]} rows: less the first, no square and no 4:3 grid")
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


def _listed(names: Iterable[str]) -> str:
    """The names between commas; of many the first, and how many more."""
    names = list(names)
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
