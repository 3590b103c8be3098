"""What a run stands on: the files and folders that its settings name (their unit is ``path``), as it began."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from rlvr_world import overrides
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.system.files import digest

SOURCES = "sources"
"""In a run's config.json beside its settings: what stood at each path, by the name of the setting."""


def rooted(config: Config) -> Config:
    """The config with absolute paths, so that a run goes on from any folder; ``~`` stays, and so do names of a hub."""
    found = {**_named(config, "folder"), **{n: p for n, p in _named(config, "path").items() if Path(p).exists()}}
    return overrides.override(config, [f"{n}={Path(p).absolute()}" for n, p in found.items() if not p.startswith("~")])


def check(folder: Path, config: Config, refuse: bool = True) -> dict[str, str]:
    """What stood at each path when the run of ``folder`` began; where that is not known, what stands there now.

    Raises InputError where other bytes stand there. What is gone is only said, on stderr: not every verb needs it. So
    are new times of files that are too large to be read, which a copy brings, and without ``refuse`` everything.
    """
    stored, places = folder / "config.json", _named(config, "path")
    began = json.loads(stored.read_text()).get(SOURCES, {}) if stored.exists() else {}
    now = {name: _stands(place) for name, place in places.items()}
    for name, was in began.items():
        if was in ("", got := now.get(name, "")):
            continue
        there = f"{got or 'nothing'} at {places.get(name, 'no path')}"
        said = f"{name}: it is not what {folder} began with: expected {was}, got {there}"
        sizes_differ = was.partition(", ")[2] != got.partition(", ")[2]
        if refuse and got and (sizes_differ or was.startswith("sha256")):
            mend = f"put it back, or take {name} out of {SOURCES} in {stored} to go on with what is there"
            raise InputError(f"{said}; {mend}")
        print(f"rlvr-world: {said}", file=sys.stderr)
    return now | {name: was for name, was in began.items() if was}


def _named(config: Config, unit: str) -> dict[str, str]:
    """The settings of this unit, by name, but those that say how a model is made."""
    known = ((s.name, s.value) for s in overrides.settings(config) if s.unit == unit)
    return {name: value for name, value in known if value not in ("", "scratch", "smollm2")}


def _stands(place: str) -> str:
    """What stands at a path, or which commit of a hub's repository is at hand under this name."""
    if found := digest(Path(place).expanduser()):
        return found
    hub = place.count("/") == 1 and place[0] not in "./~"
    kept = try_to_load_from_cache(place, "config.json") if hub else None
    return f"sha256 of commit {Path(kept).parent.name}" if isinstance(kept, str) else ""
