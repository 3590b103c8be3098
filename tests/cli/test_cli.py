"""The command line shell: exit codes, and what stands between the user and the verbs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from rlvr_world import cli
from rlvr_world.errors import InputError


def test_settings_may_stand_anywhere() -> None:
    args = cli.parse(["train", "demo", "rl.steps=3", "--out", "a=b", "seed=1"])
    assert (args.recipe, args.run) == ("demo", Path("a=b"))
    assert sorted(args.settings) == ["rl.steps=3", "seed=1"]


def _raising(error: BaseException) -> Callable[[argparse.Namespace], None]:
    def verb(args: argparse.Namespace) -> None:
        raise error

    return verb


@pytest.mark.parametrize(
    ("module", "extra"), [("textworld", "textgame"), ("gguf", "smollm"), ("httpx", "teacher"), ("trl.trainer", "peers")]
)
def test_a_missing_extra_is_a_sentence(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_recipes", _raising(ModuleNotFoundError("no", name=module)))
    assert cli.main(["recipes"]) == 2
    assert f"rlvr-world[{extra}]" in capsys.readouterr().err


def test_any_other_missing_module_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_recipes", _raising(ModuleNotFoundError("no", name="rlvr_world.gone")))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["recipes"])


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_resume", _raising(KeyboardInterrupt()))
    assert cli.main(["resume", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped\n"
    (tmp_path / "config.json").write_text("{}")
    assert cli.main(["resume", str(tmp_path)]) == 130
    assert f"rlvr-world resume {tmp_path}" in capsys.readouterr().err


def test_a_long_error_stays_on_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "_recipes", _raising(InputError("rows.jsonl: wrong\nhere")))
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err == "rlvr-world: rows.jsonl: wrong here\n"
