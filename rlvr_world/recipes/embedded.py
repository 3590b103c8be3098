"""Where rows and episodes come from without a recipe's run: simulators played here, and data sets rewritten."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from rlvr_world.domains.text_game.config import Bytesized32Spec, TextWorldSpec
from rlvr_world.domains.video.envs.specs import SPECS
from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.errors import InputError

ENVS = {"textworld": TextWorldSpec, "bytesized32": Bytesized32Spec, "web": BrowserSpec, **SPECS}
"""The settings of each environment that is played here."""
ROWS = {kind: f"text_game.envs.{kind}" for kind in ("textworld", "bytesized32")} | {"web": "web_page.envs.collect"}
"""The modules that write rows; all other environments have episodes."""


def env_settings(name: str) -> Any:
    """What an environment is played with by default. Raises InputError for an unknown one."""
    if name not in ENVS:
        raise InputError(f"world {name!r} does not exist; there are: {', '.join(ENVS)}")
    return ENVS[name]()


def collect(name: str, spec: Any, folder: Path) -> Path:
    """Play an environment into ``folder``: the file of rows, or the folder of episodes."""
    if name in ROWS:
        return Path(importlib.import_module(f"rlvr_world.domains.{ROWS[name]}").collect_rows(spec, folder))
    return Path(importlib.import_module("rlvr_world.domains.video.envs.collect").collect(name, spec, folder))


def convert_rlds(source: str, dataset: str, folder: Path, *which: Any) -> tuple[int, int]:
    """Rewrite RLDS episodes as .npz files; how many are new, and how many lie in files that are not there."""
    from rlvr_world.domains.video.rlds import convert

    return convert(source, dataset, folder, *which)
