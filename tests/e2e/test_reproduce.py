"""Every command of docs/reproduce.md, on small folders of the exact published layout: the hub's cache as it is after
fetching, checkouts, and a folder in the place of RT-1's bucket. Only sizes and devices are added to a command."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from rlvr_world import cli
from tests.recipes import published_layout as published

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reproduce.md"
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.splitlines()
]
MACHINE = ["threads=1", "model.device=cpu", "model.precision=float32"]
STEPS = ["rl.steps=1", "rl.prompts=1", "rl.group=2", "rl.minibatches=1", "rl.eval_every=0", "eval.rows=1"]
FEW = [*MACHINE, *STEPS, "eval.runs=1", "eval.valid_rows=1", "sft.batch=2", "sft.eval_every=0"]
TEXT = [*FEW, "model.lora_rank=2", "data.max_response=16", "data.max_prompt=5000", "control.enabled=false"]
VIDEO = [
    *FEW,
    "data.lpips=none",
    "data.reward.lpips=0",
    "data.split.every=3",
    "data.jittered=0",
    "control.enabled=false",
]
GAMES = ["model.vocabulary=300", "data.max_response=400", "data.split.valid=0.2"]
NARROW = ["model.hidden=32", "model.layers=1", "model.heads=2"]
TOKENIZER = ["data.tokenizer.widths=8,8,8,8,8", "data.tokenizer.layers=1", "data.tokenizer.latent=8"]
NOTHING = [*TOKENIZER, "data.tokenizer.groups=4", "data.tokenizer.steps=1", "data.tokenizer.batch=1",
           "data.tokenizer.discriminator_width=8", "data.tokenizer.eval_every=0", "data.tokenizer.perceptual=0",
           *NARROW]  # fmt: skip
LINKED = {"rt1_multi": ["data.horizon=1"]}
"""Adopted so, too: a frame in the place of seven."""
LANGUAGE = ["bytesized32-world-model-sft", "bytesized32-world-model-rlvr-binary-reward", "webarena-world-model-sft",
            "bytesized32-world-model-rlvr-task-specific-reward", "webarena-world-model-rlvr"]  # fmt: skip


def cached(hub: Path, name: str, kind: str = "models") -> Path:
    """The folder of a repository in the hub's cache."""
    folder = hub / f"{kind}--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    return folder / "snapshots" / "abc"


def rows_of_games(house_records: Any) -> list[dict[str, Any]]:
    return [published.game_record(row, i) for i, row in enumerate(house_records(24))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, house_records: Any) -> Path:
    """A folder to run in, with the hub's cache and checkouts."""
    folder = tmp_path_factory.mktemp("reproduce")
    hub, games = folder / "hub", rows_of_games(house_records)
    text = cached(hub, "thuml/bytesized32-world-model-cot", "datasets")
    published.parquet(text / "train_state_difference_gold.parquet", games[1::2])
    published.parquet(text / "train_state_difference_non_gold.parquet", games[::2])
    published.parquet(text / "test_state_difference.parquet", games[:4])
    published.parquet(text / "generated_cot.parquet", list(map(published.taught, games[:4])))
    web = cached(hub, "thuml/webarena-world-model-cot", "datasets")
    published.parquet(web / "train.parquet", [published.page_record(i) for i in range(20)])
    published.parquet(web / "test.parquet", [published.page_record(i) for i in range(20, 24)])
    base = published.language_model(cached(hub, "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"))
    for name in LANGUAGE:
        shutil.copytree(base, cached(hub, f"thuml/{name}"))
    for kind, tokenizer in (("single", "frame"), ("multi", "compressive")):
        published.rt1_world_model(cached(hub, f"thuml/rt1-world-model-{kind}-step-base"), kind)
        published.visual_tokenizer(cached(hub, f"thuml/rt1-{tokenizer}-tokenizer"), kind)
    published.rt1_world_model(cached(hub, "thuml/rt1-world-model-multi-step-rlvr"), "multi")
    published.gpt_simulator(folder / "GPT-simulator")
    configs = folder / "RLVR-World" / "vid_wm" / "ivideogpt" / "configs" / "vgpt"
    configs.mkdir(parents=True)
    published.action_ranges(configs / "frac_action_ranges.pth")
    files = [[rt1_episode(0)], [rt1_episode(1), rt1_episode(2)]]
    published.rlds(folder / "robotics", "fractal20220817_data", "0.1.0", {"train": files})
    return folder


def rt1_episode(number: int) -> dict[str, Any]:
    """Ten steps with a picture and a dictionary of numbers."""
    rng, widths = np.random.default_rng(number), (2, 1, 1, 3, 3, 3)
    fields = ("base_displacement_vector", "base_displacement_vertical_rotation", "gripper_closedness_action",
              "rotation_delta", "terminate_episode", "world_vector")  # fmt: skip
    pictures = []
    for blocks in rng.integers(0, 255, (10, 8, 10, 3), np.uint8):
        Image.fromarray(blocks).resize((320, 256), Image.Resampling.NEAREST).save(stream := BytesIO(), "JPEG")
        pictures.append(stream.getvalue())
    actions = {name: rng.uniform(0, 0.003, 10 * n).astype(np.float32) for name, n in zip(fields, widths, strict=True)}
    return {
        "steps/observation/image": pictures,
        **{f"steps/action/{name}": numbers for name, numbers in actions.items()},
    }


def test_the_page_has_a_command_of_each_kind() -> None:
    verbs = {shlex.split(command)[1] for command in COMMANDS if command.startswith("rlvr-world")}
    assert verbs == {"estimate", "eval", "train", "collect", "check", "convert", "adopt"}
    others = [command for command in COMMANDS if not command.startswith("rlvr-world")]
    assert all(re.fullmatch(r"git clone https://github.com/[\w-]+/([\w-]+)", command) for command in others)


def test_every_command_runs(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    for command in COMMANDS:
        if command.startswith("rlvr-world"):
            code = cli.main(with_sizes(command, place))
            assert code == 0, f"{command}\n{capsys.readouterr().err}"
    trained = sorted(folder.parent.name for folder in place.glob("runs/*/rl"))
    assert trained == ["games", "multi", "single", "single-from-nothing", "text", "text-rl", "web", "web-rl"]
    with gzip.open(place / "games" / "test.jsonl.gz") as lines:
        assert [json.loads(line)["state_id"] for line in lines] == [1, 5]


def with_sizes(command: str, place: Path) -> list[str]:
    """The command for a small machine."""
    _, verb, *given = shlex.split(command)
    given = [part.replace("gs://gresearch/robotics", str(place / "robotics")) for part in given]
    recipe = next((part for part in given if part.startswith(("published", "webarena-p", "rt1_"))), "")
    if verb == "check":
        return [verb, *given, *MACHINE, *GAMES]
    if verb == "train" and "bytesized32" in given:
        return [verb, *given, *FEW, *GAMES, *NARROW, "sft.steps=1", "rl.seeds=0", "control.enabled=false"]
    added = LINKED.get(recipe, []) if verb != "estimate" else []
    if verb in ("eval", "train"):
        added = [*added, *(VIDEO if recipe.startswith("rt1") else TEXT), f"data.cache={place / 'cache'}"]
        added += [] if "sft.steps=0" in given else ["sft.steps=1"]
        added += NOTHING if "from-nothing" in command else []
    return [verb, *given, *added]
