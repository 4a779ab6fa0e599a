"""torch.compile gives the eager network's hand."""

import shutil

import pytest
import torch

from utnet.config import ModelConfig
from utnet.model import UTNet


@pytest.mark.long
@pytest.mark.timeout(3600)  # a C++ compiler has minutes to do, and more on a busy machine
def test_compiled_agrees_with_eager_within_a_twentieth_of_a_millimetre(monkeypatch, tmp_path):
    if not any(shutil.which(name) for name in ("g++", "clang++")):
        pytest.skip("torch.compile needs a C++ compiler for the CPU: install g++ (or clang++ and set CXX)")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # compiled here and now
    torch.manual_seed(0)
    model = UTNet(ModelConfig()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    compiled = torch.compile(model)
    rgb, depth = torch.rand(2, 3, 128, 128), 0.6 + 0.1 * torch.rand(2, 128, 128)
    K = torch.tensor([[300.0, 0, 63.5], [0, 300.0, 63.5], [0, 0, 1]]).repeat(2, 1, 1)
    with torch.no_grad():
        eager, fast = model(rgb, depth, K), compiled(rgb, depth, K)
        for name in ("joints_m", "vertices_m"):
            away_m = (getattr(eager, name) - getattr(fast, name)).norm(dim=-1).max()
            assert away_m < 5e-5, name
        torch.testing.assert_close(fast.joints_crop, eager.joints_crop, atol=1e-4, rtol=0)
    assert (eager.joints_m[0] - eager.joints_m[1]).abs().max() > 1e-6, "the picture must matter"
