"""The benchmark's own side at a tiny shape, and what is made of the steps of two engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cost, own, run, several
from benchmarks.cost import CostConfig
from benchmarks.run import BenchConfig
from benchmarks.work import SHAPES, EvenTokens, Shape
from rlvr_world.errors import InputError
from rlvr_world.types import Transition, Write

TINY = Shape(prompts=2, prompt=6, response=4, group=2)
FORCED = Shape(prompts=1, prompt=6, response=12, group=2, frame=6, forced=2)


@pytest.mark.parametrize("engine", ["own", "unshared"])
@pytest.mark.parametrize("shape", [TINY, FORCED])
def test_a_step_is_timed_by_phase(engine: str, shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", shape)
    answers: list[dict[str, Any]] = []
    settings = {"engine": engine, "shape": "tiny", "precision": "float32", "forward_tokens": 64}
    own.run(settings, lambda: len(answers) < 3, answers.append)
    assert len(answers) == 3  # what is held, and two steps
    for step in answers[1:]:
        assert set(step["phases"]) == {"rollout", "reward", "update"}
        assert 0 < sum(step["phases"].values()) <= step["wall"]


@pytest.mark.parametrize("shape", [TINY, FORCED])
def test_without_sharing_the_same_tokens_are_read_and_written(shape: Shape) -> None:
    row = Transition("0", [5, 6, 7, 8, 9, 10], None, None)
    one, other = (EvenTokens(shape, shared).encode(row) for shared in (True, False))
    assert (len(one.prompt), len(other.prompt)) == (6, 1)
    assert len(one.prompt) + one.max_response == len(other.prompt) + other.max_response
    first = other.tail[0]
    assert isinstance(first, Write)
    assert first.allowed == range(6, 7)
    written = [[4, 3]] * sum(isinstance(s, Write) for s in one.tail)
    assert EvenTokens(shape, True).decode(written, row) == EvenTokens(shape, False).decode([[6], *written], row)


def test_ratios_are_of_neighbouring_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    walls = {"own": iter([9.0, 1.0, 2.0, 4.0]), "unshared": iter([9.0, 3.0, 4.0, 20.0])}

    class Fake:
        held = 100.0

        def __init__(self, config: BenchConfig, engine: str, shape: str) -> None:
            self.engine = engine

        def step(self) -> dict[str, Any]:
            wall = next(walls[self.engine])
            return {"wall": wall, "cpu": wall, "phases": {"rollout": wall}, "memory": 150.0}

        def stop(self) -> None:
            pass

    monkeypatch.setattr(run, "Worker", Fake)
    out = tmp_path / "bench.json"
    run.run(BenchConfig(shapes=("short",), against=("unshared",), pairs=3), out)
    [result] = json.loads(out.read_text())["results"]
    assert result["ratios"]["wall"] == [2.0, 3.0, 5.0]
    assert result["engines"]["own"]["wall"] == 2.0
    assert result["engines"]["own"]["memory"] == 50.0
    assert result["engines"]["own"]["tokens_per_second"] == 8 * 8 * 96 / 2.0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="expected some of short"):
        run.run(BenchConfig(shapes=("long",)), None)
    with pytest.raises(InputError, match="no forced tokens"):
        run.run(BenchConfig(shapes=("multi_step",)), None)


def test_an_engine_that_stops_says_why() -> None:
    with pytest.raises(InputError, match="the engine own stopped: KeyError: 'nothing'"):
        run.Worker(BenchConfig(), "own", "nothing")


def test_what_is_doubled_costs_what_its_tokens_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cost.run(CostConfig(prompts=1, group=2, prompt=6, response=4, doublings=1, rounds=1), tmp_path / "cost")
    rows = json.loads((tmp_path / "cost/cost.json").read_text())["rows"]
    assert [(row["axis"], row["times"]) for row in rows] == [(axis, n) for axis in cost.AXES for n in (1, 2)]
    assert [row["tokens"] for row in rows] == [26, 52, 26, 40, 26, 54]  # prompt and responses; prompt and all but ends
    assert (tmp_path / "cost/cost.png").stat().st_size > 1000
    assert "| length × 2 | 54 |" in capsys.readouterr().out
    even = [{**row, "cpu": row["tokens"] ** 1.5} for row in rows]
    assert cost.exponents(even) == pytest.approx(dict.fromkeys(cost.AXES, 1.5))


def test_ranks_are_compared_step_by_step() -> None:
    sides = [(4.0, 2.0), (6.0, 2.0), (8.0, 8.0)]
    steps = [[{"wall": w, "cpu": w * n, "tokens": 1000} for n, w in enumerate(pair, 1)] for pair in sides]
    head, _, row = several.table([{"shape": "short", "ranks": 2, "steps": steps}]).splitlines()
    assert "s, 2 ranks" in head
    assert row == "| short | 1,000 | 6.00 | 2.00 | 6.00 | 4.00 | 2.00 (1.00 to 3.00) |"


def test_one_process_is_not_several() -> None:
    with pytest.raises(InputError, match="torchrun --nproc-per-node 2"):
        several.run(several.RanksConfig(), None)
