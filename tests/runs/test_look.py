"""What would fail after hours is said before the first row is collected, or at the latest before the first step;
``check`` says it in the same words."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest

from rlvr_world import cli
from rlvr_world.config import ModelConfig
from rlvr_world.domains.video.splits import parts
from rlvr_world.errors import InputError
from rlvr_world.models.attention import share_prefixes
from rlvr_world.models.loading import create_model
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.recipes.text_game import TextGameRecipe
from rlvr_world.recipes.video_recipe import VideoRecipe
from rlvr_world.runs import runner
from rlvr_world.runs.look import encoded
from rlvr_world.sampling.engine import Sampling, sample, sample_each
from rlvr_world.training.visual_tokenizer import create_visual_tokenizer
from rlvr_world.types import Given, Script, Transition, Write
from tests.recipes.test_video import KINDS, TINY, config, write_square
from tests.test_corrupted_folders import TINY as TEXT

VIDEO_SETTINGS = {
    "data.reward.lpips=1": "data.reward.lpips: expected 0 with data.lpips=none, got 1.0",
    "data.reward.proprio_mse=1": "data.reward.proprio_mse: expected 0 with data.proprio=false, got 1.0",
    "data.kind=multi_step data.tokenizer.kind=compressive": "data.tokenizer.segment: expected at least 2 of a compress",
    "data.tokenizer.kind=compressive": "data.tokenizer.kind: expected frame with data.kind=single_step, got compr",
    "data.camera=top": "data.camera: expected none with data.source=npz, of one view, got top",
    "data.height=17": "data.height: expected a multiple of 2, as data.tokenizer.widths halve, got 17",
    "data.width=8": "data.width: expected at least 11, got 8",
    "data.lpips=alex": "data.height: expected at least 31, got 16",
    "data.action_pool=2": "data.action_pool: expected a divisor of data.frame_skip=1, got 2",
    "data.frame_skip=0": "data.frame_skip: expected at least 1, got 0",
    "data.action_bins=1": "data.action_bins: expected at least 2, got 1",
    "data.split.kind=every_nth data.split.every=2": "data.split.every: expected at least 3, got 2",
    "data.split.test=1": "data.split.test: expected less than 1, got 1.0",
    "data.tokenizer.groups=7": "data.tokenizer.widths: expected multiples of the groups, got (32, 32)",
    "data.tokenizer.levels=8,1": "data.tokenizer.levels: expected numbers of at least 2, got (8, 1)",
    "data.tokenizer.crop=0": "data.tokenizer.crop: expected a share above 0 and at most 1, got 0.0",
    "data.tokenizer.segment=4 data.tokenizer.reach=2": "data.tokenizer.reach: expected 0, or as many as later",
    "data.tokenizer.gan=0.1": "data.tokenizer.discriminator_depth: expected 2 to its power below 16, got 6",
    "data.tokenizer.source=/nowhere": "tokenizer /nowhere: there is no such folder",
    "model.hidden=30": "model.hidden: expected a multiple of 2 x model.heads, got 30 and 2",
    "model.source=/nowhere": "model /nowhere: there is no such folder",
}
TEXT_SETTINGS = {
    "model.vocabulary=200": "model.vocabulary: expected at least 259, got 200",
    "data.test=/nowhere.jsonl": "/nowhere.jsonl: no such file or folder of training or test rows",
    "trackers=mlflow": "trackers: unknown tracker 'mlflow'",
    "rl.seeds=1,1": "rl.seeds: expected different numbers of at least 0, got (1, 1)",
    "rl.optimizer.beta2=1": "rl.optimizer.beta2: expected less than 1, got 1.0",
    "sft.optimizer.learning_rate=-1": "sft.optimizer.learning_rate: expected at least 0, got -1.0",
    "eval.temperature=-1": "eval.temperature: expected at least 0, got -1.0",
    "data.max_response=0": "data.max_response: expected at least 1, got 0",
    "sft.reasoning=true": "data.reasoning_column: expected a column of files with sft.reasoning=true, got ''",
    "guards.limits=eval/overall/exact>=0.1": "rl.eval_every: expected more than 0 with a limit on eval/..., got 0",
    "rl.advantage=max@k rl.group=4": "rl.best_of: expected 1 to 3, below rl.group, got 4",
    "guards.collapse=rollback": "rl.eval_every: expected more than 0 with guards.collapse=rollback",
    "guards.limits=kl<3": "guards.limits: expected a metric, <= or >=, and a number",
    "guards.limits=kl<=5 rl.kl=0": "kl<=5 is not watched where rl.kl=0",
    "rl.group=1": "rl.group: expected at least 2, got 1",
    "rl.prompts=0": "rl.prompts: expected at least 1, got 0",
    "rl.minibatches=0": "rl.minibatches: expected at least 1, got 0",
    "rl.temperature=0": "rl.temperature: expected more than 0, got 0.0",
}
ROWS = {
    "model.context=64": "expected sequences of at most 64 tokens, its positions, got a prompt of ",
    "data.max_prompt=20": "expected at most 20; raise data.max_prompt",
    "data.style.rules=true": "but no rules file is given",
    "eval.reject=repetitoin data.max_response=140": "eval.reject: expected a part of the score (exact, ",
    "model.vocabulary=259 model.context=300": "or raise model.context",
}


NAMES = {
    "guards.limits=kll<=9": "guards.limits: expected a number that is logged, got 'kll'; the nearest is 'kl'",
    "guards.limits=score/exat>=0.1": "the nearest is 'score/exact'",
    "guards.limits=eval/overall/exat>=0.1 rl.eval_every=1": "the nearest is 'eval/overall/exact'",
    "checkpoints.best=-eval/overall/vale rl.eval_every=1": "checkpoints.best: expected a number that is logged, got ",
    "checkpoints.best=eval/won/exact sft.eval_every=1": "checkpoints.best: expected a number that is logged, got ",
}


def forbidden(*_: Any) -> NoReturn:
    raise AssertionError("rows were collected, or something was made, before the settings were looked at")


def refused(recipe: str, settings: list[str], words: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``train`` and ``check`` refuse in the same words, and nothing is left behind."""
    said = []
    for verb in (["train", recipe, "--out", str(out)], ["check", recipe]):
        capsys.readouterr()
        code = cli.main([*verb, *settings])
        told = capsys.readouterr()
        assert code == (2 if told.err.rpartition("rlvr-world: ")[1] else 1), told
        said.append(told.err + told.out)
        assert words in said[-1], said[-1]
    assert not out.exists()


@pytest.mark.parametrize("changes", VIDEO_SETTINGS)
def test_settings_of_video(
    changes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VideoRecipe, "splits", forbidden)
    given = {item.partition("=")[0]: item for item in (*TINY, *changes.split())}
    refused("pusht", list(given.values()), VIDEO_SETTINGS[changes], tmp_path / "run", capsys)


@pytest.mark.parametrize("changes", TEXT_SETTINGS)
def test_settings_of_text(
    changes: str, house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TextGameRecipe, "splits", forbidden)
    refused("bytesized32", with_files(house, changes), TEXT_SETTINGS[changes], tmp_path / "run", capsys)


@pytest.mark.parametrize("changes", ROWS)
def test_settings_that_the_rows_do_not_go_with(
    changes: str, house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_carry_out", forbidden)
    refused("bytesized32", with_files(house, changes), ROWS[changes], tmp_path / "run", capsys)


@pytest.mark.parametrize("changes", NAMES)
def test_names_that_no_stage_logs(
    changes: str, house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_carry_out", forbidden)
    given = with_files(house, f"data.max_response=140 {changes}")
    refused("bytesized32", given, NAMES[changes], tmp_path / "run", capsys)


def test_the_look_and_the_sampler_know_one_window_and_one_sentence() -> None:
    script, row = Script((Given((3, 4, 5)), Write(4))), Transition("a", "", "", None)
    domain: Any = SimpleNamespace(encode=lambda row: script)
    config = override(find("demo").config(), ["model.source=mine"])
    for positions, good in ((6, True), (5, False)):
        model, said = create_model(ModelConfig(layers=1, hidden=16, heads=2, context=positions), 64, None, 0), set()
        share_prefixes(model)
        for look, *given in (
            (encoded, domain, row, model, config),
            (sample, model, [script], 1, Sampling(), [(0,)]),
            (sample_each, model, [script], Sampling(), [(0,)]),
        ):
            with nullcontext() if good else pytest.raises(InputError) as refusal:
                look(*given)
            said |= set() if good else {str(refusal.value).removeprefix("row a: ")}
        assert len(said) == (not good), said


def with_files(house: Any, changes: str) -> list[str]:
    file = house(12)
    given = [*TEXT, f"data.train={file}", f"data.test={file}", *changes.split()]
    return list({item.partition("=")[0]: item for item in given}.values())


def test_a_group_of_settings_names_its_own_place() -> None:
    for recipe, setting in (("pusht", "data.env.episodes"), ("demo", "data.env.games"), ("miniwob", "data.env.steps")):
        with pytest.raises(InputError, match=f"^{setting}: expected at least 1, got 0"):
            override(find(recipe).config(), [f"{setting}=0"])


def test_actions_in_other_units_are_found_before_the_tokenizer_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, "pusht")
    parts.cache_clear()
    held, numbers = parts(settings.data)["test"]
    for file in [tmp_path / "square" / f"{held.ids[n]}.npz" for n in numbers]:
        arrays = dict(np.load(file))
        np.savez_compressed(file, **{**arrays, "action": arrays["action"] * 100})
    parts.cache_clear()
    monkeypatch.setattr(runner, "_carry_out", forbidden)
    with pytest.raises(InputError, match=r"square/square_eps_\d+: step \d+: field \d is .* lie outside the range"):
        runner.train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_the_wrong_kind_is_found_before_it_reads_a_frame(tmp_path: Path) -> None:
    for recipe, other, kind in (("pusht", "pusht_multi", "compressive"), ("pusht_multi", "pusht", "frame")):
        made = config(tmp_path, other).data.tokenizer
        create_visual_tokenizer(made, 16, 16, 0).save_pretrained(str(tmp_path / kind))
        settings = config(tmp_path, recipe, f"data.tokenizer.source={tmp_path / kind}")
        with pytest.raises(InputError, match=rf"data\.tokenizer\.source: expected .* got {kind}"):
            runner.train(settings, tmp_path / "run")


def test_a_run_that_has_trained_nothing_begins_anew_with_another_config(
    house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = override(find("bytesized32").config(), with_files(house, "rl.steps=0"))
    first, second, whole = override(settings, ["model.hidden=64"]), settings, tmp_path / "whole"

    def stopped(run: Any) -> NoReturn:
        (run.folder / "metrics.jsonl").write_text('{"stage": "sft", "step": 0, "loss": 9}\n')
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(runner, "_carry_out", stopped)
        with pytest.raises(KeyboardInterrupt):
            runner.train(first, tmp_path / "run")
    assert (tmp_path / "run" / "base").is_dir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    runner.train(second, tmp_path / "run")
    runner.train(second, whole)
    for name in ("metrics.jsonl", "sft/step-000002/model.safetensors", "config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine", "what is not the run's stays"
    with pytest.raises(InputError, match="holds a trained run with another config; name another --out"):
        runner.train(first, tmp_path / "run")


def test_the_rehearsal_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    """Two kinds of video run are looked at as they will be; no token of an untrained tokenizer is kept."""
    write_square(tmp_path / "square")
    for recipe in KINDS:
        settings = config(tmp_path, recipe)
        run = runner.Run(tmp_path / "run", settings, find(recipe), find(recipe).splits(settings), runner.Log(tmp_path))
        domain, model = runner.opened(run)
        assert domain is not None
        assert model is None
        runner.at_rows(run, domain, model)
        assert not (tmp_path / "cache").exists()
        assert not (tmp_path / "run").exists()
