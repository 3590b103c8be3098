"""Verbs of a run: train, resume, eval, report."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from rlvr_world.cli.parser import Verbs, add_recipe, config_of
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

    report = verbs.add("report", _report, "write the report of a run again from its files")
    report.add_argument("run", metavar="RUN", type=Path)


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


def _resume(args: argparse.Namespace) -> None:
    from rlvr_world.runs import runner

    runner.resume(args.run)


def _eval(args: argparse.Namespace) -> None:
    from rlvr_world.evaluation.tables import markdown_table, result_table
    from rlvr_world.runs import runner
    from rlvr_world.runs.folder import last_model, run_of
    from rlvr_world.system import ranks

    run = run_of(args.model)
    if args.recipe:
        config = config_of(args)
    elif run:
        config = override(runner.stored_config(run), args.settings)
    else:
        raise InputError(f"{args.model}: lies in no run folder; say with --recipe whose rows to evaluate it on")
    model = last_model(args.model) if run == args.model else args.model
    with ranks.joined(config.model.device):
        result = runner.evaluate_model(str(model), config)
        print(markdown_table(result_table({str(model): result})))
        if args.out and ranks.first():
            args.out.write_text(json.dumps(result, indent=1))


def _report(args: argparse.Namespace) -> None:
    from rlvr_world.evaluation.report import text_report, write_report

    page = write_report(args.run)
    print(f"{text_report(args.run)}\nreport: {page}")
