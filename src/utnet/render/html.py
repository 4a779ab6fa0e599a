"""Self-contained HTML pages: one style, embedded pictures."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from utnet.io.atomic import atomic_write

_VIEWER = Path(__file__).parents[1] / "assets" / "viewer"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .35rem .9rem; border-bottom: 1px solid #d8dee6; text-align: right; }
td { font-variant-numeric: tabular-nums; }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left; }
tr.reference td { color: #68778a; } tr.after td { font-weight: 600; }
img { max-width: 100%; } code { background: #eef1f5; padding: .1rem .35rem; border-radius: 4px; }
p.note { color: #4b5a6b; }
@media (max-width: 600px) { table { font-size: .8rem; } td, th { padding: .25rem .3rem; } }
.scene { height: 360px; border-radius: 8px; background: #eef1f5; overflow: hidden; } .scene canvas { display: block; }
"""


def picture(png: bytes, alt: str) -> str:
    """Returns an `img` element with the PNG embedded."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def turnable_scene(glb: bytes) -> str:
    """Returns a 3D view of a GLB that the reader can turn; the viewer is embedded, so a page has one of them."""
    data, *code = (
        base64.b64encode(content).decode()
        for content in (glb, *((_VIEWER / name).read_bytes() for name in ("three.min.js", "viewer.js")))
    )
    scripts = "".join(f'<script src="data:text/javascript;base64,{text}"></script>' for text in code)
    show = (
        'const glb = Uint8Array.from(atob(document.getElementById("scene").dataset.glb), (c) => c.charCodeAt(0)); '
        'new HandViewer(document.getElementById("scene")).show(glb.buffer);'
    )
    return f'<div class="scene" id="scene" data-glb="{data}"></div>{scripts}<script>{show}</script>'


def write_page(path: str | Path, title: str, body: list[str], *, style: str = "") -> None:
    """Writes a page atomically.

    Args:
        path: the file.
        title: plain text, also the heading.
        body: HTML below the heading.
        style: additional CSS.
    """
    name = html.escape(title)
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"{meta}<title>{name}</title><style>{_STYLE}{style}</style>"
    atomic_write(path, f'<!doctype html><html lang="en">{head}<h1>{name}</h1>{"".join(body)}</html>\n')
