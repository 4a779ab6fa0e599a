"""`utnet data check | preview | stats`: sound sources pass, damage is found by name, pictures show what they say."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from support.mano_files import random_mano, write_mano
from support.trees import copy_of, dexycb_tree, ho3d_tree
from utnet.cli import data_commands as commands
from utnet.cli.data_commands import SourceChoice
from utnet.config import Config, override
from utnet.conventions import FINGERS, TIPS
from utnet.data import open_source
from utnet.data.inspection.check import check_source
from utnet.data.inspection.decode import fitted_camera
from utnet.data.inspection.preview import _EXPAND, preview_sheet, read_samples
from utnet.data.inspection.stats import stats_source
from utnet.data.inspection.tables import check_lines, stats_lines
from utnet.data.source import BadSample
from utnet.data.sources import open_validation
from utnet.data.transforms import mirror
from utnet.errors import InputError
from utnet.geometry import apply_affine, crop_affine, project
from utnet.hand import HandModel
from utnet.io import layouts
from utnet.render.drawing import FINGER_COLORS, draw_joints, elide

TILE = 64


class Listed:
    """Samples of a list as a source; a function in the list is called, to raise."""

    name, tips = "listed", "ho3d"

    def __init__(self, items):
        self.items, self.counts = items, {"items": len(items)}

    def __len__(self):
        return len(self.items)

    def key(self, index):
        return f"item {index}"

    def __getitem__(self, index):
        item = self.items[index]
        return item() if callable(item) else item


class Streamed(Listed):
    """The same in passing."""

    __len__ = None

    def stream(self, *, seed, epoch, part, num_parts):
        yield from self.items[part::num_parts]


@lru_cache(maxsize=1)
def hands():
    """Ten labelled hands, right and left, with a camera, depth and parameters."""
    source = open_source("dexycb", dexycb_tree(), split="train")
    samples = tuple(source[int(i)] for i in np.linspace(0, len(source) - 1, 10))
    assert {s.side for s in samples} == {"right", "left"}
    return samples


def check(samples):
    return check_source(Listed(list(samples)))


def first(**changes):
    """The ten hands, the first of them changed."""
    return [replace(hands()[0], **changes), *hands()[1:]]


def found(report):
    return " | ".join(finding.what for finding in report.findings)


# ---------------------------------------------------------------------------------------------------------------- check


@pytest.mark.parametrize(
    ("name", "tree"), [("dexycb", dexycb_tree), ("ho3d", ho3d_tree), ("ho3d", lambda: ho3d_tree("h2o3d"))]
)
def test_sound_trees_pass(name, tree):
    report = check_source(open_source(name, tree(), split="train"))
    assert report.ok, found(report)
    numbers = report.numbers
    assert numbers["samples"]["read"] == numbers["samples"]["expected"] > 0
    assert numbers["missing"] == numbers["damaged"] == {}
    assert numbers["model_px"]["max"] < 0.01
    assert numbers["model_px"]["num"] == numbers["samples"]["params"] == numbers["samples"]["read"]
    assert numbers["depth"]["visible_median_mm"] < 15
    assert numbers["bones_that_vary"] == {}
    assert list(check_lines(report))[-1].startswith("ok: ")


def test_any_number_of_workers_finds_the_same():
    source = open_source("dexycb", dexycb_tree(), split="train")
    one, two = (check_source(source, workers=workers).to_tree() for workers in (0, 2))
    for name in ("model_px", "model_mm"):  # float32 of a decoder whose sums depend on the process's threads
        numbers = [{k: v for k, v in tree.pop(name).items() if k != "over"} for tree in (one, two)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-4)
    assert one == two


DAMAGES = {
    "color_000000.jpg": ("damaged", lambda path: path.write_bytes(path.read_bytes()[:-200])),
    "aligned_depth_to_color_000000.png": ("damaged", lambda path: path.write_bytes(path.read_bytes()[:500])),
    "labels_000000.npz": ("damaged", lambda path: path.write_bytes(path.read_bytes()[:100])),
}


@pytest.mark.parametrize("file", DAMAGES)
@pytest.mark.parametrize("gone", [True, False])
def test_missing_and_damaged_files_are_named(file, gone, tmp_path):
    root = copy_of(dexycb_tree(), tmp_path)
    source = open_source("dexycb", root, split="train")
    folder = root / source.key(0).rsplit("/", 1)[0]
    if gone:
        (folder / file).unlink()
    else:
        DAMAGES[file][1](folder / file)
    report = check_source(source)
    section = report.numbers["missing" if gone else "damaged"]
    assert list(section) == [source.key(0)]
    assert str(folder / file) in section[source.key(0)]
    assert report.numbers["samples"]["read"] == len(source) - 1
    assert any(str(folder / file) in line for line in check_lines(report))
    assert not report.ok


def test_a_damaged_pickle_is_named(tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    source = open_source("ho3d", root, split="train")
    path = root / layouts.ho3d_file("train", source.key(1).removeprefix("train/"), "meta", ".pkl")
    path.write_bytes(path.read_bytes()[:200])
    assert str(path) in check_source(source).numbers["damaged"][source.key(1)]


def moved_depth(sample, by_m):
    return replace(sample, depth_m=np.where(sample.depth_m > 0, sample.depth_m + np.float32(by_m), 0))


@pytest.mark.parametrize("by_m", [0.1, -0.1])
def test_depth_that_is_shifted_by_10_cm_is_found(by_m):
    report = check(moved_depth(s, by_m) for s in hands())
    assert "5 cm" in found(report)
    assert ("behind" in found(report)) == (by_m > 0)


def test_one_sample_with_wrong_depth_is_named():
    report = check([moved_depth(hands()[0], 0.1), *hands()[1:]])
    assert report.numbers["depth"]["samples_before_depth"] == [hands()[0].key]


def test_a_tree_with_shifted_depth_and_one_with_a_wrong_camera_are_found(tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    for path in root.glob("train/*/depth/*.png"):
        depth = layouts.ho3d_depth_decode(cv2.imread(str(path))[..., ::-1])
        cv2.imwrite(str(path), np.ascontiguousarray(layouts.ho3d_depth_encode(depth + 0.1)[..., ::-1]))
    assert "behind the joints" in found(check_source(open_source("ho3d", root, split="train")))

    root = copy_of(dexycb_tree(), tmp_path)
    for path in root.glob("calibration/intrinsics/*.yml"):
        tree = yaml.safe_load(path.read_text())
        tree["color"]["fx"] *= 1.15
        tree["color"]["fy"] *= 1.15
        path.write_text(yaml.safe_dump(tree))
    report = check_source(open_source("dexycb", root, split="train"))
    assert "check K" in list(check_lines(report))[-1]


def spoiled(array, value):
    out = np.array(array, copy=True)
    out.flat[0] = value
    return out


def params(**changes):
    return replace(hands()[0].params, **changes)


SPOILED = {
    "3D joint": lambda s: {"joints_cam_m": spoiled(s.joints_cam_m, np.nan)},
    "camera matrix": lambda s: {"K_px": spoiled(s.K_px, np.inf)},
    "box is empty": lambda s: {"box_px": s.box_px[[2, 3, 0, 1]]},
    "wholly outside": lambda s: {"box_px": s.box_px + 5000.0},
    "depth is negative": lambda s: {"depth_m": spoiled(s.depth_m, -1.0)},
    "depth is negative, NaN": lambda s: {"depth_m": spoiled(s.depth_m, np.nan)},
    "2D joint": lambda s: {"joints_px": np.full((21, 2), np.nan)},
    "parameters are NaN": lambda s: {"params": params(betas=spoiled(s.params.betas, np.nan))},
    "not a rotation": lambda s: {"params": params(hand_pose=2.0 * s.params.hand_pose)},
    "labelled mesh is NaN": lambda s: {"vertices_cam_m": np.full((3, 3), np.nan)},
    "mesh and joints disagree": lambda s: {"vertices_cam_m": np.ones((1609, 3))},
    "parameters and joints disagree": lambda s: {"params": params(betas=s.params.betas + 0.3)},
    "more than one sample": lambda s: {"key": hands()[1].key},
    "hands measure": lambda s: {"joints_cam_m": s.joints_cam_m * 1000.0},
    "1 of 10 samples: the depth": lambda s: {"joints_cam_m": s.joints_cam_m * 0.8, "params": None},
}


@pytest.mark.parametrize("what", SPOILED)
def test_labels_that_would_spoil_training_are_found(what):
    report = check(first(**SPOILED[what](hands()[0])))
    assert what in found(report)
    last = list(check_lines(report))[-1]
    assert last.startswith("not ok: ")
    assert all(finding.remedy in last for finding in report.findings)
    json.dumps(report.to_tree())


def test_every_hand_in_another_order_is_found():
    reversed_order = [replace(s, joints_cam_m=s.joints_cam_m[::-1].copy(), params=None) for s in hands()]
    other_2d = [replace(s, joints_px=project(s.joints_cam_m[::-1], s.K_px)) for s in hands()]
    assert "2D labels" in found(check(other_2d))
    assert check(reversed_order).numbers["bones_mm"]["thumb_cmc"]["median"] < 30  # a phalanx, where a palm bone belongs


def test_pictures_of_another_size_are_found():
    small = [replace(s, rgb=s.rgb[:240, :320], depth_m=None, box_px=np.array([0.0, 0.0, 50.0, 50.0])) for s in hands()]
    assert "outside their pictures" in found(check(small))


def test_bones_that_grow_within_a_recording_are_noted():
    grown = [replace(s, joints_cam_m=s.joints_cam_m * (1 + 0.02 * i), params=None, depth_m=None, sequence="one",
                     side="right") for i, s in enumerate(hands())]  # fmt: skip
    report = check(grown)
    assert list(report.numbers["bones_that_vary"]) == ["one (right)"]
    assert any("change their length" in note for note in report.notes)
    sides = [replace(grown[0], joints_cam_m=hands()[0].joints_cam_m * by, side=side, key=side)
             for side, by in (("right", 1.0), ("left", 1.3))]  # fmt: skip
    assert list(check(sides).numbers["sides_that_differ"]) == ["one"]


def test_unlabelled_joints_and_missing_cameras_are_no_findings():
    part = spoiled_rows(hands()[0].joints_cam_m)
    conf = np.where(np.isfinite(part[:, 0]), 1.0, 0.0)
    partly = replace(hands()[0], joints_cam_m=part, joints_2d_conf=conf, joints_3d_conf=conf)
    flat = replace(
        hands()[1],
        K_px=None,
        joints_px=project(hands()[1].joints_cam_m, hands()[1].K_px),
        params=replace(hands()[1].params, transl_m=np.full(3, np.nan)),
        depth_m=None,
    )
    report = check([partly, flat, *hands()[2:]])
    assert report.ok, found(report)
    assert report.numbers["samples"]["camera"] == 9
    assert report.numbers["model_mm"]["num"] == 10
    assert report.numbers["model_px"]["num"] == 9


def spoiled_rows(joints):
    out = joints.copy()
    out[[4, 8, 20]] = np.nan
    return out


def test_streams_are_read_in_passing_and_their_faults_named():
    report = check_source(Streamed([*hands(), BadSample("a.tar/7", "a.tar: 7.jpg is cut off")]), workers=2)
    assert report.numbers["samples"]["read"] == 10
    assert report.numbers["damaged"] == {"a.tar/7": "a.tar: 7.jpg is cut off"}


def test_faults_of_a_shard_set_are_findings():
    source = Listed(list(hands()))
    source.verify = lambda: ["set/000.tar: is not the file that was written"]
    report = check_source(source)
    assert not report.ok
    assert any("set/000.tar" in line for line in check_lines(report))


def test_a_source_of_which_nothing_can_be_read_is_reported_not_raised():
    def fail():
        raise InputError("x.jpg: not an image")

    report = check_source(Listed([fail, fail]))
    assert report.numbers["damaged"] == {"item 0": "x.jpg: not an image", "item 1": "x.jpg: not an image"}
    lines = list(check_lines(report))
    assert "    x.jpg: not an image (2 samples)" in lines
    assert len(stats_source(Listed([fail]))["unreadable"]) == 1


def mano_hand(folder, side, betas_ok):
    """A hand labelled with made-up MANO files; a left one with `betas_ok` is the mirrored right hand's."""
    right = HandModel.from_mano(folder / "MANO_RIGHT.pkl", tips="ho3d")
    left = right.mirrored() if betas_ok else HandModel.from_mano(folder / "MANO_LEFT.pkl", side="left", tips="ho3d")
    sample = next(s for s in hands() if s.side == side)
    batch = sample.params.map(lambda array: torch.from_numpy(np.asarray(array, np.float32))[None])
    joints = (right if side == "right" else left).decode(batch).joints_m[0].numpy() + sample.params.transl_m
    return replace(
        sample, joints_cam_m=joints, hand_model="mano", betas_ok=betas_ok, depth_m=None, key=f"{side} {betas_ok}"
    )


def test_mano_labels_are_compared_where_the_files_are_named(tmp_path):
    for seed, side in enumerate(("right", "left")):
        write_mano(tmp_path / f"MANO_{side.upper()}.pkl", random_mano(seed, side=side))
    samples = [mano_hand(tmp_path, *kind) for kind in (("right", True), ("left", True), ("left", False))]
    numbers = check_source(Listed(samples), mano=str(tmp_path)).numbers
    assert numbers["model_px"]["num"] == 3
    assert numbers["model_px"]["max"] < 0.01

    report = check(samples)
    assert "model_px" not in report.numbers
    assert any("--mano" in note for note in report.notes)

    swapped = replace(samples[1], betas_ok=False)
    assert "parameters and joints disagree" in found(check_source(Listed([swapped]), mano=str(tmp_path)))


# -------------------------------------------------------------------------------------------------------------- preview


def tiles(sheet, num_kinds):
    """(kinds, T, T, 3) of the first sample, below legend, gap and caption."""
    top = sheet.shape[0] - (TILE + 6)
    row = sheet[top : top + TILE, 6 : 6 + num_kinds * TILE]
    return row.reshape(TILE, num_kinds, TILE, 3).swapaxes(0, 1)


def test_a_preview_draws_joints_mesh_and_depth_where_they_are():
    sample = next(s for s in hands() if s.side == "left")
    joints, mesh, depth = tiles(preview_sheet(Listed([sample]), tile_px=TILE), 3).astype(int)
    A = crop_affine(sample.box_px, TILE, expand=_EXPAND)
    points = np.rint(apply_affine(A, project(sample.joints_cam_m, sample.K_px))).astype(int)
    for finger, tip in zip(FINGERS, TIPS, strict=True):
        x, y = points[tip]
        window = joints[y - 2 : y + 3, x - 2 : x + 3]
        assert np.abs(window - np.array(FINGER_COLORS[finger])).sum(-1).min() < 60, finger
    x, y = np.rint(apply_affine(A, project(sample.joints_cam_m[[0, 5, 17]].mean(0, keepdims=True), sample.K_px)))[0]
    assert np.abs(mesh[int(y), int(x)] - joints[int(y), int(x)]).sum() > 10  # the palm is covered by the mesh
    assert np.ptp(depth.reshape(-1, 3), axis=0).max() > 100


def test_kinds_of_tiles_that_no_sample_has_are_left_out():
    bare = replace(hands()[0], depth_m=None, params=None)
    sizes = [
        preview_sheet(Listed([s]), tile_px=TILE).shape[1] for s in (bare, replace(bare, depth_m=hands()[0].depth_m))
    ]
    assert sizes == [TILE + 12, 2 * TILE + 12]


def test_a_mesh_without_camera_or_translation_lies_over_its_2d_labels():
    sample = hands()[0]
    points = project(sample.joints_cam_m, sample.K_px)
    K, transl = fitted_camera(sample.joints_cam_m - sample.joints_cam_m[0], points, np.ones(21))
    again = project(sample.joints_cam_m - sample.joints_cam_m[0] + transl, K)
    assert np.median(np.linalg.norm(again - points, axis=1)) < 0.1 * np.ptp(points, axis=0).max()
    flat = replace(sample, K_px=None, joints_px=points, depth_m=None)
    flat = replace(flat, params=replace(flat.params, transl_m=np.full(3, np.nan)))
    assert preview_sheet(Streamed([BadSample("a", "b"), flat]), tile_px=TILE).shape[1] == 2 * TILE + 12


def test_whole_pictures_keep_their_shape_and_odd_labels_do_not_stop_a_preview():
    odd = replace(hands()[0], box_px=np.full(4, np.nan), joints_cam_m=np.full((21, 3), np.nan), params=None)
    for whole in (True, False):
        sheet = preview_sheet(Listed([odd, hands()[1]]), tile_px=TILE, whole=whole)
        assert sheet.dtype == np.uint8
    height = preview_sheet(Listed([hands()[0]]), tile_px=TILE, whole=True).shape[0]
    assert preview_sheet(Listed([hands()[0]]), tile_px=TILE).shape[0] - height == TILE // 4  # 640x480


def test_joints_without_confidence_are_hollow_and_have_no_bones():
    points = np.tile([[10.0, 10.0]], (21, 1))
    points[8], points[7] = [40.0, 40.0], [40.0, 60.0]
    conf = np.ones(21)
    conf[8] = 0
    drawn = draw_joints(np.zeros((80, 80, 3), np.uint8), points, conf, thickness=3)
    assert not drawn[40, 40].any()  # hollow
    assert drawn[36:45, 36:45].any()
    assert not drawn[50, 40].any()  # no bone to it


def test_long_keys_lose_their_beginning():
    assert elide("short", 200) == "short"
    shown = elide("a-very-long-folder/" * 5 + "000017", 120)
    assert shown.startswith("..")
    assert shown.endswith("000017")


# ---------------------------------------------------------------------------------------------------------------- stats


def test_stats_count_what_is_there():
    stats = stats_source(Listed(list(hands())))
    left = sum(s.side == "left" for s in hands())
    assert stats["sides"] == {"right": 10 - left, "left": left}
    assert stats["sequences"]["num"] == len({s.sequence for s in hands()})
    assert sum(stats["sequences"]["sizes"].values()) == 10
    z = sorted(s.joints_cam_m[0, 2] for s in hands())
    assert stats["distance_m"]["min"] == pytest.approx(z[0])
    assert stats["distance_m"]["max"] == pytest.approx(z[-1])
    assert sum(stats["views"].values()) == 10
    assert len(stats["bend_deg"]) == len(stats["rotation_deg"]) == 15
    assert all(0 < value < 1 for value in stats["rgb"]["mean"] + stats["rgb"]["std"])
    json.dumps(stats)
    assert sum(line.startswith("bend") for line in stats_lines(stats)) == 15


def test_colours_are_those_of_the_crop():
    rgb = np.zeros_like(hands()[0].rgb)
    rgb[:] = (255, 51, 0)
    stats = stats_source(Listed([replace(hands()[0], rgb=rgb)]))
    assert stats["rgb"]["mean"] == pytest.approx([1.0, 0.2, 0.0])
    assert stats["rgb"]["std"] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


def palm_to_camera():
    """A right hand held up, its palm to the camera: the thumb on the picture's right, fingers bent towards us."""
    sample = hands()[0]
    joints = np.zeros((21, 3))
    for finger in range(5):
        x = 0.04 - 0.02 * finger
        for joint in range(4):
            joints[1 + 4 * finger + joint] = [x, -0.05 - 0.02 * joint, -0.01 * joint]
    return replace(sample, joints_cam_m=joints + [0, 0, 0.6], params=None, side="right")


def test_views_know_the_palm_from_the_back_left_and_right():
    palm = palm_to_camera()
    away = palm.joints_cam_m * [-1, 1, -1] + [0, 0, 1.2]  # turned half round about the vertical
    back = replace(palm, joints_cam_m=away)
    for sample, bin_ in ((palm, "palm"), (mirror(palm), "palm"), (back, "back"), (mirror(back), "back")):
        assert stats_source(Listed([sample]))["views"][bin_] == 1


def test_the_palm_is_where_the_fingers_bend_to():
    """Ties `palm_to_camera` to real hands: their fingertips lie on the palm's side of the knuckles."""
    for sample in hands():
        joints = sample.joints_cam_m
        normal = np.cross(joints[5] - joints[0], joints[17] - joints[0]) * (-1 if sample.side == "left" else 1)
        bent = [(joints[tip] - joints[tip - 3]) @ normal / np.linalg.norm(normal) for tip in TIPS[1:]]
        assert max(bent) > 0


def test_what_a_source_does_not_have_is_left_out():
    flat = replace(
        hands()[0], K_px=None, joints_px=np.ones((21, 2)), joints_cam_m=np.full((21, 3), np.nan), depth_m=None,
        joints_3d_conf=np.zeros(21), params=None,
    )  # fmt: skip
    stats = stats_source(Listed([flat]))
    assert not {"views", "distance_m", "depth_m"} & stats.keys()
    assert stats["bend_deg"] == stats["rotation_deg"] == {}
    assert list(stats_lines(stats))


# ------------------------------------------------------------------------------------------------------------- commands


def test_check_prints_writes_and_exits(tmp_path, capsys):
    choice = SourceChoice("ho3d", str(ho3d_tree()), split="train", limit=3)
    commands.check(choice, json=tmp_path / "check.json")
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("ok: 3 samples")
    assert json.loads((tmp_path / "check.json").read_text())["samples"]["read"] == 3

    root = copy_of(ho3d_tree(), tmp_path)
    next(root.glob("train/*/rgb/*")).unlink()
    with pytest.raises(SystemExit) as exit_:
        commands.check(SourceChoice("ho3d", str(root), split="train"))
    assert exit_.value.code == 1
    assert "no such file" in capsys.readouterr().out


def test_preview_and_stats_write(tmp_path):
    choice = SourceChoice("dexycb", str(dexycb_tree()), limit=4)
    commands.preview(choice, tmp_path / "sheet.png", num=2, tile=TILE)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 2 * (3 * TILE + 6) + 6
    commands.stats(choice, json=tmp_path / "stats.json")
    assert json.loads((tmp_path / "stats.json").read_text())["samples"] == 4


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: commands.check(SourceChoice("dexycb", "/no/such/folder")), "/no/such/folder"),
        (lambda: commands.check(SourceChoice("ho3d", "x", setup="s1")), "--setup"),
        (lambda: commands.check(SourceChoice("dexycb", "x"), workers=0), "--workers"),
        (lambda: commands.check(SourceChoice("dexycb", "x"), json=Path("/no/such/folder/x.json")), "cannot be written"),
        (lambda: commands.preview(SourceChoice("synth", limit=2), out=Path("x.txt")), ".png"),
        (lambda: commands.preview(SourceChoice("synth", limit=2), num=0), "--num"),
        (lambda: commands.check(SourceChoice("ho3d", str(ho3d_tree()), mano="/no/mano")), "/no/mano"),
    ],
)
def test_bad_requests_say_what_is_wrong(run, message):
    with pytest.raises(InputError, match=message):
        run()


def test_the_command_line_reads_the_choice_without_loading_anything_heavy():
    code = (
        "import sys, tyro, utnet.cli.data_commands as c;"
        "assert not {'torch', 'cv2', 'numba'} & sys.modules.keys();"
        "c.check.__globals__['SourceChoice'].open = lambda self, *extras: sys.exit("
        "7 if (self.source, self.root, self.setup, self.sides, self.limit) == ('dexycb', 'x', 's3', 'left', 5) else 8);"
        "names = ('check', 'preview', 'stats', 'shard');"
        "tyro.extras.subcommand_cli_from_dict({name: getattr(c, name) for name in names},"
        "args=['check', 'dexycb', '--root', 'x', '--setup', 's3', '--sides', 'left', '--limit', '5'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 7, run.stderr


def test_check_lists_every_line_that_is_no_hand(tmp_path, capsys):
    (tmp_path / "hands.jsonl").write_text('{"image": "a.png", "side": "right"}\nno\n{"image": "a.png"}\n')
    with pytest.raises(SystemExit) as exit_:
        commands.check(SourceChoice("custom", str(tmp_path)), json=tmp_path / "out.json")
    assert exit_.value.code == 1
    said = capsys.readouterr().out
    assert all(text in said for text in ("line 2: not JSON", "line 3: 'side' is missing", "not ok: 2 lines"))
    assert len(json.loads((tmp_path / "out.json").read_text())["bad_lines"]) == 2


def test_what_cannot_be_read_is_named_by_stats_and_preview():
    def fail():
        raise InputError("x.jpg: not an image")

    source = Listed([hands()[0], fail])
    lines = list(stats_lines(stats_source(source)))
    assert "    x.jpg: not an image" in lines
    assert sum(line.startswith("bend") for line in lines) == 15
    assert not any(line.startswith("rotation") for line in lines)
    samples, bad = read_samples(source, 2)
    assert (len(samples), bad) == (1, {"item 1": "x.jpg: not an image"})
    with pytest.raises(InputError, match=r"none of the samples tried can be read, the first: x\.jpg"):
        read_samples(Listed([fail]), 3)


def test_depth_in_millimetres_is_a_finding():
    sample = hands()[0]
    blind = replace(sample, depth_m=sample.depth_m * 1000, joints_3d_conf=np.zeros(21, np.float32))
    assert any("its unit is not metres" in finding.what for finding in check_source(Listed([blind])).findings)


def test_synthetic_hands_can_be_looked_at(capsys):
    commands.check(SourceChoice("synth", limit=4))
    assert "ok: 4 samples" in capsys.readouterr().out


def test_synthetic_hands_are_those_that_the_run_is_validated_on(tmp_path):
    path, changes = tmp_path / "run.yaml", ("synth.factors.jpeg=0.0", "seed=3")
    path.write_text("synth: {appearance: full}\nmodel: {size_px: 96}\n")
    shown = SourceChoice("synth", limit=2, config=path, set=changes).open()
    config = override(Config.load(path), [*changes, "val.limit=2"])
    validated = open_validation(config)
    assert len(shown) == len(validated) == 2
    for i in range(2):
        assert shown[i].rgb.shape == (96, 96, 3)
        assert np.array_equal(shown[i].rgb, validated[i].rgb)
        assert shown[i].key == validated[i].key
    commands.shard(SourceChoice("synth", limit=2, config=path, set=changes), out=tmp_path / "set")
    assert [open_source("shards", tmp_path / "set").key(i) for i in range(2)] == [shown.key(i) for i in range(2)]
    plain = SourceChoice("synth", limit=2, config=path, set=("synth.appearance=plain",)).open()
    assert not np.array_equal(plain[0].rgb, SourceChoice("synth", limit=2, config=path).open()[0].rgb)
    with pytest.raises(InputError, match="leave them out for dexycb"):
        SourceChoice("dexycb", str(dexycb_tree()), set=changes).open()
