"""Fine-tuning: settings of the network, replayed data, and the page whose lines are run."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.custom_folder import labelled, write
from support.label_clips import Drawn, pictures
from utnet.checkpoint import load_checkpoint, read_config, save_checkpoint
from utnet.cli.main import main
from utnet.config import Config, CropConfig, LossConfig, ModelConfig, bundled_configs, override
from utnet.data.sources import open_training, open_validation
from utnet.errors import InputError
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.training.starting_config import load_config
from utnet.training.state import differences, make_model

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "own_data.md"
SMALL = Config(model=ModelConfig(size_px=64), crop=CropConfig(expand=1.7))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network") / "best"
    torch.manual_seed(0)
    save_checkpoint(folder, UTNet(SMALL.model), SMALL, step=0)
    return folder


@pytest.fixture(scope="module")
def my_hands(tmp_path_factory):
    """16 drawn hands of one appearance, darkened, of four recordings."""
    folder = tmp_path_factory.mktemp("data") / "my_hands"
    folder.mkdir()
    hands, lines = SyntheticHands(seed=11, size_px=112, num=16), []
    for number in range(16):
        sample = hands[number]
        lines.append(
            labelled(replace(sample, rgb=255 - sample.rgb // 2), folder, number) | {"sequence": f"s{number % 4}"}
        )
    return write(folder, lines)


# ------------------------------------------------------------------------------------------------------- the settings


@pytest.mark.parametrize("name", [name for name in bundled_configs() if name != "wilor_mix"])
def test_any_config_starts_from_the_shipped_network(name):
    config, _ = load_config(name, init_from="ti")
    assert differences(config.model, read_config("ti").model) == []
    assert config.train.init_from == "ti"
    assert config.data == Config.load(name).data


def test_what_the_config_leaves_open_is_the_networks(network, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {lr: 1.0e-4}\n")
    config, lines = load_config(path, init_from=str(network))
    assert (config.model, config.crop.expand, config.train.lr) == (SMALL.model, 1.7, 1e-4)
    assert [word for word in ("model.size_px 64", "crop.expand 1.7") if word not in lines[0]] == []
    model, _ = make_model(config.model, config.train)
    saved = load_checkpoint(network)[0].state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_who_wins_where_the_config_contradicts(network, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"model: {{size_px: 96}}\ncrop: {{expand: 2.5}}\ntrain: {{init_from: {network}}}\n")
    config, lines = load_config(path)  # all in one file: it contradicts itself, and make_model refuses it
    assert (config.model.size_px, config.crop.expand) == (96, 2.5)
    assert "model.size_px 96 (there 64)" in lines[-1]
    with pytest.raises(InputError, match="another network"):
        make_model(config.model, config.train)
    config, lines = load_config(path, init_from=str(network))  # the command line gives the network
    assert (config.model.size_px, config.crop.expand) == (64, 2.5)
    assert "model.size_px 64 (not 96)" in lines[0]
    assert load_config(path, ["model.size_px=32"], init_from=str(network))[0].model.size_px == 32
    assert load_config(path, ["train.init_from=''"])[1] == []


def test_heads_come_with_their_losses_and_can_be_added(network, tmp_path):
    of = Config(
        model=ModelConfig(size_px=64, uncertainty=True, evidence=True), loss=LossConfig(w_uncertainty=0.002, w_side=0.1)
    )
    save_checkpoint(tmp_path / "heads", UTNet(of.model), of)
    config, _ = load_config("finetune", init_from=str(tmp_path / "heads"))
    assert (config.loss.w_uncertainty, config.loss.w_side) == (0.002, 0.1)
    config, _ = load_config("open_ti_prompts", init_from=str(network))
    assert config.model.prompts
    assert differences(config.model, SMALL.model) == []


# ----------------------------------------------------------------------------------------------------------- the data


def test_replayed_hands_have_their_share(my_hands):
    config = override(load_config("finetune")[0], [f"data.root={my_hands}", "model.size_px=64"])
    source = open_training(config)
    assert source.shares == pytest.approx([1 / 2, 1 / 2])
    stream = source.stream(seed=0, epoch=0, part=0, num_parts=1)
    keys = [next(stream).key for _ in range(60)]
    assert {key[:1] for key in keys} == {"0", "1"}
    parts = [
        {"name": "custom", "root": str(my_hands), "weight": 3.0},
        {"name": "synth", "weight": 1.0},
    ]
    mixed = override(config, [f"data={json.dumps({'name': 'mixture', 'mixture': parts})}"])
    assert open_training(mixed).shares == pytest.approx([3 / 8, 1 / 8, 1 / 2])


def test_labelled_data_find_their_validation_hands(tmp_path, network, my_hands, capsys):
    small = ["--set", "train.steps=1", "train.batch_size=2", "train.num_workers=0", "val.limit=2", "train.pictures=0"]
    where = ["data.name=custom", f"data.root={my_hands}", "data.split=train"]
    with pytest.raises(SystemExit):  # no line is for validation: train holds all of them
        main(["train", "--from", str(network), "--out", str(tmp_path / "a"), *small, *where])
    assert "train_fit" in capsys.readouterr().err
    folder = Path(shutil.copytree(my_hands, tmp_path / "split"))
    lines = [json.loads(line) for line in (folder / "hands.jsonl").read_text().splitlines()]
    write(folder, [line | {"split": "val" if line["sequence"] == "s3" else "train"} for line in lines])
    where[1] = f"data.root={folder}"
    main(["train", "--from", str(network), "--out", str(tmp_path / "b"), *small, *where])
    assert "validating on custom val" in capsys.readouterr().out
    folder.rename(tmp_path / "moved")
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(tmp_path / "b"), "--set", "train.steps=2"])
    assert f"data.root={folder}" in capsys.readouterr().err
    moved = [f"data.root={tmp_path / 'moved'}", f"val.root={tmp_path / 'moved'}"]
    main(["train", "--resume", str(tmp_path / "b"), "--set", "train.steps=2", *moved])
    assert "of 2 steps" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize("left_out", ["export", pytest.param("", marks=pytest.mark.long)])
def test_every_line_of_the_page_runs(left_out, my_hands, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utnet.predict.predictor.HandDetector", Drawn)
    shutil.copytree(my_hands, "my_hands")
    for person in ("ann", "ben"):
        pictures(Path("photos") / person, "a.png")
    shutil.copy("photos/ann/a.png", "photo.png")
    text = PAGE.read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    scope = {}
    exec(snippet, scope)
    lines = [json.loads(line) for line in Path("my_hands/hands.jsonl").read_text().splitlines()]
    scope["write_lines"]("my_hands", [line | {"recording": line["sequence"]} for line in lines])
    small = "train.steps=2 train.batch_size=4 train.num_workers=0 train.pictures=0 replay.limit=2 val.limit=4"
    run = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        for line in block.splitlines():
            words = shlex.split(line)[1:]
            if words[0] == left_out:  # ten seconds
                continue
            run.append(words[0])
            main([*words, *(small.split() if words[0] == "train" else ())])
    every = ["label", "data", "data", "train", "eval", "eval", "compare", "predict", "export"]
    assert run == [name for name in every if name != left_out]
    printed = capsys.readouterr().out
    for words in ("settings of ti", "before -> after", "scored on the split val; there is no test"):
        assert words in printed
    config = override(load_config("finetune")[0], ["data.root=labelled"])  # what `utnet label` wrote serves as well
    assert [len(open_training(config).parts[0]), len(open_validation(config))] == [1, 1]
    rows = json.loads(Path("runs/finetune/run.json").read_text())["before_after"]
    assert [bool(row["before"]) and bool(row["after"]) for row in rows] == [True, True]
