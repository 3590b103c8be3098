"""Prompts and answers in both styles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.change import Change, items
from rlvr_world.domains.web_page.diff import page_change
from rlvr_world.domains.web_page.edits import read_edits, write_edits
from rlvr_world.domains.web_page.prompt import build_answer, build_prompt, nearest, read_answer
from rlvr_world.domains.web_page.rows import PageState, read_rows
from rlvr_world.domains.web_page.tree import parse_page
from rlvr_world.errors import InputError
from rlvr_world.types import Malformed

TEXT = "[70] RootWebArea 'Shop'\n\t[71] textbox '' required: False\n\t[72] StaticText 'y'\n\t[99] button 'Go'"
PAGE = parse_page(TEXT)


def test_compact_prompt():
    prompt = build_prompt(PageState(TEXT), "type [71] [it's red] [0] where [71] is textbox ''", "compact")
    assert prompt == (
        "RootWebArea 'Shop' #1\ntextbox '' required: False #@\nStaticText 'y' #3\nbutton 'Go' #4\n"
        "type \"it's red\" @ textbox '' required: False\n"
    )
    last = {
        "type [99] []": "type '' 1 @ button 'Go'",
        "fill('71', 'red')": "fill('71', 'red') @ textbox '' required: False",
        "click [99]": "click @ button 'Go'",
        "click [98]": "click",
        "scroll [up]": "scroll 'up'",
        "go_back": "go_back",
    }
    assert {a: build_prompt(PageState(TEXT), a, "compact").splitlines()[-1] for a in last} == last


@pytest.mark.parametrize("style", ["compact", "published"])
def test_the_open_tabs_stand_in_the_prompt(style):
    tabs = "Tab 0 (current): Shop | Tab 1: Help"
    for kept in (None, {3}):
        assert f"{tabs}\n" in build_prompt(PageState(f"{tabs}\n\n{TEXT}"), "tab_focus [1]", style, kept)


def test_what_has_the_focus_is_marked():
    text = TEXT.replace("'Shop'", "'Shop' focused: True").replace("required: False", "focused: True required: False")
    state, go = PageState(text), "click [99]"
    page = state.page
    assert build_prompt(state, go, "compact").splitlines()[:2] == [
        "RootWebArea 'Shop' focused: True #1",
        "textbox '' focused: True required: False #*",
    ]
    assert "#*" not in build_prompt(state, "click [71]", "compact")  # it is acted on
    assert "#*" not in build_prompt(PageState(TEXT), go, "compact")
    assert "#*" not in build_prompt(PageState(TEXT.replace("'Shop'", "'Shop' focused: True")), go, "compact")
    moved = Change(
        updated=("[70] RootWebArea 'Shop'", "[71] textbox '' required: False", "[99] button 'Go' focused: True")
    )
    answer = build_answer(moved, state, go, "compact")
    assert answer == "~@ focused: True\n~* required: False\n~1"
    assert items(read_answer(answer, state, go, "compact")) == items(moved)
    assert read_edits("-*", page, acted=3).deleted == (page.nodes[1].line,)
    assert read_edits("-2\n~2", page, acted=3) == read_edits("-*\n~*", page, acted=3)
    assert isinstance(read_edits("~*", page, acted=1), Malformed)


def test_typed_text_has_a_sign_in_answers():
    state, action = PageState(TEXT), "type [71] [it's red] [0]"
    change = Change(
        new=('[9] StaticText "it\'s red"', "[8] StaticText \"it's red, it's red\""),
        updated=('[72] StaticText "yit\'s red!" focused: True', "[99] button 'Go' valuetext: it's red"),
    )
    answer = build_answer(change, state, action, "compact")
    assert answer.splitlines() == [
        '=3 StaticText "y¶!" focused: True',
        "~4 valuetext: it's red",  # properties, and names that have it twice, stay as they are
        '+StaticText "¶"',
        "+StaticText \"it's red, it's red\"",
    ]
    assert items(read_answer(answer, state, action, "compact")) == items(change)
    named = Change(updated=("[99] button 'Go' focused: True",))
    assert build_answer(named, state, "type [71] [Go] [0]", "compact") == "~4 focused: True"
    for page, act in ((TEXT.replace("Shop", "¶"), action), (TEXT, "type [71] [¶] [0]"), (TEXT, "click [71]")):
        assert read_answer("+link '¶'", PageState(page), act, "compact") == Change(new=("link '¶'",))
    assert read_answer("+link '¶'", state, "type [71] [a\nb] [0]", "compact") == Change(new=("link 'a\nb'",))


def test_published_prompt_holds_everything():
    state = PageState(TEXT, "http://a/", "Buy shoes", "hover [71]")
    prompt = build_prompt(state, "click [99]", "published")
    end = prompt[prompt.index("URL: ") :]
    assert end == (
        f"URL: http://a/\nOBJECTIVE: Buy shoes\nPREVIOUS ACTION: hover [71]\nCURRENT OBSERVATION:\n{TEXT}\n\n"
        "CURRENT ACTION: click [99] where [99] is button 'Go'\n"
    )


def test_paragraphs_are_cut_in_compact_prompts_alone():
    state = PageState(f"[1] RootWebArea 'A'\n[2] StaticText '{'word ' * 100}'")
    assert len(build_prompt(state, "click [2]", "compact")) < 500
    assert state.page.nodes[1].text in build_prompt(state, "click [2]", "published")


def test_lines_left_out():
    prompt = build_prompt(PageState(TEXT), "click [99]", "compact", kept={0, 3})
    assert prompt.splitlines() == ["RootWebArea 'Shop' #1", "...", "button 'Go' #@", "click @ button 'Go'"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 19), st.integers(0, 60))
def test_nearest_keeps_the_acted_line_and_the_room(sizes, centre, room):
    centre %= len(sizes)
    kept = nearest(sizes, centre, room)
    assert centre in kept
    assert kept == {centre} or sum(sizes[i] for i in kept) <= room
    assert len(kept) == len(sizes) or room < sum(sizes)


def test_edits():
    change = Change(
        new=("[120] StaticText 'Done'",),
        deleted=("[72] StaticText 'y'",),
        updated=("[71] textbox '' focused: True", "[99] button 'Gone' disabled: True"),
    )
    written = write_edits(change, PAGE)
    assert written == "~2 focused: True\n=4 button 'Gone' disabled: True\n-3\n+StaticText 'Done'"
    assert items(read_edits(written, PAGE)) == items(change)
    assert write_edits(Change(deleted=tuple(n.line for n in PAGE.nodes[1:])), PAGE) == "-2:4"
    assert read_edits("-2:4\n-1", PAGE).deleted == tuple(n.line for n in (*PAGE.nodes[1:], PAGE.nodes[0]))
    assert write_edits(change, PAGE, acted=3).splitlines()[0] == "=@ button 'Gone' disabled: True"
    assert items(read_edits(write_edits(change, PAGE, acted=3), PAGE, acted=3)) == items(change)
    assert read_edits("-@", PAGE, acted=2).deleted == ("[72] StaticText 'y'",)
    assert write_edits(Change(), PAGE) == "none"
    assert read_edits("none", PAGE) == Change()


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "~9 x: 1", "-0", "-3:2", "-3:9", "-@", "~@ x: 1", "~*", "none\n-1", "~", "-99999999999999999999"],
)
def test_malformed_edits(text):
    assert isinstance(read_edits(text, PAGE), Malformed)


@given(st.text(alphabet="~=-+@*0123456789 \n'abn"))
def test_edits_never_raise(text):
    assert isinstance(read_edits(text, PAGE), Change | Malformed)


@pytest.mark.parametrize("change", [Change(updated=("[5] link 'x'",)), Change(deleted=("[99] button 'x'",))])
def test_edits_of_what_is_not_there(change):
    with pytest.raises(InputError, match=r"data\.label=aligned"):
        write_edits(change, PAGE)


def test_edits_of_every_real_change(shared):
    for name in ("real", "generated"):
        for row in read_rows(shared / f"data/web/{name}.jsonl.gz"):
            page, change = row.state.page, row.next_state.change
            assert change == page_change(page, parse_page(row.next_state.text))
            answer = build_answer(change, row.state, row.action, "compact")
            read = read_answer(answer, row.state, row.action, "compact")
            assert isinstance(read, Change)
            assert items(read) == items(change), row.id
