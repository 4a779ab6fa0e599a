"""The command line: what a user types, what they see, and how bad input ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import utnet
from utnet.checkpoint import save_checkpoint
from utnet.cli.main import main
from utnet.config import Config, ModelConfig, SynthConfig, override
from utnet.errors import InputError
from utnet.model import UTNet
from utnet.model.presets import resolve_preset
from utnet.synth.write_tars import write_tars

ROOT = Path(__file__).parents[2]


def fails(capsys, *arguments):
    """The error line of a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if line and not line.startswith("train:")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("utnet: "), lines
    return lines[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "best"
    torch.manual_seed(0)
    config = Config(model=ModelConfig(size_px=64))
    save_checkpoint(folder, UTNet(config.model), config, step=0)
    return folder


def test_import_is_light():
    code = "import sys, utnet; print(sorted({'torch', 'numpy', 'cv2', 'numba', 'tyro'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_at_the_top_are_what_they_say():
    from utnet.hand import HandModel
    from utnet.losses import UTNetLoss

    assert utnet.HandModel is HandModel
    assert utnet.UTNetLoss is UTNetLoss
    for name in utnet.__all__:
        assert callable(getattr(utnet, name)) or name == "__version__"


def test_the_version_is_printed(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"utnet {utnet.__version__}\n"


def test_doctor_tells_versions_and_remedies(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("UTNET_MANO_DIR", str(tmp_path))
    main(["doctor"])
    text = capsys.readouterr().out
    for word in (utnet.__version__, torch.__version__, "threads:", "GPU:", "1609 vertices", "MANO_RIGHT.pkl", "dev"):
        assert word in text


@pytest.mark.parametrize("layout", ["dexycb", "ho3d"])
def test_synth_then_eval(layout, checkpoint, tmp_path, capsys):
    tree, scores = tmp_path / "tree", tmp_path / "scores.json"
    main(["synth", "--layout", layout, "--num", "64", "--seed", "1", "--out", str(tree)])
    main(["eval", str(checkpoint), "--data", layout, "--root", str(tree), "--json", str(scores)])
    assert "best constant hand" in capsys.readouterr().out
    tree_of_scores = json.loads(scores.read_text())
    assert set(tree_of_scores) == {"num", "constant", "rgb", "rgbd"}
    assert fails(capsys, "synth", "--layout", layout, "--num", "8", "--out", str(tree)).startswith(f"utnet: {tree}")


def test_bad_input_is_one_line_and_exit_code_2(checkpoint, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("loss: {w_2D: 0.1}\n")
    assert "unknown key 'w_2D'; did you mean 'w_2d'?" in fails(capsys, "train", str(config))
    assert "no such config file" in fails(capsys, "train", str(tmp_path / "none.yaml"))
    assert "weights.safetensors: no such file" in fails(capsys, "eval", str(tmp_path))
    eval_ = ["eval", str(checkpoint), "--data", "dexycb"]
    assert "no folder is given for dexycb" in fails(capsys, *eval_)
    assert "no such folder" in fails(capsys, *eval_, "--root", str(tmp_path / "none"))
    assert "--data is not" in fails(capsys, "eval", str(checkpoint), "--root", str(tmp_path))
    assert "in a folder that exists" in fails(
        capsys, "eval", str(checkpoint), "--json", str(tmp_path / "no" / "x.json")
    )
    assert "give a checkpoint folder such as" in fails(capsys, "eval", str(checkpoint.parent))
    broken = [
        "--set",
        "train.lr=1e30",
        "train.warmup_steps=0",
        "train.clip_grad=0",
        "train.batch_size=2",
        "val.limit=2",
    ]
    config.write_text("model: {size_px: 64}\ntrain: {num_workers: 0, steps: 30}\nval: {name: synth}\n")
    assert "bad_batch.json; a lower train.lr" in fails(
        capsys, "train", str(config), "--out", str(tmp_path / "r"), *broken
    )


def test_every_config_in_config_loads_and_survives_a_round_trip(tmp_path):
    paths = sorted((ROOT / "config").glob("*.yaml"))
    assert {"config.yaml", "demo.yaml", "wilor_loss.yaml"} <= {path.name for path in paths}
    for path in paths:
        config = Config.load(path)
        config.save(tmp_path / path.name)
        assert Config.load(tmp_path / path.name) == config
        resolve_preset(config.model)


def test_overrides_are_strict():
    config = override(Config(), ["train.lr=1e-4", "data.limit=5", "synth.distance_m=[0.3, 0.5]"])
    assert (config.train.lr, config.data.limit, config.synth.distance_m) == (1e-4, 5, (0.3, 0.5))
    for change, message in (("train.lR=1", "did you mean 'lr'"), ("train.lr", "expected KEY=VALUE"), ("a.b=1", "'a'")):
        with pytest.raises(InputError, match=message):
            override(Config(), [change])


def test_trees_are_drawn_as_the_config_says(tmp_path, capsys):
    config, drawn = tmp_path / "run.yaml", ["synth", "--layout", "tars", "--num", "2"]
    config.write_text("synth: {forearm: false}\n")
    full = fails(capsys, *drawn, "--out", str(tmp_path / "full"), "--set", "synth.appearance=full")
    assert "plain appearance" in full
    assert not (tmp_path / "full").exists()
    write_tars(tmp_path / "expected", num=2, synth_config=SynthConfig(forearm=False), progress=False)
    write_tars(tmp_path / "default", num=2, progress=False)
    main([*drawn, "--out", str(tmp_path / "by_file"), "--config", str(config)])
    main([*drawn, "--out", str(tmp_path / "by_set"), "--set", "synth.forearm=false"])
    names = ("expected", "default", "by_file", "by_set")
    expected, default, by_file, by_set = ((tmp_path / name / "000000.tar").read_bytes() for name in names)
    assert by_file == by_set == expected != default
