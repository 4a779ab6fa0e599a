"""Laws of the network: depth that is absent has no effect, samples do not mix, every parameter learns."""

from types import SimpleNamespace

import pytest
import torch

from support.networks import SIZE, assert_same, inputs
from utnet.config import CropConfig, ModelConfig
from utnet.conventions import NOMINAL_FOCAL
from utnet.errors import InputError
from utnet.geometry import hand_distance
from utnet.model import UTNet
from utnet.model.refiner import Neighbours, normalised_adjacency, skin_patches
from utnet.model.tokens import depth_channels
from utnet.synth import SyntheticHands


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = UTNet(ModelConfig(size_px=SIZE)).eval()
    with torch.no_grad():  # away from the start, where the heads' residuals are nearly nothing
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def test_inputs_of_another_kind_are_refused():
    model, rgb = UTNet(ModelConfig(size_px=64)).eval(), torch.rand(3, 3, 64, 64)
    depth = torch.full((3, 64, 64), 0.5)
    with pytest.raises(ValueError, match="divide uint8 pictures by 255"):
        model((rgb * 255).byte())
    with pytest.raises(ValueError, match=r"K_px has shape \(1, 3, 3\)"):
        model(rgb, depth, torch.eye(3)[None])
    with pytest.raises(ValueError, match=r"depth_ok has shape \(1,\)"):
        model(rgb, depth, depth_ok=torch.tensor([True]))
    assert torch.equal(model(rgb, depth.double()).joints_m, model(rgb, depth).joints_m)


def test_shapes_and_size_of_ti(model):
    rgb, depth, K = inputs()
    with torch.inference_mode():
        out = model(rgb, depth, K)
    shapes = {"global_orient": (3, 1, 3, 3), "hand_pose": (3, 15, 3, 3), "betas": (3, 10), "cam": (3, 3)}
    shapes |= {"cam_t": (3, 3), "joints_m": (3, 21, 3), "joints_crop": (3, 21, 2), "vertices_m": (3, 1609, 3)}
    assert {name: tuple(getattr(out, name).shape) for name in shapes} == shapes
    assert sum(p.numel() for p in UTNet(ModelConfig(preset="ti", size_px=128)).parameters()) <= 8_000_000
    R = torch.cat([out.global_orient, out.hand_pose], 1)
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(R.shape[:2]), atol=1e-5, rtol=0)


def test_projection_is_the_nominal_camera(model):
    with torch.inference_mode():
        out = model(*inputs())
    torch.testing.assert_close(out.cam_t[:, 2], 2 * NOMINAL_FOCAL / out.cam[:, 0])
    points = out.joints_m + out.cam_t[:, None]
    torch.testing.assert_close(out.joints_crop, NOMINAL_FOCAL * points[..., :2] / points[..., 2:])
    assert (out.cam_t[:, 2] > 0).all()


def test_a_sample_does_not_depend_on_its_batch(model):
    rgb, depth, K = inputs(4)
    with torch.inference_mode():
        whole = model(rgb, depth, K)
        for i in range(4):
            assert_same(whole, model(rgb[i : i + 1], depth[i : i + 1], K[i : i + 1]), rows_a=slice(i, i + 1))


def test_without_depth_the_depth_tensor_has_no_effect(model):
    rgb, depth, K = inputs()
    absent = torch.zeros(3, dtype=torch.bool)
    with torch.inference_mode():
        plain = model(rgb)
        assert_same(plain, model(rgb, depth, K, depth_ok=absent), atol=0)
        assert_same(plain, model(rgb, torch.full_like(depth, torch.nan), K, depth_ok=absent), atol=0)
        assert_same(plain, model(rgb, torch.zeros_like(depth), K), atol=0)  # no reading is no depth
        seen = model(rgb, depth, K)
    assert (seen.joints_m - plain.joints_m).abs().max() > 1e-4


def test_a_mixed_batch_equals_its_parts(model):
    rgb, depth, K = inputs(4)
    ok = torch.tensor([True, False, True, False])
    with torch.inference_mode():
        mixed = model(rgb, depth, K, depth_ok=ok)
        assert_same(mixed, model(rgb[ok], depth[ok], K[ok]), rows_a=ok)
        assert_same(mixed, model(rgb[~ok]), rows_a=~ok)


@pytest.mark.parametrize("third_has_depth", [True, False])
def test_every_parameter_gets_a_gradient(third_has_depth):
    torch.manual_seed(0)
    model = UTNet(ModelConfig(size_px=SIZE, p_drop=0.0)).train()
    rgb, depth, K = inputs(4)
    ok = torch.tensor([True, True, third_has_depth, False])
    out = model(rgb, depth, K, depth_ok=ok)
    terms = [out.joints_m, out.joints_crop, out.betas, out.joint_map, out.coarse.joints_m, out.root_z_m.nan_to_num()]
    sum((term * torch.randn_like(term)).sum() for term in terms).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_network_draws_nothing_and_leaves_dropping_depth_to_the_loader():
    model = UTNet(ModelConfig(size_px=SIZE, p_drop=1.0)).train()
    state = torch.get_rng_state()
    assert_same(model(*inputs(4)), model.eval()(*inputs(4)))
    assert torch.equal(torch.get_rng_state(), state)


def test_hand_distance_finds_the_hand_before_a_wall():
    depth = torch.full((2, SIZE, SIZE), 1.5)
    depth[:, 24:44, 24:44] = 0.6 + 0.02 * torch.rand(2, 20, 20)  # 40 % of the box
    depth[0, 30:34, 30:34] = 0
    torch.testing.assert_close(hand_distance(depth), torch.tensor([0.61, 0.61]), atol=0.011, rtol=0)
    assert hand_distance(torch.zeros(1, SIZE, SIZE)).isnan().all()


@pytest.mark.parametrize("expand", [1.5, 2.0])
def test_hand_distance_keeps_the_joints_within_the_valid_range(expand):
    source = SyntheticHands(seed=9, size_px=SIZE, crop=CropConfig(expand=expand))
    samples = [source[i] for i in range(150)]
    distance = hand_distance(torch.stack([torch.from_numpy(s.depth_m) for s in samples]))
    lost = torch.stack(
        [(torch.from_numpy(s.joints_cam_m[:, 2]) - d).abs() > 0.25 for s, d in zip(samples, distance, strict=True)]
    )
    assert (lost.float().mean(1) > 0.1).float().mean() < 0.03


def test_bf16_decodes_the_hand_in_float32(model):
    rgb, depth, K = inputs()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        out = model(rgb, depth, K)
    assert out.joints_m.dtype == torch.float32
    with torch.inference_mode():
        exact = model.hand(out.global_orient, out.hand_pose, out.betas)
    torch.testing.assert_close(out.joints_m, exact.joints_m, atol=1e-6, rtol=0)
    assert torch.equal(out.joint_map[:, 0, 2], torch.zeros(3))


def test_depth_channels_are_metric_points():
    """A plane at the hand's distance: x runs over the metric width of the crop whatever its focal length."""
    depth = torch.full((2, SIZE, SIZE), 0.5)
    K = torch.eye(3).repeat(2, 1, 1)
    K[0, :2, :2] *= 100
    K[1, :2, :2] *= 200
    channels = depth_channels(depth, torch.tensor([0.5, 0.5]), K)
    width = channels[:, 0, 0, -1] - channels[:, 0, 0, 0]
    torch.testing.assert_close(width, (SIZE - 1) * 0.5 / torch.tensor([100.0, 200.0]) / 0.1)
    assert (channels[:, 2] == 0).all()
    assert (channels[:, 3] == 1).all()
    far = depth_channels(depth + 1.0, torch.tensor([0.5, 0.5]), K)
    assert (far == 0).all(), "background is marked invalid and carries no numbers"


def test_patches_cover_the_skin_evenly(model):
    vertices = model.hand.v_template
    centres, patches = skin_patches(vertices, 256)
    assert len(set(centres.tolist())) == 256
    assert set(patches.tolist()) == set(range(256))
    assert torch.equal(patches[centres], torch.arange(256))
    assert (vertices - vertices[centres][patches]).norm(dim=-1).max() < 0.012
    everything, own = skin_patches(vertices, len(vertices))
    assert torch.equal(everything[own], torch.arange(len(vertices)))


def test_adjacency_is_the_naive_one(model):
    faces = model.hand.faces
    _, patches = skin_patches(model.hand.v_template, 64)
    joined = {(int(patches[a]), int(patches[b])) for face in faces for a in face for b in face} | {
        (k, k) for k in range(64)
    }
    degree = [sum((i, j) in joined for j in range(64)) for i in range(64)]
    naive = torch.tensor(
        [[(i, j) in joined and (degree[i] * degree[j]) ** -0.5 for j in range(64)] for i in range(64)],
        dtype=torch.float32,
    )
    A = normalised_adjacency(faces, patches, 64)
    torch.testing.assert_close(A, naive)
    assert torch.linalg.eigvalsh(A).abs().max() <= 1 + 1e-5, "passing messages never amplifies"


@pytest.mark.parametrize("num", [64, 1609])
def test_the_sum_over_neighbours_is_the_product_with_the_adjacency(model, num):
    _, patches = skin_patches(model.hand.v_template, num)
    A = normalised_adjacency(model.hand.faces, patches, num)
    neighbours = Neighbours(A)
    assert neighbours.full == (num == 64), "both ways are tested"
    x = torch.randn(num, 2, 5, requires_grad=True)
    products = neighbours(x), torch.einsum("nm,mbc->nbc", A, x)
    weight = torch.randn(num, 2, 5)
    gradients = [torch.autograd.grad((weight * product).sum(), x)[0] for product in products]
    torch.testing.assert_close(*products, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(*gradients, atol=2e-6, rtol=1e-5)


def test_the_refiner_reads_maps_where_the_vertices_project(model):
    """A map that holds its own x and y in crop units must give back the vertices' coordinates."""
    refiner = model.refiner
    width = refiner.read[0].out_channels
    ramp = (torch.arange(16) + 0.5) / 16 - 0.5
    feature_map = torch.zeros(1, refiner.read[0].in_channels, 16, 16)
    feature_map[0, 0], feature_map[0, 1] = ramp[None, :], ramp[:, None]
    weight = torch.zeros_like(refiner.read[0].weight)
    weight[0, 0], weight[1, 1] = 1, 1
    vertices = torch.rand(1, 1609, 2) * 0.8 - 0.4
    seen = {}
    layer = refiner.layers[0].register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0]))
    old = {name: p.detach().clone() for name, p in refiner.named_parameters()}
    cam_t = torch.tensor([[0.0, 0.0, NOMINAL_FOCAL]])  # at this distance a metre is a crop's width
    coarse = SimpleNamespace(vertices_m=torch.cat([vertices, torch.zeros(1, 1609, 1)], 2), cam_t=cam_t)
    with torch.no_grad():
        for p in (refiner.embed_vertex, *refiner.embed_position.parameters(), refiner.read[0].bias):
            p.zero_()
        refiner.read[0].weight.copy_(weight)
        refiner(torch.zeros(1, 18, refiner.to_token.out_features), [feature_map], coarse)
        for name, p in refiner.named_parameters():
            p.copy_(old[name])
    layer.remove()
    assert width >= 2
    torch.testing.assert_close(seen["x"][:, 0, :2], vertices[0, refiner.centres], atol=1e-6, rtol=0)


def test_wrong_inputs_are_refused(model):
    rgb, depth, K = inputs()
    with pytest.raises(ValueError, match=r"expected \(B, 3, 64, 64\)"):
        model(rgb[..., :32])
    with pytest.raises(ValueError, match="depth_m has shape"):
        model(rgb, depth[:, :32], K)
    with pytest.raises(InputError, match="'huge' is not known; choose one of"):
        UTNet(ModelConfig(preset="huge"))
    with pytest.raises(InputError, match="multiple of 32"):
        ModelConfig(size_px=100)
