"""Evaluation of a model on a world of plain tokens: what is scored, shown, and named as the protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlvr_world.errors import InputError
from rlvr_world.evaluation.evaluate import Plan, Shown, evaluate, rows_hash, save_result
from rlvr_world.models.attention import share_prefixes
from rlvr_world.sampling import engine
from rlvr_world.sampling.engine import Sampling, batches
from rlvr_world.system import progress
from rlvr_world.types import Given, Malformed, Picture, Score, Script, Transition, Write


class Echo:
    """Three tokens of four; right where they are those of the row, malformed where they start with token 3."""

    lower_is_better = frozenset[str]()

    def encode(self, transition: Transition) -> Script:
        return Script((Given(transition.state), Write(3, allowed=range(4))))

    def decode(self, written: Sequence[Sequence[int]], transition: Transition) -> Any:
        return Malformed("starts with 3") if written[0][0] == 3 else tuple(written[0])

    def score(self, prediction: Any, transition: Transition) -> Score:
        if isinstance(prediction, Malformed):
            return Score(0.0, {"exact": 0.0}, prediction.reason)
        exact = float(prediction == transition.next_state)
        return Score(exact / 2, {"exact": exact})

    def baselines(self, transition: Transition) -> Mapping[str, Any]:
        return {"copy": transition.state[:3]}

    def explain(self, prediction: Any, transition: Transition) -> str:
        return f"+ {prediction}"


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    made = LlamaForCausalLM(shape)
    share_prefixes(made)
    return made


def greedy(model: LlamaForCausalLM, prompt: tuple[int, ...]) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    for _ in range(3):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1, :4].argmax(-1, keepdim=True)], 1)
    return tuple(ids[0, -3:].tolist())


@pytest.fixture(scope="module")
def rows(model: LlamaForCausalLM) -> list[Transition]:
    """Half of the answers are what the model says; every third row is its own state, which the baseline gets."""
    made = []
    for i in range(12):
        prompt = (5 + i, 9 + i // 2, 31 - i)
        says = greedy(model, prompt)
        after = says if i % 2 else prompt
        made.append(Transition(f"r{i}", prompt, f"go {i}", after, kind="changed" if i % 2 else "unchanged"))
    return made


def test_greedy_predictions_are_scored_against_what_happened(model: LlamaForCausalLM, rows: list[Transition]) -> None:
    result, shown = evaluate(model, Echo(), rows, Plan(max_rows=5), {}, Shown(str))
    says = [greedy(model, row.state) for row in rows]
    right = [s == row.next_state and s[0] != 3 for s, row in zip(says, rows, strict=True)]
    assert 0 < sum(right) < len(rows)
    slices = result["slices"]
    for kind in ("changed", "unchanged"):
        of_kind = [r for r, row in zip(right, rows, strict=True) if row.kind == kind]
        assert slices[kind]["parts"]["exact"]["mean"] == pytest.approx(sum(of_kind) / len(of_kind))
        of_kind = [s[0] == 3 for s, row in zip(says, rows, strict=True) if row.kind == kind]
        assert slices[kind]["malformed"]["mean"] == pytest.approx(sum(of_kind) / len(of_kind))
    assert [s["id"] for s in shown] == [row.id for row in rows]
    assert [s["right"] for s in shown] == right
    for s, said in zip(shown, says, strict=True):
        assert s["reason"] == ("starts with 3" if said[0] == 3 else "")
        assert said[0] == 3 or s["diff"] == f"+ {said}"
        assert s["text"] == " ".join(map(str, said))
    assert [s["state"] for s in shown] == [str(row.state) for row in rows]
    assert [s["action"] for s in shown] == [row.action for row in rows]
    assert [s["parts"]["exact"] for s in shown] == right
    assert json.loads(json.dumps(result)) == result


def test_samples_are_the_same_whatever_grows_at_once(model: LlamaForCausalLM, rows: list[Transition]) -> None:
    plans = [Plan(Sampling(), 6, max_rows=size, seed=2) for size in (1, 20, 512)]
    results = [evaluate(model, Echo(), rows, plan, {}, Shown(str)) for plan in plans]
    assert results[0] == results[1] == results[2]
    assert evaluate(model, Echo(), rows, Plan(Sampling(), 6, seed=3), {}, Shown(str))[1] != results[0][1]


def test_batches_are_those_of_the_sampler_and_told_of(
    model: LlamaForCausalLM, rows: list[Transition], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = [replace(row, state=row.state[: 1 + i % 3]) for i, row in enumerate(rows)]
    sizes: list[list[int]] = []

    def recorded(model: Any, scripts: Sequence[Script], *args: Any) -> Any:
        found = batches(model, scripts, *args)
        sizes.extend([len(scripts[i].prompt) for i in chosen] for chosen in found)
        return found

    monkeypatch.setattr(engine, "batches", recorded)
    monkeypatch.setattr(progress, "SHORT", 0.0)
    evaluate(model, Echo(), mixed, Plan(Sampling(), 2, max_rows=10), {})
    assert sizes == [[1] * 4 + [2], [2] * 3 + [3] * 2, [3] * 2]  # shortest prompts first, five of two samples at once
    assert "evaluating: 12 of 12 rows, 100 %" in capsys.readouterr().err
    assert evaluate(model, Echo(), mixed, Plan(), {}, brief=True)[1] == []
    assert capsys.readouterr().err == ""  # training shows its own


def test_rejected_predictions_are_drawn_again(model: LlamaForCausalLM, rows: list[Transition]) -> None:
    class Picky(Echo):
        def score(self, prediction: Any, transition: Transition) -> Score:
            return Score(0.0, {"bad": float(isinstance(prediction, Malformed))})

    once, picky = Plan(Sampling(), 3), Plan(Sampling(), 3, reject="bad", attempts=30)
    assert evaluate(model, Picky(), rows, once, {})[0]["slices"]["overall"]["parts"]["bad"]["mean"] > 0
    result, shown = evaluate(model, Picky(), rows, picky, {}, Shown(str))
    assert result["slices"]["overall"]["parts"]["bad"]["mean"] == 0
    assert all("starts with 3" not in sample["diff"] for sample in shown)
    assert all(sample["text"][0] != "3" for sample in shown)  # what stands, not what was rejected
    assert result["protocol"]["reject"] == "bad"
    with pytest.raises(InputError, match=r"eval\.reject=worse: no such part of the score; there are: bad"):
        evaluate(model, Picky(), rows, replace(picky, reject="worse"), {})


def test_the_fingerprint_is_that_of_rows_sampling_and_settings(model: LlamaForCausalLM, rows: list[Transition]) -> None:
    def fingerprint(**changes: Any) -> str:
        asked = {
            "rows": rows,
            "settings": {"x": 1},
            **{k: changes.pop(k) for k in ("rows", "settings") if k in changes},
        }
        return evaluate(model, Echo(), plan=Plan(**changes), **asked)[0]["fingerprint"]

    same = fingerprint()
    assert fingerprint(max_rows=3) == same
    others = [
        fingerprint(rows=rows[::-1]),
        fingerprint(rows=[*rows[:-1], replace(rows[-1], next_state=(0, 0, 0))]),
        fingerprint(sampling=Sampling(0.5)),
        fingerprint(samples=2),
        fingerprint(settings={"x": 2}),
        fingerprint(seed=1),
    ]
    assert len({same, *others}) == 7
    assert len(rows_hash(rows)) == 12
    long = [replace(rows[0], action=np.zeros((600, 2), np.float32)) for _ in range(2)]
    long[1].action[300, 0] = 1e-3
    assert repr(long[0]) == repr(long[1]), "which shortens large arrays"
    assert rows_hash(long[:1]) != rows_hash(long[1:])


def test_a_domain_that_fails_names_the_row(model: LlamaForCausalLM, rows: list[Transition]) -> None:
    for name in ("decode", "score", "baselines", "explain"):
        domain = Echo()
        setattr(domain, name, lambda *_: {}["no such object"])
        with pytest.raises(RuntimeError, match=r"row r0: the domain failed on it \(KeyError: 'no such object'\)"):
            evaluate(model, domain, rows, Plan(), {}, Shown(str))


class Drawn(Echo):
    """The same, drawn: a world of pictures, though not one of batches."""

    def explain(self, prediction: Any, transition: Transition) -> Any:
        return "- malformed" if isinstance(prediction, Malformed) else Picture(b"png", columns=("truth", "predicted"))


def test_pictures_are_kept_of_some_rows_and_numbers_of_all(model: LlamaForCausalLM, rows: list[Transition]) -> None:
    many = [replace(row, id=f"r{i}") for i, row in enumerate(rows * 5)]  # 60 rows: every second
    _, samples = evaluate(model, Drawn(), many, Plan(), {}, Shown(lambda state: Picture(bytes(state))))
    assert [s["id"] for s in samples] == [row.id for row in many]
    assert all({"value", "parts", "right", "reason", "action"} <= s.keys() for s in samples)
    drawn = [i for i, s in enumerate(samples) if "picture" in s]
    assert drawn == [i for i in range(0, 60, 2) if not samples[i]["reason"]]
    assert samples[drawn[0]]["columns"] == ("truth", "predicted")
    assert [i for i, s in enumerate(samples) if "state" in s] == [*range(0, 60, 2)]
    assert all("text" not in samples[i] for i in drawn)


def test_results_are_files_of_the_run(tmp_path: Path) -> None:
    protocol = {"rows_hash": "0a1b"}
    save_result(tmp_path, "rl/seed0", {"protocol": protocol}, [{"id": "r0", "state": "a door"}, {"id": "r1"}])
    files = {path.name: json.loads(path.read_text()) for path in (tmp_path / "eval").iterdir()}
    assert files == {
        "rl-seed0.json": {"name": "rl/seed0", "protocol": protocol},
        "samples-rl-seed0.json": [{"id": "r0"}, {"id": "r1"}],
        "states-0a1b.json": {"r0": "a door"},
    }


class Short(Echo):
    """Of every other row the true answer has a token more than may be written."""

    def encode(self, transition: Transition) -> Script:
        target = transition.next_state + ((1,) if transition.kind == "changed" else ())
        return Script((Given(transition.state), Write(3, allowed=range(4), target=target)))


def test_answers_that_cannot_be_written_are_counted(
    model: LlamaForCausalLM, rows: list[Transition], capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = evaluate(model, Short(), rows, Plan(), {})
    assert result["too_long"] == 6
    said = "of 6 of 12 test rows the true answer has more tokens than may be written: no model can be right there"
    assert said in capsys.readouterr().err
    assert evaluate(model, Echo(), rows, Plan(), {})[0]["too_long"] == 0
    assert "more tokens" not in capsys.readouterr().err
