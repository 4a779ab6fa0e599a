"""Losses: equal to WiLoR's to the last digit, and laws for partially labelled data."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from utnet.config import LossConfig
from utnet.errors import InputError
from utnet.losses import UTNetLoss
from utnet.losses.weighted import (
    HEAT_SIGMA_CELLS,
    JOINT_MAP_Z_UNIT_M,
    Keypoint2DLoss,
    Keypoint3DLoss,
    ParameterLoss,
    VertexLoss,
    auxiliary,
    heat_cross_entropy,
    pose_prior,
    shape_prior,
)
from utnet.types import Batch, HandParams, Prediction

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "wilor_losses.npz")
NAN, INF = float("nan"), float("inf")
KEYPOINT_LOSSES = [(Keypoint2DLoss, 2), (Keypoint3DLoss, 3)]
WEIGHTS = [f.name for f in fields(LossConfig) if f.name.startswith("w_")]
ALL_ON = {**dict.fromkeys(WEIGHTS, 1.0), "use_vertex_loss": True, "use_aux_loss": True}


def golden(key: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[key])


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotations(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(int(np.prod(shape)), rng=seed).as_matrix()).view(*shape, 3, 3)


def prediction(seed: int, num: int = 4, coarse: bool = True) -> Prediction:
    return Prediction(
        global_orient=rotations(seed, num, 1),
        hand_pose=rotations(seed + 1, num, 15),
        betas=normal(seed + 2, num, 10),
        cam=normal(seed + 3, num, 3),
        cam_t=normal(seed + 4, num, 3),
        joints_m=normal(seed + 5, num, 21, 3) * 0.05,
        joints_crop=normal(seed + 6, num, 21, 2) * 0.3,
        vertices_m=normal(seed + 7, num, 30, 3) * 0.05,
        coarse=prediction(seed + 20, num, coarse=False) if coarse else None,
        joint_map=normal(seed + 8, num, 21, 3) * 0.1,
        joint_heat=normal(seed + 9, num, 21, 6, 8).flatten(2).log_softmax(-1).unflatten(-1, (6, 8)),
        root_z_m=0.6 + normal(seed + 10, num) * 0.1,
        joint_scale_mm=normal(seed + 11, num, 21).exp() * 60,
        error_shape=1 + normal(seed + 12, num, 2).abs(),
        mask_logit=normal(seed + 13, num, 6, 6),
        side_logit=normal(seed + 14, num),
    )


def batch(seed: int, num: int = 4) -> Batch:
    def confidence(s: int) -> torch.Tensor:
        return (normal(s, num, 21, 1) > 0).double() * normal(s + 1, num, 21, 1).abs()

    return Batch(
        rgb=torch.zeros(num, 3, 8, 8, dtype=torch.uint8),
        depth_m=torch.full((num, 8, 8), 0.5),
        depth_ok=torch.ones(num, dtype=torch.bool),
        K_px=torch.eye(3).expand(num, 3, 3),
        joints_2d=torch.cat([normal(seed, num, 21, 2) * 0.3, confidence(seed + 1)], -1),
        joints_3d=torch.cat([normal(seed + 3, num, 21, 3) * 0.05, confidence(seed + 4)], -1),
        params=HandParams(
            rotations(seed + 6, num, 1),
            rotations(seed + 7, num, 15),
            normal(seed + 8, num, 10),
            normal(seed + 9, num, 3),
        ),
        params_ok=torch.arange(num) % 4 != 1,
        betas_ok=torch.arange(num) % 4 != 3,
        keys=tuple(f"{seed}/{i}" for i in range(num)),
        vertices_m=normal(seed + 10, num, 30, 3) * 0.05,
        mask_cells=normal(seed + 11, num, 6, 6).sigmoid(),
        is_right=torch.arange(num) % 4 != 2,
    )


def gradient(loss: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]


# ----------------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("loss_type", ["l1", "l2"])
@pytest.mark.parametrize("root_id", [0, 9])
def test_values_and_gradients_are_wilors(case, loss_type, root_id):
    expected = f"{case}_{loss_type}_{root_id}"
    has_param = golden(f"{case}/has_param")
    for name, grad, pred_key, gt_key, loss in (
        ("loss2d", "grad2d", "pred_2d", "gt_2d", Keypoint2DLoss(loss_type)),
        ("loss3d", "grad3d", "pred_3d", "gt_3d", Keypoint3DLoss(loss_type, root_id)),
        ("param", "gradp", "pred_param", "gt_param", lambda p, t: ParameterLoss()(p, t, has_param)),
    ):
        pred = golden(f"{case}/{pred_key}").requires_grad_()
        value = loss(pred, golden(f"{case}/{gt_key}"))
        torch.testing.assert_close(value, golden(f"{expected}/{name}"), rtol=0, atol=1e-12)
        torch.testing.assert_close(gradient(value, pred), golden(f"{expected}/{grad}"), rtol=0, atol=1e-12)


def test_golden_cases_contain_what_they_are_for():
    roots = [golden(f"{case}/gt_3d")[:, 0, 3] for case in range(5)]
    assert any((root == 0).any() for root in roots)
    assert any((golden(f"{case}/has_param") == 0).any() for case in range(5))


# --------------------------------------------------------------------------------------------- confidence and masks


@pytest.mark.parametrize(("Loss", "axes"), KEYPOINT_LOSSES)
@pytest.mark.parametrize("loss_type", ["l1", "l2"])
def test_three_ways_to_say_confidence(Loss, axes, loss_type):
    pred, gt, conf = normal(0, 3, 21, axes), normal(1, 3, 21, axes), normal(2, 3, 21).abs()
    loss = Loss(loss_type)
    channel = loss(pred, torch.cat([gt, conf[..., None]], -1))
    assert loss(pred, gt, conf) == channel
    assert loss(pred, torch.cat([gt, conf[..., None]], -1), torch.zeros(3, 21)) == channel  # the channel has priority
    ones = loss(pred, gt, torch.ones(3, 21, dtype=torch.bool))
    assert loss(pred, gt) == ones != channel
    assert loss(pred, torch.cat([gt, torch.ones(3, 21, 1)], -1)) == ones


@pytest.mark.parametrize(("Loss", "axes"), KEYPOINT_LOSSES)
def test_definition_in_a_naive_loop(Loss, axes):
    pred, gt, conf = normal(3, 2, 21, axes), normal(4, 2, 21, axes), normal(5, 2, 21).abs()
    expected = 0.0
    for b in range(2):
        for j in range(21):
            for k in range(axes):
                root = pred[b, 0, k] - gt[b, 0, k] if axes == 3 else 0.0
                expected += conf[b, j] * (pred[b, j, k] - gt[b, j, k] - root) ** 2
    torch.testing.assert_close(Loss("l2")(pred, gt, conf), expected)


@settings(max_examples=30)
@given(
    which=st.integers(0, 1),
    loss_type=st.sampled_from(["l1", "l2"]),
    hole=st.tuples(st.integers(0, 2), st.integers(1, 20), st.integers(0, 1)),
    value=st.sampled_from([NAN, INF, -INF, 1e300]),
    as_mask=st.booleans(),
)
def test_a_label_without_confidence_adds_nothing(which, loss_type, hole, value, as_mask):
    Loss, axes = KEYPOINT_LOSSES[which]
    pred, gt, conf = normal(6, 3, 21, axes).requires_grad_(), normal(7, 3, 21, axes), torch.ones(3, 21).double()
    conf[hole[:2]] = 0.0
    bad = gt.clone()
    bad[hole] = value

    def loss(labels):
        if as_mask:
            return Loss(loss_type)(pred, labels, conf)
        return Loss(loss_type)(pred, torch.cat([labels, conf[..., None]], -1))

    assert loss(bad) == loss(gt)
    assert torch.equal(gradient(loss(bad), pred), gradient(loss(gt), pred))
    assert (gradient(loss(bad), pred)[hole[:2]] == 0).all()
    kept = torch.arange(21) != hole[1]
    row = slice(hole[0], hole[0] + 1)
    without = Loss(loss_type)(pred[row][:, kept], gt[row][:, kept])
    torch.testing.assert_close(Loss(loss_type)(pred[row], bad[row], conf[row]), without, rtol=1e-14, atol=0)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_prediction_without_a_label_is_not_looked_at(value):
    pred = normal(8, 1, 21, 2)
    pred[0, 3] = value
    pred.requires_grad_()
    mask = torch.ones(1, 21)
    mask[0, 3] = 0
    loss = Keypoint2DLoss("l2")(pred, normal(9, 1, 21, 2), mask)
    assert loss.isfinite()
    assert gradient(loss, pred).isfinite().all()


@pytest.mark.parametrize("Loss", [Keypoint2DLoss, Keypoint3DLoss])
def test_a_bad_label_with_confidence_is_not_hidden(Loss):
    axes = 2 if Loss is Keypoint2DLoss else 3
    gt = normal(10, 2, 21, axes)
    gt[0, 5, 1] = NAN
    assert Loss()(normal(11, 2, 21, axes), gt).isnan()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("root_conf", [0.0, 1.0])
def test_a_root_that_is_not_finite_drops_its_sample(value, root_conf):
    pred, gt = normal(12, 3, 21, 3).requires_grad_(), torch.cat([normal(13, 3, 21, 3), torch.ones(3, 21, 1)], -1)
    gt[1, 0, 2], gt[1, 0, 3] = value, root_conf
    loss = Keypoint3DLoss()(pred, gt)
    rest = Keypoint3DLoss()(pred[[0, 2]], gt[[0, 2]])
    torch.testing.assert_close(loss, rest, rtol=1e-14, atol=0)
    assert (gradient(loss, pred)[1] == 0).all()
    assert torch.equal(gradient(loss, pred), gradient(rest, pred))


def test_a_finite_root_without_confidence_is_still_subtracted():
    pred, gt = normal(14, 2, 21, 3), torch.cat([normal(15, 2, 21, 3), torch.ones(2, 21, 1)], -1)
    gt[:, 0, 3] = 0
    moved = gt.clone()
    moved[:, 0, :3] += 1.0
    assert Keypoint3DLoss()(pred, gt) == pytest.approx(Keypoint3DLoss()(pred, gt[..., :3]).item())
    assert Keypoint3DLoss()(pred, moved) != pytest.approx(Keypoint3DLoss()(pred, gt).item())


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_unlabelled_parameters_and_vertices_add_nothing(value, kind):
    pred, gt = normal(16, 3, 8, 3).requires_grad_(), normal(17, 3, 8, 3)
    ok = torch.tensor([1, 0, 1]).to(kind)
    bad = gt.clone()
    bad[1] = value
    for loss in (ParameterLoss(), VertexLoss()):
        found = loss(pred, bad, ok)
        torch.testing.assert_close(found, loss(pred[[0, 2]], gt[[0, 2]], ok[[0, 2]]), rtol=1e-14, atol=0)
        assert (gradient(found, pred)[1] == 0).all()
        assert gradient(found, pred).isfinite().all()
        nothing = loss(pred, bad, torch.zeros(3).to(kind))
        assert nothing == 0
        assert (gradient(nothing, pred) == 0).all()


# ------------------------------------------------------------------------------------------------------------- laws


@settings(max_examples=25)
@given(shifts=st.tuples(*[st.floats(-5, 5)] * 6), loss_type=st.sampled_from(["l1", "l2"]), root_id=st.integers(0, 20))
def test_3d_is_unchanged_by_translating_either_side(shifts, loss_type, root_id):
    pred, gt, conf = normal(18, 2, 21, 3), normal(19, 2, 21, 3), normal(20, 2, 21).abs()
    move = torch.tensor(shifts, dtype=torch.float64)
    loss = Keypoint3DLoss(loss_type, root_id)
    torch.testing.assert_close(loss(pred + move[:3], gt + move[3:], conf), loss(pred, gt, conf), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss(gt + move[:3], gt), torch.zeros(()).double(), rtol=0, atol=1e-11)


def test_2d_does_see_translation():
    gt = normal(21, 2, 21, 2)
    torch.testing.assert_close(Keypoint2DLoss()(gt + 0.5, gt), torch.tensor(2 * 21 * 2 * 0.5).double())


@pytest.mark.parametrize("times", [2, 5])
def test_sum_grows_with_the_batch_and_batch_mean_does_not(times):
    pred2, gt2 = normal(22, 3, 21, 2), normal(23, 3, 21, 2)
    pred3, gt3 = normal(24, 3, 21, 3), normal(25, 3, 21, 3)
    ok = torch.ones(3)
    for make, args in (
        (Keypoint2DLoss, (pred2, gt2)),
        (Keypoint3DLoss, (pred3, gt3)),
        (ParameterLoss, (pred3, gt3, ok)),
    ):
        repeated = [a.repeat(times, *[1] * (a.ndim - 1)) for a in args]
        total, mean = make(), make(reduction="batch_mean")
        torch.testing.assert_close(total(*repeated), times * total(*args))
        torch.testing.assert_close(mean(*repeated), mean(*args))
        torch.testing.assert_close(mean(*args) * 3, total(*args))


def test_regularisers_on_known_numbers():
    assert shape_prior(torch.full((4, 10), 2.0)) == 4.0
    R = torch.eye(3).repeat(2, 15, 1, 1)
    assert pose_prior(R) == 0
    R[0, 3] = torch.tensor([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    assert pose_prior(R) == pytest.approx(8 / 30)
    pred, gt = torch.zeros(2, 5, 3), torch.zeros(2, 5, 3)
    gt[0, 0] = torch.tensor([1.0, -2.0, 3.0])
    assert VertexLoss()(pred, gt, torch.tensor([True, True])) == pytest.approx(6 / 30)
    assert VertexLoss()(pred, gt, torch.tensor([True, False])) == pytest.approx(6 / 15)


def test_auxiliary_is_two_mean_squared_errors():
    coarse, targets = prediction(30).coarse, batch(40)
    assert targets.params_ok.tolist() == [True, False, True, True]
    assert targets.betas_ok.tolist() == [True, True, True, False]
    pose = torch.cat([coarse.global_orient, coarse.hand_pose], 1)
    pose_gt = torch.cat([targets.params.global_orient, targets.params.hand_pose], 1)
    expected = (pose - pose_gt)[[0, 2, 3]].square().mean() + (coarse.betas - targets.params.betas)[:3].square().mean()
    torch.testing.assert_close(auxiliary(coarse, targets), expected)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("Loss", "pred", "gt", "message"),
    [
        (Keypoint2DLoss, (2, 21, 3), (2, 21, 3), r"pred has shape \(2, 21, 3\), expected \(any, any, 2\)"),
        (Keypoint2DLoss, (2, 21, 2), (2, 20, 2), r"gt has shape \(2, 20, 2\), expected \(2, 21, 2\), or \(2, 21, 3\)"),
        (Keypoint2DLoss, (2, 21, 2), (1, 21, 2), r"gt has shape \(1, 21, 2\)"),  # never broadcast
        (Keypoint2DLoss, (2, 21, 2), (2, 21, 4), r"gt has shape \(2, 21, 4\)"),
        (Keypoint2DLoss, (21, 2), (21, 2), r"pred has shape \(21, 2\)"),
        (Keypoint3DLoss, (2, 21, 3), (2, 21, 2), r"gt has shape \(2, 21, 2\), expected \(2, 21, 3\), or \(2, 21, 4\)"),
        (Keypoint3DLoss, (2, 21, 3), (21, 3), r"gt has shape \(21, 3\)"),
        (Keypoint3DLoss, (2, 21, 2), (2, 21, 3), r"pred has shape \(2, 21, 2\)"),
        (Keypoint3DLoss, (2, 0, 3), (2, 0, 3), "root_id is 0"),
    ],
)
def test_wrong_shapes_are_named(Loss, pred, gt, message):
    with pytest.raises(ValueError, match=message):
        Loss()(torch.zeros(pred), torch.zeros(gt))


def test_other_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"mask has shape \(2, 1\), expected \(2, 21\)"):
        Keypoint2DLoss()(torch.zeros(2, 21, 2), torch.zeros(2, 21, 2), torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"\(2, 10\) and gt \(2, 1\)"):
        ParameterLoss()(torch.zeros(2, 10), torch.zeros(2, 1), torch.ones(2))
    with pytest.raises(ValueError, match=r"labelled samples has shape \(2, 1\), expected \(2\)"):
        ParameterLoss()(torch.zeros(2, 10), torch.zeros(2, 10), torch.ones(2, 1))
    with pytest.raises(ValueError, match="root_id is 21, expected 0 to 20"):
        Keypoint3DLoss(root_id=21)(torch.zeros(2, 21, 3), torch.zeros(2, 21, 3))


@pytest.mark.parametrize("value", [-0.5, NAN, INF])
def test_impossible_confidence_is_refused(value):
    for Loss, axes in KEYPOINT_LOSSES:
        gt = torch.ones(2, 21, axes + 1)
        gt[1, 4, -1] = value
        for args in ((gt,), (gt[..., :-1], gt[..., -1])):
            with pytest.raises(ValueError, match="confidence"):
                Loss()(torch.zeros(2, 21, axes), *args)
    with pytest.raises(ValueError, match=f"{value:g}"):
        ParameterLoss()(torch.zeros(2, 5), torch.zeros(2, 5), torch.tensor([1.0, value]))


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="loss_type is 'huber', expected one of 'l1', 'l2'"):
        Keypoint2DLoss("huber")
    with pytest.raises(ValueError, match="reduction is 'mean', expected one of 'sum', 'batch_mean'"):
        Keypoint3DLoss(reduction="mean")
    for options in ({"loss_type": "l3"}, {"reduction": "mean"}, {"w_2d": -1.0}, {"w_aux": NAN}, {"root_id": 21}):
        (key,) = options
        with pytest.raises(InputError, match=key):
            UTNetLoss.from_config(LossConfig(**options))
    with pytest.raises(TypeError, match="w_2D"):
        UTNetLoss(w_2D=1.0)


# --------------------------------------------------------------------------------------------------------- UTNetLoss


def test_total_is_the_weighted_sum_of_every_term():
    weights = {name: 0.1 * (i + 1) for i, name in enumerate(WEIGHTS)}
    result = UTNetLoss(**weights, use_vertex_loss=True)(prediction(0), batch(50))
    assert set(result) == {"loss_" + name[2:] for name in WEIGHTS} | {"total_loss"}
    assert all(value.shape == () and value > 0 for value in result.values())
    expected = sum(weight * result["loss_" + name[2:]] for name, weight in weights.items())
    torch.testing.assert_close(result["total_loss"], expected, rtol=1e-14, atol=0)


def test_defaults_are_the_documented_ones():
    result = UTNetLoss()(prediction(0), batch(50))
    expected = {"loss_2d": 0.01, "loss_3d_joint": 0.05, "loss_prior": 0.001, "loss_aux": 0.001}
    total = sum(weight * result[name] for name, weight in expected.items())
    torch.testing.assert_close(result["total_loss"], total, rtol=1e-14, atol=0)
    assert "loss_3d_vert" not in result
    assert "loss_joint_map" not in result


def test_terms_are_the_losses_of_their_fields():
    p, t = prediction(1), batch(60)
    result = UTNetLoss(**ALL_ON, loss_type="l2", root_id=9)(p, t)
    expected = {
        "loss_2d": Keypoint2DLoss("l2")(p.joints_crop, t.joints_2d),
        "loss_3d_joint": Keypoint3DLoss("l2", 9)(p.joints_m, t.joints_3d),
        "loss_global_orient": ParameterLoss()(p.global_orient, t.params.global_orient, t.params_ok),
        "loss_hand_pose": ParameterLoss()(p.hand_pose, t.params.hand_pose, t.params_ok),
        "loss_betas": ParameterLoss()(p.betas, t.params.betas, t.betas_ok),
        "loss_prior": p.betas.square().mean(),
        "loss_pose_prior": pose_prior(p.hand_pose),
        "loss_3d_vert": (p.vertices_m - t.vertices_m)[[0, 2]].abs().mean(),
        "loss_aux": auxiliary(p.coarse, t),
    }
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=1e-13, atol=0, msg=name)


def test_joint_map_is_2d_and_depth_relative_to_the_labelled_wrist():
    p, t = prediction(2), batch(70)
    expected = 0.0
    for b in range(4):
        for j in range(21):
            x, y, z = p.joint_map[b, j]
            gt_x, gt_y, conf_2d = t.joints_2d[b, j]
            gt_z, conf_3d = t.joints_3d[b, j, 2] - t.joints_3d[b, 0, 2], t.joints_3d[b, j, 3]
            expected += (
                conf_2d * ((x - gt_x).abs() + (y - gt_y).abs()) + conf_3d * (z - gt_z).abs() / JOINT_MAP_Z_UNIT_M
            )
    result = UTNetLoss(w_joint_map=1.0)(p, t)
    torch.testing.assert_close(result["loss_joint_map"], expected)
    halved = UTNetLoss(w_joint_map=1.0, reduction="batch_mean")(p, t)
    torch.testing.assert_close(halved["loss_joint_map"], expected / 4)
    t.joints_3d[:, 0, 2] = NAN  # without a wrist only x and y count
    flat = Keypoint2DLoss()(p.joint_map[..., :2], t.joints_2d)
    torch.testing.assert_close(UTNetLoss(w_joint_map=1.0)(p, t)["loss_joint_map"], flat)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_changed_weight_changes_exactly_its_term(name):
    p, t = prediction(3), batch(80)
    base = UTNetLoss(**ALL_ON)(p, t)
    changed = UTNetLoss(**{**ALL_ON, name: 3.0})(p, t)
    for term in base.keys() - {"total_loss"}:
        assert changed[term] == base[term]
    torch.testing.assert_close(changed["total_loss"] - base["total_loss"], 2 * base["loss_" + name[2:]])


def test_a_term_of_weight_zero_is_watched_and_not_learnt():
    p, t = prediction(4), batch(90)
    leaf = p.hand_pose.clone().requires_grad_()
    # A NaN label with confidence must not reach the total through 0 * NaN.
    t.params.hand_pose[0] = NAN
    result = UTNetLoss(w_aux=0.0)(replace(p, hand_pose=leaf), t)
    assert result["loss_hand_pose"].isnan()
    assert not result["loss_hand_pose"].requires_grad
    assert result["total_loss"].isfinite()


def test_joint_heat_is_the_cross_entropy_with_a_gaussian_round_each_joint_inside():
    p, t = prediction(2), batch(70)
    t.joints_2d[0, 3, :2] = torch.tensor([0.2, 0.7])  # below the crop: no cell
    expected = 0.0
    for b in range(4):
        for j in range(21):
            x, y, conf = t.joints_2d[b, j].tolist()
            if max(abs(x), abs(y)) > 0.5:
                continue
            cells = [(row, column) for row in range(6) for column in range(8)]
            squares = [(r + 0.5 - (y + 0.5) * 6) ** 2 + (c + 0.5 - (x + 0.5) * 8) ** 2 for r, c in cells]
            weights = np.exp(-np.array(squares) / (2 * HEAT_SIGMA_CELLS**2))
            expected -= conf * (weights / weights.sum() * p.joint_heat[b, j].flatten().numpy()).sum()
    result = UTNetLoss(w_joint_heat=1.0)(p, t)["loss_joint_heat"]
    assert result.item() == pytest.approx(expected, rel=1e-12)
    target = heat_cross_entropy(torch.zeros(1, 1, 6, 8).double(), torch.tensor([[[0.1, 0.1, 1.0]]]).double())
    assert target.item() == 0  # log-probabilities of 0 cost nothing, whatever the target: it sums to 1


def test_switches_take_their_term_out():
    p, t = prediction(5), batch(100)
    result = UTNetLoss(**{**ALL_ON, "use_vertex_loss": False, "w_3d_vert": 0.0, "use_aux_loss": False})(
        replace(p, coarse=None, vertices_m=None), replace(t, vertices_m=None)
    )
    assert not {"loss_3d_vert", "loss_aux"} & set(result)


@pytest.mark.parametrize(
    ("options", "without", "message"),
    [
        ({"use_vertex_loss": True}, "vertices_m", "predictions.vertices_m is None.*use_vertex_loss"),
        ({"use_aux_loss": True}, "coarse", "predictions.coarse is None.*use_aux_loss"),
        ({"w_joint_map": 1.0}, "joint_map", "predictions.joint_map is None.*w_joint_map"),
        ({"w_joint_heat": 1.0}, "joint_heat", "predictions.joint_heat is None.*w_joint_heat"),
        ({"w_root_z": 1.0}, "root_z_m", "predictions.root_z_m is None.*w_root_z"),
        ({"w_uncertainty": 1.0}, "joint_scale_mm", "predictions.joint_scale_mm is None.*w_uncertainty"),
        ({"w_mask": 1.0}, "mask_logit", "predictions.mask_logit is None.*w_mask"),
        ({"w_side": 1.0}, "side_logit", "predictions.side_logit is None.*w_side"),
    ],
)
def test_a_missing_input_is_an_error_with_its_remedy(options, without, message):
    with pytest.raises(ValueError, match=message):
        UTNetLoss(**options)(replace(prediction(6), **{without: None}), batch(110))


def test_a_vertex_weight_without_its_switch_is_refused():
    with pytest.raises(InputError, match="use_vertex_loss: true"):
        UTNetLoss(w_3d_vert=1.0)


def test_missing_vertex_labels_are_an_error():
    with pytest.raises(ValueError, match=r"targets\.vertices_m is None"):
        UTNetLoss(use_vertex_loss=True)(prediction(6), replace(batch(110), vertices_m=None))


def test_inputs_are_unchanged_and_every_gradient_is_finite_under_holes():
    p, t = prediction(7), batch(120)
    t.joints_2d[..., :2][t.joints_2d[..., 2] == 0] = NAN
    t.joints_3d[..., :3][t.joints_3d[..., 3] == 0] = INF
    t.params.hand_pose[~t.params_ok] = NAN
    t.params.global_orient[~t.params_ok] = NAN
    t.params.betas[~t.betas_ok] = INF
    t.vertices_m[~(t.params_ok & t.betas_ok)] = NAN
    p = p.map(lambda tensor: tensor.requires_grad_())
    before = [x.map(torch.clone) for x in (p, t)]
    result = UTNetLoss(**ALL_ON)(p, t)
    assert all(value.isfinite() for value in result.values())
    used = [p.global_orient, p.hand_pose, p.betas, p.joints_m, p.joints_crop, p.vertices_m, p.joint_map, p.joint_heat]
    used += [p.coarse.global_orient, p.coarse.hand_pose, p.coarse.betas]
    for grad in torch.autograd.grad(result["total_loss"], used):
        assert grad.isfinite().all()
        assert (grad != 0).any()

    def flat(x):
        found = []
        x.map(lambda tensor: found.append(tensor) or tensor)
        return found

    for old, new in zip(before, (p, t), strict=True):
        for a, b in zip(flat(old), flat(new), strict=True):
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


def test_labels_without_any_confidence_leave_the_priors():
    p, t = prediction(8), batch(130)
    t.joints_2d[:], t.joints_3d[:] = NAN, NAN
    t.joints_2d[..., 2], t.joints_3d[..., 3] = 0, 0
    t = replace(t, params_ok=torch.zeros(4, dtype=torch.bool), betas_ok=torch.zeros(4, dtype=torch.bool))
    t = replace(t, mask_cells=torch.full_like(t.mask_cells, NAN))
    result = UTNetLoss(**{**ALL_ON, "w_side": 0.0})(p, t)
    zeros = set(result) - {"loss_prior", "loss_pose_prior", "total_loss"}
    assert all(result[name] == 0 for name in zeros)
    assert result["total_loss"] == result["loss_prior"] + result["loss_pose_prior"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_are_computed_in_float32(dtype):
    p, t = prediction(9).map(lambda x: x.to(dtype)), batch(140)
    t = t.map(lambda x: x.float() if x.dtype == torch.float64 else x)
    with torch.autocast("cpu", torch.bfloat16):
        result = UTNetLoss(**ALL_ON)(p, t)
    exact = UTNetLoss(**ALL_ON)(p.map(torch.Tensor.double), t)
    for name, value in result.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact[name], rtol=1e-5, atol=1e-6)


def test_summed_terms_are_the_ones_that_grow_with_the_batch():
    p, t = prediction(10), batch(150)
    joined = [x.map(lambda a: torch.cat([a, a])) for x in (p, t)]
    for reduction in ("sum", "batch_mean"):
        loss = UTNetLoss(**ALL_ON, reduction=reduction)
        once, twice = loss(p, t), loss(*joined)
        growing = {name for name in once if name != "total_loss" and twice[name] > 1.5 * once[name]}
        assert growing == loss.summed_terms
