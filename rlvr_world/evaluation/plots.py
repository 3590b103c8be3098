"""Curves as inline SVG, whose colours are CSS variables, which suits light and dark pages; heat maps as pictures."""

from __future__ import annotations

import hashlib
import html
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

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
