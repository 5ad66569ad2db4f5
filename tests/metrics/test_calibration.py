from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from medray.metrics.calibration import LEAST_CALIBRATION, calibration_line


def drawn(rng: np.random.Generator, patients: int, rows: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True logits, labels that follow from them, and the patient of each row; a patient's rows are alike."""
    of = np.repeat(np.arange(patients), rows)
    logits = -1.5 + rng.normal(0, 1.2, patients)[of] + rng.normal(0, 0.8, len(of))
    return logits, (rng.random(len(of)) < expit(logits)).astype(np.float64), of


def test_what_was_done_to_the_logits_is_found() -> None:
    logits, labels, of = drawn(np.random.default_rng(0), 20_000)
    found = calibration_line(expit(logits), labels, of)
    assert found["intercept"]["value"] == pytest.approx(0, abs=0.03)
    assert found["slope"]["value"] == pytest.approx(1, abs=0.03)
    too_sure = calibration_line(expit(2 * logits), labels, of)
    assert too_sure["slope"]["value"] == pytest.approx(0.5, abs=0.02)
    too_high = calibration_line(expit(logits + 0.7), labels, of)
    assert too_high["intercept"]["value"] == pytest.approx(-0.7, abs=0.03)
    assert too_high["slope"]["value"] == pytest.approx(1, abs=0.03)
    some = labels.copy()
    some[::5] = np.nan
    assert calibration_line(expit(logits), some, of)["slope"]["value"] == pytest.approx(1, abs=0.04)


def test_95_of_100_intervals_hold_the_truth() -> None:
    held: dict[str, list[bool]] = {"intercept": [], "slope": []}
    for seed in range(400):
        logits, labels, of = drawn(np.random.default_rng(seed), 40)
        for name, figure in calibration_line(expit(logits), labels, of).items():
            held[name].append(figure["low"] <= (name == "slope") <= figure["high"])
    assert all(0.915 <= np.mean(one) <= 0.985 for one in held.values()), {n: np.mean(o) for n, o in held.items()}


def test_where_there_is_none_the_reason_is_said() -> None:
    logits, labels, of = drawn(np.random.default_rng(0), 40)
    few = np.where(of < 3, labels, 0.0)
    found = calibration_line(expit(logits), few, of)
    assert (
        found["slope"]["reason"] == f"{len(np.unique(of[few == 1]))} positive patients, fewer than {LEAST_CALIBRATION}"
    )
    assert found["slope"]["value"] is not None
    for value, word in ((0.0, "positive"), (1.0, "negative")):
        none = calibration_line(expit(logits), np.full(len(of), value), of)
        assert none["intercept"] == {"value": None, "low": None, "high": None, "reason": f"no label is {word}"}
    parted = calibration_line(np.where(labels == 1, 0.9, 0.1), labels, of)
    assert parted["slope"]["value"] is None
