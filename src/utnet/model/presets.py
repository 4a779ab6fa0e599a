"""The sizes of the network. A preset is a complete description; nothing else decides a shape."""

from __future__ import annotations

from dataclasses import dataclass

from utnet.errors import InputError


@dataclass(frozen=True)
class Preset:
    """Shape of a UTNet.

    Attributes:
        dim: width of the tokens.
        depth: number of encoder blocks.
        num_heads: attention heads.
        stem_dims: channels of the convolutional stem at strides 4, 8 and 16; the last stride is the patch size.
        map_dim: channels of the upsampled feature maps.
        num_maps: feature maps after the tokens' own, each twice as large as the one before.
        refiner_dim: width of the graph refiner.
        refiner_vertices: vertices of the coarse mesh that it reads the maps at, evenly spread over the skin.
    """

    dim: int
    depth: int
    num_heads: int
    stem_dims: tuple[int, int, int]
    map_dim: int
    num_maps: int
    refiner_dim: int
    refiner_vertices: int


PRESETS = {
    "ti": Preset(
        dim=128,
        depth=2,
        num_heads=4,
        stem_dims=(32, 64, 128),
        map_dim=64,
        num_maps=1,
        refiner_dim=32,
        refiner_vertices=256,
    ),
    "s": Preset(
        dim=384,
        depth=10,
        num_heads=6,
        stem_dims=(48, 96, 192),
        map_dim=96,
        num_maps=2,
        refiner_dim=128,
        refiner_vertices=1609,
    ),
}
"""`ti` is as small as it is because it must learn in minutes on two cores (docs/results.md)."""

PATCH_PX = 16


def get_preset(name: str) -> Preset:
    """The preset of that name; InputError lists the known ones."""
    if name not in PRESETS:
        raise InputError(f"model.preset {name!r} is not known; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
