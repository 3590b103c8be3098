import base64
import gzip
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread, imsave

from rlvr_world.errors import InputError
from rlvr_world.evaluation import report
from rlvr_world.evaluation.differences import comparisons, reading, verdict
from rlvr_world.evaluation.plots import curve, mean_curve, save_heat_map, smooth
from rlvr_world.evaluation.report import LONGEST, packed, side_by_side, text_report, write_report
from rlvr_world.evaluation.summary import summarise
from rlvr_world.evaluation.tables import details, tables
from rlvr_world.types import verb_of

ROWS = 40


def result(name: str, right: int, changed_right: int, samples: int = 1) -> dict[str, Any]:
    """The first ``right`` of the unchanged rows and the first ``changed_right`` of the changed rows are right."""
    records = [
        {
            "id": f"test:{kind}:{i}",
            "kind": kind,
            "world": f"house {i % 3}",
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


def samples(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A prediction of each row of a result; the wrong ones say things that a page must not do."""
    rows = one["rows"]
    columns = (rows["id"], rows["kind"], rows["world"], rows["parts"]["exact"])
    for i, (row, kind, world, exact) in enumerate(zip(*columns, strict=True)):
        about = {"id": row, "kind": kind, "world": world, "action": f"{('open', 'take')[i % 2]} <b>door</b> {i}"}
        score = {
            "parts": {"exact": exact},
            "value": exact,
            "right": exact == 1,
            "reason": "no door" if not exact and i % 4 == 3 else "",
        }
        diff = " door" if exact else " door\n- open: true\n+ open: </pre>\n+ <script>alert(1)</script>"
        yield {**about, **score, "diff": diff, "text": "{}" if exact else "</script><script>alert(2)</script>"}


def unpacked(page: str) -> list[dict[str, Any]]:
    [data] = re.findall(r'<script type="application/gzip" id="packed">([A-Za-z0-9+/=]*)</script>', page)
    found: list[dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(data)))
    return found


def write_timings(run: Path, stages: Iterable[str], steps: Iterable[int], row: dict[str, float]) -> None:
    lines = [json.dumps({"stage": stage, "step": step} | (row if step else {})) for stage in stages for step in steps]
    (run / "timings.jsonl").write_text("\n".join(lines))


def write_run(run: Path, results: list[dict[str, Any]], stages: tuple[str, ...]) -> Path:
    (run / "eval").mkdir(parents=True)
    (run / "config.json").write_text(
        json.dumps({"recipe": f"/home/{'toy' * 40}.py", "summary": "", "rl": {"kl": 0.001, "seeds": [0]}})
    )
    with (run / "metrics.jsonl").open("w") as file:
        for stage in stages:
            for step in range(4):
                line = {"stage": stage, "step": step, "tokens": 100 * step, "loss": 1 / (1 + step)}
                if stage.startswith("rl"):
                    line |= {"reward": 0.1 * step, "accuracy/changed": 0.1 * step, "kl": None}
                if stage != "sft":
                    line["eval/overall/exact"] = 0.2 * step
                file.write(json.dumps(line) + "\n")
        file.write('{"stage": "rl/se')  # cut off while it was written
    write_timings(run, stages, range(4), {"seconds": 2.0, "time/rollout": 0.5})
    for one in results:
        stem = one["name"].replace("/", "-")
        (run / "eval" / f"{stem}.json").write_text(json.dumps(one))
        (run / "eval" / f"samples-{stem}.json").write_text(json.dumps([*samples(one)]))
    states = {f"test:{kind}:{i}": f'{{"door": {i}}}' for kind in ("changed", "unchanged") for i in range(ROWS)}
    (run / "eval" / "states-0a1b2c.json").write_text(json.dumps(states))
    return run


FULL = ("sft", "rl/seed0", "rl/seed1", "control/seed0", "control/seed1")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    results = [
        result("base", 0, 0),
        result("sft", 20, 10),
        result("rl/seed0", 40, 12),
        result("rl/seed1", 40, 12),
        result("control/seed0", 20, 12),
        result("control/seed1", 21, 12),
        result("best-of-2/sft", 20, 10, samples=2),
    ]
    return write_report(write_run(tmp_path_factory.mktemp("text") / "run", results, FULL)).read_text()


def test_page_says_what_came_out(page: str) -> None:
    text = re.sub(r"\s+", " ", page)
    assert (
        "RL beats SFT and the compute-matched control on all rows, but shows no difference on changed rows; "
        "it beats “no_change” on all rows and changed rows."
    ) in text
    assert "rl, mean of 2 seeds" in text
    assert "Results with 2 samples a row" in text
    assert "<td>sft, best of 2</td>" in text
    assert "&#34;kl&#34;: 0.001" in text
    assert page.count("<svg") >= 5
    more = page[page.index("More curves: everything else") :]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", more[: more.index("</details>")]) == ["loss"]


def test_page_is_whole_and_loads_nothing(page: str) -> None:
    assert not re.search(r"""(src|href)=["'](?!#|data:image/)|@import|url\((?!#)""", page)
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", page, re.S)
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", data)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\">" in page
    names = re.findall(r'id="([^"]+)"', page)
    svgs = [set(re.findall(r'<clipPath id="([^"]+)"', svg)) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]
    assert names
    assert len(set.union(*svgs)) == sum(map(len, svgs))  # two pictures that share an id clip each other
    assert not re.search(r"#0a0b0\d", page)  # every stand-in colour became a variable


def test_every_prediction_is_there_side_by_side(page: str) -> None:
    rows = unpacked(page)
    assert len(rows) == 2 * ROWS
    assert "80 of 80 test rows, each as all models predict it. Open one" in page
    models = ["base", "sft", "rl/seed0", "rl/seed1", "control/seed0", "control/seed1"]
    assert all([*row["said"]] == models for row in rows)
    row = next(row for row in rows if row["id"] == "test:changed:15")
    about = {"kind": "changed", "world": "house 0", "verb": "take", "state": '{"door": 15}'}
    assert about.items() <= row.items()
    assert not row["said"]["rl/seed0"]["right"]
    assert row["said"]["rl/seed0"]["reason"] == "no door"
    assert row["said"]["rl/seed0"]["text"] == "</script><script>alert(2)</script>"
    assert "alert(" not in page  # what a model wrote stands packed alone


def test_means_by_world_and_by_verb(page: str) -> None:
    world, verb = (page[page.index(f"<summary>By {name}") :].partition("</details>")[0] for name in ("world", "verb"))
    assert re.findall(r"<th>(\w+) <small>", world) == ["base", "sft", "rl", "control", "no_change"]
    assert re.findall(r"<td>(.*? rows\))", world) == ["house 0 (28 rows)", "house 1 (26 rows)", "house 2 (26 rows)"]
    assert re.findall(r"<td>(.*? rows\))", verb) == ["open (40 rows)", "take (40 rows)"]
    cells = [float(mean) for mean in re.findall(r"<td>(\d+\.\d) <small>", verb)]
    assert cells[:4] == [0.0, 37.5, 65.0, 41.2]  # of 40 rows SFT has 15 right, RL 26, the controls 16 and 17
    assert [verb_of(a) for a in ("take key", "click('12')", "[[0.1]]", "", "öffne Tür")] == [
        "take",
        "click",
        "",
        "",
        "öffne",
    ]


def test_the_page_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"value": 0.0, "right": False, "reason": ""}
    rows = [
        {"id": str(i), "kind": "", "action": "go", "diff": "+ x", "text": f"{i}\n" * 9000, **said} for i in range(100)
    ]
    one = side_by_side({"sft": rows}, {"7": "a" * 5000})[7]
    assert "characters left out" in one["said"]["sft"]["text"]
    assert len(one["state"]) < LONGEST + 100
    drawn = [
        row | {"text": os.urandom(50).hex(), "picture": f"data:image/png;base64,{row['id'] * 500}"} for row in rows
    ]
    monkeypatch.setattr(report, "LARGEST", 6000)
    data, shown = packed(side_by_side({"sft": drawn}, {}))
    kept = json.loads(gzip.decompress(base64.b64decode(data)))
    assert len(data) <= 6000
    assert [row["id"] for row in kept] == [str(i) for i in range(0, 100, 2)]
    assert shown == 50
    assert 0 < sum("picture" in row["said"]["sft"] for row in kept) < 10  # they go first
    assert packed([])[1] == 0


@pytest.mark.parametrize(
    ("results", "stages", "sentence"),
    [
        ([], (), "No model of this run has been evaluated yet."),
        ([result("sft", 20, 10)], ("sft",), "This run has no reinforcement learning yet."),
        (
            [result("sft", 9, 9), result("rl/seed0", 9, 9)],
            ("sft", "rl/seed0"),
            "RL (one seed, no compute-matched control) shows no difference from SFT on all rows and changed rows;",
        ),
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
    assert reading({"rows": unknown}) == "too few to tell"
    assert reading({"rows": below, "relative": above}, lower=True) == "better"
    assert reading({"rows": above, "seeds": above}, lower=True) == "worse"


def test_control_is_compared_seed_by_seed() -> None:
    runs = {name: result(name, n, n) for name, n in (("rl/seed0", 9), ("rl/seed1", 20), ("control/seed1", 20))}
    [control, trivial] = comparisons(runs)[0].rivals
    *_, overall = control.cells.values()
    assert overall
    assert overall["rows"][0].startswith("0.0 [")  # seed 1 with seed 1 alone
    assert trivial.model == "“no_change”"


def strip(error: float) -> str:
    """Truth and prediction side by side, with the error beside them: a square that the model puts somewhere else."""
    frames = np.full((3, 64, 64, 3), 235, np.uint8)
    at = int(12 + 200 * error)
    frames[0, 24:40, 12:28] = frames[1, 24:40, at : at + 16] = (40, 90, 190)
    frames[2] = np.abs(frames[0].astype(int) - frames[1])
    imsave(buffer := io.BytesIO(), np.concatenate(frames, axis=1), format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


LOWER = ("mse", "mae", "lpips", "repetition")
DISTANCES = {"base": 0.65, "sft": 0.14, "control/seed0": 0.139, "rl/seed0": 0.129, "rl/seed1": 0.131, "rl/seed2": 0.13}
DISTANCES |= {"control/seed1": 0.1385, "control/seed2": 0.14}


def measured(distance: float, repeats: bool = False) -> dict[str, float]:
    """What frames at this perceptual distance measure; SSIM hardly follows it."""
    parts = {"mae": distance / 8, "mse": distance**2 / 5, "psnr": 28 - 20 * distance, "ssim": 0.85 - distance / 1000}
    return {**parts, "lpips": distance, "repetition": float(repeats)}


def video_result(name: str, kinds: tuple[str, ...] = ("",), samples: int = 3, clips: int = 48) -> dict[str, Any]:
    draw, own = np.random.default_rng(5), np.random.default_rng(len(name) + round(1000 * DISTANCES[name]))
    records = []
    for clip in range(clips):
        hard, copied = 1 + 0.5 * draw.random(), measured(0.17 + 0.05 * draw.random(), True)
        for _ in range(samples):
            parts = measured(DISTANCES[name] * hard * (1 + 0.03 * own.normal()), own.random() < 2 * DISTANCES[name])
            parts["ssim"] += 0.003 * own.normal()
            floor = measured(0.05 * hard)
            baselines = {"copy last frame": copied, "tokenizer round trip": floor}
            records.append(
                {
                    "id": f"pusht/{clip:03d}:0",
                    "kind": kinds[clip % len(kinds)],
                    "world": "",
                    "parts": parts,
                    "value": -parts["lpips"] - parts["mae"],
                    "malformed": "",
                    "baselines": {k: {**p, "value": -p["lpips"] - p["mae"]} for k, p in baselines.items()},
                }
            )
    protocol = {"domain": "video", "rows": clips, "samples": samples, "temperature": 1.0, "top_k": 100}
    return {"name": name, **summarise(records, protocol, LOWER)}


def write_video_run(run: Path, names: tuple[str, ...] = tuple(DISTANCES)) -> Path:
    """A run folder of a video world: measures instead of right answers, pictures instead of diffs, a tokenizer."""
    (run / "eval").mkdir(parents=True)
    (run / "tokenizer").mkdir()
    (run / "config.json").write_text(
        json.dumps({"recipe": "pusht", "summary": "Push a T", "model": {"source": "scratch"}, "rl": {"kl": 0}})
    )
    draw, lines = np.random.default_rng(0), []
    for stage in ("tokenizer", *(name for name in names if name != "base")):
        for step in range(0, 60, 2):
            gone, noise = step / 60, draw.normal()
            line = {"stage": stage, "step": step, "tokens": 1000 * step, "loss": 3 - 2 * gone}
            if stage == "tokenizer":
                line |= {
                    "l1": 0.1 - 0.08 * gone + 0.003 * noise,
                    "lpips": 0.4 - 0.3 * gone,
                    "code_usage": 0.5 + gone / 3,
                }
                line |= {"eval/lpips": 0.42 - 0.3 * gone, "eval/psnr": 20 + 8 * gone} if step % 10 == 0 else {}
            elif stage.startswith("rl"):
                line |= {"reward": -0.15 + 0.02 * gone + 0.003 * noise, "kl": 0.1 * gone, "malformed": 0.0}
                line |= {"response_length": 64}
            if stage != "tokenizer" and step % 10 == 0:
                start = 0.5 if stage == "sft" else DISTANCES["sft"]
                parts = measured(start + (DISTANCES[stage] - start) * gone**0.5)
                line |= {f"eval/overall/{p}": v for p, v in parts.items() if p in ("ssim", "lpips")}
                line["eval/overall/value"] = -parts["lpips"]
                line["eval/overall/malformed"] = 0.0
            lines.append(json.dumps(line))
    (run / "metrics.jsonl").write_text("\n".join(lines))
    stages = ("tokenizer", *(name for name in names if name != "base"))
    write_timings(run, stages, range(0, 60, 2), {"seconds": 4.0, "time/rollout": 1.0, "time/update": 0.6})
    for name in names:
        stem = name.replace("/", "-")
        (run / "eval" / f"{stem}.json").write_text(json.dumps(video_result(name)))
        about = {"kind": "", "action": "[0.31, −0.25]", "right": None, "reason": "", "value": -DISTANCES[name]}
        pictures = [about | {"id": f"pusht/{i:03d}:0", "picture": strip(DISTANCES[name] / 5)} for i in range(0, 48, 3)]
        (run / "eval" / f"samples-{stem}.json").write_text(json.dumps(pictures))
    (run / "tokenizer" / "reconstruction.json").write_text(
        json.dumps(
            {
                "rows": 200,
                "metrics": {p: {"mean": v, "low": 0.97 * v, "high": 1.03 * v} for p, v in measured(0.05).items()},
                "code_usage": 0.873,
                "restless": 0.25,
                "pictures": [strip(0.02)],
            }
        )
    )
    return run


@pytest.fixture(scope="module")
def video_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video_run(tmp_path_factory.mktemp("video") / "run")


@pytest.fixture(scope="module")
def video_page(video_run: Path) -> str:
    return write_report(video_run).read_text()


def test_page_of_several_measures(video_page: str) -> None:
    text = re.sub(r"\s+", " ", video_page)
    assert (
        "RL beats SFT and the compute-matched control on MAE, MSE, PSNR, LPIPS and reward, "
        "but shows no difference on SSIM and repetition; it beats “copy last frame” on MAE"
    ) in text
    against_copying = re.search(r"it beats “copy last frame” on [^;]*;", text)
    assert against_copying
    assert "repetition" not in against_copying[0]  # copying repeats by definition
    assert "it does worse than “tokenizer round trip” on MAE, MSE, PSNR, LPIPS, repetition and reward" in text
    assert re.search(r"<small>−7\.\d % \[−\d\.\d, −\d\.\d\] over rows</small>", text)
    assert re.search(r"<small>−1\d\.\d % \[−\d\d?\.\d, −\d\d?\.\d\] over seeds</small>", text)
    assert re.search(r"<th>LPIPS ↓<small>×100</small></th>", text)
    assert "<td>rl/seed0, best of 3</td>" in text
    assert "changed rows" not in text
    assert "<dt>changed</dt>" not in text


def test_a_table_for_each_kind_of_row() -> None:
    results = {name: video_result(name, ("near", "near", "far"), samples=1) for name in ("sft", "rl/seed0")}
    rows = {name: slice_["rows"] for name, slice_ in results["sft"]["slices"].items()}
    assert [(t.title, rows[t.title]) for t in tables(results)] == [("overall", 48), ("far", 16), ("near", 32)]
    found = comparisons(results)
    assert [one.table.title for one in found] == ["overall", "far", "near"]
    assert verdict(found).startswith("RL (one seed, no compute-matched control) ")
    first = next(iter(found[0].rivals[0].cells.values()))
    assert first
    assert not first["seeds"]  # one seed says nothing about others
    assert [c.title for c in details(results).columns][-2:] == ["reward", "malformed"]
    assert [row.model for row in details(results).rows] == ["sft", "rl/seed0"]  # of one sample there is no best


def test_pictures_of_every_kind_of_model(video_page: str) -> None:
    assert re.findall(r"pusht/\d+:0", video_page) == [f"pusht/{i:03d}:0" for i in (0, 9, 18, 27, 36, 45)]
    strips = re.findall(r"<article>.*?<table>(.*?)</table>", video_page, re.S)
    assert len(strips) == 6
    for one in strips:
        assert re.findall(r"<tr><td>(.*?)<small>reward", one) == ["base", "sft", "rl/seed0", "control/seed0"]
        assert len(re.findall(r'<img src="data:image/png;base64,', one)) == 4
        assert "given" not in one
    assert len(unpacked(video_page)) == 16


def test_a_picture_is_nothing_but_a_picture(tmp_path: Path) -> None:
    run = write_video_run(tmp_path / "run", ("sft",))
    (run / "metrics.jsonl").unlink()
    sample = {"id": "a", "kind": "", "action": "", "right": None, "reason": "", "value": 0.0}
    samples = [sample | {"picture": "https://example.org/x.png"}, sample | {"picture": 'data:image/png,"><script>'}]
    (run / "eval" / "samples-sft.json").write_text(json.dumps(samples))
    page = write_report(run).read_text()
    assert "The visual tokenizer</h2>" in page  # measured, though nothing was logged of its training
    assert "example.org" not in page
    assert '"><script>' not in page.partition("<body>")[2]


def test_the_tokenizer_has_its_section(video_page: str, page: str) -> None:
    section = video_page[video_page.index("The visual tokenizer</h2>") :]
    section = section[: section.index("<h2>")]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", section) == [
        "loss",
        "l1",
        "LPIPS (×100)",
        "code_usage (%)",
        "PSNR (dB)",
    ]
    assert "validation" in section
    assert "5.000 [4.850, 5.150]" in section  # LPIPS ×100
    assert "87.3 % of the codes" in section
    assert "where no pixel changes 25.0 % change" in section
    assert section.count("<img") == 1
    assert "visual tokenizer" not in page


def test_held_out_curves_of_every_measure(video_page: str) -> None:
    section = video_page[video_page.index("Held-out measures") : video_page.index("<h2>Reinforcement")]
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", section)
    assert titles == ["SSIM (×100) ↑", "LPIPS (×100) ↓", "reward ↑"]
    assert ">Malformed answers" not in video_page  # nothing to see
    assert ">Response length" not in video_page


def published(name: str, right: int, changed_right: int) -> dict[str, Any]:
    """As a text game is measured: the published scoring finds one more right answer."""
    records = [
        {"id": f"{kind}{i}", "kind": kind, "world": "", "malformed": "", "value": float(i < limit)}
        | {"parts": {"exact": float(i < limit), "exact_published": float(i <= limit)}, "baselines": {}}
        for kind, limit in (("unchanged", right), ("changed", changed_right))
        for i in range(ROWS)
    ]
    return {"name": name, **summarise(records, {"rows": 2 * ROWS})}


def test_text_report_has_one_table_and_one_verdict_a_protocol(tmp_path: Path) -> None:
    results = [published("sft", 20, 10), published("rl/seed0", 40, 12), published("rl/seed1", 40, 14)]
    text = text_report(write_run(tmp_path / "run", results, FULL))
    said = "beats SFT on all rows and exact_published, but shows no difference on changed rows."
    assert text.count("| model |") == text.count(f"RL (no compute-matched control) {said}") == 1
    assert "| model | unchanged (%) | changed (%) | overall (%) | exact_published (%) |" in text
    assert re.search(r"\| sft \| 50\.0 \[.*\] \| 25\.0 \[.*\] \| 37\.5 \[.*\] \| 40\.0 \[", text)
    assert "| rl, mean of 2 seeds | 100.0 [100.0, 100.0] | 32.5 [" in text
    [bullet] = re.findall(r"^- .*", text, re.M)
    start = r"- RL minus SFT: unchanged \+50\.0 \["
    assert re.match(start + r".* \(over seeds \+50\.0 \[.*; exact_published \+2", bullet)


def test_text_report_of_several_measures(video_run: Path) -> None:
    text = text_report(video_run)
    assert (
        "| model | MAE (×100) ↓ | MSE (×100) ↓ | PSNR (dB) ↑ | SSIM (×100) ↑ | LPIPS (×100) ↓ | repetition (%) ↓ |"
        in text
    )
    assert re.search(r"- RL minus SFT:\n  - MAE −7\.\d % \[.*\], −0\.\d+ \[.*\] \(over seeds −7", text)
    assert "training time: tokenizer 1 min 56 s, sft" in text


def test_heat_map_colours_each_column_from_worst_to_best(tmp_path: Path) -> None:
    names, values = ["LPIPS", "PSNR"], [[12.2, 25.1], [13.0, 25.9]]
    file = save_heat_map(tmp_path / "map.png", names, names, values, "reward <x> metric", {"LPIPS"})
    assert file == tmp_path / "map.png"
    picture = imread(file)[..., :3]
    full, blank = (colormaps["Blues"](share)[:3] for share in (0.5, 0.0))
    rows, columns = np.nonzero(np.abs(picture - full).max(-1) < 0.01)
    middle = [(rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2]
    quadrants = {(bool(y > middle[0]), bool(x > middle[1])) for y, x in zip(rows, columns, strict=True)}
    assert quadrants == {(False, False), (True, True)}  # column by column: the lower LPIPS, the higher PSNR
    assert (np.abs(picture - blank).max(-1) < 0.01).any()


def test_curves_by_hand() -> None:
    logged = [{"stage": "rl/seed0", "step": i, "kl": value} for i, value in enumerate((0.5, None, 0.7))]
    assert curve([*logged, {"stage": "sft", "step": 9, "kl": 1.0}], "rl/seed0", "kl", "step", 2) == ([0, 2], [1, 1.4])
    assert curve(logged, "rl/seed0", "never", "step", 1) == ([], [])
    assert mean_curve([([0, 1, 2], [0, 2, 4]), ([0, 3], [2, 4])]) == ([0, 2], [1, 3])
    assert smooth([0, 3, 6, 9], 3) == [1.5, 3, 6, 7.5]
    assert smooth([0, 3], 0) == [0, 3]


def test_what_guards_did_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [result("sft", 20, 10)], ("sft", "rl/seed0"))
    assert 'chip wrong">guard' not in write_report(run).read_text()
    (run / "halted.json").write_text(json.dumps({"said": "step 9: <nothing> was learned"}))
    (run / "rl" / "seed0" / "damaged-step-000004").mkdir(parents=True)
    (run / "rl" / "seed0" / "ended.json").write_text(json.dumps({"step": 7, "reason": "kl is 30"}))
    (run / "faults" / "sft-000003").mkdir(parents=True)
    (run / "faults" / "sft-000003" / "fault.json").write_text(json.dumps({"stage": "sft", "step": 3, "said": "NaN"}))
    page = write_report(run).read_text()
    told = ["step 9: &lt;nothing&gt; was learned", "rl/seed0 ended with step 7: kl is 30."]
    told += ["sft, step 3: NaN; kept in faults/sft-000003.", "rl/seed0/damaged-step-000004 was put aside."]
    assert all(text in page for text in told)
