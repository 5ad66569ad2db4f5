"""From the slices of a study to one answer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medray.systems.ich.classes import CLASSES, PROBABILITIES


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over each slice and its two neighbours; at an end of the stack over the slices that exist.

    Args:
        values: (slices, classes) in stack order.
    Returns:
        (slices, classes)
    """
    total = values.copy()
    count = np.ones((len(values), 1))
    total[1:] += values[:-1]
    count[1:] += 1
    total[:-1] += values[1:]
    count[:-1] += 1
    return total / count


def running_mean_maximum(probabilities: np.ndarray) -> np.ndarray:
    """Maximum of the 3-slice running mean.

    Args:
        probabilities: (slices, classes) in stack order, at least one slice.
    Returns:
        (classes,)
    """
    return running_mean(probabilities).max(axis=0)


def source_vote(probabilities: np.ndarray) -> np.ndarray:
    """The source's rule, kept for comparison and never the answer: it calls most bleeding studies negative.

    Slice predictions are rounded; ``any`` goes by majority, a tie counts as bleeding; among the slices that are
    positive the most frequent pattern (the first one seen, of equals) is the study's.

    Args:
        probabilities: (slices, 6), ``any`` last.
    Returns:
        (6,) 0 or 1.
    """
    rounded = (probabilities >= 0.5).astype(np.int64)
    positive = rounded[rounded[:, -1] == 1]
    if 2 * len(positive) < len(rounded):
        return np.zeros(rounded.shape[1], dtype=np.int64)
    patterns, first, counts = np.unique(positive, axis=0, return_index=True, return_counts=True)
    return patterns[np.lexsort((first, -counts))[0]]


def study_table(slices: pd.DataFrame) -> pd.DataFrame:
    """One row a study from predictions of all of its slices, labelled or not; in the order in which they first appear.

    Columns: study_id, patient_id, slices, score and score_<class> (maximum of the 3-slice running mean, over the
    study's stacks), maximum, mean (of ``any``), source_vote_<class>, label (``any`` of any slice; NaN where no slice
    is labelled) and, where slices have CLASSES, label_<class>, likewise; fold where they have one.
    """
    rows = []
    for study_id, unordered in slices.groupby("study_id", sort=False):
        study = unordered.sort_values(["stack_id", "index"])
        probabilities = study[list(PROBABILITIES)].to_numpy(dtype=np.float64)
        stacks = [study.iloc[places] for places in study.groupby("stack_id", sort=True).indices.values()]
        smooth = np.max(
            [running_mean_maximum(s[list(PROBABILITIES)].to_numpy(dtype=np.float64)) for s in stacks], axis=0
        )
        vote = source_vote(probabilities)
        rows.append(
            {
                "study_id": study_id,
                "patient_id": study["patient_id"].iloc[0],
                **({"fold": study["fold"].iloc[0]} if "fold" in study else {}),
                "slices": len(study),
                "score": smooth[-1],
                **{f"score_{name}": smooth[i] for i, name in enumerate(CLASSES)},
                "maximum": probabilities[:, -1].max(),
                "mean": probabilities[:, -1].mean(),
                **{f"source_vote_{name}": int(vote[i]) for i, name in enumerate(CLASSES)},
                "label": study["any"].max(),
                **{f"label_{name}": study[name].max() for name in CLASSES if name in study},
            }
        )
    return pd.DataFrame(rows)
