"""Labels for pictures without labels: what is kept and why, and that what is written is what was fitted."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from support.label_clips import SEEN, pictures, read, seen
from support.laws import assert_labels_agree
from utnet.apps.label.agreement import REASONS, Limits, QualityScores, why_dropped
from utnet.apps.label.candidates import fitted_sample, line_of
from utnet.apps.label.dataset import label_pictures
from utnet.apps.label.measure import flip_percent, inside, overlap_percent, second_difference
from utnet.apps.label.sequences import by_pattern, name_sequences, splits
from utnet.cli.main import main
from utnet.conventions import SIDES
from utnet.data import open_source
from utnet.data.transforms import to_right
from utnet.detect import HandDetector
from utnet.detect.landmark import Landmarks
from utnet.errors import InputError
from utnet.geometry import mirror_points, normalized_distance_percent, project
from utnet.hand import HandModel
from utnet.predict import Predictor
from utnet.predict.inputs import Input, find_inputs

REAL = Path(__file__).parents[2].parent / "shared" / "real"
GOOD = {"score": 1.0, "box_px": 100.0, "outside": 0, "overlap": 0.0, "flip": 1.0, "reprojection": 2.0}
BAD = {"unsure": {"score": 0.1}, "small": {"box_px": 9.0}, "outside": {"outside": 15}, "overlap": {"overlap": 95.0},
       "flip": {"flip": np.inf}, "reprojection": {"reprojection": 20.0}, "unsteady": {"jitter_mm": 80.0}}  # fmt: skip


@pytest.fixture(scope="module")
def fit():
    return Predictor(method="fit")


# -------------------------------------------------------------------------------------------------------------- filters


def test_every_reason_is_given_for_its_fault_alone_and_the_first_counts():
    assert why_dropped(QualityScores(**GOOD), Limits()) is None
    assert set(BAD) == set(REASONS)
    for reason, fault in BAD.items():
        assert why_dropped(QualityScores(**(GOOD | fault)), Limits()) == reason
    for i, first in enumerate(REASONS):
        faults = [BAD[reason] for reason in REASONS[i:]]
        assert (
            why_dropped(QualityScores(**GOOD | {k: v for fault in faults for k, v in fault.items()}), Limits()) == first
        )


@pytest.mark.parametrize("name", ["score", "overlap", "flip", "reprojection", "jitter", "jitter_mm"])
def test_what_is_not_a_number_is_no_agreement(name):
    assert why_dropped(QualityScores(**(GOOD | {name: np.nan})), Limits()) is not None


def test_distances_do_not_depend_on_the_size_of_the_picture():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 200, (2, 21, 2))
    np.testing.assert_allclose(normalized_distance_percent(a * 7 + 3, b * 7 + 3), normalized_distance_percent(a, b))
    shifted = a + [0.02 * np.ptp(a, axis=0).max(), 0]
    np.testing.assert_allclose(normalized_distance_percent(a, shifted), 2.0)


def test_a_second_difference_is_that_of_acceleration_alone():
    rng = np.random.default_rng(0)
    place, speed = rng.normal(size=(2, 21, 3))
    assert second_difference(place - speed, place, place + speed) == pytest.approx(0, abs=1e-12)
    kick = np.array([0.0, 3.0, 4.0])
    assert second_difference(place - speed, place, place + speed + kick) == pytest.approx(5)


def test_of_two_hands_in_one_place_the_surer_stays():
    sure, part, apart = (
        seen(score=score, shift=shift, scale=scale)[1]
        for score, shift, scale in ((0.99, 0, 1), (0.95, 0, 0.5), (0.9, 999, 1))
    )
    for order in ([sure, part, apart], [part, apart, sure]):
        by_score = {hand.score: overlap_percent(order, i) for i, hand in enumerate(order)}
        assert by_score == pytest.approx({0.99: 0, 0.95: 100, 0.9: 0})
    assert sorted(overlap_percent([sure, sure], i) for i in range(2)) == pytest.approx([0, 100])


def test_joints_at_the_edges_are_inside():
    joints = np.zeros((21, 2)) + [5, 5]
    joints[:4] = [[-0.4, 0], [9.4, 7.4], [9.6, 0], [0, -0.6]]
    assert inside(joints, (8, 10, 3)).tolist() == [True, True, False, False] + [True] * 17


class Mirror:
    """A detector whose landmarks in the mirrored picture are given."""

    def __init__(self, joints_px, right):
        self.joints_px, self.right = joints_px, right

    def follow(self, image_rgb, joints_px):
        return None if self.joints_px is None else Landmarks(self.joints_px, np.zeros((21, 3)), 1.0, self.right)


@pytest.mark.parametrize("side", SIDES)
def test_a_flip_agrees_where_the_landmarks_do_and_the_side_swaps(side):
    rgb, detection = seen(side)
    mirrored = np.stack([255 - detection.joints_px[:, 0], detection.joints_px[:, 1]], 1)
    swapped = float(side == "left")
    assert flip_percent(Mirror(mirrored, swapped), rgb, detection) == pytest.approx(0, abs=1e-9)
    off = mirrored + [0, 0.05 * np.ptp(mirrored, axis=0).max()]
    assert flip_percent(Mirror(off, swapped), rgb, detection) == pytest.approx(5)
    assert flip_percent(Mirror(mirrored, 1 - swapped), rgb, detection) == np.inf
    assert flip_percent(Mirror(None, swapped), rgb, detection) == np.inf


# ------------------------------------------------------------------------------------------------------------ sequences


def test_sequences_are_folders_or_what_the_groups_say(tmp_path):
    files = ["a/b/1.jpg", "a/b/2.jpg", "a/1.jpg", "c/b/1.jpg", "c/b/v.mp4"]
    for root in (Path(), Path().absolute()):
        inputs = [Input("video" if file.endswith("mp4") else "picture", root / file, file) for file in files]
        assert name_sequences(inputs) == ["a/b", "a/b", "a", "c/b", "c/b/v.mp4"]
        assert name_sequences(inputs, lambda path: path.stem) == ["1", "2", "1", "1", "v.mp4"]
        assert name_sequences(inputs[:2]) == ["b", "b"]
    of = by_pattern(r"IMG_(\d\d)\d\d|(person\w)")
    assert of(Path("x/0/IMG_1234.JPG")) == of(Path("x/9/IMG_1299.JPG")) != of(Path("x/0/IMG_1334.JPG"))
    assert by_pattern(r"s\d+")(Path("s12/a.png")) == "s12"
    with pytest.raises(InputError, match=r"y\.jpg: --sequence-by .* does not match"):
        of(Path("y.jpg"))
    with pytest.raises(InputError, match="not a regular expression"):
        by_pattern("(")


def test_no_sequence_is_divided():
    names = [f"p{i % 30}" for i in range(300)]
    said = splits(names, 0.2)
    assert 0.15 < said.count("val") / 300 < 0.3
    assert len({(name, split) for name, split in zip(names, said, strict=True)}) == 30
    assert set(splits(names, 0.0)) == {"train"}
    with pytest.raises(InputError, match="all hands are of one sequence, 'a'"):
        splits(["a"] * 5, 0.4)


# ------------------------------------------------------------------------------------------------------ what is written


@pytest.mark.parametrize("side", SIDES)
def test_a_line_comes_back_as_the_hand_that_was_fitted(fit, tmp_path, side):
    """The reader's labels agree with each other, before and after the mirror, and are the fit's."""
    rgb, detection = seen(side)
    (hand,) = fit.from_detections(rgb, [detection], None, SEEN.K_px)
    line = line_of(fitted_sample("a", rgb, hand, np.ones(21, np.float32)))
    cv2.imwrite(str(tmp_path / "a.png"), rgb[..., ::-1])
    (tmp_path / "hands.jsonl").write_text(json.dumps({"image": "a.png", **line}) + "\n")
    sample = open_source("custom", tmp_path)[0]
    assert sample.side == hand.side == side
    assert sample.betas_ok
    np.testing.assert_allclose(sample.joints_cam_m, hand.joints_cam_m, atol=1e-6)
    np.testing.assert_allclose(sample.joints_px, hand.joints_px, atol=1e-3)
    right = to_right(sample)
    expected = mirror_points(hand.joints_cam_m) if side == "left" else hand.joints_cam_m
    np.testing.assert_allclose(right.joints_cam_m, expected, atol=1e-6)
    for each in (sample, right):
        assert_labels_agree(each, HandModel.open("right"), max_px=0.1, max_m=1e-5)
        np.testing.assert_allclose(project(each.joints_cam_m, each.K_px), each.joints_px, atol=0.05)


def test_pictures_and_videos_become_a_data_set(drawn, tmp_path, capsys):
    pictures(tmp_path / "in", "p1_a.png", "p1_left.png", "p2_a.png", "p2_b.png", "p3_a.jpg")
    (tmp_path / "in" / "p9_broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    cv2.imwrite(str(tmp_path / "in" / "p4_none.png"), np.zeros((90, 90, 3), np.uint8))
    video(tmp_path / "in" / "clip.mp4", 12)
    out = tmp_path / "out"
    words = ["label", str(tmp_path / "in"), "--out", str(out), "--sequence-by", "(p[0-9])_", "--val-share", "0.2"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--every", "4", "--coco"])
    assert stop.value.code == 1  # a picture could not be read
    shown = capsys.readouterr()
    assert "p9_broken.jpg" in shown.err
    about, lines = json.loads((out / "labels.json").read_text()), read(out)
    # Frames 0, 4 and 8; the first has nothing before it.
    assert (about["pictures"], about["videos"], about["frames"], about["found"]) == (6, 1, 3, 8)
    assert about["dropped"] == dict.fromkeys(REASONS, 0) | {"unsteady": 1}
    assert [problem["file"][-13:] for problem in about["problems"]] == ["p9_broken.jpg"]
    assert sum(about["kept"].values()) == len(lines) == 7
    assert {line["sequence"] for line in lines} == {"p1", "p2", "p3", "clip.mp4"}
    splits_of = {}
    for line in lines:
        assert splits_of.setdefault(line["sequence"], line["split"]) == line["split"]
    assert set(splits_of.values()) == {"train", "val"}
    assert about["kept"] == {s: sum(line["split"] == s for line in lines) for s in ("train", "val")}
    for split in ("train", "val"):
        source = open_source("custom", out, split=split)
        for index in range(len(source)):
            assert_labels_agree(to_right(source[index]), HandModel.open("right"), max_px=0.2)
    coco = json.loads((out / "coco_wholebody.json").read_text())
    images = {image["id"]: (image["file_name"], image["split"]) for image in coco["images"]}
    points_of = {line["image"]: (line["split"], line["side"], line["joints_2d"]) for line in lines}
    assert len(coco["annotations"]) == len(lines)
    for annotation in coco["annotations"]:
        image, split = images[annotation["image_id"]]
        of_line, side, points = points_of[image]
        given = np.reshape(annotation[f"{side}hand_kpts"], (21, 3))
        assert split == of_line
        assert (given[:, 2] > 0).sum() > 15
        np.testing.assert_allclose(given[given[:, 2] > 0, :2], np.array(points)[given[:, 2] > 0], atol=1e-3)
    assert sorted(path.name for path in out.iterdir()) == [
        "coco_wholebody.json",
        "hands.jsonl",
        "images",
        "labels.json",
    ]
    assert len(list((out / "images").iterdir())) == len(lines)


def video(path, num):
    rgb = seen()[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for _ in range(num):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))


def test_a_fault_leaves_nothing(drawn, tmp_path, capsys):
    folder, out = pictures(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    for words, message in (
        ([], "all hands are of one sequence"),
        (["--sequence-by", "(x)"], "does not match"),
        (["--val-share", "0.7", "--sequence-by", "(.).png"], "val_share is 0.7"),
        (["--val-share", "0", "--limits.reprojection", "0.001"], "none of 2 hands was kept (2 reprojection)"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["label", str(folder), "--out", str(out), *words])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_joints_on_which_fit_and_detector_differ_have_no_2d_label(drawn, tmp_path):
    inputs = find_inputs([str(pictures(tmp_path / "in", "a.png"))])
    label_pictures(inputs, tmp_path / "out", val_share=0, limits=Limits(joint=2.0))
    (line,) = read(tmp_path / "out")
    (_, detection), joints = seen(), np.array(line["joints_2d"])
    far = normalized_distance_percent(detection.joints_px, joints + detection.box_px[:2] - line["box"][:2]) > 2.0
    assert 0 < far.sum() < 21
    assert line["joints_2d_conf"] == (~far).astype(float).tolist()
    assert (open_source("custom", tmp_path / "out")[0].joints_3d_conf == 1).all()


def test_the_detector_itself_agrees_with_its_mirror_image():
    detector = HandDetector(threads=1)
    for side in SIDES:
        rgb = seen(side)[0]
        (detection,) = detector(rgb)
        assert detection.side == side
        assert flip_percent(detector, rgb, detection) < 4


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real pictures")
def test_real_pictures_keep_the_plain_hand_and_drop_the_doubtful(tmp_path):
    names = ["mediapipe_samples_apache2/hand_landmarker_thumbs-up.png", "hamer_mit_example_data/test2.jpg"]
    summary = label_pictures(find_inputs([str(REAL / name) for name in names]), tmp_path / "out", val_share=0)
    assert [line["image"][-8:] for line in read(tmp_path / "out")] == ["up_0.jpg"]
    assert summary.dropped["flip"] == summary.found - 1 == 2
