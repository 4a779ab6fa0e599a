"""WiLoR's weights give WiLoR's outputs; an RGB-D network made of them starts out equal and can learn depth."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from support.networks import PUBLISHED_OUTPUTS as OUTPUTS
from utnet.checkpoint import import_wilor, load_checkpoint, save_checkpoint
from utnet.config import Config, ModelConfig
from utnet.errors import InputError
from utnet.hand import HandModel
from utnet.model import UTNet
from utnet.model.refiner import MaxPoolRefiner
from utnet.model.wilor import entry_names

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "wilor_small.npz") as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(scope="module")
def rgb(golden):
    return torch.from_numpy(golden["rgb"]).float() / 255


@pytest.fixture
def state(golden):
    return {name[3:]: torch.from_numpy(np.array(golden[name])) for name in golden if name.startswith("sd/")}


@pytest.fixture
def model(state):
    return import_wilor(state, num_heads=4)


def deviations(model, golden, rgb):
    """Largest difference of each output, relative to max(1, |output|)."""
    with torch.inference_mode():
        out = model(rgb)
    result = {}
    for theirs, ours in OUTPUTS.items():
        expected = torch.from_numpy(golden[f"out/{theirs}"])
        assert getattr(out, ours).shape == expected.shape
        result[theirs] = float(((getattr(out, ours) - expected).abs() / expected.abs().clamp_min(1)).max())
    return result


def assert_equal(a, b):
    for name in OUTPUTS.values():
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_outputs_are_wilors(model, golden, rgb):
    found = deviations(model, golden, rgb)
    print(", ".join(f"{name} {value:.1e}" for name, value in found.items()))
    assert max(found.values()) <= 2e-5
    assert not model.training
    assert (model.hand.name, model.hand.num_vertices) == ("mano", 778)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.encoder.blocks[1].attn, "num_heads", 8),
        lambda m: setattr(m.stem.patches, "padding", (0, 0)),
        lambda m: setattr(m.encoder.norm, "eps", 1e-2),
        lambda m: m.hand.skin_dirs[10:].zero_(),  # rows after the betas'
        lambda m: setattr(m.refiner, "forward", lambda t, maps, c: MaxPoolRefiner.forward(m.refiner, t, maps[::-1], c)),
        lambda m: setattr(m, "refiner", None),
        lambda m: m.pos_embed.data.copy_(m.pos_embed.data.flip(1)),
    ],
    ids=["heads", "padding", "eps", "correctives", "maps", "refiner", "position"],
)
def test_the_golden_numbers_notice_a_difference(model, golden, rgb, change):
    change(model)
    assert max(deviations(model, golden, rgb).values()) > 2e-5


def test_the_whole_network_has_wilors_entries_and_shapes():
    """Every entry of the published size has a place of its shape, and nothing but UTNet's own is left over."""
    rows = [line.split("\t") for line in (GOLDEN / "wilor_state_dict.tsv").read_text().splitlines()]
    shapes = {
        row[0]: tuple(int(n) for n in row[1].strip("()").split(",") if n.strip()) for row in rows if "(" in row[1]
    }
    with torch.device("meta"):
        expected = UTNet(ModelConfig(preset="h", size_px=256), HandModel.open()).state_dict()
    names = entry_names(32)
    published = {name for name in shapes if not name.startswith(("mano.", "discriminator.")) and name != "initialized"}
    assert set(names) == published
    for theirs, ours in names.items():
        shape = tuple(expected[ours].shape)
        if theirs == "backbone.pos_embed":
            assert (shape[0], shape[1] + 1, shape[2]) == shapes[theirs]
        else:
            assert np.prod(shape) == np.prod(shapes[theirs]), theirs
    own = {name.rsplit(".", 1)[0] for name in set(expected) - set(names.values())}
    assert own == {"hand_tokens", "stem", "stem.embed_depth.0", "stem.embed_depth.2", "root_head.offset"}


def test_it_is_saved_and_loaded_bit_for_bit(model, rgb, tmp_path):
    save_checkpoint(tmp_path / "wilor", model, Config(model=model.config))
    loaded, config = load_checkpoint(tmp_path / "wilor")
    assert config.model == model.config
    assert loaded.hand.name == "mano"
    depth = torch.rand(3, 256, 256)
    with torch.inference_mode():
        assert_equal(loaded(rgb), model(rgb))
        assert_equal(loaded(rgb, depth), model(rgb, depth))
    assert torch.equal(loaded.hand.faces, model.hand.faces)
    own = UTNet(ModelConfig(size_px=64))
    save_checkpoint(tmp_path / "own", own, Config(model=own.config))
    assert load_checkpoint(tmp_path / "own")[0].hand.name == "open"


def test_a_checkpoint_with_half_a_hand_is_refused(model, tmp_path):
    from safetensors.torch import load_file, save_file

    save_checkpoint(tmp_path / "wilor", model, Config(model=model.config))
    file = tmp_path / "wilor" / "weights.safetensors"
    state = load_file(file)
    save_file({name: value for name, value in state.items() if name != "hand.weights"}, file)
    with pytest.raises(InputError, match=r"hand\.\* entries.*weights"):
        load_checkpoint(tmp_path / "wilor")


def test_depth_starts_without_effect_and_learns_from_the_first_step(model, rgb):
    generator = torch.Generator().manual_seed(0)
    depth = 0.6 + 0.1 * torch.rand(3, 256, 256, generator=generator)
    K = torch.tensor([[600.0, 0, 127.5], [0, 600.0, 127.5], [0, 0, 1]]).expand(3, 3, 3)
    with torch.inference_mode():
        plain = model(rgb)
        for any_depth in (depth, torch.full_like(depth, torch.nan), 1e6 * depth, torch.rand(3, 256, 256) - 0.5):
            assert_equal(model(rgb, any_depth, K), plain)
            assert_equal(model(rgb, any_depth), plain)
    path = dict(model.stem.embed_depth.named_parameters())
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    for learning in (("2.weight", "2.bias"), tuple(path)):
        optimiser.zero_grad()
        model(rgb, depth, K).joints_m.square().sum().backward()
        assert all(path[name].grad.abs().sum() > 0 for name in learning)
        optimiser.step()
    with torch.inference_mode():
        assert (model(rgb, depth, K).joints_m - model(rgb).joints_m).abs().max() > 0


@pytest.mark.parametrize("legacy", [False, True])
def test_a_lightning_file_is_read_without_running_it(state, golden, rgb, tmp_path, monkeypatch, legacy):
    """Lightning keeps the run's settings beside the weights: a yacs node, whose class is not there when it is read."""
    CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    package, module = types.ModuleType("yacs"), types.ModuleType("yacs.config")
    module.CfgNode = CfgNode
    settings = CfgNode(MODEL=CfgNode(IMAGE_SIZE=256))
    settings.__dict__["__immutable__"] = False
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", package)
        patch.setitem(sys.modules, "yacs.config", module)
        tree = {"state_dict": state, "hyper_parameters": {"cfg": settings}, "epoch": 3}
        torch.save(tree, tmp_path / "wilor.ckpt", _use_new_zipfile_serialization=not legacy)
    model = import_wilor(tmp_path / "wilor.ckpt", 4)
    assert max(deviations(model, golden, rgb).values()) <= 2e-5


class _Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_files_that_are_no_weights_are_refused(state, tmp_path):
    torch.save({"state_dict": state, "callbacks": _Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps([1, 2]))
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name in ("evil", "text", "empty", "pickle", "list"):
        with pytest.raises(InputError, match=f"{name}.ckpt: "):
            import_wilor(tmp_path / f"{name}.ckpt", 4)
    with pytest.raises(InputError, match="no such file"):
        import_wilor(tmp_path / "nowhere.ckpt")


def test_missing_and_unknown_entries_are_listed(state):
    del state["backbone.blocks.0.attn.qkv.bias"], state["mano.posedirs"]
    state["backbone.cls_token"] = torch.zeros(1)
    state["refine_net.extra"] = torch.zeros(1)
    with pytest.raises(InputError) as caught:
        import_wilor(state, 4)
    message = str(caught.value)
    assert "2 missing: backbone.blocks.0.attn.qkv.bias, mano.posedirs" in message
    assert "2 unknown: backbone.cls_token, refine_net.extra" in message


def test_a_missing_block_is_missing(state):
    state = {name.replace("blocks.1.", "blocks.2."): value for name, value in state.items()}
    with pytest.raises(InputError, match=r"12 missing: backbone\.blocks\.1\.attn\.proj\.bias, "):
        import_wilor(state, 4)


def test_the_discriminator_is_dropped_and_said_so(state, golden, rgb):
    state |= {"discriminator.D_conv1.weight": torch.ones(2), "discriminator.D_conv1.bias": torch.ones(2)}
    with pytest.warns(UserWarning, match=r"2 discriminator\.\* entries dropped"):
        model = import_wilor(state, 4)
    assert max(deviations(model, golden, rgb).values()) <= 2e-5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("backbone.decpose.weight", torch.zeros(5, 96), r"coarse_head.pose.weight \(5, 96\), expected \(6, 96\)"),
        ("backbone.init_betas", torch.zeros(1, 9), "mean_betas"),
        ("backbone.pos_embed", torch.zeros(1, 190, 96), "189 patches"),
        ("backbone.pos_embed", torch.zeros(193, 96), "expected 3 axes"),
        ("backbone.patch_embed.proj.weight", torch.zeros(96, 3, 8, 8), "model.patch_px is 8"),
        ("backbone.decpose.bias", torch.full((6,), torch.nan), "NaN or inf in backbone.decpose.bias"),
        ("mano.parents", torch.zeros(16, dtype=torch.int64), "mano.parents is"),
        ("mano.posedirs", torch.zeros(135, 2331), "mano.posedirs has shape"),
        ("mano.lbs_weights", torch.zeros(778, 15), "weights has shape"),
        ("mano.faces_tensor", torch.full((1538, 3), 778), "points outside"),
        ("refine_net.dec_cam.bias", "text", "not arrays: refine_net.dec_cam.bias"),
    ],
)
def test_wrong_entries_are_named(state, name, value, message):
    state[name] = value
    with pytest.raises(InputError, match=message):
        import_wilor(state, 4)


def test_heads_must_be_given_where_the_width_does_not_tell(state):
    with pytest.raises(InputError, match=r"width 96 is not in its weights; give it \(num_heads\)"):
        import_wilor(state)
    with pytest.raises(InputError, match=r"not a multiple of model\.num_heads 5"):
        import_wilor(state, 5)
