"""From the models' predictions to the run's answer: recalibration, the rungs of the ladder, the ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from medray.metrics.intervals import intervals
from medray.systems.ich.blend import Blend, Space, align, average, find_weights, nested
from medray.systems.ich.blend import Method as Find
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.ladder import Rung, mean_over_neighbours
from medray.systems.ich.recalibrate import Recalibration, fit_recalibration
from medray.systems.ich.scores import count_patients, slice_losses, weighted_log_loss, weighted_loss
from medray.systems.ich.task import SliceTask

LEAST_FOLDS, LEAST_POSITIVE_PATIENTS = 3, 200
"""For searched weights to be the answer. With two folds, or 160 patients of whom some bleed, they were worse than the plain average
on new patients, and looked better on held-out ones; with 640 they were better (four alike models, in the simulation of an outside
audit)."""
SEARCHED, DESCENDED, PLAIN = "searched weights, nested", "searched by descent, nested", "plain average"
"""Ways of blending, as metrics.json and the report name them."""
SEQUENCE = "{} sequence"
"""What the sequence stage of a backbone is called among the models of the ensemble."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """How the models' predictions become one."""

    blend: Literal["auto", "plain", "searched"] = "auto"
    """Which average of the models is the answer: the plain one, or one with weights that were searched on other folds. auto: the
    searched one with 3 folds or more and 200 patients with a bleed or more; with fewer, the search costs more than it finds."""
    blend_space: Space = "logit"
    """Average the models as logits or as probabilities."""
    blend_trials: int = 100
    """Trials of Optuna for the weights of the models."""


@dataclass(frozen=True)
class Predictions:
    """What one backbone says of the slices. Tables hold one row a slice: ids, PROBABILITIES, CLASSES (NaN where unknown)."""

    task: SliceTask
    plain: pd.DataFrame  # held-out slices, as they are, with "fold"
    inner: Mapping[int, pd.DataFrame]  # fold → patients that its network neither learned from nor is scored on
    views: Mapping[int, pd.DataFrame] = field(default_factory=dict)  # fold → every slice by its network, over the views
    sequence: pd.DataFrame | None = None  # held-out slices by the sequence stage, with "fold"

    def held_out_views(self) -> pd.DataFrame:
        """Each held-out slice by the network that has not seen its patient, averaged over the views."""
        parts = []
        for fold, held_out in self.plain.groupby("fold", sort=True):
            if fold not in self.views:
                raise ValueError(f"fold {fold}: its views are missing; run the job again to its end")
            every = self.views[fold].set_index("slice_id", drop=False)
            absent = held_out["slice_id"][~held_out["slice_id"].isin(every.index)]
            if len(absent):
                raise ValueError(f"fold {fold}: {len(absent)} held-out slices have no views, such as {absent.iloc[0]}")
            parts.append(every.loc[held_out["slice_id"]].assign(fold=fold))
        return pd.concat(parts, ignore_index=True)

    def recalibrated(self, views: bool) -> tuple[pd.DataFrame, dict[int, Recalibration]]:
        """Held-out predictions, recalibrated fold by fold on its inner patients where training saw other rates.

        Args:
            views: of the averages over the views, else of the plain slices.
        """
        table = self.held_out_views() if views else self.plain
        if not self.task.changes_rates:
            return table, {}
        fits, parts = {}, []
        for fold, part in table.groupby("fold", sort=False):
            if fold in self.inner:
                inner = self.inner[fold]
                if views:
                    inner = self.views[fold][self.views[fold]["slice_id"].isin(inner["slice_id"])]
                fits[fold] = fit_recalibration(inner, self.task.repeat_epidural, self.task.negatives)
                part = with_probabilities(part, fits[fold].apply(probabilities_of(part)))
            parts.append(part)
        return pd.concat(parts).loc[table.index], fits


@dataclass(frozen=True)
class Method:
    """The run's answer and how it came about."""

    final: pd.DataFrame  # held-out slices by the ensemble, with "fold"
    rungs: list[Rung]
    remedies: list[Rung]  # what was done about the rare class, step by step
    recalibrations: dict[str, dict[int, Recalibration]]  # model → fold → fit, of the averages over the views
    blend: Blend  # for new studies; searched weights are those of all held-out slices
    plain: str  # why the answer is the plain average; "" where its weights were searched
    weights: dict[str, dict[int, float]]  # model → fold → weight that was searched on the other folds
    comparison: dict[str, dict[str, Any]]
    """Way of blending, or model → weighted_log_loss of the held-out slices, and its change (a Figure, paired over patients) against
    the plain average."""
    tables: dict[str, pd.DataFrame]  # model → its held-out slices, with "fold"

    def description(
        self, models: Mapping[str, Predictions], views: dict[str, Any], places: Mapping[str, tuple[str, str]]
    ) -> dict[str, Any]:
        """method.json: what a prediction of new studies needs to know.

        Args:
            places: model → folders of its runs and of its sequence stage's.
        """
        members = {
            name: {
                "folds": sorted(int(f) for f in models[name].plain["fold"].unique()),
                "runs": places[name][0],
                "sequence": None if models[name].sequence is None else places[name][1],
                "recalibration": {str(f): fit.to_json() for f, fit in fits.items()},
            }
            for name, fits in self.recalibrations.items()
        }
        return {"models": members, "views": views, "blend": self.blend.to_json()}


def combine(
    models: Mapping[str, Predictions],
    ablations: Mapping[str, Predictions],
    how: Ensemble,
    seed: int = 0,
    views: Sequence[str] = (),
) -> Method:
    """Everything after the training: deterministic, from tables to tables.

    Args:
        models: those of the ensemble; the first one is followed up the ladder.
        ablations: the first model without its later steps, by the names of ``recipes.ladder``.
        views: names of those that were averaged.
    Raises:
        ValueError: predictions that are missing, repeated or no probabilities.
    """
    tables: dict[str, pd.DataFrame] = {}
    recalibrations = {}
    for name, model in models.items():
        try:
            tables[name], recalibrations[name] = model.recalibrated(views=True)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if model.sequence is not None:
            tables[SEQUENCE.format(name)] = model.sequence
    stacked, first = align(tables)
    labels, folds = first[list(CLASSES)].to_numpy(dtype=np.float64), first["fold"].to_numpy()
    searched, by_fold = nested(stacked, labels, folds, how.blend_space, "optuna", how.blend_trials, seed)
    ways = {
        SEARCHED: searched,
        DESCENDED: nested(stacked, labels, folds, how.blend_space, "scipy")[0],
        PLAIN: average(stacked, None, how.blend_space),
    }
    patients = first["patient_id"].to_numpy()
    why = _why_plain(how, len(np.unique(folds)), count_patients(patients, labels[:, CLASSES.index("any")]))
    final = with_probabilities(first, ways[PLAIN if why else SEARCHED])
    find: Find = "equal" if why else "optuna"
    every = find_weights(stacked, labels, how.blend_space, find, how.blend_trials, seed)
    lead, name = next(iter(models.values())), next(iter(models))
    return Method(
        final=final,
        rungs=_rungs(name, lead, ablations, tables[name], final, views, PLAIN if why else SEARCHED),
        remedies=_remedies(lead, ablations),
        recalibrations=recalibrations,
        blend=Blend(tuple(tables), tuple(every.tolist()), how.blend_space),
        weights={n: {fold: float(w[i]) for fold, w in by_fold.items()} for i, n in enumerate(tables)},
        plain=why,
        comparison=_compared(ways | dict(zip(tables, stacked, strict=True)), labels, patients),
        tables=tables,
    )


def _why_plain(how: Ensemble, folds: int, positive_patients: int) -> str:
    if how.blend != "auto":
        return "asked for (--blend plain)" if how.blend == "plain" else ""
    if folds < LEAST_FOLDS:
        return f"{folds} fold{'s' * (folds != 1)}, fewer than {LEAST_FOLDS}"
    if positive_patients < LEAST_POSITIVE_PATIENTS:
        return f"{positive_patients} patients with a bleed, fewer than {LEAST_POSITIVE_PATIENTS}"
    return ""


def _compared(ways: Mapping[str, np.ndarray], labels: np.ndarray, patients: np.ndarray) -> dict[str, dict[str, Any]]:
    losses = {name: slice_losses(one, labels) for name, one in ways.items()}
    changes = {name: weighted_loss(one - losses[PLAIN], labels) for name, one in losses.items() if name != PLAIN}
    found = intervals(changes, patients)
    return {
        name: {"weighted_log_loss": weighted_log_loss(one, labels), "change": found.get(name)}
        for name, one in ways.items()
    }


def _rungs(
    name: str,
    lead: Predictions,
    ablations: Mapping[str, Predictions],
    averaged: pd.DataFrame,
    final: pd.DataFrame,
    views: Sequence[str],
    weights: str,
) -> list[Rung]:
    rungs = []
    windows = len(lead.task.windows)
    many = "three neighbouring slices" if lead.task.neighbours else f"{windows} window{'s' * (windows > 1)}"
    if "single-window" in ablations and windows > 1:
        rungs.append(Rung("single window", f"{name} on {lead.task.windows[0]} alone", ablations["single-window"].plain))
    if "no-remedy" in ablations:
        rungs.append(Rung(many, "channels " + ", ".join(lead.task.windows), ablations["no-remedy"].plain))
        rungs += [
            Rung(title, adds, model.recalibrated(views=False)[0]) for title, adds, model in _later(lead, ablations)
        ]
    else:
        rungs.append(Rung(many, f"{name}, channels " + ", ".join(lead.task.windows), lead.recalibrated(views=False)[0]))
    if len(views) != 1:
        rungs.append(Rung("test-time augmentation", f"mean over the views {', '.join(views)}".strip(), averaged))
    rungs.append(Rung("mean over neighbours", "three slices of the stack", mean_over_neighbours(averaged)))
    if lead.sequence is not None:
        rungs.append(Rung("sequence", "BiLSTM over the stack's features", lead.sequence))
    rungs.append(Rung("ensemble", f"all models, {weights}", final))
    return rungs


def _later(lead: Predictions, ablations: Mapping[str, Predictions]) -> list[tuple[str, str, Predictions]]:
    """What the lead has that the bare network has not, step by step: title, what it adds, the network with it."""
    task, steps = lead.task, []
    if task.repeat_epidural > 1 or task.epidural_weight != 1:
        kept = ", recalibrated on a tenth of the patients, of whom it learns nothing and the step before did"
        adds = _remedy(task) + (kept if task.repeat_epidural > 1 else "")
        steps.append(("imbalance", adds, _remedied(lead, ablations)))
    if task.negatives < 1:
        part = "half" if task.negatives == 0.5 else f"{task.negatives:.0%}"
        adds = "each epoch sees that part of the slices without any bleed, recalibrated"
        steps.append((f"{part} of the negatives", adds, ablations.get("full-resolution", lead)))
    if task.early_size_px is not None:
        adds = f"{task.early_epochs} of {task.epochs} epochs at {task.early_size_px} px, then {task.size_px} px"
        steps.append(("low resolution first", adds, lead))
    return steps


def _remedied(lead: Predictions, ablations: Mapping[str, Predictions]) -> Predictions:
    """The lead with its remedies and without what makes it faster."""
    faster = [name for name in ("all-negatives", "full-resolution") if name in ablations]
    return ablations[faster[0]] if faster else lead


def _remedy(task: SliceTask) -> str:
    """What is done about the rare class, without what is turned off."""
    slices = f"epidural slices × {task.repeat_epidural}" if task.repeat_epidural > 1 else ""
    if task.epidural_weight == 1:
        return slices or "as the data is"
    return f"{slices + ', its loss' if slices else 'loss of epidural'} × {task.epidural_weight:g}"


def _remedies(lead: Predictions, ablations: Mapping[str, Predictions]) -> list[Rung]:
    steps = [
        ("repeat-only", "repetition"),
        ("", "repetition and column weight" if "repeat-only" in ablations else "remedies"),
    ]
    rungs = [Rung("no remedy", "as the data is", ablations["no-remedy"].plain)] if "no-remedy" in ablations else []
    for key, title in steps:
        model = _remedied(lead, ablations) if not key else ablations.get(key)
        if model is None:
            continue
        if model.task.repeat_epidural == 1 and model.task.epidural_weight == 1:
            rungs = rungs or [Rung("no remedy", "as the data is", model.plain)]
            continue
        rungs.append(Rung(title, _remedy(model.task), model.plain))
        if model.task.changes_rates:
            rungs.append(Rung(f"{title}, recalibrated", "on inner patients", model.recalibrated(views=False)[0]))
    return rungs


def probabilities_of(table: pd.DataFrame) -> np.ndarray:
    """(slices, 6)"""
    return table[list(PROBABILITIES)].to_numpy(dtype=np.float64)


def with_probabilities(table: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """The table with other probabilities; columns that it has not are added."""
    return table.assign(**dict(zip(PROBABILITIES, probabilities.T, strict=True)))
