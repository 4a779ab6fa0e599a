"""Reports as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from utnet.conventions import FINGERS
from utnet.data.inspection.check_report import HAND_SIZE_MM, CheckReport
from utnet.data.sources import counted

_SHOWN = 20
"""Names listed on screen; the JSON has all."""

_PHALANGES = ("metacarpal", "proximal", "middle", "distal")


def check_lines(report: CheckReport) -> Iterator[str]:
    """The numbers, the files at fault, notes, findings, and a summary line."""
    n = report.numbers
    yield from _counts(n["counts"])
    samples = dict(n["samples"])
    expected, read = samples.pop("expected"), samples.pop("read")
    yield _row("samples", f"{read} of {expected} read")
    if samples:
        yield _row("", ", ".join(f"{value} {name}" for name, value in samples.items() if value))
    for name in ("missing", "damaged"):
        yield from _list(f"{name} files", _by_message(n[name]))
    yield from _list("damaged shards", n.get("damaged_shards", []))
    yield from _list("duplicate keys", n["duplicate_keys"])
    for text, keys in n.get("flaws", {}).items():
        yield _row("labels", f"{len(keys)}: {text}")
        yield from _list("", keys)
    yield from _depth_lines(n.get("depth"))
    yield from _label_lines(n)
    for note in report.notes:
        yield f"note: {note}"
    for finding in report.findings:
        yield f"WRONG: {finding.what}"
        if finding.convert:
            yield f"convert: {finding.convert}"
    if report.ok:
        yield f"ok: {read} samples, nothing found that would make training wrong"
    else:
        remedies = dict.fromkeys(finding.remedy for finding in report.findings)
        yield f"not ok: {counted(len(report.findings), 'finding')}; {'; '.join(remedies)}"


def bad_lines(messages: list[str]) -> Iterator[str]:
    """Report of invalid lines of `hands.jsonl`, which prevent all other checks."""
    yield from _list("lines that are no hands", messages)
    yield f"not ok: {counted(len(messages), 'line')} to mend or take out; nothing else was checked"


def _depth_lines(depth: dict[str, Any] | None) -> Iterator[str]:
    if depth is None:
        return
    if depth["visible_median_mm"] is not None:
        median, p95 = depth["visible_median_mm"], depth["visible_p95_mm"]
        yield _row("depth", f"{median:.1f} mm from the visible joints in the median, 95 % within {p95:.1f} mm")
    hidden, before, none = depth["hidden_joints"], depth["joints_before_depth"], depth["no_reading"]
    text = f"{hidden:.1%} of the joints hidden, {before:.1%} before the depth by 3 cm, {none:.1%} without a reading"
    yield _row("" if depth["visible_median_mm"] is not None else "depth", text)
    yield from _list("5 cm before depth", depth["samples_before_depth"])
    yield from _list("5 cm behind depth", depth["samples_hidden"])


def _label_lines(n: dict[str, Any]) -> Iterator[str]:
    if size := n.get("hand_size_mm"):
        outside = f"{len(size['outliers'])} outside {HAND_SIZE_MM[0]:.0f} to {HAND_SIZE_MM[1]:.0f}"
        text = f"{size['min']:.1f} / {size['median']:.1f} / {size['max']:.1f} mm (min / median / max), {outside}"
        yield _row("wrist to knuckle", text)
        yield from _list("", size["outliers"])
    if bones := n.get("bones_mm"):
        yield _row("bones, mm", "".join(f"{name:>18s}" for name in _PHALANGES))
        for finger in FINGERS:
            cells = [bones[name] for name in bones if name.startswith(finger)]
            texts = [f"{c['median']:.1f} ({c['p5']:.1f}-{c['p95']:.1f})" for c in cells]
            yield _row(f"  {finger}", "".join(f"{text:>18s}" for text in texts))
        for section in ("bones_that_vary", "sides_that_differ"):
            items = (f"{name}: {text}" for name, text in n[section].items())
            yield from _list(section.replace("_", " "), items)
    if px := n.get("model_px"):
        text = f"median {px['median']:.2g} px, max {px['max']:.2g} px over {px['num']} samples"
        yield _row("params to joints", text)
        yield from _list("", px["over"])
    elif mm := n.get("model_mm"):
        text = f"median {mm['median']:.2g} mm, max {mm['max']:.2g} mm from the wrist, over {mm['num']} samples"
        yield _row("params to joints", text)
    if mesh := n.get("mesh_mm"):
        text = f"median {mesh['median']:.2g} mm, max {mesh['max']:.2g} mm at the fingertips, over {mesh['num']} samples"
        yield _row("mesh to joints", text)
        yield from _list("", mesh["over"])
    if share := n.get("labels_2d_share"):
        text = f"{share['median']:.2%} of the box's side from the projected joints (median), max {share['max']:.2%}"
        yield _row("2D labels", text)
    if pictures := n.get("pictures"):
        text = f"{pictures['joints_outside']:.1%} of the joints outside, {pictures['boxes_cut']} boxes over the edge"
        on_mask = pictures["joints_on_mask"]
        yield _row("pictures", text + ("" if on_mask is None else f", {on_mask:.1%} of the joints on the hand's mask"))


def stats_lines(stats: dict[str, Any]) -> Iterator[str]:
    """The numbers of `stats_source`, one line each."""
    yield from _counts(stats["counts"])
    yield _row("samples", f"{stats['samples']}")
    yield from unreadable_lines(stats["unreadable"])
    if not stats["samples"]:
        return
    sides, sequences = stats["sides"], stats["sequences"]
    yield _row("sides", f"{sides['right']} right, {sides['left']} left")
    if sequences["num"]:
        each = sequences["samples_each"]
        text = f"{sequences['num']}, {each['min']:.0f} / {each['median']:.0f} / {each['max']:.0f} samples each"
        yield _row("recordings", text + " (min / median / max)")
    for name in ("mean", "std"):
        yield _row(
            f"rgb {name}", "  ".join(f"{value:.3f}" for value in stats["rgb"][name]) + "  (of the crops, 0 to 1)"
        )
    yield _row("", "".join(f"{text:>9s}" for text in ("min", "5 %", "median", "95 %", "max")))
    for name, text, factor in (
        ("picture_width_px", "picture width, px", 1),
        ("picture_height_px", "picture height, px", 1),
        ("box_width_px", "box width, px", 1),
        ("box_height_px", "box height, px", 1),
        ("hand_px", "hand in px", 1),
        ("distance_m", "wrist distance, cm", 100),
        ("depth_m", "depth in box, cm", 100),
        ("depth_holes", "no reading in box, %", 100),
    ):
        if name in stats:
            yield _row(text, _spread(stats[name], factor))
    # The parameters' rotations repeat the bends joint by joint: shown only where no joints are labelled.
    section, title = ("bend_deg", "bend") if stats["bend_deg"] else ("rotation_deg", "rotation")
    for name, values in stats[section].items():
        yield _row(f"{title} {name}, deg", _spread(values, 1))
    if "views" in stats:
        total = sum(stats["views"].values())
        for i, (name, count) in enumerate(stats["views"].items()):
            bar = "#" * round(40 * count / total)
            yield _row(
                "view" if i == 0 else "", f"{name:14s}{30 * i:4d}-{30 * i + 30:d} deg  {count / total:6.1%} {bar}"
            )


def unreadable_lines(failures: dict[str, str]) -> Iterator[str]:
    """Number of unreadable samples and the reasons; nothing where all are readable."""
    yield from _list("cannot be read", _by_message(failures))


def _spread(values: dict[str, float], factor: float) -> str:
    return "".join(f"{values[name] * factor:9.1f}" for name in ("min", "p5", "median", "p95", "max"))


def _counts(counts: dict[str, int]) -> Iterator[str]:
    if counts:
        yield _row("on disk", ", ".join(f"{value} {name}" for name, value in counts.items()))


def _row(name: str, text: str) -> str:
    return f"{name:26s}{text}".rstrip()


def _list(name: str, items: Iterable[str]) -> Iterator[str]:
    """The first `_SHOWN` of `items` below a heading with their number; nothing for an empty list."""
    items = list(items)
    if items and name:
        yield _row(name, f"{len(items)}")
    for item in items[:_SHOWN]:
        yield f"    {item}"
    if len(items) > _SHOWN:
        yield f"    and {len(items) - _SHOWN} more (--json FILE has all)"


def _by_message(failures: dict[str, str]) -> list[str]:
    """Each message once, with the number of samples it applies to: a damaged calibration file affects many."""
    num: dict[str, int] = {}
    for message in failures.values():
        num[message] = num.get(message, 0) + 1
    return [text if n == 1 else f"{text} ({n} samples)" for text, n in num.items()]
