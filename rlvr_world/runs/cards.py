"""What a run says about itself to whoever gets it: versions, commit, machine, threads and command that it was made
with, so that a figure that does not travel can be explained; cards of its model and its rows; the way to the hub."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import rlvr_world
from rlvr_world.errors import InputError
from rlvr_world.evaluation.evaluate import rows_hash
from rlvr_world.evaluation.report import text_report
from rlvr_world.models.cpu import processor
from rlvr_world.overrides import to_json
from rlvr_world.runs.checkpoints import MANIFEST
from rlvr_world.runs.folder import last_model
from rlvr_world.runs.jobs import Run
from rlvr_world.system import ranks
from rlvr_world.system.files import write_whole
from rlvr_world.types import Transition

MODEL_CARD, DATA_CARD = "model_card.md", "data_card.md"
FILE = "environment.json"
PACKAGES = ("torch", "transformers", "peft", "numpy")
UNKNOWN = "unknown"
HEAD = f"---\nlicense: {UNKNOWN}\n"
LICENCE = "The run does not know the licence of its rows, nor of a model it started from: `push --license` states it."


def write_environment(run: Path) -> None:
    """Write ``RUN/environment.json``, once: what a resumed run is made with does not replace what it began with."""
    if not (run / FILE).exists():
        write_whole(run / FILE, json.dumps(environment(), indent=1))


def environment() -> dict[str, Any]:
    """Of this process."""
    name = Path(sys.argv[0]).name
    processors = (line.partition(": ")[2] for line in processor().splitlines() if line.startswith("model name"))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "rlvr_world": rlvr_world.__version__,
        "commit": _commit(Path(rlvr_world.__file__).parent),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": next(processors, platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        **({"ranks": ranks.size()} if ranks.size() > 1 else {}),
        "command": shlex.join(["rlvr-world" if name == "__main__.py" else name, *sys.argv[1:]]),
    }


def _commit(folder: Path) -> str:
    """The commit of a checkout, with a plus where it has changes; empty outside of one."""
    try:
        said = [
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "."))
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0].stdout.strip() + "+" * bool(said[1].stdout.strip())


def write_cards(run: Run) -> None:
    """``RUN/model_card.md`` and ``RUN/data_card.md``, of a run that has been evaluated."""
    write_whole(run.folder / MODEL_CARD, _model_card(run))
    write_whole(run.folder / DATA_CARD, _data_card(run))


def _model_card(run: Run) -> str:
    made, source = json.loads((run.folder / FILE).read_text()), run.config.model.source
    base = f"base_model: {source}\n" if source.count("/") == 1 and not Path(source).exists() else ""
    model = last_model(run.folder).relative_to(run.folder)
    result = json.loads((run.folder / "eval" / f"{str(model.parent).replace('/', '-')}.json").read_text())
    malformed, too_long = result["slices"]["overall"]["malformed"]["mean"], result.get("too_long", "not counted")
    return f"""{HEAD}library_name: transformers
{base}tags: [world-model, reinforcement-learning, rlvr-world]
---
# A world model of {Path(run.config.recipe).name}

Given a state and an action it says what comes next. Recipe: {run.config.summary}. This is `{model}` of the run.

```python
import rlvr_world
world = rlvr_world.load("this folder or hub id")   # a recipe of one's own stays behind: recipe="its/file.py"
world.predict(state, action)
```

## Results on held-out rows

{text_report(run.folder)}

## Limits

- Nothing is measured here but the test rows of data_card.md: no other worlds, no longer horizons.
- {100 * malformed:.1f} % of its answers there do not read. True answers longer than it may write: {too_long}.
- {LICENCE}

## How it was made and measured

{_block({"made with": made, "protocol of the results": result["protocol"]})}
"""


def _data_card(run: Run) -> str:
    """Of rows that lie in memory all is counted; of clips, which are read when they are needed, only their number."""
    splits = {name: getattr(run.splits, name) for name in ("sft", "train", "valid", "test")}
    lines = [f"| {name} | {len(rows):,} | {_kinds(rows)} |" for name, rows in splits.items()]
    lines += [f"| left out: {why} | {count:,} | | | |" for why, count in run.splits.left_out.items()]
    table = "\n".join(lines)
    return f"""{HEAD}---
# Rows of {Path(run.config.recipe).name}

Likelihood training fits `sft`, RL draws from `train`, stages are watched on `valid`; every figure is of `test`.
{LICENCE}

| split | rows | kinds | worlds | SHA-256 of the rows |
|---|---:|---|---:|---|
{table}

{_block(to_json(run.config.data))}
"""


def _block(content: Any) -> str:
    return f"```json\n{json.dumps(content, indent=1, ensure_ascii=False)}\n```"


def _kinds(rows: Sequence[Transition]) -> str:
    if not isinstance(rows, list | tuple):
        return "| | "
    kinds = Counter(row.kind for row in rows)
    said = "; ".join(f"{kind or 'all'} {count:,}" for kind, count in sorted(kinds.items()))
    return f"{said} | {len({row.world for row in rows}):,} | `{rows_hash(rows)}…`"


def push(run: Path, repo: str, licence: str, private: bool) -> str:
    """Upload the last model of a run, its cards, its report and what it was made with, in one commit; the commit's URL.

    Optimizer state stays here. Raises InputError where the run has not ended, or where the hub refuses."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    model, card = last_model(run), run / MODEL_CARD
    if not card.is_file():
        raise InputError(f"{run}: expected a {MODEL_CARD}, found none; `rlvr-world resume {run}` ends the run")
    inside = {path: path.relative_to(model) for path in model.rglob("*") if path.is_file()}
    files: dict[str, Any] = {str(n): p for p, n in inside.items() if n.parts[0] not in ("trainer", MANIFEST)}
    files |= {name: run / name for name in (DATA_CARD, FILE, "report.html")}
    text = card.read_text()
    if licence != UNKNOWN:
        text = text.replace(UNKNOWN, licence, 1).replace(LICENCE, f"Licence, as stated with the upload: {licence}.")
    files["README.md"] = text.encode()
    operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
    try:
        api, said = HfApi(), f"{run.name}: {model.relative_to(run)}"
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
        return str(api.create_commit(repo, operations, commit_message=said).commit_url)
    except (HFValidationError, HTTPError, OSError) as error:
        advice = "check the id and the network, and log in with `hf auth login`"
        raise InputError(f"hub id {repo}: {error}; {advice}") from error
