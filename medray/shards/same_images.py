"""Patients who have an image in common, pixel by pixel: one person under two identifiers, or one file filed twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MOST_PATIENTS = 10
"""Who share an image that holds them together; one of more patients is a test picture or an empty field, and tells nothing."""


@dataclass(frozen=True)
class Shared:
    """Which patients belong together."""

    group: pd.Series  # patient → number of its group, as patients first appear
    images: int  # distinct images that several patients have, and that hold them together
    patients: int  # whom such images hold together with others
    common: int  # images of more than ``MOST_PATIENTS`` patients, which do not
    example: tuple[str, ...] = ()  # two rows of one such image


def shared(patients: np.ndarray, hashes: np.ndarray, names_of_rows: np.ndarray) -> Shared:
    """Groups of patients by the hashes of their images' pixels.

    Args:
        patients, names_of_rows: (rows,). hashes: (rows,) text; empty, None or NaN where an image says nothing, as one that is flat.
    """
    rows = pd.DataFrame(
        {"patient": patients, "hash": pd.Series(hashes, dtype=object).replace("", None), "row": names_of_rows}
    )
    names = rows["patient"].drop_duplicates().to_numpy()
    pairs = rows.dropna().drop_duplicates(["patient", "hash"])
    counts = pairs.groupby("hash")["patient"].transform("size")
    linking = pairs[(counts > 1) & (counts <= MOST_PATIENTS)]
    place = pd.Series(np.arange(len(names)), index=names)
    image = pd.factorize(linking["hash"])[0]
    # patients and images are the nodes of one graph
    size = len(names) + (int(image.max()) + 1 if len(image) else 0)
    ends = (place.loc[linking["patient"]].to_numpy(), len(names) + image)
    edges = coo_array((np.ones(len(linking)), ends), shape=(size, size))
    group = pd.factorize(connected_components(edges, directed=False)[1][: len(names)])[0]
    return Shared(
        pd.Series(group, index=names),
        int(linking["hash"].nunique()),
        int(linking["patient"].nunique()),
        int(pairs.loc[counts > MOST_PATIENTS, "hash"].nunique()),
        tuple(linking.loc[linking["hash"] == linking["hash"].iloc[0], "row"].head(2)) if len(linking) else (),
    )
