"""Full appearance: correct labels, a switch for every factor, properties of skin and light."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from utnet.config import FactorsConfig, SynthConfig
from utnet.conventions import TIPS
from utnet.data import open_source
from utnet.data.shards.write_shards import write_shards
from utnet.errors import InputError
from utnet.geometry import intrinsics, project
from utnet.hand import HandModel
from utnet.render.raster import Fragments, rasterize, vertex_normals
from utnet.synth import SyntheticHands
from utnet.synth.appearance import white_noise
from utnet.synth.backgrounds import Backgrounds
from utnet.synth.depth_noise import sense_depth
from utnet.synth.forearm import Arm
from utnet.synth.full import _STREAMS, FullRenderer
from utnet.synth.lights import Lights, _lobes
from utnet.synth.occluders import _object, _unit_mesh
from utnet.synth.scene import SceneRenderer
from utnet.synth.sensor import take_picture
from utnet.synth.shading import shade_scene
from utnet.synth.skin import chart, sample_skin, skin_albedo
from utnet.synth.skin_atlas import CHANNELS, atlases, chart_origin
from utnet.synth.surfaces import Material, Part, Scene, Skin, faces_to_draw, surface_colors
from utnet.types import HandParams

NAMES = [f.name for f in fields(FactorsConfig)]
OFF = FactorsConfig(**dict.fromkeys(NAMES, 0.0))
INNER = [i for i in range(21) if i not in TIPS]
K = intrinsics(500.0, 500.0, 63.5, 63.5)
PALM_UP = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # fingers up, palm towards the camera
BACK_UP = PALM_UP * [[-1], [1], [-1]]


def full(factors=None, **synth) -> SynthConfig:
    return SynthConfig(appearance="full", factors=factors or FactorsConfig(), **synth)


def source(factors=None, size_px=64, **synth) -> SyntheticHands:
    return SyntheticHands(seed=5, size_px=size_px, synth=full(factors, **synth))


def only(**strengths) -> FactorsConfig:
    return replace(OFF, **strengths)


@pytest.fixture(scope="module")
def renderer() -> FullRenderer:
    return FullRenderer(full())


def hand_at(renderer, R=PALM_UP, z=0.5):
    pose = np.tile(np.eye(3), (15, 1, 1))
    middle = -R @ np.array([-0.09, 0.0, 0.0]) + [0, 0, z]
    return renderer.decode(HandParams(R[None], pose, np.zeros(10), middle))


# --------------------------------------------------------------------------------------------------------------- labels


def test_items_depend_on_seed_and_index_alone():
    first, again = source(), source()
    backwards = {i: first[i] for i in (7, 3, 0)}
    for i in (0, 3, 7):
        np.testing.assert_array_equal(again[i].rgb, backwards[i].rgb)
        np.testing.assert_array_equal(again[i].depth_m, backwards[i].depth_m)
        np.testing.assert_array_equal(again[i].joints_cam_m, backwards[i].joints_cam_m)


def test_labels_agree_with_the_picture():
    """Parameters decode to the joints; hidden joints are labelled, too; depth agrees on visible parts."""
    factors = replace(FactorsConfig(), **{name: 0.0 for name in NAMES if name.startswith("depth")})
    hands = source(factors, size_px=128)
    renderer = hands._renderer
    renders, original = [], renderer.render
    renderer.render = lambda *a: renders.append(original(*a)) or renders[-1]
    near = []
    for i in range(40):
        sample = hands[i]
        posed = renderer.decode(sample.params)
        assert np.abs(project(posed.joints_m, sample.K_px) - project(sample.joints_cam_m, sample.K_px)).max() < 0.5
        assert (sample.joints_3d_conf == 1).all()
        assert (sample.joints_2d_conf == 1).all()
        alone = rasterize(posed.vertices_m, renderer._faces["right"], sample.K_px, (128, 128))
        mask = renders[i].mask
        np.testing.assert_allclose(sample.depth_m[mask], alone.depth_m[mask], atol=0.0006)
        hidden = alone.mask & ~mask
        assert (sample.depth_m[hidden] <= alone.depth_m[hidden] + 0.0006).all(), "what hides the hand is nearer"
        x, y = np.rint(project(sample.joints_cam_m[INNER], sample.K_px)).astype(int).T
        seen = mask[y, x]
        offset = (sample.depth_m[y, x] - sample.joints_cam_m[INNER, 2])[seen]
        assert (offset < 0.01).all(), "a joint lies under the skin"
        near += list(np.abs(offset) < 0.03)
    assert np.mean(near) > 0.75


@pytest.mark.parametrize("side", ["right", "left"])
def test_hands_are_decoded_as_the_hand_layer_does(renderer, side):
    layer = SceneRenderer(side, forearm=False)
    for seed in range(20):
        params, _ = source()._sample_view(np.random.default_rng(seed))
        ours, truth = renderer.decoders[side](params), layer.decode(params)
        np.testing.assert_allclose(ours.vertices_m, truth.vertices_m, atol=1e-6)
        np.testing.assert_allclose(ours.joints_m, truth.joints_m, atol=1e-6)
        np.testing.assert_array_equal(ours.R, truth.R)


@pytest.mark.parametrize("kind", ["box", "ball", "rod", "cone", "bottle", "tool"])
def test_the_inside_of_closed_things_need_not_be_drawn(kind):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn[:, 0] *= np.linalg.det(turn)
    scene = Scene.of([_object(rng, kind, np.array([0.01, 0.0, 0.4]), turn, np.array([0.02, 0.02, 0.05])).part])
    drawn = faces_to_draw(scene.vertices_m, scene.faces, scene.closed)
    folded = (drawn[:, 1] == drawn[:, 2]).mean()
    assert folded > 0.3
    all_faces, outer = (rasterize(scene.vertices_m, faces, K, (128, 128)) for faces in (scene.faces, drawn))
    np.testing.assert_array_equal(outer.face, all_faces.face)
    np.testing.assert_array_equal(outer.depth_m, all_faces.depth_m)


@pytest.mark.parametrize("distance_m", [(0.35, 1.0), (0.3, 0.32)])
def test_the_inside_of_hands_need_not_be_drawn(distance_m):
    """Hands are open at the wrist and fold over at the creases: with arm and sleeve, a second hand and things, from all
    around, no pixel of a hand is lost or farther. Nearer than the default, arms reach through the camera."""
    factors = replace(FactorsConfig(), second_hand=2.0)
    hands, views, folded = source(factors, size_px=96, distance_m=distance_m), [], []
    renderer = hands._renderer
    original = renderer.render
    renderer.render = lambda *view: views.append(view) or original(*view)
    pixels, wrong, drawn_hands, directions = 0, 0, [0, 0], []
    for i in [*range(30), 177, 230, 252, 261, 271]:  # the last ones: one looks into the arm
        hands[i]
        posed, K_px, size_wh, seed = views[-1]
        directions.append(posed.R[2])
        streams = {name: np.random.default_rng((*seed, k)) for k, name in enumerate(_STREAMS)}
        parts, _ = renderer._parts(posed, streams)
        scene = Scene.of(parts)
        drawn = faces_to_draw(scene.vertices_m, scene.faces, scene.closed)
        folded.append((drawn[:, 1] == drawn[:, 2]).mean())
        truth, fast = (rasterize(scene.vertices_m, faces, K_px, size_wh) for faces in (scene.faces, drawn))
        firsts = np.cumsum([0] + [len(part.faces) for part in parts])
        for k, part in enumerate(parts):
            if not isinstance(part.surface, Skin):
                continue
            mask, kept = ((f.face >= firsts[k]) & (f.face < firsts[k] + renderer.num_hand_faces) for f in (truth, fast))
            off = (mask & ~kept) | (mask & (fast.depth_m > truth.depth_m + 0.002))
            assert off.sum() <= 0.01 * mask.sum(), f"item {i}, part {k}"
            pixels, wrong = pixels + mask.sum(), wrong + off.sum()
            drawn_hands[min(k, 1)] += mask.any()
    assert wrong <= 0.001 * pixels
    assert min(drawn_hands) >= 5, "first hands and second ones"
    assert (np.ptp(directions, axis=0) > 1.6).all(), "from all around"
    assert np.mean(folded) > 0.25, "and much is saved"


def test_most_of_the_hand_stays_in_sight():
    hands, shares = source(), []
    renderer = hands._renderer
    original = renderer.render

    def render(posed, K_px, size_wh, seed):
        result = original(posed, K_px, size_wh, seed)
        alone = rasterize(posed.vertices_m, renderer._faces["right"], K_px, size_wh)
        shares.append(result.mask.sum() / alone.mask.sum())
        return result

    renderer.render = render
    for i in range(150):
        hands[i]
    assert np.mean(np.array(shares) > 0.5) > 0.9
    assert np.mean(np.array(shares) < 0.95) > 0.3, "something hides a part of many hands"


# -------------------------------------------------------------------------------------------------------------- factors


@pytest.mark.parametrize("name", [name for name in NAMES if name != "depth_missing"])
def test_every_factor_has_a_switch(name):
    """A factor alone changes some pictures; unrelated outputs stay bit-equal."""
    shapes = {"sleeve", "worn", "held", "occluder", "second_hand"}
    poses = {"gestures", "contact"}
    base = only(background=1.0) if name in ("defocus",) else only(gestures=1.0) if name == "contact" else OFF
    base = replace(base, light=1.0) if name == "gloss" else base
    plain, with_it = source(base), source(replace(base, **{name: 1.0}))
    changed = 0
    for i in range(30):
        a, b = plain[i], with_it[i]
        same_rgb, same_depth = np.array_equal(a.rgb, b.rgb), np.array_equal(a.depth_m, b.depth_m)
        if name not in poses:
            np.testing.assert_array_equal(a.joints_cam_m, b.joints_cam_m)
            if name.startswith("depth"):
                assert same_rgb
            elif name not in shapes:
                assert same_depth
        changed += not (same_rgb and same_depth)
        if changed and i >= 2:
            break
    assert changed


def test_shards_hold_the_same_hands(tmp_path):
    hands = SyntheticHands(seed=5, size_px=64, num=3, synth=full(), jitter=False)
    write_shards(hands, tmp_path / "shards", progress=False)
    packed = open_source("shards", str(tmp_path / "shards"))
    assert len(packed) == 3
    for i in range(3):
        np.testing.assert_allclose(packed[i].joints_cam_m, hands[i].joints_cam_m, atol=1e-6)
        assert np.abs(packed[i].rgb.astype(int) - hands[i].rgb).mean() < 6


def test_depth_can_be_missing():
    half = source(FactorsConfig(depth_missing=0.5))
    missing = [half[i].depth_m is None for i in range(60)]
    assert 15 < sum(missing) < 45
    assert source(FactorsConfig(depth_missing=1.0))[0].depth_m is None


def test_strengths_out_of_range_and_factors_without_full_appearance_are_refused():
    with pytest.raises(InputError, match=r"synth\.factors\.jpeg"):
        FactorsConfig(jpeg=2.5)
    with pytest.raises(InputError, match=r"synth\.appearance"):
        SynthConfig(factors=OFF)
    with pytest.raises(InputError, match=r"synth\.appearance"):
        SynthConfig(appearance="fancy")


# ----------------------------------------------------------------------------------------------------------------- skin


def test_skin_covers_light_to_dark_and_is_never_grey_or_blue():
    rng = np.random.default_rng(0)
    albedo = np.stack([skin_albedo(*sample_skin(rng, 1.0)) for _ in range(500)])
    luminance = albedo @ [0.2126, 0.7152, 0.0722]
    assert luminance.max() > 0.45
    assert luminance.min() < 0.07
    assert (np.diff(albedo, axis=1) < 0).all(), "red, then green, then blue"
    assert np.ptp([skin_albedo(*sample_skin(rng, 0.0)) for _ in range(5)], axis=0).max() == 0


def test_nails_are_on_the_backs_of_the_fingertips_only():
    nail = atlases()[0][..., CHANNELS.index("nail")]
    assert nail[:, 1].max() == 0, "none on the palm's side"
    spots, _, stats, centres = cv2.connectedComponentsWithStats((nail[0, 0] > 127).astype(np.uint8))
    assert spots - 1 == 5
    centres_m = centres[1:] * 0.0005 + chart_origin()
    for tip in chart().tips:
        assert 0.002 < np.linalg.norm(centres_m - tip, axis=1).min() < 0.010
    assert (stats[1:, cv2.CC_STAT_AREA] * 0.25 < 200).all(), "square millimetres"


def colors(renderer, R, skin):
    posed = hand_at(renderer, R)
    parts = [Part(posed.vertices_m, renderer._faces["right"], chart().places, skin)]
    scene = Scene.of(parts)
    fragments = rasterize(scene.vertices_m, scene.faces, K, (128, 128))
    albedo, _ = surface_colors(scene, fragments, 0.001)
    return albedo, fragments.mask


def test_palms_are_paler_than_backs_most_of_all_on_dark_skin(renderer):
    ratios = []
    for melanin in (0.1, 2.0):
        skin = Skin(melanin, 0.3, variation=1.0)
        (palm, seen), (back, seen_back) = (colors(renderer, R, skin) for R in (PALM_UP, BACK_UP))
        ratios.append(palm[seen].mean() / back[seen_back].mean())
    assert ratios[1] > 1.5 > ratios[0] > 0.9


def test_no_seam_runs_round_the_wrist(renderer):
    """The skin changes no faster at the start of the forearm than elsewhere."""
    posed = hand_at(renderer, BACK_UP)
    part = renderer._hand_parts("right", posed, Skin(1.0, 0.3, variation=1.0), np.random.default_rng(0))[0]
    scene = Scene.of([part])
    moved = intrinsics(500.0, 500.0, 63.5, 10.0)
    fragments = rasterize(scene.vertices_m, scene.faces, moved, (128, 128))
    albedo, _ = surface_colors(scene, fragments, 0.001)
    arm = fragments.face >= renderer.num_hand_faces
    both = fragments.mask[1:] & fragments.mask[:-1]
    step = np.abs(np.diff(np.where(fragments.mask[..., None], albedo, 0), axis=0)).max(-1)
    across = step[both & (arm[1:] != arm[:-1])]
    assert len(across) > 20
    assert np.median(across) < 2 * np.median(step[both])


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_forearm_goes_on_from_the_wrist_outwards(renderer, side):
    vertices = HandModel.open(side).v_template.numpy().astype(float)
    arm = Arm(renderer._faces[side], len(vertices), side)
    ring = arm.skin_vertices(vertices, np.eye(3), np.zeros(2))
    mesh = np.concatenate([vertices, ring])
    faces = np.concatenate([renderer._faces[side], arm.faces])
    normals = vertex_normals(mesh, faces)[len(vertices) :]
    rings = ring.reshape(-1, len(arm.loop), 3)
    outwards = (rings - rings.mean(1, keepdims=True)).reshape(-1, 3)
    assert ((normals * outwards).sum(1) > 0).mean() > 0.99
    sign = 1 if side == "right" else -1
    assert (np.diff(sign * rings.mean(1)[:, 0]) > 0).all()
    gap = np.linalg.norm(rings[0] - vertices[arm.loop], axis=1)
    assert gap.max() < 0.015


# ---------------------------------------------------------------------------------------------------------------- light


def test_broad_lights_are_their_formula():
    rng = np.random.default_rng(0)
    n, d = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 20, 3)))
    x, y, z = n.T
    terms = np.stack([x * 0 + 1, x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], 1)
    np.testing.assert_allclose((terms * _lobes(d)).sum(1), ((1 + (n * d).sum(1)) / 2) ** 2, atol=1e-12)


def lit(parts, capsules, **changes):
    lights = Lights(
        around=0.3 * np.eye(1, 10).repeat(3, 0),
        key=np.array([0.0, 0.0, -1.0]),
        key_rgb=np.ones(3),
        softness_m=0.002,
        lamp_m=np.array([0.0, 0.0, -0.5]),
        lamp_rgb=np.zeros(3),
        shadows=0.0,
        occlusion=0.0,
    )
    scene = Scene.of(parts)
    fragments = rasterize(scene.vertices_m, scene.faces, K, (128, 128))
    albedo, finish = surface_colors(scene, fragments, 0.001)
    middle = np.array([0.0, 0.0, 0.5])
    light = shade_scene(scene, fragments, K, albedo, finish, replace(lights, **changes), capsules, middle)
    return light, fragments


def plate(z, half, part=0):
    corners = np.array([[-half, -half, z], [-half, half, z], [half, half, z], [half, -half, z]])
    grey = Material(np.full(3, 0.5), np.full(3, 0.5))
    return Part(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.zeros((4, 3)), grey)


def test_what_stands_between_a_light_and_a_surface_throws_a_shadow():
    wall, disc = plate(0.55, 0.2), plate(0.45, 0.01)
    none = np.empty((0, 8))
    key = np.array([0.4, 0.0, -0.9]) / np.linalg.norm([0.4, 0.0, -0.9])
    without, _ = lit([wall, disc], none, key=key)
    shadowed, fragments = lit([wall, disc], none, key=key, shadows=1.0)
    darker = (without - shadowed)[..., 0] > 0.1
    assert darker.sum() > 50
    assert (darker <= (fragments.depth_m > 0.5)).all(), "on the wall, not on what throws it"
    # The shadow lies opposite to the light: the light is on the right, so it falls to the left of the disc.
    assert np.nonzero(darker)[1].mean() < 63.5 - 10


def test_occlusion_darkens_what_is_hemmed_in_and_nothing_else():
    wall = plate(0.55, 0.2)
    beside = np.array([[0.05, -0.2, 0.53, 0.05, 0.2, 0.53, 0.015, 9]])
    grid = 21
    side = np.linspace(-0.1, 0.1, grid)
    xy = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    vertices = np.column_stack([xy, np.full(len(xy), 0.55)])
    i = (np.arange(grid - 1)[:, None] * grid + np.arange(grid - 1)).ravel()
    faces = np.concatenate([np.stack([i, i + grid, i + 1], 1), np.stack([i + 1, i + grid, i + grid + 1], 1)])
    fine = Part(vertices, faces.astype(np.int32), np.zeros((len(xy), 3)), wall.surface)
    dark, _ = lit([fine], beside, key_rgb=np.zeros(3), occlusion=1.0)
    plain, fragments = lit([fine], beside, key_rgb=np.zeros(3))
    ratio = np.where(fragments.mask, dark[..., 0] / np.maximum(plain[..., 0], 1e-6), 1.0)[64]
    near, far = ratio[int(63.5 + 500 * 0.05 / 0.55)], ratio[10]
    assert near < 0.7
    assert far > 0.95


@pytest.mark.parametrize("kind", ["box", "ball", "rod", "cone", "bottle", "tool"])
def test_things_are_closed_and_face_outwards(kind):
    vertices, faces, places = _unit_mesh(kind)
    assert len(vertices) == len(places)
    assert np.abs(vertices).max() < 1.2
    a, b, c = vertices[faces].transpose(1, 0, 2)
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume > 0.3
    occluder = _object(np.random.default_rng(0), kind, np.array([0.0, 0, 0.5]), np.eye(3), np.array([0.02, 0.02, 0.05]))
    z = occluder.part.vertices_m[:, 2]
    assert 0.45 - 1e-9 <= z.min() < z.max() <= 0.55 + 1e-9


# --------------------------------------------------------------------------------------------------------------- sensor


def test_a_clean_camera_is_a_curve_and_noise_grows_with_light():
    light = np.repeat(np.linspace(0.02, 0.6, 64, dtype=np.float32)[None, :, None], 64, 0).repeat(3, 2)
    hand = np.ones((64, 64), bool)
    clean = take_picture(np.random.default_rng(0), light, hand, OFF).astype(int)
    assert (np.diff(clean[:, 4:-4], axis=1) >= 0).all()
    np.testing.assert_array_equal(clean[0], clean[-1])
    spread = []
    for seed in range(40):
        noisy = take_picture(np.random.default_rng(seed), light, hand, only(noise=2.0)).astype(float)
        spread.append((noisy - clean).std(0).mean(-1))
    assert np.mean(spread) > 2
    for name in ("lens_blur", "motion_blur", "rescale"):
        sharp = np.zeros((64, 64, 3), np.float32)
        sharp[:, 32:] = 0.5
        slopes = [
            np.abs(np.diff(take_picture(np.random.default_rng(s), sharp, hand, f).astype(int), axis=1)).max()
            for f in (OFF, only(**{name: 2.0}))
            for s in range(12)
        ]
        assert np.mean(slopes[12:]) < 0.97 * np.mean(slopes[:12]), name


def test_depth_noise_grows_with_the_square_of_the_distance():
    light = np.full((96, 96, 3), 0.3, np.float32)
    spread = {}
    for z in (0.5, 1.5):
        truth = np.full((96, 96), z, np.float32)
        out = [sense_depth(np.random.default_rng(s), truth, light, only(depth_noise=1.0), 0.004) for s in range(8)]
        spread[z] = np.std([o - z for o in out])
    assert spread[1.5] / spread[0.5] == pytest.approx(9, rel=0.15)
    truth = np.full((96, 96), 0.7, np.float32)
    np.testing.assert_allclose(sense_depth(np.random.default_rng(0), truth, light, OFF, 0.004), truth, atol=0.0006)


def test_holes_lie_on_outlines_and_in_the_dark():
    truth = np.full((96, 96), 0.9, np.float32)
    truth[:, :48] = 0.5
    light = np.full((96, 96, 3), 0.3, np.float32)
    light[:20] = 0.0
    lost = np.mean(
        [sense_depth(np.random.default_rng(s), truth, light, only(depth_holes=1.0), 0.0) == 0 for s in range(60)], 0
    )
    assert lost[60, 42:54].max() > 0.3
    assert lost[30:, :40].max() == 0
    assert lost[:20].mean() > 0.2


def test_flying_pixels_lie_between_both_sides_of_an_outline():
    truth = np.full((96, 96), 0.9, np.float32)
    truth[:, :48] = 0.5
    light = np.full((96, 96, 3), 0.3, np.float32)
    out = np.stack([sense_depth(np.random.default_rng(s), truth, light, only(depth_edges=2.0), 0.0) for s in range(20)])
    assert ((out >= 0.499) & (out <= 0.901)).all()
    between = (out > 0.52) & (out < 0.88)
    assert between[:, :, 44:52].mean() > 0.01
    assert not between[:, :, :36].any()
    assert white_noise(np.random.default_rng(0), (4, 4)).std() > 0


# ---------------------------------------------------------------------------------------------------------- backgrounds


def test_a_folder_of_photographs_is_put_behind_the_hands(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((400, 600, 3), (0, 0, 250), np.uint8))
    behind = Backgrounds(str(tmp_path)).draw(
        np.random.default_rng(0), (64, 64), variety=1.0, distractors=0.0, defocus=0.0
    )
    assert behind.shape == (64, 64, 3)
    assert (behind[..., 0] > 5 * behind[..., 1]).all()
    hands = source(only(background=1.0), backgrounds=str(tmp_path))
    corner = hands[0].rgb[:4, :4].reshape(-1, 3).mean(0)
    assert corner[0] > 2 * corner[1]
    np.testing.assert_array_equal(hands[3].rgb, source(only(background=1.0), backgrounds=str(tmp_path))[3].rgb)


def test_folders_that_hold_no_photographs_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        source(backgrounds=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no photographs"):
        source(backgrounds=str(tmp_path))
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        source(backgrounds=str(tmp_path))[0]


def test_without_variety_the_background_is_one_grey():
    behind = Backgrounds().draw(np.random.default_rng(0), (64, 64), variety=0.0, distractors=0.0, defocus=1.0)
    assert np.ptp(behind) < 1e-6
    assert isinstance(rasterize(np.zeros((3, 3)), np.array([[0, 1, 2]]), K, (4, 4)), Fragments)
