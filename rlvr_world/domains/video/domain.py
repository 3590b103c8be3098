"""The video world: given frames and actions in, the frames that follow out, scored on their pixels.

Shape legend: N predictions, M true clips, T = horizon frames, H height, W width, n tokens a frame, P proprioception.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rlvr_world.domains.video.config import RewardConfig
from rlvr_world.domains.video.episodes import Clip, FramesInMemory
from rlvr_world.domains.video.layout import Codec, Frames, frames_of
from rlvr_world.domains.video.pictures import GAIN, error_map, gif, strip
from rlvr_world.domains.video.rewards import reward
from rlvr_world.domains.video.token_cache import TokenCache, images_of, whole_clip
from rlvr_world.errors import InputError
from rlvr_world.types import Groups, Malformed, Picture, Rows, Score, Script, Transition, Written
from rlvr_world.vision.metrics import LOWER_IS_BETTER, FrameMetrics

WORST = {"mae": 1.0, "mse": 1.0, "psnr": 0.0, "ssim": 0.0, "lpips": 1.0, "repetition": 1.0, "repetition_all": 1.0}
"""The parts of a malformed prediction's score, which legal-token masks rule out."""
COLUMNS = ("truth", "predicted", f"error × {GAIN}")


@dataclass(frozen=True, eq=False)
class Prediction:
    """The frames that tokens decode to."""

    tokens: Frames
    """The tokens of each of the T frames."""
    frames: Tensor
    """float32 [T, 3, H, W] in [0, 1], on the CPU; equal predictions of a group share it."""
    proprio: np.ndarray | None = None
    """float32 [T, P], in the data's units: the middles of the predicted bins."""


Read = Prediction | Malformed
Predictions = Sequence[Sequence[Read]]


class VideoDomain:
    """Encode, decode and score clips; states and next states are ``Clip``, actions float32 [F, A] arrays."""

    lower_is_better = LOWER_IS_BETTER | {"repetition", "repetition_all", "proprio_mse"}

    def __init__(
        self,
        codec: Codec,
        cache: TokenCache,
        metrics: FrameMetrics,
        config: RewardConfig,
        skip_blocks: bool = False,
        closed_loop: int = 0,
    ) -> None:
        """``metrics`` are on the tokenizer's device; ``skip_blocks``, ``closed_loop``: as in ``VideoConfig``.
        Raises InputError for parts that do not belong together."""
        self.codec, self.layout, self.cache, self.metrics, self.config = codec, codec.layout, cache, metrics, config
        self.skip_blocks, self.closed_loop, self.action_margin = skip_blocks, closed_loop, config.action_margin
        codec.check_visual_tokenizer(cache.codebook, cache.context_codebook, cache.fingerprint)
        got = (*cache.size, cache.tokens, cache.context_tokens)
        expected = (*codec.size, self.layout.tokens, self.layout.context_tokens)
        if got != expected:
            has = "at {}x{} pixels it gives {} tokens a frame and {} for the context".format(*got)
            wants = "the model expects {2} and {3} at {0}x{1}".format(*expected)
            raise InputError(f"tokenizer: {has}, {wants}; use the frame size that the model was trained with")
        if config.proprio_mse and not self.layout.proprio_width:
            raise InputError("data.reward.proprio_mse: expected 0, as the model has no proprioception")

    def encode(self, transition: Transition) -> Script:
        """Tokens come from the cache; a transition without next state gives a script without targets."""
        context_c, frames_Fn = self.cache.lookup(whole_clip(transition))
        bins_FA = self.codec.actions.bins_of(transition.action, f"row {transition.id}: actions")
        proprio_FP = None
        if self.codec.proprio:
            felt_FP = _proprio(whole_clip(transition), transition)[-len(frames_Fn) :]
            proprio_FP = torch.from_numpy(self.codec.proprio.bins_of(felt_FP, f"row {transition.id}: proprioception"))
        return self.layout.script(frames_Fn, torch.from_numpy(bins_FA), context_c, proprio_FP)

    def decode(self, written: Written, transition: Transition) -> Read:
        return self.decode_groups([[written]], [transition])[0][0]

    def decode_groups(self, groups: Groups, transitions: Rows) -> list[list[Read]]:
        """Every different frame of a group is decoded once, and every group's context once."""
        before = [self._given(row)[-1] if self.layout.same else () for row in transitions]
        read = [[self.layout.read(one, z) for one in group] for group, z in zip(groups, before, strict=True)]
        places: list[dict[tuple[int, ...], int]] = []
        for group in read:
            frames = dict.fromkeys(z for r in group if not isinstance(r, Malformed) for z in r[0])
            places.append({z: i for i, z in enumerate(frames)})
        contexts = [self.cache.lookup(whole_clip(row))[0] for row in transitions] if self.layout.context_tokens else []
        nothing = [(0,) * self.layout.tokens]  # stands in for a group where all is malformed
        tokens = [torch.tensor(list(place) or nothing) for place in places]
        decoded = self.cache.decode(contexts, tokens)
        return [self._predictions(*each) for each in zip(read, places, decoded, transitions, strict=True)]

    def _predictions(
        self, group: Sequence[Any], place: Mapping[tuple[int, ...], int], frames_U3HW: Tensor, row: Transition
    ) -> list[Read]:
        clips: dict[Frames, Tensor] = {}
        start = self._start(row)
        predictions: list[Read] = []
        for read in group:
            if isinstance(read, Malformed):
                predictions.append(read)
                continue
            tokens, bins = read
            if tokens not in clips:
                clips[tokens] = self.shown(frames_U3HW[[place[z] for z in tokens]], tokens, start)
            felt = self.codec.proprio.value_of(np.array(bins)) if self.codec.proprio else None
            predictions.append(Prediction(tokens, clips[tokens], felt))
        return predictions

    def _start(self, row: Transition) -> tuple[tuple[int, ...], Tensor] | None:
        """With skip blocks: tokens and pixels [3, H, W] of the last given frame."""
        return (self._given(row)[-1], self.cache.read(_last_given(row))[0]) if self.skip_blocks else None

    def shown(self, decoded_T3HW: Tensor, tokens: Frames, start: tuple[tuple[int, ...], Tensor] | None) -> Tensor:
        """The frames of these tokens: as decoded or, from a ``_start`` on, only where a token is not that of before."""
        if start is None:
            return decoded_T3HW
        before, frames = start[0], [start[1]]
        for z, decoded in zip(tokens, decoded_T3HW, strict=True):
            new_hw = torch.tensor([now != then for now, then in zip(z, before, strict=True)]).view(self.cache.grid)
            new_HW = F.interpolate(new_hw[None, None].float(), self.cache.size)[0, 0].bool()
            frames.append(torch.where(new_HW, decoded, frames[-1]))
            before = z
        return torch.stack(frames[1:])

    def score(self, prediction: Read, transition: Transition) -> Score:
        return self.score_groups([[prediction]], [transition])[0][0]

    def score_groups(self, predictions: Predictions, transitions: Rows) -> list[list[Score]]:
        """The truth is read, and looked at by the perceptual trunk, once a group; equal predictions are measured once.

        Parts are means over the T frames, against the true frames. ``repetition`` is 1 where the last frame equals,
        token by token, the one before (the last given one if T is 1): the published test. ``repetition_all`` is the
        share of frames that equal the one before, from the first predicted frame on. ``proprio_mse`` is in units of
        each field's range. The value is the reward, against ``config.target``.
        """
        scores: list[list[Score]] = []
        at_once = max(1, self.cache.at_once // self.layout.horizon)
        for start in range(0, len(transitions), at_once):
            part = slice(start, start + at_once)
            scores += self._score_some(predictions[part], transitions[part])
        return scores

    def _score_some(self, predictions: Predictions, rows: Rows) -> list[list[Score]]:
        found = [(m, p) for m, group in enumerate(predictions) for p in group if isinstance(p, Prediction)]
        parts: list[dict[str, float]] = []
        values: list[float] = []
        if found:
            truth = torch.stack([self.cache.read(row.next_state) for row in rows])
            measures = self._measure(found, truth) | self._token_measures(found, rows)
            against = measures
            if self.config.target == "round_trip":
                against = measures | self._measure(found, torch.stack(self._round_trips(rows)))
            values = reward(against, self.config).tolist()
            means = {name: measure.mean(1).tolist() for name, measure in measures.items() if name != "repeated"}
            means["repetition"] = measures["repeated"][:, -1].tolist()
            means["repetition_all"] = measures["repeated"].mean(1).tolist()
            parts = [dict(zip(means, numbers, strict=True)) for numbers in zip(*means.values(), strict=True)]
        good = iter(map(Score, values, parts))
        return [[self._worst(p) if isinstance(p, Malformed) else next(good) for p in group] for group in predictions]

    def among(self, group: Sequence[Read], scores: Sequence[Score], row: Transition) -> list[Score]:
        """In RL with ``config.proper`` a prediction earns its part of the energy score (Gneiting and Raftery, 2007, eq.
        22): how far it is from others of its group, less how far from the truth. Far is the root of what the reward
        takes off: of squares it sees the mean alone. Over n - 2, as a group's mean holds each distance twice."""
        good = [(n, p) for n, p in enumerate(group) if isinstance(p, Prediction)]
        if not self.config.proper or len(good) < 3:
            return list(scores)
        first, second = torch.triu_indices(len(good), len(good), 1)
        seen = self.metrics.truth(torch.stack([p.frames for _, p in good]).to(self.cache.device))
        measures = {n: one.cpu() for n, one in self.metrics.measure(seen.rows(first), seen.rows(second)).items()}
        measures["repeated"] = torch.zeros_like(measures["mae"])
        if bins := self.codec.proprio:
            felt = torch.from_numpy(np.stack([bins.unit(p.proprio) for _, p in good if p.proprio is not None]))
            measures["proprio_mse"] = ((felt[first] - felt[second]) ** 2).mean(-1)
        far, total = (-reward(measures, self.config)).clamp(min=0).sqrt(), torch.zeros(len(good))
        total.index_add_(0, first, far).index_add_(0, second, far)
        earned = list(scores)
        for (n, _), apart in zip(good, (total / (len(good) - 2)).tolist(), strict=True):
            value = apart - math.sqrt(max(0.0, -scores[n].value))
            earned[n] = replace(scores[n], value=value, parts={**scores[n].parts, "apart": apart})
        return earned

    def _measure(self, found: Sequence[tuple[int, Prediction]], truth_MT3HW: Tensor) -> dict[str, Tensor]:
        """Each metric of the predictions, float32 [N, T] on the CPU; m, p says that p is compared with clip m."""
        place: dict[tuple[int, int], int] = {}
        chosen = [place.setdefault((m, id(p.frames)), len(place)) for m, p in found]
        different = dict(zip(chosen, found, strict=True))
        device = self.cache.device
        index = torch.tensor([m for m, _ in different.values()], device=device)
        frames = torch.stack([p.frames for _, p in different.values()]).to(device)
        truth = self.metrics.truth(truth_MT3HW.to(device)).rows(index)
        return {name: measure.cpu()[chosen] for name, measure in self.metrics.measure(frames, truth).items()}

    def _token_measures(self, found: Sequence[tuple[int, Prediction]], rows: Rows) -> dict[str, Tensor]:
        """``repeated``, 0 or 1, and ``proprio_mse`` where there is any: float32 [N, T]."""
        T, before = self.layout.horizon, [self._given(row)[-1] for row in rows]
        clips = [(before[m], *p.tokens) for m, p in found]
        measures = {"repeated": torch.tensor([[float(z[t + 1] == z[t]) for t in range(T)] for z in clips])}
        if bins := self.codec.proprio:
            truth = [bins.unit(_proprio(row.next_state, row)) for row in rows]
            errors = [((bins.unit(p.proprio) - truth[m]) ** 2).mean(1) for m, p in found if p.proprio is not None]
            measures["proprio_mse"] = torch.from_numpy(np.stack(errors))
        return measures

    def _given(self, row: Transition) -> Frames:
        """Tokens of the given frames."""
        _, frames_Fn = self.cache.lookup(whole_clip(row))
        return frames_of(frames_Fn[: self.layout.context])

    def _round_trips(self, rows: Rows) -> list[Tensor]:
        """What the tokenizer makes of the true frames of each row, float32 [T, 3, H, W]."""
        contexts, frames = zip(*(self.cache.lookup(whole_clip(row)) for row in rows), strict=True)
        true = [tokens_Fn[self.layout.context :] for tokens_Fn in frames]
        decoded = self.cache.decode(contexts, true)
        each = zip(decoded, true, rows, strict=True)
        return [self.shown(frames, frames_of(tokens_Tn), self._start(row)) for frames, tokens_Tn, row in each]

    def round_trip(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 [N, H, W, 3] as the tokenizer gives them back."""
        context, tokens = self.cache.lookup(FramesInMemory(frames).clip)
        [made] = self.cache.decode([context], [tokens])
        return images_of(made)

    def _worst(self, malformed: Malformed) -> Score:
        parts = {name: value for name, value in WORST.items() if name != "lpips" or self.metrics.perceptual}
        if self.codec.proprio:
            parts["proprio_mse"] = 1.0
        per_frame = {**WORST, "proprio_mse": 1.0, "repeated": 1.0}
        value = reward({name: torch.tensor([[v] * self.layout.horizon]) for name, v in per_frame.items()}, self.config)
        return Score(value.item(), parts, malformed.reason)

    def advance(self, state: Clip, action: np.ndarray, prediction: Read) -> Clip | Malformed:
        """The frames that a next step is given: as many as the state has, the predicted ones last (multi-step: the far
        context frame stays), at the tokenizer's size."""
        if isinstance(prediction, Malformed):
            return prediction
        kept = 1 if self.layout.context_tokens else 0
        frames = torch.cat([self.cache.read(state), prediction.frames])
        felt = state.proprio() if self.codec.proprio else None
        if felt is not None and prediction.proprio is not None:
            felt = np.concatenate([felt, prediction.proprio])
        last = [*range(kept), *range(len(frames) - len(state.steps) + kept, len(frames))]
        return FramesInMemory(images_of(frames[last]), None if felt is None else felt[last]).clip

    def baselines(self, transition: Transition) -> Mapping[str, Prediction]:
        """The last given frame, as it was seen, again and again; and the truth as far as the tokenizer can show it."""
        T, last, felt, felt_after = self.layout.horizon, _last_given(transition), None, None
        if bins := self.codec.proprio:
            felt, after = np.repeat(_proprio(last, transition), T, 0), _proprio(transition.next_state, transition)
            felt_after = bins.value_of(bins.bins_of(after, f"row {transition.id}: proprioception"))
        _, frames_Fn = self.cache.lookup(whole_clip(transition))
        true = frames_of(frames_Fn[self.layout.context :])
        copied = self.cache.read(last).expand(T, -1, -1, -1)
        return {
            "copy last frame": Prediction((self._given(transition)[-1],) * T, copied, felt),
            "tokenizer round trip": Prediction(true, self._round_trips([transition])[0], felt_after),
        }

    def explain(self, prediction: Read, transition: Transition) -> str | Picture:
        """Truth, prediction and error (three times as bright) side by side: a PNG, for several frames a GIF."""
        if isinstance(prediction, Malformed):
            return f"- {prediction.reason}"
        truth = self.cache.read(transition.next_state)
        columns = [truth, prediction.frames, error_map(prediction.frames, truth)]
        if len(truth) == 1:
            return Picture(strip(torch.cat(columns)), columns=COLUMNS)
        return Picture(gif(torch.cat(columns, -1)), "image/gif", COLUMNS)

    def clips(self, row: Transition) -> list[Transition]:
        """The clips that a longer row consists of: each is given the last frames of the one before."""
        steps, given = whole_clip(row).steps, self.layout.context

        def cut(first: int) -> Transition:
            middle, end = first + given, first + given + self.layout.horizon
            state, after = replace(row.state, steps=steps[first:middle]), replace(row.state, steps=steps[middle:end])
            return replace(row, state=state, action=row.action[first:end], next_state=after)

        return [cut(first) for first in range(0, len(steps) - given, self.layout.horizon)]

    def carried(self, row: Transition, written: Written, after: Transition) -> Transition:
        """``after``, the clip behind ``row``, given what was ``written`` for that in the place of what was recorded, by
        its own tokens, which need not be those that its pixels encode to. As recorded where that does not read."""
        read = self.decode(written, row)
        if isinstance(read, Malformed):
            return after
        given, true = self.advance(row.state, row.action, read), after.next_state
        assert isinstance(given, Clip)
        count, felt = len(given.steps), None
        images = np.concatenate([given.read(), images_of(self.cache.read(true))])
        tokens = torch.cat([torch.tensor((*self._given(row), *read.tokens)[-count:]), self.cache.lookup(true)[1]])
        if self.codec.proprio:
            felt = np.concatenate([_proprio(given, row), _proprio(true, row)])
        drawn = FramesInMemory(images, felt, tokens).clip
        state, next_state = replace(drawn, steps=drawn.steps[:count]), replace(drawn, steps=drawn.steps[count:])
        return replace(after, state=state, next_state=next_state)

    def swap_action(self, row: Transition, other: Transition) -> Transition:
        """``row`` under the action of ``other``, from the last given frame on: what was done before has been seen."""
        seen = self.layout.context - 1
        return replace(row, action=np.concatenate([row.action[:seen], other.action[seen:]]))


def _last_given(row: Transition) -> Clip:
    """The last frame of the state."""
    return Clip(row.state.episodes, row.state.episode, row.state.steps[-1:])


def _proprio(clip: Clip, row: Transition) -> np.ndarray:
    """float32 [T, P]; InputError where the data set has none."""
    felt = clip.proprio()
    if felt is None:
        got = f"the model was trained with it, the data set {clip.episodes.name} has none"
        raise InputError(f"row {row.id}: proprioception: {got}; use another data set or model")
    return felt
