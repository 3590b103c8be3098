import copy
import json
from typing import Any

import pytest

from rlvr_world.errors import InputError
from rlvr_world.evaluation.intervals import wilson
from rlvr_world.evaluation.summary import (
    across_seeds,
    compare,
    compare_baseline,
    fingerprint,
    markdown_table,
    paper_table,
    seed_differences,
    summarise,
)

PROTOCOL = {"rows": "abc", "sampling": "greedy", "samples": 1, "max_tokens": 512}


def record(row: int, exact: float, objects: float = 0.5, kind: str = "changed", malformed: str = "") -> dict[str, Any]:
    return {
        "id": f"test:{row}",
        "kind": kind,
        "world": "house",
        "parts": {"exact": exact, "objects": objects},
        "value": exact / 2,
        "malformed": malformed,
        "baselines": {"no_change": {"exact": float(kind == "unchanged"), "objects": 0.9}},
    }


def result(*rights: float, name: str = "m") -> dict[str, Any]:
    """Two unchanged rows, then changed ones."""
    rows = [record(i, right, kind="unchanged" if i < 2 else "changed") for i, right in enumerate(rights)]
    return {"name": name, **summarise(rows, PROTOCOL)}


def test_means_by_slice_with_the_baseline_beside_them() -> None:
    slices = result(1, 1, 0, 1)["slices"]
    assert {s: v["parts"]["exact"]["mean"] for s, v in slices.items()} == {
        "changed": 0.5,
        "unchanged": 1.0,
        "overall": 0.75,
    }
    assert slices["overall"]["parts"]["exact"] == wilson(3, 4).as_dict()
    assert slices["overall"]["parts"]["objects"]["method"] == "bootstrap"
    assert slices["overall"]["parts"]["value"]["mean"] == 0.375
    assert slices["changed"]["baselines"]["no_change"]["exact"]["mean"] == 0
    json.dumps(slices, allow_nan=False)


def test_samples_of_a_row_are_not_rows() -> None:
    rows = [record(0, 1), record(0, 0, malformed="no JSON"), record(1, 0), record(1, 0)]
    summary = summarise(rows, PROTOCOL)
    changed = summary["slices"]["changed"]
    assert (changed["rows"], changed["samples"]) == (2, 2)
    assert changed["parts"]["exact"] == wilson(0.5, 2).as_dict()  # pass@1 over two rows, not four
    assert changed["best_of"]["exact"]["mean"] == 0.5
    assert changed["malformed"]["mean"] == 0.25
    assert summary["malformed_reasons"] == {"no JSON": 1}
    assert "objects" not in changed["best_of"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.update(parts={}), "row test:1, parts: expected .* let score"),
        (lambda r: r.update(value=float("nan")), "row test:1, part value: expected a finite number"),
        (lambda r: r.update(id="test:0"), "row test:2: expected 2 samples"),
        (lambda r: r.update(baselines={}), "row test:1, baselines: expected"),
    ],
)
def test_records_that_do_not_fit_are_refused(change: Any, sentence: str) -> None:
    rows = [record(i, 1) for i in range(3)]
    change(rows[1])
    with pytest.raises(InputError, match=sentence):
        summarise(rows, PROTOCOL)


def test_fingerprint_ignores_order_and_sees_every_value() -> None:
    assert fingerprint(PROTOCOL) == fingerprint(dict(reversed(PROTOCOL.items())))
    assert len({fingerprint(PROTOCOL | {key: "other"}) for key in PROTOCOL} | {fingerprint(PROTOCOL)}) == 5


def test_compare_pairs_rows() -> None:
    difference = compare(result(1, 1, *[1] * 20), result(1, 1, *[0] * 10, *[1] * 10))
    assert difference["changed"]["exact"]["mean"] == 0.5
    assert difference["changed"]["exact"]["low"] == pytest.approx(0.3, abs=0.06)  # 10 of 20 rows gained
    assert difference["unchanged"]["exact"]["mean"] == 0
    assert difference["unchanged"]["exact"]["low"] is None  # two rows


def test_compare_refuses_another_protocol_and_other_rows() -> None:
    ours, theirs = result(1, 1, 1, 1), result(1, 1, 0, 0)
    moved = copy.deepcopy(theirs)
    moved["rows"]["id"].reverse()
    with pytest.raises(InputError, match="different rows"):
        compare(ours, moved)
    theirs |= {"protocol": PROTOCOL | {"max_tokens": 64}, "fingerprint": "f" * 12}
    with pytest.raises(InputError, match="fields that differ: max_tokens"):
        compare(ours, theirs)
    with pytest.raises(InputError, match="max_tokens"):
        paper_table({"a": ours, "b": theirs})


def test_seeds_by_hand() -> None:
    runs, start = [result(1, 1, 0, 0), result(1, 1, 1, 0), result(1, 1, 1, 1)], result(1, 1, 0, 0)
    changed = across_seeds(runs)["changed"]["exact"]
    # per-seed means 0, 0.5, 1: mean 0.5, standard deviation 0.5, 4.3027 * 0.5 / sqrt(3) = 1.2421
    assert (changed["mean"], changed["low"], changed["n"]) == pytest.approx((0.5, 0.5 - 1.2421, 3), abs=1e-4)
    difference = seed_differences(runs, [start])["overall"]["exact"]
    assert difference["seeds"]["mean"] == difference["rows"]["mean"] == 0.25
    assert (difference["seeds"]["n"], difference["rows"]["n"]) == (3, 4)
    with pytest.raises(InputError, match="seed by seed"):
        seed_differences(runs, runs[:2])


def test_a_constant_answer_can_win() -> None:
    assert compare_baseline([result(0, 1, 0, 0)], "no_change")["unchanged"]["exact"]["mean"] == -0.5


def test_table_in_the_layout_of_the_paper() -> None:
    table = markdown_table(paper_table({"sft": result(1, 0, 0, 0), "rl/seed0": result(1, 1, 0, 1)}))
    assert table.splitlines() == [
        "| model | unchanged (%) | changed (%) | overall (%) |",
        "|---|---:|---:|---:|",
        "| sft | 50.0 [9.5, 90.5] | 0.0 [0.0, 65.8] | 25.0 [4.6, 69.9] |",
        "| rl/seed0 | 100.0 [34.2, 100.0] | 50.0 [9.5, 90.5] | 75.0 [30.1, 95.4] |",
        "| *no_change* | 100.0 [34.2, 100.0] | 0.0 [0.0, 65.8] | 50.0 [15.0, 85.0] |",
    ]
    with pytest.raises(InputError, match="name one of these"):
        paper_table({"sft": result(1, 0, 0, 0)}, "lpips")
