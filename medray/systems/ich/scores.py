"""The challenge's score, and everything that metrics.json says of out-of-fold predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.binary import Ranking, log_losses
from medray.metrics.bootstrap import Statistic, interval_over_groups
from medray.systems.ich.classes import CLASSES, PROBABILITIES, SCORE_WEIGHTS

SPECIFICITIES = (0.8, 0.9, 0.95)


def slice_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(slices,) Six binary log losses, weighted 1 1 1 1 1 2, divided by 7.

    A class whose label is unknown leaves the sum with its weight; NaN where none is known.

    Args:
        probabilities: (slices, 6) in the order of CLASSES. labels: the same, 0, 1 or NaN.
    """
    losses, weights = log_losses(probabilities, labels), np.array(SCORE_WEIGHTS)
    known = ~np.isnan(losses)
    total = known @ weights
    return np.divide(np.where(known, losses, 0) @ weights, total, out=np.full(len(total), np.nan), where=total > 0)


def weighted_log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of ``slice_losses`` over the slices that have one; NaN without any."""
    losses = slice_losses(probabilities, labels)
    losses = losses[~np.isnan(losses)]
    return float(losses.mean()) if len(losses) else float("nan")


def classes_known(labels: pd.DataFrame) -> list[str]:
    """Those of CLASSES of which a label is known."""
    return [name for name in CLASSES if labels[name].notna().any()]


def interval_text(figure: dict[str, float | None], digits: int) -> str:
    """A figure with its interval, for a terminal."""
    if figure["value"] is None:
        return "undefined: no label, or labels of one kind"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.{digits}f}"
    return f"{figure['value']:.{digits}f}  (95% {figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def slice_metrics(outputs: pd.DataFrame) -> dict[str, float]:
    """Figures of a table of outputs, one row a slice: PROBABILITIES, CLASSES; what is unknown (NaN) does not count."""
    probabilities, labels = outputs[list(PROBABILITIES)].to_numpy(), outputs[list(CLASSES)].to_numpy(dtype=np.float64)
    known = outputs.dropna(subset=["any"])
    return {
        "weighted_log_loss": weighted_log_loss(probabilities, labels),
        "auc_any": Ranking(known["p_any"].to_numpy(), known["any"].to_numpy()).auc(),
    }


def score(oof: pd.DataFrame, studies: pd.DataFrame, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The content of metrics.json.

    Args:
        oof: one row a slice that has a label: patient_id, PROBABILITIES, CLASSES (NaN where unknown). Figures of a class
            are over the slices of which it is known, and None where there is none.
        studies: one row a study: patient_id, score, label (NaN where unlabelled).
        samples: of the bootstrap over patients.
    """
    probabilities, labels = oof[list(PROBABILITIES)].to_numpy(), oof[list(CLASSES)].to_numpy(dtype=np.float64)
    statistics: dict[str, Statistic] = {"weighted_log_loss": mean_of(slice_losses(probabilities, labels))}
    known = ~np.isnan(labels)
    for i, name in enumerate(CLASSES):
        of_class = class_statistics(probabilities[known[:, i], i], labels[known[:, i], i])
        statistics |= {f"{kind}/{name}": of_rows(known[:, i], statistic) for kind, statistic in of_class.items()}
    flat = interval_over_groups(statistics, oof["patient_id"].to_numpy(), samples, seed)
    out: dict[str, Any] = {"classes": classes_known(oof), "weighted_log_loss": flat["weighted_log_loss"]}
    for key in ("auc", "average_precision", "log_loss"):
        out[key] = {name: flat[f"{key}/{name}"] for name in CLASSES}
    out["counts"] = {
        "slices": len(oof),
        "studies": int(studies["study_id"].nunique()),
        "patients": int(oof["patient_id"].nunique()),
        "labelled_slices": {name: int(known[:, i].sum()) for i, name in enumerate(CLASSES)},
        "positive_slices": {name: int((labels[:, i] == 1).sum()) for i, name in enumerate(CLASSES)},
        "mean_probability": {name: mean_or_none(probabilities[known[:, i], i]) for i, name in enumerate(CLASSES)},
        "observed_rate": {name: mean_or_none(labels[known[:, i], i]) for i, name in enumerate(CLASSES)},
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


def of_rows(rows: np.ndarray, statistic: Statistic) -> Statistic:
    """A statistic of some (all rows,) bool of the rows, for weights of all."""
    return statistic if rows.all() else lambda weights: statistic(weights[rows])


def mean_or_none(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
