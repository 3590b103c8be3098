"""Curves as inline SVG, whose colours are CSS variables, which suits light and dark pages; heat maps as pictures; and
which curves a report shows: of each metric, one pale line a seed and a strong one for their mean.

A figure of a report is ``{"title", "svg"}``; metrics that were never logged give none.
"""

from __future__ import annotations

import hashlib
import html
import io
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from rlvr_world.evaluation.summary import OVERALL
from rlvr_world.evaluation.tables import Column, column_of, headline, slice_order

Names = Sequence[str]
Metrics = Sequence[Mapping[str, Any]]
"""The rows of a log."""
_NAMES = ("ink", "grid", "rl", "control", "sft", "changed", "unchanged")
_COLOURS = {name: f"#0a0b{number:02x}" for number, name in enumerate(_NAMES, start=1)}
"""Stand-ins that matplotlib can draw with, replaced by CSS variables of the page afterwards."""
_STYLE: Any = {"svg.fonttype": "none", "font.size": 10, "text.parse_math": False}
_STYLE |= {f"axes.spines.{side}": False for side in ("top", "right", "left")}
_STYLE |= {"axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "axes.formatter.useoffset": False}
_STYLE |= {"axes.edgecolor": _COLOURS["grid"], "grid.color": _COLOURS["grid"], "axes.labelcolor": _COLOURS["ink"]}
_STYLE |= {f"{x}tick.{key}": value for x in "xy" for key, value in (("color", _COLOURS["ink"]), ("major.size", 0))}
_STYLE |= {"legend.frameon": False, "legend.labelcolor": "linecolor"}

RL = {  # metric: title, unit
    "reward": ("Reward", ""),
    "kl": ("KL to the RL start", "nats per token"),
    "malformed": ("Malformed answers", "%"),
    "response_length": ("Response length", "tokens"),
}
TOKENIZER = ("loss", "l1", "lpips", "gan", "code_usage")
COLOURS = ("changed", "unchanged", "rl", "control", "sft")
FAMILIES = {"sft": "SFT", "rl": "RL", "control": "the control"}


class Line(NamedTuple):
    """One curve: a label, the name of its colour on the page, and points; ``faint`` is one seed, or values before
    smoothing; with ``points``, each is marked."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    points: bool = False


def curve(metrics: Metrics, stage: str, key: str, x: str, scale: float) -> tuple[list[float], list[float]]:
    """The finite values of one metric in one stage, times ``scale``, against ``step`` or ``tokens``."""
    logged = [(line[x], line[key]) for line in metrics if line["stage"] == stage and line.get(key) is not None]
    return [float(at) for at, _ in logged], [scale * value for _, value in logged]


def mean_curve(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[list[float], list[float]]:
    """The mean over seeds, point by point, as far as every seed has come: another rule would jump where a seed ends."""
    length = min((len(x) for x, _ in curves), default=0)
    if not length:
        return [], []
    x, y = np.mean([(x[:length], y[:length]) for x, y in curves], axis=0).tolist()
    return x, y


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Centred running mean over ``width`` points, over fewer at the ends."""
    array, half = np.asarray(values, dtype=np.float64), width // 2
    return [float(array[max(0, i - half) : i + half + 1].mean()) for i in range(len(array))]


def line_plot(lines: Sequence[Line], xlabel: str) -> str:
    """The curves as an ``<svg>`` element that scales with its column; "" when there is nothing to draw."""
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return ""
    # Element ids from the content: the same run gives the same page, and two pictures on it never share an id.
    salt = hashlib.sha256(repr(lines).encode()).hexdigest()
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": salt}):
        figure = Figure(figsize=(3.9, 2.6), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            look: Any = {"lw": 1.0, "alpha": 0.35} if line.faint else {"lw": 2.0}
            marker = "o" if line.points or len(line.x) == 1 else ""
            axes.plot(line.x, line.y, color=_COLOURS[line.colour], label=line.label, marker=marker, ms=4, **look)
        names = [line.label for line in lines if line.label]
        if len(names) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, handlelength=1, borderpad=0)
        axes.set_xlabel(xlabel)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if xlabel.startswith("tokens"):
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        unsigned = {"Date": None, "Creator": None}
        figure.savefig(buffer := io.StringIO(), format="svg", transparent=True, metadata=unsigned)
    return _inline(buffer.getvalue(), ", ".join(names))


def _inline(svg: str, label: str) -> str:
    """The bare element, without prologue and fixed size, in the page's colours."""
    head, body = svg[svg.index("<svg") :].split(">", 1)
    box = next(piece for piece in head.split('" ') if piece.startswith("viewBox"))
    for name, colour in _COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    return f'<svg {box}" role="img" aria-label="{html.escape(label)}" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'


def save_heat_map(
    file: Path, rows: Names, columns: Names, values: Sequence[Sequence[float]], title: str, lower: Collection[str] = ()
) -> Path:
    """``values`` [rows, columns] as a picture with the numbers in its cells; the file. Each column is coloured for
    itself, from its worst value (blank) to its best (full); of the columns named in ``lower``, less is better."""
    better = np.array(values) * [-1 if name in lower else 1 for name in columns]
    shares = (better - better.min(0)) / np.maximum(better.max(0) - better.min(0), 1e-12)
    figure = Figure(figsize=(1.1 * len(columns) + 1, 0.5 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=2, aspect="auto")
    for (i, j), value in np.ndenumerate(np.array(values)):
        axes.text(j, i, f"{value:+.1%}", ha="center", va="center", weight="bold" if shares[i, j] == 1 else "normal")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title, fontsize=9)
    figure.savefig(file, dpi=150)
    return file


def save_lines(file: Path, lines: Mapping[str, Sequence[Mapping[str, Any]]], labels: Names, at: Sequence[int]) -> None:
    """Means with their intervals, as far as they go at ``at``, as a picture: a line for each name."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, intervals in lines.items():
        x = at[: len(intervals)]
        [line] = axes.plot(x, [one["mean"] for one in intervals], marker=".", label=name)
        low, high = ([one["mean"] if one[end] is None else one[end] for one in intervals] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel=labels[0], ylabel=labels[1], xscale="log" if at[-1] > 30 else "linear")
    axes.set_xticks(at, map(str, at))
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)


class Curve(NamedTuple):
    """A metric in the stages of a family, as training logged it or, against ``measured`` (``step`` or ``tokens``), as
    validation measured it."""

    family: str
    key: str
    label: str = ""
    colour: str = "rl"
    measured: str = ""


def figures(metrics: Metrics, lower: Collection[str]) -> dict[str, list[dict[str, str]]]:
    """The figures of each section of the page; ``lower`` are the parts of which less is better."""

    def logged(key: str, title: str = "", unit: str = "", family: str = "rl") -> dict[str, str]:
        return _figure(metrics, Column(title or key, "", key, unit), [Curve(family, key, colour=family)])

    keys = dict.fromkeys(key for line in metrics if line["stage"].startswith("rl") for key in line)
    kinds = sorted(key for key in keys if key.startswith("accuracy/"))
    accuracy = [Curve("rl", key, key[9:], colour) for key, colour in zip(kinds, cycle(COLOURS), strict=False)]
    # Answers that are never malformed, or always as long, give no curve.
    flat = {key for key in ("malformed", "response_length") if len({line.get(key) for line in metrics} - {None}) < 2}
    reward, *others = (logged(key, *named) for key, named in RL.items() if key not in flat)
    losses = [logged("loss", f"Loss of {FAMILIES[f]}", "nats per token", f) for f in ("sft", "control")]
    rest = [key for key in keys if not key.startswith(("accuracy/", "eval/"))]
    found = {
        "held_out": _held_out(metrics, lower, "tokens", "rl", "control"),
        "rl": [reward, _figure(metrics, Column("Accuracy of the rollouts", "", "", "%"), accuracy), *others],
        "more": [logged(key) for key in rest if key not in (*RL, "stage", "step", "tokens")],
        "sft": losses + _held_out(metrics, lower, "step", "sft"),
        "tokenizer": _tokenizer(metrics),
    }
    return {section: [figure for figure in drawn if figure["svg"]] for section, drawn in found.items()}


def _held_out(metrics: Metrics, lower: Collection[str], x: str, *families: str) -> list[dict[str, str]]:
    """What validation measured in these families of stages: the headline part by slice, or all parts over all rows."""
    lines = [line for line in metrics if line["stage"].split("/")[0] in families]
    keys = dict.fromkeys(key[5:].rpartition("/") for line in lines for key in line if key.startswith("eval/"))
    parts = headline(dict.fromkeys(part for _, _, part in keys if part != "malformed"))
    by_slice = len(parts) == 1
    found = []
    for slice_ in slice_order({slice_ for slice_, _, _ in keys}) if by_slice else [OVERALL]:
        for part in parts:
            curves = [Curve(family, f"eval/{slice_}/{part}", FAMILIES[family], family, x) for family in families]
            column = column_of(part, title=slice_ if by_slice else "", lower=lower)
            found.append(_figure(metrics, column, curves))
    return found


def _tokenizer(metrics: Metrics) -> list[dict[str, str]]:
    """The visual tokenizer's losses and the share of its codes in use, with what validation measured as points."""
    keys = dict.fromkeys(key for line in metrics if line["stage"] == "tokenizer" for key in line)
    held_out = {key.rsplit("/", 1)[-1]: key for key in keys if key.startswith("eval/")}
    found = []
    for name in dict.fromkeys([*TOKENIZER, *held_out]):
        curves = [Curve("tokenizer", name, "training", "sft")]
        curves += [Curve("tokenizer", held_out[name], "validation", "changed", "step")] if name in held_out else []
        found.append(_figure(metrics, column_of(name, share=name == "code_usage"), curves))
    return found


def _figure(metrics: Metrics, column: Column, curves: Sequence[Curve]) -> dict[str, str]:
    """Pale: each seed. Strong: the mean over seeds; of what training logged, smoothed over a twentieth of the run."""
    lines, x = [], "step"
    for family, key, label, colour, measured in curves:
        x = measured or x
        stages = sorted({line["stage"] for line in metrics if line["stage"].split("/")[0] == family})
        seeds = [curve(metrics, stage, key, x, column.scale) for stage in stages]
        lines += [Line("", colour, *one, faint=True) for one in seeds if len(seeds) > 1 or not measured]
        at, mean = mean_curve(seeds)
        strong = mean if measured else smooth(mean, len(mean) // 20)
        lines.append(Line(label, colour, at, strong, points=bool(measured)))
    return {"title": column.heading, "svg": line_plot(lines, "tokens processed after SFT" if x == "tokens" else x)}
