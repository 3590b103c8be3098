"""What goes over the wire of a session's server: which fields a request has, and values as JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlvr_world.errors import InputError
from rlvr_world.types import Picture, World

FIELDS: dict[str, dict[str, str]] = {
    "create": {"world": "string", "seed": "integer", "options": "object", "horizon": "integer"},
    "step": {"action": "any", "step_id": "integer"},
    "imagine": {"plans": "array", "n": "integer"},
    "fork": {"world": "string", "seed": "integer", "step": "integer"},
    "reset": {"seed": "integer", "options": "object"},
}
FIELDS["openenv reset"] = {**FIELDS["create"], "episode_id": "string"}
FIELDS["openenv step"] = {"action": "any", "metadata": "object"}
"""The fields of each request's body, by their JSON types; whole numbers are not negative."""
REQUIRED = {"step": ("action",), "openenv step": ("action",), "imagine": ("plans",)}
LEAST = {"horizon": 1, "n": 1}
_TYPES = {"string": str, "integer": int, "object": dict, "array": list, "any": object}
_MOST = 2**63 - 1


class Refused(InputError):
    """A request that is not carried out: an HTTP status, a code, a sentence, and what was done before, if anything."""

    def __init__(self, status: int, code: str, said: str, done: Mapping[str, Any] | None = None) -> None:
        super().__init__(said)
        self.status, self.code, self.done = status, code, dict(done or {})


def read_fields(body: bytes, name: str) -> dict[str, Any]:
    """The fields of a request's body. Raises InputError that names the field where one is not of its type."""
    try:
        given = json.loads(body or b"{}")
        json.dumps(given, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError):  # no JSON, no UTF-8, too many digits, nested too deep
        given = None
    if not isinstance(given, dict):
        raise InputError(f"body: expected a JSON object, got {bytes(body[:40])!r}")
    given = {field: value for field, value in given.items() if value is not None}
    if missing := [field for field in REQUIRED.get(name, ()) if field not in given]:
        raise InputError(f"{missing[0]}: expected it in the body, got {', '.join(given) or 'nothing'}")
    for field, value in given.items():
        kind = FIELDS[name].get(field)
        if kind is None:
            raise InputError(f"{field!r:.40}: expected one of {', '.join(FIELDS[name])}")
        fits = isinstance(value, _TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))
        if not fits or (kind == "integer" and not LEAST.get(field, 0) <= value <= _MOST):
            raise InputError(f"{field}: expected {kind}, got {value!r:.60}")
    return given


def plain(value: Any) -> Any:
    """A value as JSON has it: frames uint8 [H, W, 3] as the address of a PNG, other arrays as lists, and null for a
    number that is not finite."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3:
        from PIL import Image

        Image.fromarray(value).save(file := io.BytesIO(), "png")
        return Picture(file.getvalue()).uri
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def rows_file(states: Sequence[Any], actions: Sequence[Any]) -> tuple[bytes, str, str]:
    """Observations before and after each action as a file, with its type and name: lines of JSON with ``state``,
    ``action`` and ``next_state``; of frames an .npz with ``image``, ``action`` and, where it is felt, ``proprio``."""
    seen = states[0]["pixels"] if isinstance(states[0], Mapping) and "pixels" in states[0] else states[0]
    if isinstance(seen, np.ndarray):
        frames = [state["pixels"] if isinstance(state, Mapping) else state for state in states]
        done = np.array([np.float32(one) for one in actions], np.float32)
        arrays: dict[str, Any] = {"image": np.stack(frames), "action": done}
        if seen is not states[0]:
            arrays["proprio"] = np.stack([state["agent_pos"] for state in states])
        np.savez_compressed(file := io.BytesIO(), **arrays)
        return file.getvalue(), "application/octet-stream", "episode.npz"
    read = [json.loads(state) if isinstance(state, str) else state for state in states]
    lines = [
        json.dumps({"state": before, "action": action, "next_state": after}, ensure_ascii=False)
        for before, action, after in zip(read[:-1], actions, read[1:], strict=True)
    ]
    return "".join(f"{line}\n" for line in lines).encode(), "application/jsonl", "rows.jsonl"


def schema(world: World) -> dict[str, Any]:
    """What an action and an observation are, as JSON Schema."""
    action, names = _space(world.action_space), getattr(world, "fields", ())
    for number, one in enumerate(action.get("prefixItems", ())):
        one["title"] = names[number % len(names)] if names else f"action-{number + 1}"
    return {"action": action, "observation": _space(world.observation_space)}


def _space(space: gym.Space[Any]) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Text):
        return {"type": "string", "maxLength": space.max_length}
    if isinstance(space, gym.spaces.Dict):
        return {"type": "object", "properties": {name: _space(one) for name, one in space.spaces.items()}}
    assert isinstance(space, gym.spaces.Box)
    if space.dtype == np.uint8 and len(space.shape) == 3:
        return {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
    each = [
        {"type": "number", **{n: float(b) for n, b in (("minimum", low), ("maximum", high)) if np.isfinite(b)}}
        for low, high in zip(space.low, space.high, strict=True)
    ]
    return {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}


ROUTES = {
    "create": ("POST", "/v1/sessions", 201, "Open a session: an episode begins"),
    "show": ("GET", "/v1/sessions/{id}", 200, "Where a session stands, and what its last step came to"),
    "close": ("DELETE", "/v1/sessions/{id}", 204, "Close a session"),
    "rows": ("GET", "/v1/sessions/{id}/rows", 200, "The episode as a file of rows or frames"),
    "picture": ("GET", "/v1/sessions/{id}/picture", 200, "A picture of where a session stands, of real pages a PNG"),
    "step": ("POST", "/v1/sessions/{id}/step", 200, "Act; step_id makes it happen once"),
    "imagine": ("POST", "/v1/sessions/{id}/imagine", 200, "What would come of plans, n times each"),
    "fork": ("POST", "/v1/sessions/{id}/fork", 201, "Another session that stands where this one does"),
    "reset": ("POST", "/v1/sessions/{id}/reset", 200, "Begin another episode"),
}
"""What can be asked: method, path, status of the answer, and what it does."""


def openapi(worlds: Sequence[str]) -> dict[str, Any]:
    """The interface as OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    for name, (method, path, status, text) in ROUTES.items():
        answers = {str(status): {"description": "done"}, "4XX": {"description": "refused: {error: {code, message}}"}}
        one: dict[str, Any] = {"operationId": name, "summary": text, "responses": answers}
        if "{id}" in path:
            one["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
        if name in FIELDS:
            kinds: dict[str, Any] = {n: {} if kind == "any" else {"type": kind} for n, kind in FIELDS[name].items()}
            if "world" in kinds:
                kinds["world"]["enum"] = list(worlds)
            body = {"type": "object", "properties": kinds, "required": list(REQUIRED.get(name, ()))}
            one["requestBody"] = {"content": {"application/json": {"schema": body}}}
        paths.setdefault(path, {})[method.lower()] = one
    return {"openapi": "3.1.0", "info": {"title": "RLVR-World sessions", "version": "1"}, "paths": paths}
