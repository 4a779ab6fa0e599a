"""The exported network gives the network's outputs, for any batch and with depth; what is missing is named."""

import importlib.util

import pytest
import torch

from utnet.config import ModelConfig
from utnet.errors import InputError
from utnet.export import export_onnx, output_names
from utnet.model import UTNet

NARROW = {"dim": 48, "depth": 2, "num_heads": 4}
KINDS = {"ti": ModelConfig(size_px=64), "h": ModelConfig(preset="h", size_px=64, width_px=32, **NARROW)}


def built(kind):
    torch.manual_seed(0)
    model = UTNet(KINDS[kind])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


@pytest.mark.parametrize(("kind", "with_depth"), [("ti", True), pytest.param("h", False, marks=pytest.mark.long)])
def test_onnx_equals_the_network_for_any_batch(kind, with_depth, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    pytest.importorskip("onnxscript", reason="pip install -e '.[export]'")
    model = built(kind)
    path = export_onnx(model, tmp_path / "hand.onnx", with_depth=with_depth)
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix not in (".onnx", ".data")] == []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert tuple(out.name for out in session.get_outputs()) == output_names(with_depth=with_depth)
    for num in (1, 3):
        rgb = torch.rand(num, 3, 64, 64)
        depth = 0.6 + 0.1 * torch.rand(num, 64, 64)
        depth[0, :40] = torch.nan  # holes, which are read as no reading
        if num > 1:
            depth[1] = 0  # no depth at all
        K = torch.tensor([[150.0, 0, 31.5], [0, 150.0, 31.5], [0, 0, 1]]).repeat(num, 1, 1)
        K[-1] = torch.nan
        inputs = {"rgb": rgb} | ({"depth_m": depth, "K_px": K} if with_depth else {})
        results = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        with torch.inference_mode():
            expected = model(**inputs)
        for name, result in zip(output_names(with_depth=with_depth), results, strict=True):
            torch.testing.assert_close(
                torch.from_numpy(result), getattr(expected, name), atol=2e-5, rtol=1e-4, equal_nan=True, msg=name
            )


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="training mode"):
        export_onnx(built("h").train(), tmp_path / "hand.onnx", with_depth=False)
    with pytest.raises(InputError, match="folder does not exist"):
        export_onnx(built("h"), tmp_path / "none" / "hand.onnx", with_depth=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx and onnxscript.*utnet\[export\]"):
        export_onnx(built("h"), tmp_path / "hand.onnx", with_depth=False)
    assert list(tmp_path.iterdir()) == []
