"""Environments of BrowserGym (arXiv 2412.05467) as the web agent's pages: MiniWoB, WebArena, WorkArena and others.

    pip install rlvr-world[teacher] browsergym-miniwob      # apart from the extra web: it pins a Playwright of its own
    rlvr-world agent traces/gym pages=docs/examples/browsergym_pages.py:pages env.tasks=browsergym/miniwob.click-* ...

An environment brings its own browser and says itself what is won; what it needs besides (sites, MINIWOB_URL) is told in
its package. The page is its accessibility tree, whose bids are the ids of elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from fnmatch import filter as matching
from functools import partial
from importlib import import_module
from typing import Any

import gymnasium as gym

from rlvr_world import InputError
from rlvr_world.domains.replayed import Begun, Replayed
from rlvr_world.domains.scene import MAX_ACTION, AnyText, read_text
from rlvr_world.domains.web_page.actions import parse_action
from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.domains.web_page.envs.sites import PageFailure
from rlvr_world.domains.web_page.rows import PageState, read_question
from rlvr_world.domains.web_page.scene import as_text, observed, refused, space
from rlvr_world.domains.web_page.tree import Node

FAR = 500
"""Pixels of a scroll."""


def pages(spec: BrowserSpec) -> GymPages:
    """The environments that ``spec.tasks`` names, by number of the seed where a session does not say which."""
    kept = replace(BrowserSpec(), tasks=spec.tasks, episodes=spec.episodes, steps=spec.steps, seed=spec.seed)
    if spec != kept or not spec.tasks:
        wanted = (
            "env.tasks, such as browsergym/miniwob.click-test or browsergym/webarena.*, episodes, steps and seed alone"
        )
        raise InputError(f"env: BrowserGym's environments take {wanted}; leave the others out")
    return GymPages(spec, [name for task in spec.tasks for name in _registered(task)])


def _registered(pattern: str) -> list[str]:
    """The environments that a name stands for, in which * may stand for any letters."""
    package = f"browsergym.{pattern.removeprefix('browsergym/').partition('.')[0]}"
    try:
        import_module(package)
    except ImportError as error:
        name = package.replace(".", "-")
        raise InputError(f"env.tasks={pattern}: {error}; pip install {name}, in an environment of its own") from error
    if not (found := matching(gym.registry, pattern)):
        some = ", ".join(matching(gym.registry, f"{package.replace('.', '/')}.*")[:3])
        raise InputError(f"env.tasks={pattern}: {package} has no such environment; it has {some} and others")
    return found


class GymPages(Replayed):
    """Environments in sessions; one runs at a time, since each has browsers of its own."""

    options = ("state", "task")

    def __init__(self, spec: BrowserSpec, tasks: list[str]) -> None:
        super().__init__(_Episode, self._begin, read_text, (AnyText(MAX_ACTION), space()), as_text, live=1)
        self.spec, self.tasks = spec, tasks

    def episodes(self) -> list[tuple[str, int]]:
        """Each task once before one comes again."""
        seeds = range(self.spec.seed, self.spec.seed + self.spec.episodes)
        return [(task, seed) for seed in seeds for task in self.tasks]

    def _begin(self, seed: int, options: Mapping[str, Any]) -> Begun:
        return options.get("task", self.tasks[seed % len(self.tasks)]), seed


class _Episode:
    """An environment that runs; see ``Running``."""

    def __init__(self, begun: Begun) -> None:
        actions, obs = import_module("browsergym.core.action.highlevel"), import_module("browsergym.utils.obs")
        task, seed = begun
        known = actions.HighLevelActionSet(["chat", "infeas", "bid", "nav", "tab", "coord"])
        self.env: Any = gym.make(task, disable_env_checker=True, action_mapping=known.to_python_code)
        ignored = [*obs.IGNORED_AXTREE_ROLES, "InlineTextBox"]  # which newer Chromium has under each text
        self._as_text = partial(obs.flatten_axtree_to_str, ignored_roles=ignored)
        self.state = PageState("")
        try:
            self._came(partial(self.env.reset, seed=seed))
        except PageFailure as error:
            self.close()
            raise InputError(f"task {task!r}, seed {seed}: it does not begin: {error}") from error
        self.told: Mapping[str, Any] = {"task": task, "goal": self.state.goal}

    def _came(self, do: Callable[[], Any], action: str = "") -> Any:
        """What it gives, once the page is read; a browser, a site and a judge fail in many ways."""
        try:
            came = do()
            self.state = self._state(came[0], action)
            return came
        except Exception as error:
            said = str(error).strip().partition("\n")[0][:200]
            raise PageFailure(f"{type(error).__name__}: {said}") from error

    def _state(self, seen: Mapping[str, Any], action: str = "") -> PageState:
        at = int(seen["active_page_index"][0])
        titles = (" ".join(title.split()) for title in seen["open_pages_titles"])
        tabs = " | ".join(f"Tab {i}{' (current)' * (i == at)}: {title}" for i, title in enumerate(titles))
        fields = {"observation": f"{tabs}\n\n{self._as_text(seen['axtree_object'])}", "url": seen["url"]}
        return read_question({"state": {**fields, "goal": seen["goal"], "previous": action}, "action": ""}).state

    def seen(self) -> dict[str, str]:
        return observed(self.state)

    def act(self, action: str) -> tuple[float, bool, Mapping[str, Any]]:
        if error := refused(self.state, action):
            return 0.0, False, {"action_error": error}
        before = self.state
        try:
            seen, reward, over, cut, _ = self._came(partial(self.env.step, call_of(before, action)), action)
        except PageFailure as error:
            return 0.0, False, {"lost": str(error)}
        told = {"changed": self.state.text != before.text, "notes": seen["last_action_error"]}
        return float(reward), over or cut or action.startswith("stop"), told

    def close(self) -> None:
        with suppress(Exception):  # a browser that is gone already
            self.env.close()


def call_of(state: PageState, action: str) -> str:
    """An action in WebArena's words as BrowserGym's call, or two: ``type``, which replaces what stands in a field, then
    Enter."""
    said = parse_action(action)
    if said.verb == "click" and (menu := _list_of(state, said.id)):
        label, more = state.page.by_id[said.id].parts[1], "multiselectable=True" in menu.text
        return f"click({said.id!r}, modifiers=['Control'])" if more else f"select_option({menu.id!r}, {label})"
    if said.verb == "type":
        return f"fill({said.id!r}, {said.text!r})" + f"\npress({said.id!r}, 'Enter')" * said.enter
    calls = {
        "press": f"keyboard_press({said.text!r})",
        "scroll": f"scroll(0, {FAR if said.text == 'down' else -FAR})",
        "goto": f"goto({said.text!r})",
        "tab_focus": f"tab_focus({said.text})",
        "close_tab": "tab_close()",
        "stop": f"report_infeasible({said.text!r})" if said.text == "N/A" else f"send_msg_to_user({said.text!r})",
    }
    return calls.get(said.verb) or f"{said.verb}({repr(said.id) if said.id else ''})"


def _list_of(state: PageState, option: str) -> Node | None:
    """The list that an option is in: a closed one, which cannot be clicked, or one of which several are chosen."""
    nodes, node = state.page.nodes, state.page.by_id[option]
    depth = node.depth if node.role == "option" else 0
    for above in reversed(nodes[: nodes.index(node)]):
        if above.depth < depth and (above.role == "combobox" or "multiselectable=True" in above.text):
            return above
        depth = min(depth, above.depth)
    return None
