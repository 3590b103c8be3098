"""The page after a change: with the true change of a row it has the next page's lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.change import Change, write_change
from rlvr_world.domains.web_page.config import WebPageConfig
from rlvr_world.domains.web_page.diff import apply_change, match_nodes, page_change
from rlvr_world.domains.web_page.domain import Prediction, WebPage
from rlvr_world.domains.web_page.edits import read_edits
from rlvr_world.domains.web_page.prompt import build_answer, read_answer
from rlvr_world.domains.web_page.rows import PageResult, PageState, read_question, read_rows
from rlvr_world.domains.web_page.tree import Node, Page, parse_page, write_page
from rlvr_world.errors import InputError
from rlvr_world.models.text_tokenizer import train_text_tokenizer
from rlvr_world.types import Malformed, Transition


def texts(page: Page) -> list[str]:
    return [node.text for node in page.nodes]


def domain(**settings) -> WebPage:
    return WebPage(
        WebPageConfig(**settings), train_text_tokenizer(["[1] RootWebArea 'A'\n\t[2] link 'B'"], 400, "pages")
    )


@pytest.mark.parametrize(("name", "rows", "changed", "floor"), [("real", 100, 90, 27), ("generated", 300, 216, 71)])
def test_every_real_row_advances_to_the_lines_of_its_next_page(shared, name, rows, changed, floor):
    """The lines in every row and the ids of what stays. Where new lines stand no change says: ``floor`` pages have the
    next one's order."""
    found = Counter[str]()
    for row in read_rows(shared / f"data/web/{name}.jsonl.gz"):
        before, after = row.state.page, parse_page(row.next_state.text)
        result = apply_change(before, row.next_state.change)
        assert Counter(texts(result)) == Counter(texts(after)), row.id
        assert len({node.id for node in result.nodes if node.id}) == sum(bool(node.id) for node in result.nodes), row.id
        for i, j in match_nodes(before.nodes, after.nodes).items():
            if before.nodes[i].id:
                assert result.by_id[before.nodes[i].id].text == after.nodes[j].text, row.id
        assert row.kind != "unchanged" or result == before
        found["rows"] += 1
        found["changed"] += row.kind != "unchanged"
        found["in order"] += row.kind != "unchanged" and texts(result) == texts(after)
    assert (found["rows"], found["changed"]) == (rows, changed)
    assert found["in order"] >= floor


@pytest.mark.parametrize("style", ["compact", "published"])
def test_every_real_answer_advances_as_its_change_does(shared, style):
    """Compact answers have no ids, and yet new nodes get one where nodes of their role have one."""
    web = domain(style=style)
    for name in ("real", "generated"):
        for row in read_rows(shared / f"data/web/{name}.jsonl.gz"):
            answer = build_answer(row.next_state.change, row.state, row.action, style)
            prediction = Prediction(answer, read_answer(answer, row.state, row.action, style))
            after = web.advance(row.state, row.action, prediction)
            assert isinstance(after, PageState), row.id
            assert after.previous == row.action
            stripped = (Counter(map(str.strip, texts(p))) for p in (after.page, parse_page(row.next_state.text)))
            assert next(stripped) == next(stripped), row.id  # blanks at a line's end do not count in answers
            if all(node.id for node in row.state.page.nodes):
                assert all(node.id for node in after.page.nodes), row.id


def after(page: str, change: Change) -> str:
    return write_page(apply_change(parse_page(page), change))


def test_where_new_lines_stand():
    page = "[1] RootWebArea 'A'\n\t[2] textbox ''\n\t[3] link 'x'\n\t[14] link 'y'"
    new = Change(new=("[90] button 'n'", "StaticText 't'"))
    assert after(page, new) == f"{page}\n\t[15] button 'n'\n\t[16] StaticText 't'"
    gone = replace(new, deleted=("[3] link 'x'",))
    assert after(page, gone) == page.replace("[3] link 'x'", "[15] button 'n'\n\t[16] StaticText 't'")
    updated = replace(gone, updated=("[14] link 'z'",))
    assert after(page, updated).endswith("textbox ''\n\t[14] link 'z'\n\t[15] button 'n'\n\t[16] StaticText 't'")
    typed = Change(new=("[9] StaticText 'hi'",), updated=("[2] textbox '' focused: True",))
    assert after(page, typed) == page.replace("textbox ''", "textbox '' focused: True\n\t\t[15] StaticText 'hi'")
    assert after("[1] main", Change(new=("link 'a'",), deleted=("[1] main",))) == "[2] link 'a'"


def test_roles_that_have_no_ids_get_none():
    page = "[a1] RootWebArea 'A'\n\t[a7] button 'x'\n\t\tStaticText 'x'"
    assert (
        after(page, Change(new=("StaticText 'y'", "button 'y'"))) == f"{page}\n\t\tStaticText 'y'\n\t\t[8] button 'y'"
    )


def test_equal_lines_go_one_by_one():
    page = "[1] list ''\n\tStaticText 'x'\n\tStaticText 'x'\n\tStaticText 'x'"
    assert after(page, Change(deleted=("StaticText 'x'",) * 2)) == "[1] list ''\n\tStaticText 'x'"


@st.composite
def pages(draw: st.DrawFn) -> Page:
    lines = st.sampled_from(["link 'a'", "link 'b'", "button 'a'", "textbox ''", "StaticText 'x'", "StaticText 'y'"])
    ids = draw(st.lists(st.sampled_from(["", *map(str, range(1, 30)), "a4", "b5"]), max_size=10))
    taken: set[str] = set()
    nodes = []
    for name in ids:
        nodes.append(Node("" if name in taken else name, draw(lines), draw(st.integers(0, 3))))
        taken.add(name)
    return Page(draw(st.sampled_from(["", "Tab 0 (current): A"])), tuple(nodes))


@given(pages(), pages())
def test_any_change_leads_to_the_next_lines(old, new):
    change = page_change(old, new)
    result = apply_change(old, change)
    assert Counter(texts(result)) == Counter(texts(new))
    kept = {node.id for node in old.nodes if node.id and node.line not in change.deleted}
    assert kept <= result.by_id.keys()
    assert len(result.by_id) == sum(bool(node.id) for node in result.nodes)
    assert parse_page(write_page(result)) == result


WEB = domain()
STATE = PageState("[1] RootWebArea 'A'\n\t[2] button 'b'\n\tStaticText 'c'", "http://a/", "goal", "", "task/1")


@given(
    st.text(alphabet="~=-+@*0123456789 \n'abn[]\t")
    | st.lists(st.sampled_from(["=2 ", "+[5]", "+!", "~1\t", "-1:3"])).map("\n".join)
)
def test_whatever_a_model_writes_leads_to_a_page_or_nowhere(text):
    """A page that does not read would look like a fault of the user's on the next step."""
    result = WEB.advance(STATE, "click [2]", Prediction(text, read_edits(text, STATE.page, 1, "a\nb")))
    assert isinstance(result, Malformed) or WEB.encode(Transition("next", result, "click [2]", None)).prompt


def test_no_page_comes_of_lines_that_are_no_nodes():
    for change in (
        Change(updated=("[2] ",)),
        Change(new=("link 'a\nb'",)),
        Change(new=("StaticText 'a\n[3] link 'b'",)),
    ):
        assert WEB.advance(STATE, "click [2]", Prediction("", change)) == Malformed("a line that is no node")
    assert WEB.advance(STATE, "click [2]", Prediction("", Malformed("why"))) == Malformed("why")
    result = WEB.advance(STATE, "click [2]", Prediction("", Change(updated=("[2] button 'c'",))))
    assert result == replace(STATE, text=STATE.text.replace("'b'", "'c'"), previous="click [2]")


@pytest.mark.parametrize("style", ["compact", "published"])
def test_a_question_has_the_prompt_of_its_row(style):
    web = domain(style=style)
    change = Change(updated=("[2] button 'b' focused: True",))
    row = Transition("row", STATE, "click [2]", PageResult(change), "changed", "task")
    known, asked = web.encode(row), web.encode(replace(row, next_state=None))
    assert known.tail[0].target == (
        *web.tokenizer.encode(build_answer(change, STATE, "click [2]", style)),
        *known.tail[0].stop,
    )
    assert (asked.prompt, asked.tail) == (known.prompt, (replace(known.tail[0], target=None),))
    assert write_change(change)


def test_a_page_is_asked_about():
    assert read_question({"state": STATE, "action": "click [2]"}).state is STATE
    question = read_question({"state": STATE.text, "action": "click [2]", "id": "q1"})
    assert question == Transition("q1", PageState(STATE.text), "click [2]", None)
    fields = {"observation": STATE.text, "url": "http://a/", "goal": "goal"}
    assert read_question({"state": fields, "action": "go_back"}).state == replace(STATE, episode="")


@given(pages())
def test_any_page_is_written_and_read_back(page):
    if page.nodes:
        assert read_question({"state": write_page(page), "action": ""}).state.page == page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "question: expected an object with the keys state and action, got 7"),
        ({"action": "click [2]"}, "question, field state: expected the text of a page or an object, got None"),
        ({"state": [1], "action": ""}, "question, field state: expected the text of a page or an object, got [1]"),
        (
            {"state": {"url": "a"}, "action": ""},
            "question, field state.observation: expected a string, got no such key",
        ),
        ({"state": {"observation": 3}, "action": ""}, "question, field state.observation: expected a string, got 3"),
        ({"state": "", "action": ""}, "question, field state: expected an accessibility tree, got ''"),
        ({"state": "[1] main\n<p>", "action": ""}, "question, field state: line 2: expected a node such as"),
        ({"state": "[1] main"}, "question, field action: expected a string, got no such key"),
        ({"state": "[1] main", "action": 3}, "question, field action: expected a string, got 3"),
    ],
)
def test_what_is_no_question(given, message):
    with pytest.raises(InputError) as caught:
        read_question(given)
    assert message in str(caught.value)
