"""Judges that watch whole films: a language model that sees pictures (WorldGym's way), a person on a page.

Verdicts are kept in a file, by film and task, so that nothing is judged twice. N films, T frames.
"""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import resources
from pathlib import Path

import numpy as np

from rlvr_world.errors import Halted, InputError
from rlvr_world.policies.rollouts import Rollouts
from rlvr_world.recipes.chat import Chat
from rlvr_world.sessions.wire import plain
from rlvr_world.system.files import write_whole

SHOWN, SIDE, AT_ONCE = 8, 256, 8
"""Frames that a model is shown, how high they are at least, and films that it is asked about at once."""
ASKED = """These are {count} frames, in order, of a film of a robot that was told: {task}.
Is that done in the last frame? Answer yes or no."""


class Watcher:
    """``MODEL@URL``, a model behind an OpenAI-compatible server, or the ``FILE.json`` of a person's verdicts. Raises
    InputError for a file of anything else."""

    def __init__(self, spec: str, folder: Path) -> None:
        self.page = folder / "judge.html"
        model, at, url = spec.partition("@")
        self.chat = Chat("judge", url, model) if at else None
        self.file = folder / f"verdicts-{re.sub(r'[^a-zA-Z0-9.]+', '-', model)}.json" if at else Path(spec).expanduser()
        self.verdicts: dict[str, bool] = {}
        self.waiting, self.unread, self.width = dict[str, str](), 0, 0
        if self.file.is_file():
            with suppress(ValueError):
                self.verdicts = json.loads(self.file.read_text())
            if not self.verdicts or not all(isinstance(self.verdicts[name], bool) for name in self.verdicts):
                raise InputError(f"judge {self.file}: expected the verdicts that a page saved; name another file")

    def __call__(self, films: np.ndarray, task: str) -> np.ndarray:
        """Whether the task is done at the end of each film uint8 [N, T, H, W, 3]; False for one that still waits."""
        names = [hashlib.sha256(task.encode() + film.tobytes()).hexdigest()[:24] for film in films]
        new = {name: film for name, film in zip(names, films, strict=True) if name not in self.verdicts}
        if self.chat:
            try:
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    said = pool.map(lambda film: self._ask(film, task), new.values())
                    self.verdicts |= zip(new, said, strict=True)
            finally:  # what was said before a server failed was paid for
                if self.verdicts:
                    write_whole(self.file, json.dumps(self.verdicts))
        else:
            self.waiting |= {name: plain(np.concatenate(film, 1)) for name, film in new.items()}
            self.width = films.shape[3]
        return np.array([self.verdicts.get(name, False) for name in names], bool)

    def check(self, task: str) -> None:
        """Raises Halted where films still wait for a person, on the page that it writes."""
        if not self.waiting:
            return
        html = resources.files("rlvr_world.policies").joinpath("judge.html").read_text(encoding="utf-8")
        told = {"task": task, "films": self.waiting, "width": self.width, "known": self.verdicts}
        write_whole(self.page, html.replace("{}", json.dumps(told, sort_keys=True).replace("</", "<\\/"), 1))
        raise Halted(
            f"{len(self.waiting)} films wait for a person: open {self.page} in a browser, judge them, save the "
            f"verdicts as {self.file}, and give the same command again"
        )

    def _ask(self, film: np.ndarray, task: str) -> bool:
        assert self.chat is not None
        chosen = film[np.unique(np.linspace(0, len(film) - 1, SHOWN).round().astype(int))]
        words = {"type": "text", "text": ASKED.format(count=len(chosen), task=task)}
        large = chosen.repeat(times := -(-SIDE // film.shape[1]), 1).repeat(times, 2)
        pictures = [{"type": "image_url", "image_url": {"url": plain(frame)}} for frame in large]
        [(reply, _), *_] = self.chat.ask([words, *pictures], temperature=0, max_tokens=1024)
        found = re.findall(r"\b(yes|no)\b", reply.rpartition("</think>")[2].lower())
        self.unread += not found
        return found[-1:] == ["yes"]


def watched(rollouts: Rollouts, watcher: Watcher, task: str) -> Rollouts:
    """Rollouts all of whose starts are filmed, with what the watcher says of their ends."""
    judged, (P, N, _) = rollouts.judged.copy(), rollouts.judged.shape
    judged[:, :, -1] = watcher(rollouts.films.reshape(P * N, *rollouts.films.shape[2:]), task).reshape(P, N)
    return rollouts._replace(success=np.where(rollouts.told, rollouts.success, judged > 0), judged=judged)


def films_of(spec: str) -> bool:
    """Whether a judge is one of films."""
    return spec.endswith(".json") or re.fullmatch(r"[^@]+@https?://.+", spec) is not None
