"""Exported files give the outputs of the network for any batch size; files that differ are deleted."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import utnet
from utnet.checkpoint import save_checkpoint
from utnet.cli import main as cli
from utnet.config import Config, CropConfig, ModelConfig
from utnet.errors import InputError
from utnet.export import writer as export
from utnet.export.description import ENTRY, description
from utnet.export.runtime import SUFFIXES, ExportedNetwork
from utnet.export.writer import TOLERANCE_MM, compare, export_network, output_names
from utnet.model import UTNet

NARROW = {"dim": 48, "num_blocks": 1, "num_heads": 4}
KINDS = {
    "ti": ModelConfig(size_px=64, num_blocks=1),
    "ti, coarse only": ModelConfig(size_px=64, num_blocks=1, refiner="none"),
    "ti, lite0": ModelConfig(size_px=64, num_blocks=1, stem="lite0"),
    "ti, prompts": ModelConfig(size_px=64, num_blocks=1, prompts=True, evidence=True, uncertainty=True),
    "s": ModelConfig(preset="s", size_px=64, **NARROW),
    "b": ModelConfig(preset="b", size_px=64, **NARROW),
    "l": ModelConfig(preset="l", size_px=64, uncertainty=True, **NARROW),
    "h": ModelConfig(preset="h", size_px=64, width_px=32, **NARROW),
    "hamer": ModelConfig(preset="hamer", size_px=64, decoder=(40, 2, 3, 56), **NARROW),
}
CROP = CropConfig(expand=1.7, rotation_jitter_deg=0.0)
PACKAGES = {"onnx": "onnxscript", "openvino": "openvino", "torch": "torch"}


def built(kind):
    torch.manual_seed(0)
    model = UTNet(KINDS[kind])
    with torch.no_grad():  # away from the start, where residuals and the depth path's last layer are nothing
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def test_onnx_equals_the_network_for_any_batch(tmp_path):
    """With ONNX Runtime only, without this package."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript", reason="pip install 'utnet[export]'")
    model = built("ti")
    path = tmp_path / "hand.onnx"
    agreement = export_network(model, path, crop=CROP)
    assert agreement.mm <= TOLERANCE_MM
    assert agreement.relative <= 5e-5
    assert agreement.hands == 10
    assert list(tmp_path.iterdir()) == [path]
    assert str(Path(utnet.__file__).parent).encode() not in path.read_bytes(), "a path of this machine"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert tuple(out.name for out in session.get_outputs()) == output_names(model, with_depth=True)
    about = json.loads(session.get_modelmeta().custom_metadata_map[ENTRY])
    assert {"rgb", "depth_m", "K_px", "joints_m", "vertices_m", "joints_crop", "root_z_m"} <= set(about)
    assert {"crop", "camera", "left_hands", "parameters"} <= set(about)
    assert len(about["joint_names"]) == 21
    for num in (1, 3):
        rgb = torch.rand(num, 3, 64, 64)
        depth = 0.6 + 0.1 * torch.rand(num, 64, 64)
        depth[0, :40] = torch.nan  # holes, which are read as no reading
        if num > 1:
            depth[1] = 0  # no depth at all
        K = torch.tensor([[150.0, 0, 31.5], [0, 150.0, 31.5], [0, 0, 1]]).repeat(num, 1, 1)
        K[-1] = torch.nan
        results = session.run(None, {"rgb": rgb.numpy(), "depth_m": depth.numpy(), "K_px": K.numpy()})
        with torch.inference_mode():
            expected = model(rgb, depth, K)
        for name, result in zip(output_names(model, with_depth=True), results, strict=True):
            torch.testing.assert_close(
                torch.from_numpy(result), getattr(expected, name), atol=2e-5, rtol=1e-4, equal_nan=True, msg=name
            )


def test_the_description_is_of_the_files_own_inputs_and_crop():
    about = json.loads(description(("rgb", "joints_m"), recipe="wilor"))
    assert {"rgb", "joints_m"} <= set(about)
    assert not {"depth_m", "landmarks", "root_z_m"} & set(about)
    assert "Gaussian" in about["crop"]
    assert "Gaussian" not in json.loads(description(("rgb",)))["crop"]


@pytest.mark.long
@pytest.mark.parametrize("with_depth", [True, False])
@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_in_every_format(kind, format, with_depth, tmp_path):
    pytest.importorskip(PACKAGES[format])
    path = tmp_path / f"hand{SUFFIXES[format]}"
    model = built(kind)
    agreement = export_network(model, path, crop=CROP, format=format, with_depth=with_depth)
    assert agreement.mm <= TOLERANCE_MM
    network = ExportedNetwork(path, trusted=True)
    assert network.takes_depth == with_depth
    assert network.config.model == KINDS[kind]
    assert compare(model, path, crop=CROP) == agreement


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_onnx_of_more_than_2_gb(tmp_path):
    """Preset h: its weights exceed one ONNX file and are stored beside it."""
    pytest.importorskip("onnxscript")
    model = UTNet(ModelConfig(preset="h", size_px=256)).eval()
    path = tmp_path / "hand.onnx"
    agreement = export_network(model, path, crop=CropConfig(aspect=0.75))
    assert agreement.mm <= TOLERANCE_MM
    assert sorted(part.name for part in tmp_path.iterdir()) == ["hand.onnx", "hand.onnx.data"]
    assert (tmp_path / "hand.onnx.data").stat().st_size > 2**31


def test_a_file_that_disagrees_is_not_left(tmp_path, monkeypatch):
    model, path = built("ti, coarse only"), tmp_path / "hand.pt2"
    path.write_bytes(b"an older file")
    trace = export._trace

    def trace_another(model, *args):
        other = UTNet(model.config)
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            other.coarse_head.pose.bias += 0.01
        return trace(other.eval(), *args)

    monkeypatch.setattr(export, "_trace", trace_another)
    with pytest.raises(InputError, match=r"hand.pt2: not written, it is [\d.]+ mm"):
        export_network(model, path, crop=CROP, format="torch", with_depth=False)
    assert [(part, part.read_bytes()) for part in tmp_path.iterdir()] == [(path, b"an older file")]


def test_the_command_checks_what_it_writes(tmp_path, capsys):
    """And does not store the path of the user's MANO file."""
    model = replace(KINDS["ti, coarse only"], mano="/home/somebody/MANO_RIGHT.pkl")
    save_checkpoint(tmp_path / "best", built("ti, coarse only"), Config(model=model, crop=CROP))
    out = tmp_path / "hand.pt2"
    cli.main(["export", str(tmp_path / "best"), "--format", "torch", "--out", str(out), "--no-depth"])
    printed = capsys.readouterr().out
    assert "preset ti, crops of 64 px, RGB\n" in printed
    assert "5 hands: joints and vertices within 0.0e+00 mm" in printed
    config = ExportedNetwork(out, trusted=True).config
    assert (config.model, config.crop) == (KINDS["ti, coarse only"], CROP)
    assert b"somebody" not in out.read_bytes()
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", str(tmp_path / "best"), "--format", "onnx", "--out", str(out)])
    assert stop.value.code == 2
    assert "ends in .onnx" in capsys.readouterr().err


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    model = built("h")
    with pytest.raises(ValueError, match="training mode"):
        export_network(built("h").train(), tmp_path / "hand.onnx", crop=CROP)
    with pytest.raises(ValueError, match="format is 'onx'"):
        export_network(model, tmp_path / "hand.onnx", crop=CROP, format="onx")
    with pytest.raises(InputError, match="folder does not exist"):
        export_network(model, tmp_path / "none" / "hand.onnx", crop=CROP)
    with pytest.raises(InputError, match=r"format openvino ends in \.xml"):
        export_network(model, tmp_path / "hand.onnx", crop=CROP, format="openvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx and onnxscript.*pip install 'utnet\[export\]'"):
        export_network(model, tmp_path / "hand.onnx", crop=CROP)
    assert list(tmp_path.iterdir()) == []
