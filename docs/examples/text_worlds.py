"""Rows of ScienceWorld (arXiv 2203.07540) or TextWorldExpress (arXiv 2208.01174), by actions at random:

pip install scienceworld textworld-express     # both run Java: apt-get install default-jre-headless
python docs/examples/text_worlds.py scienceworld find-plant rows.jsonl 40
python docs/examples/text_worlds.py textworldexpress coin rows.jsonl 40

A state is what ``look`` and the inventory say, line by line, so that a change is the lines that come and go.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

STEPS = 20


def scienceworld(task: str, episodes: int) -> Iterator[tuple[Any, str, Any, dict[str, Any]]]:
    """State, action, next state and what else a row holds. Each variation of the task is a world of its own."""
    from scienceworld import ScienceWorldEnv

    env, draw = ScienceWorldEnv("", envStepLimit=STEPS), random.Random(0)
    for episode in range(episodes):
        env.load(task, episode % env.get_max_variations(task), "easy")
        _, info = env.reset()
        for _ in range(STEPS):
            # A focus says that the task is done with this thing: nearly always wrong, and the end.
            actions = [action for action in info["valid"] if not action.startswith("focus")]
            before, action = state(info["look"], info["inv"]), draw.choice(actions)
            _, _, done, info = env.step(action)
            told = {"score": info["score"], "done": done, "world": f"{task}-{info['variationIdx']}"}
            yield before, action, state(info["look"], info["inv"]), told
            if done:
                break
    env.close()


def textworldexpress(game: str, episodes: int) -> Iterator[tuple[Any, str, Any, dict[str, Any]]]:
    """The same of a game with its own settings. Each seed is a world of its own."""
    from textworld_express import TextWorldExpressEnv

    env, draw = TextWorldExpressEnv(envStepLimit=STEPS), random.Random(0)
    env.load(gameName=game, gameParams="")
    for seed in range(episodes):
        _, info = env.reset(seed=seed, gameFold="train", generateGoldPath=False)
        for _ in range(STEPS):
            before, action = state(info["look"], info["inventory"]), draw.choice(sorted(info["validActions"]))
            _, _, done, info = env.step(action)
            told = {"score": info["score"], "done": bool(done), "world": f"{game}-{seed}"}
            yield before, action, state(info["look"], info["inventory"]), told
            if done:
                break
    env.close()


def state(look: str, inventory: str) -> dict[str, dict[str, int]]:
    """How often each line or sentence stands there."""
    return {name: Counter(line.strip() for line in re.split(r"\n|(?<=\.) ", text) if line.strip())
            for name, text in (("look", look), ("inventory", inventory))}  # fmt: skip


if __name__ == "__main__":
    engine, task, file, episodes = sys.argv[1:]
    steps = {"scienceworld": scienceworld, "textworldexpress": textworldexpress}[engine](task, int(episodes))
    with open(file, "w") as rows:
        for before, action, after, told in steps:
            rows.write(json.dumps({"state": before, "action": action, "next_state": after, **told}) + "\n")
