"""The external check: a finished run's predictions against somebody else's labels, which may be fewer.

Many sets say only whether a slice, or a whole study, bleeds. What such labels cannot tell is left undefined, and said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.binary import calibration_bins
from medray.metrics.intervals import Figure, auc, intervals, undefined
from medray.metrics.operating import decided
from medray.report.figures import line
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.labels import Level, label_ids, read_levelled
from medray.systems.ich.scores import (
    class_scores,
    count_patients,
    slice_losses,
    weighted_loss,
)
from medray.systems.ich.study import study_table


@dataclass(frozen=True)
class Truth:
    """Labels by slice or by study, of some of the classes."""

    level: Level
    classes: tuple[str, ...]  # in the order of CLASSES
    table: pd.DataFrame  # index slice or study id, a float64 column a class: 0, 1, or NaN where unknown
    notes: tuple[str, ...]  # what was wrong with the file


def read_truth(uri: str) -> Truth:
    """Read labels from a path or URI: the challenge's long CSV, of any of its classes, or a table by slice or study.

    Raises:
        ValueError: as ``read_levelled``.
    """
    level, labels, _ = read_levelled(uri)
    classes = tuple(name for name in CLASSES if labels.table[name].notna().any())
    table = labels.table[list(classes)].dropna(how="all")
    return Truth(level, classes, table, tuple(labels.notes(level)))


def bleeding_slices(truth: Truth, stems: Mapping[str, str]) -> pd.Series | None:
    """Slice id → 0, 1 or NaN of ``any``, for labels of slices that say it; else None.

    Args:
        stems: slice id → name of its file without ending, as in ``score_external``.
    """
    if truth.level != "slice" or "any" not in truth.classes:
        return None
    known, names = truth.table["any"], pd.Series(dict(stems), dtype=object)
    by_name = names.map(known).where(~names.duplicated(keep=False))
    return names.index.to_series().map(known).combine_first(by_name)


def score_external(
    slices: pd.DataFrame,
    truth: Truth,
    stems: Mapping[str, str] | None = None,
    samples: int = 1000,
    seed: int = 0,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Scores of predictions on an external set; can be written as JSON, with None for what is undefined.

    A study of which a slice was trained on is left out whole: its other slices show the same bleed.

    Args:
        slices: one row a predicted slice, labelled or not: slice_id, study_id, patient_id, stack_id, index,
            PROBABILITIES, and if known ``leaked`` (bool: its pixels were in the training data).
        truth: of slices or of studies.
        stems: slice id → name of its file without ending, by which labels of slices may call it instead.
        samples: draws of patients, see ``medray.metrics.intervals``.
        thresholds: of the study score, by the specificity that they were chosen for on the training data.
    Raises:
        ValueError: no id of the labels belongs to a predicted slice or study.
    """
    assert slices[list(PROBABILITIES)].notna().all(axis=None), "a slice without a prediction"
    # in an order of its own, so that neither sums nor the bootstrap depend on the order in which rows come
    order = ["patient_id", "study_id", "stack_id", "index", "slice_id"]
    table = slices.sort_values(order).reset_index(drop=True)
    known = truth.table.dropna(how="all")
    notes = list(truth.notes)
    ids = _label_ids(table, known, truth.level, stems or {}, notes)
    has_label = ids.isin(known.index)
    if not has_label.any():
        raise ValueError(_no_overlap(table, known, truth.level))

    leaked = pd.Series(False, index=table.index)
    if "leaked" in table:
        leaked = table["leaked"].astype(bool).groupby(table["study_id"]).transform("any")
    used = has_label & ~leaked
    labels = known.reindex(ids).set_axis(table.index)
    scored = table[used]
    if used.any() and scored["patient_id"].nunique() == 1:
        notes.append("all slices name one patient: there is no interval")
    if not used.any():
        notes.append("nothing is left to score: every labelled study holds a slice that was trained on")

    study_labels = labels[used].groupby(scored["study_id"]).max()
    if truth.level == "slice":
        notes += _partly_labelled(table[~leaked], labels[~leaked])
    else:
        notes.append("labels of studies: slices are not scored")
    whole = table[table["study_id"].isin(study_labels.index)]
    alike: dict[str, list[str]] = {}
    of_slices = _of_slices(scored, labels[used], samples, seed, notes, alike) if truth.level == "slice" else None
    of_studies = _of_studies(whole, study_labels, thresholds or {}, samples, seed, alike)
    if alike:
        listed = "; ".join(f"{things}: {', '.join(names)}" for things, names in alike.items())
        notes.append(f"no AUC where all labels are alike; {listed}")
    return {
        "level": truth.level,
        "classes": list(truth.classes),
        "counts": {
            "slices": len(scored),
            "studies": int(scored["study_id"].nunique()),
            "patients": int(scored["patient_id"].nunique()),
            "positive_slices": _positives(labels[used]) if truth.level == "slice" else None,
            "positive_studies": _positives(study_labels),
            "positive_patients": _positive_patients(scored, labels[used]),
            "labelled_ids_without_prediction": int((~known.index.isin(ids)).sum()),
            "slices_without_label": int((~has_label).sum()),
            "left_out_as_leaked": {
                "slices": int(leaked.sum()),
                "studies": int(table.loc[leaked, "study_id"].nunique()),
            },
        },
        "slice": of_slices,
        "study": of_studies,
        "notes": notes,
    }


def _label_ids(
    table: pd.DataFrame, known: pd.DataFrame, level: Level, stems: Mapping[str, str], notes: list[str]
) -> pd.Series:
    """By which id the labels know each slice (or its study)."""
    ids = table[f"{level}_id"].astype(str)
    if level == "study" or not stems:
        return ids
    ids, shared = label_ids(ids, ids.map(dict(stems)), known.index)
    if shared:
        notes.append(f"{shared} slices share a file name with another: labels under it are not used")
    return ids


def _no_overlap(table: pd.DataFrame, known: pd.DataFrame, level: Level) -> str:
    predicted = table[f"{level}_id"].nunique()
    if level == "slice":
        things, must = "slices", "they must be SOPInstanceUIDs or file names without .dcm"
        other = "study_id"
    else:
        things, must = "studies", "they must be StudyInstanceUIDs"
        other = "slice_id"
    if known.index.isin(table[other].astype(str)).any():
        must = f"they are ids of {'studies' if level == 'slice' else 'slices'}: name their column {other}"
    return f"--labels: none of its {len(known)} ids belongs to one of {predicted} predicted {things}; {must}"


def _partly_labelled(table: pd.DataFrame, labels: pd.DataFrame) -> list[str]:
    """A study is called negative by its labelled slices alone; say how many studies that concerns."""
    labelled = labels.notna().any(axis=1).groupby(table["study_id"])
    count = int((labelled.any() & ~labelled.all()).sum())
    return (
        [f"{counted(count, 'study')} with slices without a label: the others make the study's label"] if count else []
    )


def _positives(labels: pd.DataFrame) -> dict[str, int]:
    return {name: int(labels[name].eq(1).sum()) for name in labels}


def _positive_patients(scored: pd.DataFrame, labels: pd.DataFrame) -> dict[str, int]:
    patients = scored["patient_id"].to_numpy()
    return {name: count_patients(patients, labels[name].to_numpy()) for name in labels}


def _of_slices(
    scored: pd.DataFrame,
    labels: pd.DataFrame,
    samples: int,
    seed: int,
    notes: list[str],
    alike: dict[str, list[str]],
) -> dict[str, Any]:
    """``alike`` gets the classes whose labels have one value: "slices all 0" → names; so in ``_of_studies``."""
    out: dict[str, Any] = {"weighted_log_loss": _weighted(scored, labels, samples, seed, notes)}
    keys = ("auc", "average_precision", "log_loss", "observed_rate", "mean_probability", "calibration")
    out |= {key: {} for key in keys}
    for name in labels:
        p, y, patients = _known(scored, f"p_{name}", labels[name])
        if not len(y):
            figures = dict.fromkeys(("auc", "average_precision", "log_loss"), undefined("no label is known"))
        else:
            # each class over its own labelled slices: with all six known this draws the samples of scores.score
            figures = intervals(class_scores(p, y), patients, samples, seed)
            if y.min() == y.max():
                figures |= dict.fromkeys(("auc", "average_precision"), undefined(_alike(y)))
                alike.setdefault(f"slices all {int(y[0])}", []).append(name)
        for kind, figure in figures.items():
            out[kind][name] = figure
        out["observed_rate"][name] = float(y.mean()) if len(y) else None
        out["mean_probability"][name] = float(p.mean()) if len(y) else None
        out["calibration"][name] = [
            {"mean_probability": float(mean), "observed_rate": float(rate), "slices": int(members)}
            for mean, rate, members in calibration_bins(p, y)
        ]
    return out


def _weighted(scored: pd.DataFrame, labels: pd.DataFrame, samples: int, seed: int, notes: list[str]) -> Figure | None:
    missing = [name for name in CLASSES if name not in labels]
    if missing:
        notes.append(f"no weighted log loss: the labels do not say {', '.join(missing)}")
        return None
    partly = int((~labels.notna().all(axis=1)).sum())
    if partly:
        notes.append(
            f"weighted log loss: {counted(partly, 'slice')} of which some classes are unknown count by the others"
        )
    probabilities = scored[list(PROBABILITIES)].to_numpy(dtype=np.float64)
    of_classes = labels[list(CLASSES)].to_numpy()
    loss = weighted_loss(slice_losses(probabilities, of_classes), of_classes)
    return intervals({"loss": loss}, scored["patient_id"].to_numpy(), samples, seed)["loss"]


def _of_studies(
    slices: pd.DataFrame,
    labels: pd.DataFrame,
    thresholds: Mapping[str, float],
    samples: int,
    seed: int,
    alike: dict[str, list[str]],
) -> dict[str, Any]:
    """The study score of every slice of a study, against its label; it ranks and is no probability: no log loss."""
    out: dict[str, Any] = {"auc": {}, "auc_of_maximum": None, "auc_of_mean": None, "operating_points": {}}
    # the labels are given apart; study_table would make its own of the column
    studies = study_table(slices.assign(any=np.nan)) if len(slices) else pd.DataFrame()
    for name in labels:
        scores = {"auc": f"score_{name}"}
        if name == "any":
            scores |= {"auc_of_maximum": "maximum", "auc_of_mean": "mean"}
        of_class = labels[name].reindex(studies["study_id"]).set_axis(studies.index) if len(studies) else labels[name]
        y = of_class.dropna().to_numpy()
        if not len(y) or y.min() == y.max():
            reason = _alike(y) if len(y) else "no label is known"
            out["auc"][name] = undefined(reason)
            if len(y):
                alike.setdefault(f"studies all {int(y[0])}", []).append(name)
            continue
        known = {key: _known(studies, column, of_class) for key, column in scores.items()}
        patients = known["auc"][2]
        figures = intervals({key: auc(p, y) for key, (p, y, _) in known.items()}, patients, samples, seed)
        out["auc"][name] = figures.pop("auc")
        out |= figures
    if "any" in labels and len(studies):
        scored, y, patients = _known(
            studies, "score", labels["any"].reindex(studies["study_id"]).set_axis(studies.index)
        )
        out["operating_points"] = {
            aim: {"threshold": at} | decided((scored >= at).astype(float), y, patients)
            for aim, at in thresholds.items()
        }
    return out


def _known(table: pd.DataFrame, column: str, labels: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, labels and patients of the rows whose label is known."""
    rows = labels.notna()
    known = table[rows]
    return known[column].to_numpy(dtype=np.float64), labels[rows].to_numpy(), known["patient_id"].to_numpy()


def _alike(labels: np.ndarray) -> str:
    return f"no label is {'negative' if labels[0] else 'positive'}"


def counted(number: int, thing: str) -> str:
    """How many things, in words: "1 study", "2 slices"."""
    many = "studies" if thing == "study" else f"{thing}s"
    return f"{number} {thing if number == 1 else many}"


_WIDTH = max(len(f"AUC of studies {name}") for name in CLASSES) + 2


def _patients(counts: Mapping[str, Any], name: str) -> str:
    return counted(counts["positive_patients"][name], "patient")


def summary(scores: dict[str, Any]) -> list[str]:
    """The content of scores.json as lines for a terminal."""
    counts = scores["counts"]
    leaked = counts["left_out_as_leaked"]
    parts = (
        counted(counts["slices"], "slice"),
        counted(counts["studies"], "study"),
        counted(counts["patients"], "patient"),
    )
    lines = [f"scored: {' of '.join(parts)}"]
    if leaked["slices"]:
        left_out = f"{counted(leaked['slices'], 'slice')} of {counted(leaked['studies'], 'study')}"
        lines.append(f"left out, trained on: {left_out}")
    if counts["labelled_ids_without_prediction"]:
        lines.append(f"labelled ids without a prediction: {counts['labelled_ids_without_prediction']}")
    if counts["slices_without_label"]:
        lines.append(f"predicted slices without a label: {counts['slices_without_label']}")
    if scores["slice"] is not None:
        if scores["slice"]["weighted_log_loss"] is not None:
            lines.append(f"{'weighted log loss':<{_WIDTH}}{line(scores['slice']['weighted_log_loss'], 4)}")
        for name, figure in scores["slice"]["auc"].items():
            positive = f"{counted(counts['positive_slices'][name], 'slice')} of {_patients(counts, name)} positive"
            lines.append(f"{f'AUC {name}':<{_WIDTH}}{line(figure, 3)}  ({positive})")
    for name, figure in scores["study"]["auc"].items():
        positive = f"{counted(counts['positive_studies'][name], 'study')} of {_patients(counts, name)} positive"
        lines.append(f"{f'AUC of studies {name}':<{_WIDTH}}{line(figure, 3)}  ({positive})")
    for aim, point in scores["study"]["operating_points"].items():
        for kind in ("sensitivity", "specificity"):
            lines.append(f"{f'{kind}, aim {aim}':<{_WIDTH}}{line(point[kind], 3)}")
    return [*lines, *(f"note: {note}" for note in scores["notes"])]
