"""The forwards of sampling: prompts read in parts, then steps of the growing responses, captured as graphs on GPUs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlvr_world.models.attention import GroupCache, hidden_states
from rlvr_world.models.contract import changing_ropes
from rlvr_world.models.head import Model

PREFILL = 65_536
"""Prompt tokens, with padding, that are read in one forward."""


def prefill(model: Model, prompts: list[Tensor], cache: GroupCache) -> Tensor:
    """Read the prompts, as many at a time as ``PREFILL`` allows: the last hidden state of each, [B, D]."""
    at_once = max(1, PREFILL // cache.prompt)
    last = []
    for start in range(0, len(prompts), at_once):
        ids_bP = pad_sequence(prompts[start : start + at_once], batch_first=True).to(cache.one.device)
        positions_bP = torch.arange(ids_bP.shape[1], device=ids_bP.device).expand_as(ids_bP)
        hidden_bPD = hidden_states(model, ids_bP, positions_bP, cache)
        ends_b = cache.prompt_lengths_B[start : start + at_once] - 1
        last.append(hidden_bPD[torch.arange(len(ids_bP)), ends_b])
        cache.read += len(ids_bP)
    cache.length = 0
    return torch.cat(last)


GRAPHED = 128
"""Response tokens that one CUDA graph serves."""


class Reader:
    """Forwards of the same number of new tokens in every row, after the prompts.

    On CUDA a step of one token is captured as a graph for the shape that it takes, and replayed as long as it stays:
    launched one by one, the few hundred small kernels of a step take longer than they run. A shape does not come
    again, so there is one graph, and those that follow each other have one pool of memory.
    """

    def __init__(self, model: Model, cache: GroupCache) -> None:
        self.model, self.cache = model, cache
        self.graphed = not changing_ropes(model)  # they look at positions while they run: what they do is no graph
        self.serves = (-1, -1)
        """The moves and ``seen`` of the cache that ``graph`` was captured with."""
        self.graph: tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor] | None = None

    def __call__(self, ids_Nn: Tensor) -> Tensor:
        """The hidden states of each row, [N, n, D]."""
        cache, n = self.cache, ids_Nn.shape[1]
        cache.begin(n)
        start_N1 = cache.prompt_lengths_B.repeat_interleave(cache.size)[:, None] + cache.length
        positions_Nn = start_N1 + torch.arange(n, device=ids_Nn.device)
        forward = self._replay if self.graphed and n == 1 and ids_Nn.device.type == "cuda" else self._forward
        hidden_NnD = forward(ids_Nn, positions_Nn)
        cache.length += n
        return hidden_NnD

    def _forward(self, ids_Nn: Tensor, positions_Nn: Tensor) -> Tensor:
        return hidden_states(self.model, ids_Nn, positions_Nn, self.cache)

    def _replay(self, ids_N1: Tensor, positions_N1: Tensor) -> Tensor:
        wanted = (self.cache.moves, self.cache.seen)
        if self.graph is None or self.serves != wanted:
            self.cache.masked = True  # the mask of every step that the graph serves
            self.graph, self.serves = self._capture(ids_N1.clone(), positions_N1.clone()), wanted
        graph, ids, positions, hidden_N1D = self.graph
        ids.copy_(ids_N1)
        positions.copy_(positions_N1)
        graph.replay()
        return hidden_N1D.clone()

    def _capture(self, ids_N1: Tensor, positions_N1: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        """Running a step again writes the same keys and values to the same places: warming up changes nothing."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.cache.mask = None
                self._forward(ids_N1, positions_N1)
        torch.cuda.current_stream().wait_stream(stream)
        self.cache.mask = None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.graph[0].pool() if self.graph else None):
            hidden_N1D = self._forward(ids_N1, positions_N1)
        return graph, ids_N1, positions_N1, hidden_N1D
