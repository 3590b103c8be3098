"""Text games made here: rows in ByteSized32's layout from games that TextWorld (MIT) generates, no data needed.

TextWorld makes the game (map, objects, quest, names) and its logic plays it, in memory. At each state of a seeded walk
some commands are tried, as ByteSized32's crawler does, and each is a row; one that is not admissible changes nothing.
TextWorld has no clock: ``tick_state`` is ``action_state``. The layout's texts (observation, look, inventory, task) are
left out: no model reads them. Facts become objects with a uuid, a type, properties and what they contain; and the
objects of a state that was imagined become facts again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rlvr_world.domains.text_game.config import TextWorldSpec
from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.errors import InputError
from rlvr_world.system.files import write_whole
from rlvr_world.system.progress import track

_FORMAT = 2  # part of the cache key: raise it when the same spec gives other rows
_WALK = 24  # states visited before the walk starts again
_TRIES = 4  # commands tried at a visited state
_GOALS = ("insert", "put", "eat", "open/c", "close/c", "lock/c", "unlock/c", "take/c", "take/s")
"""Last quest steps that may be a goal: those won by that very command wherever it is admissible."""
TYPES = dict(zip("Prdcskfo", ("Agent", "Room", "Door", "Container", "Supporter", "Key", "Food", "Item"), strict=True))
"""TextWorld's types by letter, in the order in which uuids are given."""
_TOLD = {"in", "on", "at", "open", "closed", "locked", "eaten"}
"""Facts that the objects of a state tell; the others of a game's first state hold throughout, but for doors."""
_HOLDS = {"Room": "at", "Supporter": "on", "Container": "in"}


def collect_rows(spec: TextWorldSpec, cache_dir: Path | str) -> Path:
    """The ``.jsonl.gz`` of the rows of ``spec`` under ``cache_dir``: found there, or generated; ``game`` is
    ``house-0017``, unique to a game number. Raises InputError if TextWorld is not installed."""
    try:
        version = metadata.version("textworld")
    except metadata.PackageNotFoundError as error:
        raise InputError("world: the package textworld is missing; pip install 'rlvr-world[textgame]'") from error
    key = json.dumps([_FORMAT, version, asdict(spec)], sort_keys=True)
    path = Path(cache_dir) / f"house-{spec.split}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.jsonl.gz"
    if path.exists():
        return path
    with gzip.GzipFile("", "wb", 6, packed := io.BytesIO(), mtime=0) as out:
        for index in track(range(spec.games), f"generating {spec.split} games", "games"):
            for row in game_rows(spec, spec.game_number(index)):
                out.write(json.dumps(row).encode() + b"\n")
    write_whole(path, packed.getvalue())
    return path


def collect_splits(spec: TextWorldSpec, cache_dir: Path | str, valid_games: int, test_games: int) -> dict[str, Path]:
    """Files ``train`` (as in ``spec``), ``valid`` and ``test`` of disjoint games: what is held out is whole games."""
    counts: dict[Any, int] = {"train": spec.games, "valid": valid_games, "test": test_games}
    return {name: collect_rows(replace(spec, split=name, games=n), cache_dir) for name, n in counts.items()}


def game_rows(spec: TextWorldSpec, number: int) -> Iterator[dict[str, Any]]:
    """The rows of one game: a seeded walk, and at each state of it a few commands tried."""
    rng = random.Random(f"{spec.seed}/{number}")
    play = Game(spec, rng)
    seen: set[tuple[str, str]] = set()
    count = changed = 0
    for state, last, moves in play.walk(rng, visits=5 * spec.rows_per_game):
        others = [command for command in play.possible if command not in moves]
        before = json.dumps(play.objects(state))
        for _ in range(_TRIES):
            if count == spec.rows_per_game:
                return
            wants_change = changed < spec.changed_share * (count + 1)
            fresh = [c for c in (sorted(moves) if wants_change else others) if (before, c) not in seen]
            if not fresh:
                break
            command = play.goal if play.goal in fresh else _pick(fresh, rng)
            seen.add((before, command))
            labels = {"game": f"house-{number:04d}", "state_id": count}
            yield play.row(state, last, command, moves.get(command)) | labels
            count += 1
            changed += command in moves


class Game:
    """One generated game with its names, its goal and its logic."""

    def __init__(self, spec: TextWorldSpec, rng: random.Random) -> None:
        self.game, self.quest = _generate(spec, rng)
        self.cast = cast_of(self.game)
        self._names = {var: entity.name for var, entity in self.cast.items()}
        for var, name in self._names.items():
            self.game.infos[var].name = name if var != "P" else None
        self.plan = [action.format_command(self._names) for action in self.quest.actions]
        self.goal = self.plan[-1]
        self.possible = self.game.possible_admissible_commands

    def objects(self, state: Any) -> list[dict[str, Any]]:
        return objects_of(self.cast, state.facts, self.goal)

    def admissible(self, state: Any) -> dict[str, Any]:
        """The commands that can be given in this state, with TextWorld's action for each."""
        actions = state.all_applicable_actions(self.game.kb.rules.values(), self.game.kb.types.constants_mapping)
        return {action.format_command(self._names): action for action in actions}

    def moves(self, state: Any) -> dict[str, Any]:
        """Those that change it."""
        known = self.admissible(state).items()
        return {command: a for command, a in known if set(a.preconditions) != set(a.postconditions)}

    def walk(self, rng: random.Random, visits: int) -> Iterator[tuple[Any, str, dict[str, Any]]]:
        """States with the command that led there and their moves: random ones, or the quest's next step."""
        state, last, age = self.game.world.state, "", 0
        for _ in range(visits):
            moves = self.moves(state)
            yield state, last, moves
            if moves:
                planned = [command for command in self.plan if command in moves]
                last = planned[0] if planned and rng.random() < 0.3 else _pick(sorted(moves), rng)
                state, age = state.apply_on_copy(moves[last]), age + 1
            if not moves or age == _WALK or self.quest.is_triggering(state):
                state, last, age = self.game.world.state, "", 0

    def row(self, state: Any, last: str, command: str, action: Any | None) -> dict[str, Any]:
        after = state.apply_on_copy(action) if action else state
        now, then = (
            {"lastAction": command, "objects": self.objects(facts), "max_UUID": len(self.cast) + 1}
            for facts, command in ((state, last), (after, command))
        )
        won = self.quest.is_triggering(after)
        scores = ({"score": int(end), "gameOver": end, "gameWon": end} for end in (False, won))
        keys = ("current_state", "action_state", "tick_state", "current_score_state", "next_score_state")
        return dict(zip(keys, (now, then, then, *scores), strict=True))


def _pick(commands: list[str], rng: random.Random) -> str:
    """A verb first and then a command with it, so that verbs with many objects do not crowd out the others."""
    verb = rng.choice(sorted({command.split()[0] for command in commands}))
    return rng.choice([command for command in commands if command.split()[0] == verb])


def _generate(spec: TextWorldSpec, rng: random.Random) -> tuple[Any, Any]:
    """A game by TextWorld's generator and the event that wins it; tries seeds until the goal is of a kind in _GOALS."""
    from textworld.generator import KnowledgeBase, make_game
    from textworld.generator.chaining import QuestGenerationError
    from textworld.generator.game import GameOptions

    for _ in range(200):
        options = GameOptions()
        options.kb = KnowledgeBase.default()  # one for all games: parsing it anew takes half a second
        options.nb_rooms, options.nb_objects, options.quest_length = spec.rooms, spec.objects, spec.quest_length
        options.seeds = rng.randrange(2**31)
        try:
            game = make_game(options)
        except QuestGenerationError:
            continue
        event = game.quests[0].win_events[0]
        if event.actions[-1].name in _GOALS and not event.is_triggering(game.world.state):
            return game, event
    made = f"no quest of {spec.quest_length} commands with {spec.rooms} rooms and {spec.objects} objects in 200 tries"
    raise InputError(f"world: TextWorld made {made}; ask for a shorter quest or for more objects")


@dataclass(frozen=True)
class Entity:
    """One thing of a game. ``name`` ends in its uuid, as in ``key (ID: 4)``."""

    uuid: int
    name: str
    type: str


def cast_of(game: Any) -> dict[str, Entity]:
    """The entities of a TextWorld game by its own ids (``k_0``), in the order of the uuids that they get.

    Matching locks and keys are cut to their last word ("Henderson's style chest" is ``chest``): which key fits is
    a property of the key, and a name of one word is a name that a small model can copy.
    """

    def plain(info: Any) -> str:
        name = "agent" if info.type == "P" else str(info.name)
        return name.split()[-1] if info.type in {"c", "d", "k"} else name

    infos = [info for info in game.infos.values() if info.type in TYPES]
    infos.sort(key=lambda info: (list(TYPES).index(info.type), info.id))
    return {info.id: Entity(uuid, f"{plain(info)} (ID: {uuid})", TYPES[info.type]) for uuid, info in enumerate(infos)}


def objects_of(cast: Mapping[str, Entity], facts: Iterable[Any], goal: str) -> list[dict[str, Any]]:
    """The objects of a state, by uuid, in ByteSized32's layout; food that was eaten is gone.

    Properties: ``state`` (open, closed, locked) of containers and doors; ``opens`` of a key; for a room the room in
    each direction and, behind ``north door`` and so on, the door in between. A last object of type ``Goal`` names
    the command that wins, so that the score follows from the state.
    """
    properties: dict[str, dict[str, str]] = {var: {} for var in cast}
    inside: dict[str, list[str]] = {var: [] for var in cast}
    gone, ways, doors = set(), [], {}
    for fact in facts:
        first, *rest = fact.names
        if fact.name in {"in", "on", "at"}:
            inside["P" if rest[0] == "I" else rest[0]].append(first)
        elif fact.name in {"open", "closed", "locked"}:
            properties[first]["state"] = fact.name
        elif fact.name == "match":
            properties[first]["opens"] = cast[rest[0]].name
        elif fact.name.endswith("_of"):
            ways.append((rest[0], fact.name.removesuffix("_of"), first))
        elif fact.name == "link":
            doors[first, rest[1]] = rest[0]
        elif fact.name == "eaten":
            gone.add(first)
    for room, direction, beyond in ways:
        properties[room][direction] = cast[beyond].name
        if (room, beyond) in doors:
            properties[room][f"{direction} door"] = cast[doors[room, beyond]].name
    objects: list[dict[str, Any]] = []
    for var, entity in cast.items():
        if var not in gone:
            held = [thing.name for name, thing in cast.items() if name in inside[var]]
            told = {"properties": dict(sorted(properties[var].items())), "contains": held}
            objects.append({"name": entity.name, "uuid": entity.uuid, "type": entity.type, **told})
    names = {"name": f"goal (ID: {len(cast)})", "uuid": len(cast), "type": "Goal"}
    return [*objects, {**names, "properties": {"command": goal}, "contains": []}]


def afforded(game: Game, seen: GameState) -> list[str]:
    """The commands that would change this state, sorted: the model's word is taken for the state, TextWorld's rules for
    what it admits. Nothing in a state that no game can be in, and nothing of objects that the game does not have."""
    from textworld.logic import State

    try:
        return sorted(game.moves(State(game.game.kb.logic, list(_facts(game, seen)))))
    except (KeyError, ValueError, AssertionError):  # such as an agent in two rooms
        return []


def _facts(game: Game, seen: GameState) -> Iterator[Any]:
    from textworld.logic import Proposition, Variable

    first = list(game.game.world.state.facts)
    variables = {one.name: one for fact in first for one in fact.arguments}
    by_name = {entity.name: var for var, entity in game.cast.items()}
    objects = [(by_name[one["name"]], one) for one in seen.objects if one["name"] in by_name]
    there, states = {var for var, _ in objects}, {var: one["properties"].get("state") for var, one in objects}
    doors = {(fact.names[0], fact.names[2]): fact.names[1] for fact in first if fact.name == "link"}
    for fact in first:
        names = fact.names
        holds = names not in doors if fact.name == "free" else fact.name not in _TOLD
        if holds and all(name in there or name in ("P", "I") for name in names):
            yield fact
    for (room, beyond), door in doors.items():
        if states.get(door) == "open":
            yield Proposition("free", [variables[room], variables[beyond]])
    hands = variables.get("I", Variable("I", "I"))
    for var, one in objects:
        if states[var] in ("open", "closed", "locked"):
            yield Proposition(states[var], [variables[var]])
        for inner in one["contains"]:
            if inner in by_name:
                agent = one["type"] == "Agent"
                where = [variables[by_name[inner]], hands if agent else variables[var]]
                yield Proposition("in" if agent else _HOLDS.get(one["type"], "in"), where)
