"""Policies that are elsewhere: behind a server that speaks OpenPI's contract, or in files, as recorded actions.

Shape legend: N episodes, T steps, C steps of a chunk, A action width.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
from gymnasium.spaces import Box

from rlvr_world.errors import InputError

if TYPE_CHECKING:
    from rlvr_world.policies.rollouts import Policy, Seen

KEYS = {"image": "observation/image", "state": "observation/state", "prompt": "prompt"}
"""What an observation is called on the way to a server, unless its address says otherwise: as in OpenPI's LIBERO."""


def openpi(address: str, width: int) -> Policy:
    """A policy behind ``ws://HOST:PORT``: an observation goes there as msgpack, and a chunk of actions, float [C, A],
    comes back, whose first ``steps`` (all) are done before it is asked again. ``?steps=5&image=NAME&state=NAME&
    prompt=NAME`` of the address names what OpenPI's configs name in different ways. The key of a server that wants one
    is in OPENPI_API_KEY. Raises InputError where nobody answers, or not with actions of ``width`` numbers."""
    import msgpack  # an extra
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    parts = urlsplit(address)
    asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    steps, keys = asked.pop("steps", "all"), {name: asked.pop(name, key) for name, key in KEYS.items()}
    if steps != "all" and not (steps.isdigit() and int(steps)):
        raise InputError(f"policy {address}: steps: expected how many of a chunk are done, at least 1, got {steps!r}")
    most = None if steps == "all" else int(steps)
    key, plans = os.environ.get("OPENPI_API_KEY"), dict[int, tuple[int, np.ndarray]]()
    headers = {"Authorization": f"Api-Key {key}"} if key else None
    url = parts._replace(query=urlencode(asked)).geturl()
    try:
        line = connect(url, compression=None, max_size=None, additional_headers=headers).__enter__()  # to the very end
        line.recv()  # the server tells about itself
    except (OSError, WebSocketException) as error:
        raise InputError(
            f"policy {address}: expected a server there, got {error}; start it, or mend the port"
        ) from error

    def chunk(observation: dict[str, Any]) -> np.ndarray:
        try:
            line.send(msgpack.packb(observation, default=_packed))
            reply = line.recv()
        except WebSocketException as error:
            raise InputError(f"policy {address}: its server went away ({error}); start both again") from error
        if isinstance(reply, str):  # what it raised
            told = " ".join(reply.split())[-200:]
            raise InputError(f"policy {address}: given {', '.join(observation)} its server failed: {told}")
        found = msgpack.unpackb(reply, object_hook=_unpacked).get("actions")
        if np.ndim(found) != 2 or np.shape(found)[1] != width or not len(found):
            got = f"expected actions [steps, {width}], got {list(np.shape(found))}"
            raise InputError(f"policy {address}: {got}; into:PLACES:ws://... puts its numbers where they belong")
        return np.float32(found)[:most]

    def act(seen: Seen) -> np.ndarray:
        done = []
        for i, seed in enumerate(seen.seeds):
            at, left = plans.get(seed, (-1, ()))
            if at != seen.step or not seen.step or not len(left):
                one = {"image": np.ascontiguousarray(seen.pixels[i]), "prompt": seen.instruction}
                one |= {} if seen.agent_pos is None else {"state": seen.agent_pos[i]}
                left = chunk({keys[name]: value for name, value in one.items()})
            done.append(left[0])
            plans[seed] = seen.step + 1, left[1:]
        return np.stack(done)

    return act


def _packed(value: Any) -> Any:
    """Arrays as OpenPI's msgpack has them."""
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _unpacked(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return np.frombuffer(value[b"data"], np.dtype(value[b"dtype"])).reshape(value[b"shape"])
    return np.dtype(value[b"dtype"]).type(value[b"data"]) if b"__npgeneric__" in value else value


def recorded(place: Path, width: int) -> Policy:
    """What was done once is done again: ``action`` of an .npz, float [T, A] from every start, or [N, T, A] of each; or
    a folder of such files, one a start, in the order of their names. After its end an episode rests, with zeros.
    Raises InputError for files without it, and for a start that has none."""
    files = sorted(place.glob("*.npz")) if place.is_dir() else [place]
    tables = list[np.ndarray]()
    for file in files:
        with np.load(file) as arrays:
            found = arrays["action"] if "action" in arrays.files else np.empty(0)
        if found.ndim not in (2, 3) or found.shape[-1] != width or (found.ndim == 3 and place.is_dir()):
            wanted = f"action [steps, {width}]{'' if place.is_dir() else f', or [starts, steps, {width}]'}"
            raise InputError(f"policy {file}: expected {wanted}, got {list(found.shape)}; write it with these fields")
        tables += [*np.float32(found if found.ndim == 3 else found[None])]
    every = len(files) == 1 and len(tables) == 1

    def act(seen: Seen) -> np.ndarray:
        if not every and max(seen.seeds) >= len(tables):
            raise InputError(
                f"policy {place}: expected actions of start {max(seen.seeds)}, got {len(tables)}; --starts"
            )
        of = [tables[0 if every else seed] for seed in seen.seeds]
        return np.stack([one[seen.step] if seen.step < len(one) else np.zeros(width, np.float32) for one in of])

    return act


def placed(places: str, space: Box, inner: Callable[[Box], Policy]) -> Policy:
    """Another policy's numbers in other places of an action: ``10,11,12,-,3,8=1`` puts its first at 10 and so on,
    leaves its fourth out, and sets place 8 to 1; what is named nowhere is 0. ``inner`` makes a policy of a space."""
    width, parts = len(space.low), [one.partition("=") for one in places.split(",")]
    fixed = {int(at): float(value) for at, _, value in parts if value}
    moves = [at for at, _, value in parts if not value]
    kept = {i: int(at) for i, at in enumerate(moves) if at != "-"}
    if len({*kept.values(), *fixed}) < len(kept) + len(fixed) or max([*kept.values(), *fixed]) >= width:
        raise InputError(f"policy into:{places}: expected places from 0 to {width - 1}, each at most once; mend them")
    low, high = (
        np.float32([end[kept[i]] if i in kept else 0 for i in range(len(moves))]) for end in (space.low, space.high)
    )
    policy = inner(Box(low, high))

    def act(seen: Seen) -> np.ndarray:
        done = np.zeros((len(seen.seeds), width), np.float32)
        done[:, [*kept.values()]] = np.asarray(policy(seen))[:, [*kept]]
        done[:, [*fixed]] = [*fixed.values()]
        return done

    return act
