"""Published rows of text games and web pages: asked in their own words, to the byte, and trained on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import cli
from rlvr_world.config import Config
from rlvr_world.errors import InputError
from rlvr_world.models.loading import load_model
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.types import Script
from tests.recipes import published_layout as published

MODEL = ["threads=1", "model.device=cpu", "model.precision=float32", "model.lora_rank=2"]
SMALL = [*MODEL, "eval.rows=2", "eval.valid_rows=2"]
UPDATES = ["sft.steps=2", "sft.batch=2", "rl.steps=1", "rl.prompts=2", "rl.group=2"]
STEPS = [*UPDATES, "rl.minibatches=1", "rl.eval_every=0"]
GAMES = {"published-1.5b-binary", "published-1.5b-task-specific", "published-7b-binary"}
WEB = ["data.max_prompt=5000", "data.max_response=24"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.language_model(tmp_path_factory.mktemp("model") / "qwen")


def config(recipe: str, model: Path, *changes: str) -> Config:
    return override(find(recipe).config(), [*SMALL, f"model.source={model}", *changes])


def asked(script: Script, tokenizer: Any) -> bytes:
    """What stands between the marks of the user's turn."""
    text = tokenizer.decode(list(script.prompt), clean_up_tokenization_spaces=False)
    return str(text).partition("<|User|>")[2].rpartition("<|Assistant|>")[0].encode()


@pytest.mark.parametrize("recipe", sorted(GAMES))
def test_real_game_rows_are_asked_byte_by_byte(shared: Path, tmp_path: Path, model: Path, recipe: str) -> None:
    with gzip.open(shared / "data" / "bytesized32" / "test.jsonl.gz") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(60), strict=False)]
    records = [published.game_record(row, i) for i, row in enumerate(rows)]
    file = published.parquet(tmp_path / "test.parquet", records)
    settings = config(recipe, model, f"data.train={file}", f"data.test={file}", "data.max_prompt=30000", "sft.steps=0")
    settings = override(settings, ["control.enabled=false"])
    loaded, tokenizer = load_model(str(model))
    domain = find(recipe).domain(settings, loaded, tokenizer, None)  # no rules are needed
    test = find(recipe).splits(settings).test
    assert len(test) == len(records)
    for row, record in zip(test, records, strict=True):
        assert asked(domain.encode(row), tokenizer) == record["prompt"][0]["content"].encode()


def test_real_pages_are_asked_byte_by_byte(shared: Path, tmp_path: Path, model: Path) -> None:
    with gzip.open(shared / "data" / "web" / "real.jsonl.gz") as lines:
        rows = [row for row in map(json.loads, lines) if row["format"] == "webarena"]
    assert rows
    record = published.page_record(0)
    head = record["prompt"][0]["content"].partition("URL: ")[0]
    records = []
    for row in rows:
        fields = ("url", "goal", "observation", "action")
        url, goal, page, action = (str(row.get(name) or "") for name in fields)
        text = (
            f"{head}URL: {url}\n OBJECTIVE: {goal}\n PREVIOUS ACTION: None\n CURRENT OBSERVATION: {page}\n "
            f"CURRENT ACTION: {action}\n \n Please give the result directly."
        )
        prompt = [{"content": text, "role": "user"}]
        records.append({**record, "prompt": prompt, "question": text, "next_state_acctree": row["next_observation"]})
    file = published.parquet(tmp_path / "test.parquet", records)
    settings = config("webarena-published", model, f"data.train={file}", f"data.test={file}", "data.max_prompt=90000")
    loaded, tokenizer = load_model(str(model))
    domain = find("webarena-published").domain(settings, loaded, tokenizer, None)
    test = find("webarena-published").splits(settings).test
    assert len(test) == len(records)
    for row, made in zip(test, records, strict=True):
        assert asked(domain.encode(row), tokenizer) == made["prompt"][0]["content"].encode()


def test_a_text_game_run_from_the_published_files(
    tmp_path: Path, model: Path, house_records: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [published.game_record(row, i) for i, row in enumerate(house_records(40))]
    train, test = (
        published.parquet(tmp_path / f"{n}.parquet", records[20 * i : 20 * i + 20])
        for i, n in enumerate(("train", "test"))
    )
    cot = published.parquet(tmp_path / "generated_cot.parquet", list(map(published.taught, records[:8])))
    rows = [f"data.train={train}", f"data.test={test}", f"data.sft_train={cot}", "data.max_response=24"]
    settings = config("published-1.5b-binary", model, *rows)
    sft = find(settings.recipe).splits(settings).sft
    assert {(row.next_state, row.kind) for row in sft} == {(None, "")}
    assert all(row.reasoning.endswith("```") and row.prompt for row in sft)
    run = tmp_path / "run"
    assert cli.main(["train", settings.recipe, f"model.source={model}", *SMALL, *STEPS, *rows, "--out", str(run)]) == 0
    stages = {stage: max((run / stage).glob("step-*")) for stage in ("sft", "rl/seed0", "control/seed0")}
    assert {stage: (folder / "adapter").is_dir() for stage, folder in stages.items()} == {
        "sft": True,  # adapters of SFT, every weight in RL: in one run
        "rl/seed0": False,
        "control/seed0": False,
    }
    question = {"state": {"objects": []}, "action": "look", "prompt": records[0]["prompt"][0]["content"]}
    (tmp_path / "asked.jsonl").write_text(json.dumps(question))
    capsys.readouterr()
    assert cli.main(["predict", str(run), str(tmp_path / "asked.jsonl")]) == 0
    assert capsys.readouterr().out
    with pytest.raises(InputError, match=r"generated_cot.parquet, row 1, .*expected a game state, got text; data\.sft"):
        find(settings.recipe).splits(override(settings, [f"data.test={cot}"]))


def test_a_row_without_a_prompt_of_its_own_says_so(tmp_path: Path, model: Path, house: Any, house_records: Any) -> None:
    file = house(house_records(8))
    settings = config("published-1.5b-binary", model, f"data.train={file}", f"data.test={file}", "sft.steps=0")
    settings = override(settings, ["control.enabled=false"])
    loaded, tokenizer = load_model(str(model))
    recipe = find(settings.recipe)
    with pytest.raises(InputError, match=r"expected a prompt of its own .* data\.style\.row=false"):
        recipe.domain(settings, loaded, tokenizer, None).encode(recipe.splits(settings).test[0])


ODD = ["page_focus [1]", "none", "clear [2]", "type []", "type [0535]"]


def test_a_web_run_from_the_published_files(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [published.page_record(i, "click [3]" if i < 20 else ODD[i % 5]) for i in range(30)]
    records.append(published.page_record(30) | {"next_state_acctree": "<html>"})
    records.append(published.page_record(31, indent="    "))
    train = published.parquet(tmp_path / "data" / "train.parquet", records)
    test = published.parquet(tmp_path / "data" / "test.parquet", records[:5])
    rows = [f"data.train={train}", f"data.test={test}", *WEB]
    splits = find("webarena-published").splits(config("webarena-published", model, *rows))
    assert splits.left_out["rows that do not read"] == 1
    everything = [*splits.train, *splits.valid]
    assert sorted({row.action for row in everything}) == sorted({"click [3]", *ODD})
    assert {row.state.previous.partition(" ")[0] for row in everything} == {"Attempt"}
    run = ["train", "webarena-published", f"model.source={model}", *SMALL, *STEPS, *rows]
    assert cli.main([*run, "--out", str(tmp_path / "run")]) == 0
    assert not (max((tmp_path / "run" / "rl" / "seed0").glob("step-*")) / "adapter").exists()
    assert "left out: 1 rows that do not read, the first:" in capsys.readouterr().err


def test_built_prompts_of_odd_rows_need_the_grammar(tmp_path: Path, model: Path) -> None:
    file = published.parquet(tmp_path / "rows.parquet", [published.page_record(i, a) for i, a in enumerate(ODD * 4)])
    settings = config("webarena-published", model, f"data.train={file}", "data.style=published", "data.test=")
    splits = find("webarena-published").splits(override(settings, ["data.split.test=0.3"]))
    assert splits.left_out["rows that do not read"] == 8  # type [] and type [0535]


def test_rules_in_the_three_files_of_gpt_simulator(tmp_path: Path) -> None:
    from rlvr_world.domains.text_game.prompt import Rules

    for kind in ("object", "action", "score"):
        (tmp_path / f"{kind}_rules.json").write_text(json.dumps({"lamp": f" the {kind}s "}))
    rules = Rules.load(tmp_path)
    rules.save(tmp_path / "rules.json")
    assert rules.for_game("lamp") == Rules.load(tmp_path / "rules.json").for_game("lamp") == (
        "the objects", "the actions", "the scores"
    )  # fmt: skip
    (tmp_path / "score_rules.json").unlink()
    with pytest.raises(InputError, match=r"score_rules\.json: no such rules file"):
        Rules.load(tmp_path)
