"""The in-process sampler: n rollouts a script from any Hugging Face causal LM, the prompt read once a group.

Shape legend: B groups, G rollouts a group, V vocabulary, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rlvr_world.errors import NonFinite
from rlvr_world.models.attention import GroupCache
from rlvr_world.models.contract import check_length
from rlvr_world.models.cpu import packed, product
from rlvr_world.models.head import Model, evaluating, head_weight
from rlvr_world.sampling.reader import GRAPHED, Reader, prefill
from rlvr_world.system.memory import device_memory
from rlvr_world.types import Given, Rollout, Script, Write


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 takes the most likely legal token."""

    temperature: float = 1.0
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches this."""


def sample(
    model: Model,
    scripts: Sequence[Script],
    n: int,
    sampling: Sampling,
    streams: Sequence[tuple[int, ...]],
    max_rows: int = 512,
    told: Callable[[int], None] = lambda done: None,
) -> list[list[Rollout]]:
    """Sample ``n`` rollouts of every script, of which at most ``max_rows`` grow at once (memory), see ``batches``;
    ``told`` hears after each batch how many scripts are done.

    ``streams`` holds one key a script, such as (seed, step, prompt); rollout i of it draws from the stream (*key, i),
    so it is the same whatever it is batched with (up to floating-point ties). Log-probs are those that ``draw`` gives.
    Raises InputError for a script that could grow beyond the model's positions, before anything is drawn.
    """
    device, done = next(model.parameters()).device, 0
    rollouts: list[list[Rollout]] = [[] for _ in scripts]
    for script in scripts:
        check_length(model, len(script.prompt), script.max_response)
    with evaluating(model), torch.no_grad(), packed(model):
        for chosen in batches(model, scripts, n, max_rows):
            grid = [[Row(scripts[i], (*streams[i], s)) for s in range(n)] for i in chosen]
            _grow(model, grid, sampling, device)
            for i, rows in zip(chosen, grid, strict=True):
                rollouts[i] = [row.rollout(0) for row in rows]
            done += len(chosen)
            told(done)
    return rollouts


CACHE = 1 / 3
"""Of the device's memory, what keys and values may take."""


def batches(model: Model, scripts: Sequence[Script], n: int, max_rows: int) -> list[list[int]]:
    """Scripts, by number, that are sampled together: of like length, at most ``max_rows`` rollouts, and no more than
    have room for their keys and values even where all write the most that they may (at least one script)."""
    room = CACHE * device_memory(next(model.parameters()).device) / _bytes_a_token(model)
    found: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(scripts)), key=lambda i: len(scripts[i].prompt)):
        longest = max(longest, scripts[i].max_response)
        groups = len(found[-1]) + 1 if found else 1
        if not found or groups * n > max_rows or groups * (len(scripts[i].prompt) + n * longest) > room:
            found, longest = [*found, []], scripts[i].max_response
        found[-1].append(i)
    return found


def _bytes_a_token(model: Model) -> int:
    """Of keys and values, over all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * next(model.parameters()).element_size())


GUESSED = 12  # tokens that a lone row on a CPU reads before it has drawn them: they take little longer than one
OWN = 32
"""Tokens at the end of a prompt that each row reads for itself in ``sample_each``: room for an action."""


def sample_each(
    model: Model, scripts: Sequence[Script], sampling: Sampling, streams: Sequence[tuple[int, ...]], max_rows: int = 512
) -> list[Rollout]:
    """One rollout of each script, from its stream. Where many prompts differ in their last tokens alone, such as those
    of actions of one length in one state, what they have in common is read once.

    A prompt is cut at the same place whatever others there are, so that a rollout is the same at any precision.
    """
    for script in scripts:
        check_length(model, len(script.prompt), script.max_response)
    found: dict[int, Rollout] = {}
    device = next(model.parameters()).device
    own = [OWN if len(script.prompt) >= 2 * OWN else 0 for script in scripts]
    with evaluating(model), torch.inference_mode(), packed(model):
        for cut in set(own):
            alike: dict[tuple[int, ...], list[int]] = {}
            for i in sorted((i for i in range(len(scripts)) if own[i] == cut), key=lambda i: len(scripts[i].prompt)):
                alike.setdefault(scripts[i].prompt[: len(scripts[i].prompt) - cut], []).append(i)
            groups, size = list(alike.values()), max(map(len, alike.values()))
            if sum(map(len, groups)) < len(groups) * size / 2:  # rows that only fill the grid cost more than is saved
                groups, size = [[i] for group in groups for i in group], 1
            for start in range(0, len(groups), max(1, max_rows // size)):
                some = groups[start : start + max(1, max_rows // size)]
                grid = [[Row(scripts[i], streams[i], own=cut) for i in group] for group in some]
                _grow(model, [[*rows, *[rows[0].nothing] * (size - len(rows))] for rows in grid], sampling, device)
                for rows, group in zip(grid, some, strict=True):
                    found |= {i: row.rollout(0) for i, row in zip(group, rows, strict=True)}
    return [found[i] for i in range(len(scripts))]


@dataclass
class Row:
    """One rollout as it grows: a cursor over what follows the tokens that its group has read."""

    script: Script
    stream: tuple[int, ...]
    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    written: list[list[int]] = field(default_factory=list)
    finished: bool = True
    own: int = 0
    """Tokens at the end of the prompt that this row reads for itself; the others are read once for its group."""
    _segment: int = -1
    _used: int = 0

    def __post_init__(self) -> None:
        draws = np.random.Generator(np.random.Philox(np.random.SeedSequence(self.stream)))  # no state is shared
        self.draws = draws.random(self.script.max_response)
        cut = len(self.script.prompt) - self.own
        self.read, self.tail = self.script.prompt[:cut], (Given(self.script.prompt[cut:]), *self.script.tail)
        self._next()

    @property
    def now(self) -> Given | Write | None:
        """The segment that is being filled; None at the end."""
        return self.tail[self._segment] if self._segment < len(self.tail) else None

    @property
    def nothing(self) -> Row:
        """A row of the same group that has come to its end."""
        return Row(Script((Given(self.read),)), self.stream)

    def forced(self) -> tuple[int, ...]:
        """Given tokens that come next; empty where the model writes."""
        return self.now.ids[self._used :] if isinstance(self.now, Given) else ()

    def force(self, count: int) -> None:
        """Take the next ``count`` forced tokens."""
        self.ids += self.forced()[:count]
        self.sampled += [False] * count
        self.logps += [0.0] * count
        self._used += count
        if not self.forced():
            self._next()

    def write(self, token: int, logp: float) -> None:
        """Take a token that the model drew."""
        segment = self.now
        assert isinstance(segment, Write)
        self.ids.append(token)
        self.sampled.append(True)
        self.logps.append(logp)
        if token in segment.stop:
            self._next()
            return
        self.written[-1].append(token)
        if len(self.written[-1]) == segment.max_tokens:
            self.finished = self.finished and not segment.stop
            self._next()

    def _next(self) -> None:
        """Go on to the next segment that has tokens."""
        self._segment, self._used = self._segment + 1, 0
        now = self.now
        if isinstance(now, Write):
            self.written.append([])
        if now is not None and (now.max_tokens if isinstance(now, Write) else len(now.ids)) == 0:
            self._next()

    def rollout(self, policy_version: int) -> Rollout:
        return Rollout(
            script=self.script,
            ids=torch.tensor(self.ids[self.own :], dtype=torch.int64),
            sampled=torch.tensor(self.sampled[self.own :], dtype=torch.bool),
            logps=torch.tensor(self.logps[self.own :], dtype=torch.float32),
            written=tuple(map(tuple, self.written)),
            finished=self.finished,
            stream=self.stream,
            policy_version=policy_version,
        )


def _grow(model: Model, grid: list[list[Row]], sampling: Sampling, device: torch.device) -> None:
    """Fill every row of a [B][G] grid. Rows that are done leave the grid when enough of them are."""
    prompts = [torch.tensor(rows[0].read) for rows in grid]
    lengths_B = torch.tensor([len(p) for p in prompts], device=device)
    most = max(row.own + row.script.max_response for rows in grid for row in rows)
    cache = GroupCache(len(grid), len(grid[0]), lengths_B, GRAPHED if device.type == "cuda" else 1, most=most)
    read = Reader(model, cache)
    hidden_NnD = prefill(model, prompts, cache).repeat_interleave(cache.size, 0)[:, None]
    guessed: tuple[int, ...] = ()
    right = 0
    while True:
        rows = [row for group in grid for row in group]
        fed_Nn = _advance(model, rows, hidden_NnD[:, right], sampling)
        if all(row.now is None for row in rows):
            return
        if right < len(guessed) and fed_Nn.tolist() == [[guessed[right]]]:  # which has been read already
            right += 1
            continue
        cache.length -= len(guessed) - right
        grid, fed_Nn = _compact(cache, grid, fed_Nn)
        row, guessed, right = grid[0][0], (), 0
        if len(grid) == len(grid[0]) == 1 and isinstance(row.now, Write) and device.type == "cpu":
            guessed = row.now.guess[len(row.written[-1]) :][:GUESSED]
            fed_Nn = torch.cat([fed_Nn, torch.tensor([guessed], dtype=torch.int64)], 1)
        hidden_NnD = read(fed_Nn.to(device))[:, -1 - len(guessed) :]


def _advance(model: Model, rows: list[Row], hidden_ND: Tensor, sampling: Sampling) -> Tensor:
    """Move every live row by as many tokens as all of them can take at once; those tokens, int64 [N, n]."""
    writers = [i for i, row in enumerate(rows) if isinstance(row.now, Write)]
    n = 1 if writers else min((len(row.forced()) for row in rows if row.now is not None), default=0)
    before = [len(row.ids) for row in rows]
    for row in rows:
        if isinstance(row.now, Given):
            row.force(n)
    if writers:
        hidden = hidden_ND if len(writers) == len(rows) else hidden_ND[writers]
        segments = [rows[i].now for i in writers]
        allowed = [s.allowed if isinstance(s, Write) else None for s in segments]
        head_VD, low, common = head_weight(model), 0, allowed[0]
        if common is not None and all(legal == common for legal in allowed):  # illegal rows are never multiplied
            head_VD, low, allowed = head_VD[common.start : common.stop], common.start, [None] * len(allowed)
        logits_NV = product(hidden, head_VD.to(hidden.dtype))
        draws_N = torch.tensor([rows[i].draws[before[i] - rows[i].own] for i in writers], device=hidden.device)
        tokens, logps = draw(logits_NV.float(), allowed, sampling, draws_N)
        for i, token, logp in zip(writers, tokens.tolist(), logps.tolist(), strict=True):
            rows[i].write(token + low, logp)
    return torch.tensor([row.ids[b : b + n] or [0] * n for row, b in zip(rows, before, strict=True)])


def draw(
    logits_NV: Tensor, allowed: Sequence[range | None], sampling: Sampling, uniforms_N: Tensor
) -> tuple[Tensor, Tensor]:
    """One token a row by inverting its cumulative distribution at the given uniform.

    Returns ids [N] and their log-probs [N] under the tempered distribution over legal tokens
    (before top-k and top-p; at temperature 0, under temperature 1). Raises NonFinite where logits are not finite.
    """
    V = logits_NV.shape[1]
    if any(legal is not None for legal in allowed):
        bounds = [(0, V) if legal is None else (legal.start, legal.stop) for legal in allowed]
        legal_N2 = torch.tensor(bounds, device=logits_NV.device)
        ids_V = torch.arange(V, device=logits_NV.device)
        legal_NV = (ids_V >= legal_N2[:, :1]) & (ids_V < legal_N2[:, 1:])
        logits_NV = logits_NV.masked_fill(~legal_NV, float("-inf"))
    if sampling.temperature > 0:
        logits_NV = logits_NV / sampling.temperature
    logps_NV = torch.log_softmax(logits_NV, -1)
    if sampling.temperature == 0:
        ids_N = logps_NV.argmax(-1)
    else:
        weights_NV = _truncate(logps_NV, sampling).exp().double()
        cumulative_NV = weights_NV.cumsum(-1)
        target_N1 = uniforms_N.double()[:, None] * cumulative_NV[:, -1:] * (1 - 1e-12)
        ids_N = torch.searchsorted(cumulative_NV, target_N1, right=True)[:, 0].clamp(max=V - 1)
    logp_N = logps_NV.gather(1, ids_N[:, None])[:, 0]
    if not torch.isfinite(logp_N).all():
        raise NonFinite("the model's logits are not finite")
    return ids_N, logp_N


def _truncate(logps_NV: Tensor, sampling: Sampling) -> Tensor:
    """Log-weights with what top-k and then top-p leave out at minus infinity."""
    if sampling.top_k > 0:
        kth = logps_NV.topk(min(sampling.top_k, logps_NV.shape[1]), -1).values[:, -1:]
        logps_NV = logps_NV.masked_fill(logps_NV < kth, float("-inf"))
    if sampling.top_p < 1.0:
        ordered, order = logps_NV.softmax(-1).sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        logps_NV = logps_NV.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), float("-inf"))
    return logps_NV


def _compact(cache: GroupCache, grid: list[list[Row]], fed_Nn: Tensor) -> tuple[list[list[Row]], Tensor]:
    """Shrink the grid to the live groups and the fullest group's live rows, when that saves a quarter or more."""
    live = [(b, [g for g, row in enumerate(group) if row.now is not None]) for b, group in enumerate(grid)]
    live = [(b, members) for b, members in live if members]
    size = max(len(members) for _, members in live)
    if len(live) * size > 0.75 * len(grid) * len(grid[0]):
        return grid, fed_Nn
    chosen = [(members + [g for g in range(len(grid[b])) if g not in members])[:size] for b, members in live]
    groups_B, members_BG = torch.tensor([b for b, _ in live]), torch.tensor(chosen)
    flat = (groups_B[:, None] * len(grid[0]) + members_BG).flatten()
    cache.keep(groups_B, members_BG)
    return [[grid[b][g] for g in row] for (b, _), row in zip(live, chosen, strict=True)], fed_Nn[flat]
