"""`report.html` of the demo: a self-contained page with loss curves, scores and drawn predictions."""

from __future__ import annotations

import csv
import html
import io
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from utnet.config import CropConfig, LossConfig
from utnet.data.collate import collate
from utnet.data.source import Source, evenly_spaced
from utnet.data.transforms import right_crop
from utnet.evaluation.crops import Crop, CropBatch, visibility
from utnet.evaluation.passes import forward
from utnet.evaluation.placing import PlacedHands, place
from utnet.evaluation.sheet import enlarged_crop
from utnet.geometry import project
from utnet.metrics import mpjpe_mm, pa_mpjpe_mm
from utnet.model import UTNet
from utnet.render.drawing import color_depth, contact_sheet, draw_skeleton, label, overlay_mesh
from utnet.render.html import picture, turnable_scene, write_page


def score_rows(name: str, before: dict, after: dict, training: str) -> list[tuple[str, str, str, float, float]]:
    """Rows (kind, data, row, MPJPE, PA-MPJPE) of a held-out set: constant hand, RGB and RGB-D before and after.

    Args:
        name: of the data.
        before, after: scores of `validation.evaluate`.
        training: name of the training, for labels.
    """
    constant, row = after["constant"], f"best constant hand of {after['num']:,}"
    rows = [("reference", name, row, constant["mpjpe_mm"], constant["pa_mpjpe_mm"])]
    for when, scores in (("before", before), ("after", after)):
        for key, text in (("rgb", "RGB"), ("rgbd", "RGB-D")):
            if key in scores:
                row = f"{text}, {when} {training}"
                rows.append((when, name, row, scores[key]["mpjpe_mm"], scores[key]["pa_mpjpe_mm"]))
    return rows


def loss_figure(metrics_csv: Path, config: LossConfig) -> bytes:
    """Plots the weighted terms of the training loss and the validation errors, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    weights = {"loss_" + key[2:]: value for key, value in asdict(config).items() if key.startswith("w_")}
    weights["total_loss"] = 1.0
    curves: dict = defaultdict(list)
    with metrics_csv.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves[row["split"], row["name"]].append((int(row["step"]), float(row["value"])))
    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for (split, name), points in sorted(curves.items()):
        steps, values = np.array(points).T
        if split == "train" and weights.get(name, 0.0) > 0:
            width = 2.4 if name == "total_loss" else 1.2
            left.plot(steps, values * weights[name], label=name.removeprefix("loss_"), linewidth=width)
        if split == "val" and name.endswith("mpjpe_mm"):
            key, metric = name.split("/")
            text = f"{'RGB-D' if key == 'rgbd' else 'RGB'} {metric.removesuffix('_mm').replace('_', '-').upper()}"
            right.plot(steps, values, "o-", label=text, markersize=3)
    left.set(title="training loss of a batch, weighted terms", xlabel="step", yscale="log")
    right.set(title="held-out synthetic hands", xlabel="step", ylabel="mm", xlim=(0, None), ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def prediction_sheet(model: UTNet, source: Source, crop: CropConfig, *, num: int = 6) -> np.ndarray:
    """Draws rows of picture, ground truth, RGB prediction, depth, RGB-D prediction, evenly spaced over the source.

    Meshes are drawn in the camera of the crop, at the distance predicted by the network (RGB) or measured (RGB-D).
    """
    crops = [_crop(source, int(i), model.config.size_px, crop) for i in evenly_spaced(len(source), num)]
    batch = CropBatch(collate([each.sample for each in crops]), crops, {})
    model.eval()
    placed = {
        use: place(forward(model, batch, use_depth=use), batch, model.hand, use_depth=use) for use in (False, True)
    }
    panels = []
    for i, each in enumerate(crops):
        sample, truth = each.sample, each.sample.joints_cam_m
        picture, K = enlarged_crop(sample)
        panels.append(label(picture, sample.key[-34:]))
        panels.append(label(draw_skeleton(picture, project(truth, K)), "truth"))
        for use_depth, name in ((False, "RGB"), (True, "RGB-D")):
            if use_depth and sample.depth_m is not None:
                depth = color_depth(sample.depth_m, float(np.median(truth[:, 2])))
                panels.append(label(cv2.resize(depth, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST), "depth"))
            panels.append(_prediction_panel(model, placed[use_depth], i, truth, picture, K, name))
    return contact_sheet(panels, 5)


def _crop(source: Source, index: int, size_px: int, crop: CropConfig) -> Crop:
    sample = source[index]
    return Crop(index, right_crop(sample, size_px, crop), sample.side, visibility(sample))


def _prediction_panel(
    model: UTNet, placed: PlacedHands, i: int, truth_m: np.ndarray, picture: np.ndarray, K: np.ndarray, name: str
) -> np.ndarray:
    joints, transl = placed.joints_m[i], placed.transl_m[i]
    drawn = overlay_mesh(picture, placed.vertices_m[i] + transl, model.hand.faces.cpu().numpy(), K)
    drawn = draw_skeleton(drawn, project(joints + transl, K))
    error, aligned = mpjpe_mm(joints[None], truth_m[None]).item(), pa_mpjpe_mm(joints[None], truth_m[None]).item()
    return label(drawn, f"{name}: {error:.0f} mm, PA {aligned:.0f}")


def write_report(
    path: str | Path,
    *,
    title: str,
    facts: list[str],
    rows: list[tuple[str, str, str, float, float]],
    curves_png: bytes,
    sheets: dict[str, np.ndarray],
    links: dict[str, str],
    glb: bytes | None = None,
) -> None:
    """Writes the page atomically. `rows` are from `score_rows`; `links` maps names to files beside the page; `glb` is a
    mesh to turn."""
    constant = {data: mpjpe for kind, data, _, mpjpe, _ in rows if kind == "reference"}
    table = "".join(
        f'<tr class="{kind}"><td>{html.escape(data)}</td><td>{html.escape(row)}</td><td>{mpjpe:.1f}</td>'
        f"<td>{mpjpe / constant[data]:.2f}</td><td>{pa:.1f}</td></tr>"
        for kind, data, row, mpjpe, pa in rows
    )
    body = [
        "".join(f"<p class='note'>{html.escape(fact)}</p>" for fact in facts),
        "<h2>Scores on held-out trees</h2>",
        "<table><tr><th>data</th><th>input</th><th>MPJPE [mm]</th><th>of constant</th><th>PA-MPJPE [mm]</th></tr>",
        table,
        "</table>",
        "<p class='note'>MPJPE: mean joint error relative to the wrist. PA: after Procrustes alignment. The best "
        "constant hand is fitted to the held-out ground truth: no prediction that ignores the picture is better.</p>",
        "<h2>Curves</h2>",
        picture(curves_png, "loss curves"),
    ]
    if sheets:
        body.append(
            "<p class='note'>Below: meshes at the predicted distance (RGB) or at the measured one (RGB-D); errors "
            "in mm, relative to the wrist and after alignment (PA). Networks with little training predict small hands "
            "in the middle.</p>"
        )
    for name, sheet in sheets.items():
        data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))[1].tobytes()
        body += [f"<h2>{html.escape(name)}</h2>", picture(data, name)]
    if glb is not None:
        body += ["<h2>One hand, to turn</h2>", turnable_scene(glb)]
    if links:
        items = "".join(
            f'<li><a href="{html.escape(file)}">{html.escape(name)}</a></li>' for name, file in links.items()
        )
        body += ["<h2>Files</h2>", f"<ul>{items}</ul>"]
    write_page(path, title, body)
