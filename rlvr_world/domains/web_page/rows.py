"""Web-page data in: recorded steps of a browser, in the layouts in which people keep them.

    ours                          observation, action, next_observation      (goal, url, task, seed, step, error,
                                                                              reward, done, ...)
    ours, a session's             state, action, next_state, each state an object with observation, goal, url
    BrowserGym, a record a step   axtree_txt, action, step      (task_name, task_seed, last_action_error, ...)
    WMA, WebArena                 observation, current_action, next_state_acctree
    WMA, Mind2Web                 cleaned_accessibility_tree, action, cleaned_next_accessibility_tree
    webarena-world-model-cot      prompt (the page stands in it), reward_model.ground_truth, next_state_acctree

WMA: Chae et al., Web Agents with World Models, arXiv 2410.13232; the last is RLVR-World's (arXiv 2505.13934).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from rlvr_world.domains import row_files
from rlvr_world.domains.row_files import OnFault, Record, need, take, take_inner, telling
from rlvr_world.domains.web_page.actions import parse_action
from rlvr_world.domains.web_page.change import HEADERS, Change
from rlvr_world.domains.web_page.diff import page_change
from rlvr_world.domains.web_page.outcome import outcome_of
from rlvr_world.domains.web_page.published import published_change, sections
from rlvr_world.domains.web_page.tree import Page, parse_page
from rlvr_world.errors import InputError
from rlvr_world.types import Transition

Label = Literal["aligned", "published"]
COLUMNS = ("observation", "action", "next_observation")
ALIASES = dict.fromkeys(("website", "task_id", "task_name"), "task")
ALIASES |= dict.fromkeys(("objective", "confirmed_task"), "goal")
ALIASES |= dict.fromkeys(("next_state_acctree", "cleaned_next_accessibility_tree"), "next_observation")
ALIASES |= {"cleaned_accessibility_tree": "observation", "current_action": "action"}
ALIASES |= {"task_seed": "seed", "step_idx": "step"}
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
    outcome: str = ""
    """How the episode stands, where a model says it; see ``outcome``."""
    done: tuple[str, ...] = field(default=(), compare=False)
    """The actions of the episode so far, where planners have to know them."""

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
    outcome: str = ""
    """How the episode stands; empty where nobody says."""


def read_rows(
    path: str | Path,
    label: Label = "aligned",
    reasoning_column: str = "",
    on_fault: OnFault = None,
    lost: list[str] | None = None,
    any_action: bool = False,
) -> list[Transition]:
    """Read a ``.jsonl``, ``.jsonl.gz``, ``.json`` (a list) or ``.parquet`` file, or a folder of parquet shards.

    ``label`` says what the true change is: our aligned difference of the two pages, or the published rule (the labels
    that the row brings, else computed in the same way). ``reasoning_column`` holds a chain of thought with its answer.
    Rows with an error and no next page, where the browser lost it, are left out; ``lost`` gets their names.
    ``any_action`` takes actions that are none of the grammar (``type []``), for prompts that have them written already.
    Raises InputError, naming file, row and field, for what is no such row; ``on_fault``, if given, gets it instead.
    """

    def joined(records: Iterable[Record]) -> Iterator[Record]:
        for name, where, record in _paired(records, on_fault):
            after = str(record.get("next_observation"))
            if not record.get("error") or (after and not after.endswith("RootWebArea ''")):
                yield name, where, record
            elif lost is not None:
                lost.append(name)

    parse = partial(_transition, label=label, reasoning_column=reasoning_column, any_action=any_action)
    return row_files.read_transitions(path, "web-page", parse, on_fault, joined)


def read_question(given: Any) -> Transition:
    """``{"state": ..., "action": ...}`` with a ``PageState``, the text of a page's tree, or an object that has it as
    ``observation`` (beside ``url``, ``goal``). Raises InputError that names the field for anything else."""
    return row_files.asked(given, _asked_state)


def _asked_state(given: Mapping[str, Any]) -> PageState:
    state = given.get("state")
    if isinstance(state, PageState):
        return state
    fields = {"observation": state} if isinstance(state, str) else state
    if not isinstance(fields, Mapping):
        raise InputError(f"question, field state: expected the text of a page or an object, got {state!r:.80}")
    observation = take(fields, "observation", str, "question", "state.")
    _page(observation, "question", "state")
    url, goal, previous = (_text(fields, key) for key in ("url", "goal", "previous"))
    return PageState(observation, url, goal, previous)


def _paired(records: Iterable[Record], on_fault: OnFault) -> Iterator[Record]:
    """BrowserGym's records of one page each, joined with the page of the next step of the same episode and the error
    that it reports; others as they are. Episodes may be mixed; the last page of one leads nowhere and is left out."""
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


def change_kind(change: Change, page: Page) -> str:
    """``unchanged``, ``changed``, or ``navigation``: at least 20 items differ, and less than half the page is left."""
    if not change:
        return "unchanged"
    left = len(page.nodes) - len(change.deleted) - len(change.updated)
    return "navigation" if len(change) >= WHOLE_PAGE and left < len(page.nodes) / 2 else "changed"


def _transition(
    name: str, where: str, record: dict[str, Any], label: Label, reasoning_column: str, any_action: bool
) -> Transition:
    fields = {ALIASES.get(key, key): value for key, value in record.items()}
    if "next_state" in fields:  # as sessions are saved
        before, came = (take(fields, key, dict, where) for key in ("state", "next_state"))
        fields = {**before, "next_observation": came.get("observation"), **fields}
    prompt = row_files.last_message(fields, where) if "prompt" in fields else ""
    if "prompt" in fields and "observation" not in fields:
        fields = {**fields, **_prompt_fields(prompt, where)}
    need(fields, COLUMNS, where, "column")
    observation, action, after = (take(fields, column, str, where) for column in COLUMNS)
    page, next_page = _page(observation, where, COLUMNS[0]), _page(after, where, COLUMNS[2])
    if not (any_action or action in ("None", "none") or _CALL.fullmatch(action)):
        _checked(parse_action, action, where, "action")
    task, seed, step = (_text(fields, key) for key in ("task", "seed", "step"))
    world = task or re.sub(r"/step_\d+$", "", _text(fields, "source"))  # BrowserGym's folders of single steps
    for key in ("url", "goal", "previous_actions"):
        row_files.check_texts(fields.get(key), where, key)
    url, goal, episode = _text(fields, "url"), _text(fields, "goal"), f"{world}/{seed}" if seed else ""
    state = PageState(observation, url, goal, _previous(fields), episode)
    aligned = change = page_change(page, next_page)
    if label == "published" and "reward_model" in fields:
        found = sections(take_inner(fields, "reward_model", "ground_truth", str, where))
        change = Change(*(tuple(line for line in found[header] if line != "None") for header in HEADERS))
    elif label == "published":
        change = published_change(observation, after, action)
    reasoning = row_files.reasoning_of(record, reasoning_column, where)
    result = PageResult(change, after, _text(fields, "error"), outcome_of(fields, where))
    name = " ".join(filter(None, (name, "/".join(filter(None, (task, seed, step))))))
    return Transition(name, state, action, result, change_kind(aligned, page), world, reasoning, prompt)


def _prompt_fields(text: str, where: str) -> dict[str, str]:
    """What the published prompt holds after its instructions."""
    found = _PROMPT.fullmatch(text, text.rfind("URL: ", 0, max(0, text.find("OBJECTIVE: "))))
    if not found:
        wanted = "URL, OBJECTIVE, PREVIOUS ACTION, CURRENT OBSERVATION and CURRENT ACTION"
        got = f"got {text[-80:]!r}; give rows in a published layout"
        raise InputError(f"{where}, field prompt: expected {wanted}, {got}")
    return found.groupdict()


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
