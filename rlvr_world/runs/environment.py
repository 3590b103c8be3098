"""What a run was made with: versions, commit, machine, threads and command, so that a figure that does not travel can
be explained."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import rlvr_world
from rlvr_world.models.cpu import processor
from rlvr_world.system import ranks
from rlvr_world.system.files import write_whole

FILE = "environment.json"
PACKAGES = ("torch", "transformers", "peft", "numpy")


def write_environment(run: Path) -> None:
    """Write ``RUN/environment.json``, once: what a resumed run is made with does not replace what it began with."""
    if not (run / FILE).exists():
        write_whole(run / FILE, json.dumps(environment(), indent=1))


def environment() -> dict[str, Any]:
    """Of this process."""
    name = Path(sys.argv[0]).name
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "rlvr_world": rlvr_world.__version__,
        "commit": _commit(Path(rlvr_world.__file__).parent),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        **({"ranks": ranks.size()} if ranks.size() > 1 else {}),
        "command": shlex.join(["rlvr-world" if name == "__main__.py" else name, *sys.argv[1:]]),
    }


def _processor() -> str:
    names = (line.partition(": ")[2] for line in processor().splitlines() if line.startswith("model name"))
    return next(names, platform.processor())


def _commit(folder: Path) -> str:
    """The commit of a checkout, with a plus where it has changes; empty outside of one."""
    try:
        said = [
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "."))
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0].stdout.strip() + "+" * bool(said[1].stdout.strip())
