"""What shared-prefix attention refuses, and that it leaves plain forwards as they were."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3NextConfig,
)

from rlvr_world.errors import InputError
from rlvr_world.models.attention import GroupCache, Tree, TreeLayout, hidden_states, share_prefixes

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
}
IDS = torch.tensor([[5, 17, 9, 30, 2, 8]])


def model_of(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def test_plain_forwards_stay_what_they_were() -> None:
    model = model_of(LlamaConfig(**SHAPE))
    shared = copy.deepcopy(model)
    share_prefixes(shared)
    with torch.no_grad():
        torch.testing.assert_close(shared(input_ids=IDS).logits, model(input_ids=IDS).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1), "layers of plain attention"),
        (Qwen3NextConfig(**SHAPE, num_experts=2), "linear_attention"),
    ],
)
def test_layers_that_are_not_attention_are_refused(config: PretrainedConfig, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        share_prefixes(model_of(config))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Gemma2Config(**SHAPE, sliding_window=64), "softcap"),
        (GptOssConfig(**SHAPE, num_local_experts=2), "sinks"),
        (MistralConfig(**SHAPE, sliding_window=5), "window of 5 tokens, got one of 6"),
        (Gemma3TextConfig(**SHAPE, sliding_window=5), "window of 5 tokens, got one of 6"),
    ],
)
def test_attention_of_another_kind_is_refused(config: PretrainedConfig, reason: str) -> None:
    model = model_of(config)
    share_prefixes(model)
    positions = torch.arange(6)[None]
    for layout in (TreeLayout((Tree(3, (3, 2)),)), GroupCache(1, 2, torch.tensor([6])), None):
        ids, at = (IDS, positions) if layout is None or isinstance(layout, GroupCache) else (
            torch.cat([IDS, IDS[:, :2]], 1), torch.cat([positions, positions[:, 3:5]], 1)
        )  # fmt: skip
        with pytest.raises(InputError, match=reason):
            hidden_states(model, ids, at, layout)  # type: ignore[arg-type]


def test_a_window_is_measured_along_one_sequence() -> None:
    model = model_of(MistralConfig(**SHAPE, sliding_window=5))
    share_prefixes(model)
    layout = TreeLayout((Tree(3, (2, 1)), Tree(5, ())))  # 11 tokens, no sequence longer than 5
    ids, positions = torch.arange(11)[None], torch.tensor([[0, 1, 2, 3, 4, 3, 0, 1, 2, 3, 4]])
    assert hidden_states(model, ids, positions, layout).shape == (1, 11, 32)
    cache = GroupCache(1, 2, torch.tensor([3]))
    hidden_states(model, IDS[:, :3], positions[:, :3], cache)
    cache.length = 0
    cache.begin(2)
    hidden_states(model, torch.tensor([[4, 5], [6, 7]]), torch.tensor([[3, 4], [3, 4]]), cache)
    cache.length = 2
    with pytest.raises(InputError, match="window of 5 tokens, got one of 6"):
        hidden_states(model, torch.tensor([[4], [5]]), torch.tensor([[5], [5]]), cache)


@pytest.mark.parametrize("heads", [2, 4])
def test_one_kernel_over_the_row_gives_what_the_pieces_give(heads: int) -> None:
    layout = TreeLayout((Tree(5, (3, 1, 4)), Tree(7, ()), Tree(1, (2, 2))))
    torch.manual_seed(0)
    q, k, v = (torch.randn(h, 25, 8, dtype=torch.float64) for h in (heads, 2, 2))
    torch.testing.assert_close(layout.flex(q, k, v, 0.3), layout.attend(q, k, v, 0.3))


def test_keys_beyond_the_written_ones_change_nothing() -> None:
    model = model_of(LlamaConfig(**SHAPE))
    share_prefixes(model)
    found = []
    for stride in (1, 8):
        cache = GroupCache(2, 2, torch.tensor([6, 4]), stride)
        prompt = torch.cat([IDS, IDS.flip(1)])
        with torch.no_grad():
            hidden_states(model, prompt, torch.arange(6).expand(2, 6), cache)
            cache.length, steps = 0, []
            for ids in (torch.tensor([[7], [8], [9], [3]]), torch.tensor([[7, 1], [8, 1], [9, 2], [3, 2]])):
                cache.begin(ids.shape[1])
                at = torch.tensor([6, 6, 4, 4])[:, None] + cache.length + torch.arange(ids.shape[1])
                steps.append(hidden_states(model, ids, at, cache))
                cache.length += ids.shape[1]
        found.append(torch.cat(steps, 1))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)


def test_blocks_are_those_of_the_whole_mask_without_making_it() -> None:
    draw, whole_blocks = random.Random(0), 0
    for _ in range(12):
        sizes = [[draw.randint(1, 400) for _ in range(draw.choice((0, 1, 4)))] for _ in range(draw.randint(1, 3))]
        layout = TreeLayout(tuple(Tree(draw.randint(1, 700), tuple(members)) for members in sizes))
        blocks = layout._blocks(torch.device("cpu"))
        N = sum(tree.prefix + sum(tree.members) for tree in layout.trees)
        dense = create_block_mask(blocks.mask_mod, None, None, N, N, device="cpu")
        assert (blocks.to_dense() == dense.to_dense()).all()
        known = _table(dense.full_kv_num_blocks, dense.full_kv_indices)
        assert not (_table(blocks.full_kv_num_blocks, blocks.full_kv_indices) & ~known).any()
        partly = _table(blocks.kv_num_blocks, blocks.kv_indices)
        assert not (partly & _table(blocks.full_kv_num_blocks, blocks.full_kv_indices)).any()
        whole_blocks += int(blocks.full_kv_num_blocks.sum())
    assert whole_blocks > 50


def _table(counts: Any, numbers: Any) -> torch.Tensor:
    table = torch.zeros(numbers.shape[-2:], dtype=torch.bool)
    for row, (count, of_row) in enumerate(zip(counts[0, 0], numbers[0, 0], strict=True)):
        table[row, of_row[:count].long()] = True
    return table


def test_a_cache_makes_room_for_no_more_than_can_be_written() -> None:
    cache = GroupCache(1, 2, torch.tensor([3]), stride=8, most=70)
    cache.layers[0] = [torch.zeros(1, 1, 4, 3), torch.zeros(1, 1, 3, 4), *(torch.zeros(1, 1, 2, 0, 4),) * 2]
    cache.length = 0
    rooms = []
    for _ in range(70):
        cache.begin(1)
        cache.length += 1
        rooms.append(cache.layers[0][2].shape[3])
        assert cache.length <= cache.seen <= rooms[-1]
    assert sorted(set(rooms)) == [64, 70]
