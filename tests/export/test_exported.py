"""Exported networks have the interface of UTNet; other files are refused with a one-line message."""

import functools
import json
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from utnet.config import CropConfig, ModelConfig
from utnet.data.loader import collate
from utnet.errors import InputError
from utnet.export.onnx_check import check_onnx
from utnet.export.runtime import Contents, ExportedNetwork
from utnet.export.writer import export_network, output_names
from utnet.model import UTNet
from utnet.synth import SyntheticHands

SIZE = 64
CROP = CropConfig(expand=1.7)
FORMATS = {"torch": "hand.pt2", "openvino": "hand.xml"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = UTNet(ModelConfig(size_px=SIZE, num_blocks=1, refiner="none", uncertainty=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Networks with depth, in the formats not covered by tests/export/test_export.py."""
    folder = tmp_path_factory.mktemp("exported")
    export_network(model, folder / "hand.pt2", crop=CROP, format="torch")
    return folder


@pytest.fixture(scope="module", params=FORMATS)
def network(request, model, folder):
    path = folder / FORMATS[request.param]
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="pip install 'utnet[export,openvino]'")
        export_network(model, path, crop=CROP, format="openvino")
    return ExportedNetwork(path, trusted=True)


@pytest.fixture(scope="module")
def batch():
    source = SyntheticHands(seed=5, size_px=SIZE, crop=CROP)
    batch = collate([source[i] for i in range(4)])
    return replace(batch, depth_ok=torch.tensor([True, False, True, True]))


def assert_same(got, expected, rows=slice(None)):
    for name in ("global_orient", "hand_pose", "betas", "cam", "cam_t", "joints_m", "joints_crop", "vertices_m"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name)[rows], atol=2e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(got.root_z_m, expected.root_z_m[rows], atol=2e-5, rtol=1e-4, equal_nan=True)
    torch.testing.assert_close(got.joint_scale_mm, expected.joint_scale_mm[rows], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(got.error_shape, expected.error_shape[rows])


def test_it_answers_as_the_network_does(network, model, batch):
    with torch.inference_mode():
        seen, hidden = model.forward_batch(batch), model.forward_batch(batch, use_depth=False)
    assert_same(network.forward_batch(batch), seen)
    assert_same(network.forward_batch(batch, use_depth=False), hidden)
    assert (seen.joints_m - hidden.joints_m).abs()[batch.depth_ok].max() > 1e-4
    rgb = batch.rgb.float() / 255
    with torch.inference_mode():
        assert_same(network(rgb, batch.depth_m), model(rgb, batch.depth_m))


def test_a_batch_is_its_samples_one_by_one(network, batch):
    whole = network.forward_batch(batch)
    for i in range(len(batch)):
        one = replace(batch.map(lambda tensor, i=i: tensor[i : i + 1]), keys=batch.keys[i : i + 1])
        assert_same(network.forward_batch(one), whole, slice(i, i + 1))


def test_threads_do_not_meet(network, batch):
    rgb = torch.rand(6, 3, SIZE, SIZE)
    alone = [network(rgb[i : i + 1]).joints_m for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda i: network(rgb[i % 6 : i % 6 + 1]).joints_m, range(18)))
    for i, joints in enumerate(together):
        torch.testing.assert_close(joints, alone[i % 6])


def test_it_says_what_it_is(network, model):
    assert network.config.model == model.config
    assert network.config.crop == CROP
    assert network.hand_model == "open"
    assert network.takes_depth
    assert np.array_equal(network.faces, model.hand.faces)


def test_wrong_shapes_are_named(network):
    rgb = torch.rand(2, 3, SIZE, SIZE)
    for inputs, name in (
        ((rgb[:, :, 1:],), "rgb"),
        ((rgb, torch.ones(1, SIZE, SIZE)), "depth_m"),
        ((rgb, torch.ones(2, SIZE, SIZE), torch.eye(3)), "K_px"),
        ((rgb, torch.ones(2, SIZE, SIZE), None, torch.ones(1, dtype=torch.bool)), "depth_ok"),
    ):
        with pytest.raises(ValueError, match=name):
            network(*inputs)


def test_a_network_without_depth_refuses_it(model, batch, tmp_path):
    path = tmp_path / "hand.pt2"
    export_network(model, path, crop=CROP, format="torch", with_depth=False)
    network = ExportedNetwork(path, trusted=True)
    assert not network.takes_depth
    with torch.inference_mode():
        assert_same(network.forward_batch(batch, use_depth=False), model.forward_batch(batch, use_depth=False))
    with pytest.raises(InputError, match="without depth"):
        network.forward_batch(batch)
    without = replace(batch, depth_ok=torch.zeros(4, dtype=torch.bool))
    assert network.forward_batch(without).root_z_m.isnan().all()


def test_a_pt2_is_not_opened_untrusted(folder, tmp_path, monkeypatch):
    """Such a file can run arbitrary code, as this one tries to."""
    monkeypatch.delenv("UTNET_TRUST_PT2", raising=False)
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return open, (str(ran), "w")

    evil = tmp_path / "evil.pt2"
    with zipfile.ZipFile(folder / "hand.pt2") as source, zipfile.ZipFile(evil, "w") as out:
        for name in source.namelist():
            data = pickle.dumps(Evil()) if name.endswith("sample_inputs/model.pt") else source.read(name)
            out.writestr(name, data)
    with pytest.raises(InputError, match="UTNET_TRUST_PT2"):
        ExportedNetwork(evil)
    assert not ran.exists()
    monkeypatch.setenv("UTNET_TRUST_PT2", "1")
    assert ExportedNetwork(folder / "hand.pt2").takes_depth


def test_files_of_others_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        ExportedNetwork(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="not an exported network"):
        ExportedNetwork(tmp_path / "hand.bin")
    for name, reader in (("a.onnx", "ONNX Runtime"), ("a.pt2", "torch"), ("a.xml", "OpenVINO")):
        (tmp_path / name).write_bytes(b"not a network")
        if name == "a.xml":
            pytest.importorskip("openvino")
            with pytest.raises(InputError, match=r"a\.bin: no such file"):
                ExportedNetwork(tmp_path / name)
            (tmp_path / "a.bin").write_bytes(b"")
        with pytest.raises(InputError, match=rf"{name}: ({reader} cannot read it|not an ONNX file)"):
            ExportedNetwork(tmp_path / name, trusted=True)
    with pytest.raises(ValueError, match="precision is 'bf16'"):
        ExportedNetwork(tmp_path / "a.onnx", precision="bf16")


def test_onnx_of_another_kind_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other\.onnx.*metadata"):
        ExportedNetwork(tmp_path / "other.onnx")


def test_records_of_another_version_or_kind_are_refused(network, model):
    text = Contents(network.config, ("rgb",), output_names(model, with_depth=False), "open", ((0, 1, 2),)).to_json()
    assert Contents.from_json(text, "x").to_json() == text
    for change, message in (
        ({"schema": 2}, "version 2"),
        ({"inputs": "rgb"}, "x: inputs: expected a list"),
        ({"faces": [[0, 1]]}, "x: faces: expected lists of 3"),
        ({"faces": [[0, 1, 2], [0]]}, "x: faces: expected lists of 3"),
        ({"faces": [[0, 1, 2.5]]}, "x: faces: expected lists of 3"),
        ({"colour": 1}, "x: unknown key 'colour'"),
    ):
        with pytest.raises(InputError, match=message):
            Contents.from_json(json.dumps(json.loads(text) | change), "x")
    for broken in ("", "[]", "{}", "3"):
        with pytest.raises(InputError, match="metadata"):
            Contents.from_json(broken, "x")


@pytest.mark.parametrize("value", [None, -1, 1e300, "text", [], {}, "left out"])
def test_errors_of_records_name_the_file(value, network, model):
    text = Contents(network.config, ("rgb",), output_names(model, with_depth=False), "open", ((0, 1, 2),)).to_json()
    sections = {
        (): json.loads(text),
        **{("config", part): json.loads(text)["config"][part] for part in ("model", "crop")},
    }
    keys = [(*section, key) for section, tree in sections.items() for key in tree] + [("config", "model")]
    messages = []
    for *parents, key in keys:
        whole = json.loads(text)
        tree = functools.reduce(dict.__getitem__, parents, whole)
        tree[key] = value
        if value == "left out":
            del tree[key]
        try:
            Contents.from_json(json.dumps(whole), "hand.onnx")
        except InputError as error:
            messages.append(str(error))
    assert all(message.startswith("hand.onnx: ") for message in messages)
    assert len(messages) >= 5


# ------------------------------------------------------------------------------------------ records and graphs that lie


@pytest.fixture(scope="module")
def onnx_file(model, tmp_path_factory):
    pytest.importorskip("onnx")
    path = tmp_path_factory.mktemp("onnx") / "hand.onnx"
    export_network(model, path, crop=CROP)
    return path


def with_record(onnx_file, path, **changes):
    import onnx

    proto = onnx.load(onnx_file)
    (entry,) = (item for item in proto.metadata_props if item.key == "utnet")
    tree = json.loads(entry.value)
    tree["config"]["model"] |= changes.pop("model", {})
    entry.value = json.dumps(tree | changes)
    onnx.save(proto, path)
    return path


LIES = {
    "faces beyond the vertices": {"faces": [[0, 1, 5000]]},
    "faces below them": {"faces": [[0, 1, -1]]},
    "no faces": {"faces": []},
    "another size": {"model": {"size_px": 96}},
    "a size without end": {"model": {"size_px": 64_000}},
    "fewer inputs": {"inputs": ["rgb"]},
    "other inputs": {"inputs": ["rgb", "depth"]},
    "fewer outputs": {"outputs": ["joints_m"]},
    "another hand": {"hand_model": "paw"},
}


@pytest.mark.parametrize("name", LIES)
def test_a_record_that_is_not_the_graphs_is_refused(name, onnx_file, tmp_path):
    with pytest.raises(InputError) as caught:
        ExportedNetwork(with_record(onnx_file, tmp_path / "lie.onnx", **LIES[name]))
    assert "\n" not in str(caught.value)
    assert ExportedNetwork(with_record(onnx_file, tmp_path / "true.onnx")).takes_depth


def test_a_record_of_other_bytes_than_text_is_refused(onnx_file, tmp_path):
    data = onnx_file.read_bytes()
    (tmp_path / "bytes.onnx").write_bytes(data.replace(b'"hand_model"', b'"hand_mo\xffel"'))
    with pytest.raises(InputError, match=r"bytes\.onnx"):
        ExportedNetwork(tmp_path / "bytes.onnx")


@pytest.mark.parametrize("location", ["../../secret", "/etc/passwd", "weights.bin", "https://example.com/w"])
def test_weights_of_another_file_are_refused_before_a_runtime_opens_it(location, onnx_file, tmp_path):
    import onnx

    proto = onnx.load(onnx_file)
    tensor = max(proto.graph.initializer, key=lambda item: len(item.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "hand.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="refused, it names weights in the file"):
        check_onnx(tmp_path / "hand.onnx")
    tensor.external_data[0].value = "hand.onnx.data"  # where `utnet export` puts more than 2 GB
    (tmp_path / "hand.onnx").write_bytes(proto.SerializeToString())
    check_onnx(tmp_path / "hand.onnx")


def test_operators_that_are_not_onnxs_are_refused(onnx_file, tmp_path):
    import onnx

    def nested(proto):
        graph = onnx.helper.make_graph([onnx.helper.make_node("Evil", [], ["y"], domain="x")], "g", [], [])
        proto.graph.node.append(onnx.helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph))

    for change in (
        lambda proto: proto.opset_import.add(domain="com.evil", version=1),
        lambda proto: setattr(proto.graph.node[0], "domain", "com.microsoft"),
        lambda proto: proto.functions.add(name="f"),
        nested,
    ):
        proto = onnx.load(onnx_file)
        change(proto)
        (tmp_path / "op.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(InputError, match=r"op\.onnx: refused, it names"):
            ExportedNetwork(tmp_path / "op.onnx")


@pytest.mark.parametrize("data", [b"", b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 40, b"\x3a\x02\x0b\x0c"])
def test_what_is_no_protobuf_is_no_onnx(data, tmp_path):
    (tmp_path / "no.onnx").write_bytes(data)
    with pytest.raises(InputError, match=r"no\.onnx"):
        ExportedNetwork(tmp_path / "no.onnx")
