"""The web-page recipes from row files: splits, a model from scratch, and what the published settings read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.recipes import find


def write_rows(path: Path, tasks: int, seeds: int) -> Path:
    """Rows of pages with two buttons; the one that is clicked gets the focus."""
    rows = []
    for task in range(tasks):
        for seed in range(seeds):
            page = f"[1] RootWebArea 'task {task}'\n\t[2] button 'go {seed}'\n\t[3] button 'stop {seed}'"
            after = page.replace(f"'go {seed}'", f"'go {seed}' focused: True") if seed % 2 else page
            rows.append({"task": f"task{task}", "seed": seed, "step": 0, "observation": page, "action": "click [2]",
                         "next_observation": after, "error": ""})  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_miniwob_from_files(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", tasks=5, seeds=12)
    items = ["data.source=files", f"data.train={file}", "model.hidden=16", "model.layers=1", "model.heads=2"]
    recipe = find("miniwob")
    config = override(recipe.config(), items)
    splits = recipe.splits(config)
    assert {row.kind for row in splits.train} == {"changed", "unchanged"}
    assert {"changed, held-out seeds", "changed, held-out tasks"} <= {row.kind for row in splits.test}
    mixed = splits.rl_epoch(0, 0)
    changed = sum(row.kind == "changed" for row in mixed)
    assert len(mixed) - changed == round(config.data.unchanged_per_hundred * changed / 100)

    model, tokenizer = recipe.new_model(config, splits, tmp_path)
    domain = recipe.domain(config, model, tokenizer, None)
    for row in splits.test:
        target = domain.encode(row).tail[0].target
        assert target is not None
        assert domain.score(domain.decode([target[:-1]], row), row).value == 1


def test_own_test_rows(tmp_path):
    files = [write_rows(tmp_path / f"{name}.jsonl", tasks=2, seeds=10) for name in ("train", "test")]
    items = ["data.source=files", f"data.train={files[0]}", f"data.test={files[1]}"]
    splits = find("miniwob").splits(override(find("miniwob").config(), items))
    assert len(splits.test) == 20
    assert len(splits.train) + len(splits.valid) == 20
    assert {row.kind for row in splits.test} == {"changed", "unchanged"}


def test_real_pages_are_others_than_those_of_the_rows():
    pytest.importorskip("playwright", reason="pip install 'rlvr-world[web]'")
    recipe = find("miniwob")
    config = override(recipe.config(), ["data.env.tasks=one,two", "data.env.seed=5", "data.env.episodes=10"])
    real = recipe.real(config)
    real._browser = SimpleNamespace(site=SimpleNamespace(tasks={"one": None, "two": None}))
    assert [real.begin(seed, {}) for seed in (0, 1)] == [("one", 15), ("two", 16)]


def test_published_settings():
    config = find("webarena-published").config()
    assert (config.data.label, config.data.scoring, config.data.style) == ("published", "published", "row")
    assert (config.data.max_prompt, config.data.max_response) == (5000, 7288)
    assert (config.rl.prompts, config.rl.group, config.rl.minibatches) == (64, 5, 4)
    assert (config.rl.optimizer.learning_rate, config.rl.kl) == (1e-6, 0.001)
    assert (config.model.lora_rank, config.model.lora_alpha) == (32, 16)
    with pytest.raises(
        InputError, match=r"thuml/webarena-world-model-cot: no such folder, and the hub gave no data set"
    ):
        find("webarena-published").splits(config)
    with pytest.raises(InputError, match=r"data\.train"):
        find("webarena-published").splits(override(config, ["data.train="]))


def test_rows_left_out_and_rows_that_do_not_read_are_counted(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", tasks=4, seeds=12)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    twins = [{**row, "seed": row["seed"] + 100} for row in rows]
    lost = {**rows[0], "error": "timeout", "next_observation": "[1] RootWebArea ''"}
    file.write_text("\n".join(map(json.dumps, [*rows, *twins, lost])))
    recipe = find("miniwob")
    config = override(recipe.config(), ["data.source=files", f"data.train={file}"])
    splits = recipe.splits(config)
    gone, seen = splits.left_out.values()
    assert gone == 1
    assert seen > 0, "a page looks the same under two seeds"
    assert seen == len(rows) + len(twins) - len(splits.train) - len(splits.valid) - len(splits.test)
    assert recipe.row_faults(config) == []
    with file.open("a") as out:
        out.write("\n{half\n[]\n" + json.dumps({**rows[0], "action": 3}))
    said = recipe.row_faults(config)
    assert [f"row {98 + i}" in fault for i, fault in enumerate(said)] == [True] * 3


def test_rows_that_do_not_read_can_be_skipped_and_are_counted(tmp_path, capsys):
    file = write_rows(tmp_path / "rows.jsonl", tasks=4, seeds=12)
    recipe = find("miniwob")
    settings = ["data.source=files", f"data.train={file}"]
    whole = recipe.splits(override(recipe.config(), settings))
    rows = file.read_text().splitlines()
    rows[5:5] = ["{half", json.dumps({**json.loads(rows[0]), "action": "fly [2]"})]
    file.write_text("\n".join(rows))
    with pytest.raises(InputError, match="row 6: expected the line to be JSON"):
        recipe.splits(override(recipe.config(), settings))
    splits = recipe.splits(override(recipe.config(), [*settings, "data.skip_faulty=true"]))
    assert splits.left_out["rows that do not read"] == 2
    assert [row.state for row in splits.train] == [row.state for row in whole.train]
    assert "left out: 2 rows that do not read, the first: " in capsys.readouterr().err
    file.write_text("{half")
    with pytest.raises(InputError, match="expected at least one web-page row that reads, got none"):
        recipe.splits(override(recipe.config(), [*settings, "data.skip_faulty=true"]))
