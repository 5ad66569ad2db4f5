"""What a report is about, beside the results that lie in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from medray.report.page import PHANTOM_WARNING
from medray.report.sections import listed
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
    searched: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Search in the same --out → the folds that it has chosen by."""

    @property
    def notices(self) -> list[str]:
        """What stands at the top of the page."""
        return [PHANTOM_WARNING] * self.phantom + [
            f"The search {name} has chosen its settings by the held-out rows of fold {listed(folds)}: where they are used, figures of "
            f"{'these folds flatter' if len(folds) > 1 else 'this fold flatter'}, and with it those over all folds."
            for name, folds in self.searched.items()
        ]
