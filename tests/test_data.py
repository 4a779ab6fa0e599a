"""Layouts, readers and the loader: official numbering, exact decoding, bad files by name, batches by the seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trees import copy_of, dexycb_tree, ho3d_tree
from utnet import layouts
from utnet.config import Config, ModelConfig, TrainConfig
from utnet.data import open_source
from utnet.data.files import read_yaml
from utnet.data.loader import collate, make_loader
from utnet.data.source import evenly_spaced, ground_truth_box
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.geometry import project, px_to_crop
from utnet.synth.source import SyntheticHands

CONFIG = Config(model=ModelConfig(size_px=64), train=TrainConfig(batch_size=4, num_workers=0))


@pytest.fixture(scope="module")
def dexycb():
    return open_source("dexycb", dexycb_tree(), split="train")


@pytest.fixture(scope="module")
def ho3d():
    return open_source("ho3d", ho3d_tree(), split="train")


# -------------------------------------------------------------------------------------------------------------- layouts


def test_depth_survives_both_encodings():
    depth = np.array([[0.0, 0.001, 0.0331, 0.4567], [1.0, 2.5, 8.19, 70.0]], np.float32)
    mm = layouts.depth_mm_decode(layouts.depth_mm_encode(depth))
    np.testing.assert_allclose(mm[depth < 65], depth[depth < 65], atol=0.00051)
    encoded = layouts.ho3d_depth_encode(depth)
    assert encoded.dtype == np.uint8
    assert encoded[0, 3, 1] > 0  # more than one byte: multiplying before widening would overflow
    ho3d = layouts.ho3d_depth_decode(encoded)
    np.testing.assert_allclose(ho3d[depth < 8.2], depth[depth < 8.2], atol=0.00007)
    assert mm[1, 3] == 0
    assert ho3d[1, 3] == 0  # too far to be written: no reading, not a wrong one


def test_calibration_with_python_tuples_is_read_and_other_python_tags_are_not(tmp_path):
    path = tmp_path / "extrinsics.yml"
    path.write_text("master: '8'\nextrinsics: !!python/tuple [1.5, 2]\n")
    assert read_yaml(path, "master")["extrinsics"] == (1.5, 2)
    path.write_text("extrinsics: !!python/object/apply:os.system ['touch /tmp/never']\n")
    with pytest.raises(InputError, match=r"extrinsics\.yml: not a YAML file that can be read safely"):
        read_yaml(path)
    path.write_text("other: 1\n")
    with pytest.raises(InputError, match="has no key 'master'"):
        read_yaml(path, "master")


def test_limit_spreads_evenly():
    assert evenly_spaced(10, None).tolist() == list(range(10))
    assert evenly_spaced(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_spaced(3, 9).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="limit is 0"):
        evenly_spaced(3, 0)


def test_the_box_is_tight_and_stays_in_the_picture():
    K = np.array([[100.0, 0, 50], [0, 100.0, 40], [0, 0, 1]])
    joints = np.array([[0.0, 0.0, 1.0], [0.2, 0.1, 1.0], [3.0, 0.0, 1.0], [0.1, 0.0, -1.0]])
    assert ground_truth_box(joints, K, (100, 80)).tolist() == [50, 40, 99.5, 50]
    away = joints[:3] + [5, 5, 0]  # all of it out of view: nothing to clip to
    assert ground_truth_box(away, K, (100, 80)).tolist() == [550, 540, 850, 550]


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_wrong_name_or_folder_is_explained(tmp_path):
    with pytest.raises(InputError, match="dexycb, ho3d"):
        open_source("freihnad", tmp_path)
    for name in ("dexycb", "ho3d"):
        with pytest.raises(InputError, match="no such folder"):
            open_source(name, tmp_path / "none")
        with pytest.raises(InputError, match="no such file"):
            open_source(name, tmp_path)


# --------------------------------------------------------------------------------------------------------------- loader


def batches(source, num, config=CONFIG, **options):
    loader = make_loader(source, config, train=True, **options)
    return [batch for batch, _ in zip(loader, range(num), strict=False)], loader


def test_collate_holds_what_the_samples_hold(dexycb):
    samples = [crop(to_right(dexycb[i]), 64, CONFIG.crop) for i in (0, 7)]
    samples.append(replace(samples[0], depth_m=None, params=None))
    samples.append(replace(samples[1], hand_model="mano"))
    samples.append(replace(samples[1], betas_ok=False))
    behind = samples[0].joints_cam_m.copy()
    behind[5, 2] = -0.1
    samples.append(replace(samples[0], joints_cam_m=behind))
    batch = collate(samples)
    assert batch.rgb.dtype == torch.uint8
    for b, sample in enumerate(samples[:2]):
        np.testing.assert_array_equal(batch.rgb[b].permute(1, 2, 0), sample.rgb)
        expected = px_to_crop(project(sample.joints_cam_m, sample.K_px), 64)
        np.testing.assert_allclose(batch.joints_2d[b, :, :2], expected, atol=1e-5)
        np.testing.assert_allclose(batch.joints_3d[b, :, :3], sample.joints_cam_m, atol=1e-6)
        np.testing.assert_allclose(batch.params.transl_m[b], sample.params.transl_m, atol=1e-6)
        assert batch.joints_2d[b, :, :2].abs().max() < 0.5  # a crop of twice the box holds the whole hand
    assert batch.depth_ok.tolist() == [True, True, False, True, True, True]
    assert not batch.depth_m[2].any()
    assert batch.params_ok.tolist() == [True, True, False, False, True, True]
    assert batch.betas_ok.tolist() == [True, True, False, False, False, True]
    assert torch.equal(batch.params.hand_pose[2], torch.eye(3).expand(15, 3, 3))
    assert batch.joints_2d[5, 5, 2] == 0
    assert batch.joints_2d.isfinite().all()
    with pytest.raises(ValueError, match="left hand"):
        collate([replace(samples[0], side="left")])


def test_batches_depend_on_the_seed_and_not_on_the_workers(dexycb):
    alone, _ = batches(dexycb, 3)
    shared, _ = batches(dexycb, 3, replace(CONFIG, train=replace(CONFIG.train, num_workers=2)))
    other, _ = batches(dexycb, 3, replace(CONFIG, seed=1))
    for a, b in zip(alone, shared, strict=True):
        assert a.keys == b.keys
        for name in ("rgb", "depth_m", "joints_2d", "K_px"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert [a.keys for a in alone] != [b.keys for b in other]


def test_training_sees_every_sample_once_an_epoch_differently_each_time(ho3d):
    seen, _ = batches(ho3d, 3)  # 6 samples, batches of 4: two epochs
    keys = [key for batch in seen for key in batch.keys]
    crops = torch.cat([batch.K_px for batch in seen])
    assert len(ho3d) == 6
    assert set(keys[:6]) == set(keys[6:]) == {ho3d.key(i) for i in range(6)}
    assert not torch.equal(crops[keys.index(keys[0])], crops[6 + keys[6:].index(keys[0])])
    later, _ = batches(ho3d, 2, start=4)  # going on after one batch
    assert [batch.keys for batch in later] == [batch.keys for batch in seen[1:]]
    assert torch.equal(later[0].rgb, seen[1].rgb)


def test_evaluation_sees_every_sample_once_in_order_and_unchanged(ho3d):
    loader = make_loader(ho3d, CONFIG, train=False)
    first_pass, second_pass = list(loader), list(loader)
    assert [key for batch in first_pass for key in batch.keys] == [ho3d.key(i) for i in range(6)]
    assert len(loader) == len(first_pass) == 2
    for a, b in zip(first_pass, second_pass, strict=True):
        assert torch.equal(a.rgb, b.rgb)
    np.testing.assert_array_equal(first_pass[0].rgb[1].permute(1, 2, 0), crop(ho3d[1], 64, CONFIG.crop).rgb)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_samples_are_named_and_skipped_in_training_only(num_workers, tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    for path in sorted((root / "train").rglob("*.jpg"))[:2]:
        path.write_bytes(path.read_bytes()[:5000])
    source = open_source("ho3d", root, split="train")
    config = replace(CONFIG, train=replace(CONFIG.train, num_workers=num_workers, max_bad_samples=2))
    seen, loader = batches(source, 5, config)
    assert set(loader.bad) == {source.key(0), source.key(1)}
    assert all("cut off" in message and ".jpg" in message for message in loader.bad.values())
    assert {key for batch in seen for key in batch.keys} == {source.key(i) for i in range(2, 6)}
    with pytest.raises(InputError, match=r"2 of 6 samples cannot be read .* is 1.*cut off"):
        batches(source, 5, replace(config, train=replace(config.train, max_bad_samples=1)))
    with pytest.raises(InputError, match="cut off") as caught:
        list(make_loader(source, config, train=False))
    assert "\n" not in str(caught.value)


def test_training_stops_when_nothing_can_be_read(tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    for path in (root / "train").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(InputError, match="6 of 6 samples cannot be read"):
        batches(open_source("ho3d", root, split="train"), 3)


def test_the_endless_synthetic_source_is_taken_as_it_is():
    source = SyntheticHands(seed=2, size_px=64)
    (a, b), _ = batches(source, 2)
    assert a.keys + b.keys == tuple(source.key(i) for i in range(8))
    np.testing.assert_array_equal(a.rgb[2].permute(1, 2, 0), source[2].rgb)
    np.testing.assert_allclose(a.joints_3d[2, :, :3], source[2].joints_cam_m, atol=1e-6)
    assert a.params_ok.all()
    with pytest.raises(ValueError, match="64 px"):
        make_loader(source, replace(CONFIG, model=ModelConfig(size_px=96)), train=True)
