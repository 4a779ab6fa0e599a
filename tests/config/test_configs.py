"""Every file in config/ is a whole run: it loads, and trains a few steps on synthetic trees."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from support.custom_folder import labelled, write
from support.lite0_files import random_file, written
from support.mano_files import random_mano, write_mano
from support.runs import rows
from support.trees import dexycb_tree
from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, CropConfig, DataConfig, ModelConfig, default_validation, override
from utnet.data.shards.write_shards import write_shards
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.synth.write_freihand import write_freihand
from utnet.synth.write_ho3d import write_ho3d
from utnet.synth.write_tars import write_tars
from utnet.training.loop import train
from utnet.training.starting_config import load_config

FOLDER = Path(__file__).parents[2] / "config"
NAMED = {"config", "dexycb_s0_rgbd", "dexycb_s0_rgb", "ho3d_v3_rgbd", "freihand_rgb", "wilor_mix", "mixture"}
NAMED |= {"open_ti", "open_ti_real", "finetune"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A written tree for the layout of each data set, made when it is asked for."""
    folder = tmp_path_factory.mktemp("roots")

    @lru_cache
    def root(name: str) -> str:
        if name == "dexycb":
            return str(dexycb_tree())
        if name == "synth":
            return ""
        if name == "shards":
            write_shards(SyntheticHands(seed=5, size_px=96, num=12), folder / name, progress=False)
            return str(folder / name)
        if name == "custom":
            samples = SyntheticHands(seed=6, size_px=96, num=6)
            (folder / name).mkdir()
            return str(write(folder / name, [labelled(samples[i], folder / name, i) for i in range(6)]))
        write_tree, num = {"ho3d": (write_ho3d, 60), "freihand": (write_freihand, 20), "tars": (write_tars, 24)}[name]
        write_tree(folder / name, num=num, seed=3, progress=False)
        return str(folder / name)

    return root


def starting_weights(config: Config, model: ModelConfig, folder: Path) -> str:
    """Something of the kind that the run starts from."""
    if config.train.init_from == "lite0":
        return str(written(folder, random_file()))
    if config.train.init_from:
        save_checkpoint(folder / "start", UTNet(model), replace(config, model=model))
        return str(folder / "start")
    return ""


def small(config: Config, root, mano: Path, folder: Path) -> Config:
    """The run on written trees for a few steps. The preset is the config's own with the narrowest of encoders: a ViT-H
    does not train in a test."""

    def here(data: DataConfig | None) -> DataConfig | None:
        if data is None or data.name == "mixture":
            return data and replace(data, mixture=tuple(here(part) for part in data.mixture))
        limit = data.limit if data.name in ("synth", "tars") else None
        return replace(data, root=root(data.name), limit=limit)

    model = replace(config.model, size_px=64, dim=32, num_blocks=1, num_heads=2)
    if config.model.mano:
        model = replace(model, mano=str(mano))
    train = replace(
        config.train,
        init_from=starting_weights(config, model, folder),
        steps=3,
        minutes=None,
        batch_size=2,
        num_workers=0,
        log_every=1,
        pictures=1,
        num_threads=1,
    )
    val = here(config.val)
    if config.data.name == "synth" and val is None:
        val = DataConfig(limit=4)
    replay = config.replay and replace(config.replay, limit=4)  # scored before and after
    return replace(config, data=here(config.data), val=val, replay=replay, model=model, train=train)


def test_the_named_runs_are_there():
    assert {path.stem for path in FOLDER.glob("*.yaml")} >= NAMED


def test_both_parts_of_the_run_that_ships_train_one_network_by_one_loss():
    first, second = (Config.load(FOLDER / f"{name}.yaml") for name in ("open_ti", "open_ti_real"))
    assert (first.model, first.crop, first.loss) == (second.model, second.crop, second.loss)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_every_config_trains(name, roots, tmp_path):
    read = Config.load(FOLDER / f"{name}.yaml")
    mano = write_mano(tmp_path / "MANO_RIGHT.pkl", random_mano())
    config = small(read, roots, mano, tmp_path)
    result = train(config, tmp_path / "run", progress=False)
    steps = [row for row in rows(tmp_path / "run") if row[1:3] == ("train", "total_loss")]
    assert [int(row[0]) for row in steps] == [1, 2, 3]
    assert all(0 < float(row[3]) < 1e4 for row in steps)
    assert result["metrics"]["num"] >= 1
    assert ("rgbd" in result["metrics"]) == (name not in ("dexycb_s0_rgb", "freihand_rgb", "wilor_mix"))
    model, _ = load_checkpoint(tmp_path / "run" / "best")
    assert model.hand.name == ("mano" if read.model.mano else "open")
    if read.train.ema:
        last, _ = load_checkpoint(tmp_path / "run" / "last")
        best = dict(model.named_parameters())
        assert any(not torch.equal(p, best[key]) for key, p in last.named_parameters())


# ---------------------------------------------------------------------------------------------------- docs/reproduce.md

PAGE = FOLDER.parent / "docs" / "reproduce.md"
RECIPES = re.findall(r"^utnet train (.+)$", PAGE.read_text(encoding="utf-8"), re.M)


def test_there_is_a_recipe_for_every_benchmark_at_both_sizes():
    names = {line.split()[0] for line in RECIPES}
    assert names == {"dexycb_s0_rgb", "dexycb_s0_rgbd", "ho3d_v3_rgbd", "freihand_rgb", "wilor_mix"}
    assert len(RECIPES) == 2 * len(names)


@pytest.mark.parametrize("line", RECIPES, ids=lambda line: re.search(r"--out runs/(\S+)", line)[1])
def test_every_recipe_trains(line, roots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mano = write_mano(tmp_path / "MANO_RIGHT.pkl", random_mano())
    of = Config(
        model=ModelConfig(preset="h", size_px=64, dim=32, num_blocks=1, num_heads=2), crop=CropConfig(recipe="wilor")
    )
    if "--from" in line:
        save_checkpoint(tmp_path / "weights" / "wilor", UTNet(of.model), of)
    name, *words = line.split()
    start = words[words.index("--from") + 1] if "--from" in words else ""
    changes = words[words.index("--set") + 1 :] if "--set" in words else []
    read, _ = load_config(name, changes, init_from=start)
    assert read.model.preset == ("h" if start else "s")
    if start:
        assert (read.crop.recipe, read.model.dim) == ("wilor", 32)
        read = replace(read, model=replace(read.model, mano=""))
    config = small(read, roots, mano, tmp_path)
    val = replace(config.val or default_validation(config.data), limit=2)
    config = replace(
        config, data=replace(config.data, check=False), val=val, train=replace(config.train, steps=1, pictures=0)
    )
    result = train(config, tmp_path / "run", progress=False)
    assert result["step"] == 1
    assert result["metrics"]["num"] >= 1
    assert ("rgbd" in result["metrics"]) == name.endswith("rgbd")


@pytest.mark.long
def test_preset_h_makes_a_step(tmp_path, roots):
    """The network of the recipes as it is, 642 million parameters."""
    config = override(Config.load("freihand_rgb"), ["loss.w_joint_map=0", "loss.w_joint_heat=0"])
    model = ModelConfig(preset="h", size_px=256, checkpoint_blocks=True)
    data = replace(config.data, root=roots("freihand"))
    step = replace(config.train, steps=1, batch_size=1, num_workers=0, pictures=0, ema=0.0)
    result = train(replace(config, model=model, data=data, train=step), tmp_path / "run", progress=False)
    assert result["step"] == 1
