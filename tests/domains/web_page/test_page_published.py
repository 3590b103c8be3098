"""The published labels and the published reward, row by row."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_world.domains.web_page.change import HEADERS, f_beta, write_change
from rlvr_world.domains.web_page.published import assign, published_change, published_precision_recall, sections


def rows(shared, name):
    return [json.loads(line) for line in (shared / "golden/given" / name).read_text("utf-8").splitlines()]


def test_reward(shared):
    for row in rows(shared, "web_f1.jsonl"):
        score = f_beta(*published_precision_recall(row["response"], row["ground_truth"]))
        assert score == pytest.approx(row["score"], abs=1e-12), row["id"]
        said, true = sections(row["response"]), sections(row["ground_truth"])
        for h in HEADERS:
            hits = len(said[h].keys() & true[h].keys())
            assert {"predicted": len(said[h]), "target": len(true[h]), "hits": hits} == row["counts"][h[:-1]], row["id"]


def test_reference_labels(shared):
    for row in rows(shared, "web_diff_reference.jsonl"):
        change = published_change(row["observation"], row["next_observation"], row["action"])
        wanted = row["assignment_as_published"]
        if wanted["new_items"] is None:
            assert not change, row["id"]
        else:
            assert write_change(change) + "\n" == wanted["text"], row["id"]


def test_published_labels(shared):
    for row in rows(shared, "web_diff_published.jsonl"):
        change = published_change(row["observation"], row["next_observation"], row["action"])
        sections = [change.new, change.deleted, change.updated]
        if row["label_rule"] == "function_then_filter":
            pages = [row["next_observation"], row["observation"]]
            seen = [{line.strip().partition("] ")[2] for line in page.split("\n")} for page in reversed(pages)]
            for i in (0, 1):
                sections[i] = tuple(line for line in sections[i] if line.partition("] ")[2] not in seen[i])
        names = ("published_new_items", "published_deleted_items", "published_updated_items")
        assert ["\n".join(items) or "None" for items in sections] == [row[name] for name in names], row["id"]


@given(st.integers(1, 7), st.integers(1, 7), st.data())
def test_assignment_is_the_best(height, width, data):
    numbers = st.lists(st.integers(-3, 3), min_size=height * width, max_size=height * width)
    score = np.array(data.draw(numbers), dtype=float).reshape(height, width)
    rows_, columns = assign(score)
    assert rows_ == sorted(set(rows_))
    assert len(set(columns)) == len(columns) == min(height, width)
    assert score[rows_, columns].sum() == _best(score if height <= width else score.T)


def _best(score):
    """By trying all of them, row by row over sets of used columns."""
    best = {0: 0.0}
    for row in score:
        after: dict[int, float] = {}
        for used, total in best.items():
            for j, value in enumerate(row):
                if not used >> j & 1:
                    key = used | 1 << j
                    after[key] = max(after.get(key, -np.inf), total + value)
        best = after
    return max(best.values())
