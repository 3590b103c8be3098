"""A server under load: sessions stepped by clients that retry and die, then noise; what was lost, doubled or grew.

    python tests/sessions/server_load.py --sessions 64 --steps 10000 --noise 100000

The server is a process of its own, with TextWorld's games as its world. Exit code 1 where a step was lost or done
twice, an answer was a 5xx but capacity, memory grew by more than 2 % in the second half, or SIGTERM did not end it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SERVER = """
from rlvr_world import recipes
from rlvr_world.sessions.server import Server, serve
from rlvr_world.sessions.shared import Limits

recipe = recipes.find("demo")
world = recipe.real(recipe.config())
serve(Server({"games": lambda: world}, Limits(sessions=80, idle=30, past=50)), "127.0.0.1", 0)
"""


class Client:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        sent = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, sent)
        answer = self.connection.getresponse()
        read = answer.read()
        return answer.status, json.loads(read) if read else None


def play(port: int, number: int, steps: int) -> tuple[int, int]:
    """Steps that were sent once more or cut off, and those whose number was not the next: lost or done twice."""
    rng, client = random.Random(number), Client(port)
    wrong = again = done = episode = 0
    name, told = "", {}
    while done < steps:
        if not name or told.get("done") or told["step_id"] >= 100:
            if name:
                client("DELETE", f"/v1/sessions/{name}")
            episode += 1
            status, told = client("POST", "/v1/sessions", {"seed": number * 1000 + episode, "horizon": 200})
            assert status == 201, told
            name = told["session_id"]
        at, commands = told["step_id"], told["info"]["commands"]
        body = {"action": rng.choice(commands), "step_id": at}
        if rng.random() < 0.05:
            client.connection.request("POST", f"/v1/sessions/{name}/step", json.dumps(body))
            client.connection.close()  # a client that dies: the step may or may not have happened
            again += 1
        status, answer = client("POST", f"/v1/sessions/{name}/step", body)
        told = answer["committed"] if status == 409 else answer
        wrong += told["step_id"] != at + 1
        done += 1
    client("DELETE", f"/v1/sessions/{name}")
    return again, wrong


def noise(port: int, number: int, count: int) -> int:
    """Answers that were no 2xx or 4xx, and not capacity, or none at all."""
    rng, client = random.Random(number), Client(port)
    values = [None, True, -1, 0, 3, 2**65, 1e300, "", "look", "x" * 500, "\ud800", [], [["look"]], {}, {"game": 3}]
    values += [{"state": 2}, {"state": "{}"}, {"game": [1]}, {"row": 5}]
    keys = ["world", "seed", "options", "horizon", "action", "step_id", "plans", "n", "step", "x"]
    _, told = client("POST", "/v1/sessions", {"seed": number})
    faults = 0
    for _ in range(count):
        body: Any = {rng.choice(keys): rng.choice(values) for _ in range(rng.randrange(4))}
        if rng.random() < 0.2:
            body = rng.randbytes(rng.randrange(80))
        path = rng.choice(["", "/step", "/imagine", "/fork", "/reset", "/rows", "/else"])
        name = rng.choice([told["session_id"], "gone"])
        method = rng.choice(["POST"] * 8 + ["GET", "PUT"])
        connection = client.connection
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(
                method, f"/v1/sessions/{name}{path}" if path or method != "POST" else "/v1/sessions", sent
            )
            answer = connection.getresponse()
            read = answer.read()
        except (http.client.HTTPException, OSError):  # it has hung up
            faults += 1
            connection.close()
            continue
        if answer.status >= 500:
            faults += b"capacity_reached" not in read
        if answer.status == 201:
            client("DELETE", f"/v1/sessions/{json.loads(read)['session_id']}")
    return faults


def memory(process: int) -> float:
    """Resident MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("sessions", 64), ("steps", 10_000), ("noise", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        return load(args, process)
    finally:
        process.kill()


def load(args: argparse.Namespace, process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    errors: list[str] = []
    threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True).start()
    port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
    each, sizes, seconds = args.steps // args.sessions // 2, [], 0.0
    again = wrong = 0
    with ThreadPoolExecutor(args.sessions) as pool:
        for half in range(3):  # the first fills caches and is not measured
            begun = time.monotonic()
            for one, other in pool.map(lambda n: play(port, n, each), range(args.sessions)):
                again, wrong = again + one, wrong + other
            sizes.append(memory(process.pid))
            seconds += (time.monotonic() - begun) * bool(half)
    done = 2 * each * args.sessions
    print(f"{done} steps of {args.sessions} sessions: {done / seconds:.0f} a second, {again} cut off, {wrong} wrong")
    grown = 100 * (sizes[2] / sizes[1] - 1)
    print(f"memory {sizes[1]:.0f} -> {sizes[2]:.0f} MiB in the second half: {grown:+.2f} %")
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        faults = sum(pool.map(lambda n: noise(port, n, args.noise // 8), range(8)))
    pace = args.noise / (time.monotonic() - begun)
    print(f"{args.noise} requests of noise, {pace:.0f} a second: {faults} broken, {len(errors)} lines of errors")
    process.terminate()
    try:
        ended: int | None = process.wait(10)
    except subprocess.TimeoutExpired:
        ended = None
    print(f"SIGTERM: {'did not end' if ended is None else 'ended'} ({ended})")
    print("".join(errors[:120]), file=sys.stderr, end="")
    return int(bool(wrong or faults or errors or grown > 2 or ended is None))


if __name__ == "__main__":
    sys.exit(main())
