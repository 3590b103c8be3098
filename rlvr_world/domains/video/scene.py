"""Video in sessions: a frame follows an action. What was imagined is kept as the tokens that the model wrote, so that
nothing is lost by decoding and encoding it again.

Shape legend: T given frames, H height, W width, A action width, P proprioception width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlvr_world.domains.replayed import seen_in
from rlvr_world.domains.scene import Starts, is_count
from rlvr_world.domains.video.domain import VideoDomain
from rlvr_world.domains.video.episodes import FramesInMemory, read_question
from rlvr_world.domains.video.layout import Frames, frames_of
from rlvr_world.errors import InputError
from rlvr_world.types import Asked, Malformed, Outcome, Script, Transition, Written


@dataclass(frozen=True, eq=False)
class Film:
    """The last frames of a session, as the model reads them."""

    pixels: Tensor
    """float32 [3, H, W] in [0, 1]: the last frame."""
    frames: Frames
    """Tokens of at most ``window`` frames."""
    bins: Frames
    """What was done at each of them but the last."""
    felt: Frames
    """Proprioception in bins; empty where the model has none."""
    context: tuple[int, ...]
    """Tokens of the far context frame; empty for a single-step model."""
    window: int


class VideoScene:
    """How video is imagined; see ``Scene``. ``starts`` gives a row, or what is observed: frames uint8 [H, W, 3]."""

    render_mode, options = "rgb_array", ("state", "row", "episode", "window")

    def __init__(self, domain: VideoDomain, starts: Starts, fields: Sequence[str]):
        """``fields``: names of an action's numbers, see ``Replayed``."""
        self.domain, self.layout, self.starts, self.fields = domain, domain.layout, starts, fields
        self.action_space, self.observation_space = spaces(
            domain.codec.actions.low, domain.codec.actions.high, domain.codec.size, self.layout.proprio_width
        )

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[Film, Mapping[str, Any]]:
        """``options["window"]``: frames that a multi-step model is given at most (as many as in training)."""
        given, told = (seen_in(options["state"]), {}) if "state" in options else self.starts(seed, options)
        multi = self.layout.kind == "multi_step"
        window = options.get("window", self.layout.frames - 1 if multi else self.layout.context)
        if not is_count(window) or window < 1 or not (multi or window == self.layout.context):
            only = "at least 1 frame" if multi else f"the {self.layout.context} of this model"
            raise InputError(f"start, window: expected {only}, got {window!r}")
        return given if isinstance(given, Film) else self._film(given, window), told

    def _film(self, given: Any, window: int) -> Film:
        """Of what is given the last frames; what was before the first one was the same, and nothing was done there."""
        codec, width, count = self.domain.codec, self.layout.action_width, self.layout.context
        row = given if isinstance(given, Transition) else read_seen(given, width)
        images, felt = row.state.read(), row.state.proprio()
        done = np.concatenate([np.zeros((count, width), np.float32), row.action[: len(images) - 1]])
        kept = [0, -1] if self.layout.context_tokens else [max(i, -len(images)) for i in range(-count, 0)]
        clip = FramesInMemory(images[kept]).clip
        context, frames_Tn = self.domain.cache.lookup(clip)
        known = np.empty((0, 0), np.int64)
        if codec.proprio:
            if felt is None:
                raise InputError("start, state: the model has proprioception; give it as agent_pos beside pixels")
            known = codec.proprio.bins_of(felt[kept[-count:]], "start, agent_pos")
        bins = codec.actions.bins_of(done[len(done) - count + 1 :], "start, action")
        pixels = self.domain.cache.read(clip)[-1]
        return Film(pixels, frames_of(frames_Tn), frames_of(bins), frames_of(known), tuple(context.tolist()), window)

    def read_action(self, given: Any) -> np.ndarray:
        return read_numbers(given, self.layout.action_width)

    def script(self, state: Film, action: np.ndarray) -> Script:
        return self.layout.next_frame(state.frames, self._done(state, action), state.felt, state.context)

    def _done(self, state: Film, action: np.ndarray) -> Frames:
        return (*state.bins, *frames_of(self.domain.codec.actions.bins_of(action[None], "action")))

    def follow(self, asked: Asked, written: Sequence[Written]) -> list[Outcome]:
        one = replace(self.layout, horizon=1)
        read = [one.read(answer, state.frames[-1]) for (state, _), answer in zip(asked, written, strict=True)]
        tokens = [(0,) * one.tokens if isinstance(found, Malformed) else found[0][0] for found in read]
        contexts = [torch.tensor(state.context) for state, _ in asked]
        decoded = self.domain.cache.decode(contexts, [torch.tensor([z]) for z in tokens])
        outcomes = []
        for (state, action), found, frame in zip(asked, read, decoded, strict=True):
            if isinstance(found, Malformed):
                outcomes.append(Outcome(state, info={"malformed": found.reason}))
                continue
            start = (state.frames[-1], state.pixels) if self.domain.skip_blocks else None
            pixels, last = self.domain.shown(frame, found[0], start)[0], -state.window
            after = replace(
                state,
                pixels=pixels,
                frames=(*state.frames, *found[0])[last:],
                bins=self._done(state, action)[last + 1 :] if state.window > 1 else (),
                felt=(*state.felt, *found[1])[last:],
            )
            outcomes.append(Outcome(after))
        return outcomes

    def observe(self, state: Film) -> Any:
        pixels, bins = self.render(state), self.domain.codec.proprio
        return {"pixels": pixels, "agent_pos": bins.value_of(np.array(state.felt[-1:]))[0]} if bins else pixels

    def render(self, state: Film) -> np.ndarray:
        return (state.pixels * 255).round().byte().movedim(0, -1).numpy()


def spaces(
    low: Sequence[float], high: Sequence[float], size: tuple[int, int], felt: int
) -> tuple[gym.Space, gym.Space]:
    """Of actions between these bounds, and of what is seen: frames, and ``agent_pos`` beside them where it is felt."""
    frames = gym.spaces.Box(0, 255, (*size, 3), np.uint8)
    pair: dict[str, gym.Space] = {"pixels": frames, "agent_pos": gym.spaces.Box(-np.inf, np.inf, (felt,), np.float32)}
    actions = gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)
    return actions, gym.spaces.Dict(pair) if felt else frames


def read_numbers(given: Any, width: int) -> np.ndarray:
    """An action, float32 [A]. Raises InputError for another shape, or what is no number."""
    try:
        values = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        values = np.empty(0, np.float32)
    if values.shape != (width,) or not np.isfinite(values).all():
        raise InputError(f"action: expected {width} finite numbers, got {given!r:.80}")
    return values


def read_seen(given: Any, width: int) -> Transition:
    """A row without actions out of what is observed: frames, or ``pixels`` and ``agent_pos``, of one step or several.
    Raises InputError that names the field."""
    seen = dict(given) if isinstance(given, Mapping) else {"pixels": given}
    images, felt = seen.get("pixels"), seen.get("agent_pos")
    if isinstance(images, np.ndarray) and images.ndim == 3:
        images, felt = images[None], None if felt is None else [felt]
    return read_question({"state": images, "proprio": felt, "action": np.zeros((1, width), np.float32)})
