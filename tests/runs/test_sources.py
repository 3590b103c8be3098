"""A run stands on the bytes that it began with: what is changed under it is said, or refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import cli
from rlvr_world.config import Config, ModelConfig
from rlvr_world.domains.text_game.config import TextGameConfig
from rlvr_world.errors import InputError
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.runs import runner, sources
from rlvr_world.runs.checkpoints import latest
from rlvr_world.system import files
from rlvr_world.system.files import digest

TINY = """model.vocabulary=300 model.layers=1 model.hidden=32 model.heads=2 model.precision=float32 model.device=cpu
sft.steps=2 sft.batch=4 rl.steps=1 rl.seeds=0 rl.prompts=2 rl.group=2 rl.eval_every=0 rl.drop_zero_variance=false
control.enabled=false data.max_response=10 data.split.valid=0.2
eval.rows=3 eval.valid_rows=2 guards.still_steps=0 threads=1""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def rows(house: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(house(30), tmp_path_factory.mktemp("rows")))


@pytest.fixture(scope="module")
def trained(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = override(find("bytesized32").config(), [*TINY, f"data.train={rows}", f"data.test={rows}"])
    runner.train(config, folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained: Path, rows: Path, tmp_path: Path) -> Path:
    """A copy that stands on rows of its own, to be spoiled."""
    run, own = Path(shutil.copytree(trained, tmp_path / "run")), shutil.copy(rows, tmp_path / "own.jsonl.gz")
    file = run / "config.json"
    file.write_text(file.read_text().replace(json.dumps(str(rows)), json.dumps(str(own))))
    return run


def test_paths_are_absolute_where_they_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "more.jsonl", "scratch/config.json", "shards/test.parquet"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    data = TextGameConfig(train="*.jsonl", test="shards:test", sft_train="owner/name:train", rules="~/rules.json")
    rooted = sources.rooted(Config(data=data, model=ModelConfig("scratch")))
    assert (rooted.data.train, rooted.data.test) == (f"{tmp_path}/*.jsonl", f"{tmp_path}/shards:test")
    assert (rooted.data.sft_train, rooted.data.rules) == ("owner/name:train", "~/rules.json")
    assert (rooted.model.source, rooted.data.cache) == ("scratch", "~/.cache/rlvr_world")
    assert sources.rooted(rooted) == rooted
    own = sources.rooted(Config(data=TextGameConfig(cache="kept"), model=ModelConfig("shards")))
    assert (own.data.cache, own.model.source) == (f"{tmp_path}/kept", f"{tmp_path}/shards")


def test_a_digest_is_of_all_bytes_but_of_times_where_they_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert digest(tmp_path / "none") == digest() == ""
    for name in ("a", "in/b"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(name)
    first = digest(tmp_path / "set")
    assert first.startswith("sha256 ")
    assert first.endswith(", 2 files, 5 bytes")
    assert digest(Path(shutil.copytree(tmp_path / "set", tmp_path / "copy"))) == first
    os.utime(tmp_path / "set/a", (1, 1))
    (tmp_path / "set/.notes").write_text("of an editor")
    assert digest(tmp_path / "set") == first
    (tmp_path / "set/in/b").write_text("in/c")
    assert digest(tmp_path / "set") != first
    (tmp_path / "copy/a").rename(tmp_path / "copy/c")
    assert digest(tmp_path / "copy") != first
    monkeypatch.setattr(files, "WHOLE", 4)
    large = digest(tmp_path / "set")
    assert large.startswith("times ")
    os.utime(tmp_path / "set/a", (2, 2))
    assert digest(tmp_path / "set") != large
    assert digest(tmp_path / "set/a").startswith("sha256 ")


def test_a_run_names_what_it_began_with(trained: Path, rows: Path) -> None:
    stored = json.loads((trained / "config.json").read_text())
    assert stored["data"]["train"] == str(rows)
    assert stored[sources.SOURCES] == {"data.train": digest(rows), "data.test": digest(rows)}
    assert runner.stored_config(trained).data.train == str(rows)


def test_other_rows_are_refused_until_they_are_allowed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = run.parent / "own.jsonl.gz"
    was = digest(own)
    own.write_bytes(own.read_bytes() + own.read_bytes())
    now = digest(own)
    said = f"data.train: it is not what {run} began with: expected {was}, got {now} at {own}; put it back, or take "
    for verb in (["resume", run], ["replay", run, "0/0/0"], ["study", "actions", run]):
        assert cli.main([*map(str, verb)]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["eval", str(run)]) == 0  # its result says which rows it is of
    assert said.partition(";")[0] in capsys.readouterr().err
    stored = json.loads((run / "config.json").read_text())
    stored[sources.SOURCES] = {}
    (run / "config.json").write_text(json.dumps(stored))
    assert cli.main(["resume", str(run)]) == 0
    assert json.loads((run / "config.json").read_text())[sources.SOURCES]["data.train"] == now


def test_a_file_that_moved_is_what_it_was(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = (run.parent / "own.jsonl.gz").rename(run.parent / "moved.jsonl.gz")
    assert cli.main(["resume", str(run)]) == 2
    assert "own.jsonl.gz: no such file" in capsys.readouterr().err
    assert sources.check(run, runner.stored_config(run))["data.train"] == digest(own)
    assert "data.train: it is not what" in (said := capsys.readouterr().err)
    assert "got nothing at" in said
    file = run / "config.json"
    file.write_text(file.read_text().replace("own.jsonl.gz", own.name))
    assert cli.main(["resume", str(run)]) == 0
    assert "began with" not in capsys.readouterr().err


def test_of_large_sets_new_times_are_said_and_other_sizes_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "WHOLE", 10)
    own, config = run.parent / "own.jsonl.gz", runner.stored_config(run)
    stored = json.loads((run / "config.json").read_text())
    stored[sources.SOURCES] = {"data.train": digest(own)}
    (run / "config.json").write_text(json.dumps(stored))
    assert sources.check(run, config)["data.train"] == digest(own)
    assert not capsys.readouterr().err
    os.utime(own, (1, 1))
    assert sources.check(run, config)["data.train"] == stored[sources.SOURCES]["data.train"]
    assert "data.train: it is not what" in capsys.readouterr().err
    own.write_bytes(own.read_bytes() + b"\n")
    with pytest.raises(InputError, match=r"data\.train: .* expected times .* got times"):
        sources.check(run, config)


def test_a_model_folder_and_a_commit_of_the_hub_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer.json").write_text("{}")
    (tmp_path / "sft/step-000001").mkdir(parents=True)
    config = Config(model=ModelConfig(str(tmp_path / "model")))
    (tmp_path / "config.json").write_text(json.dumps({sources.SOURCES: sources.check(tmp_path, config)}))
    (tmp_path / "model/tokenizer.json").write_text("{ }")
    with pytest.raises(InputError, match=r"model\.source: it is not what .* began with: expected sha256 .*, 2 bytes"):
        sources.check(tmp_path, config)
    monkeypatch.setattr(sources.constants, "HF_HUB_CACHE", str(tmp_path))
    head = tmp_path / "models--owner--name/refs/main"
    head.parent.mkdir(parents=True)
    head.write_text("abc")
    config = Config(model=ModelConfig("owner/name"))
    (tmp_path / "config.json").write_text(json.dumps({sources.SOURCES: {"model.source": "sha256 of commit abc"}}))
    assert sources.check(tmp_path, config) == {"model.source": "sha256 of commit abc"}
    head.write_text("def")
    with pytest.raises(InputError, match="expected sha256 of commit abc, got sha256 of commit def at owner/name"):
        sources.check(tmp_path, config)


def test_a_run_that_has_trained_nothing_takes_what_is_there(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    config = Config(data=TextGameConfig(train=str(rows)))
    (tmp_path / "config.json").write_text(json.dumps({sources.SOURCES: sources.check(tmp_path, config)}))
    rows.write_text("{ }")
    assert sources.check(tmp_path, config) == {"data.train": digest(rows)}


def test_a_result_belongs_to_its_checkpoint_and_settings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def evaluated() -> list[str]:
        assert cli.main(["resume", str(run)]) == 0
        lines = capsys.readouterr().err.splitlines()
        return [
            line.removeprefix("evaluating ") for line in lines if line.startswith("evaluating ") and ":" not in line
        ]

    assert evaluated() == []
    file = run / "config.json"
    file.write_text(file.read_text().replace('"top_k": 0', '"top_k": 5'))
    assert evaluated() == ["base", "sft", "rl/seed0"]
    shutil.rmtree(run / "rl")  # the same stage and step come again, otherwise trained
    file.write_text(file.read_text().replace('"weight_decay": 0.01', '"weight_decay": 0.5'))
    assert evaluated() == ["rl/seed0"]
    result = json.loads((run / "eval/rl-seed0.json").read_text())
    assert result["checkpoint"] == digest((latest(run / "rl/seed0") or run) / "manifest.json")
