"""Judges that watch whole films: a language model that sees pictures (WorldGym's way), a person on a page.

Verdicts are kept in a file, by what is in the film, so that nothing is judged twice. N films, T frames.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_world.errors import Halted, InputError
from rlvr_world.policies.rollouts import Rollouts
from rlvr_world.recipes.chat import Chat
from rlvr_world.system.files import write_whole

SHOWN, SIDE, AT_ONCE = 8, 256, 8
"""Frames that a model is shown, how high they are at least, and films that it is asked about at once."""
ASKED = """These are {count} frames, in order, of a film of a robot that was told: {task}.
Is that done in the last frame? Answer yes or no."""


class Watcher:
    """``MODEL@URL``, a model behind an OpenAI-compatible server, or the ``FILE.json`` of a person's verdicts. Raises
    InputError for a file of anything else."""

    def __init__(self, spec: str, folder: Path) -> None:
        self.spec, self.page = spec, folder / "judge.html"
        model, at, url = spec.partition("@")
        self.chat = Chat("judge", url, model) if at else None
        self.file = folder / f"verdicts-{re.sub(r'[^a-zA-Z0-9.]+', '-', model)}.json" if at else Path(spec).expanduser()
        self.verdicts: dict[str, bool] = {}
        self.waiting: dict[str, Any] = {}
        self.unread = 0
        if self.file.is_file():
            try:
                self.verdicts = json.loads(self.file.read_text())
                known = {type(value) for value in self.verdicts.values()} <= {bool}
            except (ValueError, AttributeError):
                known = False
            if not known:
                raise InputError(f"judge {self.file}: expected the verdicts that a page saved; name another file")

    def __call__(self, films: np.ndarray, task: str) -> np.ndarray:
        """Whether the task is done at the end of each film uint8 [N, T, H, W, 3]; False for one that still waits."""
        names = [hashlib.sha256(np.ascontiguousarray(film)).hexdigest()[:24] for film in films]
        new = {name: film for name, film in zip(names, films, strict=True) if name not in self.verdicts}
        if self.chat:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                try:
                    for name, said in zip(new, pool.map(lambda film: self._ask(film, task), new.values()), strict=True):
                        self.verdicts[name] = said
                finally:
                    write_whole(self.file, json.dumps(self.verdicts))
        else:
            self.waiting |= {
                name: {"frames": len(film), "strip": _address(np.concatenate(film, 1))} for name, film in new.items()
            }
        return np.array([self.verdicts.get(name, False) for name in names], bool)

    def check(self, task: str) -> None:
        """Raises Halted where films still wait for a person, on the page that it writes."""
        if not self.waiting:
            return
        html = resources.files("rlvr_world.policies").joinpath("judge.html").read_text(encoding="utf-8")
        told = {"task": task, "films": dict(sorted(self.waiting.items())), "known": self.verdicts}
        write_whole(self.page, html.replace("{}", json.dumps(told).replace("</", "<\\/"), 1))
        raise Halted(
            f"{len(self.waiting)} films wait for a person: open {self.page} in a browser, judge them, save the "
            f"verdicts as {self.file}, and give the same command again"
        )

    def about(self) -> dict[str, Any]:
        """What is to be told of it."""
        return {"judge": self.spec, "verdicts": len(self.verdicts), "replies that did not read": self.unread}

    def _ask(self, film: np.ndarray, task: str) -> bool:
        assert self.chat is not None
        chosen = film[np.unique(np.linspace(0, len(film) - 1, SHOWN).round().astype(int))]
        words = {"type": "text", "text": ASKED.format(count=len(chosen), task=task)}
        pictures = [{"type": "image_url", "image_url": {"url": _address(frame, SIDE)}} for frame in chosen]
        [(reply, _), *_] = self.chat.ask([words, *pictures], temperature=0, max_tokens=1024)
        found = re.findall(r"\b(yes|no)\b", reply.rpartition("</think>")[2].lower())
        self.unread += not found
        return found[-1:] == ["yes"]


def watched(rollouts: Rollouts, watcher: Watcher, task: str) -> Rollouts:
    """Rollouts all of whose starts are filmed, with what the watcher says of their ends."""
    judged, (P, N, _) = rollouts.judged.copy(), rollouts.judged.shape
    judged[:, :, -1] = watcher(rollouts.films.reshape(P * N, *rollouts.films.shape[2:]), task).reshape(P, N)
    return rollouts._replace(success=np.where(rollouts.told, rollouts.success, judged), judged=judged)


def _address(picture: np.ndarray, least: int = 0) -> str:
    """Of pixels uint8 [H, W, 3] a PNG, as a page or a request has it; blown up until it is so high."""
    from PIL import Image

    large = picture.repeat(times := max(1, -(-least // len(picture))), 0).repeat(times, 1)
    Image.fromarray(large).save(file := io.BytesIO(), "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def films_of(spec: str) -> bool:
    """Whether a judge is one of films."""
    return spec.endswith(".json") or re.fullmatch(r"[^@]+@https?://.+", spec) is not None
