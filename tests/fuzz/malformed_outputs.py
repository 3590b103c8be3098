"""What models write, and worse, through every decoder and scorer: no exception, none slow, each with a reason.

    python tests/fuzz/malformed_outputs.py --count 1000000

Outputs are true answers spoiled in a dozen ways, and plain noise; most are short, one in two hundred is up to 64 kB.
A decode and score may take 250 ms of processor time (the least of three tries, so that a pause of the machine is not
counted).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import string
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rlvr_world.domains.text_game.config import TextGameConfig
from rlvr_world.domains.text_game.domain import TextGame
from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.domains.video.layout import VideoLayout
from rlvr_world.domains.web_page.config import WebPageConfig
from rlvr_world.domains.web_page.diff import page_change
from rlvr_world.domains.web_page.domain import WebPage
from rlvr_world.domains.web_page.rows import PageResult, PageState
from rlvr_world.domains.web_page.tree import parse_page
from rlvr_world.recipes.text_game import COMPACT
from rlvr_world.types import Malformed, Transition

LONGEST = 65_536
BOUND = 0.25
"""Seconds of processor time."""
Verdict = tuple[bool, str, float]
"""Whether it is malformed, the reason, the reward."""


@dataclass(frozen=True)
class Codec:
    """One way to read and score what a model wrote."""

    name: str
    gold: list[Any]
    judge: Callable[[Any], Verdict]
    explain: Callable[[Any], str]
    bounds: tuple[float, float] = (0.0, 1.0)


# The codecs


class Spelled:
    """A tokenizer whose tokens are characters, so that any text can be what a model wrote."""

    eos_token_id, chat_template = 0x10FFFF, None

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(chr, ids))

    def get_vocab(self) -> dict[str, int]:
        return {}


def of_text(name: str, domain: Any, row: Transition, more: list[str], most: float) -> Codec:
    """A domain over text; ``more`` are other ways to write the true answer of ``row``."""
    write = domain.encode(row).tail[0]
    said = "".join(map(chr, write.target[:-1]))

    def read(text: str) -> Any:
        return domain.decode([[ord(letter) for letter in text]], row)

    def judge(text: str) -> Verdict:
        prediction = read(text)
        scored = domain.score(prediction, row)
        parts = vars(prediction).values()
        return any(isinstance(part, Malformed) for part in parts), scored.malformed, scored.value

    return Codec(name, [said, *more], judge, lambda text: domain.explain(read(text), row), (0.0, most))


def text_game() -> Iterator[Codec]:
    off, lit = {"isOn": False, "flow": 1.5}, {"isOn": True, "flow": 1.5}
    sink = {"name": "sink (ID: 3)", "uuid": 3, "type": "Sink", "properties": off, "contains": []}
    cup = {"name": "cup (ID: 4)", "uuid": 4, "type": "Cup", "properties": {"temperature": 70.0}, "contains": ["tea"]}
    on = {**sink, "properties": lit, "contains": ["cup (ID: 4)"]}
    new = {"name": "steam (ID: 5)", "uuid": 5, "type": "Steam", "properties": {}, "contains": []}
    score = {"score": 0, "gameOver": False, "gameWon": False}
    won = {**score, "score": 1}
    row = Transition("t:1", GameState((sink, cup), score, 5), "turn on sink", GameState((on, new), won, 6), "changed")
    answer = {"modified": [on, new], "removed": [4], "score": won}
    gold = [f"<think>Hm.</think> The final answer is: {json.dumps(answer)}", repr(answer)]
    gold.append(f"```json\n{json.dumps(answer, indent=2)}\n```")
    for scoring in ("strict", "published"):
        config = TextGameConfig(style=COMPACT, reward="task_specific", scoring=scoring)  # type: ignore[arg-type]
        yield of_text(f"text game, {scoring}", TextGame(config, Spelled(), None), row, gold, 1.3)  # type: ignore[arg-type]


def web_page() -> Iterator[Codec]:
    before = "[1] RootWebArea 'A'\n" + "\n".join(f"\t[{i}] link 'number {i}'" for i in range(2, 40))
    after = before.replace("number 20'", "number 20' focused: True") + "\n\t[60] StaticText 'there'"
    change = page_change(parse_page(before), parse_page(after))
    row = Transition("w:1", PageState(before), "click [20]", PageResult(change, after), "changed", "task")
    for style, scoring in (("compact", "strict"), ("published", "strict"), ("published", "published")):
        config = WebPageConfig(style=style, scoring=scoring, max_prompt=100_000)  # type: ignore[arg-type]
        yield of_text(f"web page, {style}, {scoring}", WebPage(config, Spelled()), row, [], 1.0)  # type: ignore[arg-type]


def video() -> Iterator[Codec]:
    sizes: dict[str, Any] = {"visual": 64, "tokens": 16, "action_width": 2, "horizon": 2, "action_bins": 16}
    for name, more in (
        ("single-step", {"kind": "single_step"}),
        ("single-step with proprioception", {"kind": "single_step", "proprio_width": 3}),
        ("multi-step", {"kind": "multi_step", "context_visual": 32, "context_tokens": 8, "context": 1}),
    ):
        layout = VideoLayout(**{**sizes, **more})
        frame, felt = list(range(16)), [layout.action_offset + i for i in range(layout.proprio_width)]
        gold = ([frame, felt] if felt else [frame]) * layout.horizon

        def judge(written: Any, layout: VideoLayout = layout) -> Verdict:
            read = layout.read(written)
            return (True, read.reason, 0.0) if isinstance(read, Malformed) else (False, "", 1.0)

        yield Codec(f"video, {name}", [gold], judge, lambda written: "")


def codecs() -> list[Codec]:
    return [*text_game(), *web_page(), *video()]


# Outputs


def spoiled(gold: list[Any], rng: random.Random) -> Any:
    """One output: a spoiled true answer, or noise."""
    good = rng.choice(gold)
    if not isinstance(good, str):
        return _tokens(good, rng)
    size = int(math.exp(rng.uniform(0, math.log(LONGEST)))) if rng.random() < 0.005 else rng.randrange(1, 400)
    ways = (_cut, _typo, _swap, _value, _flood, _deep, _noise, _repeat, _wrap, _structure)
    text = rng.choice(ways)(good, rng, size)
    while rng.random() < 0.3:
        text = rng.choice(ways)(text, rng, size)
    return text[:LONGEST]


ODD = [*string.punctuation, *"\0\x7f\ud800\u202e“”，\n\r\t\\\U0001f600é\ufeff"]
VALUES = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-0", "1e-400", "null", "true", "None", "True", "[]", "{}", "[[]]"),
    *("0.1", "-1", '{"a":1}', "'{'", '""', '"x"', "9" * 20, "9" * 5000, "[" * 60, "1" + "0" * 400),
]
FLOODS = ["[", "{", "}", '"', "'", "\\", "```json", "The final answer is:", ",", "(", "\0", " ", "New items:\n", "-1:"]
WRAPS = ["```json\n{}", "```json\n{}\n```\n```json\n", "{}\n\nThe final answer is: ", "[{}]", "{{{}}}", '"{}"']
MARKS = ["~", "=", "-", "+", "[1] ", "[99999] ", "New items:", "Deleted items:", "Updated items:", "none", "None", ":"]
LINES = ["", "1", "7 x", "3:1", "link 'a'", "-5"]
KEYS = ["modified", "removed", "score", "uuid", "name", "type", "properties", "contains", "isOn", "gameOver", "x"]


def _cut(text: str, rng: random.Random, size: int) -> str:
    a = rng.randrange(len(text) + 1)
    return text[:a] if rng.random() < 0.6 else text[a:]


def _typo(text: str, rng: random.Random, size: int) -> str:
    letters = list(text)
    for _ in range(rng.randrange(1, 8)):
        if letters:
            at = rng.randrange(len(letters))
            letters[at : at + rng.randrange(2)] = rng.choice(ODD)
    return "".join(letters)


def _swap(text: str, rng: random.Random, size: int) -> str:
    pieces = text.split(rng.choice([",", ":", " ", "\n", '"', "'", "[", "{"]))
    rng.shuffle(pieces)
    return rng.choice([",", ":", " ", "", "\n"]).join(pieces)


def _value(text: str, rng: random.Random, size: int) -> str:
    words = [i for i, c in enumerate(text) if c in ":,[\n "]
    if not words:
        return rng.choice(VALUES)
    at = rng.choice(words) + 1
    return text[:at] + rng.choice(VALUES) + text[at + rng.randrange(0, 12) :]


def _flood(text: str, rng: random.Random, size: int) -> str:
    what = rng.choice(FLOODS)
    at = rng.randrange(len(text) + 1)
    return text[:at] + what * max(1, size // len(what)) + text[at:]


def _deep(text: str, rng: random.Random, size: int) -> str:
    opened = rng.choice(["[", '{"modified": ', '{"a":[', "("])
    return opened * max(1, size // len(opened)) + text


def _noise(text: str, rng: random.Random, size: int) -> str:
    return "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(size))


def _repeat(text: str, rng: random.Random, size: int) -> str:
    a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    return text[:a] + text[a:b] * max(2, size // max(1, b - a)) + text[b:]


def _wrap(text: str, rng: random.Random, size: int) -> str:
    return rng.choice(WRAPS).replace("{}", text)


def _structure(text: str, rng: random.Random, size: int) -> str:
    """Sound JSON, or sound lines, of the wrong shape."""

    def value(depth: int) -> Any:
        kind = rng.randrange(7 if depth < 4 else 5)
        if kind == 5:
            return [value(depth + 1) for _ in range(rng.randrange(4))]
        if kind == 6:
            return {rng.choice(KEYS): value(depth + 1) for _ in range(rng.randrange(5))}
        return (rng.randrange(-2, 9), rng.random() * 1e3, rng.choice(KEYS), rng.random() < 0.5, None)[kind]

    if rng.random() < 0.3:
        return "\n".join(rng.choice(MARKS) + rng.choice(LINES) for _ in range(rng.randrange(1, 30)))
    made = {key: value(0) for key in ("modified", "removed", "score") if rng.random() < 0.9}
    return json.dumps(made)


def _tokens(gold: list[list[int]], rng: random.Random) -> list[list[int]]:
    """Token lists of the wrong number, length or range."""
    made = [list(ids) for ids in gold]
    for _ in range(rng.randrange(1, 4)):
        way = rng.randrange(5)
        if way == 0 and made:
            del made[rng.randrange(len(made))]
        elif way == 1:
            made.append([rng.randrange(200) for _ in range(rng.randrange(40))])
        elif made and made[-1]:
            ids = made[rng.randrange(len(made))]
            if not ids or way == 2:
                ids.append(rng.randrange(200))
            elif way == 3:
                ids[rng.randrange(len(ids))] = rng.choice([-1, 64, 80, 2**31, 10**12, rng.randrange(64)])
            else:
                del ids[rng.randrange(len(ids)) :]
    return made


# Judging


@dataclass
class Tally:
    outputs: int = 0
    malformed: int = 0
    slowest: float = 0.0
    longest: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def judge(codec: Codec, output: Any, tally: Tally, explain: bool = True) -> None:
    """Put one output through a codec; whatever is wrong with what comes goes to ``tally.faults``."""
    tally.outputs += 1
    tally.longest = max(tally.longest, len(output))
    try:
        took = math.inf
        for _ in range(3):
            started = time.thread_time()
            malformed, reason, value = codec.judge(output)
            took = min(took, time.thread_time() - started)
            if took <= BOUND:
                break
        explained = codec.explain(output) if explain else ""
    except Exception as error:  # noqa: BLE001 - to find any is what this is for
        tally.faults.append(f"{codec.name}: {type(error).__name__}: {error}: {output!r:.300}")
        return
    tally.slowest = max(tally.slowest, took)
    if malformed:
        tally.malformed += 1
        tally.reasons[reason[:60]] += 1
    if took > BOUND:
        tally.faults.append(f"{codec.name}: {1000 * took:.0f} ms for {len(output)}: {output!r:.200}")
    if malformed != bool(reason):
        tally.faults.append(f"{codec.name}: malformed {malformed}, reason {reason!r}: {output!r:.300}")
    if not codec.bounds[0] - 1e-9 <= value <= codec.bounds[1] + 1e-9:
        tally.faults.append(f"{codec.name}: reward {value}: {output!r:.300}")
    if any(not (c.isprintable() or c == "\n") for c in explained):
        tally.faults.append(f"{codec.name}: what is shown has characters that are not printable: {output!r:.300}")


def run(count: int, seed: int) -> dict[str, Tally]:
    tallies = {}
    known = codecs()
    for number, codec in enumerate(known):
        rng, tally = random.Random(f"{seed} {codec.name}"), Tally()
        share = count // len(known) + (number < count % len(known))
        for i in range(share):
            judge(codec, spoiled(codec.gold, rng), tally, explain=i % 20 == 0)
        tallies[codec.name] = tally
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    tallies = run(args.count, args.seed)
    print("| codec | outputs | malformed | reasons | longest | slowest | faults |\n|---|--:|--:|--:|--:|--:|--:|")
    for name, t in tallies.items():
        cells = (t.outputs, t.malformed, len(t.reasons), t.longest, f"{1000 * t.slowest:.1f} ms", len(t.faults))
        print(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    found = [fault for t in tallies.values() for fault in t.faults]
    outputs = sum(t.outputs for t in tallies.values())
    print(f"\n{outputs} outputs, {len(found)} faults, {time.monotonic() - started:.0f} s")
    print("\n".join(found[:20]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
