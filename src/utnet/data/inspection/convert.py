"""Lines to copy that convert the `hands.jsonl` of own data to what UTNet reads; other sources get none."""

from __future__ import annotations

from collections.abc import Sequence

from utnet.data.custom.custom_line import BACKSLASHES, MILLIMETRES, OPENGL, RELATIVE, WIDTH_HEIGHT

_OUT = "hands.converted.jsonl"


def convert_line(source_name: str, change: str, *, picture_size: bool = False) -> str:
    """A shell line that writes a changed copy of `hands.jsonl`, or "" for sources that are not `custom`.

    Args:
        source_name: `Source.name`.
        change: a Python expression that changes `h`, the dict of one line, such as `h.update(side='left')`. It has no
            double quotes, so that every shell takes the line.
        picture_size: it uses W and H, the stored size of the line's picture in pixels.
    """
    if source_name != "custom":
        return ""
    size = " for W, H in [PIL.Image.open(h['image']).size]" if picture_size else ""
    imports = "json, PIL.Image" if picture_size else "json"
    read = "L = [json.loads(s) for s in open('hands.jsonl', encoding='utf-8-sig') if s.strip()]"
    write = f"open('{_OUT}', 'w', encoding='utf-8').writelines(json.dumps(h) + chr(10) for h in L)"
    return f'python -c "import {imports}; {read}; [{change} for h in L{size}]; {write}"'


def reorder(source_name: str, names: Sequence[str], to_openpose: Sequence[int]) -> str:
    """Joints of these keys listed in another order."""
    order = ",".join(str(joint) for joint in to_openpose)
    keys = str(tuple(key for name in names for key in (name, f"{name}_conf")))
    return convert_line(source_name, f"h.update((k, [h[k][i] for i in ({order})]) for k in {keys} if h.get(k))")


def change_points(source_name: str, x: str, y: str, *, picture_size: bool = False) -> str:
    """2D labels: expressions of x and y."""
    change = f"h.update(joints_2d=[p and (lambda x, y: [{x}, {y}])(*p) for p in h['joints_2d']])"
    return convert_line(source_name, f"h.get('joints_2d') and {change}", picture_size=picture_size)


def change_joints(source_name: str, factors: Sequence[float]) -> str:
    """3D joints: a factor for x, y and z."""
    x, y, z = (f"{factor:g}" for factor in factors)
    change = f"h.update(joints_3d=[p and [{x}*p[0], {y}*p[1], {z}*p[2]] for p in h['joints_3d']])"
    return convert_line(source_name, f"h.get('joints_3d') and {change}")


def change_box(source_name: str, box: str, *, picture_size: bool = False) -> str:
    """Boxes: a list expression of a, b, c and d."""
    change = f"h.update(box=(lambda a, b, c, d: {box})(*h['box']))"
    return convert_line(source_name, f"h.get('box') and {change}", picture_size=picture_size)


def change_camera(source_name: str, x: str, y: str, *, picture_size: bool = False) -> str:
    """Cameras: factors of the first and the second row, as expressions."""
    rows = f"(lambda K: [[{x}*v for v in K[0]], [{y}*v for v in K[1]], K[2]] if len(K) == 3 else " + (
        f"[{x}*K[0], {y}*K[1], {x}*K[2], {y}*K[3]])"
    )
    return convert_line(source_name, f"h.get('K') and h.update(K={rows}(h['K']))", picture_size=picture_size)


def other_side(source_name: str) -> str:
    """Every hand's side."""
    return convert_line(source_name, "h.update(side={'right': 'left', 'left': 'right'}[h['side']])")


def upright_pictures(source_name: str) -> str:
    """Pictures stored as their EXIF data turn them, in place."""
    if source_name != "custom":
        return ""
    return (
        'python -c "import json, PIL.Image, PIL.ImageOps; '
        "[PIL.ImageOps.exif_transpose(PIL.Image.open(f)).save(f, quality=97) for f in "
        "sorted({json.loads(s)['image'] for s in open('hands.jsonl', encoding='utf-8-sig') if s.strip()}) "
        'if PIL.Image.open(f).getexif().get(274, 1) > 1]"'
    )


def of_messages(source_name: str) -> dict[str, str]:
    """Phrases of the messages with which lines of own data are refused, and the lines that convert them."""
    slashes = "h.update((k, h[k].replace(chr(92), '/')) for k in ('image', 'depth') if h.get(k))"
    lines = {
        MILLIMETRES: change_joints(source_name, (0.001, 0.001, 0.001)),
        OPENGL: change_joints(source_name, (1, -1, -1)),
        RELATIVE: convert_line(source_name, "h.pop('K', 0)"),
        BACKSLASHES: convert_line(source_name, slashes),
        WIDTH_HEIGHT: change_box(source_name, "[a, b, a+c, b+d]"),
    }
    return {phrase: line for phrase, line in lines.items() if line}
