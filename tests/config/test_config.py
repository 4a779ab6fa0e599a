"""The strict reader: what is written comes back, and whatever is wrong is named."""

from dataclasses import replace

import pytest

from utnet.config import (
    Config,
    DataConfig,
    LossConfig,
    SynthConfig,
    TrainConfig,
    bundled_configs,
    find_config,
    from_tree,
    override,
    to_tree,
)
from utnet.errors import InputError


def load(tmp_path, text: str) -> Config:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return Config.load(path)


def test_round_trip(tmp_path):
    config = Config(
        seed=7,
        val=DataConfig(name="dexycb", root="/data/ü", limit=12),
        synth=SynthConfig(distance_m=(0.3, 0.75), forearm=False),
        loss=LossConfig(w_2d=0.125, reduction="batch_mean"),
        train=TrainConfig(minutes=1.5, num_threads=2, lr=3e-7),
    )
    config.save(tmp_path / "run.yaml")
    assert Config.load(tmp_path / "run.yaml") == config


def test_saved_file_holds_every_knob(tmp_path):
    Config().save(tmp_path / "run.yaml")
    assert to_tree(Config.load(tmp_path / "run.yaml")) == to_tree(Config())
    text = (tmp_path / "run.yaml").read_text()
    for key in ("seed", "p_drop", "w_joint_map", "use_aux_loss", "fov_deg", "max_bad_samples", "minutes"):
        assert f"{key}:" in text


@pytest.mark.parametrize("text", ["", "# only a comment\n", "loss: {}\n"])
def test_absent_keys_keep_their_defaults(tmp_path, text):
    assert load(tmp_path, text) == Config()


def test_documented_loss_defaults():
    loss = Config().loss
    weights = (loss.w_2d, loss.w_3d_joint, loss.w_3d_vert, loss.w_prior, loss.w_aux)
    assert weights == (0.01, 0.05, 0.0, 0.001, 0.001)
    assert (loss.w_global_orient, loss.w_hand_pose, loss.w_betas, loss.w_pose_prior) == (0, 0, 0, 0)


def test_one_key_changes_one_knob(tmp_path):
    config = load(tmp_path, "loss:\n  w_3d_joint: 0.5\n")
    assert config == replace(Config(), loss=replace(LossConfig(), w_3d_joint=0.5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss: {w_2D: 1.0}", ["loss", "'w_2D'", "'w_2d'"]),
        ("loss: {w_3d_jiont: 1.0}", ["'w_3d_jiont'", "'w_3d_joint'"]),
        ("trian: {}", ["'trian'", "'train'"]),
        ("model: {qqqqqqqqqqqq: 1}", ["model", "'qqqqqqqqqqqq'", "preset, size_px, p_drop"]),
        ("5: 1", ["5", "known keys"]),
    ],
)
def test_unknown_key_is_named_with_the_nearest(tmp_path, text, expected):
    with pytest.raises(InputError, match="unknown key") as info:
        load(tmp_path, text)
    assert all(part in str(info.value) for part in ["run.yaml", *expected])
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1.5", ["seed", "int", "1.5"]),
        ("seed: true", ["seed", "int", "True"]),
        ("seed: '3'", ["seed", "int", "'3'"]),
        ("loss: {w_2d: much}", ["loss", "w_2d", "float", "'much'"]),
        ("loss: {w_2d: true}", ["w_2d", "float", "True"]),
        ("loss: {w_2d: null}", ["w_2d", "float", "None"]),
        ("loss: {use_aux_loss: 1}", ["use_aux_loss", "bool", "1"]),
        ("loss: {loss_type: 1}", ["loss_type", "str", "1"]),
        ("loss: 3", ["loss", "mapping", "3"]),
        ("[1, 2]", ["mapping", "[1, 2]"]),
        ("[]", ["mapping", "[]"]),
        ("false", ["mapping", "False"]),
        ("data: null", ["data", "mapping", "None"]),
        ("synth: {fov_deg: [40]}", ["fov_deg", "2 values", "[40]"]),
        ("synth: {fov_deg: [40, 50, 60]}", ["fov_deg", "2 values"]),
        ("synth: {fov_deg: 40}", ["fov_deg", "2 values"]),
        ("synth: {fov_deg: [40, wide]}", ["fov_deg[1]", "float", "'wide'"]),
        ("train: {minutes: soon}", ["minutes", "float", "'soon'"]),
        ("data: {limit: 2.5}", ["limit", "int", "2.5"]),
    ],
)
def test_wrong_type_is_named(tmp_path, text, expected):
    with pytest.raises(InputError) as info:
        load(tmp_path, text)
    assert all(part in str(info.value) for part in ["run.yaml", *expected])
    assert "\n" not in str(info.value)


def test_numbers_that_mean_the_same(tmp_path):
    config = load(tmp_path, "loss: {w_2d: 1}\ntrain: {lr: 1e-3, minutes: 2}\nsynth: {fov_deg: [40, 60]}\n")
    assert (config.loss.w_2d, config.train.lr, config.train.minutes) == (1.0, 0.001, 2.0)
    assert config.synth.fov_deg == (40.0, 60.0)
    assert all(
        type(v) is float for v in (config.loss.w_2d, config.train.lr, config.train.minutes, *config.synth.fov_deg)
    )


def test_null_is_none_for_optional_knobs(tmp_path):
    config = load(tmp_path, "val: null\ndata: {limit: null}\ntrain: {minutes: null, num_threads: null}\n")
    assert config == Config()
    assert load(tmp_path, "val: {name: ho3d}\n").val == DataConfig(name="ho3d")


def test_keys_of_earlier_files_are_read(tmp_path):
    config = load(tmp_path, "model: {depth: 3}")
    assert config.model.num_blocks == 3
    assert "depth" not in to_tree(config)["model"]
    assert override(Config(), ["model.depth=3"]).model.num_blocks == 3
    with pytest.raises(InputError, match="earlier name"):
        load(tmp_path, "model: {depth: 3, num_blocks: 4}")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match="no such config file") as info:
            Config.load(path)
        assert str(path) in str(info.value)


@pytest.mark.parametrize("content", [b"a: [1\n", b"\xff\xfe\x00", b"a: !!python/object/apply:os.getcwd []\n"])
def test_what_is_not_yaml_is_refused(tmp_path, content):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError, match="not a YAML file") as info:
        Config.load(tmp_path / "bad.yaml")
    assert "\n" not in str(info.value)


def test_an_error_in_yaml_names_its_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("seed: 1\ndata: [1\n")
    with pytest.raises(InputError, match=r"bad\.yaml: not a YAML file: line 3: .*correct it$"):
        Config.load(tmp_path / "bad.yaml")


def test_from_tree_is_strict_for_parts_too():
    assert from_tree(LossConfig, {"w_2d": 2}) == LossConfig(w_2d=2.0)
    with pytest.raises(InputError, match="did you mean 'root_id'"):
        from_tree(LossConfig, {"rootid": 0})


def test_a_value_out_of_range_names_file_and_key(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("crop: {expand: 0.5}\n")
    with pytest.raises(InputError) as caught:
        Config.load(path)
    assert str(caught.value).startswith(f"{path}: crop.expand is 0.5; ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.minutes=0", "train.minutes is 0.0; expected more than 0"),
        ("train.eval_every=0", "train.eval_every"),
        ("train.lr=.nan", "train.lr"),
        ("train.precision=fp16", "'fp32' or 'bf16'"),
        ("model.size_px=100", "multiple of 32"),
        ("crop.expand=0", "crop.expand"),
        ("synth.max_tilt_deg=0", "synth.max_tilt_deg"),
        ("synth.distance_m=[2.0, 1.0]", "synth.distance_m"),
        ("synth.distance_m=[0.25, 1.0]", "synth.distance_m is .*; expected two rising numbers from 0.3 to 10"),
        ("data.limit=0", "data.limit"),
        ("seed=-1", "seed is -1"),
        ("train.lr=[", "not YAML"),
    ],
)
def test_values_out_of_range_are_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        override(Config(), [change])


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "twice.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(InputError, match=r"twice\.yaml.*'seed' is given twice"):
        Config.load(tmp_path / "twice.yaml")


def test_a_bundled_config_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"config", "demo", "dexycb_s0_rgbd", "open_ti"} <= set(bundled_configs())
    assert Config.load("dexycb_s0_rgbd").data.name == "dexycb"
    (tmp_path / "demo").write_text("seed: 3\n")  # a file of the user's comes first
    assert Config.load("demo").seed == 3
    for path, word in (("dexycb_s0_rgbb", "dexycb_s0_rgb"), ("zzz", "ho3d_v3_rgbd"), ("no/config.yaml", "config")):
        with pytest.raises(InputError, match=f"no such config file.*{word}"):
            find_config(path)
