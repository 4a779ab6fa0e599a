"""HaMeR's weights give HaMeR's outputs; its demo's crop and camera are reproduced; depth starts without effect."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from support.networks import PUBLISHED_OUTPUTS as OUTPUTS
from utnet.checkpoint import import_hamer, load_checkpoint, save_checkpoint
from utnet.config import Config, CropConfig, ModelConfig
from utnet.data.transforms import crop, right_crop, to_right
from utnet.errors import InputError
from utnet.hand import HandModel
from utnet.model import UTNet
from utnet.model.hamer import entry_names
from utnet.placement import solve_translation
from utnet.types import Sample

GOLDEN = Path(__file__).parents[1] / "golden"
NOMINAL_F, BOX = 5000 / 256, (210.0, 90.0, 330.0, 310.0)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "hamer_small.npz") as data:
        return {name: data[name] for name in data.files}


@pytest.fixture
def state(golden):
    return {name[3:]: torch.from_numpy(np.array(golden[name])) for name in golden if name.startswith("sd/")}


@pytest.fixture
def model(state):
    return import_hamer(state, num_heads=4)


def deviations(model, golden):
    """Largest difference of each output, relative to max(1, |output|)."""
    with torch.inference_mode():
        out = model(torch.from_numpy(golden["rgb"]).float() / 255)
    pairs = {name: (getattr(out, ours), torch.from_numpy(golden[f"out/{name}"])) for name, ours in OUTPUTS.items()}
    return {name: float(((a - b).abs() / b.abs().clamp_min(1)).max()) for name, (a, b) in pairs.items()}


def test_outputs_are_hamers(model, golden):
    assert max(deviations(model, golden).values()) <= 2e-5
    assert model.config.decoder == tuple(int(golden[f"size/decoder_{n}"]) for n in ("dim", "depth", "heads", "mlp_dim"))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.encoder.blocks[1].attn, "num_heads", 8),
        lambda m: setattr(m.stem.patches, "padding", (0, 0)),
        lambda m: setattr(m.decoder.layers[1].attend_image.norm, "eps", 1e-2),
        lambda m: m.decoder.layers[0].attend_image.kv.weight.data.copy_(
            m.decoder.layers[0].attend_image.kv.weight.data.roll(192, 0)
        ),
        lambda m: m.decoder.mean_betas.add_(1e-3),
        lambda m: m.decoder.query.data.mul_(1.01),
    ],
    ids=["heads", "padding", "eps", "keys and values", "means", "query"],
)
def test_the_golden_numbers_notice_a_difference(model, golden, change):
    change(model)
    assert max(deviations(model, golden).values()) > 2e-5


def test_the_whole_network_has_hamers_entries_and_shapes():
    """Every entry of the published size has a place of its shape; the query is a sum of two of them."""
    rows = [line.split("\t") for line in (GOLDEN / "hamer_state_dict.tsv").read_text().splitlines()]
    shapes = {row[0]: tuple(int(n) for n in row[1].strip("()").split(",") if n.strip()) for row in rows}
    with torch.device("meta"):
        expected = UTNet(ModelConfig(preset="hamer", size_px=256), HandModel.open()).state_dict()
    names = entry_names(32, 6)
    assert set(names) == {
        name for name in shapes if not name.startswith(("mano.", "discriminator.")) and name != "initialized"
    }
    for theirs, ours in names.items():
        if theirs == "backbone.pos_embed":
            assert (1, expected[ours].shape[1] + 1, expected[ours].shape[2]) == shapes[theirs]
        elif ours in expected:
            assert math.prod(expected[ours].shape) == math.prod(shapes[theirs]), theirs
    own = {name.rsplit(".", 1)[0] for name in set(expected) - set(names.values())}
    assert own == {"stem", "stem.embed_depth.0", "stem.embed_depth.2", "root_head.offset"}


def test_it_is_saved_and_loaded_bit_for_bit_and_depth_starts_without_effect(model, golden, tmp_path):
    save_checkpoint(tmp_path / "hamer", model, Config(model=model.config))
    loaded, config = load_checkpoint(tmp_path / "hamer")
    assert config.model == model.config
    rgb = torch.from_numpy(golden["rgb"]).float() / 255
    with torch.inference_mode():
        plain = model(rgb)
        for depth in (torch.rand(3, 256, 256), torch.full((3, 256, 256), torch.nan)):
            for name in OUTPUTS.values():
                assert torch.equal(getattr(loaded(rgb, depth), name), getattr(plain, name)), name
    model(rgb, torch.rand(3, 256, 256)).joints_m.square().sum().backward()
    assert model.stem.embed_depth[2].weight.grad.abs().sum() > 0


def test_missing_and_unknown_entries_are_listed(state):
    del state["mano_head.decpose.bias"]
    state["mano_head.extra"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"HaMeR.*1 missing: mano_head\.decpose\.bias.*1 unknown: mano_head\.extra"):
        import_hamer(state, 4)


def test_a_wrong_shape_is_named(state):
    state["mano_head.transformer.pos_embedding"] = torch.zeros(1, 2, 40)
    with pytest.raises(InputError, match="pos_embedding"):
        import_hamer(state, 4)


def picture(side, width=640, height=480):
    rng = np.random.default_rng(0)
    rgb = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 2.0)
    none = np.full((21, 3), np.nan)
    zeros = np.zeros(21, np.float32)
    return Sample(
        "picture", rgb, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), side, np.array(BOX), none, zeros, zeros
    )


def hamers_crop(rgb, side, scale):
    """HaMeR's demo written out from its description, one pixel after the other: (256, 256, 3) float."""
    x0, y0, x1, y1 = (scale * value for value in BOX)
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    if side == "left":
        rgb, centre_x = rgb[:, ::-1], rgb.shape[1] - 1 - centre_x
    width, height = 2 * (x1 - x0), 2 * (y1 - y0)
    b = max(height, width * 256 / 192)
    rgb = rgb.astype(float)
    if b / 512 > 1.1:
        sigma = (b / 512 - 1) / 2
        taps = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
        kernel = np.exp(-(taps**2) / (2 * sigma**2))
        kernel /= kernel.sum()
        for axis in (0, 1):
            pad = [(0, 0)] * 3
            pad[axis] = (-taps[0], taps[-1])
            padded = np.pad(rgb, pad, mode="edge")
            size = rgb.shape[axis]
            rgb = sum(k * padded.take(range(i, i + size), axis) for i, k in enumerate(kernel))
    at = (np.arange(256) - 128) * b / 256
    u, v = np.meshgrid(at + centre_x, at + centre_y)
    padded = np.pad(rgb, ((1, 1), (1, 1), (0, 0)))
    i, j = (
        np.clip(np.floor(v), -1, rgb.shape[0] - 1).astype(int),
        np.clip(np.floor(u), -1, rgb.shape[1] - 1).astype(int),
    )
    inside = (u > -1) & (u < rgb.shape[1]) & (v > -1) & (v < rgb.shape[0])
    a, c = (u - j)[..., None], (v - i)[..., None]
    top = (1 - a) * padded[i + 1, j + 1] + a * padded[i + 1, j + 2]
    bottom = (1 - a) * padded[i + 2, j + 1] + a * padded[i + 2, j + 2]
    return np.where(inside[..., None], (1 - c) * top + c * bottom, 0)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_crop_is_the_demos(side, scale):
    """Without the blur OpenCV's warp rounds positions to 1/32 px and values to whole grey levels."""
    sample = picture(side, 640 * scale, 480 * scale)
    sample = Sample(**{**vars(sample), "box_px": scale * np.array(BOX)})
    config = CropConfig(expand=2.0, aspect=0.75, recipe="wilor")
    expected = hamers_crop(sample.rgb, side, scale)
    for cut in (crop(to_right(sample), 256, config), right_crop(sample, 256, config)):
        assert np.abs(cut.rgb - expected).max() <= 2.0
        assert np.abs(cut.rgb - expected).mean() <= 0.4
    plain = crop(to_right(sample), 256, CropConfig(expand=2.0, aspect=0.75))
    assert np.abs(plain.rgb - expected).mean() > 2 * np.abs(cut.rgb - expected).mean()


def test_the_full_pictures_camera_is_the_demos(model, golden):
    """With the demo's focal length the least-squares translation is its closed formula."""
    with torch.inference_mode():
        out = model(torch.from_numpy(golden["rgb"]).float() / 255)
    width, height = 640, 480
    F, b = NOMINAL_F * width, 2 * max((BOX[2] - BOX[0]) / 0.75, BOX[3] - BOX[1])
    K = np.array([[F, 0, width / 2], [0, F, height / 2], [0, 0, 1]])
    centre = np.array([(BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2])
    for joints, points, (s, tx, ty) in zip(
        out.joints_m.double().numpy(), out.joints_crop.double().numpy(), out.cam.double().tolist(), strict=True
    ):
        theirs = np.array([tx, ty, 2 * F / (b * s + 1e-9)])
        theirs[:2] += 2 * (centre - (width / 2, height / 2)) / (b * s + 1e-9)
        ours = solve_translation(joints, centre + points * b, K)
        assert np.abs(ours - theirs)[:2].max() <= 1e-4 * abs(theirs[2])
        assert np.abs(ours - theirs)[2] <= 0.005 * abs(theirs[2])
