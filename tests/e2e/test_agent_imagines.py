"""The web agent acts by what a trained model imagines: a run as its world model, a scripted server for the other roles,
and pages of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlvr_world import Malformed, cli
from rlvr_world.domains.replayed import Begun, Replayed
from rlvr_world.domains.scene import MAX_ACTION, AnyText, read_text
from rlvr_world.domains.web_page.change import write_change
from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.domains.web_page.diff import page_change
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.domains.web_page.scene import as_text, observed, space
from tests.recipes import test_web_agent as scripted

url = scripted.url
PAGE = PageState("[1] RootWebArea 'page 7'\n\t[2] button 'go'\n\t[3] link 'stop'", goal="Press stop.")
"""Such as the fixture ``web`` was trained on, where a click puts the focus on what it names."""


class Pressed:
    """An episode that ends with the first action, and is won by that on the link."""

    told: Mapping[str, Any] = {}

    def __init__(self, begun: Begun) -> None: ...

    def seen(self) -> dict[str, str]:
        return observed(PAGE)

    def act(self, action: str) -> tuple[float, bool, Mapping[str, Any]]:
        return float(action == "click [3]"), True, {}

    def close(self) -> None: ...


class Pages(Replayed):
    options = ("state", "task")

    def __init__(self) -> None:
        spaces = AnyText(MAX_ACTION), space()
        super().__init__(Pressed, lambda seed, options: (options["task"], seed), read_text, spaces, as_text, live=1)

    def episodes(self) -> list[tuple[str, int]]:
        return [("press", 0)]


def pages(spec: BrowserSpec) -> Pages:
    """What the agent is told to act on, by the name of this file."""
    return Pages()


def effect(prompt: str, i: int) -> str:
    """What a role is told of an action, said again."""
    return prompt.partition("EXPECTED EFFECT:\n")[2].partition("\nPAGE:")[0].strip()


def test_a_run_is_the_agents_world_model(
    url: str, web: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.Script.replies |= {
        "policy": lambda prompt, i: f"```click [{3 if i % 3 == 0 else 2}]```",
        "summary": effect,
        "description": effect,
        "value": lambda prompt, i: f"[Score]: {5 if 'link' in effect(prompt, i) else 2}",
    }
    settings = [f"policy.url={url}", "policy.model=any", f"imagine={web.run}", f"pages={__file__}:pages"]
    assert cli.main(["agent", str(tmp_path / "out"), *settings]) == 0
    assert "played 1 of 1: 1 steps, 7 requests, " in capsys.readouterr().out
    assert scripted.counts() == {"policy": 1, "summary": 2, "description": 2, "value": 2}, "the model is no server"
    trace = json.loads((tmp_path / "out" / "task-press-0.json").read_text())
    [step] = trace["steps"]
    for candidate in step["candidates"]:
        after = web.world.predict(PAGE, candidate["action"])
        assert not isinstance(after, Malformed)
        change = write_change(page_change(PAGE.page, after.page))
        assert candidate["told"] == [change] * 3
    assert [(one["action"], one["proposals"], one["value"]) for one in step["candidates"]] == [
        ("click [2]", 13, 2.0), ("click [3]", 7, 5.0)
    ]  # fmt: skip
    assert (step["action"], trace["won"]) == ("click [3]", True), "by what is imagined of it, not by its votes"
