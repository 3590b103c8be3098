"""TextWorld's games in sessions: the logic that wrote the rows, one command at a time."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from rlvr_world.domains.scene import MAX_ACTION, MAX_TEXT, AnyText, is_count, read_text
from rlvr_world.domains.text_game.config import TextWorldSpec
from rlvr_world.domains.text_game.envs.textworld import Game, afforded
from rlvr_world.domains.text_game.rows import GameState
from rlvr_world.domains.text_game.scene import Moment, came, drawn, observed, read_moment
from rlvr_world.errors import InputError
from rlvr_world.types import Asked, Outcome, Streams


@lru_cache(maxsize=64)
def _made(spec: TextWorldSpec, name: str) -> Game:
    """Making a game takes longer than most of what is done in it, and every model of a run plays the same ones."""
    number = name.removeprefix("house-")
    if not number.isdecimal() or len(number) > 9:
        raise InputError(f"game {name!r:.80}: expected a name such as house-0017, or its number")
    return Game(spec, random.Random(f"{spec.seed}/{int(number)}"))


class RealGames:
    """The games of a spec as a ``World``: the seed, or ``options["game"]`` (a number or a name), says which."""

    render_mode, options = "ansi", ("state", "game")
    read_action, observe = staticmethod(read_text), staticmethod(observed)

    def __init__(self, spec: TextWorldSpec) -> None:
        self.spec = spec
        self.action_space, self.observation_space = AnyText(MAX_ACTION), AnyText(MAX_TEXT)
        self._game = partial(_made, spec)
        self._afforded = lru_cache(maxsize=65536)(self._work_out)

    def _work_out(self, seen: str) -> Sequence[str]:
        moment = read_moment(seen)
        return afforded(self._game(moment.game), moment.seen)

    def start(self, seed: int, options: Mapping[str, Any]) -> tuple[Moment, Mapping[str, Any]]:
        if "state" in options:
            moment = options["state"]
            if not isinstance(moment, Moment) or moment.facts is None:
                raise InputError("start, state: a real game goes on from its own states alone; give one of a session's")
        else:
            chosen = options.get("game", self.spec.game_number(seed % self.spec.games))
            name = f"house-{chosen:04d}" if is_count(chosen) else chosen
            if not isinstance(name, str):
                raise InputError(f"start, game: expected a name such as house-0017, or its number, got {name!r:.80}")
            moment = self._seen(name, self._game(name).game.world.state, won=False)
        told = {"game": moment.game, "goal": self._game(moment.game).goal}
        return moment, {**told, "commands": self._possible(moment)}

    def commands(self, game: str) -> Sequence[str]:
        """What a player of this game can ever type."""
        return self._game(game).possible if game else ()

    def advance(self, asked: Asked, streams: Streams) -> list[Outcome]:
        return [self._step(moment, action) for moment, action in asked]

    def _step(self, before: Moment, command: str) -> Outcome:
        game = self._game(before.game)
        possible = game.admissible(before.facts)
        if command not in possible:
            one = next(iter(sorted(possible)), "look")
            return Outcome(before, info={"action_error": f"expected a command such as {one!r}, got {command!r:.60}"})
        facts = before.facts.apply_on_copy(possible[command])
        after = self._seen(before.game, facts, game.quest.is_triggering(facts))
        return came(before, after, self._possible(after))

    def _possible(self, moment: Moment) -> Sequence[str]:
        """The commands that do something now, or tell something."""
        return sorted(self._game(moment.game).admissible(moment.facts))

    def worth_trying(self, moment: Moment) -> Sequence[str]:
        """The commands that would change this moment, real or imagined, as its objects tell."""
        return self._afforded(observed(moment))

    def last(self, moment: Moment) -> str | None:
        """The command that wins, where it can be given."""
        goal = self._game(moment.game).goal
        return goal if goal in self.worth_trying(moment) else None

    def _seen(self, name: str, facts: Any, won: bool) -> Moment:
        game = self._game(name)
        score = {"score": int(won), "gameOver": won, "gameWon": won}
        return Moment(GameState(tuple(game.objects(facts)), score, len(game.cast) + 1), name, facts)

    def render(self, state: Moment) -> str:
        return drawn(observed(state))

    def close(self) -> None:
        """Holds nothing."""
