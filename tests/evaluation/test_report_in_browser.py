"""The report in a real browser: its table of predictions works by mouse and keyboard, and shows text as text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr_world.evaluation.report import write_report
from tests.evaluation.test_report import FULL, result, write_run, write_video_run

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'rlvr-world[web]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = [result("base", 0, 0), result("sft", 20, 10), result("rl/seed0", 40, 12), result("control/seed0", 20, 12)]
    return write_report(write_run(tmp_path_factory.mktemp("text") / "run", results, FULL))


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}") or dialog.dismiss())
    page.goto(f"file://{report}")
    page.locator("#predictions").wait_for()
    yield page
    page.close()
    assert said == []


def shown(page: Any) -> str:
    return str(page.locator("#count").inner_text()).partition(" rows")[0]


def test_filters_by_slice_world_verb_model_and_outcome(page: Any) -> None:
    assert shown(page) == "80 of 80"
    assert page.locator(".row").count() == 25
    page.locator("#more").click()
    assert page.locator(".row").count() == 50
    for name, value, left in (("slice", "changed", 40), ("world", "house 1", 13), ("verb", "open", 6)):
        page.locator(f"[name={name}]").select_option(value)
        assert shown(page) == f"{left} of 80"
    assert page.locator(".row small").all_inner_texts() == [
        f"test:changed:{i} · changed · house 1" for i in (4, 10, 16, 22, 28, 34)
    ]
    for model, was, left in (("", "right", 2), ("sft", "right", 1), ("rl/seed0", "wrong", 4), ("", "differs", 2)):
        page.locator("[name=model]").select_option(model)
        page.locator("[name=was]").select_option(was)
        assert shown(page) == f"{left} of 80", (model, was)
    page.locator("[name=order]").select_option("-1")
    assert page.locator(".row small").first.inner_text().startswith("test:changed:4 ")
    page.locator("[name=words]").fill("no such words")
    assert shown(page) == "0 of 80"


def test_a_row_shows_all_models_side_by_side_and_their_text_as_text(page: Any) -> None:
    page.locator("[name=words]").fill("changed:11")
    row = page.locator(".row").last
    assert row.locator(".mark").all_inner_texts() == ["!", "!", "\u2713", "\u2713"]
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    row.locator("article").first.wait_for()
    assert row.locator("article b").all_inner_texts() == ["base ", "sft ", "rl/seed0 ", "control/seed0 "]
    assert row.locator("pre").first.inner_text() == '{"door": 11}'
    assert row.locator("article").first.locator("pre").last.inner_text() == "</script><script>alert(2)</script>"
    assert row.locator("script").count() == 0
    assert row.locator(".plus").first.inner_text() == "+ open: </pre>"


def test_the_policy_lets_no_other_script_run(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.goto(f"file://{report}")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert page.evaluate("window.ran") is None
    page.close()


@pytest.mark.parametrize("kind", ["text", "video"])
def test_nothing_runs_over_the_edge_of_a_phone(browser: Any, report: Path, tmp_path: Path, kind: str) -> None:
    file = report if kind == "text" else write_report(write_video_run(tmp_path / "run"))
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"file://{file}")
    page.locator("#predictions").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".row[open] article").count() >= 4
    page.close()
