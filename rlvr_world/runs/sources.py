"""What a run stands on: the files and folders that its settings name (their unit is ``path``), as it began."""

from __future__ import annotations

import json
import sys
from glob import glob
from pathlib import Path

from huggingface_hub import constants

from rlvr_world import overrides
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.runs.folder import has_trained
from rlvr_world.system.files import digest, write_whole

SOURCES = "sources"
"""In a run's config.json beside its settings: what stood at each path, by the name of the setting."""


def rooted(config: Config) -> Config:
    """The config with absolute paths, so that a run goes on from any folder; ``~`` stays, and so do names of a hub."""
    found = {**_named(config, "folder"), **{n: p for n, p in _named(config, "path").items() if _places(p)}}
    return overrides.override(config, [f"{n}={Path(p).absolute()}" for n, p in found.items() if not p.startswith("~")])


def write_config(folder: Path, config: Config) -> dict[str, str]:
    """Write the config.json of a run: every setting, and what ``check`` gives."""
    stands = check(folder, config)
    write_whole(folder / "config.json", json.dumps({**overrides.to_json(config), SOURCES: stands}, indent=2))
    return stands


def check(folder: Path, config: Config, refuse: bool = True) -> dict[str, str]:
    """What stood at each path when the run of ``folder`` began to train; where nothing is known, what stands there now.

    Raises InputError where other bytes stand there. What is gone is only said, on stderr: not every verb needs it. So
    are new times of files that are too large to be read, which a copy brings, and without ``refuse`` everything.
    """
    stored, places = folder / "config.json", _named(config, "path")
    began = json.loads(stored.read_text()).get(SOURCES, {}) if stored.exists() and has_trained(folder) else {}
    if not isinstance(began, dict) or not all(isinstance(was, str) for was in began.values()):
        got = f"got {json.dumps(began):.60}; take {SOURCES} out of it to go on with what is there"
        raise InputError(f"{stored}: {SOURCES}: expected an object of texts, as a run writes it, {got}")
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


def _places(value: str) -> list[Path]:
    """What a setting names here: a file or folder, those that fit a pattern, or the folder of ``PLACE:NAME``."""
    path = Path(value).expanduser()
    folder = Path(value.rpartition(":")[0] or value).expanduser()
    return [place for place in (path, folder) if place.exists()][:1] or [Path(p) for p in sorted(glob(str(path)))]


def _stands(value: str) -> str:
    """What stands there, or which commit of a hub's repository is at hand under this name."""
    if found := digest(*_places(value)):
        return found
    kept, name = Path(constants.HF_HUB_CACHE), value.partition(":")[0].replace("/", "--")
    heads = (kept / f"{kind}--{name}" / "refs" / "main" for kind in ("models", "datasets"))
    return next((f"sha256 of commit {head.read_text().strip()}" for head in heads if head.is_file()), "")
