"""Which factors carry over to photographs: `python benchmarks/appearance.py --work DIR --pictures DIR --lite0 FILE`.

The best recipe of convergence.py learns from 4,000 hands drawn with everything on, then with one group of factors off
at a time, then from plain hands: the same poses, minutes of CPU time and network. Each is scored on held-out hands with
everything on and on real pictures: mean distance of the predicted 2D joints to the detector's landmarks, in percent of
the hand's box (real_pictures.py). Results are kept as convergence.py keeps them. Prints a table and a JSON line a row.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from convergence import configured, fit, held_out
from real_pictures import distances, make_references

from utnet.config import Config, CropConfig, override
from utnet.data.shards.write_shards import write_shards
from utnet.data.source import Source
from utnet.evaluation.validation import INPUTS, evaluate
from utnet.synth import SyntheticHands

GROUPS: dict[str, tuple[str, ...]] = {
    "everything": (),
    "gestures": ("gestures", "contact"),
    "skin": ("skin_tone", "skin_detail", "nails", "veins", "creases", "gloss"),
    "light": ("light", "shadows", "occlusion"),
    "arms and things": ("sleeve", "worn", "held", "occluder", "second_hand"),
    "background": ("background", "distractors", "defocus"),
    "camera": (
        "exposure",
        "white_balance",
        "vignette",
        "lens_blur",
        "motion_blur",
        "rescale",
        "noise",
        "jpeg",
    ),
}
"""What is switched off together; of "everything" nothing is."""
PLAIN = "plain"
NUM, _STORED_PX, _EXPAND, _SEED = 4_000, 160, 2.75, 0


def training_hands(group: str, work: Path) -> Path:
    """Shards of hands without a group of factors, drawn once."""
    folder = work / f"without_{group.replace(' ', '_')}"
    if not folder.exists():
        changes = ["synth.appearance=full", *(f"synth.factors.{name}=0" for name in GROUPS.get(group, ()))]
        synth = override(Config(), [] if group == PLAIN else changes).synth
        hands = SyntheticHands(
            seed=_SEED, size_px=_STORED_PX, num=NUM, synth=synth, crop=CropConfig(expand=_EXPAND), jitter=False
        )
        write_shards(hands, folder, progress=False)
    return folder


def measure(group: str, cpu_minutes: float, lite0: str, source: Source, work: Path, seed: int) -> dict:
    """Trains without one group of factors and scores: a row of the results."""
    config = configured("best", seed, cpu_minutes, work, {"LITE0": lite0})
    data = replace(config.data, root=str(training_hands(group, work)))
    config = override(replace(config, data=data), ["crop.rotation_jitter_deg=180"])
    model, _, about = fit(config, work)
    scores, real = evaluate(model.eval(), source, config.crop, config.train), distances(model, config, work)
    shown = {name: [round(scores[name][key], 1) for key in ("mpjpe_mm", "pa_mpjpe_mm")] for name in INPUTS}
    return {
        "benchmark": "appearance",
        "without": group,
        "seed": seed,
        "cpu_minutes": cpu_minutes,
        **about,
        **shown,
        "real_percent": real,
    }


def table(rows: list[dict]) -> str:
    lines = [f"{'switched off':18s}{'RGB MPJPE / PA':>16s}{'RGB-D':>16s}   real pictures [% of the box]"]
    for row in rows:
        numbers = "".join(f"{row[name][0]:10.1f} /{row[name][1]:4.1f}" for name in INPUTS)
        lines.append(
            f"{row['without']:18s}{numbers}   " + ", ".join(f"{k} {v:.1f}" for k, v in row["real_percent"].items())
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of hands, references and results")
    parser.add_argument("--pictures", type=Path, required=True, help="the folder of real pictures")
    parser.add_argument("--lite0", required=True, help="file of EfficientNet-Lite0's weights")
    parser.add_argument("--groups", default=",".join((*GROUPS, PLAIN)), help="names with commas between")
    parser.add_argument("--cpu-minutes", type=float, default=2.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num", type=int, default=512, help="held-out hands")
    args = parser.parse_args()
    groups = args.groups.split(",")
    unknown = set(groups) - {*GROUPS, PLAIN}
    if unknown:
        parser.error(f"unknown groups {', '.join(sorted(unknown))}; there are {', '.join((*GROUPS, PLAIN))}")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    make_references(args.pictures, args.work)
    results, source = args.work / "appearance.jsonl", held_out(args.work, args.num)
    lines = results.read_text().splitlines() if results.exists() else []
    of_run = {"cpu_minutes": args.cpu_minutes, "seed": args.seed}
    rows = [row for row in map(json.loads, lines) if of_run.items() <= row.items()]
    for group in groups:
        if any(row["without"] == group for row in rows):
            continue
        row = measure(group, args.cpu_minutes, args.lite0, source, args.work, args.seed)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
