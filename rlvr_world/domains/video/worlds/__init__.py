"""Worlds that make video episodes here: simulators played by scripts, in the layout of the published data."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Literal

from rlvr_world.domains.video.worlds import pusht
from rlvr_world.domains.video.worlds.pusht import PushTSpec
from rlvr_world.domains.video.worlds.write import write_episodes
from rlvr_world.errors import InputError

__all__ = ["PushTSpec", "Spec", "collect"]

Spec = PushTSpec


def collect(kind: Literal["pusht"], spec: Spec, cache: Path, workers: int = 0, progress: bool = True) -> Path:
    """The folder with the episodes of ``spec``, played now or found in ``cache``; the same spec, the same arrays.

    workers: processes that play; 0 takes one for each processor.
    Raises InputError for an unknown world, ModuleNotFoundError where its simulator is not installed.
    """
    if kind == "pusht":
        return write_episodes(pusht.play, spec, kind, _made_by(pusht.FORMAT, "gym_pusht"), cache, workers, progress)
    raise InputError(f"world: {kind!r} is not known; expected pusht")


def _made_by(form: str, package: str) -> str:
    try:
        return f"{form} {package} {metadata.version(package)}"
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package) from error
