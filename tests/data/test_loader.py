"""The loader: what a batch holds, the same batches by the seed, every sample once, bad files by name; and streams."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from support.loaders import loader_of
from support.samples import sample_at, with_everything
from support.trees import copy_of, dexycb_tree, ho3d_tree
from support.waiting import PATIENCE_S
from utnet.config import AugmentConfig, Config, ModelConfig, TrainConfig
from utnet.data import loader as loader_module
from utnet.data import open_source
from utnet.data.collate import collate, label_fault
from utnet.data.crop_datasets import CropMaker
from utnet.data.source import BadSample
from utnet.data.transforms import crop, right_crop, to_right
from utnet.errors import InputError
from utnet.geometry import project, px_to_crop
from utnet.losses import UTNetLoss
from utnet.model import UTNet
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.source import SyntheticHands

CONFIG = Config(model=ModelConfig(size_px=64), train=TrainConfig(batch_size=4, num_workers=0))


def workers(num: int, config: Config = CONFIG) -> Config:
    return replace(config, train=replace(config.train, num_workers=num))


@pytest.fixture(scope="module")
def dexycb():
    return open_source("dexycb", dexycb_tree(), split="train")


@pytest.fixture(scope="module")
def ho3d():
    return open_source("ho3d", ho3d_tree(), split="train")


def batches(source, num, config=CONFIG, **options):
    loader = loader_of(source, config, train=True, **options)
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
    later, _ = batches(ho3d, 2, position={"drawn": 4})  # going on after one batch
    assert [batch.keys for batch in later] == [batch.keys for batch in seen[1:]]
    assert torch.equal(later[0].rgb, seen[1].rgb)


def test_evaluation_sees_every_sample_once_in_order_and_unchanged(ho3d):
    loader = loader_of(ho3d, CONFIG, train=False)
    first_pass, second_pass = list(loader), list(loader)
    assert [key for batch in first_pass for key in batch.keys] == [ho3d.key(i) for i in range(6)]
    assert len(loader) == len(first_pass) == 2
    for a, b in zip(first_pass, second_pass, strict=True):
        assert torch.equal(a.rgb, b.rgb)
    np.testing.assert_array_equal(first_pass[0].rgb[1].permute(1, 2, 0), crop(ho3d[1], 64, CONFIG.crop).rgb)
    shares = [loader_of(ho3d, CONFIG, train=False, rank=rank, world_size=4) for rank in range(4)]
    keys = [[key for batch in share for key in batch.keys] for share in shares]
    assert keys == [[ho3d.key(i) for i in range(rank, 6, 4)] for rank in range(4)]
    assert [len(share) for share in shares] == [1, 1, 1, 1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_samples_are_named_and_skipped_in_training_only(num_workers, tmp_path):
    root = copy_of(ho3d_tree(), tmp_path)
    for path in sorted((root / "train").rglob("*.jpg"))[:2]:
        path.write_bytes(path.read_bytes()[:5000])
    source = open_source("ho3d", root, split="train")
    config = replace(CONFIG, train=replace(CONFIG.train, num_workers=num_workers, max_bad_samples=2))
    seen, loader = batches(source, 5, config)
    assert set(loader.bad) == {source.key(0), source.key(1)}
    assert all("truncated" in message and ".jpg" in message for message in loader.bad.values())
    assert {key for batch in seen for key in batch.keys} == {source.key(i) for i in range(2, 6)}
    with pytest.raises(InputError, match=r"2 of 6 samples cannot be read .* is 1.*truncated"):
        batches(source, 5, replace(config, train=replace(config.train, max_bad_samples=1)))
    with pytest.raises(InputError, match="truncated") as caught:
        list(loader_of(source, config, train=False))
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
    with pytest.raises(ValueError, match="a ready crop of 64 px, the model takes 96 px"):
        batches(source, 1, replace(CONFIG, model=ModelConfig(size_px=96)))
    changed, _ = batches(source, 1, replace(CONFIG, augment=AugmentConfig(crops=True)))
    assert not torch.equal(changed[0].rgb, a.rgb)
    assert torch.equal(changed[0].joints_2d, a.joints_2d)


# ------------------------------------------------------------------------------------------------ depth that is dropped


def dropping(p_drop, num_workers=0, batch_size=4, seed=0):
    return Config(
        seed=seed,
        model=ModelConfig(size_px=64, p_drop=p_drop),
        train=TrainConfig(batch_size=batch_size, num_workers=num_workers),
    )


def depth_of(batches_seen) -> list[tuple[str, bool]]:
    return [pair for batch in batches_seen for pair in zip(batch.keys, batch.depth_ok.tolist(), strict=True)]


def test_the_same_samples_lose_their_depth_whatever_the_workers_batches_and_processes(dexycb):
    alone = depth_of(batches(dexycb, 12, dropping(0.4))[0])
    assert len(alone) == 48
    assert {ok for _, ok in alone} == {True, False}
    assert depth_of(batches(dexycb, 12, dropping(0.4, num_workers=2))[0]) == alone
    assert depth_of(batches(dexycb, 8, dropping(0.4, batch_size=6))[0]) == alone
    shares = [batches(dexycb, 6, dropping(0.4), rank=rank, world_size=2)[0] for rank in range(2)]
    turns = [depth_of(share) for share in shares]
    assert [pair for both in zip(*turns, strict=True) for pair in both] == alone
    assert [ok for _, ok in depth_of(batches(dexycb, 12, dropping(0.4, seed=1))[0])] != [ok for _, ok in alone]


def test_losing_its_depth_changes_nothing_else_of_a_sample(dexycb):
    (kept,), (dropped,) = (batches(dexycb, 1, dropping(p, batch_size=16))[0] for p in (0.0, 1.0))
    assert kept.depth_ok.all()
    assert not dropped.depth_ok.any()
    assert not dropped.depth_m.any()
    for name in ("rgb", "joints_2d", "joints_3d", "K_px"):
        assert torch.equal(getattr(kept, name), getattr(dropped, name)), name


def test_the_share_without_depth_is_p_drop_and_differs_from_epoch_to_epoch():
    crops = CropMaker(64, CONFIG.crop, None, 0, 0.4)
    lost = np.array([[crops._drops(epoch, number) for number in range(500)] for epoch in range(4)])
    assert np.abs(lost.mean(1) - 0.4).max() < 0.07
    assert 0.42 < (lost[0] != lost[1]).mean() < 0.54  # 2 * 0.4 * 0.6 where they are independent


def test_ready_crops_lose_their_depth_too_and_evaluation_keeps_it():
    source = SyntheticHands(seed=2, size_px=64, num=8)
    assert not any(ok for _, ok in depth_of(batches(source, 2, dropping(1.0))[0]))
    assert all(ok for _, ok in depth_of(loader_of(source, dropping(1.0), train=False)))


# ----------------------------------------------------------------------------------------------- labels that are absent


def test_labels_of_the_picture_go_first_and_absent_ones_count_nothing():
    plain, full = sample_at(1), with_everything(sample_at(1), K_px=False)
    a, b = (right_crop(sample, 64, CONFIG.crop) for sample in (plain, full))
    batch = collate([a, b])
    assert batch.K_px[0].isfinite().all()
    assert batch.K_px[1].isnan().all()
    assert batch.joints_2d.isfinite().all()
    assert batch.joints_3d.isfinite().all()
    assert batch.joints_2d[1, :, 2].tolist() == [0.0 if joint == 9 else 1.0 for joint in range(21)]
    assert batch.joints_3d[1, :, 3].tolist() == [0.0 if joint == 5 else 1.0 for joint in range(21)]
    rest = torch.arange(21) != 9
    torch.testing.assert_close(batch.joints_2d[1, rest], batch.joints_2d[0, rest])
    moved = replace(b, joints_px=b.joints_px + 3, K_px=a.K_px)  # labelled points win over projected ones
    torch.testing.assert_close(
        collate([moved]).joints_2d[0, rest, :2], batch.joints_2d[0, rest, :2] + 3 / 64, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("root_id", "joint", "counts"), [(0, 0, False), (9, 9, False), (9, 0, False), (0, 9, True)])
def test_without_a_labelled_root_no_joint_counts_in_3d(root_id, joint, counts):
    sample = right_crop(sample_at(2), 64, CONFIG.crop)
    joints, conf = sample.joints_cam_m.copy(), np.ones(21, np.float32)
    joints[joint], conf[joint] = np.nan, 0
    batch = collate([replace(sample, joints_cam_m=joints, joints_3d_conf=conf)], root_id=root_id)
    assert bool((batch.joints_3d[0, :, 3] > 0).any()) == counts
    assert batch.joints_3d.isfinite().all()


def test_absent_labels_put_no_nan_into_losses_or_gradients():
    full = with_everything(sample_at(3), K_px=False)
    nothing = np.zeros(21, np.float32)
    only_2d = replace(full, joints_cam_m=np.full((21, 3), np.nan), joints_3d_conf=nothing, params=None)
    batch = collate([right_crop(s, 64, CONFIG.crop) for s in (sample_at(3), full, only_2d)])
    model = UTNet(CONFIG.model).train()
    loss = UTNetLoss(w_joint_map=1.0, w_joint_heat=1.0, w_betas=1.0, w_hand_pose=1.0)
    terms = loss(model.forward_batch(batch), batch)
    assert all(value.isfinite() for value in terms.values())
    terms["total_loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    alone = model.eval().forward_batch(batch).joints_m
    assert alone.isfinite().all()  # depth of a sample without a camera is used all the same


def test_a_rotation_of_too_many_turns_is_a_bad_sample():
    sample = sample_at(0)
    for angle in (1e17, 1e300):
        with np.errstate(over="ignore", invalid="ignore"):
            R = axis_angle_to_matrix(np.array([[angle, 0.0, 0.0]]))
        turned = replace(sample, params=replace(sample.params, global_orient=R))
        assert ("a rotation is not finite" in label_fault(turned)) == (angle == 1e300)


def test_a_label_that_is_not_a_number_is_a_bad_sample():
    class Broken:
        name, tips, counts = "broken", "", {}

        def __len__(self):
            return 2

        def key(self, index):
            return f"broken/{index}"

        def __getitem__(self, index):
            sample = replace(sample_at(index), key=self.key(index))
            if index:
                sample.joints_cam_m[3] = np.nan
            return sample

    seen, loader = batches(Broken(), 2)
    assert {key for batch in seen for key in batch.keys} == {"broken/0"}
    assert loader.bad == {"broken/1": "broken/1: a labelled joint is not finite; mend or leave out the label"}


# ------------------------------------------------------------------------------------------------------------ processes


def test_processes_share_an_epoch_and_a_step_is_one_large_batch(dexycb):
    """Three processes of batch 4 see, step by step, what one process of batch 12 sees."""
    shares = [batches(dexycb, 4, rank=rank, world_size=3)[0] for rank in range(3)]
    (whole, _) = batches(dexycb, 4, replace(CONFIG, train=replace(CONFIG.train, batch_size=12)))
    for step, batch in enumerate(whole):
        for rank, share in enumerate(shares):
            assert share[step].keys == batch.keys[rank::3]
            assert torch.equal(share[step].rgb, batch.rgb[rank::3])
    later = [batches(dexycb, 2, rank=rank, world_size=3, position={"drawn": 8})[0] for rank in range(3)]
    assert [[b.keys for b in share] for share in later] == [[b.keys for b in share[2:]] for share in shares]


def test_a_batch_can_be_pinned():
    """torch's loader looks for this method; without it a batch would silently stay as it is."""
    batch = collate([right_crop(sample_at(1), 64, CONFIG.crop)])
    seen = []
    fake = torch.Tensor.pin_memory
    try:
        torch.Tensor.pin_memory = lambda self: seen.append(self.shape) or self
        assert torch.equal(batch.pin_memory().rgb, batch.rgb)
    finally:
        torch.Tensor.pin_memory = fake
    assert len(seen) == 13


KEPT = []


def signal_workers(source, config):
    """For a process of its own: its workers get SIGTERM, go on all the same, and end with it."""
    loader = loader_of(source, config, train=True)
    seen = iter(loader)
    next(seen)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
    for _ in range(8):
        next(seen)
    assert all(worker.is_alive() for worker in workers)
    KEPT.append(seen)  # so that nothing but the process's end ends them


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_workers_pass_over_sigterm_and_end_with_their_process(ho3d):
    process = multiprocessing.get_context("fork").Process(target=signal_workers, args=(ho3d, workers(2)))
    process.start()
    process.join(PATIENCE_S)
    alive = process.is_alive()
    process.kill()
    assert not alive, "its workers hold it back"
    assert process.exitcode == 0


def start_workers_under_sigterm(source, config):
    """For a process of its own: SIGTERM reaches each worker right after the fork, and again just before its setup."""

    def interrupted_init(number):
        os.kill(os.getpid(), signal.SIGTERM)
        init_worker(number)

    init_worker, loader_module.init_worker = loader_module.init_worker, interrupted_init
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
    seen = iter(loader_of(source, config, train=True))
    for _ in range(4):
        next(seen)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    again = iter(loader_of(source, config, train=True))  # as after every validation
    next(again)
    assert len(multiprocessing.active_children()) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_sigterm_before_a_worker_is_set_up_does_not_kill_it(ho3d):
    process = multiprocessing.get_context("fork").Process(target=start_workers_under_sigterm, args=(ho3d, workers(2)))
    process.start()
    process.join(PATIENCE_S)
    process.kill()
    assert process.exitcode == 0


# -------------------------------------------------------------------------------------------------------------- streams


class Stream:
    """Fourteen hands, three of them unreadable, in an order of (seed, epoch)."""

    name, tips = "stream", ""

    def __init__(self, bad: tuple[int, ...] = (3, 7, 11), fails: bool = False):
        self.bad, self.fails = bad, fails

    def stream(self, *, seed: int, epoch: int, part: int, num_parts: int):
        if self.fails:
            raise InputError("stream-000.tar: no such file; check the URL")
        order = np.random.default_rng((seed, epoch)).permutation(14)
        for i in order[part::num_parts].tolist():
            key = f"stream/{i}"
            yield BadSample(key, f"{key}: cut off") if i in self.bad else replace(sample_at(i), key=key)


GOOD = {f"stream/{i}" for i in range(14)} - {"stream/3", "stream/7", "stream/11"}


def by_key(batches_seen) -> dict[str, list[torch.Tensor]]:
    """Each sample's crops, in the order in which they came."""
    rows: dict[str, list[torch.Tensor]] = {}
    for batch in batches_seen:
        for key, row in zip(batch.keys, batch.rgb, strict=True):
            rows.setdefault(key, []).append(row)
    return rows


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_is_read_once_for_evaluation(num_workers):
    loader = loader_of(Stream(bad=()), workers(num_workers), train=False)
    for _ in range(2):
        keys = [key for batch in loader for key in batch.keys]
        assert sorted(keys) == sorted(f"stream/{i}" for i in range(14))
    with pytest.raises(TypeError, match="stream is read in passing: its length is not known"):
        len(loader)
    shares = [loader_of(Stream(bad=()), workers(num_workers), train=False, rank=r, world_size=3) for r in range(3)]
    keys = [key for share in shares for batch in share for key in batch.keys]
    assert sorted(keys) == sorted(f"stream/{i}" for i in range(14))
    with pytest.raises(InputError, match=r"stream/\d+: cut off \(evaluation counts") as caught:
        list(loader_of(Stream(), workers(num_workers), train=False))
    assert "\n" not in str(caught.value)


def test_samples_of_a_stream_depend_on_the_seed_and_not_on_workers_or_processes():
    alone, loader = batches(Stream(), 4)  # one epoch and a little
    assert {key for batch in alone for key in batch.keys} == GOOD
    assert set(loader.bad) == {"stream/3", "stream/7", "stream/11"}
    split = [batches(Stream(), 4, workers(2), rank=rank, world_size=2)[0] for rank in range(2)]
    first, other = by_key(alone), by_key([batch for share in split for batch in share])
    assert set(other) == GOOD
    for key, rows in other.items():  # the first pass's crop is among them, whichever worker made it
        assert any(torch.equal(first[key][0], row) for row in rows), key
    reseeded = by_key(batches(Stream(), 4, replace(CONFIG, seed=1))[0])
    assert not any(torch.equal(first[key][0], reseeded[key][0]) for key in first)
    later = by_key(batches(Stream(), 4, workers(2), position=loader.position)[0])  # going on: another pass, other draws
    assert not any(torch.equal(first[key][0], later[key][0]) for key in first)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_that_gives_nothing_ends_with_an_error_of_one_line(num_workers):
    config = workers(num_workers)
    with pytest.raises(InputError, match=r"^stream-000\.tar: no such file; check the URL$"):
        batches(Stream(fails=True), 1, config)
    with pytest.raises(InputError, match=r"^stream: no sample can be read; the last: stream/\d+: cut off$"):
        batches(Stream(bad=tuple(range(14))), 1, config)
    few = replace(config, train=replace(config.train, max_bad_samples=2))
    with pytest.raises(InputError, match=r"^3 samples cannot be read \(train.max_bad_samples is 2\)"):
        batches(Stream(), 9, few)
