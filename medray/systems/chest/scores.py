"""Figures of a table of predictions: one row a film with patient_id, view, p_<target> and <target> (NaN: unknown)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.binary import Ranking, calibration_bins, log_losses
from medray.metrics.calibration import calibration_line
from medray.metrics.intervals import (
    Figure,
    Score,
    auc,
    average_precision,
    intervals,
    log_loss,
    mean_auc,
    specificity_at,
    undefined,
)
from medray.metrics.operating import decided
from medray.systems.chest.decisions import thresholds_f1

MIN_CLASS = 10
"""Fewer positives, or negatives, than these tell nothing of a ranking: no figure, but the reason."""
SENSITIVITY = 0.95
"""At which specificity is given: of a reader who picks the few abnormal films out of many, few may be missed."""


def film_metrics(outputs: pd.DataFrame, targets: Sequence[str]) -> dict[str, float]:
    """Mean log loss over the targets (lower is better), and mean AUC over those with a positive and a negative.

    A film counts where its label is known; a target without any does not count. NaN where nothing does.
    """
    losses, aucs = [], []
    for target in targets:
        probabilities, labels = _known(outputs, target)
        if len(labels):
            losses.append(float(log_losses(probabilities, labels).mean()))
            aucs.append(Ranking(probabilities, labels).auc())
    defined = [auc for auc in aucs if np.isfinite(auc)]
    return {
        "mean_log_loss": float(np.mean(losses)) if losses else float("nan"),
        "mean_auc": float(np.mean(defined)) if defined else float("nan"),
    }


def score(
    predictions: pd.DataFrame,
    targets: Sequence[str],
    thresholds: Mapping[str, float | None] | None = None,
    samples: int = 1000,
    seed: int = 0,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """All figures, over all films and by View Position ("by_view": AP films are taken at the bedside, of sicker patients).

    Args:
        predictions: with a column threshold_<target> where films have thresholds of their own, such as their fold's.
        thresholds: of ``thresholds(validation)``, never of the rows that are scored, for all films. Without it and without
            such columns decisions are left out.
        samples: draws of patients, see ``medray.metrics.intervals``.
        prevalence: at which predictive values are also given.
    Returns:
        films, patients, targets (by name: see ``score_target``), mean_auc (with "over", the targets it is the mean of),
        mean_log_loss, and by_view: view → the same without by_view.
    """
    if thresholds is not None:
        predictions = predictions.assign(**{f"threshold_{t}": _number(thresholds.get(t)) for t in targets})
    out = _score(predictions, targets, samples, seed, prevalence)
    views = predictions["view"].replace("", None).dropna()
    out["by_view"] = {
        str(view): _score(predictions[predictions["view"] == view], targets, samples, seed, prevalence)
        for view in sorted(views.unique())
    }
    return out


def thresholds(validation: pd.DataFrame, targets: Sequence[str]) -> dict[str, float | None]:
    """Target → the threshold of the highest F1 on these rows; None where they hold too few positives or negatives."""
    out: dict[str, float | None] = {}
    for target in targets:
        probabilities, labels = _known(validation, target)
        out[target] = None if too_few(labels) else thresholds_f1(probabilities, labels)
    return out


def too_few(labels: np.ndarray) -> str | None:
    """Why these labels, 0 or 1, are too few to rank; None where they are not."""
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    for count, name in ((positives, "positive"), (negatives, "negative")):
        if count < MIN_CLASS:
            return f"{count} {name} film{'s' * (count != 1)}, fewer than {MIN_CLASS}"
    return None


def _score(
    predictions: pd.DataFrame,
    targets: Sequence[str],
    samples: int,
    seed: int,
    prevalence: float | None,
) -> dict[str, Any]:
    usable = [t for t in targets if too_few(_known(predictions, t)[1]) is None]
    columns = {t: tuple(predictions[c].to_numpy(dtype=np.float64) for c in (f"p_{t}", t)) for t in usable}
    aucs = {t: auc(*of) for t, of in columns.items()}
    scores = {f"auc/{t}": one for t, one in aucs.items()}
    scores |= {f"average_precision/{t}": average_precision(*of) for t, of in columns.items()}
    scores |= {f"specificity_at_95_sensitivity/{t}": specificity_at(SENSITIVITY, *of) for t, of in columns.items()}
    if usable:
        scores["mean_auc"] = mean_auc(aucs)
    scores |= {
        f"log_loss/{t}": log_loss(*(predictions[c].to_numpy(dtype=np.float64) for c in (f"p_{t}", t))) for t in targets
    }
    scores["mean_log_loss"] = _mean_log_loss(predictions, targets)
    figures = intervals(scores, predictions["patient_id"].to_numpy(), samples, seed)
    out: dict[str, Any] = {
        "films": len(predictions),
        "patients": int(predictions["patient_id"].nunique()),
        "targets": {t: _score_target(predictions, t, figures, prevalence) for t in targets},
        "mean_auc": {**figures.get("mean_auc", undefined("no target has enough films")), "over": usable},
        "mean_log_loss": figures["mean_log_loss"],
    }
    return out


def _mean_log_loss(predictions: pd.DataFrame, targets: Sequence[str]) -> Score:
    """As ``film_metrics``: the mean over targets, each over the films of which it is known."""
    labels = predictions[list(targets)].to_numpy(dtype=np.float64)
    losses = log_losses(predictions[[f"p_{t}" for t in targets]].to_numpy(dtype=np.float64), labels)
    known = ~np.isnan(losses)
    used = known.any(axis=0)
    rows = known.any(axis=1)
    values, counted = np.where(known, losses, 0.0)[rows][:, used], known[rows][:, used].astype(np.float64)

    def statistic(weights: np.ndarray) -> float:
        films = weights @ counted
        return float(((weights @ values) / films).mean()) if len(films) and films.all() else float("nan")

    return Score(statistic, np.where(rows, np.nan_to_num(labels).max(axis=1, initial=0.0), np.nan), (1,))


_RANKED = ("auc", "average_precision", "specificity_at_95_sensitivity")


def _score_target(
    predictions: pd.DataFrame, target: str, figures: Mapping[str, Figure], prevalence: float | None
) -> dict[str, Any]:
    """One target: counts of films and of positive patients, auc, average_precision, specificity_at_95_sensitivity,
    log_loss, calibration, decisions (``medray.metrics.operating.decided``, and the mean threshold).
    """
    probabilities, labels = _known(predictions, target)
    reason = too_few(labels)
    out: dict[str, Any] = {"positives": int((labels == 1).sum()), "negatives": int((labels == 0).sum())}
    out["positive_patients"] = int(predictions.loc[predictions[target] == 1, "patient_id"].nunique())
    for kind in _RANKED:
        out[kind] = undefined(reason) if reason else figures[f"{kind}/{target}"]
    out["log_loss"] = figures[f"log_loss/{target}"]
    known = predictions[predictions[target].notna()]
    out["calibration"] = calibration(probabilities, labels) | calibration_line(
        probabilities, labels, known["patient_id"].to_numpy()
    )
    if f"threshold_{target}" in predictions:
        thresholds = known[f"threshold_{target}"].to_numpy(dtype=np.float64)
        missing = {"threshold": None, "reason": "no threshold: too few films of a class where it is chosen"}
        usable = len(thresholds) > 0 and not np.isnan(thresholds).any()
        out["decisions"] = missing
        if usable:
            answers = (probabilities >= thresholds).astype(np.float64)
            found = decided(answers, labels, known["patient_id"].to_numpy(), prevalence)
            out["decisions"] = {"threshold": float(np.mean(thresholds)), **found}
    return out


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """How probabilities compare with observed rates, in bins of equal count.

    Args:
        probabilities, labels: (films,), no NaN.
    Returns:
        expected_calibration_error: mean over the films of |mean probability - observed rate| of their bin (Naeini et al.
        2015, whose bins have equal widths: of a rare finding nearly all films would share one); bins: mean_probability,
        observed_rate and films of each.
    """
    if not len(labels):
        return {"expected_calibration_error": None, "bins": [], "reason": "no film with a known label"}
    table = calibration_bins(probabilities, labels, bins)
    error = np.average(np.abs(table[:, 0] - table[:, 1]), weights=table[:, 2])
    rows = [{"mean_probability": float(p), "observed_rate": float(r), "films": int(n)} for p, r, n in table]
    return {"expected_calibration_error": float(error), "bins": rows}


def _known(predictions: pd.DataFrame, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of the films whose label is known."""
    labels = predictions[target].to_numpy(dtype=np.float64)
    known = ~np.isnan(labels)
    return predictions[f"p_{target}"].to_numpy(dtype=np.float64)[known], labels[known]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
