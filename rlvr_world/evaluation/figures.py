"""Which curves a report shows: of each metric, one pale line a seed and a strong one for their mean.

A figure is ``{"title", "svg"}``; metrics that were never logged give none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rlvr_world.evaluation.plots import Line, curve, line_plot, mean_curve, smooth
from rlvr_world.evaluation.summary import (
    OVERALL,
    Column,
    arrow,
    headline,
    scale_of,
    slice_order,
    title_of,
    unit_of,
)

Metrics = Sequence[Mapping[str, Any]]
Figure = dict[str, str]

RL = [  # metric, title, percent
    ("reward", "Reward", False),
    ("kl", "KL to the RL start, nats per token", False),
    ("malformed", "Malformed answers", True),
    ("response_length", "Response length, tokens", False),
]
MORE = [
    ("reward_std", "Spread of rewards in a group", False),
    ("zero_variance", "Groups without spread", True),
    ("entropy", "Entropy, nats per token", False),
    ("clip_fraction", "Clipped tokens", True),
    ("grad_norm", "Gradient norm", False),
    ("logp_gap", "Log-probability gap, sampler to trainer", False),
    ("weight_change", "Largest change of a weight in a step", False),
    ("repetition", "Repeated runs of eight tokens", True),
]
TOKENIZER = {"loss": "Loss", "l1": "L1", "lpips": "LPIPS", "gan": "GAN loss", "code_usage": "Codes in use"}
FAMILIES = {"sft": "SFT", "rl": "RL", "control": "control"}


def sft_figures(metrics: Metrics) -> list[Figure]:
    """Training and validation loss of SFT, and of the control where there is one."""
    figures = []
    for family, title in (("sft", "SFT loss, nats per token"), ("control", "Loss of the control, nats per token")):
        stages = _stages(metrics, family)
        lines = _seed_lines(metrics, stages, "loss", family, "training")
        valid = mean_curve([curve(metrics, stage, "valid/loss") for stage in stages])
        lines.append(Line("validation", "changed", *valid, points=True))
        figures.append({"title": title, "svg": line_plot(lines, "step")})
    return _drawn(figures)


def rl_figures(metrics: Metrics) -> list[Figure]:
    """Reward, accuracy of the rollouts by kind of row, KL, malformed answers, response length.

    Answers that are never malformed, or always as long, give no curve.
    """
    kinds = sorted({key.split("/", 1)[1] for line in metrics for key in line if key.startswith("accuracy/")})
    stages = _stages(metrics, "rl")
    lines = [line for kind in kinds for line in _seed_lines(metrics, stages, f"accuracy/{kind}", _colour(kind), kind)]
    accuracy = {"title": "Accuracy of the rollouts", "svg": line_plot(lines, "step", percent=True)}
    flat = {key for key in ("malformed", "response_length") if len({line.get(key) for line in metrics} - {None}) < 2}
    figures = [_figure(metrics, *spec) for spec in RL if spec[0] not in flat]
    return _drawn([figures[0], accuracy, *figures[1:]])


def more_figures(metrics: Metrics) -> list[Figure]:
    """What a person looks at when RL goes wrong, and every part of the rollouts' score."""
    keys = sorted({key for line in metrics for key in line if key.startswith("score/")})
    scores = [(key, f"{title_of(key[6:])} of the rollouts", unit_of(key[6:]) == "%") for key in keys]
    return _drawn([_figure(metrics, *spec, small=True) for spec in (*MORE, *scores)])


def held_out_figures(metrics: Metrics, lower: Collection[str], *families: str) -> list[Figure]:
    """What validation measured in these families of stages: the headline part by slice, or all parts over all rows.

    SFT against its steps; RL and the control against the tokens that each processed. ``lower`` are the parts of which
    less is better.
    """
    x, xlabel = ("step", "step") if families == ("sft",) else ("tokens", "tokens processed after SFT")
    lines = [line for line in metrics if line["stage"].split("/")[0] in families]
    keys = dict.fromkeys(key[5:].rpartition("/") for line in lines for key in line if key.startswith("eval/"))
    parts = headline(dict.fromkeys(part for _, _, part in keys if part != "malformed"))
    by_slice = len(parts) == 1
    slices = slice_order({slice_ for slice_, _, _ in keys}) if by_slice else [OVERALL]
    figures = []
    for slice_, part in ((slice_, part) for slice_ in slices for part in parts):
        unit, small = unit_of(part), len(slices) * len(parts) > 2
        title = slice_ if by_slice else title_of(part)
        curves = []
        for family in families:
            key, stages = f"eval/{slice_}/{part}", _stages(metrics, family)
            seeds = [_scaled(curve(metrics, stage, key, x), unit) for stage in stages]
            if len(seeds) > 1:
                curves += [Line("", family, *one, faint=True) for one in seeds]
            curves.append(Line(FAMILIES[family], family, *mean_curve(seeds), points=True))
        heading = Column(title, slice_, part, unit if unit != "%" else "", better=arrow(part, lower)).heading
        figures.append({"title": heading, "svg": line_plot(curves, xlabel, percent=unit == "%", small=small)})
    return _drawn(figures)


def _scaled(points: tuple[list[float], list[float]], unit: str) -> tuple[list[float], list[float]]:
    """As tables write the numbers; percent is the axis's own affair."""
    factor = 1 if unit == "%" else scale_of(unit)
    return points[0], [factor * y for y in points[1]]


def tokenizer_figures(metrics: Metrics) -> list[Figure]:
    """The visual tokenizer's losses and the share of its codes in use, with what validation measured as points."""
    logged = dict.fromkeys(key for line in metrics if line["stage"] == "tokenizer" for key in line)
    held_out = [key for key in logged if key.startswith("eval/")]
    figures = []
    for name in dict.fromkeys([*TOKENIZER, *(key.rsplit("/", 1)[-1] for key in held_out)]):
        lines = _seed_lines(metrics, ["tokenizer"], name, "sft", "training")
        for key in held_out:
            if key.endswith(f"/{name}"):
                lines.append(Line("validation", "changed", *curve(metrics, "tokenizer", key), points=True))
        svg = line_plot(lines, "step", percent=name == "code_usage", small=True)
        figures.append({"title": TOKENIZER.get(name) or title_of(name), "svg": svg})
    return _drawn(figures)


def _figure(metrics: Metrics, key: str, title: str, percent: bool, small: bool = False) -> Figure:
    lines = _seed_lines(metrics, _stages(metrics, "rl"), key, "rl", "")
    return {"title": title, "svg": line_plot(lines, "step", percent, small)}


def _seed_lines(metrics: Metrics, stages: Sequence[str], key: str, colour: str, label: str) -> list[Line]:
    """Pale: each seed as logged. Strong: the mean over seeds, smoothed over a twentieth of the run."""
    curves = [curve(metrics, stage, key) for stage in stages]
    x, y = mean_curve(curves)
    lines = [Line("", colour, *one, faint=True) for one in curves]
    return [*lines, Line(label, colour, x, smooth(y, len(y) // 20))]


def _stages(metrics: Metrics, family: str) -> list[str]:
    return sorted({line["stage"] for line in metrics if line["stage"].split("/")[0] == family})


def _colour(kind: str) -> str:
    return kind if kind in ("changed", "unchanged") else "rl"


def _drawn(figures: Sequence[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure["svg"]]
