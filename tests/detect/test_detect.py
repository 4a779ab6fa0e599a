"""The hand detector: its arithmetic against naive twins, and what it says of turned, mirrored and empty pictures."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from utnet.detect import HandDetector, networks
from utnet.detect.boxes import contained, covered, overlap, suppress
from utnet.detect.landmark import LandmarkNetwork
from utnet.detect.palm import anchors, decode
from utnet.detect.regions import Palm, Pyramid, Region, region_of_landmarks, region_of_palm
from utnet.detect.second_pass import right_probability
from utnet.detect.tiles import hidden, tiles
from utnet.errors import InputError
from utnet.geometry import box_of, project
from utnet.synth import SyntheticHands

REAL = Path(__file__).parents[2].parent / "shared" / "real"


@pytest.fixture(scope="module")
def detector():
    return HandDetector(threads=1)


@pytest.fixture(scope="module")
def pair():
    """Two drawn right hands side by side: picture (256, 512, 3), joints (2, 21, 2)."""
    source = SyntheticHands(seed=0, size_px=256, jitter=False)
    samples = [source[9], source[20]]
    joints = [project(s.joints_cam_m, s.K_px) + [256 * i, 0] for i, s in enumerate(samples)]
    return np.ascontiguousarray(np.concatenate([s.rgb for s in samples], 1)), np.array(joints)


def by_x(hands):
    return sorted(hands, key=lambda hand: hand.box_px[0])


def joints_of(hands):
    return np.array([hand.joints_px for hand in hands])


# ---------------------------------------------------------------------------------------------------------- arithmetic


def test_anchors_are_cell_centres_row_by_row():
    naive = []
    for cells, count in ((24, 2), (12, 6)):
        for row in range(cells):
            for column in range(cells):
                naive += [((column + 0.5) * 192 / cells, (row + 0.5) * 192 / cells)] * count
    np.testing.assert_allclose(anchors(), naive)


def test_decode_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    raw, logits, centres = rng.normal(0, 20, (50, 18)), rng.normal(0, 3, 50), rng.uniform(0, 192, (50, 2))
    points, scores = decode(raw, logits, centres, 0.4)
    naive = []
    for i in range(50):
        score = 1 / (1 + np.exp(-logits[i]))
        if score >= 0.4:
            (x, y), (w, h) = raw[i, :2] + centres[i], raw[i, 2:4]
            keypoints = [raw[i, k : k + 2] + centres[i] for k in range(4, 18, 2)]
            naive.append((score, [(x - w / 2, y - h / 2), (x + w / 2, y + h / 2), *keypoints]))
    naive.sort(key=lambda row: -row[0])
    np.testing.assert_allclose(scores, [score for score, _ in naive])
    np.testing.assert_allclose(points, [row for _, row in naive])


def test_decode_survives_any_logit():
    _, scores = decode(np.zeros((2, 18)), np.array([-1e30, 1e30], np.float32), np.zeros((2, 2)), 0.0)
    np.testing.assert_allclose(scores, [1, 0], atol=1e-30)


def test_suppressed_boxes_overlap_a_kept_better_one():
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 50, (40, 2))
    boxes, scores = np.concatenate([low, low + rng.uniform(5, 40, (40, 2))], 1), rng.random(40)
    kept = suppress(boxes, scores, iou=0.3)
    assert 1 < len(kept) < 40
    assert (np.diff(scores[kept]) <= 0).all()
    for i in range(40):
        better = [j for j in kept if j != i and scores[j] >= scores[i] and overlap(boxes[i], boxes[j]) > 0.3]
        assert bool(better) != (i in kept)


def test_overlaps_count_pixels():
    rng = np.random.default_rng(2)
    for _ in range(20):
        boxes = np.sort(rng.integers(0, 30, (2, 2, 2)), 1).reshape(2, 4) + [0, 0, 1, 1]
        a, b = np.zeros((2, 40, 40), bool)
        for mask, (x0, y0, x1, y1) in zip((a, b), boxes, strict=True):
            mask[y0:y1, x0:x1] = True
        both = (a & b).sum()
        assert overlap(*boxes) == pytest.approx(both / (a | b).sum())
        assert contained(*boxes) == pytest.approx(both / min(a.sum(), b.sum()))
        assert covered(*boxes) == pytest.approx(both / a.sum())
    empty = np.zeros(4)
    assert overlap(empty, empty) == contained(empty, empty) == covered(empty, empty) == 0


@pytest.mark.parametrize("side_px", [60.0, 300.0, 900.0])  # enlarged, a little and a lot shrunk
def test_a_cut_shows_the_pixels_that_its_affine_names(side_px):
    y, x = np.mgrid[:1200, :1400]
    picture = np.stack([x / 6, y / 6, np.zeros_like(x)], -1)
    region = Region(700.3, 590.8, side_px, 0.7)
    grey = np.rint(picture).astype(np.uint8)
    crop = (region.cut(grey, 96) + 255.0 - region.cut(255 - grey, 96)) / 2  # means of four are rounded up
    v, u = np.mgrid[:96, :96]
    A = region.to_picture(96)
    expected = np.stack([u, v], -1) @ A[:, :2].T + A[:, 2]
    assert np.abs(crop[..., :2] * 6 - expected).mean() < 2.5  # six pixels a grey level
    assert np.abs((crop[..., :2] * 6 - expected).mean((0, 1))).max() < 0.5


def test_regions_turn_with_the_hand(pair):
    joints = pair[1][0]
    cos, sin = np.cos(1.1), np.sin(1.1)
    turn, shift = np.array([[cos, -sin], [sin, cos]]), np.array([13.0, -40.0])
    before, after = region_of_landmarks(joints), region_of_landmarks(joints @ turn.T * 1.5 + shift)
    np.testing.assert_allclose([after.x, after.y], np.array([before.x, before.y]) @ turn.T * 1.5 + shift)
    assert after.side_px == pytest.approx(1.5 * before.side_px)
    assert np.angle(np.exp(1j * (after.angle_rad - before.angle_rad - 1.1))) == pytest.approx(0)


def test_a_palms_region_has_the_fingers_on_top():
    keypoints = np.tile([100.0, 100.0], (7, 1))
    keypoints[2] = [160.0, 100.0]  # the middle knuckle is right of the wrist: so are the fingers
    region = region_of_palm(Palm(np.array([90.0, 70.0, 150.0, 130.0]), keypoints, 1.0))
    assert (region.x, region.y) == pytest.approx((150.0, 100.0))
    assert region.side_px == pytest.approx(156.0)
    A = region.to_picture(100)
    wrist, knuckle = ((keypoints[i] - A[:, 2]) @ np.linalg.inv(A[:, :2]).T for i in (0, 2))
    assert knuckle[0] == pytest.approx(wrist[0])
    assert knuckle[1] < wrist[1]


# ------------------------------------------------------------------------------------------------------------ pictures


def test_finds_drawn_hands(detector, pair):
    hands = by_x(detector(pair[0]))
    assert [hand.side for hand in hands] == ["right", "right"]
    assert np.linalg.norm(joints_of(hands) - pair[1], axis=-1).mean() < 6  # hands of 128 px
    for hand in hands:
        assert hand.box_px == pytest.approx([*hand.joints_px.min(0), *hand.joints_px.max(0)])
        assert 0.05 < np.ptp(hand.joints_m, 0).max() < 0.25
        assert hand.track is None


def test_mirrored_hands_change_sides(detector, pair):
    hands, mirrored = detector(pair[0]), detector(np.ascontiguousarray(pair[0][:, ::-1]))
    flipped = joints_of(by_x(mirrored))[::-1] * [-1, 1] + [511, 0]
    assert [hand.side for hand in mirrored] == ["left", "left"]
    assert np.linalg.norm(flipped - joints_of(by_x(hands)), axis=-1).mean() < 4


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_pictures_have_turned_hands(detector, pair, quarters):
    turned = detector(np.ascontiguousarray(np.rot90(pair[0], quarters)))
    assert len(turned) == 2
    quarter = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # rot90: (x, y) -> (y, W - 1 - x)
    for hand in detector(pair[0]):
        joints_px, joints_m, size = hand.joints_px, hand.joints_m, list(pair[0].shape[:2])
        for _ in range(quarters):
            joints_px, joints_m = joints_px @ quarter[:2, :2].T + [0, size[1] - 1], joints_m @ quarter.T
            size.reverse()
        match = min(turned, key=lambda other: np.abs(other.joints_px - joints_px).mean())
        assert match.side == hand.side
        assert np.linalg.norm(match.joints_px - joints_px, axis=1).mean() < 4
        assert np.linalg.norm(match.joints_m - joints_m, axis=1).mean() < 0.005


def test_large_pictures_are_searched_in_tiles(detector, pair):
    wall = np.full((1500, 2500, 3), 128, np.uint8)
    wall[1000:1256, 1800:2312] = pair[0]
    hands = by_x(detector(wall))
    assert len(hands) == 2
    assert np.linalg.norm(joints_of(hands) - pair[1] - [1800, 1000], axis=-1).mean() < 8


def test_long_pictures_are_searched_in_tiles(detector, pair):
    picture, joints = pair
    tall = np.full((5000, 800, 3), 128, np.uint8)
    tall[400:656, 250:506], tall[4300:4556, 100:356] = picture[:, :256], picture[:, 256:]
    expected = joints + np.array([[[250, 400]], [[100 - 256, 4300]]])
    hands = sorted(detector(tall), key=lambda hand: hand.box_px[1])
    assert len(hands) == 2
    assert np.linalg.norm(joints_of(hands) - expected, axis=-1).mean() < 8


@pytest.mark.parametrize("size", [(300, 200), (961, 500), (6000, 1000), (800, 5000), (4000, 3000)])
def test_tiles_cover_the_picture_and_overlap(size):
    seen, levels = np.zeros((size[1] // 10, size[0] // 10), int), set()
    for tile in tiles(*size):
        x, y, half = tile.x / 10, tile.y / 10, tile.side_px / 20
        seen[max(round(y - half), 0) : round(y + half) + 1, max(round(x - half), 0) : round(x + half) + 1] += 1
        levels.add(tile.side_px)
    assert (seen >= len(levels)).all()
    assert bool(levels) == (max(size) > 960)


@pytest.mark.parametrize("size", [(8000, 6000), (12000, 9000), (40000, 1000), (30000, 20000)])
def test_the_number_of_tiles_is_bounded(size):
    assert 4 <= len(list(tiles(*size))) <= 128


def test_hidden_hands_are_gone_and_the_rest_is_as_it_was(detector, pair):
    picture, before = pair[0], pair[0].copy()
    found = detector.find(picture, quick=True)
    assert len(found) == 2
    assert hidden(picture, []) is picture
    for hand in found:
        rest = detector.find(hidden(picture, [hand]), quick=True)
        assert all(np.abs(other.joints_px - hand.joints_px).mean() > 50 for other in rest)
        assert len(rest) == len(found) - 1
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("quick", [True, False])
def test_known_hands_are_not_found_again_and_change_nothing_for_others(detector, pair, quick):
    one, other = detector.find(pair[0], quick=quick)
    (left,) = detector.find(pair[0], quick=quick, known=[one])
    np.testing.assert_array_equal(left.joints_px, other.joints_px)
    assert detector.find(pair[0], quick=quick, known=[one, other]) == []


def test_a_place_without_a_hand_is_not_searched_in_all_orientations(detector, pair, monkeypatch):
    seen, network = [], detector._landmarks

    def counted(picture, region):
        seen.append(region)
        return replace(network(picture, region), presence=0.0)

    monkeypatch.setattr(detector, "_landmarks", counted)
    regions = [Region(128, 128, 100, turn) for turn in (0.0, 1.5, 3.0, 4.5)]
    detector._add_hints(Pyramid(pair[0]), regions, [])
    assert seen == regions[:2]


def test_sides_of_boxes_do_not_turn_with_the_picture(detector, pair):
    picture, joints = pair
    height, width = picture.shape[:2]
    for angle in range(0, 360, 45):
        M = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        M[:, 2] += [300 - width / 2, 300 - height / 2]
        turned = cv2.warpAffine(picture, M, (600, 600), borderValue=(128, 128, 128))
        boxes = [box_of(px @ M[:, :2].T + M[:, 2]).tolist() for px in joints]
        for hand in detector.in_boxes(turned, boxes):
            assert hand.side == "right"
            assert hand.side_probability > 0.8
            assert not hand.doubts


def test_a_side_that_the_user_gives_is_certain(detector, pair):
    boxes = [box_of(px).tolist() for px in pair[1]]
    for hand in detector.in_boxes(pair[0], boxes, ["left", "right"]):
        assert hand.side_probability == 1.0
    for hand in detector(pair[0]):
        assert 0.5 <= hand.side_probability < 1.0
        assert 0 < hand.agreement < 20


def test_probabilities_of_sides_are_symmetric_and_flatter_where_looks_disagree():
    rng = np.random.default_rng(4)
    for first, second, mirrored in rng.random((50, 3)):
        near, far = (right_probability(first, second, apart, mirrored) for apart in (1.0, 30.0))
        assert right_probability(1 - first, 1 - second, 1.0, 1 - mirrored) == pytest.approx(1 - near)
        assert abs(far - 0.5) <= abs(near - 0.5)
    assert right_probability(1.0, 1.0, 0.0) > 0.99 > right_probability(0.0, 1.0, 5.0)


def test_the_mirror_image_has_the_other_side(detector, pair):
    network, region = LandmarkNetwork(), region_of_landmarks(pair[1][0])
    flipped = np.ascontiguousarray(pair[0][:, ::-1])
    mirrored = Region(pair[0].shape[1] - 1 - region.x, region.y, region.side_px, -region.angle_rad)
    assert network.mirrored_right(pair[0], region) == pytest.approx(1 - network(flipped, mirrored).right, abs=0.02)


@pytest.mark.parametrize(("presence", "found"), [(0.55, False), (0.65, True)])
def test_a_hand_is_one_in_its_second_pass_too(detector, pair, monkeypatch, presence, found):
    """A round flower in a photograph had 0.58 there."""
    picture, joints = pair
    network, region = LandmarkNetwork(), region_of_landmarks(joints[0])
    hand = network(picture, region)
    passes = iter([replace(hand, presence=0.9), replace(hand, presence=presence)])
    monkeypatch.setattr(LandmarkNetwork, "__call__", lambda *_: next(passes))
    assert (detector.in_region(picture, region) is not None) == found


@pytest.mark.parametrize(("size_px", "found"), [(12, False), (20, True)])
def test_details_are_no_hands(detector, pair, monkeypatch, size_px, found):
    """Next to hands in photographs of 100 pixels there were hands of 9 and 11."""
    picture, joints = pair
    hand = LandmarkNetwork()(picture, region_of_landmarks(joints[0]))
    small = hand.resized(*[size_px / np.ptp(hand.joints_px, axis=0).max()] * 2)
    monkeypatch.setattr(LandmarkNetwork, "__call__", lambda *_: small)
    assert (detector.in_region(picture, region_of_landmarks(small.joints_px)) is not None) == found


def test_boxes_are_answered_in_order(detector, pair):
    picture, joints = pair
    boxes = [[*j.min(0), *j.max(0)] for j in joints[::-1]]
    hands = detector.in_boxes(picture, boxes)
    assert np.linalg.norm(joints_of(hands) - joints[::-1], axis=-1).mean() < 6
    assert [hand.side for hand in hands] == ["right", "right"]
    assert detector.in_boxes(picture, [*boxes, [400, 5, 430, 35]])[2].score < 0.5  # background
    assert [hand.side for hand in detector.in_boxes(picture, boxes, ["left", "right"])] == ["left", "right"]
    assert detector.in_boxes(picture, []) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (2000, 3), (100, 100), (480, 640)])
def test_pictures_without_hands_have_none(detector, shape):
    assert detector(np.full((*shape, 3), 200, np.uint8)) == []
    assert detector(np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)) == []


def test_calls_from_threads_do_not_mix(detector, pair):
    pictures = [pair[0], np.ascontiguousarray(pair[0][:, ::-1]), np.zeros_like(pair[0])]
    alone = [detector(picture) for picture in pictures]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(detector, pictures))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(joints_of(a), joints_of(b))


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "picture",
    [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)],
)
def test_pictures_of_another_kind_are_refused(detector, picture):
    with pytest.raises(ValueError, match="expected \\(H, W, 3\\) uint8"):
        detector(picture)


def test_bad_boxes_and_sides_are_refused(detector, pair):
    for box in ([5, 5, 5, 50], [50, 5, 5, 50], [0, 0, float("nan"), 9]):
        with pytest.raises(InputError, match="x0 < x1"):
            detector.in_boxes(pair[0], [box])
    for sides in (["right"], ["right", "up"]):
        with pytest.raises(InputError, match="right or left for each box"):
            detector.in_boxes(pair[0], [[0, 0, 9, 9], [0, 0, 9, 9]], sides)


def test_a_missing_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "ASSETS", tmp_path)
    with pytest.raises(InputError, match=r"palm\.onnx: is missing"):
        HandDetector()


# --------------------------------------------------------------------------------------------------------- real photos

HANDS = {
    "hamer_mit_example_data/test1.jpg": [
        ("right", 320, 250),
        ("right", 435, 355),
        ("left", 180, 515),
        ("right", 418, 410),
    ],
    "hamer_mit_example_data/test2.jpg": [("right", 300, 130), ("left", 430, 375)],
    "hamer_mit_example_data/test3.jpg": [("right", 465, 380), ("left", 440, 310)],
    "hamer_mit_example_data/test5.jpg": [("right", 495, 700), ("left", 685, 685)],
    "tfjs_models_apache2/hands.jpg": [("left", 200, 190), ("left", 520, 195)],
    "mediapipe_samples_apache2/hand_landmarker_test_image.jpg": [("right", 231, 220), ("right", 145, 190)],
    "mediapipe_samples_apache2/hand_victory.jpg": [("right", 1410, 1900)],
    "mediapipe_samples_apache2/gesture_recognizer_hand_thumb_up.jpg": [("left", 277, 225)],
    "keypointfusion_mit_rgbd/box.png": [("right", 888, 522)],
    "lomiri_wallpapers_cc/friends_by_Aitzol_Berasategi.jpg": [],
}
"""Side and middle of the hands that are found, as seen by eye."""


@pytest.mark.parametrize("name", HANDS)
def test_hands_of_photos(detector, name):
    if not (REAL / name).is_file():
        pytest.skip("the photos of shared/real are not here")
    picture = cv2.imread(str(REAL / name))
    found = detector(np.ascontiguousarray(picture[..., ::-1]))
    assert len(found) == len(HANDS[name])
    for side, x, y in HANDS[name]:
        assert any(
            hand.side == side
            and hand.box_px[0] < x < hand.box_px[2]
            and hand.box_px[1] < y < hand.box_px[3]
            and np.abs((hand.box_px[:2] + hand.box_px[2:]) / 2 - [x, y]).max() < 0.05 * max(picture.shape)
            for hand in found
        ), (side, x, y, found)
