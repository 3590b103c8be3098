"""Video recipes."""

from __future__ import annotations

from rlvr_world.recipes import Recipe

VIDEO_RECIPES: dict[str, Recipe] = {}
