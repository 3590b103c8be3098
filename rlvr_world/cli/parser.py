"""Arguments: verbs, recipes, settings ``a.b=c``, and help that lists what can be set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rlvr_world import __version__
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.overrides import describe, override

Verb = Callable[[argparse.Namespace], "int | None"]


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
    from rlvr_world.cli import data, diagnose, runs, use

    parser = argparse.ArgumentParser(
        prog="rlvr-world",
        description="Train world models by reinforcement learning on verifiable rewards, and use them.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlvr-world {__version__}")
    verbs = Verbs(parser.add_subparsers(title="verbs", metavar="VERB", required=True))
    for group in (runs, use, diagnose, data):
        group.add_verbs(verbs)
    return parser


class Verbs:
    """Where the files beside this one register their verbs."""

    def __init__(self, verbs: Any) -> None:
        self._verbs = verbs

    def add(self, name: str, run: Verb, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = self._verbs.add_parser(
            name, help=text, description=text, add_help=False, allow_abbrev=False
        )
        added.add_argument(
            "-h", "--help", action=_Help, nargs="?", metavar="GROUP", help="show this, and settings: all, or of a group"
        )
        added.set_defaults(verb=run)
        return added


def add_recipe(added: argparse.ArgumentParser, name: str, text: str) -> None:
    added.add_argument(name, metavar="RECIPE", help=f"{text}: a name, path/to/recipe.py, or a module")
    add_settings(added)


def add_settings(added: argparse.ArgumentParser) -> None:
    added.add_argument("settings", metavar="a.b=c", nargs="*", default=[], help="settings to change")


def config_of(args: argparse.Namespace) -> Config:
    """The config that a recipe and settings on the command line make."""
    from rlvr_world import recipes

    return override(recipes.config_of(args.recipe), args.settings)


def fail(message: str, code: int = 2) -> int:
    print("rlvr-world: " + " ".join(message.split()), file=sys.stderr)
    return code


class _Help(argparse.Action):
    """``--help`` after a recipe's name, or after that of an embedded world, lists its settings too."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        group = values or ""
        if group and getattr(namespace, "recipe", "") is None:  # --help demo
            namespace.recipe, group = group, ""
        try:
            if not group or not _settings(namespace):
                parser.print_help()
            for title, settings in _settings(namespace):
                print(f"\n{title}\n{describe(settings, group=group)}")
        except InputError as error:
            parser.exit(fail(str(error)))
        parser.exit()


def _settings(namespace: argparse.Namespace) -> list[tuple[str, Any]]:
    from rlvr_world import recipes
    from rlvr_world.recipes.embedded import ENVS, env_settings

    if recipe := getattr(namespace, "recipe", None):
        config = recipes.config_of(recipe)
        return [(f"{recipe}: {config.summary}\n\nsettings:", config)]
    if hasattr(namespace, "world"):
        names = [namespace.world] if namespace.world else list(ENVS)
        return [(f"settings of {name}:", env_settings(name)) for name in names]
    return []
