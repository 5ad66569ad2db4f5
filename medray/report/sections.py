"""Sections that every system's report has: learning curves, files set aside, how it was made."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from medray.report import charts
from medray.report.page import Block, Section, Table

_ROWS_SHOWN = 30


def listed(values: Sequence[Any]) -> str:
    """Values as a text, with commas."""
    return ", ".join(str(value) for value in values)


def learning(
    histories: Mapping[str, list[dict[str, Any]]],
    loss: str,
    rows: str,
    auc_of: str,
    chosen_on: str = "an inner part of the training patients",
) -> Section:
    """Loss, AUC and learning rate of each run by epoch.

    Args:
        histories: run name → entries of its history.json.
        loss: in words, what is drawn of the scored rows. rows: what these are called, in the plural.
        auc_of: title of the AUC's chart. chosen_on: in words, the inner rows.
    """
    begun = {name: entries for name, entries in histories.items() if entries}
    if not begun:
        return Section("Learning curves", "No epoch has ended yet.")
    text = "The training loss is over augmented examples while the weights still move"
    if any(charts.is_scored(key) for entries in begun.values() for entry in entries for key in entry["metrics"]):
        text += f"; the solid line is the {loss} of {rows} after each epoch."
    else:
        text += f". No epoch was scored on other {rows} (--monitor none): predictions come from the last one."
    if any("held_out" in key for entries in begun.values() for key in entries[-1]["metrics"]):
        text += " The held-out curve is only drawn: nothing was chosen by it, predictions come from the last epoch."
    if any(key.startswith("inner") for entries in begun.values() for key in entries[-1]["metrics"]):
        text += f" The epoch was chosen on {chosen_on}, never on the held-out ones."
    last = [
        {"run": name, "epochs": entries[-1]["epoch"], "seconds": round(sum(e["system"].get("epoch_seconds", 0) for e in entries)),
         **{key.replace("_", " "): value for key, value in entries[-1]["metrics"].items() if key != "learning_rate"}}
        for name, entries in begun.items()
    ]  # fmt: skip
    table = Table(pd.DataFrame(last), "After the last epoch.")
    return Section("Learning curves", text, charts.learning_curves(begun, auc_of), more=(table,))


def files(inventory: pd.DataFrame, id_column: str) -> Section:
    """What became of every input file.

    Args:
        inventory: as in inventory.parquet. id_column: of what a file holds, such as slice_id.
    """
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
                **({"frame": [None if pd.isna(f) else int(f) for f in first["frame"]]} if "frame" in first else {}),
                id_column.removesuffix("_id"): first[id_column].tolist(),
                "status": first["status"].tolist(),
                "reason": first["reason"].tolist(),
            }
        )
        total = int((aside["status"] != "unlabelled").sum())
        more.append(Table(rows, _rest("rows other than unlabelled ones", total)))
    text = f"{len(aside):,} of {len(inventory):,} are not plainly used: quarantined and duplicate ones are left out, repaired ones are used, with what was odd about them or mended, unused ones belong to no item, unlabelled ones are only predicted."
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
    if "backbone" in settings and models:
        text = f"The settings of the first backbone, {settings['backbone']}; further ones may differ."
        text += f" Models of the ensemble: {listed(models)}."
    return Section("How it was made", text, table=pd.DataFrame(rows, columns=["setting", "value"]))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on; a package that is not installed is left out."""
    found = {"Python": platform.python_version()}
    for name in ("medray", "torch", "timm", "monai", "ray", "numpy", "pydicom", "nibabel"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
