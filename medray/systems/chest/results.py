"""Predictions of finished runs → oof.parquet, thresholds, metrics.json; and what a search looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from medray.report.figures import line
from medray.report.sections import listed
from medray.shards.store import Store
from medray.systems.chest.readers import agreement
from medray.systems.chest.scores import film_metrics, score, thresholds
from medray.systems.chest.task import FilmTask

OBJECTIVES: dict[str, Literal["min", "max"]] = {"mean_log_loss": "min", "mean_auc": "max"}
"""Figure of ``score_folds`` → where better lies."""


def score_folds(task: FilmTask, folds: Sequence[tuple[pd.DataFrame, pd.DataFrame | None]]) -> dict[str, float]:
    """``film_metrics`` of the held-out films of one or more folds, pooled."""
    return film_metrics(pd.concat([held_out for held_out, _ in folds], ignore_index=True), task.names)


def conclude(
    out: Store,
    task: FilmTask,
    predictions: pd.DataFrame,
    validation: pd.DataFrame | None,
    split: str,
    readers: Sequence[pd.DataFrame] = (),
    prevalence: float | None = None,
    searched: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """Score the held-out films, and write oof.parquet, metrics.json and method.json.

    Args:
        predictions: one row a held-out film, with its fold.
        validation: the inner films of each fold's run, with that fold: thresholds are chosen on them. None leaves
            decisions out.
        split: in words, which split a figure belongs to.
        readers: answers by image_id, of ``readers.on_films``.
        prevalence: at which predictive values are also given.
        searched: search → the folds that it has chosen by.
    Returns:
        The content of metrics.json: "split", "thresholds" (fold → target → value), what ``score`` gives, and "agreement"
        (see ``readers.agreement``; empty without readers).
    """
    chosen, predictions = None, predictions.copy()
    if validation is not None:
        chosen = {int(fold): thresholds(of_run, task.names) for fold, of_run in validation.groupby("fold")}  # type: ignore[call-overload]
        for target in task.names:
            of_fold = {fold: values[target] for fold, values in chosen.items()}
            predictions[f"threshold_{target}"] = predictions["fold"].map(of_fold).astype(float)
    metrics = {"split": split, "thresholds": chosen} | score(predictions, task.names, prevalence=prevalence)
    if used := {fold for folds in (searched or {}).values() for fold in folds}:
        rest = predictions[~predictions["fold"].isin(used)]
        found = score(rest, task.names) if len(rest) else {}
        kept = {name: found[name] for name in ("mean_auc", "mean_log_loss", "films") if name in found}
        metrics["without_searched_folds"] = {"folds": sorted(used), "searches": sorted(searched or {})} | kept
    metrics["agreement"] = agreement(predictions, task.names, readers) if readers else []
    out.write_table("oof.parquet", pa.Table.from_pandas(predictions, preserve_index=False))
    out.write_json("metrics.json", metrics)
    folds = sorted(int(fold) for fold in predictions["fold"].unique())
    name = out.uri.rstrip("/").rsplit("/", 1)[-1]
    description = {"task": task.identity(), "runs": name, "folds": folds, "split": split, "thresholds": chosen}
    out.write_json("method.json", description)
    return metrics


def summary(metrics: dict[str, Any]) -> list[str]:
    """The figures of metrics.json as lines for a terminal."""
    lines = [f"{metrics['films']:,} held-out films of {metrics['patients']:,} patients; split: {metrics['split']}"]
    lines += [
        f"mean AUC                {line(metrics['mean_auc'], 3)}  over {len(metrics['mean_auc']['over'])} targets"
    ]
    if rest := metrics.get("without_searched_folds"):
        without = f"without fold {listed(rest['folds'])}, by which a search has chosen"
        lines.append(f"{without}: {line(rest['mean_auc'], 3)}" if "films" in rest else f"{without}: no fold is left")
    for name, of_target in metrics["targets"].items():
        positive = f"{of_target['positives']:,} films of {of_target['positive_patients']:,} patients positive"
        lines.append(f"AUC {name:<20}{line(of_target['auc'], 3)}  ({positive})")
    for pair in metrics["agreement"]:
        said = (f"{name} {kappa_text(found)}" for name, found in pair["targets"].items())
        lines.append(f"kappa {' – '.join(pair['between'])}: {', '.join(said)}")
    return lines


def kappa_text(found: dict[str, Any]) -> str:
    """ ".612 (120 films)", or why there is none."""
    return (
        f"undefined: {found['reason']}"
        if found["kappa"] is None
        else f"{line(found['figure'], 3)} ({found['films']:,} films)"
    )


def flat(metrics: dict[str, Any]) -> dict[str, float]:
    """The values of metrics.json under names like "oof/auc/Mass", for MLflow."""
    out = {"oof/mean_auc": metrics["mean_auc"]["value"], "oof/mean_log_loss": metrics["mean_log_loss"]["value"]}
    for name, of_target in metrics["targets"].items():
        out |= {f"oof/{kind}/{name}": of_target[kind]["value"] for kind in ("auc", "average_precision")}
    for pair in metrics["agreement"]:
        between = "-".join(pair["between"]).replace(" ", "")
        out |= {f"oof/kappa/{between}/{name}": found["kappa"] for name, found in pair["targets"].items()}
    return {name: value for name, value in out.items() if value is not None}
