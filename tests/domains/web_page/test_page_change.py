"""A change as text, and what is no change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.change import NO_CHANGE, Change, read_change, score_change, sound, write_change
from rlvr_world.types import Malformed

lines = st.builds(lambda i, name: f"[{i}] link {name!r}", st.integers(1, 999), st.text())
changes = st.builds(Change, *[st.lists(lines, max_size=4).map(tuple)] * 3)
WHOLE = "New items:\n[1] link 'a'\n\nDeleted items:\nNone\n\nUpdated items:\n[2] tab 'b'"


@given(changes, st.sampled_from(["", "<think>\nNew items: some\n</think>\n", "```\n", "New items:\nperhaps\n"]),
       st.sampled_from(["", "\n", "<|endoftext|>", "\n<｜end▁of▁sentence｜>", "</s>"]))  # fmt: skip
def test_written_and_read_back(change, before, after):
    fence = "\n```" if before.startswith("```") else ""
    before = before if change else ""
    assert read_change(before + write_change(change) + (fence if before else "") + after) == change


def whole(*updated):
    return write_change(Change(("[1] link 'a'",), (), tuple(updated)))


@pytest.mark.parametrize(
    "words", ["<think>", "a </think> b", "it's <think>hm</think>", 'say "<think>"', "don't </think> 'x' "]
)
@pytest.mark.parametrize("thought", ["", "<think>\nHm, 'tis.</think>", "Is it\n</think>\n\n"])
def test_words_of_a_page_are_no_thought(words, thought):
    change = Change((f"[1] link {words!r}",), (), (f"[2] tab {words!r} focused: True",))
    assert read_change(thought + "\n" + write_change(change)) == change
    cut = read_change(f"{thought}\n{write_change(change)}\n<think>{whole('[3] tab 1')}")
    assert cut == change  # a thought that does not end is still none


KINDS = {
    "a draft inside thinking": "<think>\n{draft}\n</think>\n{final}",
    "a second answer": "{draft}\n\nActually, correct is\n\n{final}",
    "a fenced draft, then a plain final": "```\n{draft}\n```\nNo:\n{final}",
    "a plain draft, then a fenced final": "{draft}\n\nSo:\n```\n{final}\n```\n",
    "a remark afterwards": "{draft}\n\n{final}\n\nDone",
    "an end mark as text": "{draft}\n\n{final}\n<|im_end|>",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_answer_counts(kind):
    """Draft right and final wrong, and the reverse; sections drafted then the sentence, and the reverse."""
    answers = [whole("[2] tab 'b'"), whole("[2] tab 'c'", "[3] menu 'd'"), NO_CHANGE]
    for draft in answers:
        for final in answers:
            if draft != final:
                assert write_change(read_change(KINDS[kind].format(draft=draft, final=final))) == final


@pytest.mark.parametrize(
    "text",
    [
        WHOLE.replace("None", "none"),
        WHOLE.replace("None", "None."),
        WHOLE.replace("New items:", "**New items:**").replace("Updated items:", "**Updated items**:"),
        WHOLE.replace("New items:", "## New items").replace("Deleted items:", "### Deleted items:"),
        WHOLE.replace("\n[", "\n- [").replace("\nNone", "\n- None"),
        WHOLE.replace("\n[", "\n* ["),
        WHOLE.replace("\n[", "\n1. ["),
    ],
)
def test_dress_does_not_matter(text):
    assert read_change(text) == Change(("[1] link 'a'",), (), ("[2] tab 'b'",))


def test_two_statements_about_one_node_are_no_change():
    assert isinstance(sound(Change(updated=("[2] tab 'b'", "[2] tab 'c'"))), Malformed)
    assert isinstance(sound(Change(deleted=("[2] tab 'a'",), updated=("[2] tab 'b'",))), Malformed)
    fine = Change(("StaticText 'x'", "StaticText 'x'"), ("StaticText 'y'",) * 2, ("[2] tab 'b'", "[3] tab 'b'"))
    assert sound(fine) == fine


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.data(), st.sampled_from([1.0, 1.4]))
def test_guessing_twice_never_pays_more_than_the_best_guess(weights, data, beta):
    """One node comes to one of k states, with these chances: every subset of them, stated at once."""
    outcomes = [Change(updated=(f"[2] tab '{i}'",)) for i in range(len(weights) - 1)] + [
        Change(deleted=("[2] tab 'a'",))
    ]
    stated = data.draw(st.lists(st.sampled_from(outcomes), min_size=2, unique=True))
    both = sound(Change(deleted=sum((o.deleted for o in stated), ()), updated=sum((o.updated for o in stated), ())))

    def expected(said):
        return sum(w * score_change(said, true, beta).value for w, true in zip(weights, outcomes, strict=True))

    assert expected(both) <= max(expected(outcome) for outcome in outcomes)


def test_no_change_sentence():
    assert write_change(Change()) == NO_CHANGE
    assert read_change("Nothing happens.\n" + NO_CHANGE.rstrip(".")) == Change()
    assert read_change(WHOLE.replace("[1] link 'a'", "None").replace("[2] tab 'b'", "None")) == Change()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no sections"),
        ("[1] link 'a'", "no sections"),
        (WHOLE.replace("Deleted items:\nNone\n", ""), "missing"),
        (WHOLE + "\nDeleted items:\nNone", "twice"),
        (WHOLE + "\nDone", "no item"),
        (WHOLE + "\nThese are the changes that I expect.", "no item"),
        (WHOLE + "\nNone", "None beside"),
        (WHOLE.replace("None", ""), "without items"),
        (WHOLE.replace("[2] tab 'b'", "none of them"), "no item"),
        ("x" * 200_001, "longer"),
    ],
)
def test_malformed(text, reason):
    found = read_change(text)
    assert isinstance(found, Malformed)
    assert reason in found.reason


@given(st.text() | st.lists(st.sampled_from(["New items:", "Deleted items:", "Updated items:", "None", "[1] a"])).map(
    "\n".join))  # fmt: skip
def test_never_raises(text):
    assert isinstance(read_change(text), Change | Malformed)


def test_cap():
    change = Change(("a", "b"), ("c",), ("d", "e", "f"))
    assert change.capped(2) == Change(("a", "b"), ("c",), ("d", "e"))
    assert change.capped(0) == change
