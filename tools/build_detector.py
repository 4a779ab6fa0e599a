"""Makes the hand detector's files (`src/utnet/assets/detector/*.onnx`) again from the converted originals.

    python tools/build_detector.py FOLDER              # writes the shipped files
    python tools/build_detector.py FOLDER --check      # compares: the same bytes, and outputs near the originals'

FOLDER holds the published weights as ONNX with float32 weights (by tf2onnx, opset 17, one picture a call):
`palm_detection_full.onnx` and `hand_landmark_full.onnx` from the .tflite files in PyPI's `mediapipe` 0.10.21
(Apache-2.0), `handtrack.onnx` from npm's `handtrackjs` 0.1.5 (MIT).

What is changed: weights of two or more axes are stored as float16, each behind a Cast to float32, which ONNX Runtime
folds while it loads: half the bytes, and the arithmetic stays that of float32. Biases, slopes and the anchors of the
second detector stay float32. PReLU, which ONNX Runtime has only for its slow memory layout, becomes convolutions of one
pixel a channel and a ReLU (palm: 8.6 in place of 15.6 ms, outputs of pictures within 1e-4 px). Names of nodes and notes
are dropped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from utnet.onnx_session import open_session

SHIPPED = Path(__file__).parents[1] / "src" / "utnet" / "assets" / "detector"
ORIGINALS = {
    "palm": ("palm_detection_full.onnx", 192),
    "landmark": ("hand_landmark_full.onnx", 224),
    "second": ("handtrack.onnx", 320),
}
"""Shipped name -> original, side of its picture in px."""
LARGEST_TOTAL = 14_000_000  # bytes
LARGEST_DIFFERENCE = {"palm": 0.1, "landmark": 0.1, "second": 0.005}
"""Between the first outputs of the two files on noise: pixels of the network's picture (palm, landmark),
shares of its side (second)."""


def half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its float32 weights of two or more axes stored as float16 behind a Cast."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len([size for size in tensor.dims if size > 1]) >= 2:
            half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}_half")
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(half)
    nodes = casts + list(graph.node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
    return model


def without_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with PReLU(x) of slopes a as a x + (1 - a) ReLU(x), where both products are convolutions."""
    graph, nodes = model.graph, []
    slopes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        (x, slope), (out,) = node.input, node.output
        a = slopes[slope].reshape(-1, 1, 1, 1)
        linear, above, positive = (f"{name}_{len(nodes)}" for name in ("linear", "above", "positive"))
        nodes.append(helper.make_node("Relu", [x], [positive]))
        for source, weights, result in ((x, a, linear), (positive, 1 - a, above)):
            graph.initializer.append(numpy_helper.from_array(weights, f"{result}_weights"))
            nodes.append(
                helper.make_node("Conv", [source, f"{result}_weights"], [result], group=len(a), kernel_shape=[1, 1])
            )
        nodes.append(helper.make_node("Add", [linear, above], [out]))
    unused = set(slopes) - {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name not in unused]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model


def build(original: Path) -> bytes:
    model = half_weights(without_prelu(onnx.load(original)))
    model.producer_name = model.producer_version = model.doc_string = ""
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def difference(name: str, original: Path, shipped: bytes) -> float:
    """The largest difference between the first outputs of two files (the boxes, the landmarks) on five pictures."""
    _, size = ORIGINALS[name]
    rng = np.random.default_rng(0)
    sessions = [open_session(file) for file in (original, shipped)]
    worst = 0.0
    for _ in range(5):
        picture = np.kron(rng.random((1, 8, 8, 3)), np.ones((1, size // 8, size // 8, 1))) * 2 - 1
        first, second = (s.run(None, {s.get_inputs()[0].name: picture.astype(np.float32)}) for s in sessions)
        worst = max(worst, float(np.abs(first[0] - second[0]).max()))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the originals")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the files that are there")
    arguments = parser.parse_args()
    failed, total = False, 0
    for name, (file, _) in ORIGINALS.items():
        data, target = build(arguments.folder / file), arguments.out / f"{name}.onnx"
        if not arguments.check:
            target.write_bytes(data)
        same, off = target.read_bytes() == data, difference(name, arguments.folder / file, data)
        total += len(data)
        failed |= not same or off > LARGEST_DIFFERENCE[name]
        print(f"{name}: {len(data):,} bytes, {'the same' if same else 'OTHER'} bytes, outputs within {off:.4f}")
    print(f"{total:,} bytes in all, at most {LARGEST_TOTAL:,}")
    return int(failed or total > LARGEST_TOTAL)


if __name__ == "__main__":
    sys.exit(main())
