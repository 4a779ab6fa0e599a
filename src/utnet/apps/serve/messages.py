"""Messages between the page's script and its server, validated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from utnet.apps.serve.service import HandService, Query, Result
from utnet.apps.serve.worker import Job
from utnet.conventions import NUM_JOINTS
from utnet.errors import InputError

_MAX_NAME = 80
_MAX_HANDS = 64
"""Largest number of hands of a picture, which bounds the memory for added boxes."""


def file_name(header: str) -> str:
    """Returns an upload's name from the header (percent-encoded UTF-8), without folders and control characters."""
    name = unquote(header[: 12 * _MAX_NAME]).replace("\\", "/").rpartition("/")[2]
    name = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name).strip(". ")
    stem, dot, suffix = name.rpartition(".")
    return (f"{stem[: _MAX_NAME // 2]}.{suffix[:8]}" if dot and stem else name[: _MAX_NAME // 2]) or "picture"


def read_query(message: Mapping[str, Any], files: Mapping[str, Path], methods: Sequence[str]) -> Query:
    """Parses the query in a message, with its files.

    Raises:
        InputError: an unknown method, or invalid numbers.
    """
    method = message.get("method", methods[0])
    if method not in methods:
        raise InputError(f"no such method; expected one of {', '.join(methods)}")
    camera = message.get("camera", [None] * 4)
    if not isinstance(camera, list) or len(camera) != 4:
        raise InputError("the camera is fx, fy, cx, cy")
    return Query(
        picture=files["file"],
        depth=files.get("depth"),
        depth_scale=_number(message.get("depth_scale", 0.001)),
        camera=[_number(value) for value in camera],
        method=method,
    )


def read_edit(message: Mapping[str, Any]) -> Callable[[HandService, Result], None]:
    """Parses the change in a message: {"hand": 0, "points": {"8": [x, y]}} or {"box": [x0, y0, x1, y1]}.

    Raises:
        InputError: neither.
    """
    if "box" in message:
        box = _places(message["box"], 4)

        def add(service: HandService, result: Result) -> None:
            if len(result.hands) >= _MAX_HANDS:
                raise InputError(f"the picture has {len(result.hands)} hands, the largest number")
            service.add_hand(result, box)

        return add
    index, points = message.get("hand"), message.get("points")
    if not isinstance(index, int) or not isinstance(points, dict) or len(points) > NUM_JOINTS:
        raise InputError("expected a hand with points, or a box")
    if not all(key.isascii() and key.isdigit() and len(key) < 3 for key in points):
        raise InputError(f"joints have numbers from 0 to {NUM_JOINTS - 1}")
    places = {int(key): (x, y) for key, value in points.items() for x, y in [_places(value, 2)]}
    return lambda service, result: service.move_joints(result, index, places)


def state_of(job: Job, num_before: int, service: HandService) -> dict[str, Any]:
    """The state of a picture: "waiting", "working", "done", "refused" (a bad upload), "failed" or "replaced"."""
    if job.future.cancelled():
        return {"state": "replaced", "note": "Replaced by a later picture."}
    if not job.future.done():
        return {"state": "working" if job.step else "waiting", "step": job.step, "before": num_before}
    error = job.future.exception()
    if isinstance(error, InputError):
        return {"state": "refused", "note": str(error)}
    if error is not None:
        return {"state": "failed", "note": "This picture could not be processed; the server's terminal shows why."}
    result: Result = job.future.result()
    return {
        "state": "done",
        "note": result.note,
        "version": result.version,
        "size_px": list(result.size_px),
        "movable": service.takes_landmarks(result),
        "hands": [
            {
                "side": hand.side,
                "score": round(hand.score, 2),
                "distance_m": round(float(np.linalg.norm(hand.joints_cam_m.mean(0))), 2),
                "distance_source": hand.distance_source,
                "joints_px": np.round(hand.joints_px, 1).tolist(),
                "points": {str(joint): list(place) for joint, place in points.items()},
            }
            for hand, points in zip(result.hands, result.points, strict=True)
        ],
    }


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("a number is expected")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError("a finite number is expected")
    return number


def _places(value: Any, num: int) -> list[float]:
    numbers = [_number(item) for item in value] if isinstance(value, list) and len(value) == num else [None]
    if None in numbers:
        raise InputError(f"expected {num} numbers, in pixels")
    return [number for number in numbers if number is not None]
