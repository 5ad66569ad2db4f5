"""Out-of-fold predictions → oof.parquet, studies.parquet, metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from medray.report.figures import line
from medray.report.sections import listed
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.ladder import ladder, rare_class
from medray.systems.ich.method import Method, Predictions, combine
from medray.systems.ich.pipeline import Pipeline, Stages, sequence_of
from medray.systems.ich.scores import score
from medray.systems.ich.study import study_table


def conclude(
    out: Store,
    planned: Stages,
    pipeline: Pipeline,
    predicted: Mapping[str, Predictions],
    places: Mapping[str, str],
    prevalence: float | None = None,
    searched: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """From the predictions of every model to the ensemble's scores: method.json and what ``write_results`` writes.

    Args:
        predicted: of the models and the lead's ablations, by their names in ``planned``.
        places: name of runs, as in ``planned.claims`` → their folder.
        prevalence: at which predictive values are also given.
        searched: search → the folds that it has chosen by.
    Returns:
        The content of metrics.json.
    """
    models = {name: predicted[name] for name in planned.models}
    method = combine(models, predicted, pipeline.ensemble, views=pipeline.views.views)
    where = {name: (places[name], places.get(sequence_of(name), "")) for name in models}
    metrics = write_results(out, method, prevalence, searched)
    points = {aim: point["threshold"] for aim, point in metrics["study"]["operating_points"].items()}
    description = method.description(predicted, pipeline.views.identity(), where)
    out.write_json("method.json", description | {"study_thresholds": points})
    return metrics


def write_results(
    out: Store, method: Method, prevalence: float | None = None, searched: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Any]:
    """Score the held-out slices, and write oof.parquet, studies.parquet, oof/<model>.parquet and metrics.json.

    Returns:
        The content of metrics.json.
    """
    predictions = method.final
    studies = study_table(predictions)
    labelled = predictions.dropna(subset=list(CLASSES), how="all")
    oof = labelled[["slice_id", "study_id", "patient_id", "stack_id", "index", "fold", *PROBABILITIES, *CLASSES]]
    metrics = score(oof, studies, prevalence=prevalence) | {
        "ladder": ladder(method.rungs),
        "remedies": rare_class(method.remedies),
        "recalibration": {
            name: {str(fold): fit.to_json() for fold, fit in fits.items()}
            for name, fits in method.recalibrations.items()
        },
        "ensemble": {
            "weights": {n: {str(fold): w for fold, w in of.items()} for n, of in method.weights.items()},
            "plain": method.plain,
            "comparison": method.comparison,
        },
    }
    if used := {fold for folds in (searched or {}).values() for fold in folds}:
        rest = [table[~table["fold"].isin(used)] for table in (oof, studies)]
        metrics["without_searched_folds"] = {"folds": sorted(used), "searches": sorted(searched or {})} | (
            _in_short(score(*rest)) if len(rest[0]) else {}
        )
    for name, table in method.tables.items():
        kept = table[["slice_id", "fold", *PROBABILITIES]]
        out.sub("oof").write_table(f"{name}.parquet", pa.Table.from_pandas(kept, preserve_index=False))
    table = pa.Table.from_pandas(oof, preserve_index=False)
    for name in CLASSES:  # null where unknown
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int8()))
    out.write_table("oof.parquet", table)
    out.write_table("studies.parquet", pa.Table.from_pandas(studies, preserve_index=False))
    out.write_json("metrics.json", metrics)
    return metrics


def _in_short(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "weighted_log_loss": metrics["weighted_log_loss"], "auc_any": metrics["auc"]["any"],
        "auc_studies": metrics["study"]["auc"], "slices": metrics["counts"]["slices"],
    }  # fmt: skip


def summary(metrics: dict[str, Any]) -> list[str]:
    """The figures of metrics.json as lines for a terminal."""
    lines = [f"weighted log loss  {line(metrics['weighted_log_loss'], 4)}"]
    if len(metrics["classes"]) < len(CLASSES):
        lines[0] += f"  of {len(metrics['classes'])} of {len(CLASSES)} classes: {', '.join(metrics['classes'])}"
    if rest := metrics.get("without_searched_folds"):
        without = f"without fold {listed(rest['folds'])}, by which a search has chosen"
        lines.append(
            f"{without}: {line(rest['weighted_log_loss'], 4)}" if "slices" in rest else f"{without}: no fold is left"
        )
    counts, study = metrics["counts"], metrics["study"]
    for name in CLASSES:
        positive = (
            f"{counts['positive_slices'][name]:,} slices of {counts['positive_patients'][name]:,} patients positive"
        )
        lines.append(f"AUC {name:<17}{line(metrics['auc'][name], 3)}  ({positive})")
    return [
        *lines,
        f"AUC of studies       {line(study['auc'], 3)}  ({study['positive']} of {study['studies']} bleed, of {study['positive_patients']} patients)",
    ]


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """The values of metrics.json under names like "auc/any", for MLflow."""
    out = {"weighted_log_loss": metrics["weighted_log_loss"]["value"], "study/auc": metrics["study"]["auc"]["value"]}
    for kind in ("auc", "average_precision", "log_loss"):
        out |= {f"{kind}/{name}": figure["value"] for name, figure in metrics[kind].items()}
    return {f"oof/{name}": value for name, value in out.items() if value is not None}
