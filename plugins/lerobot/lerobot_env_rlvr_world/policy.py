"""A policy of LeRobot behind OpenPI's contract: ``python -m lerobot_env_rlvr_world.policy PATH --port 8001``, for
``rlvr-world policy-eval --policy NAME=ws://127.0.0.1:8001``."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from websockets.sync.server import Server, ServerConnection
from websockets.sync.server import serve as serve_sockets


def load(path: str, device: str = "cpu") -> Callable[[dict[str, Any]], np.ndarray]:
    """``path``: a folder or hub id of a ``PreTrainedPolicy`` with its processors. What it does with an observation as
    OpenPI has it (``observation/image`` uint8 [H, W, 3], ``observation/state`` [P], ``prompt``): a chunk of actions,
    float32 [C, A], of which a policy of LeRobot does so many before it looks again."""
    config = PreTrainedConfig.from_pretrained(path)
    config.device = device
    if getattr(config, "n_obs_steps", 1) > 1:
        raise SystemExit(f"{path}: expected a policy that looks at one frame, got n_obs_steps={config.n_obs_steps}; "
                         "use lerobot-eval --env.type=rlvr_world, which remembers frames")  # fmt: skip
    policy = get_policy_class(config.type).from_pretrained(path, config=config).to(device).eval()
    moved = {"device_processor": {"device": device}}
    before, after = make_pre_post_processors(config, pretrained_path=path, preprocessor_overrides=moved)
    pictures = list(config.image_features)

    @torch.inference_mode()
    def act(seen: dict[str, Any]) -> np.ndarray:
        picture = torch.from_numpy(seen["observation/image"].copy()).movedim(-1, 0)[None].float() / 255
        batch = {**dict.fromkeys(pictures, picture), "task": [seen.get("prompt", "")]}
        if "observation/state" in seen:
            batch["observation.state"] = torch.from_numpy(np.array(seen["observation/state"], np.float32))[None]
        chunk = policy.predict_action_chunk(before(batch))[0]
        return np.float32(after(chunk).cpu().numpy())[: getattr(config, "n_action_steps", None)]

    return act


def serve(act: Callable[[dict[str, Any]], np.ndarray], port: int) -> Server:
    """OpenPI's contract around ``act``; ``serve_forever`` of what is returned serves."""

    def talk(line: ServerConnection) -> None:
        line.send(msgpack.packb({}))
        for message in line:
            try:
                chunk = act(msgpack.unpackb(message, object_hook=_array))
                line.send(msgpack.packb({"actions": _packed(chunk)}))
            except Exception:  # noqa: BLE001 - told to whoever asked, as OpenPI does
                line.send(traceback.format_exc())

    return serve_sockets(talk, "127.0.0.1", port, compression=None, max_size=None)


def _packed(a: np.ndarray) -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": a.tobytes(), b"dtype": a.dtype.str, b"shape": a.shape}


def _array(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return np.frombuffer(value[b"data"], np.dtype(value[b"dtype"])).reshape(value[b"shape"])
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    with serve(load(args.path, args.device), args.port) as serving:
        print(f"{args.path} on ws://127.0.0.1:{args.port}", flush=True)
        serving.serve_forever()
