"""`utnet predict`. Heavy imports are inside the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from utnet.cli.options import Flag, counted, optional
from utnet.errors import InputError
from utnet.predict.formats import FORMATS, FormatName, Style
from utnet.predict.methods.resolve import Method, resolve_method

if TYPE_CHECKING:
    from utnet.hand.arrays import HandArrays
    from utnet.io.recordings import Camera
    from utnet.predict.inputs import Input
    from utnet.predict.request import Request
    from utnet.predict.run import Summary


MeshKind = Literal["glb", "obj", "ply", "scene", "animated", "none"]

_SHOWN = 20
"""Number of pictures without a hand, and of warnings, that are printed."""
_DISTANCE_WORDS = {"sensor": "depth", "hand_size": "the hand's size"}


def predict(
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, optional("INPUT...")],
    out: Path = Path("predictions"),
    overwrite: Flag = False,
    weights: Annotated[Path | None, optional("PATH")] = None,
    method: Method = "auto",
    device: str = "auto",
    mano: Annotated[Path | None, optional("FOLDER")] = None,
    K: Annotated[str | None, optional("FX,FY,CX,CY|FILE")] = None,
    depth: Annotated[str | None, optional("FILE|FOLDER|GLOB")] = None,
    depth_scale: Annotated[float | None, optional("METRES")] = None,
    sequence: Flag = False,
    fps: float = 30.0,
    tolerance: float = 0.02,
    confidence: Annotated[int | None, optional("LEVEL")] = None,
    show_depth: Flag = False,
    poses: Annotated[Path | None, optional("FILE")] = None,
    poses_axes: Literal["opencv", "arkit"] = "opencv",
    box: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, optional("X0,Y0,X1,Y1")] = (),
    side: Annotated[tuple[Literal["right", "left"], ...], tyro.conf.UseAppendAction, optional("right|left")] = (),
    landmarks: Annotated[Path | None, optional("FILE")] = None,
    mesh: Annotated[MeshKind | None, optional("glb|obj|ply|scene|animated|none")] = None,
    npz: Flag = False,
    npz_style: Annotated[Literal["utnet", "hamer"] | None, optional("utnet|hamer")] = None,
    also: Annotated[tuple[FormatName, ...], tyro.conf.UseAppendAction, optional("FORMAT")] = (),
    no_overlay: Flag = False,
    style: Style = "mesh",
    angles: Flag = False,
    raw: Flag = False,
    seconds: Annotated[float | None, optional("SECONDS")] = None,
    jobs: int = 1,
) -> None:
    """Detects and reconstructs hands in pictures, videos or a camera's view; writes predictions.json, overlays, meshes.

    Exit code: 0 success (also without hands), 1 some inputs could not be read completely, 2 bad arguments, 130 stopped
    by Ctrl-C (finished results are written).

    Args:
        inputs: pictures, folders, globs ("photos/**/*.jpg"), videos, or the number of a camera (Ctrl-C ends it).
        out: output folder.
        overwrite: replace the results of an earlier call.
        weights: a checkpoint folder such as runs/demo/run/best, a file of `utnet export`, or the name of a bundled
            network such as ti (default: the bundled one).
        method: network (trained weights), fit (a hand model fitted to landmarks; no weights), both (the network's hand,
            fitted to the landmarks), auto: network with --weights, fit with --mano, else both with the bundled network.
        device: of the network: auto, cpu, cuda, ...
        mano: folder of your MANO_RIGHT.pkl, to fit MANO instead of the open hand (default: UTNET_MANO_DIR).
        K: intrinsics in pixels of the upright pictures, or a file with them: camera_info (YAML, JSON), RealSense's,
            Open3D's or COLMAP's (default: from the recording or EXIF, else f = the longer side, centred).
        depth: depth images with the view of the pictures: one file, or a folder or glob of files with the pictures'
            names or numbers (PNG, TIFF, EXR, .npy, .npz); for a video, a depth video or a folder.
        depth_scale: metres per unit of depth images (default: integers are millimetres, floats metres).
        sequence: treat folders as recordings, whose pictures are frames with tracked hands.
        fps: frames per second of a recording's pictures without times.
        tolerance: largest time in seconds between colour and depth of a recording.
        confidence: lowest confidence of a recording's depth (default: 1 of ARKit's 0, 1, 2).
        poses: camera poses of a recording in TUM's format: time tx ty tz qx qy qz qw per line.
        poses_axes: axes of the camera in --poses.
        show_depth: draw depth beside colour in the overlay of a recording.
        box: tight box of each hand of one picture in pixels, instead of the detector's: --box A --box B, or --box A B
            (write --box=-5,... for a leading minus).
        side: side of the hand in each box, in the same order (default: predicted).
        landmarks: JSON with the landmarks of one picture's hands, instead of the detector's: UTNet's format,
            COCO-WholeBody's or MediaPipe's (docs/predictions.md).
        mesh: glb, obj or ply: one file per hand (default: glb for pictures, none for videos); scene: one GLB per
            picture or frame; animated: one GLB per video, with a skinned mesh for each track.
        npz: also write arrays: NAME.npz.
        npz_style: write arrays with these fields: utnet (as --npz), or hamer: the dictionary of HaMeR and WiLoR (MANO
            is fitted to the open hand; needs your MANO folder in UTNET_MANO_DIR).
        also: other files with all hands: table (parquet), angles (CSV, degrees), openxr (26 joints), coco
            (COCO-WholeBody), custom (a data set to train on); docs/howto/use_the_result.md.
        angles: the same as --also angles.
        no_overlay: do not draw the hands over the pictures and videos.
        style: of the drawn hands: mesh with skeleton, outline (the hand stays visible), or skeleton.
        raw: do not smooth videos.
        seconds: stop a video or camera after this time.
        jobs: number of pictures processed in parallel.
    """
    from utnet.io.recordings import Options
    from utnet.io.recordings.poses import read_poses
    from utnet.predict.inputs import DepthFiles, check_out, find_inputs, passed_over
    from utnet.predict.overwrite import previous_files

    found = find_inputs(inputs, sequence=sequence)
    lens = None if K is None else read_camera_option(K)
    found = _as_recordings(found, depth=depth, lens=lens)
    _check(found, jobs=jobs, seconds=seconds, depth=depth, depth_scale=depth_scale, box=box, side=side)
    if landmarks is not None and (len(found) != 1 or found[0].kind != "picture"):
        raise InputError(f"--landmarks is for one picture, but there are {len(found)} inputs; give that picture alone")
    check_out(out, found)  # also checked in `run`, but only after the networks are loaded
    previous_files(out, allowed=overwrite)
    from utnet.heap import begin_loading

    begin_loading()
    from utnet.predict.option_warnings import camera_warnings, side_warnings
    from utnet.predict.predictor import Predictor
    from utnet.predict.request import Request
    from utnet.predict.run import run

    recordings = any(item.kind == "recording" for item in found)
    request = Request(
        out=out,
        overwrite=overwrite,
        K_px=None if lens is None else lens.K_px,
        lens=lens,
        depth=None if depth is None or recordings else DepthFiles(depth, len(found)),
        depth_scale=depth_scale,
        boxes=[_floats("--box", text, 4) for text in box] or None,
        sides=side or None,
        landmarks=landmarks,
        overlay=not no_overlay,
        style=style,
        mesh=None if mesh == "none" else mesh or "glb",
        video_mesh=None if mesh == "none" else mesh,
        arrays=npz or npz_style is not None,
        npz_style=npz_style or "utnet",
        mano=_mano_to_fit(mano) if npz_style == "hamer" else None,
        also=tuple(dict.fromkeys((*also, "angles") if angles else also)),
        raw=raw,
        seconds=seconds,
        jobs=jobs,
        recording=Options(
            depth=depth,
            fps=fps,
            tolerance_s=tolerance,
            least_confidence=confidence,
            poses=None if poses is None else read_poses(poses, arkit=poses_axes == "arkit"),
        ),
        show_depth=show_depth,
    )
    for line in [*passed_over(inputs, with_depth=depth is not None), *camera_warnings(found, request.K_px)]:
        print(f"utnet: {line}", file=sys.stderr)
    fits = resolve_method(method, weights, mano) == "fit"
    folder = mano or (os.environ.get("UTNET_MANO_DIR") if fits else None) or None
    predictor = Predictor(weights, method=method, device=device, mano=folder)
    if mesh == "animated" and predictor.hand_model == "mano":
        raise InputError(
            "--mesh animated: a rig would contain MANO's arrays, which its licence forbids; leave out --mano"
        )
    if npz_style == "hamer" and predictor.hand_model != "mano" and request.mano is None:
        raise InputError(
            "--npz-style hamer: the open hand has no MANO parameters; name your MANO folder: UTNET_MANO_DIR"
        )
    summary = run(predictor, found, request)
    doubts = summary.warnings[:_SHOWN]
    if len(summary.warnings) > _SHOWN:
        doubts.append(f"{len(summary.warnings) - _SHOWN} more warnings of this kind")
    if request.boxes and side and not summary.problems:
        doubts += side_warnings(predictor.detector, found[0], request.boxes, side)
    for line in doubts:
        print(f"utnet: {line}", file=sys.stderr)
    for line in _lines(summary, found, request):
        print(line)
    if summary.stopped_by:
        sys.exit(128 + summary.stopped_by)
    if summary.problems:
        sys.exit(1)


def _mano_to_fit(mano: Path | None) -> HandArrays | None:
    """MANO_RIGHT of the user, or None if no folder is given."""
    from utnet.predict.formats.hamer import load_right

    folder = mano or os.environ.get("UTNET_MANO_DIR")
    return load_right(folder) if folder else None


def _check(
    found: Sequence[Input],
    *,
    jobs: int,
    seconds: float | None,
    depth: str | None,
    depth_scale: float | None,
    box: Sequence[str],
    side: Sequence[str],
) -> None:
    """InputError for options that conflict with the inputs or with each other."""
    videos = [item for item in found if item.kind != "picture"]
    recordings = [item for item in found if item.kind == "recording"]
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}; expected at least 1")
    if seconds is not None and not seconds > 0:
        raise InputError(f"--seconds is {seconds}; expected more than 0")
    if depth_scale is not None and not depth_scale > 0:
        raise InputError(f"--depth-scale is {depth_scale}; expected metres per unit, such as 0.001 for millimetres")
    if depth is not None and len(recordings) < len(videos):
        raise InputError(f"--depth is for pictures and video files, but {videos[0].label} is neither")
    if depth is not None and recordings and len(found) > 1:
        raise InputError(f"--depth is for one recording, but there are {len(found)} inputs; give one at a time")
    if box and (len(found) != 1 or videos):
        raise InputError(f"--box is for one picture, but there are {len(found)} inputs; leave it out to detect hands")
    if side and not box:
        raise InputError("--side is given without --box; give a box for each, or leave it out")
    if side and len(side) != len(box):
        raise InputError(f"{len(side)} sides for {len(box)} boxes; give --side right or left for each --box")


def _lines(summary: Summary, found: Sequence[Input], request: Request) -> list[str]:
    """The result for the terminal."""
    lines = []
    if len(found) == 1 and summary.num_pictures:
        for hand in summary.hands:
            x, y, z = hand.joints_cam_m.mean(0)
            how = f"score {hand.score:.2f}, distance from {_DISTANCE_WORDS[hand.distance_source]}"
            lines.append(f"{hand.side} hand, its middle at x {x:.3f}, y {y:.3f}, z {z:.3f} m ({how})")
    lines += [f"no hand in {label}" for label in summary.without_hand[:_SHOWN]]
    if len(summary.without_hand) > _SHOWN:
        lines.append(f"no hand in {len(summary.without_hand) - _SHOWN} more pictures (predictions.json names them)")
    done = [
        counted(summary.num_pictures, "picture"),
        counted(summary.num_videos, "video") + f" ({counted(summary.num_frames, 'frame')})",
    ]
    asked = [any(item.kind == "picture" for item in found), any(item.kind != "picture" for item in found)]
    text = ", ".join(part for part, wanted in zip(done, asked, strict=True) if wanted)
    meshes = request.mesh if summary.num_pictures else request.video_mesh
    kinds = (("overlays", request.overlay), ("meshes", meshes), ("arrays", request.arrays))
    beside = [word for word, made in kinds if made and summary.num_hands]
    also = (FORMATS[name].file for name in request.also)
    beside += [file for file in also if file not in dict(summary.problems)]
    named = " and ".join(word for word in (", ".join(beside[:-1]), *beside[-1:]) if word)
    where = f"{request.out / 'predictions.json'}{f', {named} beside it' if named else ''}"
    lines.append(f"{text}, {counted(summary.num_hands, 'hand')}: {where}")
    if summary.problems:
        lines.append(f"{len(summary.problems)} could not be read completely: see above, or predictions.json")
    if summary.num_left:
        lines.append(f"stopped early: {summary.num_left} of {len(found)} inputs were not started")
    return lines


def read_camera_option(text: str) -> Camera:
    """The camera of --K: FX,FY,CX,CY or a file."""
    from utnet.io.recordings.cameras import Camera, pinhole, read_camera

    if Path(text).suffix and Path(text).is_file():
        return read_camera(text)
    return Camera(pinhole(*_floats("--K", text, 4)))


def _as_recordings(found: Sequence[Input], *, depth: str | None, lens: Camera | None) -> list[Input]:
    """Reads videos with depth, or with known lens distortion, as recordings."""
    special = depth is not None or (lens is not None and lens.is_distorted)
    return [replace(item, kind="recording") if special and item.kind == "video" else item for item in found]


def _floats(option: str, text: str, num: int) -> list[float]:
    """Parses numbers separated by commas."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text!r}: expected {num} numbers separated by commas") from error
    if len(values) != num:
        raise InputError(f"{option} {text!r}: {len(values)} numbers, expected {num} separated by commas")
    return values
