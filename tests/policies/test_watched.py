"""Judges of whole films: a model behind a server, a person on a page."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlvr_world.diagnose import policies as diagnosed
from rlvr_world.errors import Halted, InputError
from rlvr_world.policies.watched import Watcher, films_of
from tests.policies.test_policies import picture, run  # noqa: F401 - a fixture

pytest.importorskip("httpx", reason="pip install 'rlvr-world[teacher]'")
SAID = {True: "<think>no, or rather</think> Yes.", False: "No: yes, it moves, but no."}


def films(*ends: float) -> np.ndarray:
    return np.stack([np.stack([picture(light) for light in np.linspace(0.2, end, 11)]) for end in ends])


@pytest.fixture
def seeing() -> Iterator[tuple[str, list[Any]]]:
    """A model that says yes to what is bright at the end, and what it was asked."""
    from PIL import Image

    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
            data = [base64.b64decode(one["image_url"]["url"].partition(",")[2]) for one in parts[1:]]
            frames = [np.asarray(Image.open(io.BytesIO(one))) for one in data]
            asked.append((parts[0]["text"], frames))
            light = frames[-1][0, 0, 0] / 255
            text = "I cannot say" if light > 0.95 else SAID[bool(light > 0.6)]
            body = json.dumps({"choices": [{"message": {"content": text}}], "usage": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_model_watches_films_once(seeing: tuple[str, list[Any]], tmp_path: Path) -> None:
    url, asked = seeing
    watcher = Watcher(f"some/model@{url}", tmp_path)
    said = watcher(films(0.9, 0.3, 0.99, 0.9), "brighten")
    np.testing.assert_array_equal(said, [True, False, False, True])
    words, frames = asked[0]
    assert "8 frames" in words
    assert "told: brighten." in words
    assert len(frames) == 8
    assert frames[0].shape == (256, 256, 3)
    assert len(asked) == 3, "two of the films are one"
    assert (len(watcher.verdicts), watcher.unread) == (3, 1)
    np.testing.assert_array_equal(Watcher(f"some/model@{url}", tmp_path)(films(0.9, 0.3), "brighten"), [True, False])
    assert len(asked) == 3, "verdicts are kept"
    with pytest.raises(InputError, match=r"judge other at .* expected a chat completion"):
        Watcher("other@http://127.0.0.1:1/v1", tmp_path)(films(0.9), "brighten")


def test_verdicts_given_before_a_server_failed_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlvr_world.policies.watched.AT_ONCE", 1)  # one film after the other
    told = iter(["yes"])
    watcher = Watcher("m@http://127.0.0.1:1/v1", tmp_path)
    watcher.chat = SimpleNamespace(ask=lambda parts, **fields: [(next(told), 0)])  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="StopIteration"):
        watcher(films(0.9, 0.3), "brighten")
    assert [*Watcher("m@http://127.0.0.1:1/v1", tmp_path).verdicts.values()] == [True]


def test_specifications_of_those_who_watch(tmp_path: Path) -> None:
    assert [films_of(one) for one in ("m@http://a/v1", "a.json", "learned", "a.py:f")] == [True, True, False, False]
    (tmp_path / "mine.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="expected the verdicts that a page saved"):
        Watcher(f"{tmp_path}/mine.json", tmp_path)


def test_a_report_by_one_who_watches(
    run: SimpleNamespace,  # noqa: F811
    seeing: tuple[str, list[Any]],
    tmp_path: Path,
) -> None:
    (tmp_path / "own.py").write_text("import numpy as np\ndef up(seen):\n    return np.ones((len(seen.pixels), 1))\n")
    specs = {"up": f"{tmp_path}/own.py:up", "random": "random"}
    text = diagnosed.try_policies(tmp_path, diagnosed.Study(specs, ("rl",), 5, f"m@{seeing[0]}", False))
    told = json.loads((tmp_path / "policies" / "brighten" / "report.json").read_text())
    assert told["judge"]["judge"].startswith("m@http")
    assert told["success"]["rl"][0] == [1, 1, 1, 1, 1]
    assert [*told["agreement"]] == ["rl"], "it does not say what happens in between"
    assert "right on the real last frames: 1.0 (failures taken for success: 0 of" in text


def test_a_person_judges_on_a_page(run: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    mine = tmp_path / "mine.json"
    asked = (tmp_path, diagnosed.Study({"random": "random"}, ("rl",), 3, str(mine), False))
    with pytest.raises(Halted, match=r"6 films wait for a person: open .*judge\.html .*mine\.json"):
        diagnosed.try_policies(*asked)
    page = (tmp_path / "policies" / "brighten" / "judge.html").read_text()
    told = json.loads(page.partition("const told = ")[2].partition(", names =")[0])
    assert told["task"] == "brighten"
    assert told["width"] == 16
    assert [*told["films"]] == sorted(told["films"]), "in an order that does not tell whose they are"
    counts = run.real.asked
    mine.write_text(json.dumps(dict.fromkeys(told["films"], False)))
    text = diagnosed.try_policies(*asked)
    assert run.real.asked == counts, "nothing is played again"
    assert "| random |" in text
    assert f"'judge': '{mine}'" in text
