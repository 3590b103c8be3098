"""Actions are read strictly, and written as they are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.actions import Action, parse_action, target_of
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
