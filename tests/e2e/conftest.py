"""Tiny trained runs of a text game, pages and video, that several tests use."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlvr_world
from rlvr_world import Malformed, Transition, WorldModel
from rlvr_world.overrides import override
from rlvr_world.recipes import find
from rlvr_world.runs import runner

SMALL = """threads=1 model.device=cpu model.precision=float32 model.layers=2 model.hidden=64 model.heads=2 rl.steps=0
sft.optimizer.learning_rate=0.003 eval.rows=4 eval.valid_rows=2 sft.eval_every=0"""
TEXT = "data.source=files sft.steps=150 sft.batch=16 model.vocabulary=400 data.max_response=160 data.split.valid=0.1"
WEB = "data.source=files sft.steps=100 sft.batch=16 model.vocabulary=400 data.max_response=24 sft.pretrain_steps=20"
VIDEO = """data.source=npz data.height=16 data.width=16 data.frame_skip=1 data.action_pool=1 data.test_every=3
data.split.test=0.3 data.split.valid=0.3 data.lpips=none data.reward.lpips=0 data.tokenizer.widths=16,16
data.tokenizer.groups=8 data.tokenizer.latent=8 data.tokenizer.steps=8 data.tokenizer.batch=4
data.tokenizer.patch_width=16 data.tokenizer.save_every=8 data.tokenizer.eval_every=0 sft.steps=4 sft.batch=4"""


@dataclass(frozen=True)
class Case:
    """A trained run, some rows that it was tested on, and how a state is compared."""

    run: Path
    world: WorldModel
    rows: Sequence[Transition]

    def same(self, one: Any, other: Any) -> bool:
        if isinstance(one, Malformed) or isinstance(other, Malformed):
            return bool(one == other)
        if hasattr(one, "read"):  # frames
            return bool(np.array_equal(one.read(), other.read()))
        return bool(one == other)


def trained(recipe: str, settings: str, folder: Path, *more: str) -> Case:
    config = override(find(recipe).config(), [*f"{SMALL} {settings}".split(), f"data.cache={folder / 'cache'}", *more])
    runner.train(config, folder / "run")
    world = rlvr_world.load(folder / "run")
    return Case(folder / "run", world, world.recipe.splits(config).test[:4])


def pages(count: int) -> list[dict[str, Any]]:
    """A click puts the focus on the button that it names."""
    rows = []
    for number in range(count):
        page = f"[1] RootWebArea 'page {number}'\n\t[2] button 'go'\n\t[3] link 'stop'"
        at = 2 + number % 2
        line = f"[{at}] {'link' if at == 3 else 'button'} '{'stop' if at == 3 else 'go'}'"
        after = page.replace(line, f"{line} focused: True")
        about = {"task": f"task{number % 5}", "seed": number, "step": 0, "error": ""}
        rows.append({**about, "observation": page, "action": f"click [{at}]", "next_observation": after})
    return rows


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory, house: Any, house_records: Any) -> Case:
    rows = json.loads(re.sub(r'"knocks": \d+', '"knocks": 0', json.dumps(house_records(60))))
    file = house(rows)
    return trained("bytesized32", TEXT, tmp_path_factory.mktemp("text"), f"data.train={file}", f"data.test={file}")


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("web")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, pages(60))))
    return trained("miniwob", WEB, folder, f"data.train={folder / 'rows.jsonl'}")


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Case:
    pytest.importorskip("diffusers", reason="pip install 'rlvr-world[video]'")
    folder = tmp_path_factory.mktemp("video")
    (folder / "square").mkdir()
    for episode in range(12):
        draw = np.random.default_rng(episode)
        arrays = {"image": draw.integers(0, 255, (9, 16, 16, 3)).astype(np.uint8)}
        arrays["action"] = draw.normal(size=(9, 2)).astype(np.float32)
        np.savez_compressed(folder / "square" / f"square_eps_{episode:08d}.npz", **arrays)
    return trained("pusht", VIDEO, folder, f"data.path={folder / 'square'}")


@pytest.fixture(params=["text", "web", "video"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)
