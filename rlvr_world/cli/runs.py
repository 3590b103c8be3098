"""Verbs of a run: train, resume, eval, report."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from rlvr_world.cli.parser import Verbs, add_recipe, add_settings, config_of
from rlvr_world.errors import InputError
from rlvr_world.overrides import override


def add_verbs(verbs: Verbs) -> None:
    train = verbs.add("train", _train, "run every stage of a recipe into a new run folder")
    add_recipe(train, "recipe", "what to train")
    train.add_argument("--out", dest="run", metavar="RUN", type=Path, help="run folder (runs/RECIPE-TIME)")

    resume = verbs.add("resume", _resume, "go on with a run that was stopped")
    resume.add_argument("run", metavar="RUN", type=Path)

    evaluate = verbs.add("eval", _eval, "evaluate a model on a recipe's test rows")
    evaluate.add_argument(
        "model", metavar="RUN|MODEL", type=Path, help="a run folder (its last model), a model folder, or a hub id"
    )
    add_recipe(evaluate, "--recipe", "whose rows and settings to use; a model inside a run folder has its own")
    evaluate.add_argument("--out", metavar="FILE", type=Path, help="write the whole result here, as JSON")

    adopt = verbs.add("adopt", _adopt, "make a published video model a folder that eval, train and predict take")
    adopt.add_argument("model", metavar="MODEL", help="its folder or hub id")
    adopt.add_argument("folder", metavar="OUT", type=Path, help="a new folder: the model with all that it needs")
    adopt.add_argument("--tokenizer", metavar="TOKENIZER", required=True, help="its visual tokenizer: folder or hub id")
    adopt.add_argument("--ranges", metavar="FILE", required=True, help="the ranges of its actions, .pth or .json")
    add_recipe(adopt, "--recipe", "rt1_single or rt1_multi, or another whose models it is one of")

    export = verbs.add("export", _export, "write a run's or recipe's RL as a folder that TRL or verl runs")
    export.add_argument("engine", choices=("trl", "verl"))
    export.add_argument("source", metavar="RUN|RECIPE", help="what has a model for RL to start from")
    export.add_argument("--out", metavar="OUT", type=Path, required=True, help="a new folder")
    add_settings(export)

    report = verbs.add("report", _report, "write the report of a run again from its files")
    report.add_argument("run", metavar="RUN", type=Path)

    push = verbs.add("push", _push, "upload the last model of a run with its cards and report to the Hugging Face hub")
    push.add_argument("run", metavar="RUN", type=Path)
    push.add_argument("repo", metavar="HUB/ID", help="made if there is none; log in by `hf auth login` or HF_TOKEN")
    push.add_argument(
        "--license", default="unknown", help="of the model, in the hub's words: mit, apache-2.0 (unknown)"
    )
    push.add_argument("--private", action="store_true", help="a new repository is private")


def _train(args: argparse.Namespace) -> None:
    config = config_of(args)
    place, _, attribute = args.recipe.partition(":")
    name = attribute or place.removesuffix(".py").replace("/", ".").rpartition(".")[2]
    args.run = args.run or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    from rlvr_world.runs import runner
    from rlvr_world.system import ranks

    with ranks.joined(config.model.device):
        args.run = Path(ranks.by_first(lambda: str(args.run)))
        runner.train(config, args.run)
    _afterwards(args.run)


def _resume(args: argparse.Namespace) -> None:
    from rlvr_world.runs import runner

    runner.resume(args.run)
    _afterwards(args.run)


def _afterwards(run: Path) -> None:
    """What the run's models are good for, where its settings ask for that; then what can be done with them."""
    from rlvr_world.cli.use import plan
    from rlvr_world.runs.runner import stored_config

    if os.environ.get("RANK", "0") != "0":  # of what torchrun started, the first does it
        return
    if (config := stored_config(run)).plan.starts:
        try:
            plan(run, config)
        except InputError as error:  # no goals in rows of files, no model trained: the run stands all the same
            print(f"planning left out: {error}", file=sys.stderr)
    samples = next((run / "eval").glob("samples-*.json"), None)
    row = json.loads(samples.read_text())[0]["id"].split()[-1] if samples else "ID"
    called = "rlvr-world" if shutil.which("rlvr-world") else f"{sys.executable} -m rlvr_world"
    print(f"\nnext: open {run / 'report.html'} in a browser, and")
    print(f"  {called} play {run}   # act in what it imagines, beside what really happens where that is known")
    print(f"  {called} predict {run} --row {row}")
    if config.plan.starts:
        print(f"  {called} plan {run} plan.starts=108   # more starts, narrower intervals")


def _eval(args: argparse.Namespace) -> None:
    from rlvr_world.evaluation.tables import markdown_table, tables
    from rlvr_world.runs import runner, sources
    from rlvr_world.runs.folder import last_model, run_of
    from rlvr_world.system import ranks

    if any(one.startswith("eval.sample") for one in args.settings):
        raise InputError("eval.samples, eval.sample_rows: only train takes them; give eval.temperature=1 eval.runs=N")
    run = run_of(args.model)
    if args.recipe:
        config = config_of(args)
    elif run:
        config = override(stored := runner.stored_config(run), args.settings)
        sources.check(run, stored, refuse=False)
    else:
        raise InputError(f"{args.model}: lies in no run folder; say with --recipe whose rows to evaluate it on")
    model = last_model(args.model) if run == args.model else args.model
    with ranks.joined(config.model.device):
        result = runner.evaluate_model(str(model), config)
        print(markdown_table(tables({str(model): result})[0].rows))
        if args.out and ranks.first():
            args.out.write_text(json.dumps(result, indent=1))


def _adopt(args: argparse.Namespace) -> None:
    given = {"model.source": args.model, "data.tokenizer.source": args.tokenizer, "data.action_ranges": args.ranges}
    if not args.recipe:
        raise InputError("adopt: expected --recipe, got none; name the recipe whose kind of model it is")
    args.settings = [*(f"{name}={value}" for name, value in given.items()), *args.settings]
    config = config_of(args)
    from rlvr_world.runs.jobs import adopt

    adopt(config, args.folder)
    print(args.folder)


def _export(args: argparse.Namespace) -> None:
    from rlvr_world.runs.exports import export

    export(args.engine, args.source, args.settings, args.out)
    print(args.out / ("train.py" if args.engine == "trl" else "run.sh"))


def _report(args: argparse.Namespace) -> None:
    from rlvr_world.evaluation.report import text_report, write_report

    page = write_report(args.run)
    print(f"{text_report(args.run)}\nreport: {page}")


def _push(args: argparse.Namespace) -> None:
    from rlvr_world.runs.cards import push

    print(push(args.run, args.repo, args.license, args.private))
