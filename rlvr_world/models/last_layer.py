"""Of a model's last layer the answers alone: what a prompt's tokens come to there predicts nothing that is learnt, so
that nothing but their keys and values is computed. In likelihood training prompts are most of the tokens.

Shape legend: S sequences end to end in N tokens, of which T are asked for, R at most of a sequence of at most L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlvr_world.models.attention import TreeLayout, sdpa
from rlvr_world.models.head import Model


def answers_alone(model: Model) -> None:
    """Have the last layer of this model (in place) compute what ``TreeLayout.asked`` asks for, and no more; one whose
    parts have other names than is usual is left as it is."""
    last = getattr(model.get_decoder(), "layers", [None])[-1]
    if hasattr(last, "self_attn") and hasattr(last, "input_layernorm"):
        last.register_forward_pre_hook(_before, with_kwargs=True)


def _before(layer: Any, args: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """Where few tokens of plain sequences are asked for: the layer's input and settings for these alone (CPUs)."""
    layout = settings.get("layout")
    if not isinstance(layout, TreeLayout):
        return None
    few = 0 < 2 * sum(layout.asked) <= args[0].shape[1]
    usual = len(args) == 1 and settings.keys() >= {"position_ids", "position_embeddings"}
    if not (few and usual) or args[0].device.type != "cpu" or any(tree.members for tree in layout.trees):
        return None
    settings = {**settings, "layout": LastTokens(layout)}
    layer.self_attn(hidden_states=layer.input_layernorm(args[0]), **settings)  # for its keys and values
    at_T = layout.rows(args[0].device)
    settings["position_ids"] = settings["position_ids"][:, at_T]
    settings["position_embeddings"] = tuple(x[:, at_T] for x in settings["position_embeddings"])
    return (args[0].index_select(1, at_T),), settings


@dataclass
class LastTokens:
    """Attention of the last tokens of each sequence over all of it."""

    layout: TreeLayout
    held: tuple[Tensor, Tensor] | None = None
    """Keys and values [K, N, d]."""

    def longest(self, new: int) -> int:
        return self.layout.longest(new)

    def attend(self, q_HTd: Tensor, k_KNd: Tensor, v_KNd: Tensor, scale: float) -> Tensor:
        """Attention output [T, H, d]. The first call holds keys and values, and its output is nothing."""
        if self.held is None:
            self.held = k_KNd, v_KNd
            return torch.zeros_like(q_HTd.transpose(0, 1))
        repeat = q_HTd.shape[0] // k_KNd.shape[0]
        k_HNd, v_HNd = (x if repeat == 1 else x.repeat_interleave(repeat, 0) for x in self.held)
        keys_SL = _right_aligned([tree.prefix for tree in self.layout.trees], q_HTd.device)
        queries_SR = _right_aligned(self.layout.asked, q_HTd.device)
        # Padding looks at padding, since nothing to look at would be nan.
        mask_SRL = (keys_SL[:, None] | ~queries_SR[:, :, None]).tril(keys_SL.shape[1] - queries_SR.shape[1])
        q, k, v = _padded(q_HTd, queries_SR), _padded(k_HNd, keys_SL), _padded(v_HNd, keys_SL)
        out_SRHd = sdpa(q, k, v, scale, mask=mask_SRL[:, None]).transpose(1, 2)
        return out_SRHd.flatten(0, 1).index_select(0, queries_SR.flatten().nonzero()[:, 0])


def _right_aligned(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Which places of rows as long as the longest hold tokens where each ends at the right; bool [S, L]."""
    lengths_S = torch.tensor(lengths, device=device)
    return torch.arange(max(lengths), 0, -1, device=device) <= lengths_S[:, None]


def _padded(x_HNd: Tensor, real_SL: Tensor) -> Tensor:
    """Tokens end to end at the places that hold some; [S, H, L, d], 0 elsewhere."""
    x_NHd = x_HNd.transpose(0, 1)
    empty = x_NHd.new_zeros(real_SL.numel(), *x_NHd.shape[1:])
    placed = empty.index_copy(0, real_SL.flatten().nonzero()[:, 0], x_NHd)
    return placed.unflatten(0, real_SL.shape).transpose(1, 2)
