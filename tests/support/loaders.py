"""Loaders of small runs."""

from __future__ import annotations

from utnet.config import Config
from utnet.data.crop_datasets import CropMaker
from utnet.data.loader import Loader, make_loader


def loader_of(source, config: Config, *, train: bool, augment: bool | None = None, extras=None, **options) -> Loader:
    """The loader of a config's data; `augment`: change pixels (default: in training)."""
    changes = config.augment if (train if augment is None else augment) else None
    seed = config.seed if train else None
    crops = CropMaker(config.model.size_px, config.crop, changes, seed, config.model.p_drop, extras)
    return make_loader(source, crops, config.train, endless=train, root_id=config.loss.root_id, **options)
