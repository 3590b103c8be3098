"""The domain as training and evaluation use it."""

import math

import pytest

from rlvr_world.domains.web_page.change import Change, f_beta, write_change
from rlvr_world.domains.web_page.config import WebPageConfig
from rlvr_world.domains.web_page.diff import page_change
from rlvr_world.domains.web_page.domain import Prediction, WebPage
from rlvr_world.domains.web_page.prompt import build_answer, build_prompt
from rlvr_world.domains.web_page.rows import PageResult, PageState, read_rows
from rlvr_world.domains.web_page.tree import parse_page
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.types import Domain, Malformed, Transition

BEFORE = "[1] RootWebArea 'A'\n" + "\n".join(f"\t[{i}] link 'number {i}'" for i in range(2, 60))
AFTER = BEFORE.replace("number 40'", "number 40' focused: True") + "\n\t[60] StaticText 'there'"


def transition(after=AFTER, kind="changed"):
    change = page_change(parse_page(BEFORE), parse_page(after))
    return Transition("t:1", PageState(BEFORE), "click [40]", PageResult(change, after), kind, "task")


def domain(**settings):
    tokenizer = train_text_tokenizer([BEFORE, AFTER, write_change(transition().next_state.change)], 600, "pages")
    return WebPage(WebPageConfig(**settings), tokenizer)


@pytest.mark.parametrize("style", ["compact", "published"])
def test_gold_answers_score_the_most(style):
    web = domain(style=style)
    for row in (transition(), transition(BEFORE, "unchanged")):
        _, write = web.encode(row).segments
        assert write.target is not None
        prediction = web.decode([write.target[:-1]], row)
        assert web.score(prediction, row).parts == {"f1": 1, "precision": 1, "recall": 1, "exact": 1}


def test_a_domain_with_baselines():
    web, row = domain(), transition()
    assert isinstance(web, WebPage)
    known: Domain = web
    scores = {name: known.score(p, row).value for name, p in known.baselines(row).items()}
    assert scores == {"no change": 0.0, "copy page": 0.0}
    assert web.score(web.baselines(row)["no change"], transition(BEFORE, "unchanged")).value == 1


def test_copying_the_page_pays_under_published_labels(shared):
    rows = read_rows(shared / "golden/given/web_diff_published.jsonl", "published")
    web = domain(style="published", label="published", scoring="published", navigation_cap=0)
    copied = [web.score(web.baselines(row)["copy page"], row).value for row in rows]
    assert max(copied) > 0.8


def test_long_pages_keep_the_acted_line():
    web, row = domain(max_prompt=120), transition()
    prompt = web.tokenizer.decode(web.encode(row).prompt)
    assert len(web.encode(row).prompt) <= 120
    assert "link 'number 39' #39\nlink 'number 40' #@\nlink 'number 41' #41" in prompt
    assert "RootWebArea 'A' #1\n...\n" in prompt
    assert prompt.endswith("click @ link 'number 40'\n<|answer|>")
    with pytest.raises(InputError, match=r"row t:1.*data\.max_prompt"):
        domain(max_prompt=8).encode(row)


def test_navigations_are_capped():
    new = "[1] RootWebArea 'B'\n" + "\n".join(f"\t[{i}] heading 'of {i}'" for i in range(100, 140))
    web, row = domain(navigation_cap=10), transition(new, "navigation, held-out tasks")
    true = web.true_change(row)
    assert (len(true.new), len(true.deleted)) == (10, 10)
    whole = Prediction("", row.next_state.change)
    assert web.score(whole, row).parts["exact"] == 1  # what lies beyond the cap does not count against either
    assert web.score(Prediction("", true), row).parts["exact"] == 1
    assert web.score(whole, transition(new, "changed")).parts["exact"] == 1
    assert web.score(Prediction("", true), transition(new, "changed")).value < 0.5


def test_styles_that_do_not_fit():
    for settings in ({"label": "published"}, {"scoring": "published"}):
        with pytest.raises(InputError, match=r"data\.style=published"):
            domain(**settings)


@pytest.mark.parametrize("scoring", ["strict", "published"])
def test_the_reward_can_weigh_recall(scoring):
    row = transition()
    said = Change(updated=(*row.next_state.change.updated, "[41] link 'x'", "[42] link 'x'"))
    prediction = Prediction(write_change(said), said)
    plain, weighed = (domain(style="published", scoring=scoring, reward_beta=b).score(prediction, row) for b in (1, 2))
    assert plain.parts == weighed.parts
    precision, recall = plain.parts["precision"], plain.parts["recall"]
    assert precision < recall
    assert weighed.value == f_beta(precision, recall, 2) > plain.value == plain.parts["f1"]


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_betas_that_make_no_sense(beta):
    with pytest.raises(InputError, match=r"data\.reward_beta: expected a number above 0"):
        domain(reward_beta=beta)


def test_explanation():
    row = transition()
    true = row.next_state.change
    said = Change(updated=("[40] link 'number 40' focused: True", "[41] link 'x'"))
    text = domain().explain(Prediction("", said), row)
    lines = text.splitlines()
    assert "  action: click [40]" in lines
    assert "  updated [40] link 'number 40' focused: True" in lines
    assert "- new StaticText 'there'" in lines
    assert "+ updated [41] link 'x'" in lines
    assert any(line.split() == ["*", "[40]", "link", "'number", "40'", "focused:", "True"] for line in lines)
    assert build_answer(true, row.state, row.action, "compact") == "~@ focused: True\n+StaticText 'there'"
    assert "malformed: why" in domain().explain(Prediction("x", Malformed("why")), row)
    assert "nothing changes" in domain().explain(Prediction("", Change()), transition(BEFORE, "unchanged"))


def test_every_real_row(shared):
    web = domain(style="published", max_prompt=3000)
    for row in read_rows(shared / "data/web/real.jsonl.gz")[::5]:
        script = web.encode(row)
        assert len(script.prompt) <= 3000
        target = script.tail[0].target[:-1]
        assert web.score(web.decode([target], row), row).value == 1
        assert build_prompt(row.state, row.action, "compact")
