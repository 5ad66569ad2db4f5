"""Organs at risk as the engine's jobs see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from medray.shards.case_table import files_of
from medray.shards.leakage import PIXELS_HASH
from medray.shards.names import check_name
from medray.shards.source import Source
from medray.systems.headneck import recipes
from medray.systems.headneck.cases import DOUBT, FLAG, NO_MASKS, ORGANS, Cases, read_cases
from medray.systems.headneck.inventory import assemble
from medray.systems.headneck.names import organ_of
from medray.systems.headneck.objective import OBJECTIVES, score_folds
from medray.systems.headneck.phantoms import DEMO, NAMES
from medray.systems.headneck.source import CT, MOST_ORGANS, STRUCTURES, PlanningCT
from medray.systems.headneck.task import OrganTask
from medray.tasks.system import SearchSetup, System
from medray.tasks.volume_rows import SCANS_PER_SHARD

MOST_OFF = 1.5
"""Times that the scans' spacing may differ from the grid that lengths in mm are counted on."""


def strata(index: pd.DataFrame) -> np.ndarray:
    """Folds have about as many scans with few, with many and with all organs drawn."""
    counts = index["organs_drawn"].to_numpy(dtype=float)
    return np.where(counts == 0, 0, 1 + np.digitize(counts / max(1.0, counts.max()), (0.5, 0.9)))


def fold_notes(index: pd.DataFrame) -> list[str]:
    most = index["organs_drawn"].groupby(index["fold"]).max()
    return [f"no organ is drawn in any scan of fold {fold}" for fold, n in most.items() if not n > 0]


def source_for(source: PlanningCT, task: OrganTask, images: str | None) -> PlanningCT:
    """With the organs to learn: the task's, or, where it names none, all that any case has a mask of.

    Raises:
        ValueError: the table cannot be read, no organ is known, or one that is named is no TG-263 name of the table.
    """
    own = source.own_names
    if task.organs:
        odd = [name for name in task.organs if organ_of(name) != name and name not in own.values()]
        if odd:
            near = organ_of(odd[0])
            raise ValueError(
                f"--organs {odd[0]}: no TG-263 name of the table"
                + (f"; did you mean {near}?" if near else "; --names gives it one")
            )
        if len({*task.organs}) < len(task.organs):
            raise ValueError(f"--organs {' '.join(task.organs)}: each once")
        organs = task.organs
    else:
        organs = NAMES if images is None else _of_masks(read_cases(images), own)
    for organ in organs:
        check_name("--organs", organ)
        if organ in (CT, STRUCTURES):
            raise ValueError(
                f"--organs {organ}: the name of another file of a case; give the organ its own, with --names"
            )
    if len(organs) > MOST_ORGANS:
        raise ValueError(f"--organs: {len(organs)} of them; at most {MOST_ORGANS}")
    return replace(source, organs=organs)


def _of_masks(cases: Cases, own: dict[str, str]) -> tuple[str, ...]:
    if cases.table is None or any(isinstance(path, str) for path in cases.table[STRUCTURES]):
        raise ValueError(
            "--organs: name those to learn, such as Brainstem Parotid_L Parotid_R; of structure sets it must be said"
        )
    found = Counter(organ for named in cases.table[ORGANS] for name in named if (organ := organ_of(name, own)))
    if not found:
        named = sorted({name for own_masks in cases.table[ORGANS] for name in own_masks})
        if not named:
            why = NO_MASKS if (cases.table[DOUBT] == NO_MASKS).any() else "organs: empty in every line"
            raise ValueError(f"{FLAG}: no case has a mask, and training needs some; {why}")
        raise ValueError(
            f"{FLAG}: no case has a mask of an organ that TG-263 knows by its name ({', '.join(named[:5])}), and training needs some; "
            f"--names '{named[0]}=Parotid_L' says what it is"
        )
    return tuple(sorted(found))


def scan_notes(index: pd.DataFrame, task: OrganTask, folds: Sequence[int]) -> list[str]:
    """What the scans lack, a line each, "! " before it.

    Args:
        index: of the shards. task: on the organs of the source. folds: that are trained.
    Raises:
        ValueError: an organ that no scan has, after all that could not be read was set aside.
    """
    ml = np.array(index["organs_ml"].tolist(), dtype=float)
    drawn = np.isfinite(ml)
    if nowhere := [organ for organ, own in zip(task.organs, drawn.T, strict=True) if not own.any()]:
        raise ValueError(f"--organs {' '.join(nowhere)}: drawn in none of the scans that could be read; leave them out")
    lines = []
    for fold in folds:
        learned = drawn[(index["fold"] != fold).to_numpy()]
        if lost := [organ for organ, own in zip(task.organs, learned.T, strict=True) if not own.any()]:
            lines.append(
                f"! fold {fold}: {', '.join(lost)}: drawn in no scan that it learns from; its networks will not find it"
            )
    spacing = np.median(np.array(index["spacing_mm"].tolist(), dtype=float), 0)
    off = np.maximum(spacing / task.grid_mm, task.grid_mm / spacing).max()
    if off > MOST_OFF:
        lines.append(
            f"! --grid-mm {' '.join(f'{mm:g}' for mm in task.grid_mm)}: the scans have {' × '.join(f'{mm:.2f}' for mm in spacing)} mm "
            "(median); lengths in mm are taken for voxels of --grid-mm, so name the scans' own, or --spacing-mm"
        )
    return lines


def labels_for(cases: Cases, source: Source) -> Cases:
    assert isinstance(source, PlanningCT)
    return replace(cases, organs=source.organs, names=source.own_names)


HEAD_AND_NECK = System(
    title="Organs at risk on planning CT of head and neck",
    purpose="A planning CT of head and neck goes in; outlines of organs at risk come out, as masks and as a structure set.",
    source=PlanningCT(),
    read_labels=read_cases,
    assemble=assemble,
    columns=("organs_drawn", "organs_ml", "affine", "spacing_mm", "visit", PIXELS_HASH),
    strata=strata,
    flags=(FLAG,),
    files_of=files_of,
    rows_per_shard=SCANS_PER_SHARD,
    about_flags=(
        "Table (CSV: patient, scan, ct, structures, organs), or a folder of patients (NIfTI, or DICOM with structure sets), by "
        "path or URI. Where not given, phantoms are written and used.",
    ),
    source_for=source_for,
    labels_for=labels_for,
    fold_notes=fold_notes,
)

SEARCH = SearchSetup(
    job=("jobs/headneck_cv.py",),
    job_flags=("--recipe", "--name"),
    recipe=recipes.recipe,
    reference=recipes.recipe,
    backbones=("snet",),
    space=(
        "learning-rate=1e-4..1e-2:log", "dice-weight=0..2", "focal-weight=0..2", "cross-entropy-weight=0.1..2",
        "foreground-share=0.3..1",
    ),
    objectives=OBJECTIVES,
    score=score_folds,
    options={"out": "out/headneck", "train_folds": (0,), "monitor": "none"},
)  # fmt: skip

PHANTOM_SEARCH = replace(
    SEARCH,
    backbones=("phantom",),
    space=("learning-rate=1e-3..2e-2:log", "foreground-share=0.3..1", "dice-weight=0.5..2"),
    options={
        "out": "out/headneck-search", "folds": 2, "train_folds": (0,), "public_ids": True, "monitor": "none",
    },
    trials=8,
    phantoms=DEMO,
)  # fmt: skip
