"""How the features of a later frame look at those of its context frame.

Shape legend: B contexts, M frames (one or more of each context, context-major), C channels, H W positions, N = H * W,
K heads, D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlvr_world.errors import InputError

GROUPS = 32
KeysValues = tuple[Tensor, Tensor]
"""A context feature as a cross-attention reads it: keys and values, each [B, K, N, D]."""


class PositionNorm(nn.LayerNorm):
    """Normalises the channels of each position of [M, C, H, W] for itself; a group norm mixes all positions."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class CrossAttention(nn.Module):
    """Features of a later frame look at the context's features of the same size: SiLU(z + attention(z, context)).
    Both sides are normalised and get a learned position table of their own, zero at first."""

    def __init__(self, channels: int, positions: int, local: bool) -> None:
        """``local`` normalises each position for itself; a group norm is of all positions together."""
        super().__init__()
        if channels % GROUPS:
            wanted = f"multiples of {GROUPS} where frames look at their context (max_att_resolution)"
            raise InputError(f"tokenizer config block_out_channels: expected {wanted}, got {channels}")
        self.kv_pos_emb = nn.Parameter(torch.zeros(positions, channels))
        self.q_pos_emb = nn.Parameter(torch.zeros(positions, channels))
        self.att = nn.MultiheadAttention(channels, num_heads=4, dropout=0.1, batch_first=True)
        self.kv_norm = PositionNorm(channels) if local else nn.GroupNorm(GROUPS, channels)
        self.q_norm = PositionNorm(channels) if local else nn.GroupNorm(GROUPS, channels)
        self.dropout = nn.Dropout(0.1)

    def keys_values(self, context_BCHW: Tensor) -> KeysValues:
        """The context's side, computed once however many frames look at it."""
        tokens = self.kv_norm(context_BCHW).flatten(2).transpose(1, 2) + self.kv_pos_emb
        channels = tokens.shape[-1]
        keys_values = F.linear(tokens, self.att.in_proj_weight[channels:], self.att.in_proj_bias[channels:])
        keys, values = keys_values.chunk(2, dim=-1)
        return self._heads(keys), self._heads(values)

    def forward(self, z_MCHW: Tensor, context: KeysValues) -> Tensor:
        """``z`` after looking at the context; M is a multiple of B, each context's frames together."""
        keys, values = context
        tokens = self.q_norm(z_MCHW).flatten(2).transpose(1, 2) + self.q_pos_emb
        channels = tokens.shape[-1]
        queries = F.linear(tokens, self.att.in_proj_weight[:channels], self.att.in_proj_bias[:channels])
        # All frames of a context are one long list of queries: keys and values are never repeated.
        queries = self._heads(queries.reshape(len(keys), -1, channels))
        dropout = self.att.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        found = self.dropout(self.att.out_proj(found.transpose(1, 2).reshape(tokens.shape)))
        return F.silu(z_MCHW + found.transpose(1, 2).reshape(z_MCHW.shape))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.att.num_heads, -1)).transpose(1, 2)
