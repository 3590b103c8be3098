"""Is a recipe's data sound, and does its reward tell right from wrong? Every row is read, asked and answered.

rows -> encode -> the true answer's tokens -> decode -> score: the true answer must score as well as can be, and better
than any trivial prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rlvr_world.config import Config
from rlvr_world.errors import InputError, NonFinite
from rlvr_world.evaluation.tables import markdown
from rlvr_world.models.head import Model
from rlvr_world.runs.jobs import Run
from rlvr_world.runs.look import answer_of, at_rows, at_settings, encoded, opened
from rlvr_world.runs.tracking import Log
from rlvr_world.scoring import AT_ONCE, baselines, judge
from rlvr_world.system.progress import track
from rlvr_world.types import BatchDomain, Domain, Rows, Score, Script, Transition, Write, Written

LISTED = 10
"""Faults that are told in full."""


@dataclass
class Split:
    """What was found in one split."""

    rows: int
    kinds: Counter[str]
    worlds: int
    checked: int = 0
    faults: list[str] = field(default_factory=list)
    malformed: int = 0
    gold: list[float] = field(default_factory=list)
    baselines: dict[str, list[float]] = field(default_factory=dict)


def check(config: Config, model: str = "", limit: int = 0) -> tuple[bool, str]:
    """Whether all is well, and a text of tables and faults.

    ``model`` brings tokenizer and codec where the recipe does not make them from the rows alone. ``limit`` bounds the
    rows of each split whose answers are scored, spread evenly; 0 takes all. Rows that do not read are told together,
    and then nothing else is; InputError is raised for what is no matter of rows, such as a file that is not there.
    """
    config = replace(config, model=replace(config.model, source=model or config.model.source))
    recipe = at_settings(config)
    try:
        splits = recipe.splits(config)
    except InputError:
        if told := recipe.row_faults(config):
            return False, "\n".join(["rows that do not read: nothing else was looked at", *_told(told)])
        raise
    with TemporaryDirectory() as folder:
        run = Run(Path(folder), config, recipe, splits, Log(Path(folder)))
        trained_first = recipe.first_stage(config) is not None
        domain, start = (None, None) if trained_first else opened(run)
        found = _found(run, domain, start, limit)
        good = not any(split.faults for split in found.values())
        if good:
            at_rows(run, *(opened(run) if trained_first else (domain, start)))
    return good, _text(found, domain, splits.left_out)


def _found(run: Run, domain: Domain | None, model: Model | None, limit: int) -> dict[str, Split]:
    """What is in each split; without a ``domain`` rows are read and not answered."""
    found: dict[str, Split] = {}
    for name in ("sft", "train", "valid", "test"):
        rows: Rows = getattr(run.splits, name)
        if name == "train" and rows is run.splits.sft:
            continue
        counts = Counter(row.kind for row in rows)
        split = found[name] = Split(len(rows), counts, len({row.world for row in rows}))
        if not rows and name != "valid":
            split.faults.append(f"split {name}: expected rows, got none; look at the split's shares and at its files")
        if domain is None:
            split.faults += [fault for row in track(rows, f"reading {name}") for fault in run.recipe.unread(row)]
            continue
        chosen = range(0, len(rows), max(1, len(rows) // limit) if limit else 1)
        batch = AT_ONCE if isinstance(domain, BatchDomain) else 1
        encode = partial(encoded, domain, model=model, config=run.config)
        for start in track(range(0, len(chosen), batch), f"checking {name}"):
            _check_rows(domain, encode, [rows[i] for i in chosen[start : start + batch]], split)
    return found


def _check_rows(domain: Domain, encode: Callable[[Transition], Script], rows: Rows, split: Split) -> None:
    """Ask, answer and score some rows; what is wrong with them goes to ``split.faults``."""
    split.checked += len(rows)
    asked: list[Transition] = []
    truths: list[list[Written]] = []
    for row in rows:
        try:
            script = encode(row)
        except InputError as error:
            split.faults.append(str(error))
            continue
        if not script.fits:
            lengths = max((len(s.target or ()), s.max_tokens) for s in script.tail if isinstance(s, Write))
            split.faults.append(
                f"row {row.id}: the true answer has {lengths[0]} tokens, at most {lengths[1]} can be written; raise "
                "data.max_response"
            )
        if row.next_state is None:  # given reasoning, fitted as it is
            continue
        truths.append([answer_of(script)])
        asked.append(row)
    try:
        answered = list(judge(domain, truths, asked))
        trivial = baselines(domain, asked)
    except (InputError, NonFinite, RuntimeError) as error:
        split.faults.append(str(error))
        return
    for row, [(_, gold)], named in zip(asked, answered, trivial, strict=True):
        split.gold.append(gold.value)
        split.malformed += bool(gold.malformed)
        for name, one in named.items():
            split.baselines.setdefault(name, []).append(one.value)
        split.faults += faults(row, gold, {} if isinstance(domain, BatchDomain) else named)


def faults(row: Transition, gold: Score, baselines: dict[str, Score]) -> Iterator[str]:
    """What is wrong with how a true answer scores. Pictures come through their tokens, so that a trivial prediction
    may be nearer to a still scene: for them no ``baselines`` are given."""
    if gold.malformed:
        yield f"row {row.id}: the true answer reads as malformed ({gold.malformed})"
    elif gold.parts.get("exact", 1.0) != 1.0:
        yield f"row {row.id}: the true answer is not exactly right (exact {gold.parts['exact']:g})"
    for name, one in baselines.items():
        if one.value > gold.value + 1e-9:
            yield f"row {row.id}: {name!r} scores {one.value:.4g}, more than the true answer's {gold.value:.4g}"


def _text(found: dict[str, Split], domain: Domain | None, left_out: Mapping[str, int]) -> str:
    lines = ["| split | rows | kinds | worlds |", "|---|--:|---|--:|"]
    for name, split in found.items():
        kinds = ", ".join(f"{kind or 'any'} {count}" for kind, count in sorted(split.kinds.items()))
        lines.append(f"| {name} | {split.rows} | {kinds} | {split.worlds} |")
    lines += ["", *(f"left out: {count} rows ({why})" for why, count in left_out.items() if count)]
    if domain is None:
        lines += ["", "to prove the reward, name a run with --model: this recipe trains a tokenizer first"]
        none = "none, every row and frame reads"
    else:
        lines += _scores(found)
        none = "none, every true answer scores as it should"
    told = dict.fromkeys(fault for split in found.values() for fault in split.faults)
    return "\n".join([*lines, *_told(list(told), none)])


def _scores(found: dict[str, Split]) -> list[str]:
    """The table of what true answers and trivial predictions score."""
    names = dict.fromkeys(name for split in found.values() for name in split.baselines)
    rows = [["split", "checked", "malformed", "true answer: least", "mean", *(f"{name}: mean" for name in names)]]
    for name, split in found.items():
        values = [split.gold, *(split.baselines.get(n, []) for n in names)]
        means = [f"{sum(v) / len(v):.4g}" if v else "-" for v in values]
        least = f"{min(split.gold):.4g}" if split.gold else "-"
        rows.append([name, f"{split.checked}", f"{split.malformed}", least, *means])
    return ["", markdown(rows)]


def _told(told: Sequence[str], none: str = "") -> list[str]:
    return ["", f"faults: {len(told) or none}", *(f"- {fault}" for fault in told[:LISTED])]
