"""The command line shell: exit codes, and what stands between the user and the verbs."""

from __future__ import annotations

import argparse
import errno
import os
import pwd
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlvr_world import cli
from rlvr_world.cli import diagnose, runs
from rlvr_world.cli.parser import config_of
from rlvr_world.errors import InputError


def test_settings_may_stand_anywhere() -> None:
    args = cli.parse(["train", "demo", "rl.steps=3", "--out", "a=b", "seed=1"])
    assert (args.recipe, args.run) == ("demo", Path("a=b"))
    assert sorted(args.settings) == ["rl.steps=3", "seed=1"]


def test_a_file_of_arguments_stands_where_a_recipe_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file := tmp_path / "mine.args").write_text("demo\nrl.steps=3\n\n")
    config = config_of(cli.parse(["train", f"@{file}", "seed=5"]))
    assert (config.recipe, config.rl.steps, config.seed) == ("demo", 3, 5)
    assert cli.parse(["serve", "runs/demo", "--token", f"@{file}"]).token == f"@{file}", "a token may begin so"
    with pytest.raises(SystemExit):
        cli.main(["train", f"@{file}", "--help", "rl"])
    assert "rl.steps=3" in capsys.readouterr().out
    for bad in (b"", b"@more\n", b"demo\n" * 100_000):
        file.write_bytes(bad)
        assert cli.main(["train", f"@{file}"]) == 2
        assert "expected lines of text, a recipe and its settings, at most 100000 bytes" in capsys.readouterr().err
    for place in ("/dev/zero", "/dev/null", str(tmp_path), str(tmp_path / "gone")):
        for arguments in (["train", f"@{place}"], ["train", f"@{place}", "--help"]):
            assert cli.main(arguments) == 2
            assert capsys.readouterr().err.count("\n") == 1


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
    monkeypatch.setattr(diagnose, "_recipes", _raising(ModuleNotFoundError("no", name=module)))
    assert cli.main(["recipes"]) == 2
    assert f"rlvr-world[{extra}]" in capsys.readouterr().err


def test_any_other_missing_module_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "_recipes", _raising(ModuleNotFoundError("no", name="rlvr_world.gone")))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["recipes"])


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "_resume", _raising(KeyboardInterrupt()))
    assert cli.main(["resume", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped\n"
    (tmp_path / "config.json").write_text("{}")
    assert cli.main(["resume", str(tmp_path)]) == 130
    assert f"rlvr-world resume {tmp_path}" in capsys.readouterr().err


def test_a_long_error_stays_on_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(diagnose, "_recipes", _raising(InputError("rows.jsonl: wrong\nhere")))
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err == "rlvr-world: rows.jsonl: wrong here\n"


@pytest.fixture(scope="module")
def as_installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment where compiled modules are kept, as in every installation, whatever these tests run with."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path_factory.mktemp("compiled"))
    subprocess.run([sys.executable, "-m", "rlvr_world", "recipes"], capture_output=True, env=env, check=True)
    return env


@pytest.mark.parametrize("arguments", [["recipes"], ["train", "pusht", "--help"], ["train", "miniwob", "rl.step=3"]])
def test_what_asks_nothing_heavy_is_fast(arguments: list[str], as_installed: dict[str, str]) -> None:
    """Half a second of processor time is what a person does not notice; importing torch takes several."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "rlvr_world", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=as_installed, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == (2 if "rl.step=3" in arguments else 0), done.stderr
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 0.5


def test_help_can_be_narrowed_to_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "demo", "--help", "rl.optimizer"])
    assert not stop.value.code
    said = capsys.readouterr().out
    assert "rl.optimizer.learning_rate=" in said
    assert "sft." not in said
    assert cli.main(["train", "demo", "--help", "r1"]) == 2
    assert "no group of settings 'r1'; the nearest is 'rl'" in capsys.readouterr().err


def test_a_stdout_that_is_ascii_or_closed_is_no_traceback() -> None:
    command = [sys.executable, "-m", "rlvr_world", "recipes"]
    plain = subprocess.run(
        [*command], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, check=False
    )
    assert (plain.returncode, plain.stderr) == (0, b"")
    closed = subprocess.run(f"{' '.join(command)} >&-", shell=True, capture_output=True, check=False)
    assert b"Traceback" not in closed.stderr
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        reader.stdout.close()  # as `| head` does
        said = reader.stderr.read()
    assert b"Traceback" not in said
    assert reader.returncode == 141


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.EACCES, 2, "runs/mine: Permission denied; check the path, who owns it"),
        (errno.EROFS, 2, "runs/mine: Read-only file system; check the path"),
        (errno.ENOTDIR, 2, "runs/mine: Not a directory; check the path"),
        (errno.EEXIST, 2, "runs/mine: File exists; check the path"),
        (errno.ENAMETOOLONG, 2, "runs/mine: File name too long; check the path"),
        (errno.ELOOP, 2, "runs/mine: Too many levels of symbolic links; check the path"),
        (errno.EMFILE, 2, "runs/mine: Too many open files"),
        (errno.ESTALE, 2, "runs/mine: Stale file handle"),
        (errno.ENOSPC, 3, "no room is left on the disk"),
        (errno.EDQUOT, 3, "no room is left on the disk"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    number: int, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(diagnose, "_recipes", _raising(OSError(number, os.strerror(number), "runs/mine")))
    assert cli.main(["recipes"]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_an_error_of_a_library_that_only_looks_like_the_systems_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "_recipes", _raising(ConnectionError("max retries")))
    with pytest.raises(ConnectionError):
        cli.main(["recipes"])


def test_files_in_the_way_and_places_that_nobody_can_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in ("file", "file/run", "loop/run", f"{'x' * 300}"):
        grid = Path(__file__).parents[2] / "docs" / "examples" / "grid.py"
        assert cli.main(["train", str(grid), "--out", str(tmp_path / out)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert "check the path, who owns it" in said
    assert (tmp_path / "file").read_text() == "mine"
    assert cli.main(["predict", str(tmp_path), str(tmp_path / "gone.jsonl")]) == 2
    assert cli.main(["report", str(tmp_path / "file")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_without_a_home_folder_a_path_with_a_tilde_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(_: int) -> None:
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert cli.main(["train", "demo", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "there is no home folder; set HOME, or name data.cache=FOLDER" in said
    assert said.count("\n") == 1


def test_an_error_whose_reader_has_gone_is_no_traceback() -> None:
    command = [sys.executable, "-m", "rlvr_world", "train", "nothing"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        reader.stderr.close()
        assert reader.stdout.read() == b""
    assert reader.returncode == 2


def test_windows_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.os, "name", "nt")
    code = cli.main(["recipes"])
    monkeypatch.undo()
    assert code == 2
    assert "use WSL" in capsys.readouterr().err
