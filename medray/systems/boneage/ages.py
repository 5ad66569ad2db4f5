"""The outputs of all age networks as one table, and what became of the films that they never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from medray.systems.boneage.results import REFUSED
from medray.systems.boneage.stages.rows import ABOUT, Stages


def joined_ages(outputs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a film, in the order of film_id: ABOUT, fold, and a column of months for each model, NaN where it does not read
    the film.

    Args:
        outputs: model → ``AgeTask.outputs`` of held-out films, with the fold.
    """
    names = [*ABOUT, "fold"]
    every = pd.concat([table[names] for table in outputs.values()], ignore_index=True)
    films = every.drop_duplicates("film_id").sort_values("film_id").reset_index(drop=True)
    films["sex"] = films["sex"].astype(object).where(films["sex"].isin(["F", "M"]), None)
    for model, table in outputs.items():
        months = table.set_index("film_id")["p_months"]
        films[model] = months.reindex(films["film_id"]).to_numpy(dtype=np.float64)
    return films


def refused_films(lost: Mapping[str, pd.DataFrame], index: pd.DataFrame, folds: Sequence[int]) -> pd.DataFrame:
    """REFUSED of each film that a stage has set aside; the first stage counts.

    A film of a fold that is not held out is lost to training, not to the scores.

    Args:
        lost: stage → id and reason, in the order of the stages. index: of all films, with the fold.
        folds: that are held out.
    """
    tables = [table[["id", "reason"]].assign(stage=stage) for stage, table in lost.items()]
    every = pd.concat(tables, ignore_index=True).rename(columns={"id": "film_id"}).drop_duplicates("film_id")
    found = every.merge(index[["film_id", "fold"]], on="film_id")
    return found.assign(held_out=found["fold"].isin(folds))[list(REFUSED)]


def quality(stages: Stages) -> dict[str, dict[str, float | int | None]]:
    """How good masks and points are on held-out films where somebody has drawn: in words → value, and how many films.

    Args:
        stages: "masks" and "points", where there are such stages → their shards, as ``stages.between`` makes them.
    """
    found = {}
    for stage, column, factor, words in (
        ("masks", "iou", 1, "overlap of masks, IoU"),
        ("points", "error_part", 100, "mean distance of points, % of the film's longer side"),
        ("points", "thumb_right", 100, "thumb found on the side where it is marked, % of films"),
    ):
        if stage in stages:
            made = stages[stage]
            every = [made.store.read_table(name, columns=[column]).to_pandas()[column] for name in made.files]
            known = factor * pd.concat(every).dropna().to_numpy(dtype=np.float64)
            found[words] = {"value": float(known.mean()) if len(known) else None, "films": len(known)}
    return found
