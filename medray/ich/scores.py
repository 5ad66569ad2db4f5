"""The challenge's score, and everything that metrics.json says of out-of-fold predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medray.ich.classes import CLASSES, PROBABILITIES, SCORE_WEIGHTS
from medray.metrics.binary import Ranking, log_losses
from medray.metrics.bootstrap import Statistic, interval_over_groups

SPECIFICITIES = (0.8, 0.9, 0.95)


def weighted_log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Six binary log losses a slice, weighted 1 1 1 1 1 2, divided by 7; the mean over slices.

    Args:
        probabilities, labels: (slices, 6) in the order of CLASSES, no NaN.
    """
    return float(np.mean(log_losses(probabilities, labels) @ np.array(SCORE_WEIGHTS)) / sum(SCORE_WEIGHTS))


def interval_text(figure: dict[str, float | None], digits: int) -> str:
    """A figure with its interval, for a terminal."""
    if figure["value"] is None:
        return "undefined: a class is absent"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.{digits}f}"
    return f"{figure['value']:.{digits}f}  (95% {figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def slice_metrics(outputs: pd.DataFrame) -> dict[str, float]:
    """Figures of a table of outputs, one row a slice: PROBABILITIES, CLASSES; unlabelled rows do not count."""
    labelled = outputs.dropna(subset=list(CLASSES))
    probabilities, labels = labelled[list(PROBABILITIES)].to_numpy(), labelled[list(CLASSES)].to_numpy()
    return {
        "weighted_log_loss": weighted_log_loss(probabilities, labels),
        "auc_any": Ranking(probabilities[:, -1], labels[:, -1]).auc(),
    }


def score(oof: pd.DataFrame, studies: pd.DataFrame, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The content of metrics.json.

    Args:
        oof: one row a labelled slice: patient_id, PROBABILITIES, CLASSES.
        studies: one row a study: patient_id, score, label (NaN where unlabelled).
        samples: of the bootstrap over patients.
    """
    probabilities, labels = oof[list(PROBABILITIES)].to_numpy(), oof[list(CLASSES)].to_numpy(dtype=np.float64)
    losses = log_losses(probabilities, labels)
    per_slice = losses @ np.array(SCORE_WEIGHTS) / sum(SCORE_WEIGHTS)
    statistics: dict[str, Statistic] = {"weighted_log_loss": mean_of(per_slice)}
    for i, name in enumerate(CLASSES):
        of_class = class_statistics(probabilities[:, i], labels[:, i])
        statistics |= {f"{kind}/{name}": statistic for kind, statistic in of_class.items()}
    flat = interval_over_groups(statistics, oof["patient_id"].to_numpy(), samples, seed)
    out: dict[str, Any] = {"weighted_log_loss": flat["weighted_log_loss"]}
    for key in ("auc", "average_precision", "log_loss"):
        out[key] = {name: flat[f"{key}/{name}"] for name in CLASSES}
    out["counts"] = {
        "slices": len(oof),
        "studies": int(studies["study_id"].nunique()),
        "patients": int(oof["patient_id"].nunique()),
        "positive_slices": {name: int(labels[:, i].sum()) for i, name in enumerate(CLASSES)},
        "mean_probability": {name: float(probabilities[:, i].mean()) for i, name in enumerate(CLASSES)},
        "observed_rate": {name: float(labels[:, i].mean()) for i, name in enumerate(CLASSES)},
    }
    out["study"] = score_studies(studies, samples, seed)
    return out


def score_studies(studies: pd.DataFrame, samples: int, seed: int) -> dict[str, Any]:
    """AUC and sensitivity at given specificities of the study score, and the source's vote for comparison."""
    known = studies.dropna(subset=["label"])
    labels = known["label"].to_numpy(dtype=np.float64)
    patients = known["patient_id"].to_numpy()
    out: dict[str, Any] = {"studies": len(known), "positive": int(labels.sum())}
    rankings = {name: Ranking(known[name].to_numpy(), labels) for name in ("score", "maximum", "mean")}
    intervals = interval_over_groups({n: r.auc for n, r in rankings.items()}, patients, samples, seed)
    out["auc"] = intervals["score"]
    out["auc_of_maximum"], out["auc_of_mean"] = intervals["maximum"], intervals["mean"]
    out["sensitivity_at_specificity"] = sensitivities(rankings["score"])
    vote = known["source_vote_any"].to_numpy(dtype=np.float64)
    out["source_vote"] = {
        "sensitivity": _finite(vote[labels == 1].mean() if labels.any() else np.nan),
        "specificity": _finite(1 - vote[labels == 0].mean() if (labels == 0).any() else np.nan),
    }
    return out


def class_statistics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Statistic]:
    """What is said of one class, to be bootstrapped.

    Args:
        probabilities, labels: (rows,), no NaN.
    """
    ranking = Ranking(probabilities, labels)
    return {
        "auc": ranking.auc,
        "average_precision": ranking.average_precision,
        "log_loss": mean_of(log_losses(probabilities, labels)),
    }


def sensitivities(ranking: Ranking) -> dict[str, float | None]:
    """Specificity ("0.90") → the sensitivity there; None where a class is absent."""
    return {f"{s:.2f}": _finite(ranking.sensitivity_at(s)) for s in SPECIFICITIES}


def mean_of(values: np.ndarray) -> Statistic:
    """The weighted mean of (rows,) values."""
    return lambda weights: float(np.average(values, weights=weights)) if weights.any() else float("nan")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
