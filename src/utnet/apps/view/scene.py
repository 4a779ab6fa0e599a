"""The 3D view in the browser: a viser server whose scene follows a time slider."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import viser
import websockets.asyncio.server
from viser.transforms import SO3

from utnet.apps.serve.server import hosts_of
from utnet.apps.view.moments import Moment, Moments, ShownHand
from utnet.conventions import PARENTS
from utnet.predict.drawing import LINE_COLORS
from utnet.render.drawing import FINGER_COLORS, WRIST_COLOR

_BONES = np.array([(PARENTS[i], i) for i in range(1, len(PARENTS))])
_JOINT_COLORS = np.array([WRIST_COLOR, *(color for color in FINGER_COLORS.values() for _ in range(4))], np.uint8)
_MESH_COLORS = {"right": (158, 194, 242), "left": (168, 235, 184)}
_BRIDGED_COLOR = (190, 190, 190)
_FRUSTUM_M = 0.03
_SHORTEST_S, _LONGEST_S = 0.005, 0.5


@contextlib.contextmanager
def _checked_origins(host: str) -> Iterator[list[str | None]]:
    """Context with the set of accepted Origin headers of the viser server created in it, filled once its port is known.

    viser accepts any, so every page in the user's browser could read the scene. This remains so if other machines have
    access, since their names for this one are unknown.
    """
    origins: list[str | None] = []
    serve = websockets.asyncio.server.serve
    if hosts_of(host) is not None:
        websockets.asyncio.server.serve = functools.partial(serve, origins=origins)  # type: ignore[arg-type, assignment, misc]
    try:
        yield origins
    finally:
        websockets.asyncio.server.serve = serve  # type: ignore[misc]


class RecordingScene:
    """A server that shows moments: pictures, depth, hands, and the path of each wrist.

    Args:
        moments: at least one; to be closed after the scene.
        host: address to listen on.
        port: the first free one from here on is used.

    Attributes:
        server: viser's.
        address: of the page.
        slider: its value is the number of the displayed moment.
        drawn: names of the nodes of the displayed moment.
    """

    def __init__(self, moments: Moments, *, host: str = "127.0.0.1", port: int = 8643):
        self._moments, self._lock = moments, threading.Lock()
        self.drawn: set[str] = set()
        with contextlib.redirect_stdout(io.StringIO()), _checked_origins(host) as origins:  # its banner
            self.server = viser.ViserServer(host=host, port=port, label="utnet", verbose=False)
        if names := hosts_of(host):
            origins += [None, *(f"http://{name}:{self.server.get_port()}" for name in names)]
        self.address = f"http://{'localhost' if host == '0.0.0.0' else host}:{self.server.get_port()}/"
        self.server.scene.set_up_direction("-y")
        self._add_controls()
        self._add_paths()
        self._look_at_hands()
        self.show(0)

    def close(self) -> None:
        """Ends the server."""
        self.server.stop()

    def show(self, i: int) -> None:
        """Draws moment i and removes the previous one."""
        with self._lock, self.server.atomic():
            moment, scene = self._moments[i], self.server.scene
            R = SO3.from_matrix(moment.T_world_cam[:3, :3])
            scene.add_frame("/camera", show_axes=False, wxyz=R.wxyz, position=moment.T_world_cam[:3, 3])
            drawn: set[str] = set()
            if moment.rgb is not None and moment.K_px is not None:
                drawn.add(self._add_frustum(moment, moment.rgb))
            if moment.points_cam_m is not None and moment.colors is not None and len(moment.points_cam_m):
                scene.add_point_cloud(
                    "/camera/depth",
                    moment.points_cam_m,
                    moment.colors,
                    point_size=self._point_size.value / 1000,
                    precision="float32",
                    visible=self._visible["depth"].value,
                )
                drawn.add("/camera/depth")
            for hand in self._moments.hands(i):
                drawn |= self._add_hand(hand)
            for name in self.drawn - drawn:
                scene.remove_by_name(name)
            self.drawn = drawn
            self._text.content = f"**{moment.time_s:.2f} s** · {moment.name}"
            if moment.rgb is not None:
                self._picture.image = moment.rgb
            self._picture.visible = moment.rgb is not None

    def play(self) -> None:
        """Moves the slider while "play" is on, until the process is interrupted."""
        while True:
            i = self.slider.value
            if not self._play.value or len(self._moments) < 2:
                time.sleep(0.05)
                continue
            start, after = time.monotonic(), (i + 1) % len(self._moments)
            step_s = self._moments[after].time_s - self._moments[i].time_s
            self.slider.value = after
            wait = min(max(step_s / self._speed.value, _SHORTEST_S), _LONGEST_S)
            time.sleep(max(wait - (time.monotonic() - start), _SHORTEST_S))

    def _add_controls(self) -> None:
        gui = self.server.gui
        self._text = gui.add_markdown("")
        self.slider: Any = gui.add_slider(
            "frame", 0, max(1, len(self._moments) - 1), 1, 0, disabled=len(self._moments) < 2
        )
        self._play = gui.add_checkbox("play", False)
        self._speed = gui.add_slider("speed", 0.1, 2.0, 0.1, 1.0)
        self._visible: dict[str, Any] = {
            name: gui.add_checkbox(name, True) for name in ("picture", "depth", "mesh", "joints", "tracks")
        }
        self._visible["mesh opacity"] = gui.add_slider("mesh opacity", 0.1, 1.0, 0.1, 0.7)
        self._point_size = gui.add_slider("point size, mm", 0.5, 8.0, 0.5, 2.0)
        first = self._moments[0].rgb
        self._picture = gui.add_image(np.zeros((4, 4, 3), np.uint8) if first is None else first, label="picture")
        self.slider.on_update(lambda _: self.show(int(self.slider.value)))
        for control in (*self._visible.values(), self._point_size):
            control.on_update(lambda _: self._again())

    def _again(self) -> None:
        for name in self._paths:
            self._paths[name].visible = self._visible["tracks"].value
        self.show(int(self.slider.value))

    def _add_paths(self) -> None:
        """Draws the path of each wrist over all moments, with gaps where it is missing."""
        self._paths = {}
        for name, path in self._moments.wrists().items():
            segments = np.stack([path[:-1], path[1:]], 1)
            segments = segments[np.isfinite(segments).all((1, 2))]
            if not len(segments):
                continue
            color = LINE_COLORS["left" if "left" in name else "right"]
            self._paths[name] = self.server.scene.add_line_segments(
                f"/tracks/{name}", segments.astype(np.float32), color, thickness=3, thickness_units="screen"
            )

    def _add_frustum(self, moment: Moment, rgb: np.ndarray) -> str:
        width, height = moment.size_px
        assert moment.K_px is not None
        self.server.scene.add_camera_frustum(
            "/camera/picture",
            fov=2 * float(np.arctan(height / 2 / moment.K_px[1, 1])),
            aspect=width / height,
            scale=_FRUSTUM_M,
            thickness=1.5,
            thickness_units="screen",
            image=rgb,
            visible=self._visible["picture"].value,
        )
        return "/camera/picture"

    def _add_hand(self, hand: ShownHand) -> set[str]:
        scene, at = self.server.scene, f"/camera/hands/{hand.name}"
        joints = hand.joints_cam_m.astype(np.float32)
        seen = self._visible["joints"].value
        scene.add_point_cloud(
            f"{at}/joints", joints, _JOINT_COLORS, point_size=0.004, point_shape="circle", precision="float32",
            visible=seen,
        )  # fmt: skip
        colors = np.repeat(_JOINT_COLORS[_BONES[:, 1], None], 2, 1)
        scene.add_line_segments(
            f"{at}/bones", joints[_BONES], colors, thickness=4, thickness_units="screen", visible=seen
        )
        drawn = {f"{at}/joints", f"{at}/bones"}
        if hand.vertices_cam_m is not None and hand.faces is not None:
            opacity = float(self._visible["mesh opacity"].value)
            scene.add_mesh_simple(
                f"{at}/mesh",
                hand.vertices_cam_m,
                hand.faces,
                color=_MESH_COLORS[hand.side] if hand.valid else _BRIDGED_COLOR,
                opacity=None if opacity == 1 else opacity,
                visible=self._visible["mesh"].value,
            )
            drawn.add(f"{at}/mesh")
        return drawn

    def _look_at_hands(self) -> None:
        """Sets the initial view: from behind the first camera, looking at the hands."""
        first = self._moments[0]
        T = first.T_world_cam
        wrists = [path[np.isfinite(path[:, 0])] for path in self._moments.wrists().values()]
        if wrists:
            target = np.median(np.concatenate(wrists), 0)
        else:
            near = 0.6 if first.points_cam_m is None else float(np.median(first.points_cam_m[:, 2]))
            target = T[:3, :3] @ np.array([0, 0, near]) + T[:3, 3]
        distance = float(np.linalg.norm(target - T[:3, 3]))
        place = T[:3, :3] @ np.array([0.35 * distance, -0.35 * distance, 0.4 * distance]) + T[:3, 3]
        self.server.initial_camera.position = tuple(place)
        self.server.initial_camera.look_at = tuple(target)
