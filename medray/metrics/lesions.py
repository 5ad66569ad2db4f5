"""Scores by lesion: connected components of the truth and of the prediction, and which of them meet.

A component of the truth is found where the prediction covers enough of it, one of the prediction is true where the truth
covers enough of it; how much is enough, and what counts as one component, are fields of ``Rules``, since every challenge
has its own. Components below a size are dropped before anything is counted. What is predicted over a dropped component of
the truth counts neither as true nor as false.

Empty masks. No lesion: the true-positive rate is NaN (absent). Nothing predicted: the false-positive rate is absent. One
of the two empty: F1 is 0; both: absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from medray.metrics.overlap import same_grid_bool

SIZE_BINS_MM3 = (0.0, 10.0, 30.0, 100.0, 300.0, np.inf)
"""Edges for ``recall_by_size``: below 10 mm³ raters differ as much as programs do."""

_STEPS = {6: 1, 18: 2, 26: 3}  # neighbours of a voxel → the most axes along which they differ


@dataclass(frozen=True)
class Rules:
    """What a lesion is, and when it is found."""

    connectivity: int = 18  # 6, 18 or 26: over faces, edges or corners
    hit_voxels: int = 1  # of a component that the other mask must cover at least
    hit_fraction: float = 0.0  # the same as a share of the component, 0 to 1
    least_truth_mm3: float = 0.0  # smaller components of the truth are dropped
    least_predicted_mm3: float = 0.0

    def __post_init__(self) -> None:
        if self.connectivity not in _STEPS:
            raise ValueError(f"connectivity {self.connectivity}: 6, 18 or 26 neighbours")
        if self.hit_voxels < 1 or not 0 <= self.hit_fraction <= 1:
            raise ValueError(
                f"a hit of {self.hit_voxels} voxels and a fraction of {self.hit_fraction}: at least 1, and 0 to 1"
            )


@dataclass(frozen=True, eq=False)
class Components:
    """The connected parts of a mask, in the order of their first voxel."""

    labels: np.ndarray  # (D, H, W) int32: 0 outside, else 1, 2, ...
    voxels: np.ndarray  # (n,) int64: how many each has
    voxel_mm3: float

    @staticmethod
    def of(mask: np.ndarray, voxel_mm3: float, connectivity: int = 18, least_mm3: float = 0.0) -> Components:
        """
        Args:
            mask: (D, H, W) bool.
            least_mm3: smaller components are left out.
        """
        labels, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, _STEPS[connectivity]))
        voxels = np.bincount(labels.ravel())[1:]
        kept = voxels * voxel_mm3 >= least_mm3 * (1 - 1e-9)
        if not kept.all():
            labels = np.concatenate([[0], np.cumsum(kept) * kept]).astype(np.int32)[labels]
            voxels = voxels[kept]
        return Components(labels, voxels, voxel_mm3)

    def __len__(self) -> int:
        return len(self.voxels)

    @property
    def mm3(self) -> np.ndarray:
        """(n,) volume of each."""
        return self.voxels * self.voxel_mm3

    def centres(self) -> np.ndarray:
        """(n, 3) mean index (d, h, w) of each; an affine takes it to mm."""
        places = np.argwhere(self.labels)
        number = self.labels[tuple(places.T)] - 1
        sums = [np.bincount(number, weights=places[:, axis], minlength=len(self)) for axis in range(3)]
        return np.stack(sums, axis=1) / np.maximum(self.voxels, 1)[:, None]

    def sites(self, atlas: np.ndarray) -> np.ndarray:
        """(n,) the value of a label map that most voxels of each component have; of two equal ones the lower.

        Args:
            atlas: (D, H, W) integers from 0, on the grid of the mask.
        """
        if atlas.shape != self.labels.shape:
            raise ValueError(
                f"an atlas of shape {atlas.shape} for a mask of {self.labels.shape}: resample it to the mask"
            )
        inside = self.labels > 0
        pairs, counts = np.unique(np.stack([self.labels[inside], atlas[inside]]), axis=1, return_counts=True)
        order = np.lexsort((pairs[1], -counts, pairs[0]))
        first = np.unique(pairs[0][order], return_index=True)[1]
        return pairs[1][order][first]


@dataclass(frozen=True, eq=False)
class LesionMatch:
    """The lesions of a scan: those that there are, those that were predicted, and how they meet."""

    truth_mm3: np.ndarray  # (lesions,)
    found: np.ndarray  # (lesions,) bool
    predicted_mm3: np.ndarray  # (predicted,), without those over a dropped lesion
    true: np.ndarray  # (predicted,) bool
    truth_score: np.ndarray  # (lesions,) the highest score of what covers it; -inf where it is not found
    predicted_score: np.ndarray  # (predicted,) the highest probability in each; 1 where none were given

    @property
    def true_positive_rate(self) -> float:
        """LTPR: of the lesions, how many were found."""
        return float(self.found.mean()) if self.found.size else float("nan")

    @property
    def false_positive_rate(self) -> float:
        """LFPR: of the predicted ones, how many are no lesion."""
        return float((~self.true).mean()) if self.true.size else float("nan")

    @property
    def f1(self) -> float:
        """The harmonic mean of the share that was found and the share that is true."""
        if not self.found.size and not self.true.size:
            return float("nan")
        if not self.found.any() or not self.true.any():
            return 0.0
        recall, precision = float(self.found.mean()), float(self.true.mean())
        return 2 * recall * precision / (recall + precision)


def match_lesions(
    truth: np.ndarray,
    predicted: np.ndarray,
    voxel_mm3: float,
    rules: Rules = Rules(),  # frozen
    probability: np.ndarray | None = None,
) -> LesionMatch:
    """
    Args:
        truth, predicted: (D, H, W) bool.
        probability: (D, H, W), for the scores of what was predicted.
    Raises:
        ValueError: of two shapes, or not bool.
    """
    same_grid_bool(truth, predicted)
    box = ndimage.find_objects((truth | predicted).view(np.uint8), max_label=1)[0]
    if box is not None:
        truth, predicted = truth[box], predicted[box]
        probability = None if probability is None else probability[box]
    lesions = Components.of(truth, voxel_mm3, rules.connectivity, rules.least_truth_mm3)
    findings = Components.of(predicted, voxel_mm3, rules.connectivity, rules.least_predicted_mm3)
    lesion, finding = lesions.labels.ravel(), findings.labels.ravel()

    found = is_hit(np.bincount(lesion[finding > 0], minlength=len(lesions) + 1)[1:], lesions.voxels, rules)
    true = is_hit(np.bincount(finding[lesion > 0], minlength=len(findings) + 1)[1:], findings.voxels, rules)
    over_truth = np.bincount(finding[truth.ravel()], minlength=len(findings) + 1)[1:]
    counted = true | ~is_hit(over_truth, findings.voxels, rules)

    score = np.ones(len(findings))
    if probability is not None:
        score = np.full(len(findings) + 1, -np.inf)
        np.maximum.at(score, finding, probability.ravel())
        score = score[1:]
    truth_score = np.full(len(lesions), -np.inf)
    both = (lesion > 0) & (finding > 0)
    np.maximum.at(truth_score, lesion[both] - 1, score[finding[both] - 1])
    truth_score[~found] = -np.inf
    return LesionMatch(lesions.mm3, found, findings.mm3[counted], true[counted], truth_score, score[counted])


def recall_by_size(
    matches: Sequence[LesionMatch], edges_mm3: Sequence[float] = SIZE_BINS_MM3
) -> list[tuple[float, float, int, int]]:
    """For each bin: its lower edge (of it), its upper one (not of it), how many lesions it has, how many were found."""
    sizes = np.concatenate([m.truth_mm3 for m in matches] or [np.zeros(0)])
    found = np.concatenate([m.found for m in matches] or [np.zeros(0, bool)])
    rows = []
    for low, high in pairwise(edges_mm3):
        inside = (sizes >= low) & (sizes < high)
        rows.append((float(low), float(high), int(inside.sum()), int(found[inside].sum())))
    return rows


def free_response(matches: Sequence[LesionMatch]) -> np.ndarray:
    """(points, 3): score, false findings a scan, share of the lesions found, when only findings of at least this score
    count; highest score first. Empty without scans or without lesions."""
    lesions = sum(len(m.found) for m in matches)
    if not lesions:
        return np.zeros((0, 3))
    hits = np.sort(np.concatenate([m.truth_score for m in matches]))
    false = np.sort(np.concatenate([m.predicted_score[~m.true] for m in matches]))
    scores = np.unique(np.concatenate([hits[np.isfinite(hits)], false]))[::-1]
    above = [len(values) - np.searchsorted(values, scores) for values in (false, hits)]
    return np.stack([scores, above[0] / len(matches), above[1] / lesions], axis=1)


def without_small(mask: np.ndarray, voxel_mm3: float, least_mm3: float, connectivity: int = 18) -> np.ndarray:
    """A (D, H, W) bool mask without its components below a size."""
    return Components.of(mask, voxel_mm3, connectivity, least_mm3).labels > 0


def is_hit(covered: np.ndarray, voxels: np.ndarray, rules: Rules) -> np.ndarray:
    """(n,) bool: which components of so many voxels, so many of which are covered, are found by the rules."""
    return (covered >= rules.hit_voxels) & (covered >= rules.hit_fraction * voxels - 1e-9)
