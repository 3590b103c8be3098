"""Plays one game of a GPT-simulator checkout and prints its rows. Run by ``bytesized32.collect_rows`` in a process of
its own, because games are code; it stands on nothing but the standard library, so that any Python can run it.

At each step of the game's playthrough every possible action is taken once, from there, as in the published
``get_game_states.py``. A game counts its objects in a global of its module, which a copy of the game does not hold:
it is put back before each action.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

WITHOUT_ROOM = ("metal-detector", "space-walk", "sunburn")
"""Games whose states leave the room itself out."""


def main(checkout: str, name: str) -> None:
    rows, sys.stdout = sys.stdout, sys.stderr  # games print
    spec = importlib.util.spec_from_file_location(name, Path(checkout, "data", "games", f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    lines = Path(checkout, "data", "playthroughs", f"{name}-playthrough.txt").read_text().splitlines()
    taken = [line[1:].strip() for line in lines if line.startswith(">")]
    game, last, number = module.TextGame(randomSeed=module.randomSeed), "", 0
    game.generatePossibleActions()
    for gold in (action for action in taken if action not in ("help", "")):
        uuid, looked = module.UUID, copy.deepcopy(game)
        before, score = state(looked, last, uuid, name), score_of(looked)
        for action in deviations(list(looked.generatePossibleActions()), gold):
            module.UUID, tried = uuid, copy.deepcopy(game)
            tried.step_action(action)
            acted = state(tried, action, module.UUID, name)
            tried.step_tick()
            ticked = state(tried, action, module.UUID, name)
            tried.step_calculate_score()
            states = {"current_state": before, "action_state": acted, "tick_state": ticked}
            scores = {"current_score_state": score, "next_score_state": score_of(tried)}
            rows.write(json.dumps({**states, **scores, "game": name, "state_id": number}) + "\n")
            number += 1
        module.UUID, last = uuid, gold
        game.step(gold)
        game.generatePossibleActions()


def deviations(possible: list[str], gold: str) -> list[str]:
    """The possible actions by verb, in the order in which verbs come first; that of the playthrough last."""
    others = [action for action in possible if action not in (gold, "look around")]  # the same as look
    verbs = list(dict.fromkeys(action.split()[0] for action in others))
    return [action for verb in verbs for action in others if action.split()[0] == verb] + [gold]


def state(game: Any, action: str, uuid: int, name: str) -> dict[str, Any]:
    root = game.rootObject
    things = [*([] if name in WITHOUT_ROOM else [root]), *root.getAllContainedObjectsRecursive()]
    carried = game.actionInventory() if hasattr(game, "actionInventory") else "No inventory available."
    texts = {"observation": game.observationStr, "look": game.actionLook(), "inventory": carried}
    texts |= {"taskDesc": game.getTaskDescription(), "lastAction": action}
    objects = [
        {
            "name": thing.name,
            "uuid": thing.uuid,
            "type": type(thing).__name__,
            "properties": copy.deepcopy(thing.properties),
            "contains": [one.name for one in thing.contains],
        }
        for thing in things
    ]
    return {**texts, "objects": objects, "max_UUID": uuid}


def score_of(game: Any) -> dict[str, Any]:
    return {"score": game.score, "gameOver": game.gameOver, "gameWon": game.gameWon}


if __name__ == "__main__":
    main(*sys.argv[1:])
