"""Speed and memory of the hand layer and the network on a CPU, side by side in one process, interleaved.

    python benchmarks/model.py hand                 hand layer against its naive twin (tests/support/naive_hand.py)
    python benchmarks/model.py h [--num-blocks N]   preset h against explicit attention, bf16, ONNX Runtime, OpenVINO
    python benchmarks/model.py profile              where the time of ti and s goes, by module and by operation
    python benchmarks/model.py memory [--batch 8]   peak memory of one training step of h with checkpointed blocks

Every section prints a table and one JSON line. Times are medians; ratios are medians over rounds, each of which runs
every variant once, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

Variants = dict[str, Callable[[], object]]


def interleaved(variants: Variants, rounds: int, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of every variant in every round."""
    for _ in range(warm):
        for run in variants.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def table(title: str, times: dict[str, list[float]], reference: str) -> dict:
    """Prints medians in ms and how many times faster than `reference` each is; returns both by name."""
    print(f"{title:44s}{'median ms':>10s}{'min ms':>10s}{'x faster':>10s}")
    rows = {}
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(times[reference], own, strict=True))
        rows[name] = {"ms": round(1e3 * statistics.median(own), 3), "times_faster": round(ratio, 2)}
        print(f"  {name:42s}{1e3 * statistics.median(own):10.2f}{1e3 * min(own):10.2f}{ratio:10.2f}")
    return rows


# --------------------------------------------------------------------------------------------------------- hand layer


def hand_section(arguments: argparse.Namespace) -> dict:
    """Forward and backward: rotation matrices and betas -> joints (what training asks for), or joints and vertices."""
    from support.mano_files import random_mano, write_mano
    from support.naive_hand import NaiveHand, axis_angle_to_matrix
    from utnet.hand import HandModel

    data = random_mano()
    with tempfile.TemporaryDirectory() as folder:
        hand = HandModel.from_mano(write_mano(Path(folder) / "MANO_RIGHT.pkl", data))
    twin, result = NaiveHand(data, hand.tip_vertices.tolist()), {}

    def variant(layer, R, betas, grads):
        def run():
            outputs = layer(R, betas)[: len(grads)]
            torch.autograd.grad(outputs, (R, betas), grads)

        return run

    def ours(with_vertices):
        def layer(R, betas):
            mesh = hand(R[:, :1], R[:, 1:], betas, with_vertices=with_vertices)
            return mesh.joints_m, mesh.vertices_m

        return layer

    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch in (32, 256):
            R = axis_angle_to_matrix(torch.randn(batch, 16, 3) * 0.5).requires_grad_()
            betas = torch.randn(batch, 10, requires_grad=True)
            grads = (torch.randn(batch, 21, 3), torch.randn(batch, hand.num_vertices, 3))
            for what, num in (("joints", 1), ("joints and vertices", 2)):
                pair = {
                    "naive twin": variant(twin, R, betas, grads[:num]),
                    "HandModel": variant(ours(num == 2), R, betas, grads[:num]),
                }
                rounds = arguments.rounds or (100 if batch == 32 else 30)
                times = interleaved(pair, rounds)
                key = f"{what}, B={batch}, {threads} thread{'s' * (threads > 1)}"
                result[key] = table(key, times, "naive twin")["HandModel"]
    return result


# ------------------------------------------------------------------------------------------------------------- preset h


@contextmanager
def explicit_attention():
    """Attention matrices written out, in place of scaled_dot_product_attention."""
    from utnet.model import encoder

    def attention(q, k, v):
        return ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1) @ v

    fused = encoder.F.scaled_dot_product_attention
    encoder.F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        encoder.F.scaled_dot_product_attention = fused


def make_h(num_blocks: int | None):
    """Preset h with its initial weights, under which hands differ from picture to picture by more than real ones do."""
    from utnet.config import ModelConfig
    from utnet.model import UTNet

    torch.manual_seed(0)
    return UTNet(ModelConfig(preset="h", size_px=256, num_blocks=num_blocks)).eval()


def h_section(arguments: argparse.Namespace) -> dict:
    """Each alternative beside torch fp32, one at a time: two copies of the weights are in memory, not five."""
    torch.set_num_threads(arguments.threads)
    model, result = make_h(arguments.num_blocks), {}
    pictures = torch.rand(max(arguments.batches), 3, 256, 256) ** torch.linspace(0.3, 3, max(arguments.batches)).view(
        -1, 1, 1, 1
    )
    with torch.inference_mode():
        reference = model(pictures).joints_m
    if len(reference) > 1:
        print(f"joints differ by {1e3 * (reference[0] - reference[-1]).norm(dim=-1).max():.0f} mm between two pictures")

    def compare(name: str, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for batch in arguments.batches:
            rgb = pictures[:batch]
            away_mm = 1e3 * (run(rgb).float() - reference[:batch]).norm(dim=-1)
            most, mean = float(away_mm.max()), float(away_mm.mean())
            pair = {"torch fp32": lambda rgb=rgb: plain(rgb), name: lambda rgb=rgb: run(rgb)}
            times = interleaved(pair, arguments.rounds or max(1, 3 // batch), warm=0)
            row = table(f"preset h, batch {batch}, {arguments.threads} threads", times, "torch fp32")[name]
            print(f"    joints away from fp32 by at most {most:.3f} mm, {mean:.3f} mm in the mean", flush=True)
            result[f"{name}, batch {batch}"] = {**row, "joints_mm": round(most, 4), "joints_mean_mm": round(mean, 4)}

    @torch.inference_mode()
    def plain(rgb):
        return model(rgb).joints_m

    def explicit(rgb):
        with explicit_attention():
            return plain(rgb)

    def autocast(rgb):
        with torch.autocast("cpu", torch.bfloat16):
            return plain(rgb)

    variants = {"torch fp32, explicit attention": explicit, "torch bf16 autocast": autocast}
    for name, run in variants.items():
        if arguments.only in name:
            compare(name, run)
    if any(arguments.only in name for name in ("ONNX Runtime fp32", "OpenVINO fp32", "OpenVINO bf16")):
        with tempfile.TemporaryDirectory() as folder:
            for name, make in exported(model, Path(folder)).items():
                if arguments.only in name:
                    compare(name, make())
    return result


def exported(model, folder: Path) -> dict[str, Callable[[], Callable[[torch.Tensor], torch.Tensor]]]:
    """Makers of functions rgb -> joints that run the exported network; those whose package is missing are left out."""
    from importlib.util import find_spec

    from utnet.config import CropConfig
    from utnet.export.runtime import SUFFIXES, ExportedNetwork
    from utnet.export.writer import export_network

    def maker(format: str, precision: str):
        def make():
            path = folder / f"h{SUFFIXES[format]}"
            if not path.exists():
                export_network(model, path, crop=CropConfig(aspect=0.75), format=format, with_depth=False)
            network = ExportedNetwork(path, precision=precision)
            return lambda rgb: network(rgb).joints_m

        return make

    makers = {"ONNX Runtime fp32": ("onnxscript", maker("onnx", "fp32"))}
    makers |= {f"OpenVINO {precision}": ("openvino", maker("openvino", precision)) for precision in ("fp32", "bf16")}
    return {name: make for name, (package, make) in makers.items() if find_spec(package)}


# --------------------------------------------------------------------------------------------------------------- memory


def memory_section(arguments: argparse.Namespace) -> dict:
    """One process, one optimiser step as `utnet train` makes it; the peak is the process's own."""
    import resource
    from dataclasses import replace

    from utnet.config import Config, LossConfig, ModelConfig
    from utnet.losses import UTNetLoss
    from utnet.model import UTNet
    from utnet.training.optimizer import make_optimizer
    from utnet.types import Batch, HandParams

    def peak_gb() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    torch.set_num_threads(arguments.threads)
    num, config = arguments.batch, Config(model=ModelConfig(preset="h", size_px=256, checkpoint_blocks=True))
    config = replace(config, model=replace(config.model, num_blocks=arguments.num_blocks))
    model = UTNet(config.model).train()
    optimizer, loss = make_optimizer(model, config.train), UTNetLoss.from_config(LossConfig())
    eye = torch.eye(3)
    batch = Batch(
        rgb=torch.randint(0, 256, (num, 3, 256, 256), dtype=torch.uint8),
        depth_m=0.6 + 0.1 * torch.rand(num, 256, 256),
        depth_ok=torch.ones(num, dtype=torch.bool),
        K_px=torch.tensor([[300.0, 0, 127.5], [0, 300.0, 127.5], [0, 0, 1]]).repeat(num, 1, 1),
        joints_2d=torch.cat([torch.rand(num, 21, 2) - 0.5, torch.ones(num, 21, 1)], 2),
        joints_3d=torch.cat([torch.rand(num, 21, 3) * 0.1, torch.ones(num, 21, 1)], 2),
        params=HandParams(
            eye.expand(num, 1, 3, 3), eye.expand(num, 15, 3, 3), torch.zeros(num, 10), torch.zeros(num, 3)
        ),
        params_ok=torch.ones(num, dtype=torch.bool),
        betas_ok=torch.ones(num, dtype=torch.bool),
        keys=tuple(map(str, range(num))),
    )
    result, start = {"batch": num, "parameters_gb": round(peak_gb(), 2)}, time.perf_counter()
    total = loss(model.forward_batch(batch, with_vertices=False), batch)["total_loss"]
    result["forward_gb"] = round(peak_gb(), 2)
    total.backward()
    result["backward_gb"] = round(peak_gb(), 2)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    result["step_gb"], result["seconds"] = round(peak_gb(), 2), round(time.perf_counter() - start, 1)
    print(f"one training step of h, batch {num}, checkpointed blocks: peak resident memory so far, GiB")
    for name in ("parameters_gb", "forward_gb", "backward_gb", "step_gb"):
        print(f"  {name.removesuffix('_gb'):42s}{result[name]:10.2f}")
    return result


# -------------------------------------------------------------------------------------------------------------- profile


def profile_section(arguments: argparse.Namespace) -> dict:
    """`ti` (128 px) and `s` (256 px): inference of one hand, a training step of 32 (`s`: of --batch)."""
    from torch.profiler import profile

    torch.set_num_threads(arguments.threads)
    result = {}
    for preset, size, batch in (("ti", 128, 32), ("s", 256, arguments.batch)):
        for training in (False, True):
            model, step = profiled(preset, size, batch if training else 1, training=training)
            step()
            seconds = module_seconds(model, step, 2 if training else 5)
            with profile() as profiler:
                for _ in range(1 if training else 10):
                    step()
            operations = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
            whole = sum(row.self_cpu_time_total for row in operations)
            title = f"{preset}, {size} px, {f'training step of {batch}' if training else 'inference of 1'}"
            print(f"{title}: {1e3 * seconds['all']:.0f} ms; forward by module | all of it by operation, self CPU")
            modules = sorted(((s / seconds["all"], name) for name, s in seconds.items() if name != "all"), reverse=True)
            shares = [(row.self_cpu_time_total / whole, row.key.removeprefix("aten::")) for row in operations]
            for (a, module), (b, operation) in list(zip(modules, shares, strict=False))[:9]:
                print(f"  {module:20s}{100 * a:5.1f} %    {operation:44s}{100 * b:5.1f} %")
            result[title] = {
                "ms": round(1e3 * seconds["all"], 1),
                "modules": {name: round(share, 3) for share, name in modules[:9]},
                "operations": {name: round(share, 3) for share, name in shares[:9]},
            }
    return result


def profiled(preset: str, size: int, batch: int, *, training: bool):
    """A network and one step of it on random pictures with depth."""
    from utnet.config import ModelConfig
    from utnet.model import UTNet

    torch.manual_seed(0)
    model = UTNet(ModelConfig(preset=preset, size_px=size)).train(training)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    rgb, depth = torch.rand(batch, 3, size, size), 0.6 + 0.1 * torch.rand(batch, size, size)
    K = torch.tensor([[2.3 * size, 0, size / 2], [0, 2.3 * size, size / 2], [0, 0, 1]]).repeat(batch, 1, 1)

    def step():
        with torch.inference_mode(not training):
            out = model(rgb, depth, K, with_vertices=not training)
        if training:
            optimizer.zero_grad()
            parts = (out.joints_m, out.joints_crop, out.coarse.joints_m, out.joint_map, 0.1 * out.joint_heat)
            sum(part.square().mean() for part in parts).backward()
            optimizer.step()

    return model, step


def module_seconds(model: torch.nn.Module, step: Callable[[], None], rounds: int) -> dict[str, float]:
    """Median seconds of a step ("all") and, in its forward pass, of every part of the network."""
    spent, starts, handles = defaultdict(float), {}, []
    for name, part in model.named_children():
        handles += [
            part.register_forward_pre_hook(lambda *_, name=name: starts.update({name: time.perf_counter()})),
            part.register_forward_hook(
                lambda *_, name=name: spent.update({name: spent[name] + time.perf_counter() - starts[name]})
            ),
        ]
    collected = defaultdict(list)
    for _ in range(rounds):
        spent.clear()
        start = time.perf_counter()
        step()
        spent["all"] = time.perf_counter() - start
        for name, seconds in spent.items():
            collected[name].append(seconds)
    for handle in handles:
        handle.remove()
    return {name: statistics.median(values) for name, values in collected.items()}


SECTIONS = {"hand": hand_section, "h": h_section, "memory": memory_section, "profile": profile_section}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--threads", type=int, default=2, help="of torch and the runtimes (hand: 1 and 2 always)")
    parser.add_argument("--rounds", type=int, help="repeats of every variant")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="h: hands at a time")
    parser.add_argument("--only", default="", help="h: variants whose name holds this")
    parser.add_argument("--num-blocks", type=int, help="h, memory: blocks instead of 32")
    parser.add_argument("--batch", type=int, default=8, help="memory, profile of s: hands of a training step")
    arguments = parser.parse_args()
    result = SECTIONS[arguments.section](arguments)
    print(json.dumps({"benchmark": f"model {arguments.section}", "torch_threads": arguments.threads, "rows": result}))


if __name__ == "__main__":
    main()
