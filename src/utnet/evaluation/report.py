"""`report.html`: one self-contained page with loss curves, the scores and a contact sheet of predictions and truth."""

from __future__ import annotations

import csv
import html
import io
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch

from utnet.config import Config, LossConfig
from utnet.data.loader import collate
from utnet.data.source import Source, evenly_spaced
from utnet.data.transforms import right_crop
from utnet.errors import InputError
from utnet.geometry import crop_to_px, project
from utnet.metrics import mpjpe_mm, pa_mpjpe_mm
from utnet.model import UTNet
from utnet.placement import measure_distance, solve_translation
from utnet.render.drawing import color_depth, contact_sheet, draw_skeleton, label, overlay_mesh
from utnet.render.html import picture, write_page

_SHOWN_PX = 224


def score_rows(name: str, before: dict, after: dict, training: str) -> list[tuple[str, str, str, float, float]]:
    """(kind, data, row, MPJPE, PA-MPJPE) of a held-out set: the best constant hand of so many, then RGB and RGB-D
    before and after `training`, or what it is called."""
    constant, row = after["constant"], f"best constant hand of {after['num']:,}"
    rows = [("reference", name, row, constant["mpjpe_mm"], constant["pa_mpjpe_mm"])]
    for when, scores in (("before", before), ("after", after)):
        for key, text in (("rgb", "RGB"), ("rgbd", "RGB-D")):
            if key in scores:
                row = f"{text}, {when} {training}"
                rows.append((when, name, row, scores[key]["mpjpe_mm"], scores[key]["pa_mpjpe_mm"]))
    return rows


def loss_figure(metrics_csv: Path, config: LossConfig) -> bytes:
    """PNG: what each term adds to the training loss (its value times its weight), and the validation errors."""
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


def prediction_sheet(model: UTNet, source: Source, config: Config, *, num: int = 6) -> np.ndarray:
    """Rows of: picture, truth, RGB prediction, depth, RGB-D prediction; evenly spaced over the source, not chosen.

    Meshes are drawn in the camera of the crop, placed where the network says (RGB) or where depth measures it (RGB-D).
    """
    picks = evenly_spaced(len(source), num)
    crops = [right_crop(source[int(i)], config.model.size_px, config.crop) for i in picks]
    batch = collate(crops).to(next(model.parameters()).device)
    model.eval()
    with torch.inference_mode():
        outs = {use: model.forward_batch(batch, use_depth=use).map(lambda t: t.float().cpu()) for use in (False, True)}
    panels = []
    for i, sample in enumerate(crops):
        if sample.K_px is None:
            raise InputError(
                f"{sample.key}: its camera is not known, and meshes are drawn with it; choose another source"
            )
        picture, K = _enlarge(sample.rgb, sample.K_px)
        truth = sample.joints_cam_m
        panels.append(label(picture, sample.key[-34:]))
        panels.append(label(draw_skeleton(picture, project(truth, K)), "truth"))
        for use_depth, name in ((False, "RGB"), (True, "RGB-D")):
            if use_depth and sample.depth_m is not None:
                depth = color_depth(sample.depth_m, float(np.median(truth[:, 2])))
                panels.append(label(cv2.resize(depth, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST), "depth"))
            panels.append(_prediction_panel(model, outs[use_depth], i, sample, picture, K, name, measure=use_depth))
    return contact_sheet(panels, 5)


def _prediction_panel(model, out, i, sample, picture, K, name, *, measure: bool) -> np.ndarray:
    joints, vertices = out.joints_m[i].double().numpy(), out.vertices_m[i].double().numpy()
    faces = model.hand.faces.cpu().numpy()
    size_px = sample.rgb.shape[0]
    transl = solve_translation(joints, crop_to_px(out.joints_crop[i].double().numpy(), size_px), sample.K_px)
    if measure:
        transl = measure_distance(vertices, faces, joints, transl, sample.depth_m, sample.K_px)
    drawn = overlay_mesh(picture, vertices + transl, faces, K)
    drawn = draw_skeleton(drawn, project(joints + transl, K))
    error = mpjpe_mm(joints[None], sample.joints_cam_m[None]).item()
    aligned = pa_mpjpe_mm(joints[None], sample.joints_cam_m[None]).item()
    return label(drawn, f"{name}: {error:.0f} mm, PA {aligned:.0f}")


def _enlarge(rgb: np.ndarray, K_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    factor = _SHOWN_PX / rgb.shape[0]
    scale = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
    return cv2.resize(rgb, (_SHOWN_PX, _SHOWN_PX), interpolation=cv2.INTER_CUBIC), scale @ K_px


def write_report(
    path: str | Path,
    *,
    title: str,
    facts: list[str],
    rows: list[tuple[str, str, str, float, float]],
    curves_png: bytes,
    sheets: dict[str, np.ndarray],
    links: dict[str, str],
) -> None:
    """Writes the page, whole or not at all. `rows` are `score_rows`; `links` are name -> file beside the page."""
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
        "<p class='note'>MPJPE: mean joint error relative to the wrist. PA: after the best similarity. The best "
        "constant hand is fitted to the held-out truth itself: no answer that ignores the picture does better.</p>",
        "<h2>Curves</h2>",
        picture(curves_png, "loss curves"),
    ]
    if sheets:
        body.append(
            "<p class='note'>Below: meshes drawn where the network puts them, or with depth where depth measures them; "
            "mm as in the table, relative to the wrist and after alignment (PA). A network that learnt little and is "
            "not sure of a hand's pose draws it small, in the middle.</p>"
        )
    for name, sheet in sheets.items():
        data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))[1].tobytes()
        body += [f"<h2>{html.escape(name)}</h2>", picture(data, name)]
    if links:
        items = "".join(
            f'<li><a href="{html.escape(file)}">{html.escape(name)}</a></li>' for name, file in links.items()
        )
        body += ["<h2>Files</h2>", f"<ul>{items}</ul>"]
    write_page(path, title, body)
