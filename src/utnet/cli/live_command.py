"""`utnet live`. Imports only what the parser needs."""

from __future__ import annotations

import importlib.util
import sys
import webbrowser
from collections import deque
from collections.abc import Collection
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Literal

import tyro

from utnet.cli.options import Flag, counted, optional
from utnet.errors import InputError, install_line
from utnet.predict.methods.resolve import Method

_LATENCIES = 1000
"""Number of the last frames whose latency is summarised."""


def live(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[CAMERA|realsense|FILE]")] = "0",
    to: Literal["udp", "jsonl"] = "jsonl",
    address: str = "127.0.0.1:9870",
    out: Annotated[Path | None, optional("FILE")] = None,
    weights: Annotated[Path | None, optional("PATH")] = None,
    method: Method = "auto",
    device: str = "auto",
    K: Annotated[str | None, optional("FX,FY,CX,CY|FILE")] = None,
    depth_scale: Annotated[float | None, optional("METRES")] = None,
    fps: float = 30.0,
    raw: Flag = False,
    seconds: Annotated[float | None, optional("SECONDS")] = None,
    page: Flag = False,
    host: str = "127.0.0.1",
    port: int = 8644,
    open_browser: Flag = False,
) -> None:
    """Follows the hands of a camera, a RealSense or a recording, and sends wrist poses and joints live.

    One JSON message per frame: frame, time_s, latency_ms, and for each hand track, side, valid, score, T_cam_wrist
    (4 x 4, metres, camera frame), joints_wrist_m (21 x 3, wrist frame) and joint_error_mm. Ctrl-C ends it.

    Args:
        source: the number of a camera, realsense (needs the extra "realsense"), a video or a recording.
        to: jsonl writes a line per frame to standard output or --out; udp sends a datagram per frame to --address.
        address: HOST:PORT for udp.
        out: file for jsonl, instead of standard output.
        weights: as for utnet predict.
        method: as for utnet predict.
        device: of the network: auto, cpu, cuda, ...
        K: intrinsics FX,FY,CX,CY in pixels, or a file with them (default: the recording's, else f = the longer side).
        depth_scale: metres per unit of depth (default: the sensor's).
        fps: frames per second of a RealSense.
        raw: do not smooth.
        seconds: stop after this time.
        page: show the newest picture with its hands on a local page (needs the extra "serve"); lines of JSON are then
            written to --out only.
        host: address of the page; other than 127.0.0.1 other machines have access, without a password.
        port: port of the page.
        open_browser: show the page, and open it in your browser.
    """
    page = page or open_browser
    if page and (importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None):
        raise InputError(f"--page needs starlette and uvicorn; {install_line('serve')}")
    if not 0 <= port < 65536:
        raise InputError(f"--port is {port}; expected 1 to 65535")
    from utnet.cli.predict_command import read_camera_option
    from utnet.io.recordings import Options
    from utnet.predict.live import HandTracker, NewestFrames, Sender, open_live, side_notes
    from utnet.predict.predictor import Predictor

    to_host, colon, to_port = address.rpartition(":")
    if not colon or not to_port.isdecimal() or not 0 < int(to_port) < 65536:
        raise InputError(f"--address is {address!r}; expected HOST:PORT, such as 127.0.0.1:9870")
    camera = None if K is None else read_camera_option(K)
    options = Options(camera=camera, depth_scale=depth_scale, fps=fps)
    frames, rate, comes_by_itself = open_live(source, options)
    predictor = Predictor(weights, method=method, device=device)
    tracker = HandTracker(predictor, fps=rate, smooth=not raw)
    latencies: deque[float] = deque(maxlen=_LATENCIES)
    num_frames = 0
    num_changes = 0
    taken = NewestFrames(frames) if comes_by_itself else frames
    with ExitStack() as stack:
        file = None
        if to == "jsonl" and not (page and out is None):
            file = sys.stdout if out is None else stack.enter_context(out.open("w", encoding="utf-8"))
        sender = stack.enter_context(Sender(file, (to_host, int(to_port)) if to == "udp" else None))
        shown = None
        if page:
            from utnet.apps.live_page import LivePage

            shown = stack.enter_context(LivePage(host, port))
            print(f"{shown.address}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
            if open_browser:
                webbrowser.open(shown.address)
        try:
            for tracked in stack.enter_context(closing(tracker(taken, None if camera is None else camera.K_px))):
                if seconds is not None and tracked.frame.time_s >= seconds:
                    break
                sender.send(tracked.message())
                for line in side_notes(tracker.side_changes[num_changes:]):
                    print(f"utnet: {line}", file=sys.stderr)
                num_changes = len(tracker.side_changes)
                if shown is not None:
                    shown.show(tracked)
                latencies.append(tracked.latency_s)
                num_frames += 1
        except KeyboardInterrupt:
            pass
        finally:
            dropped = taken.dropped if isinstance(taken, NewestFrames) else 0
            print(_summary(latencies, num_frames, dropped), file=sys.stderr)


def _summary(latencies: Collection[float], num_frames: int, dropped: int) -> str:
    if not latencies:
        return "utnet: no frame"
    ordered = sorted(latencies)
    median, late = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
    frames = counted(num_frames, "frame")
    text = f"utnet: {frames}, latency {1000 * median:.0f} ms (median), {1000 * late:.0f} ms (95 %)"
    return f"{text}, {counted(dropped, 'frame')} dropped" if dropped else text
