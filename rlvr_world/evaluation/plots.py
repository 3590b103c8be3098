"""Curves and heat maps as inline SVG: colours are names of CSS variables, which suits light and dark pages."""

from __future__ import annotations

import hashlib
import html
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

# Stand-ins that matplotlib can draw with, replaced by CSS variables of the page afterwards.
_COLOURS = {
    "ink": "#0a0b01",
    "grid": "#0a0b02",
    "rl": "#0a0b03",
    "control": "#0a0b04",
    "sft": "#0a0b05",
    "changed": "#0a0b06",
    "unchanged": "#0a0b07",
}


@dataclass(frozen=True)
class Line:
    """One curve: ``x`` and ``y`` of equal length, a label, and the name of its colour on the page."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    """Drawn thin and pale, without a label: one seed, or values before smoothing."""
    points: bool = False
    """Marked at every measured point."""


def curve(
    metrics: Sequence[Mapping[str, Any]], stage: str, key: str, x: str = "step"
) -> tuple[list[float], list[float]]:
    """The finite values of one metric in one stage, against ``step`` or ``tokens``; empty when never logged."""
    points = [
        (float(line[x]), float(line[key]))
        for line in metrics
        if line.get("stage") == stage and isinstance(line.get(key), int | float) and x in line
    ]
    points = [(a, b) for a, b in points if math.isfinite(b)]
    return [a for a, _ in points], [b for _, b in points]


def mean_curve(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[list[float], list[float]]:
    """The mean over seeds, point by point, as far as every seed has come: another rule would jump where a seed ends."""
    length = min((len(x) for x, _ in curves), default=0)
    if not length:
        return [], []
    x = np.mean([np.asarray(x[:length]) for x, _ in curves], axis=0)
    y = np.mean([np.asarray(y[:length]) for _, y in curves], axis=0)
    return x.tolist(), y.tolist()


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Centred running mean over ``width`` points, over fewer at the ends."""
    array, half = np.asarray(values, dtype=np.float64), width // 2
    return [float(array[max(0, i - half) : i + half + 1].mean()) for i in range(len(array))]


def line_plot(lines: Sequence[Line], xlabel: str, percent: bool = False, small: bool = False) -> str:
    """The curves as an ``<svg>`` element that scales with its column; "" when there is nothing to draw."""
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return ""
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": _salt(lines), "font.size": 10, "axes.unicode_minus": True}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(3.3, 2.3) if small else (4.9, 2.75), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            axes.plot(
                line.x,
                line.y,
                color=_COLOURS[line.colour],
                linewidth=1.0 if line.faint else 2.0,
                alpha=0.35 if line.faint else 1.0,
                marker="o" if (line.points and not line.faint) or len(line.x) == 1 else "",
                markersize=4,
                solid_joinstyle="round",
            )
        _label_ends(axes, [line for line in lines if not line.faint and line.label])
        _dress(axes, xlabel, percent, 4 if small else 6)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), ", ".join(line.label for line in lines if line.label))


def _salt(lines: Sequence[Line]) -> str:
    """Element ids from the content: the same run gives the same page, and two pictures on it never share an id."""
    return hashlib.sha256(repr(lines).encode()).hexdigest()


def _label_ends(axes: Any, lines: Sequence[Line]) -> None:
    """The name of each curve at its right end, moved apart where ends are close; a single curve needs no name."""
    if len(lines) < 2:
        return
    low, high = axes.get_ylim()
    gap = (high - low) * 0.085
    previous = -math.inf
    for line in sorted(lines, key=lambda line: line.y[-1]):
        previous = max(line.y[-1], previous + gap)
        axes.annotate(
            line.label,
            xy=(max(max(other.x) for other in lines), previous),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=_COLOURS[line.colour],
            annotation_clip=False,
            parse_math=False,
        )


def _dress(axes: Any, xlabel: str, percent: bool, ticks: int) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_COLOURS["grid"])
    axes.grid(axis="y", color=_COLOURS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_COLOURS["ink"], length=0, pad=5)
    axes.set_xlabel(xlabel, color=_COLOURS["ink"])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True))
    axes.ticklabel_format(useOffset=False)
    if xlabel.startswith("tokens"):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))


def _inline(svg: str, label: str) -> str:
    """The bare element, without prologue and fixed size, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    box = next(piece for piece in head.split('" ') if piece.startswith("viewBox"))
    for name, colour in _COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    return f'<svg {box}" role="img" aria-label="{html.escape(label)}" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'


def save_heat_map(
    file: Path,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    title: str,
    lower: Collection[str] = (),
) -> Path:
    """``values`` [rows, columns] as a picture with the numbers in its cells; the file.

    Each column is coloured for itself, from its worst value (blank) to its best (full); of the columns named in
    ``lower``, less is better.
    """
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
