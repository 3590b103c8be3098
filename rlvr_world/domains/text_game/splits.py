"""What makes two text-game rows the same question, and which rows count as changed for RL.

The published split is random inside each game, so 21 % of its test questions stand word for word in the training
rows. A claim about generalisation needs ``deduplicate`` or whole games held out (``data.split.worlds``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from rlvr_world.domains.text_game.rows import GameState, by_uuid
from rlvr_world.types import Transition


def question(transition: Transition) -> bytes:
    """A fingerprint of what the model is asked: game, objects, score, next uuid and action (16 bytes)."""
    state: GameState = transition.state
    asked = [transition.world, state.objects, state.score, state.next_uuid, transition.action]
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).digest()


def deduplicate(train: Sequence[Transition], test: Sequence[Transition]) -> list[Transition]:
    """The training rows whose question does not occur in ``test``, each question once (its first row)."""
    seen = {question(row) for row in test}
    kept: list[Transition] = []
    for row in train:
        key = question(row)
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def is_gold(transition: Transition) -> bool:
    """Whether an object that is there before and after differs in ``properties`` or in what it contains.

    This is the published training filter. It is narrower than ``changed``: a new score alone is not gold.
    """
    old, new = by_uuid(transition.state), by_uuid(transition.next_state)
    return any(
        old[uuid]["properties"] != new[uuid]["properties"]
        or sorted(old[uuid]["contains"]) != sorted(new[uuid]["contains"])
        for uuid in old.keys() & new.keys()
    )
