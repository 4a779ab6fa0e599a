"""Synthetic hands: samples a second, what each factor costs, and contact sheets.

python benchmarks/synth.py [--size 224] [--num 300]     rates, plain and full, in one process and in two
python benchmarks/synth.py factors                      CPU time of full appearance without each factor
python benchmarks/synth.py sheets --out FOLDER          plain.png, full.png, depth.png, factors.png (each one alone)

Rates are wall-clock on what else the machine does; the CPU time of a sample is printed beside them.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import argparse
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np

from utnet.config import CropConfig, FactorsConfig, SynthConfig
from utnet.data.workers import init_worker
from utnet.synth import SyntheticHands

NAMES = [f.name for f in fields(FactorsConfig)]
OFF = FactorsConfig(**dict.fromkeys(NAMES, 0.0))


def synth_of(look: str) -> SynthConfig:
    return SynthConfig(appearance=look)


def rate(look: str, size_px: int, num: int, seed: int) -> tuple[float, float]:
    """Samples a second of one process and CPU milliseconds of one sample, after a warm-up that compiles and paints."""
    init_worker()
    source = SyntheticHands(seed=seed, size_px=size_px, synth=synth_of(look))
    for i in range(20):
        source[i]
    start, cpu = time.perf_counter(), time.process_time()
    for i in range(100, 100 + num):
        source[i]
    return num / (time.perf_counter() - start), (time.process_time() - cpu) / num * 1000


def print_rates(size_px: int, num: int, repeats: int) -> None:
    result = {"benchmark": "synth", "size_px": size_px}
    print(f"{size_px} px, RGB + depth + labels    samples/s   min    max   CPU ms a sample")
    for look in ("plain", "full"):
        for processes in (1, 2):
            rates, cpu = [], []
            for repeat in range(repeats):
                with ProcessPoolExecutor(processes) as pool:
                    jobs = [pool.submit(rate, look, size_px, num, 10 * repeat + k) for k in range(processes)]
                    done = [job.result() for job in jobs]
                rates.append(sum(r for r, _ in done))
                cpu += [c for _, c in done]
            median = statistics.median(rates)
            words = f"{look}, {processes} process{'es' if processes > 1 else ''}"
            print(f"{words:32s}{median:9.0f}{min(rates):8.0f}{max(rates):7.0f}{statistics.median(cpu):10.2f}")
            result[f"{look}_{processes}"] = round(median, 1)
            result[f"{look}_{processes}_cpu_ms"] = round(statistics.median(cpu), 2)
    print(json.dumps(result))


def print_factors(size_px: int, num: int) -> None:
    """Every factor switched off in turn. The sources take turns a few samples at a time: a busy machine slows all."""
    init_worker()
    configs = {"everything": FactorsConfig()}
    configs |= {name: FactorsConfig(**{name: 0.0}) for name in NAMES if name != "depth_missing"}
    configs["nothing"] = OFF
    sources = {
        name: SyntheticHands(size_px=size_px, synth=SynthConfig(appearance="full", factors=factors))
        for name, factors in configs.items()
    }
    spent: dict[str, list[float]] = {name: [] for name in sources}
    for start in range(0, num, 10):
        for name, source in sources.items():
            source[start]
            cpu = time.process_time()
            for i in range(start, start + 10):
                source[i]
            spent[name].append((time.process_time() - cpu) * 100)
    means = {name: statistics.median(values) for name, values in spent.items()}
    print(f"{size_px} px, CPU ms a sample: everything {means['everything']:.2f}, nothing {means['nothing']:.2f}")
    for name in NAMES:
        if name in means:
            print(f"{name:16s}{means['everything'] - means[name]:7.2f}")


def write_sheets(out: Path, size_px: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    crop = CropConfig(expand=1.6)

    def row(synth: SynthConfig, num: int, start: int = 0) -> list:
        source = SyntheticHands(size_px=size_px, synth=synth, crop=crop)
        return [source[i] for i in range(start, start + num)]

    for look in ("plain", "full"):
        _write(out / f"{look}.png", _grid([s.rgb for s in row(synth_of(look), 48)], 8))
    _write(out / "depth.png", _grid([_depth(s) for s in row(synth_of("full"), 48)], 8))
    rows = [_named("nothing", [s.rgb for s in row(SynthConfig(appearance="full", factors=OFF), 8, start=8)])]
    for name in NAMES[:-1]:
        alone = SynthConfig(appearance="full", factors=FactorsConfig(**{n: float(n == name) for n in NAMES}))
        samples = row(alone, 8, start=8)
        rows.append(_named(name, [_depth(s) if name.startswith("depth") else s.rgb for s in samples]))
    _write(out / "factors.png", np.concatenate(rows))
    print(f"wrote plain.png, full.png, depth.png and factors.png in {out}")


def _write(path: Path, rgb: np.ndarray) -> None:
    cv2.imwrite(str(path), rgb[..., ::-1])


def _grid(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    return np.concatenate([np.concatenate(pictures[k : k + columns], 1) for k in range(0, len(pictures), columns)])


def _named(name: str, pictures: list[np.ndarray]) -> np.ndarray:
    row = np.ascontiguousarray(np.concatenate(pictures, 1))
    cv2.putText(row, name, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(row, name, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return row


def _depth(sample) -> np.ndarray:
    """Near red, far blue, 20 cm round the hand; no reading black."""
    offset = sample.depth_m - sample.joints_cam_m[:, 2].mean()
    colors = cv2.applyColorMap((255 * np.clip(0.5 - offset / 0.4, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)
    return colors[..., ::-1] * (sample.depth_m > 0)[..., None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("rates", "factors", "sheets"), default="rates")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--num", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("sheets"))
    arguments = parser.parse_args()
    if arguments.what == "sheets":
        write_sheets(arguments.out, arguments.size)
    elif arguments.what == "factors":
        print_factors(arguments.size, arguments.num)
    else:
        print_rates(arguments.size, arguments.num, arguments.repeats)


if __name__ == "__main__":
    main()
