"""A run's settings: `knobs`, the one page that names them all, and `reader`, strict YAML in and out."""

from utnet.config.loading import from_tree, override, to_tree
from utnet.config.schema import (
    AugmentConfig,
    Config,
    CropConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    PromptConfig,
    TrainConfig,
)
from utnet.config.synth_schema import FactorsConfig, SynthConfig
from utnet.config.validation import HELD_OUT_SPLIT, own_validation

__all__ = [
    "HELD_OUT_SPLIT",
    "AugmentConfig",
    "Config",
    "CropConfig",
    "DataConfig",
    "FactorsConfig",
    "LossConfig",
    "ModelConfig",
    "PromptConfig",
    "SynthConfig",
    "TrainConfig",
    "from_tree",
    "override",
    "own_validation",
    "to_tree",
]
