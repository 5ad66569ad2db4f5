"""Probabilities that come true again after training saw the classes at other rates than they come."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit

from medray.metrics.binary import CLIP
from medray.systems.ich.blend import logits
from medray.systems.ich.classes import CLASSES, PROBABILITIES

REPEATED = "epidural"
"""The class whose positive slices training repeats."""

SLOPE_SD, BIAS_SD = 0.25, 1.0
"""Standard deviations of the normal priors around a slope of 1 and around the bias that theory gives."""

LEAST_OTHERS = 20
"""Inner patients with positives of a class that was not repeated, for a fit of its own."""

_LEAST_SLOPE = 0.05  # above 0, so that no class's ranking can turn round


@dataclass(frozen=True)
class Recalibration:
    """p' = sigmoid(slope · logit(p) + bias) for each class, and what it was fitted on.

    Every slope is above 0: the order of the slices, and with it AUC and average precision, stays.
    """

    slopes: tuple[float, ...]  # in the order of CLASSES, as biases and positives
    biases: tuple[float, ...]
    slices: int  # inner slices with a label
    patients: int  # of these slices: the number of independent things behind the fit
    positives: tuple[int, ...]
    repeats: int = 1  # of the repeated class in training: what the biases by theory follow from, together with
    negatives: float = 1.0  # the part of the slices without any bleed that an epoch saw

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """(n, 6) → (n, 6) float64, in the order of CLASSES."""
        # only what a logit cannot take is clipped here: the fit's wider bound would tie the smallest probabilities
        given = logit(np.clip(np.asarray(probabilities, dtype=np.float64), CLIP, 1 - CLIP))
        return expit(given * np.array(self.slopes) + np.array(self.biases))

    @property
    def theory(self) -> tuple[float, ...]:
        """The biases that the rates of training alone would give."""
        return biases_by_theory(self.repeats, self.negatives)

    def to_json(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Recalibration:
        return cls(
            slopes=tuple(float(v) for v in content["slopes"]),
            biases=tuple(float(v) for v in content["biases"]),
            slices=int(content["slices"]),
            patients=int(content["patients"]),
            positives=tuple(int(v) for v in content["positives"]),
            repeats=int(content.get("repeats", 1)),  # older files do not say
            negatives=float(content.get("negatives", 1.0)),
        )


def biases_by_theory(repeats: int, negatives: float) -> tuple[float, ...]:
    """Of each class, in log-odds: what takes the rates of training back (King and Zeng 2001, prior correction).

    A model that saw each positive slice r times learned the odds of a world with r times as many positives, so its
    log-odds are too high by log r; with a part q of the slices without any bleed, by -log q. That is exact for "any", and
    for another class on a slice that shows no other bleed, as nearly all slices do; on one that does it is too much.
    """
    return tuple(float(np.log(negatives)) - (float(np.log(repeats)) if name == REPEATED else 0.0) for name in CLASSES)


def fit_recalibration(inner: pd.DataFrame, repeats: int, negatives: float = 1.0) -> Recalibration:
    """Slope and bias of each class from slices that the model neither trained on nor will be scored on.

    The fit begins where ``biases_by_theory`` ends: Platt's sigmoid (1999) with normal priors, slope around 1 and bias
    around that of theory, found as the most probable pair. With many positives the data decides, with few the answer
    stays near theory. A class without a positive slice gets theory itself: negatives alone can only pull the bias down, and say
    nothing of how high the positives would stand. So does a class that was not repeated, of fewer than ``LEAST_OTHERS`` patients
    with positives: a fit would move more than training has (with 7 inner patients an outside audit saw mean by observed go from .96 to 1.48).

    Slices of one patient are no independent witnesses: a patient's n slices count as sqrt(n), between one and n. With
    two or three patients the priors then keep the upper hand; ``patients`` says how many there really were.

    Args:
        inner: predictions of slices: patient_id, PROBABILITIES, CLASSES; a class is fitted on the slices of which it is
            known.
        repeats: how often an epoch showed each slice of the repeated class; 1 is no repetition.
        negatives: part of the slices without any bleed that an epoch showed; 1 is all of them.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}: a slice is seen at least once")
    if not 0 < negatives <= 1:
        raise ValueError(f"negatives is {negatives}: above 0, and at most 1")
    known = inner.dropna(subset=list(CLASSES), how="all")
    given = logits(known[list(PROBABILITIES)].to_numpy(dtype=np.float64))
    if np.isnan(given).any():
        raise ValueError(f"{np.isnan(given).any(axis=1).sum()} of {len(known)} inner slices have no prediction")
    labels = known[list(CLASSES)].to_numpy(dtype=np.float64)
    fitted = []
    for i, centre in enumerate(biases_by_theory(repeats, negatives)):
        rows = ~np.isnan(labels[:, i])
        patients = known.loc[rows, "patient_id"]
        weights = 1 / np.sqrt(patients.map(patients.value_counts()).to_numpy(dtype=np.float64))
        positive = patients[labels[rows, i] == 1].nunique()
        enough = positive >= (1 if CLASSES[i] == REPEATED and repeats > 1 else LEAST_OTHERS)
        fitted.append(_most_probable(given[rows, i], labels[rows, i], weights, centre) if enough else (1.0, centre))
    return Recalibration(
        slopes=tuple(slope for slope, _ in fitted),
        biases=tuple(bias for _, bias in fitted),
        slices=len(known),
        patients=int(known["patient_id"].nunique()),
        positives=tuple(int(count) for count in (labels == 1).sum(axis=0)),
        repeats=repeats,
        negatives=negatives,
    )


def _most_probable(given: np.ndarray, labels: np.ndarray, weights: np.ndarray, bias0: float) -> tuple[float, float]:
    """Slope and bias with the highest posterior. The objective is strictly convex: there is one answer.

    Args:
        given: (n,) logits. labels: (n,) 0 or 1. weights: (n,) of the slices.
    """

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        slope, bias = at
        shifted = slope * given + bias
        off = np.array([(slope - 1) / SLOPE_SD, (bias - bias0) / BIAS_SD])
        error = weights * (expit(shifted) - labels)
        gradient = np.array([error @ given, error.sum()]) + off / np.array([SLOPE_SD, BIAS_SD])
        return float(weights @ (np.logaddexp(0, shifted) - labels * shifted) + off @ off / 2), gradient

    start, bounds = np.array([1.0, bias0]), [(_LEAST_SLOPE, None), (None, None)]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12})
    return float(found.x[0]), float(found.x[1])
