"""The report's sections, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medray.report.page import Block, Notice, Section
from medray.report.sections import files, learning
from medray.report.sections import settings as made
from medray.systems.ich.report import about_data, about_ladder, about_predictions
from medray.systems.ich.report.pictures import Pictures


def report_sections(
    metrics: dict[str, Any],
    oof: pd.DataFrame,
    studies: pd.DataFrame,
    histories: dict[str, list[dict[str, Any]]],
    inventory: pd.DataFrame,
    labels: pd.DataFrame,
    pictures: Pictures,
    settings: dict[str, Any] | None = None,
    phantom: bool = False,
    notes: Sequence[str] = (),
) -> list[Section]:
    """All sections of the page.

    Args:
        metrics: as metrics.json; any value may be None.
        oof: as oof.parquet. studies: as studies.parquet. inventory: as inventory.parquet.
        histories: run name → entries of its history.json.
        labels: one row a slice of the shards: patient_id, study_id, CLASSES (NaN where unlabelled), fold.
        pictures: from collect_pictures.
    """
    folds = sorted(oof["fold"].unique().tolist())
    of_folds = int(labels["fold"].nunique())
    top: list[Block] = [Notice(note) for note in notes]
    return [
        about_predictions.scores(metrics, folds, of_folds, phantom, top),
        *_method(metrics, phantom),
        about_data.classes(labels),
        about_data.windows(pictures),
        about_data.head_mask(pictures),
        learning(histories, "weighted log loss", "whole slices", "AUC of any"),
        about_predictions.curves(oof),
        about_predictions.calibration(metrics, oof),
        about_predictions.hardest(pictures, oof),
        about_predictions.examples(pictures, oof),
        about_predictions.studies(metrics, studies, oof),
        files(inventory, "slice_id"),
        *([made(settings, list(metrics.get("recalibration", {})), of_folds)] if settings else []),
    ]


def _method(metrics: dict[str, Any], phantom: bool) -> list[Section]:
    """What each step of the method added; nothing for metrics without a ladder."""
    if "ladder" not in metrics:
        return []
    sections = [about_ladder.ladder(metrics["ladder"], phantom=phantom)]
    if len(metrics["remedies"]) > 1:
        lead = next(iter(metrics["recalibration"].values()))
        fits = {f"fold {fold}": fit for fold, fit in lead.items()}
        sections.append(about_ladder.rare_class(metrics["remedies"], fits or None))
    ensemble = metrics["ensemble"]
    return [*sections, about_ladder.ensemble(ensemble["weights"], ensemble["comparison"], ensemble["plain"])]
