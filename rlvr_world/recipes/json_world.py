"""Worlds of one's own in rows ``{state, action, next_state}`` whose states are any JSON, or a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_world.config import Config, ControlConfig, ModelConfig, OptimizerConfig, RLConfig, SFTConfig
from rlvr_world.domains.json_world.config import JsonWorldConfig
from rlvr_world.domains.row_files import OnFault
from rlvr_world.recipes import Splits, rows
from rlvr_world.recipes.rows import RowsRecipe
from rlvr_world.types import Domain, Outcome, Scene, Transition

if TYPE_CHECKING:
    from rlvr_world.domains.json_world.domain import JsonWorld
    from rlvr_world.models.text_tokenizer import TextTokenizer


def json_world() -> Config:
    return Config(
        recipe="json_world",
        summary="your rows {state, action, next_state} (data.train), states any JSON, a 2M-parameter model (2 cores)",
        data=JsonWorldConfig(),
        model=ModelConfig(vocabulary=1024, hidden=192, layers=4, heads=4),
        sft=SFTConfig(steps=400, batch=32, optimizer=rows.from_scratch(2e-3), save_every=50, eval_every=100),
        rl=RLConfig(steps=40, prompts=32, group=8, optimizer=OptimizerConfig(1e-4), kl=0.0, eval_every=10),
        control=ControlConfig(learning_rate=3e-4),
    )


class JsonWorldRecipe(RowsRecipe):
    def splits(self, config: Config) -> Splits:
        def question(row: Transition) -> str:
            return repr((row.world, row.state, row.action))

        return self.of_files(config, question, lambda row: row.kind != "unchanged")

    def read(self, config: Config, path: str, column: str = "", on_fault: OnFault = None) -> list[Transition]:
        from rlvr_world.domains.json_world.domain import read_rows

        return read_rows(path, column, on_fault)

    def words(self, config: Config, tokenizer: TextTokenizer | None = None, world: Path | None = None) -> JsonWorld:
        from rlvr_world.domains.json_world.domain import JsonWorld

        return JsonWorld(config.data, tokenizer)

    def record(self, row: Transition) -> dict[str, Any]:
        return {"state": row.state, "action": row.action, "next_state": row.next_state, "world": row.world}

    def scene(self, config: Config, domain: Domain) -> Scene:
        """A step's reward is what the state says, or the points that it adds."""
        from rlvr_world.domains.scene import TextScene

        def outcome(before: Any, row: Transition, after: Any) -> Outcome:
            old, new = (state if isinstance(state, dict) else {} for state in (row.state, after))
            gained: list[Any] = [state.get("score") for state in (new, old)]
            points = gained[0] - gained[1] if all(isinstance(one, (int, float)) for one in gained) else 0
            return Outcome(after, float(new.get("reward", points)), new.get("done") is True)

        scene = super().scene(config, domain)
        assert isinstance(scene, TextScene)
        return replace(scene, outcome=outcome)

    def question(self, given: Any) -> Transition:
        from rlvr_world.domains.json_world.domain import read_value, written

        asked = super().question(given)
        state, action = (read_value(getattr(asked, side), "question", side) for side in ("state", "action"))
        return replace(asked, state=state, action=written(action))

    def protocol(self, config: Config) -> dict[str, Any]:
        names = ("reward", "max_prompt", "max_response")
        return {"domain": "json world", **{name: getattr(config.data, name) for name in names}}


RECIPES = {"json_world": json_world}
