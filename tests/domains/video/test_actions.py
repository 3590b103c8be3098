from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from rlvr_world.domains.video.actions import ActionBins, fit_ranges
from rlvr_world.errors import InputError

PUSH = ActionBins((-1.0, 0.0), (1.0, 512.0))


@pytest.mark.parametrize("bins", [256, 64, 7])
def test_bins_are_those_of_the_published_code(shared: Path, bins: int) -> None:
    given = shared / "golden" / "given"
    low, high = load_file(given / "action_ranges.safetensors")["action_ranges"].T
    golden = load_file(given / "action_bins.safetensors")
    got = ActionBins(tuple(low.tolist()), tuple(high.tolist()), bins).bins_of(golden["actions"])
    assert np.array_equal(got, golden[f"bins_{bins}"])


def test_ranges_are_the_same_after_json(shared: Path) -> None:
    low, high = load_file(shared / "golden" / "given" / "action_ranges.safetensors")["action_ranges"].T
    bins = ActionBins(tuple(low.tolist()), tuple(high.tolist()), 64)
    assert ActionBins.from_json(json.loads(json.dumps(asdict(bins))), "config.json") == bins


@given(st.floats(-100, 100, width=32), st.floats(0.125, 50, width=32), st.integers(2, 256), st.data())
def test_middle_of_a_bin_lies_in_it(low: float, spread: float, count: int, data: st.DataObject) -> None:
    bins = ActionBins((low,), (float(np.float32(low + spread)),), count)
    index = np.array([[data.draw(st.integers(0, count - 1))]])
    assert np.array_equal(bins.bins_of(bins.value_of(index)), index)


def test_unit_is_in_shares_of_each_range() -> None:
    assert np.allclose(PUSH.unit(np.float32([[0, 256], [-1, 1024]])), [[0.5, 0.5], [0, 2]])


def test_wrong_width_and_nan_name_place_step_and_field() -> None:
    with pytest.raises(InputError, match=r"pusht/7: expected \[steps, 2\] numbers, got an array \[5, 3\]"):
        PUSH.bins_of(np.zeros((5, 3), np.float32), "pusht/7")
    actions = np.zeros((5, 2), np.float32)
    actions[3, 1] = np.nan
    with pytest.raises(InputError, match="pusht/7: step 3: field 1 is not a number"):
        PUSH.bins_of(actions, "pusht/7")


def test_ranges_that_do_not_fit_the_data_are_refused() -> None:
    fits = np.linspace([-1, 0], [1, 512], 50, dtype=np.float32)
    normalised_late = fits.copy()
    normalised_late[20:, 0] = 100
    normalised_late[45, 0] = 300
    PUSH.check_fit({"a": fits})
    PUSH.check_fit({"a": fits, "b": fits, "c": fits, "d": normalised_late})  # 15 % of one field
    with pytest.raises(InputError, match=r"b: step 45: field 0 is 300, and 55% .* outside the range -1 to 1"):
        PUSH.check_fit({"a": fits[:5], "b": normalised_late})
    with pytest.raises(InputError, match="b: mean of steps 360 to 367: field 0 is 300"):
        PUSH.check_fit({"a": fits[:5], "b": normalised_late}, pool=8)
    assert PUSH.outside(normalised_late).tolist() == [0.6, 0.0]


def test_a_field_that_was_constant_in_training_is_clamped_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    bins = ActionBins((-1.0, 0.5), (1.0, 0.5))
    rows = np.float32([[0.0, 0.5], [0.5, 0.9], [1.0, 0.1]])
    bins.check_fit({"e0": rows})
    assert "field 1 is always 0.5 in the training data; here 2 of 3 values differ, and are clamped" in (
        capsys.readouterr().err
    )
    assert bins.bins_of(rows)[:, 1].tolist() == [0, 255, 0]
    bins.check_fit({"e0": rows[:1]})
    assert not capsys.readouterr().err


def test_fitted_ranges() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(200, 2)).astype(np.float32) for _ in range(5)]
    arrays[2][10] = 1000, 0
    flags = [np.column_stack([a, np.arange(200) == 199]).astype(np.float32) for a in arrays]
    extremes, quantiles = fit_ranges(flags), fit_ranges(flags, "quantile")
    assert extremes.high[0] == 1000
    assert extremes.outside(np.concatenate(flags)).max() == 0
    assert 2 < quantiles.high[0] < 3
    assert (quantiles.low[2], quantiles.high[2]) == (0, 1)  # a rare flag keeps its extremes
    assert quantiles.outside(np.concatenate(flags)).max() <= 0.02


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ([], "got none"),
        ([np.zeros((3, 2)), np.zeros((3, 4))], r"\[3, 2\], \[3, 4\]"),
        ([np.array([[0.0, np.inf]])], "field 1 has inf"),
    ],
)
def test_data_without_ranges_is_refused(arrays: list[np.ndarray], why: str) -> None:
    with pytest.raises(InputError, match=why):
        fit_ranges(arrays)


@pytest.mark.parametrize(
    "data", [None, {}, {"low": [0], "high": ["x"], "bins": 4}, {"low": [1], "high": [0], "bins": 4}]
)
def test_stored_ranges_that_are_broken_are_refused(data: object) -> None:
    with pytest.raises(InputError, match="ranges"):
        ActionBins.from_json(data, "model/config.json")
