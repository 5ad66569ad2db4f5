"""What lies where in a job's --out.

config.json                  what the folder was claimed for
manifest.json                SHA-256 of settings, shards and finished runs, authenticated with the project's key
deidentification.json        what the shards keep of headers, by DICOM PS3.15 Annex E
inventory.parquet            every input file and what became of it
folds.parquet                patient → fold
phantoms/                    of a job that was given no data
shards/<contents>/           one folder for each way in which files were read
runs/<model>/fold<k>/        checkpoints, history.json, predictions.parquet, model.pt, done.json
features/<model>/fold<k>/    what finished networks made of the shards
masks/<model>/fold<k>/       masks of volumes, likewise
searches/<name>/             trials of a search, with runs/ of its own
models/<name>/               results of one of several models of the same data
variants/<name>/             results of another version of the method
"""

from __future__ import annotations

from typing import Any

from medray.shards.names import check_name
from medray.shards.part import held
from medray.shards.store import Store

RUNS, SHARDS, FEATURES, SEARCHES = "runs", "shards", "features", "searches"
KEPT = (SHARDS, RUNS, FEATURES)
"""Folders that a later start of the same job goes on from."""
INITIAL = "initial.pt"  # of a run: weights that training starts from
MODEL = "model.pt"  # of a finished run: its weights
DONE = "done.json"  # of a finished run: that it is, and the digest of its weights


def fold_folder(fold: int) -> str:
    return f"fold{fold}"


def run_store(out: Store, model: str, fold: int) -> Store:
    """Of one run, in a job's --out or in the folder of a search."""
    return out.sub(RUNS, model, fold_folder(fold))


def runs_store(out: Store, *model: str) -> Store:
    """Of a model's runs, or of all of them."""
    return out.sub(RUNS, *model)


def shards_store(out: Store, *contents: str) -> Store:
    return out.sub(SHARDS, *contents)


def features_store(out: Store, *model: str) -> Store:
    return out.sub(FEATURES, *model)


def masks_store(out: Store, model: str) -> Store:
    """Of what the networks of a segmentation made of the shards."""
    return out.sub("masks", model)


def of_model(name: str) -> tuple[str, str]:
    """Folders to the results of one of several models. Raises ValueError for a name that can be no folder's."""
    check_name("--name", name)
    return "models", name


def of_variant(name: str) -> tuple[str, ...]:
    """Folders to the results of another version of a method; none of the version without a name."""
    return ("variants", name) if name else ()


def search_store(out: Store, *name: str) -> Store:
    return out.sub(SEARCHES, *name)


def searched_folds(out: Store) -> dict[str, list[int]]:
    """Search → the folds that it has chosen by, of the searches in a job's --out, which all have its folds."""
    found = {name: search_store(out, name).read_json("config.json") or {} for name in search_store(out).folders()}
    return {name: sorted(int(fold) for fold in of["folds"]) for name, of in found.items() if "folds" in of}


def held_shards(out: str) -> list[dict[str, Any]]:
    """What the shards hold that a job's --out has already, for ``Source.holding``."""
    return held(shards_store(Store(out)))
