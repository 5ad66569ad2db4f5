"""What a report is about, beside the results that lie in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from medray.shards.store import Store


@dataclass(frozen=True)
class About:
    """The data and the runs of a finished job."""

    folder: Store
    """Where the input files are: a few of them are shown."""
    inventory: pd.DataFrame
    """As in inventory.parquet."""
    private: pd.DataFrame
    """The same rows with the files' own paths and identifiers; no identifier of it is shown."""
    index: pd.DataFrame
    """One row for each of the shards: identifiers, labels (NaN where unknown), fold."""
    histories: Mapping[str, list[dict[str, Any]]]
    """Run → entries of its history.json."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Name → value, shown as they are."""
    phantom: bool = False
    """The data are phantoms, and the page says so."""
