import copy
import json
from typing import Any

import numpy as np
import pytest

from rlvr_world.errors import InputError
from rlvr_world.evaluation.differences import difference
from rlvr_world.evaluation.intervals import bootstrap, relative_bootstrap, wilson
from rlvr_world.evaluation.summary import across_seeds, fingerprint, summarise
from rlvr_world.evaluation.tables import column_of, markdown_table, tables

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


def test_differences_pair_rows() -> None:
    ours, theirs = result(1, 1, *[1] * 20), result(1, 1, *[0] * 10, *[1] * 10)
    changed = difference([ours], [theirs], "changed", "exact")
    assert changed["rows"]["mean"] == 0.5
    assert changed["rows"]["low"] == pytest.approx(0.3, abs=0.06)  # 10 of 20 rows gained
    assert changed["relative"]["mean"] == 1  # twice as many
    assert difference([ours], [theirs], "unchanged", "exact")["rows"]["low"] is None  # two rows


def test_differences_refuse_another_protocol_and_other_rows() -> None:
    ours, theirs = result(1, 1, 1, 1), result(1, 1, 0, 0)
    moved = copy.deepcopy(theirs)
    moved["rows"]["id"].reverse()
    with pytest.raises(InputError, match="different rows"):
        difference([ours], [moved], "overall", "exact")
    theirs |= {"protocol": PROTOCOL | {"max_tokens": 64}, "fingerprint": "f" * 12}
    with pytest.raises(InputError, match="fields that differ: max_tokens"):
        difference([ours], [theirs], "overall", "exact")
    with pytest.raises(InputError, match="max_tokens"):
        tables({"a": ours, "b": theirs})


def test_seeds_by_hand() -> None:
    runs, start = [result(1, 1, 0, 0), result(1, 1, 1, 0), result(1, 1, 1, 1)], result(1, 1, 0, 0)
    changed = across_seeds(runs, "changed", "exact")
    # per-seed means 0, 0.5, 1 of exact, half of them of value: standard deviation 0.5, 4.3027 * 0.5 / sqrt(3) = 1.2421
    assert (changed["mean"], changed["low"], changed["high"], changed["n"]) == (0.5, 0.0, 1.0, 3)  # a share has ends
    value = across_seeds(runs, "changed", "value")
    assert (value["mean"], value["low"]) == pytest.approx((0.25, 0.25 - 1.2421 / 2), abs=1e-4)
    found = difference(runs, [start], "overall", "exact")
    assert found["seeds"]["mean"] == found["rows"]["mean"] == 0.25
    assert found["relative"]["mean"] == found["relative_seeds"]["mean"] == 0.5
    assert (found["seeds"]["n"], found["rows"]["n"]) == (3, 4)
    with pytest.raises(InputError, match="seed by seed"):
        difference(runs, runs[:2], "overall", "exact")


def test_a_constant_answer_can_win() -> None:
    found = difference([result(0, 1, 0, 0)], "no_change", "unchanged", "exact")
    assert found["rows"]["mean"] == found["relative"]["mean"] == -0.5
    assert set(found) == {"rows", "relative"}
    assert set(difference([result(0, 1, 0, 0)], "no_change", "changed", "exact")) == {"rows"}  # nothing to relate to


@pytest.mark.parametrize("shift", [-0.3, -0.02, 0.0, 0.02, 0.3])
def test_relative_and_absolute_intervals_leave_out_0_together(shift: float) -> None:
    draw = np.random.default_rng(3)
    theirs = draw.normal(-1.0, 0.2, 40)  # a reward: its relative change has the sign of its change
    ours = theirs + draw.normal(shift, 0.1, 40)
    relative, absolute = relative_bootstrap(ours, theirs), bootstrap(ours - theirs)
    assert relative is not None
    assert relative.mean == pytest.approx(absolute.mean / abs(theirs.mean()))
    signs = [[b > 0 for b in (i.low, i.mean, i.high) if b is not None] for i in (relative, absolute)]
    assert signs[0] == signs[1]


def frames(*lpips: tuple[float, ...], lower: tuple[str, ...] = ("lpips", "repetition")) -> dict[str, Any]:
    """A row for each tuple, with as many samples, measured in a distance and in its opposite."""
    records = [
        {
            "id": f"clip:{i}",
            "kind": ("fast", "slow")[i % 2],
            "world": "",
            "parts": {"lpips": distance, "psnr": 20 - distance, "repetition": 0.0},
            "value": -distance,
            "malformed": "",
            "baselines": {"copy last frame": {"lpips": 0.2, "psnr": 19.8, "value": -0.2}},
        }
        for i, samples in enumerate(lpips)
        for distance in samples
    ]
    return summarise(records, {"samples": len(lpips[0])}, lower)


def test_best_of_knows_which_way_is_better() -> None:
    overall = frames((0.1, 0.3), (0.4, 0.2))["slices"]["overall"]
    assert {part: cell["mean"] for part, cell in overall["best_of"].items()} == pytest.approx(
        {"lpips": 0.15, "psnr": 19.85, "repetition": 0.0, "value": -0.15}
    )
    undirected = frames((0.1, 0.3), (0.4, 0.2), lower=("mse",))
    assert undirected["lower_is_better"] == []
    assert set(undirected["slices"]["overall"]["best_of"]) == {"value", "repetition"}


def test_deviation_over_sampling_runs() -> None:
    slices = frames((0.1, 0.3), (0.2, 0.2))["slices"]
    assert slices["overall"]["run_std"]["lpips"] == pytest.approx(0.05 * 2**0.5)  # run means 0.15 and 0.25
    assert slices["slow"]["run_std"]["lpips"] == 0
    assert frames((0.1,), (0.2,))["slices"]["overall"]["run_std"] == {}


def test_table_of_several_parts() -> None:
    results = {"sft": frames(*[(0.12, 0.14)] * 10), "rl/seed0": frames(*[(0.11, 0.11)] * 10)}
    assert [table.title for table in tables(results)] == ["overall", "fast", "slow"]
    assert markdown_table(tables(results)[0].rows).splitlines() == [
        "| model | LPIPS (×100) ↓ | PSNR (dB) ↑ | repetition (%) ↓ | reward ↑ |",
        "|---|---:|---:|---:|---:|",
        "| sft | 13.00 ± 1.41 [13.00, 13.00] | 19.87 ± 0.01 [19.87, 19.87] | 0.0 ± 0.0 [0.0, 27.8] |"
        " −0.130 ± 0.014 [−0.130, −0.130] |",
        "| rl/seed0 | 11.00 ± 0.00 [11.00, 11.00] | 19.89 ± 0.00 [19.89, 19.89] | 0.0 ± 0.0 [0.0, 27.8] |"
        " −0.110 ± 0.000 [−0.110, −0.110] |",
        "| *copy last frame* | 20.00 [20.00, 20.00] | 19.80 [19.80, 19.80] | – | −0.200 [−0.200, −0.200] |",
    ]
    assert tables({}) == []


@pytest.mark.parametrize(
    ("part", "level", "text"),
    [("mse", 0.00287, "0.2870"), ("lpips", 0.122, "12.20"), ("psnr", 25.31, "25.31"), ("value", -0.0312, "−0.0312")],
)
def test_as_many_digits_as_a_number_deserves(part: str, level: float, text: str) -> None:
    assert column_of(part, level).text({"mean": level}) == text


def test_names_of_parts() -> None:
    assert [column_of(part).title for part in ("value", "lpips_alex", "exact_published")] == [
        "reward",
        "LPIPS alex",
        "exact_published",
    ]


def test_table_in_the_layout_of_the_paper() -> None:
    table = markdown_table(tables({"sft": result(1, 0, 0, 0), "rl/seed0": result(1, 1, 0, 1)})[0].rows)
    assert table.splitlines() == [
        "| model | unchanged (%) | changed (%) | overall (%) |",
        "|---|---:|---:|---:|",
        "| sft | 50.0 [9.5, 90.5] | 0.0 [0.0, 65.8] | 25.0 [4.6, 69.9] |",
        "| rl/seed0 | 100.0 [34.2, 100.0] | 50.0 [9.5, 90.5] | 75.0 [30.1, 95.4] |",
        "| *no_change* | 100.0 [34.2, 100.0] | 0.0 [0.0, 65.8] | 50.0 [15.0, 85.0] |",
    ]


def test_rows_of_a_world_are_one_unit_where_the_protocol_says_so() -> None:
    rng = np.random.default_rng(0)
    level = np.repeat(rng.normal(0, 1, 20), 5)  # five rows of each of twenty worlds, all alike

    def run(values: np.ndarray, **protocol: str) -> dict[str, Any]:
        records = [
            {"id": f"r{i}", "kind": "", "world": f"w{i // 5}", "parts": {"mae": float(v)}, "value": -float(v)}
            | {"malformed": "", "baselines": {}}
            for i, v in enumerate(values)
        ]
        return summarise(records, PROTOCOL | protocol, ("mae",))

    alike, apart = run(level, resample="world"), run(level)
    one, other = (r["slices"]["overall"]["parts"]["mae"] for r in (alike, apart))
    assert one["mean"] == pytest.approx(other["mean"])
    assert (one["n"], other["n"]) == (20, 100)
    assert one["high"] - one["low"] == pytest.approx(5**0.5 * (other["high"] - other["low"]), rel=0.15)
    worse = run(level + 1, resample="world")
    gap = difference([worse], [alike], "overall", "mae")["rows"]
    assert gap["mean"] == pytest.approx(1)
    assert gap["n"] == 20


def test_rows_in_several_slices_and_a_headline_with_parts_beside_it() -> None:
    kinds = ["changed, held-out seeds", "unchanged, held-out seeds", "changed, held-out tasks", "changed"]
    parts = [{"f1": f1, "precision": f1, "recall": 1.0, "exact": 0.0} for f1 in (0.2, 0.4, 0.8, 0.6)]
    rows = [
        record(i, 0, kind=kind) | {"parts": part, "baselines": {"no change": part}}
        for i, (kind, part) in enumerate(zip(kinds, parts, strict=True))
    ]
    results = {"sft": summarise(rows, PROTOCOL), "rl/seed0": summarise(rows, PROTOCOL)}
    slices = results["sft"]["slices"]
    assert {name: s["rows"] for name, s in slices.items()} == {
        "changed": 3,
        "unchanged": 1,
        "held-out seeds": 2,
        "held-out tasks": 1,
        "overall": 4,
    }
    assert slices["held-out seeds"]["parts"]["f1"]["mean"] == pytest.approx(0.3)
    [table] = tables(results)
    assert (table.title, table.by_slice) == ("f1", True)
    columns = table.columns
    assert [c.title for c in columns[:5]] == ["unchanged", "changed", "held-out seeds", "held-out tasks", "overall"]
    assert [(c.title, c.slice) for c in columns[5:]] == [(p, "overall") for p in ("precision", "recall", "exact")]
    gap = difference([results["rl/seed0"]], [results["sft"]], "held-out seeds", "f1")
    assert gap["rows"]["mean"] == 0
