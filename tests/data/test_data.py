"""Layouts, readers and the loader: official numbering, exact decoding, bad files by name, batches by the seed."""

from dataclasses import replace

import numpy as np
import pytest

from support.trees import dexycb_tree, ho3d_tree
from utnet.config import Config, ModelConfig, TrainConfig
from utnet.data import open_source
from utnet.data.collate import label_fault
from utnet.data.source import evenly_spaced, ground_truth_box
from utnet.errors import InputError
from utnet.io import layouts
from utnet.io.files import read_yaml

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
    mm = layouts.depth_mm_encode(depth) * layouts.DEPTH_MM_M
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
    with pytest.raises(InputError, match=r"extrinsics\.yml: not a safe YAML file"):
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


def test_depth_in_millimetres_is_a_fault_of_its_sample(dexycb):
    sample = dexycb[0]
    assert label_fault(sample) == ""
    assert label_fault(replace(sample, depth_m=sample.depth_m * 1000)).startswith(f"{sample.key}: the hand is at")
    z = np.median(sample.joints_cam_m[:, 2])
    wall = np.where(np.abs(sample.depth_m - z) < 0.2, sample.depth_m, 30.0).astype(np.float32)
    assert label_fault(replace(sample, depth_m=wall)) == ""  # a hand before something far away
    assert label_fault(replace(sample, depth_m=np.zeros_like(wall))) == ""


def test_a_wrong_name_or_folder_is_explained(tmp_path):
    with pytest.raises(InputError, match="dexycb, ho3d"):
        open_source("freihnad", tmp_path)
    for name in ("dexycb", "ho3d"):
        with pytest.raises(InputError, match="no such folder"):
            open_source(name, tmp_path / "none")
        with pytest.raises(InputError, match=r"no such file|has no folder calibration"):
            open_source(name, tmp_path)
