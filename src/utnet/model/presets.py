"""The sizes of the network. A resolved preset determines the shape of every layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from utnet.config import ModelConfig
from utnet.errors import InputError


@dataclass(frozen=True)
class Preset:
    """Shape of a UTNet.

    Attributes:
        dim: width of the tokens.
        num_blocks: number of encoder blocks.
        num_heads: attention heads.
        stem: "conv", convolutions trained from scratch; "lite0", EfficientNet-Lite0 with ImageNet weights; or "patch",
            plain ViT patches.
        stem_dims: channels of the stem "conv" at strides 4, 8 and 16.
        patch_px: side of a patch, 14 or 16 (a convolutional stem has 16).
        patch_pad_px: padding on each side of the patch convolution (ViTPose and WiLoR: 2).
        layer_scale: blocks with LayerScale (DINOv2).
        width_share: share of the square crop's width, round its middle, that the network looks at.
        maps: "upsampler", ours, or "deconv", WiLoR's.
        map_dim: channels of our feature maps.
        num_maps: our feature maps after the tokens' own, each twice as large as the one before.
        joint_maps: the heat maps of the joints and their readout (ours; on our maps only).
        refiner: "graph", "maxpool" or "none".
        refiner_dim: width of the graph refiner.
        refiner_vertices: number of vertices of the coarse mesh at which it samples the maps, evenly spread over the
            skin (all of them where the hand has fewer).
        head: "tokens": 18 hand tokens in the encoder beside the image tokens; or "decoder", HaMeR's: one query token
            attends to the encoder's output, without maps or a refiner.
        decoder: its width, layers, attention heads of 64 each, and hidden width.
        wilor_head: WiLoR's head: linear layers on the encoder's tokens, an embedding of mean betas, and an
            unconstrained camera scale. Ours has its own norm and a positive scale.
    """

    dim: int
    num_blocks: int
    num_heads: int
    stem: str = "patch"
    stem_dims: tuple[int, int, int] = (32, 64, 128)
    patch_px: int = 16
    patch_pad_px: int = 0
    layer_scale: bool = False
    width_share: float = 1.0
    maps: str = "upsampler"
    map_dim: int = 128
    num_maps: int = 2
    joint_maps: bool = True
    refiner: str = "graph"
    refiner_dim: int = 128
    refiner_vertices: int = 1609
    head: str = "tokens"
    decoder: tuple[int, int, int, int] = (1024, 6, 8, 1024)
    wilor_head: bool = False


PRESETS = {
    "ti": Preset(
        dim=128,
        num_blocks=2,
        num_heads=4,
        stem="conv",
        map_dim=64,
        num_maps=1,
        refiner_dim=32,
        refiner_vertices=256,
    ),
    "s": Preset(dim=384, num_blocks=10, num_heads=6, stem="conv", stem_dims=(48, 96, 192), map_dim=96),
    "b": Preset(dim=768, num_blocks=12, num_heads=12),
    "l": Preset(dim=1024, num_blocks=24, num_heads=16, map_dim=192),
    "h": Preset(
        dim=1280,
        num_blocks=32,
        num_heads=16,
        patch_pad_px=2,
        width_share=0.75,
        maps="deconv",
        joint_maps=False,
        refiner="maxpool",
        wilor_head=True,
    ),
    "hamer": Preset(
        dim=1280,
        num_blocks=32,
        num_heads=16,
        patch_pad_px=2,
        width_share=0.75,
        joint_maps=False,
        refiner="none",
        head="decoder",
        wilor_head=True,
    ),
}
"""`ti` and `s` are for training from scratch, which a patch stem makes slow and a convolutional one does not (`ti`
trains in minutes on two cores, docs/results.md); with `model.stem: lite0` they start from ImageNet's features. `b` and
`l` take the weights of a pretrained ViT. `h` is WiLoR's network (Potamias et al. 2025), with a depth path and
embeddings of hand tokens that are zero when its weights are loaded; `hamer` is HaMeR's (Pavlakos et al. 2024), with the
same depth path."""


def get_preset(name: str) -> Preset:
    """The preset of that name; InputError lists the known ones."""
    if name not in PRESETS:
        raise InputError(f"model.preset {name!r} is not known; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def resolve_preset(config: ModelConfig) -> Preset:
    """The preset named by `config`, with the config's own values in place of its defaults.

    Raises:
        InputError: an unknown preset, or incompatible sizes.
    """
    preset = get_preset(config.preset)
    names = ("dim", "num_blocks", "num_heads", "patch_px", "patch_pad_px", "layer_scale", "refiner", "stem", "decoder")
    preset = replace(preset, **{name: value for name in names if (value := getattr(config, name)) is not None})
    width = config.size_px * preset.width_share if config.width_px is None else config.width_px
    preset = replace(preset, width_share=width / config.size_px)
    patch = preset.patch_px
    if preset.dim % preset.num_heads:
        raise InputError(f"model.dim {preset.dim} is not a multiple of model.num_heads {preset.num_heads}")
    if preset.stem != "patch" and (patch, preset.patch_pad_px) != (16, 0):
        raise InputError(
            f"model.preset {config.preset!r} has a convolutional stem (model.stem {preset.stem!r}): model.patch_px "
            f"must be 16 and model.patch_pad_px 0, not {patch} and {preset.patch_pad_px}; stem 'patch' has them"
        )
    if config.size_px % patch or width % patch or not 0 < width <= config.size_px:
        raise InputError(
            f"the network's input would be {width:g} x {config.size_px} px: model.size_px and model.width_px must be "
            f"multiples of the patch ({patch} px), and the width at most the size"
        )
    if preset.head == "decoder" and preset.refiner != "none":
        raise InputError(f"model.preset {config.preset!r} takes no refiner; set model.refiner to 'none' or null")
    return preset
