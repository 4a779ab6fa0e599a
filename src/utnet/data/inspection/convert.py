"""Shell commands that convert the `hands.jsonl` of own data to UTNet's conventions; other sources get none."""

from __future__ import annotations

from collections.abc import Sequence

from utnet.data.custom.custom_line import BACKSLASHES, MILLIMETRES, OPENGL, RELATIVE, WIDTH_HEIGHT

_OUT = "hands.converted.jsonl"


def convert_line(source_name: str, change: str, *, picture_size: bool = False) -> str:
    """Returns a shell command that writes a changed copy of `hands.jsonl`, or "" for sources other than `custom`.

    Args:
        source_name: `Source.name`.
        change: a Python expression that changes `h`, the dict of one line, such as `h.update(side='left')`. It must not
            contain double quotes, so that the command works in every shell.
        picture_size: `change` uses W and H, the stored size of the line's picture in pixels.
    """
    if source_name != "custom":
        return ""
    size = " for W, H in [PIL.Image.open(h['image']).size]" if picture_size else ""
    imports = "json, PIL.Image" if picture_size else "json"
    read = "L = [json.loads(s) for s in open('hands.jsonl', encoding='utf-8-sig') if s.strip()]"
    write = f"open('{_OUT}', 'w', encoding='utf-8').writelines(json.dumps(h) + chr(10) for h in L)"
    return f'python -c "import {imports}; {read}; [{change} for h in L{size}]; {write}"'


def reorder(source_name: str, names: Sequence[str], to_openpose: Sequence[int]) -> str:
    """Reorders the joints of these keys."""
    order = ",".join(str(joint) for joint in to_openpose)
    keys = str(tuple(key for name in names for key in (name, f"{name}_conf")))
    return convert_line(source_name, f"h.update((k, [h[k][i] for i in ({order})]) for k in {keys} if h.get(k))")


def change_points(source_name: str, x: str, y: str, *, picture_size: bool = False) -> str:
    """Changes 2D labels by expressions of x and y."""
    change = f"h.update(joints_2d=[p and (lambda x, y: [{x}, {y}])(*p) for p in h['joints_2d']])"
    return convert_line(source_name, f"h.get('joints_2d') and {change}", picture_size=picture_size)


def change_joints(source_name: str, factors: Sequence[float]) -> str:
    """Multiplies x, y and z of the 3D joints by factors."""
    x, y, z = (f"{factor:g}" for factor in factors)
    change = f"h.update(joints_3d=[p and [{x}*p[0], {y}*p[1], {z}*p[2]] for p in h['joints_3d']])"
    return convert_line(source_name, f"h.get('joints_3d') and {change}")


def change_box(source_name: str, box: str, *, picture_size: bool = False) -> str:
    """Changes boxes by a list expression of a, b, c and d."""
    change = f"h.update(box=(lambda a, b, c, d: {box})(*h['box']))"
    return convert_line(source_name, f"h.get('box') and {change}", picture_size=picture_size)


def change_camera(source_name: str, x: str, y: str, *, picture_size: bool = False) -> str:
    """Multiplies the first and the second row of K by factors, given as expressions."""
    rows = f"(lambda K: [[{x}*v for v in K[0]], [{y}*v for v in K[1]], K[2]] if len(K) == 3 else " + (
        f"[{x}*K[0], {y}*K[1], {x}*K[2], {y}*K[3]])"
    )
    return convert_line(source_name, f"h.get('K') and h.update(K={rows}(h['K']))", picture_size=picture_size)


def other_side(source_name: str) -> str:
    """Swaps the side of every hand."""
    return convert_line(source_name, "h.update(side={'right': 'left', 'left': 'right'}[h['side']])")


def upright_pictures(source_name: str) -> str:
    """Applies the EXIF orientation to the stored pictures, in place."""
    if source_name != "custom":
        return ""
    return (
        'python -c "import json, PIL.Image, PIL.ImageOps; '
        "[PIL.ImageOps.exif_transpose(PIL.Image.open(f)).save(f, quality=97) for f in "
        "sorted({json.loads(s)['image'] for s in open('hands.jsonl', encoding='utf-8-sig') if s.strip()}) "
        'if PIL.Image.open(f).getexif().get(274, 1) > 1]"'
    )


def of_messages(source_name: str) -> dict[str, str]:
    """Phrases of the error messages about lines of own data, and the commands that convert such lines."""
    slashes = "h.update((k, h[k].replace(chr(92), '/')) for k in ('image', 'depth') if h.get(k))"
    lines = {
        MILLIMETRES: change_joints(source_name, (0.001, 0.001, 0.001)),
        OPENGL: change_joints(source_name, (1, -1, -1)),
        RELATIVE: convert_line(source_name, "h.pop('K', 0)"),
        BACKSLASHES: convert_line(source_name, slashes),
        WIDTH_HEIGHT: change_box(source_name, "[a, b, a+c, b+d]"),
    }
    return {phrase: line for phrase, line in lines.items() if line}
