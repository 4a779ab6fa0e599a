"""Which data a run validates on: never on what it trains on, and never on a guess."""

from dataclasses import replace

import pytest

from support.trees import dexycb_tree, ho3d_tree
from utnet.config import Config, DataConfig, override
from utnet.data import open_source
from utnet.data.shards.write_shards import write_shards
from utnet.data.sources import check_apart, describe, open_data, open_validation, shared_keys, training_note
from utnet.errors import InputError
from utnet.synth.write_ho3d import write_ho3d


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
    with pytest.raises(InputError, match=r"dexycb val has no .*--set val\.name=dexycb val\.root=FOLDER val\.split=val"):
        open_validation(Config(data=dexycb("val")))


@pytest.mark.parametrize("data", [ho3d("train_fit"), dexycb("train"), DataConfig()])
def test_keys_of_a_val_section_without_a_name_change_what_belongs_to_the_training_data(data, tmp_path):
    own = DataConfig() if data.name == "synth" else replace(data, split="val")
    given = override(Config(), [f"data={{name: {data.name}, root: '{data.root}', split: {data.split}}}", "val.limit=2"])
    assert given.val == replace(own, limit=2)
    path = tmp_path / "run.yaml"
    path.write_text(f"data: {{name: {data.name}, root: '{data.root}', split: {data.split}}}\nval: {{limit: 2}}\n")
    assert Config.load(path).val == given.val
    assert override(given, ["val.limit=3"]).val == replace(own, limit=3)
    assert override(Config(data=data), ["val.name=synth", "val.limit=3"]).val == DataConfig(limit=3)
    with pytest.raises(InputError, match="no validation split of its own"):
        override(Config(data=dexycb("test")), ["val.limit=2"])


def test_shards_of_a_data_set_share_its_samples(tmp_path):
    whole, part = open_source("ho3d", ho3d_tree(), split="train"), open_source("ho3d", ho3d_tree(), split="train_fit")
    write_shards(part, tmp_path / "set", progress=False)
    shards = open_source("shards", tmp_path / "set")
    assert set(shared_keys(shards, whole)) == set(shared_keys(whole, shards)) == {part.key(i) for i in range(len(part))}
    assert shared_keys(shards, open_source("ho3d", ho3d_tree(), split="val")) == []
    with pytest.raises(
        InputError, match=r"training on shards \(.*\) and validating on ho3d train_fit .* shares samples"
    ):
        check_apart(shards, part)
    mixed = DataConfig(name="mixture", mixture=(DataConfig(), DataConfig(name="shards", root=str(tmp_path / "set"))))
    config = Config(data=mixed)
    with pytest.raises(InputError, match="shares samples"):
        check_apart(open_data(mixed, config, train=True), part)
    assert "it was TRAINED on" in training_note(config, part)
    assert training_note(config, open_source("ho3d", ho3d_tree(), split="val")) == ""
    moved = Config(data=DataConfig(name="shards", root=str(tmp_path / "gone")))
    assert "not known" in training_note(moved, part)


def test_the_same_names_in_another_folder_are_other_samples(tmp_path):
    write_ho3d(tmp_path / "other", num=9, seed=6, progress=False)
    ours, theirs = open_source("ho3d", ho3d_tree()), open_source("ho3d", tmp_path / "other")
    assert {ours.key(i) for i in range(len(ours))} == {theirs.key(i) for i in range(len(theirs))}
    assert shared_keys(ours, theirs) == []


def test_sources_in_words():
    num = len(open_source("ho3d", ho3d_tree(), split="val"))
    assert describe(open_validation(Config(data=ho3d("train_fit")))) == f"ho3d val ({num} sample{'s' * (num > 1)})"
    assert describe(open_data(DataConfig(), Config(), train=True)) == "synth (endless)"


def test_a_data_set_that_another_reader_reads_is_named():
    with pytest.raises(InputError, match="'h2o3d': HO3D v2, HO3D v3 and H2O3D are all read as ho3d"):
        open_data(DataConfig(name="h2o3d", root="x"), Config(), train=True)


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
