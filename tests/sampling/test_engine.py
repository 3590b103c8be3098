"""The sampler against transformers' own generate and plain forwards, one sequence at a time, and against itself."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from rlvr_world.errors import InputError, NonFinite
from rlvr_world.models import cpu
from rlvr_world.models.attention import share_prefixes
from rlvr_world.models.contract import changing_ropes
from rlvr_world.sampling import engine, reader
from rlvr_world.sampling.engine import OWN, Sampling, batches, draw, sample, sample_each
from rlvr_world.types import Given, Rollout, Script, Write

VOCABULARY = 96
GREEDY, FREE = Sampling(0.0), Sampling(1.0)
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,  # far from uniform, so that a wrong position or key changes what is drawn
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {"head_dim": 16, "sliding_window": 64}),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config, {}),
    "mixture": (Qwen3MoeForCausalLM, Qwen3MoeConfig, {"num_experts": 4, "num_experts_per_tok": 2}),
}
PROMPTS = [(5,), (7, 8, 9, 10, 11, 12, 13), (50, 3, 20), tuple(range(30, 70))]


def model_of(name: str) -> PreTrainedModel:
    architecture, config, changes = MODELS[name]
    torch.manual_seed(0)
    return architecture(config(**{**SHAPE, **changes})).eval()


def shared_of(model: PreTrainedModel) -> PreTrainedModel:
    shared = copy.deepcopy(model)
    share_prefixes(shared)
    return shared


PLAIN = model_of("llama")
SHARED = shared_of(PLAIN)


def draw_all(
    scripts: Sequence[Script], n: int = 2, sampling: Sampling = FREE, keys: Sequence[int] | None = None, rows: int = 512
) -> list[list[Rollout]]:
    streams = [(3, key) for key in (keys if keys is not None else range(len(scripts)))]
    return sample(SHARED, scripts, n, sampling, streams, max_rows=rows)


def legal_of(rollout: Rollout) -> list[range]:
    """The legal ids of each response token, read off the script and what was written."""
    legal: list[range] = []
    written = iter(rollout.written)
    for segment in rollout.script.tail:
        if isinstance(segment, Given):
            legal += [range(VOCABULARY)] * len(segment.ids)
        else:
            count = len(next(written))
            legal += [segment.allowed or range(VOCABULARY)] * (count + (count < segment.max_tokens))
    return legal


def plain_logps(model: PreTrainedModel, rollout: Rollout, temperature: float = 1.0) -> Tensor:
    """Log-probs of the response by a plain forward of its one sequence; 0 where forced."""
    ids = torch.cat([torch.tensor(rollout.script.prompt), rollout.ids])
    with torch.no_grad():
        logits = model(input_ids=ids[None]).logits[0, len(rollout.script.prompt) - 1 : -1] / temperature
    for row, legal in zip(logits, legal_of(rollout), strict=True):
        row[: legal.start] = row[legal.stop :] = float("-inf")
    return logits.log_softmax(-1).gather(1, rollout.ids[:, None])[:, 0] * rollout.sampled


def same(one: Rollout, other: Rollout) -> None:
    assert one.ids.tolist() == other.ids.tolist()
    assert (one.written, one.finished, one.stream) == (other.written, other.finished, other.stream)
    assert one.sampled.tolist() == other.sampled.tolist()
    torch.testing.assert_close(one.logps, other.logps, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_greedy_is_what_transformers_generates(name: str) -> None:
    model = model_of(name)
    stop = 17
    scripts = [Script((Given(prompt), Write(20, stop=(stop,)))) for prompt in PROMPTS]
    groups = sample(shared_of(model), scripts, 2, GREEDY, [(0, i) for i in range(len(scripts))])
    for prompt, group in zip(PROMPTS, groups, strict=True):
        inputs = torch.tensor([prompt])
        expected = model.generate(
            inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=20, eos_token_id=stop
        )[0, len(prompt) :]
        for rollout in group:
            assert rollout.ids.tolist() == expected.tolist()
            torch.testing.assert_close(rollout.logps, plain_logps(model, rollout), atol=1e-5, rtol=0)


SCRIPTS = [
    Script((Given((4, 5, 6)), Write(9, stop=(1, 2)))),
    Script((Given((9,)), Write(3, allowed=range(10, 20)), Given((40, 41, 42)), Write(4, allowed=range(60, 96)))),
    Script((Given(tuple(range(20, 60))), Write(1), Given((7,)), Write(12, stop=tuple(range(8))))),
    Script((Given((70, 71)), Given((72,)), Write(2, stop=(3,)), Given(tuple(range(30))), Write(2, allowed=range(4)))),
    Script((Given((8, 8)), Write(2, allowed=range(5)), Given((1, 2)))),
    Script((Given((8, 9)), Write(30, stop=tuple(range(48))))),
]
"""Ragged in every way: prompts, forced runs in the middle and at the end, legal ranges, stop tokens, lengths."""


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 2.0])
def test_log_probs_are_those_of_a_plain_forward(temperature: float) -> None:
    for group in draw_all(SCRIPTS, n=5, sampling=Sampling(temperature)):
        for rollout in group:
            torch.testing.assert_close(
                rollout.logps, plain_logps(PLAIN, rollout, temperature or 1.0), atol=1e-5, rtol=0
            )


def test_a_rollout_follows_its_script() -> None:
    ends = Counter()
    for script, group in zip(SCRIPTS, draw_all(SCRIPTS, n=30), strict=True):
        for rollout in group:
            ids, at, finished = rollout.ids.tolist(), 0, True
            written = iter(rollout.written)
            for segment in script.tail:
                if isinstance(segment, Given):
                    assert tuple(ids[at : at + len(segment.ids)]) == segment.ids
                    assert not rollout.sampled[at : at + len(segment.ids)].any()
                    at += len(segment.ids)
                    continue
                text = next(written)
                assert tuple(ids[at : at + len(text)]) == text
                assert all(t in (segment.allowed or range(VOCABULARY)) and t not in segment.stop for t in text)
                stopped = len(text) < segment.max_tokens
                if stopped:
                    assert ids[at + len(text)] in segment.stop
                assert rollout.sampled[at : at + len(text) + stopped].all()
                at += len(text) + stopped
                finished = finished and (stopped or not segment.stop)
                ends[stopped] += 1
            assert at == len(ids) <= script.max_response
            assert next(written, None) is None
            assert rollout.finished == finished
            assert (rollout.logps[~rollout.sampled] == 0).all()
    assert min(ends.values()) > 10, "both ends of a segment must have been met"


def test_a_model_that_shares_no_prefixes_is_refused() -> None:
    """Its rollouts would read each other, and look like any."""
    with pytest.raises(InputError, match=r"model llama: expected one that shares prefixes; prepare\(model\) first"):
        sample(model_of("llama"), SCRIPTS[:1], 2, GREEDY, [(0,)])
    with pytest.raises(InputError, match="shares prefixes"):
        sample_each(model_of("llama"), SCRIPTS[:1], GREEDY, [(0,)])


def test_the_model_comes_back_in_the_mode_it_was_in() -> None:
    SHARED.train()
    draw_all(SCRIPTS[:1])
    assert SHARED.training
    SHARED.eval()


@pytest.mark.parametrize("broken", [False, True])
def test_weights_lie_as_before_once_tokens_are_drawn(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "by_onednn", lambda dtype: False)
    model = copy.deepcopy(SHARED)
    if broken:
        torch.nn.init.constant_(model.get_input_embeddings().weight, float("nan"))
    before = {name: (p.data_ptr(), p.stride()) for name, p in model.named_parameters()}
    seen: list[tuple[int, ...]] = []
    matrix = next(p for p in model.parameters() if p.ndim == 2)
    model.get_decoder().register_forward_hook(lambda *_: seen.append(matrix.stride()))
    with pytest.raises(NonFinite) if broken else nullcontext():
        sample(model, SCRIPTS[:1], 2, FREE, [(0,)])
    assert set(seen) == {(1, matrix.shape[0])}
    assert {name: (p.data_ptr(), p.stride()) for name, p in model.named_parameters()} == before


def test_segments_without_tokens_are_passed_over() -> None:
    [[rollout]] = draw_all([Script((Given((4, 5)), Write(2), Given(()), Write(3), Given(())))], n=1)
    assert [len(text) for text in rollout.written] == [2, 3]
    torch.testing.assert_close(rollout.logps, plain_logps(PLAIN, rollout), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_a_rollout_is_the_same_whatever_it_is_batched_with(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(SCRIPTS))), min_size=1, max_size=7))
    n = data.draw(st.integers(1, 4))
    rows = data.draw(st.sampled_from([1, 3, 8, 512]))
    groups = draw_all([SCRIPTS[i] for i in chosen], n=n, keys=chosen, rows=rows)
    for i, group in zip(chosen, groups, strict=True):
        for rollout, expected in zip(group, ALONE[i], strict=False):
            same(rollout, expected)


ALONE = [draw_all([script], n=4, keys=[i], rows=1)[0] for i, script in enumerate(SCRIPTS)]


FRONT = tuple(i % 90 for i in range(3 * OWN))
ENDS = [(1, 2, 3), (4, 5, 6), (7, 8), (1, 2, 3), (9,) * 11, (10, 11), (12, 13, 14), (15, 16, 17)]
BEGUN = [*(Script((Given((*FRONT, *end)), Write(9, stop=(0, 1)), Given((5,)), Write(3))) for end in ENDS), *SCRIPTS]
NAMED = [(7, i) for i in range(len(BEGUN))]


def test_what_prompts_have_in_front_is_read_once_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [group[0] for group in sample(SHARED, BEGUN, 1, FREE, NAMED, max_rows=1)]
    streams = [rollout.stream for rollout in alone]
    read: list[int] = []
    plain = reader.hidden_states
    monkeypatch.setattr(
        reader, "hidden_states", lambda model, ids, *rest: read.append(ids.numel()) or plain(model, ids, *rest)
    )
    for rows in (512, 3):
        for rollout, expected in zip(sample_each(SHARED, BEGUN, FREE, streams, rows), alone, strict=True):
            same(rollout, expected)
    read.clear()
    sample_each(SHARED, BEGUN[:1] * 6, FREE, streams[:6])
    assert read[:2] == [len(BEGUN[0].prompt) - OWN, 6 * OWN]
    assert sample_each(SHARED, [], FREE, []) == []


def test_such_a_rollout_is_the_same_in_half_precision() -> None:
    half = copy.deepcopy(SHARED).bfloat16()
    together = sample_each(half, BEGUN, FREE, NAMED)
    for i, rollout in enumerate(together):
        assert sample_each(half, [BEGUN[i]], FREE, [NAMED[i]])[0].ids.tolist() == rollout.ids.tolist()


def test_rows_that_leave_early_keep_their_results_and_those_that_stay_theirs() -> None:
    # From 60 stop tokens of 96 down to 5: lengths from 1 to 40, groups and members leave at all times.
    scripts = [Script((Given((i + 1, i + 2) * (i + 1)), Write(40, stop=tuple(range(60 - 11 * i))))) for i in range(6)]
    together = draw_all(scripts, n=12)
    lengths = sorted(len(r.ids) for group in together for r in group)
    assert lengths[0] == 1
    assert lengths[-1] > 20
    assert not any(t < 60 - 11 * i for i, group in enumerate(together) for r in group for t in r.written[0])
    for i, script in enumerate(scripts):
        [alone] = draw_all([script], n=12, keys=[i])
        for rollout, other in zip(together[i], alone, strict=True):
            same(rollout, other)
            torch.testing.assert_close(rollout.logps, plain_logps(PLAIN, rollout), atol=1e-5, rtol=0)


def test_streams_differ_between_samples_and_prompts() -> None:
    script = Script((Given((5, 6)), Write(12)))
    groups = draw_all([script] * 3, n=4)
    assert len({tuple(r.ids.tolist()) for group in groups for r in group}) == 12
    assert {r.stream for group in groups for r in group} == {(3, i, s) for i in range(3) for s in range(4)}


LOGITS = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5, -3.0, 1.5, 1.0])


def frequencies(sampling: Sampling, allowed: range | None = None, count: int = 20000) -> Tensor:
    uniforms = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids, _ = draw(LOGITS.expand(count, -1), [allowed] * count, sampling, uniforms)
    return torch.bincount(ids, minlength=len(LOGITS)) / count


@pytest.mark.parametrize(
    ("sampling", "allowed", "kept"),
    [
        (FREE, None, range(8)),
        (Sampling(0.5), None, range(8)),
        (FREE, range(1, 6), range(1, 6)),
        (Sampling(top_k=3), None, (0, 2, 6, 7)),  # 2 and 7 tie for the third place
        (Sampling(top_k=2), range(1, 6), (2, 4)),
        (Sampling(top_p=0.5), None, (0, 6)),  # 0.36 + 0.22 of the whole
        (Sampling(top_p=0.01), None, (0,)),
        (Sampling(top_k=100), None, range(8)),
    ],
)
def test_draws_come_as_often_as_they_should(sampling: Sampling, allowed: range | None, kept: Sequence[int]) -> None:
    weights = torch.zeros(8).index_put((torch.tensor(kept),), (LOGITS / sampling.temperature).exp()[list(kept)])
    expected = weights / weights.sum()
    got = frequencies(sampling, allowed)
    assert (got[expected == 0] == 0).all()
    chi_square = (20000 * (got - expected).square() / expected)[expected > 0].sum()
    assert chi_square < 30  # 7 degrees of freedom or fewer: less than once in 10,000


def test_the_ends_of_the_unit_interval_draw_legal_tokens() -> None:
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    logits = LOGITS.clone().index_fill(0, torch.tensor([1, 4]), float("-inf")).expand(2, -1)
    assert draw(logits, [range(1, 5)] * 2, FREE, ends)[0].tolist() == [2, 3]


def test_log_probs_are_renormalised_over_legal_tokens_but_not_over_truncated_ones() -> None:
    uniforms = torch.tensor([0.1, 0.9], dtype=torch.float64)
    ids, logps = draw(LOGITS.expand(2, -1), [None, range(2, 5)], Sampling(top_k=2), uniforms)
    legal = LOGITS[2:5].log_softmax(-1)
    torch.testing.assert_close(logps, torch.stack([LOGITS.log_softmax(-1)[ids[0]], legal[ids[1] - 2]]))


def test_logits_that_are_not_finite_are_said_to_be() -> None:
    for wrong in (float("nan"), float("inf")):
        logits = torch.zeros(2, 5)
        logits[1, 3] = wrong
        for sampling in (FREE, GREEDY):
            with pytest.raises(NonFinite, match="logits are not finite"):
                draw(logits, [None, None], sampling, torch.tensor([0.5, 0.5]))


def test_prompts_read_in_parts_are_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = [Script((Given(prompt), Write(12, stop=(2,)))) for prompt in PROMPTS]
    streams = [(3, i) for i in range(len(scripts))]
    whole = sample(shared_of(model_of("qwen2")), scripts, 3, FREE, streams)
    monkeypatch.setattr(reader, "PREFILL", 45)
    parts = sample(shared_of(model_of("qwen2")), scripts, 3, FREE, streams)
    for group, same in zip(whole, parts, strict=True):
        for one, other in zip(group, same, strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            torch.testing.assert_close(one.logps, other.logps, rtol=0, atol=1e-5)


def test_as_many_scripts_together_as_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model, few = model_of("qwen3"), [Script((Given((1,) * n), Write(10))) for n in (30, 10, 20, 10)]
    assert batches(model, few, 2, 512) == [[1, 3, 2, 0]]
    assert batches(model, few, 2, 5) == [[1, 3], [2, 0]]
    bytes_a_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size, float32
    monkeypatch.setattr(engine, "device_memory", lambda _: bytes_a_token * 3 * 65)
    assert batches(model, few, 2, 512) == [[1, 3], [2], [0]]  # 60, 40 and 50 tokens of the 65
    monkeypatch.setattr(engine, "device_memory", lambda _: 0)
    assert batches(model, few, 2, 512) == [[1], [3], [2], [0]]


def test_rotary_embeddings_that_change_are_those_of_all_layers() -> None:
    assert changing_ropes(model_of("llama")) == changing_ropes(model_of("gemma3")) == []
    model = model_of("llama")
    model.config.rope_parameters = {"full_attention": {"rope_type": "longrope"}, "sliding_attention": None}
    assert changing_ropes(model) == [{"rope_type": "longrope"}]


@pytest.mark.parametrize("sampling", [FREE, GREEDY, Sampling(0.8, top_k=20)])
@pytest.mark.parametrize("wrong", [(), (0,), (3, 4, 11), (23,), tuple(range(24))])
def test_guesses_change_nothing_but_the_forwards(
    sampling: Sampling, wrong: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, forwards, forward = Given(PROMPTS[1]), [], reader.Reader.__call__

    def script(guess: tuple[int, ...], more: tuple[int, ...] = ()) -> Script:
        frame, text = Write(24, allowed=range(10, 90), guess=guess), Write(6, stop=(2,), guess=more)
        return Script((given, frame, Given((9, 8, 7)), text, Given((4,))))

    [[plain]] = draw_all([script(())], n=1, sampling=sampling)
    guess = tuple(10 if i in wrong and t != 10 else 11 if i in wrong else t for i, t in enumerate(plain.written[0]))

    def watched(self: reader.Reader, ids: Tensor) -> Tensor:
        forwards.append(ids.shape[1])
        return forward(self, ids)

    monkeypatch.setattr(reader.Reader, "__call__", watched)
    for more in ((), plain.written[1], (2, 4, 4)):
        [[found]] = draw_all([script(guess, more)], n=1, sampling=sampling)
        same(plain, found)
    forwards.clear()
    draw_all([script(guess)], n=1, sampling=sampling)
    firsts = 24 if len(wrong) == 24 else 1 + 24 // 13 + len(wrong)  # 13 tokens at most in a forward
    assert len(forwards) <= firsts + 2 + len(plain.written[1])
    assert max(forwards) <= 13
