"""20,000 spoiled outputs, what real models got wrong, and whatever hypothesis thinks of: never an exception."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_world.domains.text_game.answer import parse_answer
from rlvr_world.domains.text_game.published import _last_fence
from rlvr_world.domains.video.layout import VideoLayout
from rlvr_world.domains.web_page.change import read_change
from rlvr_world.types import Malformed


def load() -> ModuleType:
    """The command beside this file."""
    spec = importlib.util.spec_from_file_location("malformed_outputs", Path(__file__).with_name("malformed_outputs.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load()
CODECS = {codec.name: codec for codec in fuzz.codecs()}


def test_twenty_thousand_spoiled_outputs() -> None:
    tallies = fuzz.run(20_000, seed=1)
    assert [fault for tally in tallies.values() for fault in tally.faults] == []
    assert sum(tally.outputs for tally in tallies.values()) == 20_000
    for name, tally in tallies.items():
        assert tally.malformed > 0.5 * tally.outputs, f"{name}: most are to be malformed"
        assert len(tally.reasons) >= (2 if name.startswith("web") else 5), name


@pytest.mark.parametrize("name", CODECS)
def test_true_answers_score_the_most(name: str) -> None:
    """So that what the others are refused for is not the harness's fault."""
    codec = CODECS[name]
    for gold in codec.gold:
        malformed, reason, value = codec.judge(gold)
        assert (malformed, reason) == (False, "")
        # The published scoring of text games gives nothing for an object that is new.
        assert value == pytest.approx(codec.bounds[1]) or name == "text game, published"


CORPUS = [json.loads(line) for line in Path(__file__).with_name("corpus.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_what_models_got_wrong_has_a_reason(number: int) -> None:
    for name in ("text game, strict", "text game, published"):
        tally = fuzz.Tally()
        fuzz.judge(CODECS[name], CORPUS[number]["text"], tally)
        assert (tally.faults, tally.malformed) == ([], 1)


def test_the_harness_finds_faults() -> None:
    def broken(output: str) -> tuple[bool, str, float]:
        if "e" in output:
            raise KeyError(output)
        return True, "" if "m" in output else "reason", float("nan") if "x" in output else 0.0

    tally, codec = fuzz.Tally(), fuzz.Codec("broken", [], broken, lambda output: "\x07" if "c" in output else "")
    for output, words in (("e", "KeyError"), ("m", "reason ''"), ("x", "reward nan"), ("c", "not printable")):
        fuzz.judge(codec, output, tally)
        assert words in tally.faults[-1]
    fuzz.judge(codec, "o", tally)
    assert len(tally.faults) == 4


TEXTS = st.text(st.characters(), max_size=300) | st.text('{}[]":,\\ndmoierv0123 \n~=+-', max_size=300)
LAYOUT = VideoLayout("single_step", visual=8, tokens=3, action_width=1, horizon=2, action_bins=4, proprio_width=1)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_any_text_reads_or_has_a_reason(text: str) -> None:
    for read in (parse_answer(text), read_change(text)):
        assert not isinstance(read, Malformed) or read.reason
    assert _last_fence(text) == _last_fence(text + "```json")
    for codec in CODECS.values():
        if not codec.name.startswith("video"):
            malformed, reason, _ = codec.judge(text)
            assert malformed == bool(reason)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 14) | st.integers(), max_size=4), max_size=5))
def test_any_tokens_read_or_have_a_reason(written: list[list[int]]) -> None:
    read = LAYOUT.read(written)
    legal = [range(8)] * 3, [range(LAYOUT.action_offset, LAYOUT.bos)]
    sound = len(written) == 4 and all(
        len(ids) == len(legal[i % 2]) and all(t in r for t, r in zip(ids, legal[i % 2], strict=True))
        for i, ids in enumerate(written)
    )
    assert isinstance(read, Malformed) != sound
    assert not isinstance(read, Malformed) or read.reason
