"""Policies behind a server that speaks OpenPI's contract, recorded actions, and actions with other fields."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from rlvr_world.errors import InputError
from rlvr_world.policies.rollouts import Policy, Seen, read_policy

SPACE = Box(np.float32([-1, -2, -3]), np.float32([1, 2, 3]))


def seen(step: int, seeds: tuple[int, ...] = (0, 1), felt: bool = True) -> Seen:
    pixels = np.stack([np.full((4, 4, 3), 10 * seed % 256, np.uint8) for seed in seeds])
    return Seen(pixels, np.full((len(seeds), 2), step, np.float32) if felt else None, "open it", seeds, step)


def policy(spec: str, folder: Path) -> Policy:
    return read_policy(spec, SPACE, pytest.fail, folder)


def packing() -> tuple[Any, Any]:
    """OpenPI's own where its client is installed, else the same layout."""
    msgpack = pytest.importorskip("msgpack", reason="pip install 'rlvr-world[openpi]'")
    if find_spec("openpi_client"):
        theirs = import_module("openpi_client.msgpack_numpy")
        return theirs.packb, theirs.unpackb

    def packed(a: Any) -> Any:
        return {b"__ndarray__": True, b"data": a.tobytes(), b"dtype": a.dtype.str, b"shape": a.shape}

    def array(found: Any) -> Any:
        return np.ndarray(found[b"shape"], found[b"dtype"], found[b"data"]) if b"__ndarray__" in found else found

    return (lambda one: msgpack.packb(one, default=packed)), (lambda one: msgpack.unpackb(one, object_hook=array))


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A policy that answers with three actions: the state's first number, the picture's first, and their number."""
    websockets = pytest.importorskip("websockets.sync.server", reason="pip install 'rlvr-world[openpi]'")
    (pack, unpack), asked = packing(), []

    def serve(line: Any) -> None:
        line.send(pack({"model": "toy"}))
        for message in line:
            asked.append(told := unpack(message))
            if told.get("prompt") == "fail":
                line.send("Traceback ...\nKeyError: 'observation/wrist_image'")
                continue
            picture = told.get("observation/image", told.get("cam"))[0, 0, 0]
            chunk = np.array([[told.get("observation/state", [0])[0], picture, i] for i in range(3)])
            line.send(pack({"actions": chunk[:, :2] if told["prompt"] == "narrow" else chunk}))

    with websockets.serve(serve, "127.0.0.1", 0, compression=None, max_size=None) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{serving.socket.getsockname()[1]}", asked
        serving.shutdown()
        thread.join()


def test_chunks_of_a_server_are_done_to_their_end(server: tuple[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    address, asked = server
    act = policy(address, tmp_path)
    done = np.stack([act(seen(step)) for step in range(4)], 1)
    np.testing.assert_array_equal(done[:, :, 2], [[0, 1, 2, 0]] * 2)  # places in their chunk
    np.testing.assert_array_equal(done[:, :, 0], [[0, 0, 0, 3]] * 2)  # the step at which it was asked for
    np.testing.assert_array_equal(done[:, :, 1], [[0] * 4, [10] * 4])  # each episode's own
    assert [*asked[0]] == ["observation/image", "observation/state", "prompt"]
    assert asked[0]["prompt"] == "open it"
    assert asked[0]["observation/image"].dtype == np.uint8
    assert act(seen(0))[0, 2] == 0  # a new episode begins with a new chunk
    assert act(seen(2))[0, 2] == 0  # and so does one that is looked at from somewhere else
    assert len(asked) == 8


def test_addresses_name_keys_and_steps(server: tuple[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    address, asked = server
    act = policy(f"{address}?steps=2&image=cam&prompt=prompt", tmp_path)
    assert [act(seen(step, felt=False))[0, 2] for step in range(3)] == [0, 1, 0]
    assert [*asked[0]] == ["cam", "prompt"]
    with pytest.raises(InputError, match="expected a server there, and whole numbers"):
        policy(f"{address}?steps=some", tmp_path)


def test_what_a_server_gets_wrong_is_said(server: tuple[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    act = policy(server[0], tmp_path)
    with pytest.raises(InputError, match=r"observation/state, prompt its server failed: .*wrist_image"):
        act(seen(0)._replace(instruction="fail"))
    with pytest.raises(InputError, match=r"for \[0, 1, 2\] of 3 numbers, got \[3, 2\]; \?into="):
        act(seen(0)._replace(instruction="narrow"))
    narrow = policy(f"{server[0]}?into=2,0", tmp_path)
    np.testing.assert_array_equal(narrow(seen(0)._replace(instruction="narrow")), [[0, 0, 0], [10, 0, 0]])
    with pytest.raises(InputError, match=r"for \[0, 7\] of 3 numbers"):
        policy(f"{server[0]}?into=0,7", tmp_path)(seen(0)._replace(instruction="narrow"))
    with pytest.raises(InputError, match="expected a server there"):
        policy("ws://127.0.0.1:1", tmp_path)


def test_recorded_actions_are_done_again(tmp_path: Path) -> None:
    one, both = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(2, 2, 3)
    np.savez(tmp_path / "one.npz", action=one, image=np.zeros(1))
    np.savez(tmp_path / "both.npz", action=both)
    np.testing.assert_array_equal(policy(f"{tmp_path}/one.npz", tmp_path)(seen(1)), [one[1], one[1]])
    again = policy(f"{tmp_path}/both.npz", tmp_path)
    np.testing.assert_array_equal(again(seen(1)), both[:, 1])
    np.testing.assert_array_equal(again(seen(2)), np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"or \[3 starts, steps, 3\], got \[2, 2, 3\]"):
        again(seen(0, (0, 2)))
    np.savez(tmp_path / "other.npz", action=one.T)
    with pytest.raises(InputError, match=r"action \[steps, 3\], or \[2 starts, steps, 3\], got \[3, 2\]"):
        policy(f"{tmp_path}/other.npz", tmp_path)(seen(0))
