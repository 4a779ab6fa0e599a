"""UTNet beside MediaPipe's own package, and the hand layer beside `body-models`.

    python benchmarks/peers.py --pictures DIR [--video CLIP] [--venv build/peers]

MediaPipe 0.10.21 is the last wheel that carries its hand models; it gives landmarks, no mesh. It is installed into an
environment of its own, which this program makes (`--venv`, kept for the next call); both sides run as child processes:

    cold     one process that reads a picture, predicts and writes its results (MediaPipe: prints landmarks): wall and
             CPU time, and peak memory; the median of three after a first one.
    warm     time per picture of a pass over the pictures, after two of them, and hands found. Ours: also by stage.
    video    all frames of a clip with a drawn overlay, as a whole process; hands found, summed over the frames.
    layer    axis-angles to vertices and joints of 1, 64 and 1,024 hands on one thread, CPU time: `body-models` (a
             development dependency) and `HandModel`, both with `--mano` or with random numbers of its shape.

Prints every row when it is measured, and one JSON line. CPU time is user and system time of all threads; it depends
little on what else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

PEER = "mediapipe==0.10.21"
ROOT = Path(__file__).parents[1]
OURS = (sys.executable, "-m", "utnet")

MEDIAPIPE = r"""
import json, sys, time
import cv2
import mediapipe as mp
mode, *files = sys.argv[1:]
hands = mp.solutions.hands.Hands(static_image_mode=mode != "video", max_num_hands=4)
def draw(rgb, found):
    for hand in found.multi_hand_landmarks or ():
        mp.solutions.drawing_utils.draw_landmarks(rgb, hand, mp.solutions.hands.HAND_CONNECTIONS)
def look(path):
    rgb = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    found = hands.process(rgb)
    return len(found.multi_hand_landmarks or ())
if mode == "video":
    clip = cv2.VideoCapture(files[0])
    size = int(clip.get(3)), int(clip.get(4))
    out = cv2.VideoWriter(files[1], cv2.VideoWriter_fourcc(*"mp4v"), clip.get(5), size)
    frames = num = 0
    while True:
        ok, bgr = clip.read()
        if not ok:
            break
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        found = hands.process(rgb)
        num += len(found.multi_hand_landmarks or ())
        draw(rgb, found)
        out.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        frames += 1
    out.release()
    print(json.dumps({"frames": frames, "hands": num}))
else:
    num = sum(look(path) for path in files[:2])
    start = time.perf_counter(), time.process_time()
    if mode == "warm":
        num = sum(look(path) for path in files)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    print(json.dumps({"hands": num, "wall_ms": 1e3 * wall / len(files), "cpu_ms": 1e3 * cpu / len(files)}))
"""

WARM = r"""
import json, sys, time
from collections import defaultdict
from pathlib import Path
import utnet.predict.picture as picture
from utnet.predict import Predictor
from utnet.predict.inputs import find_inputs
from utnet.predict.request import Request
out, *files = sys.argv[1:]
spent = defaultdict(float)
def timed(owner, name, stage):
    function = getattr(owner, name)
    def call(*args, **kwargs):
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[stage] += time.process_time() - start
    setattr(owner, name, call)
predictor = Predictor()
method, detector = predictor._reconstruct, predictor.detector
timed(picture, "read_picture", "decode")
timed(picture, "draw_hands", "draw")
timed(picture, "save_picture", "encode")
timed(type(detector), "find", "detect")
timed(type(predictor), "_predict", "reconstruct")
timed(type(method.network), "__call__", "network")
timed(type(method._fitter), "fit", "fit")
request, items = Request(out=Path(out), overlay=True), find_inputs(files)
Path(out).mkdir(exist_ok=True)
for some in (items[:2], items):
    spent.clear()
    start, num = (time.perf_counter(), time.process_time()), 0
    for item in some:
        num += len(picture.predict_picture(predictor, item, request)[1])
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
each = {stage: round(1e3 * seconds / len(items), 1) for stage, seconds in spent.items()}
print(json.dumps({"hands": num, "wall_ms": 1e3 * wall / len(items), "cpu_ms": 1e3 * cpu / len(items), "stages": each}))
"""

LAYER = r"""
import json, sys, time
import torch
from utnet.hand import HandModel
from utnet.rotations import axis_angle_to_matrix
torch.set_num_threads(1)
from body_models.mano.torch import MANO
theirs, ours = MANO(model_path=sys.argv[1], flat_hand_mean=True), HandModel.from_mano(sys.argv[1])
def peer(vectors, betas):
    given = {"wrist_rotation": vectors[:, 0], "shape": betas}
    return theirs.forward_vertices(vectors[:, 1:], **given), theirs.forward_skeleton(vectors[:, 1:], **given)
def own(vectors, betas):
    pose = axis_angle_to_matrix(vectors)
    mesh = ours(pose[:, :1], pose[:, 1:], betas)
    return mesh.vertices_m, mesh.mano_joints_m
rows = {"body-models": {}, "ours": {}}
with torch.inference_mode():
    for num in (1, 64, 1024):
        given = torch.randn(num, 16, 3) / 2, torch.randn(num, 10)
        for name, layer in (("body-models", peer), ("ours", own)):
            layer(*given)
            times = []
            while len(times) < 3 or (len(times) < 10 and sum(times) < 1):
                start = time.process_time()
                layer(*given)
                times.append(time.process_time() - start)
            rows[name][num] = round(1e3 * min(times), 3)
print(json.dumps(rows))
"""


def environment(folder: Path) -> Path:
    """The Python of the peers' environment; made and filled where it is not there yet."""
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        venv.create(folder, with_pip=True, clear=True)
        done = subprocess.run([python, "-m", "pip", "install", "-q", PEER], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"peers.py: {PEER} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        (folder / "ready").touch()
    return python


def child(*command: object) -> tuple[str, dict[str, float]]:
    """The last line of a process's output, and its wall time, CPU time and peak memory."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            sys.exit(f"peers.py: {command[0]} failed: {err.read()[-2000:]}")
        lines = out.read().strip().splitlines() or [""]
    cost = {"wall_s": wall, "cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}
    return lines[-1], {name: round(value, 2) for name, value in cost.items()}


def median_child(*command: object) -> tuple[str, dict[str, float]]:
    """`child` of a command that has run before: the medians of three."""
    child(*command)
    lines, costs = zip(*(child(*command) for _ in range(3)), strict=True)
    return lines[-1], {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}


def hands_written(out: Path) -> int:
    """Number of hands in predictions.json; of a video, those seen in each frame."""
    from utnet.predict import read_predictions

    tree = read_predictions(out / "predictions.json")
    records = [frame for record in (*tree["images"], *tree["videos"]) for frame in record.get("frames", [record])]
    return sum(hand["valid"] for record in records for hand in record["hands"])


def compare(
    python: Path, pictures: list[Path], video: Path | None, mano: Path | None, work: Path
) -> Iterator[tuple[str, dict]]:
    """All rows, ours and the peer's in turns."""
    _, cost = median_child(*OURS, "predict", pictures[0], "--out", work / "cold", "--overwrite")
    yield "ours, cold", {**cost, "hands": hands_written(work / "cold")}
    line, cost = median_child(python, "-c", MEDIAPIPE, "cold", pictures[0])
    yield "mediapipe, cold", {**cost, "hands": json.loads(line)["hands"]}
    for name, command in (
        ("ours, warm", (sys.executable, "-c", WARM, work / "warm", *pictures)),
        ("mediapipe, warm", (python, "-c", MEDIAPIPE, "warm", *pictures)),
    ):
        line, cost = child(*command)
        yield name, {**json.loads(line), "peak_mib": cost["peak_mib"]}
    if video is not None:
        _, cost = child(*OURS, "predict", video, "--out", work / "video", "--mesh", "none")
        yield "ours, video", {**cost, "hands": hands_written(work / "video")}
        line, cost = child(python, "-c", MEDIAPIPE, "video", video, work / "mediapipe.mp4")
        yield "mediapipe, video", {**cost, **json.loads(line)}
    line, _ = child(sys.executable, "-c", LAYER, mano or random_mano_file(work / "MANO_RIGHT.pkl"))
    for name, row in json.loads(line).items():
        yield f"{name}, layer [ms]", row


def random_mano_file(path: Path) -> Path:
    sys.path.insert(0, str(ROOT / "tests"))
    from support.mano_files import random_mano, write_mano

    write_mano(path, random_mano())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--video", type=Path, help="a clip")
    parser.add_argument("--mano", type=Path, help="your MANO_RIGHT.pkl")
    parser.add_argument("--venv", type=Path, default=Path("build/peers"))
    arguments = parser.parse_args()
    pictures = sorted(path for path in arguments.pictures.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    python = environment(arguments.venv.absolute())
    with tempfile.TemporaryDirectory() as work:
        rows = {}
        for name, row in compare(python, pictures, arguments.video, arguments.mano, Path(work)):
            rows[name] = {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}
            print(f"{name:24s}" + "  ".join(f"{key} {value}" for key, value in rows[name].items()), flush=True)
    print(json.dumps({"benchmark": "peers", "pictures": len(pictures), **rows}))


if __name__ == "__main__":
    main()
