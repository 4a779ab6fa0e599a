"""The page: gradio's parts, their places and what happens between them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from utnet.apps.serve.service import WAITING, Answer, HandService, Question
from utnet.predict.hand import Hand

TITLE = "UTNet: hands in 3D"
_HELP = (
    "Drop a photo, paste it or use the camera: its hands are found, drawn over it and shown in 3D. "
    "Nothing is sent elsewhere."
)
STYLE = """
.gradio-container, .gradio-container main { width: 100%; max-width: 1200px !important; margin: 0 auto !important; }
.prose h1 { margin-bottom: 0; }
#note p { margin: 0; padding: .7rem .9rem; border-radius: 8px; background: var(--block-background-fill);
  border-left: 4px solid #4f7fd9; overflow-wrap: anywhere; }
#note p.refused { border-left-color: #d9534f; }
#hands table { width: 100%; font-variant-numeric: tabular-nums; }
#hands :is(table, tr, th, td) { border-color: var(--border-color-primary); white-space: nowrap; }
#hands :is(th, td) { padding: .4rem .6rem; }
#scene canvas { outline-color: var(--border-color-primary); }
"""
THEME = gr.themes.Soft(
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)  # the default fonts come from another machine


def build_page(answers: HandService, example: Callable[[], Path]) -> gr.Blocks:
    """The page.

    Args:
        answers: what it shows.
        example: gives the file of the picture behind the example button.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n{_HELP}")
        with gr.Row():
            with gr.Column(min_width=320):
                picture = gr.Image(
                    label="Picture",
                    sources=["upload", "webcam", "clipboard"],
                    webcam_options=gr.WebcamOptions(mirror=False),  # a mirror makes left hands of right ones
                    height=310,
                    elem_id="picture",
                    buttons=[],
                )
                with gr.Row():
                    show_example = gr.Button("Try an example", elem_id="example")
                    again = gr.Button("Find hands", variant="primary", elem_id="find")
                options = _options(answers)
            with gr.Column(min_width=320):
                note = gr.HTML(_note(WAITING), elem_id="note", padding=False)
                overlay = gr.Image(
                    label="Hands found",
                    show_label=False,  # it would lie over the picture's corner
                    interactive=False,
                    height=320,
                    elem_id="overlay",
                    buttons=["download", "fullscreen"],
                )
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                scene = gr.Model3D(label="3D: drag to turn", interactive=False, height=330, elem_id="scene")
            with gr.Column(scale=2, min_width=320):
                table = gr.Markdown(elem_id="hands")
                with gr.Row():
                    take_scene = gr.DownloadButton("Download GLB", interactive=False, elem_id="glb")
                    take_json = gr.DownloadButton("Download JSON", interactive=False, elem_id="json")
        _give_path(picture)
        _give_path(options[0])

        def find(file: str | None, depth: str | None, scale: float | None, *rest: Any) -> list[Any]:
            *camera, method = rest
            question = Question(
                picture=Path(file) if file else None,
                depth=Path(depth) if depth else None,
                depth_scale=scale,
                camera=camera,
                method=method,
            )
            return _shown(answers(question))

        shown = [note, overlay, scene, table, take_scene, take_json]
        show_example.click(lambda: str(example()), outputs=picture, api_visibility="private")
        gr.on(
            [again.click, picture.change],
            find,
            inputs=[picture, *options],
            outputs=shown,
            api_visibility="private",
            concurrency_limit=1,
            trigger_mode="always_last",
        )
    return page


def _options(answers: HandService) -> list[gr.components.Component]:
    """Depth, its scale, fx, fy, cx, cy and the method."""
    with gr.Accordion("Depth image, camera, method", open=False):
        depth = gr.File(
            label="Depth image, aligned to the picture (optional)",
            file_types=[".png", ".tif", ".tiff", ".npy"],
            height=110,
            elem_id="depth",
        )
        scale = gr.Number(0.001, label="Metres a step of 16-bit depth", minimum=0, step=0.0001)
        with gr.Row():
            camera = [
                gr.Number(None, label=f"{name} [px]", min_width=70, placeholder="default")
                for name in ("fx", "fy", "cx", "cy")
            ]
        method = gr.Radio(
            list(answers.methods),
            value=answers.methods[0],
            label="Method",
            info="network: trained weights; fit: a hand model fitted to landmarks; both: the network's hand, fitted to "
            f"them; auto: {answers.default}",
            visible=len(answers.methods) > 1,
        )
    return [depth, scale, *camera, method]


def _give_path(upload: Any) -> None:
    """The page's functions get the path of what was uploaded, unopened: `utnet.io` opens it within its limits.

    (A subclass would do, but gradio writes a file beside the source of each.)
    """
    upload.preprocess = lambda payload: None if payload is None else payload.path


def _shown(answer: Answer) -> list[Any]:
    """Values of note, overlay, 3D view, table and the two downloads."""
    overlay, scene, predictions = (
        None if path is None else str(path) for path in (answer.overlay, answer.scene, answer.predictions)
    )
    return [
        _note(answer.note, refused=answer.refused),
        overlay,
        scene,
        _table(answer.hands),
        *(gr.update(value=path, interactive=path is not None) for path in (scene, predictions)),
    ]


def _note(text: str, *, refused: bool = False) -> str:
    return f'<p class="{"refused" if refused else "fine"}" role="status">{html.escape(text)}</p>'


def _table(hands: Sequence[Hand]) -> str:
    """Markdown: a row for each hand; nothing where there is none."""
    if not hands:
        return ""
    rows = ["| | hand | score | distance | from |", "|-:|:-|-:|-:|:-|"]
    for i, hand in enumerate(hands):
        distance = float(np.linalg.norm(hand.joints_cam_m.mean(0)))
        source = "depth" if hand.distance_source == "sensor" else "its size"
        rows.append(f"| {i + 1} | {hand.side} | {hand.score:.2f} | {distance:.2f} m | {source} |")
    return "\n".join(rows)
