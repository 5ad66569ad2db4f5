"""How often an epoch reads each row, so that rare kinds of rows are seen as often as common ones."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd


def balanced(
    strata: Sequence[Hashable] | pd.Series, readings: int, parts: Mapping[Hashable, float] | None = None
) -> np.ndarray:
    """For ``Task.times_per_epoch``: strata have equal parts of an epoch, or ``parts`` of it, however many rows they have.

    An epoch is then as long whatever the number of rows: ``readings`` of rows, times the task's ``examples_per_row``. Take
    ``steps · batch_size / examples_per_row`` for an epoch of so many steps. Rows of a small stratum are read several times,
    each time with other randomness; rows of a large one in some of the epochs, all of them equally often.

    Args:
        strata: (rows,) what is balanced, such as the source of each row, or whether it holds a lesion.
        readings: of an epoch, all strata together.
        parts: stratum → weight, above 0; equal where not given. Strata without rows take no part.
    Returns:
        (rows,) above 0.
    Raises:
        ValueError: fewer readings than strata, or a stratum of the rows that has no part.
    """
    numbers, names = pd.factorize(pd.Series(strata))
    if (numbers < 0).any():
        raise ValueError("a row without a stratum cannot be balanced")
    if readings < len(names):
        raise ValueError(f"{readings} readings an epoch are too few for {len(names)} strata; take more steps an epoch")
    if parts is not None and (lost := [name for name in names if not parts.get(name, 0) > 0]):
        raise ValueError(f"no part of an epoch is given for the stratum {lost[0]}; name one above 0")
    wanted = np.array([1.0 if parts is None else parts[name] for name in names])
    exact = readings * wanted / wanted.sum()
    counts = np.maximum(1, np.floor(exact)).astype(np.int64)
    for stratum in np.argsort(counts - exact, kind="stable")[: max(0, readings - int(counts.sum()))]:
        counts[stratum] += 1  # the rest of the division, to those that have lost most of it
    sizes = np.bincount(numbers, minlength=len(names))
    return (counts / sizes)[numbers]


def number_of(rng: np.random.Generator) -> int:
    """Of the training example that ``rng`` is for: its place in the epoch. The examples of one reading have numbers that
    follow on each other, so that parts of them can be told apart exactly, whoever makes them, and however many at a time.

    Raises ValueError for a generator without a seed that tells.
    """
    seed = getattr(rng.bit_generator.seed_seq, "entropy", None)
    if seed is None:
        raise ValueError("a generator of unknown seed has no number")
    return int(np.atleast_1d(np.asarray(seed, dtype=object))[-1])
