import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlvr_world.errors import InputError
from rlvr_world.evaluation.findings import findings, reading
from rlvr_world.evaluation.plots import mean_curve, smooth
from rlvr_world.evaluation.report import write_report
from rlvr_world.evaluation.summary import summarise

ROWS = 40


def result(name: str, right: int, changed_right: int, samples: int = 1) -> dict[str, Any]:
    """The first ``right`` of the unchanged rows and the first ``changed_right`` of the changed rows are right."""
    records = [
        {
            "id": f"test:{kind}:{i}",
            "kind": kind,
            "world": "",
            "parts": {"exact": float(i < limit)},
            "value": float(i < limit),
            "malformed": "",
            "baselines": {"no_change": {"exact": float(kind == "unchanged"), "value": 0.0}},
        }
        for kind, limit in (("unchanged", right), ("changed", changed_right))
        for i in range(ROWS)
        for _ in range(samples)
    ]
    return {"name": name, **summarise(records, {"rows": 2 * ROWS, "samples": samples})}


def write_run(run: Path, results: list[dict[str, Any]], stages: tuple[str, ...]) -> Path:
    (run / "eval").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"recipe": "toy", "rl": {"kl": 0.001, "seeds": [0]}}))
    with (run / "metrics.jsonl").open("w") as file:
        for stage in stages:
            for step in range(4):
                line = {
                    "stage": stage,
                    "step": step,
                    "tokens": 100 * step,
                    "seconds": 2.0 * step,
                    "loss": 1 / (1 + step),
                }
                if stage.startswith("rl"):
                    line |= {"reward": 0.1 * step, "accuracy/changed": 0.1 * step, "kl": None, "time/rollout": 0.5}
                if stage != "sft":
                    line["eval/overall/exact"] = 0.2 * step
                file.write(json.dumps(line) + "\n")
        file.write('{"stage": "rl/se')  # cut off while it was written
    for one in results:
        stem = one["name"].replace("/", "-")
        (run / "eval" / f"{stem}.json").write_text(json.dumps(one))
        sample = {"id": "test:0", "kind": "changed", "action": "open <b>door</b>", "reason": "", "value": 0.0}
        shown = [
            sample
            | {"right": False, "diff": " door\n- open: true\n+ open: </pre>", "text": "<script>alert(1)</script>"},
            sample | {"right": True, "diff": ""},
        ]
        (run / "eval" / f"samples-{stem}.json").write_text(json.dumps(shown))
    return run


FULL = ("sft", "rl/seed0", "rl/seed1", "control/seed0", "control/seed1")


@pytest.fixture
def page(tmp_path: Path) -> str:
    results = [
        result("base", 0, 0),
        result("sft", 20, 10),
        result("rl/seed0", 40, 12),
        result("rl/seed1", 40, 12),
        result("control/seed0", 20, 12),
        result("control/seed1", 21, 12),
        result("best-of-2/sft", 20, 10, samples=2),
    ]
    return write_report(write_run(tmp_path / "run", results, FULL)).read_text()


def test_page_says_what_came_out(page: str) -> None:
    text = re.sub(r"\s+", " ", page)
    assert "RL beats SFT, the compute-matched control and the trivial answer" in text
    assert (
        "On changed rows it beats the trivial answer “no_change”, "
        "but shows no difference from SFT and the compute-matched control."
    ) in text
    assert "rl, mean of 2 seeds" in text
    assert "Results with 2 samples a row" in text
    assert "exact (best of 2)" in text
    assert "rl.kl" in text
    assert page.count("<svg") >= 5


def test_page_is_whole_and_loads_nothing(page: str) -> None:
    assert not re.search(r"""(src|href)=["'](?!#)|@import|url\((?!#)|<script""", page)
    names = re.findall(r'id="([^"]+)"', page)
    svgs = [set(re.findall(r'<clipPath id="([^"]+)"', svg)) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]
    assert names
    assert len(set.union(*svgs)) == sum(map(len, svgs))  # two pictures that share an id clip each other
    assert not re.search(r"#0a0b0\d", page)  # every stand-in colour became a variable


def test_text_of_the_model_is_escaped(page: str) -> None:
    assert "&lt;script&gt;alert(1)" in page
    assert "+ open: &lt;/pre&gt;" in page
    assert "open &lt;b&gt;door" in page


@pytest.mark.parametrize(
    ("results", "stages", "sentence"),
    [
        ([], (), "No model has been evaluated yet."),
        ([result("sft", 20, 10)], ("sft",), "No reinforcement learning has been run yet."),
        ([result("sft", 9, 9), result("rl/seed0", 9, 9)], ("sft", "rl/seed0"), "No compute-matched control was run"),
        ([result("sft", 9, 9), result("rl/seed0", 9, 9)], ("sft", "rl/seed0"), "but shows no difference from SFT."),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, results: list[dict[str, Any]], stages: tuple[str, ...], sentence: str
) -> None:
    page = write_report(write_run(tmp_path / "run", results, stages)).read_text()
    assert sentence in re.sub(r"\s+", " ", page)


def test_same_run_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [result("sft", 20, 10)], ("sft",))
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a run folder: expected a file config\.json"):
        write_report(tmp_path)


def test_reading_needs_every_interval() -> None:
    above, across, unknown = {"low": 0.1, "high": 0.3}, {"low": -0.1, "high": 0.3}, {"low": None, "high": None}
    below = {"low": -0.3, "high": -0.1}
    assert reading({"rows": above, "seeds": above}) == "better"
    assert reading({"rows": above, "seeds": unknown}) == "better"
    assert reading({"rows": above, "seeds": across}) == "no difference shown"
    assert reading({"rows": below}) == "worse"
    assert reading({"rows": unknown}) == "no difference shown"


def test_control_is_compared_seed_by_seed() -> None:
    runs = {name: result(name, n, n) for name, n in (("rl/seed0", 9), ("rl/seed1", 20), ("control/seed1", 20))}
    [control, trivial] = findings(runs)["findings"]
    assert control["cells"][-1]["rows"].startswith("0.0 [")  # seed 1 with seed 1 alone
    assert trivial["theirs"] == "the trivial answer “no_change”"


def test_curves_by_hand() -> None:
    assert mean_curve([([0, 1, 2], [0, 2, 4]), ([0, 3], [2, 4])]) == ([0, 2], [1, 3])
    assert smooth([0, 3, 6, 9], 3) == [1.5, 3, 6, 7.5]
    assert smooth([0, 3], 0) == [0, 3]
