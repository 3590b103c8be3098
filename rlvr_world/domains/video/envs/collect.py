"""Episodes of the embedded simulators, played by scripts, in the layout of the published data."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from rlvr_world.domains.video.envs import drawer, granular, pusht, rope, table
from rlvr_world.domains.video.envs.specs import SPECS, Spec
from rlvr_world.domains.video.envs.write import write_episodes
from rlvr_world.errors import InputError


def collect(kind: str, spec: Spec, cache: Path, workers: int = 0) -> Path:
    """The folder with the episodes of ``spec``, played now or found in ``cache``; the same spec, the same arrays.

    workers: processes that play; 0 takes one for each processor.
    Raises InputError for an unknown world, for a spec of another world, and where MuJoCo cannot render;
    ModuleNotFoundError where the simulator is not installed.
    """
    if kind not in SPECS:
        raise InputError(f"world: {kind!r} is not known; expected one of {', '.join(SPECS)}")
    if not isinstance(spec, SPECS[kind]):
        raise InputError(f"world {kind}: the spec is a {type(spec).__name__}; expected a {SPECS[kind].__name__}")
    world, package = {
        "pusht": (pusht, "gym_pusht"),
        "rope": (rope, "mujoco"),
        "granular": (granular, "mujoco"),
        "drawer": (drawer, "metaworld"),
    }[kind]
    made_by = f"{world.FORMAT} {package} {_version(package)}"
    if kind != "pusht":
        table.headless()
    return write_episodes(world.play, spec, kind, made_by, cache, workers)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package) from error
