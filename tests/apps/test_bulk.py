"""`utnet bulk` without a cluster: units, restarts, sources, processes. tests/cluster has Ray and S3."""

import json
import tarfile
from functools import partial

import av
import numpy as np
import pandas
import pytest

from support.bulk_work import always_dies, bulk, contents, dies_once, in_turn, tar_of
from support.label_clips import pictures, read
from support.predict_command import FakeDetector, FakeTracker, hand_at, picture, predict, video
from utnet.apps.bulk.chunks import cut_videos
from utnet.apps.bulk.engine import lost, run_here
from utnet.apps.bulk.job import run_on_items
from utnet.apps.bulk.labelling import Label, common_folder
from utnet.apps.bulk.predicting import predictor
from utnet.apps.bulk.sharding import Shard, shard_in_bulk
from utnet.apps.bulk.sources import Item, find_items
from utnet.apps.bulk.units import Unit, units_of
from utnet.apps.label.dataset import label_pictures
from utnet.cli.main import main
from utnet.data import open_source
from utnet.data.shards.shard_format import encode_sample
from utnet.data.shards.shards_reader import Shards
from utnet.data.shards.write_shards import ShardOptions, write_shards
from utnet.detect.landmark import Landmarks
from utnet.errors import InputError
from utnet.io.videos import VideoWriter
from utnet.predict.formats.table import read_table
from utnet.predict.inputs import find_inputs
from utnet.synth import SyntheticHands

pytestmark = pytest.mark.usefixtures("nothing_ships")


@pytest.fixture
def detector(monkeypatch):
    """The networks' place taken by stand-ins, in this process."""
    FakeDetector.calls, FakeDetector.at_call = 0, None
    monkeypatch.setattr("utnet.predict.predictor.HandDetector", FakeDetector)
    monkeypatch.setattr("utnet.predict.live.LandmarkTracker", FakeTracker)
    predictor.cache_clear()
    yield FakeDetector
    predictor.cache_clear()


@pytest.fixture
def source(tmp_path):
    """Three pictures, one of them damaged and one in a subfolder, a tar of two, and a video."""
    root = tmp_path / "source"
    (root / "deep").mkdir(parents=True)
    picture(root / "a.png")
    picture(root / "deep" / "b.png")
    (root / "c.jpg").write_text("no picture")
    member = picture(tmp_path / "member.png").read_bytes()
    tar_of(root / "t.tar", {"y.png": member, "x/x.png": member, "x/x.json": b"{}"})
    video(root / "v.mp4", frames=3)
    return root


def table_of(place):
    return pandas.read_parquet(place / "hands")


def test_results_are_those_of_predict_with_their_sources(detector, source, tmp_path):
    summary = bulk([source], tmp_path / "place", overlay=True, npz=True)
    assert (summary.units, summary.problems) == (4, 1)
    assert summary.counts == {"pictures": 4, "frames": 3, "hands": 7}
    table = table_of(tmp_path / "place")
    root = str(source)
    pictures = [f"{root}/a.png", f"{root}/deep/b.png"]
    members = [f"{root}/t.tar::x/x.png", f"{root}/t.tar::y.png"]
    assert table["file"].tolist() == [f"{root}/v.mp4"] * 3 + members + pictures
    assert table["member"].tolist()[3:5] == ["x/x.png", "y.png"]
    assert set(table["source"]) == {f"{root}/t.tar", f"{root}/v.mp4", *pictures}
    assert table["unit"].is_monotonic_increasing
    given = [source / "a.png", source / "v.mp4"]
    assert predict(*given, "--out", tmp_path / "out", "--also", "table", "--no-overlay", "--mesh", "none") == 0
    alone = pandas.read_parquet(tmp_path / "out" / "hands.parquet")
    same = table[table["file"].isin(map(str, given))].sort_values(["file", "frame"])
    for name in set(alone.columns) - {"unit"}:
        assert [str(value) for value in same[name]] == [str(value) for value in alone[name]], name
    problems = pandas.read_parquet(tmp_path / "place" / "problems.parquet")
    assert problems["file"].tolist() == [f"{root}/c.jpg"]
    assert "utnet-bulk" not in problems["why"][0]


def test_a_job_that_ends_early_goes_on_to_the_same_bytes(detector, source, tmp_path):
    bulk([source], tmp_path / "whole")

    def stops(work, units):
        yield work(units[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bulk([source], tmp_path / "place", stops)
    # A unit without its record is not finished, whatever else of it is there.
    (tmp_path / "place" / "hands" / "part-000001.parquet").write_text("half")
    begun = []

    def noted(work, units):
        begun.extend(unit.name for unit in units)
        return in_turn(work, units)

    assert bulk([source], tmp_path / "place", noted).earlier == 1
    assert begun == ["part-000001", "part-000002", "part-000003"]
    assert contents(tmp_path / "place") == contents(tmp_path / "whole")
    calls = detector.calls
    assert bulk([source], tmp_path / "place").earlier == 4
    assert detector.calls == calls


class TwoHands:
    """A detector for videos whose left and right halves are as bright as its two hands are far to the right; there is
    no hand where a half is black."""

    def find(self, image_rgb, *, quick=False, known=()):
        means = (float(image_rgb[:, half].mean()) for half in (slice(None, 80), slice(80, None)))
        places = [x_m + (mean - 128) / 2000 for x_m, mean in zip((-0.12, 0.12), means, strict=True) if mean > 40]
        hands = [Landmarks(hand.joints_px, hand.joints_m, 0.9, 1.0) for hand in (hand_at(x_m=x_m) for x_m in places)]
        return [h for h in hands if all(np.abs(h.joints_px - other.joints_px).mean() >= 20 for other in known)]

    def follow(self, image_rgb, joints_px):
        near = [hand for hand in self.find(image_rgb) if np.abs(hand.joints_px - joints_px).mean() < 20]
        return near[0] if near else None


def two_hands(path, fps=10.0, seconds=9):
    """Both hands move. The right one is lost for a frame at 4 seconds, the left one from 5 to 6, then another's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps) as writer:
        for i in range(int(seconds * fps)):
            pixels = np.full((120, 160, 3), 0 if 50 <= i < 60 else 128 + 30 * np.sin(0.1 * i), np.uint8)
            pixels[:, 80:] = 0 if i == 40 else 128 - 30 * np.sin(0.13 * i)
            writer.write(pixels, i / fps)
    return path


@pytest.fixture
def moving(monkeypatch, tmp_path):
    monkeypatch.setattr("utnet.predict.predictor.HandDetector", TwoHands)
    predictor.cache_clear()
    yield two_hands(tmp_path / "in" / "v.mp4")
    predictor.cache_clear()


def test_chunks_of_a_video_keep_its_tracks(moving, tmp_path):
    bulk([moving], tmp_path / "whole", chunk_s=0.0)
    summary = bulk([moving], tmp_path / "cut", chunk_s=4.0)
    assert (summary.units, summary.problems) == (3, 0)
    assert contents(tmp_path / "cut").keys() - contents(tmp_path / "whole").keys() == {
        "units/part-000000-0000.json",
        "units/part-000000-0001.json",
    }
    whole, cut = (read_table(tmp_path / place / "hands" / "part-000000.parquet") for place in ("whole", "cut"))
    assert summary.counts == {"pictures": 0, "frames": 90, "hands": len(cut["track"])}
    assert set(whole["track"]) == set(cut["track"]) == {1, 2, 3}
    # A hand that comes is found when the detector runs, every ten frames; these are not the same ones in a chunk.
    whole, cut = (
        {name: rows[~np.isin(table["frame"], range(60, 75))] for name, rows in table.items()} for table in (whole, cut)
    )
    for name in ("file", "frame", "time_s", "track", "hand", "side", "valid", "unit"):
        assert np.array_equal(cut[name], whole[name]), name
    first = whole["frame"] < 40
    for name, limit in (("joints_cam_m", 2e-3), ("joints_px", 0.25)):
        assert np.array_equal(cut[name][first], whole[name][first])
        np.testing.assert_allclose(cut[name], whole[name], atol=limit)


def test_a_length_that_a_small_file_states_is_not_believed(tmp_path):
    """Two frames that are eleven days apart would be 8,000 chunks."""
    path = tmp_path / "long.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("mjpeg", rate=1, width=16, height=16, pix_fmt="yuvj420p")
        for time_s in (0, 1_000_000):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
            frame.pts = time_s
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(path) as container:
        assert container.duration > 9e5 * av.time_base
    (unit,) = units_of(find_items([str(path)]), 64)
    assert cut_videos([unit], 120.0) == [unit]


def test_chunks_that_are_left_are_done_and_joined(moving, tmp_path):
    bulk([moving], tmp_path / "undisturbed", chunk_s=4.0)

    def stops(work, units):
        yield work(units[1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bulk([moving], tmp_path / "place", stops, chunk_s=4.0)

    def loses(work, units):
        yield from (lost(unit) if unit.name.endswith("-0000") else work(unit) for unit in units)

    assert bulk([moving], tmp_path / "place", loses, chunk_s=4.0).problems == 1
    assert len(read_table(tmp_path / "place" / "hands" / "part-000000.parquet")["track"]) > 0
    (tmp_path / "place" / "units" / "part-000000-0000.json").unlink()
    assert bulk([moving], tmp_path / "place", chunk_s=4.0).earlier == 1
    assert contents(tmp_path / "place") == contents(tmp_path / "undisturbed")


def test_a_place_is_one_job_s(detector, source, tmp_path):
    bulk([source / "a.png"], tmp_path / "place")
    for words, options, what in (([source], {}, "source"), ([source / "a.png"], {"raw": True}, "options")):
        with pytest.raises(InputError, match=what):
            bulk(words, tmp_path / "place", **options)
    with pytest.raises(InputError, match="not of a bulk job"):
        bulk([source / "a.png"], source / "deep")
    with pytest.raises(InputError, match=r"contains the input"):
        bulk([source], tmp_path)
    (tmp_path / "place" / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="damaged"):
        bulk([source], tmp_path / "place")


def test_missing_and_damaged_inputs_are_problems(detector, tmp_path):
    whole = tar_of(tmp_path / "t.tar", {f"{i}.png": picture(tmp_path / "p.png").read_bytes() for i in range(3)})
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:1024])
    (tmp_path / "list.txt").write_text(f"gone.png\n{whole}\ncut.tar\n\nempty.tar\n")
    tar_of(tmp_path / "empty.tar", {"readme": b"nothing"})
    summary = bulk([tmp_path / "list.txt"], tmp_path / "place")
    problems = pandas.read_parquet(tmp_path / "place" / "problems.parquet")
    assert set(problems["file"]) >= {str(tmp_path / name) for name in ("gone.png", "cut.tar", "empty.tar")}
    assert summary.counts["pictures"] == 4  # also the one before the damage
    assert table_of(tmp_path / "place").shape[0] == 4


def test_lists_name_files_by_a_column(tmp_path):
    names = ["b.png", "a.png", "s3://bucket/c.png"]
    found = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "s3://bucket/c.png"]
    (tmp_path / "l.txt").write_text("\n".join(names))
    pandas.DataFrame({"id": [1, 2, 3], "path": names}).to_csv(tmp_path / "l.csv", index=False)
    pandas.DataFrame({"file": names, "id": [1, 2, 3]}).to_parquet(tmp_path / "l.parquet")
    for name, column in (("l.txt", None), ("l.csv", "path"), ("l.parquet", None)):
        assert [item.url for item in find_items([str(tmp_path / name)], column=column)] == found, name
    for name, column in (("l.csv", "nothing"), ("l.parquet", "nothing"), ("gone.csv", None)):
        with pytest.raises(InputError, match=r"column|no such list"):
            find_items([str(tmp_path / name)], column=column)
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="list"):
        find_items([str(tmp_path / "bad.parquet")])


def test_a_source_that_matches_nothing_is_an_error(tmp_path):
    for word in (tmp_path, tmp_path / "gone", tmp_path / "*.jpg", "none://place"):
        with pytest.raises(InputError, match=str(word).replace("*", r"\*")):
            find_items([str(word)])


def test_units_depend_on_the_source_alone():
    items = [Item("picture", f"p{i}") for i in range(5)] + [Item("long", "v.mp4"), Item("tar", "t.tar")]
    units = units_of(sorted(items), 2)
    assert units == units_of(sorted(reversed(items)), 2)
    assert [unit.name for unit in units] == [f"part-{i:06d}" for i in range(5)]
    assert sorted(url for unit in units for url in unit.urls) == sorted(item.url for item in items)
    assert units[0].urls == ("v.mp4",)
    assert units[4].urls == ("p4",)


def test_a_killed_worker_is_replaced(monkeypatch, tmp_path):
    monkeypatch.setattr("utnet.apps.bulk.engine.RETRIES", 1)
    units = [Unit(f"part-{i:06d}", ()) for i in range(5)]
    records = list(run_here(partial(dies_once, tmp_path), units, 2))
    assert sorted(record["unit"] for record in records) == [unit.name for unit in units]
    assert {record["threads"] for record in records} == {"1"}


def test_a_unit_that_kills_its_workers_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr("utnet.apps.bulk.engine.RETRIES", 1)

    def engine(work, units):
        yield from run_here(always_dies, units, 1)

    summary = bulk([picture(tmp_path / "in" / "a.png")], tmp_path / "place", engine)
    assert (summary.units, summary.problems) == (1, 1)
    problems = pandas.read_parquet(tmp_path / "place" / "problems.parquet")
    assert problems["file"].tolist() == [str(tmp_path / "in" / "a.png")]
    assert "units/part-000000.json" in problems["why"][0]
    assert bulk([tmp_path / "in"], tmp_path / "place").earlier == 1


def test_processes_give_the_bytes_of_one(tmp_path):
    predictor.cache_clear()
    source = pictures(tmp_path / "source", "a.jpg", "b left.jpg", "c.jpg")
    assert bulk([source], tmp_path / "here").counts["hands"] >= 2
    bulk([source], tmp_path / "two", partial(run_here, workers=2))
    assert contents(tmp_path / "two") == contents(tmp_path / "here")
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["units"] == 2
    assert read_table(tmp_path / "two" / "hands" / "part-000000.parquet")["unit"][0] == "part-000000"


def test_labels_are_those_of_label_in_tars(drawn, tmp_path):
    """The same crops with the same labels, in tars by split that training reads."""
    predictor.cache_clear()
    for person in ("anna", "ben", "cem"):
        pictures(tmp_path / "in" / person, "a.jpg", "b left.jpg")
    tar_of(tmp_path / "in" / "t.tar", {"d/c.jpg": (tmp_path / "in" / "ben" / "a.jpg").read_bytes()})
    inputs = find_inputs([f"{tmp_path}/in/*/*.jpg"])
    label_pictures(inputs, tmp_path / "alone", val_share=0.4)
    items = find_items([str(tmp_path / "in")])
    assert common_folder(items) == str(tmp_path / "in").rpartition("/")[0]
    summary = run_on_items(items, str(tmp_path / "place"), Label(common_folder(items), None, 0.4), in_turn)
    assert summary.counts["kept_train"] + summary.counts["kept_val"] == summary.counts["hands"] == 7
    samples = [sample for split in ("train", "val") for sample in streamed(tmp_path / "place" / "labels" / split)]
    assert {sample.sequence for sample in samples} == {"in/anna", "in/ben", "in/cem", "in/t.tar/d"}
    wanted = {line["image"].split("_")[-2]: line for line in read(tmp_path / "alone")}
    wanted["c"] = wanted["a"]
    for sample in samples:
        line = wanted[sample.key.split("_")[-2]]
        np.testing.assert_allclose(sample.joints_cam_m, line["joints_3d"], atol=1e-6)
        assert sample.side == line["side"]
    crops = {(tmp_path / "alone" / line["image"]).read_bytes() for line in read(tmp_path / "alone")}
    assert {data for name, data in members(tmp_path / "place" / "labels").items() if name.endswith("jpg")} == crops


def streamed(folder):
    if not folder.exists():
        return []
    return list(open_source("tars", str(folder)).stream(seed=0, epoch=0, part=0, num_parts=1))


def members(folder):
    found = {}
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            found.update((f"{path.parent.name}/{member.name}", tar.extractfile(member).read()) for member in tar)
    return found


def test_shards_are_those_of_data_shard(tmp_path):
    """In one unit to the byte; in several the same samples, in a set that is read by index."""
    source = SyntheticHands(seed=0, size_px=64, num=5, jitter=False)
    write_shards(source, tmp_path / "alone", progress=False)
    alone = Shards(tmp_path / "alone")
    for samples in (5, 2):
        place = tmp_path / f"place_{samples}"
        summary = shard_in_bulk(Shard(lambda: source, "hands", ShardOptions()), str(place), in_turn, samples=samples)
        assert summary.counts == {"samples": 5}
        found = Shards(place)
        assert [found.key(i) for i in range(5)] == [alone.key(i) for i in range(5)]
        for i in range(5):
            a, b = (encode_sample(s[i], tips="", jpeg_quality=95, depth_unit_m=0.001) for s in (found, alone))
            assert a == b
    assert contents(tmp_path / "place_5")["part-000000.tar"] == contents(tmp_path / "alone")["shard-000000.tar"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--unit", "0"], "unit"),
        (["--workers", "2", "--ray", "auto"], "workers"),
        (["--ray", "127.0.0.1:1"], "cluster"),
        (["--ray", "nowhere"], "cluster"),
        (["--weights", "gone.onnx"], "weights"),
    ],
)
def test_bad_options_are_one_line(options, word, source, tmp_path, capsys):
    if word == "cluster":
        pytest.importorskip("ray")
    with pytest.raises(SystemExit) as stopped:
        main(["bulk", "predict", str(source), "--out", str(tmp_path / "place"), *options])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert word in line
