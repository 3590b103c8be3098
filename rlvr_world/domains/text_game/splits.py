"""Which text-game rows are trained on, and which are kept apart.

The published split is random inside each game, so 21 % of its test questions stand word for word in the training
rows. A claim about generalisation needs ``deduplicate`` or ``hold_out_worlds``.
Source of the split and of the mixing: RLVR-World (NeurIPS 2025, arXiv 2505.13934, section 4.2 and appendix).
All functions keep the order of the rows and depend on nothing but their arguments.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Sequence

from rlvr_world.domains.text_game.rows import GameState, by_uuid
from rlvr_world.errors import InputError
from rlvr_world.types import Transition


def question(transition: Transition) -> bytes:
    """A fingerprint of what the model is asked: game, objects, score, next uuid and action (16 bytes)."""
    state: GameState = transition.state
    asked = [transition.world, state.objects, state.score, state.next_uuid, transition.action]
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).digest()


def as_published(train: Sequence[Transition], test: Sequence[Transition]) -> list[Transition]:
    """The training rows that are not themselves test rows, by game and state id; equal questions stay.

    Regenerated rows contain the test rows; the published training set is what this leaves.
    """
    named = {_name(row) for row in test}
    return [row for row in train if _name(row) not in named]


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


def hold_out_worlds(
    rows: Sequence[Transition], worlds: Collection[str] = (), fraction: float = 0.0, seed: int = 0
) -> tuple[list[Transition], list[Transition]]:
    """Rows of the other games, and rows of the held-out games: those named, or a random fraction of all games.

    Give either ``worlds`` or ``fraction`` (in (0, 1); at least one game is held out, and at least one is kept).
    """
    known = sorted({row.world for row in rows})
    if bool(worlds) == bool(fraction):
        raise InputError(f"held-out games: expected either names or a fraction, got {list(worlds)} and {fraction}")
    if fraction:
        held = set(random.Random(seed).sample(known, _share(fraction, len(known), "games to hold out")))
    else:
        held = set(worlds)
    unknown = sorted(held - set(known))
    if unknown or held == set(known):
        got = f"the unknown {', '.join(unknown)}" if unknown else "all of them"
        raise InputError(f"held-out games: expected some of {', '.join(known)}, got {got}; name other games")
    return [row for row in rows if row.world not in held], [row for row in rows if row.world in held]


def validation_split(
    rows: Sequence[Transition], fraction: float, seed: int
) -> tuple[list[Transition], list[Transition]]:
    """Training rows and validation rows, with ``fraction`` of the distinct questions in the second.

    Rows that ask the same question go the same way, so no validation question is trained on.
    """
    keys = [question(row) for row in rows]
    distinct = list(dict.fromkeys(keys))
    held = set(random.Random(seed).sample(distinct, _share(fraction, len(distinct), "questions for validation")))
    train = [row for row, key in zip(rows, keys, strict=True) if key not in held]
    return train, [row for row, key in zip(rows, keys, strict=True) if key in held]


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


def mix_unchanged(rows: Sequence[Transition], per_hundred_changed: float, seed: int, epoch: int) -> list[Transition]:
    """The rows of one epoch, shuffled: all gold rows, and for 100 of them ``per_hundred_changed`` others.

    The others are drawn at random with replacement, anew in each epoch. Most rows change nothing, and a model trained
    on all of them learns to answer just that. Published ratios: 40 (binary reward) and 5 (task-specific reward).
    """
    gold = [row for row in rows if is_gold(row)]
    others = [row for row in rows if not is_gold(row)]
    count = round(len(gold) * per_hundred_changed / 100)
    if not gold or per_hundred_changed < 0 or (count and not others):
        raise InputError(
            f"mixing unchanged rows: expected changed rows, and unchanged ones for a ratio above 0, got {len(gold)} "
            f"changed, {len(others)} unchanged and the ratio {per_hundred_changed}; give other rows or another ratio"
        )
    drawn = random.Random(f"mix {seed} {epoch}")
    mixed = gold + (drawn.choices(others, k=count) if count else [])
    drawn.shuffle(mixed)
    return mixed


def _name(row: Transition) -> str:
    """``game/state_id`` out of an id ``file:line game/state_id``; the whole id where it has no such part."""
    return row.id.partition(" ")[2] or row.id


def _share(fraction: float, total: int, what: str) -> int:
    """``fraction`` of ``total``, at least one and never all."""
    if not 0 < fraction < 1 or total < 2:
        raise InputError(f"{what}: expected a fraction between 0 and 1 of at least 2, got {fraction} of {total}")
    return min(max(1, round(fraction * total)), total - 1)
