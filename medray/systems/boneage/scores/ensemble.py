"""The ages that several models read from a film → one age with its interval: by sex a weighted mean, a line, a width.

How weights, line and width are found, and how films are answered by what their own part has not fitted:
``ensemble_fit``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.blend import shares
from medray.systems.boneage.films.table import MOST_MONTHS

SEXES_OF = {"girls": ("girls", "both"), "boys": ("boys", "both"), "unknown": ("both",)}
"""Group of films → whose models answer it. A film of unknown sex is read by the models of both only."""
GROUP_OF = {"F": "girls", "M": "boys"}
"""Sex → group; any other sex is "unknown"."""
ABOUT = ("film_id", "patient_id", "sex", "age_months", "calendar_months", "fold")
"""Columns of a table of ages that are no model's."""


@dataclass(frozen=True)
class Member:
    """What a model's name says: "A-regression-girls"."""

    region: str
    head: str
    sexes: str  # girls, boys, both

    @staticmethod
    def of(name: str) -> Member:
        """Raises ValueError for a name that is no model's."""
        region, head, sexes = [*name.split("-", 2), "", ""][:3]
        if not region or not head or sexes not in SEXES_OF["girls"] + SEXES_OF["boys"]:
            raise ValueError(
                f"column {name}: no model's name; a table of ages has {', '.join(ABOUT)} and models such as "
                "A-regression-girls"
            )
        return Member(region, head, sexes)


def members_in(table: pd.DataFrame) -> dict[str, Member]:
    """The models of a table of ages, in the order of its columns. Raises ValueError for a column that is neither."""
    return {name: Member.of(name) for name in map(str, table.columns) if name not in ABOUT}


def groups_of(table: pd.DataFrame) -> np.ndarray:
    """(rows,) "girls", "boys" or "unknown", by the column sex."""
    return np.array(
        [GROUP_OF.get(sex, "unknown") if isinstance(sex, str) else "unknown" for sex in table["sex"]], dtype=object
    )


def predictions_of(table: pd.DataFrame, members: Sequence[str]) -> np.ndarray:
    """(members, rows) months; NaN where a model has not read the film, or has no column."""
    nothing = np.full(len(table), np.nan)
    every = [table[name].to_numpy(dtype=np.float64) if name in table else nothing for name in members]
    return np.stack(every) if every else np.zeros((0, len(table)))


def present_mean(predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean over the models that have read a film, their weights scaled to sum 1; a ``blend.Mean``.

    Where all of those have weight 0 it is their plain mean; NaN where no model has read it.

    Args:
        predictions: (models, rows), NaN where a model has not read. weights: (models,) 0 or more.
    """
    there = np.isfinite(predictions)
    weight = shares(weights, len(predictions))[:, None] * there if len(predictions) else np.zeros(predictions.shape)
    weight = np.where(weight.sum(axis=0) > 0, weight, there)
    total = weight.sum(axis=0)
    summed = (weight * np.where(there, predictions, 0)).sum(axis=0)
    return np.divide(summed, total, out=np.full(predictions.shape[1], np.nan), where=total > 0)


def as_ages(months: np.ndarray) -> np.ndarray:
    """What an answer may be: 0 to 240 months."""
    return np.asarray(np.clip(months, 0, MOST_MONTHS))


@dataclass(frozen=True)
class Group:
    """How the films of one group are answered."""

    members: tuple[str, ...]
    weights: tuple[float, ...]
    """Of the members; 0 or more, of sum 1."""
    intercept: float = 0.0
    slope: float = 1.0
    """true ≈ intercept + slope · ensemble, months."""
    half_width: float | None = None
    """Months: 95% of films lie this near to the answer. None where too few films say so."""
    films: int = 0
    """With a known age, by which all of this was fitted."""
    equal_share: float = 0.0
    """So much of the weights is equal (``medray.metrics.least_absolute.steady_weights``)."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """weights, correction, interval → why the weights are equal, why there is no line, why there is no width."""


@dataclass(frozen=True)
class Ensemble:
    """Group → how it is answered. ``identity`` is JSON, ``from_json`` the way back."""

    groups: Mapping[str, Group]
    correct: bool = True
    """The answer is the corrected age; else the weighted mean as it is."""

    @property
    def answer(self) -> str:
        """The column of ``of`` that is the answer: "corrected" or "ensemble". The interval is around it."""
        return "corrected" if self.correct else "ensemble"

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Answers for films that fitted nothing.

        Args:
            table: a column sex ("F", "M", else unknown), and one of months for each model; a model may lack, as a
                column or, NaN, in a row: the weights of the others are scaled up.
        Returns:
            Of the same index: group, ensemble, corrected, low, high (months). NaN where no model of the film's group
                has
            read it; low and high also where the group has no width.
        """
        found = pd.DataFrame(index=table.index, columns=["ensemble", "corrected", "low", "high"], dtype=np.float64)
        names = groups_of(table)
        for name, group in self.groups.items():
            own = names == name
            plain = present_mean(predictions_of(table[own], group.members), np.array(group.weights))
            corrected = as_ages(group.intercept + group.slope * plain)
            plain = as_ages(plain)
            answer = corrected if self.correct else plain
            half = np.nan if group.half_width is None else group.half_width
            low, high = (as_ages(answer + side * half) for side in (-1, 1))
            found.loc[own] = np.column_stack([plain, corrected, low, high])
        found.insert(0, "group", names)
        return found

    def identity(self) -> dict[str, Any]:
        """As method.json has it."""
        return {"correct": self.correct, "groups": {name: asdict(group) for name, group in self.groups.items()}}

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> Ensemble:
        """The way back from ``identity``. Raises ValueError where a weight lacks, or is below 0."""
        groups = {}
        for name, of in told["groups"].items():
            group = Group(**of | {"members": tuple(of["members"]), "weights": tuple(of["weights"])})
            if group.members:
                shares(group.weights, len(group.members))
            groups[name] = group
        return Ensemble(groups, bool(told["correct"]))
