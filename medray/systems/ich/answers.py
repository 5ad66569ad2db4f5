"""What is left of the answers for new studies: tables, a submission, scores where labels are given, lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from medray.shards.folders import shards_store
from medray.shards.inventory import Inventory, set_aside
from medray.shards.leakage import seen_in_training, trained_on
from medray.shards.names import file_name
from medray.shards.store import Store
from medray.systems.ich.external import Truth, bleeding_slices, counted, score_external, summary
from medray.systems.ich.new_studies import Study, images_of, read_answers, submission
from medray.systems.ich.study import study_table

TRAINED_ON_PHANTOMS = "this run was trained on phantoms: its probabilities say nothing about patients"


@dataclass(frozen=True)
class StudySet:
    """New studies and what is known of them before any network has seen them."""

    inventory: Inventory
    truth: Truth | None
    uri: str  # of the files, for an error

    @property
    def slices(self) -> pd.DataFrame:
        """Whole stacks in order, study by study."""
        return self.inventory.rows.sort_values(["study_id", "stack_id", "index"])

    def studies(self) -> list[Study]:
        """In the order of their identifiers, numbered from 1."""
        groups = self.slices.groupby("study_id", sort=True)
        return [Study(i, rows.to_dict("records")) for i, (_, rows) in enumerate(groups, start=1)]

    @property
    def stems(self) -> dict[str, str]:
        """Slice id → the bare name of its file."""
        rows = self.inventory.rows
        return {slice_id: file_name(path) for slice_id, path in zip(rows["slice_id"], rows["path"], strict=True)}

    def bleeding(self) -> pd.Series | None:
        """Slice id → whether it bleeds, where the labels tell."""
        return None if self.truth is None else bleeding_slices(self.truth, self.stems)


def write_answers(
    to: Store,
    parts: Sequence[pa.Table],
    asked: StudySet,
    trained: AbstractSet[str],
    rates: Mapping[str, float | None],
    caution: str,
    thresholds: Mapping[str, float | None] | None = None,
) -> list[str]:
    """set_aside.csv, slices.csv, studies.csv, submission.csv and, with labels, scores.json; lines for a terminal, warnings
    with "! " before them.

    Args:
        trained: as ``shards.leakage.trained_on``.
        rates: class → how often it is positive in the training data, None where it had no label.
        caution: among the notes of the scores.
        thresholds: specificity that was aimed at ("0.90") → of the study score, from the held-out studies of the run: a column of
            yes and no each; None in an older run.
    Raises:
        ValueError: no slice could be decoded.
    """
    found, lost_slices = read_answers(parts)
    slices = asked.slices.set_index("slice_id")
    aside = set_aside(asked.inventory.table)
    lost = lost_slices.assign(path=lost_slices["slice_id"].map(slices["path"]), status="quarantined")[aside.columns]
    to.write_csv("set_aside.csv", pd.concat([aside, lost]), None)
    if found.empty:
        first = lost_slices["reason"].iloc[0]
        raise ValueError(
            f"{asked.uri}: no slice could be decoded; first reason: {first}; {to.uri}/set_aside.csv has all"
        )
    found["leaked"] = seen_in_training(found, trained)
    lines = []
    if found["leaked"].any():
        studies = found.loc[found["leaked"], "study_id"].nunique()
        lines.append(
            f"! leakage: {int(found['leaked'].sum())} slices of {studies} studies are pixel by pixel in the training data"
        )
    series = found["slice_id"].map(slices["series_id"])
    to.write_csv("slices.csv", found.assign(series_id=series).drop(columns=["pixels_hash"]), None)
    table = study_table(found.assign(any=float("nan"))).drop(columns=["label", "label_any"])
    at = {aim: threshold for aim, threshold in (thresholds or {}).items() if threshold is not None}
    answers = {f"bleeds_at_specificity_{aim}": (table["score"] >= one).astype(int) for aim, one in at.items()}
    to.write_csv("studies.csv", table.assign(**answers), None)
    ids, no_images = images_of(asked.inventory.table)
    if unlearned := [name for name, rate in rates.items() if rate is None]:
        lines.append(f"! this run had no label of {', '.join(unlearned)}: its probabilities of it say nothing")
    text, guessed = submission(ids, found, rates)
    to.write_bytes("submission.csv", text.encode())
    if guessed:
        lines.append(f"! submission.csv: {counted(guessed, 'image')} that were set aside got the training data's rates")
    if no_images:
        lines.append(f"! submission.csv: left out as not DICOM: {counted(no_images, 'file')}")
    lines.append(
        f"  {len(found)} slices → {to.uri}: slices.csv, studies.csv, submission.csv, montages; {len(aside) + len(lost)} set aside"
    )
    if asked.truth is not None:
        scores = score_external(found, asked.truth, asked.stems, thresholds=at)
        scores["notes"] = [*([caution] if caution else []), *scores["notes"]]
        to.write_json("scores.json", scores)
        lines += [f"  {line}" for line in summary(scores)]
    return lines


def training_slices(out: Store) -> set[str]:
    """Hashes of the pixels of every slice in the shards of a job; all folders of shards hold the same slices."""
    folders = shards_store(out).folders()
    return trained_on(shards_store(out, folders[0])) if folders else set()
