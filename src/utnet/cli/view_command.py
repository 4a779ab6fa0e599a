"""`utnet view`. Imports only what the parser needs."""

from __future__ import annotations

import importlib.util
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import tyro

from utnet.cli.options import Flag, counted, optional
from utnet.errors import InputError, install_line


def view(
    path: Annotated[Path, tyro.conf.Positional],
    recording: Annotated[Path | None, tyro.conf.Positional, optional("[RECORDING]")] = None,
    depth: Annotated[str | None, optional("FILE|FOLDER|GLOB")] = None,
    depth_scale: Annotated[float | None, optional("METRES")] = None,
    K: Annotated[str | None, optional("FX,FY,CX,CY|FILE")] = None,
    host: str = "127.0.0.1",
    port: int = 8643,
    open_browser: Flag = False,
) -> None:
    """Shows hands in 3D in the browser: picture, depth as points, meshes, joints and tracks over time (extra "viewer").

    Args:
        path: predictions.json of utnet predict, its folder, or a recording (without hands).
        recording: recording of the hands, if it is not at the path in predictions.json.
        depth: as for utnet predict.
        depth_scale: as for utnet predict.
        K: as for utnet predict.
        host: address to listen on; other than 127.0.0.1 other machines have access, without a password.
        port: port to listen on, or the next free one.
        open_browser: open the page in your browser.
    """
    if not 0 < port < 65536:
        raise InputError(f"--port is {port}; expected 1 to 65535")
    if importlib.util.find_spec("viser") is None:
        raise InputError(f"the 3D view needs viser; {install_line('viewer')}")
    from utnet.apps.view.moments import Moments
    from utnet.apps.view.reading import fill
    from utnet.apps.view.scene import RecordingScene
    from utnet.cli.predict_command import read_camera_option
    from utnet.io.recordings import Options

    camera = None if K is None else read_camera_option(K)
    with Moments() as moments:
        for line in fill(moments, path, recording, Options(depth=depth, depth_scale=depth_scale, camera=camera)):
            print(f"utnet: {line}", file=sys.stderr)
        scene = RecordingScene(moments, host=host, port=port)
        try:
            print(f"{scene.address}  ({counted(len(moments), 'frame')}; Ctrl-C ends it)", flush=True)
            if open_browser:
                webbrowser.open(scene.address)
            scene.play()
        except KeyboardInterrupt:
            pass
        finally:
            scene.close()
