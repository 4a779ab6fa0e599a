"""Training tars and mixtures: HaMeR's layout label by label, hostile and damaged files, parts, shares."""

import functools
import http.server
import io
import itertools
import os
import pickle
import re
import shutil
import sys
import tarfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.laws import assert_labels_agree
from support.loaders import loader_of
from utnet.config import Config, CropConfig, DataConfig, ModelConfig, TrainConfig
from utnet.data import open_source
from utnet.data.mixture import Mixture
from utnet.data.source import BadSample
from utnet.data.sources import fingerprint, open_data, open_validation
from utnet.data.tars.tar_streams import expand_root
from utnet.data.tars.tars_reader import Tars, parse_hands
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.geometry import box_of
from utnet.hand import HandModel
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.source import SyntheticHands
from utnet.synth.write_tars import write_tars
from utnet.types import Sample

NUM = 12
NUM_HANDS = 14
"""Every fifth picture has a second hand, labelled in 2D only."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tars") / "train"
    write_tars(root, num=NUM, seed=3, per_tar=5, progress=False)
    return root


@pytest.fixture(scope="module")
def raw(tree):
    """The dicts of data.pyd by sample key, unpickled by Python itself, and the pictures."""
    labels, pictures = {}, {}
    for path in sorted(tree.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, data = f"{path.stem}/{member.name.split('.')[0]}", tar.extractfile(member).read()
                if member.name.endswith(".pyd"):
                    labels |= {f"{key}/{i}": hand for i, hand in enumerate(pickle.loads(data))}
                else:
                    pictures[key] = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return labels, pictures


def one_pass(source, *, seed=0, epoch=0, num_parts=1):
    parts = [list(source.stream(seed=seed, epoch=epoch, part=p, num_parts=num_parts)) for p in range(num_parts)]
    return parts


def keys_of(items):
    return [item.key for item in items]


def edit(tree, tmp_path, change):
    """A copy of the first tar whose members went through `change(name, data)`; None leaves one out."""
    copy = tmp_path / "edited.tar"
    with tarfile.open(tree / "000000.tar") as old, tarfile.open(copy, "w") as new:
        for member in old:
            data = change(member.name, old.extractfile(member).read())
            if data is not None:
                info = tarfile.TarInfo(member.name)
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    return copy


# --------------------------------------------------------------------------------------------------------------- labels


def test_every_hand_is_what_its_dict_says(tree, raw):
    labels, pictures = raw
    source = open_source("tars", tree)
    (items,) = one_pass(source)
    assert source.tips == "smplx"
    assert sorted(keys_of(items)) == sorted(labels)
    assert len(items) == NUM_HANDS
    for sample in items:
        hand = labels[sample.key]
        np.testing.assert_array_equal(sample.rgb, pictures[sample.key.rpartition("/")[0]])
        assert sample.side == ("right" if hand["right"] else "left")
        assert sample.K_px is None
        seen = hand["keypoints_2d"][:, 2] > 0
        np.testing.assert_array_equal(sample.joints_px[seen], hand["keypoints_2d"][seen, :2])
        assert np.isnan(sample.joints_px[~seen]).all()
        np.testing.assert_array_equal(sample.joints_2d_conf, hand["keypoints_2d"][:, 2])
        np.testing.assert_array_equal(sample.joints_3d_conf, hand["keypoints_3d"][:, 3])
        inside = np.clip(box_of(hand["keypoints_2d"][seen, :2]), -0.5, [479.5, 359.5, 479.5, 359.5])
        np.testing.assert_allclose(sample.box_px, inside)
        assert sample.betas_ok == bool(hand["has_betas"])
        if hand["has_hand_pose"]:
            np.testing.assert_array_equal(sample.joints_cam_m, hand["keypoints_3d"][:, :3])
            matrices = axis_angle_to_matrix(hand["hand_pose"].reshape(16, 3).astype(float))
            np.testing.assert_allclose(
                np.concatenate([sample.params.global_orient, sample.params.hand_pose]), matrices, atol=1e-6
            )
            assert np.isnan(sample.params.transl_m).all()
        else:
            assert sample.params is None
            assert np.isnan(sample.joints_cam_m).all()


def test_pose_and_joints_say_the_same_before_and_after_every_transform(tree):
    hands = {side: HandModel.open(side) for side in ("right", "left")}
    config, seen = CropConfig(rotation_jitter_deg=180.0), set()
    for sample in one_pass(Tars(tree))[0]:
        if sample.params is None:
            continue
        seen.add(sample.side)
        rng = np.random.default_rng(1)
        right = to_right(sample)
        for moved in (sample, right, crop(right, 128, config, rng)):
            assert_labels_agree(moved, hands[sample.side])
    assert seen == {"right", "left"}


def test_a_left_hand_is_mirrored_as_hamer_mirrors_it(tree, raw):
    labels, pictures = raw
    lefts = [s for s in one_pass(Tars(tree))[0] if s.side == "left" and s.params is not None]
    assert len(lefts) >= 4
    for sample in lefts:
        hand, right = labels[sample.key], to_right(sample)
        width = sample.rgb.shape[1]
        # hamer/datasets/utils.py: fliplr_keypoints (x -> width - x - 1; for 3D width is 1), fliplr_params.
        np.testing.assert_allclose(right.joints_px[:, 0], width - hand["keypoints_2d"][:, 0] - 1, atol=1e-9)
        np.testing.assert_allclose(right.joints_cam_m, hand["keypoints_3d"][:, :3] * [-1, 1, 1], atol=1e-9)
        flipped = hand["hand_pose"].reshape(16, 3).astype(float) * [1, -1, -1]
        np.testing.assert_allclose(right.params.global_orient, axis_angle_to_matrix(flipped[:1]), atol=1e-6)
        np.testing.assert_allclose(right.params.hand_pose, axis_angle_to_matrix(flipped[1:]), atol=1e-6)
        np.testing.assert_array_equal(right.rgb, pictures[sample.key.rpartition("/")[0]][:, ::-1])
        assert (right.side, right.K_px) == ("right", None)


def test_the_tars_own_box_is_halved_and_scale_may_be_one_number(tree, tmp_path):
    def one_scale(name, data):
        if not name.endswith(".pyd"):
            return data
        hands = pickle.loads(data)
        return pickle.dumps([hand | {"scale": np.float32(0.75), "center": np.array([200.0, 100.0])} for hand in hands])

    source = Tars(edit(tree, tmp_path, one_scale), box="tar")
    for sample in one_pass(source)[0]:
        np.testing.assert_allclose(sample.box_px, [200 - 37.5, 100 - 37.5, 200 + 37.5, 100 + 37.5])


def test_sides_and_limit(tree):
    (rights,) = one_pass(Tars(tree, sides="right"))
    assert {sample.side for sample in rights} == {"right"}
    first = [f"000000/{i:08d}/0" for i in range(4)]
    for num_parts in (1, 2, 3):
        for epoch in (0, 1):  # always the same hands, each in one part
            parts = one_pass(Tars(tree, limit=4), epoch=epoch, num_parts=num_parts)
            assert sorted(key for items in parts for key in keys_of(items)) == first


# ---------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("num_parts", [1, 2, 3, 4, 7])  # three tars: dealt whole up to three parts
def test_the_parts_together_give_every_hand_once(tree, raw, num_parts):
    parts = one_pass(Tars(tree), num_parts=num_parts)
    assert sorted(key for items in parts for key in keys_of(items)) == sorted(raw[0])


def test_order_depends_on_seed_and_epoch_alone(tree):
    source = Tars(tree)
    orders = {
        (seed, epoch): keys_of(one_pass(source, seed=seed, epoch=epoch)[0]) for seed in (0, 1) for epoch in (0, 1)
    }
    assert orders[0, 0] == keys_of(one_pass(Tars(tree))[0])
    assert len({tuple(order) for order in orders.values()}) == 4


# ---------------------------------------------------------------------------------------------------------------- roots


@pytest.fixture(scope="module")
def server(tree):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tree)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_root_may_be_a_file_a_folder_a_glob_braces_a_command_or_a_url(tree, server, raw, monkeypatch):
    everything = sorted(raw[0])
    roots = [tree, f"{tree}/*.tar", f"{tree}/{{000000..000002}}.tar", f"file:{tree}/00000{{0,1,2}}.tar"]
    roots += [f"pipe:cat {tree}/{{000000..000002}}.tar"]
    if shutil.which("curl"):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        roots += [f"{server}/{{000000..000002}}.tar"]
    for root in roots:
        (items,) = one_pass(Tars(root))
        assert not [item for item in items if isinstance(item, BadSample)], root
        assert sorted(keys_of(items)) == everything, root
    assert Tars("s3://bucket/a b/{0..1}.tar").urls[1] == "pipe:aws s3 cp 's3://bucket/a b/1.tar' -"


def test_in_a_command_only_ranges_of_numbers_are_expanded():
    for command, expected in {
        "cat {08..10}.tar": ["cat 08.tar", "cat 09.tar", "cat 10.tar"],
        "cat {8..10}.tar": ["cat 8.tar", "cat 9.tar", "cat 10.tar"],
        "cat {2..1}-{0..1}.tar": [f"cat {a}-{b}.tar" for a in (2, 1) for b in (0, 1)],
        "cat ${DIR}/{a,b}.tar | awk '{print}' {": ["cat ${DIR}/{a,b}.tar | awk '{print}' {"],
        "cat ${DIR:-{1,2}}/{1..2}.tar": ["cat ${DIR:-{1,2}}/1.tar", "cat ${DIR:-{1,2}}/2.tar"],
    }.items():
        assert expand_root(f"pipe:{command}") == [f"pipe:{each}" for each in expected]


def test_a_wrong_root_is_explained(tree, tmp_path):
    for root, message in {
        tree / "no.tar": "no such file",
        f"{tree}/{{000000..000003}}.tar": r"000003\.tar: no such file",
        f"{tree}/*.tgz": "no tar matches",
        tmp_path: "no tar matches",
        "gopher://x/y.tar": "cannot be opened",
        f"{tree}/{{0.tar": "no such file|braces",
    }.items():
        with pytest.raises(InputError, match=message):
            Tars(root)
    with pytest.raises(InputError, match=r"no option 'split'"):
        open_source("tars", tree, split="train")
    (items,) = one_pass(Tars("pipe:exit 3"))
    assert [type(item) for item in items] == [BadSample]
    (items,) = one_pass(Tars(f"pipe:cat {tree}/000000.tar; exit 3"))
    assert sum(isinstance(item, Sample) for item in items) == 6
    assert next(item.message for item in items if isinstance(item, BadSample)).startswith("pipe:cat")


def test_no_file_name_passes_for_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipe:touch never.tar").write_bytes(b"")
    for root in (".", "*.tar"):
        list(Tars(root).stream(seed=0, epoch=0, part=0, num_parts=1))
    assert sorted(os.listdir()) == ["pipe:touch never.tar"]


def test_without_webdataset_the_remedy_is_named(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(InputError, match=r"pip install 'utnet\[train\]'"):
        Tars(tree)


# --------------------------------------------------------------------------------------------------------------- faults


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_is_refused_without_running_and_the_rest_is_read(tree, tmp_path):
    ran = tmp_path / "ran"

    def poison(name, data):
        hand = pickle.loads(data)[0] if name == "00000001.data.pyd" else None
        return data if hand is None else pickle.dumps([hand | {"extra_info": Evil(ran)}])

    (items,) = one_pass(Tars(edit(tree, tmp_path, poison)))
    bad = [item for item in items if isinstance(item, BadSample)]
    assert [item.key for item in bad] == ["edited/00000001"]
    assert "edited.tar: 00000001.data.pyd: refused" in bad[0].message
    assert "system" in bad[0].message
    assert sorted(keys_of(items))[0] == "edited/00000000/0"
    assert len(items) == 6
    assert not ran.exists()
    pickle.loads(pickle.dumps(Evil(ran)))  # the same bytes do run in Python's own reader
    assert ran.exists()


def relabelled(**changes):
    return lambda data: pickle.dumps([hand | changes for hand in pickle.loads(data)])


def without(name):
    return lambda data: pickle.dumps([{k: v for k, v in hand.items() if k != name} for hand in pickle.loads(data)])


NAN_POINTS = np.concatenate([np.full((21, 2), np.nan), np.ones((21, 1))], 1)
DAMAGE = {
    "cut off picture": (".jpg", lambda data: data[:3000], "truncated"),
    "no picture": (".jpg", lambda data: b"", "not an image"),
    "cut off pickle": (".data.pyd", lambda data: data[:200], "truncated"),
    "not a list": (".data.pyd", lambda data: pickle.dumps({"a": 1}), "not a list of dicts"),
    "missing labels": (".data.pyd", lambda data: None, r"has no data\.pyd"),
    "missing picture": (".jpg", lambda data: None, "has no picture"),
    "no points": (".data.pyd", without("keypoints_2d"), "has no 'keypoints_2d'"),
    "NaN points": (".data.pyd", relabelled(keypoints_2d=NAN_POINTS), "keypoints_2d of a labelled joint is NaN"),
    "NaN pose": (".data.pyd", relabelled(hand_pose=np.full(48, np.nan)), "hand_pose or betas is NaN"),
    "short pose": (".data.pyd", relabelled(hand_pose=np.zeros(45)), r"hand_pose has shape \(45,\), expected \(48,\)"),
    "text": (".data.pyd", relabelled(right="yes"), "right is not a number"),
    "no box": (".data.pyd", relabelled(keypoints_2d=np.zeros((21, 3)), scale=np.zeros(2)), "are no box"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_member_is_named_and_the_others_are_read(what, tree, tmp_path):
    ending, damage, message = DAMAGE[what]
    path = edit(tree, tmp_path, lambda name, data: damage(data) if name == f"00000002{ending}" else data)
    (items,) = one_pass(Tars(path))
    (bad,) = [item for item in items if isinstance(item, BadSample)]
    assert bad.message.startswith(f"{path}: 00000002")
    assert "\n" not in bad.message
    assert re.search(message, bad.message)
    assert len(items) == 6


@pytest.mark.parametrize("place", ["in a member", "in a header", "between members", "before the end mark"])
@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_cut_off_tar_gives_what_it_has_and_is_named_once(place, num_parts, tree, tmp_path):
    with tarfile.open(tree / "000000.tar") as tar:
        third, last = tar.getmember("00000002.jpg"), tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    size = {"in a member": third.offset_data + 900, "in a header": third.offset + 100, "between members": third.offset}
    path = tmp_path / "cut.tar"
    path.write_bytes((tree / "000000.tar").read_bytes()[: size.get(place, end)])
    items = [item for part in one_pass(Tars(path), num_parts=num_parts) for item in part]
    bad = [item for item in items if isinstance(item, BadSample)]
    assert len(bad) == 1
    assert bad[0].key == "cut"
    assert bad[0].message.startswith(f"{path}: cannot be read to its end")
    assert len(items) - 1 == (6 if place == "before the end mark" else 2)


def test_a_compressed_tar_is_read_too(tree, tmp_path, raw):
    with tarfile.open(tmp_path / "000000.tar", "w:gz") as new, tarfile.open(tree / "000000.tar") as old:
        for member in old:
            new.addfile(member, old.extractfile(member))
    (items,) = one_pass(Tars(tmp_path))
    assert all(isinstance(item, Sample) for item in items)
    assert len(items) == 6


def test_parsing_labels_needs_a_list_of_dicts():
    assert parse_hands(pickle.dumps([{"right": np.array(1.0)}]), "here")[0]["right"] == 1
    with pytest.raises(InputError, match="here: not a list"):
        parse_hands(pickle.dumps([1]), "here")


# ------------------------------------------------------------------------------------------------------------- mixtures


class Numbers:
    """Map-style: sample i is a copy of one sample with its own key; some cannot be read."""

    tips = "smplx"

    def __init__(self, name, num, sample, bad=()):
        self.name, self._num, self._sample, self._bad = name, num, sample, bad

    def __len__(self):
        return self._num

    def key(self, index):
        return str(index)

    def __getitem__(self, index):
        if index in self._bad:
            raise InputError(f"{index} is broken")
        return Sample(**{**self._sample.__dict__, "key": str(index)})


@pytest.fixture(scope="module")
def sample(tree):
    return next(iter(Tars(tree).stream(seed=0, epoch=0, part=0, num_parts=1)))


def draw(mixture, num, **options):
    stream = mixture.stream(**{"seed": 0, "epoch": 0, "part": 0, "num_parts": 1} | options)
    return [item for item, _ in zip(stream, range(num), strict=False)]


def test_shares_of_a_mixture_are_its_weights(sample, tree):
    num, weights = 6000, np.array([0.2, 0.1, 0.7])
    parts = [Numbers("a", 50, sample), Numbers("b", 3000, sample), Numbers("a", 7, sample)]
    drawn = keys_of(draw(Mixture(list(zip(parts, weights * 5, strict=True))), num))
    counts = np.array([sum(key.startswith(prefix) for key in drawn) for prefix in ("0-a/", "1-b/", "2-a/")])
    assert counts.sum() == num
    assert (np.abs(counts - num * weights) < 4 * np.sqrt(num * weights * (1 - weights))).all()
    assert len(set(drawn[:100])) > 25


def test_a_mixture_goes_through_each_part_before_it_comes_again(sample, tree):
    mixture = Mixture([(Numbers("map", 40, sample), 1.0), (Tars(tree), 1.0)])
    drawn = keys_of(draw(mixture, 400))
    for prefix, num in (("0-map/", 40), ("1-tars/", NUM_HANDS)):
        own = [key for key in drawn if key.startswith(prefix)]
        epochs = [own[i : i + num] for i in range(0, len(own) - num + 1, num)]
        assert len(epochs) >= 3
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
        assert {frozenset(epoch) for epoch in epochs} == {frozenset(own)}
    assert keys_of(draw(mixture, 50)) == drawn[:50]
    assert keys_of(draw(mixture, 50, seed=1)) != drawn[:50]


def test_loader_parts_of_a_mixture_share_a_map_style_source_without_overlap(sample):
    mixture = Mixture([(Numbers("a", 60, sample), 1.0)])
    shares = [set(keys_of(draw(mixture, 20, part=part, num_parts=3))) for part in range(3)]
    assert [len(share) for share in shares] == [20, 20, 20]
    assert len(set.union(*shares)) == 60
    tiny = Mixture([(Numbers("a", 2, sample), 1.0)])  # fewer samples than parts: each part goes through all
    assert all(set(keys_of(draw(tiny, 8, part=part, num_parts=5))) for part in range(5))


def test_bad_samples_of_a_mixture_are_passed_on_and_an_empty_part_ends_it(sample):
    drawn = draw(Mixture([(Numbers("a", 4, sample, bad=[2]), 1.0)]), 8)
    bad = {item.key: item.message for item in drawn if isinstance(item, BadSample)}
    assert bad == {"0-a/2": "2 is broken"}
    assert sum(isinstance(item, Sample) for item in drawn) == 6
    with pytest.raises(InputError, match=r"1-b of the mixture gives no sample .*broken"):
        draw(Mixture([(Numbers("a", 4, sample), 1.0), (Numbers("b", 2, sample, bad=[0, 1]), 1.0)]), 99)
    with pytest.raises(InputError, match="above 0"):
        Mixture([(Numbers("a", 4, sample), 0.0)])


def test_parts_read_in_passing_share_one_buffer(sample, tree):
    few = Mixture([(Tars(tree), 1.0), (Numbers("a", 4, sample), 1.0)], buffer_bytes=100)
    many = Mixture([(Tars(tree), 1.0)] * 14 + [(Numbers("a", 4, sample), 1.0)], buffer_bytes=1400)
    assert (few.buffer_bytes, many.buffer_bytes) == (100, 100)
    assert Mixture([(Numbers("a", 4, sample), 1.0)]).buffer_bytes > 0
    assert 14 * Mixture([(Tars(tree), 1.0)] * 14).buffer_bytes <= 2**28
    in_order = [call().key for call in Tars(tree).calls(seed=0, epoch=0, part=0, num_parts=1, buffer_bytes=0)]
    tars = [key.split("/")[0] for key in in_order]
    assert sorted(set(tars), key=tars.index) == [tar for tar, _ in itertools.groupby(tars)]  # nothing is held back


def test_passes_of_a_mixture_are_numbered(sample):
    def numbered(mixture, num, part=0, num_parts=1, **options):
        stream = mixture.passes(**{"seed": 0, "epoch": 0, "part": part, "num_parts": num_parts} | options)
        return [(number, item.key) for (number, item), _ in zip(stream, range(num), strict=False)]

    mixture = Mixture([(Numbers("a", 4, sample), 1.0), (Numbers("b", 6, sample), 2.0)])
    drawn = numbered(mixture, 60)
    assert len(set(drawn)) == 60  # no sample comes twice in a pass
    assert {number for number, key in drawn if key == "0-a/1"} >= {0, 1, 2}
    assert numbered(mixture, 50, skip=10) == drawn[10:]
    assert not {number for number, _ in numbered(mixture, 60, epoch=1)} & {number for number, _ in drawn}
    tiny = Mixture([(Numbers("a", 2, sample), 1.0)])  # each loader part goes through all, in passes of its own
    parts = [numbered(tiny, 8, part=part, num_parts=5) for part in range(5)]
    assert len({each for part in parts for each in part}) == 40


def both_ways(tree, sample):
    return {
        "tars": Tars(tree),
        "mixture": Mixture([(Tars(tree), 1.0), (Numbers("a", 5, sample), 1.0)]),
    }


@pytest.mark.parametrize("what", ["tars", "mixture"])
def test_a_sample_of_a_stream_looks_different_each_time_it_comes(what, tree, sample):
    """And the looks do not depend on the workers: whichever of them reads it, its first look is the same."""

    def looks(num_workers):
        source = both_ways(tree, sample)[what]
        config = Config(model=ModelConfig(size_px=64), train=TrainConfig(batch_size=8, num_workers=num_workers))
        seen: dict[str, list[bytes]] = {}
        for batch, _ in zip(loader_of(source, config, train=True), range(14), strict=False):
            for key, rgb in zip(batch.keys, batch.rgb, strict=True):
                seen.setdefault(key, []).append(rgb.numpy().tobytes())
        return seen

    alone, shared = looks(0), looks(2)
    for key, pictures in alone.items():
        assert len(pictures) > 1
        assert len(set(pictures)) == len(pictures), key
    common = [len(set(pictures) & set(alone[key])) for key, pictures in shared.items()]
    assert min(common) >= 2


def test_a_config_names_a_mixture_with_synthetic_hands(tree):
    parts = (DataConfig(name="tars", root=str(tree), weight=3.0), DataConfig(name="synth", weight=1.0))
    config = Config(data=DataConfig(name="mixture", mixture=parts))
    source = open_data(config.data, config, train=True)
    drawn = draw(source, 24)
    prefixes = {key.split("/")[0] for key in keys_of(drawn)}
    assert prefixes == {"0-tars", "1-synth"}
    synthetic = next(item for item in drawn if item.key.startswith("1-"))
    np.testing.assert_array_equal(synthetic.rgb, SyntheticHands(size_px=128)[int(synthetic.key.split("/")[-1])].rgb)
    assert [part["share"] for part in fingerprint(source)["parts"]] == [0.75, 0.25]
    with pytest.raises(InputError, match="name one data set in the val section"):
        open_data(config.data, config, train=False)
    with pytest.raises(InputError, match="mixture has no validation split"):
        open_validation(config)


def test_wilors_mixture_is_complete_and_shares_its_loss_with_the_other_file():
    folder = Path(__file__).parents[2] / "config"
    mix, loss = Config.load(folder / "wilor_mix.yaml"), Config.load(folder / "wilor_loss.yaml")
    assert mix.loss == loss.loss
    for name in ("batch_size", "lr", "weight_decay"):
        assert getattr(mix.train, name) == getattr(loss.train, name)
    assert sum(part.weight for part in mix.data.mixture) == pytest.approx(1.0)
    assert len({part.root for part in mix.data.mixture}) == 14
