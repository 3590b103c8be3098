"""The page of a run: what was trained, what came of it, and how sure that is. One HTML file with no outside parts.

run folder -> config, metrics, results, samples -> tables, differences, curves, predictions -> report.html

What every model said about every test row is packed for it; beside that stand means by world and by verb.

samples by model, states -> one entry a row, all models side by side -> gzip -> base64 -> predictions.js
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from rlvr_world.errors import InputError
from rlvr_world.evaluation.differences import Comparison, comparisons, verdict
from rlvr_world.evaluation.intervals import of_mean
from rlvr_world.evaluation.plots import figures
from rlvr_world.evaluation.summary import OVERALL, Result, resampled, runs_of
from rlvr_world.evaluation.tables import Row, Table, column_of, details, headline, markdown_table, tables
from rlvr_world.system.files import read_object
from rlvr_world.system.progress import clock
from rlvr_world.types import verb_of

PLANNING = "planning"
"""In a run folder: what planners did with its models; a folder a task, a file a model."""
PICTURED = 6  # rows whose pictures are shown
_read = partial(read_object, mend="write the file again")
LONGEST = 4000
"""Characters of a state, an answer or a difference that the page shows; of longer ones its beginning and its end."""
LARGEST = 12_000_000
"""Characters that the predictions may take in the page."""
LINES = 40
"""Worlds, or verbs, that a table shows: those of the most rows."""
Samples = Mapping[str, Sequence[Mapping[str, Any]]]


def write_report(run: Path) -> Path:
    """Write ``run/report.html`` from what files there are. It loads nothing from outside; its policy lets no script run
    but its own, which draws the predictions and sets what a model wrote as text; all else that one wrote is escaped.
    Raises InputError for what is no run folder, and for a file that does not read as JSON."""
    if not (run / "config.json").is_file():
        raise InputError(f"{run} is not a run folder: expected a file config.json in it; give the folder of a run")
    groups, samples, frames = _groups(run), _samples(run), run / "tokenizer" / "reconstruction.json"
    states = {key: value for path in sorted((run / "eval").glob("states-*.json")) for key, value in _read(path).items()}
    first, rows = groups[0] if groups else {}, side_by_side(samples, states)
    found, (data, shown) = comparisons(first), packed(rows)
    script = Path(__file__).with_name("predictions.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    lower = next(iter(groups[0].values()))["lower_is_better"] if groups else ()
    template = Path(__file__).with_name("template.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(template).render(
        run=run.name,
        config=_read(run / "config.json"),
        environment=_read(run / "environment.json") if (run / "environment.json").is_file() else {},
        verdict=verdict(found),
        interventions=_interventions(run),
        comparisons=[one for one in found if one.rivals],
        by_slice=not found or found[0].table.by_slice,
        groups=[{"tables": tables(g), "details": details(g), "first": next(iter(g.values()))} for g in groups],
        planning=_planning(run),
        figures=figures(log_rows(run / "metrics.jsonl"), lower),
        frames=_read(frames) if frames.is_file() else {},
        column_of=column_of,
        times=_times(run),
        pictures=_pictures(rows),
        breakdowns=breakdowns(first, samples),
        most_lines=LINES,
        rows={"total": len(rows), "shown": shown, "packed": data, "script": script, "script_hash": digest},
        dumps=partial(json.dumps, indent=2, ensure_ascii=False),
    )
    (path := run / "report.html").write_text(page, encoding="utf-8")
    return path


def text_report(run: Path) -> str:
    """The tables, differences with intervals, verdict and times of a run in Markdown, for terminals and documents."""
    lines: list[str] = []
    for group in _groups(run):
        protocol = (first := next(iter(group.values())))["protocol"]
        lines.append(f"protocol {first['fingerprint']}, {protocol['rows']} rows\n")
        for one in (found := comparisons(group)):
            over = f"{resampled(protocol)}, of means of seeds over seeds"
            lines += _section(f"{one.table.title}, mean [95 % interval over {over}]:", one)
        lines += [verdict(found), ""]
    times = ", ".join(f"{row['stage']} {row['clock']}{row['speed']}" for row in _times(run))
    return "\n".join([*lines, f"training time: {times}"])


def planning_text(run: Path) -> str:
    """What planners did with the models of a run, in Markdown: a table a task, and what the last model differs in."""
    lines: list[str] = []
    for one in _planning(run):
        over = "mean [95 % interval over worlds, of means of seeds over seeds]"
        head = f"{one['task']}: planners from {one['starts']} starts in {one['worlds']} worlds, {over}:"
        lines += [*_section(head, one["comparison"]), one["verdict"], ""]
    return "\n".join(lines)


def _planning(run: Path) -> list[dict[str, Any]]:
    """Of each task what planners did, by the model that they looked ahead in; see ``diagnose.planning``."""
    tasks: dict[str, dict[str, Result]] = defaultdict(dict)
    for result in sorted(map(_read, (run / PLANNING).glob("*/*.json")), key=lambda one: _training_order(one["name"])):
        tasks[result["protocol"]["task"]][result["name"]] = result
    found = []
    for task, results in sorted(tasks.items()):
        first, [comparison] = next(iter(results.values())), comparisons(results)
        rows = first["rows"]["world"]
        told = {"task": task, "starts": len(rows), "worlds": len(set(rows)), "more": first["protocol"]["more"]}
        told |= {"comparison": comparison, "slices": first["slices"], "verdict": verdict([comparison], "starts")}
        found.append(told)
    return found


def _section(head: str, found: Comparison) -> list[str]:
    """A table, and below it a bullet for each rival: slices in one line, parts below one another."""
    lines = [head, "", markdown_table(found.table.rows), ""]
    for rival in found.rivals:
        known = [(c.title, ", ".join(cell["rows"]), cell["seeds"]) for c, cell in rival.cells.items() if cell]
        cells = [f"{title} {rows}" + (f" (over seeds {seeds[0]})" if seeds else "") for title, rows, seeds in known]
        head = f"- {found.ours} minus {rival.model}:"
        lines += [f"{head} {'; '.join(cells)}"] if found.table.by_slice else [head, *(f"  - {cell}" for cell in cells)]
    return [*lines, ""]


def log_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log."""
    lines, rows = path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], []
    for number, text in enumerate(lines, 1):
        try:
            row, said = json.loads(text), f"{text:.60}"
        except json.JSONDecodeError as error:
            if number == len(lines):  # it may be cut off: the run is still writing, or was stopped
                break
            row, said = None, str(error)
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object, got {said}; remove the line")
        rows.append(row)
    return rows


def _training_order(name: str) -> tuple[int, str]:
    return {"base": 0, "sft": 1, "rl": 2, "control": 3}.get(name.split("/")[0], 4), name


def _groups(run: Path) -> list[dict[str, Result]]:
    """Results that may be compared, by model in the order of training; the group with the most models first. The name
    of a best-of-N result is ``best-of-N/`` and the model's; its protocol keeps it apart from the greedy one."""
    every, groups = sorted((run / "eval").glob("*.json")), defaultdict[str, dict[str, Result]](dict)
    paths = [path for path in every if not path.name.startswith(("samples-", "states-"))]
    results = [_read(path, fields=("name", "fingerprint", "protocol", "slices", "rows")) for path in paths]
    named = [(re.sub(r"^best-of-\d+/", "", result["name"]), result) for result in results]
    for name, result in sorted(named, key=lambda pair: _training_order(pair[0])):
        groups[result["fingerprint"]][name] = result
    best_of = {result["fingerprint"] for _, result in named if result["name"].startswith("best-of-")}
    return [groups[key] for key in sorted(groups, key=lambda key: (key in best_of, -len(groups[key])))]


def _interventions(run: Path) -> list[str]:
    """What guards did to the run: stopped it, ended a stage with an earlier checkpoint, put a damaged one aside."""
    told = [_read(path, fields=("said",))["said"] for path in run.glob("halted.json")]
    for path in sorted(run.rglob("ended.json")):
        ended = _read(path, fields=("step", "reason"))
        told.append(f"{path.parent.relative_to(run)} ended with step {ended['step']}: {ended['reason']}.")
    for path in sorted(run.glob("faults/*/fault.json")):
        fault = _read(path, fields=("stage", "step", "said"))
        told.append(f"{fault['stage']}, step {fault['step']}: {fault['said']}; kept in faults/{path.parent.name}.")
    return told + [f"{path.relative_to(run)} was put aside." for path in sorted(run.rglob("damaged-*"))]


def _times(run: Path) -> list[dict[str, Any]]:
    """Of each stage seconds, those of its phases, steps, tokens, and of likelihood training the speed."""
    metrics, timings, found = log_rows(run / "metrics.jsonl"), log_rows(run / "timings.jsonl"), []
    reached = {line["stage"]: (line["step"], line["tokens"]) for line in metrics}
    for stage in sorted({line["stage"] for line in timings}, key=lambda n: (n != "tokenizer", n != "sft", n)):
        lines, (steps, tokens) = [line for line in timings if line["stage"] == stage], reached.get(stage, (0, 0))
        names = dict.fromkeys(key for line in lines for key in line if key.startswith("time/"))
        phases = {name[5:]: sum(line.get(name, 0) for line in lines) for name in names}
        seconds = sum(line.get("seconds", 0) for line in lines)
        if phases and seconds > (known := sum(phases.values())):
            phases["other"] = seconds - known
        mfu = sum(line.get("mfu", 0) * line.get("seconds", 0) for line in lines) / (seconds or 1)
        speed = f"{tokens / seconds:,.0f} tokens/s, MFU {100 * mfu:.0f} %" if mfu else ""
        row = {"stage": stage, "steps": steps, "tokens": tokens, "seconds": seconds, "clock": clock(seconds)}
        found.append(row | {"phases": phases, "speed": f" ({speed})" if speed else ""})
    return found


def _samples(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The shown predictions of each model, in the order of training."""
    stems = {path.stem.removeprefix("samples-"): path for path in (run / "eval").glob("samples-*.json")}
    paths = {stem.replace("-", "/", 1): path for stem, path in stems.items() if not stem.startswith("best-of-")}
    return {name: _read(paths[name], kind=list) for name in sorted(paths, key=_training_order)}


def _pictures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Some rows, spread over the split, each with the pictures of the first run of every kind of model."""
    pictured = []
    for row in rows:
        firsts: dict[str, tuple[str, Any]] = {}
        for name, said in row["said"].items():
            if said.get("picture", "").startswith("data:image/"):
                firsts.setdefault(name.split("/")[0], (name, said))
        pictured += [{**row, "strips": firsts.values()}] if firsts else []
    most = min(PICTURED, len(pictured))
    return [pictured[i * (len(pictured) - 1) // max(1, most - 1)] for i in range(most)]


def side_by_side(samples: Samples, states: Mapping[str, str]) -> list[dict[str, Any]]:
    """One entry a row: what it is, and by model what that said of it."""
    rows: dict[str, dict[str, Any]] = {}
    for model, of_model in samples.items():
        for sample in of_model:
            asked = {"id": sample["id"], "kind": sample["kind"], "world": sample.get("world", "")}
            action = {"action": _short(sample["action"]), "verb": verb_of(sample["action"])}
            row = rows.setdefault(sample["id"], {**asked, **action, "state": _short(states.get(sample["id"], ""))})
            texts = {key: _short(sample[key]) for key in ("text", "diff", "picture") if key in sample}
            others = {key: sample[key] for key in ("value", "right", "reason", "parts") if key in sample}
            row.setdefault("said", {})[model] = {**others, **texts, "columns": sample.get("columns", ())}
    return list(rows.values())


def _short(text: str) -> str:
    """A picture is shown whole, or it is none."""
    if text.startswith("data:image/") or len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]}\n… {len(text) - LONGEST:,} characters left out …\n{text[-LONGEST // 2 :]}"


def packed(rows: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """Rows as JSON, gzip and base64; and how many there are: every second, fourth ... where all would be too large.
    Pictures, of the first rows, take half of that."""
    step, room, light = 1, LARGEST // 2, []
    for row in rows:
        room -= len(row["state"]) + sum(len(said.get("picture", "")) for said in row["said"].values())
        bare = {model: {k: v for k, v in said.items() if k != "picture"} for model, said in row["said"].items()}
        light.append({**row, "said": bare, "state": ""} if room < 0 and bare != row["said"] else row)
    while True:
        text = json.dumps(light[::step], ensure_ascii=False, separators=(",", ":"))
        data = base64.b64encode(gzip.compress(text.encode(errors="replace"), mtime=0)).decode()
        if len(data) <= LARGEST or step >= len(rows):
            return data, len(light[::step])
        step *= 2


def breakdowns(results: Mapping[str, Result], samples: Samples) -> list[Table]:
    """A table by world and one by verb, where there are several: of each family of models, and of each baseline, the
    mean of the headline part over the rows, and over seeds, with its interval over rows."""
    first = next(iter(results.values()), None)
    if first is None:
        return []
    part = next(iter(parts)) if len(parts := headline(first["rows"]["parts"])) == 1 else "value"
    values: dict[str, Any] = {}
    for family in dict.fromkeys(name.split("/")[0] for name in results):
        values[family] = np.mean([run["rows"]["parts"][part] for run in runs_of(results, family).values()], axis=0)
    values |= {name: np.array(of[part]) for name, of in first["rows"]["baselines"].items() if part in of}
    verbs = {sample["id"]: verb_of(sample["action"]) for of_model in samples.values() for sample in of_model}
    named = {"world": first["rows"]["world"], "verb": [verbs.get(id_, "") for id_ in first["rows"]["id"]]}
    binary = part in first["binary"]
    columns = {n: column_of(part, 1, OVERALL, n, share=binary) for n in values}
    tables = []
    for title, names in named.items():
        lines, of_row = [], np.array(names)
        for name, count in Counter(filter(None, names)).most_common(LINES):
            picked = {columns[n]: v[of_row == name] for n, v in values.items()}
            cells = {c: of_mean(v, binary).as_dict() for c, v in picked.items()}
            lines.append(Row(f"{name} ({count:,} rows)", cells, ""))
        tables += [Table(title, lines)] if len(lines) > 1 else []
    return tables
