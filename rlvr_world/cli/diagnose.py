"""Verbs that look: recipes, check, doctor, estimate, replay, study."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlvr_world.cli.parser import Verbs, add_recipe, config_of
from rlvr_world.config import at_least


def add_verbs(verbs: Verbs) -> None:
    verbs.add("recipes", _recipes, "list the recipes")

    check = verbs.add("check", _check, "read every row of a recipe, and see that its reward knows the true answers")
    add_recipe(check, "recipe", "whose rows and reward")
    check.add_argument("--model", metavar="RUN|MODEL", type=Path, help="whose tokenizer to use (for video a run)")
    check.add_argument("--rows", metavar="N", type=int, default=0, help="rows of each split to answer (all)")

    doctor = verbs.add("doctor", _doctor, "before RL: would it learn from this start, what would it cost, go or no-go")
    add_recipe(doctor, "recipe", "whose prompts, reward and settings")
    doctor.add_argument("--model", metavar="RUN|MODEL", type=Path, help="where RL would start; of a run its SFT")
    doctor.add_argument("--prompts", metavar="N", type=int, default=200, help="prompts to sample (200)")

    estimate = verbs.add("estimate", _estimate, "what a recipe would take: parameters, memory, tokens, FLOP, hours")
    add_recipe(estimate, "recipe", "whose settings")
    estimate.add_argument("--gpus", metavar="N", type=int, default=1, help="GPUs that share the work (1)")
    estimate.add_argument("--memory", metavar="GB", type=float, default=80, help="of each GPU (80)")
    estimate.add_argument("--teraflops", metavar="T", type=float, default=312, help="of each GPU (312, an A100's)")
    estimate.add_argument("--share", metavar="S", type=float, default=0.3, help="what training reaches of them (0.3)")

    replay = verbs.add("replay", _replay, "make a rollout of an RL step again and show it, or a step that failed")
    replay.add_argument("run", metavar="RUN", type=Path, help="a run folder, or a folder under RUN/faults")
    replay.add_argument("rollout", metavar="STEP/GROUP/N", nargs="?", default="", help="such as 12/3/5, from 0")
    replay.add_argument("--stage", metavar="NAME", default="", help="which RL stage (the first seed's)")
    replay.add_argument("--redo", metavar="N", type=int, default=0, help="steps that may be trained again for it (0)")

    study = verbs.add("study", _study, "ask a finished run a question")
    questions = {"metrics": "RL rewarded by each metric alone", "actions": "does the prediction follow the action?"}
    questions["rollouts"] = "how far can it be followed, k steps ahead beside the real world?"
    questions["best-of"] = "from how many draws on does the start of RL do as well as RL?"
    questions["energy"] = "are draws of frames spread as the truth is?"
    questions |= {"group-size": "RL in groups of 4 to 32", "planning": "success by depth, width and samples"}
    questions["replay"] = "recorded episodes under their actions, to the end: do they come to what was recorded?"
    study.add_argument("question", choices=questions, help="; ".join(f"{q}: {text}" for q, text in questions.items()))
    study.add_argument("run", metavar="RUN", type=Path)
    study.add_argument("--steps", metavar="N", type=int, default=0, help="metrics, group-size: RL steps (the run's)")
    study.add_argument("--actions", metavar="K", type=int, default=5, help="actions: a row's own and others (5)")
    study.add_argument("--rows", metavar="N", type=int, default=100, help="rows, walks, episodes or starts (100)")
    study.add_argument("--depth", metavar="K", type=int, default=10, help="rollouts: steps ahead (10)")
    study.add_argument("--samples", metavar="N", type=int, default=100, help="best-of, energy: draws a row (100)")


def _recipes(args: argparse.Namespace) -> None:
    from rlvr_world.recipes import recipes

    known = recipes()
    width = max(map(len, known))
    for name, config in known.items():
        print(f"{name:<{width}}  {config().summary}")


def _check(args: argparse.Namespace) -> int:
    config = config_of(args)
    from rlvr_world.diagnose.check import check
    from rlvr_world.runs.folder import start_of_rl

    return _told(*check(config, start_of_rl(args.model), args.rows))


def _estimate(args: argparse.Namespace) -> int:
    config = config_of(args)
    from rlvr_world.diagnose.estimate import estimate

    return _told(*estimate(config, args.gpus, args.memory, args.teraflops, args.share))


def _doctor(args: argparse.Namespace) -> int:
    config = config_of(args)
    from rlvr_world.diagnose.doctor import doctor
    from rlvr_world.runs.folder import start_of_rl

    return _told(*doctor(config, start_of_rl(args.model), args.prompts))


def _replay(args: argparse.Namespace) -> int:
    from rlvr_world.runs import replay

    if (args.run / "fault.json").is_file():
        return _told(*replay.replay_fault(args.run))
    return _told(True, replay.replay(args.run, args.rollout, args.stage, args.redo))


def _told(good: bool, text: str) -> int:
    """Say what was found; the exit code."""
    print(text)
    return 0 if good else 1


def _study(args: argparse.Namespace) -> None:
    from rlvr_world.diagnose import planning, rollouts, studies

    at_least(args, "--", samples=1, depth=1, rows=args.question in ("planning", "rollouts"), steps=0)
    asked: dict[str, Callable[[], Any]] = {
        "metrics": lambda: studies.study_metrics(args.run, args.steps),
        "rollouts": lambda: rollouts.study_rollouts(args.run, args.depth, args.rows),
        "replay": lambda: rollouts.study_replay(args.run, args.rows),
        "best-of": lambda: studies.study_best_of(args.run, args.samples, args.rows),
        "energy": lambda: studies.study_energy(args.run, args.samples, args.rows),
        "group-size": lambda: studies.study_group_size(args.run, (4, 8, 16, 32), args.steps),
        "planning": lambda: planning.study_planning(args.run, args.rows),
        "actions": lambda: json.dumps(studies.study_actions(args.run, args.actions, args.rows), indent=1),
    }
    print(asked[args.question]())
