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

from rlvr_world.errors import InputError
from rlvr_world.evaluation.figures import held_out_figures, more_figures, rl_figures, sft_figures, tokenizer_figures
from rlvr_world.evaluation.findings import findings, story
from rlvr_world.evaluation.summary import (
    OVERALL,
    Column,
    Result,
    decimals_of,
    layout,
    markdown_table,
    number_text,
    resampled,
    table_rows,
    title_of,
    unit_of,
)
from rlvr_world.evaluation.tables import flatten, tables

PREDICTIONS = 5  # shown right, and shown wrong
PICTURED = 6  # rows whose pictures are shown


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
    found = findings(main)
    lower = next(iter(main.values()), {}).get("lower_is_better", ())
    samples = _samples(run)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("template.html").render(
        title=config.get("recipe") or run.name,
        purpose=config.get("summary") or "",
        run=run.name,
        story=story(config, metrics, main, found["blocks"]),
        **found,
        groups=[tables(group) for group in groups],
        tokenizer=_tokenizer(run, metrics),
        sft_figures=sft_figures(metrics),
        sft_held_out_figures=held_out_figures(metrics, lower, "sft"),
        held_out_figures=held_out_figures(metrics, lower, "rl", "control"),
        rl_figures=rl_figures(metrics),
        more_figures=more_figures(metrics),
        times=(times := _times(metrics, _read_metrics(run / "timings.jsonl"))),
        interventions=_interventions(run),
        phases=list(dict.fromkeys(phase for row in times for phase in row["phases"])),
        clock=_clock,
        speed=_speed,
        pictures=_pictures(samples),
        predictions=_predictions(samples),
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
        asked = [] if "f1" in first["slices"][OVERALL]["parts"] else ["exact", "exact_published"]
        for part in [p for p in asked if p in first["binary"]] or [""]:
            found = findings(group, part)
            blocks = {block["title"]: block for block in found["blocks"]}
            for title, columns in layout(group, part).items():
                lines += [
                    f"{title}, mean [95% interval over {resampled(first['protocol'])}]:\n",
                    markdown_table(table_rows(group, columns)),
                    "",
                ]
                lines += [*_finding_lines(blocks[title]), ""] if title in blocks else []
            lines += [found["verdict"], ""]
    logs = (_read_metrics(run / name) for name in ("metrics.jsonl", "timings.jsonl"))
    times = [f"{row['stage']} {_clock(row['seconds'])}{_speed(row)}" for row in _times(*logs)]
    return "\n".join([*lines, "training time: " + ", ".join(times)])


def _speed(row: Mapping[str, Any]) -> str:
    """Of likelihood training, tokens a second and model FLOP utilisation."""
    return f" ({row['tokens'] / row['seconds']:,.0f} tokens/s, MFU {100 * row['mfu']:.0f} %)" if row["mfu"] else ""


def _finding_lines(block: Mapping[str, Any]) -> list[str]:
    """A bullet for each rival: slices in one line, parts below one another."""
    lines = []
    for finding in block["findings"]:
        cells = [
            f"{cell['title']} {', '.join(cell['rows'])}"
            + (f" (over seeds {', '.join(cell['seeds'])})" if cell["seeds"] else "")
            for cell in finding["cells"]
            if cell
        ]
        head = f"- {finding['ours']} minus {finding['theirs']}:"
        lines += [f"{head} {'; '.join(cells)}"] if block["by_slice"] else [head, *(f"  - {cell}" for cell in cells)]
    return lines


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


def _training_order(name: str) -> tuple[int, str]:
    order = {"base": 0, "sft": 1, "rl": 2, "control": 3}
    return order.get(name.split("/")[0], 4), name


def _by_protocol(results: Sequence[Result]) -> list[dict[str, Result]]:
    """Results that may be compared, by model in the order of training; the group with the most models first.

    The name of a best-of-N result is ``best-of-N/`` and the model's; its protocol keeps it apart from the greedy one.
    """
    groups: dict[str, dict[str, Result]] = defaultdict(dict)
    named = [(re.sub(r"^best-of-\d+/", "", result["name"]), result) for result in results]
    for name, result in sorted(named, key=lambda pair: _training_order(pair[0])):
        groups[result["fingerprint"]][name] = result
    best_of = {result["fingerprint"] for result in results if result["name"].startswith("best-of-")}
    return sorted(groups.values(), key=lambda g: (next(iter(g.values()))["fingerprint"] in best_of, -len(g)))


def _interventions(run: Path) -> list[str]:
    """What guards did to the run: stopped it, ended a stage with an earlier checkpoint, put a damaged one aside."""
    told = [_read(path)["said"] for path in run.glob("halted.json")]
    for path in sorted(run.rglob("ended.json")):
        ended = _read(path)
        told.append(f"{path.parent.relative_to(run)} ended with step {ended['step']}: {ended['reason']}.")
    for path in sorted(run.glob("faults/*/fault.json")):
        fault = _read(path)
        told.append(f"{fault['stage']}, step {fault['step']}: {fault['said']}; kept in faults/{path.parent.name}.")
    return told + [f"{path.relative_to(run)} was put aside." for path in sorted(run.rglob("damaged-*"))]


def _times(metrics: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds, steps, tokens and MFU of each stage, and seconds of its phases where logged."""
    output = []
    for stage in sorted({line["stage"] for line in timings}, key=lambda n: (n != "tokenizer", n != "sft", n)):
        lines, logged = ([line for line in log if line["stage"] == stage] for log in (timings, metrics))
        names = dict.fromkeys(key for line in lines for key in line if key.startswith("time/"))
        phases = {name[5:]: sum(float(line.get(name, 0)) for line in lines) for name in names}
        seconds, known = sum(float(line.get("seconds", 0)) for line in lines), sum(phases.values())
        if phases and seconds > known:
            phases["other"] = seconds - known
        counters = (
            {"tokens": logged[-1]["tokens"], "steps": logged[-1]["step"]} if logged else {"tokens": 0, "steps": 0}
        )
        used = sum(float(line.get("mfu", 0)) * float(line.get("seconds", 0)) for line in lines)
        mfu = used / seconds if seconds else 0.0
        output.append({"stage": stage, "seconds": seconds, "phases": phases, "mfu": mfu, **counters})
    longest = max((row["seconds"] for row in output), default=0) or 1
    return [row | {"share": 100 * row["seconds"] / longest} for row in output]


def _clock(seconds: float) -> str:
    """42 s, 7 min 5 s, 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _tokenizer(run: Path, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Curves of the visual tokenizer, and how well it gives frames back where that was measured."""
    path = run / "tokenizer" / "reconstruction.json"
    measured: dict[str, Any] = _read(path) if path.is_file() else {"rows": 0, "metrics": {}, "pictures": []}
    cells = []
    for part, cell in measured["metrics"].items():
        unit = unit_of(part)
        column = Column(title_of(part), OVERALL, part, unit, decimals_of(unit, cell["mean"]))
        cells.append((column.heading, column.text(cell)))
    if "code_usage" in measured:
        cells.append(("codes in use (%)", number_text(100 * measured["code_usage"], 1)))
    if measured.get("restless") is not None:
        cells.append(("tokens that change where no pixel does (%)", number_text(100 * measured["restless"], 1)))
    pictures = [picture for picture in measured["pictures"] if picture.startswith("data:image/")]
    return {"figures": tokenizer_figures(metrics), "rows": measured["rows"], "cells": cells, "pictures": pictures}


def _samples(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The shown predictions of each model, in the order of training."""
    stems = {path.stem.removeprefix("samples-"): path for path in (run / "eval").glob("samples-*.json")}
    paths = {stem.replace("-", "/", 1): path for stem, path in stems.items() if not stem.startswith("best-of-")}
    return {name: _read(paths[name]) for name in sorted(paths, key=_training_order)}


def _pictures(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Some rows, spread over the split, each with the pictures of the first run of every kind of model."""
    firsts: dict[str, str] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, shown in samples.items():
        for sample in shown if firsts.setdefault(name.split("/")[0], name) == name else ():
            if sample.get("picture", "").startswith("data:image/"):
                row = rows.setdefault(sample["id"], {**sample, "strips": []})
                row["strips"].append((name, sample["value"], sample["picture"]))
    spread = list(rows.values())
    count = min(PICTURED, len(spread))
    return [spread[i * (len(spread) - 1) // max(1, count - 1)] for i in range(count)]


def _predictions(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Predictions of the last trained model: right and wrong ones, those of different kinds in turn."""
    name = next((n for family in ("rl", "sft", "base", "") for n in samples if n.startswith(family)), "")
    shown = [sample for sample in samples.get(name, ()) if "diff" in sample]
    return {"model": name, "right": _pick(shown, True), "wrong": _pick(shown, False)}


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
