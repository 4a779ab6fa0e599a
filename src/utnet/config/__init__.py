"""Configs of runs: `schema` defines all fields, `loading` reads and writes YAML strictly. The bundled configs are in
`utnet/configs`."""

from utnet.config.loading import bundled_configs, find_config, from_tree, override, to_tree
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
from utnet.config.validation import HELD_OUT_SPLIT, default_validation

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
    "bundled_configs",
    "default_validation",
    "find_config",
    "from_tree",
    "override",
    "to_tree",
]
