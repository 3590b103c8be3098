"""All rows of the ByteSized32 games, made from the user's own checkout of cognitiveailab/GPT-simulator (Wang et al.,
ACL 2024, arXiv 2406.06485), whose licence is not stated: nothing of it is shipped here.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from rlvr_world.domains.row_files import parse_json
from rlvr_world.domains.text_game.config import Bytesized32Spec
from rlvr_world.domains.text_game.envs import bytesized32_driver
from rlvr_world.domains.text_game.prompt import Rules
from rlvr_world.errors import InputError
from rlvr_world.system.progress import track


def collect_rows(spec: Bytesized32Spec, folder: Path) -> Path:
    """Write ``train.jsonl.gz`` and ``test.jsonl.gz``, split as published by ``experiments/sampled_states.json``, and
    ``rules.json`` into ``folder``, which comes to stand whole; what is there is kept. Each game runs in a process of
    its own, and stderr says that it does. Raises InputError for what is no checkout, and for a game that does not run.
    """
    if folder.exists():
        return folder
    checkout = Path(spec.checkout).expanduser().resolve()
    split = checkout / "experiments" / "sampled_states.json"
    if not spec.checkout or not split.is_file():
        raise InputError(f"checkout={spec.checkout}: expected a checkout of GPT-simulator with {split.name}; clone it")
    testing = parse_json(split.read_bytes(), str(split), "the split")
    if unknown := [game for game in spec.games if game not in testing]:
        raise InputError(f"games: {unknown[0]} is none of those in {split}: {', '.join(sorted(testing))}")
    games = spec.games or tuple(testing)
    print(f"running the Python code of {len(games)} games in {checkout / 'data' / 'games'}", file=sys.stderr)
    partial = folder.with_name(f".partial-{folder.name}")
    partial.mkdir(parents=True, exist_ok=True)
    files = (partial / f"{part}.jsonl.gz" for part in ("train", "test"))
    with ExitStack() as opened:
        parts = [opened.enter_context(gzip.open(file, "wt", compresslevel=4)) for file in files]
        for game in track(games, "playing", "games"):
            held = set(testing[game])
            for number, row in enumerate(_played(spec.python or sys.executable, checkout, game)):
                parts[number in held].write(row)
    Rules.load(checkout / "rules" / "human_written_rules").save(partial / "rules.json")
    os.replace(partial, folder)
    return folder


def _played(python: str, checkout: Path, game: str) -> Iterator[str]:
    """The lines of rows that a game's process prints."""
    command = [python, "-s", bytesized32_driver.__file__, str(checkout), game]
    clean = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ.get("PATH", "")}
    with tempfile.TemporaryDirectory() as nowhere, tempfile.TemporaryFile("w+") as said:
        none, pipe = subprocess.DEVNULL, subprocess.PIPE
        try:
            process = subprocess.Popen(command, stdin=none, stdout=pipe, stderr=said, env=clean, cwd=nowhere, text=True)
        except OSError as error:
            raise InputError(f"python={python}: it does not start ({error}); name another") from error
        with process:
            assert process.stdout is not None
            yield from process.stdout
        if process.returncode:
            said.seek(0)
            last = (said.read().strip() or "it said nothing").splitlines()[-1]
            raise InputError(f"game {game}: it does not run ({last}); forge-key needs Python 3.12: give python=PATH")
