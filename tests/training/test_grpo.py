"""GRPO on a world of plain tokens: a step worked out with plain forwards, and what each setting does to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr_world.config import OptimizerConfig, RLConfig
from rlvr_world.errors import NonFinite
from rlvr_world.sampling.engine import Sampling, sample
from rlvr_world.training.grpo import GRPO, OTHERS, _Watch, followed
from rlvr_world.training.learner import Learner
from rlvr_world.training.packing import Branch, Group, legal_ranges, pack, response_lengths
from rlvr_world.types import (
    Given,
    Rollout,
    Score,
    Script,
    Transition,
    Write,
)

STEADY = OptimizerConfig(2e-3, weight_decay=0.0, clip_norm=1e9)
BASIC = RLConfig(prompts=4, group=6, optimizer=STEADY, kl=0.0, forward_tokens=100)


class Parity:
    """Six tokens of ten, of which a share should be even; every third row scores nothing whatever is written."""

    def encode(self, transition: Transition) -> Script:
        first, second = Write(2 + transition.action, allowed=range(50, 60)), Write(4, stop=(9,), allowed=range(4, 60))
        return Script((Given(transition.state), first, Given((1, 2)), second))

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> list[int]:
        return [token for text in written for token in text]

    def score(self, prediction: list[int], transition: Transition) -> Score:
        even = sum(token % 2 == 0 for token in prediction) / len(prediction)
        value = 0.0 if transition.kind == "flat" else even
        return Score(value, {"exact": float(even == 1)}, malformed="odd" if even == 0 else "")

    def baselines(self, transition: Transition) -> Mapping[str, Any]:
        return {}

    def explain(self, prediction: Any, transition: Transition) -> str:
        return ""


ROWS = [
    Transition(f"r{i}", tuple(range(100 + i, 103 + 2 * i)), i % 3, None, kind="flat" if i % 3 == 2 else "live")
    for i in range(8)
]
LIVE = [row for row in ROWS if row.kind == "live"]


def grpo(learner: Learner, config: RLConfig, rows: Sequence[Transition] = LIVE, seed: int = 0) -> GRPO:
    return GRPO(learner, config, Parity(), lambda epoch: rows, seed)


def rollouts_of(stage: GRPO, step: int = 0) -> list[list[Rollout]]:
    """The rollouts that a step will draw, drawn again with the public sampler."""
    rows, config = stage.prompts(step), stage.config
    scripts = [stage.domain.encode(row) for row in rows]
    streams = [(stage.seed, step, i) for i in range(len(rows))]
    return sample(stage.learner.policy, scripts, config.group, Sampling(config.temperature), streams)


def plain_logp(model: Any, rollout: Rollout) -> Tensor:
    """Log-probs of the sampled tokens over their legal ids, by a plain forward of one sequence."""
    prompt = rollout.script.prompt
    logits = model(input_ids=torch.cat([torch.tensor(prompt), rollout.ids])[None]).logits[0, len(prompt) - 1 : -1]
    first = rollout.script.tail[0]
    assert isinstance(first, Write)
    column = torch.arange(logits.shape[1])
    logps = []
    for at in range(len(rollout.ids)):
        legal = range(50, 60) if at < first.max_tokens else range(4, 60)
        logps.append(logits[at].masked_fill((column < legal.start) | (column >= legal.stop), -1e30).log_softmax(-1))
    return torch.stack(logps).gather(1, rollout.ids[:, None])[:, 0][rollout.sampled]


def plain_copy(learner: Learner) -> Any:
    model = copy.deepcopy(learner.model)
    model.set_attn_implementation("eager")
    return model


def spy(learner: Learner) -> tuple[list[list[Group]], list[list[Tensor]]]:
    """The groups and the gradients of each optimizer step from now on; the steps themselves are taken."""
    groups: list[list[Group]] = []
    gradients: list[list[Tensor]] = []
    update, step = learner.update, learner.optimizer.step

    def noting_update(given: Sequence[Group], *rest: Any, **more: Any) -> dict[str, float]:
        groups.append(list(given))
        return update(given, *rest, **more)

    def noting_step() -> None:
        gradients.append([p.grad.clone() for p, _ in learner.trainable if p.grad is not None])
        step()

    learner.update, learner.optimizer.step = noting_update, noting_step  # type: ignore[method-assign, assignment]
    return groups, gradients


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_a_step_by_plain_forwards(aggregation: Any, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=STEADY)
    stage = grpo(learner, replace(BASIC, aggregation=aggregation))
    model, rollouts = plain_copy(learner), rollouts_of(stage)
    _, gradients = spy(learner)
    metrics, tokens = stage.step(0, 0.0)

    flat = [r for group in rollouts for r in group]
    rewards = torch.tensor(
        [[sum(t % 2 == 0 for w in r.written for t in w) / sum(map(len, r.written)) for r in g] for g in rollouts]
    )
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)).flatten()
    lengths = [int(r.sampled.sum()) for r in flat]
    longest = max(r.script.tail[0].max_tokens + 4 for r in flat)
    weights = {
        "token": [1 / sum(lengths)] * len(flat),
        "sequence": [1 / len(flat) / n for n in lengths],
        "constant": [1 / len(flat) / longest] * len(flat),
    }[aggregation]
    loss = 0.0
    for rollout, advantage, weight in zip(flat, advantages, weights, strict=True):
        logp = plain_logp(model, rollout)
        part = -(weight * advantage * (logp - logp.detach()).exp()).sum()
        part.backward()
        loss += part.item()
    assert metrics["loss"] == pytest.approx(loss, abs=1e-6)
    assert distance(gradients[0], [p.grad for p in model.parameters()]) < 1e-4
    assert metrics["reward"] == pytest.approx(rewards.mean().item())
    assert metrics["reward_std"] == pytest.approx(rewards.std().item())
    assert metrics["logp_gap"] < 1e-5
    assert metrics["clip_fraction"] == metrics["zero_variance"] == 0
    assert metrics["accuracy/live"] == pytest.approx((rewards == 1).float().mean().item())
    assert metrics["malformed"] == pytest.approx((rewards == 0).float().mean().item())
    assert metrics["response_length"] == pytest.approx(sum(len(r.ids) for r in flat) / len(flat))
    assert metrics["unfinished"] == pytest.approx(sum(not r.finished for r in flat) / len(flat))
    sampled = sum(len(g[0].script.prompt) + sum(len(r.ids) for r in g) for g in rollouts)
    trained = sum(len(g[0].script.prompt) + sum(len(r.ids) - 1 for r in g) for g in rollouts)
    assert tokens == sampled + trained


def test_the_ratio_of_a_whole_rollout_is_the_mean_of_its_own_tokens(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=STEADY)
    stage = grpo(learner, replace(BASIC, ratio="sequence"))
    groups, _ = spy(learner)
    stage.step(0, 0.0)
    packed = pack(groups[0])
    moved_T = 0.3 * torch.randn(len(packed.target_T), generator=torch.Generator().manual_seed(0))
    loss_T = stage._loss(_Watch(first=True))(packed.old_logp_T + moved_T, torch.zeros_like(moved_T), packed)
    start = 0
    for branch in (b for group in groups[0] for b in group.branches):
        part = slice(start, start := start + int(branch.trained.sum()))
        ratio = moved_T[part].mean().exp()
        expected = -torch.minimum(ratio * branch.advantage, ratio.clamp(0.8, 1.2) * branch.advantage)
        assert torch.allclose(loss_T[part], expected.expand_as(loss_T[part]), atol=1e-5)
    assert start == len(moved_T)


@pytest.mark.parametrize("lora", [False, True])
def test_rewards_go_up(lora: bool, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(lora=lora, optimizer=OptimizerConfig(1e-2))
    stage = grpo(learner, replace(BASIC, group=8, kl=0.001))
    rewards = [stage.step(step, 0.0)[0]["reward"] for step in range(15)]
    assert sum(rewards[:3]) / 3 < 0.65
    assert sum(rewards[-3:]) / 3 > (0.7 if lora else 0.9)  # adapters cannot turn the head of a random model


@pytest.mark.parametrize("lora", [False, True])
def test_kl_is_measured_against_the_start(lora: bool, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(lora=lora, optimizer=OptimizerConfig(1e-2))
    stage = grpo(learner, replace(BASIC, kl=0.05, forward_tokens=30))
    start = plain_copy(learner)
    first, _ = stage.step(0, 0.0)
    assert first["kl"] == pytest.approx(0, abs=1e-9)
    for step in (1, 2):
        now, rollouts = plain_copy(learner), rollouts_of(stage, step)
        with torch.no_grad():
            gaps = torch.cat([plain_logp(start, r) - plain_logp(now, r) for group in rollouts for r in group])
        metrics, _ = stage.step(step, 0.0)
        assert metrics["kl"] == pytest.approx((gaps.exp() - gaps - 1).mean().item(), rel=1e-3)
        assert metrics["kl"] > 1e-4
        assert metrics["logp_gap"] < 1e-5


def test_the_kl_and_entropy_terms_reach_the_gradient(learner_of: Callable[..., Learner]) -> None:
    met = []
    for config in (BASIC, replace(BASIC, entropy=0.1), replace(BASIC, kl=0.1), replace(BASIC, kl=0.2)):
        learner = learner_of(optimizer=STEADY)
        stage = grpo(learner, config)
        with torch.no_grad():
            for parameter in learner.model.parameters():
                parameter.mul_(1.1)  # away from the reference
        _, gradients = spy(learner)
        stage.step(0, 0.0)
        met.append(torch.cat([g.flatten() for g in gradients[0]]))
    basic, entropy, kl, twice = met
    assert (entropy - basic).norm() > 0.01 * basic.norm()
    assert (kl - basic).norm() > 0.01 * basic.norm()
    torch.testing.assert_close(twice - basic, 2 * (kl - basic), atol=1e-6, rtol=1e-3)


def test_minibatches_keep_the_log_probs_of_the_draw(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=OptimizerConfig(1e-2))
    stage = grpo(learner, replace(BASIC, minibatches=2))
    rollouts = rollouts_of(stage)
    groups, _ = spy(learner)
    metrics, _ = stage.step(0, 0.0)
    assert [len(part) for part in groups] == [2, 2]
    drawn = [r.logps for group in rollouts for r in group]
    used = [b.old_logps for part in groups for group in part for b in group.branches]
    for old, logps in zip(used, drawn, strict=True):
        assert old is not None
        torch.testing.assert_close(old, logps)
    assert metrics["clip_fraction"] > 0, "the second has moved away from the draw"
    assert metrics["logp_gap"] < 1e-5, "sampler against trainer, before an update"


def test_the_constant_is_that_of_the_whole_step(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    stage = grpo(learner, replace(BASIC, minibatches=4, aggregation="constant"))
    groups, _ = spy(learner)
    stage.step(0, 0.0)
    weights = {round(1 / b.weight, 3) for part in groups for group in part for b in group.branches}
    assert weights == {BASIC.group * max(2 + row.action + 4 for row in stage.prompts(0))}


@pytest.mark.parametrize("term", ["none", "kl", "entropy"])
def test_leaving_out_groups_without_variance_changes_no_loss(term: str, learner_of: Callable[..., Learner]) -> None:
    config = BASIC if term == "none" else replace(BASIC, **{term: 0.1})
    met: list[list[Tensor]] = []
    logs: list[dict[str, float]] = []
    for drop in (True, False):
        learner = learner_of(optimizer=STEADY)
        stage = grpo(learner, replace(config, prompts=8, drop_zero_variance=drop), ROWS)
        with torch.no_grad():
            for parameter in learner.model.parameters():
                parameter.mul_(1.1)  # away from the reference
        _, gradients = spy(learner)
        metrics, _ = stage.step(0, 0.0)
        assert metrics["zero_variance"] == 0.25
        met.append(gradients[0])
        logs.append({name: metrics[name] for name in ("loss", "entropy", "kl", "trained_tokens") if name in metrics})
    assert distance(*met) < 1e-5
    saved = logs[0].pop("trained_tokens") < logs[1].pop("trained_tokens")
    assert saved == (term == "none"), "what adds nothing to the loss is not computed"
    assert logs[0] == pytest.approx(logs[1], abs=1e-6)


def test_the_entropy_of_the_log_is_that_of_all_that_was_drawn(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=STEADY)
    stage = grpo(learner, replace(BASIC, prompts=8, group=64), ROWS)
    rollouts = rollouts_of(stage)
    with torch.no_grad():
        exact = [learner.logps(pack([branches(group)]))[1] for group in rollouts]
    assert stage.step(0, 0.0)[0]["entropy"] == pytest.approx(torch.cat(exact).mean().item(), rel=0.02)


def branches(group: Sequence[Rollout]) -> Group:
    legal = [legal_ranges(r.script, response_lengths(r)) for r in group]
    learned = (Branch(r.ids, r.sampled, 1.0, 0.0, r.logps, of) for r, of in zip(group, legal, strict=True))
    return Group(group[0].script.prompt, tuple(learned))


def test_dynamic_sampling_goes_on_until_enough_groups_have_spread(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=STEADY)
    stage = grpo(learner, replace(BASIC, prompts=3, dynamic_sampling=4), ROWS)
    asked = stage.prompts(0)
    assert [row.id for row in asked] == [row.id for row in grpo(learner, replace(BASIC, prompts=12), ROWS).prompts(0)]
    kinds = [row.kind for row in asked]
    batches = next(n for n in range(1, 5) if kinds[: 3 * n].count("live") >= 3)
    assert batches > 1, "the first batch has a row whose rewards are all the same"
    seen: list[Sequence[Transition]] = []
    stage.record = lambda step, rows, groups, scores: seen.append(rows)
    groups, _ = spy(learner)
    metrics, tokens = stage.step(0, 0.0)
    assert [row.id for row in seen[0]] == [row.id for row in asked[: 3 * batches]]
    assert metrics["sampled_groups"] == 3 * batches
    assert metrics["zero_variance"] == pytest.approx(kinds[: 3 * batches].count("flat") / (3 * batches))
    live = [row for row in asked if row.kind == "live"][:3]
    assert [group.prompt for group in groups[0]] == [row.state for row in live]
    weights = [b.weight * int(b.trained.sum()) for group in groups[0] for b in group.branches]
    assert sum(weights) == pytest.approx(1), "weights are those of the groups that are learned from"
    assert tokens > metrics["trained_tokens"]


def test_dynamic_sampling_ends(learner_of: Callable[..., Learner]) -> None:
    flat = [row for row in ROWS if row.kind == "flat"]
    learner = learner_of()
    metrics, _ = grpo(learner, replace(BASIC, prompts=2, dynamic_sampling=3, kl=0.1), flat).step(0, 0.0)
    assert metrics["sampled_groups"] == 6
    assert metrics["zero_variance"] == 1
    assert metrics["trained_tokens"] == 0
    one = [next(row for row in ROWS if row.kind == "live"), *flat]
    groups, _ = spy(learner)
    grpo(learner, replace(BASIC, prompts=3, dynamic_sampling=1), one).step(0, 0.0)
    assert len(groups[0]) == 1, "it learns from what has spread, if that is less than a batch"


def test_rows_drawn_by_spread_come_back(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(optimizer=STEADY)
    stage = grpo(learner, replace(BASIC, prompts=4, draw="spread"), ROWS)
    seen = [row.kind for step in range(12) for row in drawn_in(stage, step)]
    assert set(learner.spread) == {row.id for row in ROWS}
    assert all(learner.spread[row.id] == 0 for row in ROWS if row.kind == "flat")
    assert all(learner.spread[row.id] > 0 for row in LIVE)
    assert seen[16:].count("flat") < 0.6 * len(seen[16:]) * 2 / 8, "a quarter of the rows, which have none"


def drawn_in(stage: GRPO, step: int) -> list[Transition]:
    rows = stage.prompts(step)
    stage.step(step, 0.0)
    return rows


def test_a_step_without_any_variance_leaves_the_model_alone(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of()
    before = [p.clone() for p, _ in learner.trainable]
    flat = [row for row in ROWS if row.kind == "flat"]
    metrics, _ = grpo(learner, replace(BASIC, prompts=2), flat).step(0, 0.0)
    assert metrics["zero_variance"] == 1
    assert all(torch.equal(p, old) for (p, _), old in zip(learner.trainable, before, strict=True))


def test_prompts_come_from_the_epoch_they_belong_to(learner_of: Callable[..., Learner]) -> None:
    epochs = [[replace(row, world=f"epoch {epoch}") for row in LIVE] for epoch in range(3)]
    stage = GRPO(learner_of(), BASIC, Parity(), lambda epoch: epochs[epoch], 7)
    seen = [row for step in range(4) for row in stage.prompts(step)][: 2 * len(LIVE)]
    for epoch in range(2):
        part = seen[epoch * len(LIVE) : (epoch + 1) * len(LIVE)]
        assert sorted(row.id for row in part) == sorted(row.id for row in LIVE)
        assert {row.world for row in part} == {f"epoch {epoch}"}


def test_a_scorer_that_fails_names_the_row(learner_of: Callable[..., Learner]) -> None:
    for broken, kind in ((lambda *_: 1 / 0, RuntimeError), (lambda *_: Score(float("nan")), NonFinite)):
        stage = grpo(learner_of(), BASIC)
        stage.domain.score = broken  # type: ignore[method-assign]
        with pytest.raises(kind, match=r"row r\d"):
            stage.step(0, 0.0)


def test_following_an_action_earns_the_share_of_others_that_are_below() -> None:
    group = [Score(0.5, {"exact": 0.0}), Score(0.3), Score(-1.0, malformed="odd")]
    made = followed(group, [0.5, 0.4, 0.2, -1.0], weight=2.0)  # as good as another's is no better than it
    assert [score.value for score in made] == pytest.approx([0.5 + 2 * 0.75, 0.3 + 2 * 0.5, -1.0])
    assert [score.parts["action_margin"] for score in made] == [0.75, 0.5, 0.0]
    assert (made[0].parts["exact"], made[2].malformed) == (0.0, "odd")


def test_the_action_margin_compares_with_what_is_written_under_other_actions(
    learner_of: Callable[..., Learner],
) -> None:
    class Followed(Parity):
        action_margin = 0.5

        def swap_action(self, row: Transition, other: Transition) -> Transition:
            return replace(row, action=other.action)

    learner = learner_of(optimizer=STEADY)
    plain, stage = grpo(learner, BASIC), GRPO(learner, BASIC, Followed(), lambda epoch: LIVE, 0)
    rows, batch = stage.prompts(0), BASIC.prompts
    under = [
        (i, k, replace(rows[i], action=rows[(i + k) % batch].action)) for i in range(batch) for k in range(1, batch)
    ]
    assert batch - 1 < OTHERS
    scripts, streams = [stage.domain.encode(row) for *_, row in under], [(0, 0, i, k) for i, k, _ in under]
    others = [r for [r] in sample(learner.policy, scripts, 1, Sampling(BASIC.temperature), streams)]
    values = [
        Parity().score(Parity().decode(r.written, row), row).value for r, (*_, row) in zip(others, under, strict=True)
    ]
    _, _, before, _ = plain._sampled(0)
    _, _, after, told = stage._sampled(0)
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        worse = values[i * (batch - 1) : (i + 1) * (batch - 1)]
        for one, other in zip(old, new, strict=True):
            assert other.value == pytest.approx(one.value + 0.5 * sum(one.value > v for v in worse) / len(worse))
    assert told["others"] == sum(len(r.script.prompt) + len(r.ids) for r in others)
    assert len({score.parts["action_margin"] for group in after for score in group}) > 1


def test_rows_are_led_by_what_the_policy_itself_writes(learner_of: Callable[..., Learner]) -> None:
    """Each row is three; which one is rewarded differs, and it comes from what was written for those before."""

    class Led(Parity):
        closed_loop = 2

        def clips(self, row: Transition) -> list[Transition]:
            return [replace(row, id=f"{row.id}.{k}") for k in range(3)]

        def carried(self, row: Transition, written: Any, after: Transition) -> Transition:
            return replace(after, world=f"{row.world}>{row.id}:{[list(ids) for ids in written]}")

    learner = learner_of(optimizer=STEADY)
    stage = GRPO(learner, BASIC, Led(), lambda epoch: LIVE, 0)
    rows, groups, before = stage.rollouts(1)
    depths = [int(row.id[-1]) for row in rows]
    assert [row.id[:-2] for row in rows] == [row.id for row in stage.prompts(1)]
    assert len(set(depths)) > 1
    took = 0
    for i, (row, depth) in enumerate(zip(stage.prompts(1), depths, strict=True)):
        told = row.world
        for k in range(depth):
            [[rollout]] = sample(
                learner.policy, [stage.domain.encode(row)], 1, Sampling(BASIC.temperature), [(0, 1, i, k, 0)]
            )
            told += f">{row.id}.{k}:{[list(ids) for ids in rollout.written]}"
            took += len(rollout.script.prompt) + len(rollout.ids)
        assert rows[i].world == told
    assert before == took > 0
    again, same, _ = stage.rollouts(1)
    assert again == rows
    assert [[r.ids.tolist() for r in g] for g in same] == [[r.ids.tolist() for r in g] for g in groups]
