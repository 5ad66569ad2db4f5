"""Ages of held-out films by several models → films.csv, refused.csv, metrics.json, method.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from medray.report.figures import line
from medray.shards.store import Store
from medray.systems.boneage.scores.ensemble import ABOUT
from medray.systems.boneage.scores.ensemble_fit import fit
from medray.systems.boneage.scores.figures import ANSWERS, film_table, score
from medray.systems.boneage.scores.nesting import in_order
from medray.systems.boneage.words import METHODS, SEXES, caution, number

Say = Callable[[list[str]], None]
"""Shows lines on the terminal."""
REFUSED = ("film_id", "fold", "held_out", "stage", "reason")
"""Columns of refused.csv. held_out: whether the film would have been scored; else its fold is only learned from."""


def conclude(
    out: Store,
    ages: pd.DataFrame,
    refused: pd.DataFrame,
    settings: Mapping[str, Any],
    correct: bool,
    quality: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Fit the ensemble, score the held-out films, and write the tables and method.json, which a prediction of new
    films needs.

    Args:
        ages: one row a held-out film: film_id, patient_id, sex ("F", "M", else unknown), age_months, calendar_months
            (NaN unknown), fold, and predicted months in one column for each model ("A-regression-girls"), NaN where
            it has not read the film.
        refused: REFUSED: one row for each film that a stage could not use.
        settings: JSON, what else method.json holds.
        correct: the answer is corrected for regression to the mean.
        quality: what the stages before have shown, in words ("overlap of masks, IoU") → value (None: not known) and
            films.
    Returns:
        The content of metrics.json.
    Raises:
        ValueError: a column lacks or is no model's, a film has two rows, or no film has both a known age and a
            prediction.
    """
    _check(ages)
    ages = ages.iloc[in_order(ages)].reset_index(drop=True)
    found = fit(ages, correct)
    films = film_table(ages, found)
    models = [name for name in map(str, ages.columns) if name not in ABOUT]
    shown = [*ABOUT, "group", "part", *ANSWERS, "low", "high", "error", *models]
    out.write_csv("films.csv", films[shown].sort_values("film_id"))
    write_refused(out, refused)
    out.write_json("method.json", dict(settings) | {"correct": correct, "ensemble": found.ensemble.identity()})
    if not films["error"].notna().any():
        raise ValueError(
            f"none of {len(films):,} held-out films has both a known age and a prediction: nothing can be scored; "
            "name ages of these films, or look into refused.csv"
        )
    held_out = refused["held_out"].to_numpy(dtype=bool)
    metrics = score(films, found, refused[held_out])  # the scores know nothing of films that are only learned from
    metrics["counts"]["refused_in_training"] = int((~held_out).sum())
    metrics["quality"] = {what: dict(of) for what, of in (quality or {}).items()}
    out.write_json("metrics.json", metrics)
    return metrics


def write_refused(out: Store, refused: pd.DataFrame, say: Say = lambda lines: None) -> pd.DataFrame:
    """refused.csv; and to ``say`` how many films by stage and reason, and where they are named.

    Args:
        refused: REFUSED, one row a film.
    Returns:
        The rows in the order of the file.
    """
    table = refused[list(REFUSED)].sort_values(list(REFUSED)).reset_index(drop=True)
    out.write_csv("refused.csv", table)
    lines = [
        f"{number(row['all'], 'film')}{_in_training(row['in_training'])}: {row['stage']}, {row['reason']}"
        for row in count_refused(table).reset_index().to_dict("records")
    ]
    where = f"; {out.uri}/refused.csv names them" if lines else ""
    say([f"{number(len(table), 'film')} refused by the stages so far{where}", *lines])
    return table


def _in_training(count: int) -> str:
    return f" ({count:,} of them in folds that are only learned from)" if count else ""


def count_refused(refused: pd.DataFrame) -> pd.DataFrame:
    """(stage, reason) → held_out, in_training, all: numbers of films; most first."""
    held_out = refused["held_out"].to_numpy(dtype=bool)
    table = refused.assign(held_out=held_out.astype(int), in_training=(~held_out).astype(int), all=1)
    counts = table.groupby(["stage", "reason"])[["held_out", "in_training", "all"]].sum()
    return counts.sort_values("all", ascending=False, kind="stable")


def _check(ages: pd.DataFrame) -> None:
    lacking = [name for name in ABOUT if name not in ages]
    if lacking:
        raise ValueError(f"a table of ages without {', '.join(lacking)}")
    twice = int(ages["film_id"].duplicated().sum())
    if twice:
        raise ValueError(f"a table of ages with more than one row of {number(twice, 'film')}: one row a film")


def read_films(out: Store) -> pd.DataFrame:
    """films.csv as ``conclude`` has left it; identifiers are text."""
    return _read_csv(out, "films.csv")


def read_refused(out: Store) -> pd.DataFrame:
    """refused.csv likewise."""
    return _read_csv(out, "refused.csv")


def _read_csv(out: Store, name: str) -> pd.DataFrame:
    text = dict.fromkeys(("film_id", "patient_id", "sex", "stage", "reason", "group"), str)
    with out.filesystem.open_input_file(out.path(name)) as stream:
        return pd.read_csv(stream, dtype=text, keep_default_na=False, na_values=[""])


def summary(metrics: Mapping[str, Any]) -> list[str]:
    """The figures of metrics.json as lines for a terminal."""
    counts, maes = metrics["counts"], metrics["mae"]
    sexes = ", ".join(f"{counts[name]:,} of {text}" for name, text in SEXES.items() if counts[name])
    lines = [
        f"{number(counts['scored'], 'held-out film')} of {number(counts['patients'], 'patient')} ({sexes}); "
        f"{counts['refused']:,} refused{_lost(counts)}{caution(counts)}"
    ]
    lines += [f"MAE, months: {METHODS[name]:<28}{line(maes[name]['all'], 2)}" for name in ANSWERS]
    lines += [
        f"MAE, months: {SEXES[part]:<28}{line(maes[metrics['answer']][part], 2)}, {number(counts[part], 'film')}"
        for part in ("girls", "boys")
        if counts[part]
    ]
    lines += [
        f"{pair['of']}: {line(pair, 2)}, months, {number(pair['films'], 'film')}"
        for pair in metrics["pairs"]
        if pair["lead"] and pair["value"] is not None
    ]
    share = metrics["interval"]["within"]["all"]
    if share["value"] is not None:
        of = metrics["interval"]["within"]
        without = [SEXES[part] for part in ("girls", "boys") if counts[part] and not of[part]["films"]]
        none = f"; of {' and '.join(without)} no film could be given one" if without else ""
        lines.append(f"95% intervals hold {share['value']:.1%} of {number(share['films'], 'film')}{none}")
    return lines


def _lost(counts: Mapping[str, int]) -> str:
    lost = counts["refused_in_training"]
    return f", and {number(lost, 'film')} of folds that are only learned from" if lost else ""


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The values of metrics.json under names like "oof/mae", for MLflow."""
    maes, answer = metrics["mae"], metrics["answer"]
    found = {"oof/mae": maes[answer]["all"]["value"]}
    found |= {f"oof/mae_{part}": maes[answer][part]["value"] for part in ("girls", "boys")}
    found |= {f"oof/mae_{name}": maes[name]["all"]["value"] for name in ANSWERS}
    found |= {f"oof/mae/{name}": maes[name]["all"]["value"] for name in metrics["models"]}
    found |= {"oof/bias": metrics["bias"]["signed"]["all"]["all"]["value"]}
    found |= {"oof/within_interval": metrics["interval"]["within"]["all"]["value"]}
    return {name: value for name, value in found.items() if value is not None}
