"""How well networks carry over to real pictures: `python benchmarks/real_pictures.py --pictures DIR --work DIR CKPT...`

No truth is needed: the 2D joints that a network predicts in the detector's box are compared with the detector's
landmarks, in percent of the box (the longer side of the tight box of the 21 landmarks). Detections that the mirrored
picture contradicts are left out. The others err too, and landmarks are up to 13 mm from the hand model's joints, so
no method reaches 0: `fit`, which is fitted to these very landmarks, is the row to compare with. A network has two
rows or three: by itself, with the landmarks as prompts, and its hands fitted to the landmarks (`both`). Crops are
those of `utnet predict`: round the landmarks' box, left hands mirrored, RGB.

    people  photographs of people whom no training may see (sign digits, see `HELD_OUT_FROM`)
    clip    three consecutive frames out of every ten of a video; its jitter is the mean |second difference| of the
            predicted joints over such a three, unsmoothed: in percent of the box, and relative to the wrist in mm
    photos  photographs with one to several hands in use

Detection and fit are done once and kept in WORK/scored; scoring a network of preset ti takes seconds. Prints a table
and one JSON line. Which pictures are for scoring and which for training, this file alone says (`training_inputs`,
`person_of`); `--label OUT` labels the latter (docs/real_pictures.md).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utnet.apps.label.agreement import Limits, why_dropped
from utnet.apps.label.candidates import fitted_sample
from utnet.apps.label.dataset import Summary, label_pictures
from utnet.apps.label.measure import observe
from utnet.checkpoint import load_checkpoint
from utnet.config import Config
from utnet.conventions import NUM_JOINTS
from utnet.data.crop_datasets import CropMaker
from utnet.data.loader import make_loader
from utnet.data.prompts import DETECTOR_CONFIDENCE
from utnet.data.shards.shards_reader import Shards
from utnet.data.shards.write_shards import write_shards
from utnet.data.transforms import to_right
from utnet.detect import Detection, LandmarkTracker
from utnet.errors import InputError
from utnet.geometry import crop_to_px, project, unproject
from utnet.io.atomic import atomic_file, require_new
from utnet.io.pictures import read_picture
from utnet.io.videos import VideoReader
from utnet.model import UTNet
from utnet.predict import Predictor
from utnet.predict.inputs import find_inputs
from utnet.predict.methods.combined import CombinedMethod
from utnet.predict.methods.network import NetworkMethod
from utnet.types import Sample

SETS = ("people", "clip", "photos")
HELD_OUT_FROM, TRAINING_UP_TO = 5716, 5695
"""Sign digits, by the numbers of their files: the people from the first number on are held out, those up to the second
may be trained on, and the two or three in between are left out. Photographs were taken person after person, digits 0
to 9 in turn (their EXIF times and a look at them agree), with a break of ten minutes before 5716."""

_CLIP = "tfjs_models_apache2/asl_hand.25fps.mp4"
_PHOTOS = (
    "hamer_mit_example_data/*.jpg", "keypointfusion_mit_rgbd/box.png", "mediapipe_samples_apache2/*.jpg",
    "mediapipe_samples_apache2/*.png", "tfjs_models_apache2/*.jpg",
)  # fmt: skip
_DIGITS = "sign_digits_apache2/Dataset/*/*.JPG"
_TRAINING_VIDEOS = "mediapipe_samples_apache2/*.mp4"
_EVERY = 10
_SELF_CONSISTENT = Limits(reprojection=float("inf"))
"""A detection that the mirrored picture contradicts is no reference. How well the fit follows it, is not asked."""


# ------------------------------------------------------------------------------------------------------------- pictures


def digits(pictures: Path) -> list[Path]:
    """The sign digits in the order in which they were taken."""
    return sorted(pictures.glob(_DIGITS), key=_number)


def person_of(pictures: Path) -> dict[Path, str]:
    """A name for the person of each sign digit: with every photograph of a 0 somebody else begins. Where a 0 is missing
    two people have one name, which divides nobody."""
    person, names = 0, {}
    for path in digits(pictures):
        person += path.parent.name == "0"
        names[path] = f"person_{person:03d}"
    return names


def scored_photos(pictures: Path) -> dict[str, list[Path]]:
    """The photographs of each set that is scored."""
    photos = sorted(path for pattern in _PHOTOS for path in pictures.glob(pattern))
    return {"people": [path for path in digits(pictures) if _number(path) >= HELD_OUT_FROM], "photos": photos}


def training_inputs(pictures: Path) -> list[Path]:
    """What may be trained on: other people's sign digits, and other videos than the clip."""
    return [path for path in digits(pictures) if _number(path) <= TRAINING_UP_TO] + sorted(
        pictures.glob(_TRAINING_VIDEOS)
    )


def label_training(pictures: Path, out: Path, *, copies: int = 0, backgrounds: Path | None = None) -> Summary:
    """`utnet label` of `training_inputs`, people apart."""
    names = person_of(pictures)
    inputs = find_inputs([str(path) for path in training_inputs(pictures)])
    return label_pictures(inputs, out, sequence_of=lambda path: names[path], copies=copies, backgrounds=backgrounds)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("IMG_"))


# ----------------------------------------------------------------------------------------------------------- references


def scored_hands(pictures: Path) -> Iterator[tuple[Sample, np.ndarray]]:
    """The hands to score on, each with the detector's relative landmarks (21, 3): `joints_px` and `box_px` are the
    detector's, too, `joints_cam_m` and `params` the fit's.

    `sequence` is the set, and for the clip the number of the three frames.
    """
    fit = Predictor(method="fit")
    for name, paths in scored_photos(pictures).items():
        for path in tqdm(paths, desc=name, unit="picture"):
            picture = read_picture(path)
            yield from _samples(fit, picture.rgb, picture.K_px, fit.detector(picture.rgb), path.name, name)
    if not (pictures / _CLIP).is_file():
        return
    tracker = LandmarkTracker(fit.detector)
    with VideoReader(pictures / _CLIP) as frames:
        for frame in tqdm(frames, desc="clip", unit="frame", total=frames.num_frames):
            detections = tracker(frame.rgb)
            if frame.index % _EVERY < 3:
                three = f"clip/{frame.index // _EVERY}"
                yield from _samples(fit, frame.rgb, None, detections, f"clip:{frame.index}", three)


def _samples(
    fit: Predictor, rgb: np.ndarray, K_px: np.ndarray | None, detections: list[Detection], key: str, sequence: str
) -> Iterator[tuple[Sample, np.ndarray]]:
    hands = fit.from_detections(rgb, detections, None, K_px)
    for i, (hand, detection) in enumerate(zip(hands, detections, strict=True)):
        if why_dropped(observe(fit.detector, rgb, detections, hands, i), _SELF_CONSISTENT) is None:
            of_track = sequence if detection.track is None else f"{sequence}/{detection.track}"
            sample = fitted_sample(f"{key}:{i}", rgb, hand, np.ones(21, np.float32))
            yield replace(sample, joints_px=detection.joints_px, sequence=of_track), detection.joints_m


class _Once:
    """Samples that are made in passing, as a source for `write_shards`, which asks for each once and in order."""

    name, tips = "real pictures", "smplx"

    def __init__(self, samples: list[Sample]):
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def key(self, index: int) -> str:
        return self._samples[index].key

    def sequence(self, index: int) -> str:
        return self._samples[index].sequence


def make_references(pictures: Path, work: Path) -> None:
    """Writes WORK/scored and WORK/landmarks_m.npy, unless they are there."""
    folder, landmarks = work / "scored", work / "landmarks_m.npy"
    if not (folder.exists() and landmarks.exists()):
        if not digits(pictures):
            raise InputError(f"{pictures}: holds no {_DIGITS}; give the folder of the real pictures")
        work.mkdir(parents=True, exist_ok=True)
        require_new(folder)  # an earlier version's, without landmarks; before the minutes of detecting
        samples, joints_m = zip(*scored_hands(pictures), strict=True)
        write_shards(_Once(list(samples)), folder, progress=False)
        with atomic_file(landmarks) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(joints_m))


def references(work: Path) -> Shards:
    """The hands to score on, as `make_references` wrote them."""
    if not (work / "scored").exists():
        raise InputError(f"{work / 'scored'}: not there; run python benchmarks/real_pictures.py --pictures DIR first")
    return Shards(work / "scored")


# --------------------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Answers:
    """What a method says of N reference hands.

    Attributes:
        sequences: of the hands.
        rays: (N, 21, 2) joints on the plane at z = 1 of each picture's camera, left hands mirrored.
        truth: (N, 21, 2) the detector's landmarks likewise.
        joints_m: (N, 21, 3) in metres, any origin; None without.
    """

    sequences: tuple[str, ...]
    rays: np.ndarray
    truth: np.ndarray
    joints_m: np.ndarray | None

    @property
    def boxes(self) -> np.ndarray:
        """(N,) longer sides of the landmarks' boxes on that plane."""
        return np.ptp(self.truth, axis=1).max(1)


def network_answers(model: UTNet, config: Config, source: Shards) -> Answers:
    """A network's, from RGB."""
    was_training, size = model.training, config.model.size_px
    config = replace(config, train=replace(config.train, num_workers=0))
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode():
        for batch in make_loader(source, CropMaker(config.model.size_px, config.crop), config.train, endless=False):
            out = model.forward_batch(batch.to(device), use_depth=False, with_vertices=False)
            crops = (out.joints_crop.double().cpu().numpy(), batch.joints_2d[..., :2].double().numpy())
            pred, truth = (_rays(crop_to_px(joints, size), batch.K_px.double().numpy()) for joints in crops)
            parts.append((pred, truth, out.joints_m.double().cpu().numpy()))
    model.train(was_training)
    return Answers(_sequences(source), *(np.concatenate(column) for column in zip(*parts, strict=True)))


def method_answers(method: NetworkMethod | CombinedMethod, source: Shards, landmarks_m: np.ndarray) -> Answers:
    """A method's, given the landmarks, with (N, 21, 3) those in metres, as `utnet predict` gives them."""
    confidence = np.full(NUM_JOINTS, DETECTOR_CONFIDENCE, np.float32)
    joints, rays, truth = [], [], []
    for i, of in enumerate(landmarks_m):
        right = to_right(replace(source[i], landmarks_m=of, joints_2d_conf=confidence, depth_m=None))
        assert right.joints_px is not None
        assert right.K_px is not None
        joints.append(method([right]).joints_cam_m[0])
        rays.append(_rays(project(joints[-1], right.K_px), right.K_px))
        truth.append(_rays(right.joints_px, right.K_px))
    return Answers(_sequences(source), np.array(rays), np.array(truth), np.array(joints))


def label_answers(source: Shards) -> dict[str, Answers]:
    """What the references themselves hold: the fit's answers, and the detector's, which say how much it trembles."""
    samples = [source[i] for i in range(len(source))]
    K = np.array([sample.K_px for sample in samples])
    truth = _rays(np.array([sample.joints_px for sample in samples]), K)
    joints = np.array([sample.joints_cam_m for sample in samples])
    names = _sequences(source)
    fit = Answers(names, _rays(project(joints, K), K), truth, joints)
    return {"detector": Answers(names, truth, truth, None), "fit": fit}


def scores(answers: Answers) -> dict[str, float]:
    """Mean distance in percent of the box by set and over all ("all": each set counts the same), the medians
    ("people_median", ...), and the clip's "jitter" (percent) and "jitter_mm"."""
    apart = np.linalg.norm(answers.rays - answers.truth, axis=-1).mean(1) / answers.boxes * 100
    result: dict[str, float] = {}
    for name in SETS:
        of = np.array([sequence.split("/")[0] == name for sequence in answers.sequences])
        if of.any():
            result |= {name: float(apart[of].mean()), f"{name}_median": float(np.median(apart[of]))}
    present = [name for name in SETS if name in result]
    result["all"] = float(np.mean([result[name] for name in present]))
    result["all_median"] = float(np.mean([result[f"{name}_median"] for name in present]))
    return {key: round(value, 3) for key, value in (result | _jitter(answers)).items()}


def distances(model: UTNet, config: Config, work: Path) -> dict[str, float]:
    """Percent of the box for a network in memory: by set, and "all". `work`: the --work of an earlier run of this."""
    values = scores(network_answers(model, config, references(work)))
    return {name: value for name, value in values.items() if name in (*SETS, "all")}


def _jitter(answers: Answers) -> dict[str, float]:
    threes: dict[str, list[int]] = defaultdict(list)
    for i, sequence in enumerate(answers.sequences):
        if sequence.startswith("clip/"):
            threes[sequence].append(i)
    rows = np.array([rows for rows in threes.values() if len(rows) == 3])
    if not len(rows):
        return {}
    in_box = answers.rays[rows] / answers.boxes[rows[:, 1], None, None, None] * 100
    result = {"jitter": _second_difference(in_box)}
    if answers.joints_m is not None:
        joints = answers.joints_m[rows]
        result["jitter_mm"] = _second_difference((joints - joints[:, :, :1]) * 1000)
    return result


def _second_difference(threes: np.ndarray) -> float:
    """Mean length of that of (N, 3, 21, D) points."""
    return float(np.linalg.norm(threes[:, 0] - 2 * threes[:, 1] + threes[:, 2], axis=-1).mean())


def _rays(points_px: np.ndarray, K_px: np.ndarray) -> np.ndarray:
    return unproject(points_px, np.ones(points_px.shape[:-1]), K_px)[..., :2]


def _sequences(source: Shards) -> tuple[str, ...]:
    return tuple(source.sequence(i) for i in range(len(source)))


def table(rows: dict[str, dict[str, float]], source: Shards) -> str:
    """Mean / median in percent of the box."""
    names = [sequence.split("/")[0] for sequence in _sequences(source)]
    heads = "".join(f"{f'{name} ({names.count(name)})':>17s}" for name in SETS)
    lines = [f"{'[% of box] mean / median':32s}{heads}{'all':>17s}{'jitter [%]':>12s}{'[mm/frame^2]':>14s}"]
    for name, row in rows.items():
        words = [f"{row[key]:8.2f} /{row[f'{key}_median']:6.2f}" if key in row else "" for key in (*SETS, "all")]
        jitter = [f"{row[key]:.2f}" if key in row else "" for key in ("jitter", "jitter_mm")]
        lines.append(f"{name[-31:]:32s}{''.join(f'{word:>17s}' for word in words)}{jitter[0]:>12s}{jitter[1]:>14s}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="folders such as RUN/best")
    parser.add_argument("--pictures", type=Path, required=True, help="the folder of real pictures")
    parser.add_argument("--work", type=Path, help="folder of the references")
    parser.add_argument("--label", type=Path, metavar="OUT", help="only label what may be trained on, into OUT")
    parser.add_argument("--copies", type=int, default=0, help="of --label, as of utnet label")
    parser.add_argument("--backgrounds", type=Path, metavar="FOLDER", help="likewise")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.label:
        made = label_training(args.pictures, args.label, copies=args.copies, backgrounds=args.backgrounds)
        print(json.dumps({"benchmark": "real_pictures", "labels": asdict(made)}))
        return
    if args.work is None:
        parser.error("--work is missing")
    make_references(args.pictures, args.work)
    source = references(args.work)
    rows = {name: scores(answers) for name, answers in label_answers(source).items()}
    landmarks_m = np.load(args.work / "landmarks_m.npy")
    for path in args.checkpoints:
        model, config = load_checkpoint(path)
        rows[str(path)] = scores(network_answers(model, config, source))
        network = NetworkMethod(path)
        if network.needs_landmarks:
            rows[f"{path}, prompts"] = scores(method_answers(network, source, landmarks_m))
        rows[f"{path}, both"] = scores(method_answers(CombinedMethod(network), source, landmarks_m))
    print(table(rows, source))
    print(json.dumps({"benchmark": "real_pictures", "num": len(source), "rows": rows}))


if __name__ == "__main__":
    main()
