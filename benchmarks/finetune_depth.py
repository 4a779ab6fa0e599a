"""RGB-D from RGB weights: `python benchmarks/finetune_depth.py [--rgb-minutes 7] [--minutes 5]`.

A small network of WiLoR's kind (preset h, its refiner, no joint maps) learns synthetic hands from RGB alone. Its
weights are written with WiLoR's names and imported as WiLoR's are (`utnet.checkpoint.import_wilor`); the RGB-D network
so made must give equal outputs whatever the depth. It is then fine-tuned with depth dropped for 0.4 of the samples, and
its RGB and RGB-D errors on held-out hands are compared. Prints a table and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json

import numpy as np
import torch
from short_training import HELD_OUT_SEED, fit
from torch import Tensor

from utnet.checkpoint import import_wilor
from utnet.config import Config, CropConfig, LossConfig, ModelConfig, SynthConfig, TrainConfig, override
from utnet.conventions import MANO21_TO_OPENPOSE, MANO_PARENTS
from utnet.evaluation.validation import evaluate
from utnet.model import UTNet
from utnet.model.wilor import entry_names
from utnet.rotations import matrix_to_rotation_6d
from utnet.synth import SyntheticHands
from utnet.synth.poses import angles_to_pose, sample_angles

_CONFIG = Config(
    crop=CropConfig(expand=1.5),
    synth=SynthConfig(max_tilt_deg=40.0),  # an easier half of the views: patches learn slowly from nothing
    model=ModelConfig(preset="h", size_px=128, dim=128, num_blocks=2, num_heads=4, p_drop=1.0),
    loss=LossConfig(w_aux=3.0, w_global_orient=0.005, w_hand_pose=0.01, w_betas=0.0001),
    train=TrainConfig(
        steps=10**9, batch_size=16, lr=1e-3, warmup_steps=100, clip_grad=3.0, num_workers=0, num_threads=1
    ),
)
_FRESH_SEED = "seed=1"  # fine-tuning sees other hands than the training before it


def rgb_network() -> UTNet:
    """Of WiLoR's kind: a mean pose tells the joints apart, and what only UTNet has is zero and stays so."""
    torch.manual_seed(0)
    model, rng = UTNet(_CONFIG.model), np.random.default_rng(0)
    poses = torch.from_numpy(np.stack([angles_to_pose(sample_angles(rng)) for _ in range(500)])).float()
    model.hand_tokens.mean_pose[1:] = matrix_to_rotation_6d(poses).mean(0)
    for parameter in (model.hand_tokens.embed_slot, model.stem.placeholder):
        torch.nn.init.zeros_(parameter)
        parameter.requires_grad_(False)
    return model


def wilor_state(model: UTNet) -> dict[str, Tensor]:
    """The network's weights and its hand under WiLoR's names."""
    ours = model.state_dict()
    state = {theirs: ours[name] for theirs, name in entry_names(model.preset.num_blocks).items()}
    position = state["backbone.pos_embed"]
    state["backbone.pos_embed"] = torch.cat([torch.zeros_like(position[:, :1]), position], 1)
    state["backbone.init_hand_pose"] = state["backbone.init_hand_pose"].reshape(1, -1)
    hand = model.hand
    points = torch.cat([hand.v_template, hand.shapedirs.flatten(1)], 1).double()
    joints = torch.cat([hand.J_template, hand.J_shapedirs.flatten(1)], 1).double()
    return state | {
        "mano.v_template": hand.v_template,
        "mano.shapedirs": hand.shapedirs,
        "mano.posedirs": torch.zeros(135, 3 * hand.num_vertices),
        "mano.J_regressor": joints @ torch.linalg.pinv(points),  # one that gives the open hand's joints for all betas
        "mano.lbs_weights": hand.weights,
        "mano.faces_tensor": hand.faces,
        "mano.extra_joints_idxs": hand.tip_vertices,
        "mano.parents": torch.tensor(MANO_PARENTS),
        "mano.joint_map": torch.tensor(MANO21_TO_OPENPOSE),
    }


def imported(rgb_model: UTNet, source: SyntheticHands) -> tuple[UTNet, float]:
    """The RGB-D network made of RGB weights, and how far its joints are from the RGB network's (mm).

    Raises:
        AssertionError: depth changes its outputs, or they are not the RGB network's.
    """
    model = import_wilor(wilor_state(rgb_model), rgb_model.preset.num_heads)
    samples = [source[i] for i in range(16)]
    rgb = torch.from_numpy(np.stack([s.rgb.transpose(2, 0, 1) for s in samples])).float() / 255
    depth = torch.from_numpy(np.stack([s.depth_m for s in samples]))
    K = torch.from_numpy(np.stack([s.K_px for s in samples])).float()
    with torch.inference_mode():
        before, plain = rgb_model(rgb), model(rgb)
        for any_depth in (depth, depth + 0.1, torch.rand_like(depth)):
            with_depth = model(rgb, any_depth, K)
            for name in ("global_orient", "hand_pose", "betas", "cam", "joints_m", "joints_crop", "vertices_m"):
                assert torch.equal(getattr(with_depth, name), getattr(plain, name)), f"depth changes {name}"
    apart = 1000 * float((plain.joints_m - before.joints_m).abs().max())
    assert apart < 0.01, f"the imported network's joints are {apart:g} mm from the RGB network's"
    return model, apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rgb-minutes", type=float, default=7.0, help="of training on RGB alone, on one core")
    parser.add_argument("--minutes", type=float, default=5.0, help="of fine-tuning with depth, on one core")
    parser.add_argument("--num", type=int, default=1024, help="held-out hands")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = override(_CONFIG, [f"train.minutes={args.rgb_minutes}"])
    options = {"synth": config.synth, "crop": config.crop, "jitter": False}
    held_out = SyntheticHands(seed=HELD_OUT_SEED, size_px=config.model.size_px, num=args.num, **options)
    rgb_model = rgb_network()
    steps = {"rgb_steps": fit(rgb_model, config)}
    model, apart = imported(rgb_model, held_out)
    print(f"step 0: outputs equal for any depth, joints within {apart:.1e} mm of the RGB network's", flush=True)
    before = evaluate(model, held_out, config.crop, config.train)
    changes = ["model.p_drop=0.4", f"train.minutes={args.minutes}", _FRESH_SEED]
    tuned = UTNet(override(config, changes).model, model.hand)
    tuned.load_state_dict(model.state_dict())
    steps["tuning_steps"] = fit(tuned, override(config, changes))
    after = evaluate(tuned, held_out, config.crop, config.train)
    print(f"{args.num} held-out hands; MPJPE / PA-MPJPE in mm")
    print(f"{'best constant hand':36s}{before['constant']['mpjpe_mm']:8.1f} /{before['constant']['pa_mpjpe_mm']:6.1f}")
    result = {}
    for when, scores in (("before", before), ("after", after)):
        for name, title in (("rgb", "RGB"), ("rgbd", "RGB-D")):
            own = scores[name]
            print(f"{title + ', ' + when + ' fine-tuning':36s}{own['mpjpe_mm']:8.1f} /{own['pa_mpjpe_mm']:6.1f}")
            result[f"{name}_{when}"] = [round(own["mpjpe_mm"], 1), round(own["pa_mpjpe_mm"], 1)]
    print(json.dumps({"benchmark": "finetune_depth", "num": args.num, **steps, **result}))


if __name__ == "__main__":
    main()
