"""A recipe in a file outside the package, docs/examples/grid.py, by the real command; and every way to name one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import rlvr_world
from rlvr_world import InputError, cli, recipes
from tests import tiny
from tests.e2e.fake_hub import TOKEN, hub

GRID = Path(__file__).resolve().parents[2] / "docs" / "examples" / "grid.py"
TINY = f"""{tiny.MODEL} data.size=8 data.walls=8 data.test=40 data.valid=8 sft.steps=40 sft.batch=16
sft.save_every=5 sft.eval_every=20 rl.steps=6 rl.prompts=4 rl.group=4 rl.save_every=2 rl.eval_every=3""".split()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rlvr_world", *map(str, arguments)]


def call(*arguments: object, folder: Path) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's file, outside the checkout."""
    return Path(shutil.copy(GRID, tmp_path_factory.mktemp("mine").resolve() / "walk.py"))


@pytest.fixture(scope="module")
def whole(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    call("train", file.name, "--out", run, *TINY, folder=file.parent)
    return run


def test_a_run_knows_its_recipe_from_any_folder(whole: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads((whole / "config.json").read_text())["recipe"] == str(file)
    assert cli.main(["eval", str(whole)]) == 0
    assert f"| {whole / 'rl' / 'seed0' / 'step-000006'} |" in capsys.readouterr().out
    (whole / "report.html").unlink()
    assert cli.main(["report", str(whole)]) == 0
    assert "control/seed0" in capsys.readouterr().out
    assert (whole / "report.html").is_file()
    assert cli.main(["replay", str(whole), "0/0/0"]) == 0
    assert "bit for bit the kept one" in capsys.readouterr().out
    assert cli.main(["resume", str(whole)]) == 0
    assert "report: " in capsys.readouterr().out


def test_its_data_is_checked_and_its_start_looked_at(
    whole: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(file), *TINY]) == 0
    assert "faults: none" in capsys.readouterr().out
    assert cli.main(["doctor", str(file), "--model", str(whole), "--prompts", "4", *TINY]) in (0, 1)
    assert "| groups without spread |" in capsys.readouterr().out


def test_it_is_used(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = rlvr_world.load(whole)
    state = world.predict((3, 4), "north")
    (tmp_path / "asked.jsonl").write_text('{"state": [3, 4], "action": "north"}\n')
    assert cli.main(["predict", str(whole), str(tmp_path / "asked.jsonl")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == ({"malformed": state.reason} if isinstance(state, rlvr_world.Malformed) else list(state))
    row = world.recipe.splits(world.config).test[0]
    assert cli.main(["predict", str(whole), "--row", row.id]) == 0
    assert capsys.readouterr().out


def push(run: Path, repo: str, url: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    arguments = command("push", run, repo, "--license", "mit", "--private")
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False, env=env)


def test_its_model_goes_to_the_hub_with_its_cards(whole: Path, file: Path, tmp_path: Path) -> None:
    with hub() as server:
        done = push(whole, "someone/walks", server.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{server.url}/someone/walks/commit/1\n"
    assert [one.get("visibility") or one.get("private") for one in server.made] in (["private"], [True])
    assert server.summaries == ["run: rl/seed0/step-000006"]
    files = server.repos["someone/walks"]
    assert not [name for name in files if name.startswith("trainer") or name == "manifest.json"]
    assert {"README.md", "data_card.md", "environment.json", "report.html", "model.safetensors"} <= files.keys()
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: mit\nlibrary_name: transformers\n")
    assert all(part in card for part in ("| control/seed0 |", "| *no change* |", "RL (one seed)", "training time: sft"))
    assert '"rows_hash": "' in card
    assert "as stated with the upload: mit" in card
    assert "does not know the licence" not in card
    world = rlvr_world.load(whole)
    blocked = sum(row.kind == "blocked" for row in world.recipe.splits(world.config).test)
    assert f"| test | 40 | blocked {blocked}; moved {40 - blocked} | 1 | `" in files["data_card.md"].decode()
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    expected = world.predict((3, 4), "north")
    assert rlvr_world.load(tmp_path, recipe=str(file)).predict((3, 4), "north") == expected


def test_what_cannot_be_pushed_is_one_sentence(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    with hub() as server:
        for repo, token, words in (("me/walks", "hf_wrong", "401"), ("not an id!", TOKEN, "not an id!")):
            done = push(run, repo, server.url, token)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert all(word in done.stderr for word in (f"hub id {repo}", words, "hf auth login"))
        (run / "model_card.md").unlink()
        assert "ends the run" in push(run, "me/walks", server.url).stderr
    assert server.repos == {}
    done = push(whole, "me/walks", server.url)  # nobody listens any more
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_model_whose_file_has_moved_is_told_where(whole: Path, file: Path, tmp_path: Path) -> None:
    model = shutil.copytree(whole / "rl" / "seed0" / "step-000006", tmp_path / "model")
    config = model / "world" / "config.json"
    config.write_text(config.read_text().replace(str(file), "/gone/walk.py"))
    with pytest.raises(InputError, match=r"/gone/walk\.py: there is no such file"):
        rlvr_world.load(model)
    expected = rlvr_world.load(whole).predict((3, 4), "north")
    assert rlvr_world.load(model, recipe=str(file)).predict((3, 4), "north") == expected


def test_a_recipe_is_found_by_file_module_and_entry_point(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = recipes.find(str(file))
    assert recipes.find(f"{file}:recipe") is known
    assert recipes.config_of(str(file)).recipe == str(file)

    package = tmp_path / "walks_for_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "grid.py").write_text(f"{GRID.read_text()}\nother = GridRecipe()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "walks_for_a_test.grid"
    assert recipes.find(name) is recipes.find(f"{name}:recipe")
    assert recipes.find(f"{name}:other") is not recipes.find(name)
    assert recipes.config_of(f"{name}:other").recipe == f"{name}:other"

    entry = metadata.EntryPoint("my-walk", f"{name}:other", recipes.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == recipes.ENTRY_POINTS else [])
    assert recipes.find("my-walk") is recipes.find(f"{name}:other")
    assert recipes.config_of("my-walk").recipe == "my-walk"
    assert "my-walk" in recipes.recipes()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("grit", ("recipe 'grit' does not exist", "demo", "or name a file")),
        ("nowhere/grid.py", ("nowhere/grid.py: there is no such file",)),
        ("no_such_package.grid", ("recipe 'no_such_package.grid' does not exist",)),
        ("rlvr_world.no_such_module", ("recipe 'rlvr_world.no_such_module' does not exist",)),
        ("FILE:nothing", ("expected an instance of rlvr_world.Recipe", "got None")),
        ("FILE:GridRecipe", ("expected an instance of rlvr_world.Recipe", "got <class")),
        ("FILE:LETTERS", ("expected an instance of rlvr_world.Recipe", "abc")),
        ("rlvr_world.types", ("recipe rlvr_world.types", "got None")),
        ("rlvr_world.types:Script", ("recipe rlvr_world.types:Script", "got <class")),
    ],
)
def test_a_wrong_name_is_one_sentence(
    name: str, words: tuple[str, ...], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = name.replace("FILE", str(file))
    with pytest.raises(InputError):
        recipes.find(wrong)
    assert cli.main(["train", wrong, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in words), said
    assert not (tmp_path / "run").exists()


def test_a_wrong_entry_point_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = metadata.EntryPoint("wrong", "rlvr_world.types:Script", recipes.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])
    with pytest.raises(InputError, match=r"entry point rlvr_world\.types:Script: expected an instance"):
        recipes.find("wrong")


def test_settings_that_leave_no_rows_are_refused(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for setting, words in (("data.test=2000", "none is left to train on"), ("data.size=30", "expected 2 to 26")):
        assert cli.main(["train", str(file), "--out", str(tmp_path / "run"), setting]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
