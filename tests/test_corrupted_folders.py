"""Kinds of damaged configs, checkpoints, models, tokenizers and questions: each is one sentence, exit code 2.

The other half of the table is ``test_corruptions.py``, on rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from rlvr_world import cli

TINY = """model.vocabulary=300 model.layers=1 model.hidden=32 model.heads=2 model.precision=float32 model.device=cpu
data.split.valid=0.2 data.max_response=12 threads=1 sft.steps=2 sft.batch=2 sft.save_every=1 sft.eval_every=0
rl.steps=1 rl.prompts=2 rl.group=2 rl.seeds=0 rl.eval_every=0 control.enabled=false eval.rows=2""".split()  # noqa: SIM905
Harm = Callable[[Path], Any]


def write(name: str, content: str | bytes) -> Harm:
    def harm(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return harm


def cut(name: str, left: int = 40) -> Harm:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:left])


def gone(name: str) -> Harm:
    return lambda folder: (folder / name).unlink()


def settings(name: str, **values: Any) -> Harm:
    """Entries of a JSON file are replaced; those that are ``...`` go."""

    def harm(folder: Path) -> None:
        data = {**json.loads((folder / name).read_bytes()), **values}
        (folder / name).write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))

    return harm


def in_the_way(name: str) -> Harm:
    """A folder where a file should be, a file where a folder should be."""

    def harm(folder: Path) -> None:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
            (folder / name).write_text("in the way")
        else:
            (folder / name).unlink(missing_ok=True)
            (folder / name).mkdir()

    return harm


NOT_A_CONFIG = "config.json: expected the config of a run, got other data"
CONFIGS: dict[str, tuple[Harm, str]] = {
    "empty": (write("config.json", ""), NOT_A_CONFIG),
    "cut off": (cut("config.json"), NOT_A_CONFIG),
    "a list": (write("config.json", "[]"), NOT_A_CONFIG),
    "another encoding": (write("config.json", '{"recipe": "t\xfcr"}'.encode("latin-1")), NOT_A_CONFIG),
    "brackets without end": (write("config.json", "[" * 100_000), NOT_A_CONFIG),
    "no recipe": (settings("config.json", recipe=...), NOT_A_CONFIG),
    "a recipe that is a number": (
        settings("config.json", recipe=3),
        NOT_A_CONFIG,
    ),
    "an unknown recipe": (settings("config.json", recipe="demmo"), "recipe 'demmo' does not exist"),
    "an unknown setting": (settings("config.json", sed=1), "there is no setting 'sed'; the nearest is 'seed'"),
    "a group that is a number": (settings("config.json", rl=3), "rl must be an object of settings, got 3"),
    "a number as text": (settings("config.json", seed="0"), "setting seed: expected int, got '0'"),
    "a number that is NaN": (
        settings("config.json", rl={"kl": float("nan")}),
        "setting rl.kl: expected float, got nan",
    ),
    "a negative seed": (settings("config.json", seed=-1), "seed: expected at least 0, got -1"),
    "a seed twice": (settings("config.json", rl={"seeds": [1, 1]}), "rl.seeds: expected different numbers"),
    "a folder": (in_the_way("config.json"), "config.json: Is a directory; check the path"),
}
LAST = "rl/seed0/step-000001"
CHECKPOINTS: dict[str, tuple[Harm, str]] = {
    "weights cut off": (cut(f"{LAST}/model.safetensors"), "model.safetensors is not what manifest.json says"),
    "optimizer gone": (gone(f"{LAST}/trainer/optimizer.safetensors"), "optimizer.safetensors is missing"),
    "counters of another step": (
        settings(f"{LAST}/trainer/counters.json", step=7),
        "counters.json is not what manifest.json says",
    ),
    "another tokenizer": (settings(f"{LAST}/tokenizer_config.json", x=1), "tokenizer_config.json is not what manifest"),
    "no manifest": (gone(f"{LAST}/manifest.json"), "it has no manifest.json"),
    "a manifest cut off": (cut(f"{LAST}/manifest.json"), "its manifest.json does not read"),
    "a manifest that is a list": (write(f"{LAST}/manifest.json", "[]"), "manifest.json"),
    "a file in its place": (in_the_way(LAST), "it has no manifest.json"),
    "an end that names none": (
        write("rl/seed0/ended.json", '{"step": 9}'),
        "step-000009: it is damaged: it is missing",
    ),
    "an end cut off": (write("rl/seed0/ended.json", '{"st'), "ended.json: no step: it is damaged: it is missing"),
    "an end without a step": (write("rl/seed0/ended.json", "[]"), "ended.json: no step: it is damaged"),
}
WEIGHTS = "model.safetensors"


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(min(tensors))
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def without_end(folder: Path) -> None:
    settings("tokenizer_config.json", eos_token=None)(folder)
    settings("config.json", eos_token_id=None)(folder)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)


def more_tokens(folder: Path) -> None:
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    data["added_tokens"] += [
        {**data["added_tokens"][0], "id": 300 + number, "content": f"<more{number}>"} for number in range(9)
    ]
    file.write_text(json.dumps(data))


def adapter_alone(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


MODELS: dict[str, tuple[Harm, str]] = {
    "no config": (gone("config.json"), "there is no config.json; name a model's folder"),
    "an adapter alone": (adapter_alone, "it is a LoRA adapter, name the merged model's folder"),
    "a config cut off": (cut("config.json"), "the folder cannot be loaded"),
    "a config that is a list": (write("config.json", "[]"), "the folder cannot be loaded"),
    "an unknown architecture": (settings("config.json", model_type="lama"), "the folder cannot be loaded"),
    "a config of another width": (settings("config.json", hidden_size=64), "the folder cannot be loaded"),
    "a config of fewer heads": (settings("config.json", num_attention_heads=3), "the folder cannot be loaded"),
    "a layer too many": (settings("config.json", num_hidden_layers=2), "the file lacks"),
    "no weights": (gone(WEIGHTS), "the folder cannot be loaded"),
    "weights cut off": (cut(WEIGHTS, 4000), "the folder cannot be loaded"),
    "weights of nothing": (write(WEIGHTS, ""), "the folder cannot be loaded"),
    "a header of 2^63 bytes": (write(WEIGHTS, b"\xff" * 7 + b"\x7f{}"), "the folder cannot be loaded"),
    "a tensor too few": (without_a_tensor, "the file lacks 2 of the weights"),
    "pickled weights alone": (pickled, "the folder cannot be loaded"),
    "no tokenizer": (lambda f: [gone("tokenizer.json")(f), gone("tokenizer_config.json")(f)], "there is no tokenizer"),
    "a tokenizer cut off": (cut("tokenizer.json"), "the folder cannot be loaded"),
    "a tokenizer of another format": (write("tokenizer.json", "{}"), "the folder cannot be loaded"),
    "a tokenizer larger than the model": (more_tokens, "the tokenizer has 309 tokens but the model only 300"),
    "a tokenizer without an end": (without_end, "has no end-of-sequence token"),
    "a chat template that refuses": (
        settings("tokenizer_config.json", chat_template="{{ raise_exception('a system turn first') }}"),
        "chat template: expected it to take one turn of the user, got TemplateError: a system turn first",
    ),
    "a chat template cut off": (
        settings("tokenizer_config.json", chat_template="{% for message in messages %}"),
        "chat template: expected it to take one turn of the user, got TemplateSyntaxError",
    ),
    "a window shorter than the rows": (
        settings("config.json", max_position_embeddings=64),
        "expected sequences of at most 64 tokens, its positions, got a prompt of ",
    ),
    "tokens that are no text": (
        settings("config.json", codec={}),
        "expected a model of text, got one without a tokenizer",
    ),
}
WORLDS: dict[str, tuple[Harm, str]] = {
    "no world": (lambda folder: shutil.rmtree(folder / "world"), "it has no folder world"),
    "a world's config cut off": (cut("world/config.json"), NOT_A_CONFIG),
    "a world's recipe that is gone": (
        settings("world/config.json", recipe="gone.py"),
        "gone.py: there is no such file",
    ),
}
RUNS: dict[str, tuple[Harm, str, str]] = {
    "a result cut off": (cut("eval/sft.json"), "report", "eval/sft.json: expected JSON, got Expecting"),
    "a log with half a line in it": (
        write("metrics.jsonl", '{"st\n{}'),
        "report",
        "metrics.jsonl, line 1: expected a JSON object, got Unterminated",
    ),
    "why it was halted, cut off": (write("halted.json", '{"sa'), "report", "halted.json: expected JSON"),
    "an end cut off": (write("rl/seed0/ended.json", '{"st'), "report", "ended.json: expected JSON"),
    "an environment cut off": (cut("environment.json"), "report", "environment.json: expected JSON"),
    "a result that is a list": (
        write("eval/sft.json", "[1]"),
        "report",
        "eval/sft.json: expected an object with name, ",
    ),
    "a result without its rows": (
        settings("eval/sft.json", rows=...),
        "report",
        "eval/sft.json: expected an object with",
    ),
    "samples that are no list": (
        write("eval/samples-sft.json", "{}"),
        "report",
        "samples-sft.json: expected a list, got",
    ),
    "a log with a number in it": (
        write("metrics.jsonl", "5\n{}\n"),
        "report",
        "metrics.jsonl, line 1: expected a JSON",
    ),
    "why it was halted, a text": (
        write("halted.json", '"x"'),
        "report",
        "halted.json: expected an object with said, got",
    ),
    "sources that are a list": (settings("config.json", sources=["x"]), "resume", "config.json: sources: expected an "),
    "a source that is a number": (
        settings("config.json", sources={"data.train": 5}),
        "resume",
        "config.json: sources: expected an object of texts, as a run writes it, got",
    ),
    "samples cut off": (cut("eval/samples-sft.json"), "report", "eval/samples-sft.json: expected JSON"),
    "no config": (gone("config.json"), "report", "is not a run folder: expected a file config.json in it"),
    "no config to go on with": (gone("config.json"), "resume", "expected a run folder with a config.json, found none"),
    "a result cut off before the next": (
        cut("eval/sft.json"),
        "resume",
        "eval/sft.json: expected JSON, got Expecting",
    ),
    "a stage that is a file": (in_the_way("rl"), "resume", "rl/seed0/rollouts: Not a directory; check the path"),
    "a lock that is a folder": (in_the_way(".lock"), "resume", ".lock: Is a directory; check the path"),
    "a fault cut off": (write("fault.json", '{"st'), "replay", "fault.json: expected JSON, got Unterminated"),
    "no model": (lambda f: [shutil.rmtree(f / name) for name in ("sft", "rl")], "eval", "holds no trained model yet"),
}
QUESTION = '{"state": {"objects": []}, "action": "look"}'
QUESTIONS: dict[str, tuple[str | bytes, str]] = {
    "cut off": (QUESTION[:-5], "line 1: expected JSON"),
    "another encoding": (QUESTION.replace("look", "t\xfcr").encode("latin-1"), "line 1: expected JSON"),
    "brackets without end": ("[" * 100_000, "line 1: expected JSON"),
    "a list": ("[1]", "question: expected an object with the keys state and action, got [1]"),
    "no action": ('{"state": {"objects": []}}', "question, field action: expected a string, got no such key"),
    "half an emoji": (
        QUESTION.replace("look", r"look \ud83d"),
        "field action: expected text, got U+D83D at character 5",
    ),
    "a bell": (QUESTION.replace("look", r"\u0007"), "field action: expected text, got U+0007 at character 0"),
    "a state that is text": ('{"state": "a door", "action": "look"}', "field state: expected an object, got 'a door'"),
}
COUNT = sum(map(len, (CONFIGS, CHECKPOINTS, MODELS, WORLDS, RUNS, QUESTIONS)))


@pytest.fixture(scope="module")
def run(house: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrupted") / "run"
    file = house(12)
    assert (
        cli.main(["train", "bytesized32", "--out", str(folder), *TINY, f"data.train={file}", f"data.test={file}"]) == 0
    )
    return folder


def refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    code = cli.main(arguments)
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2, said
    assert words in said[-1], said
    assert said[-1].startswith("rlvr-world: ")


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs_of_runs(kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = CONFIGS[kind]
    (tmp_path / "run").mkdir()
    shutil.copy(run / "config.json", tmp_path / "run")
    harm(tmp_path / "run")
    refused(["resume", str(tmp_path / "run")], words, capsys)


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints(kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = CHECKPOINTS[kind]
    harm(shutil.copytree(run, tmp_path / "run"))
    refused(["eval", str(tmp_path / "run")], words, capsys)


@pytest.mark.parametrize("kind", MODELS)
def test_models(kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said by the look, before a run begins: nothing is left of it."""
    harm, words = MODELS[kind]
    harm(shutil.copytree(run / LAST, tmp_path / "model"))
    data = [f"data.{name}={value}" for name, value in json.loads((run / "config.json").read_text())["data"].items()
            if name in ("train", "test")]  # fmt: skip
    given = [*TINY, *data, f"model.source={tmp_path / 'model'}"]
    refused(["train", "bytesized32", "--out", str(tmp_path / "new"), *given], words, capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", RUNS)
def test_runs(kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, verb, words = RUNS[kind]
    harm(shutil.copytree(run, tmp_path / "run"))
    refused([verb, str(tmp_path / "run")], words, capsys)


@pytest.mark.parametrize("kind", WORLDS)
def test_worlds(kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = WORLDS[kind]
    harm(shutil.copytree(run / LAST, tmp_path / "model"))
    (tmp_path / "asked.jsonl").write_text(QUESTION)
    refused(["predict", str(tmp_path / "model"), str(tmp_path / "asked.jsonl")], words, capsys)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_questions(kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, words = QUESTIONS[kind]
    (tmp_path / "asked.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(["predict", str(run), str(tmp_path / "asked.jsonl")], words, capsys)
