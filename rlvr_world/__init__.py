"""Train world models by reinforcement learning on verifiable rewards, and use them.

    world = rlvr_world.load("runs/demo")
    world.predict(state, "open door")

The nouns: a ``Transition`` becomes a ``Script`` of ``Given`` and ``Write``; sampling it gives a ``Rollout``; its
prediction gets a ``Score``, or is ``Malformed``. ``Picture`` shows what a text cannot. A ``Recipe`` makes it a run.
A ``Session`` steps a ``World``, real or ``Imagined`` by a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr_world.config import Config as Config
    from rlvr_world.errors import Halted as Halted
    from rlvr_world.errors import InputError as InputError
    from rlvr_world.recipes import Recipe as Recipe
    from rlvr_world.recipes import Splits as Splits
    from rlvr_world.runs.runner import resume as resume
    from rlvr_world.runs.runner import train as train
    from rlvr_world.runs.world_model import WorldModel as WorldModel
    from rlvr_world.runs.world_model import load as load
    from rlvr_world.sessions.imagined import Imagined as Imagined
    from rlvr_world.sessions.session import Session as Session
    from rlvr_world.types import Domain as Domain
    from rlvr_world.types import Given as Given
    from rlvr_world.types import Malformed as Malformed
    from rlvr_world.types import Outcome as Outcome
    from rlvr_world.types import Picture as Picture
    from rlvr_world.types import Rollout as Rollout
    from rlvr_world.types import Score as Score
    from rlvr_world.types import Script as Script
    from rlvr_world.types import Transition as Transition
    from rlvr_world.types import World as World
    from rlvr_world.types import Write as Write

__version__ = "0.1.0"

_PUBLIC = {
    **dict.fromkeys(("load", "WorldModel"), "runs.world_model"),
    **dict.fromkeys(("train", "resume"), "runs.runner"),
    **dict.fromkeys(("Recipe", "Splits"), "recipes"),
    "Imagined": "sessions.imagined",
    "Session": "sessions.session",
    "Config": "config",
    **dict.fromkeys(("InputError", "Halted"), "errors"),
    **dict.fromkeys(
        ("Domain", "Given", "Malformed", "Outcome", "Picture", "Rollout", "Score", "Script", "Transition"), "types"
    ),
    **dict.fromkeys(("World", "Write"), "types"),
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rlvr_world' has no attribute {name!r}")
    return getattr(import_module(f"rlvr_world.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
