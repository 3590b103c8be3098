"""Arguments: verbs, recipes, settings ``a.b=c``, and help that lists what can be set."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.overrides import describe, override

Verb = Callable[[argparse.Namespace], "int | None"]


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
    rank = os.environ.get("RANK", "0")  # of torchrun
    with suppress(OSError):  # nobody may be left to read it
        print("rlvr-world: " + (f"rank {rank}: " if rank != "0" else "") + " ".join(message.split()), file=sys.stderr)
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
    if hasattr(namespace, "tokens"):
        from rlvr_world.recipes.web_agent import AgentConfig

        return [("settings of agent:", AgentConfig())]
    if hasattr(namespace, "world"):
        names = [namespace.world] if namespace.world else list(ENVS)
        return [(f"settings of {name}:", env_settings(name)) for name in names]
    return []
