import numpy as np
import pytest

from rlvr_world.evaluation.intervals import bootstrap, correlation, t_interval, t_quantile, wilson


def test_wilson_by_hand() -> None:
    # p=0.8, n=10, z=1.96: (0.8 + 0.19207 -+ 1.96*sqrt(0.016 + 0.0096037)) / 1.38415 = 0.7167 -+ 0.2266
    interval = wilson(8, 10)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_wilson_at_the_ends_is_not_empty() -> None:
    none, every = wilson(0, 100), wilson(100, 100)
    assert (none.low, none.high) == pytest.approx((0, 0.0370), abs=1e-4)  # z²/(n+z²)
    assert (every.low, every.high) == pytest.approx((0.9630, 1), abs=1e-4)


def test_wilson_refuses_more_successes_than_rows() -> None:
    with pytest.raises(ValueError):
        wilson(3, 2)


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    interval = bootstrap(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03)
    assert bootstrap(values) == interval != bootstrap(values, seed=1)


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (10, 2.2281), (11, 2.2010), (30, 2.0423)],
)
def test_t_quantiles_of_the_printed_tables(freedom: int, expected: float) -> None:
    assert t_quantile(freedom) == pytest.approx(expected, abs=1e-4)


def test_t_interval_by_hand() -> None:
    # mean 2, standard deviation 1, three seeds: 4.3027 / sqrt(3) = 2.4841
    interval = t_interval([1.0, 2.0, 3.0])
    assert (interval.low, interval.high) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)


def test_a_handful_of_values_claims_nothing() -> None:
    assert t_interval([0.5]).low is None
    assert bootstrap([1.0] * 9).low is None
    assert bootstrap([1.0] * 10).low == 1


def test_worlds_of_unequal_size_stay_within_what_rows_can_be() -> None:
    worlds = np.array([f"game {w}" for w in range(20) for _ in range(1 + w)])
    certain = bootstrap(np.ones(len(worlds)), worlds)
    assert (certain.low, certain.high, certain.n) == (1, 1, 20), "all right is all right, whichever worlds are drawn"
    alike = np.array([float(w % 2) for w in range(20) for _ in range(1 + w)])
    wide, narrow = bootstrap(alike, worlds), bootstrap(alike)
    assert wide.mean == narrow.mean
    assert wide.low < narrow.low < narrow.high < wide.high <= 1, "rows of a world say the same thing again"


def test_a_correlation_is_numpys_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=40)
    second = first + rng.normal(size=40)
    found = correlation(first, second)
    assert found.mean == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    assert correlation(first, -2 * first).mean == pytest.approx(-1)
    assert correlation(first, np.ones(40)).mean == 0
    assert correlation(first[:2], second[:2]).low is None
