"""Web-page data in: recorded steps of a browser, in the layouts in which people keep them.

    ours                          observation, action, next_observation      (goal, url, task, seed, step, error, ...)
    BrowserGym, a record a step   axtree_txt, action, step      (task_name, task_seed, last_action_error, ...)
    WMA, WebArena                 observation, current_action, next_state_acctree
    WMA, Mind2Web                 cleaned_accessibility_tree, action, cleaned_next_accessibility_tree
    webarena-world-model-cot      prompt (the page stands in it), reward_model.ground_truth, next_state_acctree

WMA: Chae et al., Web Agents with World Models, arXiv 2410.13232; the last is RLVR-World's (arXiv 2505.13934).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rlvr_world.domains.row_files import OnFault, need, read_records, take, telling
from rlvr_world.domains.web_page.actions import parse_action
from rlvr_world.domains.web_page.change import HEADERS, Change
from rlvr_world.domains.web_page.diff import page_change
from rlvr_world.domains.web_page.published import published_change, sections
from rlvr_world.domains.web_page.tree import Page, parse_page
from rlvr_world.errors import InputError
from rlvr_world.types import Transition

Label = Literal["aligned", "published"]
Record = tuple[str, str, dict[str, Any]]
"""Name of a record, where it stands, and its columns."""
COLUMNS = ("observation", "action", "next_observation")
ALIASES = {
    "current_action": "action",
    "cleaned_accessibility_tree": "observation",
    "next_state_acctree": "next_observation",
    "cleaned_next_accessibility_tree": "next_observation",
    "objective": "goal",
    "confirmed_task": "goal",
    "website": "task",
    "task_id": "task",
    "task_name": "task",
    "task_seed": "seed",
    "step_idx": "step",
}
"""Our name of what other layouts call otherwise."""
PAGE = "axtree_txt"
"""BrowserGym's name of the page that a record holds."""
WHOLE_PAGE = 20
"""Items from which a change that leaves less than half of the page as it was counts as a navigation."""

_PROMPT = re.compile(
    r"URL: (?P<url>.*?)\s+OBJECTIVE: (?P<goal>.*?)\s+PREVIOUS ACTION: (?P<previous>.*?)\s+"
    r"CURRENT OBSERVATION: (?P<observation>.*?)\s+CURRENT ACTION: (?P<action>.*?)(?:\s*\n\s*Please give .*)?\s*",
    re.DOTALL,
)
_CALL = re.compile(r"[a-z_]+\(.*\)", re.DOTALL)


@dataclass(frozen=True)
class PageState:
    """What an agent sees before it acts.

    >>> PageState("[1] RootWebArea 'Shop'\\n\\t[2] link 'Cart'", url="http://shop/", goal="Buy red shoes")
    """

    text: str
    """The page's tree."""
    url: str = ""
    goal: str = ""
    previous: str = ""
    """The action before; empty on the first page."""
    episode: str = ""
    """Task and seed: rows of one episode are about the same page."""

    @cached_property
    def page(self) -> Page:
        return parse_page(self.text)


@dataclass(frozen=True)
class PageResult:
    """What came of an action."""

    change: Change
    text: str = ""
    """The next page's tree; empty where only the change was kept."""
    error: str = ""
    """What the browser reported; empty where the action was carried out."""


def read_rows(
    path: str | Path,
    label: Label = "aligned",
    reasoning_column: str = "",
    on_fault: OnFault = None,
    lost: list[str] | None = None,
) -> list[Transition]:
    """Read rows from .jsonl, .jsonl.gz, .json or .parquet (or a folder of parquet shards); the columns tell the layout.

    States are ``PageState``, next states ``PageResult``. ``kind`` is ``unchanged``, ``changed`` or ``navigation``,
    ``world`` the task or site. ``label`` chooses the true change: our alignment of the two pages, or the published
    rule (the labels that the row brings, else computed in the same way). ``reasoning_column`` names a column with a
    chain of thought and its answer. Rows with an error and no next page, where the browser lost it, are left out;
    ``lost`` gets their names.

    Raises InputError, naming file, row and field, for anything that cannot be read as such rows; ``on_fault`` gets
    them instead, if given, and such rows are left out.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder of web-page rows; check the path")
    rows: list[Transition] = []
    for name, where, record in _paired(read_records(path, on_fault), on_fault):
        if _lost(record):
            if lost is not None:
                lost.append(name)
            continue
        with telling(on_fault):
            rows.append(_transition(record, name, where, label, reasoning_column))
    if not rows and on_fault is None:
        raise InputError(f"{path}: expected at least one web-page row, got an empty file; give a file with rows")
    return rows


def read_question(given: Any) -> Transition:
    """``{"state": ..., "action": ...}`` with a ``PageState``, the text of a page's tree, or an object that has it as
    ``observation`` (beside ``url``, ``goal``). Raises InputError that names the field for anything else."""
    state, where = given.get("state"), "question"
    if not isinstance(state, PageState):
        fields = {"observation": state} if isinstance(state, str) else state
        if not isinstance(fields, Mapping):
            raise InputError(f"{where}, field state: expected the text of a page or an object, got {state!r:.80}")
        observation = take(fields, "observation", str, where, "state.")
        _page(observation, where, "state")
        state = PageState(observation, *(_text(fields, key) for key in ("url", "goal", "previous")))
    action = take(given, "action", str, where)
    return Transition(str(given.get("id", "question")), state, action, None)


def _paired(records: Iterable[Record], on_fault: OnFault) -> Iterator[Record]:
    """BrowserGym's records of one page each, joined with the page of the next step of the same episode; others as they
    are. Episodes may be mixed, each in the order of its steps.

    The error of an action stands in the record after it. The last page of an episode leads nowhere and is left out.
    """
    held: dict[tuple[str, ...], Record] = {}
    for name, where, record in records:
        if PAGE not in record or "next_observation" in record:
            yield name, where, record
            continue
        fields = {"observation": record[PAGE]} | {ALIASES.get(key, key): value for key, value in record.items()}
        with telling(on_fault):
            step: int = take(fields, "step", int, where)
            episode = tuple(_text(fields, key) for key in ("task", "seed", "episode"))
            before = held.get(episode)
            if before is not None and before[2]["step"] + 1 == step:
                after = {"next_observation": fields["observation"], "error": _text(fields, "last_action_error")}
                yield before[0], f"{before[1]} and {where}", before[2] | after
                fields = {"previous": _text(before[2], "action")} | fields
            held[episode] = name, where, fields


def _lost(record: Mapping[str, Any]) -> bool:
    after = str(record.get("next_observation"))
    return bool(record.get("error")) and (not after or after.endswith("RootWebArea ''"))


def change_kind(change: Change, page: Page) -> str:
    """``unchanged``, ``changed``, or ``navigation``: at least 20 items differ, and less than half the page is left."""
    if not change:
        return "unchanged"
    left = len(page.nodes) - len(change.deleted) - len(change.updated)
    return "navigation" if len(change) >= WHOLE_PAGE and left < len(page.nodes) / 2 else "changed"


def _transition(record: dict[str, Any], name: str, where: str, label: Label, reasoning_column: str) -> Transition:
    fields = {ALIASES.get(key, key): value for key, value in record.items()}
    if "prompt" in fields and "observation" not in fields:
        fields = {**fields, **_prompt_fields(fields, where)}
    need(fields, COLUMNS, where, "column")
    observation, action, after = (take(fields, column, str, where) for column in COLUMNS)
    page, next_page = _page(observation, where, COLUMNS[0]), _page(after, where, COLUMNS[2])
    if action != "None" and not _CALL.fullmatch(action):
        _checked(parse_action, action, where, "action")
    task, seed, step = (_text(fields, key) for key in ("task", "seed", "step"))
    world = task or re.sub(r"/step_\d+$", "", _text(fields, "source"))  # BrowserGym's folders of single steps
    state = PageState(
        observation, _text(fields, "url"), _text(fields, "goal"), _previous(fields), f"{world}/{seed}" if seed else ""
    )
    aligned = page_change(page, next_page)
    change = aligned if label == "aligned" else _published(fields, observation, after, action, where)
    return Transition(
        id=" ".join(filter(None, (name, "/".join(filter(None, (task, seed, step)))))),
        state=state,
        action=action,
        next_state=PageResult(change, after, _text(fields, "error")),
        kind=change_kind(aligned, page),
        world=world,
        reasoning=str(take(record, reasoning_column, str, where)) if reasoning_column else "",
    )


def _prompt_fields(fields: Mapping[str, Any], where: str) -> dict[str, str]:
    """What the published prompt holds after its instructions."""
    messages = take(fields, "prompt", list, where)
    text = str(take(messages[-1], "content", str, where, "prompt[-1].")) if messages else ""
    found = _PROMPT.fullmatch(text, text.rfind("URL: ", 0, max(0, text.find("OBJECTIVE: "))))
    if not found:
        raise InputError(
            f"{where}, field prompt: expected URL, OBJECTIVE, PREVIOUS ACTION, CURRENT OBSERVATION and CURRENT ACTION, "
            f"got {text[-80:]!r}; give rows in a published layout"
        )
    return found.groupdict()


def _published(fields: Mapping[str, Any], observation: str, after: str, action: str, where: str) -> Change:
    """The label that the row brings, else what the published rule makes of the two pages."""
    if "reward_model" in fields:
        truth = take(take(fields, "reward_model", dict, where), "ground_truth", str, where, "reward_model.")
        found = sections(truth)
        return Change(*(tuple(line for line in found[header] if line != "None") for header in HEADERS))
    return published_change(observation, after, action)


def _previous(fields: Mapping[str, Any]) -> str:
    """The last of the actions before this one."""
    given = fields.get("previous_actions") or fields.get("previous") or ""
    last = given[-1] if isinstance(given, list) else given
    return "" if last == "None" else str(last)


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    return "" if value is None else str(value)


def _page(text: str, where: str, field: str) -> Page:
    page = _checked(parse_page, text, where, field)
    if not page.nodes:
        raise InputError(f"{where}, field {field}: expected an accessibility tree, got {text!r:.60}")
    return page


def _checked(parse: Any, text: str, where: str, field: str) -> Any:
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{where}, field {field}: {error}") from error
