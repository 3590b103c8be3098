"""The data settings of a web-page run. Imports nothing heavy."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlvr_world.config import at_least, what
from rlvr_world.domains.splits import RowsConfig, WorldSplitRule
from rlvr_world.errors import InputError


def miniwob_tasks(kind: Literal["shown", "goals", "unseen"]) -> tuple[str, ...]:
    """``shown``: whose tree shows what an action does. Left out: what is drawn, dragged or coloured (a tree has no
    shapes), pages where the first click ends the episode or shows nothing, calendars of a hundred lines, and texts that
    stay hidden until a click, which nobody can predict. ``goals`` can be done in four actions, of which many end with
    the first; ``unseen`` are of other kinds."""
    return tuple(json.loads(Path(__file__).with_name("tasks.json").read_text())[kind])


@dataclass(frozen=True)
class BrowserSpec:
    site: Literal["miniwob", "folder", "infinity", "url"] = what(
        "miniwob",
        "pages of the package miniwob, .html files of a folder, an app of a WebArena-Infinity checkout, or of a server",
    )
    path: str = what("", "folder: of pages; infinity: the app, CHECKOUT/apps/gmail; url: http://localhost:3000", "path")
    tasks: tuple[str, ...] = what(
        (),
        "tasks to play, or 'all'; empty takes all, of MiniWoB those whose trees show something; url: start pages, such "
        "as /cart,/items?page=2",
    )
    login: str = what("", "url: Python file with `async def login(page)`, which Playwright runs once before all else")
    episodes: int = what(30, "episodes a task, each on a page made from a seed of its own", "episodes")
    steps: int = what(4, "longest episode", "actions")
    ends: float = what(0.1, "how often Submit and its like are clicked; 1 is as often as other buttons")
    transitions: int = what(0, "stop when there are so many; 0 plays every episode", "rows")
    seed: int = what(0, "seed of a task's first episode; the others follow on")
    browser: str = what("", "path of a Chromium; empty looks for one")
    allow: tuple[str, ...] = what((), "hosts that pages may reach, besides this machine")

    def __post_init__(self) -> None:
        at_least(self, episodes=1, steps=1, ends=0, transitions=0)
        if (self.site == "miniwob") == bool(self.path):
            raise InputError(f"path: expected a folder or address, for miniwob none, got {self.path!r} for {self.site}")
        if self.login and (self.site != "url" or not Path(self.login).expanduser().is_file()):
            wanted = "the path of a Python file, with site=url alone"
            raise InputError(f"login: expected {wanted}, got {self.login!r} with site={self.site}")


@dataclass(frozen=True)
class WebPageConfig(RowsConfig):
    source: Literal["browser", "files"] = what("browser", "play pages in a browser, or read row files")
    env: BrowserSpec = field(default_factory=BrowserSpec)
    label: Literal["aligned", "published"] = what("aligned", "the true change: ours, or as the published code finds it")
    scoring: Literal["strict", "published"] = what("strict", "reward: F1 without credit for 'None', or the published")
    reward_beta: float = what(1.0, "reward: F-beta: recall counts so many times as much as precision; results give F1")
    split: WorldSplitRule = field(default_factory=lambda: WorldSplitRule(test=0.15, valid=0.05, worlds=0.2))
    style: Literal["row", "published", "compact", "outcome"] = what(
        "compact",
        "prompt and answer: 'row' asks in the row's own words (published rows and models), 'published' builds prompts "
        "of that kind, 'compact' is for models trained from scratch, 'outcome' is compact and also predicts success "
        "and failure",
    )
    outcome_weight: float = what(0.0, "style=outcome, reward: share of the outcome, beside F-beta", "0 to 1")
    outcome_reward: Literal["right", "brier"] = what(
        "right", "style=outcome, RL: 1 for a right outcome, or the Brier score of what a group states, shared out"
    )
    unseen: tuple[str, ...] = what((), "tasks that planners try besides, and that no model is trained on")
    changed_cap: int = what(0, "most items a section that count where part of a page changes; 0 for all", "items")
    navigation_cap: int = what(20, "most items a section that count where most of a page changes; 0 for all", "items")
    max_prompt: int = what(5000, "longest prompt; of a longer page the lines around the acted element stay", "tokens")
    max_response: int = what(7288, "longest answer", "tokens")

    def __post_init__(self) -> None:
        if not 0 < self.reward_beta < math.inf:
            raise InputError(f"data.reward_beta: expected a number above 0, got {self.reward_beta}; 1 rewards F1")
        if not 0 <= self.outcome_weight <= 1:
            raise InputError(f"data.outcome_weight: expected 0 to 1, got {self.outcome_weight}; 0 leaves it out")
        if self.outcome_reward == "brier" and (self.style != "outcome" or not self.outcome_weight):
            got = f"data.style={self.style} and data.outcome_weight={self.outcome_weight}"
            raise InputError(f"data.outcome_reward=brier: expected data.style=outcome with a weight above 0, got {got}")
        if self.style in ("compact", "outcome") and "published" in (self.label, self.scoring):
            mend = "set data.style=published, or data.label=aligned and data.scoring=strict"
            raise InputError(f"data.style={self.style}: edits are no published labels, nor scored as such; {mend}")
