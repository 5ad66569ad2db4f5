from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.labels import read_labels
from medray.systems.ich.study import running_mean_maximum, source_vote, study_table


def test_the_sources_worked_example() -> None:
    slices = [[0, 0, 0, 0, 0, 0]] * 5 + [[0, 0, 0, 0, 1, 1]] * 3 + [[0, 0, 1, 0, 1, 1]] * 2
    assert source_vote(np.array(slices, dtype=float)).tolist() == [0, 0, 0, 0, 1, 1]


def test_the_vote_without_a_tie_is_no_bleeding() -> None:
    slices = [[0, 0, 0, 0, 0, 0]] * 6 + [[0, 0, 0, 0, 1, 1]] * 5
    assert not source_vote(np.array(slices, dtype=float)).any()


def test_running_mean_by_hand() -> None:
    column = np.array([[0.9], [0.1], [0.2], [0.3], [0.4]])
    # means: (.9+.1)/2, (.9+.1+.2)/3, .2, .3, .35
    assert running_mean_maximum(column)[0] == pytest.approx(0.5)
    assert running_mean_maximum(np.array([[0.7]]))[0] == pytest.approx(0.7)


@pytest.mark.real_data
def test_with_the_true_labels_the_real_study_bleeds_and_the_vote_misses_it(head_ct_dir: Path) -> None:
    labels = read_labels(str(head_ct_dir / "stage_2_train.csv")).table
    table = labels.reset_index()
    for probability, name in zip(PROBABILITIES, CLASSES, strict=True):
        table[probability] = table[name]
    table = table.sort_values("any").assign(study_id="study", stack_id="series", patient_id="p", index=range(36))
    study = study_table(table).iloc[0]
    assert study["score"] == 1.0
    assert study["label"] == 1.0
    assert study["source_vote_any"] == 0  # 11 positive slices of 36
    assert study["slices"] == 36


def test_series_of_a_study_are_smoothed_apart() -> None:
    rows = [
        {
            "study_id": "t",
            "stack_id": series,
            "patient_id": "p",
            "index": i,
            **dict.fromkeys(PROBABILITIES, p),
            **dict.fromkeys(CLASSES, np.nan),
        }
        for series, values in {"a": [0.0, 0.9], "b": [0.9, 0.0]}.items()
        for i, p in enumerate(values)
    ]
    study = study_table(pd.DataFrame(rows)).iloc[0]
    assert study["score"] == pytest.approx(0.45)
    assert np.isnan(study["label"])
