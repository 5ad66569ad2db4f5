"""What the report says of the data and of the training: classes, windows, head mask, learning curves, files."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from medray.ich.classes import CLASSES
from medray.ich.report import charts
from medray.ich.report.pictures import Pictures
from medray.ich.report.words import listed, tile
from medray.page import Block, Gallery, Notice, Picture, Section, Table

_ROWS_SHOWN = 30


def classes(labels: pd.DataFrame) -> Section:
    """How often each class occurs, with which others, and in which fold; warns of a class without positives."""
    known = labels[labels[list(CLASSES)].notna().all(axis=1)]
    folds = sorted(f for f in labels["fold"].unique().tolist() if f >= 0)
    rows, warnings = [], []
    for name in CLASSES:
        positive = known[known[name] == 1]
        by_fold = positive["fold"].value_counts()
        row = {
            "class": name,
            "slices": len(positive),
            "of all": f"{len(positive) / max(1, len(known)):.2%}",
            "studies": positive["study_id"].nunique(),
            "patients": positive["patient_id"].nunique(),
        }
        rows.append(row | {f"fold {fold}": int(by_fold.get(fold, 0)) for fold in folds})
        empty = [fold for fold in folds if not by_fold.get(fold, 0)]
        if not len(positive):
            warnings.append(f"No slice is labelled {name}: nothing was learned of it, and its AUC is undefined.")
        elif empty:
            warnings.append(f"No {name} in fold {listed(empty)}: its AUC there is undefined.")
    total = {"class": "labelled in all", "slices": len(known), "of all": "100%", "studies": known["study_id"].nunique()}
    total |= {"patients": known["patient_id"].nunique()}
    total |= {f"fold {fold}": int((known["fold"] == fold).sum()) for fold in folds}
    text = f"{len(labels):,} slices went into the shards, {len(known):,} of them with all six labels."
    if len(known) == len(labels):
        text = f"{len(labels):,} slices went into the shards, all of them labelled."
    else:
        text += f" The other {len(labels) - len(known):,} are predicted but neither learned from nor scored."
    return Section(
        "Classes",
        text,
        more=(
            *(Notice(line) for line in warnings),
            Table(pd.DataFrame([*rows, total]), "Slices with each label. Folds hold whole patients."),
            Picture(charts.class_counts(known)),
        ),
    )


def windows(pictures: Pictures) -> Section:
    """One slice without a window and under each."""
    tiles = tuple(tile(shot, name, (reach,)) for name, reach, shot in pictures.windows)
    more: list[Block] = [Gallery(tiles, f"Slice {pictures.windows[0][2].slice_id}" if pictures.windows else "", 250)]
    if pictures.histogram is not None:
        more.append(Picture(charts.hounsfield_histogram(pictures.histogram, pictures.bounds_hu), "How often each value occurs within this slice's head, and the range that each window spreads over 256 grey values."))  # fmt: skip
    text = "One slice without a window, from its lowest to its highest value, then under each window of this run. Blood differs from brain by 20 to 50 HU: without a window it cannot be seen."
    return Section("One slice under each window", text, more=tuple(more))


def head_mask(pictures: Pictures) -> Section:
    """One series before and after the head mask."""
    shown = [one for one in pictures.series if one.index >= 0]
    tiles = tuple(
        tile(one.shot, f"{one.index}" if one.index >= 0 else "not read", (f"{one.removed:,} px removed",))
        for one in pictures.series
    )
    empty = sum(one.shot.image is not None and not one.head for one in pictures.series)
    caption = f"{len(shown)} slices spread over one series, from the feet up: the number is the slice's place in the stack. Removed pixels count above −500 HU. Grey values span −850 to 650 HU."
    if empty:
        caption += f" {empty} of them hold no head: everything goes."
    text = "Left, the slice as it is, with what the head mask removes in orange (table, head holder, tubes); right, what is left. Inside the head no value changes."
    return Section("Before and after the head mask", text, more=(Gallery(tiles, caption, 290),))


def learning(histories: dict[str, list[dict[str, Any]]]) -> Section:
    """Loss, AUC and learning rate of each run by epoch."""
    begun = {name: entries for name, entries in histories.items() if entries}
    if not begun:
        return Section("Learning curves", "No epoch has ended yet.")
    text = "The training loss is over augmented examples while the weights still move"
    if any(key.endswith("log_loss") for entries in begun.values() for entry in entries for key in entry["metrics"]):
        text += "; the solid line is the weighted log loss of whole slices after each epoch."
    else:
        text += ". No epoch was scored on other slices (--monitor none): predictions come from the last one."
    if any("held_out" in key for entries in begun.values() for key in entries[-1]["metrics"]):
        text += " The held-out curve is only drawn: nothing was chosen by it, predictions come from the last epoch."
    if any(key.startswith("inner") for entries in begun.values() for key in entries[-1]["metrics"]):
        text += " The epoch was chosen on an inner part of the training patients, never on the held-out ones."
    rows = [
        {"run": name, "epochs": entries[-1]["epoch"], "seconds": round(sum(e["system"].get("epoch_seconds", 0) for e in entries)),
         **{key.replace("_", " "): value for key, value in entries[-1]["metrics"].items() if key != "learning_rate"}}
        for name, entries in begun.items()
    ]  # fmt: skip
    table = Table(pd.DataFrame(rows), "After the last epoch.")
    return Section("Learning curves", text, charts.learning_curves(begun), more=(table,))


def files(inventory: pd.DataFrame) -> Section:
    """What became of every input file."""
    status = inventory["status"].value_counts()
    counts = pd.DataFrame({"status": status.index, "files or frames": status.to_numpy(), "share": [f"{n / len(inventory):.2%}" for n in status]})  # fmt: skip
    aside = inventory[inventory["status"] != "ok"]
    more: list[Block] = [Table(counts)]
    if aside.empty:
        return Section("Files set aside", "Every file was used.", more=tuple(more))
    reasons = aside.groupby(["status", aside["reason"].fillna("")]).size().sort_values(ascending=False, kind="stable")
    listed = reasons.head(_ROWS_SHOWN).rename("files or frames").reset_index()
    more.append(Table(listed, _rest("reasons", len(reasons))))
    first = aside[aside["status"] != "unlabelled"].head(_ROWS_SHOWN)
    if len(first):
        rows = pd.DataFrame(
            {
                "file": [PurePosixPath(path).name for path in first["path"]],  # folders may name a machine or a person
                "frame": [None if pd.isna(frame) else int(frame) for frame in first["frame"]],
                "slice": first["slice_id"].tolist(),
                "status": first["status"].tolist(),
                "reason": first["reason"].tolist(),
            }
        )
        total = int((aside["status"] != "unlabelled").sum())
        more.append(Table(rows, _rest("rows other than unlabelled ones", total)))
    text = f"{len(aside):,} of {len(inventory):,} are not plainly used: quarantined and duplicate ones are left out, repaired ones are used, unlabelled ones are only predicted."
    return Section("Files set aside", text, more=tuple(more))


def _rest(what: str, total: int) -> str:
    return f"The first {_ROWS_SHOWN} of {total:,} {what}." if total > _ROWS_SHOWN else f"All {total:,} {what}."


def settings(settings: dict[str, Any], models: Sequence[str] = (), folds: int | None = None) -> Section:
    """The settings of the run.

    Args:
        settings: of the first backbone's task, and what else was set.
        models: names of the models of the ensemble.
        folds: number of folds that the patients were split into.
    """
    rows = [(name, listed(value) if isinstance(value, list | tuple) else str(value)) for name, value in settings.items()]  # fmt: skip
    rows = ([] if folds is None else [("folds", str(folds))]) + rows
    rows += [(f"version of {name}", number) for name, number in versions().items()]
    text = ""
    if "backbone" in settings:
        text = f"The settings of the first backbone, {settings['backbone']}; further ones may differ."
        text += f" Models of the ensemble: {listed(models)}." if models else ""
    return Section("How it was made", text, table=pd.DataFrame(rows, columns=["setting", "value"]))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on; a package that is not installed is left out."""
    found = {"Python": platform.python_version()}
    for name in ("medray", "torch", "timm", "ray", "numpy", "pydicom"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
