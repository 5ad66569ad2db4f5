"""Tables of ages as networks could have read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

FEW = ("A-regression-girls", "A-regression-boys", "A-regression-both", "B-regression-both")


def drawn(
    films: int,
    models: Sequence[str] = FEW,
    folds: int = 3,
    a_patient: int = 1,
    seed: int = 0,
    pull: float = 1.0,
    noise: float = 8.0,
) -> pd.DataFrame:
    """Half of the films are of girls; every model errs by itself, the earlier ones less, and pulls to 127 months."""
    rng = np.random.default_rng(seed)
    patients = np.arange(films) // a_patient
    age = np.clip(np.round(rng.normal(127, 41, films) / 6) * 6, 6, 228)
    sex = np.where(patients % 2 == 0, "F", "M").astype(object)
    table = pd.DataFrame(
        {
            "film_id": [f"film-{i:04d}" for i in range(films)],
            "patient_id": [f"patient-{i:04d}" for i in patients],
            "sex": sex,
            "age_months": age,
            "calendar_months": np.full(films, np.nan),
            "fold": patients // 2 % folds,
        }
    )
    for number, name in enumerate(models):
        months = 127 + pull * (age - 127) + rng.normal(0, noise * (1 + number / 4), films)
        letter = {"girls": "F", "boys": "M"}.get(name.rpartition("-")[2])
        table[name] = months if letter is None else np.where(sex == letter, months, np.nan)
    return table


def refused(rows: Sequence[tuple[str, str, str]] = (), held_out: Sequence[bool] | None = None) -> pd.DataFrame:
    """film_id, stage, reason; held-out films where nothing else is said."""
    table = pd.DataFrame(rows, columns=["film_id", "stage", "reason"])
    return table.assign(fold=0, held_out=[True] * len(table) if held_out is None else [*held_out])
