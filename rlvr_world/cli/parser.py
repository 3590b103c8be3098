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
from rlvr_world.overrides import describe, laid_over, override

LARGEST = 100_000
"""Bytes of a file of arguments."""
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
    where = "a name, path/to/recipe.py, a module, or @FILE, as `init` writes it"
    added.add_argument(name, metavar="RECIPE", help=f"{text}: {where}")
    add_settings(added)


def add_settings(added: argparse.ArgumentParser) -> None:
    added.add_argument("settings", metavar="a.b=c", nargs="*", default=[], help="settings to change")


def config_of(args: argparse.Namespace) -> Config:
    """The config that a recipe and settings on the command line make; they go before those of an ``@FILE``."""
    from rlvr_world import recipes

    if args.recipe.startswith("@"):
        args.recipe, *settings = _lines(args.recipe[1:])
        args.settings = laid_over(settings, args.settings)
    return override(recipes.config_of(args.recipe), args.settings)


def _lines(file: str) -> list[str]:
    """A recipe and settings, one a line."""
    with open(file, "rb") as opened:
        read = opened.read(LARGEST + 1)
    lines = [line for line in read.decode(errors="replace").splitlines() if line.strip()]
    if len(read) > LARGEST or not lines or lines[0].startswith("@"):
        raise InputError(f"@{file}: expected lines of text, a recipe and its settings, at most {LARGEST} bytes of them")
    return lines


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
        known = _settings(namespace)
        if not group or not known:
            parser.print_help()
        for title, settings in known:
            print(f"\n{title}\n{describe(settings, group=group)}")
        parser.exit()


def _settings(namespace: argparse.Namespace) -> list[tuple[str, Any]]:
    from rlvr_world.recipes.embedded import ENVS, env_settings

    if getattr(namespace, "recipe", None):
        namespace.settings = []
        config = config_of(namespace)
        return [(f"{namespace.recipe}: {config.summary}\n\nsettings:", config)]
    if hasattr(namespace, "tokens"):
        from rlvr_world.recipes.web_agent import AgentConfig

        return [("settings of agent:", AgentConfig())]
    if hasattr(namespace, "world"):
        names = [namespace.world] if namespace.world else list(ENVS)
        return [(f"settings of {name}:", env_settings(name)) for name in names]
    return []
