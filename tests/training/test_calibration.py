"""The last step of training: stated errors hold on held-out samples, and nothing else changes."""

from dataclasses import replace

import pytest
import torch

from support.runs import CONFIG, with_train
from utnet.checkpoint import load_checkpoint
from utnet.data.collate import collate
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.training.calibration import calibrate
from utnet.training.loop import train
from utnet.uncertainty import interval_mm

HEAD = replace(CONFIG.model, uncertainty=True, prompts=True)
WITH_HEAD = replace(CONFIG, model=HEAD, loss=replace(CONFIG.loss, w_uncertainty=0.002))


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_intervals_hold_after_calibration_whatever_was_stated(factor):
    torch.manual_seed(0)
    source = SyntheticHands(seed=11, size_px=64, num=64)
    model = UTNet(HEAD).eval()
    with torch.no_grad():
        model.scale_head.level.add_(torch.tensor(factor).log() / 10)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calibrate(model, source, CONFIG.crop, CONFIG.prompts, replace(CONFIG.train, batch_size=16))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"scale_head.level", "scale_head.log_shape"}
    batch = collate([source[i] for i in range(64)])
    with torch.inference_mode():
        out = model.forward_batch(batch)
    off = (out.joints_m - out.joints_m[:, :1]) - (batch.joints_3d[..., :3] - batch.joints_3d[:, :1, :3])
    off_mm = 1e3 * off.norm(dim=-1)[:, 1:]
    for share in (0.5, 0.9):
        within = (off_mm <= interval_mm(out, share)[:, 1:]).float().mean()
        assert abs(within - share) < 0.06
    torch.testing.assert_close(out.joint_scale_mm[:, 1:].mean(), off_mm.mean(), rtol=0.06, atol=0)


def test_a_run_ends_with_a_calibrated_best(tmp_path):
    config = with_train(WITH_HEAD, steps=2, accumulate=1, eval_every=2, pictures=0)
    train(config, tmp_path / "run", progress=False)
    best, _ = load_checkpoint(tmp_path / "run" / "best")
    last, _ = load_checkpoint(tmp_path / "run" / "last")
    assert not torch.equal(best.scale_head.level, last.scale_head.level)
