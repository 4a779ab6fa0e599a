"""`utnet bulk` on a Ray of two nodes and an S3 server: equal results, whatever fails meanwhile."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import fsspec
import numpy as np
import pytest

from support.bulk_work import NODE, always_dies, bulk, tar_of, work_of
from support.label_clips import pictures, seen
from support.predict_command import video
from utnet.apps.bulk.engine import run_here, run_on_ray
from utnet.apps.bulk.predicting import predictor
from utnet.apps.bulk.sources import find_items
from utnet.apps.bulk.units import Unit
from utnet.cli.main import main
from utnet.io.videos import VideoWriter


@pytest.fixture(scope="module")
def sources(s3, tmp_path_factory):
    """12 pictures of which one is damaged, a tar of two and a video, in a bucket."""
    root = tmp_path_factory.mktemp("sources")
    pictures(root / "p", *(f"{i:02d}{' left' if i % 3 else ''}.jpg" for i in range(11)))
    (root / "p" / "bad.jpg").write_text("no picture")
    tar_of(root / "t.tar", {f"{i}.jpg": (root / "p" / "00.jpg").read_bytes() for i in range(2)})
    video(root / "v.mp4", frames=5)
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    fs.mkdir("sources")
    fs.put(str(root), "sources/root", recursive=True)
    return "s3://sources/root"


@pytest.fixture(scope="module")
def undisturbed(sources, tmp_path_factory):
    """Every file of the result of one process on this machine."""
    predictor.cache_clear()
    place = tmp_path_factory.mktemp("undisturbed") / "place"
    summary = bulk([sources], place, overlay=True)
    assert (summary.units, summary.problems, summary.counts["hands"]) == (8, 1, 13)
    return in_place(f"file://{place}")


def in_place(url):
    fs, path = fsspec.core.url_to_fs(url, **({} if url.startswith("file") else {"use_listings_cache": False}))
    return {name.removeprefix(path).lstrip("/"): fs.cat_file(name) for name in fs.find(path)}


def test_ray_and_object_storage_give_the_bytes_of_one_process(sources, undisturbed, nodes, bucket):
    summary = bulk([sources], bucket + "/place", partial(run_on_ray, address=nodes.address), overlay=True)
    assert summary.earlier == 0
    assert in_place(bucket + "/place") == undisturbed


def test_chunks_of_a_video(nodes, bucket, tmp_path):
    predictor.cache_clear()
    (tmp_path / "in").mkdir()
    with VideoWriter(tmp_path / "in" / "v.mp4", 2.0) as writer:
        for i in range(19):
            writer.write(np.roll(seen()[0], 2 * i, 1), i / 2)
    fsspec.filesystem("s3").put(str(tmp_path / "in"), f"{bucket}/in", recursive=True)
    source = f"{bucket}/in/v.mp4"
    summary = bulk([source], bucket + "/place", partial(run_on_ray, address=nodes.address), chunk_s=4.0)
    assert (summary.units, summary.counts["frames"]) == (3, 19)
    assert summary.counts["hands"] > 10
    bulk([source], tmp_path / "place", chunk_s=4.0)
    assert in_place(bucket + "/place") == in_place(f"file://{tmp_path}/place")


def test_a_killed_worker(sources, undisturbed, nodes, bucket, s3, tmp_path):
    def engine(work, units):
        return run_on_ray(partial(work_of, tmp_path, "part-000003", work), units, nodes.address)

    bulk([sources], bucket + "/place", engine, overlay=True)
    assert (tmp_path / "part-000003").exists()
    assert in_place(bucket + "/place") == undisturbed
    records = [path for path in s3.writes if bucket[5:] in path and "/units/" in path]
    assert [s3.writes[path] for path in records] == [1] * 8


def test_a_unit_that_kills_its_workers(nodes, monkeypatch):
    monkeypatch.setattr("utnet.apps.bulk.engine.RETRIES", 1)
    units = [Unit("part-000000", ("a.jpg", "b.jpg"))]
    (record,) = run_on_ray(always_dies, units, nodes.address)
    assert record["lost"]
    assert [problem["file"] for problem in record["problems"]] == ["a.jpg", "b.jpg"]


def test_a_killed_process_of_this_machine(sources, undisturbed, bucket, tmp_path):
    def engine(work, units):
        return run_here(partial(work_of, tmp_path, "part-000003", work), units, 2)

    bulk([sources], bucket + "/place", engine, overlay=True)
    assert in_place(bucket + "/place") == undisturbed


def test_a_node_is_removed(sources, undisturbed, nodes, bucket):
    def engine(work, units):
        records = run_on_ray(work, units, nodes.address)
        yield next(records)
        lost = nodes.list_all_nodes()[-1]
        nodes.remove_node(lost, allow_graceful=False)
        yield from records

    try:
        bulk([sources], bucket + "/place", engine, overlay=True)
    finally:
        nodes.add_node(**NODE)
    assert in_place(bucket + "/place") == undisturbed


def test_the_driver_is_killed_and_started_again(sources, undisturbed, nodes, bucket):
    place, fs = f"{bucket}/place", fsspec.filesystem("s3", use_listings_cache=False)
    words = ["bulk", "predict", sources, "--out", place, "--unit", "2", "--method", "fit", "--overlay"]
    command = [sys.executable, "-m", "utnet", *words, "--ray", nodes.address]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    end = time.monotonic() + 300
    while not fs.exists(f"{place}/units") and time.monotonic() < end and driver.poll() is None:
        time.sleep(0.2)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    done = fs.ls(f"{place}/units")
    assert 0 < len(done) < 8, driver.stderr.read()
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 1, again.stderr  # of the damaged picture
    assert "were finished before" in again.stdout
    assert in_place(place) == undisturbed


def test_storage_that_fails_now_and_then(sources, undisturbed, nodes, bucket, s3):
    """One object is refused more often than the client itself tries."""

    def failures(method, path, before):
        return before < 7 if "hands/part-000001" in path else before == 0 and len(path) % 3 == 0

    with s3.failing(failures):
        bulk([sources], bucket + "/place", partial(run_on_ray, address=nodes.address), overlay=True)
        assert s3.failed > 7
    assert in_place(bucket + "/place") == undisturbed


@pytest.mark.parametrize("command", ["label", "shard"])
def test_labels_and_shards(command, sources, nodes, bucket, tmp_path):
    """The command line gives the same on Ray in object storage as on this machine in a folder."""
    words = {
        "label": ["label", sources, "--val-share", "0.4", "--unit", "2"],
        "shard": ["shard", "synth", "--limit", "5", "--unit", "2"],
    }[command]
    codes = []
    here, there = ["--out", str(tmp_path / "place"), "--workers", "1"], ["--out", f"{bucket}/p", "--ray", nodes.address]
    for place in (here, there):
        try:
            main(["bulk", *words, *place])
            codes.append(0)
        except SystemExit as stopped:
            codes.append(stopped.code)
    assert codes == ([1, 1] if command == "label" else [0, 0])
    assert in_place(f"{bucket}/p") == in_place(f"file://{tmp_path}/place")
    assert any(name.endswith(".tar") for name in in_place(f"{bucket}/p"))


def fails(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(["bulk", "predict", *map(str, words), "--method", "fit"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_bad_input_is_one_line(sources, bucket, s3, monkeypatch, capsys, tmp_path):
    assert "no cluster" in fails(capsys, sources, "--out", tmp_path / "place", "--ray", "127.0.0.1:1")
    for source in (f"{bucket}/nothing", f"{bucket}/*.jpg", "s3://no-such-bucket-here/x"):
        assert source in fails(capsys, source, "--out", tmp_path / "place")
    fsspec.filesystem("s3").pipe_file(f"{bucket}/other/data.bin", b"x")
    assert "data.bin" in fails(capsys, sources, "--out", f"{bucket}/other")
    monkeypatch.setattr("utnet.apps.bulk.storage.FIRST_WAIT_S", 0.0)
    with s3.failing(lambda method, path, before: True):
        assert "keeps failing" in fails(capsys, sources, "--out", tmp_path / "place")


def test_wrong_credentials_are_one_line(sources, s3, monkeypatch, capsys, tmp_path):
    import requests

    requests.post(f"{s3.address}/moto-api/reset-auth", data="0", timeout=10)
    try:
        fsspec.filesystem("s3").clear_instance_cache()
        assert "credentials" in fails(capsys, sources, "--out", tmp_path / "place")
    finally:
        requests.post(f"{s3.address}/moto-api/reset-auth", data="inf", timeout=10)
    assert find_items([sources])
