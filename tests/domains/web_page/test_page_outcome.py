"""How an episode stands: read from rows, asked for, written, scored apart, and what it makes of imagined pages."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product

import pytest

from rlvr_world.domains.replayed import Past
from rlvr_world.domains.web_page.config import WebPageConfig
from rlvr_world.domains.web_page.domain import WebPage
from rlvr_world.domains.web_page.outcome import brier_rewards, split_outcome
from rlvr_world.domains.web_page.prompt import build_answer, build_prompt, read_answer
from rlvr_world.domains.web_page.rows import PageState, read_rows
from rlvr_world.domains.web_page.scene import imagined_pages
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.recipes import find
from rlvr_world.scoring import judge
from rlvr_world.types import Malformed, Transition

GOAL = 'Enter "bob" and press Go.'
PAGE = "[1] RootWebArea 'Login'\n\t[2] textbox ''\n\t[3] button 'Go'\n\t[4] button 'Gone'"
STATE = PageState(PAGE, goal=GOAL)
ENDS = {"success": (1, True), "failure": (-1.0, True), "goes on": (0, False)}


@pytest.fixture(scope="module")
def tokenizer():
    texts = [build_prompt(STATE, "type [2] [bob] [0]", "outcome"), "none\n=> success\n=> failure\n=> goes on"]
    return train_text_tokenizer(texts, 400, "pages")


def rows(tmp_path, **fields) -> list[Transition]:
    one = {"observation": PAGE, "next_observation": PAGE.replace("'Go'", "'Go' focused: True"), "goal": GOAL}
    file = tmp_path / "rows.jsonl"
    records = [one | {"action": "click [3]", "reward": reward, "done": done} | fields for reward, done in ENDS.values()]
    file.write_text("\n".join(map(json.dumps, records)))
    return read_rows(file)


def test_rows_say_how_the_episode_stands(tmp_path):
    assert [row.next_state.outcome for row in rows(tmp_path)] == [*ENDS]
    assert {row.next_state.outcome for row in rows(tmp_path, done=None)} == {""}
    with pytest.raises(InputError, match=r"rows\.jsonl, row 1, field done: expected true or false, got 'yes'"):
        rows(tmp_path, done="yes")


def test_signs_stand_where_the_goal_names_or_quotes():
    asked = build_prompt(STATE, "click [3]", "outcome").splitlines()
    assert asked == [
        *(f"{GOAL!r}", "RootWebArea 'Login' #1", "textbox '' #2", "button 'Go' #@!", "button 'Gone' #4"),
        "click @ button 'Go' !",
    ]
    last = {"type [2] [bob] [0]": " !", "type [2] [Enter] [0]": "''", "click [4]": "'Gone'", "press [Tab]": "'Tab'"}
    for action, end in last.items():
        assert build_prompt(STATE, action, "outcome").endswith(f"{end}\n"), action
    shown = replace(STATE, text=f"{PAGE}\n\t[5] StaticText {GOAL!r}")
    assert build_prompt(shown, "click [3]", "outcome").startswith("RootWebArea"), "a page that shows its goal says it"
    assert "!" not in build_prompt(STATE, "click [3]", "compact")


def test_an_answer_ends_with_the_outcome(tmp_path):
    for row in rows(tmp_path):
        change, outcome = row.next_state.change, row.next_state.outcome
        answer = build_answer(change, row.state, row.action, "outcome", outcome)
        assert answer == f"~@ focused: True\n=> {outcome}"
        assert read_answer(answer, row.state, row.action, "outcome") == change
        assert split_outcome(answer) == ("~@ focused: True", outcome)
    for text in ("", "none", "none\n=> perhaps", "=> success", "none\n=> success\nnone"):
        assert read_answer(text, STATE, "click [3]", "outcome") == Malformed("no outcome"), text
    assert read_answer("never\n=> success", STATE, "click [3]", "outcome") == Malformed("a line that is no edit")


def test_the_outcome_is_scored_apart(tmp_path, tokenizer):
    success, failure, _ = rows(tmp_path)
    for weight in (0.0, 0.25):
        web = WebPage(WebPageConfig(style="outcome", outcome_weight=weight), tokenizer)
        said = web.decode([web.encode(success).tail[0].target[:-1]], success)
        right, wrong = (web.score(said, row) for row in (success, failure))
        assert (right.value, right.parts["f1"], right.parts["outcome"]) == (1, 1, 1)
        assert (wrong.value, wrong.parts["f1"], wrong.parts["outcome"]) == (1 - weight, 1, 0)
        broken = web.score(web.decode([tokenizer.encode("never\n=> success")], success), success)
        assert (broken.value, broken.parts["outcome"], broken.malformed) == (0, 0, "a line that is no edit")
    with pytest.raises(InputError, match="does not say how its episode stands; give rows with done and reward"):
        web.encode(rows(tmp_path, done=None)[0])
    with pytest.raises(InputError, match=r"data\.outcome_weight: expected 0 to 1, got 2"):
        WebPage(WebPageConfig(style="outcome", outcome_weight=2), tokenizer)
    with pytest.raises(InputError, match=r"data\.style=outcome: edits are no published labels"):
        WebPage(WebPageConfig(style="outcome", label="published"), tokenizer)


def expected(stated: dict[str, float], true: dict[str, float], size: int) -> tuple[float, dict[str, float]]:
    """Over all groups of ``size`` samples that state each outcome with a probability: what a group is worth on average,
    and for each outcome how much better than its group a sample does that states it, times its probability."""
    worth, pull = 0.0, dict.fromkeys(stated, 0.0)
    for group in product(stated, repeat=size):
        for truth, likely in true.items():
            rewards = brier_rewards(group, truth)
            chance, mean = likely * math.prod(stated[one] for one in group), sum(rewards) / size
            worth += chance * mean
            for one, reward in zip(group, rewards, strict=True):
                pull[one] += chance * (reward - mean) / size
    return worth, pull


@pytest.mark.parametrize("size", [3, 4, 6])
def test_a_group_is_worth_most_where_it_states_outcomes_as_often_as_they_come(size):
    true = {"success": 0.2, "failure": 0.5, "goes on": 0.3}
    best, pull = expected(true, true, size)
    assert best == pytest.approx(1 - (1 - sum(p * p for p in true.values())) / 2), "1 - Brier score / 2"
    assert [*pull.values()] == pytest.approx([0, 0, 0]), "no sample does better than its group by what it states"
    surer = {"success": 0.1, "failure": 0.8, "goes on": 0.1}
    for stated in (surer, dict.fromkeys(true, 1 / 3), {"success": 0.01, "failure": 0.98, "goes on": 0.01}):
        worth, pull = expected(stated, true, size)
        assert worth == pytest.approx(best - sum((stated[one] - true[one]) ** 2 for one in true) / 2)
        gradient = {one: stated[one] * (true[one] - stated[one]) for one in true}
        mean = sum(gradient.values())
        wanted = [(1 - 1 / size) * (gradient[one] - stated[one] * mean) for one in true]
        assert [*pull.values()] == pytest.approx(wanted), "the way that the score itself goes up, for a softmax"


def test_who_states_no_outcome_earns_nothing():
    assert brier_rewards(["success"] * 4, "success") == [1] * 4
    assert brier_rewards(["failure"] * 4, "success") == [0] * 4
    assert brier_rewards(["success", "", "failure", "success", "success"], "success") == [1, 0, 1, 1, 1]
    assert brier_rewards(["success", "failure", "", ""], "success") == [1, 0, 0, 0], "two are too few for shares"
    right, wrong = brier_rewards(["success", "failure"] * 4, "success")[:2]
    assert right - wrong == pytest.approx(1)
    assert brier_rewards(["failure"] * 7 + ["success"], "success") == [0] * 7 + [2]


def test_groups_are_rewarded_by_the_brier_score(tmp_path, tokenizer):
    row = rows(tmp_path)[0]
    config = WebPageConfig(style="outcome", outcome_weight=0.25, outcome_reward="brier")
    recipe = find("miniwob-goals")
    web = recipe.domain(replace(recipe.config(), data=config), None, tokenizer, None)
    said = ["~@ focused: True\n=> success"] * 2 + ["none\n=> failure", "~@ focused: True\n=> goes on", "never"]
    predictions, alone = zip(*next(judge(web, [[[tokenizer.encode(text)] for text in said]], [row])), strict=True)
    group = web.among(predictions, alone, row)
    earned = brier_rewards(["success", "success", "failure", "goes on", ""], "success")
    f1, right = [1, 1, 0, 1, 0], [1, 1, 0, 0, 0]
    for scores, stated in ((alone, right), (group, earned)):
        wanted = [0.75 * f + 0.25 * e for f, e in zip(f1, stated, strict=True)]
        assert [score.value for score in scores] == pytest.approx(wanted)
    assert [score.parts["outcome"] for score in group] == right
    with pytest.raises(InputError, match="outcome_reward=brier: expected data"):
        WebPage(replace(config, outcome_weight=0), tokenizer)


def test_an_imagined_episode_ends_as_the_model_says(tmp_path, tokenizer):
    scene = imagined_pages(WebPage(WebPageConfig(style="outcome"), tokenizer), lambda seed, options: rows(tmp_path)[0])
    state, _ = scene.start(0, {})
    for outcome, (reward, ended) in ENDS.items():
        [came] = scene.follow([(state, "click [3]")], [[tokenizer.encode(f"~@ focused: True\n=> {outcome}")]])
        assert (came.reward, came.terminated, came.info["changed"]) == (max(0, reward), ended, True)
        assert (came.state.outcome, came.state.goal, came.state.done) == (outcome, GOAL, ("click [3]",))
    past = Past(("login", 7), ("click [4]",), {"observation": PAGE, "url": "", "goal": GOAL, "previous": "click [4]"})
    assert scene.start(0, {"state": past})[0].done == ("click [4]",), "what was done is known in imagination"
