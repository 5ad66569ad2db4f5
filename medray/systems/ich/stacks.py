"""The stacks of all usable slices: what each is called, the order within it, and what is odd, counted for a warning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from medray.imaging.stacks import Stack, stacks_of
from medray.systems.ich.source import headers_of

STACK_COLUMNS = ("stack_id", "index", "position_mm")


def stack(usable: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Stacks as ``medray.imaging.stacks`` makes them of each series.

    A stack has the id of its series, with /stack1, /stack2, ... where a series holds several.

    Args:
        usable: rows with the columns of HeadCT.scan_schema.
    Returns:
        STACK_COLUMNS of the same rows: index from the feet up, position_mm along the normal, NaN where unknown. And a
        line, without identifiers, for each kind of odd series or stack.
    """
    stack_id = np.empty(len(usable), dtype=object)
    index, position_mm = np.zeros(len(usable), dtype=np.int32), np.zeros(len(usable))
    of_series: list[list[Stack]] = []
    rows_of = usable.groupby("series_id", sort=True).indices
    for (series_id, rows), headers in zip(rows_of.items(), headers_of(usable, rows_of.values()), strict=True):
        stacks = stacks_of(headers)
        for number, one in enumerate(stacks, start=1):
            own = rows[one.members]
            stack_id[own] = series_id if len(stacks) == 1 else f"{series_id}/stack{number}"
            index[own], position_mm[own] = np.arange(len(own)), one.position_mm
        of_series.append(stacks)
    columns = dict(zip(STACK_COLUMNS, (stack_id, index, position_mm), strict=True))
    return pd.DataFrame(columns, index=usable.index), [*_odd_series(usable), *_odd_stacks(of_series)]


def _odd_series(usable: pd.DataFrame) -> list[str]:
    shared = usable.groupby("series_id")[["patient_id", "study_id"]].nunique()
    lines = []
    for column, who in (("patient_id", "patients"), ("study_id", "studies")):
        count = int((shared[column] > 1).sum())
        if count:
            lines.append(
                f"{_counted(count, 'series id')} {'is' if count == 1 else 'are'} shared by several {who}: each has stacks of its own"
            )
    return lines


def _odd_stacks(of_series: Sequence[Sequence[Stack]]) -> list[str]:
    """Lines without identifiers, for warnings."""
    lines = []
    several = [len(stacks) for stacks in of_series if len(stacks) > 1]
    if several:
        lines.append(
            f"{len(several):,} series {'hold' if len(several) > 1 else 'holds'} more than one stack, {sum(several):,} in all: "
            "of several patients, studies, planes, matrices, acquisitions or reconstructions"
        )
    stacks = [stack for stacks in of_series for stack in stacks]
    known_order = [stack for stack in stacks if stack.ordered_by != "nothing"]
    held = Counter(count for stack in known_order for count in stack.shared_places)
    where = sum(bool(stack.shared_places) for stack in known_order)
    for count, places in sorted(held.items()):
        number = {2: "two", 3: "three", 4: "four"}.get(count, f"{count:,}")
        lines.append(
            f"{_counted(places, 'place')} {'hold' if places > 1 else 'holds'} {number} slices{' each' * (places > 1)}, "
            f"and nothing in their headers separates them ({_counted(where, 'stack')} in all)"
        )
    for known, how in (
        ("SliceLocation", "they are in the order of SliceLocation"),
        ("InstanceNumber", "they are in the order of InstanceNumber"),
        ("nothing", "their order is unknown, as neither SliceLocation nor InstanceNumber tells"),
    ):
        count = sum(stack.ordered_by == known for stack in stacks)
        if count:
            lines.append(f"{_counted(count, 'stack')} with one position for all slices: {how}")
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
