"""Where rows are found: files, patterns, folders of several splits, the home folder, data sets of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from rlvr_world.domains.row_files import locate, read_records
from rlvr_world.errors import InputError
from tests.recipes.published_layout import parquet


def names(place: str) -> list[str]:
    return [file.name for file in locate(place, "text-game")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "generated_cot"):
        parquet(tmp_path / "set" / "data" / f"{name}.parquet", [{"a": name}])
    (tmp_path / "set" / "README.md").write_text("rows")
    return tmp_path / "set"


def test_a_split_of_a_folder(folder: Path) -> None:
    assert names(f"{folder}:train") == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert names(f"{folder}:generated_cot") == ["generated_cot.parquet"]
    assert len(names(f"{folder}:t*")) == 3
    for place in (str(folder), f"{folder}:validation"):
        with pytest.raises(InputError, match=r"one split, got generated_cot, test, train; name one, as in set:test"):
            locate(place, "text-game")


def test_patterns_and_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert names("~/set/data/train-*.parquet") == names("~/set:train") == names(f"{folder}:train")
    assert names("~/set/data/generated_cot.parquet") == ["generated_cot.parquet"]
    with pytest.raises(InputError, match=r"expected text-game rows in files whose name ends in .*, got no such file"):
        locate("~/set/none-*.parquet", "text-game")
    with pytest.raises(InputError, match=r"got README\.md"):
        locate("~/set/*.md", "text-game")


def test_a_file_whose_name_has_a_colon(tmp_path: Path) -> None:
    file = tmp_path / "10:30.jsonl"
    file.write_text(json.dumps({"a": 1}))
    assert [record for _, _, record in read_records(locate(file, "text-game"))] == [{"a": 1}]


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its cache has it: what was fetched once is found again without a network."""
    cached = tmp_path / "datasets--thuml--webarena-world-model-cot"
    parquet(cached / "snapshots" / "abc" / "train.parquet", [{"a": "train"}])
    parquet(cached / "snapshots" / "abc" / "test.parquet", [{"a": "test"}])
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    (record,) = read_records(locate("thuml/webarena-world-model-cot:test", "web-page"))
    assert record[2] == {"a": "test"}
    with pytest.raises(InputError, match=r"thuml/none: no such folder, and the hub gave no data set"):
        locate("thuml/none:train", "web-page")
