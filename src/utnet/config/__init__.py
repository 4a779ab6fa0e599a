"""A run's settings: `knobs`, the one page that names them all, and `reader`, strict YAML in and out."""

from utnet.config.knobs import (
    AugmentConfig,
    Config,
    CropConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    SynthConfig,
    TrainConfig,
)
from utnet.config.reader import from_tree, override, to_tree

__all__ = [
    "AugmentConfig",
    "Config",
    "CropConfig",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "SynthConfig",
    "TrainConfig",
    "from_tree",
    "override",
    "to_tree",
]
