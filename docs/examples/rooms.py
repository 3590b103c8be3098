"""Rows of a tiny world in JSON, for docs/domains/json_world.md: rooms to walk through, three things to take.

python docs/examples/rooms.py rows.jsonl 200
"""

from __future__ import annotations

import json
import random
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

ROOMS, THINGS = ("hall", "kitchen", "attic", "cellar"), ("lamp", "key", "rope")


def step(state: dict[str, Any], action: str) -> tuple[dict[str, Any], int]:
    """The state after ``go ROOM`` or ``take THING``, and the point that a thing is worth."""
    after, (verb, what) = deepcopy(state), action.split()
    if verb == "go":
        after["agent"]["at"] = what
        return after, 0
    thing = next(thing for thing in after["items"] if thing["id"] == what)
    taken = thing["at"] == after["agent"]["at"] and not thing["held"]
    thing["held"] |= taken
    return after, int(taken)


def rows(episodes: int) -> list[dict[str, Any]]:
    """Walks of at most eight actions; the game ends with the third thing."""
    found, draw = [], random.Random(0)
    for episode in range(episodes):
        items = [{"id": name, "at": draw.choice(ROOMS), "held": False} for name in THINGS]
        state, score = {"agent": {"at": "hall"}, "items": items}, 0
        for _ in range(8):
            action = f"go {draw.choice(ROOMS)}" if draw.random() < 0.5 else f"take {draw.choice(THINGS)}"
            after, gained = step(state, action)
            score += gained
            told = {"score": score, "done": score == len(THINGS), "world": f"house{episode % 5}"}
            found.append({"state": state, "action": action, "next_state": after, **told})
            state = after
            if told["done"]:
                break
    return found


if __name__ == "__main__":
    file, episodes = sys.argv[1:]
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows(int(episodes))))
