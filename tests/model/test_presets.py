"""Laws that hold for every preset, refiner, patch and crop; sizes of the five presets; what a config may ask for.

The presets are built narrow and shallow here (`dim`, `depth`, `num_heads` of the config): every kind of part is there.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from utnet.config import Config, ModelConfig, from_tree, to_tree
from utnet.errors import InputError
from utnet.hand import HandModel
from utnet.losses.weighted import heat_cross_entropy
from utnet.model import PRESETS, UTNet
from utnet.model.encoder import Attention, Encoder
from utnet.model.refiner import GraphRefiner, MaxPoolRefiner
from utnet.model.upsampler import JointMaps
from utnet.types import Prediction

SIZES = Path(__file__).parents[1] / "golden" / "model_sizes.json"
NARROW = {"dim": 48, "num_blocks": 2, "num_heads": 4}
KINDS = {
    "ti": ModelConfig(size_px=64),
    "ti, maxpool, narrow crop": ModelConfig(size_px=64, refiner="maxpool", width_px=32),
    "ti, lite0": ModelConfig(size_px=64, stem="lite0"),
    "s, lite0, narrow crop": ModelConfig(preset="s", size_px=64, width_px=32, stem="lite0", **NARROW),
    "s": ModelConfig(preset="s", size_px=64, **NARROW),
    "s, coarse only": ModelConfig(preset="s", size_px=64, refiner="none", **NARROW),
    "b": ModelConfig(preset="b", size_px=64, **NARROW),
    "b as DINOv2": ModelConfig(preset="b", size_px=84, patch_px=14, layer_scale=True, **NARROW),
    "l as ViTPose": ModelConfig(preset="l", size_px=96, width_px=64, patch_pad_px=2, **NARROW),
    "h": ModelConfig(preset="h", size_px=128, **NARROW),
    "h, square, graph": ModelConfig(preset="h", size_px=64, width_px=64, refiner="graph", **NARROW),
    "hamer": ModelConfig(preset="hamer", size_px=64, decoder=(40, 2, 3, 56), **NARROW),
    "h, coarse only": ModelConfig(preset="h", size_px=64, width_px=32, refiner="none", **NARROW),
}
FIELDS = ("global_orient", "hand_pose", "betas", "cam", "cam_t", "joints_m", "joints_crop", "vertices_m")


def built(kind, *, perturbed=True, p_drop=0.4):
    torch.manual_seed(0)
    model = UTNet(replace(KINDS[kind], p_drop=p_drop))
    if perturbed:  # away from the start, where residuals and the depth path's last layer are nothing
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def inputs(model, num=3):
    size = model.config.size_px
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(num, 3, size, size, generator=generator)
    depth = 0.6 + 0.1 * torch.rand(num, size, size, generator=generator)
    K = torch.tensor([[150.0, 0, 31.5], [0, 150.0, 31.5], [0, 0, 1]]).expand(num, 3, 3)
    return rgb, depth, K


def terms(out):
    """Everything that a loss can see."""
    parts = [out.joints_m, out.joints_crop, out.betas, out.cam, out.root_z_m.nan_to_num()]
    parts += [out.joint_map] if out.joint_map is not None else []
    return parts + ([out.coarse.joints_m, out.coarse.cam] if out.coarse is not None else [])


def assert_same(a, b, rows_a=slice(None), rows_b=slice(None), atol=2e-5):
    for name in FIELDS:
        torch.testing.assert_close(getattr(a, name)[rows_a], getattr(b, name)[rows_b], atol=atol, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    model = built(kind, p_drop=0.0).train()
    rgb, depth, K = inputs(model)
    out = model(rgb, depth, K, depth_ok=torch.tensor([True, True, False]))
    sum((term * torch.randn_like(term)).sum() for term in terms(out)).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_has_no_path_to_another(kind, training):
    """The gradient of one sample's outputs with respect to the others' pictures and depth is exactly zero."""
    model = built(kind).train(training)
    rgb, depth, K = inputs(model)
    rgb.requires_grad_()
    depth.requires_grad_()
    torch.manual_seed(1)
    out = model(rgb, depth, K)
    sum(term[1].square().sum() for term in terms(out)).backward()
    assert rgb.grad[1].abs().sum() > 0
    assert not rgb.grad[[0, 2]].any()
    assert not depth.grad[[0, 2]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_depth_that_is_absent_has_no_effect_and_mixed_batches_equal_their_parts(kind):
    model = built(kind)
    rgb, depth, K = inputs(model, 4)
    ok = torch.tensor([True, False, True, False])
    dirty = torch.where(ok[:, None, None], depth, torch.nan)
    with torch.inference_mode():
        plain = model(rgb)
        assert_same(plain, model(rgb, torch.full_like(depth, torch.nan), K, depth_ok=ok & False), atol=0)
        mixed = model(rgb, dirty, K, depth_ok=ok)
        seen = model(rgb[ok], depth[ok], K[ok])
    assert_same(mixed, seen, rows_a=ok)
    assert_same(mixed, plain, rows_a=~ok, rows_b=~ok)
    assert (seen.joints_m - plain.joints_m[ok]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["s", "b", "h"])
def test_depth_counts_in_training_as_in_evaluation(kind):
    model = built(kind, p_drop=1.0)  # the loader's: it drops the depth of samples
    rgb, depth, K = inputs(model)
    with torch.no_grad():
        assert_same(model.train()(rgb, depth, K), model.eval()(rgb, depth, K), atol=0)
        assert (model(rgb).joints_m - model(rgb, depth, K).joints_m).abs().max() > 1e-6


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] in "blh"])
def test_depth_starts_without_effect_and_learns_from_the_first_step(kind):
    model = built(kind, perturbed=False)
    rgb, depth, K = inputs(model)
    with torch.inference_mode():
        plain = model(rgb)
        for any_depth in (depth, depth * 3, torch.rand_like(depth) * 100):
            assert_same(plain, model(rgb, any_depth, K), atol=0)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    got = []
    for _ in range(2):
        optimiser.zero_grad()
        sum(term.sum() for term in terms(model(rgb, depth, K))).backward()
        got.append({name for name, p in model.stem.embed_depth.named_parameters() if p.grad.abs().sum() > 0})
        optimiser.step()
    assert got == [{"2.weight", "2.bias"}, {"0.weight", "0.bias", "2.weight", "2.bias"}]


def test_frozen_batch_norms_keep_their_statistics_in_training():
    model = built("h").train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    model(*inputs(model))
    assert any("running_var" in name for name in before)
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


def test_own_presets_hold_no_batch_statistics():
    for kind in KINDS:
        if not kind.startswith("h"):
            assert not any("running" in name for name, _ in built(kind, perturbed=False).named_buffers()), kind


@pytest.mark.parametrize("kind", ["ti, maxpool, narrow crop", "l as ViTPose", "h"])
def test_a_narrow_network_looks_at_the_middle_columns_only(kind):
    model = built(kind)
    rgb = inputs(model)[0]
    beside = (model.config.size_px - model.width_px) // 2
    outside, edge = rgb.clone(), rgb.clone()
    outside[..., :beside] = outside[..., -beside:] = 0.5
    edge[..., beside] += 0.5
    with torch.inference_mode():
        plain = model(rgb)
        assert_same(plain, model(outside), atol=0)
        assert (plain.joints_m - model(edge).joints_m).abs().max() > 0


@pytest.mark.parametrize("width_share", [1.0, 0.5])
def test_joint_maps_speak_in_units_of_the_square_crop(width_share):
    maps = JointMaps(1, width_share=width_share)
    with torch.no_grad():
        maps.heat.weight.fill_(50.0)
        x = torch.zeros(1, 1, 8, int(8 * width_share))
        x[0, 0, 2, 3] = 1.0  # row 2, column 3 of the map
        joints, _, heat = maps(x)
    column = 3 + (8 - int(8 * width_share)) // 2
    expected = torch.tensor([(column + 0.5) / 8 - 0.5, (2 + 0.5) / 8 - 0.5])
    torch.testing.assert_close(joints[0, :, :2], expected.expand(21, 2))
    assert heat.shape == (1, 21, 8, 8)
    assert int(heat[0, 0].argmax()) == 2 * 8 + column
    labels = torch.cat([expected.expand(1, 21, 2), torch.ones(1, 21, 1)], 2)
    away = labels + torch.tensor([0.0, 0.25, 0.0])
    assert heat_cross_entropy(heat, labels) < heat_cross_entropy(heat, away)


def test_the_graph_refiner_reads_a_narrow_map_where_the_square_says():
    """The map holds its own x in crop units of the square; what is read must be the vertices' x."""
    hand = HandModel.open()
    refiner = GraphRefiner(hand, 8, map_dims=[1], width=8, num_vertices=256, width_share=0.5)
    ramp = ((torch.arange(16) + 0.5) / 16 - 0.5) * 0.5
    vertices = torch.rand(1, hand.num_vertices, 3) * torch.tensor([0.44, 0.9, 0.0]) - torch.tensor([0.22, 0.45, 0.0])
    nothing = torch.zeros(1, 3)
    cam_t = torch.tensor([[0.0, 0.0, 5000 / 256]])  # at this distance a metre is a crop's width
    coarse = Prediction(nothing, nothing, nothing, nothing, cam_t, nothing, nothing, vertices_m=vertices)
    with torch.no_grad():
        for p in (refiner.embed_vertex, *refiner.embed_position.parameters(), refiner.read[0].bias):
            p.zero_()
        refiner.read[0].weight.fill_(1.0)
        seen = {}
        refiner.layers[0].register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0]))
        refiner(torch.zeros(1, 18, 8), [ramp.expand(1, 1, 32, 16)], coarse)
    torch.testing.assert_close(seen["x"][:, 0, 0], vertices[0, refiner.centres, 0], atol=1e-6, rtol=0)


def test_coarse_only_decodes_the_hand_once_and_a_refiner_twice():
    for kind, expected in (("h, coarse only", 1), ("s, coarse only", 1), ("h", 2)):
        model, asked = built(kind), []
        model.hand.register_forward_hook(
            lambda module, args, kwargs, out, asked=asked: asked.append(kwargs["with_vertices"]), with_kwargs=True
        )
        out = model(*inputs(model), with_vertices=False)
        assert len(asked) == expected
        assert not asked[-1]
        assert out.vertices_m is None
        assert (out.coarse is None) == (expected == 1)
    assert built("h, coarse only").upsampler is None, "maps that nothing reads are not made"


def test_the_refiner_is_a_choice():
    for preset in ("ti", "b", "h"):
        for refiner, kind in (("graph", GraphRefiner), ("maxpool", MaxPoolRefiner), ("none", type(None))):
            config = ModelConfig(preset=preset, size_px=64, width_px=64, refiner=refiner, **NARROW)
            assert isinstance(UTNet(config).refiner, kind)


def test_a_graph_refiner_on_a_hand_with_fewer_vertices_reads_them_all():
    open_hand = HandModel.open()
    arrays = open_hand.arrays
    keep = 200
    small = replace(
        arrays,
        v_template=arrays.v_template[:keep],
        shapedirs=arrays.shapedirs[:keep],
        weights=arrays.weights[:keep],
        faces=arrays.faces[(arrays.faces < keep).all(1)],
        tip_vertices=arrays.tip_vertices % keep,
    )
    torch.manual_seed(0)
    model = UTNet(KINDS["s"], HandModel(small, name="mano")).eval()
    assert sorted(model.refiner.centres.tolist()) == list(range(keep))
    assert model(*inputs(model)).vertices_m.shape == (3, keep, 3)


def test_attention_is_softmax_of_scaled_products():
    """The naive twin: explicit attention matrices, head by head."""
    torch.manual_seed(0)
    attention, x = Attention(24, 3), torch.randn(2, 5, 24)
    q, k, v = attention.qkv(x).split(24, dim=-1)
    heads = []
    for h in range(3):
        own = slice(8 * h, 8 * h + 8)
        weights = (q[..., own] @ k[..., own].transpose(1, 2) / 8**0.5).softmax(-1)
        heads.append(weights @ v[..., own])
    torch.testing.assert_close(attention(x), attention.proj(torch.cat(heads, -1)), atol=1e-6, rtol=1e-5)


def test_checkpointed_blocks_give_the_same_gradients_and_keep_less():
    def run(checkpoint_blocks):
        torch.manual_seed(0)
        encoder = Encoder(32, 4, 4, layer_scale=True, checkpoint_blocks=checkpoint_blocks).train()
        x = torch.randn(2, 50, 32, requires_grad=True)
        kept = []

        def pack(tensor):
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = encoder(x)
        kept_forward = sum(kept)
        out.square().sum().backward()
        return out, [x.grad, *(p.grad for p in encoder.parameters())], kept_forward

    (out, grads, kept), (plain_out, plain_grads, plain_kept) = run(True), run(False)
    assert torch.equal(out, plain_out)
    for grad, plain in zip(grads, plain_grads, strict=True):
        torch.testing.assert_close(grad, plain)
    assert kept < plain_kept / 4
    assert UTNet(ModelConfig(preset="b", size_px=64, checkpoint_blocks=True, **NARROW)).encoder.checkpoint_blocks


def test_layer_scale_is_a_factor_a_channel():
    torch.manual_seed(0)
    scaled, plain = Encoder(16, 1, 2, layer_scale=True), Encoder(16, 1, 2)
    scaled.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 3, 16)
    with torch.no_grad():
        scaled.blocks[0].scale1.fill_(1.0)
        scaled.blocks[0].scale2.fill_(1.0)
        torch.testing.assert_close(scaled(x), plain(x))
        scaled.blocks[0].scale1.zero_()
        scaled.blocks[0].scale2.zero_()
        torch.testing.assert_close(scaled(x), F.layer_norm(x, (16,), eps=1e-6))


def test_sizes_of_the_presets_are_the_golden_ones():
    hand, sizes = HandModel.open(), {}
    for name in PRESETS:
        with torch.device("meta"):
            model = UTNet(ModelConfig(preset=name, size_px=256), hand)
        parts = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
        parts = {part: num for part, num in parts.items() if num} | {"pos_embed": model.pos_embed.numel()}
        sizes[name] = {"total": sum(p.numel() for p in model.parameters()), **parts}
        assert sum(parts.values()) == sizes[name]["total"]
    assert sizes == json.loads(SIZES.read_text())
    assert sizes["ti"]["total"] <= 8_000_000
    assert sizes["s"]["total"] <= 30_000_000


def test_vit_presets_have_the_published_shapes():
    shapes = {name: (p.dim, p.num_blocks, p.num_heads) for name, p in PRESETS.items()}
    assert shapes["b"] == (768, 12, 12)
    assert shapes["l"] == (1024, 24, 16)
    assert shapes["h"] == (1280, 32, 16)


def test_the_config_of_a_network_survives_yaml():
    config = Config(model=KINDS["b as DINOv2"])
    assert from_tree(Config, to_tree(config)) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refiner": "graf"}, "model.refiner"),
        ({"patch_px": 15}, "model.patch_px"),
        ({"preset": "b", "patch_px": 14, "size_px": 128}, "multiple of 14"),
        ({"patch_px": 14, "size_px": 112}, "convolutional stem"),
        ({"patch_pad_px": 2}, "convolutional stem"),
        ({"width_px": 100}, "multiples of the patch"),
        ({"width_px": 256}, "at most the size"),
        ({"preset": "b", "num_heads": 7}, "not a multiple of model.num_heads"),
        ({"num_blocks": 0}, "model.num_blocks"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        UTNet(ModelConfig(**settings))
