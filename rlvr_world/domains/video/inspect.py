"""A look at a data set before anything is trained on it. Shape legend: T frames, H height, W width, D numbers a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlvr_world.domains.video.episodes import Episodes
from rlvr_world.errors import InputError

SHEET = "contact_sheet.png"
_SHOWN = 4
"""Episodes on the contact sheet, spread evenly."""
_LISTED = 10
"""Problems that are told in full."""


def inspect(episodes: Episodes, out: Path) -> str:
    """A markdown text: counts, lengths, frame size, and the range of each action and proprioception number.

    Every row is read and checked; frames are decoded for the contact sheet only, ``out/contact_sheet.png``. What does
    not read is told in the text, and does not raise.
    """
    problems: list[str] = []
    actions, proprio = (_rows(episodes, field, problems) for field in ("actions", "proprio"))
    pictures = _pictures(episodes, problems)
    lengths = np.asarray(episodes.lengths)
    size = " x ".join(str(side) for side in next(iter(pictures.values()))[0].shape[:2]) if pictures else "unknown"
    lines = [
        f"# {episodes.name}",
        "",
        f"- {len(lengths)} episodes, {lengths.sum()} frames",
        f"- length: {lengths.min()} to {lengths.max()} frames, median {np.median(lengths):g}",
        f"- frame: {size} (height x width)",
        *_table("action", actions),
        *_table("proprio", proprio),
        "",
        f"Problems: {len(problems) or 'none, every row is finite and every frame shown decodes'}",
        *[f"- {problem}" for problem in problems[:_LISTED]],
        *([f"- and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []),
    ]
    if pictures:
        out.mkdir(parents=True, exist_ok=True)
        _draw(pictures, out / SHEET)
        lines += ["", f"Frames: {out / SHEET}"]
    return "\n".join(lines)


def _rows(episodes: Episodes, field: str, problems: list[str]) -> np.ndarray | None:
    """All rows that read, float32 [T, D]; None where there are none. The others are added to ``problems``."""
    rows: list[np.ndarray] = []
    for episode in range(len(episodes.ids)):
        try:
            read = episodes.actions(episode) if field == "actions" else episodes.proprio(episode)
        except InputError as error:
            problems.append(str(error))
            continue
        if read is None:
            return None
        if rows and read.shape[1] != rows[0].shape[1]:
            problems.append(f"{episodes.ids[episode]}: {read.shape[1]} {field}, others have {rows[0].shape[1]}")
            continue
        rows.append(read)
    return np.concatenate(rows) if rows else None


def _table(title: str, rows: np.ndarray | None) -> list[str]:
    if rows is None:
        return ["", f"No {title}."]
    low, first, last, high = np.quantile(rows, [0.0, 0.01, 0.99, 1.0], axis=0)
    cells = [f"| {d} | {low[d]:.4g} | {first[d]:.4g} | {last[d]:.4g} | {high[d]:.4g} |" for d in range(rows.shape[1])]
    return ["", f"| {title} | min | 1 % | 99 % | max |", "|--:|--:|--:|--:|--:|", *cells]


def _pictures(episodes: Episodes, problems: list[str]) -> dict[str, np.ndarray]:
    """First, middle and last frame of a few episodes, uint8 [3, H, W, 3], by a title that tells their steps."""
    pictures: dict[str, np.ndarray] = {}
    for episode in np.unique(np.linspace(0, len(episodes.ids) - 1, _SHOWN).astype(int)).tolist():
        last = episodes.lengths[episode] - 1
        try:
            frames = episodes.frames(episode, (0, last // 2, last))
        except InputError as error:
            problems.append(str(error))
        else:
            pictures[f"{episodes.ids[episode]}: 0, {last // 2}, {last}"] = frames
    return pictures


def _draw(pictures: dict[str, np.ndarray], file: Path) -> None:
    from matplotlib.figure import Figure

    height, width = next(iter(pictures.values())).shape[1:3]
    figure = Figure(figsize=(6, (2 * height / width + 0.3) * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), squeeze=False)[:, 0]
    for axis, (title, frames) in zip(axes, pictures.items(), strict=True):
        axis.imshow(np.concatenate(list(frames), axis=1))
        axis.set_title(title, fontsize=8)
        axis.set_axis_off()
    figure.savefig(file, dpi=120)
