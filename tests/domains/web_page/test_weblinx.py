"""The script that makes rows of WebLINX's demonstrations, on one in their layout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rlvr_world.domains.web_page.rows import read_rows

SCRIPT = Path(__file__).resolve().parents[3] / "docs/examples/weblinx.py"
PAGE = """<!DOCTYPE html><html data-webtasks-id="a1-0"><head><title>S</title><script>"<p>no</p>";</script></head>
<body data-webtasks-id="a2-0"><noscript>Turn it on</noscript><p data-webtasks-id="a3-0">Find a gift<br>
<a href="/" data-webtasks-id="a4-0"><span data-webtasks-id="a5-0">Home</span></a></p>
<input type="text" data-webtasks-id="a6-0" aria-label="Search" value="{text}">
<input type="checkbox" data-webtasks-id="a7-0" {ticked}><button data-webtasks-id="a8-0"><svg></svg>Go</button>
<select data-webtasks-id="a9-0"><option selected>Cheap</option><option>New</option></select></body></html>"""


def turn(intent: str, page: str | None, key: str = "", **given: Any) -> dict[str, Any]:
    element = {"attributes": {"data-webtasks-id": key}, "tagName": "X", "textContent": "", "xpath": "/x"}
    about = {"metadata": {"tabId": 7, "url": "https://shop.example/all", "zoomLevel": 1}, "properties": {}}
    action = {"intent": intent, "arguments": about | ({"element": element} if key else {}) | given}
    return {"type": "browser", "timestamp": 1.0, "action": action, "state": {"page": page, "screenshot": None}}


def test_demonstrations_become_rows_that_are_read(tmp_path: Path) -> None:
    demo = tmp_path / "demonstrations" / "aaabtsd"
    (demo / "pages").mkdir(parents=True)
    pages = {"page-0-0.html": ("", ""), "page-1-0.html": ("tea", ""), "page-2-0.html": ("tea", "checked")}
    for name, (text, ticked) in pages.items():
        (demo / "pages" / name).write_text(PAGE.format(text=text, ticked=ticked))
    one, two, three = pages
    turns = [
        {"type": "chat", "timestamp": 0.5, "speaker": "instructor", "utterance": "Open the shop"},
        turn("textInput", one, "a6-0", text="tea"),
        turn("click", two, "a7-0"),
        turn("load", three, properties={"transitionType": "link", "url": "https://x.example"}),
        turn("click", three, "a5-0"),  # inside the link, which stands for it
        turn("change", three, "a9-0", value="New"),
        turn("scroll", three, scrollX=0, scrollY=400),
        turn("tabswitch", three, properties={"tabIdOrigin": 7, "tabId": 8}),
        turn("click", None, "a8-0"),
        turn("load", one, properties={"transitionType": "typed", "url": "https://y.example"}),
        turn("click", one, "zz-9"),
    ]
    (demo / "replay.json").write_text(json.dumps({"data": turns, "version": "0.1.0"}))
    (demo / "form.json").write_text(json.dumps({"description": "Buy a gift", "tasks": [], "shortcode": "aaabtsd"}))
    rows = tmp_path / "rows.jsonl"
    command = [sys.executable, SCRIPT, demo.parent, rows]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "8 steps, 2 of them not on what the page shows" in said
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert written[0]["axtree_txt"] == (
        "[a1-0] RootWebArea ''\n\tStaticText 'Find a gift'\n\t[a4-0] link 'Home'\n\t[a6-0] textbox 'Search'\n"
        "\t[a7-0] checkbox '' checked: false\n\t[a8-0] button 'Go'\n\t[a9-0] combobox ''\n"
        "\t\toption 'Cheap' selected: true\n\t\toption 'New' selected: false"
    )
    assert [row["action"] for row in written] == [
        "type [a6-0] [tea] [0]", "click [a7-0]", "click [a4-0]", "select_option('a9-0', 'New')", "scroll [down]",
        "noop()", "goto [https://y.example]", "noop()",
    ]  # fmt: skip
    read = read_rows(rows)
    actions = ["type [a6-0] [tea] [0]", "click [a7-0]", "click [a4-0]", "select_option('a9-0', 'New')", "scroll [down]"]
    assert [row.action for row in read] == [*actions, "goto [https://y.example]"]
    assert "StaticText 'tea'" in read[0].next_state.text
    assert "checked: true" in read[1].next_state.text
    assert (read[0].world, read[0].state.goal) == ("shop.example", "Buy a gift")
