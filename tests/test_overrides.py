"""Typed overrides and the JSON round trip, on a config of the test's own: the machinery knows no field names."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.errors import InputError
from rlvr_world.overrides import describe, from_json, override, to_json


def what(default: Any, text: str = "", unit: str = "") -> Any:
    return field(default=default, metadata={"help": text, "unit": unit})


@dataclass(frozen=True)
class Adam:
    rate: float = what(1e-3, "peak learning rate")


@dataclass(frozen=True)
class RL:
    steps: int = what(50, "rollout steps", "steps")
    seeds: tuple[int, ...] = (0,)
    size: tuple[int, float] = (1, 2.0)
    limit: int | None = None
    device: Literal["auto", "cpu"] = what("auto", "where to run")
    adam: Adam = field(default_factory=Adam)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < self.steps:
            raise InputError("limit must not be below steps")


@dataclass(frozen=True)
class Config:
    name: str = "x"
    lora: bool = False
    rl: RL = field(default_factory=RL)
    data: Any = field(default_factory=Adam)


@dataclass(frozen=True)
class Kinds:
    words: tuple[str, ...] = ("a",)
    note: str | None = ""
    level: Literal[1, 2] = 1
    rate: float = 0.5


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("rl.steps=1_000", 1000),
        ("rl.adam.rate=1e-5", 1e-5),
        ("rl.adam.rate=1", 1.0),
        ("lora=True", True),
        ("name=a=b c", "a=b c"),
        ("name=none", "none"),
        ("rl.seeds=0,1,2", (0, 1, 2)),
        ("rl.seeds=(3,)", (3,)),
        ("rl.seeds=[]", ()),
        ("rl.size=4,5", (4, 5.0)),
        ("rl.limit=60", 60),
        ("rl.limit=none", None),
        ("rl.device=cpu", "cpu"),
        ("data.rate=2", 2.0),
    ],
)
def test_values_are_read_by_their_annotation(item: str, expected: Any) -> None:
    value: Any = override(Config(), [item])
    for name in item.partition("=")[0].split("."):
        value = getattr(value, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["rl.stesp=3"], ["'rl.stesp'", "'rl.steps'"]),
        (["rate=3"], ["'rate'", "rate'"]),
        (["steps=3"], ["'rl.steps'"]),
        (["rl.steps=ten"], ["rl.steps", "int (steps)", "'ten'"]),
        (["rl.steps=1.5"], ["int", "'1.5'"]),
        (["rl.adam.rate=nan"], ["float", "'nan'"]),
        (["lora=1"], ["true|false", "'1'"]),
        (["rl.seeds=1,x"], ["int,...", "'1,x'"]),
        (["rl.size=1"], ["int,float", "'1'"]),
        (["rl.limit=x"], ["int or none", "'x'"]),
        (["rl.device=gpu"], ["one of auto, cpu", "'gpu'"]),
        (["rl.adam=3"], ["group of settings", "rl.adam.rate"]),
        (["rl.steps=3", "rl.steps=3"], ["rl.steps", "twice"]),
        (["rl.steps"], ["name=value", "'rl.steps'"]),
    ],
)
def test_a_wrong_override_says_what_and_what_to_do(items: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        override(Config(), items)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_a_dataclass_checks_its_changes_together() -> None:
    assert override(Config(), ["rl.limit=5", "rl.steps=5"]).rl == RL(steps=5, limit=5)
    with pytest.raises(InputError, match="below steps"):
        override(Config(), ["rl.limit=5"])


@given(
    st.builds(
        Config,
        name=st.text(),
        lora=st.booleans(),
        rl=st.builds(
            RL,
            steps=st.integers(0, 9),
            seeds=st.lists(st.integers()).map(tuple),
            size=st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
            limit=st.none() | st.integers(min_value=9),
            device=st.sampled_from(["auto", "cpu"]),
            adam=st.builds(Adam, rate=st.floats(allow_nan=False, allow_infinity=False)),
        ),
    )
)
def test_json_round_trip_is_exact(config: Config) -> None:
    again = from_json(Config(), json.loads(json.dumps(to_json(config))))
    assert again == config
    assert repr(again) == repr(config)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rl": {"stesp": 3}}, ["run/config.json", "'rl.stesp'", "'rl.steps'"]),
        ({"rl": {"steps": "3"}}, ["run/config.json", "int (steps)", "'3'"]),
        ({"rl": {"steps": True}}, ["int (steps)", "True"]),
        ({"rl": {"seeds": [1, None]}}, ["rl.seeds", "[1, None]"]),
        ({"rl": 3}, ["rl must be an object", "3"]),
        ([], ["object", "[]"]),
    ],
)
def test_wrong_json_says_where(data: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        from_json(Config(), data, "run/config.json")
    assert all(word in str(error.value) for word in words), str(error.value)


def test_json_without_a_key_keeps_the_default() -> None:
    assert from_json(Config(), {"rl": {"steps": 3}}) == Config(rl=RL(steps=3))


def test_describe_lists_every_setting_with_default_type_unit_and_help() -> None:
    lines = describe(Config(), width=100).splitlines()
    assert len(lines) == 9
    line = next(line for line in lines if "rl.steps=" in line)
    assert line.split() == ["rl.steps=50", "int", "(steps)", "rollout", "steps"]
    assert any(line.split()[:2] == ["rl.device=auto", "auto|cpu"] for line in lines)


def test_describe_wraps_help_and_crops_long_values() -> None:
    lines = describe(Config(name="x" * 200), width=60).splitlines()
    assert all(len(line) < 110 for line in lines)
    assert any("name=xxx" in line and "… " in line for line in lines)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("words=1,null", Kinds(words=("1", "null"))),
        ("words=-a,${b}", Kinds(words=("-a", "${b}"))),
        ("words=", Kinds(words=())),
        ("note=None", Kinds(note=None)),
        ("note=0x10", Kinds(note="0x10")),
        ("note=caf\udce9", Kinds(note="caf\udce9")),
        ("level=2", Kinds(level=2)),
    ],
)
def test_text_stays_text_and_comes_back_from_json(item: str, expected: Kinds) -> None:
    assert override(Kinds(), [item]) == expected
    assert from_json(Kinds(), json.loads(json.dumps(to_json(expected)))) == expected


@pytest.mark.parametrize("item", ["rate=.nan", "rate=1e400", "level=3", "level=1.0"])
def test_what_another_reader_would_take_is_refused(item: str) -> None:
    with pytest.raises(InputError, match=f"setting {item.partition('=')[0]}: expected"):
        override(Kinds(), [item])


@pytest.mark.parametrize("value", [pytest.param(10**400, id="huge"), 2**53 + 1, float("nan"), True, "1", None])
def test_json_that_no_float_holds_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="rate: expected float"):
        from_json(Kinds(), {"rate": value})


def test_json_keeps_true_and_one_apart() -> None:
    with pytest.raises(InputError, match="level: expected one of 1, 2, got True"):
        from_json(Kinds(), {"level": True})
    assert from_json(Kinds(), {"rate": 3}) == Kinds(rate=3.0)
