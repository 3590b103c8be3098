import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_world.domains.answers import MAX_ANSWER, MAX_DEPTH
from rlvr_world.domains.text_game.answer import StateDiff, apply_diff, parse_answer, read_prediction
from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.types import Malformed

SINK = {
    "name": "sink (ID: 3)",
    "uuid": 3,
    "type": "Sink",
    "properties": {"isOn": True, "in": None},
    "contains": ["cup"],
}
ANSWER = {"modified": [SINK], "removed": [7], "score": {}}
DIFF = StateDiff((SINK,), (7,), {})
JSON = json.dumps(ANSWER)
# Repaired as the published scoring does it, the first two say that nothing changes.
BROKEN = [
    '{"modified": [{"name": "sink (ID: 3)", {"modified": [], "removed": [], "score": {}}',
    'blah {"modified": [], "removed": [], "score": {}',
    JSON[:-1],
    JSON[:-2],
    JSON.replace("]", ",]"),
    JSON.replace('"removed"', "removed"),
]
DRAFT = '{"modified": [], "removed": [], "score": {}}'


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        f"The final answer is: {JSON}",
        f"THE FINAL GAME STATE IS:\n{JSON}",
        f"<think>Perhaps {DRAFT}. No: {{'a'}}</think> the final state is: {JSON}<|im_end|><|endoftext|>",
        f"The final answer is: {DRAFT} Wait. The final state is: {JSON}",
        f"The final answer is:\n```json\n{json.dumps(ANSWER, indent=1)}\n```\nThat {{is}} all.",
        f"First\n```json\n{DRAFT}\n```\nbut then\n```json\n{JSON}\n```",
        f"First {DRAFT} and at last {JSON} I think",
        f"The final answer is: {ANSWER!r}",
        f"```python\n{ANSWER!r}\n```",
        f"The final answer is: \\boxed{{{JSON}}}",
    ],
)
def test_reads_what_models_write(text):
    assert parse_answer(text) == DIFF


KINDS = {
    "a marked draft inside thinking": "<think>The final answer is: {draft}</think>\nThe final answer is: {final}",
    "a marked draft inside thinking, a bare final": "<think>The final answer is: {draft}</think>\n{final}",
    "thinking twice": "<think>{draft}</think> Hm. <think>The final state is: {draft}</think> {final}",
    "a second answer": "The final answer is: {draft} Actually, correct is {final}",
    "a fenced draft, then a plain final": "```json\n{draft}\n```\nNo: {final}",
    "a plain draft, then a fenced final": "First {draft}, then\n```json\n{final}\n```\nThat is all.",
    "a fenced draft, then a marked final": "```\n{draft}\n```\n**The final answer is:** {final}",
    "a marked draft, then a fenced final": "The final answer is: {draft}\n\n```python\n{final}\n```",
    "the marker's words again": "{draft}\nThe final answer is: {final}. So the final answer is: what I said.",
    "an end mark as text": "{draft}\nThe final answer is: {final}<|im_end|><|endoftext|>",
    "a broken draft before the marker": '{{"modified": [ ... The final answer is: {final}',
    "a score in prose afterwards": '{draft} and then {final}, so {{"score": 3}} it is',
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spell", [json.dumps, repr, lambda answer: json.dumps(dict(reversed(answer.items())))])
def test_the_last_answer_counts(kind, spell):
    """Draft right and final wrong, and the reverse; ``score`` as the first key too."""
    nothing = {"modified": [], "removed": [], "score": {}}
    for draft, final in ((ANSWER, nothing), (nothing, ANSWER)):
        text = KINDS[kind].format(draft=spell(draft), final=spell(final))
        modified = tuple(final["modified"])
        assert parse_answer(text) == StateDiff(modified, tuple(final["removed"]), {})


def test_words_inside_strings_stay():
    obj = SINK | {"name": "True North's None (ID: 3)", "properties": {"label": "False"}}
    answer = {"modified": [obj], "removed": [], "score": {}}
    assert parse_answer(f"The final answer is: {answer!r}").modified == (obj,)


def test_missing_score_is_none_and_unknown_keys_are_dropped():
    diff = parse_answer(json.dumps({"modified": [SINK | {"mood": 1}], "removed": [], "note": 2}))
    assert diff == StateDiff((SINK,), (), None)


def changed(**values):
    return json.dumps({"modified": [SINK | values], "removed": [], "score": {}})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object"),
        ("nothing is modified and nothing is removed", "no JSON object"),
        (f"The final answer is: {DRAFT} " + "x" * MAX_ANSWER, "longer than"),
        (JSON + "x" * 10_000_000, "longer than"),
        ("The final answer is: " + '{"modified": ' * 5_000, "nest deeper"),
        ("The final answer is: " + "[" * 100_000, "no JSON object"),
        ('{"modified": [' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + '], "removed": []}', "nest deeper"),
        ('{"modified": ["]", ' + '"["["]", ' * MAX_DEPTH + "(" * MAX_DEPTH, "nest deeper"),
        ('{"modified": [], "removed": [' + "9" * 5_000 + "]}", "a number is too long"),
        ('{"modified": [], ' + "'x " * 6_000, "of at most 16384 characters"),
        ('The final answer is: {"modified": 1e999“```json0```', "neither JSON nor"),
        (JSON[:40], "neither JSON nor"),
        *((f"The final answer is: {broken}", "neither JSON nor") for broken in BROKEN),
        ('The final answer is: {"why": "sink", ' + JSON[1:], "no JSON object"),
        ("{“modified”: [], “removed”: []}", "no JSON object"),
        (JSON.replace('"removed": [7]', '"removed": [7], "removed": []'), "a key stands twice"),
        (JSON.replace('"isOn": true', '"isOn": true, "isOn": false'), "a key stands twice"),
        (repr(ANSWER).replace("'removed': [7]", "'removed': [7], 'removed': []"), "a key stands twice"),
        (JSON.replace("true", "95.0 degrees"), "neither JSON nor"),
        (JSON.replace("true", "95.0 or 20.0"), "neither JSON nor"),
        (f"<think>{JSON}", "no JSON object"),
        ('{"removed": []}', "no key 'modified'"),
        ('{"modified": {}, "removed": []}', "'modified' must be a list, got an object"),
        ('{"modified": ["sink"], "removed": []}', "expected objects, got text"),
        (changed(uuid="3"), "'uuid' must be an integer, got text"),
        (changed(uuid=True), "'uuid' must be an integer, got true or false"),
        (changed(uuid=3.0), "'uuid' must be an integer, got a decimal number"),
        (changed(properties=[]), "'properties' must be an object, got a list"),
        (changed(contains="cup"), "'contains' must be a list, got text"),
        (changed(contains=[1]), "list of names"),
        (changed(properties={"t": [float("nan")]}), "not finite"),
        (repr({"modified": [SINK | {"properties": {1: 2}}], "removed": []}), "no JSON"),
        *((repr(ANSWER).replace("None", odd), "no JSON") for odd in ("{1, 2}", "b'x'", "(1,)", "1j")),
        (repr(ANSWER).replace("None", "0x" + "f" * 5_000), "a number is too long"),
        (JSON.replace("sink (", "\\ud800 ("), "half a character"),
        ('{"modified": [{"uuid": 3}], "removed": []}', "an object has no 'name'"),
        (json.dumps(ANSWER | {"modified": [SINK, SINK]}), "the same uuid twice"),
        (json.dumps(ANSWER | {"removed": [3]}), "in 'modified' and 'removed'"),
        (json.dumps(ANSWER | {"removed": 7}), "'removed' must be a list"),
        (json.dumps(ANSWER | {"removed": [True]}), "integer, got true or false"),
        (json.dumps(ANSWER | {"score": None}), "'score' must be an object, got null"),
        ('{"modified": [], "removed": [], "score": {"score": 1e999}}', "not finite"),
    ],
)
def test_malformed_says_why_and_soon(text, reason):
    start = time.perf_counter()
    diff = parse_answer(text)
    assert isinstance(diff, Malformed)
    assert reason in diff.reason
    assert time.perf_counter() - start < 5  # generous: only a blow-up fails


WORDS = ['"modified":', '"removed": [', "score", "True", "NaN", "None", "```json", "```", "“", "//", "\x00", "\ud800"]
WORDS += ["The final answer is:", "1e999", "<|im_end|>", '"uuid": 3', "\\u12", "{" * 70, "9" * 30]
PIECES = st.sampled_from([*"\"'{}[](),:\\\n 0-", *WORDS])


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(st.characters()),
        st.lists(PIECES, max_size=40).map("".join),
        st.tuples(st.integers(0, len(JSON)), st.integers(0, 9), st.lists(PIECES, max_size=4)).map(
            lambda cut: "The final answer is: " + JSON[: cut[0]] + "".join(cut[2]) + JSON[cut[0] + cut[1] :]
        ),
    )
)
def test_never_raises(text):
    prediction = read_prediction(text)
    assert prediction.text == text
    assert isinstance(prediction.diff, StateDiff) or prediction.diff.reason


def test_apply_diff_replaces_removes_and_creates():
    cup, pot = ({**SINK, "name": n, "uuid": u} for n, u in (("cup", 7), ("pot", 4)))
    state = GameState((pot, cup, SINK | {"properties": {}}), {"score": 1}, next_uuid=8)
    new = {**SINK, "uuid": 12}
    after = apply_diff(state, StateDiff((new, SINK), (7, 99), {}))
    assert after == GameState((pot, SINK, new), {"score": 1}, next_uuid=13)
    assert apply_diff(state, StateDiff((), (), {"score": 2})).score == {"score": 2}
