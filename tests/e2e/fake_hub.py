"""What the Hugging Face hub answers to an upload, on this machine: large files by LFS, the others inside the commit."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml

TOKEN = "hf_of_a_test"


class Hub(ThreadingHTTPServer):
    """Repositories by id: what they were made with, and their files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.made: list[dict[str, Any]] = []
        self.objects: dict[str, bytes] = {}
        self.summaries: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, content: Any, code: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        body, path = self.body(), self.path.partition("?")[0]
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repos.setdefault(repo, {})
            self.server.made.append(asked)
            self.answer({"url": f"{self.server.url}/{repo}", "id": repo, "name": repo})
        elif "/preupload/" in path:
            modes = {one["path"]: "lfs" for one in json.loads(body)["files"] if one["path"].endswith(".safetensors")}
            names = [one["path"] for one in json.loads(body)["files"]]
            files = [{"path": n, "uploadMode": modes.get(n, "regular"), "shouldIgnore": False} for n in names]
            self.answer({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            self.answer({"transfer": "basic", "objects": [*map(self.place, json.loads(body)["objects"])]})
        elif "/commit/" in path:
            self.commit(path.removeprefix("/api/models/").partition("/commit/")[0], body)
        elif path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self.answer({"errors": [], "warnings": []})
        else:
            self.answer({"error": f"no such address: {path}"}, 404)

    def place(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.server.url}/objects/{asked['oid']}", "header": {}}
        return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": upload}}

    def commit(self, repo: str, body: bytes) -> None:
        files = self.server.repos[repo]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                self.server.summaries.append(value["summary"])
        url = f"{self.server.url}/{repo}/commit/1"
        self.answer({"success": True, "commitOid": "1", "commitUrl": url, "hookOutput": ""})


@contextmanager
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
