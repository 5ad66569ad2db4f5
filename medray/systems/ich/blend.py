"""One answer from several models: a weighted average, with weights that never saw what they are scored on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit

from medray.metrics import blend
from medray.metrics.binary import CLIP as SCORE_CLIP
from medray.systems.ich.classes import CLASSES, PROBABILITIES, SCORE_WEIGHTS

Space = Literal["logit", "probability"]
Method = Literal["optuna", "scipy", "equal"]

CLIP = 1e-6
"""Probabilities are clipped to [CLIP, 1 - CLIP] before a logit. A saturated output of 0 would have the logit of minus
infinity and outvote every other model; at 1e-6 it counts 13.8, and a slice that is right loses a millionth of a nat."""

_NAMED = 3  # ids in a message


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Clipped at CLIP, float64, same shape; NaN stays NaN."""
    return logit(np.clip(np.asarray(probabilities, dtype=np.float64), CLIP, 1 - CLIP))


def average(probabilities: np.ndarray, weights: np.ndarray | None = None, space: Space = "logit") -> np.ndarray:
    """Weighted mean over models.

    In logit space it is the geometric mean of the odds: a model that is sure counts for more than one that shrugs.

    Args:
        probabilities: (models, n, 6).
        weights: (models,) 0 or more, scaled to sum 1; None weighs all alike.
    Returns:
        (n, 6) float64.
    """
    own = np.ones(len(probabilities)) if weights is None else weights
    if space == "probability":
        return blend.weighted_mean(probabilities, own)
    return expit(blend.weighted_mean(probabilities, own, logits))


@dataclass(frozen=True)
class Blend:
    """Weights by model name, for predictions of new slices."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    space: Space = "logit"

    def apply(self, tables: Mapping[str, np.ndarray]) -> np.ndarray:
        """Model name → (n, 6) probabilities, the same slices in the same order; gives (n, 6). Others are ignored."""
        missing = [name for name in self.names if name not in tables]
        if missing:
            there = ", ".join(tables) or "none"
            raise ValueError(f"a model of the ensemble has no predictions: {', '.join(missing)} (there are: {there})")
        return average(np.stack([tables[name] for name in self.names]), np.array(self.weights), self.space)

    def to_json(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Blend:
        return cls(tuple(content["names"]), tuple(float(w) for w in content["weights"]), content["space"])


# ---- tables --------------------------------------------------------------------------------------------------------


def align(tables: Mapping[str, pd.DataFrame]) -> tuple[np.ndarray, pd.DataFrame]:
    """The models' predictions of the same slices, one above the other.

    Args:
        tables: model name → one row a slice: slice_id, PROBABILITIES, and whatever else.
    Returns:
        (models, n, 6) float64 in the row order of the first table, and the first table without PROBABILITIES.
    Raises:
        ValueError: no table, repeated ids, slices that one table has and another lacks, a prediction that is no
            probability.
    """
    if not tables:
        raise ValueError("there is no model to blend")
    (first_name, first), *_ = tables.items()
    ids = pd.Index(first["slice_id"])
    aligned = []
    for name, table in tables.items():
        own = pd.Index(table["slice_id"])
        if own.has_duplicates:
            repeated = own[own.duplicated()].unique()
            raise ValueError(f"{name}: {len(repeated):,} slice ids occur more than once ({_few(repeated)})")
        places = own.get_indexer(ids)
        for lacking, beside, absent in (
            (name, first_name, ids[places < 0]),
            (first_name, name, own[ids.get_indexer(own) < 0]),
        ):
            if len(absent):
                raise ValueError(
                    f"a model's predictions are missing: {lacking} lacks {len(absent):,} of the slices of {beside} "
                    f"({_few(absent)})"
                )
        values = table[list(PROBABILITIES)].to_numpy(dtype=np.float64)
        wrong = ~((values >= 0) & (values <= 1)).all(axis=1)  # written so that NaN is wrong
        if wrong.any():
            raise ValueError(
                f"{name}: {wrong.sum():,} slices have predictions that are NaN or not between 0 and 1, "
                f"the first is {own[wrong.argmax()]}"
            )
        aligned.append(values[places])
    return np.stack(aligned), first.drop(columns=list(PROBABILITIES))


def _few(ids: pd.Index) -> str:
    return ", ".join(str(one) for one in ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")


# ---- weights -------------------------------------------------------------------------------------------------------


def find_weights(
    probabilities: np.ndarray,
    labels: np.ndarray,
    space: Space = "logit",
    method: Method = "optuna",
    trials: int = 100,
    seed: int = 0,
) -> np.ndarray:
    """Weights that minimise the challenge's weighted log loss on these slices; the same for the same arguments.

    "optuna" tries every single model and equal weights first and then searches, so it is never worse than the best of
    those on the slices it was fitted on. "scipy" goes down the gradient from equal weights; the loss is convex in the
    weights in both spaces, so it says what there was to find. "equal" looks at nothing.

    Args:
        probabilities: (models, n, 6). labels: (n, 6), NaN where unknown.
        trials: of optuna, with those that it begins with: at least models + 1 are made.
    Returns:
        (models,) 0 or more, summing to 1; equal where no label is known.
    """
    models = len(probabilities)
    if not models:
        raise ValueError("there is no model to blend")
    equal = np.full(models, 1 / models)
    known = ~np.isnan(np.asarray(labels, dtype=np.float64)).all(axis=1)
    if method == "equal" or models == 1 or not known.any():
        return equal
    loss = _Loss(probabilities[:, known], labels[known], space)
    if method == "scipy":
        return _descend(loss, models)
    return blend.search(loss, models, trials, seed)


def nested(
    probabilities: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    space: Space = "logit",
    method: Method = "optuna",
    trials: int = 100,
    seed: int = 0,
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Blend every fold with weights found on the other folds only, so that the blend can be scored on all of them.

    A single fold leaves nothing to find weights on: they are equal.

    Args:
        probabilities: (models, n, 6). labels: (n, 6), NaN where unlabelled. folds: (n,).
    Returns:
        (n, 6), and fold → (models,) weights.
    """
    # without another fold no row is left, and find_weights answers with equal weights
    return blend.nested(
        probabilities, labels, folds,
        find=lambda others, known: find_weights(others, known, space, method, trials, seed),
        mean=lambda own, weights: average(own, weights, space),
    )  # fmt: skip


class _Loss:
    """The challenge's weighted log loss of a blend, as a function of the weights; as ``scores.weighted_log_loss``.

    Every prediction is turned toward its label once: a logit changes sign where the label is 0, a probability becomes
    that of what was there. What remains of an evaluation is one product of weights and a matrix, and one function of
    it: 1.1 ms for 100,000 rows of 8 models on two cores of an EPYC with AVX-512 (.8 ms in probability space; with the
    gradient 9 and 1.6 ms), after 65 ms once. float32 moves the loss by about 1e-9.
    """

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray, space: Space) -> None:
        self.space = space
        rows = labels.shape[0]
        positive = np.asarray(labels) == 1
        self.toward = np.empty((len(probabilities), len(CLASSES) * rows), dtype=np.float32)
        for place, one in enumerate(probabilities):
            if space == "logit":
                given = logits(one)
                turned = np.where(positive, given, -given)
            else:
                turned = np.where(positive, one, 1 - np.asarray(one, dtype=np.float64))
            self.toward[place] = turned.T.ravel()  # class by class: numpy adds long runs pairwise, hence precisely
        self.share = np.array(SCORE_WEIGHTS) / sum(SCORE_WEIGHTS) / rows
        known = ~np.isnan(labels)
        # (6, rows) what an entry counts where a slice's other classes are unknown; None where all are known, which is
        # the rule: the product is half of an evaluation
        self.counts: np.ndarray | None = None
        if not known.all():
            of_slice = sum(SCORE_WEIGHTS) / (known @ np.array(SCORE_WEIGHTS))
            self.counts = (known * of_slice[:, None]).T.astype(np.float32)

    def __call__(self, weights: np.ndarray) -> float:
        """(models,) summing to 1 → mean over slices, in nats."""
        return self._mean(self._blended(weights))

    def with_gradient(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        blended = self._blended(weights)
        slope = -expit(-blended) if self.space == "logit" else -1 / np.maximum(blended, np.float32(SCORE_CLIP))
        by_class = self._counted(slope) * self.share[:, None].astype(np.float32)
        return self._mean(blended), (self.toward @ by_class.ravel()).astype(np.float64)

    def _blended(self, weights: np.ndarray) -> np.ndarray:
        return weights.astype(np.float32) @ self.toward

    def _mean(self, blend: np.ndarray) -> float:
        # exp cannot overflow: logits lie within ±13.8
        if self.space == "logit":
            losses = np.log1p(np.exp(-blend))
        else:
            losses = -np.log(np.maximum(blend, np.float32(SCORE_CLIP)))
        return float(self._counted(losses).sum(axis=1).astype(np.float64) @ self.share)

    def _counted(self, entries: np.ndarray) -> np.ndarray:
        by_class = entries.reshape(len(CLASSES), -1)
        return by_class if self.counts is None else by_class * self.counts


def _descend(loss: _Loss, models: int) -> np.ndarray:
    equal = np.full(models, 1 / models)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # steps a hair outside the bounds are clipped, and told of
        found = minimize(
            loss.with_gradient, equal, jac=True, method="SLSQP", bounds=[(0, 1)] * models,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}, options={"ftol": 1e-9},
        )  # fmt: skip
    # a descent that failed is no better than where it began, and a single model may be as good
    reached = [blend.shares(np.maximum(found.x, 0), models, zero_is_equal=True)] if np.isfinite(found.x).all() else []
    return min([*reached, equal, *np.eye(models)], key=loss)
