"""How an episode stands after an action, as rows keep it and models write it, and what of a page its goal names.

The last item of an answer is ``=> success``, ``=> failure`` or ``=> goes on``. Whether an action succeeds is found by
comparing the page with the goal, letter by letter, which small models cannot do: a sign does it for them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_world.domains.row_files import take
from rlvr_world.domains.web_page.tree import Node

SUCCESS, FAILURE, GOES_ON = "success", "failure", "goes on"
SIGN = "!"
_ITEM = "=> "
_QUOTED = re.compile(r'"([^"\[\]]+)"')


def outcome_of(record: Mapping[str, Any], where: str) -> str:
    """What a row's ``done`` and ``reward`` say; empty where it has none."""
    if record.get("done") is None:
        return ""
    if not take(record, "done", bool, where):
        return GOES_ON
    return SUCCESS if take(record, "reward", float, where) > 0 else FAILURE


def with_outcome(answer: str, outcome: str) -> str:
    return f"{answer}\n{_ITEM}{outcome}"


def split_outcome(text: str) -> tuple[str, str]:
    """The answer without its last item, and the outcome that this states; empty where it states none."""
    answer, _, last = text.strip().rpartition(f"\n{_ITEM}")
    return (answer, last) if last in (SUCCESS, FAILURE, GOES_ON) else (text, "")


def brier_rewards(stated: Sequence[str], true: str) -> list[float]:
    """What each sample of a group gets for the outcome that it states, in [0, 2]: on average 1 - Brier score / 2, as
    the group's shares estimate it without bias, and more or less as the sample adds to that. A right outcome is worth
    the less, a wrong one costs the more, the more others state it, so that nobody gains by stating one more often than
    it comes true. With the group's mean taken off, the expected gradient is that of the score, up to 1 - 1 / group.

    0 for a sample that states none. Fewer than three leave nothing to estimate: 1 for a right outcome.
    """
    counts = Counter(filter(None, stated))
    n = counts.total()
    if n < 3:
        return [float(one == true) for one in stated]
    pairs = sum(count * (count - 1) for count in counts.values()) / ((n - 1) * (n - 2))
    return [0.5 + (one == true) - (counts[one] - 1) / (n - 2) + pairs / 2 if one else 0.0 for one in stated]


def quoted(goal: str) -> list[str]:
    """What a goal puts in quotes."""
    return _QUOTED.findall(goal)


def place(goal: str, node: Node) -> int:
    """Where the goal names this node in whole words, as a character; -1 where it does not. Most of the goal itself, as
    pages show it, is no name."""
    name = node.parts[1][1:-1]
    if not name or len(name) >= 0.8 * len(goal) or node.role == "RootWebArea":
        return -1
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", goal, re.IGNORECASE)
    return found.start() if found else -1
