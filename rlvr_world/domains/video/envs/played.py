"""The embedded worlds in sessions: an action is what a model of the recipe is given between one frame and the next."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from rlvr_world.domains.replayed import Begun, Replayed
from rlvr_world.domains.scene import is_count
from rlvr_world.domains.video.config import VideoConfig
from rlvr_world.domains.video.envs import pusht
from rlvr_world.domains.video.envs.collect import opened
from rlvr_world.domains.video.envs.table import Table
from rlvr_world.domains.video.episodes import FramesInMemory
from rlvr_world.domains.video.scene import read_numbers, spaces
from rlvr_world.domains.video.token_cache import read_frames
from rlvr_world.errors import InputError

_PUSH = "from-x from-y to-x to-y"
FIELDS = {"pusht": ("x y", 1.0), "rope": (_PUSH, 0.4), "granular": (_PUSH, 0.25), "drawer": ("x y z grip", 1.0)}
"""The fields of an action, and how far each goes: on a pushed table, half its width."""
FELT = 4
"""Fields of proprioception where a world has any."""


def real_world(data: VideoConfig, live: int = 16, changed: bool = False) -> Replayed:
    """A recipe's embedded world. Episodes are others than those that it was trained on; ``options["episode"]`` names
    one of these, or any. ``changed``: the drawer looks different, see ``Drawer.repaint``."""
    fields, far = FIELDS[data.source]
    width = len(fields.split()) * data.actions_a_frame
    both = spaces([-far] * width, [far] * width, (data.height, data.width), FELT * data.proprio)

    def begin(seed: int, options: Mapping[str, Any]) -> Begun:
        episode = options.get("episode", data.env.episodes + seed)
        if not is_count(episode):
            raise InputError(f"start, episode: expected a number of at least 0, got {episode!r:.80}")
        return (episode,)

    def read(given: Any) -> tuple[float, ...]:
        return tuple(read_numbers(given, width).tolist())

    def shown(seen: Any) -> np.ndarray:
        return seen["pixels"] if data.proprio else seen

    world = Replayed(partial(_Episode, data, changed), begin, read, both, shown, live)
    world.options, world.fields = ("state", "episode"), tuple(fields.split())
    return world


class _Episode:
    """An episode that runs, at the frames' rate and size of a model; see ``Running``."""

    def __init__(self, data: VideoConfig, changed: bool, begun: Begun) -> None:
        self.data, self.world = data, opened(data.env, *begun)
        if changed:
            self.world.repaint()
        self.told: Mapping[str, Any] = {"episode": begun[0], "pointer": self._pointer()}

    def seen(self) -> Any:
        frame = FramesInMemory(np.ascontiguousarray(self.world.picture())[None]).clip
        pixels = read_frames(frame, (self.data.height, self.data.width), self.data.fit)[0]
        image = (pixels * 255).round().byte().movedim(0, -1).numpy()
        return {"pixels": image, "agent_pos": self.world.felt().astype(np.float32)} if self.data.proprio else image

    def act(self, action: tuple[float, ...]) -> tuple[float, bool, Mapping[str, Any]]:
        for mean in np.array(action, np.float32).reshape(self.data.actions_a_frame, -1):
            self._hold(mean)
        return self._told()

    def by_hand(self) -> tuple[tuple[float, ...], Mapping[str, Any]]:
        """Has the script that plays episodes act once: the action, and what else is to say. Where an action is a mean
        of several steps, the hand holds it as long."""
        parts = []
        for _ in range(self.data.actions_a_frame):
            parts.append(next(self.world.hand))
            self._hold(parts[-1])
        return tuple(np.concatenate(parts).tolist()), self._told()[2]

    def _hold(self, part: np.ndarray) -> None:
        for _ in range(self.data.action_pool):
            self.world.act(part)

    def _told(self) -> tuple[float, bool, Mapping[str, Any]]:
        if getattr(self.world, "broken", False):
            return 0.0, False, {"lost": "the simulation became unstable"}
        told = {"is_success": bool(self.world.won), "places": self.world.places().tolist()}
        return float(self.world.reward), bool(self.world.won), {**told, "pointer": self._pointer()}

    def _pointer(self) -> Mapping[str, Any] | None:
        """For who plays with a pointer: an action of 1 leads ``reach`` away ``from`` here, x and y as shares of the
        frame. None where an arm is seen from aside."""
        if isinstance(self.world, pusht.Push):
            here = np.array(self.world.info["pos_agent"]) / pusht.TABLE
            return {"from": here.tolist(), "reach": [pusht.PACE * self.data.frame_skip] * 2}
        share = 0.5 / FIELDS[self.data.source][1]
        return {"from": [0.5, 0.5], "reach": [share, -share]} if isinstance(self.world, Table) else None

    def close(self) -> None:
        self.world.close()
