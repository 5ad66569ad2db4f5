from __future__ import annotations

import numpy as np
import pytest

from medray.metrics.bootstrap import interval_over_groups


def test_the_interval_of_a_mean_over_groups_is_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), 5)
    of_group = rng.normal(size=400)
    values = of_group[groups]  # fully dependent within a group
    mean = lambda w: float(np.average(values, weights=w))  # noqa: E731
    out = interval_over_groups({"mean": mean}, groups, samples=2000, seed=1)["mean"]
    half = 1.96 * of_group.std() / np.sqrt(400)  # not / sqrt(2000): slices of a patient are not independent
    assert out["low"] is not None
    assert out["high"] is not None
    assert out["value"] == pytest.approx(values.mean())
    assert (out["high"] - out["low"]) / 2 == pytest.approx(half, rel=0.1)


def test_it_is_the_same_for_the_same_seed_and_none_where_it_is_undefined() -> None:
    groups = np.arange(10)
    statistics = {"one": lambda w: float(w[0]), "never": lambda w: float("nan")}
    first = interval_over_groups(statistics, groups, 50, seed=3)
    assert first == interval_over_groups(statistics, groups, 50, seed=3)
    assert first["never"] == {"value": None, "low": None, "high": None}


def test_without_rows_there_is_no_figure() -> None:
    found = interval_over_groups(
        {"sum": lambda w: float(w.sum() / len(w)) if len(w) else float("nan")}, np.zeros(0), 5, 0
    )
    assert found == {"sum": {"value": None, "low": None, "high": None}}
