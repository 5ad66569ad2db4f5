"""What changed between the lesions of two visits of one patient, on one grid.

Lesions of the two visits that overlap belong together; where one has grown into several, or several into one, all of
them are one lesion, compared by the sum of their volumes. The rules are fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medray.metrics.lesions import Components
from medray.metrics.overlap import same_grid_bool

Kind = Literal["new", "enlarged", "stable", "shrunk", "vanished"]


@dataclass(frozen=True)
class ChangeRules:
    """What is a change. A lesion has grown where it did so by the share and by the volume."""

    connectivity: int = 18  # 6, 18 or 26
    least_mm3: float = 3.0  # what is smaller at both visits is left out, as in the challenge of new lesions (MSSEG-2)
    reach_voxels: int = 0  # lesions that lie this near to each other belong together too: for visits that fit badly
    enlarged_share: float = 0.5  # of the volume before; a lesion that has lost as large a share of it is shrunk
    enlarged_mm3: float = 3.0

    def __post_init__(self) -> None:
        if self.connectivity not in (6, 18, 26):
            raise ValueError(f"connectivity {self.connectivity}: 6, 18 or 26 neighbours")
        if min(self.least_mm3, self.reach_voxels, self.enlarged_share, self.enlarged_mm3) < 0:
            raise ValueError(f"{self}: sizes, shares and reach are not below 0")


@dataclass(frozen=True)
class Change:
    """One lesion in two visits."""

    kind: Kind
    before_mm3: float  # 0 of a new one
    after_mm3: float  # 0 of a vanished one
    centre: tuple[float, float, float]  # mean index (d, h, w), of the later visit where it is there


def changes(
    before: np.ndarray,
    after: np.ndarray,
    voxel_mm3: float,
    rules: ChangeRules = ChangeRules(),  # frozen
) -> list[Change]:
    """The lesions of both visits, in the order of the earlier visit's, then the new ones.

    Args:
        before, after: (D, H, W) bool, of one grid.
    Raises:
        ValueError: of two shapes, or not bool.
    """
    same_grid_bool(before, after)
    one = Components.of(before, voxel_mm3, rules.connectivity)
    two = Components.of(after, voxel_mm3, rules.connectivity)
    group, count = _groups(one, two, rules)
    volume = [
        np.bincount(group[: len(one)], one.mm3, minlength=count),
        np.bincount(group[len(one) :], two.mm3, minlength=count),
    ]
    centres = [_centres(one, group[: len(one)], count), _centres(two, group[len(one) :], count)]
    found = []
    for g in range(count):
        was, now = float(volume[0][g]), float(volume[1][g])
        if max(was, now) < rules.least_mm3 * (1 - 1e-9):
            continue
        d, h, w = centres[1 if now else 0][g]
        found.append(Change(_kind(was, now, rules), was, now, (float(d), float(h), float(w))))
    return found


def _groups(one: Components, two: Components, rules: ChangeRules) -> tuple[np.ndarray, int]:
    """(lesions before + lesions after,) number of the group of each, counted by its first member; how many there are."""
    reached = two.labels
    if rules.reach_voxels:  # each voxel nearby takes the number of the nearest lesion
        distance, places = ndimage.distance_transform_cdt(two.labels == 0, "chessboard", return_indices=True)
        reached = np.where(distance <= rules.reach_voxels, two.labels[tuple(places)], 0) if len(two) else two.labels
    both = (one.labels > 0) & (reached > 0)
    size = len(one) + len(two)
    edges = (one.labels[both] - 1, reached[both] - 1 + len(one))
    graph = coo_array((np.ones(len(edges[0])), edges), shape=(size, size))
    count, group = connected_components(graph, directed=False)
    _, first = np.unique(group, return_index=True)
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(count)
    return rank[group], int(count)


def _centres(components: Components, group: np.ndarray, count: int) -> np.ndarray:
    """(count, 3) centre of the voxels of each group; 0 where it has none."""
    weights = components.voxels.astype(np.float64)
    sums = [np.bincount(group, weights * axis, minlength=count) for axis in components.centres().T]
    return np.stack(sums, axis=1) / np.maximum(np.bincount(group, weights, minlength=count), 1)[:, None]


def _kind(before_mm3: float, after_mm3: float, rules: ChangeRules) -> Kind:
    if not before_mm3:
        return "new"
    if not after_mm3:
        return "vanished"
    growth = after_mm3 - before_mm3
    if abs(growth) < max(rules.enlarged_share * before_mm3, rules.enlarged_mm3) * (1 - 1e-9) or not growth:
        return "stable"
    return "enlarged" if growth > 0 else "shrunk"
