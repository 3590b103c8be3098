"""Policies that are elsewhere: behind a server that speaks OpenPI's contract, or in a file, as recorded actions.

Shape legend: N episodes, T steps, C steps of a chunk, A action width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from rlvr_world.errors import InputError

if TYPE_CHECKING:
    from rlvr_world.policies.rollouts import Policy, Seen

KEYS = {"image": "observation/image", "state": "observation/state", "prompt": "prompt"}
"""What an observation is called on the way to a server, unless its address says otherwise: as in OpenPI's LIBERO."""


def openpi(address: str, width: int) -> Policy:
    """A policy behind ``ws://HOST:PORT``: an observation goes there as msgpack, and a chunk of actions, float [C, A],
    comes back, whose first ``steps`` (all) are done before it is asked again. ``?steps=5&image=NAME&state=NAME&
    prompt=NAME`` of the address names what OpenPI's configs name in different ways; ``&into=10,11,12,4,5,6,3`` says
    which of ``width`` numbers those of its actions are, where the others are 0. Raises InputError where nobody answers,
    or with other actions."""
    import msgpack  # an extra
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    asked = {name: values[-1] for name, values in parse_qs(urlsplit(address).query).items()}
    plans = dict[int, tuple[int, np.ndarray]]()
    try:
        most = int(asked.get("steps", 10**6))
        into = [int(place) for place in asked["into"].split(",")] if "into" in asked else list(range(width))
        line = connect(address.partition("?")[0], compression=None, max_size=None).__enter__()  # to the very end
        line.recv()  # the server tells about itself
    except (OSError, WebSocketException, ValueError) as error:
        wanted = "expected a server there, and whole numbers for steps and into"
        raise InputError(f"policy {address}: {wanted}, got {error}; start it, or mend the address") from error

    def chunk(observation: dict[str, Any]) -> np.ndarray:
        try:
            line.send(msgpack.packb(observation, default=_packed))
            reply = line.recv()
        except WebSocketException as error:
            reply = f"it went away: {error}"
        if isinstance(reply, str):  # what it raised
            told = " ".join(reply.split())[-200:]
            raise InputError(f"policy {address}: given {', '.join(observation)} its server failed: {told}")
        found = msgpack.unpackb(reply, object_hook=_unpacked).get("actions")
        if np.ndim(found) != 2 or np.shape(found)[1] != len(into) or not len(found[:most]) or max(into) >= width:
            got = f"expected actions [steps, {len(into)}] for {into} of {width} numbers, got {list(np.shape(found))}"
            raise InputError(f"policy {address}: {got}; ?into= names where its numbers belong")
        whole = np.zeros((len(found), width), np.float32)
        whole[:, into] = found
        return whole[:most]

    def act(seen: Seen) -> np.ndarray:
        done = []
        for i, seed in enumerate(seen.seeds):
            at, left = plans.get(seed, (-1, np.empty(0)))
            if at != seen.step or not seen.step or not len(left):
                one = {KEYS["image"]: seen.pixels[i], KEYS["prompt"]: seen.instruction}
                one |= {} if seen.agent_pos is None else {KEYS["state"]: seen.agent_pos[i]}
                left = chunk({asked.get(name, key): one[key] for name, key in KEYS.items() if key in one})
            plans[seed] = seen.step + 1, left[1:]
            done.append(left[0])
        return np.stack(done)

    return act


def _packed(a: Any) -> Any:
    """Arrays as OpenPI's msgpack has them."""
    return {b"__ndarray__": True, b"data": a.tobytes(), b"dtype": a.dtype.str, b"shape": a.shape}


def _unpacked(found: dict[Any, Any]) -> Any:
    if b"__ndarray__" not in found:
        return found
    return np.frombuffer(found[b"data"], np.dtype(found[b"dtype"])).reshape(found[b"shape"])


def recorded(file: Path, width: int) -> Policy:
    """What was done once is done again: ``action`` of an .npz, float [T, A] from every start, or [N, T, A] of each.
    After its end an episode rests, with zeros. Raises InputError for a file without it, or with too few."""
    with np.load(file) as arrays:
        table = arrays["action"] if "action" in arrays.files else np.empty(0)

    def act(seen: Seen) -> np.ndarray:
        N = max(seen.seeds) + 1
        if table.ndim not in (2, 3) or table.shape[-1] != width or (table.ndim == 3 and len(table) < N):
            wanted = f"action [steps, {width}], or [{N} starts, steps, {width}]"
            raise InputError(f"policy {file}: expected {wanted}, got {list(table.shape)}; mend it, or --starts")
        rows = table[list(seen.seeds)] if table.ndim == 3 else table[None].repeat(len(seen.seeds), 0)
        return rows[:, seen.step] if seen.step < rows.shape[1] else np.zeros((len(rows), width))

    return act
