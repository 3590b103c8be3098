"""Shared-prefix attention for any Hugging Face causal LM, without touching model code.

A GRPO group is one prompt and G responses. Stock attention stores and recomputes the prompt G times; here it exists
once, when sampling (``GroupCache``) and when training (``TreeLayout``). transformers' ``AttentionInterface`` hands on
the layout, a keyword of the forward, so one model object serves both, and plain forwards too (no layout given).

Shape legend: B groups, G responses a group, P prompt tokens (right-padded), R response tokens,
N packed tokens, H query heads, K key/value heads, d head size, n new tokens a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface

from rlvr_world.errors import InputError
from rlvr_world.models.cpu import SHORT, Members, short_attention
from rlvr_world.models.head import Model

NAME = "shared_prefix"
BLOCK = 128
"""Queries, and keys, of a block that the GPU's kernel computes or skips; it is worth compiling for rows as long."""


@dataclass(frozen=True)
class Tree:
    """Where one group lies in a packed row: its prefix, then its members end to end."""

    prefix: int
    """Prefix tokens; they attend causally to themselves."""
    members: tuple[int, ...]
    """Tokens of each member; it attends to the whole prefix and causally to itself."""


@dataclass(frozen=True)
class TreeLayout:
    """Several trees end to end in one row of N tokens; no token sees another tree or a sibling member."""

    trees: tuple[Tree, ...]
    asked: tuple[int, ...] = ()
    """Of each tree, how many of its last tokens have their hidden states asked for; all of all where it is empty."""

    def longest(self, _: int) -> int:
        """Tokens of the longest sequence."""
        return max(tree.prefix + max(tree.members, default=0) for tree in self.trees)

    def rows(self, device: torch.device) -> Tensor:
        """Where the tokens lie that are asked for, int64."""
        sizes = torch.tensor([tree.prefix + sum(tree.members) for tree in self.trees], device=device)
        ends, asked = sizes.cumsum(0), torch.tensor(self.asked, device=device)
        return torch.arange(int(asked.sum()), device=device) + (ends - asked.cumsum(0)).repeat_interleave(asked)

    def attend(self, q_HNd: Tensor, k_KNd: Tensor, v_KNd: Tensor, scale: float) -> Tensor:
        """Attention output [N, H, d]."""
        if q_HNd.device.type == "cuda" and q_HNd.shape[1] >= BLOCK:
            return self.flex(q_HNd, k_KNd, v_KNd, scale)
        repeat = q_HNd.shape[0] // k_KNd.shape[0]
        if repeat > 1:
            k_KNd, v_KNd = k_KNd.repeat_interleave(repeat, 0), v_KNd.repeat_interleave(repeat, 0)
        sizes = [size for tree in self.trees for size in (tree.prefix, *tree.members)]
        # Split, not slices: the backward of N slices is N full-size tensors, that of a split is one.
        q, k, v = (list(x.split(sizes, dim=1)) for x in (q_HNd, k_KNd, v_KNd))
        first = [sum(1 + len(t.members) for t in self.trees[:i]) for i in range(len(self.trees))]
        q_roots, k_roots, v_roots = (_stack([x[i] for i in first]) for x in (q, k, v))
        roots = sdpa(q_roots, k_roots, v_roots, scale, causal=True)
        outputs = []
        for i, tree, root in zip(first, self.trees, roots.unbind(), strict=True):
            outputs.append(root[:, : tree.prefix])
            if tree.members:
                own = slice(i + 1, i + 1 + len(tree.members))
                members = _attend_members(_stack(q[own]), _stack(k[own]), _stack(v[own]), k[i], v[i], scale)
                outputs += [out[:, :size] for out, size in zip(members.unbind(), tree.members, strict=True)]
        return torch.cat(outputs, 1).transpose(0, 1)

    def flex(self, q_HNd: Tensor, k_KNd: Tensor, v_KNd: Tensor, scale: float) -> Tensor:
        """``attend`` as one kernel over the whole row, which skips the blocks that nothing looks at (GPUs)."""
        kernel = _compiled_flex() if q_HNd.device.type == "cuda" else flex_attention
        blocks, gqa = self._blocks(q_HNd.device), q_HNd.shape[0] != k_KNd.shape[0]
        out = kernel(q_HNd[None], k_KNd[None], v_KNd[None], block_mask=blocks, scale=scale, enable_gqa=gqa)
        return out[0].transpose(0, 1)

    def _blocks(self, device: torch.device) -> BlockMask:
        """Who may look at whom, in blocks; made once and kept with the layout."""
        if (kept := self.__dict__.get("blocks")) is not None:
            return kept
        pieces = [(t, m, n) for t, tree in enumerate(self.trees) for m, n in enumerate((tree.prefix, *tree.members))]
        of_tree, of_member, counts = torch.tensor(pieces).T
        tree_N, member_N = (of.repeat_interleave(counts).to(device) for of in (of_tree, of_member))

        def may_look(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            related = (member_N[key] == 0) | (member_N[key] == member_N[query])
            return (tree_N[query] == tree_N[key]) & related & (key <= query)

        seen, whole = (table.to(device) for table in self._tables(BLOCK))
        N, counts, numbers = len(tree_N), *_numbered(seen & ~whole)
        blocks = BlockMask.from_kv_blocks(
            counts, numbers, *_numbered(whole), BLOCK_SIZE=BLOCK, mask_mod=may_look, seq_lengths=(N, N)
        )
        return self.__dict__.setdefault("blocks", blocks)

    def _tables(self, size: int) -> tuple[Tensor, Tensor]:
        """Of blocks of ``size`` queries and keys, which hold a pair that may look and which hold no other; bool
        [N / size, N / size]. Never larger than that: a mask of all pairs would have N x N entries."""
        N = sum(tree.prefix + sum(tree.members) for tree in self.trees)
        number = -(-N // size)
        seen, queries = torch.zeros(number, number, dtype=torch.bool), torch.zeros(number, number, dtype=torch.int64)
        at = 0
        for tree in self.trees:
            prefix = (at, at + tree.prefix)
            for member, length in enumerate((tree.prefix, *tree.members)):
                start, at = at, at + length
                for q in range(start // size, -(-at // size)):
                    first, last = max(start, q * size), min(at, (q + 1) * size)
                    for begin, end in ((start, first), prefix)[: 1 + (member > 0)]:  # keys that all of these see
                        seen[q, begin // size : -(-end // size)] |= end > begin
                        queries[q, -(-begin // size) : end // size] += last - first
                    seen[q, first // size : -(-last // size)] |= last > first
        return seen, queries == size


def _numbered(table: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are meant, and their numbers, these first; int32, as BlockMask has them."""
    order = torch.argsort(table.int(), dim=-1, descending=True, stable=True)
    return table.sum(-1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def _attend_members(
    q_GHRd: Tensor, k_GHRd: Tensor, v_GHRd: Tensor, kp_HPd: Tensor, vp_HPd: Tensor, scale: float
) -> Tensor:
    """The members of one tree over its prefix and themselves; [G, H, R, d]."""
    if q_GHRd.device.type == "cpu" and q_GHRd.dtype == torch.float32:
        return Members.apply(q_GHRd, k_GHRd, v_GHRd, kp_HPd, vp_HPd, scale)
    (G, _, R, _), P = q_GHRd.shape, kp_HPd.shape[1]
    keys, values = (torch.cat([x.expand(G, -1, -1, -1), own], 2) for x, own in ((kp_HPd, k_GHRd), (vp_HPd, v_GHRd)))
    mask = torch.ones(R, P + R, dtype=torch.bool, device=keys.device).tril(P)
    return sdpa(q_GHRd, keys, values, scale, mask=mask)


def _stack(pieces: list[Tensor]) -> Tensor:
    """Pieces [H, n, d] right-padded to the longest; causality keeps padding out of every real row."""
    longest = max(x.shape[1] for x in pieces)
    return torch.stack([x if x.shape[1] == longest else F.pad(x, (0, 0, 0, longest - x.shape[1])) for x in pieces])


def sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """Attention of q [S, H, n, d] over k, v [S, K, m, d]; ``mask`` [n, m] is True where a query may look."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        if k.shape[2] <= SHORT:
            return short_attention(q, k, v, scale, causal, mask)
        if torch.is_grad_enabled() and q.requires_grad:  # its backward is slow in bfloat16
            return sdpa(q.float(), k.float(), v.float(), scale, causal, mask).to(q.dtype)
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=gqa)


@dataclass
class GroupCache:
    """Keys and values of B·G growing responses over B prompts, the prompts stored once.

    Prompts may be read in parts, as many at a time as fit. Then rows of a forward are the B·G responses, group by
    group; ``begin`` comes before it. All shapes of a forward follow from its tokens a row and from ``seen``, and where
    its tokens go is a tensor, so that a CUDA graph of one forward serves as many steps as ``seen`` stays the same.
    """

    groups: int
    size: int
    """Responses a group (G)."""
    prompt_lengths_B: Tensor
    stride: int = 1
    """``seen`` grows in steps of so many tokens; what is not yet written is masked."""
    most: int = 2**31
    """Response tokens that there can be: no room is made for more."""
    read: int = 0
    """Prompts that have been read, as long as there are more to read."""
    length: int = -1
    """Response tokens held; -1 until the prompts have been read (prefill)."""
    layers: dict[int, list[Tensor]] = field(default_factory=dict)
    """Per layer: prompt keys [B, K, d, P], prompt values [B, K, P, d], response keys, response values
    [B, K, G, capacity, d]."""
    capacity: int = 0
    moves: int = 0
    """How often the stored tensors became others."""

    CHUNK = 64

    def __post_init__(self) -> None:
        self.prompt = int(self.prompt_lengths_B.max())
        self.padded = bool((self.prompt_lengths_B != self.prompt).any())
        self.one = torch.zeros(1, dtype=torch.int64, device=self.prompt_lengths_B.device)
        self.begin(0)

    def begin(self, new: int) -> None:
        """Make ready for a forward of ``new`` tokens a row after the prompts."""
        end = self.length + new
        self.seen = max(end, min(-(-end // self.stride) * self.stride, self.most))
        if self.seen > self.capacity:
            wanted = self.capacity + max(self.CHUNK, self.stride, self.capacity)  # twice as much, so that it is seldom
            room = max(min(wanted, self.most), self.seen) - self.capacity
            self.capacity, self.moves = self.capacity + room, self.moves + 1
            for held in self.layers.values():
                held[2:] = [F.pad(x, (0, 0, 0, room)) for x in held[2:]]
        self.at_n = self.one.fill_(self.length) if new == 1 else torch.arange(self.length, end, device=self.one.device)
        self.masked = self.padded or new > 1 or self.seen > end
        self.mask: Tensor | None = None

    def attend(self, layer: int, q_BHnd: Tensor, k_BKnd: Tensor, v_BKnd: Tensor, scale: float) -> Tensor:
        """Attention output [rows, n, H, d]; the new keys and values are stored."""
        B, G, n = self.groups, self.size, q_BHnd.shape[2]
        (K, d), H = (k_BKnd.shape[1], k_BKnd.shape[3]), q_BHnd.shape[1]
        if self.length < 0:
            self._hold(layer, k_BKnd, v_BKnd)
            return sdpa(q_BHnd, k_BKnd, v_BKnd, scale, causal=True).transpose(1, 2)
        kp, vp, ks, vs = self.layers[layer]
        P, rows = vp.shape[2], H // K * n
        for held, new in ((ks, k_BKnd), (vs, v_BKnd)):
            held.index_copy_(3, self.at_n, new.unflatten(0, (B, G)).transpose(1, 2))
        # Queries of a group that share a key head lie side by side: the prompt is read once for all of them.
        q = (q_BHnd * scale).reshape(B, G, K, rows, d).transpose(1, 2).reshape(B * K * G, rows, d)
        on_prompt = q.view(B * K, G * rows, d) @ kp.flatten(0, 1)
        on_response = q @ ks.flatten(0, 2)[:, : self.seen].transpose(1, 2)
        scores = torch.cat([on_prompt.view(B * K * G, rows, P), on_response], -1).float()
        if self.masked:
            scores.view(B, K * G, H // K, n, P + self.seen).masked_fill_(self._hidden(P), float("-inf"))
        weights = torch.softmax(scores, -1).to(vp.dtype)
        on_prompt = weights[..., :P].view(B * K, G * rows, P) @ vp.flatten(0, 1)
        mixed = torch.baddbmm(on_prompt.view_as(q), weights[..., P:], vs.flatten(0, 2)[:, : self.seen])
        mixed = mixed.view(B, K, G, H // K, n, d).permute(0, 2, 4, 1, 3, 5)
        return mixed.reshape(B * G, n, H, d)

    def _hold(self, layer: int, k_bKnd: Tensor, v_bKnd: Tensor) -> None:
        """Store the keys and values of the prompts that come next."""
        b, K, n, d = k_bKnd.shape
        if layer not in self.layers:
            keys, values = (k_bKnd.new_zeros(self.groups, K, self.prompt, d) for _ in range(2))
            empty = k_bKnd.new_zeros(self.groups, K, self.size, 0, d)
            keys = keys.transpose(2, 3)  # of which a CPU multiplies few queries best where they lie so
            self.layers[layer] = [keys.contiguous() if keys.device.type == "cpu" else keys, values, empty, empty]
        keys, values, *_ = self.layers[layer]
        keys[self.read : self.read + b, :, :, :n] = k_bKnd.transpose(2, 3)
        values[self.read : self.read + b, :, :n] = v_bKnd

    def _hidden(self, P: int) -> Tensor:
        """True where a query must not look, the same for every layer: padding, later tokens; [B, 1, 1, n, P + seen]."""
        if self.mask is None:
            device = self.one.device
            padding_BP = torch.arange(P, device=device) >= self.prompt_lengths_B[:, None]
            later_nE = torch.arange(self.seen, device=device) > self.at_n[:, None]
            padding_BnP = padding_BP[:, None].expand(-1, len(later_nE), -1)
            self.mask = torch.cat([padding_BnP, later_nE.expand(self.groups, -1, -1)], -1)[:, None, None]
        return self.mask

    def longest(self, new: int) -> int:
        """Tokens of the longest sequence once ``new`` tokens a row are read."""
        if self.length < 0:
            return new
        # A CUDA graph of this forward is replayed until ``seen`` tokens are there.
        return self.layers[min(self.layers)][1].shape[2] + max(self.seen, self.length + new)

    def keep(self, groups_B: Tensor, members_BG: Tensor) -> None:
        """Keep only these groups and, in each, these members (indices into the present ones)."""
        groups_B, members_BG = groups_B.to(self.one.device), members_BG.to(self.one.device)
        (self.groups, self.size), self.moves = members_BG.shape, self.moves + 1
        self.prompt_lengths_B = self.prompt_lengths_B[groups_B]
        for held in self.layers.values():
            held[:2] = [x[groups_B] for x in held[:2]]
            held[2:] = [x[groups_B[:, None], :, members_BG].transpose(1, 2).contiguous() for x in held[2:]]


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """transformers' interface: ``settings`` brings the layout and the scale, and what is looked at to be refused."""
    layout, scale = settings.get("layout"), settings.get("scaling")
    scale = scale if scale is not None else query.shape[-1] ** -0.5
    sizes = value.shape[-1] - key.shape[-1] or None
    _check(module, query.shape[2], layout, {**settings, "sizes": sizes, "attention_mask": attention_mask})
    if layout is None:
        out = sdpa(query, key, value, scale, causal=query.shape[2] > 1).transpose(1, 2)
    elif isinstance(layout, GroupCache):
        out = layout.attend(module.layer_idx, query, key, value, scale)  # type: ignore[arg-type]
    else:
        out = layout.attend(query[0], key[0], value[0], scale)[None]
    return out.contiguous(), None  # which the reshape that comes next would do as well, and some models rely on


AttentionInterface.register(NAME, _attention)
REFUSED = {
    "softcap": "softcap",
    "s_aux": "sinks",
    "sizes": "values of another size than its keys",
    "attention_mask": "a mask of its own",  # transformers makes none for an attention that it does not know
}


def _check(module: nn.Module, new: int, layout: Any, settings: dict[str, Any]) -> None:
    """Raises InputError for attention that is not plain, and for a sequence that leaves its window."""
    if kinds := [kind for name, kind in REFUSED.items() if settings.get(name) is not None]:
        raise InputError(f"model ({type(module).__name__}): expected plain attention, got {kinds[0]}; choose another")
    window = settings.get("sliding_window")
    if window is not None and (longest := new if layout is None else layout.longest(new)) > window:
        wanted = f"sequences within its attention window of {window} tokens"
        mend = "shorten prompts or responses, or choose another one"
        raise InputError(f"model ({type(module).__name__}): expected {wanted}, got one of {longest}; {mend}")


def share_prefixes(model: Model) -> None:
    """Make this model use shared-prefix attention (in place).

    Raises InputError for a model with layers that are not attention (or not transformers' attention interface);
    a forward raises it for soft-capped scores, attention sinks, and sequences longer than a sliding window.
    """
    model.set_attn_implementation(NAME)
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if others or config._attn_implementation != NAME:
        got = ", ".join(sorted(others)) or "others"
        raise InputError(f"model {config.model_type}: expected layers of plain attention, got {got}; choose another")


def hidden_states(model: Model, ids: Tensor, positions: Tensor, layout: TreeLayout | GroupCache) -> Tensor:
    """Last hidden states [rows, n, D] of the decoder, before the head; of a layout the tokens that it asks for."""
    if (decoder := model.get_decoder()).config._attn_implementation != NAME:  # it would not hear of the layout
        raise InputError(f"model {model.config.model_type}: expected one that shares prefixes; prepare(model) first")
    out = decoder(input_ids=ids, position_ids=positions, use_cache=False, layout=layout).last_hidden_state
    if isinstance(layout, TreeLayout) and 0 < sum(layout.asked) < out.shape[1]:
        return out[:, layout.rows(out.device)]
    return out
