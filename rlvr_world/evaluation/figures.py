"""Which curves a report shows: of each metric, one pale line a seed and a strong one for their mean.

A figure is ``{"title", "svg"}``; metrics that were never logged give none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .plots import Line, curve, line_plot, mean_curve, smooth

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
]


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
    """Reward, accuracy of the rollouts by kind of row, KL, malformed answers, response length."""
    kinds = sorted({key.split("/", 1)[1] for line in metrics for key in line if key.startswith("accuracy/")})
    stages = _stages(metrics, "rl")
    lines = [line for kind in kinds for line in _seed_lines(metrics, stages, f"accuracy/{kind}", _colour(kind), kind)]
    accuracy = {"title": "Accuracy of the rollouts", "svg": line_plot(lines, "step", percent=True)}
    figures = [_figure(metrics, *spec) for spec in RL]
    return _drawn([figures[0], accuracy, *figures[1:]])


def more_figures(metrics: Metrics) -> list[Figure]:
    """What a person looks at when RL goes wrong."""
    return _drawn([_figure(metrics, *spec, small=True) for spec in MORE])


def held_out_figures(metrics: Metrics, part: str) -> list[Figure]:
    """RL and control against the tokens that each processed, one figure a slice."""
    ends = {key for line in metrics for key in line if key.startswith("eval/") and key.endswith(f"/{part}")}
    order = {"unchanged": 0, "changed": 1, "overall": 3}
    slices = sorted((key.split("/")[1] for key in ends), key=lambda s: (order.get(s, 2), s))
    figures = []
    for slice_ in slices:
        lines = []
        for family, label in (("rl", "RL"), ("control", "control")):
            key, stages = f"eval/{slice_}/{part}", _stages(metrics, family)
            curves = [curve(metrics, stage, key, "tokens") for stage in stages]
            if len(curves) > 1:
                lines += [Line("", family, *one, faint=True) for one in curves]
            lines.append(Line(label, family, *mean_curve(curves), points=True))
        svg = line_plot(lines, "tokens processed after SFT", percent=part == "exact", small=len(slices) > 2)
        figures.append({"title": slice_, "svg": svg})
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
