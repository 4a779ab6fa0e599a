"""Which data a run validates on: never on what it trains on, and never on a guess."""

from dataclasses import replace

import pytest

from trees import dexycb_tree, ho3d_tree
from utnet.config import Config, DataConfig
from utnet.errors import InputError
from utnet.sources import open_validation


def ho3d(split):
    return DataConfig(name="ho3d", root=str(ho3d_tree()), split=split)


def dexycb(split, setup="s0"):
    return DataConfig(name="dexycb", root=str(dexycb_tree()), split=split, setup=setup)


@pytest.mark.parametrize(("train", "val"), [(dexycb("train"), None), (dexycb("train"), dexycb("test"))])
def test_splits_that_share_nothing_are_taken(train, val):
    source = open_validation(Config(data=train, val=val))
    assert source.split == ("val" if val is None else val.split)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (ho3d("train"), ho3d("val")),
        (ho3d("val"), ho3d("val")),
        (ho3d("train_fit"), ho3d("train")),
        (dexycb("train"), dexycb("train")),
        (dexycb("train", "s0"), dexycb("val", "s1")),
    ],
)
def test_validating_on_training_data_is_refused(train, val):
    with pytest.raises(InputError, match="shares samples"):
        open_validation(Config(data=train, val=val))
    mixture = DataConfig(name="mixture", mixture=(DataConfig(), replace(train, weight=2.0)))
    with pytest.raises(InputError, match="shares samples"):
        open_validation(Config(data=mixture, val=val))


def test_what_has_no_validation_split_must_name_one():
    with pytest.raises(InputError, match="train_fit"):
        open_validation(Config(data=ho3d("train")))
    with pytest.raises(InputError, match="val section"):
        open_validation(Config(data=dexycb("val")))


def test_custom_lines_that_say_val_are_held_out(tmp_path):
    import json

    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((80, 80, 3), np.uint8))
    line = {"image": "a.png", "side": "right", "box": [10, 10, 60, 60]}
    train, val = (DataConfig(name="custom", root=str(tmp_path), split=split) for split in ("train", "val"))
    lines = [{**line, "split": split, "sequence": split} for split in ("train", "train", "val")]
    (tmp_path / "hands.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert len(open_validation(Config(data=train, val=val))) == 1
    lines = [{**line, "sequence": name} for name in "abcdefgh"]
    (tmp_path / "hands.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match="shares samples"):
        open_validation(Config(data=train, val=val))


def test_streams_are_not_validated_on(tmp_path):
    from utnet.synth.write_tars import write_tars

    write_tars(tmp_path / "tars", num=2, progress=False)
    with pytest.raises(InputError, match="read in passing"):
        open_validation(Config(val=DataConfig(name="tars", root=str(tmp_path / "tars"))))
