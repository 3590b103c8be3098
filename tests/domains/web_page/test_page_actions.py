"""Actions are read strictly, and written as they are read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.actions import Action, parse_action, target_of
from rlvr_world.domains.web_page.prompt import build_prompt
from rlvr_world.domains.web_page.rows import read_rows
from rlvr_world.errors import InputError

ids = st.from_regex(r"[a-z]?[0-9]{1,6}", fullmatch=True)
actions = st.one_of(
    st.builds(Action, st.sampled_from(["click", "hover"]), ids),
    st.builds(Action, st.just("type"), ids, st.text(), st.booleans()),
    st.builds(Action, st.just("press"), text=st.sampled_from(["Enter", "Control+v"])),
    st.builds(Action, st.just("scroll"), text=st.sampled_from(["up", "down"])),
    st.builds(Action, st.just("stop"), text=st.text()),
    st.sampled_from([Action(verb) for verb in ("new_tab", "close_tab", "go_back", "go_forward")]),
    st.builds(Action, st.just("goto"), text=st.just("http://a/b?c=[1]")),
    st.builds(Action, st.just("tab_focus"), text=st.integers(0, 20).map(str)),
)


@given(actions)
def test_written_and_read_back(action):
    assert parse_action(str(action)) == action


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("type [5] [bus stop] [1] [0]", Action("type", "5", "bus stop] [1", False)),
        ("type [5] [a]", Action("type", "5", "a", True)),
        ("type [5] [a] where [5] is textbox ''", Action("type", "5", "a", True)),
        ("click [5] where [5] is link 'x [y]'", Action("click", "5")),
        ("stop", Action("stop")),
        ("page_focus [1]", Action("tab_focus", text="1")),
        ("clear [5]", Action("clear", "5")),
    ],
)
def test_recorded_forms(text, action):
    assert parse_action(text) == action


@pytest.mark.parametrize(
    "text",
    ["", "None", "Click [5]", "click 5", "click [5] now", "click [5] where [6] is link", "scroll [left]", "new_tab [1]",
     "type [5]", "tab_focus [x]", "goto []", "press []", "click [5]\nstop"],
)  # fmt: skip
def test_refused(text):
    with pytest.raises(InputError, match="expected"):
        parse_action(text)


def test_target():
    named = {"click [12] where": "12", "fill('a12', 'x')": "a12", 'click("741")': "741", "press('a2', 'Space')": "a2",
             "type [7] [8]": "7", "scroll [up]": "", "press [Enter]": "", "goto('http://a')": "", "stop [3]": "",
             "tab_focus [2]": "", "new_tab()": ""}  # fmt: skip
    assert {action: target_of(action) for action in named} == named


@pytest.mark.parametrize(
    ("action", "target"),
    [
        ("noop()", ""),
        ("noop(wait_ms=500)", ""),
        ("send_msg_to_user('click(\\'a3\\')')", ""),
        ("report_infeasible(reason='no such item')", ""),
        ("fill('a3', 'red \\'shoes\\'')", "a3"),
        ("fill(value=\"bid='b4'\", bid='a3')", "a3"),
        ("fill('a3', 'two\\nlines', enable_autocomplete_menu=True)", "a3"),
        ("check('a3')", "a3"),
        ("uncheck(bid='a3')", "a3"),
        ("select_option('a3', 'blue')", "a3"),
        ("select_option(bid='a3', options=['red', 'green'])", "a3"),
        ("click('a3', button='right', modifiers=['Shift'])", "a3"),
        ("click(bid='a3')", "a3"),
        ('click( bid = "a3" )', "a3"),
        ("dblclick(bid='a3', button='left')", "a3"),
        ("hover(bid='a3')", "a3"),
        ("press('a3', 'Control+v')", "a3"),
        ("press(key_comb='Enter', bid='a3')", "a3"),
        ("focus(bid='a3')", "a3"),
        ("clear('a3')", "a3"),
        ("drag_and_drop('a3', 'b4')", "a3"),
        ("drag_and_drop(to_bid='b4', from_bid='a3')", "a3"),
        ("upload_file('a3', '/tmp/x.png')", "a3"),
        ("upload_file(bid='a3', file=['x.png', 'y.png'])", "a3"),
        ("scroll(0, 200)", ""),
        ("scroll(delta_x=0, delta_y=-50.2)", ""),
        ("mouse_click(30, 40, button='left')", ""),
        ("mouse_drag_and_drop(from_x=10.7, from_y=325, to_x=235.6, to_y=24.54)", ""),
        ("keyboard_type('click')", ""),
        ("keyboard_press(key='a3')", ""),
        ("goto(url='http://a/')", ""),
        ("go_back()", ""),
        ("go_forward()", ""),
        ("new_tab()", ""),
        ("tab_close()", ""),
        ("tab_focus(index=2)", ""),
        ("click('a3')\nfill('b4', 'x')", "a3"),
        ("click(741)", "741"),
        ("click('a3'", ""),
        ("click(where)", ""),
    ],
)
def test_every_form_of_browsergyms_actions(action, target, tmp_path):
    """Of its documented set (browsergym.core.action.functions), positional and by keyword, is a row's action, and names
    its element."""
    assert target_of(action) == target
    page = "RootWebArea 'Desk', focused\n\t[a3] button 'Send'\n\t[b4] button 'Save'\n\t[741] link 'x'"
    row = {"observation": page, "next_observation": page, "action": action}
    if action.endswith(")"):
        (tmp_path / "rows.jsonl").write_text(json.dumps(row))
        asked = build_prompt(read_rows(tmp_path / "rows.jsonl")[0].state, action, "compact")
        assert ("#@" in asked) == (target in ("a3", "741"))
