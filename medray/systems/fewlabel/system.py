"""Sources that label a few organs each, as the engine's jobs see them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from medray.shards.case_table import files_of
from medray.shards.leakage import PIXELS_HASH
from medray.systems.fewlabel import recipes
from medray.systems.fewlabel.inventory import assemble
from medray.systems.fewlabel.objective import OBJECTIVES, score_folds
from medray.systems.fewlabel.phantoms import DEMO
from medray.systems.fewlabel.source import MOST_ORGANS, FewLabelCT
from medray.systems.fewlabel.sources import FLAG, Sources, read_sources
from medray.tasks.system import SearchSetup, System
from medray.tasks.volume_rows import SCANS_PER_SHARD


def strata(index: pd.DataFrame) -> np.ndarray:
    """Folds have about as many scans of each source."""
    return np.unique(index["origin"].to_numpy(dtype=str), return_inverse=True)[1]


def fold_notes(index: pd.DataFrame) -> list[str]:
    """Sources that a fold has no scan of."""
    notes = []
    for origin, own in index.groupby("origin"):
        lost = sorted(set(index["fold"]) - set(own["fold"]))
        notes += [f"source {origin}: no scan is in fold {fold}" for fold in lost]
        if own["fold"].nunique() == 1 and (own["organs_labelled"] > 0).any():
            notes.append(
                f"source {origin}: all its scans are in fold {own['fold'].iloc[0]}, whose networks do not learn from it"
            )
    return notes


def source_for(source: FewLabelCT, task: Any, sources: str | None) -> FewLabelCT:
    """With the organs and origins of the table, or of the phantoms.

    Raises:
        ValueError: the table cannot be read, or names too many organs.
    """
    origins = DEMO.origins() if sources is None else read_sources(sources).origins
    organs = Sources(origins, ()).organs
    if len(organs) > MOST_ORGANS:
        raise ValueError(f"{FLAG}: {len(organs)} organs; at most {MOST_ORGANS}")
    return replace(source, organs=organs, origins=origins)


FEW_LABELS = System(
    title="Abdominal organs from partly labelled CT",
    purpose="A CT of the abdomen goes in; masks of organs come out, each learned from the sets in which it is labelled.",
    source=FewLabelCT(),
    read_labels=read_sources,
    assemble=assemble,
    columns=(
        "origin",
        "organs_labelled",
        "organs_ml",
        "affine",
        "visit",
        "spacing_mm",
        "shape_DHW",
        "body_hu",
        PIXELS_HASH,
    ),
    strata=strata,
    flags=(FLAG,),
    files_of=files_of,
    rows_per_shard=SCANS_PER_SHARD,
    about_flags=(
        "Table of sources (CSV: name, images, masks, organs, mapping), by path or URI. Where not given, phantoms are written and "
        "used.",
    ),
    source_for=source_for,
    fold_notes=fold_notes,
)

SEARCH = SearchSetup(
    job=("jobs/fewlabel_cv.py",),
    job_flags=("--recipe", "--name"),
    recipe=recipes.cotraining,
    reference=recipes.cotraining,
    backbones=("marginal",),
    space=("ramp=1..20", "mean-decay=0.9|0.99|0.999", "soft-weight=0.01..1:log", "dice-weight=0.1..2:log", "learning-rate=1e-4..1e-2:log"),
    objectives=OBJECTIVES,
    score=score_folds,
    options={"out": "out/fewlabel", "train_folds": (0,), "monitor": "none"},
)  # fmt: skip

PHANTOM_SEARCH = replace(
    SEARCH,
    backbones=("phantom",),
    space=("ramp=1..20", "mean-decay=0.9|0.99|0.999", "soft-weight=0.01..1:log", "dice-weight=0.5..2:log"),
    options={
        "out": "out/fewlabel-phantom", "folds": 2, "train_folds": (0,), "public_ids": True, "monitor": "none",
    },
    trials=8,
    phantoms=DEMO,
)  # fmt: skip
