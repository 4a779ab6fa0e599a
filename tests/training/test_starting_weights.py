"""Other projects' encoders give the same image features here: against each original, written out from its description.

The files are made up: small, random, with the published names. `original` is the plain computation with explicit
attention matrices, in float64.
"""

import argparse
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from utnet.checkpoint import load_checkpoint
from utnet.config import Config, DataConfig, ModelConfig, TrainConfig
from utnet.errors import InputError
from utnet.hand import HandModel
from utnet.model import UTNet
from utnet.model.tokens import normalise_rgb
from utnet.training.loop import train
from utnet.training.pretrained import LAYOUTS, entry_names, load_backbone, native_grid

DIM, DEPTH, HEADS = 48, 3, 4
NARROW = {"preset": "b", "dim": DIM, "num_blocks": DEPTH, "num_heads": HEADS}
VITPOSE = ModelConfig(size_px=128, width_px=96, patch_pad_px=2, **NARROW)
DINOV2 = ModelConfig(size_px=84, patch_px=14, layer_scale=True, **NARROW)
MAE = ModelConfig(size_px=96, **NARROW)
CONFIGS = {"vitpose": VITPOSE, "dinov2": DINOV2, "mae": MAE}
GRIDS = {"vitpose": (8, 6), "dinov2": (6, 6), "mae": (6, 6)}
SHARED_ROW = {"vitpose"}


def published(kind, dim=DIM, depth=DEPTH, patch_px=None, grid=None):
    """Name -> shape, as the project's files have them, less what it leaves in for its own heads."""
    patch_px = patch_px or (14 if kind == "dinov2" else 16)
    rows, columns = grid or GRIDS[kind]
    shapes = {"pos_embed": (1, 1 + rows * columns, dim), "patch_embed.proj.weight": (dim, 3, patch_px, patch_px)}
    shapes["patch_embed.proj.bias"] = (dim,)
    for i in range(depth):
        layers = {"norm1": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "norm2": (dim,)}
        layers |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
        for name, shape in layers.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        if kind == "dinov2":
            shapes |= {f"blocks.{i}.ls{half}.gamma": (dim,) for half in (1, 2)}
    norm = "last_norm" if kind == "vitpose" else "norm"
    return shapes | {f"{norm}.weight": (dim,), f"{norm}.bias": (dim,)}


def random_state(kind, **changes):
    generator = torch.Generator().manual_seed(1)
    shapes = published(kind, **changes)
    if kind != "vitpose":
        shapes["cls_token"] = (1, 1, DIM)
    if kind == "dinov2":
        shapes["mask_token"] = (1, DIM)
    state = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    for name in state:
        if re.search(r"norm\d?\.weight", name):
            state[name] += 1
    return state


def file_tree(kind, state):
    """The state dict as the project saves it, with what it has beside the backbone."""
    if kind == "vitpose":
        head = {
            "keypoint_head.final_layer.weight": torch.zeros(17, 8),
            "keypoint_head.deconv_layers.1.running_var": [1],
        }
        head = {name: torch.as_tensor(value) for name, value in head.items()}
        return {
            "state_dict": {f"backbone.{name}": value for name, value in state.items()} | head,
            "meta": {"epoch": 210},
        }
    return {"model": state, "args": argparse.Namespace(lr=1e-3)} if kind == "mae" else dict(state)


def written(tmp_path, tree, name="weights.pth"):
    torch.save(tree, tmp_path / name)
    return tmp_path / name


def original(kind, state, rgb, num_heads=HEADS, registers=None):
    """Image features of the project's own network at the grid of its positions: (B, N, dim), float64."""
    state = {name: tensor.double() for name, tensor in state.items()}
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    x = (rgb.double() - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    weight = state["patch_embed.proj.weight"]
    pad, patch = (2 if kind == "vitpose" else 0), weight.shape[-1]
    pieces = F.unfold(x, patch, padding=pad, stride=patch).transpose(1, 2)
    x = pieces @ weight.flatten(1).T + state["patch_embed.proj.bias"]
    positions = state["pos_embed"]
    x = x + positions[:, 1:] + (positions[:, :1] if kind == "vitpose" else 0)
    ahead = 0
    if kind != "vitpose":
        first = [state["cls_token"] + positions[:, :1], *([registers.double()] if registers is not None else [])]
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in first), x], 1)
        ahead = sum(token.shape[1] for token in first)
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for i in range(depth):
        block = f"blocks.{i}"
        q, k, v = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, -1)
        size, mixed = x.shape[-1] // num_heads, []
        for head in range(num_heads):
            own = slice(head * size, (head + 1) * size)
            mixed.append(((q[..., own] @ k[..., own].transpose(1, 2)) / size**0.5).softmax(-1) @ v[..., own])
        added = linear(torch.cat(mixed, -1), f"{block}.attn.proj")
        x = x + added * state.get(f"{block}.ls1.gamma", torch.ones(()))
        hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        added = linear(0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)), f"{block}.mlp.fc2")
        x = x + added * state.get(f"{block}.ls2.gamma", torch.ones(()))
    return norm(x, "last_norm" if kind == "vitpose" else "norm")[:, ahead:]


def features(model, rgb, ahead=None):
    """Image tokens after our stem, positions, blocks and norm; the tokens `ahead` take the place of the hand's."""
    with torch.inference_mode():
        image = model.stem(normalise_rgb(model._seen(rgb)), None, None)[0]
        tokens = image.flatten(2).transpose(1, 2) + model.pos_embed
        if ahead is None:
            return model.encoder(tokens)
        return model.encoder(torch.cat([ahead.expand(len(rgb), -1, -1), tokens], 1))[:, ahead.shape[1] :]


def ahead_of(kind, state):
    """The tokens that the original has before the patches, and UTNet has not."""
    return None if kind == "vitpose" else state["cls_token"] + state["pos_embed"][:, :1]


def assert_equal_features(kind, model, state, registers=None):
    rgb = torch.rand(2, 3, model.config.size_px, model.config.size_px, generator=torch.Generator().manual_seed(2))
    ahead = ahead_of(kind, state)
    if registers is not None:
        ahead = torch.cat([ahead, registers], 1)
    expected = original(kind, state, model._seen(rgb), registers=registers)
    found = (features(model, rgb, ahead).double() - expected).abs() / expected.abs().clamp_min(1)
    print(f"{kind}: largest deviation {float(found.max()):.1e}")
    assert found.max() <= 2e-5


@pytest.fixture
def model():
    def make(config):
        torch.manual_seed(0)
        return UTNet(config).eval()

    return make


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_image_features_are_the_originals(model, tmp_path, kind, named):
    state, ours = random_state(kind), model(CONFIGS[kind])
    report = load_backbone(ours, written(tmp_path, file_tree(kind, state)), kind=kind if named else "auto")
    assert report.title == LAYOUTS[kind].title
    assert_equal_features(kind, ours, state)
    assert len(report.loaded) == len(published(kind))


def test_layer_scale_can_be_multiplied_into_the_weights(model, tmp_path):
    state, ours = random_state("dinov2"), model(replace(DINOV2, layer_scale=False))
    report = load_backbone(ours, written(tmp_path, state))
    assert_equal_features("dinov2", ours, state)
    assert ours.encoder.blocks[0].scale1 is None
    assert f"LayerScale multiplied into {2 * DEPTH} layers" in str(report)
    assert len(report.loaded) == len(published("dinov2"))


def test_registers_and_a_training_checkpoint_in_chunks(model, tmp_path):
    state, ours = random_state("dinov2"), model(DINOV2)
    registers = torch.randn(1, 4, DIM)
    chunked = {
        re.sub(r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) // 2}.{m[1]}", name): value
        for name, value in state.items()
    }
    assert "blocks.1.2.norm1.weight" in chunked
    teacher = {f"backbone.{name}": value for name, value in {**chunked, "register_tokens": registers}.items()}
    teacher["dino_head.mlp.0.weight"] = torch.zeros(2, 2)
    report = load_backbone(ours, written(tmp_path, {"teacher": teacher}))
    assert_equal_features("dinov2", ours, state, registers)
    assert set(report.left_out) == {
        "backbone.cls_token",
        "backbone.mask_token",
        "backbone.register_tokens",
        "dino_head.mlp.0.weight",
    }


def test_mae_with_patch_14_in_the_largest_preset(model, tmp_path):
    config = ModelConfig(**{**NARROW, "preset": "h"}, size_px=84, width_px=84, patch_px=14, patch_pad_px=0)
    state, ours = random_state("mae", patch_px=14), model(config)
    load_backbone(ours, written(tmp_path, file_tree("mae", state)))
    assert_equal_features("mae", ours, state)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("vitpose", lambda m, state: setattr(m.encoder.blocks[1].attn, "num_heads", 8)),
        ("vitpose", lambda m, state: setattr(m.stem.patches, "padding", (0, 0))),
        ("vitpose", lambda m, state: m.pos_embed.data.sub_(state["pos_embed"][:, :1])),
        ("mae", lambda m, state: m.pos_embed.data.add_(state["pos_embed"][:, :1])),
        ("mae", lambda m, state: setattr(m.encoder.blocks[0].norm2, "eps", 1e-2)),
        ("dinov2", lambda m, state: m.encoder.blocks[2].scale2.data.fill_(1.0)),
    ],
    ids=["heads", "padding", "row 0", "row 0 of MAE", "eps", "scale"],
)
def test_the_comparison_notices_a_difference(model, tmp_path, kind, change):
    state, ours = random_state(kind), model(CONFIGS[kind])
    load_backbone(ours, written(tmp_path, file_tree(kind, state)))
    with torch.no_grad():
        change(ours, state)
    with pytest.raises(AssertionError):
        assert_equal_features(kind, ours, state)


# ----------------------------------------------------------------------------------------------------------- positions


def weights_1d(old, new, scale, a, smooth):
    """(new, old) weights of Keys' cubic kernel at half-pixel centres; its widths grow with the ratio where `smooth`."""
    ratio = 1 / scale
    widen = max(ratio, 1.0) if smooth else 1.0
    result = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * ratio - 0.5
        reach = int(np.ceil(2 * widen)) + 1
        for j in range(int(np.floor(centre)) - reach, int(np.floor(centre)) + reach + 1):
            t = abs(j - centre) / widen
            near = ((a + 2) * t - (a + 3)) * t * t + 1
            far = a * (((t - 5) * t + 8) * t - 4)
            weight = near if t <= 1 else far if t < 2 else 0.0
            if not smooth:
                result[i, min(max(j, 0), old - 1)] += weight  # edges are repeated
            elif 0 <= j < old:
                result[i, j] += weight  # edges are cut off, and the rest is brought to 1
    return result / result.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "registers", "config", "grid", "margin"),
    [
        ("vitpose", False, replace(VITPOSE, size_px=192, width_px=160), (8, 6), 0.0),
        ("vitpose", False, replace(VITPOSE, size_px=96, width_px=96), (8, 6), 0.0),
        ("mae", False, replace(MAE, size_px=160, width_px=128), (6, 6), 0.0),
        ("dinov2", False, replace(DINOV2, size_px=70), (9, 9), 0.1),
        ("dinov2", False, replace(DINOV2, size_px=112, width_px=84), (6, 6), 0.1),
        ("dinov2", True, replace(DINOV2, size_px=70, width_px=56), (11, 11), 0.0),
        ("dinov2", True, replace(DINOV2, size_px=112, width_px=112), (6, 6), 0.0),
    ],
)
def test_positions_are_interpolated_as_each_project_does(model, tmp_path, kind, registers, config, grid, margin):
    state, ours = random_state(kind, grid=grid), model(config)
    if registers:
        state["register_tokens"] = torch.zeros(1, 4, DIM)
    report = load_backbone(ours, written(tmp_path, file_tree(kind, state)))
    rows, columns = config.size_px // ours.preset.patch_px, ours.width_px // ours.preset.patch_px
    positions = state["pos_embed"].double().numpy()[0]
    maps = positions[1:].reshape(*grid, DIM) + (positions[0] if kind in SHARED_ROW else 0)
    a = -0.5 if registers else -0.75
    down = weights_1d(grid[0], rows, (rows + margin) / grid[0], a, registers)
    along = weights_1d(grid[1], columns, (columns + margin) / grid[1], a, registers)
    expected = np.einsum("ij,jkd,lk->ild", down, maps, along).reshape(rows * columns, DIM)
    np.testing.assert_allclose(ours.pos_embed[0].detach().numpy(), expected, atol=2e-5)
    assert f"positions of {rows} x {columns} patches interpolated from {grid[0]} x {grid[1]}" in str(report)
    rgb = torch.rand(1, 3, config.size_px, config.size_px)
    with torch.inference_mode():
        assert ours(rgb).vertices_m.isfinite().all()


def test_the_grid_of_a_position_embedding():
    published_grids = {
        196: (14, 14),
        256: (16, 16),
        1369: (37, 37),
        192: (16, 12),
        432: (24, 18),
        36: (6, 6),
        48: (8, 6),
    }
    assert {num: native_grid(num) for num in published_grids} == published_grids
    assert [native_grid(num) for num in (-1, 0, 2, 193, 50)] == [None] * 5


# ------------------------------------------------------------------------------------------------------ published sizes

SIZES = [
    ("vitpose", {"preset": "b"}, (768, 12, 12), 16, (16, 12)),
    ("vitpose", {"preset": "l"}, (1024, 24, 16), 16, (16, 12)),
    ("vitpose", {"preset": "h"}, (1280, 32, 16), 16, (16, 12)),
    ("dinov2", {"preset": "b", "dim": 384, "num_blocks": 12, "num_heads": 6}, (384, 12, 6), 14, (37, 37)),
    ("dinov2", {"preset": "b"}, (768, 12, 12), 14, (37, 37)),
    ("dinov2", {"preset": "l"}, (1024, 24, 16), 14, (37, 37)),
    ("mae", {"preset": "b"}, (768, 12, 12), 16, (14, 14)),
    ("mae", {"preset": "l"}, (1024, 24, 16), 16, (14, 14)),
    ("mae", {"preset": "h"}, (1280, 32, 16), 14, (16, 16)),
]


@pytest.mark.parametrize(("kind", "settings", "sizes", "patch_px", "grid"), SIZES)
def test_every_published_size_has_its_place(kind, settings, sizes, patch_px, grid):
    """Every entry of the published file has one of its shape, and every one of our encoder has an entry."""
    dim, depth, heads = sizes
    size_px = 224 if patch_px == 14 else 256
    config = ModelConfig(size_px=size_px, width_px=size_px, patch_px=patch_px, layer_scale=kind == "dinov2", **settings)
    hand = HandModel.open()
    with torch.device("meta"):
        ours = UTNet(replace(config, patch_pad_px=LAYOUTS[kind].patch_pad_px), hand)
    assert ours.preset.num_heads == heads == LAYOUTS[kind].num_heads[dim]
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    file = published(kind, dim, depth, patch_px, grid)
    names = entry_names(kind, depth)
    assert set(names) == set(file)
    for theirs, own in names.items():
        assert own == "pos_embed" or shapes[own] == file[theirs], theirs
    wanted = {name for name in shapes if name.startswith(("encoder.", "stem.patches.")) or name == "pos_embed"}
    assert set(names.values()) == wanted
    assert native_grid(file["pos_embed"][1] - 1) == grid


# -------------------------------------------------------------------------------------------------------------- reports


def test_the_report_accounts_for_every_entry(model, tmp_path):
    ours = model(VITPOSE)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    tree = file_tree("vitpose", random_state("vitpose"))
    tree["state_dict"]["backbone.cls_token"] = torch.zeros(1, 1, DIM)
    report = load_backbone(ours, written(tmp_path, tree))
    assert set(report.loaded) | set(report.left_out) == set(tree["state_dict"])
    assert set(report.loaded) & set(report.left_out) == set()
    assert set(report.loaded.values()) | set(report.created) == set(before)
    after = ours.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in report.created)
    assert not any(torch.equal(before[name], after[name]) for name in report.loaded.values())
    text = str(report)
    assert f"{len(report.loaded)} entries loaded (ViTPose)" in text
    assert "its keypoint head: keypoint_head.deconv_layers.1.running_var, keypoint_head.final_layer.weight" in text
    assert "positions of 8 x 6 patches as they are; row 0 added to every patch" in text
    assert f"new, from their own start: {len(report.created)} entries" in text
    assert "stem.embed_depth.0.weight" in text
    assert f"{HEADS} attention heads" in text


def test_depth_has_no_effect_at_the_start(model, tmp_path):
    ours = model(DINOV2)
    load_backbone(ours, written(tmp_path, random_state("dinov2")))
    rgb, depth = torch.rand(2, 3, 84, 84), 0.5 + torch.rand(2, 84, 84)
    with torch.inference_mode():
        assert torch.equal(ours(rgb).joints_m, ours(rgb, depth).joints_m)


def test_the_visualising_file_of_mae_has_a_decoder(model, tmp_path):
    state = random_state("mae")
    extra = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, DIM)}
    extra |= {"decoder_blocks.0.norm1.weight": torch.zeros(8), "decoder_pos_embed": torch.zeros(1, 37, 8)}
    report = load_backbone(model(MAE), written(tmp_path, {"model": state | extra}))
    assert set(report.left_out) == {"cls_token", *extra}


def test_half_precision_and_safetensors(model, tmp_path):
    state = {name: value.half() for name, value in random_state("dinov2").items()}
    save_file(state, tmp_path / "weights.safetensors")
    ours = model(DINOV2)
    load_backbone(ours, tmp_path / "weights.safetensors")
    assert_equal_features("dinov2", ours, {name: value.float() for name, value in state.items()})
    assert all(parameter.dtype == torch.float32 for parameter in ours.parameters())


# ------------------------------------------------------------------------------------------------------------- refusals


class _Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_files_that_are_no_weights_are_refused(model, tmp_path):
    ours = model(MAE)
    torch.save({"model": random_state("mae"), "args": _Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({}, tmp_path / "nothing.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    torch.save({"head.weight": torch.zeros(2)}, tmp_path / "other.pth")
    names = ("evil.pth", "text.pth", "text.safetensors", "list.pth", "nothing.pth", "numbers.pth", "other.pth")
    for name in names:
        with pytest.raises(InputError, match=rf"{re.escape(name)}: ") as caught:
            load_backbone(ours, tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        load_backbone(ours, tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="'clip' is not known; choose auto, vitpose, dinov2, mae"):
        load_backbone(ours, tmp_path / "other.pth", kind="clip")


def _without(*names):
    return lambda state: {name: value for name, value in state.items() if name not in names}


def _with(name, value):
    return lambda state: {**state, name: value}


def _renamed(old, new):
    return lambda state: {name.replace(old, new): value for name, value in state.items()}


@pytest.mark.parametrize(
    ("kind", "change", "settings", "messages"),
    [
        ("mae", _without("blocks.1.attn.qkv.bias", "norm.bias"), {}, ["2 missing: blocks.1.attn.qkv.bias, norm.bias"]),
        (
            "mae",
            _renamed("blocks.1.", "blocks.7."),
            {},
            ["model.num_blocks is 3, the file's 8", "12 missing: blocks.1.", "12 un"],
        ),
        ("mae", _with("head.weight", torch.zeros(9)), {}, ["1 unknown: head.weight"]),
        ("mae", _with("norm.bias", torch.zeros(9)), {}, [r"norm.bias is (9,), expected (48,)"]),
        ("mae", _with("norm.bias", torch.full((DIM,), torch.nan)), {}, ["NaN or inf in norm.bias"]),
        ("mae", _with("norm.bias", "text"), {}, ["not tensors: norm.bias"]),
        ("mae", _with("pos_embed", torch.zeros(1, 36, DIM)), {}, ["pos_embed has 36 rows"]),
        ("mae", _with("pos_embed", torch.zeros(37, DIM)), {}, ["pos_embed is (37, 48)"]),
        ("mae", dict, {"num_blocks": 2}, ["model.num_blocks is 2, the file's 3", "12 unknown: blocks.2."]),
        ("mae", dict, {"num_blocks": 4}, ["model.num_blocks is 4, the file's 3", "12 missing: blocks.3."]),
        ("mae", dict, {"dim": 64}, ["model.dim is 64, the file's 48"]),
        ("mae", dict, {"size_px": 84, "patch_px": 14}, ["model.patch_px is 14, the file's 16"]),
        ("mae", dict, {"patch_pad_px": 2}, ["model.patch_pad_px is 2, the file's 0"]),
        ("mae", dict, {"layer_scale": True}, ["model.layer_scale is True, the file's False"]),
        ("mae", dict, {"preset": "s"}, ["'s' has a convolutional stem", "choose b, l or h"]),
        ("vitpose", _without("pos_embed"), {}, ["network: 1 missing: backbone.pos_embed"]),
        ("vitpose", dict, {"patch_pad_px": 0}, ["model.patch_pad_px is 0, the file's 2"]),
        (
            "vitpose",
            _with("blocks.0.mlp.experts.0.weight", torch.zeros(2)),
            {},
            ["1 unknown: backbone.blocks.0.mlp.exp"],
        ),
        ("dinov2", _renamed("mlp.fc1", "mlp.w12"), {}, ["SwiGLU", "use S, B or L"]),
        ("dinov2", _with("blocks.0.1.norm1.bias", torch.zeros(DIM)), {}, ["in two chunks"]),
        ("dinov2", _without("blocks.2.ls2.gamma"), {"layer_scale": False}, ["1 missing: blocks.2.ls2.gamma"]),
        (
            "dinov2",
            _with("blocks.2.ls2.gamma", torch.zeros(1)),
            {"layer_scale": False},
            ["ls2.gamma is (1,), expected (48"],
        ),
    ],
)
def test_what_does_not_fit_is_listed_and_changes_nothing(model, tmp_path, kind, change, settings, messages):
    ours = model(replace(CONFIGS[kind], **settings))
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    path = written(tmp_path, file_tree(kind, change(random_state(kind))))
    with pytest.raises(InputError) as caught:
        load_backbone(ours, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert all(message in str(caught.value) for message in messages), str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_a_published_width_has_its_published_heads(model, tmp_path):
    state = {name: torch.zeros(shape) for name, shape in published("dinov2", dim=384, depth=1).items()}
    path = written(tmp_path, state)
    config = replace(DINOV2, dim=384, num_blocks=1, num_heads=12)
    with pytest.raises(InputError, match=r"model\.num_heads is 12, the file's 6$"):
        load_backbone(model(config), path)
    report = load_backbone(model(replace(config, num_heads=6)), path)
    assert "attention heads" not in str(report)


def test_a_file_of_another_kind_than_said_is_refused(model, tmp_path):
    path = written(tmp_path, file_tree("mae", random_state("mae")))
    with pytest.raises(InputError, match=r"ViTPose's weights do not fit .*2 missing: last_norm.bias, last_norm.weight"):
        load_backbone(model(replace(MAE, patch_pad_px=2)), path, kind="vitpose")


# ------------------------------------------------------------------------------------------------------------- training


def test_training_starts_from_them(tmp_path):
    state = random_state("mae", grid=(4, 4))
    path = written(tmp_path, file_tree("mae", state))
    loop = TrainConfig(
        steps=1, batch_size=2, lr=1e-12, min_lr=0.0, weight_decay=0.0, num_workers=0, init_from=str(path)
    )
    config = Config(val=DataConfig(limit=2), model=replace(MAE, size_px=64), train=loop)
    train(config, tmp_path / "run", progress=False)
    model, saved = load_checkpoint(tmp_path / "run" / "last")
    assert saved == config
    assert_equal_features("mae", model, state)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["init"][0] == f"{path}: {len(published('mae'))} entries loaded (MAE)"


def test_training_stops_before_it_writes_where_they_do_not_fit(tmp_path):
    path = written(tmp_path, file_tree("vitpose", random_state("vitpose")))
    loop = TrainConfig(steps=1, num_workers=0, init_from=str(path))
    config = Config(val=DataConfig(limit=2), model=replace(MAE, size_px=64), train=loop)
    with pytest.raises(InputError, match=r"model\.patch_pad_px is 0, the file's 2"):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"train\.init_kind is 'clip'"):
        TrainConfig(init_kind="clip")
