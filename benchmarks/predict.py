"""Pictures and video frames to drawn hands, stage by stage: `python benchmarks/predict.py [CHECKPOINT] [--num 24]`.

Decode a JPEG file, find hands (in pictures by the detector, in a video's frames by the tracker), crop, run the network,
place the hand in the picture's camera, draw. The same network in torch, ONNX Runtime and OpenVINO (fp32, and bf16 with
its error), in turns, so that a busy machine slows all of them alike. Pictures are synthetic, 640 x 640, with a hand of
a third of their width that the detector finds; the frames are one of them moving through the view. Without a checkpoint
the network is preset ti with random weights, which take the same time as trained ones but say nothing of bf16's error.

Prints tables and one JSON line: of every picture the median over rounds, and of these the mean. "CPU" is the process's
own time on all cores: unlike the wall clock it depends little on what else runs; "by CPU" are the crops a second of two
cores that do nothing else, were all of it spread over both. "Two at a time" is what `utnet predict --jobs 2` does: two
pictures, one thread each.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch

STAGES = ("decode", "detect", "crop", "network", "place", "draw")
SIZE_PX = 640
Timer = Callable[[str, Callable], Callable]


# ------------------------------------------------------------------------------------------------ networks and pictures


def random_ti(folder: Path) -> Path:
    """A checkpoint of the default network with random weights."""
    from utnet.checkpoint import save_checkpoint
    from utnet.config import Config
    from utnet.model import UTNet

    torch.manual_seed(0)
    config = Config()
    save_checkpoint(folder, UTNet(config.model), config)
    return folder


def exports(weights: Path, folder: Path) -> dict[str, Path]:
    """The network's files by format; those whose package is not installed are left out."""
    from utnet.checkpoint import load_checkpoint
    from utnet.export.runtime import SUFFIXES
    from utnet.export.writer import export_network

    model, config = load_checkpoint(weights)
    files = {}
    for format, package in (("onnx", "onnxscript"), ("openvino", "openvino")):
        if find_spec(package):
            files[format] = folder / f"network{SUFFIXES[format]}"
            export_network(model, files[format], crop=config.crop, format=format)
    return files


def predictors(weights: Path, files: dict[str, Path]) -> dict:
    """By name, each with as many threads as torch has now."""
    from utnet.export.runtime import ExportedNetwork
    from utnet.predict import Predictor

    made = {"torch": Predictor(weights, device="cpu")}
    if "onnx" in files:
        made["ONNX Runtime"] = Predictor(files["onnx"])
    if "openvino" in files:
        made["OpenVINO"], made["OpenVINO bf16"] = Predictor(files["openvino"]), Predictor(files["openvino"])
        made["OpenVINO bf16"]._reconstruct.network = ExportedNetwork(files["openvino"], precision="bf16")
    return made


def write_pictures(folder: Path, num: int) -> tuple[list[Path], list[Path]]:
    """JPEG files: pictures in which the detector finds a hand, and as many frames of one of them that moves."""
    from utnet.config import CropConfig
    from utnet.detect import HandDetector
    from utnet.synth import SyntheticHands

    source, detector = SyntheticHands(seed=3, size_px=SIZE_PX, crop=CropConfig(expand=3.0)), HandDetector()
    pictures: list[np.ndarray] = []
    for i in range(4 * num):
        rgb = source[i].rgb
        if len(pictures) < num and detector(rgb):
            pictures.append(rgb)
    moves = [np.array([[1.0, 0, 3 * t - 1.5 * num], [0, 1, t - 0.5 * num]]) for t in range(num)]
    frames = [cv2.warpAffine(pictures[0], A, (SIZE_PX, SIZE_PX), borderMode=cv2.BORDER_REFLECT) for A in moves]

    def write(name: str, images: list[np.ndarray]) -> list[Path]:
        paths = [folder / f"{name}_{i:04d}.jpg" for i in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            cv2.imwrite(str(path), image[..., ::-1])
        return paths

    return write("picture", pictures), write("frame", frames)


# --------------------------------------------------------------------------------------------------------------- stages


def now() -> np.ndarray:
    """Seconds of the wall clock and of the process."""
    return np.array([time.perf_counter(), time.process_time()])


class inside:
    """In this block the predictor's calls for crops and for the network are timed."""

    def __init__(self, predictor, timed: Timer):
        import utnet.predict.methods.network as network
        import utnet.predict.predictor as predictor_module

        self.patches = [
            (predictor_module, "to_right", "crop"),
            (network, "crop", "crop"),
            (network, "collate", "crop"),
            (predictor._reconstruct.network, "forward_batch", "network"),
        ]
        self.kept = [getattr(owner, name) for owner, name, _ in self.patches]
        self.timed = timed

    def __enter__(self) -> None:
        for (owner, name, stage), function in zip(self.patches, self.kept, strict=True):
            setattr(owner, name, self.timed(stage, function))

    def __exit__(self, *exception) -> None:
        for (owner, name, _), function in zip(self.patches, self.kept, strict=True):
            setattr(owner, name, function)


def one_picture(predictor, path: Path, find: Callable) -> tuple[np.ndarray, list]:
    """(stages, 2) seconds from the file to the drawing, and the hands; "place" is what is left of the predictor."""
    from utnet.io.pictures import read_picture
    from utnet.predict.drawing import draw_hands

    spent: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))

    def timed(stage: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            start = now()
            result = function(*args, **kwargs)
            spent[stage] += now() - start
            return result

        return call

    rgb = timed("decode", read_picture)(path).rgb
    detections = timed("detect", find)(rgb)
    with inside(predictor, timed):
        hands = timed("lift", predictor.from_detections)(rgb, detections)
    timed("draw", draw_hands)(rgb, hands)
    spent["place"] = spent.pop("lift") - spent["crop"] - spent["network"]
    return np.array([spent[stage] for stage in STAGES]), hands


def by_stage(made: dict, paths: list[Path], rounds: int, *, video: bool) -> dict:
    """All predictors in turns, after one round to warm up; prints a table."""
    from utnet.detect import LandmarkTracker

    times, joints = defaultdict(list), {}
    for round_ in range(rounds + 1):
        for name, predictor in made.items():
            find = LandmarkTracker(predictor.detector) if video else predictor.detector
            done = [one_picture(predictor, path, find) for path in paths]
            joints[name] = np.array([h.joints_cam_m - h.joints_cam_m[0] for _, hands in done for h in hands])
            if round_:
                times[name].append(np.stack([spent for spent, _ in done]))
    num_hands = len(joints["torch"]) / len(paths)
    what = "frames of a video" if video else "pictures"
    print(f"{len(paths)} {what}, {num_hands:.2f} hands in each, {torch.get_num_threads()} threads, ms")
    titles = (*STAGES, "all", "all, CPU")
    print(" " * 16 + "".join(f"{title:>9s}" for title in titles) + f"{'crops/s':>10s}{'by CPU':>10s}{'off [mm]':>11s}")
    rows = {}
    for name in made:
        wall, cpu = 1e3 * np.median(times[name], axis=0).mean(0).T
        away_mm = 1e3 * np.linalg.norm(joints[name] - joints["torch"], axis=-1)
        speed, by_cpu = 1e3 * num_hands / wall.sum(), 2e3 * num_hands / cpu.sum()
        numbers = "".join(f"{value:9.1f}" for value in (*wall, wall.sum(), cpu.sum()))
        print(f"{name:16s}{numbers}{speed:10.1f}{by_cpu:10.1f}{away_mm.max():11.4f}")
        rows[name] = {
            "wall_ms": dict(zip(STAGES, wall.round(2).tolist(), strict=True)),
            "cpu_ms": dict(zip(STAGES, cpu.round(2).tolist(), strict=True)),
            "crops_a_second": round(speed, 1),
            "by_cpu_time": round(by_cpu, 1),
            "joints_off_mm": {"most": round(float(away_mm.max()), 4), "mean": round(float(away_mm.mean()), 4)},
        }
    return rows


def two_at_a_time(predictor, paths: list[Path]) -> tuple[float, float]:
    """Hands a second, by the wall clock and by CPU."""
    from utnet.io.pictures import read_picture
    from utnet.predict.drawing import draw_hands

    def run(path: Path) -> int:
        rgb = read_picture(path).rgb
        hands = predictor(rgb)
        draw_hands(rgb, hands)
        return len(hands)

    start = now()
    with ThreadPoolExecutor(2) as pool:
        num = sum(pool.map(run, paths))
    wall, cpu = now() - start
    return num / wall, 2 * num / cpu


def in_pairs(made: dict, paths: list[Path], rounds: int) -> dict:
    """`two_at_a_time` of all predictors in turns; prints a table."""
    speeds = defaultdict(list)
    for round_ in range(rounds + 1):
        for name, predictor in made.items():
            speed = two_at_a_time(predictor, paths)
            if round_:
                speeds[name].append(speed)
    print(f"{'two at a time':16s}{'crops/s':>10s}{'by CPU':>10s}")
    rows = {}
    for name, own in speeds.items():
        clock, cores = (statistics.median(values) for values in zip(*own, strict=True))
        print(f"{name:16s}{clock:10.1f}{cores:10.1f}")
        rows[name] = {"crops_a_second": round(clock, 1), "by_cpu_time": round(cores, 1)}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="folder such as RUN/best (default: random ti)")
    parser.add_argument("--num", type=int, default=24, help="pictures, and frames")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = arguments.checkpoint or random_ti(folder / "ti")
        files = exports(weights, folder)
        pictures, frames = write_pictures(folder, arguments.num)
        set_threads(arguments.threads)
        made = predictors(weights, files)
        result = {
            "pictures": by_stage(made, pictures, arguments.rounds, video=False),
            "video": by_stage(made, frames, arguments.rounds, video=True),
        }
        set_threads(1)
        result["two_at_a_time"] = in_pairs(predictors(weights, files), pictures, arguments.rounds)
    print(json.dumps({"benchmark": "predict", "threads": arguments.threads, "num": arguments.num, **result}))


def set_threads(num: int) -> None:
    torch.set_num_threads(num)
    cv2.setNumThreads(num)


if __name__ == "__main__":
    main()
