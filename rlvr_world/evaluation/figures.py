"""Which curves a report shows: of each metric, one pale line a seed and a strong one for their mean.

A figure is ``{"title", "svg"}``; metrics that were never logged give none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import cycle
from typing import NamedTuple

from rlvr_world.evaluation.plots import Line, Metrics, curve, line_plot, mean_curve, smooth
from rlvr_world.evaluation.summary import OVERALL
from rlvr_world.evaluation.tables import Column, column_of, headline, slice_order

Figure = dict[str, str]

RL = {  # metric: title, unit
    "reward": ("Reward", ""),
    "kl": ("KL to the RL start", "nats per token"),
    "malformed": ("Malformed answers", "%"),
    "response_length": ("Response length", "tokens"),
}
TOKENIZER = ("loss", "l1", "lpips", "gan", "code_usage")
COLOURS = ("changed", "unchanged", "rl", "control", "sft")
FAMILIES = {"sft": "SFT", "rl": "RL", "control": "the control"}


class Curve(NamedTuple):
    """A metric in the stages of a family, as training logged it or, against ``measured`` (``step`` or ``tokens``), as
    validation measured it."""

    family: str
    key: str
    label: str = ""
    colour: str = "rl"
    measured: str = ""


def figures(metrics: Metrics, lower: Collection[str]) -> dict[str, list[Figure]]:
    """The figures of each section of the page; ``lower`` are the parts of which less is better."""

    def logged(key: str, title: str = "", unit: str = "", family: str = "rl") -> Figure:
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


def _held_out(metrics: Metrics, lower: Collection[str], x: str, *families: str) -> list[Figure]:
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


def _tokenizer(metrics: Metrics) -> list[Figure]:
    """The visual tokenizer's losses and the share of its codes in use, with what validation measured as points."""
    keys = dict.fromkeys(key for line in metrics if line["stage"] == "tokenizer" for key in line)
    held_out = {key.rsplit("/", 1)[-1]: key for key in keys if key.startswith("eval/")}
    found = []
    for name in dict.fromkeys([*TOKENIZER, *held_out]):
        curves = [Curve("tokenizer", name, "training", "sft")]
        curves += [Curve("tokenizer", held_out[name], "validation", "changed", "step")] if name in held_out else []
        found.append(_figure(metrics, column_of(name, share=name == "code_usage"), curves))
    return found


def _figure(metrics: Metrics, column: Column, curves: Sequence[Curve]) -> Figure:
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
