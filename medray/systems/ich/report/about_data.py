"""What the report says of the data and of the training: classes, windows, head mask, learning curves, files."""

from __future__ import annotations

import pandas as pd

from medray.report.page import Block, Gallery, Notice, Picture, Section, Table
from medray.report.sections import listed
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.report import charts
from medray.systems.ich.report.pictures import Pictures
from medray.systems.ich.report.words import tile

_ROWS_SHOWN = 30


def classes(labels: pd.DataFrame) -> Section:
    """How often each class occurs, with which others, and in which fold; warns of a class without positives."""
    learned = labels[labels[list(CLASSES)].notna().any(axis=1)]
    counts = {name: int(learned[name].notna().sum()) for name in CLASSES}
    everywhere = min(counts.values()) == len(learned)
    folds = sorted(f for f in labels["fold"].unique().tolist() if f >= 0)
    rows, warnings = [], []
    for name in CLASSES:
        positive = learned[learned[name] == 1]
        by_fold = positive["fold"].value_counts()
        row = {
            "class": name,
            "slices": len(positive),
            "of known": f"{len(positive) / counts[name]:.2%}" if counts[name] else None,
            **({} if everywhere else {"known": counts[name]}),
            "studies": positive["study_id"].nunique(),
            "patients": positive["patient_id"].nunique(),
        }
        rows.append(row | {f"fold {fold}": int(by_fold.get(fold, 0)) for fold in folds})
        empty = [fold for fold in folds if not by_fold.get(fold, 0)]
        if not counts[name]:
            warnings.append(f"No slice has a label of {name}: nothing was learned of it, and it has no score.")
        elif not len(positive):
            warnings.append(f"No slice is labelled {name}: nothing was learned of it, and its AUC is undefined.")
        elif empty:
            warnings.append(f"No {name} in fold {listed(empty)}: its AUC there is undefined.")
    total = {"class": "labelled in all", "slices": len(learned), "studies": learned["study_id"].nunique()}
    total |= {"patients": learned["patient_id"].nunique()}
    total |= {f"fold {fold}": int((learned["fold"] == fold).sum()) for fold in folds}
    text = f"{len(labels):,} slices went into the shards, {len(learned):,} of them with a label."
    if len(learned) == len(labels):
        text = f"{len(labels):,} slices went into the shards, all of them labelled."
    else:
        text += f" The other {len(labels) - len(learned):,} are predicted but neither learned from nor scored."
    if not everywhere:
        part = int(learned[list(CLASSES)].isna().any(axis=1).sum())
        text += f" Of {part:,} some classes are unknown: these are left out of loss and scores, class by class."
    return Section(
        "Classes",
        text,
        more=(
            *(Notice(line) for line in warnings),
            Table(pd.DataFrame([*rows, total]), "Slices with each label. Folds hold whole patients."),
            Picture(charts.class_counts(learned)),
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
    caption = f"{len(shown)} slices spread over one stack, from the feet up: the number is the slice's place in the stack. Removed pixels count above −500 HU. Grey values span −850 to 650 HU."
    if empty:
        caption += f" {empty} of them hold no head: everything goes."
    text = "Left, the slice as it is, with what the head mask removes in orange (table, head holder, tubes); right, what is left. Inside the head no value changes."
    return Section("Before and after the head mask", text, more=(Gallery(tiles, caption, 290),))
