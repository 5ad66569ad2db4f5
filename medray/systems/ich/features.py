"""Embedded stacks: the contract between the backbones and the sequence stage, one row a stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES

STACK_SCHEMA = pa.schema(
    [
        pa.field("stack_id", pa.string(), nullable=False),
        pa.field("study_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("slice_id", pa.list_(pa.string()), metadata={"order": "from the feet up, as all lists here"}),
        pa.field("index", pa.list_(pa.int32())),
        pa.field("position_mm", pa.list_(pa.float64()), metadata={"unit": "mm"}),
        pa.field("feature", pa.binary(), metadata={"axes": "slices, features", "dtype": "float16"}),
        pa.field("feature_count", pa.int32()),
        *[pa.field(name, pa.list_(pa.float64())) for name in PROBABILITIES],
        *[pa.field(name, pa.list_(pa.int8())) for name in CLASSES],
    ]
)
INDEX_COLUMNS = ("stack_id", "patient_id", "slice_id", *CLASSES)
_OF_STACK = ("stack_id", "study_id", "patient_id")
_LARGEST = float(np.finfo(np.float16).max)


def pack_stacks(outputs: pd.DataFrame) -> pa.Table:
    """One row a slice → one row a stack, in the order in which they first appear; slices by their index.

    Args:
        outputs: stack_id, study_id, patient_id, slice_id, index, position_mm, PROBABILITIES, CLASSES (NaN where
            unlabelled), "feature" (an array of float32 a row).
    Raises:
        ValueError: a feature that fp16 cannot hold, or a prediction that is NaN; the slice is named.
    """
    if not len(outputs):  # of a shard whose slices could not be decoded, not even the columns are there
        return STACK_SCHEMA.empty_table()
    features = np.stack(outputs["feature"].to_list())
    _check(outputs["slice_id"], np.abs(features).max(axis=1, initial=0.0) <= _LARGEST, "a feature beyond fp16 or NaN")
    sure = np.isfinite(outputs[list(PROBABILITIES)].to_numpy(dtype=np.float64)).all(axis=1)
    _check(outputs["slice_id"], sure, "a prediction that is NaN")
    halves = features.astype(np.float16)
    rows = []
    for places in outputs.groupby("stack_id", sort=False).indices.values():
        places = places[np.argsort(outputs["index"].to_numpy()[places], kind="stable")]
        stack = outputs.iloc[places]
        labels = {name: [None if np.isnan(v) else int(v) for v in stack[name]] for name in CLASSES}
        lists = {name: stack[name].tolist() for name in ("slice_id", "index", "position_mm", *PROBABILITIES)}
        first = {name: stack[name].iloc[0] for name in _OF_STACK}
        feature = {"feature": halves[places].tobytes(), "feature_count": features.shape[1]}
        rows.append(first | lists | feature | labels)
    return pa.Table.from_pylist(rows, schema=STACK_SCHEMA)


def _check(slice_ids: pd.Series, good: np.ndarray, what: str) -> None:
    if not good.all():
        raise ValueError(
            f"{int((~good).sum())} slices have {what}, the first is {slice_ids.iloc[int((~good).argmax())]}"
        )


def unpack_slices(table: pa.Table) -> pd.DataFrame:
    """One row a stack → one row a slice, without the features; unlabelled is NaN."""
    table = table.combine_chunks()
    stack = pa.compute.list_parent_indices(table["slice_id"]).to_numpy()
    columns = {name: table[name].to_numpy(zero_copy_only=False)[stack] for name in _OF_STACK}
    for name in ("slice_id", "index", "position_mm", *PROBABILITIES, *CLASSES):
        values = pa.compute.list_flatten(table[name])
        columns[name] = (values.cast(pa.float64()) if name in CLASSES else values).to_numpy(zero_copy_only=False)
    return pd.DataFrame(columns)


def read_slices(store: Store, names: Mapping[int, Sequence[str]]) -> dict[int, pd.DataFrame]:
    """Fold → every slice as that fold's network sees it: ids, PROBABILITIES averaged over the views, CLASSES."""
    columns = [name for name in STACK_SCHEMA.names if not name.startswith("feature")]
    tables = {fold: [store.read_table(name, columns=columns) for name in of_fold] for fold, of_fold in names.items()}
    return {fold: unpack_slices(pa.concat_tables(of_fold)) for fold, of_fold in tables.items()}


def stack_index(stacks: pd.DataFrame, slice_ids: Sequence[str], where: str) -> pd.DataFrame:
    """What a cross-validation needs to know of each stack: a class is positive where it is on any slice.

    Args:
        stacks: INDEX_COLUMNS as lists, "network_fold"; and whatever else.
        slice_ids: of the shards. Each network must have embedded exactly these.
        where: to be named in a message.
    Raises:
        ValueError: the slices are others.
    """
    for fold, of_network in stacks.groupby("network_fold", sort=True):
        check_slices(of_network["slice_id"].explode(), slice_ids, f"{where}/fold{fold}")
    index = stacks.copy()
    for name in CLASSES:
        labels = [np.array([np.nan if v is None else v for v in values], dtype=np.float64) for values in stacks[name]]
        index[name] = [float(np.nanmax(v)) if np.isfinite(v).any() else np.nan for v in labels]
    return index


def embedded_for(index: pd.DataFrame, fold: int, embedding: str) -> np.ndarray:
    """(rows,) which of the stacks, each embedded by every network, the sequence stage of a fold reads.

    Within fold, the run of fold k sees every stack as network k embeds it: one space of features, and no label of a
    held-out patient has reached it. Out of fold, each stack comes as the network that has not trained on it embeds it:
    several spaces, and those networks have learned from the patients that the run is scored on.

    Args:
        index: with "network_fold", the fold of the network, and "fold", of the patient.
    """
    wanted = fold if embedding == "within-fold" else index["fold"].to_numpy()
    return np.asarray(index["network_fold"].to_numpy() == wanted)


def check_slices(found: Sequence[str] | pd.Series, expected: Sequence[str] | pd.Series, where: str) -> None:
    """Raise ValueError, one line, unless the ids of a feature file are exactly those of the shards."""
    own, wanted = pd.Index(found), pd.Index(expected)
    for what, ids in (
        ("repeated", own[own.duplicated()].unique()),
        ("not in the shards", own[~own.isin(wanted)]),
        ("missing", wanted[~wanted.isin(own)]),
    ):
        if len(ids):
            few = ", ".join(map(str, ids[:3])) + (", …" if len(ids) > 3 else "")
            raise ValueError(
                f"{where}: {len(ids):,} of {len(wanted):,} slices are {what} ({few}); delete that folder, and the job "
                "embeds again"
            )
