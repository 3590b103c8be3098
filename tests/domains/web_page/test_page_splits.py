"""Rows kept apart by seed and by task."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_world.domains.splits import WorldSplitRule
from rlvr_world.domains.web_page.change import Change
from rlvr_world.domains.web_page.rows import PageResult, PageState
from rlvr_world.errors import InputError
from rlvr_world.recipes.web_page import family, question, split_rows
from rlvr_world.types import Transition


def rows(tasks=10, seeds=20, same=False):
    return [
        Transition(
            f"{task}/{seed}/{step}",
            PageState(f"[{seed + 1}] button 'of {task} {0 if same else seed} {step}'", episode=f"{task}/{seed}"),
            f"click [{seed + 1}]",
            PageResult(Change(new=("[9] link 'x'",) if step else ())),
            kind="changed" if step else "unchanged",
            world=str(task),
        )
        for task in range(tasks)
        for seed in range(seeds)
        for step in range(2)
    ]


@settings(max_examples=10)
@given(st.integers(0, 99))
def test_nothing_is_on_two_sides(seed):
    train, valid, test = split_rows(rows(), WorldSplitRule(0.2, 0.1, seed, worlds=0.2))
    episodes = [{row.state.episode for row in part} for part in (train, valid, test)]
    assert len(episodes[0] | episodes[1] | episodes[2]) == sum(map(len, episodes))
    assert len(train) + len(valid) + len(test) == 400
    kinds = Counter(row.kind for row in test)
    assert kinds == {"changed, held-out tasks": 40, "unchanged, held-out tasks": 40,
                     "changed, held-out seeds": 32, "unchanged, held-out seeds": 32}  # fmt: skip
    unseen = {row.world for row in test if "tasks" in row.kind}
    assert not unseen & {row.world for row in (*train, *valid)}
    assert {row.world for row in test if "seeds" in row.kind} <= {row.world for row in train}


def test_variants_of_a_task_go_together():
    tasks = ["click-tab", "click-tab-2", "click-tab-2-hard", "email-inbox", "email-inbox-nl", "login", "site.org"]
    assert len({family(task) for task in tasks}) == 4
    some = [replace(row, world=tasks[int(row.world)]) for row in rows(7, 6)]
    for seed in range(5):
        train, _, test = split_rows(some, WorldSplitRule(0.0, 0.0, seed, worlds=0.4))
        assert not {family(row.world) for row in train} & {family(row.world) for row in test}


def test_questions_that_are_trained_on_are_no_test():
    train, valid, test = split_rows(rows(same=True), WorldSplitRule(0.2, 0.1, 0, worlds=0.2))
    assert not valid
    assert {row.kind.split(", ")[1] for row in test} == {"held-out tasks"}
    assert not {question(row) for row in train} & {question(row) for row in test}


def test_rows_without_tasks_or_seeds():
    bare = [Transition(str(i), PageState(f"[1] link '{i}'"), "click [1]", PageResult(Change())) for i in range(20)]
    train, valid, test = split_rows(bare, WorldSplitRule(0.2, 0.1, 0, worlds=0.0))
    assert (len(train), len(valid), len(test)) == (14, 2, 4)
    with pytest.raises(InputError, match="less than 1"):
        split_rows(bare, WorldSplitRule(0.9, 0.2, 0, worlds=0.5))


def test_rows_without_seeds_are_not_held_out_seeds():
    """Steps of one trajectory that bears no seed go together, and are named for what they are."""
    some = [replace(row, state=replace(row.state, episode="")) for row in rows(10, 5)]
    train, valid, test = split_rows(some, WorldSplitRule(0.2, 0.1, 0))
    assert {row.kind.split(", ")[1] for row in test} == {"held-out tasks"}
    worlds = [{row.world for row in part} for part in (train, valid, test)]
    assert len(worlds[0] | worlds[1] | worlds[2]) == sum(map(len, worlds)) == 10
    alone = [replace(row, world="") for row in some]
    assert {row.kind.split(", ")[1] for row in split_rows(alone, WorldSplitRule(0.2, 0.1, 0))[2]} == {"held-out rows"}
