"""Scores of a set of scans, by rows whose figures were worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medray.metrics.lesions import Rules
from medray.systems.lesion.masks import scores
from medray.systems.lesion.results import lesion_table
from medray.systems.lesion.scores import (
    MEANS,
    change_by_error,
    dice_by_class,
    isbi_figures,
    match_of,
    scan_table,
    score,
    summary,
)

SHAPE = (12, 12, 12)


def scan(name: str, patient: str, visit: str, truth: int | None, predicted: int, both: int, false: int = 0) -> dict:
    """A row of masks: one lesion of so many voxels of 1 mm³, of which the prediction has ``both``, more beside it, and
    ``false`` voxels elsewhere."""
    drawn, found = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    drawn.reshape(-1)[: truth or 0] = 1  # one row of voxels after another: connected
    if predicted:
        start = (truth or 0) - both
        found.reshape(-1)[start : start + predicted] = 1
    found[-1].reshape(-1)[:false] = 1
    row = scores(found, found * 200, None if truth is None else drawn, np.ones(3), Rules())
    return {
        "scan_id": name, "patient_id": patient, "visit": visit, "shape_DHW": list(SHAPE), "spacing_mm": [1.0] * 3,
        "threshold": 0.5,
    } | row  # fmt: skip


ROWS = [
    scan("a1", "a", "1", truth=100, predicted=80, both=60),
    scan("a2", "a", "2", truth=120, predicted=90, both=90, false=10),
    scan("b1", "b", "1", truth=0, predicted=0, both=0, false=5),
    scan("c1", "c", "1", truth=40, predicted=0, both=0),
]


def test_a_row_a_scan_by_hand() -> None:
    table = scan_table(pd.DataFrame([*ROWS, scan("d1", "d", "1", truth=None, predicted=0, both=0, false=7)]))
    table = table.set_index("scan_id")
    assert table["dice"].tolist()[:4] == [
        pytest.approx(120 / 180), pytest.approx(180 / 220), 0, 0,
    ]  # fmt: skip
    assert table["ppv"]["a2"] == pytest.approx(0.9)
    assert table["sensitivity"]["a1"] == pytest.approx(0.6)
    assert table["lesions"].tolist()[:4] == [1, 1, 0, 1]
    assert table["findings_true"].tolist()[:4] == [1, 1, 0, 0]
    assert table["findings_false"].tolist()[:4] == [0, 1, 1, 0]
    assert table["lesion_recall"].tolist()[:2] == [1, 1]
    assert np.isnan(table["lesion_recall"]["b1"])
    assert table["lesion_recall"]["c1"] == 0
    assert table["lesion_false_rate"].tolist()[:3] == [0, 0.5, 1]
    assert np.isnan(table["lesion_false_rate"]["c1"])
    assert table["lesion_f1"].tolist()[:4] == [1, pytest.approx(2 / 3), 0, 0]
    assert table["findings"]["d1"] == 1  # nobody has drawn: counted, not scored
    assert np.isnan(table["lesions"]["d1"])
    assert np.isnan(table["lesion_f1"]["d1"])


def test_the_isbi_score_by_hand() -> None:
    rows = ROWS[:2]
    found = isbi_figures(rows, [match_of(row) for row in rows])
    dice, ppv = (120 / 180 + 180 / 220) / 2, (60 / 80 + 90 / 100) / 2
    assert found["dice"] == pytest.approx(dice)
    assert found["predictive_value"] == pytest.approx(ppv)
    assert found["true_positive_rate"] == 1
    assert found["false_positive_rate"] == pytest.approx(0.25)
    assert found["correlation"] == pytest.approx(1)  # 100, 120 against 80, 100
    assert found["score"] == pytest.approx(dice / 8 + ppv / 8 + 0.75 / 4 + 1 / 4 + 1 / 4)


def test_a_scan_in_which_nothing_was_found_earns_nothing_of_the_isbi_score() -> None:
    found = isbi_figures(ROWS, [match_of(row) for row in ROWS])
    assert found["false_positive_rate"] == pytest.approx((0 + 0.5 + 1 + 1) / 4)
    assert found["true_positive_rate"] == pytest.approx(2 / 3)
    one = isbi_figures(ROWS[:1], [match_of(ROWS[0])])
    assert (one["correlation"], one["score"]) == (None, None)  # of one scan there is no correlation


def test_repeatability_by_hand() -> None:
    """Errors of a: -0.020, -0.020 mL → 0 apart; of d: +0.010, -0.020, +0.010 → 0.030 apart twice; of e's, nobody has drawn the
    one between."""
    rows = [*ROWS, *(
        scan(f"d{visit}", "d", visit, truth=100, predicted=n, both=min(n, 100)) for visit, n in (("11", 110), ("10", 80), ("9", 110))
    ), *(scan(f"e{visit}", "e", visit, truth=100, predicted=n, both=n) for visit, n in (("1", 10), ("3", 90)))]  # fmt: skip
    found = change_by_error(scan_table(pd.DataFrame(rows)))
    squares = (0.0 + 0.03**2 + 0.03**2) / 3
    assert found["ml"] == pytest.approx(1.959964 * np.sqrt(2) * np.sqrt(squares / 2))
    assert (found["pairs"], found["patients"]) == (3, 2)
    assert change_by_error(scan_table(pd.DataFrame(ROWS[2:]))) == {"ml": None, "pairs": 0, "patients": 0}


def test_several_classes_have_a_score_and_a_name_each() -> None:
    masks = pd.DataFrame([row | {"dice_by_class": own} for row, own in zip(ROWS, ([0.5, 1.0], [0.7, None], [None, None], [0.0, 0.4]), strict=True)])  # fmt: skip
    found = dice_by_class(masks, ("old", "new"))
    assert (found["old"]["value"], found["old"]["scans"]) == (pytest.approx(0.4), 3)
    assert (found["new"]["value"], found["new"]["scans"]) == (pytest.approx(0.7), 2)
    table = lesion_table(masks, ("old", "new"))
    assert set(table["class"]) == {"old"}
    assert "class" not in lesion_table(masks, ())


def test_everything_that_metrics_json_says() -> None:
    masks = pd.DataFrame(ROWS)
    metrics = score(masks, scan_table(masks))
    assert metrics["counts"] == {
        "scans": 4, "patients": 3, "lesions": 3, "found": 2, "findings": 4, "false": 2, "scans_without_lesion": 1,
        "scans_without_finding": 1,
    }  # fmt: skip
    assert set(metrics["means"]) == set(MEANS)
    assert metrics["means"]["dice"]["value"] == pytest.approx((120 / 180 + 180 / 220) / 4)
    assert metrics["means"]["lesion_recall"]["scans"] == 3
    off = np.array([-0.02, -0.02, 0.005, -0.04])
    assert metrics["volume"]["bias_ml"] == pytest.approx(off.mean())
    # three patients: no limits, no correlation, and no score that has one in it
    assert [metrics["volume"][name] for name in ("low_ml", "high_ml", "correlation")] == [None] * 3
    assert metrics["isbi"]["score"] is None
    more = pd.DataFrame([row | {"patient_id": f"{row['patient_id']}{i}"} for i in range(2) for row in ROWS])
    limits = score(more, scan_table(more))["volume"]
    assert limits["high_ml"] == pytest.approx(off.mean() + 1.959964 * np.tile(off, 2).std(ddof=1))
    assert limits["correlation"] is not None
    assert [(b["from_mm3"], b["lesions"], b["found"]) for b in metrics["recall_by_size"] if b["lesions"]] == [
        (30, 1, 0), (100, 2, 2),
    ]  # fmt: skip
    assert metrics["free_response"][-1]["recall"] == pytest.approx(2 / 3)
    text = "\n".join(summary(metrics))
    assert "4 held-out scans of 3 patients: 2 of 3 lesions found, 2 of 4 findings false" in text
