"""The web agent against a scripted server on this machine: what is asked of whom, how often, and what comes of it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from rlvr_world import Outcome, cli
from rlvr_world.diagnose import agent as agent_runs
from rlvr_world.domains.web_page.actions import GRAMMAR
from rlvr_world.domains.web_page.config import BrowserSpec
from rlvr_world.domains.web_page.envs.chromium import find_chromium
from rlvr_world.domains.web_page.rows import PageState
from rlvr_world.errors import Halted, InputError
from rlvr_world.overrides import override
from rlvr_world.recipes import named_in
from rlvr_world.recipes.web_agent import ASKED, Agent, AgentConfig, expected_score, read_action, read_score
from rlvr_world.types import Malformed

PAGE = "Tab 0 (current): Shop\n\n[1] RootWebArea 'Shop'\n\t[2] link 'Cart'\n\t[3] button 'Buy'\n\t[4] textbox 'Search'"
SEEN = {"observation": PAGE, "url": "/shop", "goal": "Buy it.", "previous": ""}
CHANGE = "New items:\n[9] StaticText 'Bought'\n\nDeleted items:\nNone\n\nUpdated items:\nNone"
FREE = Counter[str]()
ROLES = {
    "A user acts": "policy", "You predict": "world", "Name the changes": "summary", "Say in two": "description",
    "Judge the action": "value",
}  # fmt: skip


def cart_or_buy(prompt: str, i: int) -> str:
    """Of twenty: 7 for the cart, 6 to buy, 4 to search, one of no verb, one not on the page, one without an action."""
    said = 7 * ["click [2]"] + 6 * ["click [3]"] + 4 * ["type [4] [it] [1]"] + ["clack [2]", "click [99]"]
    return f"I think so.\n```{said[i]}```" if i < len(said) else "I do not know. \ud800"


def bought(prompt: str, i: int) -> str:
    return "No idea." if i == 19 else f"[Score]: {5 if 'ACTION: click [3]' in prompt else 1 + i % 2}"


class Script(BaseHTTPRequestHandler):
    """Answers by role, which it tells from the prompt."""

    replies: dict[str, Callable[[str, int], str]]
    asked: list[tuple[str, dict[str, Any]]]
    faults: list[tuple[str, int]]
    """Roles with the status that their next request gets."""
    most: int
    """Choices that it gives at once."""
    told: list[dict[str, float]] | None
    """Tokens of each reply with their log probabilities, the one that is written first; None leaves them out."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        [message] = request["messages"]
        role = next(name for words, name in ROLES.items() if words in message["content"])
        fault = next((one for one in self.faults if one[0] == role), None)
        if fault:
            self.faults.remove(fault)
            self.send_error(fault[1])
            return
        self.asked.append((role, request))
        prompt, count = message["content"], min(request.get("n", 1), self.most)
        choices = [{"message": {"content": self.replies[role](prompt, i)}} for i in range(count)]
        if request.get("logprobs") and self.told is not None:
            alone = [[{"token": text, "logprob": logp} for text, logp in token.items()] for token in self.told]
            choices[0]["logprobs"] = {"content": [{**token[0], "top_logprobs": token} for token in alone]}
            choices[0]["message"]["content"] = "".join(token[0]["token"] for token in alone)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": choices, "usage": {"total_tokens": 10 * count}}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Script.asked, Script.faults, Script.most, Script.told = [], [], 20, None
    Script.replies = {
        "policy": cart_or_buy, "world": lambda *_: f"It is bought.\n\n{CHANGE}", "value": bought,
        "summary": lambda *_: "<think>Hm.</think>\n1. Bought", "description": lambda *_: "The user owns it.",
    }  # fmt: skip
    monkeypatch.setattr(time, "sleep", lambda _: None)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    thread.join()
    http.server_close()


def config(url: str, *settings: str, imagine: str = "server") -> AgentConfig:
    return override(AgentConfig(), [f"policy.url={url}", "policy.model=any", f"imagine={imagine}", *settings])


def counts() -> Counter[str]:
    return Counter(role for role, _ in Script.asked)


def test_a_step_is_thirteen_requests_and_the_best_score_decides(url: str) -> None:
    agent = Agent(config(url), FREE)
    told = agent.decide(SEEN, (0, 0))
    assert counts() == {"policy": 1, "world": 3, "summary": 3, "description": 3, "value": 3}
    assert told["action"] == "click [3]"
    shown = [(one["action"], one["proposals"], one["value"]) for one in told["candidates"]]
    assert shown[:2] == [("click [2]", 7, pytest.approx(28 / 19)), ("click [3]", 6, 5.0)]
    assert shown[2][:2] == ("type [4] [it] [1]", 4)
    assert told["candidates"][1]["told"] == [CHANGE, "1. Bought", "The user owns it."]
    assert len(told["replies"]) == 20
    broken = {"policy: no action": 2, "policy: not on the page": 1, "value: no score from 1 to 5": 3}
    assert Counter(agent.broken) == broken
    assert sorted(agent.spent) == [10] * 9 + [200] * 4, "tokens of each request"


def test_what_each_role_is_asked(url: str) -> None:
    Agent(config(url, "value.model=judge", f"value.url={url}", "summary.temperature=0.2"), FREE).decide(SEEN, (0, 0))
    first = dict(reversed(Script.asked))
    assert {key: first["policy"][key] for key in ("model", "n", "temperature", "top_p", "max_tokens")} == {
        "model": "any", "n": 20, "temperature": 1.0, "top_p": 0.95, "max_tokens": 1024,
    }  # fmt: skip
    assert (first["value"]["model"], first["value"]["n"]) == ("judge", 20)
    assert "n" not in first["summary"]
    assert first["summary"]["temperature"] == first["description"]["temperature"] == 0.2
    said = {role: request["messages"][0]["content"] for role, request in first.items()}
    assert all("Buy it." in text and "[4] textbox 'Search'" in text for text in said.values())
    assert "[2] is link 'Cart'" in "".join(r["messages"][0]["content"] for role, r in Script.asked if role == "world")
    assert CHANGE in said["summary"]
    assert "1. Bought" in said["description"]
    assert "The user owns it." in said["value"]


def test_servers_that_give_one_reply_at_a_time(url: str) -> None:
    Script.most = 1
    Script.replies["policy"] = lambda prompt, i: f"```click [{2 + len(Script.asked) % 2}]```"
    Agent(config(url), FREE).decide(SEEN, (0, 0))
    assert counts() == {"policy": 20, "world": 2, "summary": 2, "description": 2, "value": 40}
    assert Script.asked[0][1]["n"] == 20
    Script.asked.clear()
    Agent(config(url, "policy.together=false", imagine=""), FREE).decide(SEEN, (0, 0))
    assert counts() == {"policy": 20}
    assert all("n" not in request for _, request in Script.asked)


FOUR = [{"[Score]: ": -0.1}, {"4": math.log(0.5), "5": math.log(0.25), " 5": math.log(0.05), "x": math.log(0.1)}]
"""A score of which 0.5 is told for 4 and 0.3 for 5."""


def test_an_expected_score_is_one_short_request(url: str) -> None:
    Script.told = FOUR
    agent = Agent(config(url, "value.score=expected"), FREE)
    told = agent.decide(SEEN, (0, 0))
    assert counts() == {"policy": 1, "world": 3, "summary": 3, "description": 3, "value": 3}, "13 requests"
    assert [one["value"] for one in told["candidates"]] == [pytest.approx((4 * 0.5 + 5 * 0.3) / 0.8)] * 3
    assert [len(one["scores"]) for one in told["candidates"]] == [1, 1, 1]
    [asked, *_] = [request for role, request in Script.asked if role == "value"]
    assert {key: value for key, value in asked.items() if key not in ("model", "messages")} == {
        "temperature": 1.0, "top_p": 0.95, "max_tokens": 16, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    assert "Answer with [Score]: and the digit alone." in asked["messages"][0]["content"]
    assert sorted(agent.spent) == [10] * 12 + [200]
    Script.told = [{"Hm": 0.0}]
    assert [one["value"] for one in agent.decide(SEEN, (0, 1))["candidates"]] == [0, 0, 0]
    assert agent.broken.count("value: no score from 1 to 5") == 3
    Script.told = None
    assert agent.decide(SEEN, (0, 2))["action"], "a reply without any, once they have been told, is a broken one"


def test_a_server_without_probabilities(url: str) -> None:
    message = r"value\.score=expected: the server tells no logprobs: {}; take either or sampled"
    with pytest.raises(InputError, match=message.format("its reply has none")):
        Agent(config(url, "value.score=expected"), FREE).decide(SEEN, (0, 0))
    assert counts()["value"] == 1
    Script.faults = [("value", 400)]
    with pytest.raises(InputError, match=message.format("value any at .*400 Bad Request.*")):
        Agent(config(url, "value.score=expected"), FREE).decide(SEEN, (0, 0))
    for refused in (False, True):
        Script.asked.clear()
        Script.faults = [("value", 400)] * refused
        agent = Agent(config(url, "value.score=either", "votes=10"), FREE)
        told = [agent.decide(SEEN, (0, step)) for step in range(2)]
        assert counts()["value"] == 6 + (not refused), "one that finds out, unless it is refused"
        assert [len(one["scores"]) for one in told[1]["candidates"]] == [10, 10, 10]
        assert [request["max_tokens"] for role, request in Script.asked if role == "value"][-6:] == [1024] * 6
        assert agent.broken.count("value: no logprobs, so that scores are sampled from here on") == 1
    Script.told = FOUR
    Script.asked.clear()
    agent = Agent(config(url, "value.score=either", "value.tokens=300"), FREE)
    assert len(agent.decide(SEEN, (0, 0))["candidates"][0]["scores"]) == 1
    assert [request["max_tokens"] for role, request in Script.asked if role == "value"] == [300] * 3


def test_stop_ends_it_and_one_candidate_is_taken(url: str) -> None:
    Script.replies["policy"] = lambda prompt, i: ["```click [2]```", "```stop [3 items]```", "```click [3]```"][i % 3]
    assert Agent(config(url), FREE).decide(SEEN, (0, 0))["action"] == "stop [3 items]"
    Script.replies["policy"] = lambda prompt, i: "```type [4] [bus stop] [1]```"
    assert Agent(config(url), FREE).decide(SEEN, (0, 0))["action"] == "type [4] [bus stop] [1]"
    Script.replies["policy"] = lambda prompt, i: "I give up."
    assert Agent(config(url), FREE).decide(SEEN, (0, 0))["action"] == ""
    assert counts() == {"policy": 3}
    Script.replies["policy"] = cart_or_buy
    assert Agent(config(url, imagine=""), FREE).decide(SEEN, (0, 0))["action"] == "click [2]", (
        "without a world model, votes"
    )
    assert counts() == {"policy": 4}


def test_faults_of_a_server_are_counted_once_it_has_answered(url: str) -> None:
    agent = Agent(config(url), FREE)
    agent.decide(SEEN, (0, 0))
    Script.asked.clear()
    agent.broken.clear()
    Script.faults = [("value", 400), ("summary", 400), ("world", 400), *[("description", 503)] * 5]
    told = agent.decide(SEEN, (0, 1))
    assert told["action"]
    assert len([one for one in agent.broken if "400 Bad Request" in one and "Error code: 400" in one]) == 3
    assert agent.broken.count("world: no reply") == 1
    assert sorted(len(one["told"]) for one in told["candidates"]) in ([0, 2, 3], [0, 3, 3])
    Script.faults = [("value", 400)] * 3
    with pytest.raises(InputError, match=r"value any at http://127.*400 Bad Request.*check the url, the model's name"):
        Agent(config(url), FREE).decide(SEEN, (0, 0))
    with pytest.raises(InputError, match=r"policy\.url: expected a server"):
        Agent(AgentConfig(), FREE)


def test_a_budget_is_kept(url: str) -> None:
    agent = Agent(config(url, imagine=""), Counter(requests=5))
    with pytest.raises(Halted, match="budget of 5 requests is spent"):
        [agent.decide(SEEN, (0, i)) for i in range(6)]
    assert counts() == {"policy": 5}
    Script.asked.clear()
    with pytest.raises(Halted, match="budget of 6 requests is spent"):
        Agent(config(url), Counter(requests=6)).decide(SEEN, (0, 0))
    assert sum(counts().values()) == 6, "also where several go on at once"
    agent = Agent(config(url), Counter(tokens=300))
    with pytest.raises(Halted, match="budget of 300 tokens is spent"):
        [agent.decide(SEEN, (0, i)) for i in range(3)]


def test_a_model_of_ones_own_imagines(url: str) -> None:
    class World:
        """Says what can be read of all but the first action."""

        def advance(self, asked: Any, streams: Any) -> list[Outcome]:
            assert streams == [(7, 2, 0), (7, 2, 1), (7, 2, 2)]
            after = PageState(PAGE.replace("button 'Buy'", "button 'Bought'"))
            return [Outcome(asked[0][0], info={"malformed": "no sections"}), *[Outcome(after) for _ in asked[1:]]]

    agent = Agent(config(url, imagine="runs/own"), FREE, World().advance)
    told = agent.decide(SEEN, (7, 2))
    assert counts() == {"policy": 1, "summary": 2, "description": 2, "value": 3}
    assert told["candidates"][0]["told"] == []
    assert told["candidates"][1]["told"][0].endswith("Updated items:\n[3] button 'Bought'")
    assert "world: no sections" in agent.broken


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("First ```click [2]```, no: ```\nclick [3] where [3] is button 'Buy'\n```", "click [3]"),
        ("`type [4] [red shoes]`", "type [4] [red shoes] [1]"),
        ("<think>```click [2]```</think>```go_back```", "go_back"),
        ("click [2]", Malformed("no action")),
        ("``` ```", Malformed("no action")),
        ("```hover [77]```", Malformed("not on the page")),
        (f"```type [4] [{'a' * 400}] [1]```", Malformed("too long, or no text")),
        ("```type [4] [a\u2028b] [1]```", Malformed("too long, or no text")),
    ],
)
def test_an_action_is_read_or_told_why_not(said: str, read: str | Malformed) -> None:
    assert read_action(said, PageState(PAGE)) == read


def test_a_score_is_read_or_told_why_not() -> None:
    for said, score in (("[Score]: 2, no, [Score]: 4", 4.0), ("Score: 5.", 5.0), ("[Score]: [3]", 3.0)):
        assert read_score(said) == score
    for said in ("[Score]: 7", "[Score]: 42", "[Score]: good", "", "<think>[Score]: 3</think>"):
        assert read_score(said) == Malformed("no score from 1 to 5")


def test_a_score_is_expected_where_it_stands() -> None:
    def expected(*said: str) -> float | Malformed:
        digits = [text.strip(" ]/") in "12345" for text in said]
        even = {"2": math.log(0.5), "4": math.log(0.5), "9": 0.0}
        pairs = zip(said, digits, strict=True)
        return expected_score([{text: -1.0} | even if is_one else {text: -1.0} for text, is_one in pairs])

    half = (2 * 0.5 + 4 * 0.5 + 3 * math.exp(-1)) / (1 + math.exp(-1))
    assert (
        expected("3") == expected("[Score", "]: ", "3") == expected("[Score]:", " [", " 3", "]") == pytest.approx(half)
    )
    assert expected("3", "/", "5") == expected("Of 4", " I", " say", " Score: ", "3") == pytest.approx(half)
    assert expected("<think>", "Score: ", "5", "</think>", "\n", "3") == pytest.approx(half)
    for said in (("7",), ("Good",), ("<think>", "Score: ", "3"), ("I say ", "3"), ()):
        assert expected(*said) == Malformed("no score from 1 to 5")
    assert expected_score([{"3": -0.2, "1": -9999.0}]) == 3.0
    for odd in (-math.inf, math.nan):
        assert expected_score([{"3": odd}]) == Malformed("no score from 1 to 5")


@pytest.fixture
def browser() -> None:
    for module in ("miniwob", "playwright", "requests"):
        pytest.importorskip(module, reason="pip install 'rlvr-world[web]'")
    try:
        find_chromium("", "")
    except InputError as error:
        pytest.skip(str(error))


def named(prompt: str, i: int) -> str:
    """Clicks in turn what can be clicked, with every fourth reply broken; what the goal names comes less often."""
    goal = re.search(r"OBJECTIVE: (.*)", prompt)[1]  # type: ignore[index]
    lines = re.findall(r"\[(\d+)\] (?:button|tab) '(.*?)'", prompt.split("PAGE:\n")[1])
    wanted = [number for number, name in lines if name and name in goal]
    others = [number for number, name in lines if number not in wanted]
    if i % 4 == 3:
        return "Hm."
    return f"```click [{(wanted or others)[0] if i % 4 == 0 else others[i % 2 % len(others)]}]```"


def named_is_good(prompt: str, i: int) -> str:
    goal, name = re.search(r"OBJECTIVE: (.*)", prompt)[1], re.search(r"ACTION: click.* '(.*?)'", prompt)  # type: ignore[index]
    return f"[Score]: {5 if name and name[1] and name[1] in goal else 2}"


def test_the_whole_loop_on_three_miniwob_tasks(
    url: str, browser: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Script.replies |= {"policy": named, "value": named_is_good, "world": lambda *_: "No sections."}
    settings = [f"policy.url={url}", "policy.model=any", "env.tasks=click-button,click-tab,click-test-2", "env.steps=2"]
    command = ["agent", str(tmp_path / "out"), *settings]
    assert cli.main([*command, "imagine=server", "--requests", "9"]) == 3
    assert "budget of 9 requests is spent" in capsys.readouterr().err
    before = {file: file.read_bytes() for file in (tmp_path / "out").glob("task-*")}
    assert len(before) == 1
    Script.asked.clear()
    assert cli.main([*command, "imagine=server"]) == 0
    said = capsys.readouterr().out
    assert "played 3 of 3: 3 steps, 19 requests, 2280 tokens\nsuccess: 100.0%\n" in said
    assert "broken, policy: no action: 15\n" in said
    assert counts() == {"policy": 2, "world": 5, "value": 5}, "the task that was played is not played again"
    assert before.items() <= {file: file.read_bytes() for file in (tmp_path / "out").glob("task-*")}.items()
    trace = json.loads((tmp_path / "out" / "task-click-tab-0.json").read_text())
    assert trace["won"]
    assert Counter(trace["steps"][0]["broken"]) == {"policy: no action": 5, "world: no sections of items": 3}
    assert len(trace["steps"][0]["tokens"]) == 7
    shown = (tmp_path / "out" / "index.html").read_text()
    assert "click-tab, seed 0: won" in shown
    assert "RootWebArea" in shown
    assert "<script" not in shown
    assert cli.main([*command, "imagine="]) == 2
    assert "played with other settings" in capsys.readouterr().err


APP = """<title>Mail</title><h1>Mail</h1><button onclick="put({starred: true})">Star</button>
<button onclick="put({starred: false})">Skip</button><button onclick="put(null)">Break</button>
<script>const put = state => fetch('/api/state', {method: 'PUT', body: JSON.stringify(state)}); put({starred: false})
</script>"""
SERVER = """
import http.server, json
STATE = {}
class AppHandler(http.server.SimpleHTTPRequestHandler):
    def do_PUT(self):
        STATE['now'] = self.rfile.read(int(self.headers['Content-Length']))
        self.end({})
    def do_POST(self):
        STATE.clear()
        self.end({})
    def do_GET(self):
        self.end(json.loads(STATE['now'])) if self.path == '/api/state' else super().do_GET()
    def end(self, said):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())
"""
VERIFY = """import requests
def verify(server_url):
    return requests.get(f"{{server_url}}/api/state").json()["starred"] == {}, "said"
"""


def test_an_infinity_app_is_reset_run_and_verified(
    url: str, browser: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "index.html").write_text(APP)
    (app / "server.py").write_text(SERVER)
    for name, wanted in (("star", True), ("idle", False), ("never", 7)):
        (app / f"{name}.py").write_text(VERIFY.format(wanted))
    real = [{"id": "star", "instruction": "Star it.", "verify": "star.py"}]
    more = [{"id": name, "instruction": f"Be {name}.", "verify": f"{name}.py"} for name in ("idle", "never")]
    (app / "real-tasks.json").write_text(json.dumps(real))
    (app / "function-tasks.json").write_text(json.dumps(more))
    Script.replies |= {
        "policy": lambda prompt, i: (
            f"```click [{re.findall(r'.(.). button', prompt)[0 if 'Star it' in prompt else 2]}]```"
        )
    }
    settings = [f"policy.url={url}", "policy.model=any", "env.site=infinity", f"env.path={app}", "env.episodes=2"]
    assert cli.main(["agent", str(tmp_path / "out"), *settings, "env.steps=2"]) == 0
    said = capsys.readouterr().out
    traces = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out").glob("task-*")}
    assert {name: (t["won"], len(t["steps"])) for name, t in traces.items()} == {
        "task-star-0": (True, 1), "task-star-1": (True, 1), "task-idle-0": (False, 0), "task-idle-1": (False, 0),
        "task-never-0": (False, 1), "task-never-1": (False, 1),
    }  # fmt: skip
    assert "its verifier is content before anything is done" in traces["task-idle-0"]["left out"]
    assert "the verifier of never failed: TypeError" in traces["task-never-0"]["steps"][0]["notes"]
    assert re.search(r"\nbroken, page: the verifier of never failed: TypeError.*: 2\n", said), "counted, and not won"
    assert "played 4 of 6: 4 steps, 4 requests, 800 tokens\nsuccess: 50.0%" in said
    assert "left out: 2, the first: task 'idle': its verifier is content before anything is done" in said
    (app / "idle.py").write_text(VERIFY.format(True))
    Script.asked.clear()
    assert cli.main(["agent", str(tmp_path / "out"), *settings, "env.steps=2"]) == 0
    assert "played 6 of 6" in capsys.readouterr().out
    assert counts() == {"policy": 2}, "what could not begin is tried again, and nothing else"


def test_a_server_that_is_lost_ends_the_call_and_the_next_goes_on(
    url: str, browser: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Script.replies["policy"] = lambda prompt, i: Script.faults.extend([("policy", 503)] * 6) or "Hm."  # type: ignore[func-returns-value]
    command = ["agent", str(tmp_path), f"policy.url={url}", "policy.model=any", "env.tasks=click-button", "proposals=1"]
    assert cli.main(command) == 3
    assert "policy any at http" in capsys.readouterr().err
    trace = json.loads((tmp_path / "task-click-button-0.json").read_text())
    assert (trace["done"], [step["action"] for step in trace["steps"]]) == (False, [""])
    assert "not ended" in (tmp_path / "index.html").read_text()
    Script.replies["policy"] = named
    assert cli.main(command) == 0
    assert "played 1 of 1: 1 steps, 1 requests, 10 tokens\nsuccess: 100.0%" in capsys.readouterr().out


GYM = Path(__file__).parents[2] / "docs" / "examples" / "browsergym_pages.py"
STAND_IN = {
    "__init__": "", "utils/__init__": "", "core/__init__": "", "core/action/__init__": "",
    "core/action/highlevel": """
class HighLevelActionSet:
    def __init__(self, subsets):
        assert "coord" in subsets
        self.to_python_code = lambda action: f"run: {action}"
""",
    "utils/obs": """
IGNORED_AXTREE_ROLES = ["LineBreak"]
def flatten_axtree_to_str(tree, ignored_roles):
    assert ignored_roles == ["LineBreak", "InlineTextBox"]
    return "\\n".join(("" if i == 0 else "\\t") + line for i, line in enumerate(tree["nodes"]))
""",
    "standin": """
import gymnasium, numpy
CALLS = []
class Shop(gymnasium.Env):
    def __init__(self, action_mapping):
        self.run = action_mapping
    def seen(self, error=""):
        nodes = ["RootWebArea 'Shop', focused", "[a3] button 'Star'", "[a4] button 'Skip'", "StaticText 'x'"]
        return {
            "chat_messages": (), "goal": "Star it.", "goal_object": (), "open_pages_urls": ("/", "/b"),
            "open_pages_titles": ("Shop", "B\\x85b"), "active_page_index": numpy.array([1]), "url": "/b",
            "screenshot": None, "dom_object": {}, "axtree_object": {"nodes": nodes}, "extra_element_properties": {},
            "focused_element_bid": "", "last_action": "", "last_action_error": error, "elapsed_time": numpy.ones(1),
        }
    def reset(self, seed=None, options=None):
        if seed == 2:
            raise RuntimeError("the site is down\\nat line 3")
        return self.seen(), {}
    def step(self, action):
        CALLS.append(self.run(action))
        if "a4" in action and CALLS.count(CALLS[-1]) > 1:
            raise RuntimeError("the browser is gone")
        return self.seen("TimeoutError: a4" if "a4" in action else ""), float("a3" in action), "a3" in action, False, {}
    def close(self):
        CALLS.append("closed")
gymnasium.register("browsergym/standin.star", Shop)
gymnasium.register("browsergym/standin.other", Shop)
""",
}  # fmt: skip


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package in BrowserGym's place, with environments whose observations are laid out as its own."""
    held = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "browsergym"}
    for name, text in STAND_IN.items():
        file = tmp_path / "packages" / "browsergym" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "browsergym"]:
        del sys.modules[name]
    sys.modules.update(held)
    for name in [name for name in gym.registry if name.startswith("browsergym/standin")]:
        del gym.registry[name]


def test_environments_of_browsergym_are_acted_in(
    url: str, standin: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Script.replies["policy"] = lambda prompt, i: f"```click [a{3 if Script.asked[1:] else 4}]```"
    settings = [f"policy.url={url}", "policy.model=any", f"pages={GYM}:pages", "env.tasks=browsergym/standin.st*"]
    assert cli.main(["agent", str(tmp_path / "out"), *settings, "env.episodes=3"]) == 0
    said = capsys.readouterr().out
    assert "played 2 of 3: 3 steps, 3 requests, 600 tokens\nsuccess: 100.0%" in said
    missed = "task 'browsergym/standin.star', seed 2: it does not begin: RuntimeError: the site is down"
    assert f"left out: 1, the first: {missed}\n" in said
    [first, *_] = sorted((tmp_path / "out").glob("task-*.json"))
    steps = json.loads(first.read_text())["steps"]
    assert [step["action"] for step in steps] == ["click [a4]", "click [a3]"]
    assert [step["notes"] for step in steps] == ["TimeoutError: a4", ""]
    assert steps[0]["page"].startswith(
        "Tab 0: Shop | Tab 1 (current): B b\n\nRootWebArea 'Shop', focused\n\t[a3] button"
    )
    calls = sys.modules["browsergym.standin"].CALLS
    assert calls == ["run: click('a4')", "run: click('a3')", "closed", "run: click('a3')", "closed", "closed"]
    Script.replies["policy"] = lambda prompt, i: "```click [a4]```"
    assert cli.main(["agent", str(tmp_path / "lost"), *settings]) == 0
    [trace] = [json.loads(file.read_text()) for file in (tmp_path / "lost").glob("task-*.json")]
    assert (trace["done"], trace["won"]) == (True, False)
    assert trace["steps"][-1]["notes"] == "RuntimeError: the browser is gone"


def test_what_browsergym_cannot_take_is_refused(standin: None) -> None:
    pages, nothing = named_in(f"{GYM}:pages"), "take env.tasks, such as browsergym/miniwob.click-test"
    with pytest.raises(InputError, match=nothing):
        pages(BrowserSpec())
    for field in ({"browser": "/usr/bin/x"}, {"allow": ("a.com",)}, {"site": "folder", "path": "x"}):
        with pytest.raises(InputError, match=nothing):
            pages(BrowserSpec(tasks=("browsergym/standin.star",), **field))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"No module named 'browsergym\.nowhere'; pip install browsergym-nowhere"):
        pages(BrowserSpec(tasks=("browsergym/nowhere.a",)))
    with pytest.raises(InputError, match=r"standin has no such environment; it has browsergym/standin\.star"):
        pages(BrowserSpec(tasks=("browsergym/standin.stars",)))
    assert pages(BrowserSpec(tasks=("browsergym/standin.*",), episodes=2, seed=5)).episodes() == [
        (f"browsergym/standin.{name}", seed) for seed in (5, 6) for name in ("star", "other")
    ]


MENU = """RootWebArea 'Form'
\t[1] combobox '' value='red', hasPopup='menu'
\t\tMenuListPopup ''
\t\t\t[2] option "it's", selected=True
\t[3] listbox '', multiselectable=True
\t\t[4] option 'a', selected=False
\t[5] combobox 'City'
\t[6] listbox ''
\t\t[7] option 'Rome'"""


def test_actions_are_browsergyms_calls() -> None:
    call_of = named_in(f"{GYM}:call_of")
    calls = {
        "click [1]": "click('1')", "hover [6]": "hover('6')", "clear [1]": "clear('1')",
        "click [2]": """select_option('1', "it's")""", "click [4]": "click('4', modifiers=['Control'])",
        "click [7]": "click('7')", "type [1] [a 'b'] [0]": """fill('1', "a 'b'")""",
        "type [1] [x] [1]": "fill('1', 'x')\npress('1', 'Enter')", "press [Control+v]": "keyboard_press('Control+v')",
        "scroll [down]": "scroll(0, 500)", "scroll [up]": "scroll(0, -500)", "goto [http://a/b]": "goto('http://a/b')",
        "go_back": "go_back()", "go_forward": "go_forward()", "new_tab": "new_tab()", "tab_focus [1]": "tab_focus(1)",
        "close_tab": "tab_close()", "stop [3 items]": "send_msg_to_user('3 items')",
        "stop [N/A]": "report_infeasible('N/A')", "stop": "send_msg_to_user('')",
    }  # fmt: skip
    assert {action: call_of(PageState(MENU), action) for action in calls} == calls
    assert {call.partition(" ")[0] for call in calls} == set(GRAMMAR)


@pytest.mark.slow
def test_miniwob_in_browsergym_itself(url: str, tmp_path: Path) -> None:
    """In a process of its own, whose Playwright ends with it."""
    pytest.importorskip("browsergym.miniwob", reason="pip install browsergym-miniwob, in an environment of its own")
    [place] = pytest.importorskip("miniwob", reason="pip install miniwob").__path__
    Script.replies |= {"policy": named, "value": named_is_good}
    tasks = ",".join(f"browsergym/miniwob.{task}" for task in ("click-test-2", "click-tab"))
    settings = [f"policy.url={url}", "policy.model=any", "imagine=server", f"pages={GYM}:pages", f"env.tasks={tasks}"]
    ran = subprocess.run(
        [sys.executable, "-m", "rlvr_world", "agent", str(tmp_path / "out"), *settings, "env.steps=2"],
        env=os.environ | {"MINIWOB_URL": f"{(Path(place) / 'html' / 'miniwob').as_uri()}/"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if "Executable doesn't exist" in ran.stdout:
        pytest.skip("playwright install chromium")
    assert "played 2 of 2: 2 steps, " in ran.stdout, ran.stdout + ran.stderr
    assert "success: 100.0%" in ran.stdout
    trace = json.loads((tmp_path / "out" / "task-browsergym%2Fminiwob.click-tab-0.json").read_text())
    assert trace["goal"].startswith("Click on Tab #")
    assert "tab 'Tab #1'" in trace["steps"][0]["page"]


def test_the_policy_is_told_every_action_that_one_tab_has() -> None:
    forms = [form for verb, (_, form) in GRAMMAR.items() if verb not in ("new_tab", "tab_focus", "close_tab")]
    assert all(form.removesuffix(" alone") in ASKED["policy"] for form in forms)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="votes: expected at least 1, got 0"):
        AgentConfig(votes=0)
    for setting in ("env.ends=1", "env.transitions=9"):
        with pytest.raises(InputError, match=r"env\.ends, env\.transitions: they say how rows are collected"):
            config("http://localhost:1", setting)
    with pytest.raises(InputError, match=r"pages=.*grid\.py:pages: expected FILE\.py:FUNCTION, got no function"):
        agent_runs.pages(config("http://localhost:1", f"pages={GYM.with_name('grid.py')}:pages"))
    with pytest.raises(InputError, match=r"votes: value\.score=expected asks for one score, got votes=5"):
        config("http://localhost:1", "value.score=expected", "votes=5")
    assert AgentConfig().env == BrowserSpec(episodes=1, steps=5)


def test_a_model_of_another_world_is_refused(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Text:
        observation_space = None

    monkeypatch.setattr(agent_runs, "Imagined", lambda source: Text())
    with pytest.raises(InputError, match="imagine=runs/demo: expected a model of web pages"):
        agent_runs.try_agent(tmp_path, config(url, imagine="runs/demo"), FREE)
