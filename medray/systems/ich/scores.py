"""The challenge's score, and everything that metrics.json says of out-of-fold predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.binary import Ranking, log_losses
from medray.metrics.calibration import calibration_line
from medray.metrics.intervals import Score, auc, average_precision, brier, intervals, log_loss, mean
from medray.metrics.net_benefit import decision_curve
from medray.metrics.operating import operating_points
from medray.systems.ich.classes import CLASSES, PROBABILITIES, SCORE_WEIGHTS


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


def slice_metrics(outputs: pd.DataFrame) -> dict[str, float]:
    """Figures of a table of outputs, one row a slice: PROBABILITIES, CLASSES; what is unknown (NaN) does not count."""
    probabilities, labels = outputs[list(PROBABILITIES)].to_numpy(), outputs[list(CLASSES)].to_numpy(dtype=np.float64)
    known = outputs.dropna(subset=["any"])
    return {
        "weighted_log_loss": weighted_log_loss(probabilities, labels),
        "auc_any": Ranking(known["p_any"].to_numpy(), known["any"].to_numpy()).auc(),
    }


def score(
    oof: pd.DataFrame, studies: pd.DataFrame, samples: int = 1000, seed: int = 0, prevalence: float | None = None
) -> dict[str, Any]:
    """The content of metrics.json.

    Args:
        oof: one row a slice that has a label: patient_id, PROBABILITIES, CLASSES (NaN where unknown). Figures of a class
            are over the slices of which it is known, and None where there is none.
        studies: one row a study, as ``study_table``, with fold; label is NaN where unlabelled.
        prevalence: at which predictive values of studies are also given.
        samples: draws of patients, see ``medray.metrics.intervals``.
    """
    probabilities, labels = oof[list(PROBABILITIES)].to_numpy(), oof[list(CLASSES)].to_numpy(dtype=np.float64)
    patients = oof["patient_id"].to_numpy()
    scores = {"weighted_log_loss": weighted_loss(slice_losses(probabilities, labels), labels)}
    known = ~np.isnan(labels)
    for i, name in enumerate(CLASSES):
        of_class = class_scores(probabilities[:, i], labels[:, i])
        scores |= {f"{kind}/{name}": one for kind, one in of_class.items()}
        scores[f"brier/{name}"] = brier(probabilities[:, i], labels[:, i])
    flat = intervals(scores, patients, samples, seed)
    out: dict[str, Any] = {"classes": classes_known(oof), "weighted_log_loss": flat["weighted_log_loss"]}
    for key in ("auc", "average_precision", "log_loss"):
        out[key] = {name: flat[f"{key}/{name}"] for name in CLASSES}
    out["counts"] = {
        "slices": len(oof),
        "studies": int(studies["study_id"].nunique()),
        "patients": int(oof["patient_id"].nunique()),
        "labelled_slices": {name: int(known[:, i].sum()) for i, name in enumerate(CLASSES)},
        "positive_slices": {name: int((labels[:, i] == 1).sum()) for i, name in enumerate(CLASSES)},
        "positive_patients": {name: count_patients(patients, labels[:, i]) for i, name in enumerate(CLASSES)},
        "mean_probability": {name: mean_or_none(probabilities[known[:, i], i]) for i, name in enumerate(CLASSES)},
        "observed_rate": {name: mean_or_none(labels[known[:, i], i]) for i, name in enumerate(CLASSES)},
    }
    out["without_positives"] = [
        name for i, name in enumerate(CLASSES) if known[:, i].any() and not (labels[:, i] == 1).any()
    ]
    out["brier"] = {name: flat[f"brier/{name}"] for name in CLASSES}
    out["calibration"] = {
        name: calibration_line(probabilities[:, i], labels[:, i], patients) for i, name in enumerate(CLASSES)
    }
    out["study"] = score_studies(studies, samples, seed, prevalence)
    return out


def score_studies(studies: pd.DataFrame, samples: int, seed: int, prevalence: float | None = None) -> dict[str, Any]:
    """Of the study score: AUC, average precision, calibration, Brier score, operating points whose thresholds come from other
    folds (``medray.metrics.operating``), the classes one by one; and the source's vote for comparison.

    Args:
        studies: as ``study_table``, with fold.
    """
    known = studies.dropna(subset=["label"])
    labels = known["label"].to_numpy(dtype=np.float64)
    patients, score_ = known["patient_id"].to_numpy(), known["score"].to_numpy(dtype=np.float64)
    out: dict[str, Any] = {"studies": len(known), "positive": int(labels.sum())}
    out["positive_patients"] = count_patients(patients, labels)
    scores = {name: auc(known[name].to_numpy(), labels) for name in ("score", "maximum", "mean")}
    scores |= {"average_precision": average_precision(score_, labels), "brier": brier(score_, labels)}
    found = intervals(scores, patients, samples, seed)
    out["auc"] = found["score"]
    out["auc_of_maximum"], out["auc_of_mean"] = found["maximum"], found["mean"]
    out |= {"average_precision": found["average_precision"], "brier": found["brier"]}
    out["calibration"] = calibration_line(score_, labels, patients)
    out["operating_points"] = operating_points(score_, labels, patients, known["fold"].to_numpy(), prevalence)
    out["net_benefit"] = [] if known.empty else decision_curve(score_, labels).to_dict("records")
    out["by_class"] = _study_classes(studies, samples, seed)
    out["by_fold"] = {
        str(fold): {"studies": len(own), "positive": int(own["label"].sum())}
        | intervals({"auc": auc(own["score"].to_numpy(), own["label"].to_numpy(float))}, own["patient_id"].to_numpy())
        for fold, own in known.groupby("fold")  # type: ignore[call-overload]
    }
    vote = known["source_vote_any"].to_numpy(dtype=np.float64)
    out["source_vote"] = {
        "sensitivity": _finite(vote[labels == 1].mean() if labels.any() else np.nan),
        "specificity": _finite(1 - vote[labels == 0].mean() if (labels == 0).any() else np.nan),
    }
    return out


def _study_classes(studies: pd.DataFrame, samples: int, seed: int) -> dict[str, Any]:
    """Class → positive studies and patients, AUC and average precision of the study's score of it."""
    patients, scores, counts = studies["patient_id"].to_numpy(), dict[str, Score](), {}
    for name in CLASSES:
        labels = studies[f"label_{name}"].to_numpy(dtype=np.float64)
        own = studies[f"score_{name}"].to_numpy(dtype=np.float64)
        scores |= {f"auc/{name}": auc(own, labels), f"average_precision/{name}": average_precision(own, labels)}
        counts[name] = {"positive": int((labels == 1).sum()), "positive_patients": count_patients(patients, labels)}
    found = intervals(scores, patients, samples, seed)
    return {
        name: of | {kind: found[f"{kind}/{name}"] for kind in ("auc", "average_precision")}
        for name, of in counts.items()
    }


def class_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Score]:
    """AUC, average precision and log loss of one class.

    Args:
        probabilities, labels: (rows,), labels NaN where unknown.
    """
    return {
        "auc": auc(probabilities, labels),
        "average_precision": average_precision(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
    }


def weighted_loss(losses: np.ndarray, labels: np.ndarray) -> Score:
    """The mean of (slices,) losses, or of differences, over (slices, 6) labels; NaN where none is known."""
    return mean(losses, np.nan_to_num(labels).max(axis=1))


def count_patients(patients: np.ndarray, labels: np.ndarray) -> int:
    """How many patients have a positive row."""
    return len(np.unique(patients[labels == 1]))


def mean_or_none(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
