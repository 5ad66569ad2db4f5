"""Lesions as the engine's jobs see them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from medray.shards.case_table import files_of
from medray.shards.leakage import PIXELS_HASH
from medray.shards.source import Source
from medray.systems.lesion import recipes
from medray.systems.lesion.cases import FLAG, Cases, read_cases
from medray.systems.lesion.inventory import assemble
from medray.systems.lesion.objective import OBJECTIVES, score_folds
from medray.systems.lesion.phantom_brain import CHANNELS
from medray.systems.lesion.phantoms import DEMO
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.task import LesionTask
from medray.tasks.system import SearchSetup, System
from medray.tasks.volume_rows import SCANS_PER_SHARD

LOADS_ML = (0.0, 2.0, 5.0, 10.0, 20.0)
"""Between bands of lesion load, over which folds are balanced."""


def strata(index: pd.DataFrame) -> np.ndarray:
    """Folds have about as many scans of each band of lesion load, and without a mask."""
    loads = index["lesion_ml"].to_numpy(dtype=float)
    return np.where(np.isnan(loads), -1, np.digitize(loads, LOADS_ML, right=True))


def label_notes(cases: Cases) -> list[str]:
    """What a user should know before anything is spent."""
    if cases.table["mask"].isna().all():
        raise ValueError(f"{FLAG}: no case has a mask, and training needs some; name them in the column mask")
    return []


def fold_notes(index: pd.DataFrame) -> list[str]:
    loads = index["lesion_ml"].groupby(index["fold"]).max()
    return [f"no scan of fold {fold} has a lesion drawn" for fold, most in loads.items() if not most > 0]


def source_for(source: BrainMR, task: LesionTask, images: str | None) -> BrainMR:
    """With the channels of the cases, of which only those that the task asks for, itself or as a copy, are read.

    Raises:
        ValueError: the table cannot be read, or has no such channel.
    """
    known = CHANNELS if images is None else read_cases(images).channels
    wanted = [name.removesuffix("-smooth").removesuffix("-highpass") for name in task.channels]
    if lost := [name for name in wanted if name not in known]:
        raise ValueError(f"--channels {lost[0]}: the scans have {', '.join(known)}; name some of these")
    return replace(source, channels=tuple(dict.fromkeys(wanted)) or known, classes=task.classes)


def labels_for(cases: Cases, source: Source) -> Cases:
    assert isinstance(source, BrainMR)
    return cases.having(source.channels, masks=True)


BRAIN_MR = System(
    title="White-matter lesions on brain MR",
    purpose="Registered MR sequences of the brain of a patient with multiple sclerosis go in; a mask of the lesions comes out, with their number and volume.",
    source=BrainMR(),
    read_labels=read_cases,
    assemble=assemble,
    columns=("lesion_ml", "visit", PIXELS_HASH),
    strata=strata,
    flags=(FLAG,),
    files_of=files_of,
    rows_per_shard=SCANS_PER_SHARD,
    about_flags=(
        "Table (CSV or TSV: patient, visit, a column for each channel, mask) by path or URI, or a folder in the BIDS layout. "
        "Where not given, phantoms are written and used.",
    ),
    source_for=source_for,
    labels_for=labels_for,
    label_notes=label_notes,
    fold_notes=fold_notes,
)

SEARCH = SearchSetup(
    job=("jobs/lesion_cv.py",),
    job_flags=("--recipe", "--name"),
    recipe=recipes.recipe,
    reference=recipes.recipe,
    backbones=("segresnet",),
    space=(
        "learning-rate=1e-5..1e-2:log", "dice-weight=0..2", "cross-entropy-weight=0.1..2", "foreground-share=0.2..0.9",
        "dropout=0..0.3",
    ),
    objectives=OBJECTIVES,
    score=score_folds,
    options={"out": "out/lesion", "train_folds": (0,), "monitor": "none"},
)  # fmt: skip

PHANTOM_SEARCH = replace(
    SEARCH,
    backbones=("phantom",),
    space=("learning-rate=1e-4..3e-2:log", "foreground-share=0.2..0.9", "dice-weight=0..2"),
    options={
        "out": "out/lesion-search", "folds": 2, "train_folds": (0,), "public_ids": True, "monitor": "none",
    },
    trials=8,
    phantoms=DEMO,
)  # fmt: skip
