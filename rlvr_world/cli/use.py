"""Verbs that use a trained model: predict, serve, play, plan, agent, policy-eval."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world.cli.parser import Verbs, add_settings
from rlvr_world.errors import InputError
from rlvr_world.overrides import override

if TYPE_CHECKING:
    from rlvr_world.config import Config
    from rlvr_world.runs.world_model import WorldModel


def add_verbs(verbs: Verbs) -> None:
    predict = verbs.add("predict", _predict, "what comes next: the state after an action")
    predict.add_argument("model", metavar="RUN|MODEL", help="a run folder, a model folder, or a hub id")
    predict.add_argument(
        "questions", metavar="FILE", nargs="?", default="", help="lines of {state, action} in JSON, or .npz; - is stdin"
    )
    predict.add_argument("--row", metavar="ID", default="", help="a row of the recipe, by its id or the end of it")
    predict.add_argument("--samples", metavar="N", type=int, default=1, help="samples a question (1)")
    predict.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0, the most likely token")
    predict.add_argument("--seed", metavar="S", type=int, default=0, help="of the samples (0)")
    predict.add_argument("--recipe", metavar="RECIPE", default="", help="the model's recipe, where that has moved")
    predict.add_argument("--out", metavar="FOLDER", type=Path, default=Path(), help="where pictures go (.)")

    play = verbs.add("play", _play, "act in a run's worlds, the imagined beside the real one, in a browser")
    play.add_argument("model", metavar="RUN|MODEL", help="a run folder, a model folder, or a hub id")
    play.add_argument("--port", metavar="PORT", type=int, default=0, help="of the page; 0 takes a free one (0)")
    play.add_argument("--text", action="store_true", help="in this terminal instead")
    play.add_argument("--seed", metavar="S", type=int, default=0, help="text: where to begin (0)")
    play.set_defaults(host="127.0.0.1", token="", sessions=64, idle=600.0, horizon=32, task="", judge="learned")

    serve = verbs.add("serve", _serve, "sessions in a run's worlds over HTTP and WebSocket, and the page to play them")
    serve.add_argument("model", metavar="RUN|MODEL", help="a run folder, a model folder, or a hub id")
    serve.add_argument("--host", metavar="HOST", default="127.0.0.1", help="another than this machine needs --token")
    serve.add_argument("--port", metavar="PORT", type=int, default=8000, help="0 takes a free one (8000)")
    serve.add_argument("--token", metavar="TOKEN", default="", help="what requests bear: Authorization: Bearer TOKEN")
    serve.add_argument("--sessions", metavar="N", type=int, default=64, help="open at once, at most (64)")
    serve.add_argument("--idle", metavar="SECONDS", type=float, default=600.0, help="until a session is closed (600)")
    serve.add_argument("--horizon", metavar="STEPS", type=int, help="of an episode, unless asked for (32, the task's)")
    serve.add_argument("--task", metavar="NAME", default="", help="of policy-eval: begin at its starts, judge success")
    serve.add_argument("--judge", metavar="SPEC", default="learned", help="of the task: or FILE.py:FUNCTION (learned)")

    policies = verbs.add("policy-eval", _policy_eval, "try policies in the models of a run, and in the real world")
    policies.add_argument("run", metavar="RUN", type=Path)
    specs = "random, clone:..., noisy:..., FILE.py:FUNCTION, ws://..., FILE.npz; several times (the recipe's)"
    policies.add_argument("--policy", metavar="NAME=SPEC", action="append", default=[], help=specs)
    policies.add_argument("--only", metavar="NAME", action="append", default=[], help="a task or model (all)")
    policies.add_argument("--starts", metavar="N", type=int, default=40, help="of each policy (40)")
    judges = "or FILE.py:FUNCTION; of films MODEL@URL, or FILE.json, a person's verdicts (learned)"
    policies.add_argument("--judge", metavar="SPEC", default="learned", help=judges)
    policies.add_argument("--controls", action="store_true", help="real actions replayed; round trips, another look")
    policies.add_argument("--lookahead", metavar="N", type=int, default=0, help="mended by N imagined plans (0)")
    policies.add_argument("--temperature", metavar="T", type=float, help="at which models draw (eval.temperature)")
    policies.add_argument("--real", metavar="FILE", type=Path, help="known real success, of recorded episodes' tasks")

    plan = verbs.add("plan", _plan, "try planners that look ahead in the models of a run, in the real world")
    plan.add_argument("run", metavar="RUN", type=Path)
    add_settings(plan)

    agent = verbs.add("agent", _agent, "language models act on web pages, looking ahead in a world model")
    agent.add_argument("out", metavar="FOLDER", type=Path, help="of traces; tasks that it holds are not played again")
    agent.add_argument("--requests", metavar="N", type=int, default=0, help="stop after so many; 0 for no limit (0)")
    agent.add_argument("--tokens", metavar="N", type=int, default=0, help="stop after so many; 0 for no limit (0)")
    add_settings(agent)


def _predict(args: argparse.Namespace) -> None:
    from rlvr_world.runs.world_model import load
    from rlvr_world.system.files import write_whole
    from rlvr_world.types import Malformed, Picture

    if bool(args.row) == bool(args.questions):
        raise InputError("predict: expected either --row ID or a FILE of questions (- for stdin); give one of them")
    world = load(args.model, recipe=args.recipe)
    asked = [_row(world, args.row)] if args.row else [world.recipe.question(q) for q in _questions(args.questions)]
    answers = world.predict_rows(asked, args.samples, args.temperature, args.seed)
    for row, states in zip(asked, answers, strict=True):
        for number, state in enumerate(states if args.samples > 1 else [states]):
            if isinstance(state, Malformed):
                print(json.dumps({"malformed": state.reason}))
                continue
            shown = world.recipe.shown(state)
            if isinstance(shown, Picture):
                name = re.sub(r"[^\w.-]", "_", row.id)
                file = args.out / f"{name}-{number}.{shown.media.partition('/')[2]}"
                write_whole(file, shown.data)
                shown = str(file)
            print(shown)


def _plan(args: argparse.Namespace) -> None:
    from rlvr_world.runs.runner import stored_config

    config = stored_config(args.run)
    starts = [] if config.plan.starts else ["plan.starts=108"]  # of each task, unless the run's settings say
    plan(args.run, override(override(config, starts), args.settings))


def plan(run: Path, config: Config) -> None:
    """Try the planners that the config names, and say what came of it."""
    from rlvr_world.diagnose.planning import plan_run
    from rlvr_world.evaluation.report import planning_text, write_report

    plan_run(run, config)
    print(f"\n{planning_text(run)}\nreport: {write_report(run)}")


def _agent(args: argparse.Namespace) -> None:
    from rlvr_world.diagnose.agent import try_agent
    from rlvr_world.recipes.web_agent import AgentConfig

    most = Counter(requests=args.requests, tokens=args.tokens)
    print(try_agent(args.out, override(AgentConfig(), args.settings), most))


def _policy_eval(args: argparse.Namespace) -> None:
    from rlvr_world.diagnose.policies import Study, try_policies

    specs = dict(given.partition("=")[::2] for given in args.policy)
    asked = Study(specs, args.only, args.starts, args.judge, args.controls, args.lookahead, args.real, args.temperature)
    print(f"{try_policies(args.run, asked)}\n\nreports, scatters and films: {args.run / 'policies'}")


def _play(args: argparse.Namespace) -> None:
    if not args.text:
        _serve(args)
        return
    from rlvr_world.sessions.imagined import worlds_of
    from rlvr_world.sessions.terminal import play

    worlds = worlds_of(args.model)
    play(next(iter(worlds.values()))(), worlds["real"]() if "real" in worlds else None, sys.stdin, args.seed)


def _serve(args: argparse.Namespace) -> None:
    from rlvr_world.sessions.imagined import worlds_of
    from rlvr_world.sessions.server import Server, serve
    from rlvr_world.sessions.shared import Limits, Worlds

    worlds: Worlds = worlds_of(args.model)
    horizon = 32
    if args.task:
        from rlvr_world.diagnose.policies import with_task

        worlds, horizon = with_task(worlds, Path(args.model), args.task, args.judge)
    horizon = horizon if args.horizon is None else args.horizon
    if min(args.sessions, horizon, args.idle) <= 0 or not 0 <= args.port < 65536:
        raise InputError("serve: expected sessions, idle and horizon above 0 and a port from 0 to 65535; mend them")
    limits = Limits(sessions=args.sessions, idle=args.idle)
    serve(Server(worlds, limits, args.token, horizon), args.host, args.port)


def _questions(place: str) -> Iterator[Any]:
    """What stands in a file: lines of JSON, or the arrays ``image`` and ``action`` (and ``proprio``) of an .npz."""
    if place.endswith(".npz"):
        import numpy as np

        with np.load(place, allow_pickle=False) as arrays:
            yield {"state" if name == "image" else name: arrays[name] for name in arrays.files}
        return
    lines = getattr(sys.stdin, "buffer", sys.stdin) if place == "-" else Path(place).read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:  # bad UTF-8, brackets without end
                raise InputError(f"{place}, line {number}: expected JSON, got {line[:60]!r} ({error})") from error


def _row(world: WorldModel, name: str) -> Any:
    splits = world.recipe.splits(world.config)
    rows = [row for part in (splits.test, splits.valid, splits.train) for row in part if row.id.endswith(name)]
    exact = [row for row in rows if row.id == name]
    if len({row.id for row in rows}) == 1 or exact:
        return (exact or rows)[0]
    some = rows or splits.test
    there = ", ".join(repr(row.id) for row in some[:3]) or "no test row"
    got = f"it is that of {len(rows)}; there is {there}"
    raise InputError(f"row {name!r}: expected the end of one id of {world.config.recipe}, {got}")
