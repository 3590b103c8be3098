"""The data settings of a run on rows whose states are any JSON. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rlvr_world.config import what
from rlvr_world.domains.splits import RowsConfig


@dataclass(frozen=True)
class JsonWorldConfig(RowsConfig):
    source: ClassVar[str] = "files"
    deduplicate: bool = what(False, "leave out training rows whose question stands in the test rows")
    reward: Literal["binary", "partial"] = what("partial", "exact; or 0.8 changes + 0.2 exact")
    max_prompt: int = what(1024, "longest prompt", "tokens")
    max_response: int = what(256, "longest answer", "tokens")
