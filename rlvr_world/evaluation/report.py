"""The page of a run: what was trained, what came of it, and how sure that is. One HTML file with no outside parts.

run folder -> config, metrics, results, samples -> findings, tables, curves, predictions -> report.html
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..errors import InputError
from .figures import held_out_figures, more_figures, rl_figures, sft_figures
from .findings import findings, flatten, headline_part, story, tables
from .summary import OVERALL, Result, markdown_table, paper_table

PREDICTIONS = 5  # shown right, and shown wrong


def write_report(run: Path) -> Path:
    """Write ``run/report.html`` from config.json, metrics.jsonl and eval/*.json, as far as they are there.

    The page loads nothing from outside and runs no script. Text written by the model is escaped.
    Raises InputError when ``run`` is not a run folder or one of its files does not read as JSON.
    """
    run = Path(run)
    if not (run / "config.json").is_file():
        raise InputError(f"{run} is not a run folder: expected a file config.json in it; give the folder of a run")
    config = _read(run / "config.json")
    metrics = _read_metrics(run / "metrics.jsonl")
    groups = _by_protocol([_read(path) for path in _results(run)])
    main = groups[0] if groups else {}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("template.html").render(
        title=config.get("recipe") or run.name,
        purpose=config.get("summary") or "",
        run=run.name,
        story=story(config, metrics, main),
        **findings(main),
        groups=[tables(group) for group in groups],
        sft_figures=sft_figures(metrics),
        held_out_figures=held_out_figures(metrics, headline_part(main)),
        rl_figures=rl_figures(metrics),
        more_figures=more_figures(metrics),
        times=(times := _times(metrics)),
        phases=list(dict.fromkeys(phase for row in times for phase in row["phases"])),
        clock=_clock,
        predictions=_predictions(run),
        config=flatten(config),
    )
    path = run / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def text_report(run: Path) -> str:
    """The tables, differences with intervals, verdict and times of a run in Markdown, for terminals and documents."""
    lines: list[str] = []
    for group in _by_protocol([_read(path) for path in _results(run)]):
        first = next(iter(group.values()))
        lines.append(f"protocol {first['fingerprint']}, {first['protocol']['rows']} rows\n")
        for part in [p for p in ("exact", "exact_published") if p in first["binary"]]:
            found = findings(group, part)
            lines += [f"{part}, mean [95% interval over rows]:\n", markdown_table(paper_table(group, part)), ""]
            for finding in found["findings"]:
                cells = [
                    f"{c['slice']} {c['rows']}" + (f" (over seeds {c['seeds']})" if c["seeds"] else "")
                    for c in finding["cells"]
                ]
                lines.append(f"- {finding['ours']} minus {finding['theirs']}: {'; '.join(cells)}")
            lines += ["", found["verdict"], ""]
    times = [f"{row['stage']} {_clock(row['seconds'])}" for row in _times(_read_metrics(run / "metrics.jsonl"))]
    return "\n".join([*lines, "training time: " + ", ".join(times)])


def _results(run: Path) -> list[Path]:
    return [path for path in sorted((run / "eval").glob("*.json")) if not path.name.startswith("samples-")]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: expected JSON, got {error}; write the file again") from error


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    metrics = []
    for number, text in enumerate(lines, 1):
        try:
            metrics.append(json.loads(text))
        except json.JSONDecodeError as error:
            if number < len(lines):  # the last line may be cut off: the run is still writing, or was stopped
                raise InputError(f"{path}, line {number}: expected JSON, got {error}; remove the line") from error
    return metrics


def _by_protocol(results: Sequence[Result]) -> list[dict[str, Result]]:
    """Results that may be compared, by model in the order of training; the group with the most models first.

    The name of a best-of-N result is ``best-of-N/`` and the model's; its protocol keeps it apart from the greedy one.
    """
    groups: dict[str, dict[str, Result]] = defaultdict(dict)
    order = {"base": 0, "sft": 1, "rl": 2, "control": 3}
    named = [(re.sub(r"^best-of-\d+/", "", result["name"]), result) for result in results]
    for name, result in sorted(named, key=lambda pair: (order.get(pair[0].split("/")[0], 4), pair[0])):
        groups[result["fingerprint"]][name] = result
    return sorted(groups.values(), key=lambda g: (-len(g), max(r["slices"][OVERALL]["samples"] for r in g.values())))


def _times(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds, steps and tokens of each stage, which the log counts on, and seconds of its phases where logged."""
    output = []
    for stage in sorted({line["stage"] for line in metrics}, key=lambda name: (name != "sft", name)):
        lines = [line for line in metrics if line["stage"] == stage]
        names = dict.fromkeys(key for line in lines for key in line if key.startswith("time/"))
        phases = {name[5:]: sum(float(line.get(name, 0)) for line in lines) for name in names}
        seconds, known = lines[-1]["seconds"], sum(phases.values())
        if phases and seconds > known:
            phases["other"] = seconds - known
        counters = {"tokens": lines[-1]["tokens"], "steps": lines[-1]["step"]}
        output.append({"stage": stage, "seconds": seconds, "phases": phases, **counters})
    longest = max((row["seconds"] for row in output), default=0) or 1
    return [row | {"share": 100 * row["seconds"] / longest} for row in output]


def _clock(seconds: float) -> str:
    """42 s, 7 min 5 s, 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _predictions(run: Path) -> dict[str, Any]:
    """Predictions of the last trained model: right and wrong ones, those of different kinds in turn."""
    found = {path.stem.removeprefix("samples-"): path for path in sorted((run / "eval").glob("samples-*.json"))}
    name = next((n for family in ("rl", "sft", "base", "") for n in found if n.startswith(family)), "")
    samples = _read(found[name]) if name else []
    return {"model": name.replace("-", "/", 1), "right": _pick(samples, True), "wrong": _pick(samples, False)}


def _pick(samples: Sequence[Mapping[str, Any]], right: bool) -> list[dict[str, Any]]:
    kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for sample in samples:
        if sample["right"] == right:
            kinds[sample["kind"]].append(sample)
    turns = [s for turn in zip_longest(*(kinds[k] for k in sorted(kinds))) for s in turn if s is not None]
    return [dict(sample) | {"lines": _diff_lines(sample["diff"])} for sample in turns[:PREDICTIONS]]


def _diff_lines(diff: str) -> list[tuple[str, str]]:
    """(class, text) of each line of a diff."""
    classes = {"+": "plus", "-": "minus"}
    return [(classes.get(line[:1], "same"), line) for line in diff.splitlines()]
